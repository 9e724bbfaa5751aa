//! Cuts an attempt's segment file into the chunks that are shipped.
//!
//! Invariants:
//! 1. Cutting begins exactly at what the controller holds, and only there are boundaries decided: chunks of one
//!    cutter follow each other in sequence and, in each stream, in offset, without hole or overlap.
//! 2. A chunk is of one stream, has at most [`limits::CHUNK_BYTES`] and spans at most [`limits::CHUNK_SPAN`].
//! 3. Bytes that the file does not have (it is damaged, or they were never kept) become a gap chunk with their number.

use std::{io, sync::Arc};

use model::{api::output::Stream, limits};

use super::spool::SavedCursor;
use crate::{
    messages::AttemptKey,
    segment::{Body, Reader, Record, Source},
};

/// Data of fewer bytes is sent as it is.
const COMPRESS_FROM: usize = 512;
/// zstd's fastest ordinary level: logs shrink by about five, at several hundred MB/s.
const COMPRESSION_LEVEL: i32 = 1;

/// A place in an attempt's output: the sequence number of the next chunk, and how much of each stream is before it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Cursor {
    pub(crate) next_seq: u64,
    /// By [`lane`].
    pub(crate) offsets: [u64; 2],
}

impl From<&proto::Cursor> for Cursor {
    fn from(cursor: &proto::Cursor) -> Self {
        Self { next_seq: cursor.next_seq, offsets: [cursor.stdout_offset, cursor.stderr_offset] }
    }
}

/// Index of a stream in a pair of numbers.
pub(crate) const fn lane(stream: Stream) -> usize {
    match stream {
        Stream::Stdout => 0,
        Stream::Stderr => 1,
    }
}

/// A chunk, and where reading may begin again once it is stored.
#[derive(Debug, Clone)]
pub(crate) struct Cut {
    pub(crate) chunk: proto::Chunk,
    /// The cursor behind it.
    pub(crate) after: Cursor,
    /// Place in the file: all that is before it belongs to this chunk or an earlier one.
    pub(crate) position: u64,
}

/// A record that is read and not used up.
#[derive(Debug)]
struct Pending {
    record: Record,
    /// Where it begins in the file.
    position: u64,
}

/// Compresses chunks; its memory is worth keeping only while there is output.
pub(crate) type Compressor = zstd::bulk::Compressor<'static>;

/// # Errors
/// When there is no memory for it.
pub(crate) fn compressor() -> io::Result<Compressor> {
    Compressor::new(COMPRESSION_LEVEL)
}

/// Reads one attempt's output from a cursor on.
#[derive(Debug)]
pub(crate) struct Cutter {
    key: AttemptKey,
    reader: Reader,
    pending: Option<Pending>,
    cursor: Cursor,
}

impl Cutter {
    /// Begins at `held`; `saved` may save reading what is before it.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub(crate) fn open(
        key: AttemptKey,
        source: Arc<dyn Source>,
        held: Cursor,
        saved: Option<SavedCursor>,
    ) -> io::Result<Self> {
        let position = saved
            .filter(|saved| saved.stdout_offset <= held.offsets[0] && saved.stderr_offset <= held.offsets[1])
            .map_or(0, |saved| saved.position);
        let reader = Reader::open_at(source, position)?;
        Ok(Self { key, reader, pending: None, cursor: held })
    }

    /// The cursor before the next chunk.
    pub(crate) const fn cursor(&self) -> Cursor {
        self.cursor
    }

    /// Whether there is something to cut.
    ///
    /// # Errors
    /// When the file cannot be read or is damaged here.
    pub(crate) fn has_more(&mut self) -> io::Result<bool> {
        self.peek().map(|record| record.is_some())
    }

    /// Lets go of the file until it is needed again; the cursor stays.
    pub(crate) fn rest(&mut self) {
        let position = self.position();
        self.pending = None;
        self.reader.rest_at(position);
    }

    /// The next chunk; none when there is no further output yet.
    ///
    /// # Errors
    /// When the file cannot be read or is damaged here.
    pub(crate) fn next(&mut self, compressor: &mut Compressor) -> io::Result<Option<Cut>> {
        let Some(first) = self.peek()? else { return Ok(None) };
        let (stream, time, offset) = (first.stream, first.time, first.offset);
        let hole = if let Body::Gap(length) = first.body { Some(length) } else { None };
        let start = self.cursor.offsets[lane(stream)];
        if offset > start {
            return Ok(Some(self.gap(stream, time, offset - start)));
        }
        if let Some(length) = hole {
            self.pending = None;
            return Ok(Some(self.gap(stream, time, length)));
        }
        let data = self.collect(stream, time);
        Ok(Some(self.data(stream, time, data, compressor)))
    }

    /// When the file has no more: the gap that is left of a stream of which the process wrote `totals` bytes.
    pub(crate) fn missing(&mut self, totals: [u64; 2], time: i64) -> Option<Cut> {
        [Stream::Stdout, Stream::Stderr].into_iter().find_map(|stream| {
            let missing = totals[lane(stream)].saturating_sub(self.cursor.offsets[lane(stream)]);
            (missing > 0).then(|| self.gap(stream, time, missing))
        })
    }

    /// The next record that is not wholly before the cursor, cut to begin at it.
    fn peek(&mut self) -> io::Result<Option<&Record>> {
        while self.pending.is_none() {
            let position = self.reader.position();
            let Some(mut record) = self.reader.next()? else { return Ok(None) };
            let offset = self.cursor.offsets[lane(record.stream)];
            if skip(&mut record, offset) {
                self.pending = Some(Pending { record, position });
            }
        }
        Ok(self.pending.as_ref().map(|pending| &pending.record))
    }

    /// Takes data of `stream` from the pending record and those behind it, as much as belongs into one chunk.
    fn collect(&mut self, stream: Stream, time: i64) -> Vec<u8> {
        let mut data: Vec<u8> = Vec::new();
        let mut end = self.cursor.offsets[lane(stream)];
        // What cannot be read behind good records is told when it is the first.
        while let Ok(Some(next)) = self.peek() {
            let room = limits::CHUNK_BYTES - data.len();
            let fits = next.stream == stream
                && next.offset == end
                && u128::from(next.time.abs_diff(time)) <= limits::CHUNK_SPAN.as_micros();
            let Some(Pending { record, position }) = self.pending.take_if(|_| fits && room > 0) else {
                break;
            };
            let Body::Data(bytes) = record.body else {
                self.pending = Some(Pending { record, position });
                break;
            };
            let taken = bytes.len().min(room);
            end += taken as u64;
            if data.is_empty() && taken == bytes.len() {
                data = bytes;
            } else {
                data.extend_from_slice(&bytes[..taken]);
                if taken < bytes.len() {
                    let body = Body::Data(bytes[taken..].to_vec());
                    self.pending = Some(Pending { record: Record { offset: end, body, ..record }, position });
                }
            }
        }
        data
    }

    fn gap(&mut self, stream: Stream, time: i64, length: u64) -> Cut {
        self.cut(stream, time, length, proto::Chunk { gap: length, ..proto::Chunk::default() })
    }

    fn data(&mut self, stream: Stream, time: i64, data: Vec<u8>, compressor: &mut Compressor) -> Cut {
        let length = data.len();
        let smaller = (length >= COMPRESS_FROM)
            .then(|| compressor.compress(&data).ok().filter(|compressed| compressed.len() < length))
            .flatten();
        let (encoding, data) = match smaller {
            Some(compressed) => (proto::Encoding::Zstd, compressed),
            None => (proto::Encoding::Plain, data),
        };
        let chunk = proto::Chunk {
            length: u32::try_from(length).expect("a chunk is smaller than 4 GiB"),
            encoding: encoding.into(),
            data: data.into(),
            ..proto::Chunk::default()
        };
        self.cut(stream, time, length as u64, chunk)
    }

    /// Addresses a chunk that covers `length` bytes of its stream, and moves the cursor behind it.
    fn cut(&mut self, stream: Stream, time: i64, length: u64, chunk: proto::Chunk) -> Cut {
        let chunk = proto::Chunk {
            execution_id: self.key.execution_id.to_bytes(),
            run_id: self.key.run_id.to_bytes(),
            attempt: self.key.attempt,
            seq: self.cursor.next_seq,
            stream: u32::from(stream.number().unsigned_abs()),
            offset: self.cursor.offsets[lane(stream)],
            time,
            ..chunk
        };
        self.cursor.next_seq += 1;
        let offset = &mut self.cursor.offsets[lane(stream)];
        *offset = offset.saturating_add(length);
        Cut { chunk, after: self.cursor, position: self.position() }
    }

    /// Place in the file: all that is before it is cut, or was held already.
    pub(crate) fn position(&self) -> u64 {
        self.pending.as_ref().map_or_else(|| self.reader.position(), |pending| pending.position)
    }
}

/// Cuts off what of `record` is before `offset`; false when that is all of it.
fn skip(record: &mut Record, offset: u64) -> bool {
    let known = offset.saturating_sub(record.offset);
    let length = match &record.body {
        Body::Data(bytes) => bytes.len() as u64,
        Body::Gap(length) => *length,
    };
    if known >= length {
        return false;
    }
    if known > 0 {
        record.offset = offset;
        match &mut record.body {
            Body::Data(bytes) => drop(bytes.drain(..usize::try_from(known).expect("less than its length"))),
            Body::Gap(length) => *length -= known,
        }
    }
    true
}

#[cfg(test)]
mod tests;
