//! The controller of OpsConductor.

mod address;
mod app;
mod background;
mod cli;
mod clock;
mod config;
mod error;
mod grpc;
mod http;
mod join;
mod lifecycle;
mod mutant;
mod postgres;
mod server;
mod store;
mod telemetry;

use std::{io::Write as _, process::ExitCode};

use clap::Parser as _;

use app::boot::Foreign;
use cli::{Cli, ConfigVerb, Verb};
use config::{Config, ConfigError};
use join::JoinError;
use server::Unreachable;

/// Answers are many small pieces that live briefly, on threads that are not those they were made on.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// What the exit code says beside 0 (done) and 1 (failed).
const BAD_CONFIGURATION: u8 = 2;
const NOT_REACHABLE: u8 = 3;
const REFUSED: u8 = 4;

fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(&cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nothing is left to be done when even this cannot be written.
            writeln!(std::io::stderr(), "error: {error:#}").ok();
            exit_code(&error).map_or(ExitCode::FAILURE, ExitCode::from)
        }
    }
}

fn exit_code(error: &anyhow::Error) -> Option<u8> {
    let is_bad_usage = error.is::<ConfigError>() || matches!(error.downcast_ref(), Some(JoinError::Usage(_)));
    let is_unreachable =
        error.is::<Unreachable>() || matches!(error.downcast_ref(), Some(JoinError::Unreachable { .. }));
    let is_refused = error.is::<Foreign>() || matches!(error.downcast_ref(), Some(JoinError::Refused(_)));
    [(is_bad_usage, BAD_CONFIGURATION), (is_unreachable, NOT_REACHABLE), (is_refused, REFUSED)]
        .into_iter()
        .find_map(|(is_so, code)| is_so.then_some(code))
}

fn run(cli: &Cli) -> anyhow::Result<()> {
    let verb = cli.verb.as_ref().unwrap_or(&Verb::Serve);
    let mut stdout = std::io::stdout();
    if let Verb::Version = verb {
        return Ok(writeln!(stdout, "opsconductor-controller {}", env!("CARGO_PKG_VERSION"))?);
    }
    let config = Config::read(cli.options.config.as_deref(), cli.options.layer())?;
    if let Verb::Config(ConfigVerb::Check) = verb {
        return Ok(write!(stdout, "{}", config.redacted())?);
    }
    telemetry::logs(&config.log)?;
    pki::install_provider();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    match verb {
        Verb::Join(join) => runtime.block_on(join::join(&config, join)),
        Verb::Rescue(rescue) => {
            let token = runtime.block_on(server::rescue(&config, &rescue.user))?;
            Ok(writeln!(stdout, "{token}")?)
        }
        Verb::Migrate => runtime.block_on(server::migrate(&config)),
        Verb::Serve | Verb::Config(_) | Verb::Version => runtime.block_on(server::serve(&config)),
    }
}
