//! Occurrences: what became of each firing of a schedule. A planned one has exactly one row.

use jiff::Timestamp;
use jiff_sqlx::ToSqlx;
use model::{
    api::schedule::{Cause, Occurrence, OccurrenceState, Origin},
    execution::ExecutionState,
    id::{ExecutionId, OccurrenceId, OrgId, ScheduleId},
};
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use crate::error::{During, Error, Result};

/// An occurrence to be, or what one that waited has become.
#[derive(Debug, Clone)]
pub(crate) struct Decided {
    pub id: OccurrenceId,
    pub schedule_id: ScheduleId,
    pub org_id: OrgId,
    pub origin: Origin,
    pub due: Timestamp,
    /// Of one of a backfill: it begins when fewer executions are open than so many.
    pub at_a_time: Option<i16>,
    pub state: OccurrenceState,
    pub cause: Option<Cause>,
    pub detail: Option<String>,
    pub execution_id: Option<ExecutionId>,
}

/// One that waits.
#[derive(Debug, Clone)]
pub(crate) struct Waiting {
    pub id: OccurrenceId,
    pub schedule_id: ScheduleId,
    pub origin: Origin,
    pub due: Timestamp,
    pub at_a_time: Option<i16>,
    /// Since when.
    pub at: Timestamp,
    /// What came, of one that no clock plans.
    pub came: Option<Came>,
}

/// What came for a schedule.
#[derive(Debug, Clone)]
pub(crate) struct Came {
    pub delivery: String,
    /// The revision of the schedule that judged it.
    pub revision: i32,
    pub chain: i16,
    /// Nobody has decided about it.
    pub is_new: bool,
}

/// Writes new ones, and what those have become that waited.
pub(crate) async fn write(connection: &mut PgConnection, decided: &[Decided], now: Timestamp) -> Result<()> {
    if decided.is_empty() {
        return Ok(());
    }
    let ids: Vec<Uuid> = decided.iter().map(|one| one.id.0).collect();
    let schedules: Vec<Uuid> = decided.iter().map(|one| one.schedule_id.0).collect();
    let orgs: Vec<Uuid> = decided.iter().map(|one| one.org_id.0).collect();
    let origins: Vec<&str> = decided.iter().map(|one| one.origin.as_str()).collect();
    let dues: Vec<jiff_sqlx::Timestamp> = decided.iter().map(|one| one.due.to_sqlx()).collect();
    let states: Vec<&str> = decided.iter().map(|one| one.state.as_str()).collect();
    let causes: Vec<Option<&str>> = decided.iter().map(|one| one.cause.map(Cause::as_str)).collect();
    let details: Vec<Option<&str>> = decided.iter().map(|one| one.detail.as_deref()).collect();
    let executions: Vec<Option<Uuid>> = decided.iter().map(|one| one.execution_id.map(|id| id.0)).collect();
    let at_a_time: Vec<Option<i16>> = decided.iter().map(|one| one.at_a_time).collect();
    let done = sqlx::query!(
        "insert into occurrences (id, schedule_id, org_id, origin, due, state, cause, detail, execution_id, at, at_a_time)
         select id, schedule_id, org_id, origin, due, state, cause, detail, execution_id, $10, at_a_time
         from unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::text[], $5::timestamptz[], $6::text[], $7::text[], $8::text[],
                     $9::uuid[], $11::smallint[])
              as n(id, schedule_id, org_id, origin, due, state, cause, detail, execution_id, at_a_time)
         on conflict (id) do update
         set state = excluded.state, cause = excluded.cause, detail = coalesce(excluded.detail, occurrences.detail), execution_id = excluded.execution_id,
             at = excluded.at, taken = case when excluded.state = 'waiting' then occurrences.taken end,
             seal = case when excluded.state = 'waiting' then occurrences.seal end
         where occurrences.state = 'waiting'",
        &ids,
        &schedules,
        &orgs,
        &origins as _,
        &dues as _,
        &states as _,
        &causes as _,
        &details as _,
        &executions as _,
        now.to_sqlx(),
        &at_a_time as _
    )
    .execute(connection)
    .await
    .during("insert of occurrences")?;
    super::runs::exactly(done.rows_affected(), decided.len())
}

/// Those of these schedules that wait, the oldest first.
pub(crate) async fn waiting(connection: &mut PgConnection, schedules: &[Uuid]) -> Result<Vec<Waiting>> {
    let rows = sqlx::query!(
        "select id, schedule_id, origin, due, cause, at_a_time, at, delivery, revision, chain
         from occurrences where schedule_id = any($1) and state = 'waiting' order by due, id",
        schedules
    )
    .fetch_all(connection)
    .await
    .during("query for occurrences that wait")?;
    rows.into_iter()
        .map(|row| {
            Ok(Waiting {
                id: row.id.into(),
                schedule_id: row.schedule_id.into(),
                origin: Origin::parse(&row.origin).ok_or_else(|| unknown(&row.origin))?,
                due: row.due.to_jiff(),
                at_a_time: row.at_a_time,
                at: row.at.to_jiff(),
                came: row.delivery.map(|delivery| Came {
                    delivery,
                    revision: row.revision.unwrap_or_default(),
                    chain: row.chain,
                    is_new: row.cause.is_none(),
                }),
            })
        })
        .collect()
}

/// Ends those of a schedule that wait, but for what was sealed for its revision `kept`.
pub(crate) async fn end_waiting(
    connection: &mut PgConnection,
    (org, schedule): (OrgId, ScheduleId),
    cause: Cause,
    kept: Option<i32>,
    now: Timestamp,
) -> Result<()> {
    sqlx::query!(
        "update occurrences set state = 'skipped', cause = $3, detail = null, at = $4, taken = null, seal = null
         where org_id = $1 and schedule_id = $2 and state = 'waiting' and ($5::int is null or revision is distinct from $5)",
        org.0,
        schedule.0,
        cause.as_str(),
        now.to_sqlx(),
        kept
    )
    .execute(connection)
    .await
    .during("end of occurrences that wait")?;
    Ok(())
}

/// Which of these times of a schedule have started something, or will.
pub(crate) async fn begun(
    connection: &mut PgConnection,
    (org, schedule): (OrgId, ScheduleId),
    times: &[Timestamp],
) -> Result<Vec<Timestamp>> {
    let times: Vec<jiff_sqlx::Timestamp> = times.iter().map(|time| time.to_sqlx()).collect();
    let begun = sqlx::query_scalar!(
        "select distinct due from occurrences
         where org_id = $1 and schedule_id = $2 and due = any($3) and origin <> 'manual'
           and (execution_id is not null or state = 'waiting')",
        org.0,
        schedule.0,
        &times as _
    )
    .fetch_all(connection)
    .await
    .during("query for what has begun")?;
    Ok(begun.into_iter().map(jiff_sqlx::Timestamp::to_jiff).collect())
}

/// Those of a schedule, the newest first, from behind `after`, with how their executions stand.
pub(crate) async fn page(
    pool: &PgPool,
    (org, schedule): (OrgId, ScheduleId),
    state: Option<OccurrenceState>,
    after: Option<(Timestamp, OccurrenceId)>,
    limit: i64,
) -> Result<Vec<Occurrence>> {
    let rows = sqlx::query!(
        r#"select o.id, o.origin, o.delivery, o.due, o.state, o.cause, o.detail, o.execution_id, o.at, e.state as "execution_state?"
           from occurrences o left join executions e on e.org_id = $1 and e.id = o.execution_id
           where o.org_id = $1 and o.schedule_id = $2 and ($3::text is null or o.state = $3)
             and ($4::timestamptz is null or (o.due, o.id) < ($4, $5::uuid))
           order by o.due desc, o.id desc limit $6"#,
        org.0,
        schedule.0,
        state.map(OccurrenceState::as_str),
        after.map(|(due, _)| due.to_sqlx()) as _,
        after.map(|(_, id)| id.0),
        limit
    )
    .fetch_all(pool)
    .await
    .during("query for occurrences")?;
    rows.into_iter()
        .map(|r| {
            Ok(Occurrence {
                id: r.id.into(),
                schedule_id: schedule,
                origin: Origin::parse(&r.origin).ok_or_else(|| unknown(&r.origin))?,
                delivery: r.delivery,
                due: r.due.to_jiff(),
                state: OccurrenceState::parse(&r.state).ok_or_else(|| unknown(&r.state))?,
                cause: r.cause.as_deref().and_then(Cause::parse),
                detail: r.detail,
                execution_id: r.execution_id.map(ExecutionId),
                execution_state: r.execution_state.as_deref().and_then(ExecutionState::parse),
                at: r.at.to_jiff(),
            })
        })
        .collect()
}

fn unknown(word: &str) -> Error {
    Error::internal("an occurrence has a word that nobody knows", word.to_owned())
}

/// Forgets those that were decided before `before`, but none that waits; at most `limit`. Answers how many these were.
pub(crate) async fn forget(pool: &PgPool, before: Timestamp, limit: i64) -> Result<u64> {
    let done = sqlx::query!(
        "delete from occurrences where id in (
             select id from occurrences where at < $1 and state <> 'waiting' order by at limit $2)",
        before.to_sqlx(),
        limit
    )
    .execute(pool)
    .await
    .during("delete of old occurrences")?;
    Ok(done.rows_affected())
}
