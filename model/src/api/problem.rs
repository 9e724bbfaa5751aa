//! The one shape of every error: `application/problem+json` (RFC 9457).

use serde::{Deserialize, Serialize};

/// An error as the API answers it.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Problem {
    /// `urn:opsconductor:problem:CODE`.
    pub r#type: String,
    /// Short and the same for every problem of this code.
    pub title: String,
    /// HTTP status.
    pub status: u16,
    /// Stable and for programs: `invalid`, `not_found`, `conflict`, `unauthenticated`, …
    pub code: String,
    /// What is wrong this time and what to do.
    pub detail: String,
    /// The field of the request that is wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// Character position in that field's text, from 1, where a text is parsed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub position: Option<usize>,
    /// Finds this request in the logs and the audit.
    pub request_id: String,
}
