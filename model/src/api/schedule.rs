//! Schedules, and what became of their firings.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    execution::ExecutionState,
    id::{ExecutionId, JobId, OccurrenceId, ScheduleId},
    schedule,
};

/// A schedule as somebody sees it.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Schedule {
    pub id: ScheduleId,
    pub job_id: JobId,
    pub state: ScheduleState,
    /// Why it is paused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused_because: Option<String>,
    #[serde(flatten)]
    pub schedule: schedule::Schedule,
    /// It grows with each change, from 1.
    pub revision: i32,
    /// Who saved it last: as whom it starts its job.
    pub author: String,
    /// The time of the next firing; absent when there is none any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub next: Option<Timestamp>,
    /// Where deliveries come, of one with a webhook: a path of this server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub webhook_path: Option<String>,
    /// Whether the webhook has a secret; without one it takes nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub webhook_has_secret: Option<bool>,
    /// Executions in a row, up to the newest, that did not succeed.
    pub failures: i32,
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
    #[schema(value_type = String, format = DateTime)]
    pub updated_at: Timestamp,
}

/// Whether it fires.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ScheduleState {
    Active,
    /// Its firings are skipped until somebody resumes it.
    Paused,
    /// It has no further firing.
    Over,
}

impl ScheduleState {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Paused => "paused",
            Self::Over => "over",
        }
    }
}

/// `POST /api/v1/schedules` and `PUT /api/v1/schedules/{schedule}`: all of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SaveSchedule {
    pub schedule: schedule::Schedule,
    /// The revision that the author has seen: when there is a newer one, nothing is saved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected_revision: Option<i32>,
}

/// `POST …/pause`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PauseSchedule {
    /// For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// `POST …/backfill`: the firings of a time that is over, as if they were due now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Backfill {
    /// From this time on.
    #[schema(value_type = String, format = DateTime)]
    pub from: Timestamp,
    /// Before this time, which is over.
    #[schema(value_type = String, format = DateTime)]
    pub to: Timestamp,
    /// How many executions of the schedule may be open at a time: 1 to 50, 1 by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at_a_time: Option<i64>,
    /// Also those that have started something already.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub again: bool,
    /// Only tell what it would be.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub dry_run: bool,
}

/// What a backfill fills up.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Backfilled {
    /// The times that are, or would be, started, the oldest first.
    #[schema(value_type = Vec<String>)]
    pub firings: Vec<Timestamp>,
    /// How many times are left out, because they have started something already.
    pub left_out: usize,
}

/// The new secret of a webhook; it is told here and never again.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct WebhookSecret {
    /// Where deliveries come: a path of this server.
    pub path: String,
    pub secret: String,
}

/// The answer to a delivery: what became of it, or that it waits for its start.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Delivered {
    pub occurrence_id: OccurrenceId,
    pub state: OccurrenceState,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<Cause>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// It came before: this time it starts nothing.
    pub repeated: bool,
}

/// What became of a planned firing, or of a start outside the plan.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Occurrence {
    pub id: OccurrenceId,
    pub schedule_id: ScheduleId,
    pub origin: Origin,
    /// What tells a delivery or an event from others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delivery: Option<String>,
    /// When it was planned for; of one outside the plan, when it was asked for, or came.
    #[schema(value_type = String, format = DateTime)]
    pub due: Timestamp,
    pub state: OccurrenceState,
    /// Why it did not start, or waits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<Cause>,
    /// The same for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// What it started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub execution_id: Option<ExecutionId>,
    /// How that stands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub execution_state: Option<ExecutionState>,
    /// When it was decided.
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
}

macro_rules! words {
    ($(#[$about:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident = $text:literal,)* }) => {
        $(#[$about])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
        #[serde(rename_all = "snake_case")]
        pub enum $name {
            $($(#[$doc])* $variant,)*
        }

        impl $name {
            pub const ALL: [Self; [$($text),*].len()] = [$(Self::$variant),*];

            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }

            pub fn parse(text: &str) -> Option<Self> {
                Self::ALL.into_iter().find(|word| word.as_str() == text)
            }
        }
    };
}

words! {
    /// Where an occurrence comes from.
    Origin {
        /// The plan of its schedule.
        Planned = "planned",
        /// Somebody started it by hand.
        Manual = "manual",
        /// Somebody had a time of the past filled up.
        Backfill = "backfill",
        /// A delivery came at its webhook.
        Webhook = "webhook",
        /// An event happened that it waits for.
        Event = "event",
    }
}

words! {
    /// What became of a firing.
    OccurrenceState {
        /// It started its job in time.
        Fired = "fired",
        /// It started its job, later than it should have.
        CaughtUp = "caught_up",
        /// It did not start, for a reason.
        Skipped = "skipped",
        /// Nobody was there to start it in time.
        Missed = "missed",
        /// It starts when what runs has ended.
        Waiting = "waiting",
    }
}

words! {
    /// Why a firing did not start.
    Cause {
        /// An execution of the schedule was still open.
        Overlap = "overlap",
        /// A newer one took its place while it waited.
        Superseded = "superseded",
        /// A calendar does not allow it.
        Calendar = "calendar",
        /// The schedule was paused.
        Paused = "paused",
        /// None of its hosts was connected.
        TargetOffline = "target_offline",
        /// No host is meant.
        NoTargets = "no_targets",
        /// Who saved the schedule may not start it any more.
        NotAllowed = "not_allowed",
        /// The job is not there any more.
        JobDeleted = "job_deleted",
        /// The job cannot start like this: its parameters, its targets or its commands are refused.
        Refused = "refused",
        /// The schedule is not what its author saved.
        Tampered = "tampered",
        /// The schedule was changed before it began.
        Changed = "changed",
        /// The schedule was deleted before it began.
        Deleted = "deleted",
        /// Its time was over when somebody was there.
        TooLate = "too_late",
        /// What came does not meet the schedule's condition.
        Condition = "condition",
        /// It came before the schedule's start, or behind its end.
        NotInForce = "not_in_force",
        /// What the schedule starts would start the schedule again.
        Loop = "loop",
    }
}

/// `POST /api/v1/schedules/preview`: a schedule that is only looked at.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PreviewSchedule {
    pub schedule: schedule::Schedule,
    /// How many firings: 1 to 1000, 10 by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<i64>,
}

/// The firings to come.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Preview {
    /// The zone of the local times.
    pub zone: String,
    pub firings: Vec<PlannedFiring>,
}

/// What will fire in the hours to come.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Forecast {
    #[schema(value_type = String, format = DateTime)]
    pub until: Timestamp,
    /// The next one first.
    pub firings: Vec<ForecastFiring>,
    /// There are more, which are left out.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_cut: bool,
}

/// One of them.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ForecastFiring {
    pub schedule_id: ScheduleId,
    pub schedule: String,
    pub job: String,
    #[schema(value_type = String, format = DateTime)]
    pub due: Timestamp,
    /// The same on the clock of its zone, with its offset.
    pub local: String,
    /// When it begins: later by its jitter.
    #[schema(value_type = String, format = DateTime)]
    pub begins: Timestamp,
    /// Why it will be skipped, as things stand.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub skipped: Option<Cause>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

/// One of the firings of a schedule.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct PlannedFiring {
    #[schema(value_type = String, format = DateTime)]
    pub due: Timestamp,
    /// The same on the clock of its zone, with its offset.
    pub local: String,
    /// When it begins: later by its jitter.
    #[schema(value_type = String, format = DateTime)]
    pub begins: Timestamp,
    /// Why it will be skipped, as things stand.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub skipped: Option<Cause>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}
