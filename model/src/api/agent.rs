//! Agents, as `GET /api/v1/agents` shows them.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    id::AgentId,
    label::{Facts, Labels},
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
    /// The newest sample; only where one agent is asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metrics: Option<HostMetrics>,
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
