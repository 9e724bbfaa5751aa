//! Enroll tokens: how a new agent proves that it is expected.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    Invalid,
    command::within,
    id::EnrollTokenId,
    label::{Labels, validate_labels},
    limits,
};

/// `POST /api/v1/enroll-tokens`.
#[derive(Debug, Clone, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateEnrollToken {
    /// Seconds until it is worthless; 900 by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl_seconds: Option<i64>,
    /// Labels that the agent will have.
    #[serde(default)]
    #[schema(value_type = std::collections::BTreeMap<String, String>)]
    pub labels: Labels,
    /// How many agents may enroll with it; 1 by default. With more, each agent stays pending until it is approved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_uses: Option<i32>,
    /// Only from this address range, as `10.1.0.0/16`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address_range: Option<String>,
}

impl CreateEnrollToken {
    pub fn ttl_seconds(&self) -> i64 {
        self.ttl_seconds.unwrap_or(limits::DEFAULT_ENROLL_TOKEN_TTL_SECONDS)
    }

    pub fn max_uses(&self) -> i32 {
        self.max_uses.unwrap_or(1)
    }

    /// Checks every field against its limit.
    ///
    /// # Errors
    /// The first field that is wrong, with what is allowed.
    pub fn validate(&self) -> Result<(), Invalid> {
        within("ttl_seconds", self.ttl_seconds(), &limits::ENROLL_TOKEN_TTL_SECONDS)?;
        let uses = limits::ENROLL_TOKEN_USES;
        within("max_uses", self.max_uses().into(), &(i64::from(*uses.start())..=i64::from(*uses.end())))?;
        validate_labels(&self.labels)
    }
}

/// An enroll token without its secret.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct EnrollToken {
    pub id: EnrollTokenId,
    #[schema(value_type = std::collections::BTreeMap<String, String>)]
    pub labels: Labels,
    pub max_uses: i32,
    pub uses: i32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address_range: Option<String>,
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
    pub created_by: String,
    #[schema(value_type = String, format = DateTime)]
    pub expires_at: Timestamp,
}

/// The answer to a creation: the only time that the secret is shown.
#[derive(Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct CreatedEnrollToken {
    #[serde(flatten)]
    pub enroll_token: EnrollToken,
    /// The token itself, with the pin of the controller's root certificate in it.
    pub token: String,
    /// Port of the agents' door.
    pub agent_port: u16,
}

impl std::fmt::Debug for CreatedEnrollToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CreatedEnrollToken")
            .field("id", &self.enroll_token.id)
            .field("token", &"<redacted>")
            .finish()
    }
}
