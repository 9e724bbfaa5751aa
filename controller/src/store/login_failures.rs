//! Failures to enter, by the canonical name that was tried, whether there is such a person or not.

use jiff::{SignedDuration, Timestamp};
use jiff_sqlx::ToSqlx;
use model::limits;
use sqlx::PgPool;

use crate::error::{During, Result};

/// Counts a try before it is made, as if it failed: many at once get no more than one after the other. Answers until when
/// the name is locked, if it is: then the try must not be made.
pub(crate) async fn count(pool: &PgPool, name: &str, now: Timestamp) -> Result<Option<Timestamp>> {
    let lock = SignedDuration::try_from(limits::LOGIN_LOCK).unwrap_or(SignedDuration::MAX);
    let row = sqlx::query!(
        r#"insert into login_failures as f (name, failures, first_at) values ($1, 1, $2)
           on conflict (name) do update set
               failures = case when f.first_at < $3 and coalesce(f.locked_until < $2, true) then 1
                               else least(f.failures + 1, $4 + 1) end,
               first_at = case when f.first_at < $3 and coalesce(f.locked_until < $2, true) then $2 else f.first_at end,
               locked_until = case when f.first_at < $3 and coalesce(f.locked_until < $2, true) then null
                                   when f.failures >= $4 then coalesce(f.locked_until, $5)
                                   else null end
           returning locked_until"#,
        name,
        now.to_sqlx(),
        (now - lock).to_sqlx(),
        limits::LOGIN_FAILURES,
        (now + lock).to_sqlx()
    )
    .fetch_one(pool)
    .await
    .during("count of a login")?;
    Ok(row.locked_until.map(jiff_sqlx::Timestamp::to_jiff))
}

/// Takes back what was counted: it was no failure.
pub(crate) async fn uncount(pool: &PgPool, name: &str) -> Result<()> {
    sqlx::query!("update login_failures set failures = greatest(failures - 1, 0) where name = $1", name)
        .execute(pool)
        .await
        .during("count of a login")?;
    Ok(())
}

/// Somebody has entered, or was let in again: answers whether there was anything to forget.
pub(crate) async fn forget(connection: &mut sqlx::PgConnection, name: &str) -> Result<bool> {
    let done = sqlx::query!("delete from login_failures where name = $1", name)
        .execute(connection)
        .await
        .during("delete of failures")?;
    Ok(done.rows_affected() == 1)
}

/// Forgets what is too old to count.
pub(crate) async fn forget_old(pool: &PgPool, before: Timestamp) -> Result<()> {
    sqlx::query!("delete from login_failures where first_at < $1", before.to_sqlx())
        .execute(pool)
        .await
        .during("delete of old failures")?;
    Ok(())
}
