//! Values: dates, times with their zones, lengths of time and texts.

use jiff::{
    Span,
    civil::{Date, DateTime, Time},
    tz::TimeZone,
};

use super::line::Line;
use crate::limits;

/// What is wrong with an event, and at which line.
#[derive(Debug)]
pub(super) struct Problem {
    pub(super) line: usize,
    pub(super) text: String,
}

impl Problem {
    /// Of a property.
    pub(super) fn of(line: &Line<'_>, what: impl AsRef<str>) -> Self {
        Self { line: line.number, text: format!("its {} {}", line.name, what.as_ref()) }
    }
}

/// The begin or the end of an event.
#[derive(Debug)]
pub(super) enum Moment {
    /// The begin of a day, by whatever clock.
    Day(Date),
    /// By the clock of a zone, or without one by that of the calendar.
    Clock(DateTime, Option<TimeZone>),
}

impl Moment {
    /// # Errors
    /// When the property is no date or time, or its zone is not known.
    pub(super) fn of(line: &Line<'_>) -> Result<Self, Problem> {
        let text = line.value().trim();
        let wrong = || Problem::of(line, format!("is '{}', which is no date or time", shown(text)));
        let kind = line.parameter("VALUE").unwrap_or_default();
        match (text.len(), kind.to_ascii_uppercase().as_str()) {
            (8, "" | "DATE") => date(text).map(Self::Day).ok_or_else(wrong),
            (15 | 16, "" | "DATE-TIME") => {
                let (clock, is_utc) = match text.strip_suffix('Z') {
                    Some(clock) => (clock, true),
                    None => (text, false),
                };
                let at =
                    clock.split_once('T').and_then(|(day, clock)| Some(date(day)?.to_datetime(time(clock)?)));
                let at = at.ok_or_else(wrong)?;
                let zone = if is_utc { Some(TimeZone::UTC) } else { zone(line)? };
                Ok(Self::Clock(at, zone))
            }
            _ => Err(wrong()),
        }
    }
}

fn zone(line: &Line<'_>) -> Result<Option<TimeZone>, Problem> {
    let Some(name) = line.parameter("TZID") else { return Ok(None) };
    crate::calendar::zone(name)
        .map(Some)
        .map_err(|_| Problem::of(line, format!("is in the zone '{}', which is not one of IANA", shown(name))))
}

/// `20261224`.
fn date(text: &str) -> Option<Date> {
    let [year, month, day] = digits(text, [4, 2, 2])?;
    Date::new(year, month.try_into().ok()?, day.try_into().ok()?).ok().filter(|date| date.year() > 0)
}

/// `093000`.
fn time(text: &str) -> Option<Time> {
    let [hour, minute, second] = digits(text, [2, 2, 2])?;
    Time::new(hour.try_into().ok()?, minute.try_into().ok()?, second.try_into().ok()?, 0).ok()
}

fn digits(text: &str, lengths: [usize; 3]) -> Option<[i16; 3]> {
    if text.len() != lengths.iter().sum::<usize>() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let mut rest = text;
    let mut next = |length| {
        let (number, others) = rest.split_at(length);
        rest = others;
        number.parse().ok()
    };
    Some([next(lengths[0])?, next(lengths[1])?, next(lengths[2])?])
}

/// `PT8H`, `P1DT2H`, `P2W`: more than nothing.
///
/// # Errors
/// When the property is none.
pub(super) fn duration(line: &Line<'_>) -> Result<Span, Problem> {
    let text = line.value().trim();
    let plain = text.strip_prefix('+').unwrap_or(text);
    let length = plain.starts_with('P').then(|| plain.parse::<Span>().ok()).flatten();
    let is_good = |span: &Span| {
        let has_months = span.get_years() != 0 || span.get_months() != 0;
        let has_fraction =
            span.get_milliseconds() != 0 || span.get_microseconds() != 0 || span.get_nanoseconds() != 0;
        span.is_positive() && !has_months && !has_fraction
    };
    length.filter(is_good).ok_or_else(|| {
        Problem::of(line, format!("is '{}', which is no length of time (such as PT8H or P2D)", shown(text)))
    })
}

/// A text on one line without its escapes, cut where it is longer than a label may be; nothing where it is empty.
pub(super) fn text(value: &str) -> Option<String> {
    let mut chars = value.chars();
    let mut plain = String::new();
    while let Some(c) = chars.next() {
        let c = match c {
            '\\' => match chars.next() {
                Some('n' | 'N') | None => ' ',
                Some(escaped) => escaped,
            },
            c => c,
        };
        plain.push(if c.is_control() { ' ' } else { c });
    }
    let label = plain.trim();
    if label.chars().count() > limits::NAME_CHARS {
        let cut: String = label.chars().take(limits::NAME_CHARS - 1).collect();
        return Some(cut + "…");
    }
    (!label.is_empty()).then(|| label.to_owned())
}

/// What stands in the text, short enough for a list.
pub(super) fn shown(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(64).collect()
}
