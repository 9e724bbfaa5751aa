//! Target groups: hosts that jobs and commands name together.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    Invalid, access::validate_slug, id::TargetGroupId, label::validate_name, limits, selector::Selector,
};

/// A target group as somebody sees it.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct TargetGroup {
    pub id: TargetGroupId,
    pub name: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// The group is all hosts that this predicate holds for when something starts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<String>,
    /// How many hosts it names; 0 with a selector.
    pub size: i32,
    /// Those of them that one may see, by name; only where one group is asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<String>,
    /// Those of `hosts` that are not there any more: until they are taken out, or back, the group starts nothing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<String>,
    /// How many of its hosts one may not see.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub hidden: i32,
    /// It grows with each change, from 1.
    pub version: i32,
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
    pub created_by: String,
    #[schema(value_type = String, format = DateTime)]
    pub updated_at: Timestamp,
    pub updated_by: String,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands a reference")]
fn is_zero(number: &i32) -> bool {
    *number == 0
}

/// Which hosts a target group is: exactly one of the two ways.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Members {
    /// Hosts by name; each must exist when the group is saved.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<String>,
    /// All hosts that the predicate holds for when something starts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<String>,
}

/// `POST /api/v1/target-groups`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({ "name": "web-canaries", "members": { "hosts": ["web-1", "web-2"] } }))]
pub struct CreateTargetGroup {
    /// What it is called in its organization: lower-case letters, digits and any of `_ . -`.
    pub name: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    pub members: Members,
}

/// `PUT /api/v1/target-groups/{group}`: all of it anew.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({ "members": { "selector": "role=web and canary" } }))]
pub struct ChangeTargetGroup {
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    pub members: Members,
    /// The version that the author has seen: when there is a newer one, nothing is saved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected_version: Option<i32>,
}

impl CreateTargetGroup {
    /// Checks every field against its limit.
    ///
    /// # Errors
    /// The first field that is wrong, with what is allowed.
    pub fn validate(&self) -> Result<(), Invalid> {
        validate_slug("name", &self.name)?;
        if self.name.parse::<TargetGroupId>().is_ok() {
            return Err(Invalid::new("name", "is an id, which is no name of a target group"));
        }
        validate_description(&self.description)?;
        self.members.validate()
    }
}

impl ChangeTargetGroup {
    /// Checks every field against its limit.
    ///
    /// # Errors
    /// The first field that is wrong, with what is allowed.
    pub fn validate(&self) -> Result<(), Invalid> {
        validate_description(&self.description)?;
        self.members.validate()
    }
}

/// Checks the description of something that people save.
pub(crate) fn validate_description(text: &str) -> Result<(), Invalid> {
    if text.len() > limits::DESCRIPTION_BYTES {
        return Err(Invalid::over("description", "DESCRIPTION_BYTES", limits::DESCRIPTION_BYTES, "bytes"));
    }
    if text.contains('\0') {
        return Err(Invalid::new("description", "contains a NUL character"));
    }
    Ok(())
}

impl Members {
    fn validate(&self) -> Result<(), Invalid> {
        match (&self.selector, self.hosts.as_slice()) {
            (Some(text), []) => {
                if text.len() > limits::SELECTOR_BYTES {
                    let limit = limits::SELECTOR_BYTES;
                    return Err(Invalid::over("members.selector", "SELECTOR_BYTES", limit, "bytes"));
                }
                Selector::parse(text)
                    .map(drop)
                    .map_err(|error| Invalid::new("members.selector", error.to_string()))
            }
            (None, []) => Err(Invalid::new("members", "names no hosts: it has one of hosts and selector")),
            (None, names) if names.len() > limits::NAMED_TARGETS => {
                Err(Invalid::over("members.hosts", "NAMED_TARGETS", limits::NAMED_TARGETS, "names"))
            }
            (None, names) => names.iter().try_for_each(|name| {
                let named = |invalid: Invalid| {
                    Invalid::new("members.hosts", format!("has '{name}', which {}", invalid.problem))
                };
                validate_name(name).map_err(named)
            }),
            (Some(_), _) => Err(Invalid::new("members", "has both hosts and selector; it is one of them")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_hosts_or_a_selector() {
        let of = |hosts: &[&str], selector: Option<&str>| {
            let hosts = hosts.iter().map(|name| (*name).to_owned()).collect();
            Members { hosts, selector: selector.map(str::to_owned) }.validate()
        };
        of(&["web-1", "web-2"], None).unwrap();
        of(&[], Some("role=web")).unwrap();
        for (wrong, field) in [
            (of(&[], None), "members"),
            (of(&["web-1"], Some("role=web")), "members"),
            (of(&[], Some("role=")), "members.selector"),
            (of(&["web 1"], None), "members.hosts"),
        ] {
            assert_eq!(wrong.unwrap_err().field, field);
        }
        let many: Vec<&str> = std::iter::repeat_n("web-1", limits::NAMED_TARGETS + 1).collect();
        assert!(of(&many, None).unwrap_err().problem.contains("NAMED_TARGETS"));
    }
}
