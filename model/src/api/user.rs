//! People of an organization, their groups, and how they get in.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::auth::Secret;
use crate::{
    Invalid,
    access::validate_slug,
    command::within,
    id::{GroupId, OneTimeTokenId, UserId},
    limits,
};

/// A person, as the organization sees one.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct User {
    pub id: UserId,
    pub name: String,
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
    /// Since when a member.
    #[schema(value_type = String, format = DateTime)]
    pub added_at: Timestamp,
    pub added_by: String,
    pub disabled: bool,
    pub second_factor: bool,
    /// The newest use of a session in this organization that is open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub last_used_at: Option<Timestamp>,
    /// Roles without a scope, also through groups.
    pub roles: Vec<String>,
    pub groups: Vec<String>,
}

/// `POST /api/v1/invitations`.
#[derive(Debug, Clone, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateInvitation {
    /// A role that the new member gets at once, without a scope; none by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    /// Seconds until it is worthless; 3 days by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl_seconds: Option<i64>,
}

impl CreateInvitation {
    pub fn ttl_seconds(&self) -> i64 {
        self.ttl_seconds.unwrap_or(limits::DEFAULT_INVITATION_TTL_SECONDS)
    }

    /// # Errors
    /// The first field that is wrong, with what is allowed.
    pub fn validate(&self) -> Result<(), Invalid> {
        within("ttl_seconds", self.ttl_seconds(), &limits::ONE_TIME_TOKEN_TTL_SECONDS)?;
        self.role.as_deref().map_or(Ok(()), |role| validate_slug("role", role))
    }
}

/// An invitation without its secret.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Invitation {
    pub id: OneTimeTokenId,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
    pub created_by: String,
    #[schema(value_type = String, format = DateTime)]
    pub expires_at: Timestamp,
    pub used: bool,
}

/// A token that lets somebody in once; the answer that makes it is the only place where it is shown.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct CreatedOneTimeToken {
    pub id: OneTimeTokenId,
    pub token: Secret,
    #[schema(value_type = String, format = DateTime)]
    pub expires_at: Timestamp,
}

/// A group of people.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Group {
    pub id: GroupId,
    pub name: String,
    pub members: Vec<String>,
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
    pub created_by: String,
}

/// `POST /api/v1/groups`.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateGroup {
    pub name: String,
}
