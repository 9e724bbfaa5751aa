//! Tokens that let somebody in once: invitations, and new passwords. Spending one is a single conditional update.

use jiff::Timestamp;
use jiff_sqlx::ToSqlx;
use model::{
    api::user::Invitation,
    id::{OneTimeTokenId, OrgId, UserId},
};
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use crate::error::{During, Result};

/// What a token is for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Purpose<'a> {
    Invitation { role: Option<&'a str> },
    PasswordReset { user: UserId },
}

impl Purpose<'_> {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Invitation { .. } => INVITATION,
            Self::PasswordReset { .. } => PASSWORD_RESET,
        }
    }
}

pub(crate) const INVITATION: &str = "invitation";
pub(crate) const PASSWORD_RESET: &str = "password_reset";

/// What a spent token gives.
#[derive(Debug)]
pub(crate) struct Spent {
    pub org_id: Uuid,
    pub organization: String,
    pub user_id: Option<Uuid>,
    pub role: Option<String>,
    pub created_by: String,
}

#[derive(Debug)]
pub(crate) struct NewToken<'a> {
    pub id: OneTimeTokenId,
    pub org_id: OrgId,
    pub purpose: Purpose<'a>,
    pub secret_hash: &'a [u8],
    pub created_at: Timestamp,
    pub created_by: &'a str,
    pub expires_at: Timestamp,
}

pub(crate) async fn insert(connection: &mut PgConnection, new: &NewToken<'_>) -> Result<()> {
    let (role, user) = match new.purpose {
        Purpose::Invitation { role } => (role, None),
        Purpose::PasswordReset { user } => (None, Some(user.0)),
    };
    sqlx::query!(
        "insert into one_time_tokens
             (id, org_id, purpose, secret_hash, user_id, role, created_at, created_by, expires_at)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
        new.id.0,
        new.org_id.0,
        new.purpose.as_str(),
        new.secret_hash,
        user,
        role,
        new.created_at.to_sqlx(),
        new.created_by,
        new.expires_at.to_sqlx()
    )
    .execute(connection)
    .await
    .during("insert of the one-time token")?;
    Ok(())
}

/// Whether the token is for this and may be used now.
pub(crate) async fn counts(
    pool: &PgPool,
    id: OneTimeTokenId,
    secret_hash: &[u8],
    purpose: &str,
    now: Timestamp,
) -> Result<bool> {
    let found = sqlx::query_scalar!(
        "select id from one_time_tokens
         where id = $1 and secret_hash = $2 and purpose = $3 and used_at is null and expires_at > $4",
        id.0,
        secret_hash,
        purpose,
        now.to_sqlx()
    )
    .fetch_optional(pool)
    .await
    .during("query for the one-time token")?;
    Ok(found.is_some())
}

/// Uses the token, if it is for this and may be used now.
pub(crate) async fn spend(
    connection: &mut PgConnection,
    id: OneTimeTokenId,
    secret_hash: &[u8],
    purpose: &str,
    now: Timestamp,
) -> Result<Option<Spent>> {
    sqlx::query_as!(
        Spent,
        "update one_time_tokens t set used_at = $4 from organizations o
         where t.id = $1 and t.secret_hash = $2 and t.purpose = $3 and t.used_at is null and t.expires_at > $4
           and o.id = t.org_id
         returning t.org_id, o.name as organization, t.user_id, t.role, t.created_by",
        id.0,
        secret_hash,
        purpose,
        now.to_sqlx()
    )
    .fetch_optional(connection)
    .await
    .during("spending of the one-time token")
}

/// Makes all unused tokens for a new password of somebody worthless.
pub(crate) async fn void_resets(connection: &mut PgConnection, user: UserId) -> Result<()> {
    sqlx::query!("delete from one_time_tokens where user_id = $1 and used_at is null", user.0)
        .execute(connection)
        .await
        .during("delete of one-time tokens")?;
    Ok(())
}

/// Invitations, the newest first, from behind `after`.
pub(crate) async fn invitations(
    pool: &PgPool,
    org: OrgId,
    after: Option<OneTimeTokenId>,
    limit: i64,
) -> Result<Vec<Invitation>> {
    let rows = sqlx::query!(
        r#"select id, role, created_at, created_by, expires_at, used_at is not null as "used!"
           from one_time_tokens
           where org_id = $1 and purpose = 'invitation' and ($2::uuid is null or id < $2)
           order by id desc limit $3"#,
        org.0,
        after.map(|id| id.0),
        limit
    )
    .fetch_all(pool)
    .await
    .during("query for invitations")?;
    Ok(rows
        .into_iter()
        .map(|row| Invitation {
            id: row.id.into(),
            role: row.role,
            created_at: row.created_at.to_jiff(),
            created_by: row.created_by,
            expires_at: row.expires_at.to_jiff(),
            used: row.used,
        })
        .collect())
}

/// Answers whether there was an invitation of this id.
pub(crate) async fn delete_invitation(
    connection: &mut PgConnection,
    org: OrgId,
    id: OneTimeTokenId,
) -> Result<bool> {
    let done = sqlx::query!(
        "delete from one_time_tokens where org_id = $1 and id = $2 and purpose = 'invitation'",
        org.0,
        id.0
    )
    .execute(connection)
    .await
    .during("delete of the invitation")?;
    Ok(done.rows_affected() == 1)
}

/// Forgets tokens that ended before `before`.
pub(crate) async fn forget(pool: &PgPool, before: Timestamp) -> Result<()> {
    sqlx::query!("delete from one_time_tokens where expires_at < $1", before.to_sqlx())
        .execute(pool)
        .await
        .during("delete of old one-time tokens")?;
    Ok(())
}
