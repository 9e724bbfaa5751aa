//! The agent of OpsConductor: three parts that share nothing but the messages between them.
//!
//! The *link* speaks to the network and decides nothing: a process without privileges. The *executor*, another one, decides
//! what runs, and believes only signed orders. The *shim* is a small process for each attempt, which outlives both. `main.rs` puts them
//! together; this is a library only so that the tests can use the parts.

pub mod channel;
pub mod cli;
pub mod clock;
pub mod config;
pub mod executor;
pub mod link;
pub mod messages;
mod mutant;
pub mod sandbox;
pub mod segment;
pub mod shim;
mod sys;
