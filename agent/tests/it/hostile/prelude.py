# What the programs of the corpus share. Each calls trying() when all is prepared for the one thing that it tries.
import ctypes, errno, os, signal, socket, struct, sys, time

libc = ctypes.CDLL(None, use_errno=True)
given = os.environ.get


class Denied(Exception):
    pass


class Absent(Exception):
    pass


def trying():
    print("trying", flush=True)


def call(number, *arguments):
    """A system call by its number; what is a pointer is given as bytes or as an array."""
    ctypes.set_errno(0)
    words = [ctypes.c_long(one) if isinstance(one, int) else one for one in arguments]
    result = libc.syscall(ctypes.c_long(number), *words)
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def but(allowed, work):
    """Does it; these errors come only after the kernel has allowed it."""
    try:
        return work()
    except OSError as error:
        if error.errno == errno.ENOSYS:
            raise Absent()
        if error.errno not in allowed:
            raise


def any_of(work, ways):
    """Tries one way after the other; fails as the last one does."""
    for way in ways[:-1]:
        try:
            return work(way)
        except OSError:
            pass
    return work(ways[-1])


def child(work):
    """The exit status of a child that does it."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            work()
            code = 0
        except OSError as error:
            code = error.errno
        finally:
            os._exit(code)
    return os.waitpid(pid, 0)[1]


def in_child(work):
    """Does it in a child, so that it changes nothing here."""
    status = child(work)
    if os.WIFSIGNALED(status):
        os.kill(os.getpid(), os.WTERMSIG(status))
    if status:
        raise OSError(os.WEXITSTATUS(status), os.strerror(os.WEXITSTATUS(status)))


def main(work):
    try:
        work()
    except Denied as why:
        print("denied:", why, flush=True)
    except Absent:
        print("absent", flush=True)
    except OSError as error:
        print("denied:", error.strerror, flush=True)
    else:
        print("allowed", flush=True)
