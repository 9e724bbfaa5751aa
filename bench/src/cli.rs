//! The command line.

use std::{net::SocketAddr, path::PathBuf};

use clap::{Args, Parser, Subcommand, builder::PossibleValuesParser};

use crate::figure::ALL;

/// Measures OpsConductor: load, latency and memory, with real and simulated agents.
#[derive(Debug, Parser)]
#[command(name = "opsconductor-bench", version, arg_required_else_help = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Measure, on a controller that is started for it; prints JSON and a table
    Run(Run),
    /// Connect simulated agents to a controller on this machine, until Ctrl-C
    Swarm(Hand),
    /// Write lines with time stamps at a steady rate
    Emit {
        /// Lines a second
        #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
        rate: u32,
        #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=3600))]
        seconds: u32,
    },
    /// Write ordinary logs, with time stamps between them
    Logs {
        #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=100_000))]
        mib: u32,
        /// MiB a second (default: as fast as they are taken)
        #[arg(long, value_parser = clap::value_parser!(u32).range(1..=100_000))]
        rate: Option<u32>,
    },
    /// Serve nothing, to be measured against; started by the bench, never by people
    #[command(hide = true)]
    BareServer {
        #[arg(long)]
        ca: PathBuf,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Run {
    /// Small numbers, to see that everything works; the figures mean nothing
    #[arg(long)]
    pub(crate) quick: bool,
    /// Only these figures
    #[arg(long, num_args = 1.., value_name = "NAME", value_parser = PossibleValuesParser::new(ALL.map(|d| d.name)))]
    pub(crate) only: Vec<String>,
    /// The controller's program (default: opsconductor-controller beside this program)
    #[arg(long, value_name = "PATH")]
    pub(crate) controller: Option<PathBuf>,
    /// The agent's program (default: opsconductor-agent beside this program)
    #[arg(long, value_name = "PATH")]
    pub(crate) agent: Option<PathBuf>,
    /// Folder of results.json and raw/
    #[arg(long, value_name = "DIR", default_value = "bench")]
    pub(crate) out: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct Hand {
    /// The controller's port for agents, on this machine
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:7443")]
    pub(crate) controller: SocketAddr,
    /// How many agents; the token must allow as many uses
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=15_000))]
    pub(crate) count: u32,
    /// File with the enroll token; - is the standard input
    #[arg(long, value_name = "FILE")]
    pub(crate) token_file: PathBuf,
    /// Beginning of the agents' names
    #[arg(long, default_value = "swarm")]
    pub(crate) name: String,
    /// End by itself after so long
    #[arg(long, value_name = "SECONDS", default_value_t = 3600, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub(crate) seconds: u64,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    #[test]
    fn the_definition_is_sound() {
        super::Cli::command().debug_assert();
    }
}
