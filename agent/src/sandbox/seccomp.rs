//! Which system calls a confined run may make.
//!
//! `strict` forbids those that programs of every day do not make and through which kernels were broken; `isolated` allows
//! only those that they do make. A forbidden one fails with `EPERM`, one that is not on the list with `ENOSYS`, which
//! programs understand as a kernel that does not have it. Both lists hold for the architecture that they were made for:
//! a call by another one's table ends the process, and x32's numbers fail.

/// A list of system calls, by their names in `libc`.
macro_rules! calls {
    ($($call:ident),* $(,)?) => {
        &[$($crate::sandbox::seccomp::Call { number: libc::$call, name: stringify!($call) }),*]
    };
}

mod allowed;
mod forbidden;
pub(crate) mod oci;

use std::collections::BTreeMap;

use seccompiler::{SeccompAction, SeccompCmpArgLen::Dword, SeccompCmpOp, SeccompCondition, SeccompRule};

use crate::sys::{Filter, filter};

/// A system call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Call {
    /// On the architecture that this is built for.
    number: libc::c_long,
    /// As `libc` calls it: `SYS_` and what the kernel calls it.
    name: &'static str,
}

/// The control of terminals by which one pushes input into another's.
const TIOCLINUX: u64 = 0x541C;
/// Every way to ask `clone` for a namespace.
const NEW_NAMESPACES: u64 = (libc::CLONE_NEWUSER
    | libc::CLONE_NEWNS
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWCGROUP) as u64;
/// Kinds of sockets that reach into the kernel or past the network: packets, kernel cryptography, virtual machines, ….
const FORBIDDEN_SOCKETS: [libc::c_int; 5] =
    [libc::AF_PACKET, libc::AF_ALG, libc::AF_VSOCK, libc::AF_KEY, libc::AF_XDP];
/// Of an isolated run: these and no others.
const ALLOWED_SOCKETS: [libc::c_int; 3] = [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6];

/// What `strict` forbids.
///
/// # Errors
/// When it cannot be made for this architecture.
pub(super) fn forbidding() -> Result<Filter, seccompiler::Error> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> =
        forbidden::CALLS.iter().chain(forbidden::CALLS_HERE).map(|call| (call.number, Vec::new())).collect();
    let mut any = |call, argument, values: &[(SeccompCmpOp, u64)]| {
        let rule = |(how, value): &(SeccompCmpOp, u64)| {
            SeccompRule::new(vec![SeccompCondition::new(argument, Dword, how.clone(), *value)?])
        };
        let made = values.iter().map(rule).collect::<Result<_, _>>()?;
        rules.insert(call, made);
        Ok::<(), seccompiler::BackendError>(())
    };
    any(libc::SYS_ioctl, 1, &[(SeccompCmpOp::Eq, libc::TIOCSTI), (SeccompCmpOp::Eq, TIOCLINUX)])?;
    let sockets = FORBIDDEN_SOCKETS.map(|kind| (SeccompCmpOp::Eq, u64::from(kind.unsigned_abs())));
    any(libc::SYS_socket, 0, &sockets)?;
    any(libc::SYS_socketpair, 0, &sockets)?;
    let bits = (0..64).map(|bit| 1 << bit).filter(|bit| NEW_NAMESPACES & bit != 0);
    let flags: Vec<_> = bits.map(|bit| (SeccompCmpOp::MaskedEq(bit), bit)).collect();
    any(libc::SYS_clone, 0, &flags)?;
    filter(rules, SeccompAction::Allow, SeccompAction::Errno(libc::EPERM.unsigned_abs()))
}

/// Its flags are behind a pointer, which no filter can follow: programs take `clone` when the kernel does not have it.
///
/// # Errors
/// When it cannot be made for this architecture.
pub(super) fn without_clone3() -> Result<Filter, seccompiler::Error> {
    let rules = BTreeMap::from([(libc::SYS_clone3, Vec::new())]);
    filter(rules, SeccompAction::Allow, SeccompAction::Errno(libc::ENOSYS.unsigned_abs()))
}

/// What `isolated` allows; [`forbidding`] stands beside it.
///
/// # Errors
/// When it cannot be made for this architecture.
pub(super) fn allowing() -> Result<Filter, seccompiler::Error> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> =
        allowed::CALLS.iter().chain(allowed::CALLS_HERE).map(|call| (call.number, Vec::new())).collect();
    let kinds = ALLOWED_SOCKETS.map(|kind| u64::from(kind.unsigned_abs()));
    let kinds =
        kinds.map(|kind| SeccompRule::new(vec![SeccompCondition::new(0, Dword, SeccompCmpOp::Eq, kind)?]));
    rules.insert(libc::SYS_socket, kinds.into_iter().collect::<Result<_, _>>()?);
    filter(rules, SeccompAction::Errno(libc::ENOSYS.unsigned_abs()), SeccompAction::Allow)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_filters_can_be_made_and_do_not_contradict_each_other() {
        for made in [forbidding(), without_clone3(), allowing()] {
            let made = made.unwrap();
            assert!(made.len() > 3 && made.len() < 4096, "{}", made.len());
        }
        let both: Vec<_> = forbidden::CALLS.iter().filter(|call| allowed::CALLS.contains(call)).collect();
        assert!(both.is_empty(), "{both:?}");
    }
}
