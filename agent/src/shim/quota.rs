//! The host's room for output: what the files of all attempts take together, until the controller holds it.
//!
//! 1. Each shim looks for itself at the folders beside its own: the bound holds while no agent runs.
//! 2. A look costs a `stat` for each attempt that is not settled. It is made before every [`STEP_BYTES`] that are written, and
//!    while there is no room not more often than every [`LOOK_AGAIN`].
//! 3. So the bound is soft: all shims that write at the same time may go over it by one step each.

use std::{
    io::{self, ErrorKind},
    path::PathBuf,
    time::{Duration, Instant},
};

use crate::segment;

/// Bytes between two looks while there is room, and the part of the whole room that they are at most.
const STEP_BYTES: u64 = 1024 * 1024;
const STEP_PART: u64 = 16;
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// The room that is left for this attempt's output.
#[derive(Debug)]
pub(super) struct Quota {
    /// Where the folders of all attempts are.
    attempts: PathBuf,
    /// Bytes of all attempts; none: nobody counts.
    limit: Option<u64>,
    /// Bytes that may be written before the next look.
    left: u64,
    /// There was no room; when to look again.
    full_until: Option<Instant>,
}

impl Quota {
    pub(super) fn new(attempts: PathBuf, limit: Option<u64>) -> Self {
        Self { attempts, limit, left: 0, full_until: None }
    }

    /// Takes room for so many bytes.
    ///
    /// # Errors
    /// [`ErrorKind::QuotaExceeded`] when there is none right now.
    pub(super) fn take(&mut self, bytes: u64) -> io::Result<()> {
        let Some(limit) = self.limit else { return Ok(()) };
        if bytes > self.left {
            self.look(limit)?;
        }
        self.left = self.left.saturating_sub(bytes);
        Ok(())
    }

    fn look(&mut self, limit: u64) -> io::Result<()> {
        let now = Instant::now();
        let full = || io::Error::from(ErrorKind::QuotaExceeded);
        if self.full_until.is_some_and(|until| now < until) {
            return Err(full());
        }
        // A folder that cannot be read now bounds nothing; the disk still does.
        let room = segment::bytes_on_disk(&self.attempts).map_or(u64::MAX, |used| limit.saturating_sub(used));
        if room == 0 {
            self.full_until = Some(now + LOOK_AGAIN);
            return Err(full());
        }
        self.full_until = None;
        self.left = room.min(STEP_BYTES).min(limit / STEP_PART);
        Ok(())
    }
}
