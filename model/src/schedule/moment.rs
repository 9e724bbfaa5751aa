//! One point in time, as people write it: what a clock shows, or an instant.

use std::fmt;

use jiff::{Timestamp, civil::DateTime};

use crate::Invalid;

/// A whole second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// `2026-12-01T10:00:00`, on the clock of the timing's zone.
    Local(DateTime),
    /// `2026-12-01T10:00:00Z` or with any other offset.
    Instant(Timestamp),
}

impl Moment {
    /// Reads an RFC 3339 time, with or without an offset; seconds may be left out.
    ///
    /// # Errors
    /// Of the field `field`, with what is expected.
    pub fn parse(field: &str, text: &str) -> Result<Self, Invalid> {
        let moment = match (text.parse(), text.parse()) {
            (Ok(instant), _) => Self::Instant(instant),
            // A civil time is read whatever zone is written behind it.
            (_, Ok(local)) if !text.contains('[') => Self::Local(local),
            _ => {
                let why = format!(
                    "'{text}' is no time; write 2026-12-01T10:00:00, with Z or +01:00 for an instant"
                );
                return Err(Invalid::new(field, why));
            }
        };
        let nanoseconds = match moment {
            Self::Local(local) => local.subsec_nanosecond(),
            Self::Instant(instant) => instant.subsec_nanosecond(),
        };
        if nanoseconds != 0 {
            return Err(Invalid::new(field, format!("'{text}' is not a whole second")));
        }
        Ok(moment)
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Local(local) => local.fmt(f),
            Self::Instant(instant) => instant.fmt(f),
        }
    }
}
