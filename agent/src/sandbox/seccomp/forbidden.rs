//! The system calls that no confined run makes.

use super::Call;

/// System calls with all their arguments, none of which a confined run needs.
pub(super) const CALLS: &[Call] = calls![
    // The kernel itself
    SYS_bpf,
    SYS_kexec_load,
    SYS_kexec_file_load,
    SYS_init_module,
    SYS_finit_module,
    SYS_delete_module,
    SYS_reboot,
    SYS_syslog,
    SYS_perf_event_open,
    SYS_userfaultfd,
    SYS_io_uring_setup,
    SYS_io_uring_enter,
    SYS_io_uring_register,
    SYS_lookup_dcookie,
    SYS_nfsservctl,
    SYS_quotactl,
    SYS_quotactl_fd,
    SYS_acct,
    SYS_swapon,
    SYS_swapoff,
    SYS_vhangup,
    SYS_fanotify_init,
    // Keys
    SYS_add_key,
    SYS_request_key,
    SYS_keyctl,
    // Other processes
    SYS_ptrace,
    SYS_process_vm_readv,
    SYS_process_vm_writev,
    SYS_kcmp,
    SYS_pidfd_getfd,
    SYS_move_pages,
    SYS_migrate_pages,
    // Mounts and namespaces
    SYS_mount,
    SYS_umount2,
    SYS_pivot_root,
    SYS_chroot,
    SYS_move_mount,
    SYS_open_tree,
    SYS_fsopen,
    SYS_fsconfig,
    SYS_fsmount,
    SYS_fspick,
    SYS_mount_setattr,
    SYS_setns,
    SYS_unshare,
    SYS_open_by_handle_at,
    SYS_name_to_handle_at,
    // The host's clock, name and disks
    SYS_settimeofday,
    SYS_clock_settime,
    SYS_clock_adjtime,
    SYS_adjtimex,
    SYS_sethostname,
    SYS_setdomainname,
];
#[cfg(target_arch = "x86_64")]
pub(super) const CALLS_HERE: &[Call] = calls![SYS_iopl, SYS_ioperm, SYS_modify_ldt, SYS_uselib, SYS__sysctl];
#[cfg(not(target_arch = "x86_64"))]
pub(super) const CALLS_HERE: &[Call] = calls![];
