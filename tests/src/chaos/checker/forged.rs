//! **no-forged-start**: what starts was asked for, where it starts, under a fence that is not too old.

use std::collections::HashMap;

use model::Reason;

use super::{Attempt, Book};
use crate::chaos::{faults::Kind as Fault, history::Record};

impl Book<'_> {
    /// What starts was asked for, by the same words, on this host; what was forged is audited.
    pub(super) fn no_forged_start(&mut self, history: &[Record]) {
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
    pub(super) fn fences(&mut self) {
        let mut started: Vec<(&str, &Attempt<'_>)> = Vec::new();
        for (id, run) in &self.runs {
            let attempts = run.attempts.iter().filter(|attempt| run.has_started(attempt.number));
            started.extend(attempts.map(|attempt| (*id, attempt)));
        }
        started.sort_by_key(|(_, attempt)| (attempt.at, attempt.fence));
        let mut found: Vec<(Option<u64>, String)> = Vec::new();
        let mut highest: HashMap<&str, (u64, i64)> = HashMap::new();
        for (run, Attempt { at, host, fence, number, .. }) in started {
            let (last, highest) = highest.entry(host).or_default();
            // The highest fence is in the journal, and lost with it.
            let mut losses = self.faults.iter().filter(|f| f.kind == Fault::JournalLost && f.victim == *host);
            if losses.any(|loss| *last <= loss.until && loss.at <= *at) {
                *highest = 0;
            }
            if fence < highest {
                let what = format!("attempt {number} of the run {run} on {host}");
                found.push((None, format!("{what} started under the fence {fence}, after {highest}")));
            }
            (*last, *highest) = (*at, (*highest).max(*fence));
        }
        self.all("no-forged-start", |_| found);
    }
}
