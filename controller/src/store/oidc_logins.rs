//! Logins that are under way at an OpenID provider. Each step is a single conditional statement, and takes its row once.

use jiff::Timestamp;
use jiff_sqlx::ToSqlx;
use model::id::{OrgId, UserId};
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use crate::error::{During, Result};

#[derive(Debug)]
pub(crate) struct NewLogin<'a> {
    pub id: Uuid,
    pub provider: &'a str,
    pub state_hash: &'a [u8],
    pub browser_hash: &'a [u8],
    pub nonce: &'a str,
    pub verifier: &'a str,
    pub return_to: Option<&'a str>,
    /// Port and challenge of a program.
    pub program: Option<(u16, &'a [u8])>,
    pub created_at: Timestamp,
    pub expires_at: Timestamp,
}

/// A login that the provider has answered.
#[derive(Debug)]
pub(crate) struct Answered {
    pub id: Uuid,
    pub browser_hash: Vec<u8>,
    pub nonce: String,
    pub verifier: String,
    pub return_to: Option<String>,
    pub port: Option<i32>,
}

/// What a code is for.
#[derive(Debug)]
pub(crate) struct Redeemed {
    pub provider: String,
    pub challenge: Option<Vec<u8>>,
    pub user_id: Option<Uuid>,
    pub org_id: Option<Uuid>,
}

pub(crate) async fn insert(pool: &PgPool, new: &NewLogin<'_>) -> Result<()> {
    sqlx::query!(
        "insert into oidc_logins
             (id, provider, state_hash, browser_hash, nonce, verifier, return_to, port, challenge, created_at, expires_at)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
        new.id,
        new.provider,
        new.state_hash,
        new.browser_hash,
        new.nonce,
        new.verifier,
        new.return_to,
        new.program.map(|(port, _)| i32::from(port)),
        new.program.map(|(_, challenge)| challenge),
        new.created_at.to_sqlx(),
        new.expires_at.to_sqlx()
    )
    .execute(pool)
    .await
    .during("insert of the login")?;
    Ok(())
}

/// Takes the login that a provider answers: no answer counts twice.
pub(crate) async fn answer(
    pool: &PgPool,
    provider: &str,
    state_hash: &[u8],
    now: Timestamp,
) -> Result<Option<Answered>> {
    sqlx::query_as!(
        Answered,
        "update oidc_logins set answered_at = $3
         where state_hash = $2 and provider = $1 and answered_at is null and expires_at > $3
         returning id, browser_hash, nonce, verifier, return_to, port",
        provider,
        state_hash,
        now.to_sqlx()
    )
    .fetch_optional(pool)
    .await
    .during("query for the login")
}

/// Keeps for whom a program may fetch a session until `expires_at`.
pub(crate) async fn grant(
    connection: &mut PgConnection,
    id: Uuid,
    (user, org): (UserId, OrgId),
    code_hash: &[u8],
    expires_at: Timestamp,
) -> Result<()> {
    sqlx::query!(
        "update oidc_logins set user_id = $2, org_id = $3, code_hash = $4, expires_at = $5 where id = $1",
        id,
        user.0,
        org.0,
        code_hash,
        expires_at.to_sqlx()
    )
    .execute(connection)
    .await
    .during("update of the login")?;
    Ok(())
}

/// Takes what a code is for: it is worth nothing afterwards.
pub(crate) async fn redeem(pool: &PgPool, code_hash: &[u8], now: Timestamp) -> Result<Option<Redeemed>> {
    sqlx::query_as!(
        Redeemed,
        "delete from oidc_logins where code_hash = $1 and expires_at > $2
         returning provider, challenge, user_id, org_id",
        code_hash,
        now.to_sqlx()
    )
    .fetch_optional(pool)
    .await
    .during("query for the code")
}

/// Forgets what ended before `before`.
pub(crate) async fn forget(pool: &PgPool, before: Timestamp) -> Result<()> {
    sqlx::query!("delete from oidc_logins where expires_at < $1", before.to_sqlx())
        .execute(pool)
        .await
        .during("delete of old logins")?;
    Ok(())
}
