//! An installation of its own to measure: a real controller with its embedded Postgres in a temporary folder, real
//! agents, and the identities of simulated ones.
//!
//! Invariants: everything listens on loopback; all processes are gone and the folder is removed when this is dropped,
//! in this order: agents, controller (which stops its Postgres), folder.

mod agents;
mod api;
mod database;
mod http;
mod sse;

use std::{
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use model::id::AgentId;
use tempfile::TempDir;
use tokio::time::sleep;

pub(crate) use agents::Agents;
pub(crate) use api::{Api, check_succeeded};
pub(crate) use database::{Database, SIMULATED, options};
pub(crate) use http::{Connection, Request};
pub(crate) use sse::Parser;

use crate::{
    process::{Process, quiet, silent},
    swarm::{self, Identity, Swarm, Trust},
};

/// How long the controller may take to start (a new cluster is made) and to stop (with a checkpoint).
const READY_WITHIN: Duration = Duration::from_secs(90);
const PATIENCE: Duration = Duration::from_secs(30);
/// How long the Postgres of a controller that had to be killed may take to end.
const POSTGRES_PATIENCE: Duration = Duration::from_secs(10);
/// How long real agents may take to connect.
const CONNECT_WITHIN: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// The programs that are measured.
#[derive(Debug, Clone)]
pub(crate) struct Programs {
    pub(crate) controller: PathBuf,
    pub(crate) agent: PathBuf,
}

/// A running installation. The order of the fields is the order of their ends.
#[derive(Debug)]
pub(crate) struct Lab {
    pub(crate) agents: Agents,
    controller: Controller,
    simulated: Vec<Arc<Identity>>,
    pub(crate) api: Api,
    trust: Arc<Trust>,
    pub(crate) http: SocketAddr,
    pub(crate) door: SocketAddr,
    programs: Programs,
    folder: TempDir,
}

impl Lab {
    /// Starts a controller on a folder of its own and waits until it serves.
    ///
    /// # Errors
    /// When it does not come up, with its last words.
    pub(crate) async fn start(programs: Programs) -> anyhow::Result<Self> {
        let folder =
            tempfile::Builder::new().prefix("opsc-bench-").tempdir().context("cannot make a folder")?;
        let (http, door) = (free_address()?, free_address()?);
        let mut controller = Controller::start(&programs.controller, folder.path(), http, door)?;
        let data = controller.data.clone();
        let begun = Instant::now();
        let token = loop {
            controller.process.check()?;
            if let Ok(token) = std::fs::read_to_string(data.join("setup.token")) {
                break token.trim().to_owned();
            }
            ensure!(begun.elapsed() < READY_WITHIN, "the controller made no installation in time");
            sleep(LOOK_EVERY).await;
        };
        let nobody = Api::new(format!("http://{http}"), String::new())?;
        controller.wait_ready(&nobody).await?;
        let api = nobody.set_up(token).await?;
        let trust = Arc::new(Trust::of(&swarm::read_authority(&data.join("ca"))?)?);
        let agents = Agents::new(programs.agent.clone(), folder.path().join("agents"), door.to_string());
        Ok(Self { agents, controller, simulated: Vec::new(), api, trust, http, door, programs, folder })
    }

    /// Stops the controller and starts it again on the same folder: its memory is a new process's.
    ///
    /// # Errors
    /// When it does not come up again.
    pub(crate) async fn restart(&mut self) -> anyhow::Result<()> {
        self.controller.stop();
        self.controller =
            Controller::start(&self.programs.controller, self.folder.path(), self.http, self.door)?;
        self.controller.wait_ready(&self.api).await
    }

    /// Kills the controller as a crash would, and starts it again on the same folder; when it was started.
    ///
    /// # Errors
    /// When it does not come up again.
    pub(crate) async fn crash(&mut self) -> anyhow::Result<Instant> {
        self.controller.process.kill();
        let begun = Instant::now();
        self.controller =
            Controller::start(&self.programs.controller, self.folder.path(), self.http, self.door)?;
        self.controller.wait_ready(&self.api).await?;
        Ok(begun)
    }

    pub(crate) fn controller_pid(&self) -> u32 {
        self.controller.process.pid()
    }

    /// The last words of the controller's log.
    pub(crate) fn last_words(&self) -> String {
        self.controller.process.last_words()
    }

    /// A new connection to the controller's database.
    ///
    /// # Errors
    /// When it cannot be reached.
    pub(crate) async fn database(&self) -> anyhow::Result<Database> {
        Database::open(&options(&self.controller.data)).await
    }

    /// How to connect to the database `name` of the controller's cluster.
    pub(crate) fn database_options(&self, name: &str) -> sqlx::postgres::PgConnectOptions {
        options(&self.controller.data).database(name)
    }

    /// Sees to it that at least `count` real agents are connected.
    ///
    /// # Errors
    /// When they do not connect.
    pub(crate) async fn real(&mut self, count: usize) -> anyhow::Result<()> {
        while self.agents.count() < count {
            self.agents.add(&self.api).await?;
        }
        let running = self.agents.count();
        self.database().await?.wait_sessions(running, CONNECT_WITHIN).await?;
        self.agents.check()
    }

    /// Stops all real agents and waits until the controller knows.
    ///
    /// # Errors
    /// When the controller does not notice.
    pub(crate) async fn stop_real(&mut self) -> anyhow::Result<()> {
        self.agents.stop();
        self.database().await?.wait_sessions(0, CONNECT_WITHIN).await?;
        Ok(())
    }

    /// Sees to it that at least `count` simulated agents exist; they are issued by the installation's own authority and
    /// inserted, which is quicker than 20 enrollments a second and address.
    ///
    /// # Errors
    /// When they cannot be made.
    pub(crate) async fn simulated(&mut self, count: usize) -> anyhow::Result<()> {
        let missing = count.saturating_sub(self.simulated.len());
        let authority = swarm::read_authority(&self.controller.data.join("ca"))?;
        let mut database = self.database().await?;
        let org = database.organization().await?;
        let trust = Arc::clone(&self.trust);
        let issued =
            tokio::task::spawn_blocking(move || swarm::issue(&authority, &trust, org, missing)).await??;
        self.simulated.extend(database.insert_agents(issued).await?);
        Ok(())
    }

    /// How many simulated agents exist.
    pub(crate) fn simulated_count(&self) -> usize {
        self.simulated.len()
    }

    /// The id of a simulated agent by number.
    pub(crate) fn simulated_id(&self, index: usize) -> AgentId {
        self.simulated[index].agent_id
    }

    /// Sends all simulated agents to the controller.
    ///
    /// # Errors
    /// When there are no threads for them.
    pub(crate) fn swarm(&self) -> anyhow::Result<Swarm> {
        Swarm::start(self.door, Arc::clone(&self.trust), self.simulated.iter().cloned())
    }
}

/// The controller's process.
#[derive(Debug)]
struct Controller {
    process: Process,
    data: PathBuf,
}

impl Controller {
    fn start(program: &Path, folder: &Path, http: SocketAddr, door: SocketAddr) -> anyhow::Result<Self> {
        let data = folder.join("controller");
        let config = folder.join("controller.toml");
        std::fs::write(&config, "[log]\nlevel = 'warn'\n")
            .with_context(|| format!("cannot write {}", config.display()))?;
        let mut command = silent(program);
        quiet(&mut command)
            .arg("--config")
            .arg(&config)
            .arg("--data")
            .arg(&data)
            .args(["--http-listen", &http.to_string(), "--agents-listen", &door.to_string()])
            .arg("serve");
        let process = Process::start(command, "the controller", &folder.join("controller.log"), PATIENCE)?;
        Ok(Self { process, data })
    }

    async fn wait_ready(&mut self, api: &Api) -> anyhow::Result<()> {
        let begun = Instant::now();
        while !api.is_ready().await {
            self.process.check()?;
            ensure!(
                begun.elapsed() < READY_WITHIN,
                "the controller is not ready after {} s; its last words: {}",
                READY_WITHIN.as_secs(),
                self.process.last_words()
            );
            sleep(LOOK_EVERY).await;
        }
        Ok(())
    }

    /// Ends the controller and waits for its Postgres, whose files would else come back while they are removed.
    fn stop(&mut self) {
        self.process.stop();
        let begun = Instant::now();
        while self.data.join("postgres/data/postmaster.pid").exists() && begun.elapsed() < POSTGRES_PATIENCE {
            std::thread::sleep(LOOK_EVERY);
        }
    }
}

impl Drop for Controller {
    fn drop(&mut self) {
        self.stop();
    }
}

/// An address of this machine that nobody listens on now.
fn free_address() -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("cannot find a free port")?;
    listener.local_addr().context("cannot find a free port")
}
