//! Calendars: days and windows that schedules heed.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    calendar::{self, Entry, Kind, Verdict, ical::LeftOver},
    id::CalendarId,
};

/// A calendar as somebody sees it.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
#[schema(as = SavedCalendar)]
pub struct Calendar {
    pub id: CalendarId,
    /// All organizations have it.
    pub shared: bool,
    #[serde(flatten)]
    pub calendar: calendar::Calendar,
    /// It grows with each change, from 1.
    pub version: i32,
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
    pub created_by: String,
    #[schema(value_type = String, format = DateTime)]
    pub updated_at: Timestamp,
    pub updated_by: String,
}

/// A calendar as lists have it.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct CalendarSummary {
    pub id: CalendarId,
    pub name: String,
    /// All organizations have it.
    pub shared: bool,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    pub kind: Kind,
    pub zone: String,
    /// How many entries it has.
    pub size: i32,
    pub version: i32,
    #[schema(value_type = String, format = DateTime)]
    pub updated_at: Timestamp,
    pub updated_by: String,
}

/// `POST /api/v1/calendars`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateCalendar {
    pub calendar: calendar::Calendar,
    /// For all organizations. One's own calendar hides a shared one of the same name.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub shared: bool,
}

/// `PUT /api/v1/calendars/{calendar}`: all of it anew but its name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ChangeCalendar {
    pub calendar: calendar::Calendar,
    /// The version that the author has seen: when there is a newer one, nothing is saved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected_version: Option<i32>,
}

/// `POST /api/v1/calendars/{calendar}/import`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ImportCalendar {
    /// An iCalendar text.
    pub text: String,
    /// Its entries take the place of those that the calendar has; otherwise those are added that it does not have yet.
    #[serde(default)]
    pub replace: bool,
    /// The version that the author has seen: when there is a newer one, nothing is saved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected_version: Option<i32>,
}

/// What became of an import.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ImportedCalendar {
    pub calendar: Calendar,
    /// How many entries were made of the text; those that the calendar had already count too.
    pub imported: usize,
    /// What could not be carried over, in the sequence of the text.
    pub left_over: Vec<LeftOver>,
}

/// What a calendar says of one instant.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct CalendarAt {
    #[schema(value_type = String, format = DateTime)]
    pub time: Timestamp,
    /// Whether a firing of this time would begin, if this were the only calendar.
    #[serde(flatten)]
    pub verdict: Verdict,
    /// The entry that the time lies in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entry: Option<Entry>,
    /// Until when that is so; absent when it stays so for longer than anybody looks ahead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub until: Option<Timestamp>,
}
