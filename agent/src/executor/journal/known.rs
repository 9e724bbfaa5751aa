//! What the executor knows of its attempts, as its journal has it or will have it within moments.
//!
//! 1. Of what the controller may have to hear more, and of fresh refusals, there is the whole entry. Of all else only how it
//!    went is left, a key and a byte: enough that a repeated order starts nothing.
//! 2. The oldest executions are forgotten first: their ids sort by the time at which they were made.
//! 3. What is forgotten raises the floor to its execution's time. Nothing of an execution that was made at or before the
//!    floor starts unless it is known: it may have run. So what may still be ordered has to be above it, and is, as long as
//!    [`Keep::over`] attempts are more than an agent has in [`Keep::over_for`].
//! 4. What a cancel refused before its order came is dropped without that, after a day or when there are too many: it never
//!    began, and whoever took over the link can invent as many as it likes.

use std::{collections::BTreeMap, ops::Bound, time::Duration};

use model::limits;

use super::{Change, Entry, State};
use crate::messages::AttemptKey;

const DAY: Duration = Duration::from_secs(24 * 3600);

/// How much is remembered.
#[derive(Debug, Clone, Copy)]
pub struct Keep {
    /// Attempts of which only is known how they went.
    pub over: usize,
    /// Since their executions were made.
    pub over_for: Duration,
    /// Whole refusals.
    pub refusals: usize,
    pub refusals_for: Duration,
    /// Tombstones, for as long as refusals.
    pub tombstones: usize,
    /// How many more may gather of each until some are given up before their time.
    pub more: usize,
}

impl Keep {
    pub const ALL: Self = Self {
        // Each takes some 60 bytes here, 250 on the disk, and in sled's memory from 200 after a start to 1700 while many come.
        over: 100_000,
        over_for: orderable_for(),
        refusals: 10_000,
        refusals_for: DAY,
        tombstones: 10_000,
        more: 1000,
    };
}

/// For how long after an execution was made there can be orders for it: each of its tries may wait, run, and be followed by
/// a pause. A day of each is for clocks that disagree, and for what finds out that a try is lost.
const fn orderable_for() -> Duration {
    let try_for = limits::START_WITHIN_SECONDS.end().unsigned_abs()
        + limits::TIMEOUT_SECONDS.end().unsigned_abs()
        + limits::RETRY_BACKOFF_SECONDS.end().unsigned_abs()
        + DAY.as_secs();
    Duration::from_secs(limits::RUN_TRIES.end().unsigned_abs() * try_for)
}

/// How an attempt went of which no more is to be said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Over {
    /// It never began.
    Refused,
    Settled,
    /// Settled, and not all of its processes could be killed.
    Unkillable,
}

static REFUSED: Entry = bare(State::Refused, false);
static SETTLED: Entry = bare(State::Settled, false);
static UNKILLABLE: Entry = bare(State::Settled, true);

const fn bare(state: State, unkillable: bool) -> Entry {
    Entry {
        execution_id: Vec::new(),
        state: state as i32,
        at: 0,
        boot_id: String::new(),
        pid: 0,
        started_at: 0,
        report: None,
        unkillable,
        tombstone: false,
    }
}

impl Entry {
    /// No more than how it went: small enough for the database to keep it within its node.
    pub fn bare(key: AttemptKey, state: State, unkillable: bool) -> Self {
        Self { execution_id: key.execution_id.to_bytes(), ..bare(state, unkillable) }
    }
}

impl Over {
    /// All that is to be remembered of this entry, if that is so little.
    fn of(entry: &Entry) -> Option<Self> {
        match entry.state() {
            State::Settled if entry.unkillable => Some(Self::Unkillable),
            State::Settled => Some(Self::Settled),
            State::Refused if entry.report.is_none() => Some(Self::Refused),
            _ => None,
        }
    }

    /// The entry that says this and no more, without the execution's id, which is in its key.
    fn entry(self) -> &'static Entry {
        match self {
            Self::Refused => &REFUSED,
            Self::Settled => &SETTLED,
            Self::Unkillable => &UNKILLABLE,
        }
    }
}

#[derive(Debug, Clone, Default, PartialEq)]
pub struct Known {
    whole: BTreeMap<AttemptKey, Entry>,
    over: BTreeMap<AttemptKey, Over>,
    /// The newest time of an execution of which something is forgotten, in milliseconds since 1970 UTC.
    floor: Option<u64>,
}

impl Known {
    pub(super) fn new(floor: Option<u64>) -> Self {
        Self { floor, ..Self::default() }
    }

    pub fn floor(&self) -> Option<u64> {
        self.floor
    }

    /// Is there nothing?
    pub fn is_empty(&self) -> bool {
        self.whole.is_empty() && self.over.is_empty()
    }

    pub fn get(&self, key: &AttemptKey) -> Option<&Entry> {
        self.whole.get(key).or_else(|| self.over.get(key).map(|over| over.entry()))
    }

    /// What there is a whole entry of.
    pub fn whole(&self) -> impl Iterator<Item = (&AttemptKey, &Entry)> {
        self.whole.iter()
    }

    /// Is there a whole entry of it?
    pub fn has_whole(&self, key: &AttemptKey) -> bool {
        self.whole.contains_key(key)
    }

    pub fn whole_mut(&mut self, key: &AttemptKey) -> Option<&mut Entry> {
        self.whole.get_mut(key)
    }

    pub fn keys(&self) -> impl Iterator<Item = &AttemptKey> {
        self.whole.keys().chain(self.over.keys())
    }

    /// The earlier attempts of the same run.
    pub fn earlier(&self, key: AttemptKey) -> impl Iterator<Item = (AttemptKey, &Entry)> {
        let earlier = AttemptKey { attempt: 0, ..key }..key;
        let over = self.over.range(earlier.clone()).map(|(key, over)| (*key, over.entry()));
        self.whole.range(earlier).map(|(key, entry)| (*key, entry)).chain(over)
    }

    /// The latest attempt of the same run after this one of which an order is known; a cancel that came before its order is none.
    pub fn latest_after(&self, key: AttemptKey) -> Option<u32> {
        let after = (Bound::Excluded(key), Bound::Included(AttemptKey { attempt: u32::MAX, ..key }));
        let over = self.over.range(after).map(|(key, _)| key);
        let ordered = self.whole.range(after).filter(|(_, entry)| !entry.tombstone).map(|(key, _)| key);
        ordered.chain(over).map(|key| key.attempt).max()
    }

    /// Whether this attempt may have been known once.
    pub fn is_forgotten(&self, key: &AttemptKey) -> bool {
        self.get(key).is_none() && self.floor.is_some_and(|floor| key.execution_id.millis() <= floor)
    }

    pub fn put(&mut self, key: AttemptKey, entry: Entry) {
        if let Some(over) = Over::of(&entry) {
            self.whole.remove(&key);
            self.over.insert(key, over);
        } else {
            self.over.remove(&key);
            self.whole.insert(key, entry);
        }
    }

    /// Whether so much has gathered that it is time to [`Self::forget`] some.
    pub fn is_much(&self, keep: Keep) -> bool {
        self.over.len() > keep.over + keep.more
            || self.whole.len() > limits::HOST_UNSETTLED + keep.refusals + keep.tombstones + keep.more
    }

    /// Gives up what is more than to be kept; what the journal has to be told of that. `now` is in microseconds since 1970 UTC.
    pub fn forget(&mut self, keep: Keep, now: i64) -> Vec<Change> {
        let mut changes = Vec::new();
        let oldest = now.saturating_sub_unsigned(micros(keep.refusals_for));
        for key in self.refusals_to_give_up(false, keep.refusals, oldest) {
            let entry = Entry::bare(key, State::Refused, false);
            self.put(key, entry.clone());
            changes.push(Change::Put(key, entry.into()));
        }
        for key in self.refusals_to_give_up(true, keep.tombstones, oldest) {
            self.whole.remove(&key);
            changes.push(Change::Drop(key));
        }
        let oldest = u64::try_from(now).unwrap_or(0).saturating_sub(micros(keep.over_for)) / 1000;
        while let Some(first) = self.over.first_entry() {
            let key = *first.key();
            let made = key.execution_id.millis();
            if made >= oldest && self.over.len() <= keep.over {
                break;
            }
            self.over.remove(&key);
            self.floor = self.floor.max(Some(made));
            changes.push(Change::Forget(key));
        }
        changes
    }

    /// The whole refusals, tombstones or others, that are older than `oldest`, and the oldest of more than `keep`.
    fn refusals_to_give_up(&self, tombstones: bool, keep: usize, oldest: i64) -> Vec<AttemptKey> {
        let is_one = |entry: &Entry| entry.state() == State::Refused && entry.tombstone == tombstones;
        let whole = self.whole.iter().filter(|(_, entry)| is_one(entry));
        let mut refusals: Vec<(i64, AttemptKey)> = whole.map(|(key, entry)| (entry.at, *key)).collect();
        refusals.sort_unstable();
        let surplus = refusals.len().saturating_sub(keep);
        let given_up = |(index, (at, _)): &(usize, (i64, AttemptKey))| *index < surplus || *at < oldest;
        refusals.into_iter().enumerate().filter(given_up).map(|(_, (_, key))| key).collect()
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
