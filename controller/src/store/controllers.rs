//! Controllers and their leases, which the database's own clock measures.

use std::time::Duration;

use jiff::Timestamp;
use jiff_sqlx::ToSqlx;
use model::{api::controller::Controller, id::ControllerId, limits};
use sqlx::PgPool;

use crate::error::{During, Result};

/// Takes or renews the lease; answers how many other controllers hold one.
pub(crate) async fn renew_lease(
    pool: &PgPool,
    id: ControllerId,
    version: &str,
    announce: Option<&str>,
    lease: Duration,
) -> Result<i64> {
    sqlx::query_scalar!(
        r#"with renewed as (
             insert into controllers (id, lease_until, started_at, version, announce)
             values ($1, now() + make_interval(secs => $3), now(), $2, $4)
             on conflict (id) do update
             set lease_until = now() + make_interval(secs => $3), version = $2, announce = $4
         )
         select count(*) as "others!" from controllers where id <> $1 and lease_until > now()"#,
        id.0,
        version,
        lease.as_secs_f64(),
        announce
    )
    .fetch_one(pool)
    .await
    .during("renewal of the controller's lease")
}

/// What the database's clock shows right now, and how many other controllers hold a lease.
pub(crate) async fn clock(pool: &PgPool, me: ControllerId) -> Result<(Timestamp, i64)> {
    let row = sqlx::query!(
        r#"select clock_timestamp() as "now!",
                  (select count(*) from controllers where id <> $1 and lease_until > now()) as "others!""#,
        me.0
    )
    .fetch_one(pool)
    .await
    .during("query for the database's clock")?;
    Ok((row.now.to_jiff(), row.others))
}

/// Gives the lease back at a clean stop.
pub(crate) async fn end_lease(pool: &PgPool, id: ControllerId) -> Result<()> {
    sqlx::query!("update controllers set lease_until = now() where id = $1", id.0)
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

/// Wakes the other controllers through `channel`; `from` lets each leave out its own calls. A NOTIFY takes a lock on the
/// whole database at its commit: callers coalesce.
pub(crate) async fn notify(pool: &PgPool, channel: &str, from: ControllerId) -> Result<()> {
    sqlx::query!("select pg_notify($1, $2)", channel, from.to_string())
        .execute(pool)
        .await
        .during("notification")?;
    Ok(())
}

/// All controllers that ever served this database, the longest known first.
pub(crate) async fn list(pool: &PgPool) -> Result<Vec<Controller>> {
    let rows = sqlx::query!(
        r#"select c.id, c.version, c.started_at, c.lease_until, c.announce, c.lease_until > now() as "is_alive!",
                  (select count(*) from sessions s where s.controller_id = c.id and s.connected) as "sessions!"
           from controllers c order by c.id limit $1"#,
        limits::MAX_PAGE
    )
    .fetch_all(pool)
    .await
    .during("query for controllers")?;
    Ok(rows
        .into_iter()
        .map(|row| Controller {
            id: row.id.into(),
            version: row.version,
            is_alive: row.is_alive,
            sessions: row.sessions,
            announce: row.announce,
            started_at: row.started_at.to_jiff(),
            lease_until: row.lease_until.to_jiff(),
        })
        .collect())
}

/// Where agents reach the controllers that say so: the living first, then those that have been away for less than
/// `forgotten`.
pub(crate) async fn announced(pool: &PgPool, forgotten: Duration) -> Result<Vec<String>> {
    sqlx::query_scalar!(
        r#"select announce as "announce!" from controllers
           where announce is not null and lease_until > now() - make_interval(secs => $1)
           order by lease_until > now() desc, id limit $2"#,
        forgotten.as_secs_f64(),
        limits::ANNOUNCED_CONTROLLERS as i64
    )
    .fetch_all(pool)
    .await
    .during("query for announced controllers")
}
