//! A timing as people say it: `weekdays at 9:00 Europe/Warsaw`, `every 15m`, `last day of the month at 23:00`.
//!
//! What names a time of day or a day becomes a cron, which is shown to whoever entered it. `every 15m` and `every 2 hours`
//! become an interval, not a cron: that is what they say also where 15 and 2 divide no hour and no day. A cron stands for
//! itself.

mod words;

use super::{Timing, WrittenTiming, zone};
use crate::{Invalid, job::Length, limits};

/// What was understood.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    pub timing: Timing,
    /// The cron that it became, to be shown; none for an interval and for a single time.
    pub cron: Option<String>,
    /// It names its zone.
    pub says_zone: bool,
}

const EXAMPLES: &str = "write a cron such as '30 2 * * MON-FRI', or 'every 15m', 'daily at 02:30', \
                        'weekdays 9:00 Europe/Warsaw', 'mon,wed 18:00', 'monthly on the 1st at 04:00', \
                        'last day of the month at 23:00', 'at 2026-12-01 10:00 Europe/Berlin'";

/// Of a text that is not understood.
fn unknown(why: impl std::fmt::Display) -> Invalid {
    Invalid::new("schedule", format!("{why}; {EXAMPLES}"))
}

impl Entry {
    /// Reads what a person entered; an IANA name at its end is the zone, which is UTC without one.
    ///
    /// # Errors
    /// Of the field `schedule` what is not understood, with examples; else of the rule or zone that it names. The limit
    /// is `CRON_BYTES`.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        if text.len() > limits::CRON_BYTES {
            return Err(Invalid::over("schedule", "CRON_BYTES", limits::CRON_BYTES, "bytes"));
        }
        let mut words: Vec<&str> = text.split_whitespace().collect();
        let zone = zone_at_end(&words)?;
        if zone.is_some() {
            words.pop();
        }
        let written = WrittenTiming { zone, ..rule(&words)? };
        Ok(Self { timing: written.read()?, cron: written.cron, says_zone: written.zone.is_some() })
    }
}

/// The zone that the last word names.
fn zone_at_end(words: &[&str]) -> Result<Option<String>, Invalid> {
    let Some(last) = words.last().filter(|last| last.starts_with(char::is_alphabetic)) else {
        return Ok(None);
    };
    match zone::find(last) {
        Ok(zone) => Ok(zone.iana_name().map(str::to_owned)),
        // A cron too may end with a name and a step.
        Err(wrong) if last.contains('/') && !is_cron(words) => Err(wrong),
        Err(_) => Ok(None),
    }
}

/// Whether it is meant as a cron: no word of ours begins like its first field.
fn is_cron(words: &[&str]) -> bool {
    let Some(first) = words.first() else { return false };
    let is_field = first.chars().all(|c| c.is_ascii_digit() || "*,-/".contains(c));
    first.starts_with('@') || first.starts_with('*') || is_field && words.len() >= 4
}

fn rule(words: &[&str]) -> Result<WrittenTiming, Invalid> {
    if words.is_empty() {
        return Err(unknown("is empty"));
    }
    if is_cron(words) {
        return Ok(WrittenTiming { cron: Some(words.join(" ")), ..WrittenTiming::default() });
    }
    let words: Vec<String> = words.iter().map(|word| word.to_lowercase()).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    if let ["every", length @ ..] = &words[..]
        && let Some(every) = length_of(length)
    {
        return Ok(WrittenTiming { every: Some(every), ..WrittenTiming::default() });
    }
    if let Some(at) = moment(&words) {
        return Ok(WrittenTiming { at: Some(at), ..WrittenTiming::default() });
    }
    Ok(WrittenTiming { cron: Some(words::cron(&words)?), ..WrittenTiming::default() })
}

/// `15m`, `2 hours`, `minute`; a number alone may be of anything.
fn length_of(words: &[&str]) -> Option<Length> {
    match words {
        ["second"] => Some(Length(1)),
        ["minute"] => Some(Length(60)),
        _ => {
            let text = words.join(" ");
            Length::parse(&text).ok().filter(|_| text.contains(char::is_alphabetic))
        }
    }
}

/// `[once] [at|on] 2026-12-01 [at] 10:00` and `2026-12-01T10:00`, as a document has it.
fn moment(words: &[&str]) -> Option<String> {
    let mut words = words.iter().filter(|word| !["once", "at", "on"].contains(*word));
    let (first, second, third) = (words.next()?, words.next(), words.next());
    let is_date = first.len() >= 10 && first.as_bytes()[4] == b'-' && first.as_bytes()[7] == b'-';
    match (is_date, second, third) {
        (true, None, None) => Some(first.to_uppercase()),
        (true, Some(time), None) => Some(format!("{first}T{:0>5}", time.to_uppercase())),
        _ => None,
    }
}
