//! **no-endless-wait**, and whether the history is one: how everything stands when all is over.

use super::Book;
use crate::chaos::history::Record;

impl Book<'_> {
    /// After all every host works, has nothing left of the past, and what is unknown says why.
    pub(super) fn no_endless_wait(&mut self, history: &[Record]) {
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
    pub(super) fn faults_happened(&mut self) {
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
