//! All that decides to run something. It speaks to nobody but the link and the shims, and believes only signed orders.
//!
//! 1. An attempt is started at most once: the journal says `starting` before the folder of the attempt is made, and
//!    the folder, made exclusively, is the start token.
//! 2. What began is followed to its end by whichever agent process is there; the shim's lock says whether it lives.
//! 3. Every order that can be believed is answered, a repeated one with what is recorded.
//!
//! Under the data folder: `executor/journal` (see [`journal`]), `executor/keys` (see [`keys`]), `executor/anchor.toml` (see
//! [`anchor`]), `executor/bin` (see
//! [`program`]), `executor/attempts` with a folder for each attempt (see [`crate::shim`]), and `executor/attempts-lost`
//! with those that ended and that no journal knows any more: results for people to look at, removed by nobody else.

pub mod anchor;
mod attempt;
mod decide;
pub mod journal;
pub mod keys;
pub mod link;
mod manager;
mod order;
pub mod policy;
mod program;
mod report;
#[cfg(test)]
mod simulation;
mod sweep;
pub mod user;

use std::{
    fs::DirBuilder,
    io,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use model::id::{AgentId, OrgId};
use pki::Verifier;
use tokio::{sync::mpsc, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use self::{
    journal::{Journal, JournalError},
    keys::{Keys, KeysError},
    manager::Manager,
    order::Audience,
    policy::Own,
    sweep::Sweep,
};
use crate::messages::{AttemptKey, ToExecutor, ToLink};

/// What the executor needs to know.
#[derive(Debug, Clone)]
pub struct Config {
    /// The agent's data folder; the executor's own one is below it.
    pub data: PathBuf,
    /// Runs at a time.
    pub slots: u32,
    pub org_id: OrgId,
    pub agent_id: AgentId,
    pub trust_domain: String,
    /// The controllers' intermediate, DER.
    pub controllers_ca: Vec<u8>,
    /// The agent's own binary.
    pub program: PathBuf,
    /// The host's policy file, which need not exist.
    pub policy: PathBuf,
    /// End all runs when the agent stops; otherwise they go on, and the next agent adopts them.
    pub kill_jobs: bool,
    /// How far this host's clock and a controller's may be apart.
    pub clock_skew: Duration,
    /// Bytes of output on the disk, of all runs, that the controller does not hold yet. When they are taken, processes wait.
    pub spool_bytes: u64,
    /// For how long they wait, until their output gets a gap.
    pub block_for: Duration,
    /// The number of the link's user, where that is another one.
    pub link_uid: Option<u32>,
}

/// Why the executor cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("cannot use the executor's folder '{path}'")]
    Folder { path: PathBuf, source: io::Error },
    #[error("cannot keep a copy of the agent's binary '{path}'")]
    Program { path: PathBuf, source: io::Error },
    #[error("cannot load the executor's keys")]
    Keys(#[from] KeysError),
    #[error("cannot open the executor's journal")]
    Journal(#[from] JournalError),
    #[error("cannot use the controllers' certificate")]
    ControllersCa(#[source] pki::Error),
}

/// The executor's folder in the agent's data folder.
pub fn folder(data: &Path) -> PathBuf {
    data.join("executor")
}

/// Where the attempts' folders are, in the agent's data folder.
pub fn attempts_folder(data: &Path) -> PathBuf {
    folder(data).join("attempts")
}

/// What all attempts share.
#[derive(Debug)]
struct Shared {
    /// Where the attempts' folders are.
    attempts: PathBuf,
    /// Where those with a result go that a lost journal knew.
    lost_attempts: PathBuf,
    /// What the shims run from.
    program: PathBuf,
    keys: Keys,
    boot_id: String,
    to_link: mpsc::Sender<ToLink>,
}

impl Shared {
    /// The folder of an attempt.
    fn folder(&self, key: AttemptKey) -> PathBuf {
        self.attempts.join(name(key))
    }
}

/// The name of an attempt's folder and of its control group.
fn name(key: AttemptKey) -> String {
    format!("{}-{}", key.run_id, key.attempt)
}

/// The part of the agent that runs things.
#[derive(Debug)]
pub struct Executor;

impl Executor {
    /// Opens the journal, adopts what runs, and serves until `shutdown`. The task ends when all is stopped.
    ///
    /// # Errors
    /// When the folder, keys, journal or certificate cannot be used.
    pub fn start(
        config: Config,
        from_link: mpsc::Receiver<ToExecutor>,
        to_link: mpsc::Sender<ToLink>,
        shutdown: CancellationToken,
    ) -> Result<JoinHandle<()>, StartError> {
        let folder = folder(&config.data);
        let (attempts, lost_attempts) = (attempts_folder(&config.data), folder.join("attempts-lost"));
        for path in [&attempts, &lost_attempts] {
            let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
            made.map_err(|source| StartError::Folder { path: path.clone(), source })?;
        }
        let keys = keys::load_or_create(&config.data)?;
        let program = program::keep(&config.program, &folder.join("bin"))
            .map_err(|source| StartError::Program { path: config.program.clone(), source })?;
        let verifier =
            Verifier::new(&config.controllers_ca, &config.trust_domain).map_err(StartError::ControllersCa)?;
        let audience = Audience {
            verifier,
            trust_domain: config.trust_domain,
            org_id: config.org_id,
            agent_id: config.agent_id,
        };
        let opened = Journal::open(&folder.join("journal"))?;
        if let Some(aside) = &opened.set_aside {
            tracing::error!(
                journal.set_aside = %aside.display(),
                "the journal was damaged; a new one begins, and what was outstanding is unknown"
            );
        }
        let sweep =
            Sweep { agent_id: config.agent_id, policy: config.policy.clone(), attempts: attempts.clone() };
        let shared = Arc::new(Shared { attempts, lost_attempts, program, keys, boot_id: boot_id(), to_link });
        let rules = manager::Rules {
            audience,
            policy: config.policy,
            own: Own::find(config.link_uid),
            slots: usize::try_from(config.slots).unwrap_or(usize::MAX),
            kill_jobs: config.kill_jobs,
            clock_skew: config.clock_skew,
            spool_bytes: config.spool_bytes,
            block_for: config.block_for,
            hidden: config.data.to_str().map(str::to_owned).into_iter().collect(),
        };
        let manager = Manager::new(shared, rules, opened);
        Ok(tokio::spawn(async move {
            tokio::select! {
                () = manager.serve(from_link, shutdown) => {}
                () = sweep.now_and_then() => {}
            }
        }))
    }
}

/// Names this boot of the host; empty where the kernel does not say.
fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .map_or_else(|_| String::new(), |id| id.trim().to_owned())
}
