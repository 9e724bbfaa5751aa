//! Approvals: what waits for people, and what they decided.

use jiff::Timestamp;
use jiff_sqlx::ToSqlx;
use model::{
    id::{ExecutionId, OrgId},
    job::{PlanStep, PlannedJob},
    run::RunState,
};
use sqlx::{PgConnection, PgPool, types::Json};
use uuid::Uuid;

use super::executions::{SignedManifest, executed};
use crate::error::{During, Error, Result};

/// A step that asks people, as the tables say.
#[derive(Debug)]
pub(crate) struct Asked {
    pub execution_id: ExecutionId,
    pub place: i16,
    pub step: PlanStep,
    pub state: RunState,
    pub asked_at: Option<Timestamp>,
    pub summary: String,
    pub job: Option<model::api::job::ExecutedJob>,
    pub actor: String,
    pub hosts: i64,
    pub manifest: Vec<u8>,
}

/// Which of them.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Which {
    /// All of one execution, in the order of its steps.
    Of(ExecutionId),
    /// Those that wait, the newest execution first, from behind this one.
    Waiting(Option<(ExecutionId, i16)>),
}

/// Steps that ask people; only those of executions all of whose hosts are among `seen`, if that is given.
pub(crate) async fn asked(
    pool: &PgPool,
    org: OrgId,
    which: Which,
    seen: Option<&[Uuid]>,
    limit: i64,
) -> Result<Vec<Asked>> {
    let (execution, after) = match which {
        Which::Of(id) => (Some(id.0), None),
        Which::Waiting(after) => (None, after),
    };
    let rows = sqlx::query!(
        r#"select r.execution_id, r.step as "place!", r.state, r.started_at, e.summary, e.actor, e.manifest as "manifest!",
                  e.plan->'job' as "job: Json<PlannedJob>", e.plan->'steps'->(r.step::int) as "step!: Json<PlanStep>",
                  (select count(*) from execution_hosts h where h.execution_id = e.id and h.org_id = $1) as "hosts!"
           from runs r join executions e on e.org_id = $1 and e.id = r.execution_id
           where r.org_id = $1 and r.agent_id = '00000000-0000-0000-0000-000000000000' and r.step is not null
             and e.plan->'steps'->(r.step::int)->'work' ? 'approval'
             and (($2::uuid is null and r.state = 'active') or r.execution_id = $2)
             and ($3::uuid is null or (r.execution_id, r.step) < ($3, $4::smallint))
             and ($5::uuid[] is null or (
                  exists (select from execution_hosts h where h.execution_id = e.id and h.org_id = $1)
                  and not exists (select from execution_hosts h where h.execution_id = e.id and h.org_id = $1
                     and h.agent_id not in (select unnest($5::uuid[])))))
           order by r.execution_id desc, case when $2::uuid is null then -r.step else r.step end limit $6"#,
        org.0,
        execution,
        after.map(|(id, _)| id.0),
        after.map(|(_, place)| place),
        seen,
        limit
    )
    .fetch_all(pool)
    .await
    .during("query for approvals")?;
    rows.into_iter()
        .map(|r| {
            Ok(Asked {
                execution_id: r.execution_id.into(),
                place: r.place,
                step: r.step.0,
                state: RunState::parse(&r.state)
                    .ok_or_else(|| Error::internal("unknown run state", r.state.clone()))?,
                asked_at: r.started_at.map(jiff_sqlx::Timestamp::to_jiff),
                summary: r.summary,
                job: r.job.map(|job| executed(job.0)),
                actor: r.actor,
                hosts: r.hosts,
                manifest: r.manifest,
            })
        })
        .collect()
}

/// Locks the progress of an execution, for a decision: whoever moves it on is done first. Answers the state of the
/// controller's own run of the step, and since when it waits.
pub(crate) async fn lock(
    connection: &mut PgConnection,
    (execution, org): (ExecutionId, OrgId),
    step: i16,
    now: Timestamp,
) -> Result<Option<(RunState, Option<Timestamp>)>> {
    // Whoever moves it on has to look, whatever follows.
    sqlx::query!(
        "update execution_progress set advance_at = $3 where org_id = $1 and execution_id = $2",
        org.0,
        execution.0,
        now.to_sqlx()
    )
    .execute(&mut *connection)
    .await
    .during("lock of the execution's progress")?;
    let run = sqlx::query!(
        "select state, started_at from runs where org_id = $1 and execution_id = $2 and step = $3
           and agent_id = '00000000-0000-0000-0000-000000000000'",
        org.0,
        execution.0,
        step
    )
    .fetch_optional(connection)
    .await
    .during("query for the approval's run")?;
    Ok(run.and_then(|run| {
        Some((RunState::parse(&run.state)?, run.started_at.map(jiff_sqlx::Timestamp::to_jiff)))
    }))
}

/// Adds a decision; `false` when this actor has decided before.
pub(crate) async fn insert(
    connection: &mut PgConnection,
    (execution, org): (ExecutionId, OrgId),
    step: i16,
    actor_id: &str,
    signed: &SignedManifest,
    now: Timestamp,
) -> Result<bool> {
    let done = sqlx::query!(
        "insert into approval_decisions (execution_id, step, actor_id, org_id, decided_at, signed, signature, certificate)
         values ($1, $2, $3, $4, $5, $6, $7, $8) on conflict do nothing",
        execution.0,
        step,
        actor_id,
        org.0,
        now.to_sqlx(),
        signed.manifest,
        signed.signature,
        signed.certificate
    )
    .execute(connection)
    .await
    .during("insert of the decision")?;
    Ok(done.rows_affected() == 1)
}

/// The decisions of these executions, as they were signed, in the order in which they were made.
pub(crate) async fn decisions(
    connection: &mut PgConnection,
    executions: &[Uuid],
) -> Result<Vec<(ExecutionId, SignedManifest)>> {
    let rows = sqlx::query!(
        "select execution_id, signed, signature, certificate from approval_decisions
         where execution_id = any($1) order by decided_at, actor_id",
        executions
    )
    .fetch_all(connection)
    .await
    .during("query for decisions")?;
    let each = rows.into_iter().map(|r| {
        let signed =
            SignedManifest { manifest: r.signed, signature: r.signature, certificate: r.certificate };
        (r.execution_id.into(), signed)
    });
    Ok(each.collect())
}
