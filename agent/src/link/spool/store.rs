//! The spool's database: sled, behind the few calls that the spool needs.

use std::{
    fs, io,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    time::Duration,
};

use prost::Message as _;
use tokio::time::Instant;

use super::SavedCursor;
use crate::{clock, messages::AttemptKey};

/// Bytes of sled's page cache; its default is 1 GiB.
const CACHE_BYTES: u64 = 16 * 1024 * 1024;
/// How long a database that failed is left alone.
const RETRY_AFTER: Duration = Duration::from_secs(10);
/// How long to wait for one who has the database open, and how often to look.
const LOCK_WAIT: Duration = Duration::from_secs(2);
const LOCK_LOOK: Duration = Duration::from_millis(20);

/// When a database that failed may be tried again.
#[derive(Debug, Default)]
pub(super) struct Retry(Option<Instant>);

impl Retry {
    pub(super) fn failed(&mut self) {
        self.0 = Some(Instant::now() + RETRY_AFTER);
    }

    pub(super) fn is_due(&self) -> bool {
        self.0.is_none_or(|due| Instant::now() >= due)
    }
}

/// An open database: reports by their number, cursors by their attempt.
pub(super) struct Store {
    reports: sled::Tree,
    cursors: sled::Tree,
    database: sled::Db,
}

impl Store {
    /// Opens the database in `folder`, or makes it. Waits a little for one who is about to let go of it: sled's own
    /// threads after a closing, or a process that was forked and has yet to execute its program.
    pub(super) fn open(folder: &Path) -> sled::Result<Self> {
        let begin = Instant::now();
        loop {
            // sled asserts where it meets what it does not expect on disk.
            let opened = catch_unwind(AssertUnwindSafe(|| Self::open_plain(folder)))
                .unwrap_or_else(|_| Err(sled::Error::Corruption { at: None, bt: () }));
            match opened {
                Err(error) if is_locked(&error) && begin.elapsed() < LOCK_WAIT => {
                    std::thread::sleep(LOCK_LOOK);
                }
                done => return done,
            }
        }
    }

    fn open_plain(folder: &Path) -> sled::Result<Self> {
        let database = sled::Config::new()
            .path(folder)
            .mode(sled::Mode::LowSpace)
            .cache_capacity(CACHE_BYTES)
            .flush_every_ms(None)
            .open()?;
        let store = Self {
            reports: database.open_tree("reports")?,
            cursors: database.open_tree("cursors")?,
            database,
        };
        for entry in &store.reports {
            entry?;
        }
        Ok(store)
    }

    /// The same, but a damaged database is moved aside first.
    pub(super) fn open_or_set_aside(folder: &Path) -> sled::Result<Self> {
        let error = match Self::open(folder) {
            Ok(store) => return Ok(store),
            Err(error) if is_damage(&error) => error,
            Err(error) => return Err(error),
        };
        let aside = set_aside(folder)?;
        tracing::error!(path = %folder.display(), aside = %aside.display(), %error,
            "the spool is damaged; it was set aside and a new one begun");
        Self::open(folder)
    }

    pub(super) fn put(&self, report: &proto::Report) -> sled::Result<()> {
        self.reports.insert(report.seq.to_be_bytes(), report.encode_to_vec()).map(drop)
    }

    pub(super) fn get(&self, seq: u64) -> Option<proto::Report> {
        let value = self.reports.get(seq.to_be_bytes()).ok().flatten()?;
        decode(seq, &value)
    }

    pub(super) fn remove(&self, seq: u64) -> sled::Result<()> {
        self.reports.remove(seq.to_be_bytes()).map(drop)
    }

    /// All reports, by their number.
    pub(super) fn reports(&self) -> impl Iterator<Item = proto::Report> {
        self.reports.iter().filter_map(Result::ok).filter_map(|(key, value)| {
            let seq = u64::from_be_bytes(key.as_ref().try_into().ok()?);
            decode(seq, &value)
        })
    }

    pub(super) fn put_cursor(&self, key: AttemptKey, cursor: &SavedCursor) -> sled::Result<()> {
        self.cursors.insert(cursor_key(key), cursor.encode_to_vec()).map(drop)
    }

    pub(super) fn cursor(&self, key: AttemptKey) -> Option<SavedCursor> {
        let value = self.cursors.get(cursor_key(key)).ok().flatten()?;
        SavedCursor::decode(value.as_ref()).ok()
    }

    pub(super) fn remove_cursor(&self, key: AttemptKey) -> sled::Result<()> {
        self.cursors.remove(cursor_key(key)).map(drop)
    }

    /// Blocks until all that was written is handed to the disk. What a power failure takes of it nevertheless (see
    /// `executor::journal::files`) the executor says again.
    pub(super) fn flush(&self) -> sled::Result<()> {
        self.database.flush().map(drop)
    }
}

fn decode(seq: u64, value: &[u8]) -> Option<proto::Report> {
    match proto::Report::decode(value) {
        Ok(report) => Some(proto::Report { seq, ..report }),
        Err(error) => {
            tracing::error!(seq, %error, "the spool has a report that cannot be read");
            None
        }
    }
}

fn cursor_key(key: AttemptKey) -> Vec<u8> {
    let mut bytes = key.run_id.to_bytes();
    bytes.extend_from_slice(&key.attempt.to_be_bytes());
    bytes
}

/// Whether somebody else has the database open; sled says it in words only.
fn is_locked(error: &sled::Error) -> bool {
    matches!(error, sled::Error::Io(error) if error.to_string().contains("could not acquire lock"))
}

/// Whether the database itself is broken, and not the disk full or somebody else's.
fn is_damage(error: &sled::Error) -> bool {
    match error {
        sled::Error::Io(error) => {
            matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof)
        }
        _ => true,
    }
}

/// Moves `folder` out of the way and returns where it is now.
fn set_aside(folder: &Path) -> io::Result<PathBuf> {
    let mut name = folder.file_name().unwrap_or_default().to_owned();
    name.push(format!(".damaged-{}", clock::now_micros()));
    let aside = folder.with_file_name(name);
    fs::rename(folder, &aside)?;
    Ok(aside)
}
