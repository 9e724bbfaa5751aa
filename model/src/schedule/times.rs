//! Times of day: every combination of some hours, minutes and seconds.

use jiff::civil::{DateTime, Time};

/// A bit for each hour, minute and second that belongs to it; none of the sets is empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Times {
    pub(super) hours: u64,
    pub(super) minutes: u64,
    pub(super) seconds: u64,
}

/// Every hour of a day.
pub(super) const HOURS: u64 = (1 << 24) - 1;
/// Every minute of an hour.
pub(super) const MINUTES: u64 = (1 << 60) - 1;

impl Times {
    /// The first one of a day.
    pub(super) fn first(self) -> Time {
        time(lowest(self.hours), lowest(self.minutes), lowest(self.seconds))
    }

    /// The first one of a day that is not before `from`.
    pub(super) fn at_or_after(self, from: Time) -> Option<Time> {
        let (hour, minute, second) = (from.hour(), from.minute(), from.second());
        if has(self.hours, hour) {
            if has(self.minutes, minute)
                && let Some(second) = next(self.seconds, second)
            {
                return Some(time(hour, minute, second));
            }
            if let Some(minute) = next(self.minutes, minute + 1) {
                return Some(time(hour, minute, lowest(self.seconds)));
            }
        }
        let hour = next(self.hours, hour + 1)?;
        Some(time(hour, lowest(self.minutes), lowest(self.seconds)))
    }

    /// How many there are in a day.
    pub(super) const fn count(self) -> usize {
        (self.hours.count_ones() * self.minutes.count_ones() * self.seconds.count_ones()) as usize
    }

    /// The one before which there are so many in a day; `place` is less than [`Times::count`].
    pub(super) fn nth(self, place: usize) -> Time {
        let (minutes, seconds) = (self.minutes.count_ones() as usize, self.seconds.count_ones() as usize);
        let nth = |set, place| bits(set).nth(place).expect("place is less than the count");
        time(
            nth(self.hours, place / seconds / minutes),
            nth(self.minutes, place / seconds % minutes),
            nth(self.seconds, place % seconds),
        )
    }

    /// Whether it has a time in every hour.
    pub(super) const fn is_hourly(self) -> bool {
        self.hours == HOURS
    }
}

/// The first whole second that is not before `local`.
pub(super) fn whole_second(local: DateTime) -> Option<DateTime> {
    if local.subsec_nanosecond() == 0 {
        return Some(local);
    }
    let floor = local.with().subsec_nanosecond(0).build().ok()?;
    floor.checked_add(jiff::SignedDuration::from_secs(1)).ok()
}

/// The numbers of a set, in order.
pub(super) fn bits(set: u64) -> impl Iterator<Item = i8> {
    let sets = std::iter::successors(Some(set), |set| Some(set & set.wrapping_sub(1)));
    sets.take_while(|set| *set != 0).map(lowest)
}

const fn has(set: u64, number: i8) -> bool {
    set >> number & 1 == 1
}

/// The lowest number of `set` from `from` (at most 63) on.
fn next(set: u64, from: i8) -> Option<i8> {
    let rest = set >> from;
    (rest != 0).then(|| from + lowest(rest))
}

fn lowest(set: u64) -> i8 {
    i8::try_from(set.trailing_zeros()).expect("at most 64")
}

fn time(hour: i8, minute: i8, second: i8) -> Time {
    Time::new(hour, minute, second, 0).expect("sets hold hours, minutes and seconds of a day")
}
