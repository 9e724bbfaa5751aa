//! The load generator of OpsConductor: a swarm of simulated agents, and a driver that measures a real controller with
//! real and simulated ones.
//!
//! Every figure is derived from outside: this process's own time stamps, and rows that are committed. All is on
//! loopback, bounded in number and time, and gone at the end, also after Ctrl-C or an error.

mod bare;
mod cli;
mod clock;
mod corpus;
mod emit;
mod figure;
mod figures;
mod hand;
mod lab;
mod plan;
mod process;
mod report;
mod stats;
mod swarm;

use std::{
    io::Write as _,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context as _, ensure};
use clap::Parser as _;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::signal::unix::{SignalKind, signal};

use cli::{Cli, Command, Run};
use figure::{ALL, Book};
use lab::Programs;
use plan::Plan;

/// Exit code after Ctrl-C, as shells have it.
const INTERRUPTED: u8 = 130;

fn main() -> ExitCode {
    let cli = Cli::parse();
    pki::install_provider();
    let done = match cli.command {
        Command::Emit { rate, seconds } => emit::emit(rate, seconds).map(|()| ExitCode::SUCCESS),
        Command::Logs { mib, rate } => corpus::write(mib, rate).map(|()| ExitCode::SUCCESS),
        Command::BareServer { ca } => {
            raise_limit().and_then(|()| bare::serve(&ca)).map(|()| ExitCode::SUCCESS)
        }
        Command::Run(run) => until_signal(measure(&run)),
        Command::Swarm(hand) => until_signal(async { hand::run(&hand).await.map(|()| ExitCode::SUCCESS) }),
    };
    done.unwrap_or_else(|error| {
        eprintln!("opsconductor-bench: {error:#}");
        ExitCode::FAILURE
    })
}

/// Does the work, or as much of it as there is before SIGINT or SIGTERM: what is dropped then takes down what it
/// started.
fn until_signal(work: impl Future<Output = anyhow::Result<ExitCode>>) -> anyhow::Result<ExitCode> {
    raise_limit()?;
    let runtime = tokio::runtime::Runtime::new().context("cannot start threads")?;
    runtime.block_on(async {
        let mut interrupt = signal(SignalKind::interrupt()).context("cannot wait for signals")?;
        let mut terminate = signal(SignalKind::terminate()).context("cannot wait for signals")?;
        tokio::select! {
            done = Box::pin(work) => done,
            _ = interrupt.recv() => Ok(ExitCode::from(INTERRUPTED)),
            _ = terminate.recv() => Ok(ExitCode::from(INTERRUPTED)),
        }
    })
}

/// Allows as many open files as the system lets us, to this process and to those that it starts.
fn raise_limit() -> anyhow::Result<()> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).context("cannot read the limit of open files")?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).context("cannot raise the limit of open files")
}

async fn measure(run: &Run) -> anyhow::Result<ExitCode> {
    let plan = if run.quick { Plan::quick() } else { Plan::full() };
    let programs = Programs {
        controller: program(run.controller.as_deref(), "opsconductor-controller")?,
        agent: program(run.agent.as_deref(), "opsconductor-agent")?,
    };
    let wanted: Vec<String> = if run.only.is_empty() {
        ALL.iter().map(|known| known.name.to_owned()).collect()
    } else {
        run.only.clone()
    };
    let mut book = Book::default();
    figures::measure(programs, &plan, &wanted, &mut book).await?;

    let document = report::document(&book, &plan);
    let written = report::write(&run.out, &document, &book)?;
    let table = report::table(&book, &plan);
    let mut out = std::io::stdout().lock();
    writeln!(out, "{document:#}\n\n{table}").context("cannot write the results")?;
    eprintln!("bench: results are in {}", written.display());
    Ok(if book.failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The path that was given, or the program of this name beside this one.
fn program(given: Option<&Path>, name: &str) -> anyhow::Result<PathBuf> {
    let path = match given {
        Some(path) => path.to_owned(),
        None => bare::own_program()?.with_file_name(name),
    };
    ensure!(path.is_file(), "there is no program {}: build it, or say where it is", path.display());
    std::path::absolute(&path).with_context(|| format!("cannot use {}", path.display()))
}
