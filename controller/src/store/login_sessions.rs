//! People's logins. A refresh token is exchanged by a single conditional update.

use jiff::Timestamp;
use jiff_sqlx::ToSqlx;
use model::{
    api::auth::LoginSession,
    id::{LoginSessionId, OrgId, UserId},
};
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use crate::error::{During, Result};

/// A session to be.
#[derive(Debug)]
pub(crate) struct NewSession<'a> {
    pub id: LoginSessionId,
    pub user_id: UserId,
    pub org_id: OrgId,
    pub now: Timestamp,
    pub expires_at: Timestamp,
    pub address: &'a str,
    pub client: &'a str,
    /// The OpenID provider that opened it.
    pub provider: Option<&'a str>,
    pub family_hash: &'a [u8],
    pub refresh_hash: &'a [u8],
}

/// What decides whether a session goes on.
#[derive(Debug)]
pub(crate) struct Standing {
    pub user_id: Uuid,
    pub user: String,
    pub org_id: Uuid,
    pub created_at: Timestamp,
    pub expires_at: Timestamp,
    pub ended: bool,
    pub disabled: bool,
    pub address: String,
    pub family_hash: Vec<u8>,
    pub refresh_hash: Vec<u8>,
    pub previous_hash: Option<Vec<u8>>,
    pub rotated_at: Timestamp,
    pub provider: Option<String>,
}

pub(crate) async fn insert(connection: &mut PgConnection, new: &NewSession<'_>) -> Result<()> {
    sqlx::query!(
        "insert into login_sessions
             (id, user_id, org_id, created_at, last_used_at, expires_at, address, client, refresh_hash, rotated_at, provider,
              family_hash)
         values ($1, $2, $3, $4, $4, $5, $6, $7, $8, $4, $9, $10)",
        new.id.0,
        new.user_id.0,
        new.org_id.0,
        new.now.to_sqlx(),
        new.expires_at.to_sqlx(),
        new.address,
        new.client,
        new.refresh_hash,
        new.provider,
        new.family_hash
    )
    .execute(connection)
    .await
    .during("insert of the session")?;
    Ok(())
}

/// The session's row, locked until the transaction ends.
pub(crate) async fn lock(connection: &mut PgConnection, id: LoginSessionId) -> Result<Option<Standing>> {
    sqlx::query_as!(
        Standing,
        r#"select s.user_id, u.name as "user", s.org_id, s.created_at,
                  s.expires_at, s.ended_at is not null as "ended!",
                  u.disabled_at is not null as "disabled!", s.address, s.family_hash, s.refresh_hash, s.previous_hash,
                  s.rotated_at, s.provider
           from login_sessions s join users u on u.id = s.user_id where s.id = $1 for update of s"#,
        id.0
    )
    .fetch_optional(connection)
    .await
    .during("query for the session")
}

/// A session that counts now, of a person who is not disabled and a member of its organization.
#[derive(Debug)]
pub(crate) struct Valid {
    pub user_id: Uuid,
    pub user: String,
    pub org_id: Uuid,
    pub organization: String,
    pub is_home: bool,
}

/// The session that `id` names, if it counts.
pub(crate) async fn get_valid(
    connection: &mut PgConnection,
    id: LoginSessionId,
    now: Timestamp,
) -> Result<Option<Valid>> {
    sqlx::query_as!(
        Valid,
        r#"select s.user_id, u.name as "user", s.org_id, o.name as organization,
                  coalesce(i.home_org_id = s.org_id, false) as "is_home!"
           from login_sessions s
                join users u on u.id = s.user_id
                join organizations o on o.id = s.org_id
                join memberships m on m.org_id = s.org_id and m.user_id = s.user_id
                left join installation i on true
           where s.id = $1 and s.ended_at is null and s.expires_at > $2 and u.disabled_at is null"#,
        id.0,
        now.to_sqlx()
    )
    .fetch_optional(connection)
    .await
    .during("query for the session")
}

/// Puts a new refresh token in the place of the one before, which was locked.
pub(crate) async fn rotate(
    connection: &mut PgConnection,
    id: LoginSessionId,
    hash: &[u8],
    org: OrgId,
    now: Timestamp,
    expires_at: Timestamp,
) -> Result<()> {
    sqlx::query!(
        "update login_sessions set previous_hash = refresh_hash, refresh_hash = $2, org_id = $3, rotated_at = $4,
             last_used_at = $4, expires_at = $5
         where id = $1",
        id.0,
        hash,
        org.0,
        now.to_sqlx(),
        expires_at.to_sqlx()
    )
    .execute(connection)
    .await
    .during("update of the session")?;
    Ok(())
}

/// Ends a session; `false` when it had ended, or is not this person's.
pub(crate) async fn end(
    connection: &mut PgConnection,
    user: UserId,
    id: LoginSessionId,
    reason: &str,
    now: Timestamp,
) -> Result<bool> {
    let done = sqlx::query!(
        "update login_sessions set ended_at = $4, end_reason = $3 where id = $1 and user_id = $2 and ended_at is null",
        id.0,
        user.0,
        reason,
        now.to_sqlx()
    )
    .execute(connection)
    .await
    .during("end of the session")?;
    Ok(done.rows_affected() == 1)
}

/// Ends all sessions of a person but `kept`, in `org` or everywhere; answers how many.
pub(crate) async fn end_all(
    connection: &mut PgConnection,
    user: UserId,
    org: Option<OrgId>,
    kept: Option<LoginSessionId>,
    reason: &str,
    now: Timestamp,
) -> Result<u64> {
    let done = sqlx::query!(
        "update login_sessions set ended_at = $5, end_reason = $4
         where user_id = $1 and ended_at is null and ($2::uuid is null or org_id = $2) and ($3::uuid is null or id <> $3)",
        user.0,
        org.map(|org| org.0),
        kept.map(|kept| kept.0),
        reason,
        now.to_sqlx()
    )
    .execute(connection)
    .await
    .during("end of the sessions")?;
    Ok(done.rows_affected())
}

/// The sessions of a person that have not ended, the newest first; `current` is the one that asks. In `org` or everywhere.
pub(crate) async fn of_user(
    pool: &PgPool,
    user: UserId,
    org: Option<OrgId>,
    current: Option<LoginSessionId>,
    now: Timestamp,
) -> Result<Vec<LoginSession>> {
    let rows = sqlx::query!(
        r#"select s.id, u.name as "user", o.name as organization, s.created_at, s.last_used_at, s.expires_at, s.address,
                  s.client
           from login_sessions s join users u on u.id = s.user_id join organizations o on o.id = s.org_id
           where s.user_id = $1 and s.ended_at is null and s.expires_at > $2 and ($3::uuid is null or s.org_id = $3)
           order by s.id desc limit 1000"#,
        user.0,
        now.to_sqlx(),
        org.map(|org| org.0)
    )
    .fetch_all(pool)
    .await
    .during("query for sessions")?;
    Ok(rows
        .into_iter()
        .map(|row| LoginSession {
            id: row.id.into(),
            user: row.user,
            organization: row.organization,
            created_at: row.created_at.to_jiff(),
            last_used_at: row.last_used_at.to_jiff(),
            expires_at: row.expires_at.to_jiff(),
            address: row.address,
            client: row.client,
            current: current.is_some_and(|current| current.0 == row.id),
        })
        .collect())
}

/// Forgets sessions that are over since before `before`.
pub(crate) async fn forget(pool: &PgPool, before: Timestamp) -> Result<()> {
    sqlx::query!("delete from login_sessions where expires_at < $1", before.to_sqlx())
        .execute(pool)
        .await
        .during("delete of old sessions")?;
    Ok(())
}
