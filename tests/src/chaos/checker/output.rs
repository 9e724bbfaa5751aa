//! **whole-output**: what is held is what was written, by a hash that follows from the job alone.

use model::{Reason, attempt::AttemptState};
use sha2::{Digest, Sha256};

use super::{Attempt, Book, Run};
use crate::chaos::{
    content::{Content, STDERR, STDOUT},
    faults::Kind as Fault,
};

impl Book<'_> {
    /// What is held of a stream is what its attempt wrote, from the first byte on; of one that ended with a record, all of it.
    pub(super) fn whole_output(&mut self) {
        self.all("whole-output", |book| {
            let mut found = Vec::new();
            for (id, run) in &book.runs {
                let Some((_, job)) = book.asked.get(&run.number) else { continue };
                if run.end().is_none() {
                    continue;
                }
                for attempt in &run.attempts {
                    for (stream, size) in [(STDOUT, job.stdout), (STDERR, job.stderr)] {
                        if let Some(wrong) = book.wrong_output(id, run, attempt, stream, size) {
                            let what = format!("run {id} on {}, attempt {}", run.host, attempt.number);
                            found.push((run.number, format!("{what}, stream {stream}: {wrong}")));
                        }
                    }
                }
                for ((number, stream), held) in &run.held {
                    let is_known = run.attempts.iter().any(|attempt| attempt.number == *number);
                    if !is_known && held.bytes + held.gap > 0 {
                        let text =
                            format!("run {id}: attempt {number} is none, and wrote to stream {stream}");
                        found.push((run.number, text));
                    }
                }
            }
            found
        });
    }

    fn wrong_output(
        &self,
        id: &str,
        run: &Run<'_>,
        attempt: &Attempt<'_>,
        stream: u8,
        size: u64,
    ) -> Option<String> {
        let has_record = attempt.state == AttemptState::Finished
            && match attempt.reason {
                Some(Reason::Exited | Reason::Signaled) => true,
                Some(Reason::Cancelled | Reason::TimeLimit) => run.has_started(attempt.number),
                _ => false,
            };
        let Some(held) = run.held.get(&(attempt.number, stream)) else {
            return has_record.then(|| "nobody has looked at it".to_owned());
        };
        if let Some(fault) = &held.fault {
            return Some(fault.clone());
        }
        if held.bytes + held.gap > size {
            return Some(format!("{} bytes of {size}", held.bytes + held.gap));
        }
        if held.gap == 0 && held.sha256 != prefix_hash(run.number, id, attempt.number, stream, held.bytes) {
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
        let ended_by_itself = attempt.reason == Some(Reason::Exited);
        if held.written != Some(held.bytes + held.gap) || (ended_by_itself && held.bytes + held.gap != size) {
            return Some(format!("of {size} bytes: {held:?}"));
        }
        None
    }
}

/// The hash of the first `bytes` bytes that this stream of this attempt has.
pub(super) fn prefix_hash(number: u64, run: &str, attempt: i32, stream: u8, bytes: u64) -> String {
    hex::encode(Sha256::digest(Content::new(number, run, attempt, stream).take(bytes)))
}
