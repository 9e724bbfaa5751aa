//! Counts for `GET /status`.

use sqlx::PgPool;

use crate::error::{During, Result};

/// Runs that wait for their host and runs that a host has.
pub(crate) async fn queued_and_active(pool: &PgPool) -> Result<(i64, i64)> {
    let row = sqlx::query!(
        r#"select count(*) filter (where state = 'queued') as "queued!",
                  count(*) filter (where state = 'active') as "active!"
           from runs where state in ('queued', 'active')"#
    )
    .fetch_one(pool)
    .await
    .during("count of runs")?;
    Ok((row.queued, row.active))
}

/// Agents that have a session.
pub(crate) async fn sessions_connected(pool: &PgPool) -> Result<i64> {
    sqlx::query_scalar!(r#"select count(*) as "connected!" from sessions where connected"#)
        .fetch_one(pool)
        .await
        .during("count of sessions")
}
