//! Where executions with a plan stand: their hosts, and what has happened on these since somebody looked.

use std::collections::{BTreeMap, HashMap};

use jiff::Timestamp;
use jiff_sqlx::ToSqlx;
use model::{
    Reason,
    api::job::{Cell, ResultRow},
    id::{AgentId, ExecutionId, OrgId, RunId},
    job::{
        context::{HostResult, StepResult},
        outputs::Outputs,
        progress::{Gathered, HostState, Standing},
    },
    run::RunState,
};
use sqlx::{PgConnection, PgPool, types::Json};
use uuid::Uuid;

use crate::error::{During, Error, Result};

/// The agent of the controller's own steps.
pub(crate) const NO_AGENT: AgentId = AgentId(Uuid::nil());

/// Where an execution stands, its row locked.
#[derive(Debug)]
pub(crate) struct Progress {
    pub standing: Standing,
    pub is_paused: bool,
    /// It waits for the lock of its own.
    pub is_waiting: bool,
}

/// A host of an execution.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Host {
    pub agent_id: AgentId,
    pub batch: u16,
    pub state: HostState,
    /// When its soak began.
    pub soaks_since: Option<Timestamp>,
}

/// A run as far as its host's progress is concerned.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StepRun {
    pub agent_id: AgentId,
    pub id: RunId,
    pub step: usize,
    pub state: RunState,
    pub generation: i64,
    pub started_at: Option<Timestamp>,
    pub exit_code: Option<i32>,
    /// It was offered to its host once at least.
    pub is_tried: bool,
    /// It was skipped although its condition held.
    pub is_left_out: bool,
}

/// An execution that begins, with its hosts in the order of their turns.
#[derive(Debug)]
pub(crate) struct Beginning<'a> {
    pub execution: ExecutionId,
    pub org_id: OrgId,
    pub at: Timestamp,
    /// Each with its name and batch.
    pub hosts: &'a [(AgentId, String, u16)],
}

/// Makes the rows of executions that begin; they are due at once.
pub(crate) async fn insert(connection: &mut PgConnection, new: &[Beginning<'_>]) -> Result<()> {
    let hosts = || {
        let each = |one: &'_ Beginning<'_>| (one.execution.0, one.org_id.0);
        new.iter().flat_map(move |one| {
            one.hosts.iter().enumerate().map(move |(place, host)| (each(one), place, host))
        })
    };
    let small = |number: u16| i16::try_from(number).unwrap_or(i16::MAX);
    sqlx::query!(
        "with progress as (
             insert into execution_progress (execution_id, org_id, advance_at)
             select * from unnest($1::uuid[], $2::uuid[], $3::timestamptz[])
         )
         insert into execution_hosts (execution_id, org_id, place, agent_id, target, batch, state)
         select h.*, 'waiting' from unnest($4::uuid[], $5::uuid[], $6::int[], $7::uuid[], $8::text[], $9::smallint[]) as h",
        &new.iter().map(|one| one.execution.0).collect::<Vec<_>>(),
        &new.iter().map(|one| one.org_id.0).collect::<Vec<_>>(),
        &new.iter().map(|one| one.at.to_sqlx()).collect::<Vec<_>>() as _,
        &hosts().map(|((execution, _), ..)| execution).collect::<Vec<_>>(),
        &hosts().map(|((_, org), ..)| org).collect::<Vec<_>>(),
        &hosts().map(|(_, place, _)| i32::try_from(place).unwrap_or(i32::MAX)).collect::<Vec<_>>(),
        &hosts().map(|(.., host)| host.0.0).collect::<Vec<_>>(),
        &hosts().map(|(.., host)| host.1.as_str()).collect::<Vec<_>>() as _,
        &hosts().map(|(.., host)| small(host.2)).collect::<Vec<_>>()
    )
    .execute(connection)
    .await
    .during("insert of the hosts of executions")?;
    Ok(())
}

/// Somebody has to look at the execution now.
pub(crate) async fn wake(
    connection: &mut PgConnection,
    execution: ExecutionId,
    now: Timestamp,
) -> Result<()> {
    sqlx::query!(
        "update execution_progress set advance_at = $2 where execution_id = $1",
        execution.0,
        now.to_sqlx()
    )
    .execute(connection)
    .await
    .during("wake-up of the execution")?;
    Ok(())
}

/// Notes that the execution waits for a lock, or for none, and when somebody has to look again.
pub(crate) async fn set_waiting(
    connection: &mut PgConnection,
    execution: ExecutionId,
    key: Option<&str>,
    advance_at: Option<Timestamp>,
) -> Result<()> {
    sqlx::query!(
        "update execution_progress set waits_for = $2, advance_at = coalesce($3, advance_at) where execution_id = $1",
        execution.0,
        key,
        advance_at.map(ToSqlx::to_sqlx) as _
    )
    .execute(connection)
    .await
    .during("update of what the execution waits for")?;
    Ok(())
}

/// Executions that somebody has to look at: something has ended, or a time has come; who waits for longest comes first.
pub(crate) async fn due(pool: &PgPool, now: Timestamp, limit: i64) -> Result<Vec<ExecutionId>> {
    let ids = sqlx::query_scalar!(
        r#"select execution_id as "id!" from (
               (select execution_id, advance_at from execution_progress where advance_at <= $1
                order by advance_at limit $2)
               union all (select distinct execution_id, $1 from advance_queue limit $2)
           ) as due group by execution_id order by min(advance_at) limit $2"#,
        now.to_sqlx(),
        limit
    )
    .fetch_all(pool)
    .await
    .during("query for executions to move on")?;
    Ok(ids.into_iter().map(ExecutionId).collect())
}

/// Locks the progress of an execution; none when somebody else has it.
pub(crate) async fn lock(connection: &mut PgConnection, execution: ExecutionId) -> Result<Option<Progress>> {
    let row = sqlx::query!(
        r#"select batch, pause_until, paused_at is not null as "is_paused!", stopped_at is not null as "is_stopped!",
                  aborted_at is not null as "is_aborted!", waits_for is not null as "is_waiting!"
           from execution_progress where execution_id = $1 for update skip locked"#,
        execution.0
    )
    .fetch_optional(connection)
    .await
    .during("lock of the execution's progress")?;
    Ok(row.map(|r| Progress {
        standing: Standing {
            batch: u16::try_from(r.batch).unwrap_or(0),
            pause_until: r.pause_until.map(jiff_sqlx::Timestamp::to_jiff),
            is_stopped: r.is_stopped,
            is_aborted: r.is_aborted,
        },
        is_paused: r.is_paused,
        is_waiting: r.is_waiting,
    }))
}

/// Takes the hosts on which something has ended, each once.
pub(crate) async fn take_changed(
    connection: &mut PgConnection,
    execution: ExecutionId,
) -> Result<Vec<AgentId>> {
    let mut agents = sqlx::query_scalar!(
        "delete from advance_queue where execution_id = $1 returning agent_id",
        execution.0
    )
    .fetch_all(connection)
    .await
    .during("query for changed hosts")?;
    agents.sort_unstable();
    agents.dedup();
    Ok(agents.into_iter().map(AgentId).collect())
}

/// The hosts, in the order of their turns.
pub(crate) async fn hosts(connection: &mut PgConnection, execution: ExecutionId) -> Result<Vec<Host>> {
    let rows = sqlx::query!(
        "select agent_id, batch, state, soaks_since from execution_hosts where execution_id = $1 order by place",
        execution.0
    )
    .fetch_all(connection)
    .await
    .during("query for the execution's hosts")?;
    rows.into_iter()
        .map(|r| {
            let state = HostState::parse(&r.state)
                .ok_or_else(|| Error::internal("unknown state of a host", r.state.clone()))?;
            Ok(Host {
                agent_id: r.agent_id.into(),
                batch: u16::try_from(r.batch).unwrap_or(0),
                state,
                soaks_since: r.soaks_since.map(jiff_sqlx::Timestamp::to_jiff),
            })
        })
        .collect()
}

/// The hosts whose turn has come and that were offered nothing yet, although something waits for them, each with the time since when
/// it is away, if it is.
pub(crate) async fn unbegun(
    connection: &mut PgConnection,
    execution: ExecutionId,
) -> Result<Vec<(AgentId, Option<Timestamp>)>> {
    let rows = sqlx::query!(
        r#"select h.agent_id, case when not s.connected then s.closed_at end as "gone_at"
           from execution_hosts h left join sessions s on s.agent_id = h.agent_id
           where h.execution_id = $1 and h.state = 'active'
             and exists (select from runs r where r.execution_id = $1 and r.agent_id = h.agent_id and r.step is not null
                             and r.state = 'queued' and r.attempt = 0)
             and not exists (select from runs r where r.execution_id = $1 and r.agent_id = h.agent_id and r.step is not null
                                 and (r.attempt > 0 or r.state not in ('blocked', 'queued', 'skipped')))"#,
        execution.0
    )
    .fetch_all(connection)
    .await
    .during("query for hosts that have not begun")?;
    let since = |at: Option<jiff_sqlx::Timestamp>| at.map(jiff_sqlx::Timestamp::to_jiff);
    Ok(rows.into_iter().map(|row| (row.agent_id.into(), since(row.gone_at))).collect())
}

/// The runs of these hosts, or of the controller's own steps; those of a host in the order of the steps.
///
/// A subquery for each host, which wants its order: the planner knows nothing of an execution that has just begun, takes it for
/// one of a single run, and would else read all of its runs to find those of a host.
pub(crate) async fn runs(
    connection: &mut PgConnection,
    execution: ExecutionId,
    agents: &[Uuid],
) -> Result<Vec<StepRun>> {
    let rows = sqlx::query!(
        r#"select r.agent_id as "agent_id!", r.id as "id!", r.step as "step!", r.state as "state!",
                  r.generation as "generation!", r.started_at, r.exit_code,
                  r.attempt > 0 as "is_tried!",
                  r.state = 'skipped' and r.reason is distinct from 'condition_false' as "is_left_out!"
           from unnest($2::uuid[]) as h(agent_id) cross join lateral (
               select * from runs
               where execution_id = $1 and agent_id = h.agent_id and step is not null order by execution_id, agent_id, step
           ) r"#,
        execution.0,
        agents
    )
    .fetch_all(connection)
    .await
    .during("query for the runs of hosts")?;
    rows.into_iter()
        .map(|r| {
            let state = RunState::parse(&r.state)
                .ok_or_else(|| Error::internal("unknown run state", r.state.clone()))?;
            Ok(StepRun {
                agent_id: r.agent_id.into(),
                id: r.id.into(),
                step: usize::try_from(r.step).unwrap_or(usize::MAX),
                state,
                generation: r.generation,
                started_at: r.started_at.map(jiff_sqlx::Timestamp::to_jiff),
                exit_code: r.exit_code,
                is_tried: r.is_tried,
                is_left_out: r.is_left_out,
            })
        })
        .collect()
}

/// How the steps ended that have, of each of these (execution, agent), with what they told; those of the controller's own are
/// those of [`NO_AGENT`].
pub(crate) async fn ended(
    connection: &mut PgConnection,
    executions: &[Uuid],
    agents: &[Uuid],
) -> Result<Vec<(ExecutionId, AgentId, usize, StepResult)>> {
    let rows = sqlx::query!(
        r#"select r.execution_id, r.agent_id, r.step as "step!", r.state, r.exit_code, r.outputs as "outputs: Json<Outputs>"
           from unnest($1::uuid[], $2::uuid[]) as k(execution_id, agent_id)
           join runs r on r.execution_id = k.execution_id and r.agent_id = k.agent_id
           where r.step is not null and r.state not in ('blocked', 'queued', 'active')"#,
        executions,
        agents
    )
    .fetch_all(connection)
    .await
    .during("query for the results of steps")?;
    let each = rows.into_iter().map(|r| {
        let outputs = r.outputs.map(|outputs| outputs.0).unwrap_or_default();
        let result = StepResult { state: r.state, exit_code: r.exit_code, outputs, gathered: None };
        (r.execution_id.into(), r.agent_id.into(), usize::try_from(r.step).unwrap_or(usize::MAX), result)
    });
    Ok(each.collect())
}

/// How each of `steps` steps stands on all hosts together.
pub(crate) async fn gathered(
    connection: &mut PgConnection,
    execution: ExecutionId,
    steps: usize,
) -> Result<Vec<Gathered>> {
    let rows = sqlx::query!(
        r#"select step as "step!", state, reason = 'condition_false' as "is_passed", count(*) as "runs!" from runs
           where execution_id = $1 and step is not null group by 1, 2, 3"#,
        execution.0
    )
    .fetch_all(connection)
    .await
    .during("count of the steps' runs")?;
    let mut gathered = vec![Gathered::default(); steps];
    for row in rows {
        let Some(of) = usize::try_from(row.step).ok().and_then(|step| gathered.get_mut(step)) else {
            continue;
        };
        let runs = usize::try_from(row.runs).unwrap_or(0);
        match RunState::parse(&row.state) {
            Some(RunState::Succeeded) => of.succeeded += runs,
            // It had nothing to do there.
            Some(RunState::Skipped) if row.is_passed == Some(true) => of.succeeded += runs,
            Some(state) if state.is_terminal() => {
                of.others += runs;
                if state != RunState::Skipped {
                    of.failed += runs;
                }
            }
            state => {
                of.open += runs;
                if state == Some(RunState::Blocked) {
                    of.blocked += runs;
                }
            }
        }
    }
    Ok(gathered)
}

/// About how many bytes [`results_of_step`] answers.
pub(crate) async fn bytes_of_results(
    connection: &mut PgConnection,
    execution: ExecutionId,
    step: i16,
) -> Result<usize> {
    let bytes = sqlx::query_scalar!(
        r#"select coalesce(sum(octet_length(target) + 32 + coalesce(octet_length(outputs::text), 0)), 0)::bigint as "bytes!"
           from runs where execution_id = $1 and step = $2"#,
        execution.0,
        step
    )
    .fetch_one(connection)
    .await
    .during("size of a step's results")?;
    Ok(usize::try_from(bytes).unwrap_or(usize::MAX))
}

/// What a step came to on each host, by their names.
pub(crate) async fn results_of_step(
    connection: &mut PgConnection,
    execution: ExecutionId,
    step: i16,
) -> Result<Vec<HostResult>> {
    let rows = sqlx::query!(
        r#"select target, state, exit_code, outputs as "outputs: Json<Outputs>" from runs
           where execution_id = $1 and step = $2 order by target"#,
        execution.0,
        step
    )
    .fetch_all(connection)
    .await
    .during("query for a step's results")?;
    let each = rows.into_iter().map(|row| HostResult {
        name: row.target,
        state: row.state,
        exit_code: row.exit_code,
        outputs: row.outputs.map(|outputs| outputs.0).unwrap_or_default(),
    });
    Ok(each.collect())
}

/// How many runs were skipped because the rollout was stopped or aborted. What would have undone something is not missed.
pub(crate) async fn left_out(pool: &PgPool, org: OrgId, execution: ExecutionId) -> Result<i64> {
    sqlx::query_scalar!(
        r#"select count(*) as "count!" from runs r join executions e on e.id = r.execution_id
           where r.org_id = $1 and r.execution_id = $2 and r.state = 'skipped' and r.reason = 'rollout_stopped'
             and (e.plan->'steps'->r.step::int->>'is_rollback')::boolean is not true"#,
        org.0,
        execution.0
    )
    .fetch_one(pool)
    .await
    .during("count of the runs that were left out")
}

/// Writes the new states of hosts.
pub(crate) async fn set_hosts(
    connection: &mut PgConnection,
    execution: ExecutionId,
    states: &BTreeMap<AgentId, HostState>,
) -> Result<()> {
    if states.is_empty() {
        return Ok(());
    }
    let agents: Vec<Uuid> = states.keys().map(|agent| agent.0).collect();
    let states: Vec<&str> = states.values().map(|state| state.as_str()).collect();
    sqlx::query!(
        "update execution_hosts h set state = s.state
         from unnest($2::uuid[], $3::text[]) as s(agent_id, state)
         where h.execution_id = $1 and h.agent_id = s.agent_id",
        execution.0,
        &agents,
        &states as _
    )
    .execute(connection)
    .await
    .during("update of the execution's hosts")?;
    Ok(())
}

/// Notes that the soak of these hosts begins.
pub(crate) async fn begin_soaks(
    connection: &mut PgConnection,
    execution: ExecutionId,
    agents: &[AgentId],
    now: Timestamp,
) -> Result<()> {
    if agents.is_empty() {
        return Ok(());
    }
    let agents: Vec<Uuid> = agents.iter().map(|agent| agent.0).collect();
    sqlx::query!(
        "update execution_hosts set soaks_since = $3 where execution_id = $1 and agent_id = any($2)",
        execution.0,
        &agents,
        now.to_sqlx()
    )
    .execute(connection)
    .await
    .during("begin of the canary's soak")?;
    Ok(())
}

/// Ends the hosts of an execution that does not go on, those of whose runs none is open.
pub(crate) async fn end_hosts(connection: &mut PgConnection, execution: ExecutionId) -> Result<()> {
    sqlx::query!(
        "update execution_hosts h
         set state = case
             when h.state = 'waiting' then 'skipped'
             when exists (select from runs r where r.execution_id = $1 and r.agent_id = h.agent_id
                              and r.state not in ('succeeded', 'skipped')) then 'failed'
             else 'succeeded' end
         where h.execution_id = $1 and h.state in ('waiting', 'active')
           and not exists (select from runs r where r.execution_id = $1 and r.agent_id = h.agent_id
                               and r.state in ('blocked', 'queued', 'active'))",
        execution.0
    )
    .execute(connection)
    .await
    .during("end of the execution's hosts")?;
    Ok(())
}

/// Writes where the rollout stands, and when somebody has to look again.
pub(crate) async fn set(
    connection: &mut PgConnection,
    execution: ExecutionId,
    standing: Standing,
    advance_at: Option<Timestamp>,
    now: Timestamp,
) -> Result<()> {
    sqlx::query!(
        "update execution_progress
         set advance_at = $2, batch = $3, pause_until = $4,
             stopped_at = case when $5 then coalesce(stopped_at, $6) else stopped_at end
         where execution_id = $1",
        execution.0,
        advance_at.map(ToSqlx::to_sqlx) as _,
        i16::try_from(standing.batch).unwrap_or(i16::MAX),
        standing.pause_until.map(ToSqlx::to_sqlx) as _,
        standing.is_stopped,
        now.to_sqlx()
    )
    .execute(connection)
    .await
    .during("update of the execution's progress")?;
    Ok(())
}

/// What people ask of a rollout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ask {
    Pause,
    Resume,
    /// No further host begins.
    Stop,
    /// Nothing more begins on hosts at work either.
    Abort,
}

/// Does what is asked, unless the execution is over or has no plan, or was aborted and is to be held or to go on; answers whether it
/// was done.
pub(crate) async fn ask(
    connection: &mut PgConnection,
    (execution, org): (ExecutionId, OrgId),
    ask: Ask,
    now: Timestamp,
) -> Result<bool> {
    let done = sqlx::query!(
        "update execution_progress p
         set paused_at = case $3 when 'pause' then coalesce(p.paused_at, $4) else null end,
             pause_until = case $3 when 'resume' then null else p.pause_until end,
             stopped_at = case when $3 in ('stop', 'abort') then coalesce(p.stopped_at, $4) else p.stopped_at end,
             aborted_at = case $3 when 'abort' then coalesce(p.aborted_at, $4) else p.aborted_at end,
             advance_at = $4
         from executions e
         where p.org_id = $1 and p.execution_id = $2 and e.org_id = $1 and e.id = $2 and e.ended_at is null
           and (p.aborted_at is null or $3 in ('stop', 'abort'))",
        org.0,
        execution.0,
        match ask {
            Ask::Pause => "pause",
            Ask::Resume => "resume",
            Ask::Stop => "stop",
            Ask::Abort => "abort",
        },
        now.to_sqlx()
    )
    .execute(&mut *connection)
    .await
    .during("change of the rollout")?;
    // Nobody looked at its hosts meanwhile.
    sqlx::query!(
        "insert into advance_queue (execution_id, agent_id, org_id)
         select execution_id, agent_id, org_id from execution_hosts
         where org_id = $1 and execution_id = $2 and state = 'active' and $3",
        org.0,
        execution.0,
        ask == Ask::Resume
    )
    .execute(connection)
    .await
    .during("wake-up of the execution's hosts")?;
    Ok(done.rows_affected() == 1)
}

/// A page of hosts by their turns, from behind the place `after`, with the runs of each: two statements, however many.
pub(crate) async fn page(
    pool: &PgPool,
    (execution, org): (ExecutionId, OrgId),
    steps: usize,
    state: Option<HostState>,
    after: Option<i32>,
    limit: i64,
) -> Result<Vec<(i32, ResultRow)>> {
    let hosts = sqlx::query!(
        "select place, agent_id, target, batch, state from execution_hosts
         where org_id = $1 and execution_id = $2 and ($3::text is null or state = $3) and ($4::int is null or place > $4)
         order by place limit $5",
        org.0,
        execution.0,
        state.map(HostState::as_str),
        after,
        limit
    )
    .fetch_all(pool)
    .await
    .during("query for a page of hosts")?;
    let agents: Vec<Uuid> = hosts.iter().map(|host| host.agent_id).collect();
    let mut rows: Vec<(i32, ResultRow)> = hosts
        .into_iter()
        .map(|host| {
            let row = ResultRow {
                agent_id: host.agent_id.into(),
                target: host.target,
                batch: u16::try_from(host.batch).unwrap_or(0),
                state: host.state,
                runs: vec![None; steps],
            };
            (host.place, row)
        })
        .collect();
    let by_agent: HashMap<AgentId, usize> =
        rows.iter().enumerate().map(|(index, (_, row))| (row.agent_id, index)).collect();
    for (agent, step, cell) in cells(pool, (execution, org), &agents).await? {
        if let Some(index) = by_agent.get(&agent)
            && let Some(place) = rows[*index].1.runs.get_mut(step)
        {
            *place = Some(cell);
        }
    }
    Ok(rows)
}

/// The cells of these agents: (agent, step, cell). A subquery for each, as in [`runs`].
pub(crate) async fn cells(
    pool: &PgPool,
    (execution, org): (ExecutionId, OrgId),
    agents: &[Uuid],
) -> Result<Vec<(AgentId, usize, Cell)>> {
    let runs = sqlx::query!(
        r#"select r.agent_id as "agent_id!", r.id as "id!", r.step as "step!", r.state as "state!", r.reason, r.exit_code,
                  r.started_at, r.ended_at,
                  case when r.agent_id = $4 then (select id from executions e where e.parent_id = $2 and e.parent_run = r.id)
                  end as "started"
           from unnest($3::uuid[]) as h(agent_id) cross join lateral (
               select * from runs
               where org_id = $1 and execution_id = $2 and agent_id = h.agent_id and step is not null
               order by execution_id, agent_id, step
           ) r"#,
        org.0,
        execution.0,
        agents,
        NO_AGENT.0
    )
    .fetch_all(pool)
    .await
    .during("query for the cells of hosts")?;
    Ok(runs
        .into_iter()
        .map(|r| {
            let cell = Cell {
                run_id: r.id.into(),
                state: RunState::parse(&r.state).unwrap_or(RunState::Unknown),
                reason: r.reason.as_deref().and_then(Reason::parse),
                exit_code: r.exit_code,
                started_at: r.started_at.map(jiff_sqlx::Timestamp::to_jiff),
                ended_at: r.ended_at.map(jiff_sqlx::Timestamp::to_jiff),
                started: r.started.map(ExecutionId),
            };
            (r.agent_id.into(), usize::try_from(r.step).unwrap_or(usize::MAX), cell)
        })
        .collect())
}
