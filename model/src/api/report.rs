//! The compliance report: who may do what on which host, and who did.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{access::Permission, id::ExecutionId};

/// `GET /api/v1/reports/access`.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct AccessReport {
    pub organization: String,
    /// Who may: as it is at this moment.
    #[schema(value_type = String, format = DateTime)]
    pub made_at: Timestamp,
    /// Who did: what was started from then on, and before then.
    #[schema(value_type = String, format = DateTime)]
    pub since: Timestamp,
    #[schema(value_type = String, format = DateTime)]
    pub until: Timestamp,
    pub may: Vec<May>,
    pub did: Vec<Did>,
}

/// What somebody may do on a host, or in the organization as a whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct May {
    /// A person's name, or `service/NAME`.
    pub who: String,
    /// Absent: what concerns no single host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    pub permissions: Vec<Permission>,
    /// The roles that give it, as `operator`, or `operator (group oncall)`.
    pub by: Vec<String>,
    /// Cannot enter at this moment.
    #[serde(default)]
    pub disabled: bool,
}

/// What somebody had run on a host.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Did {
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    pub who: String,
    pub host: String,
    pub execution_id: ExecutionId,
    /// What was run, in short.
    pub summary: String,
    /// How it went there.
    pub state: String,
}
