//! **retries**: a run is tried as often as its command says and no more; each further try has a reason in the one before,
//! and the run ends as its last try did.

use model::{Reason, attempt::AttemptState, run::RunState};

use super::{Attempt, Book, Run, Sight, tell};
use crate::chaos::job::Job;

impl Book<'_> {
    pub(super) fn retries(&mut self) {
        self.all("retries", |book| {
            let mut found = Vec::new();
            for (id, run) in &book.runs {
                let Some((_, job)) = book.asked.get(&run.number) else { continue };
                let what = format!("run {id} on {}", run.host);
                let mut wrong = too_often(run, job);
                wrong.extend(run.tries().windows(2).filter_map(|pair| wrong_follower(job, pair[0], pair[1])));
                if let Some(end) = run.end() {
                    wrong.extend(wrong_end(run, job, end));
                    // Whoever has edited the command has taken its policy away.
                    if !book.is_edited(run.number) {
                        wrong.extend(given_up(run, job, end));
                    }
                }
                found.extend(wrong.into_iter().map(|text| (run.number, format!("{what}: {text}"))));
            }
            found
        });
    }
}

fn too_often(run: &Run<'_>, job: &Job) -> Vec<String> {
    let (tries, allowed) = (run.tries().len(), usize::try_from(job.tries()).unwrap_or(0));
    if tries > allowed { vec![format!("tried {tries} times of {allowed}")] } else { Vec::new() }
}

/// A failure or a loss after which the command lets it be tried again.
fn is_retried(job: &Job, tried: &Attempt<'_>) -> bool {
    match tried.state {
        AttemptState::Lost => {
            let bearable = [Reason::AgentLost, Reason::JournalLost, Reason::ShimLost, Reason::HostRebooted];
            job.idempotent && tried.reason.is_some_and(|reason| bearable.contains(&reason))
        }
        AttemptState::Finished | AttemptState::Refused => {
            let failures = [Reason::Exited, Reason::Signaled, Reason::TimeLimit, Reason::SpawnFailed];
            let is_failure = tried.reason.is_some_and(|reason| failures.contains(&reason));
            job.retry.is_some() && is_failure && tried.exit_code != Some(0)
        }
        _ => false,
    }
}

fn wrong_follower(job: &Job, one: &Attempt<'_>, next: &Attempt<'_>) -> Option<String> {
    if !is_retried(job, one) {
        return Some(format!("{}, and attempt {} came after it", one.tell(), next.number));
    }
    let is_early = one.ended.is_none_or(|ended| next.at < ended);
    is_early.then(|| format!("{}, and attempt {} was offered before that", one.tell(), next.number))
}

/// Another end than that of the last try.
fn wrong_end(run: &Run<'_>, job: &Job, end: &Sight) -> Option<String> {
    if let Some(open) = run.attempts.iter().find(|attempt| !attempt.state.is_terminal()) {
        return Some(format!("it has ended, and {}", open.tell()));
    }
    let newest = run.attempts.last().map_or(0, |attempt| attempt.number);
    if newest != end.attempt {
        return Some(format!("it ended with attempt {}, and the tables have {newest}", end.attempt));
    }
    if end.reason == Some(Reason::ManifestMismatch) {
        return None;
    }
    let tries = run.tries();
    let Some(last) = tries.last() else {
        let is_right = matches!(end.state, RunState::Expired | RunState::Cancelled);
        return (!is_right).then(|| format!("{}, and was never tried", tell(end)));
    };
    let was_between = last.state != AttemptState::Lost && is_retried(job, last);
    if end.state == RunState::Cancelled && was_between && job.cancel_after_ms.is_some() {
        return None;
    }
    let state = match (last.state, last.reason, last.exit_code) {
        (AttemptState::Lost, ..) | (_, Some(Reason::Unkillable), _) => RunState::Unknown,
        (_, Some(Reason::Exited), Some(0)) => RunState::Succeeded,
        (_, Some(Reason::Cancelled), _) => RunState::Cancelled,
        (_, Some(Reason::TimeLimit), _) => RunState::TimedOut,
        _ => RunState::Failed,
    };
    let is_of_it = (end.state, end.reason, end.exit_code) == (state, last.reason, last.exit_code);
    (!is_of_it).then(|| format!("it is {}, and {}", tell(end), last.tell()))
}

/// Another try was allowed, and nobody gave it.
fn given_up(run: &Run<'_>, job: &Job, end: &Sight) -> Option<String> {
    let tries = run.tries();
    let last = tries.last()?;
    let is_allowed =
        is_retried(job, last) && i64::try_from(tries.len()).is_ok_and(|tries| tries < job.tries());
    let waited = end.at.saturating_sub(last.ended.unwrap_or(last.at));
    let is_over_time = waited >= job.start_within_seconds.unsigned_abs() * 1000;
    (is_allowed && job.cancel_after_ms.is_none() && !is_over_time)
        .then(|| format!("{}, try {} of {}, and none followed", last.tell(), tries.len(), job.tries()))
}
