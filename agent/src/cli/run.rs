//! `run`: the executor's process, which keeps a link beside it, and takes both down again.
//!
//! When it is asked to stop, the executor ends first (with `--kill-jobs` only after all of its runs), while the link
//! still takes what it says; a second signal ends the process at once, and the kernel the link with it. Runs that go on
//! belong to the next agent.

use std::{os::unix::fs::MetadataExt as _, path::Path};

use anyhow::{Context, anyhow};
use nix::{
    sys::resource::{Resource, getrlimit, setrlimit},
    unistd::{getegid, geteuid},
};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::mpsc,
    time::timeout,
};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::{Layer, layer::SubscriberExt, util::SubscriberInitExt};

use super::{Failure, LOCK_PATIENCE, USAGE, anchor_of, lock, private_folder};
use crate::{
    channel::{ASKED, MESSAGES, wire},
    config::{Config, Log, LogFormat},
    executor::{
        self, Executor,
        anchor::Anchor,
        link::{GONE_WITHIN, Keeper},
        user,
    },
    link::{self, facts, identity::Identity},
};

/// Runs the agent until it is asked to stop.
pub(super) fn run(config: &Config, kill_jobs: bool) -> Result<(), Failure> {
    log(&config.log)?;
    // Its memory has the keys: no core dump, and no other process of its user, may get at them.
    nix::sys::prctl::set_dumpable(false).context("cannot close the agent to others")?;
    raise_open_files();
    let _lock = lock(&config.data, LOCK_PATIENCE)?;
    let folder = link::folder(&config.data);
    private_folder(&folder)?;
    let anchor = anchor(config, &folder)?;
    let user = user::of_link(config.link_user.as_deref()).map_err(|error| Failure::new(USAGE, error))?;
    give_folder(&folder, user)?;
    let program = std::env::current_exe().context("cannot find the agent's own binary")?;
    let keeper = Keeper {
        // This very binary, whatever an upgrade has put in its place meanwhile.
        program: "/proc/self/exe".into(),
        arguments: vec!["link".to_owned()],
        data: config.data.clone(),
        folder,
        attempts: executor::attempts_folder(&config.data),
        config: toml::to_string(config).context("cannot write the configuration for the link")?,
        agent_id: anchor.agent_id,
        user,
        delivers: kill_jobs,
        log: config.log.format,
    };
    tracing::info!(agent.id = %anchor.agent_id, agent.name = anchor.name, version = facts::VERSION,
        data = %config.data.display(), "agent starts");
    let executor = executor::Config {
        data: config.data.clone(),
        slots: config.slots,
        org_id: anchor.org_id,
        agent_id: anchor.agent_id,
        trust_domain: anchor.trust_domain,
        controllers_ca: anchor.controllers_ca,
        program,
        policy: config.policy.clone(),
        kill_jobs,
        clock_skew: config.timing.clock_skew(),
        spool_bytes: config.spool_bytes,
        block_for: config.timing.block_for(),
        link_uid: user.map(|user| user.uid),
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let done = runtime.block_on(Box::pin(serve(executor, keeper)));
    runtime.shutdown_background();
    Ok(done?)
}

/// Whose orders are believed. A host that enrolled with an agent of one process has it in the link's folder alone: from
/// there it is taken once, as long as no link of another user could have written it.
fn anchor(config: &Config, folder: &Path) -> Result<Anchor, Failure> {
    if let Some(anchor) = Anchor::load(&config.data)? {
        return Ok(anchor);
    }
    let is_own = std::fs::metadata(folder).is_ok_and(|found| found.uid() == geteuid().as_raw());
    if !is_own {
        let folder = folder.display();
        let text = format!(
            "'{folder}' is not this user's, and the executor has no anchor; enroll the host again with --force"
        );
        return Err(anyhow!(text).into());
    }
    let anchor = anchor_of(&Identity::load(&link::identity_folder(folder))?);
    anchor.save(&config.data)?;
    Ok(anchor)
}

/// The link's folder is its user's; what commands of root or an agent of one process have left there too.
fn give_folder(folder: &Path, user: Option<wire::User>) -> Result<(), Failure> {
    let own = wire::User { uid: geteuid().as_raw(), gid: getegid().as_raw() };
    if user.is_none() && own.uid != 0 {
        return Ok(());
    }
    let user = user.unwrap_or(own);
    user::give(folder, user)
        .with_context(|| format!("cannot give '{}' to the link's user {}", folder.display(), user.uid))?;
    Ok(())
}

async fn serve(executor: executor::Config, keeper: Keeper) -> anyhow::Result<()> {
    let kill_jobs = executor.kill_jobs;
    let mut terminate = signal(SignalKind::terminate()).context("cannot wait for signals")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot wait for signals")?;

    let (to_executor, from_link) = mpsc::channel(ASKED);
    let (to_link, from_executor) = mpsc::channel(MESSAGES);
    let shutdown = CancellationToken::new();
    let mut executing = Executor::start(executor, from_link, to_link, shutdown.clone())?;
    let mut link = std::pin::pin!(keeper.keep(from_executor, to_executor));

    tokio::select! {
        () = asked(&mut terminate, &mut interrupt) => {}
        _ = &mut executing => return Err(anyhow!("the executor has ended by itself; the log says why")),
        ended = &mut link => {
            return Err(ended.err().map_or_else(|| anyhow!("the executor has ended by itself"), anyhow::Error::from));
        }
    }
    tracing::info!(kill_jobs, "agent stops");
    shutdown.cancel();
    let orderly = async {
        // The link hears the executor's last word, and ends then.
        let mut linked = None;
        let executed = loop {
            tokio::select! {
                executed = &mut executing => break executed,
                ended = &mut link, if linked.is_none() => linked = Some(ended),
            }
        };
        if let Err(error) = executed {
            tracing::error!(%error, "the executor did not end well");
        }
        if linked.is_none() && timeout(GONE_WITHIN, &mut link).await.is_err() {
            tracing::warn!("the link does not listen, and is killed");
        }
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
pub(super) fn log(log: &Log) -> Result<(), Failure> {
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
