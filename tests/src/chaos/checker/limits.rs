//! **confirmed-kill** and **bounded**: what was ended is gone, and nobody takes more than is allowed.

use std::collections::BTreeMap;

use model::run::RunState;

use super::{Book, Promise, tell};
use crate::chaos::{history::Record, lab::CONTROLLERS};

impl Book<'_> {
    /// Once a run is shown as cancelled or timed out, no process of it lives.
    pub(super) fn confirmed_kill(&mut self, history: &[Record], promise: &Promise) {
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

    pub(super) fn bounded(&mut self, history: &[Record], promise: &Promise) {
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
}
