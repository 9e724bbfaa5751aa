//! Composes the parts: configuration → folder → ports → database → application → workers and doors, and back.
//!
//! The ports are bound early, so that one that is taken is told before anything else is started, and served last.

use std::{
    fs::{DirBuilder, File},
    net::SocketAddr,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
};
use sqlx::{Connection as _, PgConnection, postgres::PgConnectOptions};
use tokio::{
    net::{TcpListener, TcpSocket},
    task::JoinSet,
};

use crate::{
    app::{App, boot, egress, oidc, users},
    background,
    config::{self, Config},
    grpc, http,
    lifecycle::{Lifecycle, Signals},
    postgres::Embedded,
    store::{self, SchemaState},
    telemetry,
};

/// Connections that may wait to be accepted.
const BACKLOG: u32 = 4096;
/// How long a database that somebody else runs may take until it answers, and how often it is asked.
const REACHED_WITHIN: Duration = Duration::from_secs(10);
const ASK_AGAIN_AFTER: Duration = Duration::from_millis(500);
/// How long the streams of agents may take to end. What they had not delivered by then they deliver again.
const AGENTS_LEAVE_WITHIN: Duration = Duration::from_secs(2);
/// How long connections to the database may take to end.
const POOLS_CLOSE_WITHIN: Duration = Duration::from_secs(5);

/// The database does not answer.
#[derive(Debug, thiserror::Error)]
#[error("cannot reach the database at {address} within {} s", REACHED_WITHIN.as_secs())]
pub(crate) struct Unreachable {
    address: String,
    source: Option<std::io::Error>,
}

/// Runs the controller until it is told to stop.
///
/// # Errors
/// When it cannot start, a door breaks, or a worker gives up.
pub(crate) async fn serve(config: &Config) -> anyhow::Result<()> {
    let mut signals = Signals::listen().context("cannot listen for signals")?;
    let mut controller = tokio::select! {
        started = Controller::start(config) => started?,
        name = signals.next() => {
            tracing::info!("{name} while starting: ending");
            return Ok(());
        }
    };
    let done = tokio::select! {
        name = signals.next() => {
            tracing::info!("{name}: stopping");
            Ok(())
        }
        Some(ended) = controller.doors.join_next() => match ended {
            Ok(Ok(())) => Err(anyhow::anyhow!("a door closed by itself")),
            Ok(Err(error)) => Err(error),
            Err(panic) => Err(panic.into()),
        },
    };
    signals.then_exit_at_once();
    controller.stop().await;
    done
}

/// Brings the database up to date.
///
/// # Errors
/// When it cannot be reached, is newer than this program, or a migration fails.
pub(crate) async fn migrate(config: &Config) -> anyhow::Result<()> {
    let lock = match config.database.external {
        Some(_) => None,
        None => Some(open_folder(&config.data)?),
    };
    let database = Database::open(config).await?;
    let done = store::migrate(&database.options()).await;
    database.close().await;
    drop(lock);
    done?;
    tracing::info!(schema = store::newest(), "the database is up to date");
    Ok(())
}

/// Lets a person in again who cannot enter any more; answers the token for a new password.
///
/// # Errors
/// When the database cannot be reached or is not of this version, or there is nobody of this name.
pub(crate) async fn rescue(config: &Config, user: &str) -> anyhow::Result<String> {
    let lock = match config.database.external {
        Some(_) => None,
        None => Some(open_folder(&config.data)?),
    };
    let database = Database::open(config).await?;
    let rescued = async {
        up_to_date(config, &database).await?;
        let mut connection = PgConnection::connect_with(&database.options()).await?;
        let token = users::rescue(&mut connection, user).await?;
        connection.close().await?;
        anyhow::Ok(token)
    };
    let rescued = rescued.await;
    database.close().await;
    drop(lock);
    rescued
}

/// All that runs.
struct Controller {
    app: Arc<App>,
    database: Database,
    lifecycle: Lifecycle,
    /// The two servers, and the watch over the workers; none ends before it is told to.
    doors: JoinSet<anyhow::Result<()>>,
    /// Held until everything else has ended.
    _lock: Flock<File>,
}

impl Controller {
    async fn start(config: &Config) -> anyhow::Result<Self> {
        let lock = open_folder(&config.data)?;
        let tls = config.http.tls.clone().map(|tls| match tls {
            config::Tls::Files { certificate, key } => http::tls::Source::Files { certificate, key },
            config::Tls::Internal { names, life } => http::tls::Source::Internal { names, life },
        });
        tls.as_ref().map_or(Ok(()), http::tls::try_files)?;
        let scheme = if tls.is_some() { "https" } else { "http" };
        let people = bind(config.http.listen, "[http] listen")?;
        let agents = bind(config.agents.listen, "[agents] listen")?;
        let (people_at, agents_at) = (people.local_addr()?, agents.local_addr()?);

        let metrics = telemetry::metrics()?;
        let database = Database::open(config).await?;
        let started = async {
            up_to_date(config, &database).await?;
            let boot = boot::Boot {
                agent_port: agents_at.port(),
                announce: config.agents.announce.clone(),
                certificate_life: config.agents.certificate_life,
                dispatch_key_life: config.agents.dispatch_key_life,
                is_shared: config.database.external.is_some(),
                registration: config.people.registration,
                proxies: config.http.proxies.clone(),
                providers: oidc::Providers::new(config.http.url.as_deref(), config.oidc.clone())?,
                timing: config.timing,
                audit: config.audit.clone(),
                safety: config.safety,
                egress: egress::Egress::new(&config.egress)?,
            };
            boot::open(database.options(), &config.data, boot).await
        };
        let app = match started.await {
            Ok(app) => app,
            Err(error) => {
                database.close().await;
                return Err(error);
            }
        };

        let keeper = match tls.map(|source| http::tls::Keeper::new(source, &app)).transpose() {
            Ok(keeper) => keeper,
            Err(error) => {
                boot::close(&app).await;
                database.close().await;
                return Err(error.into());
            }
        };

        let lifecycle = Lifecycle::default();
        telemetry::spawn_upkeep(metrics.clone(), &lifecycle.tracker, lifecycle.stop.clone());
        let mut given_up = background::spawn(&app, &lifecycle.tracker, &lifecycle.stop);
        let door = http::Door::new(Arc::clone(&app), metrics, lifecycle.stop.clone());
        door.spawn_upkeep(&lifecycle.tracker);
        let mut doors = JoinSet::new();
        let stop = lifecycle.stop.clone();
        doors.spawn(async move {
            if let Some(Some(gave_up)) = stop.run_until_cancelled(given_up.recv()).await {
                return Err(gave_up.into());
            }
            stop.cancelled().await;
            Ok(())
        });
        let people = people.into_std().context("cannot hand over the API's port")?;
        let settings = http::Settings {
            tls: keeper.as_ref().map(http::tls::Keeper::config),
            cors_origins: config.http.cors_origins.clone(),
        };
        if let Some(keeper) = keeper {
            let (app, stop) = (Arc::clone(&app), lifecycle.stop.clone());
            lifecycle.tracker.spawn(async move {
                if let Err(error) = keeper.keep(app, stop).await {
                    tracing::error!(%error, "the certificate of the API's door will not be replaced");
                }
            });
        }
        doors.spawn(lifecycle.tracker.track_future(async move {
            http::serve(door, people, settings).await.context("the API's door broke")
        }));
        let (agents_app, stop) = (Arc::clone(&app), lifecycle.stop.clone());
        doors.spawn(lifecycle.tracker.track_future(async move {
            let cut = async {
                stop.cancelled().await;
                tokio::time::sleep(AGENTS_LEAVE_WITHIN).await;
            };
            tokio::select! {
                served = grpc::serve(agents_app, agents, stop.clone()) => served.context("the agents' door broke"),
                () = cut => Ok(()),
            }
        }));
        tracing::info!(
            http.address = %people_at,
            agents.address = %agents_at,
            data = %config.data.display(),
            "ready: the API is at {scheme}://{people_at}, agents connect to {agents_at}"
        );
        Ok(Self { app, database, lifecycle, doors, _lock: lock })
    }

    /// The way back: the doors and the workers, then the connections, then the database.
    async fn stop(self) {
        self.lifecycle.wind_down().await;
        if tokio::time::timeout(POOLS_CLOSE_WITHIN, boot::close(&self.app)).await.is_err() {
            tracing::warn!("some connections to the database are cut off");
        }
        self.database.close().await;
        tracing::info!("stopped");
    }
}

/// Makes the data folder if it is missing, and takes it for this process alone.
pub(crate) fn open_folder(data: &Path) -> anyhow::Result<Flock<File>> {
    let cannot = || format!("cannot use the data folder {}", data.display());
    DirBuilder::new().recursive(true).mode(0o700).create(data).with_context(cannot)?;
    let path = data.join("controller.lock");
    let file = File::options().create(true).append(true).mode(0o600).open(path).with_context(cannot)?;
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => Ok(lock),
        Err((_, Errno::EWOULDBLOCK)) => {
            bail!("another controller is running on the data folder {}", data.display())
        }
        Err((_, error)) => Err(error).with_context(cannot),
    }
}

fn bind(address: SocketAddr, key: &str) -> anyhow::Result<TcpListener> {
    let open = || {
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        socket.listen(BACKLOG)
    };
    open().with_context(|| format!("cannot listen on {address} ({key})"))
}

/// The database, whoever runs it.
enum Database {
    Embedded(Embedded),
    External(PgConnectOptions),
}

impl Database {
    async fn open(config: &Config) -> anyhow::Result<Self> {
        match &config.database.external {
            None => Ok(Self::Embedded(Embedded::start(&config.data).await.context("there is no database")?)),
            Some(external) => {
                reach(external).await?;
                Ok(Self::External(external.options.clone()))
            }
        }
    }

    fn options(&self) -> PgConnectOptions {
        match self {
            Self::Embedded(embedded) => embedded.options(),
            Self::External(options) => options.clone(),
        }
    }

    async fn close(self) {
        match self {
            Self::Embedded(embedded) => embedded.stop().await,
            Self::External(_) => {}
        }
    }
}

/// Waits until the database answers: at the start of a machine it may come later than the controller.
pub(crate) async fn reach(external: &config::External) -> anyhow::Result<()> {
    let options = &external.options;
    let address = match options.get_socket() {
        Some(socket) => socket.display().to_string(),
        None => format!("{}:{}", options.get_host(), options.get_port()),
    };
    let began = Instant::now();
    let mut last = None;
    loop {
        let left = REACHED_WITHIN.saturating_sub(began.elapsed());
        match tokio::time::timeout(left, PgConnection::connect_with(options)).await {
            Ok(Ok(connection)) => {
                connection.close().await.ok();
                return Ok(());
            }
            Ok(Err(sqlx::Error::Io(error))) => {
                if last.is_none() {
                    tracing::warn!("the database at {address} does not answer yet: {error}");
                }
                last = Some(error);
            }
            Ok(Err(error)) => {
                return Err(error)
                    .with_context(|| format!("the database at {address} refuses the controller"));
            }
            Err(_) => return Err(Unreachable { address, source: last }.into()),
        }
        if began.elapsed() + ASK_AGAIN_AFTER > REACHED_WITHIN {
            return Err(Unreachable { address, source: last }.into());
        }
        tokio::time::sleep(ASK_AGAIN_AFTER).await;
    }
}

/// Brings the schema up to date where that is for us to do, else makes sure that it is.
async fn up_to_date(config: &Config, database: &Database) -> anyhow::Result<()> {
    let options = database.options();
    if matches!(database, Database::Embedded(_)) || config.database.auto_migrate {
        return Ok(store::migrate(&options).await?);
    }
    let newest = store::newest();
    match store::check_schema(&options).await? {
        SchemaState::Current => Ok(()),
        SchemaState::Older(0) => bail!(
            "the database is empty: run 'opsconductor-controller migrate', or set [database] auto_migrate = true"
        ),
        SchemaState::Older(found) => bail!(
            "the database has schema {found}, this program needs {newest}: run 'opsconductor-controller migrate', \
             or set [database] auto_migrate = true"
        ),
        SchemaState::Newer(found) => bail!(
            "the database has schema {found}, this program knows schemas up to {newest}: install the newer program"
        ),
    }
}
