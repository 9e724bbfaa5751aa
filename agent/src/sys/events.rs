//! What a runtime waits for. Called within one, and not between fork and exec.

use std::{
    io,
    os::fd::{BorrowedFd, FromRawFd as _, OwnedFd, RawFd},
};

use tokio::io::{Interest, unix::AsyncFd};

/// A copy of a descriptor, whose readability can be waited for.
///
/// # Errors
/// When there are no more descriptors, or this is no file that can be waited for.
pub(crate) fn watch(fd: BorrowedFd<'_>) -> io::Result<AsyncFd<OwnedFd>> {
    register(fd.try_clone_to_owned()?)
}

/// The end of the process with this number, which need not be a child; it is readable once the process has ended, from before
/// anybody has taken it in.
///
/// # Errors
/// When there is none, and on kernels before 5.3.
pub(crate) fn watch_end(pid: u32) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: the call takes two numbers and touches no memory of ours.
    let file = unsafe { libc::syscall(libc::SYS_pidfd_open, libc::c_ulong::from(pid), 0_u64) };
    let file = RawFd::try_from(file).ok().filter(|file| *file >= 0).ok_or_else(io::Error::last_os_error)?;
    // SAFETY: the kernel has just given us this descriptor, closed on exec, and nobody else knows it.
    register(unsafe { OwnedFd::from_raw_fd(file) })
}

fn register(file: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an owned descriptor is valid, open and the same until it is dropped, which is after the registration.
    let watched = unsafe { AsyncFd::register_with_interest(file, Interest::READABLE) };
    watched.map_err(io::Error::from)
}
