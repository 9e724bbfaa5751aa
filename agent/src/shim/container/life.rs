//! The life of a container: from when it was started until it is removed.
//!
//! 1. An exit that has happened beats a cancel, a cancel beats a timeout.
//! 2. It is over when the engine says that it does not run and its output has ended.

use std::time::{Duration, Instant};

use bollard::{container::LogOutput, models::ContainerInspectResponse};
use futures_util::StreamExt as _;
use model::{Reason, api::output::Stream, limits::CHUNK_BYTES};

use super::{
    account::Account,
    ears::Ears,
    engine::{Attached, Engine, NAME_PREFIX},
    note,
    plan::ScriptFile,
};
use crate::{
    clock,
    sandbox::{cgroup::Usage, user::Lent},
    shim::{ending::Ended, output::Output, record, run::Bounds},
    sys::Exit,
};

/// How often a container that was killed is killed again.
const KILL_AGAIN: Duration = Duration::from_secs(1);
/// How often a full disk is tried again.
const DISK_AGAIN: Duration = Duration::from_millis(250);
/// How long the rest of the output of a container that has ended may stay away.
const REST_WITHIN: Duration = Duration::from_secs(5);
/// How often the removal is tried, and what lies between.
const REMOVALS: u32 = 5;
const REMOVE_AGAIN: Duration = Duration::from_millis(500);

/// A container that was started.
pub(super) struct Means {
    pub(super) engine: Engine,
    pub(super) name: String,
    pub(super) output: Attached,
    pub(super) account: Account,
    /// Microseconds since 1970 UTC.
    pub(super) started_at: i64,
    /// Its user, where that exists for this run only.
    pub(super) _lent: Option<Lent>,
    pub(super) _script: Option<ScriptFile>,
}

/// A container, and all that it is led with.
pub(super) struct Life<'a> {
    means: Means,
    ears: Ears<'a>,
    bounds: Bounds,
    output: Output,
    /// Its process on the host, as the engine says it; 0 when it did not.
    pid: u32,
    deadline: Instant,
    /// What came and waits for room.
    held: Option<Held>,
    /// There may be more to come.
    is_open: bool,
    /// How it ended.
    end: Option<End>,
    /// When the output counts as over although its end did not come; set once the container has ended.
    rest_until: Option<Instant>,
    is_cut: bool,
    /// Why we ended it, if we did.
    why: Option<Reason>,
    /// It had ended when it was to be asked to.
    ended_before: bool,
    phase: Phase,
    is_unkillable: bool,
}

#[derive(Debug)]
struct Held {
    stream: Stream,
    bytes: Vec<u8>,
    from: usize,
}

/// What the engine says of the end; nothing of a container that somebody else removed.
#[derive(Debug, Clone, Copy, Default)]
struct End {
    exit: Option<i32>,
    is_out_of_memory: bool,
}

#[derive(Debug, Clone, Copy)]
enum Phase {
    Running,
    /// It was asked to end.
    Asked {
        kill_at: Instant,
    },
    Killed {
        again: Instant,
        give_up_at: Instant,
    },
}

impl<'a> Life<'a> {
    pub(super) fn new(means: Means, ears: Ears<'a>, bounds: Bounds, output: Output) -> Self {
        Self {
            means,
            ears,
            bounds,
            output,
            pid: 0,
            deadline: Instant::now() + bounds.timeout,
            held: None,
            is_open: true,
            end: None,
            rest_until: None,
            is_cut: false,
            why: None,
            ended_before: false,
            phase: Phase::Running,
            is_unkillable: false,
        }
    }

    /// Goes on until the container does not run and its output is kept, removes it, and gives the record without the ids.
    pub(super) async fn finish(mut self) -> proto::ExitRecord {
        self.tell_start().await;
        let Means { engine, name, .. } = &self.means;
        let mut ended = Box::pin(engine.clone().ended(name.clone()));
        while !self.is_over() {
            if let Some(why) = self.ears.take_wish() {
                self.stop(why).await;
            }
            self.look_at_the_clock().await;
            let until = self.due();
            let may_read = self.is_open && self.held.is_none();
            tokio::select! {
                () = self.ears.hear() => {}
                () = self.means.account.close() => {}
                end = &mut ended, if self.end.is_none() => self.take_end(end),
                came = self.means.output.next(), if may_read => self.take(came),
                () = tokio::time::sleep_until(until.into()) => {}
            }
            self.keep();
        }
        drop(ended);
        let removed = remove(&self.means.engine, &self.means.name).await;
        self.into_record(removed)
    }

    fn is_over(&self) -> bool {
        let is_kept = !self.is_open && self.held.is_none() && !self.output.is_blocked();
        self.is_unkillable || (self.end.is_some() && is_kept)
    }

    /// Says that it runs, under the number that the engine knows.
    async fn tell_start(&mut self) {
        let looked = self.ears.meanwhile(self.means.engine.look(&self.means.name)).await;
        let state = looked.ok().flatten().and_then(|found| found.state);
        self.pid = state.and_then(|state| state.pid).and_then(|pid| u32::try_from(pid).ok()).unwrap_or(0);
        self.means.account.follow(self.pid);
        self.ears.control.started(self.pid, self.means.started_at);
    }

    /// When something is due next.
    fn due(&self) -> Instant {
        let phase = match self.phase {
            _ if self.end.is_some() => self.rest_until.unwrap_or_else(Instant::now),
            Phase::Running => self.deadline,
            Phase::Asked { kill_at } => kill_at,
            Phase::Killed { again, .. } => again,
        };
        let again = Instant::now() + DISK_AGAIN;
        match self.output.is_blocked() {
            // Nothing else is waited for.
            true if self.end.is_some() => again,
            true => phase.min(again),
            false => phase,
        }
    }

    fn take(&mut self, came: Option<Result<LogOutput, bollard::errors::Error>>) {
        let (stream, bytes) = match came {
            Some(Ok(LogOutput::StdErr { message })) => (Stream::Stderr, message.to_vec()),
            Some(Ok(LogOutput::StdOut { message } | LogOutput::Console { message })) => {
                (Stream::Stdout, message.to_vec())
            }
            Some(Ok(LogOutput::StdIn { .. })) => return,
            Some(Err(_)) => {
                self.is_open = false;
                self.is_cut = true;
                return;
            }
            None => {
                // Where its end is not heard it may be over now.
                self.means.account.read();
                self.is_open = false;
                return;
            }
        };
        if self.end.is_some() {
            self.rest_until = Some(Instant::now() + REST_WITHIN);
        }
        self.held = Some(Held { stream, bytes, from: 0 });
    }

    /// Keeps what came, as far as there is room.
    fn keep(&mut self) {
        self.output.retry();
        while let Some(held) = self.held.take_if(|_| !self.output.is_blocked()) {
            let piece = &held.bytes[held.from..];
            let piece = &piece[..piece.len().min(CHUNK_BYTES)];
            let next = held.from + piece.len();
            self.output.take(held.stream, clock::now_micros(), piece);
            if next < held.bytes.len() {
                self.held = Some(Held { from: next, ..held });
            }
            self.ears.control.output();
        }
        if self.end.is_some() && self.output.is_blocked() {
            // The time in which nothing is read does not count.
            self.rest_until = Some(Instant::now() + REST_WITHIN);
        }
        if self.bounds.halt_at.is_some() && self.output.is_over_limit() && self.why.is_none() {
            self.ears.want(Reason::OutputLimit);
        }
    }

    fn take_end(&mut self, found: Option<ContainerInspectResponse>) {
        let state = found.and_then(|found| found.state).unwrap_or_default();
        self.end = Some(End {
            exit: state.exit_code.and_then(|code| i32::try_from(code).ok()),
            is_out_of_memory: state.oom_killed == Some(true),
        });
        self.rest_until = Some(Instant::now() + REST_WITHIN);
        if self.why.is_some() {
            self.output.be_brief();
        }
    }

    async fn stop(&mut self, why: Reason) {
        if self.end.is_some() || self.ended_before {
            return;
        }
        let before = self.why;
        if why == Reason::Cancelled || self.why.is_none() {
            self.why = Some(why);
        }
        if matches!(self.phase, Phase::Running) {
            self.phase = Phase::Asked { kill_at: Instant::now() + self.bounds.kill_grace };
            // An engine that does not answer is asked to kill it when that is due.
            if let Ok(false) = self.means.engine.signal(&self.means.name, "SIGTERM").await {
                (self.why, self.ended_before) = (before, true);
            }
        }
    }

    /// Does what is due.
    async fn look_at_the_clock(&mut self) {
        let now = Instant::now();
        if self.end.is_some() {
            if self.is_open && !self.output.is_blocked() && self.rest_until.is_some_and(|until| now >= until)
            {
                self.is_open = false;
                self.is_cut = true;
            }
            return;
        }
        match self.phase {
            Phase::Running if now >= self.deadline => self.stop(Reason::TimeLimit).await,
            Phase::Asked { kill_at } if now >= kill_at => self.kill(now + self.bounds.kill_within).await,
            Phase::Killed { give_up_at, .. } if now >= give_up_at => self.is_unkillable = true,
            Phase::Killed { again, give_up_at } if now >= again => self.kill(give_up_at).await,
            Phase::Running | Phase::Asked { .. } | Phase::Killed { .. } => {}
        }
    }

    async fn kill(&mut self, give_up_at: Instant) {
        // Whether that came about is seen by the container's end.
        let _ = self.means.engine.signal(&self.means.name, "SIGKILL").await;
        self.phase = Phase::Killed { again: Instant::now() + KILL_AGAIN, give_up_at };
    }

    fn into_record(self, removed: Result<(), String>) -> proto::ExitRecord {
        let end = self.end.unwrap_or_default();
        let unkillable = [i32::try_from(self.pid).unwrap_or(0)];
        let usage = self.means.account.usage();
        let usage = Usage { oom_kills: usage.oom_kills.max(end.is_out_of_memory.into()), ..usage };
        let mut record = Ended {
            started_at: self.means.started_at,
            failure: None,
            why: self.why,
            killed: matches!(self.phase, Phase::Killed { .. }),
            exit: end.exit.map(Exit::Code),
            unkillable: if self.is_unkillable { &unkillable } else { &[] },
            left_behind: 0,
            usage,
            bounds: self.bounds,
        }
        .record(self.output);
        let mut also = |what: &str| {
            let separator = if record.detail.is_empty() { "" } else { "; " };
            record.detail = record::detail(format!("{}{separator}{what}", record.detail));
        };
        if end.exit.is_none() && !self.is_unkillable {
            also("somebody else removed its container, so its exit code is not known");
        }
        if self.is_cut {
            also("the engine gave its output up before the end: some of it may be missing");
        }
        if let Err(why) = removed {
            also(&why);
        }
        record
    }
}

/// Removes the attempt's container and its note. One that only has its name is left alone.
pub(super) async fn remove(engine: &Engine, name: &str) -> Result<(), String> {
    let attempt = name.strip_prefix(NAME_PREFIX).unwrap_or(name);
    let mut why = String::new();
    for round in 0..REMOVALS {
        if round > 0 {
            tokio::time::sleep(REMOVE_AGAIN).await;
        }
        match note::remove_own(engine, name, attempt).await {
            Ok(()) => {
                note::forget();
                return Ok(());
            }
            Err(error) => why = error,
        }
    }
    Err(format!("the container '{name}' could not be removed and is tried again: {why}"))
}
