//! What a round tells besides occurrences: schedules that are paused by themselves or are not what somebody saved, and firings that
//! were missed.

use std::collections::HashMap;

use jiff::Timestamp;
use model::{
    api::schedule::{Cause, OccurrenceState, Origin},
    execution::ExecutionState,
    id::{OrgId, ScheduleId, uuid_v7},
    schedule::{Schedule, is_enough},
};
use serde_json::json;
use sqlx::PgConnection;

use super::{outcome::skipped, round::Round};
use crate::{
    clock,
    error::Result,
    store::{
        self, audit,
        events::NewEvent,
        schedules::{Due, End, Standing},
    },
};

impl Round<'_> {
    /// Counts failures in a row, and pauses the schedule when these are enough; answers how many there are, and why it is
    /// paused from now on.
    pub(super) async fn count_ends(
        &mut self,
        connection: &mut PgConnection,
        due: &Due,
        schedule: &Schedule,
    ) -> Result<(i32, Option<String>)> {
        let mut failures = due.failures;
        let mut because = None;
        let counts = |end: &End| end.execution.millis() >= millis(due.counted_from);
        for end in self.ends.remove(&due.id).unwrap_or_default().into_iter().filter(counts) {
            match end.state {
                Some(ExecutionState::Succeeded) => failures = 0,
                // Somebody wanted that.
                Some(ExecutionState::Cancelled) => {}
                _ => failures = failures.saturating_add(1),
            }
            let is_over = is_enough(u32::try_from(failures).unwrap_or(0), schedule.pause_after_failures);
            if is_over && !due.is_paused && because.is_none() {
                because = Some(format!(
                    "{failures} executions in a row did not succeed, the last one {}",
                    end.execution
                ));
            }
        }
        if let Some(why) = &because {
            self.tell_of_pause(connection, due, "done", why).await?;
            for old in self.waiting.remove(&due.id).unwrap_or_default() {
                self.become_of(due, &old, skipped(Cause::Paused, None));
            }
        }
        Ok((failures, because))
    }

    /// Somebody changed the schedule in the database: when it was to fire nobody knows. It starts nothing until it is saved anew.
    pub(super) async fn halt(
        &mut self,
        connection: &mut PgConnection,
        due: &Due,
        why: &str,
    ) -> Result<Standing> {
        tracing::error!(schedule.id = %due.id, why, "a schedule that nobody saved like this fires no more");
        self.tell_of_pause(connection, due, "alarm", why).await?;
        let came = self.arrived.remove(&due.id).unwrap_or_default();
        for old in self.waiting.remove(&due.id).unwrap_or_default().into_iter().chain(came) {
            self.become_of(due, &old, skipped(Cause::Tampered, Some(why.to_owned())));
        }
        let mut accounted_until = due.accounted_until;
        if let Some(at) = due.next_due.filter(|at| *at <= self.now) {
            self.note(due, Origin::Planned, at, skipped(Cause::Tampered, Some(why.to_owned())));
            accounted_until = Some(at);
        }
        let (failures, paused_because) = (due.failures, Some(why.to_owned()));
        Ok(Standing {
            id: due.id,
            accounted_until,
            next_due: None,
            look_at: None,
            failures,
            paused_because,
            is_halted: true,
        })
    }

    async fn tell_of_pause(
        &self,
        connection: &mut PgConnection,
        due: &Due,
        outcome: &'static str,
        why: &str,
    ) -> Result<()> {
        let entry = audit::Entry {
            outcome,
            ..audit::Entry::new(
                "controller",
                "schedule.pause",
                format!("schedule/{}", due.id),
                json!({ "why": why }),
            )
        };
        audit::record_all(connection, self.now, vec![(due.org_id, entry)]).await
    }

    /// Tells of missed firings, once for each schedule.
    pub(super) async fn tell_of_missed(&self, connection: &mut PgConnection) -> Result<()> {
        let mut missed: HashMap<(OrgId, ScheduleId), (Timestamp, Timestamp, usize)> = HashMap::new();
        for one in self.decided.iter().filter(|one| one.state == OccurrenceState::Missed) {
            let (first, last, count) =
                missed.entry((one.org_id, one.schedule_id)).or_insert((one.due, one.due, 0));
            (*first, *last, *count) = ((*first).min(one.due), (*last).max(one.due), *count + 1);
        }
        for ((org, schedule), (first, last, count)) in missed {
            let event = NewEvent {
                id: uuid_v7(self.now, clock::entropy()),
                at: self.now,
                kind: "schedule.missed",
                object: &format!("schedule/{schedule}"),
                actor: "",
                data: &json!({ "count": count, "first": first, "last": last }),
            };
            store::events::insert(connection, org, &event).await?;
        }
        Ok(())
    }
}

/// As ids count time.
fn millis(at: Timestamp) -> u64 {
    u64::try_from(at.as_millisecond()).unwrap_or(0)
}
