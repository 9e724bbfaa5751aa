//! Calendars as people keep them, and as schedules heed them.

use jiff::{SignedDuration, Timestamp};
use model::{
    api::{
        Page,
        calendar::{Calendar, CalendarAt, CalendarSummary, ImportedCalendar},
        execution::Execution,
        schedule::{Cause, Occurrence, OccurrenceState, Origin, Preview, Schedule},
    },
    calendar::Verdict,
};
use opsconductor_tests::{Api, SOON, World, eventually, world::PASSWORD};
use serde_json::{Value, json};

use super::{
    QUICK, create as schedule, decided, document, history, nobody_was_there, save_job, without_gaps,
    world_of_one,
};

const HOLIDAYS: &str = include_str!("../../../model/src/calendar/ical/holidays.ics");

async fn create(api: &Api, name: &str, kind: &str, entries: Value) -> Calendar {
    let body = json!({ "calendar": { "name": name, "kind": kind, "entries": entries } });
    api.post("/api/v1/calendars", &body).await.accepted().json()
}

async fn change(api: &Api, name: &str, kind: &str, entries: Value) -> Calendar {
    let body = json!({ "calendar": { "name": name, "kind": kind, "entries": entries } });
    api.put(&format!("/api/v1/calendars/{name}"), &body).await.accepted().json()
}

/// Today with the day before and the day after.
fn these_days() -> Value {
    let day = |ahead| {
        let at = opsconductor_tests::clock::now() + SignedDuration::from_hours(ahead);
        at.strftime("%Y-%m-%d").to_string()
    };
    json!([{ "from": day(-24), "to": day(24), "label": "moving house" }])
}

fn details(all: &[Occurrence]) -> Vec<&str> {
    let skipped = all.iter().filter(|one| one.state == OccurrenceState::Skipped);
    skipped.map(|one| one.detail.as_deref().unwrap_or_default()).collect()
}

#[tokio::test]
async fn nothing_fires_in_a_blackout() {
    let (world, _agent) = world_of_one().await;
    let api = world.api();
    save_job(&api, QUICK).await;
    create(&api, "freeze", "blackout", these_days()).await;
    let more = json!({ "calendars": ["freeze"], "overlap": "allow" });
    schedule(&api, "held", "quick", json!({ "cron": "* * * * * *" }), more.clone()).await;
    let all = decided(&api, "held", OccurrenceState::Skipped, 3).await;
    for one in &all {
        assert_eq!((one.state, one.cause), (OccurrenceState::Skipped, Some(Cause::Calendar)), "{one:?}");
        assert_eq!(one.detail.as_deref(), Some("in the blackout 'freeze' (moving house)"));
        assert_eq!(one.execution_id, None);
    }
    let executions: Page<Execution> = api.get("/api/v1/executions").await.accepted().json();
    assert!(executions.items.is_empty(), "{executions:?}");

    let saved: Preview = api.get("/api/v1/schedules/held/preview?count=2").await.accepted().json();
    let unsaved = document("x", "x", json!({ "every": "1h" }), json!({ "calendars": ["freeze"] }));
    let unsaved: Preview = api.post("/api/v1/schedules/preview", &unsaved).await.accepted().json();
    for firing in saved.firings.iter().chain(&unsaved.firings[..2]) {
        assert_eq!(firing.skipped, Some(Cause::Calendar), "{firing:?}");
        assert_eq!(firing.detail.as_deref(), Some("in the blackout 'freeze' (moving house)"));
    }
    let last = unsaved.firings.last().expect("ten firings");
    assert_eq!(last.skipped.is_some(), last.due < unsaved.firings[0].due + SignedDuration::from_hours(24));

    // By hand it starts all the same.
    api.act("/api/v1/schedules/held/trigger").await.accepted();

    // A calendar counts as it is when a schedule fires.
    change(&api, "freeze", "blackout", json!([])).await;
    decided(&api, "held", OccurrenceState::Fired, 3).await;
    change(&api, "freeze", "allow", json!([])).await;
    let shut = eventually(SOON, "it is outside of what is allowed", async || {
        let all = history(&api, "held").await;
        details(&all).contains(&"outside of what is allowed by 'freeze'").then_some(all)
    })
    .await;
    change(&api, "freeze", "allow", these_days()).await;
    let fired = shut.iter().filter(|one| one.state == OccurrenceState::Fired).count();
    let all = decided(&api, "held", OccurrenceState::Fired, fired + 2).await;
    without_gaps(&all, 1);

    // A pause comes before calendars.
    change(&api, "freeze", "allow", json!([])).await;
    api.post("/api/v1/schedules/held/pause", &json!({})).await.accepted();
    let preview: Preview = api.get("/api/v1/schedules/held/preview?count=1").await.accepted().json();
    assert_eq!(preview.firings[0].skipped, Some(Cause::Paused));
}

#[tokio::test]
async fn what_is_not_there_or_cannot_be_read_allows_nothing() {
    let (world, _agent) = world_of_one().await;
    let api = world.api();
    save_job(&api, QUICK).await;
    for name in ["gone", "broken"] {
        create(&api, name, "blackout", json!([])).await;
        let more = json!({ "calendars": [name], "overlap": "allow" });
        schedule(&api, name, "quick", json!({ "every": "1s" }), more).await;
        decided(&api, name, OccurrenceState::Fired, 1).await;
    }
    let mut sql = world.sql().await;
    for statement in [
        "delete from calendars where name = 'gone'",
        "update calendars set document = '{', version = version + 1 where name = 'broken'",
    ] {
        sqlx::query(statement).execute(&mut sql).await.expect("the owner may");
    }
    for (name, why) in [
        ("gone", "the calendar 'gone' is not there any more"),
        ("broken", "the calendar 'broken' cannot be read"),
    ] {
        let all = decided(&api, name, OccurrenceState::Skipped, 1).await;
        let last = all.last().expect("one");
        assert_eq!((last.cause, last.detail.as_deref()), (Some(Cause::Calendar), Some(why)), "{all:?}");
        let preview: Preview =
            api.get(&format!("/api/v1/schedules/{name}/preview?count=1")).await.accepted().json();
        assert_eq!(preview.firings[0].detail.as_deref(), Some(why));
    }
}

#[tokio::test]
async fn a_late_firing_in_a_blackout_is_skipped_and_the_newest_before_it_caught_up() {
    let (world, _agent) = world_of_one().await;
    let api = world.api();
    save_job(&api, QUICK).await;
    let now = opsconductor_tests::clock::now();
    let minutes = |ago: i64| Timestamp::from_second((now.as_second() / 60 - ago) * 60).expect("a time");
    let shown = |at: Timestamp| at.strftime("%Y-%m-%dT%H:%M").to_string();
    let window = json!([{ "from": shown(minutes(10)), "to": shown(minutes(-600)) }]);
    create(&api, "window", "blackout", window).await;
    let more = json!({ "calendars": ["window"], "catch_up_window": "1h" });
    schedule(&api, "late", "quick", json!({ "cron": "* * * * *" }), more).await;
    nobody_was_there(&world, "late", minutes(30)).await;
    decided(&api, "late", OccurrenceState::Skipped, 11).await;
    let all = history(&api, "late").await;
    without_gaps(&all, 60);
    for one in all.iter().filter(|one| one.origin == Origin::Planned) {
        let wanted = match one.due {
            due if due >= minutes(10) => (OccurrenceState::Skipped, Some(Cause::Calendar)),
            due if due == minutes(11) => (OccurrenceState::CaughtUp, None),
            _ => (OccurrenceState::Missed, Some(Cause::TooLate)),
        };
        assert_eq!((one.state, one.cause), wanted, "{one:?}");
    }
}

#[tokio::test]
async fn calendars_are_kept_and_not_taken_away_from_schedules() {
    let (world, _agent) = world_of_one().await;
    let api = world.api();
    save_job(&api, QUICK).await;
    let unknown = document("nightly", "quick", json!({ "every": "1h" }), json!({ "calendars": ["freeze"] }));
    for path in ["/api/v1/schedules", "/api/v1/schedules/preview"] {
        let refused = api.post(path, &unknown).await.refused(400, "invalid");
        assert_eq!(refused.field.as_deref(), Some("calendars"));
        assert!(refused.detail.contains("'freeze'"), "{refused:?}");
    }
    let made = create(&api, "freeze", "blackout", json!([{ "date": "2030-01-01" }])).await;
    assert_eq!((made.version, made.shared, made.created_by.as_str()), (1, false, "administrator"));
    let same = json!({ "calendar": { "name": "freeze", "kind": "allow", "entries": [] } });
    api.post("/api/v1/calendars", &same).await.refused(409, "conflict");
    for (body, field) in [
        (json!({ "name": "x", "kind": "never", "entries": [] }), "calendar.kind"),
        (json!({ "name": "x", "kind": "allow", "zone": "Europe/Warsow", "entries": [] }), "zone"),
        (json!({ "name": "x", "kind": "allow", "entries": [{ "date": "2030-02-30" }] }), "entries[0].date"),
        (json!({ "name": "x", "kind": "allow", "entries": [{ "dates": "x" }] }), "calendar.entries[0].dates"),
    ] {
        let refused =
            api.post("/api/v1/calendars", &json!({ "calendar": body })).await.refused(400, "invalid");
        assert_eq!(refused.field.as_deref(), Some(field), "{refused:?}");
    }
    let path = "/api/v1/calendars/freeze";
    let entries = json!([{ "date": "2030-01-01" }, { "yearly": "12-25" }]);
    let new = json!({ "name": "freeze", "kind": "blackout", "entries": entries });
    let late =
        api.put(path, &json!({ "calendar": new, "expected_version": 7 })).await.refused(409, "conflict");
    assert!(late.detail.contains("at version 1 by administrator"), "{late:?}");
    let renamed = json!({ "calendar": { "name": "thaw", "kind": "blackout", "entries": [] } });
    assert_eq!(api.put(path, &renamed).await.refused(400, "invalid").field.as_deref(), Some("name"));
    let changed: Calendar =
        api.put(path, &json!({ "calendar": new, "expected_version": 1 })).await.accepted().json();
    assert_eq!((changed.version, changed.calendar.entries.len()), (2, 2));
    let list: Page<CalendarSummary> = api.get("/api/v1/calendars").await.accepted().json();
    assert!(matches!(list.items.as_slice(), [one] if one.size == 2 && one.zone == "UTC"), "{list:?}");

    for index in 0..7 {
        let body = document(
            &format!("s-{index}"),
            "quick",
            json!({ "every": "1h" }),
            json!({ "calendars": ["freeze"] }),
        );
        let _: Schedule = api.post("/api/v1/schedules", &body).await.accepted().json();
    }
    let refused = api.delete(path).await.refused(409, "conflict");
    assert!(refused.detail.contains("'s-0', 's-1', 's-2', 's-3', 's-4', others"), "{refused:?}");
    for index in 0..7 {
        api.delete(&format!("/api/v1/schedules/s-{index}")).await.accepted();
    }
    api.delete(path).await.accepted();
    api.get(path).await.refused(404, "not_found");

    let audit = api.get(&format!("/api/v1/audit?object=calendar/{}", made.id)).await.accepted().value();
    let entries: Vec<&Value> =
        audit["items"].as_array().expect("entries").iter().map(|e| &e["entry"]).collect();
    let verbs: Vec<&str> = entries.iter().filter_map(|entry| entry["verb"].as_str()).collect();
    assert_eq!(verbs, ["calendar.delete", "calendar.update", "calendar.create"]);
    let update = &entries[1]["detail"];
    // What stayed is only counted.
    assert_eq!(update["entries_kept"], 1, "{update}");
    assert_eq!(
        (&update["before"]["entries"], &update["after"]["entries"][0]["yearly"]),
        (&json!([]), &json!("12-25"))
    );
    assert_eq!(entries[0]["detail"]["before"]["entries"].as_array().map(Vec::len), Some(2));
}

#[tokio::test]
async fn holidays_come_from_an_icalendar_file() {
    let world = World::start().await;
    let api = world.api();
    let file = world.folder().join("holidays.ics");
    std::fs::write(&file, HOLIDAYS).expect("a file");
    let file = file.to_str().expect("a path");
    let empty = ["calendar", "create", "holidays", "--kind", "blackout", "--zone", "Europe/Warsaw"];
    world.opsctl(&empty).await.ended(0);
    let said = world.opsctl(&["calendar", "import", "holidays", "-f", file]).await.ended(0);
    let first: Calendar = api.get("/api/v1/calendars/holidays").await.accepted().json();
    assert!(first.calendar.entries.len() > 3, "{first:?}");
    // Its line, its title, and why.
    let told: Vec<&str> = said.stderr.lines().filter(|line| line.starts_with(&format!("{file}:"))).collect();
    assert!(!told.is_empty(), "{said}");
    assert!(said.text().contains(&format!("{} of its events could not", told.len())), "{said}");

    let body = json!({ "text": HOLIDAYS, "replace": false });
    let path = "/api/v1/calendars/holidays/import";
    let again: ImportedCalendar = api.post(path, &body).await.accepted().json();
    assert_eq!(again.calendar.calendar.entries, first.calendar.entries, "what is there is not added again");
    assert_eq!((again.left_over.len(), again.imported), (told.len(), first.calendar.entries.len()));
    let few = "BEGIN:VCALENDAR\r\nBEGIN:VEVENT\r\nDTSTART;VALUE=DATE:20301224\r\nSUMMARY:Eve\r\nEND:VEVENT\r\nEND:VCALENDAR\r\n";
    let body = json!({ "text": few, "replace": true, "expected_version": 2 });
    api.post(path, &body).await.refused(409, "conflict");
    let body = json!({ "text": few, "replace": true, "expected_version": 3 });
    let replaced: ImportedCalendar = api.post(path, &body).await.accepted().json();
    assert_eq!((replaced.calendar.calendar.entries.len(), replaced.calendar.version), (1, 4));
    let refused = api.post(path, &json!({ "text": "BEGIN:VEVENT" })).await.refused(400, "invalid");
    assert_eq!(refused.field.as_deref(), Some("text"));
    assert!(refused.detail.contains("line 1"), "{refused:?}");

    let at: CalendarAt =
        api.get("/api/v1/calendars/holidays/at?time=2030-12-24T11:00:00Z").await.accepted().json();
    let label = Some("Eve".to_owned());
    assert_eq!(at.verdict, Verdict::Blackout { calendar: "holidays".to_owned(), label });
    assert_eq!(at.until, Some("2030-12-24T23:00:00Z".parse().expect("a time")));
    api.get("/api/v1/calendars/holidays/at?time=tomorrow").await.refused(400, "invalid");
    let said = world.opsctl(&["calendar", "at", "holidays", "2030-12-24T11:00:00Z"]).await.ended(0);
    assert!(
        said.text().starts_with("in the blackout 'holidays' (Eve), until 2030-12-24 23:00:00 UTC"),
        "{said}"
    );
    let said = world.opsctl(&["calendar", "show", "holidays"]).await.ended(0);
    assert!(said.text().contains("2030-12-24 (Eve)"), "{said}");

    // What is shown as a document is what a file has.
    let said = world.opsctl(&["calendar", "show", "holidays", "--document"]).await.ended(0);
    let yaml = world.folder().join("holidays.yaml");
    std::fs::write(&yaml, said.text().replace("Eve", "Night")).expect("a file");
    let yaml = yaml.to_str().expect("a path");
    world.opsctl(&["calendar", "update", "holidays", "-f", yaml]).await.ended(0);
    let said = world.opsctl(&["calendar", "show", "holidays", "-o", "json"]).await.ended(0).json();
    assert_eq!((&said["entries"][0]["label"], &said["version"]), (&json!("Night"), &json!(5)), "{said}");
    std::fs::write(yaml, "name: holidays\nkind: blackout\nentries:\n  - date: 2030-02-30\n").expect("a file");
    let said = world.opsctl(&["calendar", "update", "holidays", "-f", yaml]).await.ended(2);
    assert!(said.stderr.contains(&format!("{yaml}: line 4, column")), "{said}");
    world.opsctl(&["calendar", "delete", "holidays"]).await.ended(0);
    assert!(world.opsctl(&["calendar", "list"]).await.ended(0).stderr.contains("nothing to list"));
}

/// The administrator, in the organization `elsewhere`.
async fn elsewhere(world: &World, home: &Api) -> Api {
    home.post("/api/v1/organizations", &json!({ "name": "elsewhere" })).await.accepted();
    world.session(&world.log_in("administrator", PASSWORD, Some("elsewhere")).await)
}

#[tokio::test]
async fn shared_calendars_are_for_all_organizations() {
    let (world, _agent) = world_of_one().await;
    let home = world.administrator().await;
    let other = elsewhere(&world, &home).await;
    let document_of = |entries: Value| json!({ "name": "freeze", "kind": "blackout", "entries": entries });
    let shared = json!({ "calendar": document_of(these_days()), "shared": true });
    other.post("/api/v1/calendars", &shared).await.refused(403, "forbidden");
    let made: Calendar = home.post("/api/v1/calendars", &shared).await.accepted().json();
    home.post("/api/v1/calendars", &shared).await.refused(409, "conflict");

    // The others see it and heed it, but do not change it.
    let path = "/api/v1/calendars/freeze";
    let seen: Calendar = other.get(path).await.accepted().json();
    assert_eq!((seen.id, seen.shared), (made.id, true));
    let harmless = json!({ "calendar": document_of(json!([])) });
    other.put(path, &harmless).await.refused(403, "forbidden");
    other.delete(path).await.refused(403, "forbidden");
    save_job(
        &other,
        "name: empty\ntargets: {all: true, allow_empty: true}\nsteps: [{name: do, run: 'true'}]\n",
    )
    .await;
    let more = json!({ "calendars": ["freeze"], "overlap": "allow" });
    schedule(&other, "heeding", "empty", json!({ "every": "1s" }), more).await;
    let all = decided(&other, "heeding", OccurrenceState::Skipped, 1).await;
    assert_eq!(all[0].detail.as_deref(), Some("in the blackout 'freeze' (moving house)"));
    let refused = home.delete(path).await.refused(409, "conflict");
    assert!(refused.detail.contains("the schedules 1 of other organizations"), "{refused:?}");
    assert!(!refused.detail.contains("heeding"), "{refused:?}");

    // Not even where a query forgets to ask.
    let mut sql = world.sql().await;
    let org: uuid::Uuid = sqlx::query_scalar("select id from organizations where name = 'elsewhere'")
        .fetch_one(&mut sql)
        .await
        .expect("it is there");
    for statement in ["set role opsc_app".to_owned(), format!("set opsc.org = '{org}'")] {
        sqlx::query(sqlx::AssertSqlSafe(statement)).execute(&mut sql).await.expect("the owner may");
    }
    let done = sqlx::query("update calendars set document = '{}'")
        .execute(&mut sql)
        .await
        .expect("nothing to change");
    assert_eq!(done.rows_affected(), 0);
    let done = sqlx::query("delete from calendars").execute(&mut sql).await.expect("nothing to delete");
    assert_eq!(done.rows_affected(), 0);
    let insert = "insert into calendars select gen_random_uuid(), null, 'sly', document, description, kind, zone, size, version, \
                  created_at, created_by, updated_at, updated_by from calendars";
    let refused = sqlx::query(insert).execute(&mut sql).await.expect_err("row-level security");
    assert!(refused.to_string().contains("row-level security"), "{refused}");

    // One's own hides it.
    let own: Calendar = other.post("/api/v1/calendars", &harmless).await.accepted().json();
    assert_eq!(other.get(path).await.accepted().json::<Calendar>().id, own.id);
    let of_id: Calendar = other.get(&format!("/api/v1/calendars/{}", made.id)).await.accepted().json();
    assert!(of_id.shared);
    let list: Page<CalendarSummary> = other.get("/api/v1/calendars?limit=1").await.accepted().json();
    let cursor = list.next_cursor.expect("there is another");
    let rest: Page<CalendarSummary> =
        other.get(&format!("/api/v1/calendars?limit=1&cursor={cursor}")).await.accepted().json();
    assert_eq!((list.items[0].id, rest.items[0].id, rest.next_cursor), (own.id, made.id, None));
    decided(&other, "heeding", OccurrenceState::Fired, 1).await;
    other.delete(path).await.refused(409, "conflict");
    // Nobody means the shared one any more.
    home.delete(path).await.accepted();
    decided(&other, "heeding", OccurrenceState::Fired, 2).await;
    let foreign = format!("/api/v1/calendars/{}", own.id);
    home.get(&foreign).await.refused(404, "not_found");
    home.delete(&foreign).await.refused(404, "not_found");
}
