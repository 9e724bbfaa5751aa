//! What gives a role to a person, a group or a service account.

use jiff::Timestamp;
use jiff_sqlx::ToSqlx;
use model::{
    api::role::RoleBinding,
    id::{GroupId, OrgId, RoleBindingId, ServiceAccountId, UserId},
};
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use crate::error::{During, Error, Result};

/// Whom a binding is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Holder {
    User(UserId),
    Group(GroupId),
    ServiceAccount(ServiceAccountId),
}

/// One binding that reaches somebody, with what its role allows: null for a built-in one.
#[derive(Debug)]
pub(crate) struct Reaching {
    pub id: Uuid,
    pub role: String,
    pub permissions: Option<Vec<String>>,
    pub group: Option<String>,
    pub hosts: Option<String>,
    pub jobs: Option<String>,
}

#[derive(Debug)]
pub(crate) struct NewBinding<'a> {
    pub id: RoleBindingId,
    pub org_id: OrgId,
    pub role: &'a str,
    pub holder: Holder,
    pub hosts: Option<&'a str>,
    pub jobs: Option<&'a str>,
    pub created_at: Timestamp,
    pub created_by: &'a str,
}

pub(crate) async fn insert(connection: &mut PgConnection, new: &NewBinding<'_>) -> Result<()> {
    let (user, group, service_account) = match new.holder {
        Holder::User(id) => (Some(id.0), None, None),
        Holder::Group(id) => (None, Some(id.0), None),
        Holder::ServiceAccount(id) => (None, None, Some(id.0)),
    };
    sqlx::query!(
        "insert into role_bindings
             (id, org_id, role, user_id, group_id, service_account_id, hosts, jobs, created_at, created_by)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
        new.id.0,
        new.org_id.0,
        new.role,
        user,
        group,
        service_account,
        new.hosts,
        new.jobs,
        new.created_at.to_sqlx(),
        new.created_by
    )
    .execute(connection)
    .await
    .map_err(|error| Error::taken(error, "role_bindings_key", "binding of the role", new.role))
    .during("insert of the role binding")?;
    Ok(())
}

pub(crate) async fn count(connection: &mut PgConnection, org: OrgId) -> Result<i64> {
    sqlx::query_scalar!(r#"select count(*) as "count!" from role_bindings where org_id = $1"#, org.0)
        .fetch_one(connection)
        .await
        .during("count of role bindings")
}

/// All that reaches a person, also through groups.
pub(crate) async fn of_user(
    connection: &mut PgConnection,
    org: OrgId,
    user: UserId,
) -> Result<Vec<Reaching>> {
    sqlx::query_as!(
        Reaching,
        r#"select b.id, b.role, r.permissions as "permissions?", g.name as "group?", b.hosts, b.jobs
           from role_bindings b
                left join roles r on r.org_id = b.org_id and r.name = b.role
                left join groups g on g.id = b.group_id
           where b.org_id = $1
             and (b.user_id = $2
                  or b.group_id in (select m.group_id from group_members m where m.org_id = $1 and m.user_id = $2))
           order by b.id"#,
        org.0,
        user.0
    )
    .fetch_all(connection)
    .await
    .during("query for role bindings")
}

/// All that reaches a service account.
pub(crate) async fn of_service_account(
    connection: &mut PgConnection,
    org: OrgId,
    id: ServiceAccountId,
) -> Result<Vec<Reaching>> {
    sqlx::query_as!(
        Reaching,
        r#"select b.id, b.role, r.permissions as "permissions?", null::text as "group?", b.hosts, b.jobs
           from role_bindings b left join roles r on r.org_id = b.org_id and r.name = b.role
           where b.org_id = $1 and b.service_account_id = $2 order by b.id"#,
        org.0,
        id.0
    )
    .fetch_all(connection)
    .await
    .during("query for role bindings")
}

/// All that reaches the members of a group through it.
pub(crate) async fn of_group(
    connection: &mut PgConnection,
    org: OrgId,
    id: GroupId,
) -> Result<Vec<Reaching>> {
    sqlx::query_as!(
        Reaching,
        r#"select b.id, b.role, r.permissions as "permissions?", null::text as "group?", b.hosts, b.jobs
           from role_bindings b left join roles r on r.org_id = b.org_id and r.name = b.role
           where b.org_id = $1 and b.group_id = $2 order by b.id"#,
        org.0,
        id.0
    )
    .fetch_all(connection)
    .await
    .during("query for role bindings")
}

/// How many bindings give this role.
pub(crate) async fn of_role(connection: &mut PgConnection, org: OrgId, role: &str) -> Result<i64> {
    sqlx::query_scalar!(
        r#"select count(*) as "count!" from role_bindings where org_id = $1 and role = $2"#,
        org.0,
        role
    )
    .fetch_one(connection)
    .await
    .during("count of role bindings")
}

/// How many people that are not disabled are administrators of the whole organization, besides what `without` gives. The
/// bindings are locked until the transaction ends, so that two cannot take each other's away.
pub(crate) async fn administrators(
    connection: &mut PgConnection,
    org: OrgId,
    without: Option<RoleBindingId>,
    without_user: Option<UserId>,
) -> Result<i64> {
    sqlx::query!(
        "select id from role_bindings where org_id = $1 and role = 'administrator' for update",
        org.0
    )
    .fetch_all(&mut *connection)
    .await
    .during("lock of role bindings")?;
    sqlx::query_scalar!(
        r#"select count(distinct u.id) as "count!"
           from role_bindings b
                left join group_members m on m.org_id = b.org_id and m.group_id = b.group_id
                join users u on u.id = coalesce(b.user_id, m.user_id)
           where b.org_id = $1 and b.role = 'administrator' and b.hosts is null and b.jobs is null
             and u.disabled_at is null and ($2::uuid is null or b.id <> $2) and ($3::uuid is null or u.id <> $3)"#,
        org.0,
        without.map(|id| id.0),
        without_user.map(|id| id.0)
    )
    .fetch_one(connection)
    .await
    .during("count of administrators")
}

/// By age, from behind `after`, or the one with this id.
pub(crate) async fn page(
    pool: &PgPool,
    org: OrgId,
    only: Option<RoleBindingId>,
    after: Option<RoleBindingId>,
    limit: i64,
) -> Result<Vec<RoleBinding>> {
    let rows = sqlx::query!(
        r#"select b.id, b.role, u.name as "user?", g.name as "group?", s.name as "service_account?", b.hosts, b.jobs,
                  b.created_at, b.created_by
           from role_bindings b
                left join users u on u.id = b.user_id
                left join groups g on g.id = b.group_id
                left join service_accounts s on s.id = b.service_account_id
           where b.org_id = $1 and ($2::uuid is null or b.id = $2) and ($3::uuid is null or b.id > $3)
           order by b.id limit $4"#,
        org.0,
        only.map(|id| id.0),
        after.map(|id| id.0),
        limit
    )
    .fetch_all(pool)
    .await
    .during("query for role bindings")?;
    Ok(rows
        .into_iter()
        .map(|row| RoleBinding {
            id: row.id.into(),
            role: row.role,
            user: row.user,
            group: row.group,
            service_account: row.service_account,
            hosts: row.hosts,
            jobs: row.jobs,
            created_at: row.created_at.to_jiff(),
            created_by: row.created_by,
        })
        .collect())
}

pub(crate) async fn delete(connection: &mut PgConnection, org: OrgId, id: RoleBindingId) -> Result<bool> {
    let done = sqlx::query!("delete from role_bindings where org_id = $1 and id = $2", org.0, id.0)
        .execute(connection)
        .await
        .during("delete of the role binding")?;
    Ok(done.rows_affected() == 1)
}
