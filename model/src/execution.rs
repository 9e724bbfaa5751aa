//! The state of an execution: never stored by itself, always computed from the states of its runs.

use serde::{Deserialize, Serialize};

use crate::run::RunState;

/// Where an execution stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ExecutionState {
    /// Nothing has been offered to a host.
    Pending,
    /// Some runs have ended, none is active.
    Waiting,
    Running,
    Succeeded,
    PartiallySucceeded,
    Failed,
    Cancelled,
    TimedOut,
    /// No run started in time.
    Expired,
    /// Nothing failed, but of something nobody knows the outcome.
    Unknown,
}

/// How many runs of an execution are in which state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, utoipa::ToSchema)]
pub struct RunCounts {
    pub total: i32,
    /// Blocked or queued.
    pub waiting: i32,
    pub active: i32,
    pub succeeded: i32,
    pub failed: i32,
    pub cancelled: i32,
    pub timed_out: i32,
    pub skipped: i32,
    pub expired: i32,
    pub unknown: i32,
}

impl std::ops::AddAssign<&Self> for RunCounts {
    fn add_assign(&mut self, more: &Self) {
        self.total += more.total;
        self.waiting += more.waiting;
        self.active += more.active;
        self.succeeded += more.succeeded;
        self.failed += more.failed;
        self.cancelled += more.cancelled;
        self.timed_out += more.timed_out;
        self.skipped += more.skipped;
        self.expired += more.expired;
        self.unknown += more.unknown;
    }
}

impl RunCounts {
    /// Counts one run more (`by` = 1) or less (`by` = -1) in `state`; the total stays.
    pub fn add(&mut self, state: RunState, by: i32) {
        *match state {
            RunState::Blocked | RunState::Queued => &mut self.waiting,
            RunState::Active => &mut self.active,
            RunState::Succeeded => &mut self.succeeded,
            RunState::Failed => &mut self.failed,
            RunState::Cancelled => &mut self.cancelled,
            RunState::TimedOut => &mut self.timed_out,
            RunState::Skipped => &mut self.skipped,
            RunState::Expired => &mut self.expired,
            RunState::Unknown => &mut self.unknown,
        } += by;
    }

    /// The state of an execution whose runs are these.
    ///
    /// While a run is open the execution is. Among ended ones the worst that is certain names it: some success beside
    /// something else is partial, then failed, timed out, unknown, cancelled, expired, in this order.
    pub fn state(&self) -> ExecutionState {
        use ExecutionState as S;
        if self.active > 0 {
            return S::Running;
        }
        if self.waiting > 0 {
            return if self.waiting == self.total { S::Pending } else { S::Waiting };
        }
        let bad = self.failed + self.timed_out + self.cancelled + self.expired;
        if bad + self.unknown == 0 {
            return S::Succeeded;
        }
        if self.succeeded > 0 && bad > 0 {
            return S::PartiallySucceeded;
        }
        if self.failed > 0 {
            S::Failed
        } else if self.timed_out > 0 {
            S::TimedOut
        } else if self.unknown > 0 {
            S::Unknown
        } else if self.cancelled > 0 {
            S::Cancelled
        } else {
            S::Expired
        }
    }
}

impl ExecutionState {
    pub const ALL: [Self; 10] = [
        Self::Pending,
        Self::Waiting,
        Self::Running,
        Self::Succeeded,
        Self::PartiallySucceeded,
        Self::Failed,
        Self::Cancelled,
        Self::TimedOut,
        Self::Expired,
        Self::Unknown,
    ];

    /// The name that the API and the database use.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Waiting => "waiting",
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::PartiallySucceeded => "partially_succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::TimedOut => "timed_out",
            Self::Expired => "expired",
            Self::Unknown => "unknown",
        }
    }

    /// Reads what [`ExecutionState::as_str`] writes.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == text)
    }

    pub const fn is_terminal(self) -> bool {
        !matches!(self, Self::Pending | Self::Waiting | Self::Running)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(states: &[RunState]) -> RunCounts {
        let mut counts =
            RunCounts { total: i32::try_from(states.len()).expect("few"), ..RunCounts::default() };
        for state in states {
            counts.add(*state, 1);
        }
        counts
    }

    #[test]
    fn computed_from_the_runs() {
        use ExecutionState as X;
        use RunState as R;
        for (runs, want) in [
            (&[R::Queued, R::Queued][..], X::Pending),
            (&[R::Queued, R::Succeeded], X::Waiting),
            (&[R::Queued, R::Active], X::Running),
            (&[R::Succeeded, R::Succeeded], X::Succeeded),
            (&[R::Succeeded, R::Skipped], X::Succeeded),
            (&[R::Succeeded, R::Failed], X::PartiallySucceeded),
            (&[R::Succeeded, R::Expired], X::PartiallySucceeded),
            (&[R::Failed, R::Unknown], X::Failed),
            (&[R::Failed, R::Cancelled], X::Failed),
            (&[R::TimedOut, R::Cancelled], X::TimedOut),
            (&[R::Cancelled, R::Expired], X::Cancelled),
            (&[R::Succeeded, R::Unknown], X::Unknown),
            (&[R::Unknown, R::Cancelled], X::Unknown),
            (&[R::Expired, R::Expired], X::Expired),
        ] {
            assert_eq!(counts(runs).state(), want, "{runs:?}");
        }
    }
}
