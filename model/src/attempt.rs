//! The state machine of an attempt: the n-th try of a run, started at most once.
//!
//! Messages may be lost on the way, never reordered past a later truth: a report of a later state implies the earlier
//! ones, so `offered` may go straight to `finished`.

use serde::{Deserialize, Serialize};

/// Where an attempt stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum AttemptState {
    /// An order for it is signed and may be on its way.
    Offered,
    /// The agent's durable yes.
    Accepted,
    /// A process of it exists or existed.
    Started,
    /// Its exit is known.
    Finished,
    /// The agent said no; nothing was started.
    Refused,
    /// It never reached the agent; nothing was started.
    Withdrawn,
    /// Nobody knows.
    Lost,
}

/// What can happen to an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AttemptEvent {
    Accept,
    Start,
    Finish,
    Refuse,
    Withdraw,
    Lose,
}

/// An event that its state does not allow; a repetition is one of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an attempt that is {from:?} cannot take {event:?}")]
pub struct InvalidAttemptTransition {
    pub from: AttemptState,
    pub event: AttemptEvent,
}

/// The only way in which an attempt's state moves.
///
/// # Errors
/// When `event` cannot happen in state `from`.
pub fn next(from: AttemptState, event: AttemptEvent) -> Result<AttemptState, InvalidAttemptTransition> {
    use AttemptEvent as E;
    use AttemptState as S;
    Ok(match (from, event) {
        (S::Offered, E::Accept) => S::Accepted,
        (S::Offered | S::Accepted, E::Start) => S::Started,
        (S::Offered | S::Accepted | S::Started, E::Finish) => S::Finished,
        (S::Offered | S::Accepted, E::Refuse) => S::Refused,
        (S::Offered, E::Withdraw) => S::Withdrawn,
        (S::Offered | S::Accepted | S::Started, E::Lose) => S::Lost,
        (from, event) => return Err(InvalidAttemptTransition { from, event }),
    })
}

impl AttemptState {
    pub const ALL: [Self; 7] = [
        Self::Offered,
        Self::Accepted,
        Self::Started,
        Self::Finished,
        Self::Refused,
        Self::Withdrawn,
        Self::Lost,
    ];

    /// The name that the API and the database use.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Offered => "offered",
            Self::Accepted => "accepted",
            Self::Started => "started",
            Self::Finished => "finished",
            Self::Refused => "refused",
            Self::Withdrawn => "withdrawn",
            Self::Lost => "lost",
        }
    }

    /// Reads what [`AttemptState::as_str`] writes.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == text)
    }

    pub const fn is_terminal(self) -> bool {
        !matches!(self, Self::Offered | Self::Accepted | Self::Started)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use AttemptEvent as E;
    use AttemptState as S;

    const EVENTS: [AttemptEvent; 6] = [E::Accept, E::Start, E::Finish, E::Refuse, E::Withdraw, E::Lose];

    /// One row a state, one column an event, in the order of `EVENTS`; `.` is refused.
    const TABLE: [(AttemptState, [&str; 6]); 7] = [
        (S::Offered, ["accepted", "started", "finished", "refused", "withdrawn", "lost"]),
        (S::Accepted, [".", "started", "finished", "refused", ".", "lost"]),
        (S::Started, [".", ".", "finished", ".", ".", "lost"]),
        (S::Finished, ["."; 6]),
        (S::Refused, ["."; 6]),
        (S::Withdrawn, ["."; 6]),
        (S::Lost, ["."; 6]),
    ];

    #[test]
    fn every_pair_of_state_and_event() {
        for (from, row) in TABLE {
            for (event, want) in EVENTS.into_iter().zip(row) {
                let got = next(from, event).map_or(".", AttemptState::as_str);
                assert_eq!(got, want, "{from:?} + {event:?}");
            }
        }
    }
}
