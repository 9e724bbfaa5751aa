//! What several calendars together say of an instant.

use std::{borrow::Borrow, fmt};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Compiled, Kind};

/// Whether something may begin.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(tag = "verdict", rename_all = "snake_case")]
#[schema(as = CalendarVerdict)]
pub enum Verdict {
    Open,
    /// It lies within an entry of a blackout.
    Blackout {
        calendar: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        label: Option<String>,
    },
    /// There are `allow` calendars, and it lies in none of them: these.
    OutsideAllowed {
        calendars: Vec<String>,
    },
}

/// A blackout wins, the first in the given order; with any `allow` calendars the instant has to lie in at least one of them.
/// Without calendars all is open.
pub fn verdict<C: Borrow<Compiled>>(calendars: &[C], instant: Timestamp) -> Verdict {
    let of_kind = |kind| calendars.iter().map(Borrow::borrow).filter(move |calendar| calendar.kind() == kind);
    let mut blackouts = of_kind(Kind::Blackout);
    if let Some((calendar, entry)) = blackouts.find_map(|calendar| Some((calendar, calendar.at(instant)?))) {
        return Verdict::Blackout { calendar: calendar.name().to_owned(), label: entry.label.clone() };
    }
    let is_allowed = of_kind(Kind::Allow).any(|calendar| calendar.at(instant).is_some());
    let allowing: Vec<String> = of_kind(Kind::Allow).map(|calendar| calendar.name().to_owned()).collect();
    if is_allowed || allowing.is_empty() {
        Verdict::Open
    } else {
        Verdict::OutsideAllowed { calendars: allowing }
    }
}

impl fmt::Display for Verdict {
    /// The reason, as people read it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Open => f.write_str("open"),
            Self::Blackout { calendar, label: None } => write!(f, "in the blackout '{calendar}'"),
            Self::Blackout { calendar, label: Some(label) } => {
                write!(f, "in the blackout '{calendar}' ({label})")
            }
            Self::OutsideAllowed { calendars } => {
                write!(f, "outside of what is allowed by '{}'", calendars.join("', '"))
            }
        }
    }
}

#[cfg(test)]
mod tests;
