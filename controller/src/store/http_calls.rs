//! Requests that steps of executions make to web servers: how far each is.

use jiff::Timestamp;
use jiff_sqlx::ToSqlx;
use model::{
    Reason,
    id::{ControllerId, ExecutionId, OrgId, RunId},
    job::outputs::Outputs,
    run::RunState,
};
use sqlx::{PgConnection, PgPool, types::Json};

use crate::error::{During, Result};

/// One that was taken to be sent.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Taken {
    pub execution_id: ExecutionId,
    pub run_id: RunId,
    /// The number of this try, from 1.
    pub tries: u32,
    /// Until when what came of it has to be written.
    pub until: Timestamp,
}

/// How far one is.
#[derive(Debug, Clone)]
pub(crate) enum Standing {
    Waiting,
    Sent,
    Ended(Answer),
}

/// What came of one.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    /// `Succeeded`, `Failed`, `TimedOut` or `Unknown`.
    pub state: RunState,
    pub reason: Reason,
    pub detail: String,
    pub outputs: Outputs,
}

/// Adds one that may be sent at once.
pub(crate) async fn insert(
    connection: &mut PgConnection,
    (execution, org): (ExecutionId, OrgId),
    run: RunId,
    now: Timestamp,
) -> Result<()> {
    sqlx::query!(
        "insert into http_calls (execution_id, run_id, org_id, state, due_at) values ($1, $2, $3, 'waiting', $4)
         on conflict do nothing",
        execution.0,
        run.0,
        org.0,
        now.to_sqlx()
    )
    .execute(connection)
    .await
    .during("insert of an http call")?;
    Ok(())
}

/// Takes those that are due, as sent by this controller: whatever becomes of it, they have been tried. What came of them has
/// to be written until `until`. No organization has more than `of_one` under way.
pub(crate) async fn take(
    pool: &PgPool,
    by: ControllerId,
    (now, until): (Timestamp, Timestamp),
    (limit, of_one): (i64, i64),
) -> Result<Vec<Taken>> {
    let rows = sqlx::query!(
        "with ranked as (
             select execution_id, run_id, due_at,
                    row_number() over (partition by org_id order by due_at) + (
                        select count(*) from http_calls s where s.state = 'sent' and s.org_id = c.org_id
                    ) as place
             from http_calls c where state = 'waiting' and due_at <= $2
         )
         update http_calls c set state = 'sent', tries = tries + 1, sent_by = $1, sent_until = $3
         from (select execution_id, run_id from ranked where place <= $5 order by due_at limit $4) as due
         where c.execution_id = due.execution_id and c.run_id = due.run_id and c.state = 'waiting'
         returning c.execution_id, c.run_id, c.tries",
        by.0,
        now.to_sqlx(),
        until.to_sqlx(),
        limit,
        of_one
    )
    .fetch_all(pool)
    .await
    .during("query for http calls")?;
    let taken = rows.into_iter().map(|row| Taken {
        execution_id: row.execution_id.into(),
        run_id: row.run_id.into(),
        tries: u32::try_from(row.tries).unwrap_or(u32::MAX),
        until,
    });
    Ok(taken.collect())
}

/// Those that were sent and of which nobody has written what came of them: by this controller, or by one whose time for it is
/// over.
pub(crate) async fn unwritten(
    pool: &PgPool,
    by: ControllerId,
    now: Timestamp,
    limit: i64,
) -> Result<Vec<Taken>> {
    let rows = sqlx::query!(
        r#"select execution_id, run_id, tries, sent_until as "sent_until!" from http_calls
           where state = 'sent' and (sent_by = $1 or sent_until < $2) limit $3"#,
        by.0,
        now.to_sqlx(),
        limit
    )
    .fetch_all(pool)
    .await
    .during("query for lost http calls")?;
    let lost = rows.into_iter().map(|row| Taken {
        execution_id: row.execution_id.into(),
        run_id: row.run_id.into(),
        tries: u32::try_from(row.tries).unwrap_or(u32::MAX),
        until: row.sent_until.to_jiff(),
    });
    Ok(lost.collect())
}

/// Puts one back that was taken and not sent.
pub(crate) async fn put_back(pool: &PgPool, taken: &Taken, due_at: Timestamp) -> Result<()> {
    sqlx::query!(
        "update http_calls set state = 'waiting', due_at = $4, sent_until = null, tries = tries - 1
         where execution_id = $1 and run_id = $2 and state = 'sent' and tries = $3",
        taken.execution_id.0,
        taken.run_id.0,
        i32::try_from(taken.tries).unwrap_or(i32::MAX),
        due_at.to_sqlx()
    )
    .execute(pool)
    .await
    .during("return of an http call")?;
    Ok(())
}

/// Has one tried again at `due_at`, unless somebody else has written of this try; tells whoever moves its execution on.
pub(crate) async fn again(pool: &PgPool, taken: &Taken, due_at: Timestamp, last: &Answer) -> Result<()> {
    sqlx::query!(
        "with changed as (
             update http_calls set state = 'waiting', due_at = $4, sent_until = null, reason = $5, detail = $6
             where execution_id = $1 and run_id = $2 and state = 'sent' and tries = $3 returning execution_id, org_id
         )
         insert into advance_queue (execution_id, agent_id, org_id) select execution_id, $7, org_id from changed",
        taken.execution_id.0,
        taken.run_id.0,
        i32::try_from(taken.tries).unwrap_or(i32::MAX),
        due_at.to_sqlx(),
        last.reason.as_str(),
        last.detail,
        super::progress::NO_AGENT.0
    )
    .execute(pool)
    .await
    .during("return of an http call")?;
    Ok(())
}

/// Writes what came of one, unless somebody else has; tells whoever moves its execution on.
pub(crate) async fn end(pool: &PgPool, taken: &Taken, answer: &Answer) -> Result<()> {
    sqlx::query!(
        "with changed as (
             update http_calls
             set state = 'ended', sent_until = null, outcome = $4, reason = $5, detail = $6, outputs = $7::text::json
             where execution_id = $1 and run_id = $2 and state = 'sent' and tries = $3 returning execution_id, org_id
         )
         insert into advance_queue (execution_id, agent_id, org_id) select execution_id, $8, org_id from changed",
        taken.execution_id.0,
        taken.run_id.0,
        i32::try_from(taken.tries).unwrap_or(i32::MAX),
        answer.state.as_str(),
        answer.reason.as_str(),
        answer.detail,
        serde_json::to_string(&answer.outputs).unwrap_or_default(),
        super::progress::NO_AGENT.0
    )
    .execute(pool)
    .await
    .during("end of an http call")?;
    Ok(())
}

/// How far those of an execution are.
pub(crate) async fn of_execution(
    connection: &mut PgConnection,
    execution: ExecutionId,
) -> Result<Vec<(RunId, Standing)>> {
    let rows = sqlx::query!(
        r#"select run_id, state, outcome, reason, detail, outputs as "outputs: Json<Outputs>" from http_calls
           where execution_id = $1"#,
        execution.0
    )
    .fetch_all(connection)
    .await
    .during("query for the execution's http calls")?;
    let each = rows.into_iter().map(|row| {
        let standing = match row.state.as_str() {
            "waiting" => Standing::Waiting,
            "sent" => Standing::Sent,
            _ => Standing::Ended(Answer {
                state: row.outcome.as_deref().and_then(RunState::parse).unwrap_or(RunState::Unknown),
                reason: row.reason.as_deref().and_then(Reason::parse).unwrap_or(Reason::AnswerLost),
                detail: row.detail.unwrap_or_default(),
                outputs: row.outputs.map(|outputs| outputs.0).unwrap_or_default(),
            }),
        };
        (row.run_id.into(), standing)
    });
    Ok(each.collect())
}

/// Takes away the one of a run that is over.
pub(crate) async fn remove(connection: &mut PgConnection, execution: ExecutionId, run: RunId) -> Result<()> {
    sqlx::query!("delete from http_calls where execution_id = $1 and run_id = $2", execution.0, run.0)
        .execute(connection)
        .await
        .during("removal of an http call")?;
    Ok(())
}

/// Forgets those of runs that ended in another way.
pub(crate) async fn forget(pool: &PgPool, before: Timestamp) -> Result<()> {
    sqlx::query!(
        "delete from http_calls c using executions e
         where e.id = c.execution_id and e.ended_at < $1 and c.due_at < $1 and c.state <> 'sent'",
        before.to_sqlx()
    )
    .execute(pool)
    .await
    .during("removal of old http calls")?;
    Ok(())
}

/// Takes one away that waits; answers whether it did.
pub(crate) async fn take_back(
    connection: &mut PgConnection,
    execution: ExecutionId,
    run: RunId,
) -> Result<bool> {
    let done = sqlx::query!(
        "delete from http_calls where execution_id = $1 and run_id = $2 and state = 'waiting'",
        execution.0,
        run.0
    )
    .execute(connection)
    .await
    .during("removal of an http call")?;
    Ok(done.rows_affected() == 1)
}
