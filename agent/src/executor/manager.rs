//! The run manager: one task that knows all attempts, answers the link, and starts what is ordered.
//!
//! 1. `known` is the journal as it is or will be within moments; what must be on the disk before something else
//!    happens is waited for by the task to which it matters.
//! 2. It never waits for the link: what is to be said stands in `outbox`, so the two can never wait for each other.
//! 3. An attempt is in `running` from the order until its end; each takes one slot.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    path::PathBuf,
    sync::Arc,
    thread,
    time::Duration,
};

use model::{Reason, label::Facts, limits};
use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{Instant, MissedTickBehavior},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    Shared,
    attempt::{self, Attempt, Event},
    decide::{self, Newest, OnCancel, OnOrder},
    journal::{Change, Entry, Journal, Known, Opened, State},
    order::{Audience, Memory, Order},
    policy::{Own, Policy},
    report,
};
use crate::{
    clock,
    messages::{AttemptKey, Inventory, ToExecutor, ToLink},
    sandbox::cgroup,
    shim::{CGROUP_FILE_NAME, probe},
};

mod admit;
mod adopt;
mod prune;
mod supersede;

/// Events of attempts that wait to be dealt with.
const EVENTS: usize = 256;
const PRUNE_EVERY: Duration = Duration::from_secs(3600);
/// Messages for the link, and things being done, above which nothing new is heard from it. Far more than there are of
/// a host that is full and whose link listens.
const OUTBOX: usize = 4 * limits::HOST_UNSETTLED;
const TASKS: usize = 4 * limits::HOST_UNSETTLED;
/// How long runs that are stopped with the agent may take.
const STOP_WITHIN: Duration = limits::KILL_GRACE.saturating_add(Duration::from_secs(10));

/// By what is decided.
#[derive(Debug)]
pub(super) struct Rules {
    pub(super) audience: Audience,
    pub(super) policy: PathBuf,
    pub(super) own: Own,
    pub(super) slots: usize,
    pub(super) kill_jobs: bool,
    pub(super) clock_skew: Duration,
    pub(super) spool_bytes: u64,
    pub(super) block_for: Duration,
    /// Folders that a confined run does not see.
    pub(super) hidden: Vec<String>,
}

#[derive(Debug)]
pub(super) struct Manager {
    shared: Arc<Shared>,
    rules: Rules,
    journal: Journal,
    journal_thread: thread::JoinHandle<()>,
    epoch: Vec<u8>,
    fence: u64,
    /// What this host can confine runs by.
    sandbox: Facts,
    known: Known,
    running: HashMap<AttemptKey, CancellationToken>,
    /// Orders that wait for the end of earlier attempts of their runs; none: what is left of those is being looked after.
    superseding: HashMap<AttemptKey, Option<Order>>,
    /// The agent was asked to stop: nothing new begins.
    is_stopping: bool,
    /// What was refused, as long as the controller has not answered that, for all that this process knows.
    refused: HashSet<AttemptKey>,
    /// Attempts on their way to their shims.
    beginning: TaskTracker,
    outbox: VecDeque<ToLink>,
    tasks: JoinSet<Option<ToLink>>,
    events: mpsc::Sender<Event>,
    happened: mpsc::Receiver<Event>,
}

/// A refusal, before it is said.
struct Refusal {
    reason: Reason,
    detail: String,
    /// It is by a cancel whose order has not come.
    tombstone: bool,
}

impl Refusal {
    fn new(reason: Reason, detail: &impl ToString) -> Self {
        Self { reason, detail: detail.to_string(), tombstone: false }
    }
}

impl Manager {
    pub(super) fn new(shared: Arc<Shared>, rules: Rules, opened: Opened) -> Self {
        let (events, happened) = mpsc::channel(EVENTS);
        Self {
            shared,
            rules,
            journal: opened.journal,
            journal_thread: opened.thread,
            epoch: opened.epoch,
            fence: opened.fence,
            sandbox: Facts::new(),
            known: opened.known,
            running: HashMap::new(),
            superseding: HashMap::new(),
            is_stopping: false,
            refused: HashSet::new(),
            beginning: TaskTracker::new(),
            outbox: VecDeque::new(),
            tasks: JoinSet::new(),
            events,
            happened,
        }
    }

    /// Until the agent stops, or the journal is lost; it is closed then.
    pub(super) async fn serve(mut self, from_link: mpsc::Receiver<ToExecutor>, shutdown: CancellationToken) {
        self.adopt();
        self.run(from_link, shutdown).await;
        let Self { journal, journal_thread, mut tasks, .. } = self;
        tasks.shutdown().await;
        drop(journal);
        // Its last writes are flushed before it ends. A panic there has been logged.
        let _ = tokio::task::spawn_blocking(move || journal_thread.join()).await;
    }

    async fn run(&mut self, mut from_link: mpsc::Receiver<ToExecutor>, shutdown: CancellationToken) {
        let to_link = self.shared.to_link.clone();
        let journal = self.journal.clone();
        let mut prune = tokio::time::interval(PRUNE_EVERY);
        prune.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut stop_by = None;
        // It takes seconds on a host in trouble; what was adopted has its end meanwhile, and a stop is heard.
        let mut looking = std::pin::pin!(look_at_the_host(self.shared.clone(), self.rules.policy.clone()));
        let mut has_looked = false;
        loop {
            let stopping = async {
                match stop_by {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => shutdown.cancelled().await,
                }
            };
            tokio::select! {
                permit = to_link.reserve(), if !self.outbox.is_empty() => {
                    let Ok(permit) = permit else { return };
                    if let Some(message) = self.outbox.pop_front() {
                        permit.send(message);
                    }
                }
                Some(event) = self.happened.recv() => self.take_event(event),
                Some(done) = self.tasks.join_next() => self.take_done(done),
                facts = &mut looking, if !has_looked => {
                    self.sandbox = facts;
                    has_looked = true;
                }
                message = from_link.recv(), if has_looked && stop_by.is_none() && self.has_room() => match message {
                    Some(message) => self.take_message(message),
                    None => shutdown.cancel(),
                },
                _ = prune.tick() => self.prune(),
                () = journal.gone() => {
                    tracing::error!("the journal is gone; nothing can be decided without it");
                    return;
                }
                () = self.beginning.wait() => {
                    // What ends here begins no more: what was said of it is remembered, and all else goes on.
                    while let Ok(event) = self.happened.try_recv() {
                        self.take_event(event);
                    }
                    return;
                }
                () = stopping => {
                    if stop_by.is_some() {
                        return;
                    }
                    self.is_stopping = true;
                    let within = if self.rules.kill_jobs {
                        self.running.values().for_each(CancellationToken::cancel);
                        STOP_WITHIN
                    } else {
                        self.beginning.close();
                        attempt::READY_WITHIN
                    };
                    stop_by = Some(Instant::now() + within);
                }
            }
            if stop_by.is_some() && self.rules.kill_jobs && self.running.is_empty() && self.outbox.is_empty()
            {
                return;
            }
        }
    }

    /// Whether the link is to be heard. One that asks and asks and does not listen gets no more answers than fit here; one
    /// that listens never waits for that.
    fn has_room(&self) -> bool {
        self.outbox.len() < OUTBOX && self.tasks.len() < TASKS
    }

    fn take_message(&mut self, message: ToExecutor) {
        match message {
            ToExecutor::Order(envelope) => self.take_order(&envelope),
            ToExecutor::Cancel(key) => self.cancel(key),
            ToExecutor::Settled(key) => self.settle(key),
            ToExecutor::Inventory(answer) => {
                let is_held =
                    |(key, entry): &(&AttemptKey, &Entry)| decide::is_held(entry, self.refused.contains(key));
                let held = self.known.whole().filter(is_held).map(|(key, _)| key);
                let held: Vec<AttemptKey> = held.chain(self.superseding.keys()).copied().collect();
                // A link that does not wait for it any more will ask again.
                let (journal_epoch, fence) = (self.epoch.clone(), self.fence);
                let _ = answer.send(Inventory {
                    journal_epoch,
                    fence,
                    held: held.clone(),
                    facts: self.sandbox.clone(),
                });
                fault::point("executor.inventory.told");
                for key in held {
                    self.say_newest(key);
                }
            }
        }
    }

    fn take_order(&mut self, envelope: &proto::Envelope) {
        let now = clock::now();
        let order = match self.rules.audience.read(envelope, now) {
            Ok(order) => order,
            Err(error) => {
                let source = std::error::Error::source(&error).map(ToString::to_string);
                tracing::error!(%error, source, "an order that cannot be believed was dropped");
                return;
            }
        };
        let key = order.key;
        if let Err(fault) = self.rules.audience.check_addressee(&order.content) {
            // Not ours to remember.
            self.outbox.push_back(ToLink::Report(report::refused(key, fault.reason(), fault.to_string())));
            return;
        }
        if self.superseding.contains_key(&key) {
            return;
        }
        let memory = Memory {
            epoch: &self.epoch,
            fence: self.fence,
            is_forgotten: self.known.is_forgotten(&key),
            clock_skew: self.rules.clock_skew,
        };
        match decide::on_order(self.known.get(&key), &order.content, memory, now) {
            OnOrder::Begin => {}
            OnOrder::Again => return self.say_newest(key),
            OnOrder::Refuse(fault) => return self.refuse(key, Refusal::new(fault.reason(), &fault)),
            OnOrder::Lost(fault) => {
                let report = report::lost(key, fault.reason(), fault.to_string());
                self.outbox.push_back(ToLink::Report(report));
                return;
            }
        }
        if let Some(number) = self.unnamed(key, &order.content) {
            // A controller whose database went back would run it a second time.
            let detail =
                format!("attempt {number} of this run began here, and the order does not know of it");
            self.outbox.push_back(ToLink::Report(report::lost(key, Reason::JournalLost, detail)));
            return;
        }
        if let Some(later) = self.known.latest_after(key) {
            let detail = format!("attempt {later} of this run was ordered here already");
            return self.refuse(key, Refusal::new(Reason::NotStarted, &detail));
        }
        tracing::info!(run.id = %key.run_id, run.attempt = key.attempt, execution.id = %key.execution_id,
            request.id = order.content.request_id, actor = order.content.actor, "took an order");
        fault::point("executor.order.taken");
        let raised = (order.content.fence > self.fence).then_some(Change::Fence(order.content.fence));
        self.fence = self.fence.max(order.content.fence);
        if order.content.superseded_attempt > 0 {
            let written = self.journal.write(raised.into_iter().collect());
            self.later(written);
            return self.supersede(order);
        }
        self.begin(order, raised);
    }

    /// An earlier attempt of the run that may have begun here, and that the order does not name.
    fn unnamed(&self, key: AttemptKey, order: &proto::WorkOrder) -> Option<u32> {
        let began = self.known.earlier(key).filter(|(_, entry)| entry.state() != State::Refused);
        let is_named = |number: &u32| *number == order.superseded_attempt || order.begun.contains(number);
        began.map(|(earlier, _)| earlier.attempt).filter(|number| !is_named(number)).max()
    }

    /// Begins what is ordered, if this host takes it; `also` goes into the journal with it.
    fn begin(&mut self, order: Order, also: Option<Change>) {
        let (key, start_by) = (order.key, order.content.start_by);
        match self.admit(order) {
            Ok(spec) => {
                let entry = self.entry(key, State::Starting, None);
                let put = Change::Put(key, entry.clone().into());
                let changes = std::iter::once(put).chain(also).collect();
                let journaled = self.journal.write(changes);
                let attempt = self.attempt(key, entry.boot_id.clone());
                let beginning = self.beginning.token();
                self.known.put(key, entry);
                self.tasks.spawn(async move {
                    attempt.begin(journaled, spec, start_by, beginning).await;
                    None
                });
            }
            Err(refusal) => self.refuse(key, refusal),
        }
    }

    /// Remembers durably that the attempt never begins, then says so.
    fn refuse(&mut self, key: AttemptKey, refusal: Refusal) {
        let Refusal { reason, detail, tombstone } = refusal;
        tracing::warn!(run.id = %key.run_id, run.attempt = key.attempt, run.reason = reason.as_str(), detail, "refused a run");
        let report = report::refused(key, reason, detail);
        self.refused.insert(key);
        let entry = Entry { tombstone, ..self.entry(key, State::Refused, Some(report.clone())) };
        let written = self.put(key, entry);
        self.prune_surplus();
        self.tasks.spawn(async move {
            // On a full disk the answer counts for more than its memory.
            fault::point("executor.refusal.writing");
            log_failure(written.await);
            fault::point("executor.refusal.written");
            Some(ToLink::Report(report))
        });
    }

    fn cancel(&mut self, key: AttemptKey) {
        let running = self.running.get(&key);
        let is_ahead = decide::is_ahead(key, self.rules.clock_skew, clock::now());
        let is_forgotten = self.known.is_forgotten(&key);
        match decide::on_cancel(running.is_some(), self.known.get(&key), is_forgotten, is_ahead) {
            OnCancel::Stop => running.into_iter().for_each(CancellationToken::cancel),
            OnCancel::Again => self.say_newest(key),
            OnCancel::Lost => {
                let detail = "cancelled, and so long ago that it may have run and be forgotten here";
                self.outbox.push_back(ToLink::Report(report::lost(key, Reason::JournalLost, detail)));
            }
            OnCancel::Ahead => {
                tracing::warn!(run.id = %key.run_id, execution.id = %key.execution_id,
                    "a cancel of what is yet to be made by this host's clock was dropped");
            }
            OnCancel::Tombstone => {
                let refusal = Refusal::new(Reason::Cancelled, &"cancelled before its order came");
                self.refuse(key, Refusal { tombstone: true, ..refusal });
            }
        }
    }

    fn settle(&mut self, key: AttemptKey) {
        self.refused.remove(&key);
        if !decide::is_over(self.known.get(&key)) {
            return;
        }
        let unkillable = self.known.get(&key).is_some_and(|entry| entry.unkillable);
        let entry = Entry::bare(key, State::Settled, unkillable);
        self.known.put(key, entry.clone());
        let written = self.journal.write(vec![Change::Put(key, entry.into())]);
        let folder = self.shared.folder(key);
        self.tasks.spawn(async move {
            let is_written = written.await;
            fault::point("executor.settled.written");
            if is_written.is_ok() {
                attempt::clear_away(folder, None).await;
            } else {
                // A full disk gets its room back by the output. The rest stays: without it the next agent, whose journal may
                // know only that the attempt was to start, would believe that it never began.
                attempt::remove_output(&folder);
            }
            log_failure(is_written);
            fault::point("executor.folder.removed");
            None
        });
        self.prune_surplus();
    }

    fn take_event(&mut self, event: Event) {
        match event {
            Event::Accepted(key) => {
                let report = report::accepted(key);
                if let Some(entry) = self.known.whole_mut(&key) {
                    entry.report = Some(report.clone());
                }
                fault::point("executor.accepted.telling");
                self.outbox.push_back(ToLink::Report(report));
            }
            Event::Started { key, pid, at } => {
                fault::point("executor.started.heard");
                let report = report::started(key, pid, at, &self.shared.boot_id);
                let mut entry = self.entry(key, State::Started, Some(report.clone()));
                (entry.pid, entry.started_at) = (pid, at);
                let written = self.journal.write(vec![Change::Put(key, entry.clone().into())]);
                self.known.put(key, entry);
                fault::point("executor.started.telling");
                self.later(written);
                self.outbox.push_back(ToLink::Report(report));
            }
            Event::Refused { key, reason, detail } => {
                self.running.remove(&key);
                self.refuse(key, Refusal::new(reason, &detail));
                let folder = self.shared.folder(key);
                self.tasks.spawn(async move {
                    attempt::clear_away(folder, None).await;
                    None
                });
                self.go_on_superseding();
            }
            Event::Ended { key, report } => {
                self.running.remove(&key);
                let written = self.put(key, self.entry(key, State::Ended, Some(report.clone())));
                fault::point("executor.ended.telling");
                self.later(written);
                self.outbox.push_back(ToLink::Ended { key, report });
                self.go_on_superseding();
            }
            Event::Superseded { order, unkillable } => self.superseded(*order, unkillable),
        }
    }

    fn take_done(&mut self, done: Result<Option<ToLink>, tokio::task::JoinError>) {
        match done {
            Ok(message) => self.outbox.extend(message),
            Err(error) => tracing::error!(%error, "a task of the executor failed"),
        }
    }

    /// Says the newest report of an attempt again.
    fn say_newest(&mut self, key: AttemptKey) {
        let Some(entry) = self.known.get(&key) else { return };
        match decide::newest(key, entry) {
            Newest::Nothing => {}
            Newest::Report(report) => self.outbox.push_back(ToLink::Report(report)),
            Newest::Running(report) => {
                self.outbox.push_back(ToLink::Report(report));
                self.outbox.push_back(ToLink::OutputGrew(key));
            }
            Newest::Ended(report) => self.outbox.push_back(ToLink::Ended { key, report }),
        }
    }

    fn unsettled(&self) -> impl Iterator<Item = (&AttemptKey, &Entry)> {
        self.known.whole().filter(|(_, entry)| decide::is_unsettled(entry))
    }

    /// A new attempt to follow; it takes a slot.
    fn attempt(&mut self, key: AttemptKey, boot_id: String) -> Attempt {
        let cancel = CancellationToken::new();
        self.running.insert(key, cancel.clone());
        Attempt {
            key,
            shared: Arc::clone(&self.shared),
            cancel,
            events: self.events.clone(),
            boot_id,
            is_doubtful: false,
        }
    }

    fn entry(&self, key: AttemptKey, state: State, report: Option<proto::Report>) -> Entry {
        let was_unkillable = self.known.get(&key).is_some_and(|entry| entry.unkillable);
        let is_unkillable = || report.as_ref().is_some_and(report::is_unkillable);
        let unkillable =
            was_unkillable || is_unkillable() && !self.shared.folder(key).join(CGROUP_FILE_NAME).exists();
        Entry {
            execution_id: key.execution_id.to_bytes(),
            state: state.into(),
            at: clock::now_micros(),
            boot_id: self.shared.boot_id.clone(),
            unkillable,
            report,
            ..Entry::default()
        }
    }

    fn put(
        &mut self,
        key: AttemptKey,
        entry: Entry,
    ) -> impl Future<Output = Result<(), super::journal::JournalError>> + Send + use<> {
        self.known.put(key, entry.clone());
        self.journal.write(vec![Change::Put(key, entry.into())])
    }

    /// Lets a write finish that nothing waits for.
    fn later(
        &mut self,
        written: impl Future<Output = Result<(), super::journal::JournalError>> + Send + 'static,
    ) {
        self.tasks.spawn(async move {
            log_failure(written.await);
            None
        });
    }
}

/// Takes the agent's own place among the control groups, and tries what the host can confine runs by.
async fn look_at_the_host(shared: Arc<Shared>, policy: PathBuf) -> Facts {
    for trouble in cgroup::settle_agent() {
        tracing::warn!(trouble, "the agent has no control group of its own");
    }
    // A policy that cannot be read allows nothing anyway.
    let policy = Policy::read(&policy).unwrap_or_default().sandbox;
    let engine = policy.containers.then(|| policy.engine_socket());
    let found = probe::look(&shared.program, policy.uids, engine.as_deref()).await;
    for (fact, missing) in &found.missing {
        tracing::warn!(fact, missing, "this host cannot give a sandbox");
    }
    found.facts
}

fn log_failure(written: Result<(), super::journal::JournalError>) {
    if let Err(error) = written {
        let source = std::error::Error::source(&error).map(ToString::to_string);
        tracing::error!(%error, source, "the journal is behind");
    }
}
