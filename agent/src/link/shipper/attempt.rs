//! One attempt whose output is on its way: what is cut, sent and stored of it.
//!
//! Invariants:
//! 1. On every connection a Resume is answered before the first chunk is sent.
//! 2. A chunk that was sent is kept until it is stored. If the controller's cursor stands among them, they are sent
//!    again as they are; so two connections can never bring different cuts of the same bytes.
//! 3. `drained` is said only when the attempt is over, its file has no more, and all that was cut is stored.
//! 4. The file is open only while there is a connection and the attempt is not over and read to its end: of a host
//!    that was away for long there are many.
//! 5. What is stored is let go on the disk, in steps: the room of the host's output is what the controller lacks.
//! 6. A file that cannot be read holds up its own attempt, no other.

use std::{collections::VecDeque, io, path::PathBuf, time::Duration};

use tokio::time::Instant;

use crate::{
    clock,
    link::{
        backoff::Backoff,
        cut::{Compressor, Cursor, Cut, Cutter},
        spool::SavedCursor,
    },
    messages::AttemptKey,
};

/// Bytes of one attempt that may be on their way.
pub(super) const IN_FLIGHT_BYTES: usize = 1024 * 1024;
/// Bytes of a chunk's own fields on the wire, about.
const CHUNK_OVERHEAD: usize = 100;
/// How often the place to resume from is remembered on disk.
const SAVE_EVERY: Duration = Duration::from_secs(1);
/// Bytes of the file that are let go at once while there is more to ship, and when there is not.
const LET_GO_BYTES: u64 = 1024 * 1024;
const LET_GO_REST_BYTES: u64 = 64 * 1024;
/// How long a file that cannot be read is left alone.
const BLIND_BASE: Duration = Duration::from_secs(1);
const BLIND_CAP: Duration = Duration::from_secs(30);

/// Where the attempt stands with the present connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Nothing was said of it yet.
    New,
    /// A Resume is on its way.
    Resuming,
    /// The controller said what it holds.
    Resumed,
}

/// An attempt of which there is, or may be, output to ship.
#[derive(Debug)]
pub(super) struct Attempt {
    key: AttemptKey,
    folder: PathBuf,
    stage: Stage,
    /// None until output was looked for.
    cutter: Option<Cutter>,
    /// Sent, or to be sent again, and not stored.
    unstored: VecDeque<Cut>,
    unstored_bytes: usize,
    /// How many of `unstored` were sent over the present connection.
    sent: usize,
    /// There may be records that are not cut.
    more: bool,
    /// Somebody has looked: there are, and a connection is needed.
    found: bool,
    /// The file could not be read; it is left alone until then.
    blind_until: Option<Instant>,
    blind: Backoff,
    /// Cutting stopped before the end of the file: what is left may fill a batch.
    bulk: bool,
    /// The attempt is over; what its process wrote, if that is known.
    ended: Option<Option<[u64; 2]>>,
    /// The controller answered the final report.
    answered: bool,
    /// The controller does not want the output.
    rejected: bool,
    saved_at: Instant,
    /// All of the file before this position is stored.
    stored_to: u64,
    /// All before this one is let go.
    let_go_to: u64,
    /// Up to where is being let go.
    letting_go_to: Option<u64>,
}

impl Attempt {
    pub(super) fn new(key: AttemptKey, folder: PathBuf) -> Self {
        Self {
            key,
            folder,
            stage: Stage::New,
            cutter: None,
            unstored: VecDeque::new(),
            unstored_bytes: 0,
            sent: 0,
            more: true,
            found: false,
            blind_until: None,
            blind: Backoff::new(BLIND_BASE, BLIND_CAP),
            bulk: false,
            ended: None,
            answered: false,
            rejected: false,
            saved_at: Instant::now(),
            stored_to: 0,
            let_go_to: 0,
            letting_go_to: None,
        }
    }

    /// There is (more) output.
    pub(super) fn grew(&mut self) {
        self.more = !self.rejected;
    }

    pub(super) fn end(&mut self, totals: Option<[u64; 2]>) {
        self.ended = Some(totals);
        self.grew();
    }

    pub(super) fn answer(&mut self) {
        self.answered = true;
    }

    /// The controller wants none of it: it is over as far as output goes.
    pub(super) fn reject(&mut self) {
        self.rejected = true;
        self.more = false;
        self.forget_unstored();
        self.cutter = None;
    }

    /// The connection is gone.
    pub(super) fn disconnect(&mut self) {
        self.stage = Stage::New;
        self.sent = 0;
        self.rest();
    }

    /// Lets go of the file.
    fn rest(&mut self) {
        if let Some(cutter) = &mut self.cutter {
            cutter.rest();
        }
    }

    /// The file cannot be read now.
    fn blinded(&mut self, now: Instant, error: &io::Error) {
        let wait = self.blind.next();
        if self.blind.failures().is_power_of_two() {
            tracing::error!(run.id = %self.key.run_id, attempt = self.key.attempt, %error,
                failures = self.blind.failures(), "cannot read a run's output; it is tried again");
        }
        self.blind_until = Some(now + wait);
        self.rest();
    }

    /// Until when the file is left alone, because it could not be read.
    pub(super) fn blind_until(&self) -> Option<Instant> {
        self.blind_until
    }

    /// Whether there may be output that the controller does not hold.
    pub(super) fn has_unstored(&self) -> bool {
        self.more || !self.unstored.is_empty()
    }

    /// The controller does not know how much it holds and wants to be asked. What was sent before the next Resume is
    /// refused with the same words, which say nothing new.
    pub(super) fn resume_again(&mut self) {
        if self.stage == Stage::Resumed {
            self.disconnect();
        }
    }

    /// Bytes that are cut and not stored.
    pub(super) fn unstored_bytes(&self) -> usize {
        self.unstored_bytes
    }

    /// Whether chunks are on their way over the present connection.
    pub(super) fn is_in_flight(&self) -> bool {
        self.sent > 0
    }

    pub(super) fn is_resuming(&self) -> bool {
        self.stage == Stage::Resuming
    }

    /// Whether the final report is answered and all output is stored, or nobody wants it.
    pub(super) fn is_settled(&self) -> bool {
        self.answered && self.ended.is_some() && !self.more && self.unstored.is_empty()
    }

    /// Whether a connection is needed. Looks into the file as long as nothing was cut of it: most commands that say
    /// nothing never need one.
    pub(super) fn wants_connection(&mut self, now: Instant) -> bool {
        self.blind_until = self.blind_until.filter(|until| now < *until);
        if !self.unstored.is_empty() {
            return true;
        }
        if !self.more || self.blind_until.is_some() {
            return false;
        }
        if self.found || self.stage != Stage::New {
            return true;
        }
        let missing = self.ended.flatten().is_some_and(|totals| totals != [0, 0]);
        let some = match self.cutter().and_then(Cutter::has_more) {
            Ok(some) => {
                self.blind.reset();
                some
            }
            // What is damaged is told to the controller as a gap.
            Err(error) if error.kind() == io::ErrorKind::InvalidData => self.ended.is_some(),
            Err(error) => {
                self.blinded(now, &error);
                return false;
            }
        };
        self.rest();
        self.more = some || missing;
        self.found = self.more;
        self.more
    }

    /// The Resume to send, if this attempt needs one.
    pub(super) fn resume(&mut self, now: Instant) -> Option<proto::Resume> {
        if self.stage != Stage::New || !self.wants_connection(now) {
            return None;
        }
        self.stage = Stage::Resuming;
        Some(proto::Resume {
            execution_id: self.key.execution_id.to_bytes(),
            run_id: self.key.run_id.to_bytes(),
            attempt: self.key.attempt,
        })
    }

    /// The controller holds the output up to `held`: everything goes on from there. When the file cannot be read, the
    /// controller is asked again later.
    pub(super) fn resumed(&mut self, now: Instant, held: Cursor, saved: Option<SavedCursor>) {
        self.stage = Stage::Resumed;
        self.sent = 0;
        // A lost answer, or none: what the controller holds ends where one of our chunks does, or where they begin.
        let known = self.unstored.iter().position(|cut| cut.after == held).map(|at| at + 1);
        if let Some(stored) = known {
            if let Some(last) = self.drop_stored(stored) {
                self.stored_to = last.position;
            }
            return;
        }
        let continues = self.unstored.is_empty() && self.cutter.as_ref().is_some_and(|c| c.cursor() == held);
        if continues || self.begins_at(held) {
            return;
        }
        self.forget_unstored();
        self.more = true;
        match Cutter::open(self.key, &self.folder, held, saved) {
            Ok(mut cutter) => {
                // All that is held is passed over now, and may be let go: a process may wait for just that room.
                let _ = cutter.has_more();
                self.stored_to = cutter.position();
                self.cutter = Some(cutter);
            }
            Err(error) => {
                self.stage = Stage::New;
                self.blinded(now, &error);
            }
        }
    }

    /// Whether the first unstored chunk goes on exactly at `held`.
    fn begins_at(&self, held: Cursor) -> bool {
        let Some(first) = self.unstored.front() else { return false };
        let covered = u64::from(first.chunk.length) + first.chunk.gap;
        let lane = usize::from(first.chunk.stream == 2);
        let mut before = first.after;
        before.next_seq -= 1;
        before.offsets[lane] -= covered;
        before == held
    }

    /// The next chunk to send, if the attempt may send one.
    pub(super) fn next(&mut self, now: Instant, compressor: &mut Compressor) -> Option<proto::Chunk> {
        if self.stage != Stage::Resumed {
            return None;
        }
        if let Some(again) = self.unstored.get(self.sent) {
            self.sent += 1;
            return Some(again.chunk.clone());
        }
        if !self.may_cut() {
            return None;
        }
        let cut = match self.cut(compressor) {
            Ok(cut) => cut,
            Err(error) => {
                self.blinded(now, &error);
                return None;
            }
        };
        self.blind.reset();
        let Some(cut) = cut else {
            self.more = false;
            self.found = false;
            self.bulk = false;
            if self.ended.is_some() {
                self.rest();
            }
            return None;
        };
        self.bulk = true;
        let chunk = cut.chunk.clone();
        self.unstored_bytes += size(&cut);
        self.unstored.push_back(cut);
        self.sent += 1;
        Some(chunk)
    }

    fn may_cut(&self) -> bool {
        self.more && self.blind_until.is_none() && self.unstored_bytes < IN_FLIGHT_BYTES
    }

    fn cut(&mut self, compressor: &mut Compressor) -> io::Result<Option<Cut>> {
        let ended = self.ended;
        let (run_id, attempt) = (self.key.run_id, self.key.attempt);
        let cutter = self.cutter()?;
        match cutter.next(compressor) {
            Ok(Some(cut)) => return Ok(Some(cut)),
            Ok(None) => {}
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                tracing::error!(run.id = %run_id, attempt, %error, "output of a run is damaged; the rest of it is lost");
            }
            Err(error) => return Err(error),
        }
        Ok(ended.flatten().and_then(|totals| cutter.missing(totals, clock::now_micros())))
    }

    fn cutter(&mut self) -> io::Result<&mut Cutter> {
        match &mut self.cutter {
            Some(cutter) => Ok(cutter),
            none => Ok(none.insert(Cutter::open(self.key, &self.folder, Cursor::default(), None)?)),
        }
    }

    /// Whether [`Self::next`] would give something at once that was not looked at yet.
    pub(super) fn has_backlog(&self) -> bool {
        self.stage == Stage::Resumed && (self.sent < self.unstored.len() || self.may_cut())
    }

    /// Whether there is more than a line or two to send.
    pub(super) fn fills_batch(&self) -> bool {
        self.has_backlog() && (self.bulk || self.sent < self.unstored.len())
    }

    /// The controller has stored everything before `cursor`. What to remember of it, now and then.
    pub(super) fn stored(&mut self, cursor: Cursor) -> Option<SavedCursor> {
        let stored = self.unstored.iter().take_while(|cut| cut.chunk.seq < cursor.next_seq).count();
        let last = self.drop_stored(stored)?;
        self.stored_to = last.position;
        if self.saved_at.elapsed() < SAVE_EVERY {
            return None;
        }
        self.saved_at = Instant::now();
        let [stdout_offset, stderr_offset] = last.after.offsets;
        Some(SavedCursor { stdout_offset, stderr_offset, position: last.position })
    }

    /// What of the file is worth letting go now: its folder, and up to where. To be answered by [`Self::has_let_go`].
    pub(super) fn let_go(&mut self) -> Option<(PathBuf, u64)> {
        let step = if self.has_unstored() { LET_GO_BYTES } else { LET_GO_REST_BYTES };
        if self.letting_go_to.is_some() || self.stored_to < self.let_go_to + step {
            return None;
        }
        self.letting_go_to = Some(self.stored_to);
        Some((self.folder.clone(), self.stored_to))
    }

    /// Whether that went well. What did not is worth it again.
    pub(super) fn has_let_go(&mut self, well: bool) {
        if let Some(position) = self.letting_go_to.take().filter(|_| well) {
            self.let_go_to = position;
        }
    }

    fn drop_stored(&mut self, count: usize) -> Option<Cut> {
        let last = self.unstored.drain(..count).last();
        self.sent = self.sent.saturating_sub(count);
        self.unstored_bytes = self.unstored.iter().map(size).sum();
        last
    }

    fn forget_unstored(&mut self) {
        self.unstored.clear();
        self.unstored_bytes = 0;
        self.sent = 0;
    }
}

/// Bytes of a chunk, on the wire and in memory, about.
pub(super) fn chunk_size(chunk: &proto::Chunk) -> usize {
    chunk.data.len() + CHUNK_OVERHEAD
}

fn size(cut: &Cut) -> usize {
    chunk_size(&cut.chunk)
}

#[cfg(test)]
mod tests;
