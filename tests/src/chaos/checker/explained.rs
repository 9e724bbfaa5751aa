//! **result-kept**, of every single end: it is the one that was meant, or a fault explains just this one.

use model::{Reason, attempt::AttemptState, run::RunState};

use super::{Attempt, Book, Broken, Promise, Run, Sight, tell};
use crate::chaos::{
    faults::Kind as Fault,
    job::{FAILS_WITH, Kind},
};

/// How long after a fault an agent may take to be back with all that it has to tell.
const RETURN_MS: u64 = 6_000;
/// How far a host's clock and that of the history are apart at most.
const CLOCKS_MS: u64 = 100;

impl Book<'_> {
    /// Whatever did not end as it was meant to has a fault that explains just this: runs, and tries that were not the last.
    pub(super) fn outcomes(&mut self, promise: &Promise) {
        self.all("result-kept", |book| {
            let mut found = Vec::new();
            for (id, run) in &book.runs {
                let Some(end) = run.end() else { continue };
                let asked = book.asked.get(&run.number).map_or(0, |(at, _)| *at);
                if !book.is_meant(run, end) && !book.is_explained(id, run, asked, end, promise) {
                    let text = format!("run {id} on {}: no fault explains {}", run.host, tell(end));
                    found.push((run.number, text));
                }
                let Some((_, job)) = book.asked.get(&run.number) else { continue };
                let mut tries = run.tries();
                tries.pop();
                for tried in tries {
                    let is_meant = tried.state == AttemptState::Finished
                        && tried.reason == Some(Reason::Exited)
                        && tried.exit_code == Some(job.exit_of(tried.number));
                    let end = as_end(tried);
                    if !is_meant && !book.is_explained(id, run, tried.at, &end, promise) {
                        let text =
                            format!("run {id} on {}: no fault explains that {}", run.host, tried.tell());
                        found.push((run.number, text));
                    }
                }
            }
            found
        });
    }

    fn is_meant(&self, run: &Run<'_>, end: &Sight) -> bool {
        let Some((_, job)) = self.asked.get(&run.number) else { return false };
        match job.kind {
            Kind::Succeeds | Kind::Recovers | Kind::Repeats => {
                end.state == RunState::Succeeded && end.exit_code == Some(0)
            }
            Kind::Fails | Kind::GivesUp => end.state == RunState::Failed && end.exit_code == Some(FAILS_WITH),
            Kind::TimesOut => end.state == RunState::TimedOut,
            Kind::Cancelled if end.state == RunState::TimedOut => {
                // The API was away until its time was over.
                let asked = self.acknowledged.get(&run.number).map_or(0, |(at, _)| *at);
                end.at.saturating_sub(asked) >= job.timeout_seconds.unsigned_abs() * 1000
            }
            Kind::Cancelled => end.state == RunState::Cancelled,
            Kind::Expires => end.state == RunState::Expired,
        }
    }

    /// Whether a fault explains that the run, or a try of it, that began at `begun` came to this end.
    fn is_explained(&self, id: &str, run: &Run<'_>, begun: u64, end: &Sight, promise: &Promise) -> bool {
        let execution = self.acknowledged.get(&run.number).map_or("", |(_, execution)| *execution);
        let within = |fault: &&Broken<'_>| fault.at <= end.at && fault.until + RETURN_MS >= begun;
        let done_to = |kind: Fault| {
            let mut of_kind = self.faults.iter().filter(within).filter(|fault| fault.kind == kind);
            of_kind.any(|fault| {
                fault.victim == run.host
                    || fault.subjects.iter().any(|subject| subject == id || subject == execution)
            })
        };
        let shim_killed = self.faults.iter().any(|fault| {
            fault.kind == Fault::ShimKilled && fault.subjects.iter().any(|subject| subject == id)
        });
        match (end.state, end.reason) {
            (RunState::Unknown, Some(Reason::HostRebooted)) => done_to(Fault::HostCrashed),
            (RunState::Unknown, Some(Reason::ShimLost)) => shim_killed || done_to(Fault::HostCrashed),
            (RunState::Unknown, Some(Reason::JournalLost)) => done_to(Fault::JournalLost),
            (RunState::Unknown, Some(Reason::AgentLost)) => self.was_away(run.host, begun, end.at, promise),
            (RunState::Failed, Some(Reason::ManifestMismatch)) => self.is_edited(run.number),
            // A host that loses its power takes its processes one after the other; a shim may see its job go before it goes itself.
            (RunState::Failed, Some(Reason::Signaled | Reason::SpawnFailed)) => {
                shim_killed || done_to(Fault::HostCrashed)
            }
            (RunState::Failed | RunState::Expired, Some(Reason::StartExpired)) => {
                self.faults.iter().filter(within).any(|fault| fault.keeps_away(run.host))
            }
            (RunState::Failed, Some(Reason::Exited)) => self.had_no_other_try(run, end),
            _ => false,
        }
    }

    /// Whether a run ended as a try that was to fail because no other could follow: somebody edited its command, and the
    /// policy with it, or its host was kept away until the time of the next try was over.
    fn had_no_other_try(&self, run: &Run<'_>, end: &Sight) -> bool {
        let tries = run.tries();
        let Some((last, (_, job))) = tries.last().zip(self.asked.get(&run.number)) else { return false };
        let waited = end.at.saturating_sub(last.ended.unwrap_or(last.at));
        let was_in_vain = waited >= job.start_within_seconds.unsigned_abs() * 1000;
        let mut meanwhile =
            self.faults.iter().filter(|fault| fault.at <= end.at && fault.until + RETURN_MS >= last.at);
        let was_kept_away = was_in_vain && meanwhile.any(|fault| fault.keeps_away(run.host));
        end.exit_code == Some(job.exit_of(last.number)) && (self.is_edited(run.number) || was_kept_away)
    }

    /// Whether faults that keep the host's agent away can have done so for long enough, one after another.
    fn was_away(&self, host: &str, from: u64, to: u64, promise: &Promise) -> bool {
        let mut windows: Vec<(u64, u64)> = self
            .faults
            .iter()
            .filter(|fault| fault.keeps_away(host))
            .map(|fault| (fault.at, fault.until + RETURN_MS))
            .filter(|(at, until)| *at <= to && *until >= from)
            .collect();
        windows.sort_unstable();
        let mut stretch: Option<(u64, u64)> = None;
        for (at, until) in windows {
            let next = match stretch {
                Some((begun, over)) if at <= over => (begun, over.max(until)),
                _ => (at, until),
            };
            if next.1 - next.0 >= promise.lost_after_ms {
                return true;
            }
            stretch = Some(next);
        }
        false
    }
}

/// The end of a try, as if the run had ended with it.
fn as_end(tried: &Attempt<'_>) -> Sight {
    let state = match tried.state {
        AttemptState::Lost => RunState::Unknown,
        _ if tried.reason == Some(Reason::TimeLimit) => RunState::TimedOut,
        _ => RunState::Failed,
    };
    // The host dates the end of its processes by another clock than the history has.
    let at = tried.ended.unwrap_or(tried.at) + CLOCKS_MS;
    Sight { at, state, reason: tried.reason, attempt: tried.number, exit_code: tried.exit_code }
}
