//! The state machine of a run: one step on one target.
//!
//! Invariants: a terminal state never changes; a run is active only while one attempt of it is open; what nobody can
//! know is `unknown`, never guessed.

use serde::{Deserialize, Serialize};

/// Where a run stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum RunState {
    /// Waits for other runs.
    Blocked,
    /// Waits for its host.
    Queued,
    /// One attempt of it is offered, accepted or started.
    Active,
    Succeeded,
    Failed,
    Cancelled,
    TimedOut,
    /// Was never to run.
    Skipped,
    /// Its time to start was over before any host took it.
    Expired,
    /// Nobody can know how it ended.
    Unknown,
}

/// What can happen to a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunEvent {
    /// All that it waited for has ended well.
    Unblocked,
    /// The controller began it: it is no host's.
    Begun,
    /// An attempt was offered to its host.
    Offered,
    /// The attempt came back undelivered, refused as busy or before it began; or it ended and is followed by another.
    Returned,
    /// The attempt ended and its result is final.
    Ended(RunOutcome),
    /// Its condition did not hold, or what it needs failed.
    Skipped,
    /// A cancel reached a run that no host has.
    Cancelled,
    /// Its time to start is over.
    StartExpired,
    /// The newest attempt that counts is lost, and with it the outcome.
    Lost,
}

/// How an attempt ended, as far as its run is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunOutcome {
    Succeeded,
    Failed,
    Cancelled,
    TimedOut,
}

/// An event that its state does not allow. Late and repeated messages end here; nothing is changed by them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a run that is {from:?} cannot take {event:?}")]
pub struct InvalidRunTransition {
    pub from: RunState,
    pub event: RunEvent,
}

/// The only way in which a run's state moves.
///
/// # Errors
/// When `event` cannot happen in state `from`.
pub fn next(from: RunState, event: RunEvent) -> Result<RunState, InvalidRunTransition> {
    use RunEvent as E;
    use RunState as S;
    Ok(match (from, event) {
        (S::Blocked, E::Unblocked) | (S::Active, E::Returned) => S::Queued,
        (S::Queued, E::Offered) | (S::Blocked, E::Begun) => S::Active,
        (S::Active, E::Ended(RunOutcome::Succeeded)) => S::Succeeded,
        (S::Active, E::Ended(RunOutcome::Failed)) => S::Failed,
        (S::Active, E::Ended(RunOutcome::Cancelled)) | (S::Blocked | S::Queued, E::Cancelled) => S::Cancelled,
        (S::Active, E::Ended(RunOutcome::TimedOut)) => S::TimedOut,
        (S::Blocked | S::Queued, E::Skipped) => S::Skipped,
        (S::Blocked | S::Queued, E::StartExpired) => S::Expired,
        // A run that waits can still end for good (the blocked one because nobody authorised it): its manifest does not cover it, or it waited for a further try that
        // is not to come, and so its last one counts.
        (S::Blocked | S::Queued, E::Ended(RunOutcome::Failed)) => S::Failed,
        (S::Queued, E::Ended(RunOutcome::TimedOut)) => S::TimedOut,
        (S::Queued | S::Active, E::Lost) => S::Unknown,
        (from, event) => return Err(InvalidRunTransition { from, event }),
    })
}

impl RunState {
    pub const ALL: [Self; 10] = [
        Self::Blocked,
        Self::Queued,
        Self::Active,
        Self::Succeeded,
        Self::Failed,
        Self::Cancelled,
        Self::TimedOut,
        Self::Skipped,
        Self::Expired,
        Self::Unknown,
    ];

    /// The name that the API and the database use.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Blocked => "blocked",
            Self::Queued => "queued",
            Self::Active => "active",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::TimedOut => "timed_out",
            Self::Skipped => "skipped",
            Self::Expired => "expired",
            Self::Unknown => "unknown",
        }
    }

    /// Reads what [`RunState::as_str`] writes.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == text)
    }

    pub const fn is_terminal(self) -> bool {
        !matches!(self, Self::Blocked | Self::Queued | Self::Active)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use RunEvent as E;
    use RunState as S;

    const EVENTS: [RunEvent; 12] = [
        E::Unblocked,
        E::Begun,
        E::Offered,
        E::Returned,
        E::Ended(RunOutcome::Succeeded),
        E::Ended(RunOutcome::Failed),
        E::Ended(RunOutcome::Cancelled),
        E::Ended(RunOutcome::TimedOut),
        E::Skipped,
        E::Cancelled,
        E::StartExpired,
        E::Lost,
    ];

    /// One row a state, one column an event, in the order of `EVENTS`; `.` is refused.
    const TABLE: [(RunState, [&str; 12]); 10] = [
        (
            S::Blocked,
            ["queued", "active", ".", ".", ".", "failed", ".", ".", "skipped", "cancelled", "expired", "."],
        ),
        (
            S::Queued,
            [
                ".",
                ".",
                "active",
                ".",
                ".",
                "failed",
                ".",
                "timed_out",
                "skipped",
                "cancelled",
                "expired",
                "unknown",
            ],
        ),
        (
            S::Active,
            [
                ".",
                ".",
                ".",
                "queued",
                "succeeded",
                "failed",
                "cancelled",
                "timed_out",
                ".",
                ".",
                ".",
                "unknown",
            ],
        ),
        (S::Succeeded, ["."; 12]),
        (S::Failed, ["."; 12]),
        (S::Cancelled, ["."; 12]),
        (S::TimedOut, ["."; 12]),
        (S::Skipped, ["."; 12]),
        (S::Expired, ["."; 12]),
        (S::Unknown, ["."; 12]),
    ];

    #[test]
    fn every_pair_of_state_and_event() {
        for (from, row) in TABLE {
            for (event, want) in EVENTS.into_iter().zip(row) {
                let got = next(from, event).map_or(".", RunState::as_str);
                assert_eq!(got, want, "{from:?} + {event:?}");
            }
        }
    }

    #[test]
    fn names_read_back() {
        for state in S::ALL {
            assert_eq!(S::parse(state.as_str()), Some(state));
        }
    }
}
