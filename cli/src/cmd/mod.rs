//! The commands: a file a noun, and one for each of the short verbs.

pub(crate) mod agent;
pub(crate) mod audit;
pub(crate) mod auth;
pub(crate) mod context;
pub(crate) mod controller;
pub(crate) mod enroll_token;
pub(crate) mod event;
pub(crate) mod exec;
pub(crate) mod execution;
pub(crate) mod group;
pub(crate) mod invitation;
pub(crate) mod job;
pub(crate) mod login;
pub(crate) mod logout;
pub(crate) mod logs;
pub(crate) mod organization;
pub(crate) mod report;
pub(crate) mod role;
pub(crate) mod script;
pub(crate) mod service_account;
pub(crate) mod setup;
pub(crate) mod statistics;
pub(crate) mod status;
pub(crate) mod target_group;
pub(crate) mod token;
pub(crate) mod user;
