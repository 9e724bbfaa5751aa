//! Orders that supersede an earlier attempt of their run: that one is dead before the new one begins.
//!
//! 1. An earlier attempt whose order never came is remembered as refused, so that a late order starts nothing. The
//!    journal keeps the order of its writes: this is in it before the new attempt is.
//! 2. One that runs is cancelled, and its end is reported as always.
//! 3. The new attempt is admitted, and journaled, only when nothing is left of any earlier one: their shims are gone,
//!    their folders given up, their control groups empty.
//! 4. An agent that dies before that has forgotten the order, as if it had never come; what was done until then holds.

use std::time::Duration;

use model::{Reason, limits};

use super::{Manager, Refusal};
use crate::{
    executor::{
        attempt::{self, Event, Grave},
        order::Order,
    },
    messages::AttemptKey,
};

/// How long what is left of an earlier attempt may take to end.
const BURY_WITHIN: Duration = limits::KILL_GRACE.saturating_add(limits::KILL_WITHIN);

impl Manager {
    /// Makes sure that what the order supersedes is dead, and begins it then.
    pub(super) fn supersede(&mut self, order: Order) {
        let key = order.key;
        let old = AttemptKey { attempt: order.content.superseded_attempt, ..key };
        // A tombstone does not last, and nobody has signed it.
        if self.known.get(&old).is_none_or(|entry| entry.tombstone) {
            let detail = format!("attempt {} of the run superseded it before its order came", key.attempt);
            self.refuse(old, Refusal::new(Reason::NotStarted, &detail));
        }
        for (earlier, _) in self.known.earlier(key) {
            if let Some(cancel) = self.running.get(&earlier) {
                cancel.cancel();
            }
        }
        fault::point("executor.earlier.cancelled");
        self.superseding.insert(key, Some(order));
        self.go_on_superseding();
    }

    /// Goes on with the orders none of whose earlier attempts is followed any more.
    pub(super) fn go_on_superseding(&mut self) {
        let ready: Vec<AttemptKey> = self
            .superseding
            .iter()
            .filter(|(key, order)| {
                order.is_some()
                    && !self.known.earlier(**key).any(|(earlier, _)| self.running.contains_key(&earlier))
            })
            .map(|(key, _)| *key)
            .collect();
        for key in ready {
            let Some(order) = self.superseding.get_mut(&key).and_then(Option::take) else { continue };
            let graves: Vec<(Grave, bool)> = self
                .known
                .earlier(key)
                .map(|(key, entry)| (Grave { key, folder: self.shared.folder(key) }, entry.unkillable))
                .collect();
            let events = self.events.clone();
            self.tasks.spawn(async move {
                let unkillable = bury(graves).await;
                // Without a manager the agent is stopping, and forgets the order.
                let _ = events.send(Event::Superseded { order: Box::new(order), unkillable }).await;
                None
            });
        }
    }

    /// What the order supersedes is dead, or cannot be ended.
    pub(super) fn superseded(&mut self, order: Order, unkillable: Option<u32>) {
        let key = order.key;
        self.superseding.remove(&key);
        fault::point("executor.earlier.dead");
        // Meanwhile it may have been cancelled, or superseded itself.
        if self.is_stopping || self.known.get(&key).is_some() {
            return;
        }
        match unkillable {
            None => self.begin(order, None),
            Some(earlier) => {
                let detail = format!(
                    "attempt {earlier} of the run cannot be ended, so attempt {} does not begin",
                    key.attempt
                );
                self.refuse(key, Refusal::new(Reason::Unkillable, &detail));
            }
        }
    }
}

/// The first that cannot be ended.
async fn bury(graves: Vec<(Grave, bool)>) -> Option<u32> {
    for (grave, unkillable) in graves {
        let attempt = grave.key.attempt;
        if unkillable || !attempt::bury(grave, BURY_WITHIN).await {
            return Some(attempt);
        }
    }
    None
}
