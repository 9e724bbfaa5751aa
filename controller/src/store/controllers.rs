//! Controllers and their leases.

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
    now: Timestamp,
    until: Timestamp,
) -> Result<i64> {
    sqlx::query_scalar!(
        r#"with renewed as (
             insert into controllers (id, lease_until, started_at, version, announce)
             values ($1, $4, $3, $2, $5)
             on conflict (id) do update set lease_until = $4, version = $2, announce = $5
         )
         select count(*) as "others!" from controllers where id <> $1 and lease_until > $3"#,
        id.0,
        version,
        now.to_sqlx(),
        until.to_sqlx(),
        announce
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
pub(crate) async fn list(pool: &PgPool, now: Timestamp) -> Result<Vec<Controller>> {
    let rows = sqlx::query!(
        r#"select c.id, c.version, c.started_at, c.lease_until, c.announce, c.lease_until > $1 as "is_alive!",
                  (select count(*) from sessions s where s.controller_id = c.id and s.connected) as "sessions!"
           from controllers c order by c.id limit $2"#,
        now.to_sqlx(),
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

/// Where agents reach the controllers that say so: the living first, then those that have been away since `since` at most.
pub(crate) async fn announced(pool: &PgPool, now: Timestamp, since: Timestamp) -> Result<Vec<String>> {
    sqlx::query_scalar!(
        r#"select announce as "announce!" from controllers
           where announce is not null and lease_until > $2 order by lease_until > $1 desc, id limit $3"#,
        now.to_sqlx(),
        since.to_sqlx(),
        limits::ANNOUNCED_CONTROLLERS as i64
    )
    .fetch_all(pool)
    .await
    .during("query for announced controllers")
}
