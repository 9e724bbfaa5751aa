//! The schema's version: migrations go forward only, and a database that is newer than this program is refused.

use sqlx::{Connection, PgConnection, migrate::Migrator, postgres::PgConnectOptions};

static MIGRATOR: Migrator = sqlx::migrate!("./migrations");

/// Newest schema that this program knows.
pub(crate) fn newest() -> i64 {
    MIGRATOR.iter().map(|migration| migration.version).max().unwrap_or(0)
}

/// How the database's schema stands to this program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SchemaState {
    Current,
    /// The database is at this version; migrating brings it up to date. 0 is an empty database.
    Older(i64),
    /// The database was migrated by a newer program.
    Newer(i64),
}

/// Why a migration did not happen.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MigrateError {
    #[error("cannot connect to the database")]
    Connect(#[source] sqlx::Error),
    #[error(
        "the database has schema {found}, this program knows schemas up to {newest}: install the newer program"
    )]
    Newer { found: i64, newest: i64 },
    #[error("cannot migrate the database")]
    Migrate(#[source] sqlx::migrate::MigrateError),
    #[error("cannot read the schema's version")]
    Read(#[source] sqlx::Error),
    #[error("cannot make the partitions of the coming weeks")]
    Partitions(#[source] sqlx::Error),
}

/// Compares the database's schema with this program's.
///
/// # Errors
/// When the database cannot be reached or read.
pub(crate) async fn check_schema(options: &PgConnectOptions) -> Result<SchemaState, MigrateError> {
    let mut connection = PgConnection::connect_with(options).await.map_err(MigrateError::Connect)?;
    let state = state_of(&mut connection).await;
    connection.close().await.map_err(MigrateError::Read)?;
    state
}

/// Brings the database up to date; safe to call from several programs at once.
///
/// # Errors
/// When the database cannot be reached, is newer than this program, or a migration fails.
pub(crate) async fn migrate(options: &PgConnectOptions) -> Result<(), MigrateError> {
    let mut connection = PgConnection::connect_with(options).await.map_err(MigrateError::Connect)?;
    if let SchemaState::Newer(found) = state_of(&mut connection).await? {
        return Err(MigrateError::Newer { found, newest: newest() });
    }
    MIGRATOR.run(&mut connection).await.map_err(MigrateError::Migrate)?;
    sqlx::query("select ensure_partitions(now(), 4)")
        .execute(&mut connection)
        .await
        .map_err(MigrateError::Partitions)?;
    connection.close().await.map_err(MigrateError::Read)
}

async fn state_of(connection: &mut PgConnection) -> Result<SchemaState, MigrateError> {
    let there: bool = sqlx::query_scalar("select to_regclass('_sqlx_migrations') is not null")
        .fetch_one(&mut *connection)
        .await
        .map_err(MigrateError::Read)?;
    let found: i64 = if there {
        sqlx::query_scalar("select coalesce(max(version), 0) from _sqlx_migrations where success")
            .fetch_one(&mut *connection)
            .await
            .map_err(MigrateError::Read)?
    } else {
        0
    };
    Ok(match found.cmp(&newest()) {
        std::cmp::Ordering::Equal => SchemaState::Current,
        std::cmp::Ordering::Less => SchemaState::Older(found),
        std::cmp::Ordering::Greater => SchemaState::Newer(found),
    })
}
