//! `opsctl`: the command line of OpsConductor.
//!
//! It speaks to a controller's HTTP API and knows nothing else of it. Results go to stdout, everything that is said to
//! the person goes to stderr, and the exit code (`exit.rs`) tells programs how it went.

mod args;
mod client;
mod clock;
mod cmd;
mod context;
mod exit;
mod follow;
mod interrupt;
mod output;
mod parse;
mod raw;
mod report;
mod sse;

use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::Parser as _;

use crate::{
    args::{AuditCommand, Cli, Command},
    client::Client,
    context::{Connection, Contexts, Environment},
    exit::Exit,
};

fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .context("cannot start the runtime")
        .and_then(|runtime| runtime.block_on(run(cli)));
    match result {
        Ok(exit) => exit.into(),
        Err(error) => {
            let exit = Exit::of_error(&error);
            if exit != Exit::BrokenPipe {
                output::note(&format!("{error:#}"));
            }
            exit.into()
        }
    }
}

async fn run(cli: Cli) -> Result<Exit> {
    // An error means that there is one already, which serves as well.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let environment = Environment::read()?;
    let command = match cli.command {
        Command::Login => return cmd::login::run(&cli.global, &environment).await,
        Command::Context(command) => return cmd::context::run(&environment, command),
        Command::Audit(command) => match *command {
            // It needs no controller, and must not ask one.
            AuditCommand::Verify(args) => return cmd::audit::verify(&args),
            command => Command::Audit(Box::new(command)),
        },
        command => command,
    };
    let contexts = Contexts::load(&environment.path)?;
    let client = Client::new(&Connection::resolve(&cli.global, &environment, &contexts)?)?;
    match command {
        Command::Exec(args) => Box::pin(cmd::exec::run(&client, *args)).await,
        Command::Logs(args) => Box::pin(cmd::logs::run(&client, args)).await,
        Command::Execution(command) => cmd::execution::run(&client, command).await,
        Command::Agent(command) => cmd::agent::run(&client, command).await,
        Command::EnrollToken(command) => cmd::enroll_token::run(&client, command).await,
        Command::Audit(command) => Box::pin(cmd::audit::run(&client, *command)).await,
        Command::Controller(command) => cmd::controller::run(&client, command).await,
        Command::Event(command) => cmd::event::run(&client, command).await,
        Command::Statistics(args) => cmd::statistics::run(&client, args).await,
        Command::Status(shown) => cmd::status::status(&client, shown).await,
        Command::Version(shown) => cmd::status::version(&client, shown).await,
        Command::Login | Command::Context(_) => unreachable!("answered above, without a connection"),
    }
}
