//! Cron: which local times a line of five or six fields matches.
//!
//! `minute hour day-of-month month weekday`, with the seconds before them when there are six. Each is a list of numbers,
//! names (`JAN`, `MON`), ranges (`1-5`), steps (`*/15`, `10-50/20`, `5/20` from 5 on) and `*`. A day of the month may be `?`
//! (any), `L` (the last), `L-3` (three before it), `15W` (the working day nearest to it, in the same month) and `LW`; a
//! weekday `?`, `FRI#2` (the second) and `FRIL` (the last one), and both 0 and 7 are Sunday. Or one of `@hourly`,
//! `@daily`, `@midnight`, `@weekly`, `@monthly`, `@yearly`, `@annually`.
//!
//! Where neither day field begins with `*` or `?`, a day matches when either does; else when both do. That is Vixie cron's
//! rule, as crontab(5) tells it; `L`, `W` and `#` are those of Quartz.

mod days;
mod field;

use std::fmt;

use jiff::civil::{Date, DateTime};

use self::{
    days::{Month, MonthDays, WeekDays},
    field::{HOUR, MINUTE, MONTH, SECOND},
};
use super::times::{Times, whole_second};
use crate::{Invalid, limits};

/// A cron line. Its `Display` is the text that it was read from, with single spaces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cron {
    text: String,
    times: Times,
    months: u64,
    month_days: MonthDays,
    week_days: WeekDays,
    /// A day matches when either field does, not both.
    either: bool,
}

const MACROS: [(&str, &str); 7] = [
    ("@hourly", "0 * * * *"),
    ("@daily", "0 0 * * *"),
    ("@midnight", "0 0 * * *"),
    ("@weekly", "0 0 * * 0"),
    ("@monthly", "0 0 1 * *"),
    ("@yearly", "0 0 1 1 *"),
    ("@annually", "0 0 1 1 *"),
];

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];

const FIELDS: &str = "write five fields (minute, hour, day of month, month, weekday), such as '30 2 * * MON-FRI', \
                      or six with the seconds first, or @daily";

impl Cron {
    /// Reads a cron line.
    ///
    /// # Errors
    /// Of the field `cron`: which of its fields is wrong, what it was and what may stand there; or that no date ever
    /// matches. The limit is `CRON_BYTES`.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        if text.len() > limits::CRON_BYTES {
            return Err(Invalid::over("cron", "CRON_BYTES", limits::CRON_BYTES, "bytes"));
        }
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        let known = MACROS.iter().find(|(name, _)| name.eq_ignore_ascii_case(&text));
        let fields: Vec<&str> = known.map_or(text.as_str(), |(_, line)| line).split(' ').collect();
        let (second, minute, hour, day, month, weekday) = match fields[..] {
            [""] => return Err(Invalid::new("cron", format!("is empty; {FIELDS}"))),
            [name] if name.starts_with('@') => {
                let names = MACROS.map(|(name, _)| name).join(", ");
                return Err(Invalid::new("cron", format!("'{name}' is none of {names}")));
            }
            [minute, hour, day, month, weekday] => ("0", minute, hour, day, month, weekday),
            [second, minute, hour, day, month, weekday] => (second, minute, hour, day, month, weekday),
            _ => {
                let count = match fields.len() {
                    1 => "1 field".to_owned(),
                    count => format!("{count} fields"),
                };
                return Err(Invalid::new("cron", format!("has {count}; {FIELDS}")));
            }
        };
        let times =
            Times { seconds: SECOND.set(second)?, minutes: MINUTE.set(minute)?, hours: HOUR.set(hour)? };
        let cron = Self {
            times,
            months: MONTH.set(month)?,
            month_days: MonthDays::parse(day)?,
            week_days: WeekDays::parse(weekday)?,
            either: ![day, weekday].iter().any(|field| field.starts_with(['*', '?'])),
            text: text.clone(),
        };
        if cron.next(Date::constant(2000, 1, 1).at(0, 0, 0, 0)).is_none() {
            return Err(cron.never(day, weekday));
        }
        Ok(cron)
    }

    /// The first local time from `from` on that matches, in whole seconds; none when there is none within `CRON_YEARS`
    /// years or before the year 10000.
    pub fn next(&self, from: DateTime) -> Option<DateTime> {
        let from = whole_second(from)?;
        let (mut year, mut month) = (from.year(), from.month());
        let mut days = self.days(year, month) >> from.day() << from.day();
        if days >> from.day() & 1 == 1 {
            if let Some(time) = self.times.at_or_after(from.time()) {
                return Some(from.date().to_datetime(time));
            }
            days &= days - 1;
        }
        while days == 0 {
            (year, month) = if month == 12 { (year + 1, 1) } else { (year, month + 1) };
            if year > from.year().saturating_add(limits::CRON_YEARS) {
                return None;
            }
            days = self.days(year, month);
        }
        let day = i8::try_from(days.trailing_zeros()).ok()?;
        Some(Date::new(year, month, day).ok()?.to_datetime(self.times.first()))
    }

    /// Whether it has a time in every hour of a day that matches.
    pub(super) const fn is_hourly(&self) -> bool {
        self.times.is_hourly()
    }

    /// The days of a month that match, a bit for each from 1 on; none in a year that no date has.
    fn days(&self, year: i16, month: i8) -> u64 {
        if self.months >> month & 1 == 0 {
            return 0;
        }
        let Ok(first) = Date::new(year, month, 1) else { return 0 };
        let month = Month {
            first: first.weekday().to_sunday_zero_offset().unsigned_abs(),
            length: first.days_in_month().unsigned_abs(),
        };
        let (by_month, by_week) = (self.month_days.of(month), self.week_days.of(month));
        if self.either { by_month | by_week } else { by_month & by_week }
    }

    fn never(&self, day: &str, weekday: &str) -> Invalid {
        let any = |field: &str| field == "*" || field == "?";
        let months: Vec<&str> = (1..)
            .zip(MONTHS)
            .filter_map(|(number, name)| (self.months >> number & 1 == 1).then_some(name))
            .collect();
        let months = months.join(" or ");
        let (days, weekdays) = (day.replace(',', " or "), weekday.replace(',', " or "));
        let what = match (any(day), any(weekday)) {
            (false, true) => format!("{days} {months}"),
            _ => format!("a day of {months} that is {days} and {weekdays}"),
        };
        Invalid::new("cron", format!("never comes: {what}"))
    }
}

impl fmt::Display for Cron {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}
