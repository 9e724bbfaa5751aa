//! Up to which number a sink outside of the database has an organization's entries.

use model::id::OrgId;
use sqlx::PgPool;

use crate::error::{During, Result};

/// The last number that the sink has; 0 is none.
pub(crate) async fn get(pool: &PgPool, sink: &str, org: OrgId) -> Result<i64> {
    let row = sqlx::query!("select seq from audit_forwarded where sink = $1 and org_id = $2", sink, org.0)
        .fetch_optional(pool)
        .await
        .during("query for what was forwarded")?;
    Ok(row.map_or(0, |row| row.seq))
}

/// The sink has all up to this number.
pub(crate) async fn set(pool: &PgPool, sink: &str, org: OrgId, seq: i64) -> Result<()> {
    sqlx::query!(
        "insert into audit_forwarded (sink, org_id, seq) values ($1, $2, $3)
         on conflict (sink, org_id) do update set seq = excluded.seq",
        sink,
        org.0,
        seq
    )
    .execute(pool)
    .await
    .during("update of what was forwarded")?;
    Ok(())
}
