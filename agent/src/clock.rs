//! The wall clock of the agent: the only file that reads it.

use jiff::Timestamp;

/// The time of the host.
#[allow(clippy::disallowed_methods, reason = "this is the one place")]
pub fn now() -> Timestamp {
    Timestamp::now()
}

/// The time of the host in microseconds since 1970 UTC, as the wire carries it.
pub fn now_micros() -> i64 {
    now().as_microsecond()
}
