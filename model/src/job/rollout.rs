//! How a job, or a command, spreads over its hosts: in batches, some at a time, and no further than failures allow.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::{COMMAND, Length, OnFailure, Step, context::Names};
use crate::{Invalid, command::within, limits};

/// In which steps, how many at once, and when to stop.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Rollout {
    /// Hosts that come before all others; when one of them fails it stops, whatever `max_failures` says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub canary: Option<Canary>,
    /// How many hosts have had their turn when each batch is over: `[1, 10%, 50%, 100%]`. The rest is one batch more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batches: Option<Vec<Share>>,
    /// Hosts that are at work at a time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_parallel: Option<usize>,
    /// Hosts that may fail, of all; when there are more, no further host begins. Without it any number may.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_failures: Option<Share>,
    /// How long to wait between two batches.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pause: Option<Length>,
}

/// The hosts that are tried first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Canary {
    /// How many of all; one at least.
    pub hosts: Share,
    /// How long after the last of its steps a host is asked the probe; without a probe, how long the others wait.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub soak: Option<Length>,
    /// What has to succeed on each of these hosts then: a step that has no name and needs nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Probe>)]
    pub probe: Option<Box<Step>>,
}

/// The schema of a step, without what a probe must not say.
pub(super) struct Probe;

impl utoipa::PartialSchema for Probe {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::Schema> {
        use utoipa::openapi::{RefOr, Schema};
        let mut step = Step::schema();
        if let RefOr::T(Schema::Object(object)) = &mut step {
            for field in ["name", "needs", "matrix", "always", "outputs", "wait", "approval", "http", "job"] {
                object.properties.remove(field);
                object.required.retain(|name| name != field);
            }
            object.description = Some("What has to succeed on a host of the canary, as a step.".to_owned());
        }
        step
    }
}

impl utoipa::ToSchema for Probe {
    fn schemas(schemas: &mut Vec<(String, utoipa::openapi::RefOr<utoipa::openapi::schema::Schema>)>) {
        Step::schemas(schemas);
    }
}

/// The name of the probe among the steps.
pub const PROBE: &str = "probe";
/// Where it stands in a document.
pub(super) const PROBE_PATH: &str = "rollout.canary.probe";

impl Canary {
    /// The probe as the step that it is.
    pub fn probe(&self) -> Option<Step> {
        self.probe.as_deref().map(|probe| Step { name: PROBE.to_owned(), ..probe.clone() })
    }

    fn validate(&self) -> Result<(), Invalid> {
        if matches!(self.hosts, Share::Hosts(0) | Share::Percent(0)) {
            return Err(Invalid::new("rollout.canary.hosts", "is 0; a canary has a host at least"));
        }
        if let Some(soak) = self.soak {
            within("rollout.canary.soak", soak.seconds(), &limits::SOAK_SECONDS)?;
        }
        match &self.probe {
            Some(probe) => check_probe(probe)
                .map_err(|invalid| Invalid::new(format!("{PROBE_PATH}.{}", invalid.field), invalid.problem)),
            None => Ok(()),
        }
    }
}

fn check_probe(probe: &Step) -> Result<(), Invalid> {
    let wrong = |field, why: &str| Err(Invalid::new(field, why));
    if !probe.name.is_empty() {
        return wrong("name", "is not for the probe, which is the step 'probe'");
    }
    if let Some(field) = probe.controllers_field() {
        return wrong(field, "is the controller's own; a probe runs on the hosts of the canary");
    }
    let said = [
        ("needs", probe.needs.is_some()),
        ("matrix", !probe.matrix.is_empty()),
        ("always", probe.always),
        ("outputs", !probe.outputs.is_empty()),
    ];
    if let Some((field, _)) = said.into_iter().find(|(_, is_there)| *is_there) {
        return wrong(field, "is not for the probe, which comes behind all steps and is read by none");
    }
    if probe.on_failure == OnFailure::Continue {
        return wrong("on_failure", "is continue, and a probe that may fail holds nobody back");
    }
    Step { name: PROBE.to_owned(), ..probe.clone() }.validate()
}

/// A number of hosts, or of each hundred of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Share {
    Hosts(usize),
    Percent(u8),
}

impl Share {
    /// Reads `10` and `10%`.
    ///
    /// # Errors
    /// What is expected, as the rest of a sentence.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = || format!("'{text}' is neither a number of hosts nor a percentage from 0% to 100%");
        match text.strip_suffix('%') {
            Some(percent) => match percent.trim().parse() {
                Ok(percent @ 0..=100) => Ok(Self::Percent(percent)),
                _ => Err(wrong()),
            },
            None => text.parse().map(Self::Hosts).map_err(|_| wrong()),
        }
    }

    /// How many that is of `total`, rounded down, and at most all of them.
    pub fn of(self, total: usize) -> usize {
        match self {
            Self::Hosts(hosts) => hosts.min(total),
            Self::Percent(percent) => total * usize::from(percent) / 100,
        }
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hosts(hosts) => write!(f, "{hosts}"),
            Self::Percent(percent) => write!(f, "{percent}%"),
        }
    }
}

impl Serialize for Share {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Hosts(hosts) => hosts.serialize(serializer),
            Self::Percent(_) => serializer.collect_str(self),
        }
    }
}

impl<'de> Deserialize<'de> for Share {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;

        impl de::Visitor<'_> for Visitor {
            type Value = Share;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number of hosts, or a percentage as 10%")
            }

            fn visit_u64<E: de::Error>(self, hosts: u64) -> Result<Share, E> {
                usize::try_from(hosts).map(Share::Hosts).map_err(|_| E::custom("is too many"))
            }

            fn visit_i64<E: de::Error>(self, hosts: i64) -> Result<Share, E> {
                usize::try_from(hosts)
                    .map(Share::Hosts)
                    .map_err(|_| E::custom(format!("'{hosts}' is below zero")))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Share, E> {
                Share::parse(text).map_err(E::custom)
            }
        }

        deserializer.deserialize_any(Visitor)
    }
}

impl utoipa::PartialSchema for Share {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::Schema> {
        use utoipa::openapi::{ObjectBuilder, OneOfBuilder, Type};
        let hosts = ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(0));
        let percent = ObjectBuilder::new().schema_type(Type::String).pattern(Some("^[0-9]{1,3}%$"));
        let about = "A number of hosts, or a percentage of them as 10%.";
        OneOfBuilder::new().item(hosts).item(percent).description(Some(about)).into()
    }
}

impl utoipa::ToSchema for Share {}

impl Rollout {
    /// Checks every field.
    ///
    /// # Errors
    /// The first that is wrong, as a path below the document.
    pub fn validate(&self) -> Result<(), Invalid> {
        if let Some(canary) = &self.canary {
            canary.validate()?;
        }
        if let Some(batches) = &self.batches {
            if batches.is_empty() {
                return Err(Invalid::new("rollout.batches", "is empty; leave it out for one batch of all"));
            }
            if batches.len() > limits::BATCHES {
                return Err(Invalid::over("rollout.batches", "BATCHES", limits::BATCHES, "batches"));
            }
            if let Some(index) =
                batches.iter().position(|share| matches!(share, Share::Hosts(0) | Share::Percent(0)))
            {
                return Err(Invalid::new(
                    format!("rollout.batches[{index}]"),
                    "is 0; a batch has a host at least",
                ));
            }
        }
        if self.max_parallel == Some(0) {
            return Err(Invalid::new("rollout.max_parallel", "is 0; at least one host is at work at a time"));
        }
        match self.pause {
            Some(pause) if !limits::WAIT_SECONDS.contains(&pause.seconds()) => {
                let most = limits::WAIT_SECONDS.end();
                Err(Invalid::new("rollout.pause", format!("is over the longest pause of {most} seconds")))
            }
            _ => Ok(()),
        }
    }

    /// Checks a rollout of a command of its own: what the probe can say where there is no job.
    ///
    /// # Errors
    /// The first that is wrong, as a path below the request.
    pub fn validate_of_command(&self) -> Result<(), Invalid> {
        self.validate()?;
        let Some(probe) = self.canary.as_ref().and_then(Canary::probe) else { return Ok(()) };
        if probe.on_failure == OnFailure::Rollback {
            let why = "is rollback, and a command of its own has nothing that undoes it";
            return Err(Invalid::new(format!("{PROBE_PATH}.on_failure"), why));
        }
        if probe.script.as_ref().is_some_and(|script| script.used.is_some()) {
            let why = "is a saved script, and those are for jobs: say its content";
            return Err(Invalid::new(format!("{PROBE_PATH}.script.use"), why));
        }
        let steps = [(COMMAND.to_owned(), Default::default())].into();
        probe.validate_texts(PROBE_PATH, &Names { steps, ..Names::default() })
    }

    /// Whether the hosts of this batch are those that are tried first.
    pub const fn is_canary(&self, batch: u16) -> bool {
        self.canary.is_some() && batch == 0
    }

    /// What it says, in a line; nothing when it says nothing.
    pub fn summary(&self) -> String {
        let mut parts = Vec::new();
        if let Some(canary) = &self.canary {
            parts.push(format!("canary {}", canary.hosts));
            parts.extend(canary.soak.map(|soak| format!("soak {soak}")));
        }
        if let Some(batches) = &self.batches {
            let batches: Vec<String> = batches.iter().map(Share::to_string).collect();
            parts.push(format!("batches {}", batches.join(", ")));
        }
        parts.extend(self.max_parallel.map(|most| format!("{most} at a time")));
        parts.extend(self.max_failures.map(|most| format!("{most} may fail")));
        parts.extend(self.pause.map(|pause| format!("pause {pause}")));
        parts.join("; ")
    }

    /// The batch of each of `total` hosts, in their order, from 0. A batch that would be empty is left out. Those of a canary
    /// are the first batch, and count among the hosts that have had their turn.
    pub fn batches_of(&self, total: usize) -> Vec<u16> {
        let mut ends: Vec<usize> = Vec::new();
        if let Some(canary) = &self.canary
            && total > 0
        {
            ends.push(canary.hosts.of(total).max(1));
        }
        for share in self.batches.iter().flatten() {
            let end = share.of(total).max(ends.last().copied().unwrap_or(0));
            if end > ends.last().copied().unwrap_or(0) {
                ends.push(end);
            }
        }
        // A first share that is less than one host is one host: somebody has to be first.
        if ends.is_empty() && self.batches.is_some() && total > 0 {
            ends.push(1);
        }
        (0..total)
            .map(|host| {
                u16::try_from(ends.iter().take_while(|end| **end <= host).count()).unwrap_or(u16::MAX)
            })
            .collect()
    }

    /// Hosts that may fail of `total`; `None`: any number.
    pub fn budget(&self, total: usize) -> Option<usize> {
        self.max_failures.map(|share| share.of(total))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(batches: &[&str], total: usize) -> Vec<u16> {
        let batches = batches.iter().map(|text| Share::parse(text).expect("a share")).collect();
        Rollout { batches: Some(batches), ..Rollout::default() }.batches_of(total)
    }

    #[test]
    fn hosts_are_divided_as_the_shares_say() {
        assert_eq!(of(&["1", "50%", "100%"], 6), [0, 1, 1, 2, 2, 2]);
        assert_eq!(of(&["2"], 5), [0, 0, 1, 1, 1], "the rest is one batch more");
        assert_eq!(of(&["1", "10%", "100%"], 5), [0, 1, 1, 1, 1], "an empty batch is none");
        assert_eq!(of(&["10%"], 5), [0, 1, 1, 1, 1], "somebody has to be first");
        assert_eq!(of(&["50%", "1"], 4), [0, 0, 1, 1], "an end before the last end is none");
        assert_eq!(Rollout::default().batches_of(3), [0, 0, 0]);
        assert!(of(&["1"], 0).is_empty());
    }

    #[test]
    fn a_canary_is_the_first_batch() {
        let canary = |hosts: &str, batches: Option<&[&str]>, total: usize| {
            let share = |text: &&str| Share::parse(text).expect("a share");
            let canary = Canary { hosts: share(&hosts), soak: None, probe: None };
            let batches = batches.map(|batches| batches.iter().map(share).collect());
            Rollout { canary: Some(canary), batches, ..Rollout::default() }.batches_of(total)
        };
        assert_eq!(canary("1", None, 3), [0, 1, 1], "then all others");
        assert_eq!(canary("5%", None, 4), [0, 1, 1, 1], "one at least");
        assert_eq!(canary("50%", None, 4), [0, 0, 1, 1]);
        assert_eq!(canary("9", None, 2), [0, 0]);
        assert_eq!(canary("1", Some(&["50%", "100%"]), 4), [0, 1, 2, 2], "it counts among the batches");
        assert_eq!(canary("2", Some(&["1", "3"]), 4), [0, 0, 1, 2]);
        assert!(canary("1", None, 0).is_empty());
    }

    #[test]
    fn shares_read_back() {
        for (text, want) in
            [("3", Share::Hosts(3)), ("10%", Share::Percent(10)), ("100%", Share::Percent(100))]
        {
            assert_eq!(Share::parse(text), Ok(want));
            assert_eq!(want.to_string(), text);
        }
        for text in ["", "%", "101%", "-1", "1.5%", "ten"] {
            assert!(Share::parse(text).is_err(), "{text}");
        }
    }
}
