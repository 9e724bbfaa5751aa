//! The command line: what there is, what it prints, and how it ends.
//!
//! Exit codes: 0 done, 1 failed, 2 bad usage or configuration, 3 the controller cannot be reached, 4 the controller
//! refused. An error is one line that says what is wrong and what to do.

use std::{
    fs::{DirBuilder, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    process::ExitCode,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, anyhow};
use clap::{Args, Parser, Subcommand, ValueEnum};
use model::label::validate_name;
use nix::fcntl::{Flock, FlockArg};
use pki::EnrollToken;

use crate::{
    config::{Config, ConfigError},
    executor::{
        self,
        anchor::{Anchor, AnchorError},
    },
    link::{
        self as network,
        connect::{Address, ConnectError},
        enroll::{EnrollError, PublicKeys, enroll},
        facts,
        identity::{Identity, IdentityError},
    },
};

mod link;
mod policy;
mod run;
mod status;

/// How long an agent waits for its folder, which the remains of a killed one may still hold.
const LOCK_PATIENCE: Duration = Duration::from_secs(5);
const LOCK_AGAIN: Duration = Duration::from_millis(20);

/// The agent of OpsConductor: runs on a managed host what its controller has signed.
#[derive(Debug, Parser)]
#[command(name = "opsconductor-agent", version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make this host an agent of a controller, with a token of `opsctl enroll-token create`
    Enroll(Enroll),
    /// Connect to the controller and run what it orders
    Run {
        #[command(flatten)]
        common: Common,
        /// When asked to stop, cancel the runs too, and wait until they are over
        #[arg(long)]
        kill_jobs: bool,
    },
    /// Show who this agent is and how it is
    Status {
        #[command(flatten)]
        common: Common,
        #[arg(short, long, value_enum, default_value_t = Output::Text)]
        output: Output,
    },
    /// Forget that the audit was seen to go back, once somebody has looked into it
    ForgetAlarm {
        #[command(flatten)]
        common: Common,
    },
    /// Look at what this host allows its controllers
    Policy {
        #[command(subcommand)]
        command: PolicyCommand,
    },
    /// Look at the configuration
    Config {
        #[command(subcommand)]
        command: ConfigCommand,
    },
    /// Own one attempt; started by the agent, never by people
    #[command(hide = true)]
    Shim { folder: PathBuf },
    /// Speak to the network for the agent, without privileges; started by the agent, never by people
    #[command(hide = true)]
    Link { data: PathBuf },
    /// Try which sandboxes this host can give; started by the agent
    #[command(hide = true)]
    Probe { first_uid: u32, last_uid: u32 },
    /// Print the version
    Version,
}

#[derive(Debug, Subcommand)]
enum PolicyCommand {
    /// Check the policy file, and print what holds with it
    Check {
        #[command(flatten)]
        common: Common,
        /// Another file than the configured one
        file: Option<PathBuf>,
    },
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Check the configuration, and print what holds
    Check {
        #[command(flatten)]
        common: Common,
    },
}

#[derive(Debug, Args)]
struct Common {
    /// Configuration file (default: /etc/opsconductor/agent.toml, if there is one)
    #[arg(long, value_name = "FILE", env = "OPSC_AGENT_CONFIG")]
    config: Option<PathBuf>,
    /// Folder of the agent's state (default: /var/lib/opsconductor-agent)
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct Enroll {
    #[command(flatten)]
    common: Common,
    /// The controller's port for agents
    #[arg(long, value_name = "HOST:PORT")]
    controller: Address,
    #[command(flatten)]
    token: Token,
    /// Name of this agent (default: the host's name)
    #[arg(long)]
    name: Option<String>,
    /// Replace the identity that this host has
    #[arg(long)]
    force: bool,
}

#[derive(Args)]
#[group(required = true, multiple = false)]
struct Token {
    /// The enroll token
    #[arg(long, env = "OPSC_AGENT_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// File with the enroll token; - is the standard input
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token(<redacted>)")
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    Text,
    Json,
}

/// How a command failed.
#[derive(Debug)]
struct Failure {
    code: u8,
    error: anyhow::Error,
}

const FAILED: u8 = 1;
const USAGE: u8 = 2;
const NOT_REACHABLE: u8 = 3;
const REFUSED: u8 = 4;

impl Failure {
    fn new(code: u8, error: impl Into<anyhow::Error>) -> Self {
        Self { code, error: error.into() }
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self { code: FAILED, error }
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::new(USAGE, error)
    }
}

impl From<IdentityError> for Failure {
    fn from(error: IdentityError) -> Self {
        Self::new(FAILED, error)
    }
}

impl From<AnchorError> for Failure {
    fn from(error: AnchorError) -> Self {
        Self::new(FAILED, error)
    }
}

impl From<EnrollError> for Failure {
    fn from(error: EnrollError) -> Self {
        let code = match &error {
            EnrollError::Connect(ConnectError::Tls { .. }) | EnrollError::Refused(_) | EnrollError::Root => {
                REFUSED
            }
            EnrollError::Connect(_) | EnrollError::Timeout | EnrollError::Failed { .. } => NOT_REACHABLE,
            EnrollError::Key(_) | EnrollError::Identity(_) => FAILED,
        };
        Self::new(code, error)
    }
}

/// Runs the program.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    pki::install_provider();
    let done = match cli.command {
        Command::Enroll(arguments) => enroll_host(arguments),
        Command::Run { common, kill_jobs } => common.load().and_then(|config| run::run(&config, kill_jobs)),
        Command::Status { common, output } => common.load().and_then(|config| status::show(&config, output)),
        Command::ForgetAlarm { common } => common.load().and_then(|config| status::forget_alarm(&config)),
        Command::Config { command: ConfigCommand::Check { common } } => common
            .load()
            .and_then(|config| print(&toml::to_string(&config).context("cannot show the configuration")?)),
        Command::Policy { command: PolicyCommand::Check { common, file } } => {
            common.load().and_then(|config| policy::check(file.as_ref().unwrap_or(&config.policy)))
        }
        Command::Shim { folder } => return crate::shim::main(&folder),
        // Its folder is an argument only for who looks at the list of processes.
        Command::Link { .. } => link::run(),
        Command::Probe { first_uid, last_uid } => return crate::shim::probe::main(first_uid, last_uid),
        Command::Version => print(&format!("opsconductor-agent {}\n", facts::VERSION)),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            // Nobody reads it, then nobody needs it.
            let _ = writeln!(io::stderr(), "opsconductor-agent: {:#}", failure.error);
            ExitCode::from(failure.code)
        }
    }
}

impl Common {
    fn load(&self) -> Result<Config, Failure> {
        let mut config = Config::load(self.config.as_deref(), variables())?;
        if let Some(data) = &self.data {
            config.data = std::path::absolute(data)
                .with_context(|| format!("cannot use the data folder '{}'", data.display()))?;
        }
        Ok(config)
    }
}

/// The environment, as far as it is text: our variables' names are.
fn variables() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
}

fn print(text: &str) -> Result<(), Failure> {
    Ok(io::stdout().write_all(text.as_bytes()).context("cannot write to the standard output")?)
}

fn enroll_host(arguments: Enroll) -> Result<(), Failure> {
    let config = arguments.common.load()?;
    let text = arguments.token.read()?;
    let token = EnrollToken::parse(&text).map_err(|error| Failure::new(USAGE, error))?;
    let name = match arguments.name {
        Some(name) => name,
        None => facts::hostname().ok_or_else(|| anyhow!("this host has no name; give one with --name"))?,
    };
    validate_name(&name).map_err(|error| Failure::new(USAGE, error))?;

    let _lock = lock(&config.data, LOCK_PATIENCE)?;
    let folder = network::folder(&config.data);
    private_folder(&folder)?;
    let keys = executor::keys::load_or_create(&config.data).context("cannot make the executor's keys")?;
    let keys = PublicKeys { result_key: keys.result_key.public_key(), seal_key: keys.seal_key.public_key() };
    // What is in the link's folder is the link's: it is written as its user, and never through a path.
    let owner = network::owner::Owner::of(&folder)
        .with_context(|| format!("cannot use the folder '{}'", folder.display()))?;
    let identity_folder = network::identity_folder(Path::new(network::HERE));
    if !arguments.force
        && let Ok(identity) = Identity::load(&identity_folder)
    {
        return Err(anyhow!(
            "this host is already enrolled as agent {} ('{}'); to enroll it anew, add --force",
            identity.agent_id,
            identity.name
        )
        .into());
    }
    // Written before the token is spent: a folder that cannot be written costs no token.
    network::controllers::save(Path::new(network::HERE), std::slice::from_ref(&arguments.controller))
        .with_context(|| format!("cannot write to '{}'", folder.display()))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let enrolled =
        runtime.block_on(Box::pin(enroll(&arguments.controller, &token, text.trim(), name, keys)))?;
    enrolled.identity.save(&identity_folder)?;
    drop(owner);
    anchor_of(&enrolled.identity).save(&config.data)?;
    let identity = enrolled.identity;
    print(&format!(
        "Enrolled as agent {} ('{}') of {}.\n",
        identity.agent_id, identity.name, identity.trust_domain
    ))?;
    if enrolled.pending {
        print("It takes no work before somebody approves it.\n")?;
    }
    print("Start it with: opsconductor-agent run\n")
}

/// What of an identity the executor has to know by itself.
fn anchor_of(identity: &Identity) -> Anchor {
    Anchor {
        agent_id: identity.agent_id,
        org_id: identity.org_id,
        trust_domain: identity.trust_domain.clone(),
        name: identity.name.clone(),
        controllers_ca: identity.controllers_ca().to_vec(),
    }
}

impl Token {
    fn read(self) -> Result<zeroize::Zeroizing<String>, Failure> {
        if let Some(token) = self.token {
            return Ok(zeroize::Zeroizing::new(token));
        }
        let path = self.token_file.unwrap_or_default();
        let mut text = zeroize::Zeroizing::new(String::new());
        let read = if path == Path::new("-") {
            io::stdin().read_to_string(&mut text)
        } else {
            File::open(&path).and_then(|mut file| file.read_to_string(&mut text))
        };
        read.with_context(|| format!("cannot read the enroll token from '{}'", path.display()))
            .map_err(|error| Failure::new(USAGE, error))?;
        Ok(text)
    }
}

/// Makes a folder that only this user can enter, with those above it.
fn private_folder(folder: &Path) -> Result<(), Failure> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .with_context(|| format!("cannot make the folder '{}'", folder.display()))?;
    Ok(())
}

/// Takes the data folder for this process; it is free again when the process ends, however it ends.
///
/// A process that was forked a moment before its agent was killed holds the folder until it becomes the program that it
/// was forked for, on a busy host some milliseconds later: who comes after waits that long.
fn lock(data: &Path, patience: Duration) -> Result<Flock<File>, Failure> {
    private_folder(data)?;
    let path = data.join("lock");
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .with_context(|| format!("cannot open '{}'", path.display()))?;
    let begun = Instant::now();
    loop {
        file = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => return Ok(lock),
            Err((file, nix::errno::Errno::EWOULDBLOCK)) if begun.elapsed() < patience => file,
            Err((_, nix::errno::Errno::EWOULDBLOCK)) => {
                let folder = data.display();
                let text = format!(
                    "another agent runs on the folder '{folder}'; stop it first, or choose another with --data"
                );
                return Err(anyhow!(text).into());
            }
            Err((_, error)) => {
                return Err(anyhow!(error).context(format!("cannot lock '{}'", path.display())).into());
            }
        };
        thread::sleep(LOCK_AGAIN);
    }
}

/// The configured controllers, or else those that this host knows of since it enrolled.
/// `folder` is the link's.
fn controllers(config: &Config, folder: &Path) -> Result<Vec<Address>, Failure> {
    if !config.controller.is_empty() {
        return Ok(config.controller.clone());
    }
    let found = network::controllers::load(folder).with_context(|| {
        format!(
            "no controller is configured, and the list in '{}' cannot be read; set 'controller' or enroll again",
            folder.display()
        )
    })?;
    Ok(found)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_data_folder_has_one_agent() {
        let data = tempfile::tempdir().unwrap();
        let first = lock(data.path(), Duration::ZERO).unwrap();
        let failure = lock(data.path(), Duration::ZERO).unwrap_err();
        assert!(failure.error.to_string().contains("another agent"), "{:#}", failure.error);
        let folder = data.path().to_owned();
        let second = thread::spawn(move || lock(&folder, LOCK_PATIENCE));
        drop(first);
        second.join().unwrap().unwrap();
    }

    #[test]
    fn controllers_are_kept_for_the_run() {
        let data = tempfile::tempdir().unwrap();
        let mut config = Config { data: data.path().to_owned(), ..Config::default() };
        let folder = network::folder(data.path());
        assert!(controllers(&config, &folder).is_err());
        private_folder(&folder).unwrap();
        let address: Address = "controller.example:7443".parse().unwrap();
        network::controllers::save(&folder, std::slice::from_ref(&address)).unwrap();
        assert_eq!(controllers(&config, &folder).unwrap(), [address]);
        let other: Address = "[::1]:1".parse().unwrap();
        config.controller = vec![other.clone()];
        assert_eq!(controllers(&config, &folder).unwrap(), [other]);
    }

    #[test]
    fn a_token_is_asked_for_once() {
        let parse = |arguments: &[&str]| {
            Cli::try_parse_from([&["agent", "enroll", "--controller", "h:1"], arguments].concat())
        };
        assert!(parse(&["--token", "t"]).is_ok());
        assert!(parse(&[]).is_err());
        assert!(parse(&["--token", "t", "--token-file", "f"]).is_err());
        assert!(Cli::try_parse_from(["agent", "enroll", "--controller", "nowhere", "--token", "t"]).is_err());
    }
}
