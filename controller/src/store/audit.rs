//! Audit entries and outbox events: written in the transaction of what they tell.

use jiff::Timestamp;
use jiff_sqlx::ToSqlx;
use model::id::{OrgId, uuid_v7};
use serde_json::Value;
use sqlx::PgConnection;

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
    sqlx::query!(
        "with entry as (
             insert into audit_entries (id, org_id, at, actor, verb, object, outcome, request_id, detail)
             values ($1, $2, $3, $4, $5, $6, $7, $8, $9)
         )
         insert into events (id, org_id, at, kind, object, data) values ($1, $2, $3, $5, $6, $9)",
        uuid_v7(now, clock::entropy()),
        org.0,
        now.to_sqlx(),
        entry.actor,
        entry.verb,
        entry.object,
        entry.outcome,
        entry.request_id,
        entry.detail,
    )
    .execute(connection)
    .await
    .during("insert of the audit entry")?;
    Ok(())
}
