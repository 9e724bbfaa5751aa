//! Calendars: days and windows that schedules heed; an organization's own, and those that all share.

use jiff::Timestamp;
use jiff_sqlx::ToSqlx;
use model::{
    api::calendar::{Calendar, CalendarSummary},
    calendar::{self, Kind},
    id::{CalendarId, OrgId},
};
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use crate::error::{During, Error, Result};

/// A calendar to be, or as it is to be.
#[derive(Debug)]
pub(crate) struct Saved<'a> {
    pub id: CalendarId,
    /// None: all organizations share it.
    pub org_id: Option<OrgId>,
    pub calendar: &'a calendar::Calendar,
    pub document: &'a str,
    pub version: i32,
    pub at: Timestamp,
    pub by: &'a str,
}

impl Saved<'_> {
    fn size(&self) -> i32 {
        i32::try_from(self.calendar.entries.len()).unwrap_or(i32::MAX)
    }
}

/// A calendar that a schedule names, as it is now.
#[derive(Debug)]
pub(crate) struct Named {
    pub org_id: OrgId,
    pub name: String,
    pub id: CalendarId,
    pub version: i32,
    pub updated_at: Timestamp,
}

pub(crate) async fn insert(connection: &mut PgConnection, new: &Saved<'_>) -> Result<()> {
    sqlx::query!(
        "insert into calendars (id, org_id, name, document, description, kind, zone, size, version, created_at, created_by,
                                updated_at, updated_by)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $10, $11)",
        new.id.0,
        new.org_id.map(|org| org.0),
        new.calendar.name,
        new.document,
        new.calendar.description,
        new.calendar.kind.as_str(),
        new.calendar.zone,
        new.size(),
        new.version,
        new.at.to_sqlx(),
        new.by
    )
    .execute(connection)
    .await
    .map_err(|error| Error::taken(error, "calendars_name_key", "calendar", &new.calendar.name))
    .during("insert of the calendar")?;
    Ok(())
}

/// All of it but its name anew.
pub(crate) async fn update(connection: &mut PgConnection, new: &Saved<'_>) -> Result<()> {
    let done = sqlx::query!(
        "update calendars
         set document = $3, description = $4, kind = $5, zone = $6, size = $7, version = $8, updated_at = $9, updated_by = $10
         where id = $1 and org_id is not distinct from $2",
        new.id.0,
        new.org_id.map(|org| org.0),
        new.document,
        new.calendar.description,
        new.calendar.kind.as_str(),
        new.calendar.zone,
        new.size(),
        new.version,
        new.at.to_sqlx(),
        new.by
    )
    .execute(connection)
    .await
    .during("update of the calendar")?;
    super::runs::exactly(done.rows_affected(), 1)
}

pub(crate) async fn delete(connection: &mut PgConnection, id: CalendarId) -> Result<()> {
    let done = sqlx::query!("delete from calendars where id = $1", id.0)
        .execute(connection)
        .await
        .during("delete of the calendar")?;
    super::runs::exactly(done.rows_affected(), 1)
}

/// The calendar of this id or name that an organization sees; its own comes before a shared one. Locks its row when it is to be
/// changed, if the organization may change it.
pub(crate) async fn find(
    connection: &mut PgConnection,
    org: OrgId,
    key: &str,
    to_change: bool,
) -> Result<Option<Calendar>> {
    let id = key.parse::<CalendarId>().ok().map(|id| id.0);
    if to_change {
        sqlx::query!(
            "select id from calendars where (org_id = $1 or org_id is null) and (id = $2 or name = $3) for update",
            org.0,
            id,
            key
        )
        .fetch_all(&mut *connection)
        .await
        .during("lock of the calendar")?;
    }
    let row = sqlx::query!(
        r#"select id, org_id is null as "is_shared!", document, version, created_at, created_by, updated_at, updated_by
           from calendars where (org_id = $1 or org_id is null) and (id = $2 or name = $3)
           order by org_id nulls last limit 1"#,
        org.0,
        id,
        key
    )
    .fetch_optional(connection)
    .await
    .during("query for the calendar")?;
    let Some(row) = row else { return Ok(None) };
    Ok(Some(Calendar {
        id: row.id.into(),
        shared: row.is_shared,
        calendar: read(&row.document)?,
        version: row.version,
        created_at: row.created_at.to_jiff(),
        created_by: row.created_by,
        updated_at: row.updated_at.to_jiff(),
        updated_by: row.updated_by,
    }))
}

/// A document as it was saved.
pub(crate) fn read(document: &str) -> Result<calendar::Calendar> {
    serde_json::from_str(document)
        .map_err(|error| Error::Tampered(format!("the calendar cannot be read ({error})")))
}

/// How many an organization has of its own; without one: how many are shared.
pub(crate) async fn count(connection: &mut PgConnection, org: Option<OrgId>) -> Result<i64> {
    sqlx::query_scalar!(
        r#"select count(*) as "count!" from calendars where org_id is not distinct from $1"#,
        org.map(|org| org.0)
    )
    .fetch_one(connection)
    .await
    .during("count of calendars")
}

/// By name, an organization's own before a shared one, from behind `after`.
pub(crate) async fn page(
    pool: &PgPool,
    org: OrgId,
    after: Option<&(String, bool)>,
    limit: i64,
) -> Result<Vec<CalendarSummary>> {
    let rows = sqlx::query!(
        r#"select id, name, org_id is null as "is_shared!", description, kind, zone, size, version, updated_at, updated_by
           from calendars
           where (org_id = $1 or org_id is null) and ($2::text is null or (name, org_id is null) > ($2, $3::bool))
           order by name, org_id is null limit $4"#,
        org.0,
        after.map(|after| after.0.as_str()),
        after.map(|after| after.1),
        limit
    )
    .fetch_all(pool)
    .await
    .during("query for calendars")?;
    rows.into_iter()
        .map(|row| {
            let kind = Kind::parse(&row.kind).ok_or_else(|| {
                Error::internal("a calendar is of a kind that nobody knows", row.kind.clone())
            })?;
            Ok(CalendarSummary {
                id: row.id.into(),
                name: row.name,
                shared: row.is_shared,
                description: row.description,
                kind,
                zone: row.zone,
                size: row.size,
                version: row.version,
                updated_at: row.updated_at.to_jiff(),
                updated_by: row.updated_by,
            })
        })
        .collect()
}

/// Those that organizations mean by these names: their own, else a shared one.
pub(crate) async fn named(connection: &mut PgConnection, names: &[(OrgId, &str)]) -> Result<Vec<Named>> {
    let orgs: Vec<Uuid> = names.iter().map(|(org, _)| org.0).collect();
    let names: Vec<&str> = names.iter().map(|(_, name)| *name).collect();
    let rows = sqlx::query!(
        r#"select w.org_id as "org_id!", w.name as "name!", c.id, c.version, c.updated_at
           from unnest($1::uuid[], $2::text[]) as w(org_id, name)
           cross join lateral (select id, version, updated_at from calendars
                               where name = w.name and (org_id = w.org_id or org_id is null)
                               order by org_id nulls last limit 1) c"#,
        &orgs,
        &names as _
    )
    .fetch_all(connection)
    .await
    .during("query for calendars of schedules")?;
    let named = rows.into_iter().map(|row| Named {
        org_id: row.org_id.into(),
        name: row.name,
        id: row.id.into(),
        version: row.version,
        updated_at: row.updated_at.to_jiff(),
    });
    Ok(named.collect())
}

/// The documents of these.
pub(crate) async fn documents(
    connection: &mut PgConnection,
    calendars: &[Uuid],
) -> Result<Vec<(CalendarId, String)>> {
    let rows = sqlx::query!("select id, document from calendars where id = any($1)", calendars)
        .fetch_all(connection)
        .await
        .during("query for documents of calendars")?;
    Ok(rows.into_iter().map(|row| (row.id.into(), row.document)).collect())
}

/// Keeps an organization's own calendars of these names from being deleted until the end of the transaction.
pub(crate) async fn hold(connection: &mut PgConnection, org: OrgId, names: &[String]) -> Result<()> {
    sqlx::query!(
        "select id from calendars where org_id = $1 and name = any($2) order by id for key share",
        org.0,
        names
    )
    .fetch_all(connection)
    .await
    .during("lock of calendars")?;
    Ok(())
}

/// Names of schedules of an organization that name this calendar, at most `limit`.
pub(crate) async fn schedules_of(
    connection: &mut PgConnection,
    org: OrgId,
    name: &str,
    limit: i64,
) -> Result<Vec<String>> {
    // Few documents have the name in them at all: only these are read.
    sqlx::query_scalar!(
        r#"select name from schedules
           where org_id = $1 and deleted_at is null
             and case when strpos(document, to_json($2::text)::text) > 0 then document::jsonb -> 'calendars' ? $2 else false end
           order by name limit $3"#,
        org.0,
        name,
        limit
    )
    .fetch_all(connection)
    .await
    .during("query for schedules that name the calendar")
}

/// How many schedules of organizations other than `org` mean the shared calendar of this name.
pub(crate) async fn schedules_elsewhere(
    connection: &mut PgConnection,
    org: OrgId,
    name: &str,
) -> Result<i64> {
    sqlx::query_scalar!(
        r#"select count(*) as "count!" from schedules s
           where s.org_id <> $1 and s.deleted_at is null
             and case when strpos(s.document, to_json($2::text)::text) > 0
                      then s.document::jsonb -> 'calendars' ? $2 else false end
             and not exists (select from calendars c where c.org_id = s.org_id and c.name = $2)"#,
        org.0,
        name
    )
    .fetch_one(connection)
    .await
    .during("count of schedules that mean the shared calendar")
}
