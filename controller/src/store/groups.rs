//! Groups of people.

use jiff::Timestamp;
use jiff_sqlx::ToSqlx;
use model::{
    api::user::Group,
    id::{GroupId, OrgId, UserId},
};
use sqlx::{PgConnection, PgPool};

use crate::error::{During, Error, Result};

pub(crate) async fn insert(
    connection: &mut PgConnection,
    org: OrgId,
    id: GroupId,
    name: &str,
    by: &str,
    now: Timestamp,
) -> Result<()> {
    sqlx::query!(
        "insert into groups (id, org_id, name, created_at, created_by) values ($1, $2, $3, $4, $5)",
        id.0,
        org.0,
        name,
        now.to_sqlx(),
        by
    )
    .execute(connection)
    .await
    .map_err(|error| Error::taken(error, "groups_name_key", "group", name))
    .during("insert of the group")?;
    Ok(())
}

pub(crate) async fn count(connection: &mut PgConnection, org: OrgId) -> Result<i64> {
    sqlx::query_scalar!(r#"select count(*) as "count!" from groups where org_id = $1"#, org.0)
        .fetch_one(connection)
        .await
        .during("count of groups")
}

pub(crate) async fn find(connection: &mut PgConnection, org: OrgId, name: &str) -> Result<Option<GroupId>> {
    let id = sqlx::query_scalar!("select id from groups where org_id = $1 and name = $2", org.0, name)
        .fetch_optional(connection)
        .await
        .during("query for the group")?;
    Ok(id.map(GroupId))
}

pub(crate) async fn delete(connection: &mut PgConnection, org: OrgId, id: GroupId) -> Result<()> {
    sqlx::query!("delete from groups where org_id = $1 and id = $2", org.0, id.0)
        .execute(connection)
        .await
        .during("delete of the group")?;
    Ok(())
}

/// Answers whether that changed anything.
pub(crate) async fn add(
    connection: &mut PgConnection,
    org: OrgId,
    group: GroupId,
    user: UserId,
) -> Result<bool> {
    let done = sqlx::query!(
        "insert into group_members (org_id, group_id, user_id) values ($1, $2, $3) on conflict do nothing",
        org.0,
        group.0,
        user.0
    )
    .execute(connection)
    .await
    .during("insert of the group's member")?;
    Ok(done.rows_affected() == 1)
}

/// Answers whether that changed anything.
pub(crate) async fn remove(
    connection: &mut PgConnection,
    org: OrgId,
    group: GroupId,
    user: UserId,
) -> Result<bool> {
    let done = sqlx::query!(
        "delete from group_members where org_id = $1 and group_id = $2 and user_id = $3",
        org.0,
        group.0,
        user.0
    )
    .execute(connection)
    .await
    .during("delete of the group's member")?;
    Ok(done.rows_affected() == 1)
}

/// By name, from behind `after`.
pub(crate) async fn page(pool: &PgPool, org: OrgId, after: Option<&str>, limit: i64) -> Result<Vec<Group>> {
    let rows = sqlx::query!(
        r#"select g.id, g.name, g.created_at, g.created_by,
                  array(select u.name from group_members m join users u on u.id = m.user_id
                        where m.org_id = $1 and m.group_id = g.id order by u.name limit 1000) as "members!"
           from groups g where g.org_id = $1 and ($2::text is null or g.name > $2) order by g.name limit $3"#,
        org.0,
        after,
        limit
    )
    .fetch_all(pool)
    .await
    .during("query for groups")?;
    Ok(rows
        .into_iter()
        .map(|row| Group {
            id: row.id.into(),
            name: row.name,
            members: row.members,
            created_at: row.created_at.to_jiff(),
            created_by: row.created_by,
        })
        .collect())
}

/// Whether somebody is in one of these groups.
pub(crate) async fn is_member(
    connection: &mut PgConnection,
    org: OrgId,
    user: UserId,
    groups: &[String],
) -> Result<bool> {
    sqlx::query_scalar!(
        r#"select exists (select from groups g join group_members m on m.group_id = g.id
                          where g.org_id = $1 and m.user_id = $2 and g.name = any($3)) as "is_member!""#,
        org.0,
        user.0,
        groups
    )
    .fetch_one(connection)
    .await
    .during("query for the groups of a person")
}
