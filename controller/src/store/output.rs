//! Output: chunks as the agents sent them, positions in commit order, and cursors without a hole.

use std::collections::BTreeMap;

use base64::{Engine, prelude::BASE64_STANDARD};
use jiff::Timestamp;
use jiff_sqlx::ToSqlx;
use model::{
    api::output::{Data, OutputPage, OutputPiece, Stream},
    id::{ExecutionId, OrgId, RunId},
    limits,
};
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use crate::error::{During, Error, Result};

/// Bytes of decoded output that one page holds before it ends early.
const PAGE_BYTES: usize = 4 * 1024 * 1024;

/// How the bytes of a chunk are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i16)]
pub(crate) enum Encoding {
    Plain = 0,
    Zstd = 1,
}

/// A chunk that has been checked.
#[derive(Debug, Clone)]
pub(crate) struct NewChunk {
    pub execution_id: ExecutionId,
    pub run_id: RunId,
    pub attempt: i32,
    pub org_id: OrgId,
    pub seq: i64,
    pub stream: Stream,
    pub offset: i64,
    pub length: i32,
    pub gap: i64,
    pub time: Timestamp,
    pub encoding: Encoding,
    pub data: bytes::Bytes,
}

/// What is held of one attempt, without a hole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Cursor {
    pub next_seq: i64,
    pub stdout_offset: i64,
    pub stderr_offset: i64,
    pub stdout_gap: i64,
    pub stderr_gap: i64,
}

/// A cursor that moves, if it still stands where it stood.
#[derive(Debug, Clone)]
pub(crate) struct Advance {
    pub execution_id: ExecutionId,
    pub run_id: RunId,
    pub attempt: i32,
    pub org_id: OrgId,
    pub from_seq: i64,
    pub to: Cursor,
}

/// Which pieces a reader wants.
#[derive(Debug, Clone, Default)]
pub(crate) struct OutputFilter {
    pub target: Option<String>,
    pub stream: Option<Stream>,
    pub since: Option<Timestamp>,
    pub attempt: Option<Wanted>,
}

/// Whose output of a run's attempts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// Of the one that is the newest when the page is read.
    Newest,
    Number(i32),
}

impl Wanted {
    /// As the queries have it: 0 for the newest.
    const fn number(self) -> i32 {
        match self {
            Self::Newest => 0,
            Self::Number(number) => number,
        }
    }
}

/// What is held of the attempt.
pub(crate) async fn cursor(
    pool: &PgPool,
    execution: ExecutionId,
    run: RunId,
    attempt: i32,
) -> Result<Cursor> {
    let cursor = sqlx::query_as!(
        Cursor,
        "select next_seq, stdout_offset, stderr_offset, stdout_gap, stderr_gap from output_cursors
         where execution_id = $1 and run_id = $2 and attempt = $3",
        execution.0,
        run.0,
        attempt
    )
    .fetch_optional(pool)
    .await
    .during("query for the output's cursor")?;
    Ok(cursor.unwrap_or_default())
}

/// Moves the cursors; answers the runs of those that stood where they were expected. The others moved meanwhile.
pub(crate) async fn advance(
    connection: &mut PgConnection,
    advances: &[Advance],
    now: Timestamp,
) -> Result<Vec<(RunId, i32)>> {
    let executions: Vec<Uuid> = advances.iter().map(|a| a.execution_id.0).collect();
    let runs: Vec<Uuid> = advances.iter().map(|a| a.run_id.0).collect();
    let attempts: Vec<i32> = advances.iter().map(|a| a.attempt).collect();
    let orgs: Vec<Uuid> = advances.iter().map(|a| a.org_id.0).collect();
    let numbers = |of: fn(&Advance) -> i64| -> Vec<i64> { advances.iter().map(of).collect() };
    let records = sqlx::query!(
        "insert into output_cursors as c
             (execution_id, run_id, attempt, org_id, next_seq, stdout_offset, stderr_offset, stdout_gap, stderr_gap,
              moved_at)
         select n.execution_id, n.run_id, n.attempt, n.org_id, n.next_seq, n.stdout_offset, n.stderr_offset,
                n.stdout_gap, n.stderr_gap, $11
         from unnest($1::uuid[], $2::uuid[], $3::int[], $4::uuid[], $5::bigint[], $6::bigint[], $7::bigint[],
                     $8::bigint[], $9::bigint[], $10::bigint[])
              as n(execution_id, run_id, attempt, org_id, from_seq, next_seq, stdout_offset, stderr_offset,
                   stdout_gap, stderr_gap)
         where n.from_seq = 0 or exists (
             select from output_cursors o
             where o.execution_id = n.execution_id and o.run_id = n.run_id and o.attempt = n.attempt)
         order by n.execution_id, n.run_id, n.attempt
         on conflict (execution_id, run_id, attempt) do update
             set next_seq = excluded.next_seq, stdout_offset = excluded.stdout_offset,
                 stderr_offset = excluded.stderr_offset, stdout_gap = excluded.stdout_gap,
                 stderr_gap = excluded.stderr_gap, moved_at = excluded.moved_at
             where c.next_seq = (
                 select f.from_seq
                 from unnest($1::uuid[], $2::uuid[], $3::int[], $5::bigint[])
                      as f(execution_id, run_id, attempt, from_seq)
                 where f.execution_id = c.execution_id and f.run_id = c.run_id and f.attempt = c.attempt)
         returning run_id, attempt",
        &executions,
        &runs,
        &attempts,
        &orgs,
        &numbers(|a| a.from_seq),
        &numbers(|a| a.to.next_seq),
        &numbers(|a| a.to.stdout_offset),
        &numbers(|a| a.to.stderr_offset),
        &numbers(|a| a.to.stdout_gap),
        &numbers(|a| a.to.stderr_gap),
        now.to_sqlx()
    )
    .fetch_all(connection)
    .await
    .during("advance of output cursors")?;
    Ok(records.into_iter().map(|r| (r.run_id.into(), r.attempt)).collect())
}

/// Inserts the chunks with the next positions of their executions. The lock on each execution's counter, taken in the
/// order of their ids and held until the commit, makes the order of positions the order of commits.
pub(crate) async fn insert(connection: &mut PgConnection, chunks: &[NewChunk]) -> Result<()> {
    let mut wanted: BTreeMap<Uuid, i64> = BTreeMap::new();
    for chunk in chunks {
        *wanted.entry(chunk.execution_id.0).or_default() += 1;
    }
    let ids: Vec<Uuid> = wanted.keys().copied().collect();
    let counts: Vec<i64> = wanted.values().copied().collect();
    sqlx::query!(
        "select execution_id from output_positions where execution_id = any($1) order by execution_id for update",
        &ids
    )
    .fetch_all(&mut *connection)
    .await
    .during("lock of output positions")?;
    let records = sqlx::query!(
        r#"update output_positions p set next_position = p.next_position + n.count
           from unnest($1::uuid[], $2::bigint[]) as n(execution_id, count)
           where p.execution_id = n.execution_id
           returning p.execution_id, p.next_position - n.count as "first!""#,
        &ids,
        &counts
    )
    .fetch_all(&mut *connection)
    .await
    .during("taking of output positions")?;
    let mut next: BTreeMap<Uuid, i64> = records.into_iter().map(|r| (r.execution_id, r.first)).collect();

    let mut positions = Vec::with_capacity(chunks.len());
    for chunk in chunks {
        let position = next
            .get_mut(&chunk.execution_id.0)
            .ok_or_else(|| Error::not_found("execution", chunk.execution_id.to_string()))?;
        positions.push(*position);
        *position += 1;
    }
    let executions: Vec<Uuid> = chunks.iter().map(|c| c.execution_id.0).collect();
    let runs: Vec<Uuid> = chunks.iter().map(|c| c.run_id.0).collect();
    let attempts: Vec<i32> = chunks.iter().map(|c| c.attempt).collect();
    let seqs: Vec<i64> = chunks.iter().map(|c| c.seq).collect();
    let orgs: Vec<Uuid> = chunks.iter().map(|c| c.org_id.0).collect();
    let streams: Vec<i16> = chunks.iter().map(|c| c.stream.number()).collect();
    let starts: Vec<i64> = chunks.iter().map(|c| c.offset).collect();
    let lengths: Vec<i32> = chunks.iter().map(|c| c.length).collect();
    let gaps: Vec<i64> = chunks.iter().map(|c| c.gap).collect();
    let times: Vec<jiff_sqlx::Timestamp> = chunks.iter().map(|c| c.time.to_sqlx()).collect();
    let encodings: Vec<i16> = chunks.iter().map(|c| c.encoding as i16).collect();
    let data: Vec<&[u8]> = chunks.iter().map(|c| c.data.as_ref()).collect();
    sqlx::query!(
        "insert into output_chunks
             (execution_id, run_id, attempt, seq, org_id, position, stream, start, length, gap, time, encoding, data)
         select * from unnest($1::uuid[], $2::uuid[], $3::int[], $4::bigint[], $5::uuid[], $6::bigint[],
                              $7::smallint[], $8::bigint[], $9::int[], $10::bigint[], $11::timestamptz[],
                              $12::smallint[], $13::bytea[])",
        &executions,
        &runs,
        &attempts,
        &seqs,
        &orgs,
        &positions,
        &streams,
        &starts,
        &lengths,
        &gaps,
        &times as _,
        &encodings,
        &data as _
    )
    .execute(connection)
    .await
    .during("insert of output")?;
    Ok(())
}

/// Pieces behind the position `after` that the filter lets through.
///
/// A page ends early when it holds much, and says where to go on even if the filter hid everything.
pub(crate) async fn page(
    pool: &PgPool,
    org: OrgId,
    execution: ExecutionId,
    filter: &OutputFilter,
    after: i64,
    limit: i64,
) -> Result<OutputPage> {
    // Read before the pieces: positions are handed out in commit order, so the query below misses none up to the last.
    let (over, last) = reached(pool, org, execution).await?;
    let records = sqlx::query!(
        r#"select c.position, c.run_id, r.target, c.attempt, c.stream, c.start, c.length, c.gap, c.time,
                  c.encoding, c.data
           from output_chunks c
           join runs r on r.execution_id = c.execution_id and r.id = c.run_id
           where c.org_id = $1 and c.execution_id = $2 and c.position > $3
             and ($4::text is null or r.target = $4) and ($5::smallint is null or c.stream = $5)
             and ($6::timestamptz is null or c.time >= $6)
             and ($8::int is null or c.attempt = case when $8 = 0 then r.attempt else $8 end)
           order by c.position limit $7"#,
        org.0,
        execution.0,
        after,
        filter.target,
        filter.stream.map(Stream::number),
        filter.since.map(ToSqlx::to_sqlx) as _,
        limit,
        filter.attempt.map(Wanted::number)
    )
    .fetch_all(pool)
    .await
    .during("query for output")?;

    let full = i64::try_from(records.len()) == Ok(limit);
    let mut items = Vec::with_capacity(records.len());
    let mut bytes = 0;
    let mut cut = full;
    for record in records {
        if bytes >= PAGE_BYTES {
            cut = true;
            break;
        }
        let data = if record.gap > 0 {
            Data::Gap(record.gap)
        } else {
            let raw = decode(record.encoding, record.data, record.length)?;
            bytes += raw.len();
            match String::from_utf8(raw) {
                Ok(text) => Data::Text(text),
                Err(error) => Data::Base64(BASE64_STANDARD.encode(error.as_bytes())),
            }
        };
        items.push(OutputPiece {
            position: record.position,
            run_id: record.run_id.into(),
            target: record.target,
            attempt: record.attempt,
            stream: Stream::from_number(record.stream).unwrap_or(Stream::Stdout),
            time: record.time.to_jiff(),
            offset: record.start,
            data,
        });
    }
    let shown = items.last().map_or(after, |piece| piece.position);
    let next_after = if cut { shown } else { shown.max(last) };
    Ok(OutputPage { items, next_after, end: over && !cut })
}

/// Whether no more output is to come, and the last position that was handed out.
///
/// No more is to come when the execution has ended and of every run that says how much it wrote, that much is here; or
/// when nothing has come for so long that nobody should wait for the rest.
async fn reached(pool: &PgPool, org: OrgId, execution: ExecutionId) -> Result<(bool, i64)> {
    let reached = sqlx::query!(
        r#"select p.next_position - 1 as "last!", e.ended_at is not null and not exists (
               select from attempts a
               left join output_cursors c on c.execution_id = a.execution_id and c.run_id = a.run_id
                   and c.attempt = a.number
               where a.execution_id = e.id
                 and (a.stdout_written > coalesce(c.stdout_offset, 0)
                   or a.stderr_written > coalesce(c.stderr_offset, 0))
                 and greatest(e.ended_at, c.moved_at) > now() - make_interval(secs => $3)
           ) as "over!"
           from executions e join output_positions p on p.execution_id = e.id
           where e.org_id = $1 and e.id = $2"#,
        org.0,
        execution.0,
        limits::OUTPUT_PATIENCE.as_secs_f64()
    )
    .fetch_optional(pool)
    .await
    .during("query for the execution's end")?;
    let reached = reached.ok_or_else(|| Error::not_found("execution", execution.to_string()))?;
    Ok((reached.over, reached.last))
}

/// Where the last lines of an output begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TailStart {
    /// The first piece is the one behind this position.
    pub after: i64,
    /// Lines of that piece that are still before the beginning.
    pub skip_lines: i64,
}

/// Where the last `lines` lines begin.
pub(crate) async fn tail_start(
    pool: &PgPool,
    org: OrgId,
    execution: ExecutionId,
    filter: &OutputFilter,
    lines: i64,
) -> Result<TailStart> {
    let mut before = i64::MAX;
    let mut wanted = lines;
    loop {
        let records = sqlx::query!(
            r#"select c.position, c.length, c.gap, c.encoding, c.data
               from output_chunks c
               join runs r on r.execution_id = c.execution_id and r.id = c.run_id
               where c.org_id = $1 and c.execution_id = $2 and c.position < $3
                 and ($4::text is null or r.target = $4) and ($5::smallint is null or c.stream = $5)
                 and ($6::timestamptz is null or c.time >= $6)
                 and ($7::int is null or c.attempt = case when $7 = 0 then r.attempt else $7 end)
               order by c.position desc limit 64"#,
            org.0,
            execution.0,
            before,
            filter.target,
            filter.stream.map(Stream::number),
            filter.since.map(ToSqlx::to_sqlx) as _,
            filter.attempt.map(Wanted::number)
        )
        .fetch_all(pool)
        .await
        .during("query for the output's tail")?;
        if records.is_empty() {
            return Ok(TailStart { after: 0, skip_lines: (-wanted).max(0) });
        }
        for record in records {
            if wanted <= 0 {
                return Ok(TailStart { after: record.position, skip_lines: -wanted });
            }
            let raw = decode(record.encoding, record.data, record.length)?;
            // A line that is not ended yet counts as well.
            let open = before == i64::MAX && raw.last().is_some_and(|byte| *byte != b'\n');
            let ended = raw.iter().filter(|byte| **byte == b'\n').count();
            wanted -= i64::try_from(ended).unwrap_or(i64::MAX) + i64::from(open);
            before = record.position;
        }
    }
}

/// The bytes of a chunk; never more than one chunk may have.
pub(crate) fn decode(encoding: i16, data: Vec<u8>, length: i32) -> Result<Vec<u8>> {
    if encoding == Encoding::Plain as i16 {
        return Ok(data);
    }
    let length = usize::try_from(length).unwrap_or(0).min(limits::CHUNK_BYTES);
    zstd::bulk::decompress(&data, length)
        .map_err(|error| Error::internal("a stored chunk cannot be unpacked", error))
}
