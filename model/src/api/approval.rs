//! Approvals: what waits for people, and what they decided.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::job::ExecutedJob;
use crate::{
    Invalid,
    id::ExecutionId,
    job::{Approval, Choice},
    limits,
    run::RunState,
};

/// A step that asks people.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ApprovalRequest {
    pub execution_id: ExecutionId,
    /// The step's name.
    pub step: String,
    /// `active` while it waits for them.
    pub state: RunState,
    pub summary: String,
    /// The job, its version and the values that it was started with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<ExecutedJob>,
    /// Who started it, and so may not approve.
    pub actor: String,
    /// How many hosts it is about.
    pub hosts: i64,
    pub asks: Approval,
    /// What is approved: SHA-256, in hex, over job version, values and hosts, as they were signed at the start.
    pub hash: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub asked_at: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub expires_at: Option<Timestamp>,
    /// In the order in which they were made.
    pub decisions: Vec<Decision>,
}

/// What somebody decided.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Decision {
    pub actor: String,
    pub decision: Choice,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// What was asked with it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schema(value_type = std::collections::BTreeMap<String, Object>)]
    pub input: BTreeMap<String, serde_json::Value>,
    #[schema(value_type = String, format = DateTime)]
    pub decided_at: Timestamp,
}

/// `POST /api/v1/executions/{id}/approvals/{step}`: a decision.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({ "decision": "approve", "hash": "5f0c…", "reason": "ring one looks good" }))]
pub struct Decide {
    pub decision: Choice,
    /// The `hash` of what was looked at.
    pub hash: String,
    /// Why. A rejection and a broken glass need one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// What is asked with it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schema(value_type = std::collections::BTreeMap<String, Object>)]
    pub input: BTreeMap<String, serde_json::Value>,
}

impl Decide {
    /// Checks the reason.
    ///
    /// # Errors
    /// When it is missing or too long.
    pub fn validate(&self) -> Result<(), Invalid> {
        let reason = self.reason.as_deref().unwrap_or_default();
        if self.decision != Choice::Approve && reason.trim().is_empty() {
            return Err(Invalid::new("reason", "is missing: only an approval needs none"));
        }
        if reason.len() > limits::COMMENT_BYTES {
            return Err(Invalid::over("reason", "COMMENT_BYTES", limits::COMMENT_BYTES, "bytes"));
        }
        Ok(())
    }
}
