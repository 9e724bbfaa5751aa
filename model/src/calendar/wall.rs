//! The clock on the wall of a zone: what it shows when, and when it shows something. What it shows is told in seconds since
//! it showed 1970-01-01T00:00, skipped and repeated hours not counted.

use std::ops::RangeInclusive;

use jiff::{
    SignedDuration, Timestamp,
    civil::{DateTime, date},
    tz::{AmbiguousOffset, Offset, TimeZone},
};

pub(super) const DAY: i64 = 24 * 3600;

const EPOCH: DateTime = date(1970, 1, 1).at(0, 0, 0, 0);

/// Rounded down to the second.
pub(super) fn of(shown: DateTime) -> i64 {
    // A negative fraction would round up.
    shown.duration_since(EPOCH).as_nanos().div_euclid(1_000_000_000).try_into().unwrap_or(i64::MAX)
}

/// `None` beyond the years that there are.
pub(super) fn shown(wall: i64) -> Option<DateTime> {
    EPOCH.checked_add(SignedDuration::from_secs(wall)).ok()
}

/// What the clock shows at an instant. In a time that comes twice it is a range: in its first coming what it began with (from
/// where a window that ends in it is not over) up to now, in its second from now up to its end (to where a window that
/// begins in it has begun). So neither end of the range ever goes back, though the clock does.
pub(super) fn reading(zone: &TimeZone, at: Timestamp) -> RangeInclusive<i64> {
    let civil = zone.to_datetime(at);
    let now = of(civil);
    let AmbiguousOffset::Fold { before, after } = zone.to_ambiguous_timestamp(civil).offset() else {
        return now..=now;
    };
    let is_first = zone.to_offset(at) == before;
    let change = if is_first {
        zone.following(at).find(|change| change.offset() == after)
    } else {
        // The moment of the change is of the second coming.
        let behind = at.checked_add(SignedDuration::from_nanos(1)).unwrap_or(at);
        zone.preceding(behind).find(|change| change.offset() == after)
    };
    let Some(change) = change else { return now..=now };
    let shows = |offset: Offset| of(offset.to_datetime(change.timestamp()));
    if is_first { shows(after)..=now } else { now..=shows(before) - 1 }
}

/// The first instant at which the clock shows this or later. `None` beyond the years that there are.
pub(super) fn begin(zone: &TimeZone, wall: i64) -> Option<Timestamp> {
    let civil = shown(wall)?;
    match zone.to_ambiguous_timestamp(civil).offset() {
        AmbiguousOffset::Unambiguous { offset } => offset.to_timestamp(civil).ok(),
        AmbiguousOffset::Fold { before, .. } => before.to_timestamp(civil).ok(),
        AmbiguousOffset::Gap { after, .. } => skip(zone, civil, after),
    }
}

/// The first instant from which on the clock always shows this or later. `None` beyond the years that there are.
pub(super) fn end(zone: &TimeZone, wall: i64) -> Option<Timestamp> {
    let civil = shown(wall)?;
    match zone.to_ambiguous_timestamp(civil).offset() {
        AmbiguousOffset::Unambiguous { offset } => offset.to_timestamp(civil).ok(),
        AmbiguousOffset::Fold { before, after } => {
            let second = after.to_timestamp(civil).ok()?;
            let first = before.to_timestamp(civil).ok()?;
            // Where the clock is put back to just this, it does not go back before it.
            Some(if *reading(zone, first).start() >= wall { first } else { second })
        }
        AmbiguousOffset::Gap { after, .. } => skip(zone, civil, after),
    }
}

/// The moment at which the clock skips what it would show, to an offset.
fn skip(zone: &TimeZone, civil: DateTime, after: Offset) -> Option<Timestamp> {
    let earlier = after.to_timestamp(civil).ok()?;
    let change = zone.following(earlier).find(|change| change.offset() == after)?;
    Some(change.timestamp())
}

#[cfg(test)]
mod tests;
