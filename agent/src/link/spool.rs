//! The link's durable outgoing queue: reports that the controller has not answered yet.
//!
//! Invariants:
//! 1. One thread owns the database; everybody else holds a [`Spool`] and sends it commands.
//! 2. Sequence numbers grow and are given once; reports are handed out in their order.
//! 3. A final report (finished, lost, refused) is handed out only after a blocking flush has made it durable. One
//!    flush serves all reports that came meanwhile. Other reports need none: the executor's journal has them.
//! 4. An answer, whatever it is, removes the report. A removal that a crash undoes makes a duplicate, no more.
//! 5. Of one attempt each kind of report is kept once: what the executor says again after a reconnect gets the
//!    number that it has.
//! 6. A database that is damaged is set aside and a new one begun; one that cannot be written (a full disk) is tried
//!    again later, and until then reports are kept in memory. Nothing is lost by either: at the opening of every
//!    session the executor says the newest report of all that is not settled.

use std::{
    collections::{BTreeMap, HashMap},
    path::{Path, PathBuf},
    thread,
};

use tokio::sync::{mpsc, oneshot, watch};

use self::store::Store;
use super::report::{ReportId, report_id};
use crate::{clock, messages::AttemptKey};

#[cfg(test)]
mod properties;
mod store;
#[cfg(test)]
mod tests;

/// Commands that wait for the owner thread.
const COMMANDS: usize = 256;

/// How far an attempt's output is stored, and a place in its segment files that is not behind that.
///
/// It only saves reading from the beginning after a restart; what the controller says it holds is the truth.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(crate) struct SavedCursor {
    #[prost(uint64, tag = "1")]
    pub(crate) stdout_offset: u64,
    #[prost(uint64, tag = "2")]
    pub(crate) stderr_offset: u64,
    /// Everything before this place belongs to the offsets above.
    #[prost(uint64, tag = "3")]
    pub(crate) position: u64,
}

enum Command {
    Append(proto::Report),
    Answered(u64),
    Unanswered { after: u64, limit: usize, reply: oneshot::Sender<Vec<proto::Report>> },
    SaveCursor(AttemptKey, SavedCursor),
    ForgetCursor(AttemptKey),
    Cursor(AttemptKey, oneshot::Sender<Option<SavedCursor>>),
}

/// A handle to the spool. When the last one is dropped, its thread flushes and ends.
#[derive(Clone)]
pub struct Spool {
    commands: mpsc::Sender<Command>,
    state: watch::Receiver<SpoolState>,
}

impl std::fmt::Debug for Spool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Spool").field("state", &*self.state.borrow()).finish_non_exhaustive()
    }
}

/// What can be known without asking the thread.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SpoolState {
    /// Highest sequence number that may be sent.
    pub ready: u64,
    /// Reports that are not answered.
    pub unanswered: usize,
}

impl Spool {
    /// Opens the spool in `folder` and starts its thread. The handle to join comes second.
    ///
    /// # Errors
    /// When the thread cannot be started. A database that cannot be opened is no error, see the invariants.
    pub fn open(folder: &Path) -> std::io::Result<(Self, thread::JoinHandle<()>)> {
        let (commands, inbox) = mpsc::channel(COMMANDS);
        let mut owner = Owner::new(folder.to_owned());
        let (sender, state) = watch::channel(owner.state());
        let thread =
            thread::Builder::new().name("spool".to_owned()).spawn(move || owner.serve(inbox, &sender))?;
        Ok((Self { commands, state }, thread))
    }

    /// Follows what is ready to be sent.
    pub fn watch(&self) -> watch::Receiver<SpoolState> {
        self.state.clone()
    }

    /// Appends a report; its `seq` is overwritten. It appears among the unanswered ones when it may be sent.
    pub(crate) async fn append(&self, report: proto::Report) {
        self.send(Command::Append(report)).await;
    }

    /// The controller has answered this report.
    pub(crate) async fn answered(&self, seq: u64) {
        self.send(Command::Answered(seq)).await;
    }

    /// At most `limit` unanswered reports with a number above `after`, in order.
    pub(crate) async fn unanswered(&self, after: u64, limit: usize) -> Vec<proto::Report> {
        let (reply, answer) = oneshot::channel();
        self.send(Command::Unanswered { after, limit, reply }).await;
        answer.await.unwrap_or_default()
    }

    /// Remembers how far an attempt's output is stored. Not flushed.
    pub(crate) async fn save_cursor(&self, key: AttemptKey, cursor: SavedCursor) {
        self.send(Command::SaveCursor(key, cursor)).await;
    }

    /// Forgets it.
    pub(crate) async fn forget_cursor(&self, key: AttemptKey) {
        self.send(Command::ForgetCursor(key)).await;
    }

    /// What was remembered of this attempt.
    pub(crate) async fn cursor(&self, key: AttemptKey) -> Option<SavedCursor> {
        let (reply, answer) = oneshot::channel();
        self.send(Command::Cursor(key, reply)).await;
        answer.await.ok().flatten()
    }

    async fn send(&self, command: Command) {
        if self.commands.send(command).await.is_err() {
            tracing::error!("the spool's thread is gone");
        }
    }
}

/// Number of unanswered reports in the spool in `folder`, for an agent that is not running.
///
/// # Errors
/// When the database cannot be opened.
pub fn count(folder: &Path) -> Result<usize, sled::Error> {
    if folder.exists() { Store::open(folder).map(|store| store.reports().count()) } else { Ok(0) }
}

/// The thread's side.
struct Owner {
    folder: PathBuf,
    /// None while the database cannot be used.
    store: Option<Store>,
    retry: store::Retry,
    /// Reports that are not in the database, because it did not take them.
    memory: BTreeMap<u64, proto::Report>,
    /// Every unanswered report.
    seqs: BTreeMap<u64, ReportId>,
    ids: HashMap<ReportId, u64>,
    last_seq: u64,
    ready: u64,
}

impl Owner {
    fn new(folder: PathBuf) -> Self {
        let mut owner = Self {
            store: None,
            retry: store::Retry::default(),
            folder,
            memory: BTreeMap::new(),
            seqs: BTreeMap::new(),
            ids: HashMap::new(),
            last_seq: 0,
            ready: 0,
        };
        owner.open();
        // Microseconds outrun reports, so that numbers grow also when the last database is empty or lost.
        owner.last_seq = owner.last_seq.max(u64::try_from(clock::now_micros()).unwrap_or(0));
        owner.ready = owner.last_seq;
        owner
    }

    fn state(&self) -> SpoolState {
        SpoolState { ready: self.ready, unanswered: self.seqs.len() }
    }

    fn serve(&mut self, mut inbox: mpsc::Receiver<Command>, state: &watch::Sender<SpoolState>) {
        let mut batch = Vec::with_capacity(COMMANDS);
        while inbox.blocking_recv_many(&mut batch, COMMANDS) > 0 {
            if self.store.is_none() && self.retry.is_due() {
                self.open();
            }
            self.apply(&mut batch, state);
        }
        self.flush();
    }

    /// Writes first, then at most one flush, then what is asked.
    fn apply(&mut self, batch: &mut Vec<Command>, state: &watch::Sender<SpoolState>) {
        let mut must_flush = false;
        let mut questions = Vec::new();
        for command in batch.drain(..) {
            match command {
                Command::Append(report) => must_flush |= self.append(report),
                Command::Answered(seq) => self.remove(seq),
                Command::SaveCursor(key, cursor) => {
                    self.write(|store| store.put_cursor(key, &cursor));
                    fault::point("link.cursor.saved");
                }
                Command::ForgetCursor(key) => self.write(|store| store.remove_cursor(key)),
                question @ (Command::Unanswered { .. } | Command::Cursor(..)) => questions.push(question),
            }
        }
        if must_flush {
            self.flush();
        }
        self.ready = self.last_seq;
        self.publish(state);
        // Who asked and is gone needs no answer.
        for question in questions {
            match question {
                Command::Unanswered { after, limit, reply } => drop(reply.send(self.read(after, limit))),
                Command::Cursor(key, reply) => {
                    drop(reply.send(self.store.as_ref().and_then(|store| store.cursor(key))));
                }
                _ => {}
            }
        }
        // Reading may have found that a report is gone.
        self.publish(state);
    }

    fn publish(&self, state: &watch::Sender<SpoolState>) {
        state.send_if_modified(|old| std::mem::replace(old, self.state()) != self.state());
    }

    /// Keeps a report, and says whether it needs a flush.
    fn append(&mut self, mut report: proto::Report) -> bool {
        let id = match report_id(&report) {
            Ok(id) => id,
            Err(error) => {
                tracing::error!(%error, "the executor made a report that cannot be sent");
                return false;
            }
        };
        if self.ids.contains_key(&id) {
            return false;
        }
        self.last_seq += 1;
        let seq = self.last_seq;
        report.seq = seq;
        self.seqs.insert(seq, id);
        self.ids.insert(id, seq);
        fault::point("link.report.appending");
        // It is removed from memory by the flush or write that makes it the database's.
        match self.store.as_ref().map(|store| store.put(&report)) {
            Some(Ok(())) if !id.kind.is_final() => {}
            Some(Ok(())) => drop(self.memory.insert(seq, report)),
            Some(Err(error)) => {
                self.memory.insert(seq, report);
                self.fail(&error);
            }
            None => drop(self.memory.insert(seq, report)),
        }
        id.kind.is_final()
    }

    fn remove(&mut self, seq: u64) {
        let Some(id) = self.seqs.remove(&seq) else { return };
        self.ids.remove(&id);
        self.memory.remove(&seq);
        self.write(|store| store.remove(seq));
        fault::point("link.report.removed");
    }

    fn write(&mut self, write: impl FnOnce(&Store) -> sled::Result<()>) {
        if let Some(Err(error)) = self.store.as_ref().map(write) {
            self.fail(&error);
        }
    }

    fn flush(&mut self) {
        fault::point("link.spool.flushing");
        match self.store.as_ref().map(Store::flush) {
            Some(Ok(())) => self.memory.clear(),
            Some(Err(error)) => self.fail(&error),
            None => {}
        }
        fault::point("link.spool.flushed");
    }

    /// A report that cannot be read any more is forgotten, so that it is taken when the executor says it again.
    fn read(&mut self, after: u64, limit: usize) -> Vec<proto::Report> {
        let mut reports = Vec::new();
        let mut gone = Vec::new();
        for seq in self.seqs.range(after + 1..).map(|(seq, _)| *seq) {
            if reports.len() == limit {
                break;
            }
            let in_memory = self.memory.get(&seq).cloned();
            match in_memory.or_else(|| self.store.as_ref().and_then(|store| store.get(seq))) {
                Some(report) => reports.push(report),
                None => gone.push(seq),
            }
        }
        for seq in gone {
            tracing::error!(
                seq,
                "a report of the spool is gone; the executor says it again with the next session"
            );
            self.remove(seq);
        }
        reports
    }

    /// The database failed: it is closed, and its unanswered reports are taken over into memory as far as they can be.
    fn fail(&mut self, error: &sled::Error) {
        tracing::error!(path = %self.folder.display(), %error,
            "cannot write the spool; reports are kept in memory until it can be written again");
        if let Some(store) = self.store.take() {
            for seq in self.seqs.keys() {
                if let Some(report) = store.get(*seq) {
                    self.memory.entry(*seq).or_insert(report);
                }
            }
        }
        self.retry.failed();
    }

    /// Opens the database, and brings it and the memory to the same.
    fn open(&mut self) {
        let store = match Store::open_or_set_aside(&self.folder) {
            Ok(store) => store,
            Err(error) => {
                self.fail(&error);
                return;
            }
        };
        if self.seqs.is_empty() {
            for report in store.reports() {
                self.last_seq = self.last_seq.max(report.seq);
                match report_id(&report) {
                    Ok(id) => {
                        self.seqs.insert(report.seq, id);
                        self.ids.insert(id, report.seq);
                    }
                    Err(error) => {
                        tracing::error!(seq = report.seq, %error, "the spool has a report that makes no sense");
                    }
                }
            }
        }
        // What was answered while the database could not be written is known to nobody else.
        let stale: Vec<u64> =
            store.reports().map(|report| report.seq).filter(|seq| !self.seqs.contains_key(seq)).collect();
        let written = stale
            .into_iter()
            .try_for_each(|seq| store.remove(seq))
            .and_then(|()| self.memory.values().try_for_each(|report| store.put(report)))
            .and_then(|()| store.flush());
        match written {
            Ok(()) => {
                self.memory.clear();
                self.store = Some(store);
                fault::point("link.spool.opened");
            }
            Err(error) => self.fail(&error),
        }
    }
}
