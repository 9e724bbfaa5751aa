//! What the controller says of itself.

use serde::{Deserialize, Serialize};

/// `GET /version`.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Version {
    pub version: String,
    /// Newest schema that this program knows.
    pub schema: i64,
    /// Protocol versions that agents may speak.
    pub protocol_min: u32,
    pub protocol_max: u32,
}

/// `GET /status`: each part with its state.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Status {
    pub state: PartState,
    pub parts: Vec<Part>,
    pub controller_id: String,
    pub agents_connected: i64,
    pub runs_queued: i64,
    pub runs_active: i64,
    pub uptime_seconds: i64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum PartState {
    Ok,
    Degraded,
    Down,
}

/// One part of the controller.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Part {
    /// `database`, `agents_door`, `dispatch`, …
    pub name: String,
    pub state: PartState,
    /// How long its last check or round took.
    pub latency_ms: f64,
    pub message: String,
}

/// `GET /api/v1/whoami`.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct WhoAmI {
    /// A person's name, or `service/NAME`.
    pub actor: String,
    pub organization: String,
    /// `session` or `api_token`.
    #[serde(default)]
    pub credential: String,
    /// What this credential allows, for all hosts or for some.
    #[serde(default)]
    pub permissions: Vec<String>,
}
