//! The requests and answers of the HTTP API, shared by the controller, the CLI and the tests.
//!
//! Requests refuse unknown fields. Answers only ever gain fields.

pub mod agent;
pub mod approval;
pub mod audit;
pub mod auth;
pub mod calendar;
pub mod controller;
pub mod enroll_token;
pub mod event;
pub mod execution;
pub mod job;
pub mod job_template;
pub mod output;
pub mod problem;
pub mod report;
pub mod role;
pub mod schedule;
pub mod script;
pub mod statistics;
pub mod status;
pub mod target_group;
pub mod token;
pub mod undo;
pub mod user;

use serde::{Deserialize, Serialize};

/// One page of a list.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Page<T> {
    pub items: Vec<T>,
    /// Hand this back as `cursor` to get the next page; absent on the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
}
