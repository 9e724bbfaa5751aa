//! Target groups: hosts that jobs name together.

use jiff::Timestamp;
use jiff_sqlx::ToSqlx;
use model::{
    api::target_group::{Members, TargetGroup},
    id::{OrgId, TargetGroupId},
};
use sqlx::{PgConnection, PgPool};

use crate::error::{During, Error, Result};

/// A group to be, or as it is to be.
#[derive(Debug)]
pub(crate) struct Saved<'a> {
    pub id: TargetGroupId,
    pub org_id: OrgId,
    pub name: &'a str,
    pub description: &'a str,
    pub members: &'a Members,
    pub version: i32,
    pub at: Timestamp,
    pub by: &'a str,
}

pub(crate) async fn insert(connection: &mut PgConnection, new: &Saved<'_>) -> Result<()> {
    sqlx::query!(
        "insert into target_groups
             (id, org_id, name, description, hosts, selector, version, created_at, created_by, updated_at, updated_by)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $8, $9)",
        new.id.0,
        new.org_id.0,
        new.name,
        new.description,
        &new.members.hosts,
        new.members.selector,
        new.version,
        new.at.to_sqlx(),
        new.by
    )
    .execute(connection)
    .await
    .map_err(|error| Error::taken(error, "target_groups_name_key", "target group", new.name))
    .during("insert of the target group")?;
    Ok(())
}

pub(crate) async fn update(connection: &mut PgConnection, new: &Saved<'_>) -> Result<()> {
    sqlx::query!(
        "update target_groups
         set description = $3, hosts = $4, selector = $5, version = $6, updated_at = $7, updated_by = $8
         where org_id = $1 and id = $2",
        new.org_id.0,
        new.id.0,
        new.description,
        &new.members.hosts,
        new.members.selector,
        new.version,
        new.at.to_sqlx(),
        new.by
    )
    .execute(connection)
    .await
    .during("update of the target group")?;
    Ok(())
}

/// The group of this id or name, with all of its hosts. Locks its row when it is to be changed.
pub(crate) async fn find(
    connection: &mut PgConnection,
    org: OrgId,
    key: &str,
    to_change: bool,
) -> Result<Option<TargetGroup>> {
    let id = key.parse::<TargetGroupId>().ok().map(|id| id.0);
    if to_change {
        sqlx::query!(
            "select id from target_groups where org_id = $1 and (id = $2 or name = $3) for update",
            org.0,
            id,
            key
        )
        .fetch_optional(&mut *connection)
        .await
        .during("lock of the target group")?;
    }
    let row = sqlx::query!(
        "select id, name, description, hosts, selector, version, created_at, created_by, updated_at, updated_by
         from target_groups where org_id = $1 and (id = $2 or name = $3)",
        org.0,
        id,
        key
    )
    .fetch_optional(connection)
    .await
    .during("query for the target group")?;
    Ok(row.map(|r| TargetGroup {
        id: r.id.into(),
        name: r.name,
        description: r.description,
        selector: r.selector,
        size: i32::try_from(r.hosts.len()).unwrap_or(i32::MAX),
        hosts: r.hosts,
        missing: Vec::new(),
        hidden: 0,
        version: r.version,
        created_at: r.created_at.to_jiff(),
        created_by: r.created_by,
        updated_at: r.updated_at.to_jiff(),
        updated_by: r.updated_by,
    }))
}

pub(crate) async fn count(connection: &mut PgConnection, org: OrgId) -> Result<i64> {
    sqlx::query_scalar!(r#"select count(*) as "count!" from target_groups where org_id = $1"#, org.0)
        .fetch_one(connection)
        .await
        .during("count of target groups")
}

pub(crate) async fn delete(connection: &mut PgConnection, org: OrgId, id: TargetGroupId) -> Result<()> {
    sqlx::query!("delete from target_groups where org_id = $1 and id = $2", org.0, id.0)
        .execute(connection)
        .await
        .during("delete of the target group")?;
    Ok(())
}

/// By name, from behind `after`, without their hosts.
pub(crate) async fn page(
    pool: &PgPool,
    org: OrgId,
    after: Option<&str>,
    limit: i64,
) -> Result<Vec<TargetGroup>> {
    let rows = sqlx::query!(
        r#"select id, name, description, cardinality(hosts) as "size!", selector, version, created_at, created_by,
                  updated_at, updated_by
           from target_groups where org_id = $1 and ($2::text is null or name > $2) order by name limit $3"#,
        org.0,
        after,
        limit
    )
    .fetch_all(pool)
    .await
    .during("query for target groups")?;
    Ok(rows
        .into_iter()
        .map(|r| TargetGroup {
            id: r.id.into(),
            name: r.name,
            description: r.description,
            selector: r.selector,
            size: r.size,
            hosts: Vec::new(),
            missing: Vec::new(),
            hidden: 0,
            version: r.version,
            created_at: r.created_at.to_jiff(),
            created_by: r.created_by,
            updated_at: r.updated_at.to_jiff(),
            updated_by: r.updated_by,
        })
        .collect())
}
