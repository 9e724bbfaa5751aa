//! What must hold, checked over a history: pure, and blind to how the history came about. A file a subject, a function an
//! invariant.

use std::collections::{BTreeMap, BTreeSet};

use model::{Reason, attempt::AttemptState, run::RunState};

use super::{
    faults::Kind as Fault,
    history::{Held, Record},
    job::Job,
};

mod after;
mod explained;
mod forged;
mod kept;
mod limits;
mod output;
mod retries;
mod starts;
#[cfg(test)]
mod tests;

/// The bounds that are promised.
#[derive(Debug, Clone)]
pub struct Promise {
    /// After the last fault all must have ended within this.
    pub settles_within_ms: u64,
    /// An agent may be away for so long, and nothing of it is lost.
    pub lost_after_ms: u64,
    /// After a run was shown as cancelled or timed out, nothing of it lives.
    pub gone_within_ms: u64,
    pub controller_kib: u64,
    pub agent_kib: u64,
    pub agent_disk_kib: u64,
}

/// Something that must not be.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Violation {
    pub invariant: &'static str,
    /// The job that it is about.
    pub number: Option<u64>,
    pub text: String,
}

/// What was seen of a run at one time.
#[derive(Debug, Clone, PartialEq)]
struct Sight {
    at: u64,
    state: RunState,
    reason: Option<Reason>,
    /// The newest attempt by then.
    attempt: i32,
    exit_code: Option<i32>,
}

#[derive(Debug, Default)]
struct Run<'a> {
    number: u64,
    host: &'a str,
    seen: Vec<Sight>,
    /// By attempt and stream.
    held: BTreeMap<(i32, u8), &'a Held>,
    /// The attempts that said that they start, in their order, each with the others that lived then.
    starts: Vec<(i32, &'a [i32])>,
    /// What the tables have of its attempts, by number, without what was forged.
    attempts: Vec<Attempt<'a>>,
}

impl Run<'_> {
    /// When it was first known to have ended, and how.
    fn end(&self) -> Option<&Sight> {
        self.seen.iter().find(|sight| sight.state.is_terminal())
    }

    fn has_started(&self, attempt: i32) -> bool {
        self.starts.iter().any(|(number, _)| *number == attempt)
    }

    /// The attempts that count as tries.
    fn tries(&self) -> Vec<&Attempt<'_>> {
        self.attempts.iter().filter(|attempt| attempt.counts()).collect()
    }
}

/// An attempt as the tables have it when all is over.
#[derive(Debug)]
struct Attempt<'a> {
    at: u64,
    number: i32,
    host: &'a str,
    fence: i64,
    state: AttemptState,
    reason: Option<Reason>,
    exit_code: Option<i32>,
    ended: Option<u64>,
}

impl Attempt<'_> {
    /// Something of it may have run, or its host would not have it.
    fn counts(&self) -> bool {
        match self.state {
            AttemptState::Withdrawn => false,
            AttemptState::Refused => !matches!(self.reason, Some(Reason::AgentBusy | Reason::NotStarted)),
            _ => true,
        }
    }

    fn tell(&self) -> String {
        let reason = self.reason.map_or("no reason", Reason::as_str);
        let exit = self.exit_code.map_or_else(String::new, |code| format!(", exit {code}"));
        format!("attempt {} is {} ({reason}{exit})", self.number, self.state.as_str())
    }
}

struct Broken<'a> {
    at: u64,
    until: u64,
    kind: Fault,
    victim: &'a str,
    proof: &'a str,
    subjects: &'a [String],
}

impl Broken<'_> {
    /// Whether it may have kept this host out of the controller's reach.
    fn keeps_away(&self, host: &str) -> bool {
        self.kind.keeps_away()
            && (self.victim == host
                || self.kind.is_central()
                || self.subjects.iter().any(|name| name == host))
    }
}

/// The history, sorted by what it is about.
struct Book<'a> {
    asked: BTreeMap<u64, (u64, &'a Job)>,
    acknowledged: BTreeMap<u64, (u64, &'a str)>,
    runs: BTreeMap<&'a str, Run<'a>>,
    faults: Vec<Broken<'a>>,
    audited: BTreeSet<&'a str>,
    faults_over: Option<u64>,
    violations: Vec<Violation>,
}

/// All that does not hold.
pub fn check(history: &[Record], promise: &Promise) -> Vec<Violation> {
    let mut book = Book::read(history);
    book.one_start();
    book.retries();
    book.no_forged_start(history);
    book.fences();
    book.terminal_is_final();
    book.result_kept(history, promise);
    book.outcomes(promise);
    book.whole_output();
    book.confirmed_kill(history, promise);
    book.bounded(history, promise);
    book.no_endless_wait(history);
    book.faults_happened();
    let mut violations = book.violations;
    violations.sort();
    violations.dedup();
    violations
}

impl<'a> Book<'a> {
    fn read(history: &'a [Record]) -> Self {
        let mut book = Self {
            asked: BTreeMap::new(),
            acknowledged: BTreeMap::new(),
            runs: BTreeMap::new(),
            faults: Vec::new(),
            audited: BTreeSet::new(),
            faults_over: None,
            violations: Vec::new(),
        };
        for record in history {
            match record {
                Record::Asked { at, job } => {
                    book.asked.insert(job.number, (*at, job));
                }
                Record::Acknowledged { at, number, execution } => {
                    let before = book.acknowledged.insert(*number, (*at, execution));
                    if before.is_some_and(|(_, before)| before != execution) {
                        book.fault("one-start", Some(*number), "two executions of one request");
                    }
                }
                Record::Seen { at, number, run, host, state, reason, attempt, exit_code } => {
                    let of = book.runs.entry(run).or_default();
                    (of.number, of.host) = (*number, host);
                    let (at, state, reason) = (*at, *state, *reason);
                    of.seen.push(Sight { at, state, reason, attempt: *attempt, exit_code: *exit_code });
                }
                Record::Output { run, attempt, stream, held, .. } => {
                    book.runs.entry(run).or_default().held.insert((*attempt, *stream), held);
                }
                Record::Fault { at, until, kind, victim, proof, subjects } => {
                    book.faults.push(Broken { at: *at, until: *until, kind: *kind, victim, proof, subjects });
                }
                Record::Audited { run } => {
                    book.audited.insert(run);
                }
                Record::FaultsOver { at } => book.faults_over = Some(*at),
                _ => {}
            }
        }
        book.read_attempts(history);
        book
    }

    /// What is told at the end, of the runs that are known.
    fn read_attempts(&mut self, history: &'a [Record]) {
        for record in history {
            match record {
                Record::Started { run, attempt, beside, .. } => {
                    if let Some(of) = self.runs.get_mut(&run[..]) {
                        of.starts.push((*attempt, beside));
                    }
                }
                Record::Offered { at, run, attempt, host, fence, state, reason, exit_code, ended } => {
                    let is_forged = self.is_forged(&format!("inserted-attempt/{run}"));
                    let Some(of) = self.runs.get_mut(&run[..]) else { continue };
                    // What was forged is behind all that the run itself knows of.
                    if is_forged && of.seen.last().is_some_and(|last| *attempt > last.attempt) {
                        continue;
                    }
                    of.attempts.push(Attempt {
                        at: *at,
                        number: *attempt,
                        host,
                        fence: *fence,
                        state: *state,
                        reason: *reason,
                        exit_code: *exit_code,
                        ended: *ended,
                    });
                }
                _ => {}
            }
        }
        for run in self.runs.values_mut() {
            run.attempts.sort_by_key(|attempt| attempt.number);
        }
    }

    /// Whether this was the subject of a forgery.
    fn is_forged(&self, what: &str) -> bool {
        let mut forged = self.faults.iter().filter(|fault| fault.kind == Fault::RowForged);
        forged.any(|fault| fault.subjects.iter().any(|subject| subject == what))
    }

    /// Whether the execution of this job was edited.
    fn is_edited(&self, number: u64) -> bool {
        self.acknowledged.get(&number).is_some_and(|(_, execution)| self.is_forged(execution))
    }

    fn fault(&mut self, invariant: &'static str, number: Option<u64>, text: impl Into<String>) {
        self.violations.push(Violation { invariant, number, text: text.into() });
    }

    fn all<T>(&mut self, invariant: &'static str, found: impl FnOnce(&Self) -> Vec<(T, String)>)
    where
        T: Into<Option<u64>>,
    {
        for (number, text) in found(self) {
            self.fault(invariant, number.into(), text);
        }
    }
}

fn tell(sight: &Sight) -> String {
    let reason = sight.reason.map_or("no reason", Reason::as_str);
    let exit = sight.exit_code.map_or_else(String::new, |code| format!(", exit {code}"));
    format!("{} ({reason}{exit}) at {} ms", sight.state.as_str(), sight.at)
}
