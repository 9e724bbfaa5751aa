//! People, and of which organizations they are members.

use jiff::Timestamp;
use jiff_sqlx::ToSqlx;
use model::{
    api::user::User,
    id::{OrgId, UserId},
};
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use crate::error::{During, Error, Result};

/// What decides whether somebody may enter.
#[derive(Debug)]
pub(crate) struct Entrance {
    pub id: Uuid,
    pub name: String,
    pub password_hash: Option<String>,
    pub disabled: bool,
    /// What the key of one-time codes is made of, with one of the authority's.
    pub totp_salt: Option<Vec<u8>>,
    pub totp_confirmed: bool,
    pub totp_last_step: i64,
}

/// An organization that somebody is a member of.
#[derive(Debug)]
pub(crate) struct Membership {
    pub org_id: Uuid,
    pub organization: String,
    pub added_at: Timestamp,
}

pub(crate) async fn insert(
    connection: &mut PgConnection,
    id: UserId,
    name: &str,
    password_hash: Option<&str>,
    now: Timestamp,
) -> Result<()> {
    sqlx::query!(
        "insert into users (id, name, password_hash, password_changed_at, created_at) values ($1, $2, $3, $4, $4)",
        id.0,
        name,
        password_hash,
        now.to_sqlx()
    )
    .execute(connection)
    .await
    .map_err(|error| Error::taken(error, "users_name_key", "user", name))
    .during("insert of the user")?;
    Ok(())
}

/// Who has this canonical name, in whatever organization.
pub(crate) async fn find(connection: &mut PgConnection, name: &str) -> Result<Option<UserId>> {
    let id = sqlx::query_scalar!("select id from users where name = $1", name)
        .fetch_optional(connection)
        .await
        .during("query for the user")?;
    Ok(id.map(UserId))
}

/// Makes somebody a member; `false` when he was one.
pub(crate) async fn add_member(
    connection: &mut PgConnection,
    org: OrgId,
    user: UserId,
    by: &str,
    now: Timestamp,
) -> Result<bool> {
    let done = sqlx::query!(
        "insert into memberships (org_id, user_id, added_at, added_by) values ($1, $2, $3, $4) on conflict do nothing",
        org.0,
        user.0,
        now.to_sqlx(),
        by
    )
    .execute(connection)
    .await
    .during("insert of the membership")?;
    Ok(done.rows_affected() == 1)
}

/// Ends a membership, with the bindings, groups and tokens that hang on it; `false` when there was none.
pub(crate) async fn remove_member(connection: &mut PgConnection, org: OrgId, user: UserId) -> Result<bool> {
    let done = sqlx::query!("delete from memberships where org_id = $1 and user_id = $2", org.0, user.0)
        .execute(connection)
        .await
        .during("delete of the membership")?;
    Ok(done.rows_affected() == 1)
}

/// By the canonical name.
pub(crate) async fn entrance(pool: &PgPool, name: &str) -> Result<Option<Entrance>> {
    sqlx::query_as!(
        Entrance,
        r#"select id, name, password_hash, disabled_at is not null as "disabled!", totp_salt,
                  totp_confirmed_at is not null as "totp_confirmed!", totp_last_step
           from users where name = $1"#,
        name
    )
    .fetch_optional(pool)
    .await
    .during("query for the user")
}

pub(crate) async fn entrance_of(pool: &PgPool, id: UserId) -> Result<Option<Entrance>> {
    sqlx::query_as!(
        Entrance,
        r#"select id, name, password_hash, disabled_at is not null as "disabled!", totp_salt,
                  totp_confirmed_at is not null as "totp_confirmed!", totp_last_step
           from users where id = $1"#,
        id.0
    )
    .fetch_optional(pool)
    .await
    .during("query for the user")
}

/// As [`entrance_of`]; nobody changes the row until the transaction ends.
pub(crate) async fn lock_entrance(connection: &mut PgConnection, id: UserId) -> Result<Option<Entrance>> {
    sqlx::query_as!(
        Entrance,
        r#"select id, name, password_hash, disabled_at is not null as "disabled!", totp_salt,
                  totp_confirmed_at is not null as "totp_confirmed!", totp_last_step
           from users where id = $1 for share"#,
        id.0
    )
    .fetch_optional(connection)
    .await
    .during("lock of the user")
}

/// A member of the organization by the canonical name.
pub(crate) async fn find_member(
    connection: &mut PgConnection,
    org: OrgId,
    name: &str,
) -> Result<Option<UserId>> {
    let id = sqlx::query_scalar!(
        "select u.id from memberships m join users u on u.id = m.user_id where m.org_id = $1 and u.name = $2",
        org.0,
        name
    )
    .fetch_optional(connection)
    .await
    .during("query for the user")?;
    Ok(id.map(UserId))
}

/// The name of a member who is not disabled.
pub(crate) async fn name_of_member(
    connection: &mut PgConnection,
    org: OrgId,
    user: UserId,
) -> Result<Option<String>> {
    sqlx::query_scalar!(
        "select u.name from memberships m join users u on u.id = m.user_id
         where m.org_id = $1 and u.id = $2 and u.disabled_at is null",
        org.0,
        user.0
    )
    .fetch_optional(connection)
    .await
    .during("query for the member")
}

/// Of which organizations somebody is a member, by name.
pub(crate) async fn memberships(connection: &mut PgConnection, user: UserId) -> Result<Vec<Membership>> {
    sqlx::query_as!(
        Membership,
        "select m.org_id, o.name as organization, m.added_at from memberships m join organizations o on o.id = m.org_id
         where m.user_id = $1 order by o.name",
        user.0
    )
    .fetch_all(connection)
    .await
    .during("query for memberships")
}

pub(crate) async fn set_password(
    connection: &mut PgConnection,
    user: UserId,
    hash: &str,
    now: Timestamp,
) -> Result<()> {
    sqlx::query!(
        "update users set password_hash = $2, password_changed_at = $3 where id = $1",
        user.0,
        hash,
        now.to_sqlx()
    )
    .execute(connection)
    .await
    .during("update of the password")?;
    Ok(())
}

/// Answers whether that changed anything.
pub(crate) async fn set_disabled(
    connection: &mut PgConnection,
    user: UserId,
    since: Option<Timestamp>,
) -> Result<bool> {
    let done = sqlx::query!(
        "update users set disabled_at = $2 where id = $1 and (disabled_at is null) <> ($2::timestamptz is null)",
        user.0,
        since.map(ToSqlx::to_sqlx) as _
    )
    .execute(connection)
    .await
    .during("update of the user")?;
    Ok(done.rows_affected() == 1)
}

/// Begins a second factor; it counts once it was confirmed. `false` when there is one that counts.
pub(crate) async fn begin_totp(connection: &mut PgConnection, user: UserId, salt: &[u8]) -> Result<bool> {
    let done = sqlx::query!(
        "update users set totp_salt = $2, totp_last_step = 0 where id = $1 and totp_confirmed_at is null",
        user.0,
        salt
    )
    .execute(connection)
    .await
    .during("update of the second factor")?;
    Ok(done.rows_affected() == 1)
}

/// Makes the second factor count, by a code of `step`; `false` when there is none to confirm.
pub(crate) async fn confirm_totp(
    connection: &mut PgConnection,
    user: UserId,
    salt: &[u8],
    step: i64,
    recovery_hashes: &[Vec<u8>],
    now: Timestamp,
) -> Result<bool> {
    let done = sqlx::query!(
        "update users set totp_confirmed_at = $4, totp_last_step = $3, recovery_codes = $5
         where id = $1 and totp_salt = $2 and totp_confirmed_at is null",
        user.0,
        salt,
        step,
        now.to_sqlx(),
        recovery_hashes
    )
    .execute(connection)
    .await
    .during("confirmation of the second factor")?;
    Ok(done.rows_affected() == 1)
}

/// Uses the code of a step; `false` when it, or a later one, was used before.
pub(crate) async fn use_totp_step(connection: &mut PgConnection, user: UserId, step: i64) -> Result<bool> {
    let done = sqlx::query!(
        "update users set totp_last_step = $2 where id = $1 and totp_last_step < $2",
        user.0,
        step
    )
    .execute(connection)
    .await
    .during("use of the code")?;
    Ok(done.rows_affected() == 1)
}

/// Uses a recovery code; `false` when there is no such one (any more).
pub(crate) async fn use_recovery_code(
    connection: &mut PgConnection,
    user: UserId,
    hash: &[u8],
) -> Result<bool> {
    let done = sqlx::query!(
        "update users set recovery_codes = array_remove(recovery_codes, $2) where id = $1 and $2 = any(recovery_codes)",
        user.0,
        hash
    )
    .execute(connection)
    .await
    .during("use of the recovery code")?;
    Ok(done.rows_affected() == 1)
}

/// Answers whether there was a second factor.
pub(crate) async fn remove_totp(connection: &mut PgConnection, user: UserId) -> Result<bool> {
    let done = sqlx::query!(
        "update users set totp_salt = null, totp_confirmed_at = null, totp_last_step = 0, recovery_codes = '{}'
         where id = $1 and totp_confirmed_at is not null",
        user.0
    )
    .execute(connection)
    .await
    .during("removal of the second factor")?;
    Ok(done.rows_affected() == 1)
}

/// Members by name, from behind `after`; or the one called `only`.
pub(crate) async fn page(
    pool: &PgPool,
    org: OrgId,
    only: Option<&str>,
    after: Option<&str>,
    limit: i64,
) -> Result<Vec<User>> {
    let rows = sqlx::query!(
        r#"select u.id, u.name, u.created_at, m.added_at, m.added_by, u.disabled_at is not null as "disabled!",
                  u.totp_confirmed_at is not null as "second_factor!",
                  (select max(s.last_used_at) from login_sessions s
                   where s.user_id = u.id and s.org_id = $1 and s.ended_at is null)
                      as last_used_at,
                  array(select distinct b.role from role_bindings b
                        where b.org_id = $1 and b.hosts is null and b.jobs is null
                          and (b.user_id = u.id or b.group_id in
                               (select g.group_id from group_members g where g.org_id = $1 and g.user_id = u.id))
                        order by 1) as "roles!",
                  array(select g.name from group_members gm join groups g on g.id = gm.group_id
                        where gm.org_id = $1 and gm.user_id = u.id order by 1) as "groups!"
           from memberships m join users u on u.id = m.user_id
           where m.org_id = $1 and ($2::text is null or u.name = $2) and ($3::text is null or u.name > $3)
           order by u.name limit $4"#,
        org.0,
        only,
        after,
        limit
    )
    .fetch_all(pool)
    .await
    .during("query for users")?;
    Ok(rows
        .into_iter()
        .map(|row| User {
            id: row.id.into(),
            name: row.name,
            created_at: row.created_at.to_jiff(),
            added_at: row.added_at.to_jiff(),
            added_by: row.added_by,
            disabled: row.disabled,
            second_factor: row.second_factor,
            last_used_at: row.last_used_at.map(jiff_sqlx::Timestamp::to_jiff),
            roles: row.roles,
            groups: row.groups,
        })
        .collect())
}
