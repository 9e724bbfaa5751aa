//! Locks: what at most one execution holds at a time.

use serde::{Deserialize, Serialize};

/// What is locked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lock<'a> {
    /// Each host, for as long as its turn lasts.
    Host,
    /// The job itself: one execution of it at a time.
    Job,
    /// Whatever has this name, in the organization.
    Name(&'a str),
}

impl<'a> Lock<'a> {
    /// Reads `host`, `job`, or a name of one's own.
    pub fn of(text: &'a str) -> Self {
        match text {
            "host" => Self::Host,
            "job" => Self::Job,
            name => Self::Name(name),
        }
    }
}

/// What becomes of an execution that finds its lock held.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnConflict {
    /// It waits, the oldest first.
    #[default]
    Queue,
    /// It is skipped, or the host is.
    Skip,
    /// Whoever holds it is cancelled, and it waits for its end.
    CancelRunning,
}

impl OnConflict {
    pub(super) fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// What becomes of a host that is away when its turn comes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Offline {
    /// Its runs wait for it, for as long as `start_within` says.
    #[default]
    Wait,
    /// It is skipped, which is no failure.
    Skip,
    /// It has failed.
    Fail,
}

impl Offline {
    pub(super) fn is_default(&self) -> bool {
        *self == Self::default()
    }
}
