//! Runs: one step on one target. Every write of a state is guarded by the row's generation.

use jiff::Timestamp;
use jiff_sqlx::ToSqlx;
use model::{
    Reason,
    api::{
        agent::{AgentLoad, AgentRun},
        execution::{Observed, Run, RunOutput, StreamOutput, Usage},
        job::OutputGroup,
    },
    attempt::AttemptState,
    id::{AgentId, ControllerId, ExecutionId, OrgId, RunId},
    job::outputs::Outputs,
    run::RunState,
    sandbox::Profile,
};
use sqlx::{PgConnection, PgPool, types::Json};
use uuid::Uuid;

use crate::error::{During, Error, Result};

/// A run that the dispatcher has locked.
#[derive(Debug)]
pub(crate) struct Queued {
    pub execution_id: Uuid,
    pub id: Uuid,
    pub org_id: Uuid,
    pub agent_id: Uuid,
    pub generation: i64,
    pub attempt: i32,
    /// There is an attempt behind the one that the run calls its newest.
    pub is_behind: bool,
}

/// What a manifest covers of a run: on which agent, and the place of its step, where it has one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Covered {
    pub run: RunId,
    pub agent: AgentId,
    pub step: Option<i16>,
}

/// A new state of a run, if nobody was faster.
#[derive(Debug, Clone)]
pub(crate) struct Change {
    pub execution_id: ExecutionId,
    pub id: RunId,
    /// The generation that was read.
    pub generation: i64,
    pub state: RunState,
    pub due_at: Option<Timestamp>,
    pub start_before: Option<Timestamp>,
    pub started_at: Option<Timestamp>,
    pub ended_at: Option<Timestamp>,
    pub reason: Option<Reason>,
    pub detail: Option<String>,
    pub exit_code: Option<i32>,
    pub signal: Option<i32>,
    /// What it told later steps.
    pub outputs: Option<Outputs>,
}

impl Change {
    /// To a state, and nothing else.
    pub(crate) const fn to(
        state: RunState,
        (execution_id, id): (ExecutionId, RunId),
        generation: i64,
    ) -> Self {
        Self {
            execution_id,
            id,
            generation,
            state,
            due_at: None,
            start_before: None,
            started_at: None,
            ended_at: None,
            reason: None,
            detail: None,
            exit_code: None,
            signal: None,
            outputs: None,
        }
    }
}

/// Runs with their newest attempt and what is held of its output, by id, from behind `after`.
pub(crate) async fn page(
    pool: &PgPool,
    org: OrgId,
    execution: ExecutionId,
    after: Option<RunId>,
    limit: i64,
) -> Result<Vec<Run>> {
    let records = sqlx::query!(
        r#"with steps as materialized (
               select array(select step->>'name' from jsonb_array_elements(e.plan->'steps') as step) as names
               from executions e where e.org_id = $1 and e.id = $2)
           select r.id, r.agent_id, r.target, r.state, r.reason, r.detail, r.attempt, r.exit_code, r.signal,
                  r.queued_at, r.due_at, r.started_at, r.ended_at, r.step, r.outputs as "outputs: Json<Outputs>",
                  (select names[r.step + 1] from steps) as step_name,
                  a.state as "attempt_state?",
                  a.observed_outcome as "observed?: Json<Observed>",
                  a.stdout_written, a.stderr_written, a.stdout_sha256, a.stderr_sha256, a.sandbox,
                  a.cpu_user_us, a.cpu_system_us, a.peak_memory_bytes, a.peak_pids, a.io_read_bytes,
                  a.io_write_bytes, a.out_of_memory,
                  c.stdout_offset as "stdout_offset?", c.stderr_offset as "stderr_offset?",
                  c.stdout_gap as "stdout_gap?", c.stderr_gap as "stderr_gap?"
           from runs r
           left join attempts a
               on a.execution_id = r.execution_id and a.run_id = r.id and a.number = r.attempt
           left join output_cursors c
               on c.execution_id = r.execution_id and c.run_id = r.id and c.attempt = r.attempt
           where r.org_id = $1 and r.execution_id = $2 and ($3::uuid is null or r.id > $3)
           order by r.id limit $4"#,
        org.0,
        execution.0,
        after.map(|id| id.0),
        limit
    )
    .fetch_all(pool)
    .await
    .during("query for runs")?;
    Ok(records
        .into_iter()
        .map(|r| {
            let stdout = stream(r.stdout_offset, r.stdout_gap, r.stdout_written, r.stdout_sha256.as_deref());
            let stderr = stream(r.stderr_offset, r.stderr_gap, r.stderr_written, r.stderr_sha256.as_deref());
            let state = RunState::parse(&r.state).unwrap_or(RunState::Unknown);
            Run {
                id: r.id.into(),
                execution_id: execution,
                agent_id: r.agent_id.into(),
                target: r.target,
                step: r.step,
                step_name: r.step_name,
                state,
                reason: r.reason.as_deref().and_then(Reason::parse),
                detail: r.detail,
                attempt: r.attempt,
                attempt_state: r.attempt_state.as_deref().and_then(AttemptState::parse),
                due_at: (state == RunState::Queued).then(|| r.due_at.to_jiff()),
                exit_code: r.exit_code,
                signal: r.signal,
                queued_at: r.queued_at.to_jiff(),
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
                outputs: r.outputs.map(|outputs| outputs.0).unwrap_or_default(),
                output: output(stdout, stderr),
            }
        })
        .collect())
}

/// The two streams of an attempt.
pub(super) fn output(stdout: StreamOutput, stderr: StreamOutput) -> RunOutput {
    let complete = complete(&stdout).zip(complete(&stderr)).map(|(out, err)| out && err);
    RunOutput { complete, stdout, stderr }
}

/// A cursor's offset counts gaps too: they are part of the stream.
pub(super) fn stream(
    offset: Option<i64>,
    gap: Option<i64>,
    written: Option<i64>,
    sha256: Option<&[u8]>,
) -> StreamOutput {
    let gap = gap.unwrap_or(0);
    StreamOutput {
        stored_bytes: offset.unwrap_or(0) - gap,
        gap_bytes: gap,
        written_bytes: written,
        sha256: sha256.map(hex::encode),
    }
}

fn complete(stream: &StreamOutput) -> Option<bool> {
    stream.written_bytes.map(|written| stream.stored_bytes == written && stream.gap_bytes == 0)
}

/// Locks the next queued runs of each agent, as many as it has free slots; none of one that is draining.
pub(crate) async fn take_queued(
    connection: &mut PgConnection,
    agents: &[Uuid],
    slots: &[i32],
    most: i64,
    now: Timestamp,
) -> Result<Vec<Queued>> {
    sqlx::query_as!(
        Queued,
        r#"select r.execution_id as "execution_id!", r.id as "id!", r.org_id as "org_id!",
                  r.agent_id as "agent_id!", r.generation as "generation!", r.attempt as "attempt!",
                  exists (
                      select from attempts a
                      where a.execution_id = r.execution_id and a.run_id = r.id and a.number > r.attempt
                  ) as "is_behind!"
           from unnest($1::uuid[], $2::int[]) as ready(agent_id, slots)
           join agents g on g.id = ready.agent_id and g.draining_since is null and g.revoked_at is null
           cross join lateral (
               select q.execution_id, q.id, q.org_id, q.agent_id, q.generation, q.attempt
               from runs q
               where q.agent_id = ready.agent_id and q.state = 'queued' and q.due_at <= $4
                 and q.start_before > $4
                 and not exists (
                     select from executions e where e.id = q.execution_id and e.cancel_requested_at is not null)
               order by q.priority desc, q.id
               limit least($3, greatest(0, ready.slots - (
                   select count(*) from runs active
                   where active.agent_id = ready.agent_id and active.state = 'active')))
               for update skip locked
           ) r"#,
        agents,
        slots,
        most,
        now.to_sqlx()
    )
    .fetch_all(connection)
    .await
    .during("query for queued runs")
}

/// All agents that have a queued run; an index is skipped through, so that long queues cost nothing.
pub(crate) async fn agents_with_queue(pool: &PgPool) -> Result<Vec<AgentId>> {
    let ids = sqlx::query_scalar!(
        r#"with recursive waiting as (
               (select agent_id from runs where state = 'queued' order by agent_id limit 1)
               union all
               select (select r.agent_id from runs r
                       where r.state = 'queued' and r.agent_id > w.agent_id order by r.agent_id limit 1)
               from waiting w where w.agent_id is not null
           )
           select agent_id as "agent_id!" from waiting where agent_id is not null"#
    )
    .fetch_all(pool)
    .await
    .during("query for agents with queued runs")?;
    Ok(ids.into_iter().map(AgentId).collect())
}

/// Those of `agents` that have a queued run. Whether anybody has one is asked once, in the order of the index so that it is
/// used, and mostly answers it; else each agent's queue is looked up, so that the others' lengths cost nothing.
pub(crate) async fn having_queue(pool: &PgPool, agents: &[Uuid]) -> Result<Vec<AgentId>> {
    let ids = sqlx::query_scalar!(
        r#"select a.id as "agent_id!" from unnest($1::uuid[]) as a(id)
           cross join lateral (select from runs r where r.state = 'queued' and r.agent_id = a.id limit 1) r
           where (select agent_id from runs where state = 'queued' order by agent_id limit 1) is not null"#,
        agents
    )
    .fetch_all(pool)
    .await
    .during("query for queues of free agents")?;
    Ok(ids.into_iter().map(AgentId).collect())
}

/// Runs that came to the same, by step and then the largest group first; at most `limit` groups. Equal hashes of the whole
/// streams are equal output.
pub(crate) async fn groups(
    pool: &PgPool,
    org: OrgId,
    execution: ExecutionId,
    limit: i64,
) -> Result<Vec<OutputGroup>> {
    let rows = sqlx::query!(
        r#"with grouped as (
               select r.step, r.state, r.reason, r.exit_code, a.stdout_sha256, a.stderr_sha256, count(*) as hosts,
                      (array_agg(r.target order by r.target))[:100] as targets,
                      (array_agg(r.id order by r.target))[1] as example
               from runs r
               left join attempts a on a.execution_id = r.execution_id and a.run_id = r.id and a.number = r.attempt
               where r.org_id = $1 and r.execution_id = $2 and r.target <> ''
               group by r.step, r.state, r.reason, r.exit_code, a.stdout_sha256, a.stderr_sha256
           )
           , steps as materialized (
               select array(select step->>'name' from jsonb_array_elements(e.plan->'steps') as step) as names
               from executions e where e.org_id = $1 and e.id = $2)
           select g.step as "step?", (select names[g.step + 1] from steps) as step_name, g.state as "state!",
                  g.reason as "reason?", g.exit_code as "exit_code?", g.stdout_sha256 as "stdout_sha256?",
                  g.stderr_sha256 as "stderr_sha256?", g.hosts as "hosts!", g.targets as "targets!: Vec<String>",
                  g.example as "example!"
           from grouped g
           order by g.step nulls first, g.hosts desc, g.targets[1] limit $3"#,
        org.0,
        execution.0,
        limit
    )
    .fetch_all(pool)
    .await
    .during("query for equal outputs")?;
    Ok(rows
        .into_iter()
        .map(|r| OutputGroup {
            step: r.step,
            step_name: r.step_name,
            state: RunState::parse(&r.state).unwrap_or(RunState::Unknown),
            reason: r.reason.as_deref().and_then(Reason::parse),
            exit_code: r.exit_code,
            hosts: r.hosts,
            example_target: r.targets.first().cloned().unwrap_or_default(),
            targets: r.targets,
            example: r.example.into(),
            stdout_sha256: r.stdout_sha256.map(hex::encode),
            stderr_sha256: r.stderr_sha256.map(hex::encode),
        })
        .collect())
}

/// What each of `executions` is to do where, in the order of the run ids.
pub(crate) async fn coverage(
    connection: &mut PgConnection,
    executions: &[Uuid],
) -> Result<Vec<(ExecutionId, Covered)>> {
    let records = sqlx::query!(
        "select execution_id, id, agent_id, step from runs where execution_id = any($1) order by execution_id, id",
        executions
    )
    .fetch_all(connection)
    .await
    .during("query for an execution's targets")?;
    Ok(records
        .into_iter()
        .map(|r| {
            (r.execution_id.into(), Covered { run: r.id.into(), agent: r.agent_id.into(), step: r.step })
        })
        .collect())
}

/// Marks the runs as active with their next attempt, each guarded by its generation.
pub(crate) async fn activate<'a>(
    connection: &mut PgConnection,
    runs: impl Iterator<Item = &'a Queued> + Send,
) -> Result<()> {
    let runs: Vec<&Queued> = runs.collect();
    let executions: Vec<Uuid> = runs.iter().map(|r| r.execution_id).collect();
    let ids: Vec<Uuid> = runs.iter().map(|r| r.id).collect();
    let generations: Vec<i64> = runs.iter().map(|r| r.generation).collect();
    let done = sqlx::query!(
        "update runs r set state = 'active', attempt = r.attempt + 1, generation = r.generation + 1
         from unnest($1::uuid[], $2::uuid[], $3::bigint[]) as c(execution_id, id, generation)
         where r.execution_id = c.execution_id and r.id = c.id and r.generation = c.generation",
        &executions,
        &ids,
        &generations
    )
    .execute(connection)
    .await
    .during("activation of runs")?;
    exactly(done.rows_affected(), runs.len())
}

/// Writes the changes, each guarded by the generation that was read, and tells the ends of steps to whoever moves their
/// executions on.
pub(crate) async fn change(connection: &mut PgConnection, changes: &[Change]) -> Result<()> {
    write(connection, changes, true).await
}

/// The same for whoever moves the execution on: that one knows.
pub(crate) async fn change_untold(connection: &mut PgConnection, changes: &[Change]) -> Result<()> {
    write(connection, changes, false).await
}

/// Whether a run is at work.
pub(crate) async fn is_active(
    connection: &mut PgConnection,
    execution: ExecutionId,
    run: RunId,
) -> Result<bool> {
    sqlx::query_scalar!(
        r#"select exists (select from runs where execution_id = $1 and id = $2 and state = 'active') as "is_so!""#,
        execution.0,
        run.0
    )
    .fetch_one(connection)
    .await
    .during("query for a run's state")
}

async fn write(connection: &mut PgConnection, changes: &[Change], is_told: bool) -> Result<()> {
    if changes.is_empty() {
        return Ok(());
    }
    let executions: Vec<Uuid> = changes.iter().map(|c| c.execution_id.0).collect();
    let ids: Vec<Uuid> = changes.iter().map(|c| c.id.0).collect();
    let generations: Vec<i64> = changes.iter().map(|c| c.generation).collect();
    let states: Vec<&str> = changes.iter().map(|c| c.state.as_str()).collect();
    let times = |of: fn(&Change) -> Option<Timestamp>| -> Vec<Option<jiff_sqlx::Timestamp>> {
        changes.iter().map(|c| of(c).map(ToSqlx::to_sqlx)).collect()
    };
    let reasons: Vec<Option<&str>> = changes.iter().map(|c| c.reason.map(Reason::as_str)).collect();
    let details: Vec<Option<&str>> = changes.iter().map(|c| c.detail.as_deref()).collect();
    let exit_codes: Vec<Option<i32>> = changes.iter().map(|c| c.exit_code).collect();
    let signals: Vec<Option<i32>> = changes.iter().map(|c| c.signal).collect();
    let outputs: Vec<Option<String>> = changes
        .iter()
        .map(|c| c.outputs.as_ref().and_then(|told| serde_json::to_string(told).ok()))
        .collect();
    let done = sqlx::query_scalar!(
        r#"with changed as (
         update runs r
         set state = c.state, generation = r.generation + 1, due_at = coalesce(c.due_at, r.due_at),
             start_before = coalesce(c.start_before, r.start_before), started_at = coalesce(c.started_at, r.started_at),
             ended_at = coalesce(r.ended_at, c.ended_at),
             reason = c.reason, detail = c.detail, exit_code = c.exit_code, signal = c.signal,
             outputs = c.outputs::json
         from unnest($1::uuid[], $2::uuid[], $3::bigint[], $4::text[], $5::timestamptz[], $6::timestamptz[],
                     $7::timestamptz[], $8::text[], $9::text[], $10::int[], $11::int[], $12::timestamptz[], $14::text[])
              as c(execution_id, id, generation, state, due_at, started_at, ended_at, reason, detail, exit_code,
                   signal, start_before, outputs)
         where r.execution_id = c.execution_id and r.id = c.id and r.generation = c.generation
         returning r.execution_id, r.agent_id, r.org_id, r.step, r.state
         ), ended as (
             insert into advance_queue (execution_id, agent_id, org_id)
             select execution_id, agent_id, org_id from changed
             where $13 and step is not null and state not in ('blocked', 'queued', 'active')
         )
         select count(*) as "changed!" from changed"#,
        &executions,
        &ids,
        &generations,
        &states as _,
        &times(|c| c.due_at) as _,
        &times(|c| c.started_at) as _,
        &times(|c| c.ended_at) as _,
        &reasons as _,
        &details as _,
        &exit_codes as _,
        &signals as _,
        &times(|c| c.start_before) as _,
        is_told,
        &outputs as _
    )
    .fetch_one(connection)
    .await
    .during("update of runs")?;
    exactly(u64::try_from(done).unwrap_or(0), changes.len())
}

/// A run that waits for its host, locked, with how its newest attempt ended that counts as a try.
#[derive(Debug)]
pub(crate) struct Waiting {
    pub execution_id: Uuid,
    pub id: Uuid,
    pub state: String,
    pub generation: i64,
    pub tried_state: Option<String>,
    pub tried_reason: Option<String>,
    pub tried_exit_code: Option<i32>,
    pub tried_signal: Option<i32>,
}

/// Locks queued runs whose time to start is over.
pub(crate) async fn lock_start_expired(
    connection: &mut PgConnection,
    now: Timestamp,
    limit: i64,
) -> Result<Vec<Waiting>> {
    sqlx::query_as!(
        Waiting,
        r#"select r.execution_id, r.id, r.state, r.generation, t.state as "tried_state?", t.reason as tried_reason,
                  t.exit_code as tried_exit_code, t.signal as tried_signal
           from runs r left join lateral (
               select a.state, a.reason, a.exit_code, a.signal from attempts a
               where a.execution_id = r.execution_id and a.run_id = r.id and a.state <> 'withdrawn'
                 and not (a.state = 'refused' and a.reason in ('agent_busy', 'not_started'))
               order by a.number desc limit 1
           ) t on r.attempt > 0
           where r.state = 'queued' and r.start_before <= $1 and r.start_before < 'infinity'
           order by r.start_before limit $2 for update of r skip locked"#,
        now.to_sqlx(),
        limit
    )
    .fetch_all(connection)
    .await
    .during("query for expired runs")
}

/// Locks queued runs of executions that are to be cancelled.
pub(crate) async fn lock_cancelled(connection: &mut PgConnection, limit: i64) -> Result<Vec<Waiting>> {
    sqlx::query_as!(
        Waiting,
        r#"select r.execution_id, r.id, r.state, r.generation, t.state as "tried_state?", t.reason as tried_reason,
                  t.exit_code as tried_exit_code, t.signal as tried_signal
           from executions e join runs r on r.execution_id = e.id
           left join lateral (
               select a.state, a.reason, a.exit_code, a.signal from attempts a
               where a.execution_id = r.execution_id and a.run_id = r.id and a.state <> 'withdrawn'
                 and not (a.state = 'refused' and a.reason in ('agent_busy', 'not_started'))
               order by a.number desc limit 1
           ) t on r.attempt > 0
           where e.cancel_requested_at is not null and e.ended_at is null and r.state in ('blocked', 'queued')
           limit $1 for update of r skip locked"#,
        limit
    )
    .fetch_all(connection)
    .await
    .during("query for cancelled runs")
}

/// Locks the runs of an execution that wait for their hosts.
pub(crate) async fn lock_queued(connection: &mut PgConnection, execution: ExecutionId) -> Result<()> {
    sqlx::query!(
        "select id from runs where execution_id = $1 and state = 'queued' order by id for update",
        execution.0
    )
    .fetch_all(connection)
    .await
    .during("lock of queued runs")?;
    Ok(())
}

/// Locks the blocked runs of an execution.
pub(crate) async fn lock_blocked(
    connection: &mut PgConnection,
    execution: ExecutionId,
) -> Result<Vec<Waiting>> {
    sqlx::query_as!(
        Waiting,
        r#"select execution_id, id, state, generation, null::text as tried_state, null::text as tried_reason,
                  null::int as tried_exit_code, null::int as tried_signal
           from runs where execution_id = $1 and state = 'blocked' order by id for update"#,
        execution.0
    )
    .fetch_all(connection)
    .await
    .during("query for blocked runs")
}

/// An active run that a person wants to end.
#[derive(Debug)]
pub(crate) struct Cancelling {
    pub execution_id: Uuid,
    pub id: Uuid,
    pub agent_id: Uuid,
    pub attempt: i32,
}

/// Active runs of cancelled executions whose agents this controller serves.
pub(crate) async fn to_cancel(pool: &PgPool, controller: ControllerId) -> Result<Vec<Cancelling>> {
    sqlx::query_as!(
        Cancelling,
        "select r.execution_id, r.id, r.agent_id, r.attempt
         from executions e
         join runs r on r.execution_id = e.id and r.state = 'active'
         join sessions s on s.agent_id = r.agent_id and s.connected and s.controller_id = $1
         where e.cancel_requested_at is not null and e.ended_at is null",
        controller.0
    )
    .fetch_all(pool)
    .await
    .during("query for runs to cancel")
}

/// The runs of an agent that are in `state`, in the order of dispatch, from behind (priority, id).
pub(crate) async fn of_agent(
    pool: &PgPool,
    org: OrgId,
    agent: AgentId,
    state: RunState,
    after: Option<(i16, RunId)>,
    limit: i64,
) -> Result<Vec<AgentRun>> {
    let records = sqlx::query!(
        "select r.id, r.execution_id, e.summary, e.actor, r.state, r.priority, r.attempt, r.queued_at, r.due_at,
                r.start_before, r.started_at
         from runs r join executions e on e.id = r.execution_id
         where r.org_id = $1 and r.agent_id = $2 and r.state = $3
           and ($4::smallint is null or r.priority < $4 or (r.priority = $4 and r.id > $5))
         order by r.priority desc, r.id limit $6",
        org.0,
        agent.0,
        state.as_str(),
        after.map(|(priority, _)| priority),
        after.map(|(_, id)| id.0),
        limit
    )
    .fetch_all(pool)
    .await
    .during("query for an agent's runs")?;
    Ok(records
        .into_iter()
        .map(|r| AgentRun {
            id: r.id.into(),
            execution_id: r.execution_id.into(),
            summary: r.summary,
            actor: r.actor,
            state: RunState::parse(&r.state).unwrap_or(state),
            priority: r.priority,
            attempt: r.attempt,
            queued_at: r.queued_at.to_jiff(),
            due_at: r.due_at.to_jiff(),
            start_before: r.start_before.to_jiff(),
            started_at: r.started_at.map(jiff_sqlx::Timestamp::to_jiff),
        })
        .collect())
}

/// Whether the execution has this run.
pub(crate) async fn exists(pool: &PgPool, org: OrgId, execution: ExecutionId, run: RunId) -> Result<bool> {
    sqlx::query_scalar!(
        r#"select exists (select from runs where org_id = $1 and execution_id = $2 and id = $3) as "exists!""#,
        org.0,
        execution.0,
        run.0
    )
    .fetch_one(pool)
    .await
    .during("query for the run")
}

/// How many runs an agent has.
pub(super) async fn load(pool: &PgPool, org: OrgId, agent: AgentId) -> Result<AgentLoad> {
    sqlx::query_as!(
        AgentLoad,
        r#"select (select count(*) from runs where org_id = $1 and agent_id = $2 and state = 'active') as "active!",
                  (select count(*) from runs where org_id = $1 and agent_id = $2 and state = 'queued') as "queued!""#,
        org.0,
        agent.0
    )
    .fetch_one(pool)
    .await
    .during("count of an agent's runs")
}

/// Every guarded row must have been hit: a miss is a bug, since the rows were locked before.
pub(super) fn exactly(hit: u64, wanted: usize) -> Result<()> {
    if usize::try_from(hit) == Ok(wanted) {
        Ok(())
    } else {
        Err(Error::internal("a guarded write missed its row", format!("{hit} of {wanted} rows")))
    }
}
