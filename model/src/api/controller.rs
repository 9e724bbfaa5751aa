//! Controllers, and the tokens with which another one joins.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::id::{ControllerId, JoinTokenId};

/// A controller that serves, or served, this installation.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Controller {
    pub id: ControllerId,
    pub version: String,
    /// Its lease holds: it runs and reaches the database.
    pub is_alive: bool,
    /// Agents whose sessions it serves.
    pub sessions: i64,
    /// Where agents reach it, if it says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub announce: Option<String>,
    #[schema(value_type = String, format = DateTime)]
    pub started_at: Timestamp,
    #[schema(value_type = String, format = DateTime)]
    pub lease_until: Timestamp,
}

/// `GET /api/v1/controllers`.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Controllers {
    /// The longest known first.
    pub items: Vec<Controller>,
}

/// The answer to the creation of a join token: the only time that it is shown.
#[derive(Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct CreatedJoinToken {
    pub id: JoinTokenId,
    #[schema(value_type = String, format = DateTime)]
    pub expires_at: Timestamp,
    /// The token itself, with the pin of the installation's root certificate in it.
    pub token: String,
    /// Port of this controller's agents' door, to which the other one turns.
    pub agent_port: u16,
}

impl std::fmt::Debug for CreatedJoinToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CreatedJoinToken").field("id", &self.id).field("token", &"<redacted>").finish()
    }
}
