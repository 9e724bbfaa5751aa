//! Audit entries and outbox events: written in the transaction of what they tell.

use jiff::Timestamp;
use jiff_sqlx::ToSqlx;
use model::id::{OrgId, uuid_v7};
use serde_json::Value;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::{
    clock,
    error::{During, Result},
};

/// One action: who did what to what, and how it went.
#[derive(Debug)]
pub(crate) struct Entry<'a> {
    pub actor: &'a str,
    pub verb: &'static str,
    /// `noun/id`.
    pub object: String,
    pub outcome: &'static str,
    pub request_id: &'a str,
    pub detail: Value,
}

/// Writes the entry, and the event of the same name for those who listen.
pub(crate) async fn record(
    connection: &mut PgConnection,
    org: OrgId,
    now: Timestamp,
    entry: Entry<'_>,
) -> Result<()> {
    record_all(connection, now, vec![(org, entry)]).await
}

/// Writes many at once.
pub(crate) async fn record_all(
    connection: &mut PgConnection,
    now: Timestamp,
    entries: Vec<(OrgId, Entry<'_>)>,
) -> Result<()> {
    if entries.is_empty() {
        return Ok(());
    }
    let ids: Vec<Uuid> = entries.iter().map(|_| uuid_v7(now, clock::entropy())).collect();
    let orgs: Vec<Uuid> = entries.iter().map(|(org, _)| org.0).collect();
    let actors: Vec<&str> = entries.iter().map(|(_, entry)| entry.actor).collect();
    let verbs: Vec<&str> = entries.iter().map(|(_, entry)| entry.verb).collect();
    let objects: Vec<&str> = entries.iter().map(|(_, entry)| entry.object.as_str()).collect();
    let outcomes: Vec<&str> = entries.iter().map(|(_, entry)| entry.outcome).collect();
    let requests: Vec<&str> = entries.iter().map(|(_, entry)| entry.request_id).collect();
    let details: Vec<&Value> = entries.iter().map(|(_, entry)| &entry.detail).collect();
    sqlx::query!(
        "with new as (
             select * from unnest($1::uuid[], $2::uuid[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[],
                                  $9::jsonb[])
                  as n(id, org_id, actor, verb, object, outcome, request_id, detail)
         ), entry as (
             insert into audit_entries (id, org_id, at, actor, verb, object, outcome, request_id, detail)
             select id, org_id, $3, actor, verb, object, outcome, request_id, detail from new
         )
         insert into events (id, org_id, at, kind, object, data)
         select id, org_id, $3, verb, object, detail from new",
        &ids,
        &orgs,
        now.to_sqlx(),
        &actors as _,
        &verbs as _,
        &objects as _,
        &outcomes as _,
        &requests as _,
        &details as _,
    )
    .execute(connection)
    .await
    .during("insert of audit entries")?;
    Ok(())
}
