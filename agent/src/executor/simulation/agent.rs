//! The agent: an executor that decides as the real one, a journal and a spool that keep what was flushed, shims, and a link.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use jiff::Timestamp;
use model::{
    Reason,
    id::{ExecutionId, RunId},
};
use prost::Message as _;
use proto::report::Body;

use super::{AGENT, Mutant, SKEW, Session, Time, Up, World, name, run_of};
use crate::{
    executor::{
        decide::{self, Newest, OnAdopt, OnCancel, OnOrder},
        journal::{Change, Entry, State},
        order::Memory,
        report,
    },
    messages::AttemptKey,
};

mod host;
mod link;

/// What the journal has on the disk.
#[derive(Debug, Clone, Default)]
struct Journal {
    epoch: Vec<u8>,
    fence: u64,
    entries: BTreeMap<AttemptKey, Entry>,
}

/// What follows a write of the journal.
#[derive(Debug)]
enum Then {
    Nothing,
    Begin(AttemptKey),
    Say(proto::Report),
    Clear(AttemptKey),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shim {
    /// None was started.
    None,
    /// It will start the process.
    Ready,
    Running,
    Gone,
}

/// An attempt's folder.
#[derive(Debug)]
struct Folder {
    shim: Shim,
    record: Option<Vec<u8>>,
    cancel: bool,
}

/// How far the task of an attempt is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Journaling,
    Folder,
    Shim,
    Follow,
}

#[derive(Debug)]
struct Task {
    step: Step,
    start_by: Time,
    cancel: bool,
    told_start: bool,
}

#[derive(Debug)]
enum ToExecutor {
    Order(Box<proto::WorkOrder>),
    Cancel(AttemptKey),
    Settled(AttemptKey),
    Inventory,
}

#[derive(Debug)]
enum ToLink {
    Report(proto::Report),
    Ended(AttemptKey, proto::Report),
}

/// What a crash of the agent takes.
#[derive(Debug, Default)]
struct Executor {
    known: Journal,
    writes: VecDeque<(Vec<Change>, Then)>,
    /// What the journal did not take.
    owed: Vec<Change>,
    running: BTreeMap<AttemptKey, Task>,
    refused: BTreeSet<AttemptKey>,
    clearing: BTreeSet<AttemptKey>,
    outbox: VecDeque<ToLink>,
}

#[derive(Debug, Default)]
struct Link {
    /// Unanswered reports, and whether they are on the disk.
    reports: BTreeMap<u64, (proto::Report, bool)>,
    to_executor: VecDeque<ToExecutor>,
    is_opening: bool,
    session: Option<usize>,
    is_welcome: bool,
    sent: BTreeSet<u64>,
    /// Attempts that are over, of which not all is answered.
    ended: BTreeSet<AttemptKey>,
}

#[derive(Debug)]
pub(super) struct Agent {
    clock: Time,
    slots: usize,
    /// It can tell that an attempt never began.
    proves: bool,
    // On the disk.
    journal: Journal,
    pub(super) journal_fails: bool,
    folders: BTreeMap<AttemptKey, Folder>,
    spool: BTreeMap<u64, proto::Report>,
    last_seq: u64,
    // In memory.
    executor: Executor,
    link: Link,
}

pub(super) fn key_of(report: &proto::Report) -> AttemptKey {
    AttemptKey {
        execution_id: ExecutionId::from_bytes(&report.execution_id).unwrap(),
        run_id: RunId::from_bytes(&report.run_id).unwrap(),
        attempt: report.attempt,
    }
}

fn key_of_order(order: &proto::WorkOrder) -> AttemptKey {
    AttemptKey {
        execution_id: ExecutionId::from_bytes(&order.execution_id).unwrap(),
        run_id: RunId::from_bytes(&order.run_id).unwrap(),
        attempt: order.attempt,
    }
}

fn is_final(report: &proto::Report) -> bool {
    !matches!(report.body, Some(Body::Accepted(_) | Body::Started(_)))
}

fn is_same(one: &proto::Report, other: &proto::Report) -> bool {
    let kind = |report: &proto::Report| report.body.as_ref().map(std::mem::discriminant);
    key_of(one) == key_of(other) && kind(one) == kind(other)
}

impl Journal {
    fn apply(&mut self, changes: Vec<Change>) {
        for change in changes {
            match change {
                Change::Put(key, entry) => drop(self.entries.insert(key, *entry)),
                Change::Forget(key) | Change::Drop(key) => drop(self.entries.remove(&key)),
                Change::Fence(fence) => self.fence = self.fence.max(fence),
            }
        }
    }
}

impl Agent {
    pub(super) fn new(clock: Time, slots: usize, proves: bool) -> Self {
        let journal = Journal { epoch: vec![1], ..Journal::default() };
        let executor = Executor { known: journal.clone(), ..Executor::default() };
        Self {
            clock,
            slots,
            proves,
            journal,
            journal_fails: false,
            folders: BTreeMap::new(),
            spool: BTreeMap::new(),
            last_seq: 0,
            executor,
            link: Link::default(),
        }
    }

    /// Whether a process of this run may be alive.
    pub(super) fn is_alive(&self, run: u64) -> bool {
        let alive = |folder: &Folder| matches!(folder.shim, Shim::Ready | Shim::Running);
        self.folders.iter().any(|(key, folder)| run_of(*key) == run && alive(folder))
    }

    /// Nothing is left to say or to do.
    pub(super) fn is_done(&self) -> bool {
        let Self { executor, link, .. } = self;
        executor.running.is_empty()
            && executor.clearing.is_empty()
            && executor.writes.is_empty()
            && executor.owed.is_empty()
            && executor.outbox.is_empty()
            && !executor.known.entries.values().any(decide::is_unsettled)
            && link.reports.is_empty()
            && link.to_executor.is_empty()
    }

    fn put(&mut self, now: Time, key: AttemptKey, state: State, report: Option<proto::Report>, then: Then) {
        let execution_id = key.execution_id.to_bytes();
        let entry =
            Entry { execution_id, state: state.into(), at: now + self.clock, report, ..Entry::default() };
        self.executor.known.entries.insert(key, entry.clone());
        self.executor.writes.push_back((vec![Change::Put(key, Box::new(entry))], then));
    }

    fn refuse(&mut self, now: Time, key: AttemptKey, reason: Reason) {
        let report = report::refused(key, reason, "");
        self.executor.refused.insert(key);
        self.put(now, key, State::Refused, Some(report.clone()), Then::Say(report));
    }

    fn end(&mut self, now: Time, key: AttemptKey, report: proto::Report) {
        self.executor.running.remove(&key);
        self.put(now, key, State::Ended, Some(report.clone()), Then::Nothing);
        self.executor.outbox.push_back(ToLink::Ended(key, report));
    }

    fn say_newest(&mut self, key: AttemptKey) {
        let Some(entry) = self.executor.known.entries.get(&key) else { return };
        self.executor.outbox.extend(match decide::newest(key, entry) {
            Newest::Nothing => None,
            Newest::Report(report) | Newest::Running(report) => Some(ToLink::Report(report)),
            Newest::Ended(report) => Some(ToLink::Ended(key, report)),
        });
    }

    fn run(&mut self, key: AttemptKey, step: Step, start_by: Time) {
        let task = Task { step, start_by, cancel: false, told_start: false };
        self.executor.running.insert(key, task);
    }
}

fn record(key: AttemptKey, reason: Reason) -> Vec<u8> {
    let record = proto::ExitRecord {
        execution_id: key.execution_id.to_bytes(),
        run_id: key.run_id.to_bytes(),
        attempt: key.attempt,
        reason: reason.as_str().to_owned(),
        ..proto::ExitRecord::default()
    };
    record.encode_to_vec()
}

impl World {
    pub(super) fn agent_crashes(&mut self, host_too: bool) {
        self.say(|| if host_too { "the host crashes" } else { "the agent crashes" }.to_owned());
        // Some of what was not flushed is on the disk all the same.
        let agent = &mut self.agent;
        if !agent.journal_fails && self.rng.bool() {
            agent.journal.apply(std::mem::take(&mut agent.executor.owed));
            for _ in 0..self.rng.usize(0..=agent.executor.writes.len()) {
                let (changes, _) = agent.executor.writes.pop_front().unwrap();
                agent.journal.apply(changes);
            }
        }
        if self.rng.bool() {
            self.spool_flushes();
        }
        let agent = &mut self.agent;
        for folder in agent.folders.values_mut().filter(|_| host_too) {
            folder.shim = if folder.shim == Shim::None { Shim::None } else { Shim::Gone };
        }
        if let Some(at) = agent.link.session {
            self.leave_session(at);
        }
        let agent = &mut self.agent;
        let reports = agent.spool.iter().map(|(seq, report)| (*seq, (report.clone(), true))).collect();
        agent.link = Link { reports, ..Link::default() };
        agent.executor = Executor { known: agent.journal.clone(), ..Executor::default() };
        self.adopt();
    }

    pub(super) fn journal_is_lost(&mut self) {
        self.say(|| "the journal is lost".to_owned());
        let epoch = vec![self.agent.journal.epoch[0].wrapping_add(1)];
        self.agent.journal_fails = true;
        self.agent.journal = Journal { epoch, ..Journal::default() };
        self.agent_crashes(false);
        self.agent.journal_fails = false;
    }

    fn adopt(&mut self) {
        let again = self.has(Mutant::BeginsAgain);
        let agent = &mut self.agent;
        let entries: Vec<(AttemptKey, Entry)> =
            agent.executor.known.entries.iter().map(|(key, entry)| (*key, entry.clone())).collect();
        for (key, entry) in entries {
            match decide::on_adopt(&entry, self.now + agent.clock) {
                OnAdopt::Nothing => {}
                OnAdopt::Again => {
                    if entry.state() == State::Refused {
                        agent.executor.refused.insert(key);
                    }
                    agent.say_newest(key);
                }
                OnAdopt::Follow if again && entry.state() == State::Starting => {
                    agent.folders.remove(&key);
                    agent.run(key, Step::Folder, Time::MAX);
                }
                OnAdopt::Follow => agent.run(key, Step::Follow, 0),
            }
        }
        let is_held =
            |key: &AttemptKey| agent.executor.known.entries.get(key).is_some_and(decide::is_unsettled);
        agent.executor.clearing = agent.folders.keys().copied().filter(|key| !is_held(key)).collect();
    }

    pub(super) fn leave_session(&mut self, at: usize) {
        let session = &mut self.sessions[at];
        session.open[AGENT] = false;
        session.down.clear();
        let link = &mut self.agent.link;
        if link.session == Some(at) {
            link.session = None;
            link.is_welcome = false;
            link.sent.clear();
        }
    }

    pub(super) fn agent_step(&mut self) {
        match self.rng.u8(0..5) {
            0 => {
                if let Some(message) = self.agent.link.to_executor.pop_front() {
                    self.executor_hears(message);
                }
            }
            1 => self.journal_flushes(),
            2 => {
                let tasks: Vec<AttemptKey> = self.agent.executor.running.keys().copied().collect();
                if let Some(key) = self.rng.choice(tasks) {
                    self.task_step(key);
                }
            }
            3 => self.shim_step(),
            _ => self.clear_away(),
        }
    }

    fn executor_hears(&mut self, message: ToExecutor) {
        let now = self.now;
        self.say(|| match &message {
            ToExecutor::Order(order) => {
                format!("the executor hears of an order {}", name(key_of_order(order)))
            }
            ToExecutor::Cancel(key) => format!("the executor hears of a cancel {}", name(*key)),
            ToExecutor::Settled(key) => format!("the executor hears that {} is settled", name(*key)),
            ToExecutor::Inventory => "the executor is asked what it holds".to_owned(),
        });
        match message {
            ToExecutor::Order(order) => self.executor_takes(&order),
            ToExecutor::Cancel(key) => {
                let forgets = self.has(Mutant::ForgetsCancels);
                let agent = &mut self.agent;
                let known = agent.executor.known.entries.get(&key);
                match decide::on_cancel(agent.executor.running.contains_key(&key), known, false, false) {
                    OnCancel::Stop => agent.executor.running.get_mut(&key).unwrap().cancel = true,
                    OnCancel::Again => agent.say_newest(key),
                    OnCancel::Lost | OnCancel::Ahead => {
                        unreachable!("this agent forgets nothing, and its clock is right")
                    }
                    OnCancel::Tombstone if forgets => {
                        let report = report::refused(key, Reason::Cancelled, "");
                        agent.executor.outbox.push_back(ToLink::Report(report));
                    }
                    OnCancel::Tombstone => {
                        self.witness.forbid(key, "it was cancelled before its order came");
                        agent.refuse(now, key, Reason::Cancelled);
                    }
                }
            }
            ToExecutor::Settled(key) => {
                self.agent.executor.refused.remove(&key);
                if decide::is_over(self.agent.executor.known.entries.get(&key)) {
                    self.agent.put(now, key, State::Settled, None, Then::Clear(key));
                }
            }
            ToExecutor::Inventory => {
                if self.has(Mutant::ForgetsRefusals) {
                    self.agent.executor.refused.clear();
                }
                let agent = &mut self.agent;
                let Executor { known, refused, .. } = &agent.executor;
                let held =
                    known.entries.iter().filter(|(key, entry)| decide::is_held(entry, refused.contains(key)));
                let held: BTreeSet<AttemptKey> = held.map(|(key, _)| *key).collect();
                for key in &held {
                    agent.say_newest(*key);
                }
                let hello = Up::Hello { epoch: agent.executor.known.epoch.clone(), held, said_at: now };
                agent.link.is_opening = false;
                agent.link.session = Some(self.sessions.len());
                self.sessions.push(Session { up: [hello].into(), open: [true, true], ..Session::default() });
            }
        }
    }

    fn executor_takes(&mut self, order: &proto::WorkOrder) {
        let ignores_window = self.has(Mutant::IgnoresTheWindow);
        let unjournaled = self.has(Mutant::BeginsUnjournaled);
        let (now, agent) = (self.now, &mut self.agent);
        let key = key_of_order(order);
        let mut order = order.clone();
        if ignores_window {
            order.start_by = Time::MAX;
        }
        let Journal { epoch, fence, entries } = &agent.executor.known;
        let clock_skew = std::time::Duration::from_micros(SKEW.unsigned_abs());
        let memory = Memory { epoch, fence: *fence, is_forgotten: false, clock_skew };
        let at = Timestamp::from_microsecond(now + agent.clock).unwrap();
        match decide::on_order(entries.get(&key), &order, memory, at) {
            OnOrder::Again => agent.say_newest(key),
            OnOrder::Lost(fault) => {
                let report = report::lost(key, fault.reason(), "");
                agent.executor.outbox.push_back(ToLink::Report(report));
            }
            OnOrder::Refuse(fault) => agent.refuse(now, key, fault.reason()),
            OnOrder::Begin if agent.executor.running.len() >= agent.slots => {
                agent.refuse(now, key, Reason::AgentBusy);
            }
            OnOrder::Begin => {
                agent.executor.known.fence = agent.executor.known.fence.max(order.fence);
                agent.put(now, key, State::Starting, None, Then::Begin(key));
                let step = if unjournaled { Step::Folder } else { Step::Journaling };
                agent.run(key, step, order.start_by);
            }
        }
    }

    /// One flush of the journal's thread; what it did not take is made up for with the next one that it takes.
    fn journal_flushes(&mut self) {
        let (now, agent) = (self.now, &mut self.agent);
        let count = self.rng.usize(0..=agent.executor.writes.len());
        let group: Vec<(Vec<Change>, Then)> = agent.executor.writes.drain(..count).collect();
        let is_written = !(agent.journal_fails && self.faults);
        let mut thens = Vec::new();
        for (changes, then) in group {
            agent.executor.owed.extend(changes);
            thens.push(then);
        }
        if is_written {
            agent.journal.apply(std::mem::take(&mut agent.executor.owed));
        }
        for then in thens {
            match then {
                Then::Nothing => {}
                Then::Begin(key) if is_written => {
                    if let Some(task) = agent.executor.running.get_mut(&key)
                        && task.step == Step::Journaling
                    {
                        task.step = Step::Folder;
                    }
                }
                Then::Begin(key) => {
                    agent.executor.running.remove(&key);
                    agent.refuse(now, key, Reason::NoSpace);
                }
                // On a full disk the answer counts for more than its memory.
                Then::Say(report) => agent.executor.outbox.push_back(ToLink::Report(report)),
                Then::Clear(key) => drop(agent.executor.clearing.insert(key)),
            }
        }
    }
}
