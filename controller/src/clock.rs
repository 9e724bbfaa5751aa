//! The only place that reads the wall clock and draws randomness; everything else is handed what it needs.

#![allow(clippy::disallowed_methods, reason = "this is the one file that may")]

use jiff::{Timestamp, TimestampRound, Unit};

/// Now, in the microseconds that Postgres keeps, so that what was signed equals what is read back.
pub(crate) fn now() -> Timestamp {
    let now = Timestamp::now();
    now.round(TimestampRound::new().smallest(Unit::Microsecond).mode(jiff::RoundMode::Trunc)).unwrap_or(now)
}

/// The randomness of one id.
pub(crate) fn entropy() -> [u8; 10] {
    pki::random()
}

/// Any number.
pub(crate) fn dice() -> u64 {
    u64::from_le_bytes(pki::random())
}
