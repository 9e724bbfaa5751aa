//! The wall clock and the randomness of the load generator: the only file that reads them.

use std::time::Duration;

use jiff::Timestamp;

/// The time of this machine.
#[allow(clippy::disallowed_methods, reason = "this is the one place")]
pub(crate) fn now() -> Timestamp {
    Timestamp::now()
}

/// The time of this machine in microseconds since 1970 UTC, as the wire and the emitted lines carry it.
pub(crate) fn now_micros() -> i64 {
    now().as_microsecond()
}

/// What a new id is made with.
pub(crate) fn entropy() -> [u8; 10] {
    pki::random()
}

/// A duration from zero to `longest`, evenly distributed.
pub(crate) fn within(longest: Duration) -> Duration {
    let share = f64::from(u32::from_be_bytes(pki::random())) / f64::from(u32::MAX);
    longest.mul_f64(share)
}
