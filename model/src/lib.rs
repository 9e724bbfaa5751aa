//! The nouns of OpsConductor. Pure: no clock, no randomness, no files, no network, no async.

pub mod access;
pub mod api;
pub mod attempt;
pub mod audit;
pub mod calendar;
pub mod command;
pub mod execution;
pub mod id;
mod invalid;
pub mod job;
pub mod job_template;
pub mod label;
pub mod limits;
pub mod network;
pub mod reason;
pub mod retry;
pub mod run;
pub mod sandbox;
pub mod schedule;
pub mod script;
pub mod selector;
mod yaml;

pub use invalid::Invalid;
pub use reason::Reason;
