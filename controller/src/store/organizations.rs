//! Organizations: the tenants.

use jiff::Timestamp;
use jiff_sqlx::ToSqlx;
use model::{api::auth::Organization, id::OrgId};
use sqlx::{PgConnection, PgPool};

use crate::error::{During, Error, Result};

pub(crate) async fn insert(
    connection: &mut PgConnection,
    id: OrgId,
    name: &str,
    now: Timestamp,
) -> Result<()> {
    sqlx::query!(
        "insert into organizations (id, name, created_at) values ($1, $2, $3)",
        id.0,
        name,
        now.to_sqlx()
    )
    .execute(connection)
    .await
    .map_err(|error| Error::taken(error, "organizations_name_key", "organization", name))
    .during("insert of the organization")?;
    Ok(())
}

pub(crate) async fn find(connection: &mut PgConnection, name: &str) -> Result<Option<OrgId>> {
    let id = sqlx::query_scalar!("select id from organizations where name = $1", name)
        .fetch_optional(connection)
        .await
        .during("query for the organization")?;
    Ok(id.map(OrgId))
}

/// All of them, by name.
pub(crate) async fn list(pool: &PgPool) -> Result<Vec<Organization>> {
    let rows = sqlx::query!(
        r#"select o.id, o.name, o.created_at, coalesce(o.id = i.home_org_id, false) as "is_home!",
                  (select count(*) from memberships m where m.org_id = o.id) as "members!"
           from organizations o left join installation i on true order by o.name"#
    )
    .fetch_all(pool)
    .await
    .during("query for organizations")?;
    Ok(rows
        .into_iter()
        .map(|row| Organization {
            id: row.id.into(),
            name: row.name,
            is_home: row.is_home,
            members: row.members,
            created_at: row.created_at.to_jiff(),
        })
        .collect())
}
