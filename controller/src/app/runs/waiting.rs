//! The end of runs that wait for a host and are not to wait any longer.
//!
//! Invariant: a run that was tried before ends as its last try did, for nothing else is known of it; in particular one
//! whose last try is lost is `unknown`, whatever is asked for, since that try may still be running.

use jiff::Timestamp;
use model::{
    Reason,
    attempt::AttemptState,
    id::ExecutionId,
    run::{self, RunEvent, RunOutcome, RunState},
};
use sqlx::PgConnection;

use super::{Settled, apply::outcome, move_counts};
use crate::{
    error::{Error, Result},
    store::{
        self,
        runs::{Change, Waiting},
    },
};

/// Why runs are not to wait any longer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Why {
    /// Their time to start is over.
    StartExpired,
    Cancelled,
    /// Nobody authorised them.
    Unauthorised,
    /// What their steps say cannot be filled in for their hosts any more.
    BadTemplate,
    /// Another execution holds what only one can hold.
    LockHeld,
    /// Somebody stopped it before anything of it began.
    Stopped,
}

/// How one of them ends.
struct Ending {
    event: RunEvent,
    reason: Reason,
    detail: &'static str,
    exit_code: Option<i32>,
    signal: Option<i32>,
}

/// Ends runs that wait for a host, locked by the caller.
///
/// # Errors
/// When the database does not answer.
pub(crate) async fn end_waiting(
    connection: &mut PgConnection,
    waiting: &[Waiting],
    why: Why,
    now: Timestamp,
) -> Result<Settled> {
    let mut changes = Vec::with_capacity(waiting.len());
    let mut moves = Vec::with_capacity(waiting.len());
    let mut settled = Settled::default();
    for row in waiting {
        let before = RunState::parse(&row.state)
            .ok_or(Error::Internal("unknown run state", row.state.clone().into()))?;
        let ending = ending(row, why);
        let Ok(state) = run::next(before, ending.event) else { continue };
        let change = Change::to(state, (row.execution_id.into(), row.id.into()), row.generation);
        changes.push(Change {
            ended_at: Some(now),
            reason: Some(ending.reason),
            detail: Some(ending.detail.to_owned()),
            exit_code: ending.exit_code,
            signal: ending.signal,
            ..change
        });
        moves.push((ExecutionId(row.execution_id), before, state));
        settled.executions.insert(row.execution_id.into());
        // Whether they are steps is not known here; a look for nothing is cheap.
        settled.has_step = true;
    }
    store::runs::change(connection, &changes).await?;
    move_counts(connection, &moves, now).await?;
    Ok(settled)
}

fn ending(row: &Waiting, why: Why) -> Ending {
    let plain = |event, reason, detail| Ending { event, reason, detail, exit_code: None, signal: None };
    let tried_reason = row.tried_reason.as_deref().and_then(Reason::parse);
    let tried = row.tried_state.as_deref().and_then(AttemptState::parse);
    match (why, tried) {
        (Why::Unauthorised, _) => plain(
            RunEvent::Ended(RunOutcome::Failed),
            Reason::ManifestMismatch,
            "its execution's signed manifest does not cover it",
        ),
        (Why::BadTemplate, _) => plain(
            RunEvent::Ended(RunOutcome::Failed),
            Reason::BadTemplate,
            "its command could not be filled in when it was sent; the controller's log says why",
        ),
        (Why::LockHeld, _) => {
            plain(RunEvent::Skipped, Reason::LockHeld, "another execution held what only one can hold")
        }
        (Why::Stopped, _) => plain(
            RunEvent::Skipped,
            Reason::RolloutStopped,
            "the rollout was stopped before this host's turn",
        ),
        (_, Some(AttemptState::Lost)) => plain(
            RunEvent::Lost,
            tried_reason.unwrap_or(Reason::AgentLost),
            "how its last try ended is not known, and it is not tried again",
        ),
        (Why::Cancelled, None) => {
            plain(RunEvent::Cancelled, Reason::Cancelled, "cancelled before any host took it")
        }
        (Why::Cancelled, Some(_)) => {
            plain(RunEvent::Cancelled, Reason::Cancelled, "cancelled between two tries")
        }
        (Why::StartExpired, None) => plain(
            RunEvent::StartExpired,
            Reason::StartExpired,
            "no host took it before its time to start was over",
        ),
        (Why::StartExpired, Some(_)) => {
            let reason = tried_reason.unwrap_or(Reason::StartExpired);
            let outcome = match outcome(reason, row.tried_exit_code) {
                RunOutcome::TimedOut => RunOutcome::TimedOut,
                _ => RunOutcome::Failed,
            };
            Ending {
                event: RunEvent::Ended(outcome),
                reason,
                detail: "so its last try ended; its host did not take the next in time",
                exit_code: row.tried_exit_code,
                signal: row.tried_signal,
            }
        }
    }
}
