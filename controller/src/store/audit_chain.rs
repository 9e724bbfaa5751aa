//! The chain over the audit: what waits for its number, what has one, and the checkpoints that were signed.

use jiff::Timestamp;
use jiff_sqlx::ToSqlx;
use model::{audit::AuditEntry, id::OrgId};
use pki::audit::{Hash, Place};
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use crate::error::{During, Error, Result};

/// An entry with its number.
#[derive(Debug)]
pub(crate) struct Chained {
    pub seq: i64,
    pub entry_id: Uuid,
    pub at: Timestamp,
    pub hash: Hash,
}

/// A checkpoint as it is kept.
#[derive(Debug, Clone)]
pub(crate) struct Kept {
    pub seq: i64,
    pub hash: Vec<u8>,
    pub at: Timestamp,
    pub payload: Vec<u8>,
    pub signature: Vec<u8>,
    pub certificate: Vec<u8>,
}

macro_rules! entry {
    ($r:ident) => {
        AuditEntry {
            id: $r.id,
            org_id: $r.org_id.into(),
            at: $r.at.to_jiff(),
            actor: $r.actor,
            actor_id: $r.actor_id,
            verb: $r.verb,
            object: $r.object,
            outcome: $r.outcome,
            request_id: $r.request_id,
            source: $r.source,
            detail: $r.detail,
        }
    };
}
pub(super) use entry;

macro_rules! kept {
    ($r:ident) => {
        Kept {
            seq: $r.seq,
            hash: $r.hash,
            at: $r.at.to_jiff(),
            payload: $r.payload,
            signature: $r.signature,
            certificate: $r.certificate,
        }
    };
}
pub(super) use kept;

/// A hash as it is kept; what has another length is none of ours, and equals no other.
pub(crate) fn hash(bytes: &[u8]) -> Hash {
    bytes.try_into().unwrap_or([0xff; 32])
}

/// How many entries wait for their number, by organization.
pub(crate) async fn waiting(pool: &PgPool) -> Result<Vec<(OrgId, i64)>> {
    let rows = sqlx::query!(r#"select org_id, count(*) as "count!" from audit_queue group by org_id"#)
        .fetch_all(pool)
        .await
        .during("query for the audit's queue")?;
    Ok(rows.into_iter().map(|row| (row.org_id.into(), row.count)).collect())
}

/// All organizations.
pub(crate) async fn organizations(pool: &PgPool) -> Result<Vec<OrgId>> {
    let rows = sqlx::query!("select id from organizations")
        .fetch_all(pool)
        .await
        .during("query for the organizations")?;
    Ok(rows.into_iter().map(|row| row.id.into()).collect())
}

/// Makes this transaction the only one that continues the chain of `org`: two controllers never give one number twice.
pub(crate) async fn lock(connection: &mut PgConnection, org: OrgId) -> Result<()> {
    sqlx::query!("select pg_advisory_xact_lock(hashtextextended($1, 0))", lock_name(org))
        .execute(connection)
        .await
        .during("lock of the audit's chain")?;
    Ok(())
}

/// As [`lock`], but does not wait: `false` when another one continues it.
pub(crate) async fn try_lock(connection: &mut PgConnection, org: OrgId) -> Result<bool> {
    let row = sqlx::query!(
        r#"select pg_try_advisory_xact_lock(hashtextextended($1, 0)) as "held!""#,
        lock_name(org)
    )
    .fetch_one(connection)
    .await
    .during("lock of the audit's chain")?;
    Ok(row.held)
}

fn lock_name(org: OrgId) -> String {
    format!("opsconductor.audit.{org}")
}

/// The last entry of the chain.
pub(crate) async fn head(connection: &mut PgConnection, org: OrgId) -> Result<Option<Place>> {
    let row =
        sqlx::query!("select seq, hash from audit_chain where org_id = $1 order by seq desc limit 1", org.0)
            .fetch_optional(connection)
            .await
            .during("query for the end of the audit's chain")?;
    Ok(row.map(|row| Place { seq: row.seq, hash: hash(&row.hash) }))
}

/// The hash of the entry with this number.
pub(crate) async fn hash_at(connection: &mut PgConnection, org: OrgId, seq: i64) -> Result<Option<Hash>> {
    let row = sqlx::query!("select hash from audit_chain where org_id = $1 and seq = $2 limit 1", org.0, seq)
        .fetch_optional(connection)
        .await
        .during("query for a hash of the audit's chain")?;
    Ok(row.map(|row| hash(&row.hash)))
}

/// An organization's checkpoints, the newest first.
pub(crate) async fn checkpoints(connection: &mut PgConnection, org: OrgId, limit: i64) -> Result<Vec<Kept>> {
    let rows = sqlx::query!(
        r#"select seq, hash, at as "at: jiff_sqlx::Timestamp", payload, signature, certificate
           from audit_checkpoints where org_id = $1 order by seq desc limit $2"#,
        org.0,
        limit
    )
    .fetch_all(connection)
    .await
    .during("query for the newest checkpoints")?;
    Ok(rows.into_iter().map(|row| kept!(row)).collect())
}

/// The newest checkpoint of each organization.
pub(crate) async fn newest_checkpoints(pool: &PgPool) -> Result<Vec<(OrgId, Kept)>> {
    let rows = sqlx::query!(
        r#"select o.id as org_id, c.seq, c.hash, c.at as "at: jiff_sqlx::Timestamp", c.payload, c.signature,
                  c.certificate
           from organizations o
           cross join lateral (
               select * from audit_checkpoints where org_id = o.id order by seq desc limit 1
           ) c"#
    )
    .fetch_all(pool)
    .await
    .during("query for the newest checkpoints")?;
    Ok(rows.into_iter().map(|row| (row.org_id.into(), kept!(row))).collect())
}

/// The next entries that wait for their number, without those of `passed_over`. Each is found by a step in an index, whatever
/// is known of how many there are (hence `offset 0`): reading all entries for a few that wait takes ever longer.
pub(crate) async fn next(
    connection: &mut PgConnection,
    org: OrgId,
    passed_over: &[Uuid],
    limit: i64,
) -> Result<Vec<AuditEntry>> {
    let rows = sqlx::query!(
        r#"select e.id, e.org_id, e.at as "at: jiff_sqlx::Timestamp", e.actor, e.actor_id, e.verb, e.object, e.outcome,
                  e.request_id, e.source, e.detail
           from audit_queue q
           cross join lateral (
               select * from audit_entries where at = q.at and id = q.entry_id and org_id = $1 offset 0
           ) e
           where q.org_id = $1 and q.entry_id <> all($3)
           order by q.at, q.entry_id limit $2"#,
        org.0,
        limit,
        passed_over
    )
    .fetch_all(connection)
    .await
    .during("query for entries of the audit's queue")?;
    Ok(rows.into_iter().map(|row| entry!(row)).collect())
}

/// Gives entries their numbers, and takes them out of the queue.
pub(crate) async fn insert(connection: &mut PgConnection, org: OrgId, chained: &[Chained]) -> Result<()> {
    let seqs: Vec<i64> = chained.iter().map(|one| one.seq).collect();
    let ids: Vec<Uuid> = chained.iter().map(|one| one.entry_id).collect();
    let times: Vec<jiff_sqlx::Timestamp> = chained.iter().map(|one| one.at.to_sqlx()).collect();
    let hashes: Vec<Vec<u8>> = chained.iter().map(|one| one.hash.to_vec()).collect();
    let done = sqlx::query!(
        "with new as (
             select * from unnest($2::bigint[], $3::uuid[], $4::timestamptz[], $5::bytea[]) as n(seq, entry_id, at, hash)
         ), numbered as (
             insert into audit_chain (org_id, seq, entry_id, at, hash) select $1, seq, entry_id, at, hash from new
         )
         delete from audit_queue q using new n where q.org_id = $1 and q.at = n.at and q.entry_id = n.entry_id",
        org.0,
        &seqs,
        &ids,
        &times as _,
        &hashes
    )
    .execute(connection)
    .await
    .during("insert into the audit's chain")?;
    if usize::try_from(done.rows_affected()) == Ok(chained.len()) {
        Ok(())
    } else {
        Err(Error::Conflict("the audit's queue changed under its lock".to_owned()))
    }
}

/// Keeps a checkpoint; `false` when there is one of this number, which stays.
pub(crate) async fn insert_checkpoint(connection: &mut PgConnection, org: OrgId, new: &Kept) -> Result<bool> {
    let done = sqlx::query!(
        "insert into audit_checkpoints (org_id, seq, hash, at, payload, signature, certificate)
         values ($1, $2, $3, $4, $5, $6, $7) on conflict do nothing",
        org.0,
        new.seq,
        new.hash,
        new.at.to_sqlx(),
        new.payload,
        new.signature,
        new.certificate
    )
    .execute(connection)
    .await
    .during("insert of a checkpoint")?;
    Ok(done.rows_affected() == 1)
}

/// Notes an alarm; `false` when it was noted before, or another one of its kind and agent in the same hour (of those since
/// 1970).
pub(crate) async fn insert_alarm(
    connection: &mut PgConnection,
    org: OrgId,
    agent: model::id::AgentId,
    (id, kind): (Uuid, &str),
    (now, hour): (Timestamp, i64),
) -> Result<bool> {
    let done = sqlx::query!(
        "insert into audit_alarms (id, org_id, agent_id, at, kind, hour) values ($1, $2, $3, $4, $5, $6)
         on conflict do nothing",
        id,
        org.0,
        agent.0,
        now.to_sqlx(),
        kind,
        hour
    )
    .execute(connection)
    .await
    .during("insert of an alarm")?;
    Ok(done.rows_affected() == 1)
}
