//! Who a provider's person is here, and what is given to that one by it.

use jiff::Timestamp;
use jiff_sqlx::ToSqlx;
use model::id::{OrgId, RoleBindingId, UserId};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::error::{During, Result};

/// Somebody whom a provider speaks for.
#[derive(Debug)]
pub(crate) struct Known {
    pub id: Uuid,
    pub name: String,
    pub disabled: bool,
}

/// Makes others who ask for the same person wait until the transaction ends.
pub(crate) async fn lock(connection: &mut PgConnection, issuer: &str, subject: &str) -> Result<()> {
    sqlx::query!("select pg_advisory_xact_lock(hashtextextended($1 || ' ' || $2, 0))", issuer, subject)
        .fetch_one(connection)
        .await
        .during("lock of the identity")?;
    Ok(())
}

pub(crate) async fn find(
    connection: &mut PgConnection,
    issuer: &str,
    subject: &str,
) -> Result<Option<Known>> {
    sqlx::query_as!(
        Known,
        r#"select u.id, u.name, u.disabled_at is not null as "disabled!"
           from user_identities i join users u on u.id = i.user_id where i.issuer = $1 and i.subject = $2"#,
        issuer,
        subject
    )
    .fetch_optional(connection)
    .await
    .during("query for the identity")
}

pub(crate) async fn insert(
    connection: &mut PgConnection,
    issuer: &str,
    subject: &str,
    user: UserId,
    now: Timestamp,
) -> Result<()> {
    sqlx::query!(
        "insert into user_identities (issuer, subject, user_id, created_at) values ($1, $2, $3, $4)",
        issuer,
        subject,
        user.0,
        now.to_sqlx()
    )
    .execute(connection)
    .await
    .during("insert of the identity")?;
    Ok(())
}

/// Forgets who the person is at this provider; answers how many there were.
pub(crate) async fn remove(connection: &mut PgConnection, issuer: &str, user: UserId) -> Result<u64> {
    let done = sqlx::query!("delete from user_identities where issuer = $1 and user_id = $2", issuer, user.0)
        .execute(connection)
        .await
        .during("delete of the identity")?;
    Ok(done.rows_affected())
}

/// A binding that was made by `by`.
#[derive(Debug)]
pub(crate) struct Given {
    pub id: RoleBindingId,
    pub role: String,
    pub hosts: Option<String>,
}

/// The bindings of a person that were made by `by`.
pub(crate) async fn given(
    connection: &mut PgConnection,
    org: OrgId,
    user: UserId,
    by: &str,
) -> Result<Vec<Given>> {
    let rows = sqlx::query!(
        "select id, role, hosts from role_bindings where org_id = $1 and user_id = $2 and created_by = $3",
        org.0,
        user.0,
        by
    )
    .fetch_all(connection)
    .await
    .during("query for role bindings")?;
    Ok(rows.into_iter().map(|row| Given { id: row.id.into(), role: row.role, hosts: row.hosts }).collect())
}

/// Whether a person has this binding already, whoever made it.
pub(crate) async fn has(
    connection: &mut PgConnection,
    org: OrgId,
    user: UserId,
    role: &str,
    hosts: Option<&str>,
) -> Result<bool> {
    sqlx::query_scalar!(
        r#"select exists (
               select from role_bindings
               where org_id = $1 and user_id = $2 and role = $3 and hosts is not distinct from $4 and jobs is null) as "has!""#,
        org.0,
        user.0,
        role,
        hosts
    )
    .fetch_one(connection)
    .await
    .during("query for a role binding")
}
