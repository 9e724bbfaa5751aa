//! Every so many seconds of elapsed time, whatever the clocks show.

use jiff::Timestamp;

use crate::{Invalid, command::within, job::Length, limits};

/// The instants `anchor`, `anchor + every`, `anchor + 2 * every`, …
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Interval {
    every: Length,
    anchor: Timestamp,
}

impl Interval {
    /// # Errors
    /// Of the field `every` when it is not within `EVERY_SECONDS`, and of `anchor` when that is no whole second.
    pub fn new(every: Length, anchor: Timestamp) -> Result<Self, Invalid> {
        within("every", every.seconds(), &limits::EVERY_SECONDS)?;
        if anchor.subsec_nanosecond() != 0 {
            return Err(Invalid::new("anchor", "is not a whole second"));
        }
        Ok(Self { every, anchor })
    }

    pub const fn every(&self) -> Length {
        self.every
    }

    pub const fn anchor(&self) -> Timestamp {
        self.anchor
    }

    /// The first one that is not before `from`.
    pub(super) fn next(&self, from: Timestamp) -> Option<Timestamp> {
        let every = self.every.seconds();
        // The seconds of all of time are far from the largest number.
        let past = (from.as_second() - self.anchor.as_second()).max(0);
        let steps = past / every + i64::from(past % every != 0);
        Timestamp::from_second(self.anchor.as_second() + steps * every).ok()
    }
}
