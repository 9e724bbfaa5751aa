//! `opsctl`: the command line of OpsConductor.
//!
//! It speaks to a controller's HTTP API and knows nothing else of it. Results go to stdout, everything that is said to
//! the person goes to stderr, and the exit code (`exit.rs`) tells programs how it went.

mod args;
mod ask;
mod client;
mod clock;
mod cmd;
mod context;
mod exit;
mod follow;
mod interrupt;
mod labels;
mod output;
mod pages;
mod parse;
mod raw;
mod report;
mod session;
mod sse;
mod stored;

use std::{ops::ControlFlow, process::ExitCode};

use anyhow::{Context as _, Result};
use clap::Parser as _;

use crate::{
    args::{AuditCommand, Cli, Command},
    client::Client,
    context::{Connection, Environment},
    exit::Exit,
    stored::Contexts,
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
        Command::Setup(args) => return cmd::setup::run(&cli.global, &environment, args).await,
        Command::Login(args) => return cmd::login::run(&cli.global, &environment, args).await,
        Command::AcceptInvitation(args) => {
            return cmd::invitation::accept(&cli.global, &environment, args).await;
        }
        Command::ResetPassword(password) => {
            return cmd::invitation::reset_password(&cli.global, &environment, password).await;
        }
        Command::Context(command) => return cmd::context::run(&environment, command),
        Command::Audit(command) => match *command {
            // It needs no controller, and must not ask one.
            AuditCommand::Verify(args) => return cmd::audit::verify(&args),
            command => Command::Audit(Box::new(command)),
        },
        Command::Job(command) => match cmd::job::offline(*command)? {
            ControlFlow::Break(exit) => return Ok(exit),
            ControlFlow::Continue(command) => Command::Job(command),
        },
        command => command,
    };
    let contexts = Contexts::load(&environment.path)?;
    let connection = Connection::resolve(&cli.global, &environment, &contexts)?;
    let client = Client::new(&connection)?;
    match command {
        Command::Logout => cmd::logout::run(&environment, &connection, &client).await,
        Command::Exec(args) => Box::pin(cmd::exec::run(&client, *args)).await,
        Command::Run(args) => Box::pin(cmd::job::start(&client, *args)).await,
        Command::Job(command) => Box::pin(cmd::job::run(&client, *command)).await,
        Command::Schedule(command) => Box::pin(cmd::schedule::run(&client, *command)).await,
        Command::Calendar(command) => Box::pin(cmd::calendar::run(&client, *command)).await,
        Command::Script(command) => Box::pin(cmd::script::run(&client, *command)).await,
        Command::TargetGroup(command) => cmd::target_group::run(&client, command).await,
        Command::Logs(args) => Box::pin(cmd::logs::run(&client, args)).await,
        Command::Execution(command) => cmd::execution::run(&client, command).await,
        Command::Agent(command) => cmd::agent::run(&client, command).await,
        Command::EnrollToken(command) => cmd::enroll_token::run(&client, command).await,
        Command::Audit(command) => Box::pin(cmd::audit::run(&client, *command)).await,
        Command::Controller(command) => cmd::controller::run(&client, command).await,
        Command::Event(command) => cmd::event::run(&client, command).await,
        Command::Statistics(args) => cmd::statistics::run(&client, args).await,
        Command::Report(command) => cmd::report::run(&client, command).await,
        Command::Status(shown) => cmd::status::status(&client, shown).await,
        Command::Version(shown) => cmd::status::version(&client, shown).await,
        Command::Auth(command) => cmd::auth::run(&client, command).await,
        Command::User(command) => cmd::user::run(&client, command).await,
        Command::Invitation(command) => cmd::invitation::run(&client, command).await,
        Command::Approval(command) => cmd::approval::run(&client, command).await,
        Command::Group(command) => cmd::group::run(&client, command).await,
        Command::Role(command) => cmd::role::run(&client, command).await,
        Command::ServiceAccount(command) => cmd::service_account::run(&client, command).await,
        Command::Token(command) => cmd::token::run(&client, command).await,
        Command::Organization(command) => cmd::organization::run(&client, command).await,
        Command::Setup(_)
        | Command::Login(_)
        | Command::AcceptInvitation(_)
        | Command::ResetPassword(_)
        | Command::Context(_) => unreachable!("answered above, without a credential"),
    }
}
