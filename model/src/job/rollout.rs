//! How a job, or a command, spreads over its hosts: in batches, some at a time, and no further than failures allow.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::Length;
use crate::{Invalid, limits};

/// In which steps, how many at once, and when to stop.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Rollout {
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

    /// The batch of each of `total` hosts, in their order, from 0. A batch that would be empty is left out.
    pub fn batches_of(&self, total: usize) -> Vec<u16> {
        let mut ends: Vec<usize> = Vec::new();
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
