//! **final** and **result-kept**: what has ended stays as it is, and what was acknowledged ends.

use std::collections::{BTreeSet, HashMap};

use super::{Book, Promise, Sight, tell};
use crate::chaos::history::Record;

impl Book<'_> {
    /// An end that was seen is the end.
    pub(super) fn terminal_is_final(&mut self) {
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
    pub(super) fn result_kept(&mut self, history: &[Record], promise: &Promise) {
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
}
