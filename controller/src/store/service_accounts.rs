//! Accounts of programs.

use jiff::Timestamp;
use jiff_sqlx::ToSqlx;
use model::{
    api::token::ServiceAccount,
    id::{OrgId, ServiceAccountId},
};
use sqlx::{PgConnection, PgPool};

use crate::error::{During, Error, Result};

pub(crate) async fn insert(
    connection: &mut PgConnection,
    org: OrgId,
    id: ServiceAccountId,
    name: &str,
    by: &str,
    now: Timestamp,
) -> Result<()> {
    sqlx::query!(
        "insert into service_accounts (id, org_id, name, created_at, created_by) values ($1, $2, $3, $4, $5)",
        id.0,
        org.0,
        name,
        now.to_sqlx(),
        by
    )
    .execute(connection)
    .await
    .map_err(|error| Error::taken(error, "service_accounts_name_key", "service account", name))
    .during("insert of the service account")?;
    Ok(())
}

pub(crate) async fn find(
    connection: &mut PgConnection,
    org: OrgId,
    name: &str,
) -> Result<Option<ServiceAccountId>> {
    let id =
        sqlx::query_scalar!("select id from service_accounts where org_id = $1 and name = $2", org.0, name)
            .fetch_optional(connection)
            .await
            .during("query for the service account")?;
    Ok(id.map(ServiceAccountId))
}

/// The name of one.
pub(crate) async fn name(
    connection: &mut PgConnection,
    org: OrgId,
    id: ServiceAccountId,
) -> Result<Option<String>> {
    sqlx::query_scalar!("select name from service_accounts where org_id = $1 and id = $2", org.0, id.0)
        .fetch_optional(connection)
        .await
        .during("query for the service account")
}

/// With its tokens and bindings.
pub(crate) async fn delete(connection: &mut PgConnection, org: OrgId, id: ServiceAccountId) -> Result<()> {
    sqlx::query!("delete from service_accounts where org_id = $1 and id = $2", org.0, id.0)
        .execute(connection)
        .await
        .during("delete of the service account")?;
    Ok(())
}

/// By name, from behind `after`.
pub(crate) async fn page(
    pool: &PgPool,
    org: OrgId,
    after: Option<&str>,
    limit: i64,
    now: Timestamp,
) -> Result<Vec<ServiceAccount>> {
    let rows = sqlx::query!(
        r#"select s.id, s.name, s.created_at, s.created_by, s.disabled_at is not null as "disabled!",
                  (select count(*) from api_tokens t where t.org_id = $1 and t.service_account_id = s.id
                     and t.revoked_at is null and t.expires_at > $4) as "tokens!"
           from service_accounts s where s.org_id = $1 and ($2::text is null or s.name > $2)
           order by s.name limit $3"#,
        org.0,
        after,
        limit,
        now.to_sqlx()
    )
    .fetch_all(pool)
    .await
    .during("query for service accounts")?;
    Ok(rows
        .into_iter()
        .map(|row| ServiceAccount {
            id: row.id.into(),
            name: row.name,
            created_at: row.created_at.to_jiff(),
            created_by: row.created_by,
            disabled: row.disabled,
            tokens: row.tokens,
        })
        .collect())
}
