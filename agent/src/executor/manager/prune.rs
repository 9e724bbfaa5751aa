//! What the executor forgets: attempts that have been over for long.

use std::time::Duration;

use super::{Manager, micros};
use crate::{
    clock,
    executor::journal::{Change, State},
    messages::AttemptKey,
};

/// How long it is remembered that an attempt is over, so that a repeated order starts nothing.
const REMEMBER_FOR: Duration = Duration::from_secs(24 * 3600);
/// How many of these are remembered; a still older order is refused by its window.
const REMEMBER_COUNT: usize = 50_000;
/// How many more may gather until they are forgotten before their time.
const REMEMBER_MORE: usize = 1000;

impl Manager {
    /// Forgets early when far more is remembered than is to be.
    pub(super) fn prune_surplus(&mut self) {
        if self.entries.len() > REMEMBER_COUNT + REMEMBER_MORE {
            self.prune();
        }
    }

    pub(super) fn prune(&mut self) {
        let now = clock::now_micros();
        let mut over: Vec<(i64, AttemptKey)> = self
            .entries
            .iter()
            .filter(|(_, entry)| matches!(entry.state(), State::Refused | State::Settled))
            .map(|(key, entry)| (entry.at, *key))
            .collect();
        over.sort_unstable();
        let surplus = over.len().saturating_sub(REMEMBER_COUNT);
        let oldest = now - micros(REMEMBER_FOR);
        let forget = over.iter().enumerate().filter(|(index, (at, _))| *index < surplus || *at < oldest);
        let forget: Vec<AttemptKey> = forget.map(|(_, (_, key))| *key).collect();
        if forget.is_empty() {
            return;
        }
        for key in &forget {
            self.refused.remove(key);
            self.entries.remove(key);
        }
        let written = self.journal.write(forget.into_iter().map(Change::Forget).collect());
        self.later(written);
    }
}
