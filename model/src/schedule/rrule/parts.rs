//! The text of a recurrence rule, read and checked part by part (RFC 5545, 3.3.10).

use jiff::{
    Timestamp,
    civil::{Date, DateTime},
    tz::TimeZone,
};

use super::Frequency;
use crate::{Invalid, limits};

/// What a rule says, nothing filled in.
#[derive(Debug, Default)]
pub(super) struct Parts {
    pub(super) frequency: Frequency,
    pub(super) interval: i64,
    pub(super) count: Option<usize>,
    /// On the clock of the zone.
    pub(super) until: Option<DateTime>,
    pub(super) months: Vec<i16>,
    pub(super) month_days: Vec<i16>,
    pub(super) year_days: Vec<i16>,
    pub(super) weeks: Vec<i16>,
    /// Which one in the month or year, 0 being each, and the weekday, Sunday being 0.
    pub(super) days: Vec<(i16, u8)>,
    pub(super) hours: Vec<i16>,
    pub(super) minutes: Vec<i16>,
    pub(super) seconds: Vec<i16>,
    pub(super) positions: Vec<i16>,
    /// The weekday on which weeks begin, Sunday being 0.
    pub(super) week_start: u8,
}

const WEEKDAYS: [&str; 7] = ["SU", "MO", "TU", "WE", "TH", "FR", "SA"];
const FREQUENCIES: &str = "MINUTELY, HOURLY, DAILY, WEEKLY, MONTHLY or YEARLY";

fn wrong(why: impl Into<String>) -> Invalid {
    Invalid::new("rrule", why)
}

impl Parts {
    /// Reads `FREQ=…;…` in capitals; an `UNTIL` in UTC becomes what the clock of `zone` shows then.
    ///
    /// # Errors
    /// Of the field `rrule`: the first part that is wrong, with what is allowed.
    pub(super) fn read(text: &str, zone: &TimeZone) -> Result<Self, Invalid> {
        let mut parts = Self { interval: 1, week_start: 1, ..Self::default() };
        let mut said: Vec<&str> = Vec::new();
        for part in text.split(';') {
            let (name, value) = part.split_once('=').ok_or_else(|| {
                wrong(format!("'{part}' is no part; write FREQ=DAILY;BYHOUR=9 and the like"))
            })?;
            if said.contains(&name) {
                return Err(wrong(format!("has {name} twice")));
            }
            said.push(name);
            parts.set(name, value, zone)?;
        }
        if !said.contains(&"FREQ") {
            return Err(wrong(format!("has no FREQ; write FREQ= and one of {FREQUENCIES}")));
        }
        parts.check()?;
        Ok(parts)
    }

    fn set(&mut self, name: &str, value: &str, zone: &TimeZone) -> Result<(), Invalid> {
        match name {
            "FREQ" => self.frequency = frequency(value)?,
            "INTERVAL" => self.interval = number(name, value, 1, limits::RRULE_INTERVAL)?,
            "COUNT" => {
                let count: i64 = number(name, value, 1, limits::RRULE_COUNT)?;
                self.count = usize::try_from(count).ok();
            }
            "UNTIL" => self.until = Some(until(value, zone)?),
            "BYMONTH" => self.months = numbers(name, value, 1, 12)?,
            "BYMONTHDAY" => self.month_days = either_way(name, value, 31)?,
            "BYYEARDAY" => self.year_days = either_way(name, value, 366)?,
            "BYWEEKNO" => self.weeks = either_way(name, value, 53)?,
            "BYDAY" => self.days = value.split(',').map(day).collect::<Result<_, _>>()?,
            "BYHOUR" => self.hours = numbers(name, value, 0, 23)?,
            "BYMINUTE" => self.minutes = numbers(name, value, 0, 59)?,
            "BYSECOND" => self.seconds = numbers(name, value, 0, 59)?,
            "BYSETPOS" => self.positions = either_way(name, value, 366)?,
            "WKST" => self.week_start = weekday(value).ok_or_else(|| no_weekday(name, value))?,
            _ => return Err(wrong(format!("has '{name}', which is no part of a rule"))),
        }
        Ok(())
    }

    /// What may not stand beside what.
    fn check(&self) -> Result<(), Invalid> {
        use Frequency::{Daily, Monthly, Weekly, Yearly};
        let frequency = self.frequency;
        if self.count.is_some() && self.until.is_some() {
            return Err(wrong("has COUNT and UNTIL; write one of them"));
        }
        if !self.weeks.is_empty() && frequency != Yearly {
            return Err(wrong("has BYWEEKNO, which is for FREQ=YEARLY"));
        }
        if !self.year_days.is_empty() && matches!(frequency, Daily | Weekly | Monthly) {
            return Err(wrong("has BYYEARDAY, which is not for FREQ=DAILY, WEEKLY or MONTHLY"));
        }
        if !self.month_days.is_empty() && frequency == Weekly {
            return Err(wrong("has BYMONTHDAY, which is not for FREQ=WEEKLY"));
        }
        if self.days.iter().any(|(nth, _)| *nth != 0) {
            if !matches!(frequency, Monthly | Yearly) {
                return Err(wrong("has a number in BYDAY, which is for FREQ=MONTHLY and YEARLY"));
            }
            if !self.weeks.is_empty() {
                return Err(wrong("has a number in BYDAY, which is not for BYWEEKNO"));
            }
        }
        if !self.positions.is_empty() && !self.has_by() {
            return Err(wrong("has BYSETPOS, which needs another BY part to choose from"));
        }
        Ok(())
    }

    fn has_by(&self) -> bool {
        let numbers = [
            &self.months,
            &self.month_days,
            &self.year_days,
            &self.weeks,
            &self.hours,
            &self.minutes,
            &self.seconds,
        ];
        !self.days.is_empty() || numbers.iter().any(|numbers| !numbers.is_empty())
    }
}

fn frequency(text: &str) -> Result<Frequency, Invalid> {
    Ok(match text {
        "MINUTELY" => Frequency::Minutely,
        "HOURLY" => Frequency::Hourly,
        "DAILY" => Frequency::Daily,
        "WEEKLY" => Frequency::Weekly,
        "MONTHLY" => Frequency::Monthly,
        "YEARLY" => Frequency::Yearly,
        "SECONDLY" => {
            return Err(wrong("has FREQ=SECONDLY; write every: 10s for what comes each few seconds"));
        }
        _ => return Err(wrong(format!("has FREQ={text}; write one of {FREQUENCIES}"))),
    })
}

fn number<T: TryFrom<i64>>(name: &str, text: &str, low: i64, high: i64) -> Result<T, Invalid> {
    let plain = text.strip_prefix(['+', '-']).unwrap_or(text);
    let is_number = !plain.is_empty() && plain.bytes().all(|byte| byte.is_ascii_digit());
    let number = text.parse().ok().filter(|number| is_number && (low..=high).contains(number));
    let number = number.and_then(|number| T::try_from(number).ok());
    number.ok_or_else(|| wrong(format!("has {name}={text}; write {low} to {high}")))
}

fn numbers(name: &str, text: &str, low: i64, high: i64) -> Result<Vec<i16>, Invalid> {
    text.split(',').map(|part| number(name, part, low, high)).collect()
}

/// Numbers from 1, or from the end from -1.
fn either_way(name: &str, text: &str, high: i64) -> Result<Vec<i16>, Invalid> {
    let numbers = numbers(name, text, -high, high)?;
    if numbers.contains(&0) {
        return Err(wrong(format!("has 0 in {name}; write 1 to {high}, or -1 to -{high} from the end")));
    }
    Ok(numbers)
}

fn day(text: &str) -> Result<(i16, u8), Invalid> {
    let wrong = || no_weekday("BYDAY", text);
    let split = text.len().checked_sub(2).filter(|split| text.is_char_boundary(*split)).ok_or_else(wrong)?;
    let (nth, name) = text.split_at(split);
    let weekday = weekday(name).ok_or_else(wrong)?;
    if nth.is_empty() { Ok((0, weekday)) } else { Ok((either_way("BYDAY", nth, 53)?[0], weekday)) }
}

fn weekday(text: &str) -> Option<u8> {
    (0..).zip(WEEKDAYS).find_map(|(number, name)| (name == text).then_some(number))
}

fn no_weekday(name: &str, text: &str) -> Invalid {
    let numbered = if name == "BYDAY" { ", with a number as in 2FR and -1MO" } else { "" };
    wrong(format!("has {name}={text}; write MO, TU, WE, TH, FR, SA or SU{numbered}"))
}

/// The last local time of a rule: a date means its whole day.
fn until(text: &str, zone: &TimeZone) -> Result<DateTime, Invalid> {
    let wrong = || wrong(format!("has UNTIL={text}; write 20261231, 20261231T235959 or 20261231T225959Z"));
    if text.ends_with('Z') {
        let instant: Timestamp = text.parse().map_err(|_| wrong())?;
        return Ok(zone.to_datetime(instant));
    }
    if text.contains('[') {
        return Err(wrong());
    }
    if text.contains('T') {
        return text.parse().map_err(|_| wrong());
    }
    let date: Date = text.parse().map_err(|_| wrong())?;
    Ok(date.at(23, 59, 59, 0))
}
