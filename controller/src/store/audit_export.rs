//! The audit as people read it: pages of entries, and the chain in the order of its numbers.

use jiff::Timestamp;
use jiff_sqlx::ToSqlx;
use model::{
    api::audit::{Audited, ExportEntry},
    audit::AuditEntry,
    id::OrgId,
};
use sqlx::{FromRow, PgPool, Postgres, QueryBuilder};
use uuid::Uuid;

use super::audit_chain::{Kept, entry, kept};
use crate::error::{During, Result};

/// Which entries.
#[derive(Debug, Default)]
pub(crate) struct Filter {
    /// By name or by id.
    pub actor: Option<String>,
    pub verb: Option<String>,
    pub object: Option<String>,
    pub outcome: Option<String>,
    pub request_id: Option<String>,
    pub since: Option<Timestamp>,
    pub until: Option<Timestamp>,
}

#[derive(FromRow)]
struct Row {
    id: Uuid,
    org_id: Uuid,
    at: jiff_sqlx::Timestamp,
    actor: String,
    actor_id: String,
    verb: String,
    object: String,
    outcome: String,
    request_id: String,
    source: String,
    detail: serde_json::Value,
    seq: Option<i64>,
    hash: Option<Vec<u8>>,
}

/// Entries, the newest first, from behind the one of this time and id.
pub(crate) async fn page(
    pool: &PgPool,
    org: OrgId,
    filter: &Filter,
    after: Option<(Timestamp, Uuid)>,
    limit: i64,
) -> Result<Vec<Audited>> {
    let mut query = QueryBuilder::<Postgres>::new(
        "select e.id, e.org_id, e.at, e.actor, e.actor_id, e.verb, e.object, e.outcome, e.request_id, e.source, e.detail,
                c.seq, c.hash
         from audit_entries e left join audit_chain c on c.at = e.at and c.entry_id = e.id and c.org_id = e.org_id
         where e.org_id = ",
    );
    query.push_bind(org.0);
    if let Some((at, id)) = after {
        query.push(" and (e.at, e.id) < (").push_bind(at.to_sqlx()).push(", ").push_bind(id).push(")");
    }
    if let Some(actor) = &filter.actor {
        query.push(" and (e.actor = ").push_bind(actor).push(" or e.actor_id = ").push_bind(actor).push(")");
    }
    let texts = [
        ("verb", &filter.verb),
        ("object", &filter.object),
        ("outcome", &filter.outcome),
        ("request_id", &filter.request_id),
    ];
    for (column, text) in texts {
        if let Some(text) = text {
            query.push(" and e.").push(column).push(" = ").push_bind(text);
        }
    }
    for (comparison, time) in [(" and e.at >= ", filter.since), (" and e.at < ", filter.until)] {
        if let Some(time) = time {
            query.push(comparison).push_bind(time.to_sqlx());
        }
    }
    query.push(" order by e.at desc, e.id desc limit ").push_bind(limit);
    let rows: Vec<Row> = query.build_query_as().fetch_all(pool).await.during("query for the audit")?;
    let audited = |row: Row| Audited { seq: row.seq, hash: row.hash.map(hex::encode), entry: entry!(row) };
    Ok(rows.into_iter().map(audited).collect())
}

/// The first number of an entry since then; none when there is no later one.
pub(crate) async fn first_since(pool: &PgPool, org: OrgId, since: Timestamp) -> Result<Option<i64>> {
    let row = sqlx::query!(
        "select min(seq) as seq from audit_chain where org_id = $1 and at >= $2",
        org.0,
        since.to_sqlx()
    )
    .fetch_one(pool)
    .await
    .during("query for the begin of an export")?;
    Ok(row.seq)
}

/// The last number of an entry before then.
pub(crate) async fn last_until(pool: &PgPool, org: OrgId, until: Timestamp) -> Result<Option<i64>> {
    let row = sqlx::query!(
        "select max(seq) as seq from audit_chain where org_id = $1 and at < $2",
        org.0,
        until.to_sqlx()
    )
    .fetch_one(pool)
    .await
    .during("query for the end of an export")?;
    Ok(row.seq)
}

/// The number of the first checkpoint at this number or behind it.
pub(crate) async fn checkpoint_from(pool: &PgPool, org: OrgId, seq: i64) -> Result<Option<i64>> {
    let row = sqlx::query!(
        "select min(seq) as seq from audit_checkpoints where org_id = $1 and seq >= $2",
        org.0,
        seq
    )
    .fetch_one(pool)
    .await
    .during("query for a checkpoint")?;
    Ok(row.seq)
}

/// The chain from behind a number (and entry) up to another number, with the entries.
pub(crate) async fn chain(
    pool: &PgPool,
    org: OrgId,
    after: (i64, Uuid),
    to: i64,
    limit: i64,
) -> Result<Vec<(Uuid, ExportEntry)>> {
    let rows = sqlx::query!(
        r#"select c.seq, c.entry_id, c.hash, e.id as "id?", e.org_id as "org_id?", e.at as "at?: jiff_sqlx::Timestamp",
                  e.actor as "actor?", e.actor_id as "actor_id?", e.verb as "verb?", e.object as "object?",
                  e.outcome as "outcome?", e.request_id as "request_id?", e.source as "source?", e.detail as "detail?"
           from audit_chain c
           left join audit_entries e on e.at = c.at and e.id = c.entry_id and e.org_id = c.org_id
           where c.org_id = $1 and (c.seq, c.entry_id) > ($2, $3) and c.seq >= $2 and c.seq <= $4
           order by c.seq, c.entry_id limit $5"#,
        org.0,
        after.0,
        after.1,
        to,
        limit
    )
    .fetch_all(pool)
    .await
    .during("query for the audit's chain")?;
    let mut chain = Vec::with_capacity(rows.len());
    for row in rows {
        // All of an entry's columns are there, or none.
        let entry = (|| {
            Some(AuditEntry {
                id: row.id?,
                org_id: row.org_id?.into(),
                at: row.at?.to_jiff(),
                actor: row.actor?,
                actor_id: row.actor_id?,
                verb: row.verb?,
                object: row.object?,
                outcome: row.outcome?,
                request_id: row.request_id?,
                source: row.source?,
                detail: row.detail?,
            })
        })();
        chain.push((row.entry_id, ExportEntry { seq: row.seq, hash: hex::encode(row.hash), entry }));
    }
    Ok(chain)
}

/// Checkpoints of the numbers from `from` to `to`, in their order.
pub(crate) async fn checkpoints(
    pool: &PgPool,
    org: OrgId,
    from: i64,
    to: i64,
    limit: i64,
) -> Result<Vec<Kept>> {
    let rows = sqlx::query!(
        r#"select seq, hash, at as "at: jiff_sqlx::Timestamp", payload, signature, certificate
           from audit_checkpoints where org_id = $1 and seq between $2 and $3 order by seq limit $4"#,
        org.0,
        from,
        to,
        limit
    )
    .fetch_all(pool)
    .await
    .during("query for checkpoints")?;
    Ok(rows.into_iter().map(|row| kept!(row)).collect())
}

/// Checkpoints, the newest first, below this number.
pub(crate) async fn newest_checkpoints(
    pool: &PgPool,
    org: OrgId,
    before: i64,
    limit: i64,
) -> Result<Vec<Kept>> {
    let rows = sqlx::query!(
        r#"select seq, hash, at as "at: jiff_sqlx::Timestamp", payload, signature, certificate
           from audit_checkpoints where org_id = $1 and seq < $2 order by seq desc limit $3"#,
        org.0,
        before,
        limit
    )
    .fetch_all(pool)
    .await
    .during("query for checkpoints")?;
    Ok(rows.into_iter().map(|row| kept!(row)).collect())
}

/// Entries that have no number and do not wait for one: nobody wrote them through a controller.
pub(crate) async fn unchained(pool: &PgPool, org: OrgId, limit: i64) -> Result<Vec<AuditEntry>> {
    let rows = sqlx::query!(
        r#"select e.id, e.org_id, e.at as "at: jiff_sqlx::Timestamp", e.actor, e.actor_id, e.verb, e.object, e.outcome,
                  e.request_id, e.source, e.detail
           from audit_entries e
           where e.org_id = $1
             and not exists (select from audit_chain c where c.at = e.at and c.entry_id = e.id and c.org_id = e.org_id)
             and not exists (select from audit_queue q where q.at = e.at and q.entry_id = e.id and q.org_id = e.org_id)
           order by e.at, e.id limit $2"#,
        org.0,
        limit
    )
    .fetch_all(pool)
    .await
    .during("query for entries without a number")?;
    Ok(rows.into_iter().map(|row| entry!(row)).collect())
}
