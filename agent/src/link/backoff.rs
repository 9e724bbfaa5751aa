//! How long to wait before the next try: exponential with full jitter, so that a thousand agents that lost their
//! controller in the same instant do not come back in the same instant.

use std::time::Duration;

/// Waits of one loop of tries.
///
/// Invariant: the n-th wait is uniformly distributed between zero and `min(cap, base · 2ⁿ)`.
#[derive(Debug)]
pub(crate) struct Backoff {
    base: Duration,
    cap: Duration,
    failures: u32,
}

impl Backoff {
    pub(crate) const fn new(base: Duration, cap: Duration) -> Self {
        Self { base, cap, failures: 0 }
    }

    /// The wait after one more failure.
    pub(crate) fn next(&mut self) -> Duration {
        let ceiling = self.ceiling();
        self.failures = self.failures.saturating_add(1);
        jitter(ceiling)
    }

    /// What was tried has worked.
    pub(crate) const fn reset(&mut self) {
        self.failures = 0;
    }

    /// How many failures there were since it last worked.
    pub(crate) const fn failures(&self) -> u32 {
        self.failures
    }

    fn ceiling(&self) -> Duration {
        let factor = 2_u32.checked_pow(self.failures).unwrap_or(u32::MAX);
        self.base.checked_mul(factor).unwrap_or(self.cap).min(self.cap)
    }
}

/// A duration between zero and `ceiling`.
pub(crate) fn jitter(ceiling: Duration) -> Duration {
    ceiling.mul_f64(fastrand::f64())
}

/// `middle` give or take `share` of it (0.1 for ten percent).
pub(crate) fn around(middle: Duration, share: f64) -> Duration {
    middle.mul_f64(1.0 - share + 2.0 * share * fastrand::f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: Duration = Duration::from_millis(500);
    const CAP: Duration = Duration::from_secs(30);

    #[test]
    fn waits_stay_below_their_doubling_ceiling_and_the_cap() {
        let mut backoff = Backoff::new(BASE, CAP);
        for failure in 0..200_u32 {
            let ceiling = BASE.checked_mul(1 << failure.min(20)).map_or(CAP, |wanted| wanted.min(CAP));
            assert!(backoff.next() <= ceiling, "failure {failure}");
        }
        backoff.reset();
        assert!(backoff.next() <= BASE);
    }

    #[test]
    fn jitter_uses_the_whole_range() {
        let waits: Vec<_> = (0..1000).map(|_| jitter(CAP)).collect();
        assert!(waits.iter().any(|wait| *wait < CAP / 10));
        assert!(waits.iter().any(|wait| *wait > CAP * 9 / 10));
        assert!(
            (0..1000).map(|_| around(CAP, 0.1)).all(|wait| wait >= CAP * 9 / 10 && wait <= CAP * 11 / 10)
        );
    }
}
