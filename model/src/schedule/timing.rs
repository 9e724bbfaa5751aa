//! A rule on the clock of a zone, and the firings that it gives.

use std::fmt;

use jiff::{
    Timestamp,
    civil::DateTime,
    tz::{Offset, TimeZone},
};
use serde::{Deserialize, Serialize};

use super::{Cron, Interval, Moment, Rrule, Source, Trigger, WrittenTiming, walk::Walk};

/// When something is due. It is read and written as a [`WrittenTiming`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "WrittenTiming", into = "WrittenTiming")]
pub struct Timing {
    pub rule: Rule,
    /// Whose clock the rule speaks of.
    pub zone: TimeZone,
    pub gap: Gap,
    pub fold: Fold,
    /// Nothing fires before it.
    pub starts_at: Option<Timestamp>,
    /// Nothing fires after it.
    pub ends_at: Option<Timestamp>,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Rule {
    /// Local times by their fields.
    Cron(Cron),
    /// Local times by a rule of iCalendar.
    Rrule(Rrule),
    /// Elapsed time.
    Every(Interval),
    /// Once.
    At(Moment),
    /// When something comes: nobody knows when.
    On(Trigger),
}

/// What becomes of matches among the local times that the clock skips, as at the beginning of summer time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Gap {
    /// One firing for all of them, at the first instant behind the gap.
    FirstValid,
    /// None.
    Skip,
}

/// What becomes of a match that the clock shows twice, as at the end of summer time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Fold {
    /// One firing, the first time.
    Once,
    /// A firing each time.
    Twice,
}

/// One time at which a timing is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Firing {
    /// A whole second.
    pub due: Timestamp,
    /// What the clock of the zone shows then.
    pub local: DateTime,
    /// How far that clock is ahead of UTC then.
    pub offset: Offset,
}

impl Timing {
    /// The first firing strictly after `t`; none when there is no further one. It takes microseconds.
    pub fn after(&self, t: Timestamp) -> Option<Firing> {
        let mut from = second_after(t)?;
        if let Some(start) = self.starts_at {
            from = from.max(second_from(start)?);
        }
        let due = self.first(from)?;
        if self.ends_at.is_some_and(|end| due > end) {
            return None;
        }
        let offset = self.zone.to_offset(due);
        Some(Firing { due, local: offset.to_datetime(due), offset })
    }

    /// The first one that is not before `from`, a whole second.
    fn first(&self, from: Timestamp) -> Option<Timestamp> {
        match &self.rule {
            Rule::Every(interval) => interval.next(from),
            Rule::At(Moment::Instant(instant)) => (from <= *instant).then_some(*instant),
            Rule::On(_) => None,
            Rule::At(Moment::Local(at)) => self.walk(from, |local| (local <= *at).then_some(*at)),
            Rule::Cron(cron) => self.walk(from, |local| cron.next(local)),
            Rule::Rrule(rule) => self.walk(from, |local| rule.next(local)),
        }
    }

    /// This rule in the place of another one: where both are on a clock it is the same clock unless `says_zone`, and what was chosen for
    /// gaps and folds stays chosen.
    #[must_use]
    pub fn in_place_of(mut self, before: &Self, says_zone: bool) -> Self {
        (self.starts_at, self.ends_at) = (before.starts_at, before.ends_at);
        if !self.rule.is_local() || !before.rule.is_local() {
            return self;
        }
        if !says_zone {
            self.zone = before.zone.clone();
        }
        if (before.gap, before.fold) != before.rule.defaults() {
            (self.gap, self.fold) = (before.gap, before.fold);
        }
        self
    }

    /// What starts the job, where no clock does.
    pub const fn trigger(&self) -> Option<&Trigger> {
        match &self.rule {
            Rule::On(trigger) => Some(trigger),
            _ => None,
        }
    }

    fn walk(&self, from: Timestamp, next: impl Fn(DateTime) -> Option<DateTime>) -> Option<Timestamp> {
        Walk { zone: &self.zone, gap: self.gap, fold: self.fold, next }.first(from)
    }
}

impl fmt::Display for Timing {
    /// As people read it: `30 2 * * * Europe/Warsaw`, `every 15m`, `at 2026-12-01T10:00:00 Europe/Berlin`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.rule {
            Rule::Cron(cron) => cron.fmt(f)?,
            Rule::Every(interval) => write!(f, "every {}", interval.every())?,
            Rule::At(moment) => write!(f, "at {moment}")?,
            Rule::Rrule(rule) => write!(f, "{rule}")?,
            Rule::On(trigger) => match &trigger.source {
                Source::Webhook(_) => f.write_str("webhook")?,
                Source::Event(kind) => write!(f, "event {kind}")?,
            },
        }
        match self.zone.iana_name() {
            Some(zone) if self.rule.is_local() => write!(f, " {zone}"),
            _ => Ok(()),
        }
    }
}

impl Rule {
    /// Whether it speaks of what a clock shows.
    pub(super) const fn is_local(&self) -> bool {
        !matches!(self, Self::Every(_) | Self::At(Moment::Instant(_)) | Self::On(_))
    }

    /// What is meant when nothing is said about gaps and folds. A rule with times in every hour means elapsed time, so
    /// it follows the hours that pass; any other one means a time of day, so it fires once on each day.
    pub fn defaults(&self) -> (Gap, Fold) {
        let is_elapsed = match self {
            Self::Cron(cron) => cron.is_hourly(),
            Self::Rrule(rule) => rule.is_hourly(),
            _ => !self.is_local(),
        };
        if is_elapsed { (Gap::Skip, Fold::Twice) } else { (Gap::FirstValid, Fold::Once) }
    }
}

/// The first whole second after `t`.
fn second_after(t: Timestamp) -> Option<Timestamp> {
    let floor = t.as_second() - i64::from(t.subsec_nanosecond() < 0);
    Timestamp::from_second(floor + 1).ok()
}

/// The first whole second that is not before `t`.
fn second_from(t: Timestamp) -> Option<Timestamp> {
    if t.subsec_nanosecond() == 0 { Some(t) } else { second_after(t) }
}
