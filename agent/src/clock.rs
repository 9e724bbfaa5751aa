//! The clocks of the agent: the only file that reads them.

use jiff::Timestamp;
use nix::time::{ClockId, clock_gettime};

/// The time of the host.
#[allow(clippy::disallowed_methods, reason = "this is the one place")]
pub fn now() -> Timestamp {
    Timestamp::now()
}

/// The time of the host in microseconds since 1970 UTC, as the wire carries it.
pub fn now_micros() -> i64 {
    now().as_microsecond()
}

/// Microseconds since the host was booted, the time of its sleep too. It never goes back while the host is up, whichever
/// process asks.
pub fn since_boot_micros() -> u64 {
    let since = clock_gettime(ClockId::CLOCK_BOOTTIME).expect("every Linux has this clock");
    u64::try_from(since.tv_sec() * 1_000_000 + since.tv_nsec() / 1000).unwrap_or(0)
}
