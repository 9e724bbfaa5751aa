//! Lengths of time as people write them in a job: `90s`, `5m`, `1h 30m`, or a number of seconds.

use std::fmt;

use jiff::{SignedDuration, Span, SpanRelativeTo};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A length of time in whole seconds, never negative.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Length(pub i64);

impl Length {
    pub const fn seconds(self) -> i64 {
        self.0
    }

    pub const fn duration(self) -> SignedDuration {
        SignedDuration::from_secs(self.0)
    }

    /// Reads `90s`, `5m`, `1h 30m`, `2 days`, or a number of seconds.
    ///
    /// # Errors
    /// What is expected, as the rest of a sentence.
    pub fn parse(text: &str) -> Result<Self, String> {
        if let Ok(seconds) = text.parse::<u32>() {
            return Ok(Self(seconds.into()));
        }
        let wrong = || format!("'{text}' is no length of time; write 90s, 5m or 1h 30m");
        let span: Span = text.parse().map_err(|_| wrong())?;
        let length = span.to_duration(SpanRelativeTo::days_are_24_hours()).map_err(|_| wrong())?;
        if length.is_negative() || length.subsec_nanos() != 0 {
            return Err(format!("'{text}' is not a whole number of seconds from 0"));
        }
        Ok(Self(length.as_secs()))
    }
}

impl fmt::Display for Length {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#}", self.duration())
    }
}

impl Serialize for Length {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_i64(self.0)
    }
}

impl<'de> Deserialize<'de> for Length {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;

        impl de::Visitor<'_> for Visitor {
            type Value = Length;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a length of time: 90s, 5m, 1h 30m, or a number of seconds")
            }

            fn visit_u64<E: de::Error>(self, seconds: u64) -> Result<Length, E> {
                i64::try_from(seconds).map(Length).map_err(|_| E::custom("is too long"))
            }

            fn visit_i64<E: de::Error>(self, seconds: i64) -> Result<Length, E> {
                if seconds < 0 {
                    return Err(E::custom(format!("'{seconds}' is below zero")));
                }
                Ok(Length(seconds))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Length, E> {
                Length::parse(text).map_err(E::custom)
            }
        }

        deserializer.deserialize_any(Visitor)
    }
}

impl utoipa::PartialSchema for Length {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::Schema> {
        use utoipa::openapi::{ObjectBuilder, OneOfBuilder, Type};
        let seconds = ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(0));
        let text = ObjectBuilder::new().schema_type(Type::String).examples(["90s", "5m", "1h 30m"]);
        let about = "A length of time: a number of seconds, or 90s, 5m, 1h 30m.";
        OneOfBuilder::new().item(seconds).item(text).description(Some(about)).into()
    }
}

impl utoipa::ToSchema for Length {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_people_write() {
        for (text, want) in [
            ("90s", 90),
            ("5m", 300),
            ("1h 30m", 5400),
            ("45", 45),
            ("0", 0),
            ("1h30m", 5400),
            ("2 days", 172_800),
        ] {
            assert_eq!(Length::parse(text), Ok(Length(want)), "{text}");
        }
        for text in ["", "soon", "-5m", "1.5s", "5 parsecs", "99999999999999999999h"] {
            assert!(Length::parse(text).is_err(), "{text}");
        }
    }
}
