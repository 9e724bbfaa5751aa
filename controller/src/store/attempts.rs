//! Attempts: the n-th try of a run. A row owns its fence, its process and its exit.

use jiff::Timestamp;
use jiff_sqlx::ToSqlx;
use model::{
    Reason,
    api::execution::{Attempt, Observed, Usage},
    attempt::AttemptState,
    id::{AgentId, ExecutionId, OrgId, RunId},
    retry::Tried,
    sandbox::Profile,
};
use sqlx::{PgConnection, PgPool, types::Json};
use uuid::Uuid;

use super::runs::{exactly, output, stream};
use crate::error::{During, Result};

/// An attempt that is about to be offered.
#[derive(Debug)]
pub(crate) struct Offer {
    pub execution_id: Uuid,
    pub run_id: Uuid,
    pub number: i32,
    pub org_id: Uuid,
    pub agent_id: Uuid,
    pub fence: i64,
    pub epoch: i64,
    pub deadline: Timestamp,
}

/// An attempt with its run, both locked.
#[derive(Debug, Clone)]
pub(crate) struct Locked {
    pub execution_id: Uuid,
    pub run_id: Uuid,
    pub number: i32,
    pub org_id: Uuid,
    pub agent_id: Uuid,
    pub state: String,
    pub generation: i64,
    pub run_state: String,
    pub run_generation: i64,
    pub run_attempt: i32,
    /// Its run is a step of a plan.
    pub is_step: bool,
    pub offered_at: jiff_sqlx::Timestamp,
}

/// A new state of an attempt, if nobody was faster.
#[derive(Debug, Clone)]
pub(crate) struct Change {
    pub execution_id: ExecutionId,
    pub run_id: RunId,
    pub number: i32,
    /// The generation that was read.
    pub generation: i64,
    pub state: AttemptState,
    pub accepted_at: Option<Timestamp>,
    pub started_at: Option<Timestamp>,
    pub ended_at: Option<Timestamp>,
    pub reason: Option<Reason>,
    pub detail: Option<String>,
    pub exit_code: Option<i32>,
    pub signal: Option<i32>,
    pub pid: Option<i32>,
    pub boot_id: Option<String>,
    pub exit: Option<Exit>,
}

/// What a host's signed exit record says.
#[derive(Debug, Clone)]
pub(crate) struct Exit {
    pub record: Vec<u8>,
    pub signature: Vec<u8>,
    pub stdout_written: i64,
    pub stderr_written: i64,
    pub stdout_sha256: Vec<u8>,
    pub stderr_sha256: Vec<u8>,
    pub usage: Usage,
    pub sandbox: Option<Profile>,
}

pub(crate) async fn offer(connection: &mut PgConnection, offers: &[Offer], now: Timestamp) -> Result<()> {
    let executions: Vec<Uuid> = offers.iter().map(|o| o.execution_id).collect();
    let runs: Vec<Uuid> = offers.iter().map(|o| o.run_id).collect();
    let numbers: Vec<i32> = offers.iter().map(|o| o.number).collect();
    let orgs: Vec<Uuid> = offers.iter().map(|o| o.org_id).collect();
    let agents: Vec<Uuid> = offers.iter().map(|o| o.agent_id).collect();
    let fences: Vec<i64> = offers.iter().map(|o| o.fence).collect();
    let epochs: Vec<i64> = offers.iter().map(|o| o.epoch).collect();
    let deadlines: Vec<jiff_sqlx::Timestamp> = offers.iter().map(|o| o.deadline.to_sqlx()).collect();
    let done = sqlx::query!(
        "insert into attempts (execution_id, run_id, number, org_id, agent_id, fence, epoch, deadline, state,
                               offered_at)
         select o.execution_id, o.run_id, o.number, o.org_id, o.agent_id, o.fence, o.epoch, o.deadline, 'offered', $9
         from unnest($1::uuid[], $2::uuid[], $3::int[], $4::uuid[], $5::uuid[], $6::bigint[], $7::bigint[],
                     $8::timestamptz[])
              as o(execution_id, run_id, number, org_id, agent_id, fence, epoch, deadline)",
        &executions,
        &runs,
        &numbers,
        &orgs,
        &agents,
        &fences,
        &epochs,
        &deadlines as _,
        now.to_sqlx()
    )
    .execute(connection)
    .await
    .during("insert of attempts")?;
    exactly(done.rows_affected(), offers.len())
}

/// Locks the attempts of `keys` and their runs, in the order of their keys so that two never wait for each other.
pub(crate) async fn lock(
    connection: &mut PgConnection,
    keys: &[(ExecutionId, RunId, i32)],
) -> Result<Vec<Locked>> {
    let executions: Vec<Uuid> = keys.iter().map(|k| k.0.0).collect();
    let runs: Vec<Uuid> = keys.iter().map(|k| k.1.0).collect();
    let numbers: Vec<i32> = keys.iter().map(|k| k.2).collect();
    sqlx::query_as!(
        Locked,
        r#"select a.execution_id, a.run_id, a.number, a.org_id, a.agent_id, a.state, a.generation,
                r.state as run_state, r.generation as run_generation, r.attempt as run_attempt,
                r.step is not null as "is_step!", a.offered_at
         from unnest($1::uuid[], $2::uuid[], $3::int[]) as k(execution_id, run_id, number)
         join attempts a on a.execution_id = k.execution_id and a.run_id = k.run_id and a.number = k.number
         join runs r on r.execution_id = a.execution_id and r.id = a.run_id
         order by a.execution_id, a.run_id, a.number for update of a, r"#,
        &executions,
        &runs,
        &numbers
    )
    .fetch_all(connection)
    .await
    .during("query for attempts")
}

/// What became of the attempts of these runs, given as (execution, run).
pub(crate) async fn tried(
    connection: &mut PgConnection,
    executions: &[Uuid],
    runs: &[Uuid],
) -> Result<Vec<(RunId, Tried)>> {
    let records = sqlx::query!(
        "select a.run_id, a.number, a.state, a.reason, a.exit_code
         from unnest($1::uuid[], $2::uuid[]) as k(execution_id, run_id)
         join attempts a on a.execution_id = k.execution_id and a.run_id = k.run_id
         order by a.run_id, a.number",
        executions,
        runs
    )
    .fetch_all(connection)
    .await
    .during("query for earlier attempts")?;
    Ok(records
        .into_iter()
        .map(|r| {
            let tried = Tried {
                number: r.number,
                // A state that nobody knows counts as one that is not over: nothing follows it.
                state: AttemptState::parse(&r.state).unwrap_or(AttemptState::Started),
                reason: r.reason.as_deref().and_then(Reason::parse),
                exit_code: r.exit_code,
            };
            (r.run_id.into(), tried)
        })
        .collect())
}

/// The attempts of a run with what is held of their output, by number, from behind `after`.
pub(crate) async fn page(
    pool: &PgPool,
    org: OrgId,
    execution: ExecutionId,
    run: RunId,
    after: Option<i32>,
    limit: i64,
) -> Result<Vec<Attempt>> {
    let records = sqlx::query!(
        r#"select a.number, a.state, a.reason, a.detail, a.fence, a.exit_code, a.signal, a.offered_at, a.accepted_at,
                  a.started_at, a.ended_at, a.observed_outcome as "observed: Json<Observed>",
                  a.stdout_written, a.stderr_written, a.stdout_sha256, a.stderr_sha256, a.sandbox,
                  a.cpu_user_us, a.cpu_system_us, a.peak_memory_bytes, a.peak_pids, a.io_read_bytes,
                  a.io_write_bytes, a.out_of_memory,
                  c.stdout_offset as "stdout_offset?", c.stderr_offset as "stderr_offset?",
                  c.stdout_gap as "stdout_gap?", c.stderr_gap as "stderr_gap?"
           from attempts a
           left join output_cursors c
               on c.execution_id = a.execution_id and c.run_id = a.run_id and c.attempt = a.number
           where a.org_id = $1 and a.execution_id = $2 and a.run_id = $3 and a.number > $4
           order by a.number limit $5"#,
        org.0,
        execution.0,
        run.0,
        after.unwrap_or(0),
        limit
    )
    .fetch_all(pool)
    .await
    .during("query for attempts")?;
    Ok(records
        .into_iter()
        .map(|r| Attempt {
            number: r.number,
            state: AttemptState::parse(&r.state).unwrap_or(AttemptState::Lost),
            reason: r.reason.as_deref().and_then(Reason::parse),
            detail: r.detail,
            fence: r.fence,
            exit_code: r.exit_code,
            signal: r.signal,
            offered_at: r.offered_at.to_jiff(),
            accepted_at: r.accepted_at.map(jiff_sqlx::Timestamp::to_jiff),
            started_at: r.started_at.map(jiff_sqlx::Timestamp::to_jiff),
            ended_at: r.ended_at.map(jiff_sqlx::Timestamp::to_jiff),
            observed: r.observed.map(|observed| observed.0),
            sandbox: r.sandbox.as_deref().and_then(Profile::parse),
            usage: r.cpu_user_us.map(|cpu_user_us| Usage {
                cpu_user_us,
                cpu_system_us: r.cpu_system_us.unwrap_or(0),
                peak_memory_bytes: r.peak_memory_bytes.unwrap_or(0),
                peak_pids: r.peak_pids.unwrap_or(0),
                io_read_bytes: r.io_read_bytes.unwrap_or(0),
                io_write_bytes: r.io_write_bytes.unwrap_or(0),
                out_of_memory: r.out_of_memory.unwrap_or(false),
            }),
            output: output(
                stream(r.stdout_offset, r.stdout_gap, r.stdout_written, r.stdout_sha256.as_deref()),
                stream(r.stderr_offset, r.stderr_gap, r.stderr_written, r.stderr_sha256.as_deref()),
            ),
        })
        .collect())
}

/// Keeps what came to light about an attempt that had been given up, which changes no state.
pub(crate) async fn observe(
    connection: &mut PgConnection,
    (execution, run, number): (ExecutionId, RunId, i32),
    observed: &Observed,
) -> Result<()> {
    sqlx::query!(
        "update attempts set observed_outcome = coalesce(observed_outcome, $4)
         where execution_id = $1 and run_id = $2 and number = $3 and state = 'lost'",
        execution.0,
        run.0,
        number,
        Json(observed) as _
    )
    .execute(connection)
    .await
    .during("note of a late outcome")?;
    Ok(())
}

/// The open attempts of an agent: (key, state).
pub(crate) async fn open_of(
    connection: &mut PgConnection,
    agent: AgentId,
) -> Result<Vec<((ExecutionId, RunId, i32), AttemptState)>> {
    let records = sqlx::query!(
        "select execution_id, run_id, number, state from attempts
         where agent_id = $1 and state in ('offered', 'accepted', 'started')",
        agent.0
    )
    .fetch_all(connection)
    .await
    .during("query for open attempts")?;
    Ok(records
        .into_iter()
        .filter_map(|r| {
            let state = AttemptState::parse(&r.state)?;
            Some(((r.execution_id.into(), r.run_id.into(), r.number), state))
        })
        .collect())
}

/// Open attempts of agents that have had no session since `before`, and of revoked ones. Their sessions are held: nobody of
/// them comes back meanwhile.
pub(crate) async fn of_absent(
    connection: &mut PgConnection,
    before: Timestamp,
    limit: i64,
) -> Result<Vec<((ExecutionId, RunId, i32), AgentId, bool)>> {
    let records = sqlx::query!(
        r#"select a.execution_id, a.run_id, a.number, a.agent_id, g.revoked_at is not null as "revoked!"
           from sessions s
           join agents g on g.id = s.agent_id
           join attempts a on a.agent_id = s.agent_id and a.state in ('offered', 'accepted', 'started')
           where not s.connected and (s.closed_at < $1 or g.revoked_at is not null)
           limit $2 for share of s"#,
        before.to_sqlx(),
        limit
    )
    .fetch_all(connection)
    .await
    .during("query for attempts of absent agents")?;
    Ok(records
        .into_iter()
        .map(|r| ((r.execution_id.into(), r.run_id.into(), r.number), r.agent_id.into(), r.revoked))
        .collect())
}

/// Attempts, locked, that were offered before `before` to an agent that has had a session since then and has not answered;
/// and those offered before `long_before`, however often their agents opened sessions. True for those whose agent has had
/// the time to answer in its present session.
pub(crate) async fn unanswered(
    connection: &mut PgConnection,
    before: Timestamp,
    long_before: Timestamp,
    limit: i64,
) -> Result<Vec<((ExecutionId, RunId, i32), AgentId, bool)>> {
    let records = sqlx::query!(
        r#"select a.execution_id, a.run_id, a.number, a.agent_id, s.opened_at < $1 as "had_time!"
         from attempts a join sessions s on s.agent_id = a.agent_id and s.connected
         where a.state = 'offered' and a.offered_at < $1 and (s.opened_at < $1 or a.offered_at < $2)
         limit $3 for update of a skip locked"#,
        before.to_sqlx(),
        long_before.to_sqlx(),
        limit
    )
    .fetch_all(connection)
    .await
    .during("query for unanswered orders")?;
    Ok(records
        .into_iter()
        .map(|r| ((r.execution_id.into(), r.run_id.into(), r.number), r.agent_id.into(), r.had_time))
        .collect())
}

/// Attempts, locked, whose deadline was over at `now`, and whose agents have had the session of before `before` to say so;
/// and those whose deadline was over before `before`, however often their agents opened sessions.
pub(crate) async fn overdue(
    connection: &mut PgConnection,
    now: Timestamp,
    before: Timestamp,
    limit: i64,
) -> Result<Vec<((ExecutionId, RunId, i32), AgentId)>> {
    let records = sqlx::query!(
        "select a.execution_id, a.run_id, a.number, a.agent_id
         from attempts a join sessions s on s.agent_id = a.agent_id and s.connected
         where a.state in ('accepted', 'started') and a.deadline < $1 and (s.opened_at < $2 or a.deadline < $2)
         limit $3 for update of a skip locked",
        now.to_sqlx(),
        before.to_sqlx(),
        limit
    )
    .fetch_all(connection)
    .await
    .during("query for overdue attempts")?;
    Ok(records
        .into_iter()
        .map(|r| ((r.execution_id.into(), r.run_id.into(), r.number), r.agent_id.into()))
        .collect())
}

/// Whose attempt this is, if it is one.
pub(crate) async fn owner(
    pool: &PgPool,
    execution: ExecutionId,
    run: RunId,
    number: i32,
) -> Result<Option<(AgentId, OrgId)>> {
    let record = sqlx::query!(
        "select agent_id, org_id from attempts where execution_id = $1 and run_id = $2 and number = $3",
        execution.0,
        run.0,
        number
    )
    .fetch_optional(pool)
    .await
    .during("query for the attempt's agent")?;
    Ok(record.map(|r| (r.agent_id.into(), r.org_id.into())))
}

/// Writes the changes, each guarded by the generation that was read.
pub(crate) async fn change(connection: &mut PgConnection, changes: &[Change]) -> Result<()> {
    if changes.is_empty() {
        return Ok(());
    }
    let executions: Vec<Uuid> = changes.iter().map(|c| c.execution_id.0).collect();
    let runs: Vec<Uuid> = changes.iter().map(|c| c.run_id.0).collect();
    let numbers: Vec<i32> = changes.iter().map(|c| c.number).collect();
    let generations: Vec<i64> = changes.iter().map(|c| c.generation).collect();
    let states: Vec<&str> = changes.iter().map(|c| c.state.as_str()).collect();
    let times = |of: fn(&Change) -> Option<Timestamp>| -> Vec<Option<jiff_sqlx::Timestamp>> {
        changes.iter().map(|c| of(c).map(ToSqlx::to_sqlx)).collect()
    };
    let reasons: Vec<Option<&str>> = changes.iter().map(|c| c.reason.map(Reason::as_str)).collect();
    let details: Vec<Option<&str>> = changes.iter().map(|c| c.detail.as_deref()).collect();
    let exit_codes: Vec<Option<i32>> = changes.iter().map(|c| c.exit_code).collect();
    let signals: Vec<Option<i32>> = changes.iter().map(|c| c.signal).collect();
    let pids: Vec<Option<i32>> = changes.iter().map(|c| c.pid).collect();
    let boots: Vec<Option<&str>> = changes.iter().map(|c| c.boot_id.as_deref()).collect();
    let bytes = |of: fn(&Exit) -> &[u8]| -> Vec<Option<&[u8]>> {
        changes.iter().map(|c| c.exit.as_ref().map(of)).collect()
    };
    let numbers_of = |of: fn(&Exit) -> i64| -> Vec<Option<i64>> {
        changes.iter().map(|c| c.exit.as_ref().map(of)).collect()
    };
    let out_of_memory: Vec<Option<bool>> =
        changes.iter().map(|c| c.exit.as_ref().map(|e| e.usage.out_of_memory)).collect();
    let sandboxes: Vec<Option<&str>> =
        changes.iter().map(|c| c.exit.as_ref().and_then(|e| e.sandbox).map(Profile::as_str)).collect();
    let done = sqlx::query!(
        "update attempts a
         set state = c.state, generation = a.generation + 1,
             accepted_at = coalesce(a.accepted_at, c.accepted_at),
             started_at = coalesce(a.started_at, c.started_at), ended_at = coalesce(a.ended_at, c.ended_at),
             reason = coalesce(a.reason, c.reason), detail = coalesce(a.detail, c.detail),
             exit_code = coalesce(a.exit_code, c.exit_code), signal = coalesce(a.signal, c.signal),
             pid = coalesce(c.pid, a.pid), boot_id = coalesce(c.boot_id, a.boot_id),
             exit_record = coalesce(c.exit_record, a.exit_record),
             exit_signature = coalesce(c.exit_signature, a.exit_signature),
             stdout_written = coalesce(c.stdout_written, a.stdout_written),
             stderr_written = coalesce(c.stderr_written, a.stderr_written),
             stdout_sha256 = coalesce(c.stdout_sha256, a.stdout_sha256),
             stderr_sha256 = coalesce(c.stderr_sha256, a.stderr_sha256),
             cpu_user_us = coalesce(c.cpu_user_us, a.cpu_user_us),
             cpu_system_us = coalesce(c.cpu_system_us, a.cpu_system_us),
             peak_memory_bytes = coalesce(c.peak_memory_bytes, a.peak_memory_bytes),
             peak_pids = coalesce(c.peak_pids, a.peak_pids),
             io_read_bytes = coalesce(c.io_read_bytes, a.io_read_bytes),
             io_write_bytes = coalesce(c.io_write_bytes, a.io_write_bytes),
             out_of_memory = coalesce(c.out_of_memory, a.out_of_memory),
             sandbox = coalesce(c.sandbox, a.sandbox)
         from unnest($1::uuid[], $2::uuid[], $3::int[], $4::bigint[], $5::text[], $6::timestamptz[],
                     $7::timestamptz[], $8::timestamptz[], $9::int[], $10::text[], $11::bytea[], $12::bytea[],
                     $13::bigint[], $14::bigint[], $15::bytea[], $16::bytea[], $17::bigint[], $18::bigint[],
                     $19::bigint[], $20::text[], $21::text[], $22::int[], $23::int[], $24::bigint[],
                     $25::bigint[], $26::bigint[], $27::bool[], $28::text[])
              as c(execution_id, run_id, number, generation, state, accepted_at, started_at, ended_at, pid,
                   boot_id, exit_record, exit_signature, stdout_written, stderr_written, stdout_sha256,
                   stderr_sha256, cpu_user_us, cpu_system_us, peak_memory_bytes, reason, detail, exit_code, signal,
                   peak_pids, io_read_bytes, io_write_bytes, out_of_memory, sandbox)
         where a.execution_id = c.execution_id and a.run_id = c.run_id and a.number = c.number
           and a.generation = c.generation",
        &executions,
        &runs,
        &numbers,
        &generations,
        &states as _,
        &times(|c| c.accepted_at) as _,
        &times(|c| c.started_at) as _,
        &times(|c| c.ended_at) as _,
        &pids as _,
        &boots as _,
        &bytes(|e| &e.record) as _,
        &bytes(|e| &e.signature) as _,
        &numbers_of(|e| e.stdout_written) as _,
        &numbers_of(|e| e.stderr_written) as _,
        &bytes(|e| &e.stdout_sha256) as _,
        &bytes(|e| &e.stderr_sha256) as _,
        &numbers_of(|e| e.usage.cpu_user_us) as _,
        &numbers_of(|e| e.usage.cpu_system_us) as _,
        &numbers_of(|e| e.usage.peak_memory_bytes) as _,
        &reasons as _,
        &details as _,
        &exit_codes as _,
        &signals as _,
        &numbers_of(|e| e.usage.peak_pids) as _,
        &numbers_of(|e| e.usage.io_read_bytes) as _,
        &numbers_of(|e| e.usage.io_write_bytes) as _,
        &out_of_memory as _,
        &sandboxes as _
    )
    .execute(connection)
    .await
    .during("update of attempts")?;
    exactly(done.rows_affected(), changes.len())
}
