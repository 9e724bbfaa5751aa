//! The document: a calendar as people write it, YAML or JSON.

use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};

use super::Entry;
use crate::{
    Invalid,
    access::validate_slug,
    api::target_group::validate_description,
    job::{BadDocument, located, yaml},
    limits,
};

/// A named set of days and windows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({
    "name": "year-end-freeze",
    "kind": "blackout",
    "zone": "Europe/Warsaw",
    "entries": [{ "from": "2026-12-20", "to": "2027-01-03", "label": "Change freeze" }],
}))]
pub struct Calendar {
    /// What it is called in its organization: lower-case letters, digits and any of `_ . -`.
    pub name: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    pub kind: Kind,
    /// The IANA time zone whose clock its entries are told by, such as `Europe/Warsaw`.
    #[serde(default = "utc")]
    pub zone: String,
    /// None of them: a blackout that never is, or an `allow` that never allows.
    pub entries: Vec<Entry>,
}

/// What a calendar means for what is scheduled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = CalendarKind)]
pub enum Kind {
    /// Nothing begins within its entries.
    Blackout,
    /// Things begin only within its entries.
    Allow,
}

impl Kind {
    pub const ALL: [Self; 2] = [Self::Blackout, Self::Allow];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Blackout => "blackout",
            Self::Allow => "allow",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text)
    }
}

fn utc() -> String {
    "UTC".to_owned()
}

/// Reads and checks a calendar, YAML or JSON.
///
/// # Errors
/// The first thing that is wrong, with its line and column.
pub fn parse(text: &str) -> Result<Calendar, BadDocument> {
    let calendar: Calendar = yaml::read(text)?;
    calendar.validate().map_err(|invalid| located(text, invalid))?;
    Ok(calendar)
}

impl Calendar {
    /// Checks every field against its limit.
    ///
    /// # Errors
    /// The first field that is wrong, as `entries[3].to`, with what is allowed.
    pub fn validate(&self) -> Result<(), Invalid> {
        validate_slug("name", &self.name)?;
        if uuid::Uuid::parse_str(&self.name).is_ok() {
            return Err(Invalid::new("name", "is an id, which is no name of a calendar"));
        }
        validate_description(&self.description)?;
        self.time_zone()?;
        if self.entries.len() > limits::CALENDAR_ENTRIES {
            return Err(Invalid::over("entries", "CALENDAR_ENTRIES", limits::CALENDAR_ENTRIES, "entries"));
        }
        (0..self.entries.len()).try_for_each(|index| self.when(index).map(drop))
    }

    /// The zone that its entries are told in.
    ///
    /// # Errors
    /// When there is none of that name.
    pub(super) fn time_zone(&self) -> Result<TimeZone, Invalid> {
        zone(&self.zone)
    }

    /// When an entry is; the error has its path in the document.
    pub(super) fn when(&self, index: usize) -> Result<super::When, Invalid> {
        self.entries[index].when().map_err(|invalid| {
            let dot = if invalid.field.is_empty() { "" } else { "." };
            Invalid::new(format!("entries[{index}]{dot}{}", invalid.field), invalid.problem)
        })
    }
}

/// The IANA time zone of that name.
///
/// # Errors
/// When there is none; the field is `zone`.
pub fn zone(name: &str) -> Result<TimeZone, Invalid> {
    TimeZone::get(name).ok().filter(|zone| !zone.is_unknown()).ok_or_else(|| {
        let shown: String = name.chars().filter(|c| !c.is_control()).take(limits::NAME_CHARS).collect();
        let why = format!("is '{shown}', which is no IANA time zone (such as Europe/Warsaw or UTC)");
        Invalid::new("zone", why)
    })
}

#[cfg(test)]
mod tests;
