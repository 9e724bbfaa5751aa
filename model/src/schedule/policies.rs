//! What becomes of a firing that cannot be as it was planned.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::Schedule;

/// What becomes of firings that were not begun in time: nobody was there, or the database was away.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Misfire {
    /// All of them are missed.
    Skip,
    /// The newest is caught up; those before it are missed.
    #[default]
    RunOnce,
    /// Each is caught up.
    RunAll,
}

/// What becomes of a firing while an execution of its schedule is open.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Overlap {
    /// It starts beside it.
    Allow,
    /// It is skipped.
    #[default]
    Skip,
    /// It waits for the end; if another waits already, it is skipped.
    QueueOne,
    /// It waits for its turn.
    QueueAll,
    /// What runs is cancelled, and it starts when that has ended. One that waits already is skipped.
    CancelRunning,
}

/// What becomes of a firing when none of its hosts is connected.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum WhenOffline {
    /// It starts, and the job says what becomes of hosts that are away.
    #[default]
    Start,
    /// It is skipped.
    Skip,
}

/// How a firing stands whose time has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Timeliness {
    InTime,
    /// It is late, and caught up all the same.
    CaughtUp,
    /// It is late, and nothing starts any more.
    Missed,
}

/// Judges a firing that was to begin at `at`; `next` is when the one behind it begins, if there is one.
pub fn timeliness(schedule: &Schedule, at: Timestamp, next: Option<Timestamp>, now: Timestamp) -> Timeliness {
    let late = now.duration_since(at);
    if late <= schedule.max_lateness.duration() {
        return Timeliness::InTime;
    }
    let is_newest = next.is_none_or(|next| next > now);
    let is_wanted = match schedule.misfire {
        Misfire::Skip => false,
        Misfire::RunOnce => is_newest,
        Misfire::RunAll => true,
    };
    if is_wanted && late <= schedule.catch_up_window.duration() {
        Timeliness::CaughtUp
    } else {
        Timeliness::Missed
    }
}

/// Whether `pause` executions in a row did not succeed, now that one more ended so.
pub const fn is_enough(failures: u32, pause_after: Option<u32>) -> bool {
    matches!(pause_after, Some(most) if failures >= most)
}

/// For how long after their times firings may start of which each one does, with the name of the field that says so.
pub fn longest_window(schedule: &Schedule) -> (&'static str, SignedDuration) {
    let (late, window) = (schedule.max_lateness.duration(), schedule.catch_up_window.duration());
    if schedule.misfire == Misfire::RunAll && window > late {
        ("catch_up_window", window)
    } else {
        ("max_lateness", late)
    }
}

/// How many firings would start at once, if nobody had been there for that long until `now`; counted up to `most`.
pub fn starts_at_once(schedule: &Schedule, now: Timestamp, most: usize) -> usize {
    let (_, window) = longest_window(schedule);
    let Ok(until) = now.checked_add(window) else { return most };
    let firings = std::iter::successors(schedule.when.after(now), |last| schedule.when.after(last.due));
    firings.take(most).take_while(|firing| firing.due <= until).count()
}
