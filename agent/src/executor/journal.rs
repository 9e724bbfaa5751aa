//! The executor's memory: which attempts it has, how far they are, and the highest fence that it has obeyed.
//!
//! 1. It is read once, when it is opened, and then only written. One thread owns the database.
//! 2. A write is on the disk when [`Journal::write`] returns. Writes that wait at the same time share one flush, and
//!    each is applied whole or not at all.
//! 3. A journal that is damaged when it is opened is moved aside and a new one begins, with a new epoch: orders that
//!    were signed for the old one are refused from then on.
//! 4. A write that failed, as on a full disk, is made up for before a later one is done, and as soon as that goes.
//! 5. What is forgotten raises the floor before it is gone (see [`Known`]).
//! 6. Should the journal be found damaged or replaced while it is in use, the thread ends, and the agent with it.
//!
//! Keys are `run id ‖ attempt` (big-endian) under the tree `attempts`; values are prost messages.

use std::{
    collections::HashSet,
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::{Arc, mpsc},
    thread,
    time::{Duration, Instant},
};

use model::id::{ExecutionId, RunId};
use prost::Message as _;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use self::files::Files;
pub use self::known::{Keep, Known};
use crate::{messages::AttemptKey, mutant};

mod files;
mod known;

const CACHE_BYTES: u64 = 16 * 1024 * 1024;
/// Writes that share one flush at most.
const GROUP: usize = 256;
/// How long a database that failed is left alone.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// How long to wait for the threads of a database that was closed, and how often to look.
const LOCK_WAIT: Duration = Duration::from_secs(2);
const LOCK_LOOK: Duration = Duration::from_millis(20);
const EPOCH_BYTES: usize = 16;
const ATTEMPTS: &str = "attempts";
const META: &str = "meta";
const EPOCH: &[u8] = b"epoch";
const FENCE: &[u8] = b"fence";
const FLOOR: &[u8] = b"floor";

/// How far an attempt is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, prost::Enumeration)]
#[repr(i32)]
pub enum State {
    /// Never written; what an entry without a state reads as. It is treated as one that may have begun.
    Unspecified = 0,
    /// A process of it may exist from now on: written before the spawn. An order that finds no free slot is refused
    /// and never waits, so an attempt is accepted and about to start with one flush.
    Starting = 1,
    /// A process of it exists or existed.
    Started = 2,
    /// It is over; the controller has yet to hold all of it.
    Ended = 3,
    /// It never began, and never will.
    Refused = 4,
    /// The controller holds all of it. The entry stays for a while, so that a repeated order starts nothing.
    Settled = 5,
}

/// What the journal knows of one attempt.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Entry {
    #[prost(bytes = "vec", tag = "1")]
    pub execution_id: Vec<u8>,
    #[prost(enumeration = "State", tag = "2")]
    pub state: i32,
    /// When this was written, in microseconds since 1970 UTC.
    #[prost(int64, tag = "3")]
    pub at: i64,
    /// The host's boot in which it was to start.
    #[prost(string, tag = "4")]
    pub boot_id: String,
    #[prost(uint32, tag = "5")]
    pub pid: u32,
    #[prost(int64, tag = "6")]
    pub started_at: i64,
    /// The newest report; absent once it is settled.
    #[prost(message, optional, tag = "7")]
    pub report: Option<proto::Report>,
    /// It is over, not all of its processes could be killed, and without a control group nobody can tell when they end.
    #[prost(bool, tag = "8")]
    pub unkillable: bool,
    /// It was cancelled before its order came. A cancel bears no signature, so of these only so many are kept.
    #[prost(bool, tag = "9")]
    pub tombstone: bool,
}

/// One change of the journal.
#[derive(Debug, Clone)]
pub enum Change {
    Put(AttemptKey, Box<Entry>),
    /// It goes, and the floor is raised to its execution's time.
    Forget(AttemptKey),
    /// It goes, and nothing else changes.
    Drop(AttemptKey),
    Fence(u64),
}

/// Why something is not in the journal.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    #[error("cannot use the journal's folder '{path}'")]
    Folder { path: PathBuf, source: io::Error },
    #[error("the journal '{path}' is in use by another agent")]
    InUse { path: PathBuf },
    #[error("cannot open the journal '{path}', not even a new one")]
    Open { path: PathBuf },
    #[error("cannot write the journal")]
    Write(#[source] Arc<sled::Error>),
    #[error("the journal's thread has ended")]
    Gone,
}

impl JournalError {
    /// Was it for want of room on the disk?
    pub fn is_no_space(&self) -> bool {
        let Self::Write(error) = self else { return false };
        matches!(&**error, sled::Error::Io(error)
            if matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded))
    }
}

/// What the journal held when it was opened.
#[derive(Debug)]
pub struct Opened {
    pub journal: Journal,
    /// Ends, and lets go of the database, once the last [`Journal`] is dropped.
    pub thread: thread::JoinHandle<()>,
    /// Sixteen bytes.
    pub epoch: Vec<u8>,
    pub fence: u64,
    pub known: Known,
    /// Where the damaged journal was moved, if there was one.
    pub set_aside: Option<PathBuf>,
}

/// The way to the thread that owns the database. It ends when the last of these is dropped.
#[derive(Debug, Clone)]
pub struct Journal {
    writes: mpsc::Sender<Write>,
    gone: CancellationToken,
}

#[derive(Debug)]
struct Write {
    changes: Vec<Change>,
    done: oneshot::Sender<Result<(), JournalError>>,
}

/// The database with its trees.
struct Store {
    db: sled::Db,
    attempts: sled::Tree,
    meta: sled::Tree,
    files: Files,
}

struct Contents {
    epoch: Vec<u8>,
    fence: u64,
    known: Known,
}

impl Journal {
    /// Opens the journal in `folder`, which is made if it is missing.
    ///
    /// # Errors
    /// When even a new journal cannot be made there.
    pub fn open(folder: &Path) -> Result<Opened, JournalError> {
        let path = || folder.to_owned();
        let unusable = |source| JournalError::Folder { path: path(), source };
        let (store, contents, set_aside) = match try_open(folder) {
            Ok((store, contents)) => (store, contents, None),
            Err(Fault::InUse) => return Err(JournalError::InUse { path: path() }),
            // Want of room or rights is no damage: a journal with a future must not be thrown away for it.
            Err(Fault::Io(source)) => return Err(unusable(source)),
            Err(Fault::Damaged) => {
                let aside = set_aside(folder).map_err(unusable)?;
                let (store, contents) = try_open(folder).map_err(|_| JournalError::Open { path: path() })?;
                (store, contents, Some(aside))
            }
        };
        let Contents { epoch, fence, known } = contents;
        let (writes, waiting) = mpsc::channel();
        let gone = CancellationToken::new();
        let guard = gone.clone().drop_guard();
        let mut owner = Owner {
            folder: path(),
            epoch: epoch.clone(),
            store: Some(store),
            owed: Vec::new(),
            failure: None,
        };
        let thread = thread::Builder::new().name("journal".to_owned());
        let thread = thread
            .spawn(move || {
                // Says so however the thread ends.
                let _guard = guard;
                owner.serve(&waiting);
            })
            .map_err(unusable)?;
        Ok(Opened { journal: Self { writes, gone }, thread, epoch, fence, known, set_aside })
    }

    /// Waits until the thread has ended: nothing can be written any more.
    pub async fn gone(&self) {
        self.gone.cancelled().await;
    }

    /// Hands the changes to the thread at once, in the order of the calls; they are on the disk when the future is
    /// done.
    pub fn write(
        &self,
        changes: Vec<Change>,
    ) -> impl Future<Output = Result<(), JournalError>> + Send + use<> {
        let (done, written) = oneshot::channel();
        let sent = self.writes.send(Write { changes, done });
        async move {
            sent.map_err(|_| JournalError::Gone)?;
            written.await.unwrap_or(Err(JournalError::Gone))
        }
    }
}

enum Fault {
    InUse,
    Io(io::Error),
    Damaged,
}

impl From<sled::Error> for Fault {
    fn from(error: sled::Error) -> Self {
        match error {
            // The database says this in words only.
            sled::Error::Io(error) if error.to_string().contains("could not acquire lock") => Self::InUse,
            // These are what it calls content that it cannot read; all else is the system's word, and no damage.
            sled::Error::Io(error)
                if !matches!(
                    error.kind(),
                    io::ErrorKind::InvalidData
                        | io::ErrorKind::UnexpectedEof
                        | io::ErrorKind::InvalidInput
                        | io::ErrorKind::Other
                ) =>
            {
                Self::Io(error)
            }
            _ => Self::Damaged,
        }
    }
}

/// A damaged database may also panic while it is opened.
fn try_open(folder: &Path) -> Result<(Store, Contents), Fault> {
    catch_unwind(AssertUnwindSafe(|| {
        let store = Store::open(folder)?;
        let contents = store.read()?;
        Ok((store, contents))
    }))
    .unwrap_or(Err(Fault::Damaged))
}

fn set_aside(folder: &Path) -> io::Result<PathBuf> {
    let mut number = 1;
    loop {
        let aside = folder.with_extension(format!("damaged-{number}"));
        if std::fs::exists(&aside)? {
            number += 1;
            continue;
        }
        std::fs::rename(folder, &aside)?;
        return Ok(aside);
    }
}

impl Store {
    fn open(folder: &Path) -> Result<Self, Fault> {
        let db = sled::Config::new()
            .path(folder)
            .cache_capacity(CACHE_BYTES)
            .mode(sled::Mode::LowSpace)
            // Every write is flushed by itself; nothing is left for a timer.
            .flush_every_ms(None)
            .open()?;
        let attempts = db.open_tree(ATTEMPTS)?;
        let meta = db.open_tree(META)?;
        Ok(Self { db, attempts, meta, files: Files::open(folder).map_err(Fault::Io)? })
    }

    /// Blocks until all that was written is on the disk.
    fn flush(&self) -> Result<(), sled::Error> {
        self.db.flush()?;
        Ok(self.files.sync()?)
    }

    fn read(&self) -> Result<Contents, Fault> {
        let epoch = match self.meta.get(EPOCH)? {
            Some(epoch) if epoch.len() == EPOCH_BYTES => epoch.to_vec(),
            Some(_) => return Err(Fault::Damaged),
            None if self.attempts.is_empty() => {
                let epoch: [u8; EPOCH_BYTES] = pki::random();
                self.meta.insert(EPOCH, &epoch)?;
                self.flush()?;
                epoch.to_vec()
            }
            None => return Err(Fault::Damaged),
        };
        let fence = self.number(FENCE)?.unwrap_or(0);
        let mut known = Known::new(self.number(FLOOR)?);
        for pair in &self.attempts {
            let (key, value) = pair?;
            let entry = Entry::decode(value.as_ref()).map_err(|_| Fault::Damaged)?;
            known.put(key_of(&key, &entry).ok_or(Fault::Damaged)?, entry);
        }
        Ok(Contents { epoch, fence, known })
    }

    /// A number of the tree `meta`.
    fn number(&self, name: &[u8]) -> Result<Option<u64>, Fault> {
        let Some(bytes) = self.meta.get(name)? else { return Ok(None) };
        Ok(Some(u64::from_be_bytes(bytes.as_ref().try_into().map_err(|_| Fault::Damaged)?)))
    }

    fn apply(&self, changes: &[Change]) -> Result<(), sled::Error> {
        let mut attempts = sled::Batch::default();
        let (mut fence, mut floor) = (None, None);
        for change in changes {
            match change {
                Change::Put(key, entry) => attempts.insert(&key_bytes(*key)[..], entry.encode_to_vec()),
                Change::Forget(key) => {
                    floor = floor.max(Some(key.execution_id.millis().to_be_bytes()));
                    attempts.remove(&key_bytes(*key)[..]);
                }
                Change::Drop(key) => attempts.remove(&key_bytes(*key)[..]),
                Change::Fence(number) => fence = fence.max(Some(*number)),
            }
        }
        fault::point("executor.journal.writing");
        if let Some(fence) = fence {
            self.meta.insert(FENCE, &fence.to_be_bytes())?;
        }
        if let Some(floor) = floor
            && self.meta.get(FLOOR)?.is_none_or(|known| known.as_ref() < &floor[..])
        {
            self.meta.insert(FLOOR, &floor)?;
            // Before what it stands for is gone.
            self.flush()?;
        }
        self.attempts.apply_batch(attempts)?;
        fault::point("executor.journal.written");
        self.flush()?;
        fault::point("executor.journal.flushed");
        Ok(())
    }
}

/// The thread's side. A database that failed once fails for ever, even when the disk has room again: it is closed, what it
/// did not take is kept, and after a while it is opened anew and given all of that.
struct Owner {
    folder: PathBuf,
    epoch: Vec<u8>,
    /// Absent after a failure.
    store: Option<Store>,
    /// What the database does not have yet, in the order of the calls.
    owed: Vec<Change>,
    /// The last failure and its time.
    failure: Option<(Instant, Arc<sled::Error>)>,
}

impl Owner {
    /// Until the last sender is gone, or the journal is lost.
    fn serve(&mut self, waiting: &mpsc::Receiver<Write>) {
        loop {
            let first = if self.owed.is_empty() {
                waiting.recv().map_err(mpsc::RecvTimeoutError::from)
            } else {
                waiting.recv_timeout(RETRY_AFTER)
            };
            if matches!(first, Err(mpsc::RecvTimeoutError::Disconnected)) {
                break;
            }
            let group = first.into_iter().chain(waiting.try_iter().take(GROUP - 1));
            let mut waiters = Vec::new();
            for Write { changes, done } in group {
                self.owed.extend(changes);
                waiters.push(done);
            }
            let result = self.catch_up();
            for done in waiters {
                // Nobody may wait for it any more.
                let _ = done.send(result.clone().map_err(JournalError::Write));
            }
            if let Err(error) = result
                && matches!(*error, sled::Error::Corruption { .. })
            {
                tracing::error!(journal = %self.folder.display(), "the journal was damaged or replaced while in use");
                return;
            }
        }
        if !self.owed.is_empty() {
            self.failure = None;
            // What the disk does not take now either, the next agent learns from the attempts' folders.
            let _ = self.catch_up();
        }
    }

    fn catch_up(&mut self) -> Result<(), Arc<sled::Error>> {
        if let Some((at, error)) = &self.failure
            && at.elapsed() < RETRY_AFTER
        {
            let error = Arc::clone(error);
            self.forget_superseded();
            return Err(error);
        }
        if mutant::is("flush_skipped") && self.owed.len() < 8 {
            return Ok(());
        }
        let store = self.store.take().map_or_else(|| reopen(&self.folder, &self.epoch), Ok);
        match store.and_then(|store| store.apply(&self.owed).map(|()| store)) {
            Ok(store) => {
                self.owed.clear();
                if self.failure.take().is_some() {
                    tracing::info!("the journal can be written again, and has all that it missed");
                }
                self.store = Some(store);
                Ok(())
            }
            Err(error) => {
                let error = Arc::new(error);
                self.failure = Some((Instant::now(), Arc::clone(&error)));
                self.forget_superseded();
                Err(error)
            }
        }
    }

    /// Keeps of what is owed only the last word on each attempt, so that it does not grow with time.
    fn forget_superseded(&mut self) {
        let mut seen = HashSet::new();
        let mut kept: Vec<Change> = self
            .owed
            .drain(..)
            .rev()
            .filter(|change| match change {
                Change::Put(key, _) | Change::Forget(key) | Change::Drop(key) => seen.insert(Some(*key)),
                // Fences only rise.
                Change::Fence(_) => seen.insert(None),
            })
            .collect();
        kept.reverse();
        self.owed = kept;
    }
}

/// Opens the database once more, waiting a little for sled's own threads to let go of it. One that is damaged, or not the
/// one it was, is left to the agent's next start.
fn reopen(folder: &Path, epoch: &[u8]) -> Result<Store, sled::Error> {
    let begun = Instant::now();
    loop {
        match try_open(folder) {
            Ok((store, contents)) if contents.epoch == epoch => return Ok(store),
            Err(Fault::InUse) if begun.elapsed() < LOCK_WAIT => thread::sleep(LOCK_LOOK),
            Err(Fault::InUse) => return Err(io::Error::from(io::ErrorKind::WouldBlock).into()),
            Err(Fault::Io(error)) => return Err(error.into()),
            Ok(_) | Err(Fault::Damaged) => return Err(sled::Error::Corruption { at: None, bt: () }),
        }
    }
}

fn key_bytes(key: AttemptKey) -> [u8; 20] {
    let mut bytes = [0; 20];
    bytes[..16].copy_from_slice(key.run_id.0.as_bytes());
    bytes[16..].copy_from_slice(&key.attempt.to_be_bytes());
    bytes
}

fn key_of(bytes: &[u8], entry: &Entry) -> Option<AttemptKey> {
    let (run_id, attempt) = bytes.split_at_checked(16)?;
    Some(AttemptKey {
        execution_id: ExecutionId::from_bytes(&entry.execution_id).ok()?,
        run_id: RunId::from_bytes(run_id).ok()?,
        attempt: u32::from_be_bytes(attempt.try_into().ok()?),
    })
}

#[cfg(test)]
mod damage;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
