//! Roles that an organization has besides the built-in ones.

use jiff::Timestamp;
use jiff_sqlx::ToSqlx;
use model::id::{OrgId, RoleId};
use sqlx::{PgConnection, PgPool};

use crate::error::{During, Result};

/// A role's name and the names of its permissions.
#[derive(Debug)]
pub(crate) struct Role {
    pub name: String,
    pub permissions: Vec<String>,
}

/// By name.
pub(crate) async fn list(pool: &PgPool, org: OrgId) -> Result<Vec<Role>> {
    sqlx::query_as!(Role, "select name, permissions from roles where org_id = $1 order by name", org.0)
        .fetch_all(pool)
        .await
        .during("query for roles")
}

/// Those of these names that are roles of the organization's own.
pub(crate) async fn existing(
    connection: &mut PgConnection,
    org: OrgId,
    names: &[String],
) -> Result<Vec<String>> {
    sqlx::query_scalar!("select name from roles where org_id = $1 and name = any($2)", org.0, names)
        .fetch_all(connection)
        .await
        .during("query for roles by name")
}

/// The permissions of a role; its row is locked until the transaction ends.
pub(crate) async fn lock(
    connection: &mut PgConnection,
    org: OrgId,
    name: &str,
) -> Result<Option<Vec<String>>> {
    sqlx::query_scalar!(
        "select permissions from roles where org_id = $1 and name = $2 for update",
        org.0,
        name
    )
    .fetch_optional(connection)
    .await
    .during("query for the role")
}

pub(crate) async fn count(connection: &mut PgConnection, org: OrgId) -> Result<i64> {
    sqlx::query_scalar!(r#"select count(*) as "count!" from roles where org_id = $1"#, org.0)
        .fetch_one(connection)
        .await
        .during("count of roles")
}

/// Makes the role, or gives it these permissions.
pub(crate) async fn put(
    connection: &mut PgConnection,
    org: OrgId,
    id: RoleId,
    name: &str,
    permissions: &[String],
    by: &str,
    now: Timestamp,
) -> Result<()> {
    sqlx::query!(
        "insert into roles (id, org_id, name, permissions, created_at, created_by) values ($1, $2, $3, $4, $5, $6)
         on conflict (org_id, name) do update set permissions = excluded.permissions",
        id.0,
        org.0,
        name,
        permissions,
        now.to_sqlx(),
        by
    )
    .execute(connection)
    .await
    .during("insert of the role")?;
    Ok(())
}

pub(crate) async fn delete(connection: &mut PgConnection, org: OrgId, name: &str) -> Result<()> {
    sqlx::query!("delete from roles where org_id = $1 and name = $2", org.0, name)
        .execute(connection)
        .await
        .during("delete of the role")?;
    Ok(())
}
