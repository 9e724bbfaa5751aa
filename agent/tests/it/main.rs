//! The agent's parts through real processes: the built binary is what runs.

#![allow(clippy::disallowed_methods, reason = "a test is at the present time")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends there")]

mod containers;
mod executor;
mod hostile;
mod hostile_link;
mod kill;
mod one_shim;
mod room;
mod sandbox;
mod shim;
mod supersede;
mod unbegun;
mod world;
