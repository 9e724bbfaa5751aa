//! What happens on the host: the tasks of attempts, their shims, and what is cleared away behind them.

use model::Reason;

use super::{Folder, Shim, Step, Then, ToLink, record};
use crate::{
    executor::{
        decide,
        journal::State,
        report,
        simulation::{Mutant, World, name},
    },
    messages::AttemptKey,
};

impl World {
    /// What `executor/attempt.rs` does next for an attempt.
    pub(super) fn task_step(&mut self, key: AttemptKey) {
        let takes_its_time = self.has(Mutant::TakesItsTime);
        let (now, agent) = (self.now, &mut self.agent);
        let Some(task) = agent.executor.running.get_mut(&key) else { return };
        let folder = agent.folders.get_mut(&key);
        match (task.step, folder) {
            (Step::Journaling, _) => {}
            (Step::Folder, Some(_)) => agent.end(now, key, report::lost(key, Reason::JournalLost, "")),
            (Step::Folder, None) => {
                task.step = Step::Shim;
                agent.folders.insert(key, Folder { shim: Shim::None, record: None, cancel: false });
                let report = report::accepted(key);
                if let Some(entry) = agent.executor.known.entries.get_mut(&key) {
                    entry.report = Some(report.clone());
                }
                agent.executor.outbox.push_back(ToLink::Report(report));
            }
            (Step::Shim, Some(folder)) => {
                let reason = if task.cancel {
                    Reason::Cancelled
                } else if !takes_its_time && decide::is_too_late(task.start_by, now + agent.clock) {
                    Reason::StartExpired
                } else {
                    task.step = Step::Follow;
                    folder.shim = Shim::Ready;
                    return self.witness.decided(key);
                };
                let record = record(key, reason);
                folder.record = Some(record.clone());
                agent.end(now, key, report::finished(key, record, Vec::new()));
            }
            (Step::Follow, Some(Folder { record: Some(record), .. })) => {
                let report = report::finished(key, record.clone(), Vec::new());
                agent.end(now, key, report);
            }
            (Step::Follow, Some(folder)) if matches!(folder.shim, Shim::Ready | Shim::Running) => {
                folder.cancel |= task.cancel;
                if folder.shim == Shim::Running && !std::mem::replace(&mut task.told_start, true) {
                    let report = report::started(key, 1, now, "");
                    agent.put(now, key, State::Started, Some(report.clone()), Then::Nothing);
                    agent.executor.outbox.push_back(ToLink::Report(report));
                }
            }
            (Step::Follow, folder) => {
                let never_began = folder.is_none_or(|folder| folder.shim == Shim::None);
                if never_began && agent.proves {
                    agent.executor.running.remove(&key);
                    agent.executor.clearing.insert(key);
                    agent.refuse(now, key, Reason::NotStarted);
                } else {
                    agent.end(now, key, report::lost(key, Reason::ShimLost, ""));
                }
            }
            (Step::Shim, None) => unreachable!("a folder is there until its attempt is settled"),
        }
    }

    /// Shims go on by themselves.
    pub(super) fn shim_step(&mut self) {
        let keys: Vec<AttemptKey> = self.agent.folders.keys().copied().collect();
        let Some(key) = self.rng.choice(keys) else { return };
        let folder = self.agent.folders.get_mut(&key).unwrap();
        match folder.shim {
            Shim::None | Shim::Gone => {}
            Shim::Ready => {
                folder.shim = Shim::Running;
                self.say(|| format!("{} runs", name(key)));
                self.witness.started(key);
            }
            Shim::Running if self.faults && self.rng.u8(..) < 4 => folder.shim = Shim::Gone,
            Shim::Running => {
                let reason = match (folder.cancel, self.rng.u8(0..4)) {
                    (_, 0) => Reason::Exited,
                    (true, _) => Reason::Cancelled,
                    _ => return,
                };
                folder.shim = Shim::Gone;
                folder.record = Some(record(key, reason));
            }
        }
    }

    pub(super) fn clear_away(&mut self) {
        let Some(key) = self.agent.executor.clearing.iter().next().copied() else { return };
        match self.agent.folders.get_mut(&key) {
            Some(folder) if matches!(folder.shim, Shim::Ready | Shim::Running) => folder.cancel = true,
            _ => {
                self.agent.folders.remove(&key);
                self.agent.executor.clearing.remove(&key);
            }
        }
    }
}
