//! Enroll tokens. Spending one is a single conditional update.

use std::net::IpAddr;

use jiff::Timestamp;
use jiff_sqlx::ToSqlx;
use model::{
    api::enroll_token::EnrollToken,
    id::{EnrollTokenId, OrgId},
    label::Labels,
};
use sqlx::{PgConnection, PgPool, types::Json};
use uuid::Uuid;

use crate::error::{During, Result};

/// What a spent token gives.
#[derive(Debug)]
pub(crate) struct Spent {
    pub org_id: Uuid,
    pub labels: Json<Labels>,
    pub max_uses: i32,
}

/// Why a token cannot be spent.
#[derive(Debug)]
pub(crate) struct Unspendable {
    pub used_up: bool,
    pub expired: bool,
}

pub(crate) async fn insert(
    connection: &mut PgConnection,
    org: OrgId,
    token: &EnrollToken,
    secret_hash: &[u8],
) -> Result<()> {
    sqlx::query!(
        "insert into enroll_tokens
             (id, org_id, secret_hash, labels, max_uses, address_range, created_at, created_by, expires_at)
         values ($1, $2, $3, $4, $5, $6::text::cidr, $7, $8, $9)",
        token.id.0,
        org.0,
        secret_hash,
        Json(&token.labels) as _,
        token.max_uses,
        token.address_range,
        token.created_at.to_sqlx(),
        token.created_by,
        token.expires_at.to_sqlx()
    )
    .execute(connection)
    .await
    .during("insert of the enroll token")?;
    Ok(())
}

/// Uses the token once, if it may be used now from `address`.
pub(crate) async fn spend(
    connection: &mut PgConnection,
    id: EnrollTokenId,
    secret_hash: &[u8],
    address: IpAddr,
    now: Timestamp,
) -> Result<Option<Spent>> {
    sqlx::query_as!(
        Spent,
        r#"update enroll_tokens set uses = uses + 1
           where id = $1 and secret_hash = $2 and uses < max_uses and expires_at > $4
             and (address_range is null or $3::text::inet <<= address_range)
           returning org_id, labels as "labels: Json<Labels>", max_uses"#,
        id.0,
        secret_hash,
        address.to_string(),
        now.to_sqlx()
    )
    .fetch_optional(connection)
    .await
    .during("spending of the enroll token")
}

/// Why the holder of the right secret could not spend it.
pub(crate) async fn explain(
    connection: &mut PgConnection,
    id: EnrollTokenId,
    secret_hash: &[u8],
    now: Timestamp,
) -> Result<Option<Unspendable>> {
    sqlx::query_as!(
        Unspendable,
        r#"select uses >= max_uses as "used_up!", expires_at <= $3 as "expired!"
           from enroll_tokens where id = $1 and secret_hash = $2"#,
        id.0,
        secret_hash,
        now.to_sqlx()
    )
    .fetch_optional(connection)
    .await
    .during("query for the enroll token")
}

/// Newest first, from behind `after`.
pub(crate) async fn page(
    pool: &PgPool,
    org: OrgId,
    after: Option<EnrollTokenId>,
    limit: i64,
) -> Result<Vec<EnrollToken>> {
    let rows = sqlx::query!(
        r#"select id, labels as "labels: Json<Labels>", max_uses, uses, address_range::text as address_range,
                  created_at, created_by, expires_at
           from enroll_tokens
           where org_id = $1 and ($2::uuid is null or id < $2)
           order by id desc limit $3"#,
        org.0,
        after.map(|id| id.0),
        limit
    )
    .fetch_all(pool)
    .await
    .during("query for enroll tokens")?;
    Ok(rows
        .into_iter()
        .map(|row| EnrollToken {
            id: row.id.into(),
            labels: row.labels.0,
            max_uses: row.max_uses,
            uses: row.uses,
            address_range: row.address_range,
            created_at: row.created_at.to_jiff(),
            created_by: row.created_by,
            expires_at: row.expires_at.to_jiff(),
        })
        .collect())
}

/// Answers whether it was there.
pub(crate) async fn delete(connection: &mut PgConnection, org: OrgId, id: EnrollTokenId) -> Result<bool> {
    let done = sqlx::query!("delete from enroll_tokens where org_id = $1 and id = $2", org.0, id.0)
        .execute(connection)
        .await
        .during("delete of the enroll token")?;
    Ok(done.rows_affected() == 1)
}
