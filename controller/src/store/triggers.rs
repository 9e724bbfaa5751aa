//! What starts schedules that no clock starts: deliveries at webhooks and events, as rows of [`super::occurrences`] that wait.

use jiff::Timestamp;
use jiff_sqlx::ToSqlx;
use model::{
    api::schedule::{Cause, Delivered, OccurrenceState, Origin},
    id::{ExecutionId, OccurrenceId, OrgId, ScheduleId},
};
use sqlx::{PgConnection, PgPool};

use super::{
    events::Position,
    versions::{SavedVersion, saved_version},
};
use crate::error::{During, Error, Result};

/// A schedule with its own door.
#[derive(Debug)]
pub(crate) struct Hook {
    pub org_id: OrgId,
    pub saved: SavedVersion,
    pub secret_number: i32,
}

/// A schedule that waits for events.
#[derive(Debug)]
pub(crate) struct Listener {
    pub id: ScheduleId,
    pub saved: SavedVersion,
    pub events_from: Timestamp,
}

/// What came for a schedule, sealed.
#[derive(Debug)]
pub(crate) struct Arrival {
    pub id: OccurrenceId,
    pub org_id: OrgId,
    pub schedule_id: ScheduleId,
    pub origin: Origin,
    pub delivery: String,
    pub at: Timestamp,
    pub taken: String,
    pub chain: i16,
    pub seal: Vec<u8>,
    /// Why it starts nothing, where that is known at once.
    pub skipped: Option<(Cause, String)>,
    /// Whence it came, for people.
    pub detail: String,
}

/// The schedule of this id, if a webhook starts it.
pub(crate) async fn hook(pool: &PgPool, id: ScheduleId) -> Result<Option<Hook>> {
    let row = sqlx::query!(
        "select org_id, document, revision, author, author_id, saved_at, signed, signature, certificate, secret_number
         from schedules where id = $1 and starts_on = 'webhook' and deleted_at is null",
        id.0
    )
    .fetch_optional(pool)
    .await
    .during("query for the schedule of a webhook")?;
    Ok(row.map(|r| Hook {
        org_id: r.org_id.into(),
        secret_number: r.secret_number,
        saved: saved_version!(r),
    }))
}

/// Gives a schedule's webhook its next secret; answers its number.
pub(crate) async fn next_secret(
    connection: &mut PgConnection,
    (org, id): (OrgId, ScheduleId),
) -> Result<i32> {
    sqlx::query_scalar!(
        "update schedules set secret_number = secret_number + 1 where org_id = $1 and id = $2 returning secret_number",
        org.0,
        id.0
    )
    .fetch_one(connection)
    .await
    .during("update of the secret of a webhook")
}

/// Writes what came; answers whether it had not come before.
pub(crate) async fn arrive(connection: &mut PgConnection, new: &Arrival) -> Result<bool> {
    let (state, cause) = match &new.skipped {
        Some((cause, _)) => (OccurrenceState::Skipped, Some(cause.as_str())),
        None => (OccurrenceState::Waiting, None),
    };
    let detail = new.skipped.as_ref().map_or(&new.detail, |(_, why)| why);
    let done = sqlx::query!(
        "insert into occurrences (id, schedule_id, org_id, origin, due, state, cause, detail, at, delivery, taken, seal, chain)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $5, $9, $10, $11, $12)
         on conflict (schedule_id, delivery) where delivery is not null do nothing",
        new.id.0,
        new.schedule_id.0,
        new.org_id.0,
        new.origin.as_str(),
        new.at.to_sqlx(),
        state.as_str(),
        cause,
        detail,
        new.delivery,
        new.taken,
        new.seal,
        new.chain
    )
    .execute(connection)
    .await
    .during("insert of what came for a schedule")?;
    Ok(done.rows_affected() == 1)
}

/// What became of a delivery that came before.
pub(crate) async fn earlier(
    connection: &mut PgConnection,
    schedule: ScheduleId,
    delivery: &str,
) -> Result<Option<Delivered>> {
    let row = sqlx::query!(
        "select id, state, cause, detail from occurrences where schedule_id = $1 and delivery = $2",
        schedule.0,
        delivery
    )
    .fetch_optional(connection)
    .await
    .during("query for an earlier delivery")?;
    let unknown = |word: &str| Error::internal("an occurrence has a word that nobody knows", word.to_owned());
    row.map(|r| {
        Ok(Delivered {
            occurrence_id: r.id.into(),
            state: OccurrenceState::parse(&r.state).ok_or_else(|| unknown(&r.state))?,
            cause: r.cause.as_deref().and_then(Cause::parse),
            detail: r.detail,
            repeated: true,
        })
    })
    .transpose()
}

/// How much of what came for a schedule waits.
pub(crate) async fn waiting(connection: &mut PgConnection, schedule: ScheduleId) -> Result<i64> {
    sqlx::query_scalar!(
        r#"select count(*) as "count!" from occurrences where schedule_id = $1 and state = 'waiting'"#,
        schedule.0
    )
    .fetch_one(connection)
    .await
    .during("count of what waits for a schedule")
}

/// Has the events of an organization shown to its schedules, from now on if nobody waited for any.
pub(crate) async fn listen(connection: &mut PgConnection, org: OrgId, schedule: ScheduleId) -> Result<()> {
    sqlx::query!(
        "insert into event_positions as p (org_id, tx, id)
         values ($1, pg_snapshot_xmin(pg_current_snapshot())::text::bigint - 1, 'ffffffff-ffff-ffff-ffff-ffffffffffff')
         on conflict (org_id) do update set tx = excluded.tx, id = excluded.id
         where not exists (select from schedules s where s.org_id = p.org_id and s.starts_on = 'event'
                           and s.deleted_at is null and s.id <> $2)",
        org.0,
        schedule.0
    )
    .execute(connection)
    .await
    .during("begin of listening to events")?;
    Ok(())
}

/// Organizations with schedules that wait for events.
pub(crate) async fn listening(pool: &PgPool) -> Result<Vec<OrgId>> {
    let ids = sqlx::query_scalar!(
        "select p.org_id from event_positions p
         where exists (select from schedules s where s.org_id = p.org_id and s.starts_on = 'event' and s.deleted_at is null)"
    )
    .fetch_all(pool)
    .await
    .during("query for who listens to events")?;
    Ok(ids.into_iter().map(OrgId).collect())
}

/// Up to where its events have been shown, locked; none when somebody else is showing them.
pub(crate) async fn position(connection: &mut PgConnection, org: OrgId) -> Result<Option<Position>> {
    let row =
        sqlx::query!("select tx, id from event_positions where org_id = $1 for update skip locked", org.0)
            .fetch_optional(connection)
            .await
            .during("query for the position among events")?;
    Ok(row.map(|row| Position { tx: row.tx, id: row.id }))
}

pub(crate) async fn set_position(connection: &mut PgConnection, org: OrgId, to: Position) -> Result<()> {
    sqlx::query!("update event_positions set tx = $2, id = $3 where org_id = $1", org.0, to.tx, to.id)
        .execute(connection)
        .await
        .during("update of the position among events")?;
    Ok(())
}

/// The schedules of an organization that wait for events.
pub(crate) async fn listeners(connection: &mut PgConnection, org: OrgId) -> Result<Vec<Listener>> {
    let rows = sqlx::query!(
        r#"select id, document, revision, author, author_id, saved_at, signed, signature, certificate,
                  events_from as "events_from!"
           from schedules where org_id = $1 and starts_on = 'event' and deleted_at is null and events_from is not null"#,
        org.0
    )
    .fetch_all(connection)
    .await
    .during("query for schedules that wait for events")?;
    let listeners = rows.into_iter().map(|r| Listener {
        id: r.id.into(),
        events_from: r.events_from.to_jiff(),
        saved: saved_version!(r),
    });
    Ok(listeners.collect())
}

/// How many executions led to this one, and which schedule started it.
pub(crate) async fn chain(
    connection: &mut PgConnection,
    org: OrgId,
    id: ExecutionId,
) -> Result<Option<(i16, Option<ScheduleId>)>> {
    let row = sqlx::query!(
        r#"select e.chain, coalesce(e.schedule_id, p.schedule_id) as "schedule_id?"
           from executions e left join executions p on p.id = e.parent_id where e.org_id = $1 and e.id = $2"#,
        org.0,
        id.0
    )
    .fetch_optional(connection)
    .await
    .during("query for what led to an execution")?;
    Ok(row.map(|row| (row.chain, row.schedule_id.map(ScheduleId))))
}
