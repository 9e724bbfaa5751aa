//! A timing as people write it: in a document, in a request.

use std::collections::BTreeMap;

use jiff::{
    Timestamp,
    tz::{Disambiguation, TimeZone},
};
use serde::{Deserialize, Serialize};

use super::{Cron, Fold, Gap, Interval, Moment, Rrule, Rule, Source, Timing, Trigger, Webhook, zone};
use crate::{Invalid, job::Length};

/// When something is due: exactly one of `cron`, `every`, `at`, `rrule`, `webhook` and `event`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct WrittenTiming {
    /// `30 2 * * MON-FRI`: minute, hour, day of month, month and weekday, with the second before them when there are six.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cron: Option<String>,
    /// The time between two firings, from a second to 366 days.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub every: Option<Length>,
    /// The first instant from which `every` counts; `starts_at` unless given, and without that the beginning of 1970 UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub anchor: Option<String>,
    /// Once: `2026-12-01T10:00:00` on the clock of `zone`, or an instant, `2026-12-01T10:00:00Z`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<String>,
    /// A recurrence rule of iCalendar (RFC 5545): `FREQ=MONTHLY;BYDAY=-1FR`. It needs `dtstart`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rrule: Option<String>,
    /// The local time from which `rrule` counts, on the clock of `zone`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dtstart: Option<String>,
    /// When another program delivers something at the schedule's own address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub webhook: Option<Webhook>,
    /// When an event of this kind happens, `execution.ended`; `agent.*` is any that begins so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event: Option<String>,
    /// What `webhook` or `event` brought starts nothing when this expression does not hold of it: `event.data.state == 'failed'`,
    /// `body.ref == 'refs/heads/main'`. A webhook's speak of `body`, `headers` and `query`.
    #[serde(default, rename = "if", skip_serializing_if = "Option::is_none")]
    pub condition: Option<String>,
    /// Values of the job's parameters, each an expression over the same.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub parameters: BTreeMap<String, String>,
    /// An expression over the same that gives the name of a host, or a list of names: where the job runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hosts: Option<String>,
    /// IANA name of the time zone; UTC by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
    /// What becomes of local times that the clock skips. By default `skip` for a rule of every hour, else `first_valid`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gap: Option<Gap>,
    /// What becomes of local times that the clock shows twice. By default `twice` for a rule of every hour, else `once`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fold: Option<Fold>,
    /// Nothing fires before it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub starts_at: Option<Timestamp>,
    /// Nothing fires after it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub ends_at: Option<Timestamp>,
}

impl WrittenTiming {
    /// Reads it, with the defaults filled in.
    ///
    /// # Errors
    /// The first field that is wrong, with what is allowed.
    pub fn read(&self) -> Result<Timing, Invalid> {
        let name = self.one_rule()?;
        let zone = self.zone.as_deref().map_or(Ok(TimeZone::UTC), zone::find)?;
        if let (Some(start), Some(end)) = (self.starts_at, self.ends_at)
            && start > end
        {
            return Err(Invalid::new("ends_at", format!("is before starts_at, which is {start}")));
        }
        let rule = self.rule(&zone)?;
        let own = [
            ("anchor", &["every"][..], self.anchor.is_some()),
            ("dtstart", &["rrule"], self.dtstart.is_some()),
            ("if", &TRIGGERS, self.condition.is_some()),
            ("parameters", &TRIGGERS, !self.parameters.is_empty()),
            ("hosts", &TRIGGERS, self.hosts.is_some()),
        ];
        if let Some((field, of, _)) = own.into_iter().find(|(_, of, said)| *said && !of.contains(&name)) {
            let of = of.join(" and ");
            return Err(Invalid::new(field, format!("is for {of} alone, and this is {name}")));
        }
        if self.zone.is_some() && TRIGGERS.contains(&name) {
            return Err(Invalid::new("zone", format!("is for times, and this is {name}")));
        }
        let policies = [("gap", self.gap.is_some()), ("fold", self.fold.is_some())];
        if let Some((field, _)) = policies.into_iter().find(|(_, said)| *said)
            && !rule.is_local()
        {
            return Err(Invalid::new(
                field,
                "is for times of a clock, and no clock skips or repeats an instant",
            ));
        }
        let (gap, fold) = rule.defaults();
        Ok(Timing {
            rule,
            zone,
            gap: self.gap.unwrap_or(gap),
            fold: self.fold.unwrap_or(fold),
            starts_at: self.starts_at,
            ends_at: self.ends_at,
        })
    }

    /// The name of the one rule that it has.
    fn one_rule(&self) -> Result<&'static str, Invalid> {
        let said: Vec<&str> = [
            ("cron", self.cron.is_some()),
            ("every", self.every.is_some()),
            ("at", self.at.is_some()),
            ("rrule", self.rrule.is_some()),
            ("webhook", self.webhook.is_some()),
            ("event", self.event.is_some()),
        ]
        .into_iter()
        .filter_map(|(name, is_there)| is_there.then_some(name))
        .collect();
        match said[..] {
            [name] => Ok(name),
            [] => Err(Invalid::new(
                "cron",
                "is missing: a schedule has one of cron, every, at, rrule, webhook and event",
            )),
            [_, second, ..] => {
                let why =
                    format!("is one too many: a schedule has one rule, and this one {}", said.join(" and "));
                Err(Invalid::new(second, why))
            }
        }
    }

    fn rule(&self, zone: &TimeZone) -> Result<Rule, Invalid> {
        let source = match (&self.webhook, &self.event) {
            (Some(webhook), _) => Some(Source::Webhook(webhook.clone())),
            (None, event) => event.clone().map(Source::Event),
        };
        if let Some(source) = source {
            let (condition, parameters) = (self.condition.clone(), self.parameters.clone());
            let trigger = Trigger { source, condition, parameters, hosts: self.hosts.clone() };
            trigger.validate()?;
            return Ok(Rule::On(trigger));
        }
        if let Some(text) = &self.cron {
            return Cron::parse(text).map(Rule::Cron);
        }
        if let Some(every) = self.every {
            let anchor = match (&self.anchor, self.starts_at) {
                (Some(text), _) => instant(Moment::parse("anchor", text)?, zone)?,
                (None, Some(start)) if start.subsec_nanosecond() != 0 => {
                    let why = "is not a whole second, and the interval counts from it";
                    return Err(Invalid::new("starts_at", why));
                }
                (None, start) => start.unwrap_or(Timestamp::UNIX_EPOCH),
            };
            return Interval::new(every, anchor).map(Rule::Every);
        }
        if let Some(text) = &self.rrule {
            let Some(start) = &self.dtstart else {
                return Err(Invalid::new("dtstart", "is missing: it is where an rrule begins to count"));
            };
            let Moment::Local(start) = Moment::parse("dtstart", start)? else {
                return Err(Invalid::new("dtstart", "has an offset; write what the clock of zone shows"));
            };
            return Rrule::parse(text, start, zone).map(Rule::Rrule);
        }
        Moment::parse("at", self.at.as_deref().unwrap_or_default()).map(Rule::At)
    }
}

/// The rules that are none of a clock.
const TRIGGERS: [&str; 2] = ["webhook", "event"];

/// Of a local time that is skipped or repeated the instant is meant that jiff calls compatible.
fn instant(anchor: Moment, zone: &TimeZone) -> Result<Timestamp, Invalid> {
    match anchor {
        Moment::Instant(instant) => Ok(instant),
        Moment::Local(local) => zone
            .to_ambiguous_zoned(local)
            .disambiguate(Disambiguation::Compatible)
            .map(|zoned| zoned.timestamp())
            .map_err(|_| Invalid::new("anchor", format!("'{local}' is out of range"))),
    }
}

impl TryFrom<WrittenTiming> for Timing {
    type Error = Invalid;

    fn try_from(written: WrittenTiming) -> Result<Self, Invalid> {
        written.read()
    }
}

impl From<Timing> for WrittenTiming {
    fn from(timing: Timing) -> Self {
        let mut written = Self {
            zone: timing.zone.iana_name().map(str::to_owned),
            starts_at: timing.starts_at,
            ends_at: timing.ends_at,
            ..Self::default()
        };
        if timing.rule.is_local() {
            (written.gap, written.fold) = (Some(timing.gap), Some(timing.fold));
        }
        match timing.rule {
            Rule::Cron(cron) => written.cron = Some(cron.to_string()),
            Rule::Every(interval) => {
                written.every = Some(interval.every());
                written.anchor = Some(interval.anchor().to_string());
            }
            Rule::Rrule(rule) => {
                written.dtstart = Some(rule.start().to_string());
                written.rrule = Some(rule.to_string());
            }
            Rule::At(moment) => written.at = Some(moment.to_string()),
            Rule::On(trigger) => {
                written.zone = None;
                match trigger.source {
                    Source::Webhook(webhook) => written.webhook = Some(webhook),
                    Source::Event(kind) => written.event = Some(kind),
                }
                written.condition = trigger.condition;
                written.parameters = trigger.parameters;
                written.hosts = trigger.hosts;
            }
        }
        written
    }
}

impl utoipa::PartialSchema for Timing {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::Schema> {
        WrittenTiming::schema()
    }
}

impl utoipa::ToSchema for Timing {
    fn schemas(schemas: &mut Vec<(String, utoipa::openapi::RefOr<utoipa::openapi::schema::Schema>)>) {
        WrittenTiming::schemas(schemas);
    }
}
