//! Jobs: work that a team keeps. The document, its parameters, the graph of its steps, what is frozen of them when they are
//! started, and how a started job goes on.

mod approval;
pub mod condition;
pub mod context;
mod document;
mod graph;
mod http;
mod length;
mod lock;
mod matrix;
pub mod outputs;
pub mod parameters;
mod plan;
pub mod progress;
mod rollout;
mod schema;
mod started;
mod step_script;
pub mod template;
pub(crate) mod yaml;

pub use approval::{Approval, Choice};
pub use document::{Job, JobTargets, OnFailure, Order, Step};
pub use graph::Graph;
pub use http::{Http, HttpCall, Method, Ready};
pub use length::Length;
pub use lock::{Lock, Offline, OnConflict};
pub use matrix::{Cell, Matrix};
pub use plan::{COMMAND, Plan, PlanStep, PlannedJob, Work};
pub use rollout::{Canary, PROBE, Rollout, Share};
pub use schema::schema;
pub use started::{FrozenHost, FrozenJob, JobStart, StartedJob};
pub use step_script::StepScript;
pub use yaml::{BadDocument, located, parse};
