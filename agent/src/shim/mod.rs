//! The process that owns one attempt: it starts the program, keeps its output, ends it, and records its end.
//!
//! 1. It shares nothing inherited with the agent, only the attempt's folder: `lock` (who owns the attempt), `output`
//!    (see [`crate::segment`]), `control.sock` (see [`control`]), `exit` and `spare` (see [`record`]), `cgroup` (the path of its
//!    control group), `container` (see [`container::note`]). The agent may die, restart and be upgraded meanwhile.
//! 2. It has one thread, and a runtime only for a [`container`], where it forks nothing.
//! 3. The exit record is written once nothing of the run is left and its output is on the disk, and not before. The one
//!    exception are processes that cannot be killed: the record names them, the shim ends, and they are the host's. Their
//!    control group stays for as long as they do.
//! 4. Its variables come through its standard input (see [`spec`]); it cannot be dumped.

mod child;
pub mod container;
pub mod control;
mod ending;
pub mod lock;
mod output;
mod outputs;
mod pace;
mod prepare;
pub mod probe;
mod quota;
pub mod record;
mod run;
mod spawn;
pub mod spec;
mod tree;

use std::{
    io::{self, ErrorKind, Write as _},
    path::Path,
    process::ExitCode,
    time::Duration,
};

use model::{
    Reason,
    limits::{DEFAULT_RUN_PIDS, OUTPUTS_BYTES},
    sandbox::Profile,
};
use nix::{
    fcntl::{OFlag, open},
    sys::{
        prctl,
        signal::{SigSet, Signal},
        signalfd::{SfdFlags, SignalFd},
        stat::Mode,
    },
    unistd::{dup2_stderr, dup2_stdin, dup2_stdout, setsid},
};
use prost::Message as _;

use self::{
    control::Control,
    lock::Lock,
    output::Output,
    prepare::{Enforced, Failure},
    quota::Quota,
    record::{Place, Spare},
    run::{Means, Run},
    spec::Spec,
};
use crate::{
    clock,
    sandbox::{
        cgroup::{Cgroup, Created, Limits, PIDS_LIMIT},
        temporary,
    },
    segment::Writer,
};

/// The file that holds the path of the attempt's control group.
pub const CGROUP_FILE_NAME: &str = "cgroup";
/// What the shim says on its standard output when the attempt is its own, before it starts anything.
pub const READY: &str = "ready";

/// All that a shim has once it is ready.
struct Shim {
    spec: Spec,
    control: Control,
    signals: SignalFd,
    place: Place,
    output: Output,
    /// Held as long as the shim lives.
    _lock: Lock,
}

/// Runs the attempt in `folder`, as its description on standard input says.
///
/// Before anything is started one line goes to standard output: [`READY`], or why nothing will be.
pub fn main(folder: &Path) -> ExitCode {
    let shim = match Shim::get_ready(folder) {
        Ok(shim) => shim,
        Err(error) => {
            say(&format!("{error:#}"));
            return ExitCode::FAILURE;
        }
    };
    fault::point("shim.ready.saying");
    say(READY);
    fault::point("shim.ready.said");
    match shim.and_then_run() {
        Ok(()) => ExitCode::SUCCESS,
        // Nobody listens any more; the missing record tells.
        Err(_) => ExitCode::FAILURE,
    }
}

fn say(line: &str) {
    let mut stdout = io::stdout().lock();
    // An agent that is gone reads nothing; the attempt is adopted by its folder.
    let _ = stdout.write_all(format!("{line}\n").as_bytes()).and_then(|()| stdout.flush());
}

impl Shim {
    fn get_ready(folder: &Path) -> anyhow::Result<Self> {
        use anyhow::Context as _;

        std::env::set_current_dir(folder).context("the attempt's folder cannot be entered")?;
        let here = Path::new(".");
        let lock = Lock::take_made(here).context("the attempt's lock cannot be taken")?;
        let lock = lock.context("the attempt belongs to another shim")?;
        fault::point("shim.lock.taken");
        let spec = Spec::read(io::stdin().lock()).context("the attempt's description is not readable")?;
        if lock::is_given_up(here) || record::read(here)?.is_some() {
            anyhow::bail!("the attempt was given up before it began");
        }
        fault::point("shim.spec.read");
        // An agent starts each shim outside of its own session; started by hand it may lead a group already.
        let _ = setsid();
        prctl::set_child_subreaper(true).context("the shim cannot become the sub-reaper")?;
        prctl::set_dumpable(false).context("the shim cannot be closed to others")?;
        let signals = take_over_signals().context("the signals cannot be taken over")?;
        let writer = Writer::create(here).context("the output file cannot be made")?;
        let spare = Spare::reserve(here).context("there is no room for the end of the output")?;
        // The folders of all attempts are beside each other.
        let quota = Quota::new("..".into(), Some(spec.spool_bytes).filter(|bytes| *bytes > 0));
        let block_for = Duration::from_millis(spec.block_for_ms);
        let output = Output::new(writer, spare, run::output_limit(&spec), quota, block_for);
        let has_outputs = spec.command.as_ref().is_some_and(|command| !command.outputs.is_empty());
        let place = Place::reserve(here, if has_outputs { OUTPUTS_BYTES } else { 0 })
            .context("the exit record's place cannot be had")?;
        fault::point("shim.place.reserved");
        let control = Control::bind_here().context("the control socket cannot be opened")?;
        Ok(Self { spec, control, signals, place, output, _lock: lock })
    }

    fn and_then_run(self) -> io::Result<()> {
        let Self { mut spec, mut control, signals, place, output, _lock } = self;
        let null = open("/dev/null", OFlag::O_RDWR | OFlag::O_CLOEXEC, Mode::empty())?;
        dup2_stdin(&null)?;
        dup2_stdout(&null)?;
        dup2_stderr(&null)?;
        drop(null);

        let name = spec.attempt_name();
        let Created { group, missing } = Cgroup::create(&name, &cgroup_limits(&spec));
        let noted = group.as_ref().map_or(Ok(()), note_cgroup);
        fault::point("shim.group.made");
        let profile = spec.command.as_ref().map_or(0, |command| command.profile);
        let mut record = match noted.err().or_else(|| refused_limits(&spec, &missing)) {
            Some(failure) => not_started(failure, output),
            None => {
                let pids = group.is_some() && !missing.contains(&PIDS_LIMIT);
                run_command(&mut spec, &mut control, &signals, group.as_ref(), Enforced { pids }, output)
            }
        };
        // What is left of it is no reason to keep the result back: whoever removes the attempt tries again.
        let _ = temporary::remove(Path::new("."), &name);
        record.profile = profile;
        record.execution_id.clone_from(&spec.execution_id);
        record.run_id.clone_from(&spec.run_id);
        record.attempt = spec.attempt;
        let written = place.write(&record.encode_to_vec());
        if written.is_ok() {
            control.ended();
        }
        fault::point("shim.ended.told");
        if let Some(group) = group {
            // What cannot be killed keeps it; that takes some memory of the kernel and nothing else.
            let _ = group.remove();
        }
        written
    }
}

fn run_command(
    spec: &mut Spec,
    control: &mut Control,
    signals: &SignalFd,
    group: Option<&Cgroup>,
    enforced: Enforced,
    output: Output,
) -> proto::ExitRecord {
    if container::is_wanted(spec) {
        return container::run(spec, control, signals, output);
    }
    let bounds = run::bounds(spec);
    let plan = match prepare::prepare(spec, &enforced) {
        Ok(plan) => plan,
        Err(failure) => return not_started(failure, output),
    };
    let doors = match group.map(Cgroup::doors).transpose() {
        Ok(doors) => doors,
        // Outside of its group nothing would limit it.
        Err(error) => {
            return not_started(
                prepare::unavailable(plan.profile, &format!("control group: {error}")),
                output,
            );
        }
    };
    let started_at = clock::now_micros();
    fault::point("shim.program.forking");
    match spawn::spawn(&plan, doors.as_ref()) {
        Ok(child) => {
            fault::point("shim.program.forked");
            Run::new(child, started_at, bounds, output, Means { plan: &plan, signals, control, group })
                .finish()
        }
        Err(errno) if plan.confinement.namespaces != 0 => {
            not_started(prepare::unavailable(plan.profile, &format!("namespaces: {}", errno.desc())), output)
        }
        Err(errno) => {
            let detail = format!("no process could be made: {}", errno.desc());
            not_started(Failure { reason: Reason::SpawnFailed, detail }, output)
        }
    }
}

/// What the control group is to enforce: what was ordered, and of a confined run a default number of processes.
fn cgroup_limits(spec: &Spec) -> Limits {
    let Some(command) = &spec.command else { return Limits::default() };
    if container::is_wanted(spec) {
        // Its processes are the engine's, and so are its limits.
        return Limits::default();
    }
    let ordered = command.limits.unwrap_or_default();
    let set = |limit: u64| Some(limit).filter(|limit| *limit != 0);
    let is_confined = command.profile() != proto::Profile::None;
    Limits {
        memory_bytes: set(ordered.memory_bytes),
        pids: set(ordered.pids).or(is_confined.then_some(DEFAULT_RUN_PIDS)),
        cpu_percent: set(ordered.cpu_percent),
        io_bytes_per_second: set(ordered.io_bytes_per_second),
    }
}

/// A limit that was ordered and that this host cannot enforce. The default one is kept where it can be.
fn refused_limits(spec: &Spec, missing: &[&'static str]) -> Option<Failure> {
    let command = spec.command.as_ref()?;
    let pids_ordered = command.limits.is_some_and(|limits| limits.pids != 0);
    let refused: Vec<&str> =
        missing.iter().copied().filter(|what| *what != PIDS_LIMIT || pids_ordered).collect();
    if refused.is_empty() {
        return None;
    }
    let profile = prepare::profile(command.profile()).unwrap_or(Profile::None);
    Some(prepare::unavailable(profile, &refused.join(", ")))
}

fn not_started(failure: Failure, output: Output) -> proto::ExitRecord {
    let (stdout, stderr) = output.finish();
    proto::ExitRecord {
        ended_at: clock::now_micros(),
        reason: failure.reason.as_str().to_owned(),
        detail: record::detail(failure.detail),
        stdout: Some(stdout),
        stderr: Some(stderr),
        ..proto::ExitRecord::default()
    }
}

/// SIGCHLD and SIGTERM arrive in a file from now on; what a terminal sends is of no concern.
fn take_over_signals() -> nix::Result<SignalFd> {
    let mut heard = SigSet::empty();
    heard.add(Signal::SIGCHLD);
    heard.add(Signal::SIGTERM);
    let mut blocked = heard;
    blocked.add(Signal::SIGINT);
    blocked.add(Signal::SIGHUP);
    blocked.add(Signal::SIGQUIT);
    blocked.thread_block()?;
    SignalFd::with_flags(&heard, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)
}

/// Notes the group in the attempt's folder. In one that nobody would find nothing is started, and outside of it neither.
fn note_cgroup(group: &Cgroup) -> Result<(), Failure> {
    std::fs::write(CGROUP_FILE_NAME, group.note()).map_err(|error| {
        let is_full = matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded);
        let reason = if is_full { Reason::NoSpace } else { Reason::SpawnFailed };
        Failure { reason, detail: format!("the control group of the run cannot be noted: {error}") }
    })
}

/// The control group that a shim noted in its folder, if it is still there.
pub fn noted_cgroup(folder: &Path, name: &str) -> Option<Cgroup> {
    Cgroup::find(&std::fs::read(folder.join(CGROUP_FILE_NAME)).ok()?, name)
}

/// Milliseconds of a duration, for a [`Spec`].
pub fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
