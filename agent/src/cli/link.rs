//! `link`: the process in which the link runs. The executor starts it, with a socket to itself as the standard input and
//! one for output files as the standard output, in the link's folder.
//!
//! It begins with the executor's privileges and one thread; both sockets, the configuration and the log are all that it
//! takes before it gives the privileges up.

use std::{
    fs::File,
    io,
    os::{fd::AsFd as _, unix::net::UnixStream},
    path::Path,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, anyhow};
use nix::unistd::{dup2_stdin, dup2_stdout};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc,
    time::timeout,
};

use super::{Failure, controllers, run::log};
use crate::{
    channel::{
        MESSAGES,
        files::Files,
        frame::{Parser, encode},
        wire::{FromExecutor, FromLink, Hello, Setup},
    },
    config::Config,
    executor::link::DELIVERS_WITHIN,
    link::{
        self, Link, Settings,
        bridge::{self, Parted},
        confine::{Confinement, confine},
        identity::Identity,
    },
};

/// Runs the link until the executor ends.
pub(super) fn run() -> Result<(), Failure> {
    let mut socket = take(io::stdin().as_fd(), |null| dup2_stdin(null))?;
    let files = take(io::stdout().as_fd(), |null| dup2_stdout(null))?;
    let setup = Parser::<FromExecutor>::default().read(&mut socket).context("cannot hear the executor")?;
    let setup = setup.filter(|frame| frame.kind == FromExecutor::Setup);
    let setup: Setup = setup
        .context("only the agent itself starts its link: 'opsconductor-agent run'")?
        .message()
        .context("cannot understand the executor")?;
    let config: Config = toml::from_str(&setup.config).context("cannot read the configuration again")?;
    log(&config.log)?;
    fault::prepare();
    // It names the process for who looks for it; that it fails changes nothing.
    let _ = nix::sys::prctl::set_name(c"opsconductor-ln");
    let confinement = confine(setup.user, setup.executor).context("cannot confine the link")?;

    let folder = Path::new(link::HERE);
    let identity = Identity::load(&link::identity_folder(folder))?;
    if Some(identity.agent_id) != setup.agent_id() {
        let text = "the link's identity is not that of the agent whose orders the executor believes; enroll the host \
                    again with --force";
        return Err(anyhow!(text).into());
    }
    let settings = Settings {
        folder: folder.to_owned(),
        controllers: controllers(&config, folder)?,
        learns_controllers: config.controller.is_empty(),
        identity,
        slots: config.slots,
        timing: config.timing,
        metrics_every: config.metrics_seconds.map(Duration::from_secs),
        executor_pid: setup.executor,
        confinement: confinement.clone(),
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let done = runtime.block_on(Box::pin(serve(settings, confinement, socket, files)));
    // A sample of a host whose file systems hang would never come back.
    runtime.shutdown_background();
    Ok(done?)
}

/// Takes a socket from where the executor has put it, and leaves nothing there.
fn take(
    standard: std::os::fd::BorrowedFd<'_>,
    replace: impl FnOnce(&File) -> nix::Result<()>,
) -> Result<UnixStream, Failure> {
    let taken = standard.try_clone_to_owned().context("there is no socket to the executor")?;
    let null = File::options().read(true).write(true).open("/dev/null").context("cannot open /dev/null")?;
    replace(&null).context("cannot let go of the standard input and output")?;
    Ok(taken.into())
}

async fn serve(
    settings: Settings,
    confinement: Confinement,
    mut socket: UnixStream,
    files: UnixStream,
) -> anyhow::Result<()> {
    // Whoever stops the agent tells the executor, and that the link; a terminal tells everybody at once.
    let _deaf = [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup()]
        .map(signal)
        .into_iter()
        .collect::<io::Result<Vec<_>>>()
        .context("cannot wait for signals")?;
    let (to_executor, from_tasks) = mpsc::channel(MESSAGES);
    let (to_tasks, from_executor) = mpsc::channel(MESSAGES);
    let files = Arc::new(Files::new(files).context("cannot use the socket for files")?);
    let hello = encode(FromLink::Hello, &Hello { missing: confinement.missing })?;
    io::Write::write_all(&mut socket, &hello).context("cannot greet the executor")?;
    let sources = Arc::new(move |key| files.of(key));
    let mut link =
        Link::start(settings, to_executor, from_executor, sources).context("cannot start the link")?;

    let parted = tokio::select! {
        parted = bridge::carry(socket, from_tasks, to_tasks) => parted,
        () = link.failed() => return Err(anyhow!("a task of the link has ended by itself; the log says why")),
    };
    match parted {
        Parted::Stop { deliver } => {
            let online = link.standing.borrow().online;
            if deliver && online && timeout(DELIVERS_WITHIN, link.delivered()).await.is_err() {
                tracing::warn!(
                    "not all reports and output are delivered; the next agent on this folder delivers them"
                );
            }
            link.stop().await;
            Ok(())
        }
        // It starts the next link when it is there again.
        Parted::Gone => Ok(()),
        Parted::Failed(error) => Err(error).context("cannot understand the executor"),
    }
}
