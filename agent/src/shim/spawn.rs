//! Fork, exec and wait: what of the shim cannot be done without `unsafe`.
//!
//! The shim has one thread. Between fork and exec the child allocates nothing and only makes system calls.

#![allow(unsafe_code, reason = "fork, exec and wait have no safe interface; each use says why it holds")]

use std::{
    ffi::{CStr, CString, c_char, c_int},
    fs::File,
    os::fd::{AsFd as _, AsRawFd as _, FromRawFd as _, IntoRawFd as _, OwnedFd, RawFd},
    ptr,
};

use model::Reason;
use nix::{
    errno::Errno,
    fcntl::OFlag,
    sys::{
        prctl,
        resource::{Resource, getrlimit, setrlimit},
        signal::{SigSet, SigmaskHow, Signal, sigprocmask},
        stat::{Mode, umask},
    },
    unistd::{self, ForkResult, Pid, pipe2},
};

use super::prepare::{Failure, Plan};
use crate::sandbox::cgroup::Doors;

/// Where a script's interpreter finds it. The shim itself never has so many files open.
pub(super) const SCRIPT_FD: RawFd = 100;
/// Files that the program may open until it raises that itself: what programs are used to. Those that go through all
/// numbers up to the limit would be slow with the agent's own.
const OPEN_FILES: u64 = 1024;
/// The highest signal number, real-time signals included.
const LAST_SIGNAL: c_int = 64;

/// A child on its way.
#[derive(Debug)]
pub(super) struct Child {
    pub(super) pid: Pid,
    pub(super) stdout: OwnedFd,
    pub(super) stderr: OwnedFd,
    /// Ends without a byte when the program runs; else it brings what [`read_failure`] reads.
    pub(super) failure: OwnedFd,
}

/// How far the child came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Stage {
    Setup = 0,
    User = 1,
    Cwd = 2,
    Exec = 3,
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Exit {
    Code(i32),
    Signal { number: i32, core: bool },
}

/// What a look for ended children brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reaped {
    One(Pid, Exit),
    /// There are children, and they run.
    NoneYet,
    /// There is no child left, and so nothing of what they started either: we are the sub-reaper.
    Alone,
}

/// Starts the program of `plan` in the control group behind `doors`, where there is one.
///
/// # Errors
/// When there are no more processes or pipes to be had. What the child runs into comes through its `failure` pipe.
pub(super) fn spawn(plan: &Plan, doors: Option<&Doors>) -> nix::Result<Child> {
    let (stdout, child_stdout) = pipe2(OFlag::O_CLOEXEC)?;
    let (stderr, child_stderr) = pipe2(OFlag::O_CLOEXEC)?;
    let (failure, child_failure) = pipe2(OFlag::O_CLOEXEC)?;
    let argv = pointers(&plan.argv);
    let environment = pointers(&plan.environment.0);
    let shim = Pid::this();
    // SAFETY: the child runs `become_program` only, which allocates nothing and never returns.
    let born = doors.and_then(|doors| doors.folder.as_ref()).map(|folder| unsafe { fork_into(folder) });
    let (forked, door) = match born {
        Some(Ok(forked)) => (forked, None),
        // SAFETY: as above.
        Some(Err(_)) | None => (unsafe { unistd::fork() }?, doors.and_then(|doors| doors.processes.as_ref())),
    };
    let tasks = doors.map_or(&[][..], |doors| &doors.tasks);
    match forked {
        ForkResult::Parent { child } => Ok(Child { pid: child, stdout, stderr, failure }),
        ForkResult::Child => {
            let (stage, errno) =
                become_program(plan, shim, (door, tasks), &child_stdout, &child_stderr, &argv, &environment);
            let mut report = [0; 5];
            report[0] = stage as u8;
            report[1..].copy_from_slice(&(errno as i32).to_ne_bytes());
            let _ = unistd::write(&child_failure, &report);
            // SAFETY: ends the child at once; nothing of the parent's is run or flushed.
            unsafe { libc::_exit(127) }
        }
    }
}

/// A fork whose child is born into a control group. Old kernels and some containers refuse it.
///
/// # Safety
/// As for a fork: the process must have one thread, or the child may only make system calls. The C library does not
/// know of this child, so it must not use threads or locks of it before it becomes another program.
unsafe fn fork_into(group: &File) -> nix::Result<ForkResult> {
    const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
    /// What the system call takes: eleven numbers, all that is not wanted zero.
    #[repr(C, align(8))]
    #[derive(Default)]
    struct Arguments {
        flags: u64,
        descriptors_and_threads: [u64; 3],
        exit_signal: u64,
        stack_and_ids: [u64; 5],
        cgroup: u64,
    }
    let arguments = Arguments {
        flags: CLONE_INTO_CGROUP,
        exit_signal: libc::SIGCHLD as u64,
        cgroup: u64::try_from(group.as_raw_fd()).unwrap_or(u64::MAX),
        ..Arguments::default()
    };
    // SAFETY: the structure is laid out as the kernel wants it and outlives the call; without a stack of its own the
    // child goes on like that of a fork.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw const arguments, size_of::<Arguments>()) };
    match Errno::result(pid)? {
        0 => Ok(ForkResult::Child),
        pid => Ok(ForkResult::Parent { child: Pid::from_raw(i32::try_from(pid).unwrap_or(-1)) }),
    }
}

/// The child's way from fork to exec; comes back only with what went wrong.
fn become_program(
    plan: &Plan,
    shim: Pid,
    doors: (Option<&File>, &[File]),
    stdout: &OwnedFd,
    stderr: &OwnedFd,
    argv: &[*const c_char],
    environment: &[*const c_char],
) -> (Stage, Errno) {
    if let Err(errno) = set_up(plan, doors, stdout, stderr) {
        return (Stage::Setup, errno);
    }
    if let Some(identity) = &plan.identity {
        let changed = unistd::setgroups(&identity.groups)
            .and_then(|()| unistd::setresgid(identity.gid, identity.gid, identity.gid))
            .and_then(|()| unistd::setresuid(identity.uid, identity.uid, identity.uid));
        if let Err(errno) = changed {
            return (Stage::User, errno);
        }
    }
    // A shim that is killed takes the program with it. This must follow the change of the user.
    let _ = prctl::set_pdeathsig(Signal::SIGKILL);
    if unistd::getppid() != shim {
        // It was killed before that: nobody would end the program or record its exit.
        return (Stage::Setup, Errno::ESRCH);
    }
    if let Err(errno) = unistd::chdir(plan.cwd.as_c_str()) {
        if !plan.cwd_is_default {
            return (Stage::Cwd, errno);
        }
        if let Err(errno) = unistd::chdir(c"/") {
            return (Stage::Cwd, errno);
        }
    }
    let mut found = Errno::ENOENT;
    for candidate in &plan.candidates {
        match execute(candidate, argv, environment) {
            Errno::ENOENT | Errno::ENOTDIR => {}
            Errno::EACCES => found = Errno::EACCES,
            errno => return (Stage::Exec, errno),
        }
    }
    (Stage::Exec, found)
}

fn set_up(
    plan: &Plan,
    (door, tasks): (Option<&File>, &[File]),
    stdout: &OwnedFd,
    stderr: &OwnedFd,
) -> nix::Result<()> {
    unistd::setsid()?;
    for door in door.into_iter().chain(tasks) {
        // Without the group the run is ended by its process tree alone.
        let _ = unistd::write(door, b"0");
    }
    unistd::dup2_stdout(stdout)?;
    unistd::dup2_stderr(stderr)?;
    close_others_at_exec();
    if let Some(script) = &plan.script {
        // SAFETY: nothing else of this process owns that number; it stays open on purpose.
        let kept = unsafe { unistd::dup2_raw(script.as_fd(), SCRIPT_FD) }?;
        let _ = kept.into_raw_fd();
    }
    for number in 1..=LAST_SIGNAL {
        // SAFETY: sets the default action; no handler of ours exists. Fails harmlessly for numbers that have none.
        unsafe { libc::signal(number, libc::SIG_DFL) };
    }
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None)?;
    umask(Mode::from_bits_truncate(0o022));
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, OPEN_FILES.min(hard), hard)
}

/// Every file of the shim is made close-on-exec anyway; this is for what it may have inherited.
fn close_others_at_exec() {
    let (first, last) = (3 as libc::c_uint, libc::c_uint::MAX);
    // SAFETY: only marks open files; takes no pointer. Old kernels refuse it.
    unsafe { libc::syscall(libc::SYS_close_range, first, last, libc::CLOSE_RANGE_CLOEXEC) };
}

fn execute(program: &CStr, argv: &[*const c_char], environment: &[*const c_char]) -> Errno {
    // SAFETY: both arrays end with a null pointer and point to strings that `spawn` borrows for longer than this.
    unsafe { libc::execve(program.as_ptr(), argv.as_ptr(), environment.as_ptr()) };
    Errno::last()
}

fn pointers(strings: &[CString]) -> Vec<*const c_char> {
    strings.iter().map(|string| string.as_ptr()).chain([ptr::null()]).collect()
}

/// Reads what a child reported; none when its program runs.
pub(super) fn read_failure(pipe: &OwnedFd, plan: &Plan) -> Option<Failure> {
    let mut report = [0; 5];
    let [stage, errno @ ..] = match unistd::read(pipe, &mut report) {
        Ok(read) if read == report.len() => report,
        _ => return None,
    };
    let errno = Errno::from_raw(i32::from_ne_bytes(errno));
    let (program, why) = (&plan.program, errno.desc());
    let (reason, detail) = if stage == Stage::Cwd as u8 {
        let cwd = plan.cwd.to_string_lossy();
        (Reason::BadWorkingDirectory, format!("the working directory '{cwd}' cannot be entered: {why}"))
    } else if stage == Stage::User as u8 {
        (Reason::SpawnFailed, format!("the user cannot be changed: {why}"))
    } else if stage == Stage::Setup as u8 {
        (Reason::SpawnFailed, format!("the process cannot be set up: {why}"))
    } else if matches!(errno, Errno::ENOENT | Errno::ENOTDIR) {
        (Reason::ProgramNotFound, not_found(plan))
    } else {
        (Reason::SpawnFailed, format!("'{program}' cannot be run: {why}"))
    };
    Some(Failure { reason, detail })
}

fn not_found(plan: &Plan) -> String {
    let program = &plan.program;
    let exists = plan
        .candidates
        .iter()
        .any(|path| path.to_str().is_ok_and(|path| std::fs::exists(path).unwrap_or(false)));
    if exists {
        format!("'{program}' is on this host, but the interpreter or loader that it names is not")
    } else if program.contains('/') {
        format!("the program '{program}' is not on this host")
    } else {
        format!("the program '{program}' is not in the search path of this host")
    }
}

/// A file without a place in any folder, which is gone with the last process that has it open.
///
/// # Errors
/// When the kernel has no memory or no such files.
pub(super) fn file_in_memory(name: &CStr) -> nix::Result<OwnedFd> {
    // SAFETY: `name` outlives the call. (By number, because the oldest C library that we support lacks the function.)
    let made = unsafe { libc::syscall(libc::SYS_memfd_create, name.as_ptr(), libc::MFD_CLOEXEC) };
    let fd = Errno::result(made)?;
    // SAFETY: the kernel has just made this descriptor; a descriptor fits its type.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// Takes in one child that has ended.
pub(super) fn reap() -> Reaped {
    let mut status = 0;
    // SAFETY: `status` outlives the call. (The safe wrapper refuses real-time signals, after it has taken the child.)
    let pid = unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG) };
    match pid {
        0 => Reaped::NoneYet,
        -1 => Reaped::Alone,
        pid if libc::WIFEXITED(status) => {
            Reaped::One(Pid::from_raw(pid), Exit::Code(libc::WEXITSTATUS(status)))
        }
        pid => {
            let exit = Exit::Signal { number: libc::WTERMSIG(status), core: libc::WCOREDUMP(status) };
            Reaped::One(Pid::from_raw(pid), exit)
        }
    }
}
