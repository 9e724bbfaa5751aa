//! The two fields of a cron that say which days: day of month and weekday.

use super::field::{DAY, WEEKDAY};
use crate::Invalid;

/// A month as the days see it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Month {
    /// Weekday of its first day, Sunday being 0.
    pub(super) first: u8,
    /// Days that it has.
    pub(super) length: u8,
}

impl Month {
    const fn weekday(self, day: u8) -> u8 {
        (self.first + day - 1) % 7
    }

    /// A bit for each of its days.
    const fn all(self) -> u64 {
        (2 << self.length) - 2
    }

    fn days(self) -> impl Iterator<Item = u8> {
        1..=self.length
    }
}

/// Days by their number in the month, a bit for each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct MonthDays {
    /// `15`
    on: u64,
    /// `L-3` is 3.
    before_last: u64,
    /// `15W`
    near: u64,
    /// `LW`
    last_working: bool,
}

impl MonthDays {
    pub(super) fn parse(text: &str) -> Result<Self, Invalid> {
        let mut days = Self::default();
        if text == "?" {
            days.on = DAY.set("*")?;
            return Ok(days);
        }
        for part in DAY.parts(text)? {
            match part.to_ascii_uppercase().as_str() {
                "L" => days.before_last |= 1,
                "LW" => days.last_working = true,
                upper if upper.starts_with("L-") => match upper[2..].parse() {
                    Ok(back @ 0..=30_u8) => days.before_last |= 1 << back,
                    _ => return Err(DAY.wrong(part, "goes back by no number from 0 to 30")),
                },
                upper if upper.ends_with('W') => {
                    days.near |= 1 << DAY.number(part, &upper[..upper.len() - 1])?;
                }
                _ => days.on |= DAY.part(part)?,
            }
        }
        Ok(days)
    }

    /// Those of one month.
    pub(super) fn of(&self, month: Month) -> u64 {
        let mut set = self.on & month.all();
        if self.before_last != 0 {
            let back = |day| self.before_last >> (month.length - day) & 1 == 1;
            set |= month.days().filter(|day| back(*day)).fold(0, |set, day| set | 1 << day);
        }
        if self.near != 0 {
            let near = month.days().filter(|day| self.near >> day & 1 == 1);
            set |= near.fold(0, |set, day| set | 1 << working_day(month, day));
        }
        if self.last_working {
            set |= 1 << working_day(month, month.length);
        }
        set
    }
}

/// The day from Monday to Friday that is nearest to `day` within the same month.
const fn working_day(month: Month, day: u8) -> u8 {
    match month.weekday(day) {
        6 if day == 1 => 3,
        6 => day - 1,
        0 if day == month.length => day - 2,
        0 => day + 1,
        _ => day,
    }
}

/// Every day of a week.
const EVERY_DAY: u64 = (1 << 7) - 1;

/// Days by their weekday; a bit for each, Sunday being 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct WeekDays {
    /// `FRI`
    each: u64,
    /// `FRI#2` is in the second.
    nth: [u64; 5],
    /// `FRIL`
    last: u64,
}

impl WeekDays {
    pub(super) fn parse(text: &str) -> Result<Self, Invalid> {
        let mut days = Self::default();
        if text == "?" {
            days.each = WEEKDAY.set("*")?;
            return Ok(days);
        }
        for part in WEEKDAY.parts(text)? {
            let weekday = |text| Ok(1 << WEEKDAY.only_sunday(WEEKDAY.number(part, text)?));
            if let Some((name, nth)) = part.split_once('#') {
                match nth.parse() {
                    Ok(nth @ 1..=5_usize) => days.nth[nth - 1] |= weekday(name)?,
                    _ => return Err(WEEKDAY.wrong(part, "is not the first to fifth of a month")),
                }
            } else if let Some(name) = part.strip_suffix(['L', 'l']).filter(|name| !name.is_empty()) {
                days.last |= weekday(name)?;
            } else {
                days.each |= WEEKDAY.part(part)?;
            }
        }
        Ok(days)
    }

    /// Those of one month.
    pub(super) fn of(&self, month: Month) -> u64 {
        if self.each == EVERY_DAY {
            return month.all();
        }
        let is_on = |day: &u8| {
            let nth = self.nth[usize::from((day - 1) / 7)];
            let last = if day + 7 > month.length { self.last } else { 0 };
            (self.each | nth | last) >> month.weekday(*day) & 1 == 1
        };
        month.days().filter(is_on).fold(0, |set, day| set | 1 << day)
    }
}
