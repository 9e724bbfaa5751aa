//! Roles, and what gives them to somebody.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    Invalid,
    access::{BuiltInRole, Permission, scope_selector, validate_slug},
    id::RoleBindingId,
};

/// A role: a list of permissions with a name.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Role {
    pub name: String,
    pub permissions: Vec<Permission>,
    /// Every organization has it, and it cannot be changed.
    pub built_in: bool,
}

/// `PUT /api/v1/roles/{name}`: makes a role, or gives one other permissions.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PutRole {
    pub permissions: Vec<Permission>,
}

impl PutRole {
    /// # Errors
    /// The first field that is wrong, with what is allowed.
    pub fn validate(&self, name: &str) -> Result<(), Invalid> {
        validate_slug("name", name)?;
        if BuiltInRole::parse(name).is_some() {
            return Err(Invalid::new(
                "name",
                format!("is that of a built-in role, '{name}', which cannot be changed"),
            ));
        }
        if self.permissions.is_empty() {
            return Err(Invalid::new("permissions", "must name one at least"));
        }
        Ok(())
    }
}

/// `POST /api/v1/role-bindings`: gives a role to one of `user`, `group`, `service_account`.
#[derive(Debug, Clone, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateRoleBinding {
    pub role: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_account: Option<String>,
    /// Only for hosts that this holds for: a selector over labels, as `env=staging`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hosts: Option<String>,
    /// Only for jobs that this holds for: a selector over their labels. Commands that belong to no job are not among them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jobs: Option<String>,
}

impl CreateRoleBinding {
    /// Checks every field, and brings the selectors into their canonical form.
    ///
    /// # Errors
    /// The first field that is wrong, with what is allowed.
    pub fn validate(&mut self) -> Result<(), Invalid> {
        validate_slug("role", &self.role)?;
        let subjects = [&self.user, &self.group, &self.service_account];
        if subjects.into_iter().flatten().count() != 1 {
            return Err(Invalid::new(
                "user",
                "must be there, or group, or service_account: one of the three",
            ));
        }
        for (field, text) in [("hosts", &mut self.hosts), ("jobs", &mut self.jobs)] {
            if let Some(text) = text {
                *text = scope_selector(field, text)?.to_string();
            }
        }
        Ok(())
    }
}

/// What gives a role to somebody.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct RoleBinding {
    pub id: RoleBindingId,
    pub role: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_account: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hosts: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jobs: Option<String>,
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
    pub created_by: String,
}
