//! Whether a run is tried again, and when: pure functions of its command and of its attempts so far.
//!
//! Invariants: no more tries than the command allows; what may have run is run again only after a failure that the
//! policy retries, or a loss that the command says it bears; an attempt that never began is no try.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{
    Invalid, Reason,
    attempt::AttemptState,
    command::{Command, within},
    limits,
};

/// What happens after a try that failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Retry {
    /// Tries in all, the first one included: 1 to 10.
    pub attempts: i64,
    /// Seconds until the second try; doubled before each further one.
    #[serde(default = "default_backoff")]
    pub backoff_seconds: i64,
    /// Seconds that a pause has at most.
    #[serde(default = "default_max_backoff")]
    pub max_backoff_seconds: i64,
}

fn default_backoff() -> i64 {
    limits::DEFAULT_RETRY_BACKOFF_SECONDS
}

fn default_max_backoff() -> i64 {
    limits::DEFAULT_MAX_RETRY_BACKOFF_SECONDS
}

impl Retry {
    /// As many tries, with the default pauses.
    pub fn of(attempts: i64) -> Self {
        Self { attempts, backoff_seconds: default_backoff(), max_backoff_seconds: default_max_backoff() }
    }

    /// Checks every field against its limit.
    ///
    /// # Errors
    /// The first field that is wrong, with what is allowed.
    pub fn validate(&self) -> Result<(), Invalid> {
        within("command.retry.attempts", self.attempts, &limits::RUN_TRIES)?;
        within("command.retry.backoff_seconds", self.backoff_seconds, &limits::RETRY_BACKOFF_SECONDS)?;
        within(
            "command.retry.max_backoff_seconds",
            self.max_backoff_seconds,
            &limits::RETRY_BACKOFF_SECONDS,
        )?;
        if self.max_backoff_seconds < self.backoff_seconds {
            let problem = format!("is below backoff_seconds, which is {}", self.backoff_seconds);
            return Err(Invalid::new("command.retry.max_backoff_seconds", problem));
        }
        Ok(())
    }

    /// The pause behind the try of this number, from 1: doubled each time, and of that a random part between a half
    /// and the whole, so that what failed together does not return together. `dice` is any number.
    pub fn pause(&self, tries: u32, dice: u64) -> Duration {
        let most = Duration::from_secs(u64::try_from(self.max_backoff_seconds).unwrap_or(0));
        let first = Duration::from_secs(u64::try_from(self.backoff_seconds).unwrap_or(0));
        let doubled = 2_u32.saturating_pow(tries.saturating_sub(1));
        let whole = first.saturating_mul(doubled).min(most);
        let half = whole / 2;
        // 53 bits are what a double holds.
        half + half.mul_f64((dice >> 11) as f64 / (1_u64 << 53) as f64)
    }
}

/// What is known of one attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tried {
    pub number: i32,
    pub state: AttemptState,
    pub reason: Option<Reason>,
    pub exit_code: Option<i32>,
}

impl Tried {
    /// Something may have been started, or the host would not have it.
    fn counts(&self) -> bool {
        match self.state {
            AttemptState::Withdrawn => false,
            AttemptState::Refused => !matches!(self.reason, Some(Reason::AgentBusy | Reason::NotStarted)),
            _ => true,
        }
    }
}

/// What may follow the attempts of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Nothing was tried: the first try.
    First,
    /// Another try.
    Again {
        /// Tries so far.
        tries: u32,
        /// The newest attempt whose outcome is not known: it and all before it must be dead before another starts.
        superseded: Option<i32>,
    },
    /// No further try, and why.
    Over(&'static str),
}

/// What may follow the attempts `tried` of a run of `command`.
pub fn next(command: &Command, tried: &[Tried]) -> Next {
    if tried.iter().any(|attempt| !attempt.state.is_terminal()) {
        return Next::Over("an attempt of it is open");
    }
    let Some(last) = tried.iter().filter(|attempt| attempt.counts()).max_by_key(|attempt| attempt.number)
    else {
        return Next::First;
    };
    let tries = u32::try_from(tried.iter().filter(|attempt| attempt.counts()).count()).unwrap_or(u32::MAX);
    let failed = last.state != AttemptState::Lost;
    let is_retried = match (failed, last.reason) {
        (_, None) => false,
        (true, Some(reason)) => command.retry.is_some() && fails_for_now(reason, last.exit_code),
        (false, Some(reason)) => command.idempotent && is_bearable(reason),
    };
    if !is_retried {
        return Next::Over("how its last attempt ended allows no other");
    }
    let allowed = command.retry.as_ref().map_or(*limits::RUN_TRIES.end(), |retry| retry.attempts);
    if i64::from(tries) >= allowed {
        return Next::Over("it was tried as often as its command allows");
    }
    let lost = tried.iter().filter(|attempt| attempt.state == AttemptState::Lost);
    Next::Again { tries, superseded: lost.map(|attempt| attempt.number).max() }
}

/// A failure that another try may not meet.
const fn fails_for_now(reason: Reason, exit_code: Option<i32>) -> bool {
    match reason {
        Reason::Exited => !matches!(exit_code, Some(0)),
        Reason::Signaled
        | Reason::TimeLimit
        | Reason::UnknownUser
        | Reason::BadWorkingDirectory
        | Reason::ProgramNotFound
        | Reason::SpawnFailed
        | Reason::NoSpace
        | Reason::MemoryLimit
        | Reason::PidsLimit
        | Reason::SandboxUnavailable
        | Reason::HostStopping => true,
        _ => false,
    }
}

/// A loss after which the host may be asked again.
const fn is_bearable(reason: Reason) -> bool {
    matches!(reason, Reason::AgentLost | Reason::JournalLost | Reason::ShimLost | Reason::HostRebooted)
}

#[cfg(test)]
mod tests;
