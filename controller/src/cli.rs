//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::config::{AgentsLayer, DatabaseLayer, HttpLayer, Layer, LogFormat, LogLayer};

/// The controller of OpsConductor: API for people, door for agents, engine.
#[derive(Debug, Parser)]
#[command(name = "opsconductor-controller", version, about, disable_help_subcommand = true)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) options: Options,
    #[command(subcommand)]
    pub(crate) verb: Option<Verb>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Run the controller (what happens without a verb).
    Serve,
    /// Bring the database up to date and end.
    Migrate,
    /// Make this machine another controller of an installation, with a token of `opsctl controller join-token`, and end.
    Join(Join),
    /// Let a person in again who cannot enter any more: unlocks, enables, takes the second factor away, ends the sessions, and
    /// prints a token for a new password. For whoever may use the database anyway, when no administrator can help.
    Rescue(Rescue),
    /// Look at the configuration.
    #[command(subcommand)]
    Config(ConfigVerb),
    /// Print the version.
    Version,
}

#[derive(Debug, Clone, Copy, Subcommand)]
pub(crate) enum ConfigVerb {
    /// Check the configuration and print it without its secrets.
    Check,
}

#[derive(Debug, Args)]
pub(crate) struct Rescue {
    /// Name of the person.
    pub(crate) user: String,
}

#[derive(Debug, Args)]
pub(crate) struct Join {
    /// The agents' door of a controller that runs.
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) controller: String,
    #[command(flatten)]
    pub(crate) token: Token,
}

#[derive(Args)]
#[group(required = true, multiple = false)]
pub(crate) struct Token {
    /// The join token; others on this machine can see it while this runs.
    #[arg(long, env = "OPSC_JOIN_TOKEN", hide_env_values = true)]
    pub(crate) token: Option<String>,
    /// File with the join token; - is the standard input.
    #[arg(long, value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token(<redacted>)")
    }
}

/// Flags for the keys that people change most; they win over variables, and those over the file.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Configuration file [default: /etc/opsconductor/controller.toml, if it exists].
    #[arg(long, global = true, value_name = "FILE", env = "OPSC_CONFIG")]
    pub(crate) config: Option<PathBuf>,
    /// Folder of all that the controller keeps [OPSC_DATA].
    #[arg(long, global = true, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Address of the API [OPSC_HTTP__LISTEN].
    #[arg(long, global = true, value_name = "ADDRESS:PORT")]
    http_listen: Option<String>,
    /// Serve the API without TLS on an address that other machines reach [OPSC_HTTP__INSECURE_ANY_ADDRESS].
    #[arg(long, global = true)]
    insecure_any_address: bool,
    /// Address of the agents' door [OPSC_AGENTS__LISTEN].
    #[arg(long, global = true, value_name = "ADDRESS:PORT")]
    agents_listen: Option<String>,
    /// Bring an external database up to date at the start [OPSC_DATABASE__AUTO_MIGRATE].
    #[arg(long, global = true)]
    auto_migrate: bool,
    /// How log lines look [OPSC_LOG__FORMAT].
    #[arg(long, global = true, value_enum)]
    log_format: Option<LogFormat>,
    /// What is logged, as `info` or `info,sqlx=debug` [OPSC_LOG__LEVEL].
    #[arg(long, global = true, value_name = "LEVEL")]
    log_level: Option<String>,
}

impl Options {
    /// What the flags say. There is none for the database's address: it may hold a password, and everybody on a machine
    /// can read arguments.
    pub(crate) fn layer(&self) -> Layer {
        Layer {
            data: self.data.clone(),
            http: HttpLayer {
                listen: self.http_listen.clone(),
                insecure_any_address: self.insecure_any_address.then_some(true),
                ..HttpLayer::default()
            },
            agents: AgentsLayer { listen: self.agents_listen.clone(), ..AgentsLayer::default() },
            database: DatabaseLayer {
                auto_migrate: self.auto_migrate.then_some(true),
                ..DatabaseLayer::default()
            },
            log: LogLayer { format: self.log_format, level: self.log_level.clone() },
            ..Layer::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    #[test]
    fn the_definition_is_sound() {
        super::Cli::command().debug_assert();
    }
}
