//! Schedules: saved, paused, looked at and deleted by people. Firing is [`super::firing`]'s.
//!
//! Invariant: nobody saves a schedule that he could not start himself, and it starts its job as who saved it last.

use std::collections::HashSet;

use jiff::{SignedDuration, Timestamp};
use model::{
    Invalid,
    access::Permission,
    api::{
        execution::Execution,
        schedule::{
            Backfill, Backfilled, Cause, Occurrence, OccurrenceState, Origin, PauseSchedule, PlannedFiring,
            Preview, PreviewSchedule, SaveSchedule, Schedule, ScheduleState,
        },
    },
    command::within,
    id::{OccurrenceId, OrgId, ScheduleId},
    limits, schedule,
    schedule::{Source, longest_window, starts_at_once},
};
use serde_json::json;
use sqlx::PgConnection;

use super::{
    App,
    access::{Authorized, EventRead, ExecutionCreate, JobRead, Right, ScheduleManage, ScheduleRead},
    arrivals,
    executions::{Key, earlier},
    firing::{as_request, begins},
    heeded::{self, Heeded},
    jobs,
    start::{self, Later, Scheduled},
    versions,
};
use crate::{
    clock,
    error::{During, Error, Result},
    store::{
        self, audit,
        occurrences::Decided,
        schedules::{Locked, Saved},
    },
};

const NOUN: &str = "schedule";
/// So many executions are counted that would start at once.
const COUNTED: usize = 20_000;
/// Firings to come among which the shortest distance is looked for.
const LOOKED_AT: usize = 200;

/// Saves a schedule: a new one, or all of one anew. `key` is the id or name of the one that is meant; without it there must be
/// none of this name.
///
/// # Errors
/// When a field is wrong, somebody else was faster, or the author could not start the job like this himself.
pub(crate) async fn save(
    app: &App,
    by: &Authorized<ScheduleManage>,
    key: Option<&str>,
    request: &SaveSchedule,
) -> Result<Schedule> {
    let new = &request.schedule;
    new.validate()?;
    whole_rights(by)?;
    let org = by.org_id();
    let mut tx = app.db.of(org).begin().await.during("begin")?;
    let before = match key {
        None => None,
        Some(key) => Some(lock(app, &mut tx, by, key).await?),
    };
    // Whoever fired it meanwhile is done.
    let now = clock::now();
    if let Some(expected) = request.expected_revision {
        unless_moved_on(new, before.as_ref(), expected)?;
    }
    let reading: Authorized<JobRead> = by.also()?;
    let job = match jobs::find(&mut tx, &reading, &new.job, false).await {
        Err(Error::NotFound { .. }) => {
            let why = format!("is '{}', and there is no such job", new.job);
            return Err(Invalid::new("job", why).into());
        }
        found => found?,
    };
    if !by.reaches_job(&job.labels) {
        let why = "theirs is for schedules of jobs with other labels";
        return Err(by.actor().refusal(Permission::ScheduleManage, why));
    }
    let trigger = new.when.trigger();
    let is_listening = trigger.is_some_and(|trigger| matches!(trigger.source, Source::Event(_)));
    if is_listening {
        let _: Authorized<EventRead> = by.also()?;
    }
    start::try_out(app, &mut tx, &reading, &job.id.to_string(), &as_request(new), &later(new)).await?;
    store::calendars::hold(&mut tx, org, &new.calendars).await?;
    calendars(app, &mut tx, org, new).await?;
    if before.is_none() && store::schedules::count(&mut tx, org).await? >= limits::SCHEDULES {
        let most = usize::try_from(limits::SCHEDULES).unwrap_or(0);
        return Err(Invalid::over("name", "SCHEDULES", most, "schedules").into());
    }
    let id = before.as_ref().map_or_else(|| ScheduleId::new(now, clock::entropy()), |before| before.id);
    // What waited before goes on where it was: nothing that has happened is left out.
    if is_listening && !before.as_ref().is_some_and(|before| before.is_listening) {
        if store::triggers::count_listeners(&mut tx, org).await? >= limits::EVENT_SCHEDULES {
            let most = usize::try_from(limits::EVENT_SCHEDULES).unwrap_or(0);
            return Err(Invalid::over(
                "when.event",
                "EVENT_SCHEDULES",
                most,
                "schedules that wait for events",
            )
            .into());
        }
        store::triggers::listen(&mut tx, org, id).await?;
    }
    let revision = before.as_ref().map_or(0, |before| before.revision) + 1;
    let accounted_until = match &before {
        None => None,
        Some(before) => {
            let kept = is_same_start(by, before, new).then_some(revision);
            if let Some(revision) = kept {
                arrivals::carry_over(app, &mut tx, (org, id), revision).await?;
            }
            let_go(&mut tx, by, before, (Cause::Changed, kept), now).await?
        }
    };
    // What has a row fires no more, whatever this clock shows.
    let next = first(id, new, accounted_until.map_or(now, |until| until.max(now)))?;
    let document = serde_json::to_string(new).map_err(|error| Error::internal("cannot write", error))?;
    let signed = versions::sign(app, by, versions::SCHEDULE, (id.0, revision), &document, now);
    let saved = Saved {
        id,
        org_id: org,
        name: &new.name,
        job_id: job.id,
        document: &document,
        revision,
        author: &by.actor().name,
        author_id: &by.actor().subject.to_string(),
        signed: &signed,
        next,
        trigger: trigger.map(|trigger| &trigger.source),
        at: now,
    };
    let verb = match &before {
        None => {
            store::schedules::insert(&mut tx, &saved).await?;
            "schedule.create"
        }
        Some(_) => {
            store::schedules::update(&mut tx, &saved).await?;
            "schedule.update"
        }
    };
    let was = before.and_then(|before| store::schedules::read(&before.document).ok());
    let detail =
        json!({ "name": new.name, "job": job.name, "revision": revision, "before": was, "after": new });
    audit::record(&mut tx, org, now, by.entry(verb, object(id), detail)).await?;
    let made = find(&mut tx, by, &id.to_string()).await?;
    tx.commit().await.during("commit")?;
    app.wake.schedules.notify_one();
    Ok(made)
}

/// Locks a schedule that is to be changed.
///
/// # Errors
/// That there is none; or that its job may not be started like this, or saved schedules for, by who asks: such a one neither
/// changes nor holds up nor deletes it.
pub(super) async fn lock(
    app: &App,
    connection: &mut PgConnection,
    by: &Authorized<ScheduleManage>,
    key: &str,
) -> Result<Locked> {
    let found = store::schedules::lock(connection, by.org_id(), key).await?;
    let found = found.filter(|found| by.reaches_job(&found.labels));
    let found = found.ok_or_else(|| Error::not_found(NOUN, key))?;
    let reading: Authorized<JobRead> = by.also()?;
    let _: Authorized<ExecutionCreate> = by.for_job(&found.labels)?;
    let Ok(schedule) = store::schedules::read(&found.document) else { return Ok(found) };
    let job = found.job_id.to_string();
    match start::try_out(app, connection, &reading, &job, &as_request(&schedule), &later(&schedule)).await {
        Err(error @ (Error::Forbidden { .. } | Error::OutOfScope { .. } | Error::Database(..))) => Err(error),
        // Whatever else keeps it from starting is no reason to keep it.
        _ => Ok(found),
    }
}

/// The calendars that a schedule names.
///
/// # Errors
/// That there is none of a name.
async fn calendars(
    app: &App,
    connection: &mut PgConnection,
    org: OrgId,
    new: &schedule::Schedule,
) -> Result<Heeded> {
    let heeded = heeded::read(app, connection, &[(org, new)]).await?;
    match heeded.absent(org, &new.calendars) {
        Some(name) => {
            let why = format!("has '{name}', and there is no such calendar");
            Err(Invalid::new("calendars", why).into())
        }
        None => Ok(heeded),
    }
}

/// A credential that gives a part of its owner's rights saves no schedule, and has no secret of one: that acts with all of them.
pub(super) fn whole_rights(by: &Authorized<ScheduleManage>) -> Result<()> {
    let narrowed = &by.actor().narrowed;
    if narrowed.permissions.is_none() && narrowed.hosts.is_none() {
        return Ok(());
    }
    let why = "this token gives a part of its owner's rights, and a schedule acts with all of them";
    Err(by.actor().refusal(Permission::ScheduleManage, why))
}

fn unless_moved_on(new: &schedule::Schedule, before: Option<&Locked>, expected: i32) -> Result<()> {
    let is = before.map_or(0, |before| before.revision);
    if is == expected {
        return Ok(());
    }
    let name = &new.name;
    Err(Error::Conflict(match before {
        None => format!("there is no schedule '{name}', and revision {expected} of it was expected"),
        Some(before) => format!(
            "the schedule '{name}' is at revision {is} by {}, and revision {expected} was expected: look at what changed \
             and save again",
            before.author
        ),
    }))
}

/// The first firing from now on, and when it begins; none of one that no clock starts.
///
/// # Errors
/// When there is none, or firings would follow each other too closely for what is asked of them.
fn first(id: ScheduleId, new: &schedule::Schedule, now: Timestamp) -> Result<Option<(Timestamp, Timestamp)>> {
    if new.when.trigger().is_some() {
        return Ok(None);
    }
    let Some(next) = new.when.after(now) else {
        return Err(Invalid::new("when", "has no firing any more: all of its times are over").into());
    };
    if new.jitter.seconds() > 0
        && let Some(shortest) = shortest(new, now)
        && new.jitter.duration() > shortest
    {
        let why = format!(
            "is {}, and two firings are only {shortest:#} apart: a firing would begin behind the next one",
            new.jitter
        );
        return Err(Invalid::new("jitter", why).into());
    }
    let most = limits::CAUGHT_UP_FIRINGS;
    if starts_at_once(new, now, most + 1) > most {
        let (field, window) = longest_window(new);
        let count = match starts_at_once(new, now, COUNTED) {
            COUNTED => format!("more than {COUNTED}"),
            count => count.to_string(),
        };
        let why = format!(
            "is {window:#}: after an outage of that length {count} executions would start at once, and the limit \
             CAUGHT_UP_FIRINGS is {most}; make it shorter{}",
            if field == "catch_up_window" { ", or choose the misfire policy run_once" } else { "" }
        );
        return Err(Invalid::new(field, why).into());
    }
    Ok(Some((next.due, begins(id, new, next.due))))
}

/// Whether what came for the schedule as it was may start what it starts from now on: the same author waits for the same, with the
/// same job.
fn is_same_start<P>(by: &Authorized<P>, before: &Locked, new: &schedule::Schedule) -> bool {
    let was = store::schedules::read(&before.document);
    before.author_id == by.actor().subject.to_string()
        && was.is_ok_and(|was| was.when.trigger().is_some() && was.when == new.when && was.job == new.job)
}

/// What of its start only comes with what it waits for.
pub(super) fn later(schedule: &schedule::Schedule) -> Later<'_> {
    schedule.when.trigger().map_or_else(Later::default, |trigger| Later {
        parameters: trigger.parameters.keys().map(String::as_str).collect(),
        hosts: trigger.hosts.is_some(),
    })
}

/// # Errors
/// When no clock starts it, so that it has no times.
fn has_times(schedule: &schedule::Schedule) -> Result<()> {
    match schedule.when.trigger() {
        None => Ok(()),
        Some(_) => Err(Error::Conflict(format!(
            "the schedule '{}' is started by {}, and has no planned times",
            schedule.name, schedule.when
        ))),
    }
}

/// The shortest distance between two of the firings to come.
fn shortest(new: &schedule::Schedule, now: Timestamp) -> Option<SignedDuration> {
    let mut times = Vec::with_capacity(LOOKED_AT);
    let mut at = now;
    while times.len() < LOOKED_AT
        && let Some(firing) = new.when.after(at)
    {
        times.push(firing.due);
        at = firing.due;
    }
    times.windows(2).map(|pair| pair[1].duration_since(pair[0])).min()
}

/// Accounts for what a schedule has before it is changed or deleted: what waits does not start, and neither does a firing whose
/// time has come and that has not begun; but for what came and is sealed for the revision `kept`. Answers up to when all firings have
/// a row.
///
/// # Errors
/// When it is firing at this moment.
async fn let_go<P>(
    connection: &mut PgConnection,
    by: &Authorized<P>,
    before: &Locked,
    (cause, kept): (Cause, Option<i32>),
    now: Timestamp,
) -> Result<Option<Timestamp>> {
    let org = by.org_id();
    store::occurrences::end_waiting(connection, (org, before.id), cause, kept, now).await?;
    // Of one that nobody can read no firing is known.
    let Ok(schedule) = store::schedules::read(&before.document) else { return Ok(before.accounted_until) };
    let mut pending = Vec::new();
    let mut next = before.next_due;
    while let Some(due) = next
        && due <= now
    {
        let is_firing = begins(before.id, &schedule, due) <= now && !before.is_put_off;
        if is_firing {
            let why = format!("the schedule '{}' is firing at this moment: try again", before.name);
            return Err(Error::Conflict(why));
        }
        if pending.len() == COUNTED {
            let why = format!(
                "the schedule '{}' has {COUNTED} firings that nobody could decide about: pause it first",
                before.name
            );
            return Err(Error::Conflict(why));
        }
        pending.push(Decided {
            id: OccurrenceId::new(now, clock::entropy()),
            schedule_id: before.id,
            org_id: org,
            origin: Origin::Planned,
            due,
            at_a_time: None,
            state: OccurrenceState::Skipped,
            cause: Some(cause),
            detail: None,
            execution_id: None,
        });
        next = schedule.when.after(due).map(|firing| firing.due);
    }
    store::occurrences::write(connection, &pending, now).await?;
    let until = pending.last().map(|last| last.due);
    if let Some(until) = until {
        store::schedules::account(connection, (org, before.id), until).await?;
    }
    Ok(until.or(before.accounted_until))
}

/// The schedule that has this id or name, if the right holds for its job.
///
/// # Errors
/// That there is none.
pub(crate) async fn find<P: Right>(
    connection: &mut PgConnection,
    by: &Authorized<P>,
    key: &str,
) -> Result<Schedule> {
    let found = store::schedules::find(connection, by.org_id(), key).await?;
    let found = found.filter(|(_, labels)| by.reaches_job(labels)).map(|(schedule, _)| schedule);
    found.ok_or_else(|| Error::not_found(NOUN, key))
}

/// Deletes a schedule. What it has started goes on.
///
/// # Errors
/// When there is none, or it is firing at this moment.
pub(crate) async fn delete(app: &App, by: &Authorized<ScheduleManage>, key: &str) -> Result<()> {
    let org = by.org_id();
    let mut tx = app.db.of(org).begin().await.during("begin")?;
    let before = lock(app, &mut tx, by, key).await?;
    let now = clock::now();
    let_go(&mut tx, by, &before, (Cause::Deleted, None), now).await?;
    store::schedules::delete(&mut tx, org, before.id, now).await?;
    let was = store::schedules::read(&before.document).ok();
    let detail = json!({ "name": before.name, "before": was });
    audit::record(&mut tx, org, now, by.entry("schedule.delete", object(before.id), detail)).await?;
    tx.commit().await.during("commit")
}

/// Pauses a schedule: its firings are skipped until somebody resumes it, and what waits does not start.
///
/// # Errors
/// When there is none.
pub(crate) async fn pause(
    app: &App,
    by: &Authorized<ScheduleManage>,
    key: &str,
    request: &PauseSchedule,
) -> Result<Schedule> {
    if let Some(reason) = &request.reason
        && reason.len() > limits::DESCRIPTION_BYTES
    {
        return Err(Invalid::over("reason", "DESCRIPTION_BYTES", limits::DESCRIPTION_BYTES, "bytes").into());
    }
    let org = by.org_id();
    let mut tx = app.db.of(org).begin().await.during("begin")?;
    let before = lock(app, &mut tx, by, key).await?;
    let now = clock::now();
    let said = request.reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
    let because = format!("paused by {}{said}", by.actor().name);
    store::schedules::set_paused(&mut tx, (org, before.id), Some(&because), now).await?;
    store::occurrences::end_waiting(&mut tx, (org, before.id), Cause::Paused, None, now).await?;
    let detail = json!({ "name": before.name, "why": request.reason });
    audit::record(&mut tx, org, now, by.entry("schedule.pause", object(before.id), detail)).await?;
    let paused = find(&mut tx, by, &before.id.to_string()).await?;
    tx.commit().await.during("commit")?;
    Ok(paused)
}

/// Lets a schedule go on; failures are counted from the beginning.
///
/// # Errors
/// When there is none, or it has no further firing, as one that was changed in the database.
pub(crate) async fn resume(app: &App, by: &Authorized<ScheduleManage>, key: &str) -> Result<Schedule> {
    let org = by.org_id();
    let mut tx = app.db.of(org).begin().await.during("begin")?;
    let before = lock(app, &mut tx, by, key).await?;
    let now = clock::now();
    if before.is_halted || before.next_due.is_none() && !before.is_triggered {
        let why = format!("the schedule '{}' has no further firing: save it anew", before.name);
        return Err(Error::Conflict(why));
    }
    store::schedules::set_paused(&mut tx, (org, before.id), None, now).await?;
    let detail = json!({ "name": before.name });
    audit::record(&mut tx, org, now, by.entry("schedule.resume", object(before.id), detail)).await?;
    let resumed = find(&mut tx, by, &before.id.to_string()).await?;
    tx.commit().await.during("commit")?;
    app.wake.schedules.notify_one();
    Ok(resumed)
}

/// Starts the job of a schedule now, with its values and targets, as who asks. No policy holds that up, and no calendar. A
/// repetition with the same `idempotency_key` answers the execution that the first one started.
///
/// # Errors
/// Those of the start of the job.
pub(crate) async fn trigger(
    app: &App,
    by: &Authorized<ScheduleManage>,
    key: &str,
    idempotency_key: Option<&str>,
) -> Result<Execution> {
    let repeated = idempotency_key.map(|text| Key::of(text, &("trigger", key))).transpose()?;
    if let Some(execution) = earlier(app, by, repeated.as_ref()).await? {
        return Ok(execution);
    }
    let (org, now) = (by.org_id(), clock::now());
    let mut tx = app.db.of(org).begin().await.during("begin")?;
    let schedule = find(&mut tx, by, key).await?;
    // Nobody starts, under his name, what somebody else wrote into the row: what is looked at is what starts.
    let saved = store::schedules::saved(&mut tx, (org, schedule.id)).await?;
    versions::verify(app, org, versions::SCHEDULE, schedule.id.0, &saved)?;
    let document = store::schedules::read(&saved.document)?;
    let reading: Authorized<JobRead> = by.also()?;
    let of = Scheduled {
        id: schedule.id,
        job_id: schedule.job_id,
        job: &document.job,
        due: None,
        chain: 0,
        needs_one_there: false,
    };
    let request = as_request(&document);
    let launch = start::scheduled(app, &mut tx, &reading, of, &request).await?;
    let launch =
        launch.ok_or_else(|| Error::internal("a start that needs no host has none", key.to_owned()))?;
    let Some(execution) = launch.write(&mut tx, repeated.as_ref()).await? else {
        tx.rollback().await.during("rollback")?;
        return earlier(app, by, repeated.as_ref()).await?.ok_or(Error::StillRunning);
    };
    let occurrence = Decided {
        id: OccurrenceId::new(now, clock::entropy()),
        schedule_id: schedule.id,
        org_id: org,
        origin: Origin::Manual,
        due: now,
        at_a_time: None,
        state: OccurrenceState::Fired,
        cause: None,
        detail: Some(format!("started by {}", by.actor().name)),
        execution_id: Some(execution.id),
    };
    store::occurrences::write(&mut tx, &[occurrence], now).await?;
    let detail = json!({ "name": document.name, "execution_id": execution.id });
    audit::record(&mut tx, org, now, by.entry("schedule.trigger", object(schedule.id), detail)).await?;
    tx.commit().await.during("commit")?;
    start::tell(app, &execution, by.request_id());
    Ok(execution)
}

/// Has the job started for the planned times of a time that is over, the oldest first. They start as the schedule does, for who
/// saved it, but no calendar and no policy for overlaps holds them up.
///
/// # Errors
/// When there is no such schedule, that time is not over, or there are too many firings in it.
pub(crate) async fn backfill(
    app: &App,
    by: &Authorized<ScheduleManage>,
    key: &str,
    request: &Backfill,
) -> Result<Backfilled> {
    let at_a_time = request.at_a_time.unwrap_or(1);
    within("at_a_time", at_a_time, &limits::BACKFILL_AT_A_TIME)?;
    let at_a_time = i16::try_from(at_a_time).unwrap_or(1);
    let org = by.org_id();
    let mut tx = app.db.of(org).begin().await.during("begin")?;
    let locked = lock(app, &mut tx, by, key).await?;
    let schedule = store::schedules::read(&locked.document)?;
    has_times(&schedule)?;
    if locked.is_paused {
        let why = format!("the schedule '{}' is paused, and starts nothing: resume it first", locked.name);
        return Err(Error::Conflict(why));
    }
    let now = clock::now();
    if request.from >= request.to {
        return Err(Invalid::new("from", "is not before 'to'").into());
    }
    if request.to > now {
        return Err(Invalid::new("to", "is still to come: a backfill is for a time that is over").into());
    }
    let most = limits::BACKFILL_FIRINGS;
    let before = request.from.saturating_sub(SignedDuration::from_nanos(1)).unwrap_or(request.from);
    let firings = std::iter::successors(schedule.when.after(before), |last| schedule.when.after(last.due));
    let times = firings.map(|firing| firing.due).take_while(|due| *due < request.to);
    let mut times: Vec<Timestamp> = times.take(COUNTED + 1).collect();
    if times.len() > COUNTED {
        let why = format!("has more than {COUNTED} planned times before it: take less time");
        return Err(Invalid::new("to", why).into());
    }
    let all = times.len();
    if !request.again {
        let begun: HashSet<Timestamp> =
            store::occurrences::begun(&mut tx, (org, locked.id), &times).await?.into_iter().collect();
        times.retain(|time| !begun.contains(time));
    }
    if times.len() > most {
        let count = times.len();
        let why = format!(
            "leaves {count} firings to start, and the limit BACKFILL_FIRINGS is {most}: take less time"
        );
        return Err(Invalid::new("to", why).into());
    }
    let done = Backfilled { left_out: all - times.len(), firings: times };
    if request.dry_run || done.firings.is_empty() {
        tx.rollback().await.during("rollback")?;
        return Ok(done);
    }
    let asked = format!("asked for by {}", by.actor().name);
    let waiting: Vec<Decided> = done
        .firings
        .iter()
        .map(|due| Decided {
            id: OccurrenceId::new(now, clock::entropy()),
            schedule_id: locked.id,
            org_id: org,
            origin: Origin::Backfill,
            due: *due,
            at_a_time: Some(at_a_time),
            state: OccurrenceState::Waiting,
            cause: None,
            detail: Some(asked.clone()),
            execution_id: None,
        })
        .collect();
    store::occurrences::write(&mut tx, &waiting, now).await?;
    store::schedules::look_at(&mut tx, (org, locked.id), now).await?;
    let detail = json!({
        "name": locked.name, "from": request.from, "to": request.to, "firings": waiting.len(), "at_a_time": at_a_time,
    });
    audit::record(&mut tx, org, now, by.entry("schedule.backfill", object(locked.id), detail)).await?;
    tx.commit().await.during("commit")?;
    app.wake.schedules.notify_one();
    Ok(done)
}

/// The firings to come of a schedule that is saved.
///
/// # Errors
/// When there is none.
pub(crate) async fn preview_saved(
    app: &App,
    by: &Authorized<ScheduleRead>,
    key: &str,
    count: Option<i64>,
) -> Result<Preview> {
    let mut connection = app.db.of(by.org_id()).acquire().await.during("acquire of a connection")?;
    let schedule = find(&mut connection, by, key).await?;
    has_times(&schedule.schedule)?;
    let heeded = heeded::read(app, &mut connection, &[(by.org_id(), &schedule.schedule)]).await?;
    let is_paused = schedule.state == ScheduleState::Paused;
    let from = schedule
        .next
        .map_or_else(clock::now, |next| next.saturating_sub(SignedDuration::from_nanos(1)).unwrap_or(next));
    firings(schedule.id, &schedule.schedule, from, count, |due| {
        if is_paused {
            Some((Cause::Paused, None))
        } else {
            heeded.skips(by.org_id(), &schedule.schedule, due)
        }
    })
}

/// Those of one that is only looked at.
///
/// # Errors
/// When a field is wrong, or there is no such calendar.
pub(crate) async fn preview(
    app: &App,
    by: &Authorized<ScheduleRead>,
    request: &PreviewSchedule,
) -> Result<Preview> {
    let schedule = &request.schedule;
    schedule.validate()?;
    has_times(schedule)?;
    let id = ScheduleId(uuid::Uuid::nil());
    first(id, schedule, clock::now())?;
    let org = by.org_id();
    let mut connection = app.db.of(org).acquire().await.during("acquire of a connection")?;
    let heeded = calendars(app, &mut connection, org, schedule).await?;
    firings(id, schedule, clock::now(), request.count, |due| heeded.skips(org, schedule, due))
}

fn firings(
    id: ScheduleId,
    schedule: &schedule::Schedule,
    mut from: Timestamp,
    count: Option<i64>,
    skipped: impl Fn(Timestamp) -> Option<(Cause, Option<String>)>,
) -> Result<Preview> {
    let count = count.unwrap_or(limits::DEFAULT_PREVIEWED_FIRINGS);
    within("count", count, &limits::PREVIEWED_FIRINGS)?;
    let count = usize::try_from(count).unwrap_or(0);
    let mut firings = Vec::with_capacity(count);
    while firings.len() < count
        && let Some(firing) = schedule.when.after(from)
    {
        from = firing.due;
        let (skipped, detail) = skipped(firing.due).map_or((None, None), |(cause, why)| (Some(cause), why));
        firings.push(PlannedFiring {
            due: firing.due,
            local: local(firing.local, firing.offset),
            begins: begins(id, schedule, firing.due),
            skipped,
            detail,
        });
    }
    let zone = schedule.when.zone.iana_name().unwrap_or("UTC").to_owned();
    Ok(Preview { zone, firings })
}

/// What the clock on the wall shows, with how far it is ahead of UTC.
pub(super) fn local(shown: jiff::civil::DateTime, offset: jiff::tz::Offset) -> String {
    format!("{} {}{offset}", shown.date(), shown.time())
}

/// What became of the firings of a schedule, a page.
///
/// # Errors
/// When there is none.
pub(crate) async fn history(
    app: &App,
    by: &Authorized<ScheduleRead>,
    key: &str,
    state: Option<OccurrenceState>,
    after: Option<(Timestamp, OccurrenceId)>,
    limit: i64,
) -> Result<Vec<Occurrence>> {
    let pool = app.db.of(by.org_id());
    let mut connection = pool.acquire().await.during("acquire of a connection")?;
    let schedule = find(&mut connection, by, key).await?;
    drop(connection);
    store::occurrences::page(&pool, (by.org_id(), schedule.id), state, after, limit).await
}

fn object(id: ScheduleId) -> String {
    format!("schedule/{id}")
}
