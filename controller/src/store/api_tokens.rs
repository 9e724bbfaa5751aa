//! API tokens: who a bearer is.

use jiff::Timestamp;
use jiff_sqlx::ToSqlx;
use model::id::{ApiTokenId, OrgId};
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use crate::error::{During, Result};

/// A token that is valid now.
#[derive(Debug)]
pub(crate) struct ApiToken {
    pub org_id: Uuid,
    pub organization: String,
    pub name: String,
    pub secret_hash: Vec<u8>,
    pub permissions: Vec<String>,
}

pub(crate) async fn get_valid(pool: &PgPool, id: ApiTokenId, now: Timestamp) -> Result<Option<ApiToken>> {
    sqlx::query_as!(
        ApiToken,
        "select t.org_id, o.name as organization, t.name, t.secret_hash, t.permissions
         from api_tokens t join organizations o on o.id = t.org_id
         where t.id = $1 and t.revoked_at is null and (t.expires_at is null or t.expires_at > $2)",
        id.0,
        now.to_sqlx()
    )
    .fetch_optional(pool)
    .await
    .during("query for the token")
}

pub(crate) async fn insert(
    connection: &mut PgConnection,
    org: OrgId,
    id: ApiTokenId,
    name: &str,
    secret_hash: &[u8],
    permissions: &[String],
    now: Timestamp,
) -> Result<()> {
    sqlx::query!(
        "insert into api_tokens (id, org_id, name, secret_hash, permissions, created_at)
         values ($1, $2, $3, $4, $5, $6)",
        id.0,
        org.0,
        name,
        secret_hash,
        permissions,
        now.to_sqlx()
    )
    .execute(connection)
    .await
    .during("insert of the token")?;
    Ok(())
}
