//! Calendars: saved, filled from iCalendar texts and deleted by people. What schedules make of them is [`super::heeded`]'s.
//!
//! Invariants: a calendar keeps its name; one that schedules name is not deleted; those that all organizations share are changed
//! in the home organization alone.

use std::collections::HashSet;

use jiff::Timestamp;
use model::{
    Invalid,
    api::calendar::{Calendar, CalendarAt, ChangeCalendar, CreateCalendar, ImportCalendar, ImportedCalendar},
    calendar::{self, Compiled, Entry, ical, verdict, zone},
    id::{CalendarId, OrgId},
    limits,
};
use serde_json::{Value, json};
use sqlx::PgConnection;

use super::{
    App,
    access::{Authorized, CalendarManage, OrganizationManage, ScheduleRead},
};
use crate::{
    clock,
    error::{During, Error, Result},
    store::{self, audit, calendars::Saved},
};

const NOUN: &str = "calendar";
/// Schedules that the refusal of a deletion names.
const NAMED: i64 = 5;

/// Makes a calendar.
///
/// # Errors
/// When a field is wrong, the name is taken, there are too many, or a shared one is not for who asks to make.
pub(crate) async fn create(
    app: &App,
    by: &Authorized<CalendarManage>,
    request: &CreateCalendar,
) -> Result<Calendar> {
    let new = &request.calendar;
    new.validate()?;
    let owner = if request.shared { None } else { Some(by.org_id()) };
    may_change(by, request.shared)?;
    let (org, now) = (by.org_id(), clock::now());
    let mut tx = app.db.of(org).begin().await.during("begin")?;
    if store::calendars::count(&mut tx, owner).await? >= limits::CALENDARS {
        let most = usize::try_from(limits::CALENDARS).unwrap_or(0);
        return Err(Invalid::over("name", "CALENDARS", most, "calendars").into());
    }
    let id = CalendarId::new(now, clock::entropy());
    let document = written(new)?;
    let saved = Saved {
        id,
        org_id: owner,
        calendar: new,
        document: &document,
        version: 1,
        at: now,
        by: &by.actor().name,
    };
    store::calendars::insert(&mut tx, &saved).await?;
    let detail = json!({ "name": new.name, "shared": request.shared, "after": new });
    audit::record(&mut tx, org, now, by.entry("calendar.create", object(id), detail)).await?;
    let made = find(&mut tx, org, &id.to_string(), false).await?;
    tx.commit().await.during("commit")?;
    Ok(made)
}

/// Changes all of a calendar but its name.
///
/// # Errors
/// When a field is wrong, somebody was faster, or it is shared and not for who asks to change.
pub(crate) async fn change(
    app: &App,
    by: &Authorized<CalendarManage>,
    key: &str,
    request: &ChangeCalendar,
) -> Result<Calendar> {
    request.calendar.validate()?;
    let mut tx = app.db.of(by.org_id()).begin().await.during("begin")?;
    let before = to_change(&mut tx, by, key, request.expected_version).await?;
    if request.calendar.name != before.calendar.name {
        let why = format!("is not '{}', and a calendar keeps its name", before.calendar.name);
        return Err(Invalid::new("name", why).into());
    }
    let changed = save(&mut tx, by, before, &request.calendar, "calendar.update", json!({})).await?;
    tx.commit().await.during("commit")?;
    Ok(changed)
}

/// Fills a calendar from an iCalendar text.
///
/// # Errors
/// When the text is none, there would be too many entries, or as [`change`].
pub(crate) async fn import(
    app: &App,
    by: &Authorized<CalendarManage>,
    key: &str,
    request: &ImportCalendar,
) -> Result<ImportedCalendar> {
    let mut tx = app.db.of(by.org_id()).begin().await.during("begin")?;
    let before = to_change(&mut tx, by, key, request.expected_version).await?;
    let zone = zone(&before.calendar.zone)?;
    let made = ical::import(&request.text, &zone, clock::now())
        .map_err(|bad| Invalid::new("text", format!("is no iCalendar that can be carried over: {bad}")))?;
    let imported = made.entries.len();
    let mut new = before.calendar.clone();
    if request.replace {
        new.entries.clear();
    }
    let known: HashSet<String> = new.entries.iter().map(word).collect();
    new.entries.extend(made.entries.into_iter().filter(|entry| !known.contains(&word(entry))));
    new.validate()?;
    let about =
        json!({ "imported": imported, "left_over": made.left_over.len(), "replace": request.replace });
    let calendar = save(&mut tx, by, before, &new, "calendar.import", about).await?;
    tx.commit().await.during("commit")?;
    Ok(ImportedCalendar { calendar, imported, left_over: made.left_over })
}

/// Deletes a calendar that no schedule names.
///
/// # Errors
/// When there is none, a schedule names it, or it is shared and not for who asks to change.
pub(crate) async fn delete(app: &App, by: &Authorized<CalendarManage>, key: &str) -> Result<()> {
    let (org, now) = (by.org_id(), clock::now());
    let mut tx = app.db.of(org).begin().await.during("begin")?;
    let calendar = to_change(&mut tx, by, key, None).await?;
    unless_named(app, &mut tx, org, &calendar).await?;
    store::calendars::delete(&mut tx, calendar.id).await?;
    let name = &calendar.calendar.name;
    let detail = json!({ "name": name, "shared": calendar.shared, "before": calendar.calendar });
    audit::record(&mut tx, org, now, by.entry("calendar.delete", object(calendar.id), detail)).await?;
    tx.commit().await.during("commit")
}

async fn unless_named(
    app: &App,
    connection: &mut PgConnection,
    org: OrgId,
    calendar: &Calendar,
) -> Result<()> {
    let name = &calendar.calendar.name;
    // An organization's own one of the same name is what its schedules mean.
    let is_hidden = calendar.shared && !find(connection, org, name, false).await?.shared;
    let schedules = if is_hidden {
        Vec::new()
    } else {
        store::calendars::schedules_of(connection, org, name, NAMED + 1).await?
    };
    let mut named: Vec<String> = schedules
        .iter()
        .take(usize::try_from(NAMED).unwrap_or(0))
        .map(|schedule| format!("'{schedule}'"))
        .collect();
    if schedules.len() > named.len() {
        named.push("others".to_owned());
    }
    if calendar.shared {
        // Other organizations are not told of by name.
        let mut worker = app.db.worker().acquire().await.during("acquire of a connection")?;
        let elsewhere = store::calendars::schedules_elsewhere(&mut worker, org, name).await?;
        if elsewhere > 0 {
            named.push(format!("{elsewhere} of other organizations"));
        }
    }
    if named.is_empty() {
        return Ok(());
    }
    let named = named.join(", ");
    Err(Error::Conflict(format!(
        "the calendar '{name}' is heeded by the schedules {named}: change these first"
    )))
}

/// One calendar.
///
/// # Errors
/// When there is none.
pub(crate) async fn show(app: &App, by: &Authorized<ScheduleRead>, key: &str) -> Result<Calendar> {
    let mut connection = app.db.of(by.org_id()).acquire().await.during("acquire of a connection")?;
    find(&mut connection, by.org_id(), key, false).await
}

/// What a calendar says of an instant, by default of now.
///
/// # Errors
/// When there is none.
pub(crate) async fn at(
    app: &App,
    by: &Authorized<ScheduleRead>,
    key: &str,
    time: Option<Timestamp>,
) -> Result<CalendarAt> {
    let calendar = show(app, by, key).await?;
    let calendar = Compiled::of(calendar.calendar)?;
    let time = time.unwrap_or_else(clock::now);
    let (entry, until) = (calendar.at(time).cloned(), calendar.until(time));
    Ok(CalendarAt { time, verdict: verdict(&[calendar], time), entry, until })
}

async fn find(connection: &mut PgConnection, org: OrgId, key: &str, to_change: bool) -> Result<Calendar> {
    let found = store::calendars::find(connection, org, key, to_change).await?;
    found.ok_or_else(|| Error::not_found(NOUN, key))
}

/// The calendar of this id or name, locked, when its version is the one that was expected.
async fn to_change(
    connection: &mut PgConnection,
    by: &Authorized<CalendarManage>,
    key: &str,
    expected: Option<i32>,
) -> Result<Calendar> {
    let before = find(connection, by.org_id(), key, true).await?;
    may_change(by, before.shared)?;
    match expected {
        Some(expected) if expected != before.version => Err(Error::Conflict(format!(
            "the calendar '{}' is at version {} by {}, and version {expected} was expected: look at it and save again",
            before.calendar.name, before.version, before.updated_by
        ))),
        _ => Ok(before),
    }
}

/// A shared one concerns the whole installation.
fn may_change(by: &Authorized<CalendarManage>, is_shared: bool) -> Result<()> {
    if is_shared {
        by.also::<OrganizationManage>()?;
    }
    Ok(())
}

async fn save(
    connection: &mut PgConnection,
    by: &Authorized<CalendarManage>,
    before: Calendar,
    new: &calendar::Calendar,
    verb: &'static str,
    mut detail: Value,
) -> Result<Calendar> {
    let (org, now) = (by.org_id(), clock::now());
    let document = written(new)?;
    let saved = Saved {
        id: before.id,
        org_id: (!before.shared).then_some(org),
        calendar: new,
        document: &document,
        version: before.version + 1,
        at: now,
        by: &by.actor().name,
    };
    store::calendars::update(connection, &saved).await?;
    detail["name"] = json!(new.name);
    detail["shared"] = json!(before.shared);
    (detail["before"], detail["after"], detail["entries_kept"]) = differing(&before.calendar, new);
    audit::record(connection, org, now, by.entry(verb, object(before.id), detail)).await?;
    find(connection, org, &before.id.to_string(), false).await
}

/// Both without the entries that both have, and how many these are: a calendar may have thousands.
fn differing(before: &calendar::Calendar, after: &calendar::Calendar) -> (Value, Value, Value) {
    let words =
        |calendar: &calendar::Calendar| -> HashSet<String> { calendar.entries.iter().map(word).collect() };
    let (old, new) = (words(before), words(after));
    let without = |calendar: &calendar::Calendar, others: &HashSet<String>| {
        let mut shown = calendar.clone();
        shown.entries.retain(|entry| !others.contains(&word(entry)));
        json!(shown)
    };
    (without(before, &new), without(after, &old), json!(old.intersection(&new).count()))
}

/// An entry in its one form.
fn word(entry: &Entry) -> String {
    json!(entry).to_string()
}

fn written(calendar: &calendar::Calendar) -> Result<String> {
    serde_json::to_string(calendar).map_err(|error| Error::internal("cannot write", error))
}

fn object(id: CalendarId) -> String {
    format!("calendar/{id}")
}
