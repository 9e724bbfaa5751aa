//! What must be denied in a sandbox, tried from inside: a sandbox in which one of these succeeds is none.
//!
//! It runs in the child in place of a program, after all else, so what it finds is what a program would.

use std::{ffi::CStr, os::fd::OwnedFd};

use model::sandbox::Profile;
use nix::{
    errno::Errno,
    fcntl::{OFlag, open},
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
    sys::{
        prctl,
        signal::kill,
        socket::{AddressFamily, SockFlag, SockType, SockaddrIn, connect, socket},
        stat::Mode,
    },
    unistd::{Pid, Uid, chroot, getpid, setuid},
};

use crate::sys;

/// One thing to try: from which profile on it must be denied, what it is, and whether it was.
type Check = (Profile, &'static str, fn() -> bool);

const CHECKS: [Check; 16] = [
    (Profile::Standard, "it is root", || !Uid::effective().is_root()),
    (Profile::Standard, "it became root", || setuid(Uid::from_raw(0)).is_err()),
    (Profile::Standard, "it may gain privileges", || prctl::get_no_new_privs() == Ok(true)),
    (Profile::Standard, "it changed its root folder", || chroot(c"/").is_err()),
    (Profile::Standard, "it has capabilities", || sys::has_no_capabilities()),
    (Profile::Strict, "it wrote into the host's root folder", || is_read_only(c"/opsconductor-canary")),
    (Profile::Strict, "it wrote into /etc", || is_read_only(c"/etc/opsconductor-canary")),
    (Profile::Strict, "it mounted", || {
        mount(None::<&CStr>, c"/", None::<&CStr>, MsFlags::MS_PRIVATE, None::<&CStr>) == Err(Errno::EPERM)
    }),
    (Profile::Strict, "it made a user namespace", || unshare(CloneFlags::CLONE_NEWUSER) == Err(Errno::EPERM)),
    (Profile::Strict, "it traces", || sys::trace_me() == Err(Errno::EPERM)),
    (Profile::Strict, "it reached the keys", || sys::session_keyring() == Err(Errno::EPERM)),
    (Profile::Strict, "it opened a packet socket", || opened(AddressFamily::Packet) == Some(Errno::EPERM)),
    (Profile::Strict, "it sees the host's processes", || {
        getpid() == Pid::from_raw(2) && kill(Pid::from_raw(3), None) == Err(Errno::ESRCH)
    }),
    (Profile::Isolated, "it opened a netlink socket", || opened(AddressFamily::Netlink).is_some()),
    (Profile::Isolated, "it opened a connection", has_no_way_out),
    (Profile::Isolated, "it looked into /srv or /home", || is_unreadable(c"/home") && is_unreadable(c"/srv")),
];

/// Tries all that this profile must deny; the number of the first that was not, from 1, or 0.
pub(crate) fn first_not_denied(profile: Profile) -> u8 {
    let failed = CHECKS.iter().position(|(from, _, is_denied)| profile >= *from && !is_denied());
    failed.map_or(0, |index| u8::try_from(index).unwrap_or(u8::MAX - 1) + 1)
}

/// What such a number means.
pub(crate) fn name(number: u8) -> &'static str {
    let check = usize::from(number).checked_sub(1).and_then(|index| CHECKS.get(index));
    check.map_or("it did not come to an end", |(_, name, _)| name)
}

fn is_read_only(path: &CStr) -> bool {
    let flags = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_WRONLY | OFlag::O_CLOEXEC;
    open(path, flags, Mode::S_IRUSR).is_err()
}

fn is_unreadable(path: &CStr) -> bool {
    open(path, OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty()).is_err()
}

/// Why a socket was refused; none when it was not.
fn opened(family: AddressFamily) -> Option<Errno> {
    let made: nix::Result<OwnedFd> = socket(family, SockType::Raw, SockFlag::SOCK_CLOEXEC, None);
    made.err()
}

fn has_no_way_out() -> bool {
    let made = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None);
    let Ok(socket) = made else { return true };
    // Documentation's network: where there is a way out the attempt would wait, so it is made by a local address first.
    let way = connect(std::os::fd::AsRawFd::as_raw_fd(&socket), &SockaddrIn::new(127, 0, 0, 1, 9));
    matches!(way, Err(Errno::EACCES | Errno::ENETUNREACH | Errno::EPERM))
}
