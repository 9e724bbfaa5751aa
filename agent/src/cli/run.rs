//! `run`: puts executor and link together, and takes them down again.
//!
//! When it is asked to stop, the executor ends first (with `--kill-jobs` only after all of its runs), while the link
//! still takes what it says; a second signal ends the process at once. Runs that go on belong to the next agent.

use std::time::Duration;

use anyhow::{Context, anyhow};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::mpsc,
    time::timeout,
};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::{Layer, layer::SubscriberExt, util::SubscriberInitExt};

use super::{Failure, LOCK_PATIENCE, controllers, lock, private_folder};
use crate::{
    config::{Config, Log, LogFormat},
    executor::{self, Executor},
    link::{self, Link, Settings, facts, identity::Identity},
};

/// Messages between link and executor that wait.
const MESSAGES: usize = 256;
/// How long delivering the last reports and output may take at the end.
const DELIVER: Duration = Duration::from_secs(10);
/// Threads of the runtime; more would only cost memory.
const WORKERS: usize = 2;

/// Runs the agent until it is asked to stop.
pub(super) fn run(config: &Config, kill_jobs: bool) -> Result<(), Failure> {
    log(&config.log)?;
    // Its memory has the keys: no core dump, and no other process of its user, may get at them.
    nix::sys::prctl::set_dumpable(false).context("cannot close the agent to others")?;
    raise_open_files();
    let _lock = lock(&config.data, LOCK_PATIENCE)?;
    let folder = link::folder(&config.data);
    private_folder(&folder)?;
    let identity = Identity::load(&link::identity_folder(&folder))?;
    let program = std::env::current_exe().context("cannot find the agent's own binary")?;
    let executor = executor::Config {
        data: config.data.clone(),
        slots: config.slots,
        org_id: identity.org_id,
        agent_id: identity.agent_id,
        trust_domain: identity.trust_domain.clone(),
        controllers_ca: identity.controllers_ca().to_vec(),
        program,
        policy: config.policy.clone(),
        kill_jobs,
        clock_skew: config.timing.clock_skew(),
        spool_bytes: config.spool_bytes,
        block_for: config.timing.block_for(),
    };
    let settings = Settings {
        folder,
        controllers: controllers(config)?,
        learns_controllers: config.controller.is_empty(),
        identity,
        slots: config.slots,
        timing: config.timing,
        metrics_every: config.metrics_seconds.map(Duration::from_secs),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let done = runtime.block_on(Box::pin(serve(executor, settings)));
    // A sample of a host whose file systems hang would never come back.
    runtime.shutdown_background();
    Ok(done?)
}

async fn serve(executor: executor::Config, settings: Settings) -> anyhow::Result<()> {
    let kill_jobs = executor.kill_jobs;
    let mut terminate = signal(SignalKind::terminate()).context("cannot wait for signals")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot wait for signals")?;
    tracing::info!(agent.id = %settings.identity.agent_id, agent.name = settings.identity.name,
        version = facts::VERSION, data = %executor.data.display(), expires_at = %settings.identity.expires_at,
        "agent starts");

    let (to_executor, from_link) = mpsc::channel(MESSAGES);
    let (to_link, from_executor) = mpsc::channel(MESSAGES);
    let shutdown = CancellationToken::new();
    let mut executing = Executor::start(executor, from_link, to_link, shutdown.clone())?;
    let mut link = Link::start(settings, to_executor, from_executor).context("cannot start the link")?;

    let failed = tokio::select! {
        () = asked(&mut terminate, &mut interrupt) => None,
        _ = &mut executing => Some("the executor has ended by itself; the log says why"),
        () = link.failed() => Some("the link has ended by itself; the log says why"),
    };
    if let Some(failed) = failed {
        return Err(anyhow!(failed));
    }
    tracing::info!(kill_jobs, "agent stops");
    shutdown.cancel();
    let orderly = async {
        if let Err(error) = executing.await {
            tracing::error!(%error, "the executor did not end well");
        }
        let online = link.standing.borrow().online;
        if kill_jobs && online && timeout(DELIVER, link.delivered()).await.is_err() {
            tracing::warn!(
                "not all reports and output are delivered; the next agent on this folder delivers them"
            );
        }
        link.stop().await;
    };
    tokio::select! {
        () = orderly => tracing::info!("agent stopped"),
        () = asked(&mut terminate, &mut interrupt) => {
            tracing::warn!("asked again to stop; runs that are not over go on");
        }
    }
    Ok(())
}

/// Lets the agent open as many files as it may: every run that is not settled can need one. A shim gives its job the
/// usual limit back.
fn raise_open_files() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
    if let Err(error) = raised {
        tracing::warn!(%error, "cannot raise the limit of open files");
    }
}

/// Waits until somebody asks the agent to stop.
async fn asked(terminate: &mut Signal, interrupt: &mut Signal) {
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}

/// Logs go to the standard error.
fn log(log: &Log) -> Result<(), Failure> {
    let lines = tracing_subscriber::fmt::layer()
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .with_writer(std::io::stderr);
    let lines = match log.format {
        LogFormat::Human => lines.boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    tracing_subscriber::registry()
        .with(lines.with_filter(log.filter()?))
        .try_init()
        .context("cannot start logging")?;
    Ok(())
}
