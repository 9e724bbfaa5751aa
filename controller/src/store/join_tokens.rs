//! Join tokens. Spending one is a single conditional update.

use jiff::Timestamp;
use jiff_sqlx::ToSqlx;
use model::id::{ControllerId, JoinTokenId, OrgId};
use sqlx::PgConnection;

use crate::error::{During, Result};

/// A token that is about to be handed out.
#[derive(Debug)]
pub(crate) struct NewJoinToken<'a> {
    pub id: JoinTokenId,
    pub org_id: OrgId,
    pub secret_hash: &'a [u8],
    pub created_at: Timestamp,
    pub created_by: &'a str,
    pub expires_at: Timestamp,
    pub signature: &'a [u8],
    /// Of the key that made the signature.
    pub certificate: &'a [u8],
}

/// What a spent token was made with.
#[derive(Debug)]
pub(crate) struct Spent {
    /// Whose audit tells of it.
    pub org_id: OrgId,
    pub expires_at: Timestamp,
    pub signature: Vec<u8>,
    pub certificate: Vec<u8>,
}

/// Why a token cannot be spent.
#[derive(Debug)]
pub(crate) struct Unspendable {
    pub used: bool,
    pub expired: bool,
}

pub(crate) async fn insert(connection: &mut PgConnection, token: &NewJoinToken<'_>) -> Result<()> {
    sqlx::query!(
        "insert into join_tokens
             (id, org_id, secret_hash, created_at, created_by, expires_at, signature, certificate)
         values ($1, $2, $3, $4, $5, $6, $7, $8)",
        token.id.0,
        token.org_id.0,
        token.secret_hash,
        token.created_at.to_sqlx(),
        token.created_by,
        token.expires_at.to_sqlx(),
        token.signature,
        token.certificate
    )
    .execute(connection)
    .await
    .during("insert of the join token")?;
    Ok(())
}

/// Uses the token, if it may be used now.
pub(crate) async fn spend(
    connection: &mut PgConnection,
    id: JoinTokenId,
    secret_hash: &[u8],
    by: ControllerId,
    now: Timestamp,
) -> Result<Option<Spent>> {
    let row = sqlx::query!(
        "update join_tokens set used_at = $3, used_by = $4
         where id = $1 and secret_hash = $2 and used_at is null and expires_at > $3
         returning org_id, expires_at, signature, certificate",
        id.0,
        secret_hash,
        now.to_sqlx(),
        by.0
    )
    .fetch_optional(connection)
    .await
    .during("spending of the join token")?;
    Ok(row.map(|row| Spent {
        org_id: OrgId(row.org_id),
        expires_at: row.expires_at.to_jiff(),
        signature: row.signature,
        certificate: row.certificate,
    }))
}

/// Why the holder of the right secret could not spend it.
pub(crate) async fn explain(
    connection: &mut PgConnection,
    id: JoinTokenId,
    secret_hash: &[u8],
    now: Timestamp,
) -> Result<Option<Unspendable>> {
    sqlx::query_as!(
        Unspendable,
        r#"select used_at is not null as "used!", expires_at <= $3 as "expired!"
           from join_tokens where id = $1 and secret_hash = $2"#,
        id.0,
        secret_hash,
        now.to_sqlx()
    )
    .fetch_optional(connection)
    .await
    .during("query for the join token")
}
