//! Scripts that are kept by name, and their versions.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::job::{Change, Danger};
use crate::{Invalid, id::ScriptId, label::Labels, limits, script::ScriptDocument};

/// A script as its newest version says.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct SavedScript {
    pub id: ScriptId,
    pub name: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    #[schema(value_type = std::collections::BTreeMap<String, String>)]
    pub labels: Labels,
    /// Number of the newest version, from 1.
    pub version: i32,
    /// Who made that.
    pub author: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
    /// SHA-256 of its text, in hex.
    pub sha256: String,
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
    #[schema(value_type = String, format = DateTime)]
    pub updated_at: Timestamp,
    /// The newest version whole; only where one script is asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub script: Option<ScriptDocument>,
}

/// One version of a script. It never changes.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ScriptVersion {
    pub version: i32,
    pub author: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
    /// SHA-256 of its text, in hex.
    pub sha256: String,
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
    /// The version whole; only where one is asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub script: Option<ScriptDocument>,
}

/// `POST /api/v1/scripts` and `PUT /api/v1/scripts/{script}`: a new version.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({ "script": { "name": "uptime", "content": "#!/bin/sh\nuptime\n" } }))]
pub struct SaveScript {
    pub script: ScriptDocument,
    /// Why it changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
    /// The newest version that the author has seen: when there is a newer one, nothing is saved. 0: there was none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected_version: Option<i32>,
    /// Only says what would happen.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub dry_run: bool,
}

impl SaveScript {
    /// Checks every field against its limit.
    ///
    /// # Errors
    /// The first field that is wrong, as its path in the request.
    pub fn validate(&self) -> Result<(), Invalid> {
        if let Some(comment) = &self.comment {
            if comment.len() > limits::COMMENT_BYTES {
                return Err(Invalid::over("comment", "COMMENT_BYTES", limits::COMMENT_BYTES, "bytes"));
            }
            if comment.contains('\0') {
                return Err(Invalid::new("comment", "contains a NUL character"));
            }
        }
        let below = |invalid: Invalid| Invalid::new(format!("script.{}", invalid.field), invalid.problem);
        self.script.validate().map_err(below)
    }
}

/// The answer to a script that was saved, or would be.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ScriptSaved {
    pub change: Change,
    pub name: String,
    /// The version that it is now, or would be.
    pub version: i32,
    /// Absent when nothing was saved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<ScriptId>,
    /// What of it is dangerous; its name stands for the step.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dangers: Vec<Danger>,
}

/// `POST /api/v1/scripts/validate`: a text that is only looked at.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({ "content": "#!/bin/sh\nuptime\n" }))]
pub struct ValidateScript {
    pub content: String,
    /// The interpreter with its options; without it the `#!` line decides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interpreter: Option<String>,
}

/// What was found about a script. Nothing of it was run.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ScriptValidity {
    /// No check failed.
    pub valid: bool,
    pub checks: Vec<ScriptCheck>,
    /// What of it is dangerous.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dangers: Vec<Danger>,
}

/// One check of a script.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ScriptCheck {
    /// What was looked at, or by which program: `first line`, `bash -n`.
    pub by: String,
    pub state: CheckState,
    /// What it says, or why nothing was checked.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub text: String,
}

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum CheckState {
    Passed,
    /// It can run; something about it may not be as it was meant.
    Warned,
    Failed,
    /// What would check it is not at the controller, or did not come to an end.
    NotChecked,
}

impl CheckState {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Warned => "warned",
            Self::Failed => "failed",
            Self::NotChecked => "not checked",
        }
    }
}
