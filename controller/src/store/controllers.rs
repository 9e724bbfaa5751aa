//! Controllers and their leases.

use jiff::Timestamp;
use jiff_sqlx::ToSqlx;
use model::id::ControllerId;
use sqlx::PgPool;

use crate::error::{During, Result};

/// Takes or renews the lease; answers how many other controllers hold one.
pub(crate) async fn renew_lease(
    pool: &PgPool,
    id: ControllerId,
    version: &str,
    now: Timestamp,
    until: Timestamp,
) -> Result<i64> {
    sqlx::query_scalar!(
        r#"with renewed as (
             insert into controllers (id, lease_until, started_at, version) values ($1, $4, $3, $2)
             on conflict (id) do update set lease_until = $4, version = $2
         )
         select count(*) as "others!" from controllers where id <> $1 and lease_until > $3"#,
        id.0,
        version,
        now.to_sqlx(),
        until.to_sqlx()
    )
    .fetch_one(pool)
    .await
    .during("renewal of the controller's lease")
}

/// Gives the lease back at a clean stop.
pub(crate) async fn end_lease(pool: &PgPool, id: ControllerId, now: Timestamp) -> Result<()> {
    sqlx::query!("update controllers set lease_until = $2 where id = $1", id.0, now.to_sqlx())
        .execute(pool)
        .await
        .during("end of the controller's lease")?;
    Ok(())
}

/// Makes the partitions of the coming weeks.
pub(crate) async fn ensure_partitions(pool: &PgPool, now: Timestamp) -> Result<()> {
    sqlx::query!("select ensure_partitions($1, 4)", now.to_sqlx())
        .execute(pool)
        .await
        .during("making of partitions")?;
    Ok(())
}

/// Wakes the other controllers. A NOTIFY takes a lock on the whole database at its commit: callers coalesce.
pub(crate) async fn notify(pool: &PgPool) -> Result<()> {
    sqlx::query!("select pg_notify('opsconductor', '')").execute(pool).await.during("notification")?;
    Ok(())
}
