//! Events: listed by their time, and followed by the transaction that wrote them.

use std::{fmt, str::FromStr};

use jiff::Timestamp;
use jiff_sqlx::ToSqlx;
use model::{api::event::Event, id::OrgId};
use serde_json::{Map, Value};
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use crate::error::{During, Result};

/// No transaction of ours lives so long: an event of this age is complete whoever else keeps a transaction open in the
/// cluster.
const SETTLED_AFTER_SECONDS: f64 = 120.0;

/// Which events are wanted.
#[derive(Debug, Clone, Default)]
pub(crate) struct Filter {
    /// A kind, or all that begin with it where it ends with a dot.
    pub kind: Option<Kind>,
    pub object: Option<String>,
    pub since: Option<Timestamp>,
    pub until: Option<Timestamp>,
}

/// A kind, or the beginning of several.
#[derive(Debug, Clone)]
pub(crate) enum Kind {
    Is(String),
    BeginsWith(String),
}

impl Filter {
    /// For `kind = $` and `starts_with(kind, $)`.
    fn kinds(&self) -> (Option<&str>, Option<&str>) {
        match &self.kind {
            None => (None, None),
            Some(Kind::Is(kind)) => (Some(kind), None),
            Some(Kind::BeginsWith(start)) => (None, Some(start)),
        }
    }
}

/// Behind which event to go on: its transaction and its id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Position {
    pub tx: i64,
    pub id: Uuid,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.tx, self.id.simple())
    }
}

impl FromStr for Position {
    type Err = ();

    fn from_str(text: &str) -> std::result::Result<Self, ()> {
        let (tx, id) = text.split_once('-').ok_or(())?;
        let tx: i64 = tx.parse().ok().filter(|tx| *tx >= 0).ok_or(())?;
        Ok(Self { tx, id: Uuid::try_parse(id).map_err(|_| ())? })
    }
}

/// An event to be.
#[derive(Debug)]
pub(crate) struct NewEvent<'a> {
    pub id: Uuid,
    pub at: Timestamp,
    pub kind: &'a str,
    pub object: &'a str,
    pub actor: &'a str,
    pub data: &'a Value,
}

pub(crate) async fn insert(connection: &mut PgConnection, org: OrgId, new: &NewEvent<'_>) -> Result<()> {
    sqlx::query!(
        "insert into events (id, org_id, at, kind, object, actor, data) values ($1, $2, $3, $4, $5, $6, $7)",
        new.id,
        org.0,
        new.at.to_sqlx(),
        new.kind,
        new.object,
        new.actor,
        new.data
    )
    .execute(connection)
    .await
    .during("insert of the event")?;
    Ok(())
}

macro_rules! event {
    ($r:ident) => {
        Event {
            id: $r.id,
            time: $r.at.to_jiff(),
            kind: $r.kind,
            object: $r.object,
            actor: Some($r.actor).filter(|actor| !actor.is_empty()),
            outcome: $r.outcome,
            data: match $r.data {
                Value::Object(data) => data,
                other => Map::from_iter([("value".to_owned(), other)]),
            },
        }
    };
}

/// The newest first, from behind `after`.
pub(crate) async fn page(
    pool: &PgPool,
    org: OrgId,
    filter: &Filter,
    after: Option<(Timestamp, Uuid)>,
    limit: i64,
) -> Result<Vec<Event>> {
    let (kind, start) = filter.kinds();
    let (at, id) = after.unzip();
    let records = sqlx::query!(
        r#"select id, at as "at: jiff_sqlx::Timestamp", kind, object, actor, outcome, data from events
           where org_id = $1 and ($2::text is null or kind = $2) and ($3::text is null or starts_with(kind, $3))
             and ($4::text is null or object = $4)
             and at >= coalesce($5::timestamptz, '-infinity') and at < coalesce($6::timestamptz, 'infinity')
             and (at, id) < (coalesce($7::timestamptz, 'infinity'), coalesce($8::uuid, $1))
           order by at desc, id desc limit $9"#,
        org.0,
        kind,
        start,
        filter.object.as_deref(),
        filter.since.map(ToSqlx::to_sqlx) as _,
        filter.until.map(ToSqlx::to_sqlx) as _,
        at.map(ToSqlx::to_sqlx) as _,
        id,
        limit
    )
    .fetch_all(pool)
    .await
    .during("query for events")?;
    Ok(records.into_iter().map(|r| event!(r)).collect())
}

/// Which events count as complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Complete {
    /// Those before which no transaction is open that writes.
    Surely,
    /// These, and those that are so old that the transaction that is still open is none of ours.
    OrByAge,
}

/// Those that are complete, in the order in which they are told, from behind `after`; and behind what to go on.
pub(crate) async fn following(
    pool: &PgPool,
    org: OrgId,
    filter: &Filter,
    (after, complete): (Position, Complete),
    limit: i64,
) -> Result<(Vec<(Position, Event)>, Position)> {
    // Before the look: whatever is complete by now is seen by it, so that what does not match is passed over once.
    let by_now = now(pool).await?;
    let (kind, start) = filter.kinds();
    let records = sqlx::query!(
        r#"select id, at as "at: jiff_sqlx::Timestamp", kind, object, actor, outcome, data, tx::text::bigint as "tx!" from events
           where org_id = $1 and (tx, id) > ($2::bigint::text::xid8, $3::uuid)
             and (tx < pg_snapshot_xmin(pg_current_snapshot()) or $11 and at < now() - make_interval(secs => $10))
             and ($4::text is null or kind = $4) and ($5::text is null or starts_with(kind, $5))
             and ($6::text is null or object = $6)
             and at >= coalesce($7::timestamptz, '-infinity') and at < coalesce($8::timestamptz, 'infinity')
           order by tx, id limit $9"#,
        org.0,
        after.tx,
        after.id,
        kind,
        start,
        filter.object.as_deref(),
        filter.since.map(ToSqlx::to_sqlx) as _,
        filter.until.map(ToSqlx::to_sqlx) as _,
        limit,
        SETTLED_AFTER_SECONDS,
        complete == Complete::OrByAge
    )
    .fetch_all(pool)
    .await
    .during("query for new events")?;
    let rows: Vec<_> = records.into_iter().map(|r| (Position { tx: r.tx, id: r.id }, event!(r))).collect();
    let next = rows.last().map_or_else(|| after.max(by_now), |(position, _)| *position);
    Ok((rows, next))
}

/// Behind all that is complete now; what is being written comes behind it.
pub(crate) async fn now(pool: &PgPool) -> Result<Position> {
    let oldest =
        sqlx::query_scalar!(r#"select pg_snapshot_xmin(pg_current_snapshot())::text::bigint as "oldest!""#)
            .fetch_one(pool)
            .await
            .during("query for the oldest transaction")?;
    Ok(Position { tx: oldest - 1, id: Uuid::max() })
}

/// Brings events from another cluster (a dump that was read in here) before all that this one will write: its transactions
/// count from their own beginning. What had been shown to schedules stays shown, and what had not will be.
pub(crate) async fn adopt(pool: &PgPool) -> Result<u64> {
    sqlx::query!(
        "with foreign_ones as (
             select p.org_id, p.tx, p.id from event_positions p
             where p.tx >= pg_snapshot_xmax(pg_current_snapshot())::text::bigint
                or exists (select from events e where e.org_id = p.org_id and e.tx >= pg_snapshot_xmax(pg_current_snapshot()))
         ), counted as (
             update events e set tx = case when (e.tx::text::bigint, e.id) > (f.tx, f.id) then '1'::xid8 else '0'::xid8 end
             from foreign_ones f where e.org_id = f.org_id
         ), placed as (
             update event_positions p set tx = 0, id = 'ffffffff-ffff-ffff-ffff-ffffffffffff'
             from foreign_ones f where p.org_id = f.org_id
         )
         update schedules s set events_after = 0 from foreign_ones f where s.org_id = f.org_id"
    )
    .execute(pool)
    .await
    .during("adoption of what was shown of events from another cluster")?;
    let done = sqlx::query!(
        "update events set tx = '0'
         where org_id in (select id from organizations) and tx >= pg_snapshot_xmax(pg_current_snapshot())"
    )
    .execute(pool)
    .await
    .during("adoption of events from another cluster")?;
    Ok(done.rows_affected())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_is_read_as_it_was_written() {
        let position = Position { tx: 7, id: Uuid::from_u128(9) };
        assert_eq!(position.to_string().parse(), Ok(position));
        for text in ["", "7", "-7-00", "x-00000000000000000000000000000009", "7-9", "7-"] {
            assert_eq!(text.parse::<Position>(), Err(()), "{text}");
        }
    }
}
