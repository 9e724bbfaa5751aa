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
    occurrences::{Came, Waiting},
    versions::{SavedVersion, saved_version},
};
use crate::error::{During, Error, Result};

/// A schedule with its own door.
#[derive(Debug)]
pub(crate) struct Hook {
    pub org_id: OrgId,
    pub saved: SavedVersion,
    /// Above 0 where there is a secret.
    pub secret_number: i32,
    pub is_paused: bool,
}

/// A schedule that waits for events.
#[derive(Debug)]
pub(crate) struct Listener {
    pub id: ScheduleId,
    pub saved: SavedVersion,
    /// Events of earlier transactions happened before it waited for any.
    pub events_after: i64,
    pub is_paused: bool,
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
    /// The revision of the schedule that judged it.
    pub revision: i32,
    pub chain: i16,
    pub verdict: Verdict,
    /// Whence it came, for people.
    pub detail: String,
}

/// What the schedule's expressions said of what came.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// It is to start with this, as JSON and sealed.
    Start {
        taken: String,
        seal: Vec<u8>,
    },
    Skip(Cause, String),
}

/// What was taken out of what waits, and the seal of it.
#[derive(Debug)]
pub(crate) struct Sealed {
    pub taken: String,
    pub seal: Vec<u8>,
}

/// The schedule of this id, if a webhook starts it.
pub(crate) async fn hook(pool: &PgPool, id: ScheduleId) -> Result<Option<Hook>> {
    let row = sqlx::query!(
        r#"select org_id, document, revision, author, author_id, saved_at, signed, signature, certificate, secret_number,
                  paused_at is not null as "is_paused!"
           from schedules where id = $1 and starts_on = 'webhook' and deleted_at is null"#,
        id.0
    )
    .fetch_optional(pool)
    .await
    .during("query for the schedule of a webhook")?;
    Ok(row.map(|r| Hook {
        org_id: r.org_id.into(),
        secret_number: r.secret_number,
        is_paused: r.is_paused,
        saved: saved_version!(schedule r),
    }))
}

/// Gives a schedule's webhook its next secret; answers its number.
pub(crate) async fn next_secret(
    connection: &mut PgConnection,
    (org, id): (OrgId, ScheduleId),
) -> Result<i32> {
    sqlx::query_scalar!(
        "update schedules set secret_number = abs(secret_number) + 1 where org_id = $1 and id = $2 returning secret_number",
        org.0,
        id.0
    )
    .fetch_one(connection)
    .await
    .during("update of the secret of a webhook")
}

/// Writes what came; answers whether it had not come before.
pub(crate) async fn arrive(connection: &mut PgConnection, new: &Arrival) -> Result<bool> {
    let (state, cause, detail, taken, seal) = match &new.verdict {
        Verdict::Start { taken, seal } => {
            (OccurrenceState::Waiting, None, &new.detail, Some(taken), Some(seal))
        }
        Verdict::Skip(cause, why) => (OccurrenceState::Skipped, Some(cause.as_str()), why, None, None),
    };
    let done = sqlx::query!(
        "insert into occurrences (id, schedule_id, org_id, origin, due, state, cause, detail, at, delivery, revision, chain,
                                  taken, seal)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $5, $9, $10, $11, $12, $13)
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
        new.revision,
        new.chain,
        taken,
        seal
    )
    .execute(connection)
    .await
    .during("insert of what came for a schedule")?;
    Ok(done.rows_affected() == 1)
}

/// What was taken out of one that waits.
pub(crate) async fn sealed(connection: &mut PgConnection, id: OccurrenceId) -> Result<Option<Sealed>> {
    let row = sqlx::query!("select taken, seal from occurrences where id = $1 and state = 'waiting'", id.0)
        .fetch_optional(connection)
        .await
        .during("query for what came for a schedule")?;
    Ok(row.and_then(|row| Some(Sealed { taken: row.taken?, seal: row.seal? })))
}

/// What came for a schedule and waits, with what was taken out of it.
pub(crate) async fn unsettled(
    connection: &mut PgConnection,
    (org, schedule): (OrgId, ScheduleId),
) -> Result<Vec<(Waiting, Came, Sealed)>> {
    let rows = sqlx::query!(
        r#"select id, origin, due, at, cause, delivery as "delivery!", revision, chain, taken as "taken!", seal as "seal!"
           from occurrences
           where org_id = $1 and schedule_id = $2 and state = 'waiting' and delivery is not null and taken is not null
             and seal is not null
           order by due, id"#,
        org.0,
        schedule.0
    )
    .fetch_all(connection)
    .await
    .during("query for what waits for a schedule")?;
    rows.into_iter()
        .map(|r| {
            let origin = Origin::parse(&r.origin).ok_or_else(|| {
                Error::internal("an occurrence has a word that nobody knows", r.origin.clone())
            })?;
            let came = Came {
                delivery: r.delivery,
                revision: r.revision.unwrap_or_default(),
                chain: r.chain,
                is_new: r.cause.is_none(),
            };
            let waiting = Waiting {
                id: r.id.into(),
                schedule_id: schedule,
                origin,
                due: r.due.to_jiff(),
                at_a_time: None,
                at: r.at.to_jiff(),
                came: None,
            };
            Ok((waiting, came, Sealed { taken: r.taken, seal: r.seal }))
        })
        .collect()
}

/// Gives what waits the seals of another revision.
pub(crate) async fn reseal(
    connection: &mut PgConnection,
    org: OrgId,
    revision: i32,
    seals: &[(OccurrenceId, Vec<u8>)],
) -> Result<()> {
    let ids: Vec<uuid::Uuid> = seals.iter().map(|(id, _)| id.0).collect();
    let seals: Vec<&[u8]> = seals.iter().map(|(_, seal)| seal.as_slice()).collect();
    sqlx::query!(
        "update occurrences o set revision = $2, seal = n.seal from unnest($3::uuid[], $4::bytea[]) as n(id, seal)
         where o.org_id = $1 and o.id = n.id and o.state = 'waiting'",
        org.0,
        revision,
        &ids,
        &seals as _
    )
    .execute(connection)
    .await
    .during("update of what waits for a schedule")?;
    Ok(())
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

/// Up to where its events have been shown.
pub(crate) async fn position(pool: &PgPool, org: OrgId) -> Result<Option<Position>> {
    let row = sqlx::query!("select tx, id from event_positions where org_id = $1", org.0)
        .fetch_optional(pool)
        .await
        .during("query for the position among events")?;
    Ok(row.map(|row| Position { tx: row.tx, id: row.id }))
}

/// Locks the position, if it is still this one and nobody else has locked it.
pub(crate) async fn hold(connection: &mut PgConnection, org: OrgId, at: Position) -> Result<bool> {
    let held = sqlx::query_scalar!(
        r#"select true as "held!" from event_positions where org_id = $1 and tx = $2 and id = $3 for update skip locked"#,
        org.0,
        at.tx,
        at.id
    )
    .fetch_optional(connection)
    .await
    .during("lock of the position among events")?;
    Ok(held.unwrap_or(false))
}

pub(crate) async fn set_position(connection: &mut PgConnection, org: OrgId, to: Position) -> Result<()> {
    sqlx::query!("update event_positions set tx = $2, id = $3 where org_id = $1", org.0, to.tx, to.id)
        .execute(connection)
        .await
        .during("update of the position among events")?;
    Ok(())
}

/// The schedules of an organization that wait for events of one of these kinds.
pub(crate) async fn listeners(pool: &PgPool, org: OrgId, kinds: &[&str]) -> Result<Vec<Listener>> {
    let rows = sqlx::query!(
        r#"select id, document, revision, author, author_id, saved_at, signed, signature, certificate, events_after,
                  paused_at is not null as "is_paused!"
           from schedules s
           where org_id = $1 and starts_on = 'event' and deleted_at is null
             and exists (select from unnest($2::text[]) as k
                         where k = s.event_kind or right(s.event_kind, 2) = '.*' and starts_with(k, left(s.event_kind, -1)))
           order by id"#,
        org.0,
        kinds as _
    )
    .fetch_all(pool)
    .await
    .during("query for schedules that wait for events")?;
    let listeners = rows.into_iter().map(|r| Listener {
        id: r.id.into(),
        events_after: r.events_after,
        is_paused: r.is_paused,
        saved: saved_version!(schedule r),
    });
    Ok(listeners.collect())
}

/// How many schedules of an organization wait for events.
pub(crate) async fn count_listeners(connection: &mut PgConnection, org: OrgId) -> Result<i64> {
    sqlx::query_scalar!(
        r#"select count(*) as "count!" from schedules where org_id = $1 and starts_on = 'event' and deleted_at is null"#,
        org.0
    )
    .fetch_one(connection)
    .await
    .during("count of schedules that wait for events")
}

/// How many executions led to this one, and which schedule started it, or the one that it is a part of.
pub(crate) async fn chain(
    connection: &mut PgConnection,
    org: OrgId,
    id: ExecutionId,
) -> Result<Option<(i16, Option<ScheduleId>)>> {
    let row = sqlx::query!(
        r#"with recursive up as (
               select parent_id, schedule_id, chain from executions where org_id = $1 and id = $2
               union all
               select e.parent_id, e.schedule_id, e.chain from up join executions e on e.id = up.parent_id
           )
           select max(chain) as "chain?", (array_agg(schedule_id) filter (where schedule_id is not null))[1] as "schedule_id?" from up"#,
        org.0,
        id.0
    )
    .fetch_one(connection)
    .await
    .during("query for what led to an execution")?;
    Ok(row.chain.map(|chain| (chain, row.schedule_id.map(ScheduleId))))
}
