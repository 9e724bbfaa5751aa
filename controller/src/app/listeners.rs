//! Shows events to the schedules that wait for them.
//!
//! Invariant: an event is shown once. Up to where an organization's have been shown is a row, which moves in the transaction
//! that keeps what was made of them; whoever shows them holds it.

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
    arrivals::{self, Coming},
    versions,
};
use crate::{
    error::{During, Result},
    store::{
        self,
        events::Filter,
        triggers::{Arrival, Listener},
    },
};

/// Events that one transaction shows.
const EVENTS: i64 = 500;

/// Shows all events that are complete.
///
/// # Errors
/// When the database does not answer: what was not committed has not been shown, and the next round does it.
pub(crate) async fn show_events(app: &App) -> Result<()> {
    let mut has_come = false;
    for org in store::triggers::listening(app.db.worker()).await? {
        while let Some((is_last, came)) = show_some(app, org).await? {
            has_come |= came;
            if is_last {
                break;
            }
        }
    }
    if has_come {
        app.wake.schedules.notify_one();
    }
    Ok(())
}

/// Shows some events of an organization: whether these were the last, and whether something came of them. None when there is none,
/// or somebody else shows them.
async fn show_some(app: &App, org: OrgId) -> Result<Option<(bool, bool)>> {
    let mut tx = app.db.worker().begin().await.during("begin")?;
    let Some(after) = store::triggers::position(&mut tx, org).await? else { return Ok(None) };
    let (events, next) =
        store::events::following(app.db.worker(), org, &Filter::default(), after, EVENTS).await?;
    if events.is_empty() {
        return Ok(None);
    }
    let listeners = store::triggers::listeners(&mut tx, org).await?;
    let read: Vec<_> = listeners.iter().filter_map(|one| Some((one, read(one)?))).collect();
    let mut came = false;
    for (_, event) in &events {
        for (listener, schedule) in &read {
            if let Some(arrival) = shown(app, &mut tx, (org, listener), schedule, event).await? {
                came |= store::triggers::arrive(&mut tx, &arrival).await?;
            }
        }
    }
    fault::point("controller.trigger.shown");
    store::triggers::set_position(&mut tx, org, next).await?;
    tx.commit().await.during("commit")?;
    Ok(Some((i64::try_from(events.len()).unwrap_or(0) < EVENTS, came)))
}

/// What a schedule says; none when another version of the program wrote it, whose it is.
fn read(listener: &Listener) -> Option<Schedule> {
    let read = store::schedules::read(&listener.saved.document);
    read.inspect_err(
        |error| tracing::error!(schedule.id = %listener.id, %error, "a schedule hears no events"),
    )
    .ok()
}

/// What comes of an event for a schedule, if it waits for such.
async fn shown(
    app: &App,
    connection: &mut PgConnection,
    (org, listener): (OrgId, &Listener),
    schedule: &Schedule,
    event: &Event,
) -> Result<Option<Arrival>> {
    let Some(trigger) = schedule.when.trigger().filter(|trigger| trigger.source.is_of(&event.kind)) else {
        return Ok(None);
    };
    if event.time < listener.events_from {
        return Ok(None);
    }
    if let Err(error) = versions::verify(app, org, versions::SCHEDULE, listener.id.0, &listener.saved) {
        tracing::error!(schedule.id = %listener.id, %error, "a schedule that nobody saved like this hears no events");
        return Ok(None);
    }
    let led = match event.object.strip_prefix("execution/").and_then(|id| id.parse::<ExecutionId>().ok()) {
        Some(id) => store::triggers::chain(connection, org, id).await?,
        None => None,
    };
    let data = json!({ "event": event });
    let coming = Coming {
        of: (org, listener.id),
        origin: Origin::Event,
        delivery: Some(event.id.to_string()),
        at: event.time,
        chain: led.map_or(0, |(chain, _)| chain.saturating_add(1)),
        detail: format!("{} of {}", event.kind, event.object),
        data: &data,
    };
    let mut arrival = arrivals::judge(app, coming, trigger)?;
    if matches!(arrival.skipped, Some((Cause::Condition, _))) {
        // Most events are not what is waited for: these are no firings.
        return Ok(None);
    }
    if let Some(why) = led.and_then(|(chain, by)| is_loop(listener.id, chain, by)) {
        arrival.skipped = Some((Cause::Loop, why));
    }
    Ok(Some(arrival))
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
