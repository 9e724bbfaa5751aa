//! Agents, as `GET /api/v1/agents` shows them.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    id::{AgentId, ExecutionId, RunId},
    label::{Facts, Labels},
    run::RunState,
};

/// Where an agent stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum AgentState {
    /// Enrolled, but a person has yet to approve it.
    Pending,
    /// Has a session.
    Online,
    /// Has none.
    Offline,
    /// Takes no new runs.
    Draining,
    /// Its certificates are worthless.
    Revoked,
}

impl AgentState {
    pub const ALL: [Self; 5] = [Self::Pending, Self::Online, Self::Offline, Self::Draining, Self::Revoked];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Online => "online",
            Self::Offline => "offline",
            Self::Draining => "draining",
            Self::Revoked => "revoked",
        }
    }

    /// Reads what [`AgentState::as_str`] writes.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == text)
    }
}

/// An agent and the host that it is on.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Agent {
    pub id: AgentId,
    pub name: String,
    pub state: AgentState,
    /// Has a session, whatever its state.
    #[serde(default)]
    pub connected: bool,
    pub labels: Labels,
    pub facts: Facts,
    /// Runs at a time.
    pub slots: i32,
    /// Version of its program, as it said.
    pub version: String,
    #[schema(value_type = String, format = DateTime)]
    pub enrolled_at: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub last_seen_at: Option<Timestamp>,
    #[schema(value_type = String, format = DateTime)]
    pub certificate_expires_at: Timestamp,
    /// Runs that it was offered or runs, and runs that wait for it; only where one agent is asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub load: Option<AgentLoad>,
    /// The newest sample; only where one agent is asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metrics: Option<HostMetrics>,
}

/// How many runs an agent has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct AgentLoad {
    pub active: i64,
    pub queued: i64,
}

/// A run of an agent, as `GET /api/v1/agents/{agent}/runs` shows it in the order of dispatch.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct AgentRun {
    pub id: RunId,
    pub execution_id: ExecutionId,
    /// One line that a person recognises the execution by.
    pub summary: String,
    /// Who started it.
    pub actor: String,
    pub state: RunState,
    pub priority: i16,
    /// Number of the newest attempt, from 1; 0 when there was none.
    pub attempt: i32,
    #[schema(value_type = String, format = DateTime)]
    pub queued_at: Timestamp,
    /// It is not offered before.
    #[schema(value_type = String, format = DateTime)]
    pub due_at: Timestamp,
    /// It expires then, if it still waits.
    #[schema(value_type = String, format = DateTime)]
    pub start_before: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub started_at: Option<Timestamp>,
}

/// How a host fares at one moment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct HostMetrics {
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    /// Of all cores together, 0 to 100.
    pub cpu_percent: f64,
    pub memory_total_bytes: i64,
    pub memory_used_bytes: i64,
    pub swap_total_bytes: i64,
    pub swap_used_bytes: i64,
    /// Load averages of 1, 5 and 15 minutes.
    pub load: [f64; 3],
    pub uptime_seconds: i64,
    pub disks: Vec<Disk>,
    /// Totals since the host started.
    pub network_received_bytes: i64,
    pub network_sent_bytes: i64,
}

/// One mounted file system.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Disk {
    pub mount: String,
    pub total_bytes: i64,
    pub available_bytes: i64,
}
