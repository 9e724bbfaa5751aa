//! What executions have changed on their hosts, as far as it was not undone there.

use model::{
    Reason,
    api::undo::{ChangedHost, ChangedRun, UndoHosts},
    id::{AgentId, ExecutionId, OrgId},
    run::RunState,
};
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use crate::error::{During, Error, Result};

/// The hosts on which a step began, or nobody knows whether one did, by name and from behind `after`; and how many there are in
/// all. `undoing` has the places of the steps that undo: where all of these went well nothing is left to undo, nor where an
/// execution that undoes this one went well.
pub(crate) async fn hosts(
    connection: &mut PgConnection,
    (execution, org): (ExecutionId, OrgId),
    undoing: &[i16],
    which: UndoHosts,
    after: Option<&str>,
    limit: i64,
) -> Result<(Vec<ChangedHost>, i64)> {
    let rows = sqlx::query!(
        r#"with begun as (
               select r.agent_id, min(r.target) as target, bool_and(r.state = 'succeeded') as went_well
               from runs r
               where r.org_id = $1 and r.execution_id = $2 and r.target <> '' and (r.started_at is not null or r.state = 'unknown')
                 and (r.step is null or r.step <> all($3::smallint[]))
               group by r.agent_id
           ), changed as (
               select b.agent_id, b.target, coalesce(h.state, case when b.went_well then 'succeeded' else 'failed' end) as state
               from begun b left join execution_hosts h
                   on h.org_id = $1 and h.execution_id = $2 and h.agent_id = b.agent_id
               where not (
                       exists (select from runs u where u.org_id = $1 and u.execution_id = $2 and u.agent_id = b.agent_id
                                   and u.step = any($3) and u.state = 'succeeded')
                       and not exists (select from runs u where u.org_id = $1 and u.execution_id = $2 and u.agent_id = b.agent_id
                                   and u.step = any($3) and u.state <> 'succeeded'
                                   and (u.state <> 'skipped' or u.reason is distinct from 'condition_false')))
                 and not exists (
                       select from executions e
                       where e.org_id = $1 and e.plan ? 'undoes' and e.plan->>'undoes' = $2::uuid::text
                         and exists (select from runs u where u.org_id = $1 and u.execution_id = e.id
                                         and u.agent_id = b.agent_id and u.state = 'succeeded')
                         and not exists (select from runs u where u.org_id = $1 and u.execution_id = e.id
                                             and u.agent_id = b.agent_id and u.state <> 'succeeded'
                                             and (u.state <> 'skipped' or u.reason is distinct from 'condition_false')))
           ), meant as (
               select * from changed where not $4 or state <> 'succeeded'
           )
           select agent_id as "agent_id!", target as "target!", state as "state!", (select count(*) from meant) as "total!"
           from meant where $5::text is null or target > $5 order by target limit $6"#,
        org.0,
        execution.0,
        undoing,
        which == UndoHosts::Failed,
        after,
        limit
    )
    .fetch_all(connection)
    .await
    .during("query for changed hosts")?;
    let total = rows.first().map_or(0, |row| row.total);
    let hosts = rows.into_iter().map(|row| ChangedHost {
        agent_id: row.agent_id.into(),
        target: row.target,
        state: row.state,
        runs: Vec::new(),
    });
    Ok((hosts.collect(), total))
}

/// The runs of these agents that began, or of which nobody knows: (agent, place of the step, run), in the order of the steps.
pub(crate) async fn runs(
    pool: &PgPool,
    (execution, org): (ExecutionId, OrgId),
    agents: &[Uuid],
) -> Result<Vec<(AgentId, Option<usize>, ChangedRun)>> {
    let rows = sqlx::query!(
        "select agent_id, id, step, state, reason, exit_code from runs
         where org_id = $1 and execution_id = $2 and agent_id = any($3) and (started_at is not null or state = 'unknown')
         order by agent_id, step, id",
        org.0,
        execution.0,
        agents
    )
    .fetch_all(pool)
    .await
    .during("query for the runs that changed hosts")?;
    rows.into_iter()
        .map(|row| {
            let run = ChangedRun {
                run_id: row.id.into(),
                step: None,
                is_rollback: false,
                state: RunState::parse(&row.state)
                    .ok_or_else(|| Error::internal("unknown run state", row.state.clone()))?,
                reason: row.reason.as_deref().and_then(Reason::parse),
                exit_code: row.exit_code,
            };
            Ok((row.agent_id.into(), row.step.and_then(|step| usize::try_from(step).ok()), run))
        })
        .collect()
}

/// An execution that undoes this one and is not over, if there is one.
///
/// What undoes an execution is a retry of it too.
pub(crate) async fn underway(
    connection: &mut PgConnection,
    org: OrgId,
    execution: ExecutionId,
) -> Result<Option<ExecutionId>> {
    let id = sqlx::query_scalar!(
        "select id from executions
         where org_id = $1 and retry_of = $2 and ended_at is null limit 1",
        org.0,
        execution.0
    )
    .fetch_optional(connection)
    .await
    .during("query for what undoes the execution")?;
    Ok(id.map(ExecutionId))
}

/// Those of these agents that are still enrolled, with their names now.
pub(crate) async fn enrolled(
    connection: &mut PgConnection,
    org: OrgId,
    agents: &[Uuid],
) -> Result<Vec<(Uuid, String)>> {
    let rows = sqlx::query!(
        "select id, name from agents where org_id = $1 and id = any($2) and revoked_at is null and not pending order by name",
        org.0,
        agents
    )
    .fetch_all(connection)
    .await
    .during("query for enrolled agents")?;
    Ok(rows.into_iter().map(|row| (row.id, row.name)).collect())
}
