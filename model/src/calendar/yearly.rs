//! Whole days that are the same each year.

use std::ops::RangeInclusive;

use super::wall::{DAY, shown};
use crate::limits;

/// Days that are looked at for a change: a 29 February may be eight years away.
const LOOK_AHEAD: i64 = limits::CALENDAR_LOOK_AHEAD.as_secs().cast_signed() / DAY;

/// The first written entry of each day of a year.
#[derive(Debug, Default)]
pub(super) struct Yearly {
    /// By month and day, 31 to a month; empty when there is no entry at all.
    days: Vec<Option<usize>>,
}

impl Yearly {
    /// Of months, days and the index of their entry.
    pub(super) fn of(entries: impl IntoIterator<Item = ((i8, i8), usize)>) -> Self {
        let mut days = Vec::new();
        for ((month, day), entry) in entries {
            days.resize(12 * 31, None);
            let first = &mut days[place(month, day)];
            *first = Some(first.map_or(entry, |first: usize| first.min(entry)));
        }
        Self { days }
    }

    /// As [`Timeline::first`](super::timeline::Timeline::first).
    pub(super) fn first(&self, range: &RangeInclusive<i64>) -> Option<usize> {
        if self.days.is_empty() {
            return None;
        }
        let days = range.start().div_euclid(DAY)..=range.end().div_euclid(DAY);
        days.filter_map(|day| self.entry(day)).min()
    }

    /// As [`Timeline::leaves`](super::timeline::Timeline::leaves), within ten years or so.
    pub(super) fn leaves(&self, wall: i64) -> Option<i64> {
        let today = wall.div_euclid(DAY);
        self.entry(today)?;
        let next = (today..=today + LOOK_AHEAD).find(|day| self.entry(*day).is_none());
        Some(next.map_or(i64::MAX, |day| day * DAY))
    }

    /// As [`Timeline::enters`](super::timeline::Timeline::enters), within ten years or so.
    pub(super) fn enters(&self, wall: i64) -> Option<i64> {
        if self.days.is_empty() {
            return None;
        }
        let today = wall.div_euclid(DAY);
        let mut days = today + 1..=today + LOOK_AHEAD;
        days.find(|day| self.entry(*day).is_some() && self.entry(day - 1).is_none()).map(|day| day * DAY)
    }

    /// The entry of a day, in days since 1970.
    fn entry(&self, day: i64) -> Option<usize> {
        let date = shown(day * DAY)?.date();
        self.days.get(place(date.month(), date.day())).copied().flatten()
    }
}

fn place(month: i8, day: i8) -> usize {
    usize::try_from((i32::from(month) - 1) * 31 + i32::from(day) - 1).unwrap_or(0)
}
