//! API tokens.

use jiff::{SignedDuration, Timestamp};
use jiff_sqlx::ToSqlx;
use model::{
    api::token::ApiToken,
    id::{ApiTokenId, OrgId, ServiceAccountId, UserId},
};
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use crate::error::{During, Result};

/// How exactly it is known when a token was used last.
const LAST_USE: SignedDuration = SignedDuration::from_secs(60);

/// Whose a token is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Owner {
    User(UserId),
    ServiceAccount(ServiceAccountId),
}

impl Owner {
    const fn ids(self) -> (Option<Uuid>, Option<Uuid>) {
        match self {
            Self::User(id) => (Some(id.0), None),
            Self::ServiceAccount(id) => (None, Some(id.0)),
        }
    }
}

/// A token that is valid now, of an owner that is not disabled.
#[derive(Debug)]
pub(crate) struct Valid {
    pub org_id: Uuid,
    pub organization: String,
    pub is_home: bool,
    pub user_id: Option<Uuid>,
    pub service_account_id: Option<Uuid>,
    pub owner: String,
    pub secret_hash: Vec<u8>,
    pub permissions: Vec<String>,
    pub hosts: Option<String>,
    pub expires_at: Timestamp,
    pub last_used_at: Option<jiff_sqlx::Timestamp>,
}

#[derive(Debug)]
pub(crate) struct NewToken<'a> {
    pub id: ApiTokenId,
    pub org_id: OrgId,
    pub owner: Owner,
    pub name: &'a str,
    pub secret_hash: &'a [u8],
    /// `*` alone: all of its owner's.
    pub permissions: &'a [String],
    pub hosts: Option<&'a str>,
    pub created_at: Timestamp,
    pub created_by: &'a str,
    pub expires_at: Timestamp,
}

/// The token that `id` names, unless it was revoked, has expired, or its owner is disabled.
pub(crate) async fn get_valid(
    connection: &mut PgConnection,
    id: ApiTokenId,
    now: Timestamp,
) -> Result<Option<Valid>> {
    sqlx::query_as!(
        Valid,
        r#"select t.org_id, o.name as organization, coalesce(i.home_org_id = t.org_id, false) as "is_home!",
                  t.user_id, t.service_account_id, coalesce(u.name, 'service/' || s.name) as "owner!", t.secret_hash,
                  t.permissions, t.hosts, t.expires_at, t.last_used_at
           from api_tokens t
                join organizations o on o.id = t.org_id
                left join installation i on true
                left join users u on u.id = t.user_id
                left join service_accounts s on s.id = t.service_account_id
           where t.id = $1 and t.revoked_at is null and t.expires_at > $2
             and u.disabled_at is null and s.disabled_at is null"#,
        id.0,
        now.to_sqlx()
    )
    .fetch_optional(connection)
    .await
    .during("query for the token")
}

/// Notes that the token was used, if that was not noted within the last minute.
pub(crate) async fn note_use(
    connection: &mut PgConnection,
    id: ApiTokenId,
    noted: Option<jiff_sqlx::Timestamp>,
    from: &str,
    now: Timestamp,
) -> Result<()> {
    if noted.is_some_and(|noted| now.duration_since(noted.to_jiff()) < LAST_USE) {
        return Ok(());
    }
    sqlx::query!(
        "update api_tokens set last_used_at = $2, last_used_from = $3 where id = $1",
        id.0,
        now.to_sqlx(),
        from
    )
    .execute(connection)
    .await
    .during("note of the token's use")?;
    Ok(())
}

pub(crate) async fn insert(connection: &mut PgConnection, new: &NewToken<'_>) -> Result<()> {
    let (user, service_account) = new.owner.ids();
    sqlx::query!(
        "insert into api_tokens
             (id, org_id, user_id, service_account_id, name, secret_hash, permissions, hosts, created_at, created_by,
              expires_at)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
        new.id.0,
        new.org_id.0,
        user,
        service_account,
        new.name,
        new.secret_hash,
        new.permissions,
        new.hosts,
        new.created_at.to_sqlx(),
        new.created_by,
        new.expires_at.to_sqlx()
    )
    .execute(connection)
    .await
    .during("insert of the token")?;
    Ok(())
}

/// Tokens of an owner that count now.
pub(crate) async fn count(
    connection: &mut PgConnection,
    org: OrgId,
    owner: Owner,
    now: Timestamp,
) -> Result<i64> {
    let (user, service_account) = owner.ids();
    sqlx::query_scalar!(
        r#"select count(*) as "count!" from api_tokens
           where org_id = $1 and revoked_at is null and expires_at > $4
             and user_id is not distinct from $2 and service_account_id is not distinct from $3"#,
        org.0,
        user,
        service_account,
        now.to_sqlx()
    )
    .fetch_one(connection)
    .await
    .during("count of tokens")
}

/// Makes a token worthless: `None` when there is no such token that still counts, else whose it is. Only one of
/// `owner`'s, if that is given.
pub(crate) async fn revoke(
    connection: &mut PgConnection,
    org: OrgId,
    id: ApiTokenId,
    owner: Option<Owner>,
    now: Timestamp,
) -> Result<Option<String>> {
    let (user, service_account) = owner.map_or((None, None), Owner::ids);
    sqlx::query_scalar!(
        "update api_tokens set revoked_at = $3
         where org_id = $1 and id = $2 and revoked_at is null
           and ($4::uuid is null or user_id = $4) and ($5::uuid is null or service_account_id = $5)
         returning name",
        org.0,
        id.0,
        now.to_sqlx(),
        user,
        service_account
    )
    .fetch_optional(connection)
    .await
    .during("revocation of the token")
}

/// Whether there is such a token, revoked or not.
pub(crate) async fn is_there(
    connection: &mut PgConnection,
    org: OrgId,
    id: ApiTokenId,
    owner: Option<Owner>,
) -> Result<bool> {
    let (user, service_account) = owner.map_or((None, None), Owner::ids);
    let found = sqlx::query_scalar!(
        "select id from api_tokens where org_id = $1 and id = $2
           and ($3::uuid is null or user_id = $3) and ($4::uuid is null or service_account_id = $4)",
        org.0,
        id.0,
        user,
        service_account
    )
    .fetch_optional(connection)
    .await
    .during("query for the token")?;
    Ok(found.is_some())
}

/// The newest first, from behind `after`; of one owner, or all.
pub(crate) async fn page(
    pool: &PgPool,
    org: OrgId,
    owner: Option<Owner>,
    after: Option<ApiTokenId>,
    limit: i64,
) -> Result<Vec<ApiToken>> {
    let (user, service_account) = owner.map_or((None, None), Owner::ids);
    let rows = sqlx::query!(
        r#"select t.id, t.name, coalesce(u.name, 'service/' || s.name) as "owner!", t.permissions, t.hosts, t.created_at,
                  t.created_by, t.expires_at, t.revoked_at is not null as "revoked!", t.last_used_at, t.last_used_from
           from api_tokens t
                left join users u on u.id = t.user_id
                left join service_accounts s on s.id = t.service_account_id
           where t.org_id = $1 and ($2::uuid is null or t.user_id = $2)
             and ($3::uuid is null or t.service_account_id = $3) and ($4::uuid is null or t.id < $4)
           order by t.id desc limit $5"#,
        org.0,
        user,
        service_account,
        after.map(|id| id.0),
        limit
    )
    .fetch_all(pool)
    .await
    .during("query for tokens")?;
    Ok(rows
        .into_iter()
        .map(|row| ApiToken {
            id: row.id.into(),
            name: row.name,
            owner: row.owner,
            permissions: (row.permissions != ["*"]).then_some(row.permissions),
            hosts: row.hosts,
            created_at: row.created_at.to_jiff(),
            created_by: row.created_by,
            expires_at: row.expires_at.to_jiff(),
            revoked: row.revoked,
            last_used_at: row.last_used_at.map(jiff_sqlx::Timestamp::to_jiff),
            last_used_from: Some(row.last_used_from).filter(|from| !from.is_empty()),
        })
        .collect())
}
