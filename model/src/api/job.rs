//! Jobs, their versions, and what a start of one comes to.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    Invalid, Reason,
    execution::ExecutionState,
    id::{AgentId, ExecutionId, JobId, RunId},
    job::{self, JobTargets, Rollout},
    limits,
    run::RunState,
};

/// A job as its newest version says.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Job {
    pub id: JobId,
    pub name: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    pub labels: BTreeMap<String, String>,
    /// Number of the newest version, from 1.
    pub version: i32,
    /// Who made that.
    pub author: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
    #[schema(value_type = String, format = DateTime)]
    pub updated_at: Timestamp,
    /// The text of the newest version; only where one job is asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub document: Option<String>,
}

/// One version of a job. It never changes.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct JobVersion {
    pub version: i32,
    pub author: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
    /// SHA-256 of the document, in hex.
    pub sha256: String,
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
    /// The text; only where one version is asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub document: Option<String>,
}

/// `POST /api/v1/jobs` and `PUT /api/v1/jobs/{job}`: a new version.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({ "document": "name: uptime\ntargets: {all: true}\nsteps:\n  - {name: ask, run: uptime}\n" }))]
pub struct SaveJob {
    /// The job as a YAML or JSON text.
    pub document: String,
    /// Why it changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
    /// The newest version that the author has seen: when there is a newer one, nothing is saved. 0: there was none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected_version: Option<i32>,
    /// Only says what would happen.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub dry_run: bool,
}

impl SaveJob {
    /// Checks what stands beside the document.
    ///
    /// # Errors
    /// When the comment is too long.
    pub fn validate(&self) -> Result<(), Invalid> {
        match &self.comment {
            Some(comment) if comment.len() > limits::COMMENT_BYTES => {
                Err(Invalid::over("comment", "COMMENT_BYTES", limits::COMMENT_BYTES, "bytes"))
            }
            _ => Ok(()),
        }
    }
}

/// What saving has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    Created,
    Updated,
    /// The text is that of the newest version: there is no new one.
    Unchanged,
}

/// A command of a job's that the rules call dangerous. What becomes of it, the policy of the controller says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Danger {
    pub step: String,
    /// Stable name of the rule.
    pub rule: String,
    /// `notice`, `danger` or `catastrophe`.
    pub severity: String,
    /// The words that hit it.
    pub text: String,
    /// One sentence for people.
    pub why: String,
}

/// The answer to a job that was saved, or would be.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct SavedJob {
    pub change: Change,
    pub name: String,
    /// The version that it is now, or would be.
    pub version: i32,
    /// Absent when nothing was saved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<JobId>,
    /// What of it is dangerous.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dangers: Vec<Danger>,
}

/// `POST /api/v1/jobs/validate`: a document that is only looked at.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ValidateJob {
    pub document: String,
}

/// Whether a document is a job.
#[derive(Debug, Clone, Default, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Validity {
    pub valid: bool,
    /// The job's name, when it is valid.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<DocumentProblem>,
    /// What of it is dangerous.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dangers: Vec<Danger>,
}

/// What is wrong in a document, and where.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct DocumentProblem {
    /// The field as a path in the document; empty when it cannot be read at all.
    pub field: String,
    pub problem: String,
    /// From 1; 0 where it is not known.
    pub line: usize,
    pub column: usize,
}

impl From<job::BadDocument> for DocumentProblem {
    fn from(bad: job::BadDocument) -> Self {
        Self { field: bad.field, problem: bad.problem, line: bad.line, column: bad.column }
    }
}

/// `POST /api/v1/jobs/{job}/execute` and `…/plan`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ExecuteJob {
    /// Values of the job's parameters.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schema(value_type = std::collections::BTreeMap<String, Object>)]
    pub parameters: BTreeMap<String, serde_json::Value>,
    /// The version to run; the newest by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<i32>,
    /// Where, in place of what the job says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub targets: Option<JobTargets>,
    /// The `targets_hash` of a plan: when other hosts match meanwhile, nothing is started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expect_targets: Option<String>,
    /// Of what waits for a host the highest comes first: -100 to 100, as the job says by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<i64>,
}

/// What a start would do now.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct JobPlan {
    pub job: String,
    pub version: i32,
    /// Hosts in the order of their turns.
    pub hosts: Vec<PlannedHost>,
    pub steps: Vec<PlannedStep>,
    /// How it spreads over the hosts; the probe of its canary is one of the steps.
    #[serde(default)]
    pub rollout: Rollout,
    /// SHA-256 over the hosts, for `expect_targets`.
    pub targets_hash: String,
    /// Runs that there would be.
    pub runs: usize,
    /// How it differs from the newest start; absent where there is none that one may see.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<PlanChanges>,
    /// What of it is dangerous.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dangers: Vec<Danger>,
    /// Why a start would be refused, each as a sentence.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// How a start now differs from an earlier one.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct PlanChanges {
    pub execution_id: ExecutionId,
    pub state: ExecutionState,
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
    /// The version that was started.
    pub version: i32,
    /// Names of hosts that are new, and of those that are not there any more.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub more_hosts: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fewer_hosts: Vec<String>,
    /// Names of the parameters whose values are others.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parameters: Vec<String>,
}

/// A host of a plan.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct PlannedHost {
    pub agent_id: AgentId,
    pub name: String,
    /// From 0.
    pub batch: u16,
    pub connected: bool,
    /// It takes no new runs.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub draining: bool,
}

/// A step of a plan, or of an execution.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct PlannedStep {
    pub name: String,
    pub needs: Vec<String>,
    /// One line that a person recognises it by.
    pub summary: String,
    /// The controller does it once for all hosts.
    pub is_controllers: bool,
    /// It undoes.
    pub is_rollback: bool,
    /// It runs on the hosts of the canary alone, behind their other steps and the soak.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_probe: bool,
}

/// How an execution of a job stands: its steps, and a page of its hosts with the run of each step.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Results {
    pub execution_id: ExecutionId,
    pub steps: Vec<PlannedStep>,
    /// The runs of the controller's own steps, in the order of the steps; null for those on hosts.
    pub controller: Vec<Option<Cell>>,
    pub hosts: Vec<ResultRow>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
}

/// A host of the matrix.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ResultRow {
    pub agent_id: AgentId,
    pub target: String,
    pub batch: u16,
    /// `waiting`, `active`, `succeeded`, `failed` or `skipped`.
    pub state: String,
    /// One for each step, in their order; null for the controller's own, and for the probe where the host is none of the canary.
    pub runs: Vec<Option<Cell>>,
}

/// One run in the matrix.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Cell {
    pub run_id: RunId,
    pub state: RunState,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub started_at: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub ended_at: Option<Timestamp>,
    /// The execution that it started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started: Option<ExecutionId>,
}

/// Runs that came to the same: the same step, state, exit code and output, byte for byte.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct OutputGroup {
    /// Place of the step; absent for a command of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<i16>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step_name: Option<String>,
    pub state: RunState,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// How many hosts.
    pub hosts: i64,
    /// Their names, the first hundred by name.
    pub targets: Vec<String>,
    /// One of them: its output is that of all.
    pub example: RunId,
    pub example_target: String,
    /// SHA-256 of what was written, in hex; absent where a host told none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stdout_sha256: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stderr_sha256: Option<String>,
}

/// The job that an execution is a start of.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ExecutedJob {
    pub id: JobId,
    pub name: String,
    pub version: i32,
    /// The values that it was started with.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schema(value_type = std::collections::BTreeMap<String, Object>)]
    pub parameters: BTreeMap<String, serde_json::Value>,
}
