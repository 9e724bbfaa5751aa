//! From the pipes of the process into the segment file.
//!
//! 1. Every byte that was read is counted and hashed, whether it is kept or not.
//! 2. What is not kept becomes a gap record of its stream: before the stream's next data, or at the end.
//! 3. A full disk blocks, and so does the host's full quota: nothing more is read, so the process waits, for at most the time
//!    that was ordered; after that what cannot be written is dropped, until [`PATIENCE_BYTES`] in a row are taken again.

use std::{
    io::{self, ErrorKind},
    os::fd::AsFd,
    time::{Duration, Instant},
};

use model::{api::output::Stream, limits};
use nix::errno::Errno;
use sha2::{Digest as _, Sha256};

use super::{quota::Quota, record::Spare};
use crate::{clock, segment::Writer};

/// What a disk that was full for too long must take before it is waited for again.
const PATIENCE_BYTES: u64 = 1024 * 1024;
/// How long it is waited for once the process was ended.
const BRIEFLY: Duration = Duration::from_secs(1);

/// What a look into a pipe brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Copied {
    /// So many bytes.
    Some(usize),
    /// There is nothing right now.
    Nothing,
    /// Nobody can write to the pipe any more.
    End,
}

/// All output of one attempt.
#[derive(Debug)]
pub(super) struct Output {
    writer: Writer,
    /// Room for the gap records at the end.
    spare: Spare,
    stdout: Totals,
    stderr: Totals,
    /// Bytes of both streams that may still be kept.
    left: u64,
    /// There were more.
    is_over_limit: bool,
    quota: Quota,
    /// How long a process waits for room.
    block_for: Duration,
    buffer: Vec<u8>,
    blocked: Option<Blocked>,
    /// The disk stayed full for too long: do not wait for it again before it has taken so many bytes in a row.
    impatient_for: u64,
}

#[derive(Debug, Default)]
struct Totals {
    bytes: u64,
    stored: u64,
    hash: Sha256,
    /// Bytes that records hold or name as a gap: where the next record begins.
    recorded: u64,
    /// Bytes behind the last record that are not kept.
    gap: u64,
}

/// What waits for room on the disk.
#[derive(Debug)]
struct Blocked {
    since: Instant,
    stream: Stream,
    time: i64,
    data: Vec<u8>,
    /// Bytes over the limit that lie behind the data.
    over: u64,
}

impl Output {
    /// Output that goes to `writer`; at most `limit` bytes of it are kept.
    pub(super) fn new(writer: Writer, spare: Spare, limit: u64, quota: Quota, block_for: Duration) -> Self {
        Self {
            writer,
            spare,
            stdout: Totals::default(),
            stderr: Totals::default(),
            left: limit,
            is_over_limit: false,
            quota,
            block_for,
            buffer: vec![0; limits::CHUNK_BYTES],
            blocked: None,
            impatient_for: 0,
        }
    }

    /// Nothing may be read while this is so; call [`Output::retry`] from time to time.
    pub(super) fn is_blocked(&self) -> bool {
        self.blocked.is_some()
    }

    /// Whether the process wrote more than is kept of it.
    pub(super) fn is_over_limit(&self) -> bool {
        self.is_over_limit
    }

    /// The process was ended: its last words are worth a short wait, not a long one.
    pub(super) fn be_brief(&mut self) {
        self.block_for = self.block_for.min(BRIEFLY);
    }

    /// Reads once from a pipe and keeps what came.
    ///
    /// # Errors
    /// When the pipe cannot be read.
    pub(super) fn copy(&mut self, stream: Stream, pipe: impl AsFd) -> io::Result<Copied> {
        let mut buffer = std::mem::take(&mut self.buffer);
        let read = nix::unistd::read(pipe, &mut buffer);
        let copied = match read {
            Ok(0) => Ok(Copied::End),
            Ok(read) => {
                self.take(stream, clock::now_micros(), &buffer[..read]);
                Ok(Copied::Some(read))
            }
            Err(Errno::EAGAIN | Errno::EINTR) => Ok(Copied::Nothing),
            Err(error) => Err(error.into()),
        };
        self.buffer = buffer;
        copied
    }

    /// Keeps what came, at most [`limits::CHUNK_BYTES`] of it. Nothing may be blocked.
    pub(super) fn take(&mut self, stream: Stream, time: i64, data: &[u8]) {
        let kept = usize::try_from(self.left).unwrap_or(usize::MAX).min(data.len());
        self.left -= kept as u64;
        let totals = self.totals(stream);
        totals.bytes += data.len() as u64;
        totals.hash.update(data);
        let (kept, over) = data.split_at(kept);
        self.is_over_limit |= !over.is_empty();
        if !kept.is_empty() {
            self.store(stream, time, kept);
        }
        match &mut self.blocked {
            Some(blocked) => blocked.over = over.len() as u64,
            None => self.totals(stream).gap += over.len() as u64,
        }
    }

    fn store(&mut self, stream: Stream, time: i64, data: &[u8]) {
        match self.write(stream, time, data) {
            Ok(()) => self.impatient_for = self.impatient_for.saturating_sub(data.len() as u64),
            Err(error) if self.impatient_for == 0 && is_full(&error) => {
                let since = Instant::now();
                self.blocked = Some(Blocked { since, stream, time, data: data.to_vec(), over: 0 });
            }
            Err(_) => {
                if self.impatient_for > 0 {
                    self.impatient_for = PATIENCE_BYTES;
                }
                self.totals(stream).gap += data.len() as u64;
            }
        }
    }

    /// Writes the gap of the stream, if there is one, and the data.
    fn write(&mut self, stream: Stream, time: i64, data: &[u8]) -> io::Result<()> {
        let length = data.len() as u64;
        let (writer, totals) = match stream {
            Stream::Stdout => (&mut self.writer, &mut self.stdout),
            Stream::Stderr => (&mut self.writer, &mut self.stderr),
        };
        self.quota.take(length)?;
        if totals.gap > 0 {
            writer.append_gap(stream, time, totals.recorded, totals.gap)?;
            totals.recorded += totals.gap;
            totals.gap = 0;
        }
        if !data.is_empty() {
            writer.append(stream, time, totals.recorded, data)?;
            totals.recorded += length;
            totals.stored += length;
        }
        Ok(())
    }

    /// Tries again to write what waits; gives it up after a time.
    pub(super) fn retry(&mut self) {
        let Some(blocked) = self.blocked.take() else { return };
        let (stream, length, over) = (blocked.stream, blocked.data.len() as u64, blocked.over);
        match self.write(stream, blocked.time, &blocked.data) {
            Ok(()) => self.totals(stream).gap += over,
            Err(error) if is_full(&error) && blocked.since.elapsed() < self.block_for => {
                self.blocked = Some(blocked);
            }
            Err(_) => {
                self.impatient_for = PATIENCE_BYTES;
                self.totals(stream).gap += length + over;
            }
        }
    }

    /// Writes the gaps that are open and waits until all is on the disk. Gives the totals of both streams.
    pub(super) fn finish(mut self) -> (proto::StreamTotals, proto::StreamTotals) {
        let time = clock::now_micros();
        self.spare.release();
        for stream in [Stream::Stdout, Stream::Stderr] {
            // A disk that fails here fails for the exit record too, and that is told.
            let _ = self.write(stream, time, &[]);
        }
        let _ = self.writer.sync();
        fault::point("shim.output.flushed");
        (self.stdout.into_proto(), self.stderr.into_proto())
    }

    fn totals(&mut self, stream: Stream) -> &mut Totals {
        match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        }
    }
}

impl Totals {
    fn into_proto(self) -> proto::StreamTotals {
        proto::StreamTotals { bytes: self.bytes, stored: self.stored, sha256: self.hash.finalize().to_vec() }
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded)
}
