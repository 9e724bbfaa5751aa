//! Shows events to the schedules that wait for them.
//!
//! Invariants: an event is shown once: up to where an organization's have been shown is a row, which moves in the transaction that
//! keeps what was made of them, and whoever shows them holds it. What one organization's schedules cost holds up its own events
//! alone: a transaction shows what it can in a short time, and at least one event.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use model::{
    api::{
        event::Event,
        schedule::{Cause, Origin},
    },
    id::{ExecutionId, OrgId, ScheduleId},
    limits,
    schedule::Schedule,
};
use serde_json::{Value, json};
use sqlx::PgConnection;

use super::{
    App,
    arrivals::{self, Coming},
    versions,
};
use crate::{
    clock,
    error::{During, Result},
    store::{
        self,
        events::{Complete, Filter},
        triggers::Listener,
    },
};

/// Events that one transaction shows at most, and for how long it goes on.
const EVENTS: i64 = 500;
const AT_A_TIME: Duration = Duration::from_secs(1);

/// Shows all events that are complete.
///
/// # Errors
/// When the database does not answer for one of the organizations: what was not committed has not been shown, and the next round
/// does it. The others have had theirs.
pub(crate) async fn show_events(app: &App) -> Result<()> {
    let (mut has_come, mut failed) = (false, None);
    for org in store::triggers::listening(app.db.worker()).await? {
        match show_all(app, org).await {
            Ok(came) => has_come |= came,
            Err(error) => {
                tracing::warn!(org.id = %org, %error, "events could not be shown to schedules, and will be");
                failed = Some(error);
            }
        }
    }
    if has_come {
        app.wake.schedules.notify_one();
    }
    failed.map_or(Ok(()), Err)
}

/// Shows those of an organization; answers whether something came of them.
async fn show_all(app: &App, org: OrgId) -> Result<bool> {
    let mut has_come = false;
    while let Some((is_last, came)) = show_some(app, org).await? {
        has_come |= came;
        if is_last {
            break;
        }
    }
    Ok(has_come)
}

/// Shows some: whether these were the last, and whether something came of them. None when there is none, or somebody else shows
/// them.
async fn show_some(app: &App, org: OrgId) -> Result<Option<(bool, bool)>> {
    let mut tx = app.db.worker().begin().await.during("begin")?;
    let Some(after) = store::triggers::position(&mut tx, org).await? else { return Ok(None) };
    // However long another transaction stays open: an event behind it is shown late, and not never.
    let from = (after, Complete::Surely);
    let (events, _) =
        store::events::following(app.db.worker(), org, &Filter::default(), from, EVENTS).await?;
    let Some((last, _)) = events.last() else { return Ok(None) };
    let mut kinds: Vec<&str> = events.iter().map(|(_, event)| event.kind.as_str()).collect();
    kinds.sort_unstable();
    kinds.dedup();
    let listeners = store::triggers::listeners(&mut tx, org, &kinds).await?;
    let mut shows = Shows::new(app, org, &listeners)?;
    let (begun, mut shown) = (Instant::now(), *last);
    for (position, event) in &events {
        shows.show(&mut tx, position.tx, event).await?;
        if begun.elapsed() > AT_A_TIME {
            shown = *position;
            break;
        }
        tokio::task::yield_now().await;
    }
    fault::point("controller.trigger.shown");
    store::triggers::set_position(&mut tx, org, shown).await?;
    let is_last = shown == *last && i64::try_from(events.len()).unwrap_or(0) < EVENTS;
    tx.commit().await.during("commit")?;
    Ok(Some((is_last, shows.came)))
}

/// What one transaction shows.
struct Shows<'a> {
    app: &'a App,
    org: OrgId,
    listeners: Vec<(&'a Listener, Schedule)>,
    /// Whether each is what somebody saved; looked at when something is to be made of it.
    verified: HashMap<ScheduleId, bool>,
    /// How much waits for each.
    waiting: HashMap<ScheduleId, i64>,
    came: bool,
}

impl<'a> Shows<'a> {
    /// # Errors
    /// When another version of the program wrote one of the schedules, whose it is to judge events for it.
    fn new(app: &'a App, org: OrgId, listeners: &'a [Listener]) -> Result<Self> {
        let mut read = Vec::with_capacity(listeners.len());
        for listener in listeners {
            match store::schedules::read(&listener.saved.document) {
                Ok(schedule) => read.push((listener, schedule)),
                Err(error) if is_saved(app, org, listener) => return Err(error),
                // Nobody saved that, and it is told of when it is its turn.
                Err(_) => {}
            }
        }
        let (verified, waiting) = (HashMap::new(), HashMap::new());
        Ok(Self { app, org, listeners: read, verified, waiting, came: false })
    }

    /// Shows an event of the transaction `tx` to all that wait for its kind.
    async fn show(&mut self, connection: &mut PgConnection, tx: i64, event: &Event) -> Result<()> {
        let mut data = None;
        let mut led = None;
        for at in 0..self.listeners.len() {
            let (listener, schedule) = &self.listeners[at];
            let Some(trigger) = schedule.when.trigger() else { continue };
            if !trigger.source.is_of(&event.kind) || tx < listener.events_after {
                continue;
            }
            let data: &Value = data.get_or_insert_with(|| json!({ "event": event }));
            let mut judged = arrivals::judge(trigger, data);
            if matches!(judged, Err((Cause::Condition, _))) {
                // Most events are not what is waited for: these are no firings.
                continue;
            }
            let (id, listener) = (listener.id, *listener);
            if !self.is_verified(connection, listener).await? {
                continue;
            }
            let led = match led {
                Some(led) => led,
                None => *led.insert(self.led_to(connection, event).await?),
            };
            if let Some(why) = led.and_then(|(chain, by)| is_loop(id, chain, by)) {
                judged = Err((Cause::Loop, why));
            }
            if judged.is_ok() && !self.has_room(connection, id).await? {
                let most = limits::WAITING_OCCURRENCES;
                let why = format!("{most} wait already, which is the limit WAITING_OCCURRENCES");
                judged = Err((Cause::Overlap, why));
            }
            let coming = Coming {
                of: (self.org, id),
                revision: listener.saved.version,
                origin: Origin::Event,
                delivery: Some(event.id.to_string()),
                at: event.time,
                chain: led.map_or(0, |(chain, _)| chain.saturating_add(1)),
                detail: format!("{} of {}", event.kind, event.object),
            };
            let arrival = arrivals::seal(self.app, coming, judged)?;
            self.came |= store::triggers::arrive(connection, &arrival).await?;
        }
        Ok(())
    }

    /// Whether a schedule is what somebody saved. One that is not has its turn, to be paused with an alarm.
    async fn is_verified(&mut self, connection: &mut PgConnection, listener: &Listener) -> Result<bool> {
        if let Some(known) = self.verified.get(&listener.id) {
            return Ok(*known);
        }
        let is_good = is_saved(self.app, self.org, listener);
        if !is_good && !listener.is_paused {
            store::schedules::look_at(connection, (self.org, listener.id), clock::now()).await?;
            self.came = true;
        }
        self.verified.insert(listener.id, is_good);
        Ok(is_good)
    }

    /// Whether one more may wait for a schedule, which it does from now on.
    async fn has_room(&mut self, connection: &mut PgConnection, id: ScheduleId) -> Result<bool> {
        let waiting = match self.waiting.get(&id) {
            Some(waiting) => *waiting,
            None => store::triggers::waiting(connection, id).await?,
        };
        self.waiting.insert(id, waiting + 1);
        Ok(waiting < i64::try_from(limits::WAITING_OCCURRENCES).unwrap_or(i64::MAX))
    }

    /// How many executions led to what happened, and which schedule started the last one.
    async fn led_to(
        &self,
        connection: &mut PgConnection,
        event: &Event,
    ) -> Result<Option<(i16, Option<ScheduleId>)>> {
        match event.object.strip_prefix("execution/").and_then(|id| id.parse::<ExecutionId>().ok()) {
            Some(id) => store::triggers::chain(connection, self.org, id).await,
            None => Ok(None),
        }
    }
}

fn is_saved(app: &App, org: OrgId, listener: &Listener) -> bool {
    let verified = versions::verify(app, org, versions::SCHEDULE, listener.id.0, &listener.saved);
    matches!(verified, Ok(()))
}

/// Why a schedule does not start once more because of what it started itself, in a chain of `chain` executions.
fn is_loop(schedule: ScheduleId, chain: i16, started_by: Option<ScheduleId>) -> Option<String> {
    if started_by == Some(schedule) {
        return Some("the schedule itself started that execution".to_owned());
    }
    let most = limits::CHAINED_EXECUTIONS;
    (chain >= most).then(|| {
        format!("{most} executions in a chain caused each other, which is the limit CHAINED_EXECUTIONS")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_schedule_starts_does_not_start_it_again() {
        let [one, other] = [1, 2].map(|n| ScheduleId(uuid::Uuid::from_u128(n)));
        assert!(is_loop(one, 0, Some(one)).is_some());
        assert!(is_loop(one, 0, Some(other)).is_none() && is_loop(one, 3, None).is_none());
        assert!(is_loop(one, limits::CHAINED_EXECUTIONS, Some(other)).is_some());
    }
}
