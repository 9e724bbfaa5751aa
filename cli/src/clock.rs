//! The only place that reads the wall clock and draws randomness; everything else is handed what it needs.

#![allow(clippy::disallowed_methods, reason = "this is the one file that may")]

use std::time::Duration;

use jiff::Timestamp;

pub(crate) fn now() -> Timestamp {
    Timestamp::now()
}

/// A key that no other invocation uses. It has to be unique, not secret.
pub(crate) fn idempotency_key() -> String {
    let mut entropy = [0; 10];
    fastrand::fill(&mut entropy);
    model::id::uuid_v7(now(), entropy).to_string()
}

/// A time between half of `delay` and all of it, so that many clients do not come back in step.
pub(crate) fn jittered(delay: Duration) -> Duration {
    delay.mul_f64(0.5 + fastrand::f64() / 2.0)
}
