//! What the executor forgets: attempts of which nothing can be ordered any more, and the oldest where there are too many.

use super::Manager;
use crate::{clock, executor::journal::Keep};

impl Manager {
    /// Forgets early when far more is remembered than is to be.
    pub(super) fn prune_surplus(&mut self) {
        if self.known.is_much(Keep::ALL) {
            self.prune();
        }
    }

    pub(super) fn prune(&mut self) {
        let changes = self.known.forget(Keep::ALL, clock::now_micros());
        if changes.is_empty() {
            return;
        }
        // A refusal of which no more than that is left will not be said again by itself.
        self.refused.retain(|key| self.known.has_whole(key));
        let written = self.journal.write(changes);
        self.later(written);
    }
}
