//! API tokens, and the accounts of programs that own some of them.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::auth::Secret;
use crate::{
    Invalid,
    access::{Permission, scope_selector, validate_slug},
    command::within,
    id::{ApiTokenId, ServiceAccountId},
    limits,
};

/// `POST /api/v1/tokens`.
#[derive(Debug, Clone, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateApiToken {
    /// What it is for.
    pub name: String,
    /// Seconds until it is worthless; 90 days by default, a year at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl_seconds: Option<i64>,
    /// Only these permissions of its owner; all of them by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub permissions: Option<Vec<Permission>>,
    /// Only for hosts that this holds for: a selector over labels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hosts: Option<String>,
    /// A token of this service account; by default one's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_account: Option<String>,
}

impl CreateApiToken {
    pub fn ttl_seconds(&self) -> i64 {
        self.ttl_seconds.unwrap_or(limits::DEFAULT_API_TOKEN_TTL_SECONDS)
    }

    /// Checks every field, and brings the selector into its canonical form.
    ///
    /// # Errors
    /// The first field that is wrong, with what is allowed.
    pub fn validate(&mut self) -> Result<(), Invalid> {
        validate_slug("name", &self.name)?;
        within("ttl_seconds", self.ttl_seconds(), &limits::API_TOKEN_TTL_SECONDS)?;
        if self.permissions.as_ref().is_some_and(Vec::is_empty) {
            return Err(Invalid::new(
                "permissions",
                "must name one at least; leave it out for all of the owner's",
            ));
        }
        if let Some(hosts) = &mut self.hosts {
            *hosts = scope_selector("hosts", hosts)?.to_string();
        }
        self.service_account.as_deref().map_or(Ok(()), |name| validate_slug("service_account", name))
    }
}

/// An API token without its secret.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ApiToken {
    pub id: ApiTokenId,
    pub name: String,
    /// A person's name, or `service/NAME`.
    pub owner: String,
    /// Absent: all of the owner's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub permissions: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hosts: Option<String>,
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
    pub created_by: String,
    #[schema(value_type = String, format = DateTime)]
    pub expires_at: Timestamp,
    pub revoked: bool,
    /// To the minute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub last_used_at: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_used_from: Option<String>,
}

/// The answer to a creation: the only time that the secret is shown.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct CreatedApiToken {
    #[serde(flatten)]
    pub api_token: ApiToken,
    pub token: Secret,
}

/// `POST /api/v1/service-accounts`.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateServiceAccount {
    pub name: String,
}

/// The account of a program.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ServiceAccount {
    pub id: ServiceAccountId,
    pub name: String,
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
    pub created_by: String,
    pub disabled: bool,
    /// Tokens of it that count.
    pub tokens: i64,
}
