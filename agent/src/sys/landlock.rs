//! Landlock.

use std::{
    ffi::c_int,
    os::fd::{AsRawFd as _, OwnedFd},
    ptr,
};

use nix::errno::Errno;

use super::owned;

/// What a Landlock ruleset handles; the kernel's structure.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Handled {
    pub(crate) files: u64,
    pub(crate) network: u64,
    pub(crate) scopes: u64,
}

/// The version of Landlock that the kernel has.
///
/// # Errors
/// `ENOSYS` or `EOPNOTSUPP` where it has none.
pub(crate) fn landlock_version() -> nix::Result<u32> {
    const VERSION: u32 = 1;
    // SAFETY: asks for the version; takes no structure.
    let version =
        unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, ptr::null::<Handled>(), 0, VERSION) };
    Errno::result(version).map(|version| u32::try_from(version).unwrap_or(0))
}

/// A ruleset that forbids all that it handles.
///
/// # Errors
/// `EINVAL` for what the kernel does not know.
pub(crate) fn landlock_ruleset(handled: &Handled) -> nix::Result<OwnedFd> {
    // SAFETY: the structure is the kernel's and outlives the call.
    owned(unsafe {
        libc::syscall(libc::SYS_landlock_create_ruleset, ptr::from_ref(handled), size_of::<Handled>(), 0)
    })
}

/// Allows `rights` at a file and below it.
///
/// # Errors
/// `EINVAL` for rights that the file cannot have, or the ruleset does not handle.
pub(crate) fn landlock_allow(ruleset: &OwnedFd, at: &OwnedFd, rights: u64) -> nix::Result<()> {
    const PATH_BENEATH: c_int = 1;
    #[repr(C, packed)]
    struct PathBeneath {
        rights: u64,
        parent: c_int,
    }
    let rule = PathBeneath { rights, parent: at.as_raw_fd() };
    // SAFETY: the structure is the kernel's and outlives the call.
    let done = unsafe {
        libc::syscall(libc::SYS_landlock_add_rule, ruleset.as_raw_fd(), PATH_BENEATH, &raw const rule, 0)
    };
    Errno::result(done).map(drop)
}

/// This thread and all that it starts obey the ruleset from now on.
///
/// # Errors
/// `EPERM` without `no_new_privs`.
pub(crate) fn landlock_obey(ruleset: &OwnedFd) -> nix::Result<()> {
    // SAFETY: takes no pointer.
    let done = unsafe { libc::syscall(libc::SYS_landlock_restrict_self, ruleset.as_raw_fd(), 0) };
    Errno::result(done).map(drop)
}
