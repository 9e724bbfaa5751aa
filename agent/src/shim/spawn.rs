//! Starts the program: the parent's side of fork and exec.

use std::{
    ffi::{CString, c_char},
    os::fd::{AsFd as _, OwnedFd},
    ptr,
};

use model::{Reason, sandbox::Profile};
use nix::{
    errno::Errno,
    fcntl::OFlag,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    unistd::{self, ForkResult, Pid, pipe2},
};

use super::{
    child::{self, Report, Stage},
    prepare::{self, Failure, Plan},
};
use crate::{
    sandbox::{Part, cgroup::Doors},
    sys::{self, Exit},
};

/// A child on its way.
#[derive(Debug)]
pub(super) struct Child {
    /// The program, or the init of its namespaces.
    pub(super) pid: Pid,
    pub(super) stdout: OwnedFd,
    pub(super) stderr: OwnedFd,
    /// Ends without a byte when the program runs; else it brings what [`read_failure`] reads.
    pub(super) failure: OwnedFd,
    /// Where there is an init, it says here how the program ended.
    pub(super) ending: Option<Ending>,
}

/// The program's end, as the init of its namespaces tells it.
#[derive(Debug)]
pub(super) struct Ending {
    pipe: OwnedFd,
    /// Its other end is open for as long as this process lives, which is how the init knows that it does.
    _life: OwnedFd,
}

impl Ending {
    pub(super) fn pipe(&self) -> &OwnedFd {
        &self.pipe
    }

    /// How the program ended, if it has and that was not read before.
    pub(super) fn read(&self) -> Option<Exit> {
        let mut fds = [PollFd::new(self.pipe.as_fd(), PollFlags::POLLIN)];
        let is_there = poll(&mut fds, PollTimeout::ZERO).is_ok_and(|found| found > 0);
        let mut status = [0; 4];
        match unistd::read(&self.pipe, is_there.then_some(&mut status[..])?) {
            Ok(read) if read == status.len() => Some(sys::exit_of(i32::from_ne_bytes(status))),
            _ => None,
        }
    }
}

/// Starts the program of `plan` in the control group behind `doors`, where there is one.
///
/// # Errors
/// When there are no more processes or pipes to be had, or not such namespaces. What the child runs into comes through its
/// `failure` pipe.
pub(super) fn spawn(plan: &Plan, doors: Option<&Doors>) -> nix::Result<Child> {
    let (stdout, child_stdout) = pipe2(OFlag::O_CLOEXEC)?;
    let (stderr, child_stderr) = pipe2(OFlag::O_CLOEXEC)?;
    let (failure, child_failure) = pipe2(OFlag::O_CLOEXEC)?;
    let namespaces = plan.confinement.namespaces;
    let (pipe, child_ending) = pipe2(OFlag::O_CLOEXEC)?;
    let (child_life, life) = pipe2(OFlag::O_CLOEXEC)?;
    let argv = pointers(&plan.argv);
    let environment = pointers(&plan.environment.0);
    let means = child::Means {
        plan,
        shim: Pid::this(),
        doors,
        joins_group: false,
        stdout: &child_stdout,
        stderr: &child_stderr,
        failure: &child_failure,
        ending: &child_ending,
        life: &child_life,
        files_end: sys::files_end().max(child::SCRIPT_FD + 1),
        argv: &argv,
        environment: &environment,
    };
    let group = doors.and_then(|doors| doors.folder.as_ref());
    let (forked, joins_group) = match (group, namespaces) {
        (None, 0) => (sys::fork()?, true),
        // Old kernels and some containers refuse a child that is born into a group.
        (Some(_), 0) => sys::fork_into(group, 0)
            .map(|forked| (forked, false))
            .or_else(|_| sys::fork().map(|forked| (forked, true)))?,
        (None, namespaces) => (sys::fork_into(None, namespaces)?, true),
        (Some(_), namespaces) => sys::fork_into(group, namespaces)
            .map(|forked| (forked, false))
            .or_else(|_| sys::fork_into(None, namespaces).map(|forked| (forked, true)))?,
    };
    match forked {
        ForkResult::Parent { child } => {
            let ending = (namespaces != 0).then_some(Ending { pipe, _life: life });
            Ok(Child { pid: child, stdout, stderr, failure, ending })
        }
        ForkResult::Child => {
            // The shim's own ends are not for the child.
            drop((life, pipe, failure, stdout, stderr));
            child::live(&child::Means { joins_group, ..means })
        }
    }
}

fn pointers(strings: &[CString]) -> Vec<*const c_char> {
    strings.iter().map(|string| string.as_ptr()).chain([ptr::null()]).collect()
}

/// Reads what a child reported; none when its program runs.
pub(super) fn read_failure(pipe: &OwnedFd, plan: &Plan) -> Option<Failure> {
    let mut report = [0; Report::BYTES];
    let report = match unistd::read(pipe, &mut report) {
        Ok(read) if read == report.len() => Report::decode(report),
        _ => return None,
    };
    let (program, why) = (&plan.program, report.errno.desc());
    let (reason, detail) = match report.stage {
        Stage::Cwd => {
            let cwd = plan.cwd.to_string_lossy();
            (Reason::BadWorkingDirectory, format!("the working directory '{cwd}' cannot be entered: {why}"))
        }
        Stage::User if plan.profile != Profile::None => {
            return Some(prepare::unavailable(plan.profile, &format!("a user of its own: {why}")));
        }
        Stage::User => (Reason::SpawnFailed, format!("the user cannot be changed: {why}")),
        Stage::Setup => (Reason::SpawnFailed, format!("the process cannot be set up: {why}")),
        Stage::Sandbox => {
            let missing = format!("{}: {why}", Part::name(report.part));
            return Some(prepare::unavailable(plan.profile, &missing));
        }
        Stage::Exec if matches!(report.errno, Errno::ENOENT | Errno::ENOTDIR) => {
            (Reason::ProgramNotFound, not_found(plan))
        }
        Stage::Exec => (Reason::SpawnFailed, format!("'{program}' cannot be run: {why}")),
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
        format!(
            "'{program}' is on this host, but the interpreter or loader that it names is not, or its sandbox hides it"
        )
    } else if program.contains('/') {
        format!("the program '{program}' is not on this host")
    } else {
        format!("the program '{program}' is not in the search path of this host")
    }
}
