//! iCalendar texts (RFC 5545) as entries of a calendar: what offices, providers of holidays and calendar programs give out.
//!
//! Invariants:
//!
//! 1. No event is dropped without a word: it becomes entries that say the same, or it is on the list of what is left over. An
//!    event that an entry could only say in part (a rule with an end or with exceptions) is left over whole.
//! 2. A text that is not put together as it should be is refused with the line; what is wrong within one event leaves over that
//!    event alone.
//! 3. Time and space grow with the length of the text only, which is limited.
//!
//! Decided: events with `STATUS:CANCELLED` do not take place and are left over. `TRANSP` is not looked at: it says whether
//! somebody is busy, and publishers of public holidays mark all of them `TRANSPARENT`. Alarms, attendees, `VTIMEZONE` (zones
//! are those of IANA) and everything else that does not say when something is has no meaning here.
//!
//! The parser is our own, for want of a crate that fits: calcard, icalendar and rrule are made of chrono, which is banned here;
//! ical has had no release since March 2024; ical-rs is 38,000 lines, broke its interface five times in its first months
//! and does not tell the lines that our errors name. What is needed of the format is the folding of lines and their three parts.

mod event;
mod extent;
mod line;
mod rule;
mod value;

use std::collections::HashSet;

use jiff::{Timestamp, tz::TimeZone};
use serde::{Deserialize, Serialize};

use self::event::{Event, Happening};
use super::Entry;
use crate::limits;

const CALENDAR: &str = "VCALENDAR";
const EVENT: &str = "VEVENT";
/// Components that say when something is, but are no events.
const OTHERS: [&str; 3] = ["VTODO", "VJOURNAL", "VFREEBUSY"];

/// What was made of a text.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Import {
    /// In the sequence of the text, each with the event's summary as its label; at most `CALENDAR_ENTRIES`.
    pub entries: Vec<Entry>,
    /// What could not be carried over, in the sequence of the text.
    pub left_over: Vec<LeftOver>,
}

/// Something that could not be carried over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct LeftOver {
    /// Line of the text, from 1: of the property that is the reason, or of the begin of the event.
    pub line: usize,
    /// What the event is called; empty where it says nothing.
    pub title: String,
    /// The reason, to stand behind the title.
    pub problem: String,
}

/// Why a text is no iCalendar.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}{problem}", if *line == 0 { String::new() } else { format!("line {line}: ") })]
pub struct BadIcal {
    /// From 1; 0 where it is about all of the text.
    pub line: usize,
    pub problem: String,
}

impl BadIcal {
    fn new(line: usize, problem: impl Into<String>) -> Self {
        Self { line, problem: problem.into() }
    }

    fn over(line: usize, what: &str, name: &str, limit: usize, unit: &str) -> Self {
        Self::new(line, format!("{what} over the limit {name} of {limit} {unit}"))
    }
}

/// Makes entries of the events of a text. Times without a zone are those of `zone`, which is the calendar's. Rules without end of
/// the forms `FREQ=YEARLY` (whole days) and `FREQ=WEEKLY` become yearly and weekly entries; as these have no begin, a rule that
/// begins only after `now` is left over.
///
/// # Errors
/// The first line that is no line of an iCalendar, or does not belong where it stands; a text over `ICAL_BYTES`, with more than
/// `ICAL_EVENTS` components, or whose events make more than `CALENDAR_ENTRIES` entries.
pub fn import(text: &str, zone: &TimeZone, now: Timestamp) -> Result<Import, BadIcal> {
    if text.len() > limits::ICAL_BYTES {
        return Err(BadIcal::over(0, "the text is", "ICAL_BYTES", limits::ICAL_BYTES, "bytes"));
    }
    let components = components(text)?;
    let changed: HashSet<&str> = components.iter().filter_map(Event::series_that_it_changes).collect();
    let mut import = Import::default();
    for event in &components {
        let happening = if event.kind == EVENT {
            event.happening(zone, now, &changed)
        } else {
            Err(event.problem(format!("is a {}, no event", event.kind)))
        };
        match happening {
            Ok(Happening { whens, label }) => import
                .entries
                .extend(whens.into_iter().map(|when| Entry { label: label.clone(), ..Entry::from(when) })),
            Err(problem) => import.left_over.push(LeftOver {
                line: problem.line,
                title: event.label().unwrap_or_default(),
                problem: problem.text,
            }),
        }
        if import.entries.len() > limits::CALENDAR_ENTRIES {
            let limit = limits::CALENDAR_ENTRIES;
            let what = "with this event there are entries";
            return Err(BadIcal::over(event.line, what, "CALENDAR_ENTRIES", limit, "entries"));
        }
    }
    Ok(import)
}

/// The components right within `VCALENDAR` that say when something is, with their own properties.
fn components(text: &str) -> Result<Vec<Event<'_>>, BadIcal> {
    let mut components = Vec::new();
    let mut open: Vec<(String, usize)> = Vec::new();
    let mut has_calendar = false;
    for line in line::lines(text) {
        let line = line?;
        match (line.name.as_str(), open.len()) {
            ("BEGIN", depth) => {
                let kind = line.word();
                if depth == 0 && kind != CALENDAR {
                    return Err(BadIcal::new(line.number, format!("{kind} stands outside of {CALENDAR}")));
                }
                if depth > 0 && kind == CALENDAR || depth > 1 && kind == EVENT {
                    let why = format!("{kind} stands within {}", open[depth - 1].0);
                    return Err(BadIcal::new(line.number, why));
                }
                has_calendar = true;
                if depth == 1 && is_told(&kind) {
                    if components.len() == limits::ICAL_EVENTS {
                        let limit = limits::ICAL_EVENTS;
                        return Err(BadIcal::over(
                            line.number,
                            "this is",
                            "ICAL_EVENTS",
                            limit,
                            "components",
                        ));
                    }
                    components.push(Event::new(kind.clone(), line.number));
                }
                open.push((kind, line.number));
            }
            ("END", _) => match open.pop() {
                Some((kind, _)) if kind == line.word() => {}
                Some((kind, begin)) => {
                    let why = format!("END:{} does not end {kind} of line {begin}", line.word());
                    return Err(BadIcal::new(line.number, why));
                }
                None => {
                    return Err(BadIcal::new(line.number, format!("END:{} ends nothing", line.word())));
                }
            },
            (name, 0) => {
                return Err(BadIcal::new(line.number, format!("{name} stands outside of {CALENDAR}")));
            }
            (_, 2) if is_told(&open[1].0) => {
                let event = components.last_mut().expect("a component that is open was pushed");
                event.add(line);
            }
            _ => {}
        }
    }
    match open.pop() {
        Some((kind, begin)) => Err(BadIcal::new(begin, format!("{kind} does not end"))),
        None if !has_calendar => Err(BadIcal::new(0, format!("the text has no {CALENDAR}"))),
        None => Ok(components),
    }
}

/// Whether a component is carried over or listed.
fn is_told(kind: &str) -> bool {
    kind == EVENT || OTHERS.contains(&kind)
}

#[cfg(test)]
mod tests;
