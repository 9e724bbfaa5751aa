//! Firings of many schedules at one time, spread.

use std::time::Duration;

use jiff::Timestamp;
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

/// How long after `due` a schedule really begins: from nothing up to but without `width`, in whole microseconds, which is
/// what the database keeps. It is the same wherever and whenever it is asked.
///
/// The first eight bytes of the SHA-256 of the schedule's sixteen and the eight of `due` in seconds since 1970 UTC, all
/// with the highest first, are taken as a fraction of `width`.
pub fn jitter(schedule_id: Uuid, due: Timestamp, width: Duration) -> Duration {
    let hash = Sha256::new().chain_update(schedule_id).chain_update(due.as_second().to_be_bytes()).finalize();
    let (first, _) = hash.split_first_chunk().expect("a hash has 32 bytes");
    let fraction = u128::from(u64::from_be_bytes(*first));
    let micros = u64::try_from(width.as_micros()).unwrap_or(u64::MAX);
    let part = (fraction * u128::from(micros)) >> 64;
    Duration::from_micros(u64::try_from(part).expect("less than the width"))
}
