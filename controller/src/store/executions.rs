//! Executions with their signed manifests and the counts of their runs.

use jiff::Timestamp;
use jiff_sqlx::ToSqlx;
use model::{
    api::{
        execution::{Execution, RetryHosts},
        job::ExecutedJob,
    },
    command::Command,
    execution::{ExecutionState, RunCounts},
    id::{ExecutionId, OrgId, RunId, ScheduleId},
    job::{Plan, PlannedJob, Rollout},
    run::RunState,
    selector::Selector,
};
use sqlx::{PgConnection, PgPool, Postgres, QueryBuilder, types::Json};
use uuid::Uuid;

use super::{runs::Covered, selector_sql};
use crate::error::{During, Result};

/// A signed manifest: the exact bytes, their signature, and the certificate of the key that made it.
#[derive(Debug, Clone)]
pub(crate) struct SignedManifest {
    pub manifest: Vec<u8>,
    pub signature: Vec<u8>,
    pub certificate: Vec<u8>,
}

/// An execution to be, with its runs in the order of their ids.
#[derive(Debug)]
pub(crate) struct NewExecution {
    pub id: ExecutionId,
    pub org_id: OrgId,
    pub summary: String,
    pub work: Work,
    pub actor: String,
    pub request_id: String,
    pub created_at: Timestamp,
    pub start_before: Timestamp,
    pub priority: i16,
    pub signed: SignedManifest,
    pub runs: Vec<NewRun>,
    pub because: Because,
}

/// What led to an execution, besides who started it.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Because {
    /// It tries that one again, or undoes it.
    pub retry_of: Option<ExecutionId>,
    /// The run of another execution that starts it.
    pub parent: Option<(ExecutionId, RunId)>,
    pub schedule: Option<ScheduleId>,
    /// Executions that led to it, each of which caused the next; of one with a parent it is the parent's.
    pub chain: i16,
}

/// A run to be.
#[derive(Debug)]
pub(crate) struct NewRun {
    pub covered: Covered,
    pub target: String,
}

/// What an execution does: a command of its own, all at once, or the frozen plan of a job or of a command with a rollout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Work {
    Command(Command),
    Plan(Plan),
}

impl Work {
    /// The command of a run, by the place of its step.
    pub(crate) fn command(&self, step: Option<i16>) -> Option<&Command> {
        match (self, step) {
            (Self::Command(command), None) => Some(command),
            (Self::Plan(plan), Some(step)) => plan.command(usize::try_from(step).ok()?),
            _ => None,
        }
    }

    /// The plan, if it has one.
    pub(crate) const fn plan(&self) -> Option<&Plan> {
        self.parts().1
    }

    const fn parts(&self) -> (Option<&Command>, Option<&Plan>) {
        match self {
            Self::Command(command) => (Some(command), None),
            Self::Plan(plan) => (None, Some(plan)),
        }
    }

    fn of(command: Option<Json<Command>>, plan: Option<Json<Plan>>) -> Option<Self> {
        match (command, plan) {
            (Some(command), None) => Some(Self::Command(command.0)),
            (None, Some(plan)) => Some(Self::Plan(plan.0)),
            _ => None,
        }
    }
}

/// What the dispatcher needs to know of an execution.
#[derive(Debug)]
pub(crate) struct Authorised {
    pub id: Uuid,
    pub org_id: Uuid,
    pub work: Work,
    pub signed: SignedManifest,
}

/// Inserts executions, their runs and the first positions of their output in one statement. Runs of a command are queued; those
/// of a plan are blocked until it is their turn.
pub(crate) async fn insert(connection: &mut PgConnection, new: &[&NewExecution]) -> Result<()> {
    let each = || new.iter();
    // The place of its execution stands for it: a join would read all plans for each run.
    let runs = || (1..).zip(new).flat_map(|(place, one)| one.runs.iter().map(move |run| (place, run)));
    let job = |one: &&NewExecution| Some(one.work.plan()?.job.as_ref()?.id.0);
    sqlx::query!(
        "with new as (
             select * from unnest($1::uuid[], $2::uuid[], $3::text[], $4::jsonb[], $5::text[], $6::text[], $7::timestamptz[],
                                  $8::timestamptz[], $9::bytea[], $10::bytea[], $11::bytea[], $12::int[], $13::smallint[],
                                  $14::jsonb[], $15::uuid[], $16::uuid[], $17::uuid[], $18::uuid[], $19::uuid[],
                                  $20::smallint[])
                  as n(id, org_id, summary, command, actor, request_id, created_at, start_before, manifest, signature,
                       certificate, runs, priority, plan, job_id, retry_of, parent_id, parent_run, schedule_id, chain)
         ), execution as (
             insert into executions (id, org_id, summary, command, actor, request_id, created_at, start_before,
                                     state, manifest, manifest_signature, manifest_certificate,
                                     runs_total, runs_waiting, priority, plan, job_id, retry_of, parent_id,
                                     parent_run, schedule_id, chain)
             select id, org_id, summary, command, actor, request_id, created_at, start_before, 'pending', manifest,
                    signature, certificate, runs, runs, priority, plan, job_id, retry_of, parent_id, parent_run,
                    schedule_id, coalesce((select p.chain from executions p where p.id = n.parent_id), n.chain)
             from new n
         ), positions as (
             insert into output_positions (execution_id) select id from new
         )
         insert into runs (execution_id, id, org_id, agent_id, target, state, queued_at, due_at, start_before, priority,
                           step)
         select ($1::uuid[])[r.of], r.id, ($2::uuid[])[r.of], r.agent_id, r.target,
                case when ($26::bool[])[r.of] then $27 else $28 end, ($7::timestamptz[])[r.of],
                ($7::timestamptz[])[r.of], ($8::timestamptz[])[r.of], ($13::smallint[])[r.of], r.step
         from unnest($21::int[], $22::uuid[], $23::uuid[], $24::text[], $25::smallint[]) as r(of, id, agent_id, target, step)",
        &each().map(|one| one.id.0).collect::<Vec<_>>(),
        &each().map(|one| one.org_id.0).collect::<Vec<_>>(),
        &each().map(|one| one.summary.as_str()).collect::<Vec<_>>() as _,
        &each().map(|one| one.work.parts().0.map(Json)).collect::<Vec<_>>() as _,
        &each().map(|one| one.actor.as_str()).collect::<Vec<_>>() as _,
        &each().map(|one| one.request_id.as_str()).collect::<Vec<_>>() as _,
        &each().map(|one| one.created_at.to_sqlx()).collect::<Vec<_>>() as _,
        &each().map(|one| one.start_before.to_sqlx()).collect::<Vec<_>>() as _,
        &each().map(|one| one.signed.manifest.as_slice()).collect::<Vec<_>>() as _,
        &each().map(|one| one.signed.signature.as_slice()).collect::<Vec<_>>() as _,
        &each().map(|one| one.signed.certificate.as_slice()).collect::<Vec<_>>() as _,
        &each().map(|one| i32::try_from(one.runs.len()).unwrap_or(i32::MAX)).collect::<Vec<_>>(),
        &each().map(|one| one.priority).collect::<Vec<_>>(),
        &each().map(|one| one.work.plan().map(Json)).collect::<Vec<_>>() as _,
        &each().map(job).collect::<Vec<_>>() as _,
        &each().map(|one| one.because.retry_of.map(|id| id.0)).collect::<Vec<_>>() as _,
        &each().map(|one| one.because.parent.map(|(execution, _)| execution.0)).collect::<Vec<_>>() as _,
        &each().map(|one| one.because.parent.map(|(_, run)| run.0)).collect::<Vec<_>>() as _,
        &each().map(|one| one.because.schedule.map(|id| id.0)).collect::<Vec<_>>() as _,
        &each().map(|one| one.because.chain).collect::<Vec<_>>(),
        &runs().map(|(place, _)| place).collect::<Vec<i32>>(),
        &runs().map(|(_, run)| run.covered.run.0).collect::<Vec<_>>(),
        &runs().map(|(_, run)| run.covered.agent.0).collect::<Vec<_>>(),
        &runs().map(|(_, run)| run.target.as_str()).collect::<Vec<_>>() as _,
        &runs().map(|(_, run)| run.covered.step).collect::<Vec<_>>() as _,
        &each().map(|one| one.work.plan().is_some()).collect::<Vec<_>>(),
        RunState::Blocked.as_str(),
        RunState::Queued.as_str()
    )
    .execute(connection)
    .await
    .during("insert of executions")?;
    Ok(())
}

/// A row as people see it; the command is cut out of lists.
struct Row {
    id: Uuid,
    state: String,
    summary: String,
    command: Option<Json<Command>>,
    job: Option<Json<PlannedJob>>,
    rollout: Option<Json<Rollout>>,
    stopped: Option<bool>,
    aborted: Option<bool>,
    actor: String,
    request_id: String,
    created_at: jiff_sqlx::Timestamp,
    ended_at: Option<jiff_sqlx::Timestamp>,
    cancel_requested: bool,
    priority: i16,
    retry_of: Option<Uuid>,
    parent_id: Option<Uuid>,
    schedule_id: Option<Uuid>,
    undoes: Option<Uuid>,
    paused: Option<bool>,
    waits_for: Option<String>,
    counts: Counts,
}

/// The counts, as their columns are called.
struct Counts {
    total: i32,
    waiting: i32,
    active: i32,
    succeeded: i32,
    failed: i32,
    cancelled: i32,
    timed_out: i32,
    skipped: i32,
    expired: i32,
    unknown: i32,
}

impl From<Counts> for RunCounts {
    fn from(c: Counts) -> Self {
        Self {
            total: c.total,
            waiting: c.waiting,
            active: c.active,
            succeeded: c.succeeded,
            failed: c.failed,
            cancelled: c.cancelled,
            timed_out: c.timed_out,
            skipped: c.skipped,
            expired: c.expired,
            unknown: c.unknown,
        }
    }
}

macro_rules! row {
    ($r:ident, $command:expr) => {{
        Row {
            command: $command,
            job: $r.job,
            rollout: $r.rollout,
            stopped: $r.stopped,
            aborted: $r.aborted,
            id: $r.id,
            state: $r.state,
            summary: $r.summary,
            actor: $r.actor,
            request_id: $r.request_id,
            created_at: $r.created_at,
            ended_at: $r.ended_at,
            cancel_requested: $r.cancel_requested,
            priority: $r.priority,
            retry_of: $r.retry_of,
            parent_id: $r.parent_id,
            schedule_id: $r.schedule_id,
            undoes: $r.undoes,
            paused: $r.paused,
            waits_for: $r.waits_for,
            counts: Counts {
                total: $r.runs_total,
                waiting: $r.runs_waiting,
                active: $r.runs_active,
                succeeded: $r.runs_succeeded,
                failed: $r.runs_failed,
                cancelled: $r.runs_cancelled,
                timed_out: $r.runs_timed_out,
                skipped: $r.runs_skipped,
                expired: $r.runs_expired,
                unknown: $r.runs_unknown,
            },
        }
    }};
}

impl From<Row> for Execution {
    fn from(row: Row) -> Self {
        let counts = RunCounts::from(row.counts);
        Self {
            id: row.id.into(),
            state: ExecutionState::parse(&row.state).unwrap_or_else(|| counts.state()),
            summary: row.summary,
            runs: counts,
            cancel_requested: row.cancel_requested,
            priority: row.priority,
            actor: row.actor,
            request_id: row.request_id,
            created_at: row.created_at.to_jiff(),
            ended_at: row.ended_at.map(jiff_sqlx::Timestamp::to_jiff),
            paused: row.paused == Some(true),
            waits_for: row.waits_for,
            lock_held_by: None,
            retry_of: row.retry_of.map(ExecutionId),
            parent_id: row.parent_id.map(ExecutionId),
            schedule_id: row.schedule_id.map(ScheduleId),
            undoes: row.undoes.map(ExecutionId),
            job: row.job.map(|job| executed(job.0)),
            rollout: row.rollout.map(|rollout| rollout.0),
            stopped: row.stopped == Some(true),
            aborted: row.aborted == Some(true),
            left_out: Vec::new(),
            command: row.command.map(|command| without_values(command.0)),
        }
    }
}

pub(crate) fn executed(job: PlannedJob) -> ExecutedJob {
    let PlannedJob { id, name, version, parameters } = job;
    ExecutedJob { id, name, version, parameters: parameters.0 }
}

/// Values of the environment may be secrets: people see the names alone.
fn without_values(mut command: Command) -> Command {
    for value in command.env.values_mut() {
        "<hidden>".clone_into(value);
    }
    command
}

pub(crate) async fn get(pool: &PgPool, org: OrgId, id: ExecutionId) -> Result<Option<Execution>> {
    let record = sqlx::query!(
        r#"select id, state, summary,
                  coalesce(command, case when not plan ? 'job' then plan->'steps'->0->'work'->'command' end)
                      as "command: Json<Command>", plan->'job' as "job: Json<PlannedJob>",
                  plan->'rollout' as "rollout: Json<Rollout>", actor, request_id, created_at, ended_at,
                  cancel_requested_at is not null as "cancel_requested!", priority, retry_of, parent_id, schedule_id, (plan->>'undoes')::uuid as undoes,
                  (select p.paused_at is not null from execution_progress p
                   where p.execution_id = executions.id and ended_at is null) as "paused",
                  (select p.stopped_at is not null from execution_progress p
                   where p.execution_id = executions.id) as "stopped",
                  (select p.aborted_at is not null from execution_progress p
                   where p.execution_id = executions.id) as "aborted",
                  (select p.waits_for from execution_progress p
                   where p.execution_id = executions.id and ended_at is null) as "waits_for",
                  (select l.execution_id from execution_progress p join locks l on l.org_id = $1 and l.key = p.waits_for
                   where p.execution_id = executions.id and ended_at is null) as "held_by", runs_total, runs_waiting, runs_active,
                  runs_succeeded, runs_failed, runs_cancelled, runs_timed_out, runs_skipped, runs_expired,
                  runs_unknown
           from executions where org_id = $1 and id = $2"#,
        org.0,
        id.0
    )
    .fetch_optional(pool)
    .await
    .during("query for the execution")?;
    Ok(record.map(|r| {
        let lock_held_by = r.held_by.map(ExecutionId);
        Execution { lock_held_by, ..Execution::from(row!(r, r.command)) }
    }))
}

/// The newest execution of a job that undoes none, with the names of its hosts.
pub(crate) async fn newest_of_job(
    pool: &PgPool,
    org: OrgId,
    job: model::id::JobId,
) -> Result<Option<(Execution, Vec<String>)>> {
    let id = sqlx::query_scalar!(
        "select id from executions where org_id = $1 and job_id = $2 and not plan ? 'undoes' order by id desc limit 1",
        org.0,
        job.0
    )
    .fetch_optional(pool)
    .await
    .during("query for the job's newest execution")?;
    let Some(id) = id else { return Ok(None) };
    let hosts = sqlx::query_scalar!(
        "select target from execution_hosts where org_id = $1 and execution_id = $2 order by target",
        org.0,
        id
    )
    .fetch_all(pool)
    .await
    .during("query for the hosts of an execution")?;
    Ok(get(pool, org, ExecutionId(id)).await?.map(|execution| (execution, hosts)))
}

/// The plan of an execution that has one.
pub(crate) async fn plan(pool: &PgPool, org: OrgId, id: ExecutionId) -> Result<Option<Plan>> {
    let plan = sqlx::query_scalar!(
        r#"select plan as "plan: Json<Plan>" from executions where org_id = $1 and id = $2"#,
        org.0,
        id.0
    )
    .fetch_optional(pool)
    .await
    .during("query for the execution's plan")?;
    Ok(plan.flatten().map(|plan| plan.0))
}

/// How many of an execution's hosts are not those that `seen` matches. One without any host counts as one that is not: it is
/// nobody's who sees some hosts alone.
pub(crate) async fn unseen(pool: &PgPool, org: OrgId, id: ExecutionId, seen: &Selector) -> Result<i64> {
    let mut query = QueryBuilder::<Postgres>::new(
        "select case when count(*) = 0 then 1 else count(*) filter (where not ",
    );
    selector_sql::push_predicate(&mut query, seen);
    query.push(") end from runs r join agents a on a.org_id = r.org_id and a.id = r.agent_id where r.execution_id = ");
    query.push_bind(id.0).push(" and r.org_id = ").push_bind(org.0);
    query.build_query_scalar().fetch_one(pool).await.during("query for the execution's hosts")
}

/// Newest first, from behind `after`; only those all of whose hosts are among `seen`, if that is given.
pub(crate) async fn page(
    pool: &PgPool,
    org: OrgId,
    state: Option<ExecutionState>,
    seen: Option<&[Uuid]>,
    after: Option<ExecutionId>,
    limit: i64,
) -> Result<Vec<Execution>> {
    let records = sqlx::query!(
        r#"select id, state, summary, plan->'job' as "job: Json<PlannedJob>",
                  plan->'rollout' as "rollout: Json<Rollout>", actor, request_id, created_at, ended_at,
                  cancel_requested_at is not null as "cancel_requested!", priority, retry_of, parent_id, schedule_id, (plan->>'undoes')::uuid as undoes,
                  (select p.paused_at is not null from execution_progress p
                   where p.execution_id = executions.id and ended_at is null) as "paused",
                  (select p.stopped_at is not null from execution_progress p
                   where p.execution_id = executions.id) as "stopped",
                  (select p.aborted_at is not null from execution_progress p
                   where p.execution_id = executions.id) as "aborted",
                  (select p.waits_for from execution_progress p
                   where p.execution_id = executions.id and ended_at is null) as "waits_for", runs_total, runs_waiting, runs_active,
                  runs_succeeded, runs_failed, runs_cancelled, runs_timed_out, runs_skipped, runs_expired,
                  runs_unknown
           from executions
           where org_id = $1 and ($2::text is null or state = $2) and ($3::uuid is null or id < $3)
             and ($5::uuid[] is null or (
                  exists (select from runs r where r.execution_id = executions.id and r.org_id = $1
                     and r.agent_id in (select unnest($5::uuid[])))
                  and not exists (select from runs r where r.execution_id = executions.id and r.org_id = $1
                     and r.target <> '' and r.agent_id not in (select unnest($5::uuid[])))))
           order by id desc limit $4"#,
        org.0,
        state.map(ExecutionState::as_str),
        after.map(|id| id.0),
        limit,
        seen
    )
    .fetch_all(pool)
    .await
    .during("query for executions")?;
    Ok(records.into_iter().map(|r| Execution::from(row!(r, None))).collect())
}

/// Those hosts of an execution that is over on which it is tried again, by name.
pub(crate) async fn hosts_again(
    connection: &mut PgConnection,
    org: OrgId,
    id: ExecutionId,
    hosts: RetryHosts,
) -> Result<Vec<(Uuid, String)>> {
    let (all, unfinished) = (hosts == RetryHosts::All, hosts == RetryHosts::Unfinished);
    let rows = sqlx::query!(
        r#"select agent_id as "agent_id!", target as "target!" from (
               select agent_id, target, case state when 'succeeded' then 0 when 'skipped' then 1 else 2 end as how
               from execution_hosts where org_id = $1 and execution_id = $2
               union
               select agent_id, target, case state when 'succeeded' then 0 when 'skipped' then 1 else 2 end
               from runs where org_id = $1 and execution_id = $2 and step is null
           ) as hosts where $3 or how = 2 or ($4 and how = 1) order by 2"#,
        org.0,
        id.0,
        all,
        unfinished
    )
    .fetch_all(connection)
    .await
    .during("query for hosts to try again")?;
    Ok(rows.into_iter().map(|row| (row.agent_id, row.target)).collect())
}

/// Asks for a cancel, once; answers whether the execution was open. Locks its row.
pub(crate) async fn request_cancel(
    connection: &mut PgConnection,
    org: OrgId,
    id: ExecutionId,
    now: Timestamp,
) -> Result<bool> {
    let done = sqlx::query!(
        "update executions set cancel_requested_at = coalesce(cancel_requested_at, $3)
         where org_id = $1 and id = $2 and ended_at is null",
        org.0,
        id.0,
        now.to_sqlx()
    )
    .execute(connection)
    .await
    .during("request of the cancel")?;
    Ok(done.rows_affected() == 1)
}

/// Those of `ids` whose cancel was asked for.
pub(crate) async fn cancelled(connection: &mut PgConnection, ids: &[Uuid]) -> Result<Vec<ExecutionId>> {
    let ids = sqlx::query_scalar!(
        "select id from executions where id = any($1) and cancel_requested_at is not null",
        ids
    )
    .fetch_all(connection)
    .await
    .during("query for cancelled executions")?;
    Ok(ids.into_iter().map(ExecutionId).collect())
}

/// Whether the execution is a start of this job.
pub(crate) async fn is_of_job(
    connection: &mut PgConnection,
    org: OrgId,
    id: ExecutionId,
    job: model::id::JobId,
) -> Result<bool> {
    sqlx::query_scalar!(
        r#"select exists (select from executions where org_id = $1 and id = $2 and job_id = $3) as "is_so!""#,
        org.0,
        id.0,
        job.0
    )
    .fetch_one(connection)
    .await
    .during("query for the execution's job")
}

/// The executions that runs of this one have started, with these runs, and how each stands; a state that is terminal stays.
pub(crate) async fn started_by(
    connection: &mut PgConnection,
    id: ExecutionId,
) -> Result<Vec<(RunId, ExecutionId, ExecutionState)>> {
    let rows = sqlx::query!(
        r#"select parent_run as "parent_run!", id, state from executions where parent_id = $1 order by id"#,
        id.0
    )
    .fetch_all(connection)
    .await
    .during("query for started executions")?;
    let each = rows.into_iter().map(|row| {
        let state = ExecutionState::parse(&row.state).unwrap_or(ExecutionState::Pending);
        (row.parent_run.into(), row.id.into(), state)
    });
    Ok(each.collect())
}

/// Whether its cancel was asked for, and whether it is over.
pub(crate) async fn is_cancelled_or_over(
    connection: &mut PgConnection,
    id: ExecutionId,
) -> Result<(bool, bool)> {
    let row = sqlx::query!(
        r#"select cancel_requested_at is not null as "is_cancelled!", ended_at is not null as "is_over!"
           from executions where id = $1"#,
        id.0
    )
    .fetch_optional(connection)
    .await
    .during("query for the execution's end")?;
    Ok(row.map_or((false, true), |row| (row.is_cancelled, row.is_over)))
}

/// What was authorised, of each of `ids`.
pub(crate) async fn authorised(connection: &mut PgConnection, ids: &[Uuid]) -> Result<Vec<Authorised>> {
    let records = sqlx::query!(
        r#"select id, org_id, command as "command: Json<Command>", plan as "plan: Json<Plan>", manifest,
                  manifest_signature, manifest_certificate
           from executions where id = any($1)"#,
        ids
    )
    .fetch_all(connection)
    .await
    .during("query for manifests")?;
    Ok(records
        .into_iter()
        .filter_map(|r| {
            let signed = SignedManifest {
                manifest: r.manifest,
                signature: r.manifest_signature,
                certificate: r.manifest_certificate,
            };
            Some(Authorised { id: r.id, org_id: r.org_id, work: Work::of(r.command, r.plan)?, signed })
        })
        .collect())
}

/// The counts of each of `ids`, in the order of the ids. Locks the rows.
pub(crate) async fn counts_for_update(
    connection: &mut PgConnection,
    ids: &[Uuid],
) -> Result<Vec<(ExecutionId, RunCounts)>> {
    let records = sqlx::query!(
        "select id, runs_total, runs_waiting, runs_active, runs_succeeded, runs_failed, runs_cancelled,
                runs_timed_out, runs_skipped, runs_expired, runs_unknown
         from executions where id = any($1) order by id for update",
        ids
    )
    .fetch_all(connection)
    .await
    .during("query for counts")?;
    Ok(records
        .into_iter()
        .map(|r| {
            let counts = RunCounts {
                total: r.runs_total,
                waiting: r.runs_waiting,
                active: r.runs_active,
                succeeded: r.runs_succeeded,
                failed: r.runs_failed,
                cancelled: r.runs_cancelled,
                timed_out: r.runs_timed_out,
                skipped: r.runs_skipped,
                expired: r.runs_expired,
                unknown: r.runs_unknown,
            };
            (r.id.into(), counts)
        })
        .collect())
}

/// Writes new counts, and the state that follows from them; where that is its end, with the event of it.
pub(crate) async fn set_counts(
    connection: &mut PgConnection,
    id: ExecutionId,
    counts: &RunCounts,
    now: Timestamp,
) -> Result<()> {
    let state = counts.state();
    let ended_at = state.is_terminal().then_some(now);
    sqlx::query!(
        "with changed as (
             update executions
             set state = $2, ended_at = coalesce(ended_at, $3), runs_waiting = $4, runs_active = $5,
                 runs_succeeded = $6, runs_failed = $7, runs_cancelled = $8, runs_timed_out = $9, runs_skipped = $10,
                 runs_expired = $11, runs_unknown = $12
             where id = $1
             returning org_id, actor, summary, runs_total, ended_at, parent_id, schedule_id, plan->'job'->>'name' as job
         ), of_schedule as (
             insert into schedule_ends (schedule_id, org_id, execution_id, state, at)
             select schedule_id, org_id, $1, $2, $3 from changed where ended_at = $3 and schedule_id is not null
         ), told as (
             insert into advance_queue (execution_id, agent_id, org_id)
             select parent_id, $13, org_id from changed where ended_at = $3 and parent_id is not null
         )
         insert into events (id, org_id, at, kind, object, actor, data)
         select new_uuid_v7($3), org_id, $3, 'execution.ended', 'execution/' || $1::uuid, '',
                jsonb_build_object('state', $2::text, 'job', job, 'summary', summary, 'started_by', actor, 'runs', jsonb_build_object(
                    'total', runs_total, 'succeeded', $6::int, 'failed', $7::int, 'cancelled', $8::int,
                    'timed_out', $9::int, 'skipped', $10::int, 'expired', $11::int, 'unknown', $12::int))
         from changed where ended_at = $3",
        id.0,
        state.as_str(),
        ended_at.map(ToSqlx::to_sqlx) as _,
        counts.waiting,
        counts.active,
        counts.succeeded,
        counts.failed,
        counts.cancelled,
        counts.timed_out,
        counts.skipped,
        counts.expired,
        counts.unknown,
        super::progress::NO_AGENT.0
    )
    .execute(connection)
    .await
    .during("update of the execution")?;
    Ok(())
}
