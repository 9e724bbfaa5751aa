//! Who was seen lately, with what is granted to them, so that a request costs no statement of its own.
//!
//! 1. What is here is believed for [`limits::ACCESS_BELIEVED`], then read again: a right that was taken away on another
//!    controller is gone after that.
//! 2. Every verb of this controller that changes what somebody may do calls [`Known::forget`] after its commit. What was
//!    read before that and comes late is not kept.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use model::limits;
use tokio::time::Instant;

use super::Actor;

/// Credentials that are remembered; over it all are forgotten.
const REMEMBERED: usize = 20_000;

/// SHA-256 of what a client sent as its credential.
pub(crate) type Key = [u8; 32];

#[derive(Debug, Default)]
pub(crate) struct Known(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    /// Counts up with every [`Known::forget`].
    era: u64,
    actors: HashMap<Key, (Instant, Arc<Actor>)>,
}

impl Known {
    /// Whom the credential belongs to, or the era in which it has to be read.
    pub(crate) fn get(&self, key: &Key) -> Result<Arc<Actor>, u64> {
        let inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match inner.actors.get(key) {
            Some((until, actor)) if Instant::now() < *until => Ok(Arc::clone(actor)),
            _ => Err(inner.era),
        }
    }

    /// Remembers what was read in `era`.
    pub(crate) fn put(&self, key: Key, era: u64, actor: &Arc<Actor>) {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if inner.era != era {
            return;
        }
        if inner.actors.len() >= REMEMBERED {
            inner.actors.clear();
        }
        inner.actors.insert(key, (Instant::now() + limits::ACCESS_BELIEVED, Arc::clone(actor)));
    }

    /// Something that decides about rights has changed.
    pub(crate) fn forget(&self) {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        inner.era += 1;
        inner.actors.clear();
    }
}
