//! Recurrence rules of RFC 5545 (iCalendar), 3.3.10: which local times follow from a first one.
//!
//! What the RFC leaves open is settled so:
//!
//! - All is told on the clock, on which each day has 24 hours: `FREQ=HOURLY;INTERVAL=5` counts the hours that the clock
//!   would show. What a zone's clock skips or repeats is not the rule's business.
//! - `DTSTART` is where counting begins; it is a match only when the rule matches it. What the rule does not say of a
//!   date or a time is taken from it: `FREQ=YEARLY;BYWEEKNO=20` is on its weekday.
//! - `FREQ=YEARLY;BYMONTHDAY=13` is the 13th of every month.
//! - A day belongs to the calendar year that it lies in, also when its week belongs to another.
//! - `COUNT` counts matches, whatever becomes of them in a zone.

mod days;
mod parts;

use std::fmt;

use jiff::{
    SignedDuration,
    civil::{Date, DateTime, Time},
    tz::TimeZone,
};

use self::{days::Days, parts::Parts};
use super::times::{HOURS, MINUTES, Times, bits, whole_second};
use crate::{Invalid, limits};

/// A recurrence rule with its first local time. Its `Display` is the text, in capitals.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rrule {
    text: String,
    start: DateTime,
    frequency: Frequency,
    interval: i64,
    days: Days,
    times: Times,
    /// Which matches of a period count, negative from its end; all when empty.
    positions: Vec<i16>,
    /// The last match, where there is one.
    end: Option<DateTime>,
}

/// Every month of a year.
const MONTHS: u64 = (1 << 13) - 2;

/// The period whose every n-th one has matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(super) enum Frequency {
    Minutely,
    Hourly,
    #[default]
    Daily,
    Weekly,
    Monthly,
    Yearly,
}

impl Rrule {
    /// Reads a rule, with or without `RRULE:` before it, that begins at `start`, a whole second of the clock of `zone`.
    ///
    /// # Errors
    /// Of the field `rrule`: which part is wrong and what is allowed, or that it never comes. The limits are
    /// `RRULE_BYTES`, `RRULE_INTERVAL` and `RRULE_COUNT`.
    pub fn parse(text: &str, start: DateTime, zone: &TimeZone) -> Result<Self, Invalid> {
        if text.len() > limits::RRULE_BYTES {
            return Err(Invalid::over("rrule", "RRULE_BYTES", limits::RRULE_BYTES, "bytes"));
        }
        let text = text.trim().to_ascii_uppercase();
        let text = text.strip_prefix("RRULE:").unwrap_or(&text).trim_end_matches(';');
        let parts = Parts::read(text, zone)?;
        let mut rule = Self::new(text.to_owned(), start, &parts);
        let never = |why: &str| Err(Invalid::new("rrule", format!("never comes: {why}")));
        if rule.never_aligns() {
            return never("its INTERVAL from dtstart leads to none of its hours and minutes");
        }
        if rule.has_no_position() {
            return never("its BYSETPOS is beyond the times of each period");
        }
        let Some(first) = rule.next(start) else {
            return never("no date within 400 years of dtstart has all that it says");
        };
        rule.end = match parts.count {
            Some(count) => Some(rule.nth(first, count)),
            None => parts.until,
        };
        if rule.end.is_some_and(|end| end < first) {
            return never(&format!("its first time, {first}, is after UNTIL"));
        }
        Ok(rule)
    }

    /// Fills in from the start what the parts do not say.
    fn new(text: String, start: DateTime, parts: &Parts) -> Self {
        use Frequency::{Hourly, Minutely, Monthly, Weekly, Yearly};
        let frequency = parts.frequency;
        let mut days = Days {
            months: set(&parts.months, MONTHS),
            month_days: parts.month_days.clone(),
            year_days: parts.year_days.clone(),
            weeks: parts.weeks.clone(),
            weekdays: parts.days.clone(),
            nth_of_year: frequency == Yearly && parts.months.is_empty(),
            week_start: parts.week_start,
        };
        let says_no_day = days.month_days.is_empty() && days.year_days.is_empty() && days.weekdays.is_empty();
        match frequency {
            Weekly | Yearly if says_no_day && (frequency == Weekly || !days.weeks.is_empty()) => {
                days.weekdays.push((0, sunday_is_zero(start.date())));
            }
            Monthly | Yearly if says_no_day => {
                days.month_days.push(start.day().into());
                if frequency == Yearly && parts.months.is_empty() {
                    days.months = 1 << start.month();
                }
            }
            _ => {}
        }
        let times = Times {
            hours: set(&parts.hours, if frequency > Hourly { 1 << start.hour() } else { HOURS }),
            minutes: set(&parts.minutes, if frequency > Minutely { 1 << start.minute() } else { MINUTES }),
            seconds: set(&parts.seconds, 1 << start.second()),
        };
        let positions = parts.positions.clone();
        Self { text, start, frequency, interval: parts.interval, days, times, positions, end: None }
    }

    pub const fn start(&self) -> DateTime {
        self.start
    }

    /// The first local time from `from` on that matches, in whole seconds; none behind the end, or when there is none
    /// within `RRULE_YEARS` years or before the year 10000.
    pub fn next(&self, from: DateTime) -> Option<DateTime> {
        let from = whole_second(from)?.max(self.start);
        if self.end.is_some_and(|end| end < from) {
            return None;
        }
        let next = if self.positions.is_empty() || self.frequency <= Frequency::Daily {
            self.next_by_day(from)
        } else {
            self.next_by_position(from)
        };
        next.filter(|next| self.end.is_none_or(|end| *next <= end))
    }

    /// Whether it follows the hours that pass.
    pub(super) fn is_hourly(&self) -> bool {
        self.frequency <= Frequency::Hourly
    }

    /// The match that is `count` matches from `first` on, counted from 1, or the last one before the end of time.
    fn nth(&self, first: DateTime, count: usize) -> DateTime {
        let mut last = first;
        for _ in 1..count {
            let behind = last.checked_add(SignedDuration::from_secs(1));
            let Some(next) = behind.ok().and_then(|behind| self.next(behind)) else { break };
            last = next;
        }
        last
    }

    /// Where each day can be looked at by itself.
    fn next_by_day(&self, from: DateTime) -> Option<DateTime> {
        self.days_from(from.date()).find_map(|date| {
            let earliest = if date == from.date() { from.time() } else { Time::midnight() };
            Some(date.to_datetime(self.time_of(date, earliest)?))
        })
    }

    /// Where the matches of a week, a month or a year are counted.
    fn next_by_position(&self, from: DateTime) -> Option<DateTime> {
        let date = from.date();
        let first = match self.frequency {
            Frequency::Yearly => date.first_of_year(),
            Frequency::Monthly => date.first_of_month(),
            _ => self.week_of(date),
        };
        let mut days = self.days_from(first).peekable();
        while let Some(day) = days.next() {
            let mut period = vec![day];
            while let Some(day) = days.next_if(|next| self.is_same_period(day, *next)) {
                period.push(day);
            }
            let matches = period.len() * self.times.count();
            let found = self.positions.iter().filter_map(|position| {
                let place = place(*position, matches)?;
                let (day, time) = (place / self.times.count(), place % self.times.count());
                Some(period[day].to_datetime(self.times.nth(time))).filter(|found| *found >= from)
            });
            if let Some(found) = found.min() {
                return Some(found);
            }
        }
        None
    }

    /// The days that have matches, from `from` on: of the periods that the interval leads to, those that are allowed.
    fn days_from(&self, from: Date) -> impl Iterator<Item = Date> {
        let months = std::iter::successors(Some((from.year(), from.month())), |(year, month)| {
            Some(if *month == 12 { (year.checked_add(1)?, 1) } else { (*year, month + 1) })
        });
        let months =
            months.take(12 * limits::RRULE_YEARS + 1).take_while(|(year, _)| *year <= Date::MAX.year());
        let days = months.flat_map(|(year, month)| {
            let days = if self.has_month(year, month) { self.days.of(year, month) } else { 0 };
            bits(days).filter_map(move |day| Date::new(year, month, day).ok())
        });
        days.skip_while(move |date| *date < from).filter(|date| self.has_day(*date))
    }

    fn has_month(&self, year: i16, month: i8) -> bool {
        let years = i64::from(year) - i64::from(self.start.year());
        let periods = match self.frequency {
            Frequency::Yearly => years,
            Frequency::Monthly => years * 12 + i64::from(month) - i64::from(self.start.month()),
            _ => return true,
        };
        periods % self.interval == 0
    }

    fn has_day(&self, date: Date) -> bool {
        let periods = match self.frequency {
            Frequency::Daily => days_between(self.start.date(), date),
            Frequency::Weekly => days_between(self.week_of(self.start.date()), self.week_of(date)) / 7,
            _ => return true,
        };
        periods % self.interval == 0
    }

    /// The first match of a day from `earliest` on, where periods are no longer than a day or all matches count.
    fn time_of(&self, date: Date, earliest: Time) -> Option<Time> {
        let hours = bits(self.times.hours).filter(|hour| *hour >= earliest.hour());
        match self.frequency {
            Frequency::Minutely => hours
                .flat_map(|hour| {
                    bits(self.minutes_of(date, hour) & self.times.minutes).map(move |minute| (hour, minute))
                })
                .filter(|minute| *minute >= (earliest.hour(), earliest.minute()))
                .find_map(|(hour, minute)| {
                    self.choose(Times { hours: 1 << hour, minutes: 1 << minute, ..self.times }, earliest)
                }),
            Frequency::Hourly => hours
                .filter(|hour| (self.minutes_to(date, *hour) / 60) % self.interval == 0)
                .find_map(|hour| self.choose(Times { hours: 1 << hour, ..self.times }, earliest)),
            _ => self.choose(self.times, earliest),
        }
    }

    /// The first one from `earliest` on of the times of one period that count.
    fn choose(&self, times: Times, earliest: Time) -> Option<Time> {
        if self.positions.is_empty() {
            return times.at_or_after(earliest);
        }
        let places = self.positions.iter().filter_map(|position| place(*position, times.count()));
        places.map(|place| times.nth(place)).filter(|time| *time >= earliest).min()
    }

    /// The minutes of an hour that the interval leads to, where it is told in minutes.
    fn minutes_of(&self, date: Date, hour: i8) -> u64 {
        let past = (self.minutes_to(date, hour) - i64::from(self.start.minute())).rem_euclid(self.interval);
        let mut minute = (self.interval - past) % self.interval;
        let mut set = 0;
        while minute < 60 {
            set |= 1 << minute;
            minute += self.interval;
        }
        set
    }

    /// Minutes from the beginning of the hour in which it starts to that of another one.
    fn minutes_to(&self, date: Date, hour: i8) -> i64 {
        let hours =
            days_between(self.start.date(), date) * 24 + i64::from(hour) - i64::from(self.start.hour());
        hours * 60
    }

    /// Whether the interval leads to none of the hours and minutes, on whatever day: what it leads to within a day
    /// repeats by the greatest common divisor of both.
    fn never_aligns(&self) -> bool {
        let start = i64::from(self.start.hour()) * 60 + i64::from(self.start.minute());
        let aligns = |minute: i64, length: i64, day: i64| {
            (minute - start).rem_euclid(day) / length % divisor(self.interval, day / length) == 0
        };
        let of_day = |hour: i8, minute: i8| i64::from(hour) * 60 + i64::from(minute);
        match self.frequency {
            Frequency::Minutely => bits(self.times.hours)
                .all(|hour| bits(self.times.minutes).all(|minute| !aligns(of_day(hour, minute), 1, 24 * 60))),
            Frequency::Hourly => {
                bits(self.times.hours).all(|hour| !aligns(of_day(hour, self.start.minute()), 60, 24 * 60))
            }
            _ => false,
        }
    }

    /// Whether all positions are beyond the matches of a period, where each has as many.
    fn has_no_position(&self) -> bool {
        let Times { minutes, seconds, .. } = self.times;
        let matches = match self.frequency {
            Frequency::Minutely => Times { hours: 1, minutes: 1, seconds }.count(),
            Frequency::Hourly => Times { hours: 1, minutes, seconds }.count(),
            Frequency::Daily => self.times.count(),
            _ => return false,
        };
        !self.positions.is_empty()
            && self.positions.iter().all(|position| place(*position, matches).is_none())
    }

    fn is_same_period(&self, one: Date, other: Date) -> bool {
        match self.frequency {
            Frequency::Yearly => one.year() == other.year(),
            Frequency::Monthly => one.first_of_month() == other.first_of_month(),
            _ => self.week_of(one) == self.week_of(other),
        }
    }

    /// The day on which the week of `date` begins.
    fn week_of(&self, date: Date) -> Date {
        let into = (sunday_is_zero(date) + 7 - self.days.week_start) % 7;
        date.saturating_sub(SignedDuration::from_hours(24 * i64::from(into)))
    }
}

impl fmt::Display for Rrule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// A bit for each number; `otherwise` when there are none.
fn set(numbers: &[i16], otherwise: u64) -> u64 {
    if numbers.is_empty() { otherwise } else { numbers.iter().fold(0, |set, number| set | 1 << number) }
}

/// Where in a list of `count` the position is that counts from 1, or from the end from -1.
fn place(position: i16, count: usize) -> Option<usize> {
    let back = usize::from(position.unsigned_abs());
    let place = if position > 0 { back.checked_sub(1) } else { count.checked_sub(back) };
    place.filter(|place| *place < count)
}

fn days_between(from: Date, to: Date) -> i64 {
    to.duration_since(from).as_hours() / 24
}

fn sunday_is_zero(date: Date) -> u8 {
    date.weekday().to_sunday_zero_offset().unsigned_abs()
}

const fn divisor(a: i64, b: i64) -> i64 {
    if b == 0 { a } else { divisor(b, a % b) }
}
