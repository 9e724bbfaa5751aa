//! What has no safe interface: fork and exec, and the system calls of the sandbox that neither `std` nor `nix` wraps.
//!
//! All `unsafe` of the agent stands here. Nothing here allocates: much of it is called between fork and exec.

#![allow(unsafe_code, reason = "raw system calls; each block says why it holds")]

mod events;
mod filter;
mod landlock;

use std::{
    ffi::{CStr, c_char, c_int, c_ulong},
    fs::File,
    mem::MaybeUninit,
    os::fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _, IntoRawFd as _, OwnedFd, RawFd},
    ptr,
};

use nix::{
    errno::Errno,
    unistd::{self, ForkResult, Pid},
};

pub(crate) use self::{
    events::{watch, watch_end},
    filter::{Filter, filter, obey_filter},
    landlock::{Handled, landlock_allow, landlock_obey, landlock_ruleset, landlock_version},
};

/// The highest signal number, real-time signals included.
const LAST_SIGNAL: c_int = 64;
/// The highest capability that a kernel may have.
const LAST_CAPABILITY: c_ulong = 63;

/// Namespaces that a child is born into, as `clone3` names them.
pub(crate) mod namespaces {
    pub(crate) const MOUNT: u64 = libc::CLONE_NEWNS as u64;
    pub(crate) const CGROUP: u64 = libc::CLONE_NEWCGROUP as u64;
    pub(crate) const UTS: u64 = libc::CLONE_NEWUTS as u64;
    pub(crate) const IPC: u64 = libc::CLONE_NEWIPC as u64;
    pub(crate) const USER: u64 = libc::CLONE_NEWUSER as u64;
    pub(crate) const PID: u64 = libc::CLONE_NEWPID as u64;
    pub(crate) const NETWORK: u64 = libc::CLONE_NEWNET as u64;
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    Code(i32),
    Signal { number: i32, core: bool },
}

/// What a look for ended children brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reaped {
    One(Pid, Exit),
    /// There are children, and they run.
    NoneYet,
    /// There is no child left.
    Alone,
}

/// Forks.
///
/// # Errors
/// When there are no more processes to be had.
///
/// # Panics
/// Never; but the caller has to have one thread, and its child must neither return nor allocate.
pub(crate) fn fork() -> nix::Result<ForkResult> {
    // SAFETY: the shim has one thread, so no lock can be held by another one that the child does not have.
    unsafe { unistd::fork() }
}

/// Forks a child that is born in new `namespaces`, and in the control group `group` where there is one.
///
/// # Errors
/// `ENOSYS` on kernels before 5.3 (5.7 with a group), `EPERM` where this process may not make such namespaces.
pub(crate) fn fork_into(group: Option<&File>, namespaces: u64) -> nix::Result<ForkResult> {
    const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
    #[repr(C)]
    #[derive(Default)]
    struct Arguments {
        flags: u64,
        pidfd_and_tids: [u64; 3],
        exit_signal: u64,
        stack_and_ids: [u64; 5],
        cgroup: u64,
    }
    let arguments = Arguments {
        flags: namespaces | if group.is_some() { CLONE_INTO_CGROUP } else { 0 },
        exit_signal: libc::SIGCHLD as u64,
        cgroup: group.map_or(0, |group| u64::try_from(group.as_raw_fd()).unwrap_or(u64::MAX)),
        ..Arguments::default()
    };
    // SAFETY: the structure is laid out as the kernel wants it and outlives the call; without a stack of its own the
    // child goes on like that of a fork, and there is one thread.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw const arguments, size_of::<Arguments>()) };
    match Errno::result(pid)? {
        0 => Ok(ForkResult::Child),
        pid => Ok(ForkResult::Parent { child: Pid::from_raw(i32::try_from(pid).unwrap_or(-1)) }),
    }
}

/// Ends this process at once.
pub(crate) fn exit_now(code: i32) -> ! {
    // SAFETY: runs no handler and touches no memory.
    unsafe { libc::_exit(code) }
}

/// Becomes another program; comes back only when it cannot. Both arrays must end with a null pointer.
pub(crate) fn execute(program: &CStr, argv: &[*const c_char], environment: &[*const c_char]) -> Errno {
    debug_assert!([argv, environment].iter().all(|array| array.last().is_some_and(|last| last.is_null())));
    // SAFETY: the pointers were made of strings that the caller borrows for longer than this.
    unsafe { libc::execve(program.as_ptr(), argv.as_ptr(), environment.as_ptr()) };
    Errno::last()
}

/// A number above those of all files that this process has open.
pub(crate) fn files_end() -> RawFd {
    let open = std::fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
    let numbers = open.filter_map(|entry| entry.file_name().to_str()?.parse::<RawFd>().ok());
    let by_limit = || {
        let limit = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE);
        limit.map_or(RawFd::MAX, |(_, hard)| RawFd::try_from(hard).unwrap_or(RawFd::MAX))
    };
    numbers.max().map_or_else(by_limit, |highest| highest.saturating_add(1))
}

/// Every open file but the standard three is closed when the process becomes another program. `end` is above the numbers
/// of all that may be open otherwise than to be closed then.
pub(crate) fn close_others_at_exec(end: RawFd) {
    let (first, last) = (3 as libc::c_uint, libc::c_uint::MAX);
    // SAFETY: only marks open files; takes no pointer.
    let marked = unsafe { libc::syscall(libc::SYS_close_range, first, last, libc::CLOSE_RANGE_CLOEXEC) };
    if marked == 0 {
        return;
    }
    // Kernels before 5.11: one after the other.
    for number in 3..end {
        // SAFETY: only marks an open file; a number that is none fails harmlessly.
        unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) };
    }
}

/// Keeps a copy of `file` open at `number`, through the next exec too.
///
/// # Errors
/// When there are no more open files to be had.
pub(crate) fn keep_at(file: &OwnedFd, number: RawFd) -> nix::Result<()> {
    // SAFETY: nothing else of this process owns that number; it stays open on purpose.
    let kept = unsafe { unistd::dup2_raw(file.as_fd(), number) }?;
    let _ = kept.into_raw_fd();
    Ok(())
}

/// Closes every open file but the standard three and this one. `end` is above the numbers of all that are open.
///
/// # Errors
/// When the kernel refuses.
pub(crate) fn keep_only(file: &OwnedFd, end: RawFd) -> nix::Result<OwnedFd> {
    const PLACE: RawFd = 3;
    if file.as_raw_fd() != PLACE {
        // SAFETY: whoever owned the number is never asked again: the caller does nothing but wait from here on.
        Errno::result(unsafe { libc::dup3(file.as_raw_fd(), PLACE, libc::O_CLOEXEC) })?;
    }
    let (first, last) = (PLACE as libc::c_uint + 1, libc::c_uint::MAX);
    // SAFETY: as above.
    if unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) } != 0 {
        for number in PLACE + 1..end {
            // SAFETY: as above.
            unsafe { libc::close(number) };
        }
    }
    // SAFETY: the number was opened above.
    Ok(unsafe { OwnedFd::from_raw_fd(PLACE) })
}

/// Every signal does what it does by default.
pub(crate) fn default_signals() {
    for number in 1..=LAST_SIGNAL {
        // SAFETY: sets the default action; no handler of ours exists. Fails harmlessly for numbers that have none.
        unsafe { libc::signal(number, libc::SIG_DFL) };
    }
}

/// A file without a place in any folder, which is gone with the last process that has it open.
///
/// # Errors
/// When the kernel has no memory or no such files.
pub(crate) fn file_in_memory(name: &CStr) -> nix::Result<OwnedFd> {
    // SAFETY: `name` outlives the call. (By number, because the oldest C library that we support lacks the function.)
    owned(unsafe { libc::syscall(libc::SYS_memfd_create, name.as_ptr(), libc::MFD_CLOEXEC) })
}

/// Takes in one child that has ended; waits for one when `blocking`.
pub(crate) fn reap(blocking: bool) -> Reaped {
    let mut status = 0;
    let options = if blocking { 0 } else { libc::WNOHANG };
    loop {
        // SAFETY: `status` outlives the call. (The safe wrapper refuses real-time signals, after it has taken the child.)
        let pid = unsafe { libc::waitpid(-1, &raw mut status, options) };
        return match pid {
            0 => Reaped::NoneYet,
            -1 if Errno::last() == Errno::EINTR => continue,
            -1 => Reaped::Alone,
            pid => Reaped::One(Pid::from_raw(pid), exit_of(status)),
        };
    }
}

/// What a wait status says.
pub(crate) fn exit_of(status: i32) -> Exit {
    if libc::WIFEXITED(status) {
        Exit::Code(libc::WEXITSTATUS(status))
    } else {
        Exit::Signal { number: libc::WTERMSIG(status), core: libc::WCOREDUMP(status) }
    }
}

/// The wait status that says this.
pub(crate) fn status_of(exit: Exit) -> i32 {
    match exit {
        Exit::Code(code) => (code & 0xff) << 8,
        Exit::Signal { number, core } => number | if core { 0x80 } else { 0 },
    }
}

/// What a mount does, as `mount_setattr` names it.
pub(crate) mod mount_attributes {
    pub(crate) const READ_ONLY: u64 = 0x1;
    pub(crate) const NO_SUID: u64 = 0x2;
    pub(crate) const NO_DEVICES: u64 = 0x4;
}

#[repr(C)]
struct MountAttributes {
    set: u64,
    clear: u64,
    propagation: u64,
    user_namespace: u64,
}

/// Sets and clears attributes of a mount, and of those below it.
///
/// # Errors
/// `ENOSYS` on kernels before 5.12; `EPERM` for what a user namespace must not change.
pub(crate) fn set_mount_attributes(at: At<'_>, set: u64, clear: u64, recursive: bool) -> nix::Result<()> {
    let attributes = MountAttributes { set, clear, propagation: 0, user_namespace: 0 };
    let flags = at.flags() | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: path and structure outlive the call; the structure is the kernel's.
    let done = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            at.folder(),
            at.path().as_ptr(),
            flags,
            &raw const attributes,
            size_of::<MountAttributes>(),
        )
    };
    Errno::result(done).map(drop)
}

/// A file by its path, or by a descriptor.
#[derive(Debug, Clone, Copy)]
pub(crate) enum At<'a> {
    Path(&'a CStr),
    File(BorrowedFd<'a>),
}

impl At<'_> {
    fn folder(&self) -> c_int {
        match self {
            Self::Path(_) => libc::AT_FDCWD,
            Self::File(file) => file.as_raw_fd(),
        }
    }

    fn path(&self) -> &CStr {
        match self {
            Self::Path(path) => path,
            Self::File(_) => c"",
        }
    }

    fn flags(&self) -> c_int {
        match self {
            Self::Path(_) => 0,
            Self::File(_) => libc::AT_EMPTY_PATH,
        }
    }
}

/// A copy of the mounts at a file, attached to nothing yet.
///
/// # Errors
/// `ENOSYS` on kernels before 5.2.
pub(crate) fn copy_mounts(at: At<'_>, recursive: bool) -> nix::Result<OwnedFd> {
    const CLONE: c_int = 1;
    let flags = at.flags() | CLONE | libc::O_CLOEXEC | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the path outlives the call.
    owned(unsafe { libc::syscall(libc::SYS_open_tree, at.folder(), at.path().as_ptr(), flags) })
}

/// Attaches such a copy at `to`, over what is there.
///
/// # Errors
/// As `move_mount` says.
pub(crate) fn attach_mounts(tree: BorrowedFd<'_>, to: At<'_>) -> nix::Result<()> {
    const FROM_EMPTY_PATH: c_int = 0x4;
    const TO_EMPTY_PATH: c_int = 0x40;
    let flags = FROM_EMPTY_PATH | if matches!(to, At::File(_)) { TO_EMPTY_PATH } else { 0 };
    // SAFETY: both paths outlive the call.
    let done = unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            tree.as_raw_fd(),
            c"".as_ptr(),
            to.folder(),
            to.path().as_ptr(),
            flags,
        )
    };
    Errno::result(done).map(drop)
}

/// Nothing that is started from here can ever have a capability again: the bounding set is empty where this process may
/// empty it.
///
/// # Errors
/// When the kernel refuses although this process may.
pub(crate) fn drop_bounding_set() -> nix::Result<()> {
    for capability in 0..=LAST_CAPABILITY {
        // SAFETY: takes no pointer.
        match Errno::result(unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) }) {
            // The kernel has no more of them.
            Err(Errno::EINVAL) => break,
            Err(errno) => return Err(errno),
            Ok(_) => {}
        }
    }
    Ok(())
}

/// Whether no program that is executed can bring a capability.
pub(crate) fn bounding_set_is_empty() -> bool {
    // SAFETY: takes no pointer. What the kernel does not know is an error.
    let has = |capability: c_ulong| unsafe { libc::prctl(libc::PR_CAPBSET_READ, capability, 0, 0, 0) } == 1;
    !(0..=LAST_CAPABILITY).any(has)
}

/// This process gives all its capabilities up.
///
/// # Errors
/// Never on a sane kernel.
pub(crate) fn drop_capabilities() -> nix::Result<()> {
    #[repr(C)]
    struct Header {
        version: u32,
        pid: c_int,
    }
    const VERSION_3: u32 = 0x2008_0522;
    let header = Header { version: VERSION_3, pid: 0 };
    let none = [[0_u32; 3]; 2];
    // SAFETY: both structures are the kernel's and outlive the call.
    let done = unsafe { libc::syscall(libc::SYS_capset, &raw const header, none.as_ptr()) };
    Errno::result(done)?;
    // SAFETY: takes no pointer. Kernels before 4.3 have no ambient set.
    unsafe { libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) };
    Ok(())
}

/// Whether this process has no capability, and can gain none by becoming another program.
pub(crate) fn has_no_capabilities() -> bool {
    #[repr(C)]
    struct Header {
        version: u32,
        pid: c_int,
    }
    const VERSION_3: u32 = 0x2008_0522;
    let header = Header { version: VERSION_3, pid: 0 };
    let mut sets = [[u32::MAX; 3]; 2];
    // SAFETY: both structures are the kernel's and outlive the call.
    let done = unsafe { libc::syscall(libc::SYS_capget, &raw const header, sets.as_mut_ptr()) };
    done == 0 && sets == [[0; 3]; 2]
}

/// Asks to be traced by the parent, as debuggers have their programs do.
///
/// # Errors
/// Where tracing is forbidden.
pub(crate) fn trace_me() -> nix::Result<()> {
    // SAFETY: takes no pointer.
    Errno::result(unsafe { libc::syscall(libc::SYS_ptrace, 0, 0, 0, 0) }).map(drop)
}

/// Looks up the session's keyring.
///
/// # Errors
/// Where keys are forbidden.
pub(crate) fn session_keyring() -> nix::Result<()> {
    const GET_ID: c_int = 0;
    const SESSION: c_int = -3;
    // SAFETY: takes no pointer.
    Errno::result(unsafe { libc::syscall(libc::SYS_keyctl, GET_ID, SESSION, 0) }).map(drop)
}

/// Keys that were given to this process's session are out of its reach from now on. Where keys are unknown, or forbidden to
/// all that is started here, there are none to reach.
///
/// # Errors
/// When the kernel has no room for another keyring.
pub(crate) fn leave_session_keyring() -> nix::Result<()> {
    const JOIN_SESSION: c_int = 1;
    // SAFETY: no name is given, which asks for a new one without a name.
    let done = unsafe { libc::syscall(libc::SYS_keyctl, JOIN_SESSION, ptr::null::<c_char>()) };
    match Errno::result(done) {
        Err(Errno::ENOSYS | Errno::EPERM | Errno::EOPNOTSUPP) => Ok(()),
        done => done.map(drop),
    }
}

/// What System V has for processes to share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ipc {
    Memory,
    Messages,
    Semaphores,
}

/// Removes one of them; one that is gone is removed.
///
/// # Errors
/// When this process may not.
pub(crate) fn remove_ipc(kind: Ipc, number: c_int) -> nix::Result<()> {
    // SAFETY: to remove takes no pointer.
    let done = unsafe {
        match kind {
            Ipc::Memory => libc::shmctl(number, libc::IPC_RMID, ptr::null_mut()),
            Ipc::Messages => libc::msgctl(number, libc::IPC_RMID, ptr::null_mut()),
            Ipc::Semaphores => libc::semctl(number, 0, libc::IPC_RMID),
        }
    };
    match Errno::result(done) {
        Err(Errno::EINVAL | Errno::EIDRM) => Ok(()),
        done => done.map(drop),
    }
}

/// Brings the loopback interface of this network namespace up.
///
/// # Errors
/// When this process may not.
pub(crate) fn raise_loopback() -> nix::Result<()> {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

    let socket = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    // SAFETY: an interface's name and flags, for which all zeros is a value.
    let mut request: libc::ifreq = unsafe { MaybeUninit::zeroed().assume_init() };
    request.ifr_name[0] = b'l'.cast_signed();
    request.ifr_name[1] = b'o'.cast_signed();
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as i16;
    // SAFETY: the request is the kernel's structure and outlives the call.
    let done = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) };
    Errno::result(done).map(drop)
}

fn owned(result: libc::c_long) -> nix::Result<OwnedFd> {
    let number = Errno::result(result)?;
    // SAFETY: the kernel has just made this descriptor; a descriptor fits its type.
    Ok(unsafe { OwnedFd::from_raw_fd(number as RawFd) })
}
