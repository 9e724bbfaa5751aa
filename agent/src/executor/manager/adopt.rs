//! What a new agent process does with what an earlier one left: in the journal, and in folders.

use std::{collections::HashSet, path::PathBuf};

use model::limits;

use super::Manager;
use crate::{
    clock,
    executor::{
        attempt::{self, Attempt},
        decide::{self, OnAdopt},
        journal::{Entry, State},
    },
    messages::AttemptKey,
};

impl Manager {
    /// Takes over what an earlier agent process left.
    pub(super) fn adopt(&mut self) {
        let mut looked_after: HashSet<PathBuf> = HashSet::new();
        let now = clock::now_micros();
        let entries: Vec<(AttemptKey, Entry)> =
            self.known.whole().map(|(key, entry)| (*key, entry.clone())).collect();
        for (key, entry) in entries {
            if decide::is_unsettled(&entry) {
                looked_after.insert(self.shared.folder(key));
            }
            match decide::on_adopt(&entry, now) {
                OnAdopt::Nothing => {}
                OnAdopt::Again => {
                    if entry.state() == State::Refused && self.refused.len() < limits::HOST_UNSETTLED {
                        self.refused.insert(key);
                    }
                    self.say_newest(key);
                }
                OnAdopt::Follow => {
                    tracing::info!(run.id = %key.run_id, run.attempt = key.attempt, "looking after a run of an earlier agent");
                    fault::point("executor.run.adopting");
                    let is_doubtful = entry.state() == State::Starting;
                    let attempt = Attempt { is_doubtful, ..self.attempt(key, entry.boot_id) };
                    self.tasks.spawn(async move {
                        attempt.follow().await;
                        None
                    });
                }
            }
        }
        let folders = std::fs::read_dir(&self.shared.attempts).into_iter().flatten().flatten();
        let left: HashSet<PathBuf> =
            folders.map(|entry| entry.path()).filter(|path| !looked_after.contains(path)).collect();
        if left.is_empty() {
            return;
        }
        let over: HashSet<PathBuf> = self
            .known
            .keys()
            .map(|key| self.shared.folder(*key))
            .filter(|path| left.contains(path))
            .collect();
        for folder in left {
            // Of an attempt that a lost journal knew this is all there is.
            let name = folder.file_name().filter(|_| !over.contains(&folder));
            let aside = name.map(|name| self.shared.lost_attempts.join(name));
            self.tasks.spawn(async move {
                attempt::clear_away(folder, aside).await;
                None
            });
        }
    }
}
