//! Looks for containers that nobody looks after any more, when the agent starts and now and then.
//!
//! It takes no input: the policy says whether there are containers and where their engine is, the attempts' folders say which
//! have somebody who looks after them.

use std::{
    io::ErrorKind,
    path::{Path, PathBuf},
    time::Duration,
};

use model::id::AgentId;
use tokio::time::MissedTickBehavior;

use super::policy::Policy;
use crate::shim::{container, lock::Lock};

const EVERY: Duration = Duration::from_secs(300);
/// How long one look may take; an engine that does not answer is asked again the next time.
const WITHIN: Duration = Duration::from_secs(60);

/// What is swept, and by what.
#[derive(Debug)]
pub(super) struct Sweep {
    pub(super) agent_id: AgentId,
    pub(super) policy: PathBuf,
    /// Where the attempts' folders are.
    pub(super) attempts: PathBuf,
}

impl Sweep {
    /// Sweeps as long as it is polled.
    pub(super) async fn now_and_then(self) {
        let mut due = tokio::time::interval(EVERY);
        due.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            due.tick().await;
            self.once().await;
        }
    }

    async fn once(&self) {
        // A policy that cannot be read says nothing of an engine; orders are refused with what is wrong with it.
        let Ok(policy) = Policy::read(&self.policy) else { return };
        if !policy.sandbox.containers {
            return;
        }
        let (socket, agent) = (policy.sandbox.engine_socket(), self.agent_id.to_string());
        let sweep = container::sweep(&socket, &agent, |attempt| is_over(&self.attempts, attempt));
        match tokio::time::timeout(WITHIN, sweep).await {
            Ok(Ok(swept)) => {
                for attempt in swept.removed {
                    tracing::warn!(attempt, "removed a container that nobody looked after");
                }
                for why in swept.kept {
                    tracing::warn!(why, "a container that nobody looks after cannot be removed");
                }
            }
            Ok(Err(why)) => tracing::debug!(why, "cannot look for containers that nobody looks after"),
            Err(_) => tracing::warn!("the container engine does not answer"),
        }
    }
}

/// Whether no shim lives that could want the container of this attempt.
fn is_over(attempts: &Path, attempt: &str) -> bool {
    // A label is anybody's text.
    if attempt.is_empty() || attempt.contains(['/', '\0']) || attempt.starts_with('.') {
        return false;
    }
    match Lock::take(&attempts.join(attempt)) {
        // One that is on its way to its lock has no container yet.
        Ok(lock) => lock.is_some(),
        Err(error) => error.kind() == ErrorKind::NotFound,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_attempt_is_over_when_no_shim_has_its_lock() {
        let attempts = tempfile::tempdir().unwrap();
        let over = |attempt: &str| is_over(attempts.path(), attempt);
        assert!(over("gone-1"));
        std::fs::create_dir(attempts.path().join("there-1")).unwrap();
        assert!(over("there-1"));
        let lock = Lock::take(&attempts.path().join("there-1")).unwrap().unwrap();
        assert!(!over("there-1"));
        drop(lock);
        assert!(over("there-1"));
        for strange in ["", "../there-1", "..", "/etc"] {
            assert!(!over(strange), "{strange}");
        }
    }
}
