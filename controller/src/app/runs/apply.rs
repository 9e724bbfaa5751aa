//! What one happening does to an attempt and its run, in memory: the one place where the two state machines meet.
//!
//! Invariants: a terminal state never changes; what an attempt tells goes to its run only while it is the run's newest;
//! a run is active only while its newest attempt is open.

use jiff::{SignedDuration, Timestamp};
use model::{
    Reason,
    api::execution::Observed,
    attempt::{self, AttemptEvent, AttemptState},
    retry::Tried,
    run::{self, RunEvent, RunOutcome, RunState},
};

use super::{Happening, Verdict};
use crate::store::{
    attempts::{self, Locked},
    runs::Change,
};

/// How long an agent that was busy, or did not get its order, is left alone with this run: a second, then twice as long each
/// time, up to about a minute.
fn busy_pause(attempt: i32) -> SignedDuration {
    SignedDuration::from_secs(1 << attempt.saturating_sub(1).clamp(0, 6))
}

/// An attempt and its run while a batch is applied to them.
#[derive(Debug)]
pub(super) struct Open {
    pub locked: Locked,
    pub attempt: AttemptState,
    pub run: RunState,
    pub attempt_change: Option<attempts::Change>,
    pub run_change: Option<Change>,
    pub observed: Option<Observed>,
}

/// When a run is tried again.
#[derive(Debug, Clone)]
pub(super) struct Due {
    pub at: Timestamp,
    /// Until when that try may wait for its host.
    pub start_before: Timestamp,
    /// What the try before has come to, for people.
    pub detail: String,
}

impl Open {
    /// None for states that this program does not know.
    pub(super) fn new(locked: Locked) -> Option<Self> {
        let attempt = AttemptState::parse(&locked.state)?;
        let run = RunState::parse(&locked.run_state)?;
        Some(Self { locked, attempt, run, attempt_change: None, run_change: None, observed: None })
    }
}

/// Moves attempt and run by one happening. `again` says whether an attempt that came to this is followed by another.
pub(super) fn apply(
    of: &mut Open,
    happening: Happening,
    now: Timestamp,
    again: impl FnOnce(Tried) -> Option<Due>,
) -> Verdict {
    let event = match &happening {
        Happening::Accepted { .. } => AttemptEvent::Accept,
        Happening::Started { .. } => AttemptEvent::Start,
        Happening::Finished(_) => AttemptEvent::Finish,
        Happening::Refused { .. } => AttemptEvent::Refuse,
        Happening::Withdrawn => AttemptEvent::Withdraw,
        Happening::Lost { .. } => AttemptEvent::Lose,
    };
    let Ok(next) = attempt::next(of.attempt, event) else {
        // A repetition, or what an attempt that was given up tells after all.
        if of.attempt == AttemptState::Lost
            && let Happening::Finished(finish) = happening
        {
            of.observed = Some(Observed {
                reason: finish.reason,
                detail: finish.detail,
                exit_code: finish.exit_code,
                signal: finish.signal,
                ended_at: finish.ended_at,
                observed_at: now,
            });
        }
        return Verdict::Duplicate;
    };
    of.attempt = next;
    let change = of.attempt_change.get_or_insert_with(|| attempts::Change {
        execution_id: of.locked.execution_id.into(),
        run_id: of.locked.run_id.into(),
        number: of.locked.number,
        generation: of.locked.generation,
        state: next,
        accepted_at: None,
        started_at: None,
        ended_at: None,
        reason: None,
        detail: None,
        exit_code: None,
        signal: None,
        pid: None,
        boot_id: None,
        exit: None,
    });
    change.state = next;
    if next.is_terminal() {
        change.ended_at = Some(now);
    }
    match &happening {
        Happening::Accepted { at } => change.accepted_at = Some(*at),
        Happening::Started { at, pid, boot_id } => {
            change.started_at = Some(*at);
            change.pid = Some(*pid);
            change.boot_id = Some(boot_id.clone());
        }
        Happening::Finished(finish) => {
            change.started_at = finish.started_at.or(change.started_at);
            change.ended_at = Some(finish.ended_at);
            change.reason = Some(finish.reason);
            change.detail = Some(finish.detail.clone()).filter(|detail| !detail.is_empty());
            change.exit_code = finish.exit_code;
            change.signal = finish.signal;
            change.exit = Some(finish.exit.clone());
        }
        Happening::Refused { reason, detail } | Happening::Lost { reason, detail } => {
            change.reason = Some(*reason);
            change.detail = Some(detail.clone()).filter(|detail| !detail.is_empty());
        }
        Happening::Withdrawn => {}
    }
    if of.locked.run_attempt == of.locked.number {
        apply_to_run(of, happening, now, again);
    }
    Verdict::Stored
}

fn apply_to_run(
    of: &mut Open,
    happening: Happening,
    now: Timestamp,
    again: impl FnOnce(Tried) -> Option<Due>,
) {
    let mut change = of.run_change.take().unwrap_or_else(|| {
        let run = (of.locked.execution_id.into(), of.locked.run_id.into());
        Change::to(of.run, run, of.locked.run_generation)
    });
    let mut tried = Tried { number: of.locked.number, state: of.attempt, reason: None, exit_code: None };
    let event = match happening {
        Happening::Accepted { .. } => return,
        Happening::Started { at, .. } => {
            change.started_at = Some(at);
            of.run_change = Some(change);
            return;
        }
        Happening::Finished(finish) => {
            change.started_at = finish.started_at;
            change.ended_at = Some(finish.ended_at);
            change.reason = Some(finish.reason);
            change.detail = Some(finish.detail).filter(|detail| !detail.is_empty());
            change.exit_code = finish.exit_code;
            change.signal = finish.signal;
            change.outputs =
                finish.outputs.filter(|_| (finish.reason, finish.exit_code) == (Reason::Exited, Some(0)));
            tried.exit_code = finish.exit_code;
            ended(finish.reason, finish.exit_code)
        }
        Happening::Refused { reason: Reason::AgentBusy | Reason::NotStarted, .. } | Happening::Withdrawn => {
            change.due_at = Some(now + busy_pause(of.locked.number));
            RunEvent::Returned
        }
        Happening::Refused { reason, detail } => {
            change.reason = Some(reason);
            change.detail = Some(detail);
            change.ended_at = Some(now);
            ended(reason, None)
        }
        Happening::Lost { reason, detail } => {
            change.reason = Some(reason);
            change.detail = Some(detail);
            change.ended_at = Some(now);
            RunEvent::Lost
        }
    };
    tried.reason = change.reason;
    let is_bad = matches!(event, RunEvent::Lost | RunEvent::Ended(RunOutcome::Failed | RunOutcome::TimedOut));
    let due = if is_bad { again(tried) } else { None };
    let event = match due {
        None => event,
        Some(due) => {
            change = Change {
                due_at: Some(due.at),
                start_before: Some(due.start_before),
                ended_at: None,
                reason: None,
                detail: Some(due.detail),
                exit_code: None,
                signal: None,
                outputs: None,
                ..change
            };
            RunEvent::Returned
        }
    };
    if let Ok(next) = run::next(of.run, event) {
        of.run = next;
        change.state = next;
        of.run_change = Some(change);
    }
}

/// What the reason of an attempt's end means for its run.
fn ended(reason: Reason, exit_code: Option<i32>) -> RunEvent {
    match reason {
        // It was to end, and something of it may still be there: nobody may call that an end.
        Reason::Unkillable => RunEvent::Lost,
        reason => RunEvent::Ended(outcome(reason, exit_code)),
    }
}

pub(super) fn outcome(reason: Reason, exit_code: Option<i32>) -> RunOutcome {
    match (reason, exit_code) {
        (Reason::Exited, Some(0)) => RunOutcome::Succeeded,
        (Reason::Cancelled, _) => RunOutcome::Cancelled,
        (Reason::TimeLimit, _) => RunOutcome::TimedOut,
        _ => RunOutcome::Failed,
    }
}

#[cfg(test)]
mod tests;
