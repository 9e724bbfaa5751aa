//! The life of the one process: from its start until nothing of it is left.
//!
//! 1. One loop, one `poll`; nothing else waits.
//! 2. An exit that has happened beats a cancel, a cancel beats a timeout.
//! 3. The run is over when the shim has no child any more, which as the sub-reaper means no descendant either, and
//!    the pipes are empty; or when something of it could not be killed for long.

use std::{
    os::fd::{AsFd, OwnedFd},
    time::{Duration, Instant},
};

use model::{Reason, api::output::Stream, limits};
use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{signal::Signal, signalfd::SignalFd},
    unistd::Pid,
};

use super::{
    control::Control,
    ending::Ended,
    output::{Copied, Output},
    pace::Pace,
    prepare::{Failure, Plan},
    spawn::{self, Child, Ending},
    spec::Spec,
    tree,
};
use crate::{
    mutant,
    sandbox::cgroup::Cgroup,
    sys::{self, Exit, Reaped},
};

/// How long what the main process left behind may take to end.
const REST_GRACE: Duration = Duration::from_secs(1);
/// When processes that were killed are looked for again: at first, and then after twice as long each time, up to the longest.
/// A look is at all processes of the host, and must not cost those that are ending the time to end.
const KILL_AGAIN: Duration = Duration::from_millis(100);
const LONGEST_KILL_AGAIN: Duration = Duration::from_secs(2);
/// How often a full disk is tried again.
const DISK_AGAIN: Duration = Duration::from_millis(250);

/// The bounds of a run.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    pub(super) timeout: Duration,
    pub(super) kill_grace: Duration,
    /// How long killing may take until what is left counts as unkillable.
    pub(super) kill_within: Duration,
    /// End the run when it writes more than is kept; how much that is.
    pub(super) halt_at: Option<u64>,
}

/// What a run is led with.
#[derive(Debug)]
pub(super) struct Means<'a> {
    pub(super) plan: &'a Plan,
    pub(super) signals: &'a SignalFd,
    pub(super) control: &'a mut Control,
    pub(super) group: Option<&'a Cgroup>,
}

/// The process and all that belongs to it.
#[derive(Debug)]
pub(super) struct Run<'a> {
    bounds: Bounds,
    plan: &'a Plan,
    signals: &'a SignalFd,
    control: &'a mut Control,
    group: Option<&'a Cgroup>,
    output: Output,
    pace: Pace,
    /// The program, or the init of its namespaces.
    pid: Pid,
    /// How the init tells of the program's end.
    ending: Option<Ending>,
    started_at: i64,
    deadline: Instant,
    stdout: Option<OwnedFd>,
    stderr: Option<OwnedFd>,
    /// Open until the program runs or has failed to.
    starting: Option<OwnedFd>,
    failure: Option<Failure>,
    /// How the main process ended.
    exit: Option<Exit>,
    /// Why we ended it, if we did.
    why: Option<Reason>,
    phase: Phase,
    /// Processes that were left when the main one had ended.
    left_behind: usize,
    /// No descendant lives.
    alone: bool,
    /// When the pipes are closed, whoever from outside still writes into them; set once the run is alone.
    close_at: Option<Instant>,
    /// Processes that could not be killed.
    unkillable: Vec<i32>,
}

#[derive(Debug, Clone, Copy)]
enum Phase {
    Running,
    /// All were asked to end.
    Asked {
        kill_at: Instant,
    },
    /// All were killed, and are looked for again.
    Killed {
        again: Instant,
        /// What lies between the last look and that.
        pause: Duration,
        give_up_at: Instant,
        kill_grace_was_over: bool,
    },
}

/// What `poll` found.
#[derive(Debug, Default)]
struct Ready {
    signal: bool,
    listener: bool,
    connection: bool,
    starting: bool,
    stdout: bool,
    stderr: bool,
}

impl<'a> Run<'a> {
    /// A run whose process was forked at `started_at` (µs since 1970 UTC).
    pub(super) fn new(
        child: Child,
        started_at: i64,
        bounds: Bounds,
        output: Output,
        means: Means<'a>,
    ) -> Self {
        let Child { pid, stdout, stderr, failure, ending } = child;
        let Means { plan, signals, control, group } = means;
        Self {
            bounds,
            plan,
            signals,
            control,
            group,
            output,
            pace: Pace::new(Instant::now()),
            pid,
            ending,
            started_at,
            deadline: Instant::now() + bounds.timeout,
            stdout: Some(stdout),
            stderr: Some(stderr),
            starting: Some(failure),
            failure: None,
            exit: None,
            why: None,
            phase: Phase::Running,
            left_behind: 0,
            alone: false,
            close_at: None,
            unkillable: Vec::new(),
        }
    }

    /// Goes on until nothing is left of the process that can be killed, and gives the record without the ids.
    pub(super) fn finish(mut self) -> proto::ExitRecord {
        loop {
            self.reap();
            if self.alone && self.stdout.is_none() && self.stderr.is_none() && !self.output.is_blocked() {
                break;
            }
            self.look_at_the_clock();
            if self.why.is_some() && mutant::is("kill_reported_early") {
                break;
            }
            if !self.unkillable.is_empty() {
                break;
            }
            let ready = self.wait();
            self.handle(&ready);
        }
        fault::point("shim.run.over");
        self.settle_start();
        self.into_record()
    }

    /// Waits until something happens or is due.
    fn wait(&self) -> Ready {
        // Asked once: pipes that are left alone must be what the wait is bounded by.
        let resting = self.resting();
        let may_read = !self.output.is_blocked() && resting.is_none();
        let mut what = vec![self.signals.as_fd(), self.control.listener()];
        let mut watch = |fd| {
            what.push(fd);
            what.len() - 1
        };
        let connection = self.control.connection().map(&mut watch);
        let starting = self.starting.as_ref().map(AsFd::as_fd).map(&mut watch);
        if let Some(ending) = self.ending.as_ref().filter(|_| self.exit.is_none() && !self.alone) {
            watch(ending.pipe().as_fd());
        }
        let stdout = self.stdout.as_ref().filter(|_| may_read).map(AsFd::as_fd).map(&mut watch);
        let stderr = self.stderr.as_ref().filter(|_| may_read).map(AsFd::as_fd).map(&mut watch);
        let mut fds: Vec<PollFd<'_>> =
            what.into_iter().map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
        // An interrupted or failed call finds nothing ready; the loop comes by again.
        let found = poll(&mut fds, self.timeout(resting)).unwrap_or(0);
        let is_ready = |index: usize| found > 0 && fds[index].any().unwrap_or(true);
        Ready {
            signal: is_ready(0),
            listener: is_ready(1),
            connection: connection.is_some_and(is_ready),
            starting: starting.is_some_and(is_ready),
            stdout: stdout.is_some_and(is_ready),
            stderr: stderr.is_some_and(is_ready),
        }
    }

    /// Until when the pipes are left alone; never once the main process has ended.
    fn resting(&self) -> Option<Instant> {
        self.pace.resting(Instant::now()).filter(|_| self.exit.is_none() && !self.alone)
    }

    /// Until the next thing that is due; `resting` is until when the pipes are not looked at.
    fn timeout(&self, resting: Option<Instant>) -> PollTimeout {
        if self.alone {
            let wait = if self.output.is_blocked() { DISK_AGAIN } else { Duration::ZERO };
            return timeout(wait);
        }
        let due = match self.phase {
            Phase::Running => self.deadline,
            Phase::Asked { kill_at } => kill_at,
            Phase::Killed { again, .. } => again,
        };
        let mut wait = due.saturating_duration_since(Instant::now());
        if self.output.is_blocked() {
            wait = wait.min(DISK_AGAIN);
        }
        if let Some(until) = resting {
            wait = wait.min(until.saturating_duration_since(Instant::now()));
        }
        timeout(wait)
    }

    fn handle(&mut self, ready: &Ready) {
        if ready.stdout {
            let pipe = self.stdout.take();
            self.stdout = self.copy(Stream::Stdout, pipe);
        }
        if ready.stderr && !self.output.is_blocked() {
            let pipe = self.stderr.take();
            self.stderr = self.copy(Stream::Stderr, pipe);
        }
        if self.alone {
            self.let_go_of_pipes(ready);
            if self.why.is_some() {
                self.output.be_brief();
            }
        }
        self.output.retry();
        if ready.starting {
            self.settle_start();
        }
        if ready.signal {
            self.take_signals();
        }
        let said_at_once = ready.listener && self.control.accept();
        let said = ready.connection && self.control.receive();
        if said_at_once || said {
            fault::point("shim.cancel.heard");
            self.stop(Reason::Cancelled);
        }
    }

    /// Nobody of the run can write any more: a pipe that has nothing now has had its last byte, even if a process from
    /// outside still holds it. One into which such a process goes on writing is closed after a while.
    fn let_go_of_pipes(&mut self, ready: &Ready) {
        let now = Instant::now();
        if self.output.is_blocked() {
            // The time in which nothing is read does not count.
            self.close_at = None;
            return;
        }
        let is_over = now >= *self.close_at.get_or_insert(now + REST_GRACE);
        if !ready.stdout || is_over {
            self.stdout = None;
        }
        if !ready.stderr || is_over {
            self.stderr = None;
        }
    }

    fn copy(&mut self, stream: Stream, pipe: Option<OwnedFd>) -> Option<OwnedFd> {
        let pipe = pipe?;
        match self.output.copy(stream, &pipe) {
            Ok(Copied::Some(bytes)) => {
                fault::point("shim.output.written");
                self.pace.read(bytes, Instant::now());
                self.control.output();
                fault::point("shim.output.told");
                if self.bounds.halt_at.is_some() && self.output.is_over_limit() {
                    self.stop(Reason::OutputLimit);
                }
            }
            Ok(Copied::Nothing) => {}
            Ok(Copied::End) | Err(_) => return None,
        }
        Some(pipe)
    }

    /// Learns whether the program runs.
    fn settle_start(&mut self) {
        let Some(pipe) = self.starting.take() else { return };
        self.failure = spawn::read_failure(&pipe, self.plan);
        if self.failure.is_none() {
            fault::point("shim.program.started");
            self.control.started(self.pid.as_raw().unsigned_abs(), self.started_at);
        }
    }

    fn take_signals(&mut self) {
        while let Ok(Some(signal)) = self.signals.read_signal() {
            if i32::try_from(signal.ssi_signo) == Ok(Signal::SIGTERM as i32) {
                self.stop(Reason::HostStopping);
            }
        }
    }

    /// Takes in all children that have ended.
    fn reap(&mut self) {
        self.hear_of_the_end();
        while !self.alone {
            match sys::reap(false) {
                Reaped::One(pid, exit) if pid == self.pid => {
                    self.hear_of_the_end();
                    self.exit = self.exit.or(Some(exit));
                }
                Reaped::One(..) => {}
                Reaped::NoneYet => break,
                Reaped::Alone => self.alone = true,
            }
        }
    }

    fn hear_of_the_end(&mut self) {
        if self.exit.is_none() {
            self.exit = self.ending.as_ref().and_then(Ending::read);
        }
    }

    fn stop(&mut self, why: Reason) {
        self.reap();
        if self.exit.is_none() {
            if why == Reason::Cancelled || self.why.is_none() {
                self.why = Some(why);
            }
            self.ask(self.bounds.kill_grace);
        }
    }

    /// Does what is due.
    fn look_at_the_clock(&mut self) {
        if self.alone {
            return;
        }
        let now = Instant::now();
        match self.phase {
            Phase::Running if self.exit.is_some() => {
                let asked = self.ask(REST_GRACE);
                self.count_left_behind(&asked);
            }
            Phase::Running if now >= self.deadline => {
                self.why = Some(Reason::TimeLimit);
                self.ask(self.bounds.kill_grace);
            }
            Phase::Asked { kill_at } if now >= kill_at => self.kill(),
            Phase::Killed { again, .. } if now >= again => self.kill(),
            Phase::Running | Phase::Asked { .. } | Phase::Killed { .. } => {}
        }
    }

    /// Asks all processes to end; says which there are.
    fn ask(&mut self, grace: Duration) -> Vec<i32> {
        if !matches!(self.phase, Phase::Running) {
            return Vec::new();
        }
        self.phase = Phase::Asked { kill_at: Instant::now() + grace };
        let asked = tree::signal_descendants(Signal::SIGTERM);
        fault::point("shim.processes.asked");
        // A stopped process ends only when it goes on.
        tree::signal_descendants(Signal::SIGCONT);
        asked
    }

    /// The init of its namespaces is none of the run's own.
    fn count_left_behind(&mut self, found: &[i32]) {
        let init = self.ending.is_some().then_some(self.pid.as_raw());
        let count = found.iter().filter(|pid| Some(**pid) != init).count();
        self.left_behind = self.left_behind.max(count);
    }

    fn kill(&mut self) {
        let now = Instant::now();
        let (kill_grace_was_over, give_up_at, pause) = match self.phase {
            Phase::Killed { kill_grace_was_over, give_up_at, pause, .. } => {
                (kill_grace_was_over, give_up_at, (pause * 2).min(LONGEST_KILL_AGAIN))
            }
            Phase::Running | Phase::Asked { .. } => {
                (self.exit.is_none(), now + self.bounds.kill_within, KILL_AGAIN)
            }
        };
        if let Some(group) = self.group {
            // The look by parents follows in any case.
            let _ = group.kill();
        }
        let left = tree::kill_descendants();
        fault::point("shim.processes.killed");
        if self.exit.is_some() && self.why.is_none() {
            // One that was being made when all were asked is found here.
            self.count_left_behind(&left);
        }
        if now >= give_up_at {
            self.unkillable = left;
        }
        self.phase = Phase::Killed { again: Instant::now() + pause, pause, give_up_at, kill_grace_was_over };
    }

    fn into_record(self) -> proto::ExitRecord {
        let killed = matches!(self.phase, Phase::Killed { kill_grace_was_over: true, .. });
        let usage = self.group.map(Cgroup::usage);
        Ended {
            started_at: self.started_at,
            failure: self.failure,
            why: self.why,
            killed,
            exit: self.exit,
            unkillable: &self.unkillable,
            left_behind: self.left_behind,
            usage: usage.unwrap_or_default(),
            bounds: self.bounds,
        }
        .record(self.output, self.plan.outputs.as_ref())
    }
}

/// Rounded up: woken a moment too early, the loop would turn idly until then.
fn timeout(wait: Duration) -> PollTimeout {
    let millis = i32::try_from(wait.as_micros().div_ceil(1000)).unwrap_or(i32::MAX);
    PollTimeout::try_from(millis).unwrap_or(PollTimeout::MAX)
}

/// What the order says, within what the agent allows.
pub(super) fn bounds(spec: &Spec) -> Bounds {
    let longest = u64::try_from(*limits::TIMEOUT_SECONDS.end()).unwrap_or(u64::MAX);
    let command = spec.command.as_ref();
    let timeout = command.map_or(0, |command| command.timeout_ms);
    Bounds {
        timeout: Duration::from_millis(timeout).min(Duration::from_secs(longest)),
        kill_grace: Duration::from_millis(spec.kill_grace_ms),
        kill_within: Duration::from_millis(spec.kill_within_ms),
        halt_at: command.filter(|command| command.halt_at_output_limit).map(|_| output_limit(spec)),
    }
}

/// Bytes of output that are kept.
pub(super) fn output_limit(spec: &Spec) -> u64 {
    let ordered = spec.command.as_ref().map_or(0, |command| command.output_limit_bytes);
    if ordered == 0 { limits::RUN_OUTPUT_BYTES } else { ordered.min(limits::RUN_OUTPUT_BYTES) }
}
