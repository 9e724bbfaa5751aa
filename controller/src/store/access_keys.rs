//! Public halves of the keys that sign access tokens.

use jiff::Timestamp;
use jiff_sqlx::ToSqlx;
use sqlx::PgPool;
use uuid::Uuid;

use crate::error::{During, Result};

/// A row, which counts with the signature of a controller only.
#[derive(Debug)]
pub(crate) struct AccessKey {
    pub id: Uuid,
    pub public_key: Vec<u8>,
    pub expires_at: Timestamp,
    pub signature: Vec<u8>,
    pub certificate: Vec<u8>,
}

pub(crate) async fn insert(pool: &PgPool, key: &AccessKey, now: Timestamp) -> Result<()> {
    sqlx::query!(
        "insert into access_keys (id, public_key, created_at, expires_at, signature, certificate)
         values ($1, $2, $3, $4, $5, $6)",
        key.id,
        key.public_key,
        now.to_sqlx(),
        key.expires_at.to_sqlx(),
        key.signature,
        key.certificate
    )
    .execute(pool)
    .await
    .during("insert of the access key")?;
    Ok(())
}

pub(crate) async fn get(pool: &PgPool, id: Uuid) -> Result<Option<AccessKey>> {
    sqlx::query_as!(
        AccessKey,
        r#"select id, public_key, expires_at, signature, certificate
           from access_keys where id = $1"#,
        id
    )
    .fetch_optional(pool)
    .await
    .during("query for the access key")
}

/// Forgets keys that ended before `before`.
pub(crate) async fn forget(pool: &PgPool, before: Timestamp) -> Result<()> {
    sqlx::query!("delete from access_keys where expires_at < $1", before.to_sqlx())
        .execute(pool)
        .await
        .during("delete of old access keys")?;
    Ok(())
}
