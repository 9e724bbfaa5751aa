//! Executions and their runs.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::job::ExecutedJob;
use crate::{
    Invalid, Reason,
    access::validate_slug,
    attempt::AttemptState,
    command::{Command, within},
    execution::{ExecutionState, RunCounts},
    id::{AgentId, ExecutionId, RunId, ScheduleId},
    job::Rollout,
    label::validate_name,
    limits,
    run::RunState,
    sandbox::Profile,
    selector::Selector,
};

/// Which hosts: exactly one of the four ways.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Targets {
    /// All agents that the predicate holds for.
    Selector(String),
    /// Agents by name; each must exist.
    Names(Vec<String>),
    /// Every agent, when `true`.
    All(bool),
    /// The agents of a target group.
    Group(String),
}

/// `POST /api/v1/executions`: an ad-hoc command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({ "targets": { "all": true }, "command": { "program": { "shell": "uptime" } } }))]
pub struct CreateExecution {
    pub targets: Targets,
    pub command: Command,
    /// How it spreads over its hosts; without it begins on all at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollout: Option<Rollout>,
    /// Seconds that a run may wait for its host, once it is its turn; then it is `expired`. 300 by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_within_seconds: Option<i64>,
    /// Of what waits for a host the highest comes first: -100 to 100, 0 by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<i64>,
}

impl CreateExecution {
    pub fn priority(&self) -> i64 {
        self.priority.unwrap_or(0)
    }

    pub fn start_within_seconds(&self) -> i64 {
        self.start_within_seconds.unwrap_or(limits::DEFAULT_START_WITHIN_SECONDS)
    }

    /// Checks every field against its limit; a selector is parsed.
    ///
    /// # Errors
    /// The first field that is wrong, with what is allowed.
    pub fn validate(&self) -> Result<(), Invalid> {
        match &self.targets {
            Targets::Selector(text) => {
                Selector::parse(text).map_err(|error| Invalid::new("targets.selector", error.to_string()))?;
            }
            Targets::Names(names) if names.is_empty() => {
                return Err(Invalid::new("targets.names", "is empty"));
            }
            Targets::Names(names) if names.len() > limits::NAMED_TARGETS => {
                return Err(Invalid::over("targets.names", "NAMED_TARGETS", limits::NAMED_TARGETS, "names"));
            }
            Targets::Names(names) => names.iter().try_for_each(|name| {
                let named = |invalid: Invalid| {
                    Invalid::new("targets.names", format!("has '{name}', which {}", invalid.problem))
                };
                validate_name(name).map_err(named)
            })?,
            Targets::All(false) => {
                return Err(Invalid::new("targets.all", "is false; leave it out or say true"));
            }
            Targets::All(true) => {}
            Targets::Group(name) => validate_slug("targets.group", name)?,
        }
        self.command.validate()?;
        if let Some(rollout) = &self.rollout {
            rollout.validate_of_command()?;
        }
        within("priority", self.priority(), &limits::PRIORITY)?;
        within("start_within_seconds", self.start_within_seconds(), &limits::START_WITHIN_SECONDS)
    }
}

/// One start of a command on its targets.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Execution {
    pub id: ExecutionId,
    pub state: ExecutionState,
    /// One line that a person recognises it by.
    pub summary: String,
    pub runs: RunCounts,
    pub cancel_requested: bool,
    /// Of what waits for a host the highest comes first.
    #[serde(default)]
    pub priority: i16,
    /// Who started it.
    pub actor: String,
    /// The request that started it.
    pub request_id: String,
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub ended_at: Option<Timestamp>,
    /// Nothing more of it begins until somebody resumes it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub paused: bool,
    /// The lock that it waits for, which another execution holds: `job/ID` or `name/NAME`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waits_for: Option<String>,
    /// The execution that holds that lock; only where one execution is asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lock_held_by: Option<ExecutionId>,
    /// The execution that it tries again, or that it undoes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_of: Option<ExecutionId>,
    /// The execution of which a step started this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent_id: Option<ExecutionId>,
    /// The schedule that started it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule_id: Option<ScheduleId>,
    /// The execution that it undoes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub undoes: Option<ExecutionId>,
    /// The job that it is a start of; absent for a command of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<ExecutedJob>,
    /// How it spreads over its hosts, of which the probe of its canary is a step; absent for a command without a rollout.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollout: Option<Rollout>,
    /// No further host begins: too many have failed, or somebody said so.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub stopped: bool,
    /// And nothing more begins on the hosts at work either: somebody said so.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub aborted: bool,
    /// Only in the answer to a retry or an undo: the hosts that it leaves out, for they are not enrolled any more.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<String>,
    /// What it runs, with the values of the environment left out; only where one execution is asked for, and it is none of
    /// a job.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<Command>,
}

/// `POST /api/v1/executions/{id}/retry`: what ended is tried again, as a new execution.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RetryExecution {
    /// On which of its hosts; those where it failed by default.
    #[serde(default)]
    pub hosts: RetryHosts,
    /// Of a job, the step to begin with; what it needs is left out, but for approvals. All steps by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// Only that step, and not what needs it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub only: bool,
}

/// On which hosts an execution is tried again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum RetryHosts {
    /// Where it failed.
    #[default]
    Failed,
    /// Where it failed, and where nothing began.
    Unfinished,
    All,
}

/// One run: what happened on one target.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Run {
    pub id: RunId,
    pub execution_id: ExecutionId,
    pub agent_id: AgentId,
    /// Name of the target when the execution was made; empty for a step of the controller's own.
    pub target: String,
    /// Place of its step in the job; absent for a command of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<i16>,
    /// Name of that step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step_name: Option<String>,
    pub state: RunState,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,
    /// What the reason means this time, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// Number of the newest attempt, from 1; 0 when there was none.
    pub attempt: i32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempt_state: Option<AttemptState>,
    /// While it waits for its host: when it may be offered at the earliest, which is later than now between two tries.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub due_at: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<i32>,
    #[schema(value_type = String, format = DateTime)]
    pub queued_at: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub started_at: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub ended_at: Option<Timestamp>,
    /// What the newest attempt told after it had been given up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed: Option<Observed>,
    /// The sandbox that the newest attempt was in; known once it has ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sandbox: Option<Profile>,
    /// What the newest attempt took of its host; known once it has ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
    /// What it told later steps.
    #[serde(default, skip_serializing_if = "serde_json::Map::is_empty")]
    #[schema(value_type = std::collections::BTreeMap<String, Object>)]
    pub outputs: serde_json::Map<String, serde_json::Value>,
    /// What the newest attempt wrote and what of it is stored.
    pub output: RunOutput,
}

/// How an attempt ended whose outcome had been given up: it changes no state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Observed {
    pub reason: Reason,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<i32>,
    /// When it ended, by its host's clock.
    #[schema(value_type = String, format = DateTime)]
    pub ended_at: Timestamp,
    /// When it was told.
    #[schema(value_type = String, format = DateTime)]
    pub observed_at: Timestamp,
}

/// One try of a run.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Attempt {
    /// From 1.
    pub number: i32,
    pub state: AttemptState,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// The number that orders the sessions it was offered through.
    pub fence: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<i32>,
    #[schema(value_type = String, format = DateTime)]
    pub offered_at: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub accepted_at: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub started_at: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub ended_at: Option<Timestamp>,
    /// What it told after it had been given up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed: Option<Observed>,
    /// The sandbox that it was in; known once it has ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sandbox: Option<Profile>,
    /// What it took of its host; known once it has ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
    pub output: RunOutput,
}

/// What all processes of an attempt together took of their host, counted there; 0 is also what it cannot count.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Usage {
    /// Microseconds of processor time in programs.
    pub cpu_user_us: i64,
    /// Microseconds of processor time in the kernel.
    pub cpu_system_us: i64,
    pub peak_memory_bytes: i64,
    /// Most processes and threads at a time.
    pub peak_pids: i64,
    /// Bytes read from disks.
    pub io_read_bytes: i64,
    /// Bytes written to disks.
    pub io_write_bytes: i64,
    /// The kernel killed a process of it because its memory limit was reached.
    pub out_of_memory: bool,
}

/// The two streams of a run.
#[derive(Debug, Clone, Default, Serialize, Deserialize, utoipa::ToSchema)]
pub struct RunOutput {
    pub stdout: StreamOutput,
    pub stderr: StreamOutput,
    /// All that the process wrote is stored; known once the run has ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub complete: Option<bool>,
}

/// One stream of a run.
#[derive(Debug, Clone, Default, Serialize, Deserialize, utoipa::ToSchema)]
pub struct StreamOutput {
    /// Bytes that the controller holds.
    pub stored_bytes: i64,
    /// Bytes that are missing on purpose, shown as gaps in the output.
    pub gap_bytes: i64,
    /// Bytes that the process wrote, counted on the host; known once the run has ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub written_bytes: Option<i64>,
    /// SHA-256 of the bytes that the process wrote, hexadecimal, counted on the host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
}
