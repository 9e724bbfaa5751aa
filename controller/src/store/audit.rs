//! Audit entries and outbox events: written in the transaction of what they tell. With each entry goes a row of the queue
//! from which the sequencer takes what it chains.

use std::net::IpAddr;

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

/// One action: who did what to what, whence, and how it went.
#[derive(Debug)]
pub(crate) struct Entry<'a> {
    /// The name, as people know it; names may be given to somebody else later.
    pub actor: &'a str,
    /// `noun/id`, which is never given again; empty for what has no row of its own.
    pub actor_id: String,
    pub verb: &'static str,
    /// `noun/id`.
    pub object: String,
    pub outcome: &'static str,
    pub request_id: &'a str,
    /// The address that it came from.
    pub source: Option<IpAddr>,
    /// What else there is to know, among it `before` and `after` of what was changed. Never a secret, and no numbers but
    /// whole ones: what is hashed must be written one way only. Others are kept as texts.
    pub detail: Value,
}

impl<'a> Entry<'a> {
    /// Something that was done, not by a request of somebody's.
    pub(crate) fn new(actor: &'a str, verb: &'static str, object: String, detail: Value) -> Self {
        Self {
            actor,
            actor_id: String::new(),
            verb,
            object,
            outcome: "done",
            request_id: "",
            source: None,
            detail,
        }
    }
}

/// What the events of these kinds tell whoever may see events. Of all others the details are for those who may read the audit.
const TOLD: [&str; 5] = ["agent.", "controller.", "enroll_token.", "execution.", "schedule."];

/// Writes the entry, and the event of the same name for those who listen.
pub(crate) async fn record(
    connection: &mut PgConnection,
    org: OrgId,
    now: Timestamp,
    entry: Entry<'_>,
) -> Result<()> {
    record_all(connection, now, vec![(org, entry)]).await
}

/// Writes many at once, all of one time.
pub(crate) async fn record_all(
    connection: &mut PgConnection,
    now: Timestamp,
    entries: Vec<(OrgId, Entry<'_>)>,
) -> Result<()> {
    record_each(connection, &vec![now; entries.len()], entries).await
}

/// Writes many at once, each with its time.
pub(crate) async fn record_each(
    connection: &mut PgConnection,
    times: &[Timestamp],
    entries: Vec<(OrgId, Entry<'_>)>,
) -> Result<()> {
    if entries.is_empty() {
        return Ok(());
    }
    let ids: Vec<Uuid> = times.iter().map(|at| uuid_v7(*at, clock::entropy())).collect();
    let times: Vec<jiff_sqlx::Timestamp> = times.iter().map(|at| at.to_sqlx()).collect();
    let orgs: Vec<Uuid> = entries.iter().map(|(org, _)| org.0).collect();
    let actors: Vec<&str> = entries.iter().map(|(_, entry)| entry.actor).collect();
    let verbs: Vec<&str> = entries.iter().map(|(_, entry)| entry.verb).collect();
    let objects: Vec<&str> = entries.iter().map(|(_, entry)| entry.object.as_str()).collect();
    let outcomes: Vec<&str> = entries.iter().map(|(_, entry)| entry.outcome).collect();
    let requests: Vec<&str> = entries.iter().map(|(_, entry)| entry.request_id).collect();
    let actor_ids: Vec<&str> = entries.iter().map(|(_, entry)| entry.actor_id.as_str()).collect();
    let sources: Vec<String> = entries
        .iter()
        .map(|(_, entry)| entry.source.map_or_else(String::new, |source| source.to_string()))
        .collect();
    let details: Vec<Value> =
        entries.iter().map(|(_, entry)| model::audit::whole(entry.detail.clone())).collect();
    let told: Vec<bool> =
        entries.iter().map(|(_, entry)| TOLD.iter().any(|kind| entry.verb.starts_with(kind))).collect();
    // An event that somebody adds is in the list already.
    sqlx::query!(
        "with new as (
             select * from unnest($1::uuid[], $2::uuid[], $3::timestamptz[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[],
                                  $9::jsonb[], $10::text[], $11::text[], $12::bool[])
                  as n(id, org_id, at, actor, verb, object, outcome, request_id, detail, actor_id, source, told)
         ), entry as (
             insert into audit_entries
                 (id, org_id, at, actor, actor_id, verb, object, outcome, request_id, source, detail)
             select id, org_id, at, actor, actor_id, verb, object, outcome, request_id, source, detail from new
         ), queued as (
             insert into audit_queue (org_id, at, entry_id) select org_id, at, id from new
         )
         insert into events (id, org_id, at, kind, object, actor, outcome, data)
         select id, org_id, at, verb, object, actor, outcome, case when told then detail else '{}' end
         from new where verb <> 'event.create'",
        &ids,
        &orgs,
        &times as _,
        &actors as _,
        &verbs as _,
        &objects as _,
        &outcomes as _,
        &requests as _,
        &details,
        &actor_ids as _,
        &sources,
        &told,
    )
    .execute(connection)
    .await
    .during("insert of audit entries")?;
    Ok(())
}
