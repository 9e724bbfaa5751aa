//! What an execution has changed, and its undoing.

use serde::{Deserialize, Serialize};

use crate::{
    Reason,
    id::{AgentId, ExecutionId, RunId},
    run::RunState,
};

/// The hosts on which an execution began something, as far as it was not undone there, by name.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Changes {
    pub execution_id: ExecutionId,
    /// How many hosts there are, on all pages.
    pub total: i64,
    /// Why nobody can undo it from here; absent where that can be done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
    pub hosts: Vec<ChangedHost>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
}

/// A host on which something began.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ChangedHost {
    pub agent_id: AgentId,
    pub target: String,
    /// How the host stands: `active`, `succeeded` or `failed`.
    pub state: String,
    /// Those of its runs that began, or of which nobody knows whether they did, in the order of the steps.
    pub runs: Vec<ChangedRun>,
}

/// A run that may have changed its host.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ChangedRun {
    pub run_id: RunId,
    /// Name of its step; absent for a command without a rollout.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
    /// It was to undo what the others did.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_rollback: bool,
    pub state: RunState,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
}

/// `POST /api/v1/executions/{id}/undo`: the steps of the job's rollback run on the hosts that were changed, as a new execution.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UndoExecution {
    /// On which of them; on all by default.
    #[serde(default)]
    pub hosts: UndoHosts,
}

/// On which of the changed hosts an execution is undone.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum UndoHosts {
    #[default]
    All,
    /// Where it did not go well.
    Failed,
}
