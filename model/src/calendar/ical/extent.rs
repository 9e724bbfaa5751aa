//! From when until when an event is.

use jiff::{
    Span, Timestamp, ToSpan as _, Zoned,
    civil::{Date, DateTime, Time},
    tz::TimeZone,
};

use super::{
    event::Event,
    value::{self, Moment, Problem},
};
use crate::calendar::{When, wall};

/// Begin and end, the end exclusive and after the begin.
#[derive(Debug)]
pub(super) enum Extent {
    Days(Date, Date),
    /// By the clock of that zone, or without one by that of the calendar.
    Clock {
        from: DateTime,
        to: DateTime,
        zone: Option<TimeZone>,
    },
    /// So long from a time by such a clock: hours as they pass, whatever the clock shows then.
    Length {
        from: DateTime,
        length: Span,
        zone: Option<TimeZone>,
    },
    /// By the clocks of two zones.
    Instants(Timestamp, Timestamp),
}

enum End {
    Moment(Moment),
    After(Span),
}

impl Extent {
    /// # Errors
    /// When the event does not say it, or not in a way that makes sense.
    pub(super) fn of(event: &Event<'_>, of_calendar: &TimeZone) -> Result<Self, Problem> {
        let Some(start) = event.only("DTSTART")? else {
            return Err(event.problem("has no DTSTART".to_owned()));
        };
        let (line, end) = match (event.only("DTEND")?, event.only("DURATION")?) {
            (Some(_), Some(line)) => return Err(Problem::of(line, "stands beside a DTEND")),
            (Some(line), None) => (line, Some(End::Moment(Moment::of(line)?))),
            (None, Some(line)) => (line, Some(End::After(value::duration(line)?))),
            (None, None) => (start, None),
        };
        let too_far = |_| Problem::of(line, "goes beyond the last day there is");
        let begins_later = || Problem::of(line, "is not after its DTSTART");
        match (Moment::of(start)?, end) {
            (Moment::Day(first), None) => Ok(Self::Days(first, first.checked_add(1.day()).map_err(too_far)?)),
            (Moment::Day(first), Some(End::Moment(Moment::Day(behind)))) => {
                if behind > first {
                    Ok(Self::Days(first, behind))
                } else {
                    Err(begins_later())
                }
            }
            (Moment::Day(first), Some(End::After(length))) => {
                let whole = Span::new().weeks(length.get_weeks()).days(length.get_days());
                if whole.fieldwise() != length {
                    return Err(Problem::of(line, "is no number of whole days, which its DTSTART is"));
                }
                Ok(Self::Days(first, first.checked_add(whole).map_err(too_far)?))
            }
            (Moment::Clock(from, zone), Some(End::After(length))) => {
                from.checked_add(length).map_err(too_far)?;
                Ok(Self::Length { from, length, zone })
            }
            (Moment::Clock(from, zone), Some(End::Moment(Moment::Clock(to, zone_of_end)))) => {
                if zone == zone_of_end {
                    return if to > from { Ok(Self::Clock { from, to, zone }) } else { Err(begins_later()) };
                }
                let instant = |at, zone: Option<&TimeZone>| {
                    zone.unwrap_or(of_calendar).to_timestamp(at).map_err(too_far)
                };
                let (begin, end) = (instant(from, zone.as_ref())?, instant(to, zone_of_end.as_ref())?);
                if end > begin { Ok(Self::Instants(begin, end)) } else { Err(begins_later()) }
            }
            (Moment::Clock(..), None) => {
                Err(event.problem("takes no time: it has neither DTEND nor DURATION".to_owned()))
            }
            (Moment::Day(_), Some(End::Moment(Moment::Clock(..))))
            | (Moment::Clock(..), Some(End::Moment(Moment::Day(_)))) => {
                Err(Problem::of(line, "is not written as its DTSTART is: one is a date, one has a time"))
            }
        }
    }

    /// The same by the clock of the calendar's zone, once.
    ///
    /// # Errors
    /// Why that cannot be said.
    pub(super) fn once(&self, of_calendar: &TimeZone) -> Result<When, &'static str> {
        const NEVER: &str = "is out of all time";
        let (begin, end) = match self {
            Self::Days(first, behind) => {
                return Ok(When::Days { first: *first, last: behind.yesterday().map_err(|_| NEVER)? });
            }
            Self::Clock { from, to, zone: None } => return Ok(When::Window { from: *from, to: *to }),
            Self::Length { from, length, zone: None } => {
                return Ok(When::Window { from: *from, to: from.checked_add(*length).map_err(|_| NEVER)? });
            }
            // A time that is skipped counts as if it were not, one that comes twice is the first: as RFC 5545 has it.
            Self::Clock { from, to, zone: Some(zone) } => {
                let instant = |at| zone.to_timestamp(at).map_err(|_| NEVER);
                (instant(*from)?, instant(*to)?)
            }
            Self::Length { from, length, zone: Some(zone) } => {
                let begin: Zoned = zone.to_zoned(*from).map_err(|_| NEVER)?;
                let end = begin.checked_add(*length).map_err(|_| NEVER)?;
                (begin.timestamp(), end.timestamp())
            }
            Self::Instants(begin, end) => (*begin, *end),
        };
        if end <= begin {
            return Err("takes no time: its begin is skipped by the clocks of its zone");
        }
        let (from, to) = (of_calendar.to_datetime(begin), of_calendar.to_datetime(end));
        let is_same = wall::begin(of_calendar, wall::of(from)) == Some(begin)
            && wall::end(of_calendar, wall::of(to)) == Some(end);
        if from.year() < 1 {
            return Err(NEVER);
        }
        if is_same {
            Ok(When::Window { from, to })
        } else {
            Err(
                "has an edge in an hour that comes twice in the zone of the calendar, and no entry can say which",
            )
        }
    }

    /// From when until when it is by the clock of the calendar's zone, on every day alike; `None` when it is told by another.
    pub(super) fn by_clock(&self, of_calendar: &TimeZone) -> Option<(DateTime, DateTime)> {
        let is_ours = |zone: &Option<TimeZone>| zone.as_ref().is_none_or(|zone| zone == of_calendar);
        let midnight = |date: Date| date.to_datetime(Time::midnight());
        match self {
            Self::Days(first, behind) => Some((midnight(*first), midnight(*behind))),
            Self::Clock { from, to, zone } if is_ours(zone) => Some((*from, *to)),
            Self::Length { from, length, zone } if is_ours(zone) => {
                Some((*from, from.checked_add(*length).ok()?))
            }
            Self::Clock { .. } | Self::Length { .. } | Self::Instants(..) => None,
        }
    }
}
