//! What must hold, checked over a history: pure, and blind to how the history came about. A function an invariant.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use model::{Reason, run::RunState};
use sha2::{Digest, Sha256};

use super::{
    content::{Content, STDERR, STDOUT},
    faults::Kind as Fault,
    history::{Held, Record},
    job::{FAILS_WITH, Job, Kind},
    lab::CONTROLLERS,
};

#[cfg(test)]
mod tests;

/// How long after a fault an agent may take to be back with all that it has to tell.
const RETURN_MS: u64 = 6_000;

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
    exit_code: Option<i32>,
}

#[derive(Debug, Default)]
struct Run<'a> {
    number: u64,
    host: &'a str,
    seen: Vec<Sight>,
    held: BTreeMap<u8, &'a Held>,
    /// The attempts that said that they start.
    starts: Vec<i32>,
}

impl Run<'_> {
    /// When it was first known to have ended, and how.
    fn end(&self) -> Option<&Sight> {
        self.seen.iter().find(|sight| sight.state.is_terminal())
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
            && (self.victim == host || self.kind.is_central() || self.subjects.iter().any(|name| name == host))
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
    book.no_forged_start(history);
    book.fences(history);
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
                Record::Seen { at, number, run, host, state, reason, exit_code, .. } => {
                    let of = book.runs.entry(run).or_default();
                    (of.number, of.host) = (*number, host);
                    let sight = Sight { at: *at, state: *state, reason: *reason, exit_code: *exit_code };
                    of.seen.push(sight);
                }
                Record::Output { run, stream, held, .. } => {
                    book.runs.entry(run).or_default().held.insert(*stream, held);
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
        for record in history {
            if let Record::Started { run, attempt, .. } = record
                && let Some(of) = book.runs.get_mut(&run[..])
            {
                of.starts.push(*attempt);
            }
        }
        book
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

    /// A pair (run, attempt) is started at most once; without a policy of retries, a run is, too.
    fn one_start(&mut self) {
        self.all("one-start", |book| {
            let mut found = Vec::new();
            for (id, run) in &book.runs {
                if run.starts.len() > 1 {
                    found.push((run.number, format!("run {id} on {} started as {:?}", run.host, run.starts)));
                }
                if run.starts.is_empty() && run.end().is_some_and(|end| end.state == RunState::Succeeded) {
                    found.push((run.number, format!("run {id} on {} succeeded and never started", run.host)));
                }
            }
            found
        });
    }

    /// What starts was asked for, by the same words, on this host; what was forged is audited.
    fn no_forged_start(&mut self, history: &[Record]) {
        self.all("no-forged-start", |book| {
            let mut found: Vec<(Option<u64>, String)> = Vec::new();
            for record in history {
                let Record::Started { run, number, token, host, .. } = record else { continue };
                let what = format!("run {run} of {number} on {host}, token {token}");
                match (book.runs.get(&run[..]), book.asked.get(number)) {
                    (None, _) => found.push((Some(*number), format!("{what}: the API knows no such run"))),
                    (_, None) => found.push((Some(*number), format!("{what}: nobody asked for it"))),
                    (Some(_), Some((_, job))) if job.token != *token => {
                        found.push((Some(*number), format!("{what}: what was asked for has another token")));
                    }
                    (Some(known), _) if known.number != *number || (known.host != host && host != "?") => {
                        found.push((
                            Some(*number),
                            format!("{what}: it is for {} of {}", known.host, known.number),
                        ));
                    }
                    _ => {}
                }
            }
            for fault in book.faults.iter().filter(|fault| fault.kind == Fault::RowForged) {
                let inserted =
                    fault.subjects.iter().filter_map(|subject| subject.strip_prefix("inserted-run/"));
                for run in inserted.filter(|run| !book.audited.contains(run)) {
                    found.push((
                        None,
                        format!("the inserted run {run} was refused without a word in the audit"),
                    ));
                }
            }
            for (id, run) in &book.runs {
                let is_refused = run.end().is_some_and(|end| end.reason == Some(Reason::ManifestMismatch));
                if is_refused && !book.audited.contains(id) {
                    found.push((
                        Some(run.number),
                        format!("run {id} was refused without a word in the audit"),
                    ));
                }
            }
            found
        });
    }

    /// On a host nothing starts under a lower fence than what was offered, and started, before; as long as its journal
    /// remembers.
    fn fences(&mut self, history: &[Record]) {
        let started: BTreeSet<(&str, i32)> = history
            .iter()
            .filter_map(|record| match record {
                Record::Started { run, attempt, .. } => Some((&run[..], *attempt)),
                _ => None,
            })
            .collect();
        let mut highest: HashMap<&str, (u64, i64)> = HashMap::new();
        for record in history {
            let Record::Offered { at, run, attempt, host, fence } = record else { continue };
            if !started.contains(&(run, *attempt)) {
                continue;
            }
            let (last, highest) = highest.entry(host).or_default();
            // The highest fence is in the journal, and lost with it.
            let mut losses = self.faults.iter().filter(|f| f.kind == Fault::JournalLost && f.victim == host);
            if losses.any(|loss| *last <= loss.until && loss.at <= *at) {
                *highest = 0;
            }
            if fence < highest {
                let text = format!("run {run} on {host} started under the fence {fence}, after {highest}");
                self.violations.push(Violation { invariant: "no-forged-start", number: None, text });
            }
            (*last, *highest) = (*at, (*highest).max(*fence));
        }
    }

    fn terminal_is_final(&mut self) {
        self.all("final", |book| {
            let mut found = Vec::new();
            for (id, run) in &book.runs {
                let mut ended: Option<&Sight> = None;
                for sight in &run.seen {
                    if let Some(ended) = ended
                        && (ended.state, ended.reason, ended.exit_code)
                            != (sight.state, sight.reason, sight.exit_code)
                    {
                        let (from, to) = (tell(ended), tell(sight));
                        found
                            .push((run.number, format!("run {id} on {} went from {from} to {to}", run.host)));
                    }
                    ended = ended.or(Some(sight).filter(|sight| sight.state.is_terminal()));
                }
            }
            found
        });
    }

    /// What was acknowledged is there at the end, and has ended in time.
    fn result_kept(&mut self, history: &[Record], promise: &Promise) {
        let by = self.faults_over.map(|over| over + promise.settles_within_ms);
        self.all("result-kept", |book| {
            let mut found = Vec::new();
            let mut by_number: HashMap<u64, BTreeSet<&str>> = HashMap::new();
            for (id, run) in &book.runs {
                by_number.entry(run.number).or_default().insert(run.host);
                match (run.end(), by) {
                    (None, _) => found.push((run.number, format!("run {id} on {} never ended", run.host))),
                    (Some(end), Some(by)) if end.at > by => {
                        found.push((
                            run.number,
                            format!("run {id} on {} ended only at {} ms", run.host, end.at),
                        ));
                    }
                    _ => {}
                }
            }
            for (number, (_, job)) in &book.asked {
                let Some((_, execution)) = book.acknowledged.get(number) else {
                    found.push((*number, "the request was never acknowledged".to_owned()));
                    continue;
                };
                let have = by_number.remove(number).unwrap_or_default();
                let want: BTreeSet<&str> = job.hosts.iter().map(String::as_str).collect();
                if have != want {
                    found.push((
                        *number,
                        format!("the execution {execution} has runs on {have:?}, not on {want:?}"),
                    ));
                }
            }
            for record in history {
                match record {
                    Record::Denied { number, answer, .. } => {
                        found.push((*number, format!("the request was denied: {answer}")));
                    }
                    Record::Ended { number, execution, ended: false } => {
                        found.push((
                            *number,
                            format!("the execution {execution} is open, or gone, after all"),
                        ));
                    }
                    _ => {}
                }
            }
            found
        });
    }

    /// Whatever did not end as it was meant to has a fault that explains just this.
    fn outcomes(&mut self, promise: &Promise) {
        self.all("result-kept", |book| {
            let mut found = Vec::new();
            for (id, run) in &book.runs {
                let Some(end) = run.end() else { continue };
                if !book.is_meant(run, end) && !book.is_explained(id, run, end, promise) {
                    let text = format!("run {id} on {}: no fault explains {}", run.host, tell(end));
                    found.push((run.number, text));
                }
            }
            found
        });
    }

    fn is_meant(&self, run: &Run<'_>, end: &Sight) -> bool {
        let Some((_, job)) = self.asked.get(&run.number) else { return false };
        match job.kind {
            Kind::Succeeds => end.state == RunState::Succeeded && end.exit_code == Some(0),
            Kind::Fails => end.state == RunState::Failed && end.exit_code == Some(FAILS_WITH),
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

    fn is_explained(&self, id: &str, run: &Run<'_>, end: &Sight, promise: &Promise) -> bool {
        let asked = self.asked.get(&run.number).map_or(0, |(at, _)| *at);
        let execution = self.acknowledged.get(&run.number).map_or("", |(_, execution)| *execution);
        let within = |fault: &&Broken<'_>| fault.at <= end.at && fault.until + RETURN_MS >= asked;
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
            (RunState::Unknown, Some(Reason::ShimLost)) => shim_killed || done_to(Fault::HostCrashed),
            (RunState::Unknown, Some(Reason::JournalLost)) => done_to(Fault::JournalLost),
            (RunState::Unknown, Some(Reason::AgentLost)) => self.was_away(run.host, asked, end.at, promise),
            (RunState::Failed, Some(Reason::ManifestMismatch)) => self
                .faults
                .iter()
                .any(|f| f.kind == Fault::RowForged && f.subjects.iter().any(|subject| subject == execution)),
            // A host that loses its power takes its processes one after the other; a shim may see its job go before it goes itself.
            (RunState::Failed, Some(Reason::Signaled | Reason::SpawnFailed)) => {
                shim_killed || done_to(Fault::HostCrashed)
            }
            (RunState::Failed | RunState::Expired, Some(Reason::StartExpired)) => self
                .faults
                .iter()
                .filter(within)
                .any(|fault| fault.keeps_away(run.host)),
            _ => false,
        }
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

    /// What is held of a stream is what was written, from the first byte on; of a run that ended with a record, all of it.
    fn whole_output(&mut self) {
        self.all("whole-output", |book| {
            let mut found = Vec::new();
            for (id, run) in &book.runs {
                let Some((_, job)) = book.asked.get(&run.number) else { continue };
                for (stream, size) in [(STDOUT, job.stdout), (STDERR, job.stderr)] {
                    if let Some(wrong) = book.wrong_output(id, run, stream, size) {
                        let text = format!("run {id} on {}, stream {stream}: {wrong}", run.host);
                        found.push((run.number, text));
                    }
                }
            }
            found
        });
    }

    fn wrong_output(&self, id: &str, run: &Run<'_>, stream: u8, size: u64) -> Option<String> {
        let end = run.end()?;
        let has_record = match (end.state, end.reason) {
            (RunState::Succeeded, _) => true,
            (RunState::Cancelled | RunState::TimedOut, _) => !run.starts.is_empty(),
            (RunState::Failed, reason) => matches!(reason, Some(Reason::Exited | Reason::Signaled)),
            _ => false,
        };
        let Some(held) = run.held.get(&stream) else {
            return has_record.then(|| "nobody has looked at it".to_owned());
        };
        if let Some(fault) = &held.fault {
            return Some(fault.clone());
        }
        if held.bytes + held.gap > size {
            return Some(format!("{} bytes of {size}", held.bytes + held.gap));
        }
        if held.gap == 0 && held.sha256 != prefix_hash(run.number, id, stream, held.bytes) {
            return Some(format!("the {} bytes are not those that were written", held.bytes));
        }
        if !has_record {
            return None;
        }
        // With the journal goes the memory of what is still to be sent.
        let is_forgotten =
            self.faults.iter().any(|fault| fault.kind == Fault::JournalLost && fault.victim == run.host);
        if held.complete != Some(true) {
            return (!is_forgotten).then(|| format!("it never became complete: {held:?}"));
        }
        let ended_by_itself = matches!(end.reason, Some(Reason::Exited));
        if held.written != Some(held.bytes + held.gap) || (ended_by_itself && held.bytes + held.gap != size) {
            return Some(format!("of {size} bytes: {held:?}"));
        }
        None
    }

    /// Once a run is shown as cancelled or timed out, no process of it lives.
    fn confirmed_kill(&mut self, history: &[Record], promise: &Promise) {
        self.all("confirmed-kill", |book| {
            let mut found: BTreeMap<&str, (u64, String)> = BTreeMap::new();
            for record in history {
                let Record::Alive { at, runs } = record else { continue };
                for id in runs {
                    let Some(run) = book.runs.get(&id[..]) else { continue };
                    let Some(end) = run.end() else { continue };
                    let is_confirmed = matches!(end.state, RunState::Cancelled | RunState::TimedOut);
                    if is_confirmed && *at >= end.at + promise.gone_within_ms {
                        let late = at - end.at;
                        let text =
                            format!("run {id} on {} is {}, and lived {late} ms later", run.host, tell(end));
                        found.insert(id, (run.number, text));
                    }
                }
            }
            found.into_values().collect()
        });
    }

    fn bounded(&mut self, history: &[Record], promise: &Promise) {
        let mut most: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
        for record in history {
            if let Record::Used { who, memory_kib, disk_kib, .. } = record {
                let most = most.entry(who).or_default();
                *most = (most.0.max(*memory_kib), most.1.max(*disk_kib));
            }
        }
        for (who, (memory, disk)) in most {
            let (memory_bound, disk_bound) = if CONTROLLERS.contains(&who) {
                (promise.controller_kib, u64::MAX)
            } else {
                (promise.agent_kib, promise.agent_disk_kib)
            };
            if memory > memory_bound {
                self.fault(
                    "bounded",
                    None,
                    format!("{who} used {memory} KiB of memory; {memory_bound} are allowed"),
                );
            }
            if disk > disk_bound {
                self.fault(
                    "bounded",
                    None,
                    format!("{who} used {disk} KiB of the disk; {disk_bound} are allowed"),
                );
            }
        }
    }

    /// After all every host works, has nothing left of the past, and what is unknown says why.
    fn no_endless_wait(&mut self, history: &[Record]) {
        for record in history {
            match record {
                Record::Fell { at, who, how } => {
                    self.fault("no-endless-wait", None, format!("{who} ended by itself at {at} ms: {how}"));
                }
                Record::Left { host, folders, .. } if !folders.is_empty() => {
                    self.fault("no-endless-wait", None, format!("{host} still has {folders:?}"));
                }
                Record::Probed { host, succeeded: false } => {
                    self.fault("no-endless-wait", None, format!("{host} does not work any more"));
                }
                _ => {}
            }
        }
        self.all("no-endless-wait", |book| {
            let mut found = Vec::new();
            for (id, run) in &book.runs {
                if run.end().is_some_and(|end| end.reason.is_none()) {
                    found.push((run.number, format!("run {id} on {} ended without a reason", run.host)));
                }
            }
            found
        });
    }

    /// A fault of which nobody can say how it is known is none.
    fn faults_happened(&mut self) {
        let unproven =
            self.faults.iter().filter(|fault| fault.proof.is_empty() || fault.until < fault.at).count();
        if unproven > 0 {
            self.fault("history", None, format!("{unproven} faults without a proof"));
        }
        if self.faults_over.is_none() {
            self.fault("history", None, "it does not say when the faults were over");
        }
    }
}

fn tell(sight: &Sight) -> String {
    let reason = sight.reason.map_or("no reason", Reason::as_str);
    let exit = sight.exit_code.map_or_else(String::new, |code| format!(", exit {code}"));
    format!("{} ({reason}{exit}) at {} ms", sight.state.as_str(), sight.at)
}

/// The hash of the first `bytes` bytes that this stream has.
pub fn prefix_hash(number: u64, run: &str, stream: u8, bytes: u64) -> String {
    hex::encode(Sha256::digest(Content::new(number, run, stream).take(bytes)))
}
