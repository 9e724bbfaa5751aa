//! One event: what it says, and the entries that say the same.

use std::collections::HashSet;

use jiff::{Timestamp, civil::Date, tz::TimeZone};

use super::{
    extent::Extent,
    line::Line,
    rule::Rule,
    value::{self, Problem},
};
use crate::calendar::{
    Day, When,
    wall::{self, DAY},
};

/// Properties that say when an event is, and whether.
const TOLD: [&str; 11] = [
    "DTSTART",
    "DTEND",
    "DURATION",
    "SUMMARY",
    "STATUS",
    "UID",
    "RRULE",
    "EXRULE",
    "RDATE",
    "EXDATE",
    "RECURRENCE-ID",
];

/// A component with its properties.
#[derive(Debug)]
pub(super) struct Event<'a> {
    pub(super) kind: String,
    /// Where it begins.
    pub(super) line: usize,
    properties: Vec<Line<'a>>,
}

/// When an event is, and what it is called.
#[derive(Debug)]
pub(super) struct Happening {
    pub(super) whens: Vec<When>,
    pub(super) label: Option<String>,
}

impl<'a> Event<'a> {
    pub(super) const fn new(kind: String, line: usize) -> Self {
        Self { kind, line, properties: Vec::new() }
    }

    pub(super) fn add(&mut self, property: Line<'a>) {
        if TOLD.contains(&property.name.as_str()) {
            self.properties.push(property);
        }
    }

    pub(super) const fn problem(&self, text: String) -> Problem {
        Problem { line: self.line, text }
    }

    /// What it is called, cut to the length of a label.
    pub(super) fn label(&self) -> Option<String> {
        value::text(self.first("SUMMARY")?.value())
    }

    /// The id of the recurring event of which this one changes an occurrence.
    pub(super) fn series_that_it_changes(&self) -> Option<&str> {
        self.first("RECURRENCE-ID")?;
        Some(self.first("UID")?.value())
    }

    /// When it is, by the clock of the calendar's zone.
    ///
    /// # Errors
    /// Why entries cannot say that.
    pub(super) fn happening(
        &self,
        zone: &TimeZone,
        now: Timestamp,
        changed: &HashSet<&str>,
    ) -> Result<Happening, Problem> {
        if let Some(line) = self.first("RECURRENCE-ID") {
            return Err(Problem::of(
                line,
                "changes an occurrence of a recurring event, which no entry can say",
            ));
        }
        if let Some(line) = self.first("STATUS").filter(|line| line.word() == "CANCELLED") {
            return Err(Problem { line: line.number, text: "is cancelled".to_owned() });
        }
        let extent = Extent::of(self, zone)?;
        let whens = match self.only("RRULE")? {
            None => vec![extent.once(zone).map_err(|why| self.problem(why.to_owned()))?],
            Some(line) => {
                if self.only("UID")?.is_some_and(|uid| changed.contains(uid.value())) {
                    return Err(Problem::of(line, "is changed by another event, which no entry can say"));
                }
                let rule = Rule::parse(line.value()).map_err(|why| Problem::of(line, why))?;
                self.recurring(line, rule, &extent, zone, now)?
            }
        };
        // Where dates come and go beside the rule.
        if let Some(line) = ["RDATE", "EXDATE", "EXRULE"].iter().find_map(|name| self.first(name)) {
            return Err(Problem::of(line, "adds or leaves out occurrences, which no entry can say"));
        }
        Ok(Happening { whens, label: self.label() })
    }

    fn first(&self, name: &str) -> Option<&Line<'a>> {
        self.properties.iter().find(|line| line.name == name)
    }

    /// A property that stands there once at most.
    pub(super) fn only(&self, name: &str) -> Result<Option<&Line<'a>>, Problem> {
        let mut lines = self.properties.iter().filter(|line| line.name == name);
        let first = lines.next();
        match lines.next() {
            Some(second) => Err(Problem::of(second, "stands there twice")),
            None => Ok(first),
        }
    }

    fn recurring(
        &self,
        line: &Line<'_>,
        rule: Rule,
        extent: &Extent,
        of_calendar: &TimeZone,
        now: Timestamp,
    ) -> Result<Vec<When>, Problem> {
        let (from, to) = extent.by_clock(of_calendar).ok_or_else(|| {
            Problem::of(line, "is of another zone than the calendar's, and an entry has none of its own")
        })?;
        if from > of_calendar.to_datetime(now) {
            let why =
                format!("begins only on {}, and an entry of each year or week has no begin", from.date());
            return Err(Problem::of(line, why));
        }
        let (begin, length) = (wall::of(from).rem_euclid(DAY), wall::of(to) - wall::of(from));
        match rule {
            Rule::Yearly { .. } if length != DAY || begin != 0 => {
                Err(Problem::of(line, "is of each year, for which an entry is one whole day"))
            }
            Rule::Yearly { months, days } => match yearly(from.date(), months, days) {
                days if days.is_empty() => Err(Problem::of(line, "names only days that no year has")),
                days => Ok(days),
            },
            Rule::Weekly { .. } if length > DAY || length == DAY && begin != 0 => Err(Problem::of(
                line,
                "is of each week, for which an entry takes less than a day or is a whole one",
            )),
            Rule::Weekly { mut days } => {
                if days.is_empty() {
                    days.push(Day::from(from.weekday()));
                }
                Ok(vec![When::Weekly { days, from: begin, to: begin + length }])
            }
        }
    }
}

/// The days of a yearly rule; those that no year has are none.
fn yearly(begin: Date, months: Option<Vec<i8>>, days: Option<Vec<i8>>) -> Vec<When> {
    let months = match (months, &days) {
        (Some(months), _) => months,
        (None, None) => vec![begin.month()],
        (None, Some(_)) => (1..=12).collect(),
    };
    let days = days.unwrap_or_else(|| vec![begin.day()]);
    // A leap year, for 29 February.
    let is_day = |month, day| Date::new(2000, month, day).is_ok();
    let of_month = |month| {
        let days = days.iter().copied().filter(move |day| is_day(month, *day));
        days.map(move |day| When::Yearly { month, day })
    };
    months.into_iter().flat_map(of_month).collect()
}
