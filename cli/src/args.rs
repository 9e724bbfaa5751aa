//! The command line as clap reads it: nouns with their verbs, and the short verbs as `exec`, `logs` and `login`.

mod calendar;
mod job;
mod people;
mod schedule;
mod script;
mod target_group;

use std::path::PathBuf;

use clap::{ArgGroup, Args, Parser, Subcommand, ValueEnum};
use model::{
    api::{execution::RetryHosts, output::Stream, undo::UndoHosts},
    execution::ExecutionState,
    id::{EnrollTokenId, ExecutionId},
    job::{Length, Share},
    sandbox::Profile,
};

pub(crate) use self::calendar::{CalendarCommand, CreateCalendarArgs};
pub(crate) use self::job::{
    ApplyArgs, ApprovalCommand, DecideArgs, DiffArgs, ExportArgs, Files, ImportArgs, ImportCommand,
    JobCommand, NewArgs, OneJob, PlanArgs, RunJobArgs, TargetArgs, TemplateCommand, ValidateArgs,
};
pub(crate) use self::people::{
    AcceptArgs, AuthCommand, BindArgs, CreateTokenArgs, GroupCommand, InvitationCommand, LoginArgs, Member,
    OneUser, OrganizationCommand, PasswordFrom, Question, RoleCommand, ServiceAccountCommand, SetupArgs,
    TokenCommand, TotpCommand, UserCommand,
};
pub(crate) use self::schedule::{
    CreateScheduleArgs, OneSchedule, PreviewArgs, ScheduleCommand, ScheduleFields, TriggerArgs,
    UpdateScheduleArgs,
};
pub(crate) use self::script::{
    CreateScriptArgs, DiffScriptArgs, OneScript, ScriptCommand, ScriptFields, UpdateScriptArgs,
    ValidateScriptArgs,
};
pub(crate) use self::target_group::{CreateTargetGroupArgs, TargetGroupCommand, UpdateTargetGroupArgs};
use crate::{
    cmd::{event::EventCommand, report::ReportCommand, statistics::StatisticsArgs},
    output::Format,
    parse,
};

const EXIT_CODES: &str = "\
Exit codes: 0 succeeded, 1 a command failed, 2 bad usage, 3 controller not reachable, 4 not allowed,
5 nothing matched, 6 outcome unknown or never started in time.

Environment: OPSC_ADDR and OPSC_TOKEN (address and API token of the controller), OPSCTL_CONFIG (file of contexts).";

/// Run commands on your machines and see what happened.
#[derive(Debug, Parser)]
#[command(name = "opsctl", version, after_help = EXIT_CODES)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Args)]
pub(crate) struct Global {
    /// Address of the controller [default: OPSC_ADDR, the current context, http://127.0.0.1:8080]
    #[arg(long, value_name = "URL", global = true)]
    pub(crate) addr: Option<String>,
    /// File with the API token [default: OPSC_TOKEN, the context of the address]
    #[arg(long, value_name = "FILE", global = true)]
    pub(crate) token_file: Option<PathBuf>,
    /// Context to use instead of the current one; with 'login', the name to store it under
    #[arg(long, value_name = "NAME", global = true)]
    pub(crate) context: Option<String>,
    /// Certificates (PEM) that alone are trusted for https, for a private CA
    #[arg(long, value_name = "FILE", global = true)]
    pub(crate) ca_file: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a command or script on hosts and follow its output
    Exec(Box<ExecArgs>),
    /// Start a job on its hosts and follow its output (the same as 'job run')
    Run(Box<RunJobArgs>),
    /// Jobs: work that a team keeps, in versions
    #[command(subcommand)]
    Job(Box<JobCommand>),
    /// Approvals: what people are asked before a job goes on
    #[command(subcommand)]
    Approval(ApprovalCommand),
    /// Schedules: when jobs start by themselves
    #[command(subcommand)]
    Schedule(Box<ScheduleCommand>),
    /// Calendars: days and windows that schedules heed
    #[command(subcommand)]
    Calendar(Box<CalendarCommand>),
    /// Scripts: texts that jobs use by name, in versions
    #[command(subcommand)]
    Script(Box<ScriptCommand>),
    /// Target groups: hosts that jobs and commands name together
    #[command(subcommand)]
    TargetGroup(TargetGroupCommand),
    /// Show the output of an execution
    Logs(LogsArgs),
    /// Executions: what was started, and how it ended
    #[command(subcommand)]
    Execution(ExecutionCommand),
    /// Agents: the hosts that commands run on
    #[command(subcommand)]
    Agent(AgentCommand),
    /// Enroll tokens: how a new host proves that it is expected
    #[command(subcommand)]
    EnrollToken(EnrollTokenCommand),
    /// Controllers of this installation, and how another one joins
    #[command(subcommand)]
    Controller(ControllerCommand),
    /// Events: what happened
    #[command(subcommand)]
    Event(EventCommand),
    /// Show how many people and hosts there are, what was started, and how it went
    Statistics(StatisticsArgs),
    /// Reports: who may do what on which host, and who did
    #[command(subcommand)]
    Report(ReportCommand),
    /// The audit: who did what, and whether anybody changed it since
    #[command(subcommand)]
    Audit(Box<AuditCommand>),
    /// Make the first organization and its administrator, and log in (setup token from --token-file, OPSC_TOKEN or stdin)
    Setup(SetupArgs),
    /// Log in, and store that with the address as a context. Without --user with an API token (from --token-file,
    /// OPSC_TOKEN or stdin)
    Login(LoginArgs),
    /// End the session, and forget the context's credential
    Logout,
    /// Join an organization (invitation from --token-file or stdin)
    AcceptInvitation(AcceptArgs),
    /// Choose a new password (token for it from --token-file or stdin)
    ResetPassword(PasswordFrom),
    /// What one may do and why; one's own sessions, password and second factor
    #[command(subcommand)]
    Auth(AuthCommand),
    /// The people of the organization
    #[command(subcommand)]
    User(UserCommand),
    /// Invitations: how somebody new gets in
    #[command(subcommand)]
    Invitation(InvitationCommand),
    /// Groups of people, which have roles together
    #[command(subcommand)]
    Group(GroupCommand),
    /// Roles, and who has which for which hosts
    #[command(subcommand)]
    Role(RoleCommand),
    /// Service accounts: what programs are
    #[command(subcommand)]
    ServiceAccount(ServiceAccountCommand),
    /// API tokens: how programs get in
    #[command(subcommand)]
    Token(TokenCommand),
    /// The organizations of the installation
    #[command(subcommand)]
    Organization(OrganizationCommand),
    /// Contexts: the controllers that this user has logged in to
    #[command(subcommand)]
    Context(ContextCommand),
    /// Show how the controller and its parts are
    Status(Shown),
    /// Show the versions of this program and of the controller
    Version(Shown),
}

/// How a result is written.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct Shown {
    /// Form of the result
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    pub(crate) output: Format,
}

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("targets").required(true).args(["selector", "target", "all", "target_group"]))]
#[command(group = ArgGroup::new("program").required(true).multiple(true).args(["shell", "script", "argv"]))]
pub(crate) struct ExecArgs {
    /// Hosts that a predicate holds for, as 'env=prod and role in (web, api)'
    #[arg(short = 'l', long)]
    pub(crate) selector: Option<String>,
    /// Host by name; may be repeated
    #[arg(short, long, value_name = "NAME", value_delimiter = ',')]
    pub(crate) target: Vec<String>,
    /// Every host
    #[arg(long)]
    pub(crate) all: bool,
    /// The hosts of a target group
    #[arg(long, value_name = "NAME", value_parser = parse::slug)]
    pub(crate) target_group: Option<String>,
    /// How long a run may take [default: 1h]
    #[arg(long, value_name = "DURATION", value_parser = parse::seconds, allow_hyphen_values = true)]
    pub(crate) timeout: Option<i64>,
    /// How long a run may wait for its host [default: 5m]
    #[arg(long, value_name = "DURATION", value_parser = parse::seconds, allow_hyphen_values = true)]
    pub(crate) start_within: Option<i64>,
    /// A line for the host's shell
    #[arg(long, value_name = "LINE", conflicts_with_all = ["script", "argv"], allow_hyphen_values = true)]
    pub(crate) shell: Option<String>,
    /// A script from a file, or from stdin with '-'; what follows '--' is its arguments
    #[arg(long, value_name = "FILE|-")]
    pub(crate) script: Option<PathBuf>,
    /// Program that runs the script, with its options [default: the script's '#!' line]
    #[arg(long, value_name = "PROGRAM", requires = "script")]
    pub(crate) interpreter: Option<String>,
    /// Variable for the command; may be repeated
    #[arg(long, value_name = "NAME=VALUE", value_parser = parse::key_value)]
    pub(crate) env: Vec<(String, String)>,
    /// Working directory, absolute [default: the user's home]
    #[arg(long, value_name = "DIR")]
    pub(crate) cwd: Option<String>,
    /// User to run as [default: the agent's own]
    #[arg(long)]
    pub(crate) user: Option<String>,
    /// Try so often again what fails: exit code, signal, time limit, or it cannot be started [default: 0]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i64).range(0..))]
    pub(crate) retries: Option<i64>,
    /// Pause before the first of these tries, doubled before each further one [default: 5s]
    #[arg(long, value_name = "DURATION", value_parser = parse::seconds, allow_hyphen_values = true, requires = "retries")]
    pub(crate) retry_backoff: Option<i64>,
    /// It may be run again when nobody knows how it ended; otherwise such a run ends as unknown
    #[arg(long)]
    pub(crate) idempotent: bool,
    /// Keep so many bytes of a run's output [default: 256MiB]
    #[arg(long, value_name = "BYTES", value_parser = parse::bytes, allow_hyphen_values = true)]
    pub(crate) output_limit: Option<u64>,
    /// End a run that writes more; otherwise what is beyond is counted and not kept
    #[arg(long)]
    pub(crate) halt_at_output_limit: bool,
    #[command(flatten)]
    pub(crate) sandbox: SandboxArgs,
    #[command(flatten)]
    pub(crate) rollout: RolloutArgs,
    /// Of what waits for a host the highest comes first, -100 to 100 [default: 0]
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    pub(crate) priority: Option<i64>,
    /// Print the execution's id and do not wait
    #[arg(long)]
    pub(crate) detach: bool,
    /// With json or yaml: no live output, one document with the result at the end
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    pub(crate) output: Format,
    /// The program and its arguments; no shell looks at them
    #[arg(last = true, value_name = "ARGV")]
    pub(crate) argv: Vec<String>,
}

/// How a command spreads over its hosts.
#[derive(Debug, Args)]
#[command(next_help_heading = "Rollout")]
pub(crate) struct RolloutArgs {
    /// How many hosts have had their turn when each batch is over, as 1,10%,100%
    #[arg(long, value_name = "N|%", value_parser = Share::parse, value_delimiter = ',')]
    pub(crate) batches: Vec<Share>,
    /// Hosts that are at work at a time
    #[arg(long, value_name = "N")]
    pub(crate) max_parallel: Option<usize>,
    /// Hosts that may fail; when there are more, no further host begins
    #[arg(long, value_name = "N|%", value_parser = Share::parse)]
    pub(crate) max_failures: Option<Share>,
    /// How long to wait between two batches
    #[arg(long, value_name = "DURATION", value_parser = Length::parse)]
    pub(crate) pause: Option<Length>,
    /// Hosts that come first; when one of them fails no other host begins
    #[arg(long, value_name = "N|%", value_parser = Share::parse)]
    pub(crate) canary: Option<Share>,
    /// How long after its end a host of the canary is asked the probe; without one, how long the others wait
    #[arg(long, value_name = "DURATION", value_parser = Length::parse, requires = "canary")]
    pub(crate) soak: Option<Length>,
    /// A line for the shell of these hosts that has to succeed then
    #[arg(long, value_name = "LINE", requires = "canary", allow_hyphen_values = true)]
    pub(crate) probe: Option<String>,
}

/// What a run is confined to.
#[derive(Debug, Args)]
#[command(next_help_heading = "Sandbox")]
pub(crate) struct SandboxArgs {
    /// How far it is kept apart from its host: none, standard, strict or isolated [default: the host's, mostly standard]
    #[arg(long, value_name = "PROFILE", value_parser = parse::profile)]
    pub(crate) sandbox: Option<Profile>,
    /// Give an isolated run a loopback interface of its own
    #[arg(long)]
    pub(crate) loopback: bool,
    /// Folder that an isolated run may read beside the system's; may be repeated
    #[arg(long, value_name = "DIR")]
    pub(crate) read: Vec<String>,
    /// Folder that a strict or isolated run may write beside its working folder; may be repeated
    #[arg(long, value_name = "DIR")]
    pub(crate) write: Vec<String>,
    /// Memory of all its processes together, as 512MiB
    #[arg(long, value_name = "BYTES", value_parser = parse::bytes)]
    pub(crate) memory: Option<u64>,
    /// Processes and threads at a time [default: 4096 where the host can count them]
    #[arg(long, value_name = "N")]
    pub(crate) pids: Option<u64>,
    /// Share of the processors, in percent of one
    #[arg(long, value_name = "PERCENT")]
    pub(crate) cpu: Option<u64>,
    /// Bytes per second from and to each disk, as 10MiB
    #[arg(long, value_name = "BYTES", value_parser = parse::bytes)]
    pub(crate) io: Option<u64>,
    /// Files that each process may have open [default: 1024]
    #[arg(long, value_name = "N")]
    pub(crate) open_files: Option<u64>,
    /// Bytes of the largest file that it may write
    #[arg(long, value_name = "BYTES", value_parser = parse::bytes)]
    pub(crate) file_size: Option<u64>,
    /// Run it in a container of this image, by the host's container engine
    #[arg(long, value_name = "IMAGE")]
    pub(crate) image: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct LogsArgs {
    /// Id of the execution
    #[arg(value_name = "EXECUTION")]
    pub(crate) execution: ExecutionId,
    /// Go on until the execution has ended
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// Only of each run's N-th try [default: the newest]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(1..))]
    pub(crate) attempt: Option<i32>,
    /// Only this target
    #[arg(short, long, value_name = "NAME")]
    pub(crate) target: Option<String>,
    /// Only this step of a job
    #[arg(long, value_name = "NAME")]
    pub(crate) step: Option<String>,
    /// Only the last N lines
    #[arg(long, value_name = "N")]
    pub(crate) tail: Option<u32>,
    /// Only what was written since: how long ago (10m), or an RFC 3339 time
    #[arg(long, value_name = "WHEN", value_parser = parse::Since::parse)]
    pub(crate) since: Option<parse::Since>,
    /// Only this stream
    #[arg(long, value_enum)]
    pub(crate) stream: Option<StreamArg>,
    /// The bytes of one target as they were written, checked against what the host counted
    #[arg(long)]
    pub(crate) raw: bool,
    /// Hosts that came to the same together, with their output once
    #[arg(short, long, conflicts_with_all = ["follow", "attempt", "target", "since", "raw"])]
    pub(crate) group: bool,
    /// Form of the groups; with json or yaml one document, held in memory
    #[arg(short, long, value_enum, default_value_t = Format::Table, requires = "group")]
    pub(crate) output: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum StreamArg {
    Stdout,
    Stderr,
}

impl From<StreamArg> for Stream {
    fn from(arg: StreamArg) -> Self {
        match arg {
            StreamArg::Stdout => Self::Stdout,
            StreamArg::Stderr => Self::Stderr,
        }
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum ExecutionCommand {
    /// List executions, the newest first
    List {
        /// Only those in this state
        #[arg(long, value_parser = execution_state)]
        state: Option<ExecutionState>,
        /// At most so many
        #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u64).range(1..))]
        limit: u64,
        #[command(flatten)]
        shown: Shown,
    },
    /// Show one execution with its runs
    Show {
        #[arg(value_name = "EXECUTION")]
        id: ExecutionId,
        #[command(flatten)]
        shown: Shown,
    },
    /// Show what each step of a job came to on each host
    Results {
        #[arg(value_name = "EXECUTION")]
        id: ExecutionId,
        /// Only hosts in this state: waiting, active, succeeded, failed or skipped
        #[arg(long, value_name = "STATE", value_parser = ["waiting", "active", "succeeded", "failed", "skipped"])]
        state: Option<String>,
        #[command(flatten)]
        shown: Shown,
    },
    /// Try an execution again that is over, as a new one, and follow its output
    Retry(RetryArgs),
    /// Undo an execution of a job where it changed something: its rollback, as a new execution
    Undo(UndoArgs),
    /// Begin nothing new; what runs goes on
    Pause(OneExecution),
    /// Go on after a pause
    Resume(OneExecution),
    /// Begin nothing more at all; what runs goes on to its end
    Abort(OneExecution),
    /// Ask for the end of all runs that have not ended
    Cancel(OneExecution),
}

#[derive(Debug, Args)]
pub(crate) struct RetryArgs {
    #[arg(value_name = "EXECUTION")]
    pub(crate) id: ExecutionId,
    /// On which of its hosts: where it failed, where it failed or never came to be, or all
    #[arg(long, value_enum, default_value = "failed")]
    pub(crate) hosts: RetryHostsArg,
    /// Of a job, the step to begin with; what it needs is left out, but for approvals
    #[arg(long, value_name = "STEP")]
    pub(crate) from: Option<String>,
    /// Only that step, and not what needs it
    #[arg(long, requires = "from")]
    pub(crate) only: bool,
    /// Print the new execution's id and do not wait
    #[arg(short, long)]
    pub(crate) detach: bool,
    #[command(flatten)]
    pub(crate) shown: Shown,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum RetryHostsArg {
    Failed,
    Unfinished,
    All,
}

impl From<RetryHostsArg> for RetryHosts {
    fn from(arg: RetryHostsArg) -> Self {
        match arg {
            RetryHostsArg::Failed => Self::Failed,
            RetryHostsArg::Unfinished => Self::Unfinished,
            RetryHostsArg::All => Self::All,
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct UndoArgs {
    #[arg(value_name = "EXECUTION")]
    pub(crate) id: ExecutionId,
    /// Only show the hosts on which something was changed and not undone
    #[arg(long, conflicts_with_all = ["hosts", "detach"])]
    pub(crate) list: bool,
    /// On which of these hosts: all, or where it failed
    #[arg(long, value_enum, default_value = "all")]
    pub(crate) hosts: UndoHostsArg,
    /// Print the new execution's id and do not wait
    #[arg(short, long)]
    pub(crate) detach: bool,
    #[command(flatten)]
    pub(crate) shown: Shown,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum UndoHostsArg {
    All,
    Failed,
}

impl From<UndoHostsArg> for UndoHosts {
    fn from(arg: UndoHostsArg) -> Self {
        match arg {
            UndoHostsArg::All => Self::All,
            UndoHostsArg::Failed => Self::Failed,
        }
    }
}

#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct OneExecution {
    #[arg(value_name = "EXECUTION")]
    pub(crate) id: ExecutionId,
    #[command(flatten)]
    pub(crate) shown: Shown,
}

fn execution_state(text: &str) -> Result<ExecutionState, String> {
    ExecutionState::parse(text)
        .ok_or_else(|| format!("there are: {}", ExecutionState::ALL.map(ExecutionState::as_str).join(", ")))
}

#[derive(Debug, Subcommand)]
pub(crate) enum AgentCommand {
    /// List agents
    List {
        /// Only those that a predicate holds for, as 'env=prod and os=linux'
        #[arg(short = 'l', long)]
        selector: Option<String>,
        /// At most so many [default: all]
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
        limit: Option<u64>,
        #[command(flatten)]
        shown: Shown,
    },
    /// Show one agent with its facts, labels, runs and how its host fares
    Show(OneAgent),
    /// List the runs that wait for an agent, in the order in which it gets them
    Queue {
        /// Name or id of the agent
        #[arg(value_parser = agent_name)]
        name: String,
        /// Those that it has, instead of those that wait
        #[arg(long)]
        active: bool,
        /// At most so many [default: all]
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
        limit: Option<u64>,
        #[command(flatten)]
        shown: Shown,
    },
    /// Give agents nothing new; what they run goes on, and what waits for them waits
    Drain {
        #[command(flatten)]
        agents: SomeAgents,
        /// Return when nothing runs there any more
        #[arg(long)]
        wait: bool,
    },
    /// Give draining agents runs again
    Resume(SomeAgents),
    /// Make an agent's certificates worthless and end its session
    Revoke(OneAgent),
    /// Let an agent work that waits for approval
    Approve(OneAgent),
    /// Set labels of an agent and take labels away; the others stay
    Label {
        /// Name or id of the agent
        #[arg(value_parser = agent_name)]
        name: String,
        /// A label to set, or the key of one to take away with a '-' behind it
        #[arg(required = true, value_name = "KEY=VALUE|KEY-", value_parser = parse::label_change)]
        changes: Vec<parse::LabelChange>,
        #[command(flatten)]
        shown: Shown,
    },
}

#[derive(Debug, Args)]
pub(crate) struct OneAgent {
    /// Name or id of the agent
    #[arg(value_parser = agent_name)]
    pub(crate) name: String,
    #[command(flatten)]
    pub(crate) shown: Shown,
}

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("agents").required(true).args(["name", "selector"]))]
pub(crate) struct SomeAgents {
    /// Name or id of the agent
    #[arg(value_parser = agent_name)]
    pub(crate) name: Option<String>,
    /// All agents that a predicate holds for, as 'env=prod and os=linux'
    #[arg(short = 'l', long)]
    pub(crate) selector: Option<String>,
    #[command(flatten)]
    pub(crate) shown: Shown,
}

fn agent_name(text: &str) -> Result<String, String> {
    model::label::validate_name(text).map(|()| text.to_owned()).map_err(|invalid| invalid.to_string())
}

#[derive(Debug, Subcommand)]
pub(crate) enum EnrollTokenCommand {
    /// Make a token, and show the line to type on the new host
    Create {
        /// How long it may be used [default: 15m]
        #[arg(long, value_name = "DURATION", value_parser = parse::seconds, allow_hyphen_values = true)]
        ttl: Option<i64>,
        /// Label that the agent will have; may be repeated
        #[arg(long, value_name = "KEY=VALUE", value_parser = parse::label)]
        label: Vec<(String, String)>,
        /// How many hosts may use it; with more than one, each waits for approval [default: 1]
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(1..))]
        max_uses: Option<i32>,
        /// Only hosts with addresses in this range may use it
        #[arg(long, value_name = "CIDR")]
        address_range: Option<String>,
        #[command(flatten)]
        shown: Shown,
    },
    /// List tokens, without their secrets
    List(Shown),
    /// Make a token worthless
    Delete {
        #[arg(value_name = "TOKEN_ID")]
        id: EnrollTokenId,
    },
}

#[derive(Debug, Clone, Copy, Subcommand)]
pub(crate) enum ControllerCommand {
    /// List controllers with their leases and how many agents each serves
    List(Shown),
    /// Make a token, and show the line to type on the machine of another controller. It hands over this installation
    JoinToken(Shown),
}

#[derive(Debug, Subcommand)]
pub(crate) enum AuditCommand {
    /// List entries, the newest first
    List {
        #[command(flatten)]
        filter: AuditFilter,
        /// At most so many
        #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u64).range(1..))]
        limit: u64,
        #[command(flatten)]
        shown: Shown,
    },
    /// Write entries and checkpoints as lines of JSON, for 'verify' and for whoever keeps them
    Export {
        /// From the first entry since: how long ago (7d), or an RFC 3339 time
        #[arg(long, value_name = "WHEN", value_parser = parse::Since::parse)]
        since: Option<parse::Since>,
        /// Up to the first checkpoint behind that time
        #[arg(long, value_name = "WHEN", value_parser = parse::Since::parse)]
        until: Option<parse::Since>,
        /// From this number on
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(i64).range(1..))]
        from_seq: Option<i64>,
        /// Write to this file [default: stdout]
        #[arg(long, value_name = "FILE")]
        file: Option<PathBuf>,
    },
    /// Check an export against its checkpoints, without any connection: exit code 1 when something is wrong
    Verify(VerifyArgs),
    /// Print what exports are verified with; keep it where the controller cannot change it
    Key(Shown),
}

#[derive(Debug, Args)]
pub(crate) struct AuditFilter {
    /// Only of this actor, by name or by 'noun/id'
    #[arg(long)]
    pub(crate) actor: Option<String>,
    /// Only this verb, as 'agent.revoke'
    #[arg(long)]
    pub(crate) verb: Option<String>,
    /// Only about this object, as 'agent/ID'
    #[arg(long, value_name = "NOUN/ID")]
    pub(crate) object: Option<String>,
    /// Only with this outcome, as 'done'
    #[arg(long)]
    pub(crate) outcome: Option<String>,
    /// Only of this request
    #[arg(long, value_name = "ID")]
    pub(crate) request_id: Option<String>,
    /// Only since: how long ago (7d), or an RFC 3339 time
    #[arg(long, value_name = "WHEN", value_parser = parse::Since::parse)]
    pub(crate) since: Option<parse::Since>,
    /// Only before then
    #[arg(long, value_name = "WHEN", value_parser = parse::Since::parse)]
    pub(crate) until: Option<parse::Since>,
}

#[derive(Debug, Args)]
pub(crate) struct VerifyArgs {
    /// File that 'opsctl audit key' wrote
    #[arg(long, value_name = "FILE")]
    pub(crate) key: PathBuf,
    /// A checkpoint that was kept, which must be contained
    #[arg(long, value_name = "FILE")]
    pub(crate) after: Option<PathBuf>,
    /// Keep the newest checkpoint here, for a later '--after'
    #[arg(long, value_name = "FILE")]
    pub(crate) keep: Option<PathBuf>,
    /// It must be of this organization: its id, or the name that the key has
    #[arg(long, value_name = "NAME|ID")]
    pub(crate) organization: Option<String>,
    /// Its newest checkpoint must not be older (1h)
    #[arg(long, value_name = "DURATION", value_parser = parse::seconds)]
    pub(crate) not_older_than: Option<i64>,
    /// The export; - is the standard input
    #[arg(value_name = "EXPORT")]
    pub(crate) export: PathBuf,
    #[command(flatten)]
    pub(crate) shown: Shown,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ContextCommand {
    /// List contexts; the current one is marked
    List(Shown),
    /// Make a context the current one
    Use { name: String },
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory as _, error::ErrorKind};

    use super::*;

    const ID: &str = "01890a5d-ac96-774b-bcce-b302099a8057";

    fn parse(line: &[&str]) -> Result<Cli, ErrorKind> {
        Cli::try_parse_from([&["opsctl"], line].concat()).map_err(|error| error.kind())
    }

    #[test]
    fn the_definition_holds() {
        Cli::command().debug_assert();
    }

    #[test]
    fn exec_takes_one_kind_of_target_and_one_program() {
        for good in [
            &["exec", "-l", "env=prod", "--", "uptime", "-p"][..],
            &["exec", "-t", "a", "-t", "b", "--shell", "-x; ls"],
            &["exec", "--all", "--script", "-", "--interpreter", "sh -e", "--", "--flag"],
            &["exec", "--all", "--retries", "2", "--priority", "-5", "--output-limit", "1MiB", "--", "true"],
            &["agent", "drain", "web-1", "--wait"],
            &["agent", "resume", "-l", "env=prod"],
            &["agent", "label", "web-1", "env=prod", "role-", "-o", "json"],
            &["exec", "--all", "--timeout", "1h30m", "--env", "A=", "--", "true", "--addr", "x"],
            &["logs", ID, "--group", "--step", "ask", "--stream", "stderr", "-o", "json"],
            &["logs", ID, "-g", "--tail", "3"],
        ] {
            assert!(parse(good).is_ok(), "{good:?}");
        }
        for (bad, kind) in [
            (&["exec", "--", "true"][..], ErrorKind::MissingRequiredArgument),
            (&["exec", "--all"], ErrorKind::MissingRequiredArgument),
            (&["exec", "--all", "-t", "a", "--", "true"], ErrorKind::ArgumentConflict),
            (&["exec", "--all", "--shell", "x", "--", "true"], ErrorKind::ArgumentConflict),
            (&["exec", "--all", "--shell", "x", "--script", "f"], ErrorKind::ArgumentConflict),
            (&["exec", "--all", "--interpreter", "sh", "--", "true"], ErrorKind::MissingRequiredArgument),
            (&["exec", "--all", "--timeout", "-5s", "--", "true"], ErrorKind::ValueValidation),
            (&["exec", "--all", "--env", "=x", "--", "true"], ErrorKind::ValueValidation),
            (&["exec", "--all", "--retry-backoff", "5s", "--", "true"], ErrorKind::MissingRequiredArgument),
            (&["exec", "--all", "--output-limit", "1MB", "--", "true"], ErrorKind::ValueValidation),
            (&["agent", "label", "web-1"], ErrorKind::MissingRequiredArgument),
            (&["agent", "label", "web-1", "env"], ErrorKind::ValueValidation),
            (&["agent", "drain"], ErrorKind::MissingRequiredArgument),
            (&["agent", "drain", "web-1", "-l", "env=prod"], ErrorKind::ArgumentConflict),
            (&["logs", "17"], ErrorKind::ValueValidation),
            (&["logs", ID, "--group", "--follow"], ErrorKind::ArgumentConflict),
            (&["logs", ID, "--group", "--raw"], ErrorKind::ArgumentConflict),
            (&["logs", ID, "--group", "--attempt", "1"], ErrorKind::ArgumentConflict),
            (&["logs", ID, "--group", "-t", "web-1"], ErrorKind::ArgumentConflict),
            (&["logs", ID, "--group", "--since", "1h"], ErrorKind::ArgumentConflict),
            (&["logs", ID, "-o", "json"], ErrorKind::MissingRequiredArgument),
            (&["agent", "show", ".."], ErrorKind::ValueValidation),
            (&["execution", "list", "--state", "gone"], ErrorKind::ValueValidation),
        ] {
            assert_eq!(parse(bad).unwrap_err(), kind, "{bad:?}");
        }
    }

    #[test]
    fn what_follows_the_dashes_is_the_commands() {
        let Command::Exec(args) = parse(&["exec", "--all", "--", "ls", "--all", "-l"]).unwrap().command
        else {
            panic!("not exec");
        };
        assert_eq!(args.argv, ["ls", "--all", "-l"]);
    }
}
