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
    /// What was handed out and is open: whoever holds one of them has what it gives.
    pub ways: Vec<Way>,
    pub did: Vec<Did>,
}

/// A token that opens something, beside passwords.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Way {
    /// `api_token`, `invitation` or `password_reset`.
    pub kind: String,
    /// Whose rights it has; absent of an invitation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub who: Option<String>,
    /// What it is called, or its id.
    pub name: String,
    /// What it leaves of these rights: `all`, or permissions; of an invitation the role.
    pub gives: String,
    /// The hosts that it leaves; absent: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hosts: Option<String>,
    pub created_by: String,
    #[schema(value_type = String, format = DateTime)]
    pub expires_at: Timestamp,
}

/// What somebody may do on a host, or on all of them and in the organization as a whole. A host has a row of its own for what
/// is not on all of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct May {
    /// A person's name, or `service/NAME`.
    pub who: String,
    /// Absent: on all hosts, and what concerns none of them.
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
