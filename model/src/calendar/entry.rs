//! One entry of a calendar: as it is written, and what it says.

use jiff::civil::{Date, DateTime, Time, Weekday};
use serde::{Deserialize, Serialize};

use super::wall::DAY;
use crate::{Invalid, limits};

/// Some days or a window. Exactly one of: `date`; `from` and `to`; `days` with `from` and `to`; `yearly`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = CalendarEntry)]
pub struct Entry {
    /// One whole day: `2026-12-24`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub date: Option<String>,
    /// Days of the week on which a window of each week begins, at `from`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub days: Vec<Day>,
    /// The first of some days (`2026-12-20`), the begin of a window (`2026-12-31T18:00`), or with `days` a time (`09:00`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// Written as `from` is: the last of the days, or the end of the window, which is no more in it. A time may be `24:00`; with
    /// `days` one before `from` is of the next day.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    /// A whole day of each year, month and day: `12-25`. `02-29` is in leap years only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub yearly: Option<String>,
    /// What people know it by, such as `Christmas`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
}

/// A day of the week.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Day {
    Mon,
    Tue,
    Wed,
    Thu,
    Fri,
    Sat,
    Sun,
}

impl Day {
    /// All of them, Monday first.
    pub const ALL: [Self; 7] = [Self::Mon, Self::Tue, Self::Wed, Self::Thu, Self::Fri, Self::Sat, Self::Sun];

    /// The seconds from the begin of Monday to that of this day.
    pub(super) const fn offset(self) -> i64 {
        self as i64 * DAY
    }
}

impl From<Weekday> for Day {
    fn from(day: Weekday) -> Self {
        Self::ALL[usize::try_from(day.to_monday_zero_offset()).unwrap_or(0)]
    }
}

/// What an entry says, by the clock of its calendar's zone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum When {
    /// Whole days, both included.
    Days { first: Date, last: Date },
    /// From inclusive, to exclusive; whole seconds.
    Window { from: DateTime, to: DateTime },
    /// Seconds of the day on which it begins: `from` below a day, `to` above `from` and at most a day later.
    Weekly { days: Vec<Day>, from: i64, to: i64 },
    /// A day of each year that has it.
    Yearly { month: i8, day: i8 },
}

impl Entry {
    /// Reads what is written.
    ///
    /// # Errors
    /// The field that is wrong, and what is allowed; no field where there are too many or too few.
    pub fn when(&self) -> Result<When, Invalid> {
        self.validate_label()?;
        match (self.date.as_deref(), self.from.as_deref(), self.to.as_deref(), self.yearly.as_deref()) {
            (Some(text), None, None, None) if self.days.is_empty() => {
                let date = date("date", text)?;
                Ok(When::Days { first: date, last: date })
            }
            (None, None, None, Some(text)) if self.days.is_empty() => yearly(text),
            (None, Some(from), Some(to), None) if self.days.is_empty() => once(from, to),
            (None, Some(from), Some(to), None) => weekly(&self.days, from, to),
            (None, Some(_), None, None) => Err(Invalid::new("to", "is missing")),
            (None, None, Some(_), None) => Err(Invalid::new("from", "is missing")),
            (None, None, None, None) if !self.days.is_empty() => Err(Invalid::new("from", "is missing")),
            _ => Err(Invalid::new("", "has to have exactly one of date, from with to, and yearly")),
        }
    }

    fn validate_label(&self) -> Result<(), Invalid> {
        let Some(label) = &self.label else { return Ok(()) };
        if label.trim().is_empty() {
            return Err(Invalid::new("label", "is empty"));
        }
        if label.chars().count() > limits::NAME_CHARS {
            return Err(Invalid::over("label", "NAME_CHARS", limits::NAME_CHARS, "characters"));
        }
        if label.chars().any(char::is_control) {
            return Err(Invalid::new("label", "contains a control character"));
        }
        Ok(())
    }
}

impl From<When> for Entry {
    fn from(when: When) -> Self {
        match when {
            When::Days { first, last } if first == last => {
                Self { date: Some(first.to_string()), ..Self::default() }
            }
            When::Days { first, last } => {
                Self { from: Some(first.to_string()), to: Some(last.to_string()), ..Self::default() }
            }
            When::Window { from, to } => {
                let written = |at: DateTime| format!("{}T{}", at.date(), clock(seconds_of(at.time())));
                Self { from: Some(written(from)), to: Some(written(to)), ..Self::default() }
            }
            When::Weekly { days, from, to } => {
                let end = if to > DAY { to - DAY } else { to };
                Self { days, from: Some(clock(from)), to: Some(clock(end)), ..Self::default() }
            }
            When::Yearly { month, day } => {
                Self { yearly: Some(format!("{month:02}-{day:02}")), ..Self::default() }
            }
        }
    }
}

/// `09:00`, with its seconds where there are some.
fn clock(seconds: i64) -> String {
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    if seconds == 0 {
        format!("{hours:02}:{minutes:02}")
    } else {
        format!("{hours:02}:{minutes:02}:{seconds:02}")
    }
}

fn once(from: &str, to: &str) -> Result<When, Invalid> {
    match (from.split_once('T'), to.split_once('T')) {
        (None, None) => {
            let (first, last) = (date("from", from)?, date("to", to)?);
            if last < first {
                return Err(Invalid::new("to", format!("is '{to}', which is before from")));
            }
            Ok(When::Days { first, last })
        }
        (Some(begin), Some(end)) => {
            let from = date("from", begin.0)?.to_datetime(Time::midnight()) + span(begin_time(begin.1)?);
            let midnight = date("to", end.0)?.to_datetime(Time::midnight());
            let to = midnight.checked_add(span(end_time(end.1)?)).map_err(|_| {
                Invalid::new("to", format!("is '{to}', which is after the last day there is"))
            })?;
            if to <= from {
                return Err(Invalid::new("to", "is not after from"));
            }
            Ok(When::Window { from, to })
        }
        _ => Err(Invalid::new("to", "is not written as from is: both are dates, or both have a time")),
    }
}

fn weekly(days: &[Day], from: &str, to: &str) -> Result<When, Invalid> {
    let mut sorted = days.to_vec();
    sorted.sort_unstable();
    if sorted.windows(2).any(|pair| pair[0] == pair[1]) {
        return Err(Invalid::new("days", "has a day twice"));
    }
    let (from, to) = (begin_time(from)?, end_time(to)?);
    if to == from {
        return Err(Invalid::new("to", "is the same as from; a whole day is 00:00 to 24:00"));
    }
    Ok(When::Weekly { days: sorted, from, to: if to < from { to + DAY } else { to } })
}

fn yearly(text: &str) -> Result<When, Invalid> {
    // A leap year, for 02-29.
    let of = |text: &str| date("yearly", &format!("2000-{text}")).ok();
    of(text).map(|date| When::Yearly { month: date.month(), day: date.day() }).ok_or_else(|| {
        Invalid::new("yearly", format!("is '{}', which is no day of a year (such as 12-25)", shown(text)))
    })
}

fn date(field: &str, text: &str) -> Result<Date, Invalid> {
    let date = text.parse::<Date>().ok().filter(|date| date.to_string() == text && date.year() > 0);
    date.ok_or_else(|| {
        Invalid::new(field, format!("is '{}', which is no date (such as 2026-12-24)", shown(text)))
    })
}

/// Seconds of the day.
fn begin_time(text: &str) -> Result<i64, Invalid> {
    time(text).ok_or_else(|| {
        Invalid::new("from", format!("has '{}', which is no time (such as 09:00)", shown(text)))
    })
}

/// Seconds of the day, which may be all of it.
fn end_time(text: &str) -> Result<i64, Invalid> {
    let end = if matches!(text, "24:00" | "24:00:00") { Some(DAY) } else { time(text) };
    end.ok_or_else(|| {
        Invalid::new("to", format!("has '{}', which is no time (such as 17:00, or 24:00)", shown(text)))
    })
}

fn time(text: &str) -> Option<i64> {
    let time = text.parse::<Time>().ok().filter(|_| matches!(text.len(), 5 | 8))?;
    let seconds = seconds_of(time);
    (clock(seconds) == text || time.to_string() == text).then_some(seconds)
}

fn seconds_of(time: Time) -> i64 {
    i64::from(time.hour()) * 3600 + i64::from(time.minute()) * 60 + i64::from(time.second())
}

fn span(seconds: i64) -> jiff::SignedDuration {
    jiff::SignedDuration::from_secs(seconds)
}

/// A text that is not what it should be, short enough for an error.
fn shown(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(32).collect()
}

#[cfg(test)]
mod tests;
