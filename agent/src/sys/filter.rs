//! Filters of system calls: made of rules, and obeyed.

use std::{collections::BTreeMap, ffi::c_int};

use nix::errno::Errno;
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, SeccompRule, TargetArch};

/// A filter as the kernel takes it.
pub(crate) type Filter = Vec<libc::sock_filter>;

/// What becomes of calls by their numbers: `matching` where one of the rules holds, and there it needs none to hold always.
/// A call by another architecture's table ends the process, and x32's numbers fail.
///
/// # Errors
/// When it cannot be made for this architecture.
pub(crate) fn filter(
    rules: BTreeMap<i64, Vec<SeccompRule>>,
    otherwise: SeccompAction,
    matching: SeccompAction,
) -> Result<Filter, seccompiler::Error> {
    let architecture = TargetArch::try_from(std::env::consts::ARCH)?;
    let program: BpfProgram = SeccompFilter::new(rules, otherwise, matching, architecture)?.try_into()?;
    let own = program.into_iter().map(|step| libc::sock_filter {
        code: step.code,
        jt: step.jt,
        jf: step.jf,
        k: step.k,
    });
    Ok(without_x32().into_iter().chain(own).collect())
}

/// On x86-64 the kernel may have a second table, whose numbers have this bit: no rule names them.
fn without_x32() -> [libc::sock_filter; 3] {
    const LOAD_NUMBER: u16 = 0x20;
    const JUMP_IF_AT_LEAST: u16 = 0x35;
    const RETURN: u16 = 0x06;
    const X32: u32 = 0x4000_0000;
    const FAIL: u32 = 0x0005_0000;
    let step = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    [
        step(LOAD_NUMBER, 0, 0, 0),
        step(JUMP_IF_AT_LEAST, 0, 1, X32),
        step(RETURN, 0, 0, FAIL | libc::ENOSYS.unsigned_abs()),
    ]
}

/// This thread and all that it starts obey the filter from now on. Allocates nothing.
///
/// # Errors
/// `EINVAL` for what is no filter, `EACCES` without `no_new_privs`.
pub(crate) fn obey_filter(filter: &[libc::sock_filter]) -> nix::Result<()> {
    const SET_MODE_FILTER: c_int = 1;
    let program = libc::sock_fprog {
        len: u16::try_from(filter.len()).map_err(|_| Errno::E2BIG)?,
        filter: filter.as_ptr().cast_mut(),
    };
    // SAFETY: the kernel copies the filter, which outlives the call, and does not write to it.
    let done = unsafe { libc::syscall(libc::SYS_seccomp, SET_MODE_FILTER, 0, &raw const program) };
    Errno::result(done).map(drop)
}
