//! The embedded Postgres: a private server under the data folder, for an installation on one host.
//!
//! Invariants:
//! 1. It listens on a unix socket inside a folder of its own (0700), never on TCP, and knows who connects from the kernel
//!    (`peer`): the controller's user and the server's own, nobody else, and no password exists.
//! 2. It never runs as root. A controller that is root gives it to the user `postgres`, or to `nobody` without one.
//! 3. There is never a second one on the same folder: the caller holds the lock of the data folder, and an orphan of a
//!    controller that was killed is adopted, or waited for while it shuts down.
//! 4. It ends with the controller: cleanly by [`Embedded::stop`], and by a signal of the kernel when the controller is
//!    killed.
//! 5. It is durable: `fsync` and `synchronous_commit` are never turned off.

mod binaries;
mod cluster;
mod supervisor;
#[cfg(test)]
mod tests;

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use nix::unistd::Pid;
use sqlx::{Connection as _, PgConnection, postgres::PgConnectOptions};

use binaries::Binaries;
use cluster::{Cluster, DATABASE};
use supervisor::{Started, Supervisor};

/// How long a server may take until it answers. Recovery after a crash replays up to `max_wal_size`.
const READY_WITHIN: Duration = Duration::from_secs(120);
/// How long an orphan that does not answer is waited for before it is stopped.
const ORPHAN_ANSWERS_WITHIN: Duration = Duration::from_secs(30);
/// How long a server may take for a checkpoint and its end, and then, told to drop everything, for its end alone.
const STOPS_WITHIN: Duration = Duration::from_secs(60);
const QUITS_WITHIN: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(10);
/// Tries to start a server, for the processes of one that was killed may need a moment to be gone.
const STARTS: u32 = 3;
const START_AGAIN_AFTER: Duration = Duration::from_millis(500);

/// Why there is no embedded Postgres.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PostgresError {
    #[error(
        "no Postgres server (15 or newer) was found in {searched}: install one (Debian: apt install postgresql), name its \
         folder in OPSC_PG_BIN, or set [database] url to use a server that runs already"
    )]
    NoBinaries { searched: String },
    #[error(
        "the database under {folder} was made by Postgres {made}, and here is only {found}: install Postgres {made}"
    )]
    OtherVersion { folder: PathBuf, made: u32, found: String },
    #[error(
        "user id {0} has no name on this machine, and Postgres knows its users by name: add it to /etc/passwd"
    )]
    Nameless(u32),
    #[error("{folder} belongs to the user '{owner}', and this controller runs as '{me}'")]
    Foreign { folder: PathBuf, owner: String, me: String },
    #[error("cannot {what} {path}")]
    File { what: &'static str, path: PathBuf, source: std::io::Error },
    #[error("cannot run {program}")]
    Run { program: PathBuf, source: std::io::Error },
    #[error("initdb failed: {0}")]
    Initdb(String),
    #[error("the Postgres server ended while it started: {0}")]
    Died(String),
    #[error("the Postgres server did not answer within {} s", READY_WITHIN.as_secs())]
    Silent,
    #[error("an old Postgres server (process {0}) holds the data folder, and cannot be stopped")]
    Stuck(Pid),
    #[error("the Postgres server refused the controller")]
    Refused(#[source] sqlx::Error),
    #[error("cannot watch the Postgres server")]
    Watch(#[source] std::io::Error),
}

fn file(what: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> PostgresError {
    move |source| PostgresError::File { what, path: path.to_owned(), source }
}

/// A server that runs, and is started again when it dies, until [`Embedded::stop`].
#[derive(Debug)]
pub(crate) struct Embedded {
    options: PgConnectOptions,
    supervisor: Supervisor,
}

impl Embedded {
    /// Makes the cluster under `data` if there is none, and starts or adopts its server. The caller holds the lock of
    /// `data`.
    ///
    /// # Errors
    /// When no server can be had, with what to do about it.
    pub(crate) async fn start(data: &Path) -> Result<Self, PostgresError> {
        let began = Instant::now();
        let folder = data.join("postgres");
        let cluster = tokio::task::spawn_blocking(move || {
            let binaries = Binaries::find(cluster::version_of(&folder)?, &folder)?;
            let cluster = Cluster::open(folder, binaries)?;
            cluster.initialise()?;
            Ok::<_, PostgresError>(cluster)
        })
        .await
        .expect("opening a cluster does not panic")?;
        let options = cluster.connect_options();

        let adopted = adopt(&cluster, &options).await?;
        let how = if adopted.is_some() { "adopted" } else { "started" };
        let supervisor = match adopted {
            Some(pid) => Supervisor::of_orphan(cluster, pid).map_err(PostgresError::Watch)?,
            None => start(cluster, &options).await?,
        };
        tracing::info!(
            postgres.pid = supervisor.pid().map(Pid::as_raw),
            postgres.how = how,
            postgres.ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
            "the embedded Postgres is ready"
        );
        Ok(Self { options, supervisor })
    }

    /// How to connect to it, as the owner of its one database.
    pub(crate) fn options(&self) -> PgConnectOptions {
        self.options.clone()
    }

    /// Ends the server with a checkpoint; connections that are still there are cut.
    pub(crate) async fn stop(self) {
        let Self { supervisor, .. } = self;
        let clean = tokio::task::spawn_blocking(move || supervisor.stop(STOPS_WITHIN, QUITS_WITHIN)).await;
        match clean {
            Ok(true) => tracing::info!("the embedded Postgres has stopped"),
            Ok(false) | Err(_) => {
                tracing::warn!("the embedded Postgres did not stop cleanly; it recovers at its next start");
            }
        }
    }

    #[cfg(test)]
    fn pid(&self) -> Option<Pid> {
        self.supervisor.pid()
    }
}

/// Finds the server of a controller that was killed. It answers: it is ours from now on. It shuts down: it is waited for.
async fn adopt(cluster: &Cluster, options: &PgConnectOptions) -> Result<Option<Pid>, PostgresError> {
    let Some(pid) = cluster.postmaster()? else { return Ok(None) };
    let began = Instant::now();
    while cluster.is_postmaster(pid) {
        match answers(options).await {
            Ok(true) => return Ok(Some(pid)),
            Ok(false) if began.elapsed() < ORPHAN_ANSWERS_WITHIN => tokio::time::sleep(POLL).await,
            Ok(false) | Err(_) => {
                tracing::warn!(
                    postgres.pid = pid.as_raw(),
                    "an old Postgres server does not answer and is stopped"
                );
                return stop_orphan(cluster, pid).await.map(|()| None);
            }
        }
    }
    Ok(None)
}

async fn stop_orphan(cluster: &Cluster, pid: Pid) -> Result<(), PostgresError> {
    let began = Instant::now();
    // An error means that it is gone, which the loop sees.
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGQUIT).ok();
    while cluster.is_postmaster(pid) {
        if began.elapsed() > QUITS_WITHIN {
            return Err(PostgresError::Stuck(pid));
        }
        tokio::time::sleep(POLL).await;
    }
    Ok(())
}

/// Starts a server and waits until it answers.
async fn start(cluster: Cluster, options: &PgConnectOptions) -> Result<Supervisor, PostgresError> {
    let mut supervisor = Supervisor::start(cluster).map_err(PostgresError::Watch)?;
    let began = Instant::now();
    let mut starts = 1;
    loop {
        match supervisor.started() {
            Started::Running if answers(options).await? => {
                supervisor.keep_alive();
                return Ok(supervisor);
            }
            Started::Ended { cluster, message } => {
                if starts == STARTS {
                    return Err(PostgresError::Died(message));
                }
                starts += 1;
                tokio::time::sleep(START_AGAIN_AFTER).await;
                supervisor = Supervisor::start(cluster).map_err(PostgresError::Watch)?;
            }
            Started::Running if began.elapsed() > READY_WITHIN => return Err(PostgresError::Silent),
            Started::Running => tokio::time::sleep(POLL).await,
        }
    }
}

/// Whether the server takes connections to our database, which is made where it is missing.
async fn answers(options: &PgConnectOptions) -> Result<bool, PostgresError> {
    const NO_SUCH_DATABASE: &str = "3D000";
    const CANNOT_CONNECT_NOW: &str = "57P03";
    const DUPLICATE_DATABASE: &str = "42P04";
    match PgConnection::connect_with(options).await {
        Ok(connection) => {
            connection.close().await.ok();
            Ok(true)
        }
        Err(sqlx::Error::Io(_) | sqlx::Error::Protocol(_)) => Ok(false),
        Err(sqlx::Error::Database(error)) if error.code().as_deref() == Some(CANNOT_CONNECT_NOW) => Ok(false),
        Err(sqlx::Error::Database(error)) if error.code().as_deref() == Some(NO_SUCH_DATABASE) => {
            let mut connection = PgConnection::connect_with(&options.clone().database("postgres"))
                .await
                .map_err(PostgresError::Refused)?;
            let made = sqlx::query(sqlx::AssertSqlSafe(format!("create database {DATABASE}")))
                .execute(&mut connection)
                .await;
            connection.close().await.ok();
            match made {
                Err(sqlx::Error::Database(error)) if error.code().as_deref() == Some(DUPLICATE_DATABASE) => {
                    Ok(false)
                }
                // The next look connects to it.
                done => done.map(|_| false).map_err(PostgresError::Refused),
            }
        }
        Err(error) => Err(PostgresError::Refused(error)),
    }
}
