//! The system calls that the link has no use for, and that a program which took it over would try first.
//!
//! It is a list of what is denied: the runtime, the resolver and the C library of a host use calls that nobody can list
//! ahead. What is denied fails as if there were no permission, so that nothing which merely probes for it dies.

use std::{collections::BTreeMap, io};

use seccompiler::{
    BackendError, SeccompAction, SeccompCmpArgLen as Width, SeccompCmpOp as Op, SeccompCondition, SeccompRule,
};

use crate::sys::{filter, obey_filter};

/// Programs, other processes, the kernel itself, mounts, keys, users, clocks, namespaces, and rings whose work no filter
/// sees.
const DENIED: &[libc::c_long] = &[
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_process_madvise,
    libc::SYS_pidfd_getfd,
    libc::SYS_kcmp,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_bpf,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_reboot,
    libc::SYS_syslog,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_quotactl,
    libc::SYS_acct,
    libc::SYS_fanotify_init,
    libc::SYS_open_by_handle_at,
    libc::SYS_name_to_handle_at,
    libc::SYS_mknodat,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    libc::SYS_setuid,
    libc::SYS_setgid,
    libc::SYS_setreuid,
    libc::SYS_setregid,
    libc::SYS_setresuid,
    libc::SYS_setresgid,
    libc::SYS_setfsuid,
    libc::SYS_setfsgid,
    libc::SYS_setgroups,
    libc::SYS_capset,
    libc::SYS_personality,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
];

/// The same of one architecture.
#[cfg(target_arch = "x86_64")]
const DENIED_HERE: &[libc::c_long] = &[
    libc::SYS_fork,
    libc::SYS_vfork,
    libc::SYS_kexec_file_load,
    libc::SYS_iopl,
    libc::SYS_ioperm,
    libc::SYS_modify_ldt,
    libc::SYS_mknod,
    libc::SYS_uselib,
];
#[cfg(not(target_arch = "x86_64"))]
const DENIED_HERE: &[libc::c_long] = &[];

/// Sockets of other families are of no use to it, and reach code of the kernel that is seldom looked at.
const FAMILIES: [libc::c_int; 4] = [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK];

/// Lets the filters hold for this thread and those that it starts.
pub(super) fn apply() -> io::Result<()> {
    // Its arguments are out of a filter's sight. The C library takes the older call where there is none of this.
    let no_clone3 = BTreeMap::from([(libc::SYS_clone3, Vec::new())]);
    for (rules, errno) in [(denied().map_err(io::Error::other)?, libc::EPERM), (no_clone3, libc::ENOSYS)] {
        let denies = SeccompAction::Errno(errno.unsigned_abs());
        obey_filter(&filter(rules, SeccompAction::Allow, denies).map_err(io::Error::other)?)?;
    }
    Ok(())
}

fn denied() -> Result<BTreeMap<libc::c_long, Vec<SeccompRule>>, BackendError> {
    let mut rules: BTreeMap<_, Vec<SeccompRule>> =
        DENIED.iter().chain(DENIED_HERE).map(|call| (*call, Vec::new())).collect();
    // A thread is no process: it shares its memory.
    let thread = u64::from(libc::CLONE_THREAD.unsigned_abs());
    rules.insert(libc::SYS_clone, vec![SeccompRule::new(vec![condition(0, Op::MaskedEq(thread), 0)?])?]);
    let foreign = FAMILIES.iter().map(|family| condition(0, Op::Ne, u64::from(family.unsigned_abs())));
    rules.insert(libc::SYS_socket, vec![SeccompRule::new(foreign.collect::<Result<_, _>>()?)?]);
    // That it ends with its executor is not for it to change.
    let ends = u64::from(libc::PR_SET_PDEATHSIG.unsigned_abs());
    rules.insert(libc::SYS_prctl, vec![SeccompRule::new(vec![condition(0, Op::Eq, ends)?])?]);
    // Keys typed into somebody's terminal.
    rules.insert(libc::SYS_ioctl, vec![SeccompRule::new(vec![condition(1, Op::Eq, libc::TIOCSTI)?])?]);
    Ok(rules)
}

fn condition(argument: u8, op: Op, value: u64) -> Result<SeccompCondition, BackendError> {
    SeccompCondition::new(argument, Width::Dword, op, value)
}
