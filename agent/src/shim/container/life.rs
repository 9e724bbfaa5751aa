//! The life of a container: from when it is to start until it is removed.
//!
//! 1. An exit that has happened beats a cancel, a cancel beats a timeout.
//! 2. It is over when the engine says that it does not run and its output has ended; or when the engine does not answer, and
//!    its control group, which we kill then, is empty.
//! 3. No answer of the engine is waited for: what it was asked stands in `calls`, and all else goes on.

use std::{
    pin::Pin,
    time::{Duration, Instant},
};

use bollard::{container::LogOutput, models::ContainerInspectResponse};
use futures_util::{StreamExt as _, stream::FuturesUnordered};
use model::{Reason, api::output::Stream, limits::CHUNK_BYTES};

use super::{
    account::Account,
    ears::Ears,
    end::{self, By, End},
    engine::{Attached, Engine, NotStarted},
    not_starting, note,
    plan::Kept,
};
use crate::{
    clock,
    shim::{output::Output, prepare::Failure, run::Bounds},
};

/// How often a container that was killed is killed again, and for how long the engine is waited for before we kill it without.
const KILL_AGAIN: Duration = Duration::from_secs(1);
/// How often a full disk is tried again.
const DISK_AGAIN: Duration = Duration::from_millis(250);
/// How long the rest of the output of a container that has ended may stay away; and where the engine has not told its end.
const REST_WITHIN: Duration = Duration::from_secs(5);
const REST_OF_SILENT_WITHIN: Duration = Duration::from_secs(1);

/// A container that was made.
pub(super) struct Means {
    pub(super) engine: Engine,
    pub(super) name: String,
    pub(super) output: Attached,
    pub(super) account: Account,
    /// What the engine said of it that it could not do.
    pub(super) warnings: Vec<String>,
    pub(super) kept: Kept,
}

/// What the engine answers.
enum Answer {
    Started(Result<(), NotStarted>),
    /// Its first process on the host; 0 when that is not known.
    Looked(u32),
    /// It was asked to end; false when it did not run.
    Asked(bool),
    Killed,
    /// It was removed without having been seen to start.
    Removed(Result<(), String>),
    Ended(Option<Box<ContainerInspectResponse>>),
}

type Calls = FuturesUnordered<Pin<Box<dyn Future<Output = Answer>>>>;

/// A container, and all that it is led with.
pub(super) struct Life<'a> {
    pub(super) means: Means,
    ears: Ears<'a>,
    pub(super) bounds: Bounds,
    pub(super) output: Output,
    /// What the engine was asked and has not answered.
    calls: Calls,
    /// Microseconds since 1970 UTC.
    pub(super) started_at: i64,
    start: Start,
    /// Output of it came: it has begun, whatever the engine has said so far.
    has_spoken: bool,
    /// The agent was told that it runs.
    is_told: bool,
    /// Its process on the host, as the engine says it; 0 when it did not.
    pub(super) pid: u32,
    deadline: Instant,
    /// What came and waits for room.
    held: Option<Held>,
    /// There may be more to come.
    is_open: bool,
    /// How it ended.
    pub(super) end: Option<End>,
    /// When the output counts as over although its end did not come; set once the container has ended.
    rest_until: Option<Instant>,
    pub(super) is_cut: bool,
    /// Why it did not start.
    pub(super) failure: Option<Failure>,
    /// Why we ended it, if we did.
    pub(super) why: Option<Reason>,
    /// It had ended when it was to be asked to.
    ended_before: bool,
    phase: Phase,
    /// A kill, or a removal in its place, is among the calls.
    is_killing: bool,
    pub(super) is_unkillable: bool,
}

/// What is known of the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Start {
    /// It may come about yet.
    Open,
    Done,
}

#[derive(Debug)]
struct Held {
    stream: Stream,
    bytes: Vec<u8>,
    from: usize,
}

#[derive(Debug, Clone, Copy)]
enum Phase {
    Running,
    /// It was asked to end.
    Asked {
        kill_at: Instant,
    },
    Killed {
        since: Instant,
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
            calls: Calls::new(),
            started_at: clock::now_micros(),
            start: Start::Open,
            has_spoken: false,
            is_told: false,
            pid: 0,
            deadline: Instant::now() + bounds.timeout,
            held: None,
            is_open: true,
            end: None,
            rest_until: None,
            is_cut: false,
            failure: None,
            why: None,
            ended_before: false,
            phase: Phase::Running,
            is_killing: false,
            is_unkillable: false,
        }
    }

    /// Starts the container, goes on until it does not run and its output is kept, removes it, and gives the record without
    /// the ids.
    pub(super) async fn finish(mut self) -> proto::ExitRecord {
        self.ask(async |engine, name| Answer::Started(engine.start(&name).await));
        while !self.is_over() {
            if let Some(why) = self.ears.take_wish() {
                self.stop(why);
            }
            self.look_at_the_clock();
            let until = self.due();
            let may_read = self.is_open && self.held.is_none();
            tokio::select! {
                () = self.ears.hear() => {}
                () = self.means.account.close() => {}
                Some(answer) = self.calls.next() => self.take_answer(answer),
                came = self.means.output.next(), if may_read => self.take(came),
                () = tokio::time::sleep_until(until.into()) => {}
            }
            self.keep();
        }
        if self.start == Start::Done {
            self.tell_start();
        }
        // Who owes an answer is not given the time of one who does not.
        let within = if self.is_silent() { end::REMOVE_OF_SILENT_WITHIN } else { end::REMOVE_WITHIN };
        let (engine, name) = (self.means.engine.clone(), self.means.name.clone());
        let removed = self.ears.meanwhile(Box::pin(end::remove(&engine, &name, within))).await;
        if removed.is_ok() {
            note::forget();
        }
        fault::point("shim.container.removed");
        self.into_record(removed)
    }

    /// Asks the engine.
    fn ask(&mut self, call: impl AsyncFnOnce(Engine, String) -> Answer + 'static) {
        let (engine, name) = (self.means.engine.clone(), self.means.name.clone());
        self.calls.push(Box::pin(call(engine, name)));
    }

    fn take_answer(&mut self, answer: Answer) {
        match answer {
            Answer::Started(Ok(())) => self.take_start(),
            // Who has heard it knows better.
            Answer::Started(Err(NotStarted { may_run: true, .. })) if self.has_spoken => self.take_start(),
            Answer::Started(Err(NotStarted { why, may_run })) => {
                self.failure = Some(match self.why {
                    Some(reason) => Failure { reason, detail: "ended before it began".to_owned() },
                    None => not_starting(&why),
                });
                if !may_run {
                    self.take_end(End::unknown(By::Engine));
                } else if !self.was_killed() {
                    self.phase = Phase::Asked { kill_at: Instant::now() };
                }
            }
            Answer::Looked(pid) => {
                self.pid = pid;
                self.means.account.follow(pid);
                self.tell_start();
            }
            // A late answer tells only that we have killed it meanwhile.
            Answer::Asked(false) if !self.was_killed() => (self.why, self.ended_before) = (None, true),
            Answer::Asked(_) => {}
            Answer::Killed => self.is_killing = false,
            Answer::Removed(removed) => {
                self.is_killing = false;
                if removed.is_ok() && self.end.is_none() {
                    self.take_end(End::unknown(By::Removal));
                }
            }
            Answer::Ended(found) if self.end.is_none() => self.take_end(End::told(found)),
            Answer::Ended(_) => {}
        }
    }

    /// It runs, or has run.
    fn take_start(&mut self) {
        fault::point("shim.container.started");
        self.start = Start::Done;
        self.means.account.open();
        self.ask(async |engine, name| {
            let found = engine.look(&name).await.ok().flatten().and_then(|found| found.state);
            let pid = found.and_then(|state| state.pid).and_then(|pid| u32::try_from(pid).ok());
            Answer::Looked(pid.unwrap_or(0))
        });
        self.ask(async |engine, name| Answer::Ended(engine.ended(name).await.map(Box::new)));
        if matches!(self.phase, Phase::Asked { .. }) {
            self.ask_to_end();
        }
    }

    fn is_over(&self) -> bool {
        let is_kept = !self.is_open && self.held.is_none() && !self.output.is_blocked();
        self.is_unkillable || (self.end.is_some() && is_kept)
    }

    /// Whether the engine owes us what would be the end.
    fn is_silent(&self) -> bool {
        self.is_unkillable || self.end.map_or(self.is_killing, |end| end.by == By::Group)
    }

    /// Says that it runs, under the number that the engine knows.
    fn tell_start(&mut self) {
        if !std::mem::replace(&mut self.is_told, true) {
            self.ears.control.started(self.pid, self.started_at);
        }
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
        self.has_spoken = true;
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

    fn take_end(&mut self, end: End) {
        let never_ran = (self.failure.is_some() || end.by == By::Removal) && !self.has_begun();
        let rest = if end.by == By::Group { REST_OF_SILENT_WITHIN } else { REST_WITHIN };
        self.end = Some(end);
        self.rest_until = Some(Instant::now() + rest);
        self.is_open &= !never_ran;
        if self.why.is_some() {
            self.output.be_brief();
        }
    }

    fn stop(&mut self, why: Reason) {
        if self.end.is_some() || self.ended_before {
            return;
        }
        if why == Reason::Cancelled || self.why.is_none() {
            self.why = Some(why);
        }
        if matches!(self.phase, Phase::Running) {
            self.phase = Phase::Asked { kill_at: Instant::now() + self.bounds.kill_grace };
            if self.start == Start::Done {
                self.ask_to_end();
            }
        }
    }

    fn ask_to_end(&mut self) {
        // An engine that refuses is asked to kill it when that is due.
        self.ask(async |engine, name| Answer::Asked(engine.signal(&name, "SIGTERM").await != Ok(false)));
    }

    /// Does what is due.
    fn look_at_the_clock(&mut self) {
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
            Phase::Running if now >= self.deadline => self.stop(Reason::TimeLimit),
            Phase::Asked { kill_at } if now >= kill_at => self.kill(now, now + self.bounds.kill_within),
            Phase::Killed { since, .. } if now >= since + 2 * KILL_AGAIN && self.is_seen_to_be_over() => {
                self.take_end(End::unknown(By::Group));
            }
            Phase::Killed { give_up_at, .. } if now >= give_up_at => self.is_unkillable = true,
            Phase::Killed { since, again, give_up_at } if now >= again => self.kill(since, give_up_at),
            Phase::Running | Phase::Asked { .. } | Phase::Killed { .. } => {}
        }
    }

    /// Whether its start was told or heard.
    pub(super) fn has_begun(&self) -> bool {
        self.start == Start::Done || self.has_spoken
    }

    /// Without a start that was told or heard, an empty group may be one that is about to be filled.
    fn is_seen_to_be_over(&self) -> bool {
        self.has_begun() && self.means.account.is_seen_to_be_over()
    }

    fn kill(&mut self, since: Instant, give_up_at: Instant) {
        if self.was_killed() {
            // Its engine was asked to, and it has not ended, whether the engine has answered or not.
            self.means.account.kill();
        }
        if !self.is_killing {
            self.is_killing = true;
            match self.start {
                // Whether that came about is seen by the container's end.
                Start::Done => self.ask(async |engine, name| {
                    let _ = engine.signal(&name, "SIGKILL").await;
                    Answer::Killed
                }),
                // What is removed is not started any more.
                Start::Open => self.ask(async |engine, name| Answer::Removed(engine.remove(&name).await)),
            }
        }
        self.phase = Phase::Killed { since, again: Instant::now() + KILL_AGAIN, give_up_at };
    }

    pub(super) fn was_killed(&self) -> bool {
        matches!(self.phase, Phase::Killed { .. })
    }
}
