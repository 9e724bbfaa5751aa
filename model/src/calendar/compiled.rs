//! A calendar made ready for questions: is an instant in it, and until when.

use std::ops::RangeInclusive;

use jiff::{Timestamp, tz::TimeZone};

use super::{
    Calendar, Day, Entry, Kind, When,
    timeline::{Timeline, Weekly},
    wall::{self, DAY},
    yearly::Yearly,
};
use crate::{Invalid, limits};

/// A calendar whose entries are sorted. It answers in microseconds, however many there are.
#[derive(Debug)]
pub struct Compiled {
    calendar: Calendar,
    zone: TimeZone,
    once: Timeline,
    weekly: Weekly,
    yearly: Yearly,
}

impl Compiled {
    /// Checks a calendar and sorts its entries: some milliseconds at the limit.
    ///
    /// # Errors
    /// As [`Calendar::validate`].
    pub fn of(calendar: Calendar) -> Result<Self, Invalid> {
        calendar.validate()?;
        let zone = calendar.time_zone()?;
        let (mut once, mut weekly, mut yearly) = (Vec::new(), Vec::new(), Vec::new());
        for entry in 0..calendar.entries.len() {
            match calendar.when(entry)? {
                When::Days { first, last } => {
                    let midnight = |date: jiff::civil::Date| wall::of(date.to_datetime(Default::default()));
                    once.push((midnight(first)..midnight(last) + DAY, entry));
                }
                When::Window { from, to } => once.push((wall::of(from)..wall::of(to), entry)),
                When::Weekly { days, from, to } => {
                    let of_day = |day: &Day| (day.offset() + from..day.offset() + to, entry);
                    weekly.extend(days.iter().map(of_day));
                }
                When::Yearly { month, day } => yearly.push(((month, day), entry)),
            }
        }
        let (once, weekly, yearly) = (Timeline::of(once), Weekly::of(weekly), Yearly::of(yearly));
        Ok(Self { calendar, zone, once, weekly, yearly })
    }

    pub fn name(&self) -> &str {
        &self.calendar.name
    }

    pub const fn kind(&self) -> Kind {
        self.calendar.kind
    }

    /// The entry that an instant lies in, the one that was written first where there are several.
    pub fn at(&self, instant: Timestamp) -> Option<&Entry> {
        let entry = self.first(&wall::reading(&self.zone, instant))?;
        self.calendar.entries.get(entry)
    }

    /// When what holds at an instant (whether it lies in any entry, not in which) is over: the first later instant at which it
    /// is otherwise. `None` when it goes on for longer than `CALENDAR_LOOK_AHEAD`.
    pub fn until(&self, instant: Timestamp) -> Option<Timestamp> {
        let reading = wall::reading(&self.zone, instant);
        let ahead = i64::try_from(limits::CALENDAR_LOOK_AHEAD.as_secs()).unwrap_or(i64::MAX);
        let horizon = reading.end().saturating_add(ahead);
        if self.first(&reading).is_some() {
            self.until_outside(*reading.start(), horizon)
        } else {
            self.until_inside(*reading.end(), horizon)
        }
    }

    /// From within an entry; what ends before something that began in the same repeated hour is no end.
    fn until_outside(&self, mut wall: i64, horizon: i64) -> Option<Timestamp> {
        loop {
            wall = match self.leaves(wall, horizon) {
                Some(end) => end,
                None => self.leaves(self.enters(wall)?, horizon)?,
            };
            let instant = wall::end(&self.zone, wall).filter(|_| wall <= horizon)?;
            if self.at(instant).is_none() {
                return Some(instant);
            }
        }
    }

    /// From outside; what lies in a skipped hour is not entered.
    fn until_inside(&self, mut wall: i64, horizon: i64) -> Option<Timestamp> {
        loop {
            let enters = self.enters(wall).filter(|wall| *wall <= horizon)?;
            let instant = wall::begin(&self.zone, enters)?;
            if self.at(instant).is_some() {
                return Some(instant);
            }
            wall = self.leaves(enters, horizon)?;
        }
    }

    fn first(&self, reading: &RangeInclusive<i64>) -> Option<usize> {
        let of_each = [self.once.first(reading), self.weekly.first(reading), self.yearly.first(reading)];
        of_each.into_iter().flatten().min()
    }

    /// Where no entry holds any more, if one holds at this place; beyond the horizon just a place there.
    fn leaves(&self, wall: i64, horizon: i64) -> Option<i64> {
        let next = |wall: i64| {
            let of_each = [self.once.leaves(wall), self.weekly.leaves(wall), self.yearly.leaves(wall)];
            of_each.into_iter().flatten().max()
        };
        let mut end = next(wall)?;
        while end <= horizon
            && let Some(further) = next(end)
        {
            end = further;
        }
        Some(end)
    }

    /// The next place behind this one at which an entry begins that holds nowhere just before.
    fn enters(&self, wall: i64) -> Option<i64> {
        let of_each = [self.once.enters(wall), self.weekly.enters(wall), self.yearly.enters(wall)];
        of_each.into_iter().flatten().min()
    }
}

#[cfg(test)]
mod tests;
