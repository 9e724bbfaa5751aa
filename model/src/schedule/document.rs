//! The document: what a schedule is, as people save it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Misfire, Overlap, Timing, WhenOffline};
use crate::{
    Invalid,
    access::validate_slug,
    api::{execution::Targets, target_group::validate_description},
    command::within,
    id::ScheduleId,
    job::{BadDocument, JobTargets, Length, located},
    limits,
};

/// A schedule: when which job starts, with which values, and what becomes of a firing that cannot be as it was planned.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = ScheduleDocument, example = json!({ "name": "backup-nightly", "job": "backup", "when": { "cron": "30 2 * * *", "zone": "Europe/Warsaw" } }))]
pub struct Schedule {
    /// What it is called in its organization: lower-case letters, digits and any of `_ . -`.
    pub name: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// Name of the job that it starts.
    pub job: String,
    /// The version to run; the newest at each firing by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<i32>,
    pub when: Timing,
    /// Values of the job's parameters.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schema(value_type = std::collections::BTreeMap<String, Object>)]
    pub parameters: BTreeMap<String, Value>,
    /// Where, in place of what the job says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub targets: Option<JobTargets>,
    /// Of what waits for a host the highest comes first: -100 to 100, as the job says by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<i64>,
    /// Each firing begins up to so much later, by a time of its own that is always the same for it; at once by default.
    #[serde(default, skip_serializing_if = "is_none")]
    pub jitter: Length,
    /// A firing that begins by so much after its time is not late; a minute by default.
    #[serde(default = "max_lateness")]
    pub max_lateness: Length,
    /// What becomes of one that is later than that.
    #[serde(default)]
    pub misfire: Misfire,
    /// How long after its time such a one may still be caught up; an hour by default.
    #[serde(default = "catch_up_window")]
    pub catch_up_window: Length,
    /// What becomes of one while an execution of the schedule is still open.
    #[serde(default)]
    pub overlap: Overlap,
    /// It is paused after so many executions in a row that did not succeed; never by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pause_after_failures: Option<u32>,
    /// What becomes of one when none of its hosts is connected.
    #[serde(default)]
    pub when_offline: WhenOffline,
    /// Names of calendars: in a blackout nothing fires, and with calendars of allowed times only in one of these.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub calendars: Vec<String>,
}

const fn max_lateness() -> Length {
    Length(limits::DEFAULT_MAX_LATENESS_SECONDS)
}

const fn catch_up_window() -> Length {
    Length(limits::DEFAULT_CATCH_UP_SECONDS)
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands a reference")]
fn is_none(length: &Length) -> bool {
    length.seconds() == 0
}

/// Reads a schedule from YAML or JSON.
///
/// # Errors
/// The first thing that is wrong, with its place.
pub fn read(text: &str) -> Result<Schedule, BadDocument> {
    let schedule: Schedule = crate::job::yaml::read(text)?;
    schedule.validate().map_err(|invalid| located(text, invalid))?;
    Ok(schedule)
}

/// What stands in the place of a schedule's name in paths.
const RESERVED: [&str; 3] = ["preview", "job", "forecast"];

impl Schedule {
    /// One with nothing but what it needs.
    pub fn new(name: &str, job: &str, when: Timing) -> Self {
        Self {
            name: name.to_owned(),
            description: String::new(),
            job: job.to_owned(),
            version: None,
            when,
            parameters: BTreeMap::new(),
            targets: None,
            priority: None,
            jitter: Length::default(),
            max_lateness: max_lateness(),
            misfire: Misfire::default(),
            catch_up_window: catch_up_window(),
            overlap: Overlap::default(),
            pause_after_failures: None,
            when_offline: WhenOffline::default(),
            calendars: Vec::new(),
        }
    }

    /// Checks every field against its limit.
    ///
    /// # Errors
    /// The first field that is wrong, with what is allowed.
    pub fn validate(&self) -> Result<(), Invalid> {
        validate_slug("name", &self.name)?;
        if self.name.parse::<ScheduleId>().is_ok() {
            return Err(Invalid::new("name", "is an id, which is no name of a schedule"));
        }
        if RESERVED.contains(&self.name.as_str()) {
            return Err(Invalid::new(
                "name",
                format!("is '{}', which stands for something else in paths", self.name),
            ));
        }
        validate_description(&self.description)?;
        validate_slug("job", &self.job)?;
        if self.version.is_some_and(|version| version < 1) {
            return Err(Invalid::new("version", "must be 1 or more"));
        }
        if let Some(targets) = &self.targets {
            targets.validate()?;
            let _: Targets = targets.chosen()?;
        }
        if let Some(priority) = self.priority {
            within("priority", priority, &limits::PRIORITY)?;
        }
        within("jitter", self.jitter.seconds(), &limits::JITTER_SECONDS)?;
        if let Some(trigger) = self.when.trigger() {
            if self.jitter.seconds() > 0 {
                return Err(Invalid::new("jitter", "is for planned times, and this schedule has none"));
            }
            if let Some(name) = trigger.parameters.keys().find(|name| self.parameters.contains_key(*name)) {
                let why = "has a value of its own and one of when.parameters: one of both is too much";
                return Err(Invalid::new(format!("parameters.{name}"), why));
            }
        }
        within("max_lateness", self.max_lateness.seconds(), &limits::MAX_LATENESS_SECONDS)?;
        within("catch_up_window", self.catch_up_window.seconds(), &limits::CATCH_UP_SECONDS)?;
        if let Some(failures) = self.pause_after_failures {
            within("pause_after_failures", failures.into(), &limits::FAILURES_IN_A_ROW)?;
        }
        if self.calendars.len() > limits::CALENDARS_OF_A_SCHEDULE {
            let limit = limits::CALENDARS_OF_A_SCHEDULE;
            return Err(Invalid::over("calendars", "CALENDARS_OF_A_SCHEDULE", limit, "names"));
        }
        for name in &self.calendars {
            validate_slug("calendars", name)?;
        }
        let mut names: Vec<&String> = self.calendars.iter().collect();
        names.sort_unstable();
        if let Some(pair) = names.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(Invalid::new("calendars", format!("names '{}' twice", pair[0])));
        }
        Ok(())
    }
}
