//! The child's way from fork to exec. It allocates nothing: the shim has one thread, but what is inherited in the middle
//! of something stays there.

use std::{
    ffi::c_char,
    os::fd::{AsFd as _, OwnedFd},
};

use nix::{
    errno::Errno,
    fcntl::OFlag,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        prctl,
        resource::{Resource, getrlimit, setrlimit},
        signal::{SigSet, SigmaskHow, Signal, sigprocmask},
        stat::{Mode, umask},
    },
    unistd::{self, ForkResult, Pid, pipe2},
};

use super::prepare::{Cwd, Plan};
use crate::{
    sandbox::{
        Missing, Part, canary,
        cgroup::Doors,
        confine::{self, Confinement},
    },
    sys::{self, Reaped},
};

/// Where a script's interpreter finds it. The shim itself never has so many files open.
pub(super) const SCRIPT_FD: std::os::fd::RawFd = 100;

/// What a child has.
#[derive(Debug)]
pub(super) struct Means<'a> {
    pub(super) plan: &'a Plan,
    pub(super) shim: Pid,
    pub(super) doors: Option<&'a Doors>,
    /// It was not born into its control group of version 2.
    pub(super) joins_group: bool,
    pub(super) stdout: &'a OwnedFd,
    pub(super) stderr: &'a OwnedFd,
    pub(super) failure: &'a OwnedFd,
    pub(super) ending: &'a OwnedFd,
    pub(super) life: &'a OwnedFd,
    /// Above the numbers of all files that the shim has open.
    pub(super) files_end: std::os::fd::RawFd,
    pub(super) argv: &'a [*const c_char],
    pub(super) environment: &'a [*const c_char],
}

/// How far the child came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Stage {
    Setup = 0,
    User = 1,
    Cwd = 2,
    Exec = 3,
    Sandbox = 4,
}

/// What went wrong.
#[derive(Debug, Clone, Copy)]
pub(super) struct Report {
    pub(super) stage: Stage,
    /// Of a [`Stage::Sandbox`]: the [`Part`].
    pub(super) part: u8,
    pub(super) errno: Errno,
}

impl Report {
    pub(super) const BYTES: usize = 6;

    fn encode(self) -> [u8; Self::BYTES] {
        let [a, b, c, d] = (self.errno as i32).to_ne_bytes();
        [self.stage as u8, self.part, a, b, c, d]
    }

    pub(super) fn decode([stage, part, errno @ ..]: [u8; Self::BYTES]) -> Self {
        let all = [Stage::Setup, Stage::User, Stage::Cwd, Stage::Exec, Stage::Sandbox];
        let stage = all.into_iter().find(|one| *one as u8 == stage).unwrap_or(Stage::Setup);
        Self { stage, part, errno: Errno::from_raw(i32::from_ne_bytes(errno)) }
    }
}

impl From<Missing> for Report {
    fn from((part, errno): Missing) -> Self {
        Self { stage: Stage::Sandbox, part: part as u8, errno }
    }
}

fn at(stage: Stage) -> impl Fn(Errno) -> Report {
    move |errno| Report { stage, part: 0, errno }
}

/// The life of the child. It ends as the program, as its init, or with a report of what went wrong.
pub(super) fn live(means: &Means<'_>) -> ! {
    let ended =
        if means.plan.confinement.namespaces == 0 { become_program(means, None) } else { become_init(means) };
    let _ = unistd::write(means.failure, &ended.encode());
    sys::exit_now(127)
}

/// Makes the namespaces what the run is to see, starts the program in them, and takes in what ends there. Comes back
/// only with what went wrong before the program was started.
fn become_init(means: &Means<'_>) -> Report {
    match prepare_init(means) {
        Ok(program) => tend(means, program),
        Err(report) => report,
    }
}

fn prepare_init(means: &Means<'_>) -> Result<Pid, Report> {
    let confinement = &means.plan.confinement;
    // The shim's number does not show in here. That it lives is known by a pipe of which it has the other end.
    prctl::set_pdeathsig(Signal::SIGKILL).map_err(at(Stage::Setup))?;
    let mut life = [PollFd::new(means.life.as_fd(), PollFlags::POLLIN)];
    if poll(&mut life, PollTimeout::ZERO).map_err(at(Stage::Setup))? > 0 {
        return Err(at(Stage::Setup)(Errno::ESRCH));
    }
    join_groups(means)?;
    confinement.enter_namespaces()?;
    if let Some(identity) = &means.plan.identity {
        unistd::setgroups(&identity.groups).map_err(at(Stage::User))?;
    }
    // In a namespace of its own the program waits until its user is mapped.
    let (mapped, map) = pipe2(OFlag::O_CLOEXEC).map_err(at(Stage::Setup))?;
    let forked = match &confinement.program_user {
        None => sys::fork().map_err(at(Stage::Setup))?,
        Some(_) => sys::fork_into(None, sys::namespaces::USER)
            .map_err(|errno| Report::from((Part::UserNamespace, errno)))?,
    };
    match forked {
        ForkResult::Child => {
            drop(map);
            let report = become_program(means, Some(&mapped));
            let _ = unistd::write(means.failure, &report.encode());
            sys::exit_now(127)
        }
        ForkResult::Parent { child } => {
            if let Some(user) = &confinement.program_user {
                user.write_of(child)?;
            }
            unistd::write(&map, b"m").map_err(at(Stage::Setup))?;
            Ok(child)
        }
    }
}

/// The init from when the program is started: it holds nothing of it, waits, and tells how it ended.
fn tend(means: &Means<'_>, program: Pid) -> ! {
    // The output, the locks and all else are the shim's and the program's alone.
    let Ok(ending) = sys::keep_only(means.ending, means.files_end) else { sys::exit_now(127) };
    let _ = sys::drop_bounding_set();
    let _ = sys::drop_capabilities();
    let _ = prctl::set_no_new_privs();
    loop {
        match sys::reap(true) {
            Reaped::One(pid, exit) if pid == program => {
                let _ = unistd::write(&ending, &sys::status_of(exit).to_ne_bytes());
            }
            Reaped::One(..) | Reaped::NoneYet => {}
            Reaped::Alone => sys::exit_now(0),
        }
    }
}

/// Comes back only with what went wrong. With an init it starts once the init has mapped its user.
fn become_program(means: &Means<'_>, mapped: Option<&OwnedFd>) -> Report {
    match prepare_program(means, mapped) {
        Err(report) => report,
        Ok(()) if means.plan.is_canary => {
            sys::exit_now(canary::first_not_denied(means.plan.profile).into());
        }
        Ok(()) => {
            let mut found = Errno::ENOENT;
            for candidate in &means.plan.candidates {
                match sys::execute(candidate, means.argv, means.environment) {
                    Errno::ENOENT | Errno::ENOTDIR => {}
                    Errno::EACCES => found = Errno::EACCES,
                    errno => return at(Stage::Exec)(errno),
                }
            }
            at(Stage::Exec)(found)
        }
    }
}

fn prepare_program(means: &Means<'_>, mapped: Option<&OwnedFd>) -> Result<(), Report> {
    let Means { plan, .. } = means;
    let confinement: &Confinement = &plan.confinement;
    if let Some(mapped) = mapped {
        let mut letter = [0; 1];
        if unistd::read(mapped, &mut letter).map_err(at(Stage::Setup))? == 0 {
            return Err(at(Stage::Setup)(Errno::ESRCH));
        }
    } else {
        join_groups(means)?;
    }
    set_up(means).map_err(at(Stage::Setup))?;
    sys::close_others_at_exec(means.files_end);
    if let Some(script) = &plan.script {
        sys::keep_at(script, SCRIPT_FD).map_err(at(Stage::Setup))?;
    }
    confinement.limit()?;
    confinement.bound_capabilities()?;
    if let Some(identity) = &plan.identity {
        if mapped.is_none() {
            unistd::setgroups(&identity.groups).map_err(at(Stage::User))?;
        }
        unistd::setresgid(identity.gid, identity.gid, identity.gid)
            .and_then(|()| unistd::setresuid(identity.uid, identity.uid, identity.uid))
            .map_err(at(Stage::User))?;
    }
    if mapped.is_none() {
        // A shim that is killed takes the program with it. This must follow the change of the user.
        let _ = prctl::set_pdeathsig(Signal::SIGKILL);
        if unistd::getppid() != means.shim {
            // It was killed before that: nobody would end the program or record its exit.
            return Err(at(Stage::Setup)(Errno::ESRCH));
        }
    }
    enter_cwd(plan)?;
    confinement.give_up()?;
    Ok(())
}

fn join_groups(means: &Means<'_>) -> Result<(), Report> {
    let Some(doors) = means.doors else { return Ok(()) };
    if let Some(door) = doors.processes.as_ref().filter(|_| means.joins_group) {
        match unistd::write(door, b"0") {
            Err(errno) if means.plan.needs_group => return Err((Part::ControlGroup, errno).into()),
            // Without the group the run is ended by its process tree alone.
            _ => {}
        }
    }
    for door in &doors.tasks {
        unistd::write(door, b"0").map_err(|errno| Report::from((Part::ControlGroup, errno)))?;
    }
    Ok(())
}

fn set_up(means: &Means<'_>) -> nix::Result<()> {
    unistd::setsid()?;
    unistd::dup2_stdout(means.stdout)?;
    unistd::dup2_stderr(means.stderr)?;
    sys::default_signals();
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None)?;
    umask(Mode::from_bits_truncate(0o022));
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, means.plan.open_files.min(hard), hard)
}

fn enter_cwd(plan: &Plan) -> Result<(), Report> {
    let (path, how) = (plan.cwd.as_c_str(), plan.cwd_is);
    let entered = match how {
        Cwd::Resolved => confine::enter_folder(path),
        Cwd::Named | Cwd::Default => unistd::chdir(path),
    };
    match entered {
        // Nobody asked for this directory: where it cannot be entered, the root directory does.
        Err(_) if how == Cwd::Default => unistd::chdir(c"/").map_err(at(Stage::Cwd)),
        entered => entered.map_err(at(Stage::Cwd)),
    }
}
