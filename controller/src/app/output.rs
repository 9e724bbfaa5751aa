//! Taking output in: checked, stored with a position, and only then acknowledged.
//!
//! Invariants: an attempt's chunks are contiguous in sequence and in each stream's offset, or the batch is not taken; a
//! position is handed out in the transaction that inserts its chunk; cursors move in that transaction too, guarded by
//! where they stood.

use std::collections::{BTreeMap, HashSet};

use jiff::{SignedDuration, Timestamp};
use model::{
    api::output::Stream,
    id::{ExecutionId, OrgId, RunId},
    limits,
};
use tokio::sync::{Mutex, mpsc, oneshot};

use super::App;
use crate::{
    clock,
    error::{During, Result},
    mutant,
    store::{
        self,
        output::{Advance, Cursor, Encoding, NewChunk},
    },
};

/// Batches that wait to be stored, of all agents together.
const WAITING: usize = 256;
/// Batches that one transaction stores at most.
const BATCHES: usize = 64;
/// A chunk's own time counts if it is within this of the controller's; a host's clock may be wrong, but no page is
/// sorted by it.
const BELIEVED: SignedDuration = SignedDuration::from_hours(24 * 366);

/// Chunks of one attempt that follow one another, checked, with the cursor before and after them.
#[derive(Debug)]
pub(crate) struct Checked {
    pub chunks: Vec<NewChunk>,
    pub advance: Advance,
}

type Waiting = (Vec<Checked>, oneshot::Sender<HashSet<(RunId, i32)>>);

/// The queue of output before the tables.
#[derive(Debug)]
pub(crate) struct Chunks {
    sender: mpsc::Sender<Waiting>,
    receiver: Mutex<mpsc::Receiver<Waiting>>,
}

impl Chunks {
    pub(crate) fn new() -> Self {
        let (sender, receiver) = mpsc::channel(WAITING);
        Self { sender, receiver: Mutex::new(receiver) }
    }

    /// Hands checked output over; waits while too much waits. The answer says, after the commit, whose cursors moved;
    /// it never comes when the commit failed.
    pub(crate) async fn put(&self, batch: Vec<Checked>) -> Option<oneshot::Receiver<HashSet<(RunId, i32)>>> {
        let (answer, answered) = oneshot::channel();
        self.sender.send((batch, answer)).await.ok()?;
        Some(answered)
    }
}

/// Waits for output and stores it, all that waits in one transaction.
///
/// # Errors
/// When the database does not answer: nothing is stored, and the agents resume.
pub(crate) async fn store_next(app: &App) -> Result<()> {
    let mut waiting = Vec::with_capacity(BATCHES);
    app.chunks.receiver.lock().await.recv_many(&mut waiting, BATCHES).await;

    // Of one attempt only the first batch can be judged against the table; the ones behind it wait for the next round.
    let mut rounds: Vec<Vec<&Checked>> = Vec::new();
    let mut seen: BTreeMap<(RunId, i32), usize> = BTreeMap::new();
    for checked in waiting.iter().flat_map(|(batch, _)| batch) {
        let round = seen.entry((checked.advance.run_id, checked.advance.attempt)).or_default();
        if rounds.len() <= *round {
            rounds.push(Vec::new());
        }
        rounds[*round].push(checked);
        *round += 1;
    }

    let mut moved: HashSet<(RunId, i32, i64)> = HashSet::new();
    let mut executions: HashSet<ExecutionId> = HashSet::new();
    let mut bytes = 0;
    let mut tx = app.db.output().begin().await.during("begin")?;
    for round in rounds {
        let advances: Vec<Advance> = round.iter().map(|checked| checked.advance.clone()).collect();
        let good: HashSet<(RunId, i32)> =
            store::output::advance(&mut tx, &advances, clock::now()).await?.into_iter().collect();
        let mut chunks = Vec::new();
        for checked in round {
            let key = (checked.advance.run_id, checked.advance.attempt);
            if good.contains(&key) {
                moved.insert((key.0, key.1, checked.advance.to.next_seq));
                executions.insert(checked.advance.execution_id);
                bytes +=
                    checked.chunks.iter().map(|chunk| u64::from(chunk.length.unsigned_abs())).sum::<u64>();
                chunks.extend(checked.chunks.iter().cloned());
            }
        }
        if !chunks.is_empty() {
            store::output::insert(&mut tx, &chunks).await?;
        }
    }
    fault::point("controller.output.written");
    tx.commit().await.during("commit")?;
    fault::point("controller.output.committed");
    metrics::counter!("opsc_output_bytes_total").increment(bytes);

    for (batch, answer) in waiting {
        let stored = batch
            .iter()
            .map(|checked| &checked.advance)
            .filter(|advance| moved.contains(&(advance.run_id, advance.attempt, advance.to.next_seq)))
            .map(|advance| (advance.run_id, advance.attempt))
            .collect();
        // The stream may be gone; then nobody waits.
        let _ = answer.send(stored);
    }
    app.live.nudge(executions);
    app.wake.output.notify_one();
    Ok(())
}

/// An attempt on one output stream: whose it is and where it stands.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    pub execution_id: ExecutionId,
    pub run_id: RunId,
    pub attempt: i32,
    pub org_id: OrgId,
    pub cursor: Cursor,
}

/// What is wrong with a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ChunkFault {
    #[error("out_of_sequence")]
    OutOfSequence,
    #[error("wrong_offset")]
    WrongOffset,
    #[error("unknown_stream")]
    UnknownStream,
    #[error("wrong_size")]
    WrongSize,
    #[error("over_run_output_bytes")]
    OverLimit,
    #[error("unreadable_data")]
    UnreadableData,
}

impl ChunkFault {
    /// Whether the chunk itself is wrong, however often it is sent, and not its place in the stream.
    pub(crate) const fn is_of_the_data(self) -> bool {
        !matches!(self, Self::OutOfSequence | Self::WrongOffset)
    }
}

/// Checks chunks of one attempt that should follow `place`, and moves it behind them.
///
/// # Errors
/// The first fault; `place` stays where it was.
pub(crate) fn check(
    place: &mut Place,
    chunks: Vec<proto::Chunk>,
) -> std::result::Result<Checked, ChunkFault> {
    let now = clock::now();
    let mut cursor = place.cursor;
    let mut checked = Vec::with_capacity(chunks.len());
    for chunk in chunks {
        let chunk = check_one(place, &mut cursor, chunk, now)?;
        if !(chunk.seq == 1 && mutant::is("chunk_dropped")) {
            checked.push(chunk);
        }
    }
    let advance = Advance {
        execution_id: place.execution_id,
        run_id: place.run_id,
        attempt: place.attempt,
        org_id: place.org_id,
        from_seq: place.cursor.next_seq,
        to: cursor,
    };
    place.cursor = cursor;
    Ok(Checked { chunks: checked, advance })
}

fn check_one(
    place: &Place,
    cursor: &mut Cursor,
    chunk: proto::Chunk,
    now: Timestamp,
) -> std::result::Result<NewChunk, ChunkFault> {
    let seq = i64::try_from(chunk.seq).map_err(|_| ChunkFault::OutOfSequence)?;
    if seq != cursor.next_seq {
        return Err(ChunkFault::OutOfSequence);
    }
    let stream =
        i16::try_from(chunk.stream).ok().and_then(Stream::from_number).ok_or(ChunkFault::UnknownStream)?;
    let length = i32::try_from(chunk.length).map_err(|_| ChunkFault::WrongSize)?;
    let gap = i64::try_from(chunk.gap).map_err(|_| ChunkFault::WrongSize)?;
    let is_gap = gap > 0;
    if is_gap != (length == 0)
        || chunk.length as usize > limits::CHUNK_BYTES
        || (is_gap && !chunk.data.is_empty())
    {
        return Err(ChunkFault::WrongSize);
    }
    let encoding = match chunk.encoding {
        0 if chunk.data.len() == chunk.length as usize => Encoding::Plain,
        0 => return Err(ChunkFault::WrongSize),
        1 => {
            let raw = zstd::bulk::decompress(&chunk.data, limits::CHUNK_BYTES)
                .map_err(|_| ChunkFault::UnreadableData)?;
            if raw.len() != chunk.length as usize {
                return Err(ChunkFault::WrongSize);
            }
            Encoding::Zstd
        }
        _ => return Err(ChunkFault::UnreadableData),
    };
    let (offset, gaps) = match stream {
        Stream::Stdout => (&mut cursor.stdout_offset, &mut cursor.stdout_gap),
        Stream::Stderr => (&mut cursor.stderr_offset, &mut cursor.stderr_gap),
    };
    if i64::try_from(chunk.offset) != Ok(*offset) {
        return Err(ChunkFault::WrongOffset);
    }
    let start = *offset;
    *offset = start
        .checked_add(i64::from(length))
        .and_then(|o| o.checked_add(gap))
        .ok_or(ChunkFault::WrongOffset)?;
    *gaps += gap;
    if (*offset - *gaps).cast_unsigned() > limits::RUN_OUTPUT_BYTES {
        return Err(ChunkFault::OverLimit);
    }
    cursor.next_seq += 1;
    let time = Timestamp::from_microsecond(chunk.time)
        .ok()
        .filter(|time| now.duration_since(*time).abs() < BELIEVED)
        .unwrap_or(now);
    Ok(NewChunk {
        execution_id: place.execution_id,
        run_id: place.run_id,
        attempt: place.attempt,
        org_id: place.org_id,
        seq,
        stream,
        offset: start,
        length,
        gap,
        time,
        encoding,
        data: chunk.data,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place() -> Place {
        let id = uuid::Uuid::from_u128(7);
        Place {
            execution_id: id.into(),
            run_id: id.into(),
            attempt: 1,
            org_id: id.into(),
            cursor: Cursor::default(),
        }
    }

    fn chunk(seq: u64, stream: u32, offset: u64, data: &[u8]) -> proto::Chunk {
        proto::Chunk {
            seq,
            stream,
            offset,
            time: clock::now().as_microsecond(),
            length: u32::try_from(data.len()).unwrap(),
            data: data.to_vec().into(),
            ..Default::default()
        }
    }

    #[test]
    fn contiguous_chunks_move_the_cursor() {
        let mut place = place();
        let gap = proto::Chunk { gap: 10, ..chunk(2, 1, 3, b"") };
        let packed = zstd::bulk::compress(&[b'x'; 4000], 3).unwrap();
        let zstd = proto::Chunk { encoding: 1, length: 4000, ..chunk(3, 1, 13, &packed) };
        let checked =
            check(&mut place, vec![chunk(0, 1, 0, b"abc"), chunk(1, 2, 0, b"e"), gap, zstd]).unwrap();
        let want =
            Cursor { next_seq: 4, stdout_offset: 4013, stderr_offset: 1, stdout_gap: 10, stderr_gap: 0 };
        assert_eq!(checked.advance.to, want);
        assert_eq!(place.cursor, want);
        assert_eq!(checked.chunks.len(), 4);
    }

    #[test]
    fn what_does_not_follow_is_not_taken() {
        let bad = [
            (chunk(1, 1, 0, b"a"), ChunkFault::OutOfSequence),
            (chunk(0, 1, 1, b"a"), ChunkFault::WrongOffset),
            (chunk(0, 3, 0, b"a"), ChunkFault::UnknownStream),
            (chunk(0, 1, 0, b""), ChunkFault::WrongSize),
            (proto::Chunk { length: 2, ..chunk(0, 1, 0, b"a") }, ChunkFault::WrongSize),
            (proto::Chunk { gap: 5, ..chunk(0, 1, 0, b"a") }, ChunkFault::WrongSize),
            (proto::Chunk { gap: u64::MAX, ..chunk(0, 1, 0, b"") }, ChunkFault::WrongSize),
            (proto::Chunk { encoding: 1, ..chunk(0, 1, 0, b"not zstd") }, ChunkFault::UnreadableData),
            (proto::Chunk { encoding: 9, ..chunk(0, 1, 0, b"a") }, ChunkFault::UnreadableData),
            (chunk(0, 1, 0, &vec![0; limits::CHUNK_BYTES + 1]), ChunkFault::WrongSize),
        ];
        for (chunk, want) in bad {
            let mut place = place();
            assert_eq!(check(&mut place, vec![chunk]).unwrap_err(), want);
            assert_eq!(place.cursor, Cursor::default(), "the place stays");
        }
    }

    #[test]
    fn a_bomb_is_not_unpacked() {
        let packed = zstd::bulk::compress(&vec![0_u8; 64 * 1024 * 1024], 3).unwrap();
        let bomb = proto::Chunk { encoding: 1, length: 65536, ..chunk(0, 1, 0, &packed) };
        assert_eq!(check(&mut place(), vec![bomb]).unwrap_err(), ChunkFault::UnreadableData);
    }
}
