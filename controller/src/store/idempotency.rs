//! Idempotency keys: unique by organization, actor and key, written in the transaction of the request that they guard.

use jiff::Timestamp;
use jiff_sqlx::ToSqlx;
use model::id::OrgId;
use sqlx::{PgConnection, PgPool};

use crate::error::{During, Result};

/// What an earlier request with the same key left.
#[derive(Debug)]
pub(crate) struct Earlier {
    pub body_hash: Vec<u8>,
    pub answer: Option<serde_json::Value>,
}

/// Claims the key; `false` when an earlier request has it. Waits while that one is still in its transaction.
pub(crate) async fn claim(
    connection: &mut PgConnection,
    org: OrgId,
    actor: &str,
    key: &str,
    body_hash: &[u8],
    answer: &serde_json::Value,
    now: Timestamp,
) -> Result<bool> {
    let done = sqlx::query!(
        "insert into idempotency_keys (org_id, actor, key, body_hash, answer, created_at)
         values ($1, $2, $3, $4, $5, $6) on conflict do nothing",
        org.0,
        actor,
        key,
        body_hash,
        answer,
        now.to_sqlx()
    )
    .execute(connection)
    .await
    .during("insert of the idempotency key")?;
    Ok(done.rows_affected() == 1)
}

pub(crate) async fn earlier(pool: &PgPool, org: OrgId, actor: &str, key: &str) -> Result<Option<Earlier>> {
    sqlx::query_as!(
        Earlier,
        "select body_hash, answer from idempotency_keys where org_id = $1 and actor = $2 and key = $3",
        org.0,
        actor,
        key
    )
    .fetch_optional(pool)
    .await
    .during("query for the idempotency key")
}

/// Forgets keys from before `before`.
pub(crate) async fn forget(pool: &PgPool, before: Timestamp) -> Result<()> {
    sqlx::query!("delete from idempotency_keys where created_at < $1", before.to_sqlx())
        .execute(pool)
        .await
        .during("delete of old idempotency keys")?;
    Ok(())
}
