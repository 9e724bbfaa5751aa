//! Jobs: work that a team keeps. The document, its parameters and the graph of its steps.

pub mod condition;
pub mod context;
pub mod parameters;
pub mod template;
