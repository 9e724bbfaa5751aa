//! Shows events to the schedules that wait for them.
//!
//! Invariants: an event is shown once: up to where an organization's have been shown is a row, which moves in the transaction that
//! keeps what was made of them. Judging takes its time before that transaction begins, and counts only if nobody was faster. What one
//! organization's schedules cost holds up its own events: others have their turn beside it.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::{StreamExt as _, stream};
use model::{
    api::{
        event::Event,
        schedule::{Cause, Origin},
    },
    id::{ExecutionId, OrgId, ScheduleId},
    limits,
    schedule::Schedule,
};
use serde_json::json;
use sqlx::PgConnection;

use super::{
    App,
    arrivals::{self, Coming, Judged},
    versions,
};
use crate::{
    clock,
    error::{During, Result},
    store::{
        self,
        events::{Complete, Filter, Position},
        triggers::Listener,
    },
};

/// Events that are shown together at most, and for how long these are judged.
const EVENTS: i64 = 500;
const JUDGED_FOR: Duration = Duration::from_secs(1);
/// Organizations whose events are shown at the same time.
const AT_A_TIME: usize = 4;

/// Shows events that are complete, to all organizations some; answers whether there are more.
///
/// # Errors
/// When the database does not answer for one of the organizations: what was not committed has not been shown, and the next round
/// does it. The others have had theirs.
pub(crate) async fn show_events(app: &App) -> Result<bool> {
    let orgs = store::triggers::listening(app.db.worker()).await?;
    let each = stream::iter(orgs).map(async |org| (org, show_some(app, org).await));
    let done: Vec<_> = each.buffer_unordered(AT_A_TIME).collect().await;
    let (mut has_more, mut has_come, mut failed) = (false, false, None);
    for (org, shown) in done {
        match shown {
            Ok(shown) => {
                has_more |= shown.has_more;
                has_come |= shown.has_come;
            }
            Err(error) => {
                tracing::warn!(org.id = %org, %error, "events could not be shown to schedules, and will be");
                failed = Some(error);
            }
        }
    }
    if has_come {
        app.wake.schedules.notify_one();
    }
    failed.map_or(Ok(has_more), Err)
}

#[derive(Debug, Default)]
struct Shown {
    /// Something came of them for a schedule.
    has_come: bool,
    has_more: bool,
}

/// A listener with what it says, where somebody saved that.
type Read = Vec<(Listener, Option<Schedule>)>;

/// Shows some events of an organization.
async fn show_some(app: &App, org: OrgId) -> Result<Shown> {
    let pool = app.db.worker();
    let Some(after) = store::triggers::position(pool, org).await? else { return Ok(Shown::default()) };
    // However long another transaction stays open: an event behind it is shown late, and not never.
    let from = (after, Complete::Surely);
    let (events, _) = store::events::following(pool, org, &Filter::default(), from, EVENTS).await?;
    let Some((last, _)) = events.last() else { return Ok(Shown::default()) };
    let (last, is_full) = (*last, i64::try_from(events.len()).unwrap_or(0) == EVENTS);
    let mut kinds: Vec<&str> = events.iter().map(|(_, event)| event.kind.as_str()).collect();
    kinds.sort_unstable();
    kinds.dedup();
    let listeners = store::triggers::listeners(pool, org, &kinds).await?;
    let read: Arc<Read> = Arc::new(read(app, org, listeners)?);
    let judging = Arc::clone(&read);
    let (shown, judged) = arrivals::beside(move || judge_all(&events, &judging)).await?;

    let mut tx = pool.begin().await.during("begin")?;
    if !store::triggers::hold(&mut tx, org, after).await? {
        // Somebody else shows them.
        return Ok(Shown::default());
    }
    let mut keeping =
        Keeping { app, org, verified: HashMap::new(), waiting: HashMap::new(), has_come: false };
    for (listener, schedule) in read.iter() {
        if schedule.as_ref().is_none_or(|schedule| schedule.when.trigger().is_none()) {
            keeping.is_verified(&mut tx, listener).await?;
        }
    }
    for (event, all) in &judged {
        keeping.keep(&mut tx, event, all, &read).await?;
    }
    fault::point("controller.trigger.shown");
    store::triggers::set_position(&mut tx, org, shown).await?;
    tx.commit().await.during("commit")?;
    Ok(Shown { has_come: keeping.has_come, has_more: is_full || shown != last })
}

/// Reads what listeners say.
///
/// # Errors
/// When another version of the program wrote one of them, whose it is to judge events for it.
fn read(app: &App, org: OrgId, listeners: Vec<Listener>) -> Result<Read> {
    let each = listeners.into_iter().map(|listener| match store::schedules::read(&listener.saved.document) {
        Ok(schedule) => Ok((listener, Some(schedule))),
        Err(error) if is_saved(app, org, &listener) => Err(error),
        Err(_) => Ok((listener, None)),
    });
    each.collect()
}

/// What came of an event: the places of the listeners for which something did.
type JudgedEvent = (Event, Vec<(usize, Judged)>);

/// Judges events for all that wait for their kinds, and says up to which it came: at least one.
fn judge_all(events: &[(Position, Event)], listeners: &Read) -> (Position, Vec<JudgedEvent>) {
    let begun = Instant::now();
    let mut judged = Vec::new();
    let mut shown = events[0].0;
    for (position, event) in events {
        let mut all = Vec::new();
        let mut data = None;
        for (place, (listener, schedule)) in listeners.iter().enumerate() {
            let Some(trigger) = schedule.as_ref().and_then(|schedule| schedule.when.trigger()) else {
                continue;
            };
            if !trigger.source.is_of(&event.kind) || position.tx < listener.events_after {
                continue;
            }
            match arrivals::judge(trigger, data.get_or_insert_with(|| json!({ "event": event }))) {
                // Most events are not what is waited for: these are no firings.
                Err((Cause::Condition, _)) => {}
                taken => all.push((place, taken)),
            }
        }
        if !all.is_empty() {
            judged.push((event.clone(), all));
        }
        shown = *position;
        if begun.elapsed() > JUDGED_FOR {
            break;
        }
    }
    (shown, judged)
}

/// Keeps what came of events, in one transaction.
struct Keeping<'a> {
    app: &'a App,
    org: OrgId,
    /// Whether each schedule is what somebody saved; looked at when something is to be made of it.
    verified: HashMap<ScheduleId, bool>,
    /// How much waits for each.
    waiting: HashMap<ScheduleId, i64>,
    has_come: bool,
}

impl Keeping<'_> {
    async fn keep(
        &mut self,
        connection: &mut PgConnection,
        event: &Event,
        all: &[(usize, Judged)],
        listeners: &Read,
    ) -> Result<()> {
        let led = self.led_to(connection, event).await?;
        for (place, judged) in all {
            let (listener, id) = (&listeners[*place].0, listeners[*place].0.id);
            if !self.is_verified(connection, listener).await? {
                continue;
            }
            let mut judged = judged.clone();
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
            self.has_come |= store::triggers::arrive(connection, &arrival).await?;
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
            self.has_come = true;
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
