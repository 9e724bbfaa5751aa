//! How often the pipes are read: at once, unless the process writes so many small pieces that reading each of them would
//! cost more than the process does. Quick output keeps the order of its two streams; a steady flow is read in gulps.

use std::time::{Duration, Instant};

/// Small reads that may follow one another at once.
const EAGER: u32 = 32;
/// Time between two small reads of a steady flow; after each such time one more may be eager.
const REST: Duration = Duration::from_millis(4);
/// A read of so many bytes is not small: the flow is wide, and the pipe should be emptied.
const SMALL_BYTES: usize = 16 * 1024;

/// Allows a number of eager reads that grows back with time.
#[derive(Debug)]
pub(super) struct Pace {
    eager: u32,
    counted: Instant,
    rest_until: Option<Instant>,
}

impl Pace {
    pub(super) fn new(now: Instant) -> Self {
        Self { eager: EAGER, counted: now, rest_until: None }
    }

    /// So many bytes were read at `now`.
    pub(super) fn read(&mut self, bytes: usize, now: Instant) {
        if bytes >= SMALL_BYTES {
            self.rest_until = None;
            return;
        }
        let rested = now.saturating_duration_since(self.counted).as_micros() / REST.as_micros();
        if rested > 0 {
            self.eager = self.eager.saturating_add(u32::try_from(rested).unwrap_or(EAGER)).min(EAGER);
            self.counted = now;
        }
        self.rest_until = None;
        match self.eager.checked_sub(1) {
            Some(left) => self.eager = left,
            None => self.rest_until = Some(now + REST),
        }
    }

    /// When the pipes are worth a look again, if that is after `now`.
    pub(super) fn resting(&self, now: Instant) -> Option<Instant> {
        self.rest_until.filter(|until| *until > now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_read_at_once_and_a_steady_flow_in_gulps() {
        let start = Instant::now();
        let mut pace = Pace::new(start);
        for _ in 0..EAGER {
            pace.read(10, start);
            assert_eq!(pace.resting(start), None);
        }
        pace.read(10, start);
        assert_eq!(pace.resting(start), Some(start + REST));
        assert_eq!(pace.resting(start + REST), None, "it is over by itself");

        let later = start + REST * 10;
        for _ in 0..10 {
            pace.read(10, later);
            assert_eq!(pace.resting(later), None, "what was rested may be eager again");
        }
        pace.read(10, later);
        assert!(pace.resting(later).is_some());
    }

    #[test]
    fn a_wide_flow_never_rests() {
        let now = Instant::now();
        let mut pace = Pace::new(now);
        for _ in 0..10 * EAGER {
            pace.read(SMALL_BYTES, now);
            assert_eq!(pace.resting(now), None);
        }
    }
}
