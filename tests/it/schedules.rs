//! Schedules: each planned firing has one row, whatever happens meanwhile.

mod calendars;
pub(crate) mod crashes;
mod rights;
pub(crate) mod triggers;

use jiff::{SignedDuration, Timestamp};
use model::{
    api::{
        Page,
        execution::Execution,
        schedule::{Cause, Forecast, Occurrence, OccurrenceState, Origin, Preview, Schedule, ScheduleState},
    },
    execution::ExecutionState,
};
use opsconductor_tests::{Agent, Api, SOON, World, eventually};
use serde_json::{Value, json};

/// A schedule as it is sent, with what is said besides its name, job and time.
fn document(name: &str, job: &str, when: Value, more: Value) -> Value {
    let mut all =
        serde_json::Map::from_iter([("name".to_owned(), name.into()), ("job".to_owned(), job.into())]);
    all.insert("when".to_owned(), when);
    let Value::Object(more) = more else { panic!("an object") };
    all.extend(more);
    json!({ "schedule": all })
}

async fn create(api: &Api, name: &str, job: &str, when: Value, more: Value) -> Schedule {
    api.post("/api/v1/schedules", &document(name, job, when, more)).await.accepted().json()
}

async fn save_job(api: &Api, document: &str) {
    api.post("/api/v1/jobs", &json!({ "document": document })).await.accepted();
}

async fn show(api: &Api, name: &str) -> Schedule {
    api.get(&format!("/api/v1/schedules/{name}")).await.accepted().json()
}

/// A time to come, as people write it.
fn in_seconds(seconds: i64) -> String {
    let at = opsconductor_tests::clock::now().as_second() + seconds;
    Timestamp::from_second(at).expect("a time").to_string()
}

/// What became of its firings, the oldest first.
async fn history(api: &Api, name: &str) -> Vec<Occurrence> {
    let mut all: Vec<Occurrence> = Vec::new();
    let mut cursor = String::new();
    loop {
        let path = format!("/api/v1/schedules/{name}/history?limit=1000{cursor}");
        let page: Page<Occurrence> = api.get(&path).await.accepted().json();
        all.extend(page.items);
        match page.next_cursor {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    all.reverse();
    all
}

/// Waits until so many firings were decided in this way.
async fn decided(api: &Api, name: &str, state: OccurrenceState, count: usize) -> Vec<Occurrence> {
    eventually(SOON, &format!("{count} firings are {}", state.as_str()), async || {
        let all = history(api, name).await;
        (all.iter().filter(|one| one.state == state).count() >= count).then_some(all)
    })
    .await
}

/// Moves the first firing that is not accounted for into the past, as if nobody had been there since.
async fn nobody_was_there(world: &World, name: &str, since: Timestamp) {
    let mut sql = world.sql().await;
    let done = sqlx::query(
        "update schedules set next_due = $2::timestamptz, next_at = $2::timestamptz where name = $1",
    )
    .bind(name)
    .bind(since.to_string())
    .execute(&mut sql)
    .await
    .expect("the owner may");
    assert_eq!(done.rows_affected(), 1);
}

/// That planned firings follow each other without a gap or a double, `apart` by so many seconds.
fn without_gaps(all: &[Occurrence], apart: i64) {
    let planned: Vec<&Occurrence> = all.iter().filter(|one| one.origin == Origin::Planned).collect();
    for pair in planned.windows(2) {
        let distance = pair[1].due.duration_since(pair[0].due);
        assert_eq!(distance, SignedDuration::from_secs(apart), "between {:?} and {:?}", pair[0], pair[1]);
    }
}

const QUICK: &str = "name: quick\ntargets: {all: true}\nsteps: [{name: do, run: 'true'}]\n";
const SLOW: &str = "name: slow\ntargets: {all: true}\nsteps: [{name: wait, wait: 1h}]\n";

async fn world_of_one() -> (World, Agent) {
    let world = World::start().await;
    let agent = world.agent("one").start().await;
    (world, agent)
}

#[tokio::test]
async fn it_fires_when_it_is_due_and_says_so() {
    let (world, _agent) = world_of_one().await;
    let api = world.api();
    let greeting = "name: greet\nparameters: {who: {type: string, default: nobody}}\ntargets: {all: true}\n\
                    steps: [{name: do, run: 'echo hello $OPSC_PARAM_WHO'}]\n";
    save_job(&api, greeting).await;
    let more = json!({ "parameters": { "who": "ada" }, "overlap": "allow" });
    let made = create(&api, "every-second", "greet", json!({ "every": "1s" }), more).await;
    assert_eq!(
        (made.state, made.revision, made.author.as_str()),
        (ScheduleState::Active, 1, "administrator")
    );
    let all = decided(&api, "every-second", OccurrenceState::Fired, 3).await;
    without_gaps(&all, 1);
    let first = &all[0];
    assert_eq!((first.origin, first.cause), (Origin::Planned, None));
    let id = first.execution_id.expect("an execution");
    let finished = api.finished(id).await;
    assert_eq!(finished.execution.state, ExecutionState::Succeeded);
    assert_eq!(finished.execution.schedule_id, Some(made.id));
    assert_eq!(finished.execution.actor, "administrator");
    assert_eq!(finished.execution.job.map(|job| job.parameters["who"].clone()), Some(json!("ada")));
    // The audit says whence it came.
    let audit = api.get("/api/v1/audit?verb=execution.create").await.accepted().value();
    let mut entries = audit["items"].as_array().expect("entries").iter().map(|item| &item["entry"]);
    let entry = entries.find(|entry| entry["object"] == format!("execution/{id}")).expect("an entry");
    assert_eq!(entry["detail"]["schedule_id"], json!(made.id), "{entry}");
    assert_eq!(entry["detail"]["credential"], format!("schedule/{}", made.id), "{entry}");
}

#[tokio::test]
async fn what_was_late_goes_by_the_policy() {
    let (world, _agent) = world_of_one().await;
    let api = world.api();
    save_job(&api, QUICK).await;
    let policies = [
        ("skip", json!({ "misfire": "skip" })),
        ("once", json!({ "misfire": "run_once", "catch_up_window": "1h" })),
        ("all", json!({ "misfire": "run_all", "catch_up_window": "10m", "overlap": "queue_all" })),
    ];
    // A time at which a minute begins, so that firings are known.
    let now = opsconductor_tests::clock::now();
    let since = Timestamp::from_second(now.as_second() / 60 * 60 - 30 * 60).expect("a time");
    for (name, more) in policies {
        create(&api, name, "quick", json!({ "cron": "* * * * *" }), more).await;
        nobody_was_there(&world, name, since).await;
    }
    let of = async |name: &str| {
        eventually(SOON, "all is accounted for", async || {
            let all = history(&api, name).await;
            let is_over = show(&api, name).await.next.is_some_and(|next| next > now);
            (all.len() >= 30 && is_over && all.iter().all(|one| one.state != OccurrenceState::Waiting))
                .then_some(all)
        })
        .await
    };
    let count = |all: &[Occurrence], state| all.iter().filter(|one| one.state == state).count();
    for (name, caught_up) in [("skip", 0..=0), ("once", 0..=1), ("all", 9..=10)] {
        let all = of(name).await;
        without_gaps(&all, 60);
        assert_eq!(all[0].due, since, "{name}");
        let caught = count(&all, OccurrenceState::CaughtUp);
        // Those that waited for their turn have begun by now; the newest may be in time.
        let fired = count(&all, OccurrenceState::Fired);
        let begun = if name == "all" { caught + fired } else { caught };
        let most = *caught_up.end() + usize::from(name == "all");
        assert!((*caught_up.start()..=most).contains(&begun), "{name}: {begun} of {}", all.len());
        assert!(count(&all, OccurrenceState::Missed) >= 18, "{name}");
        for missed in all.iter().filter(|one| one.state == OccurrenceState::Missed) {
            assert_eq!(missed.cause, Some(Cause::TooLate));
            assert!(
                missed.detail.as_deref().is_some_and(|why| why.starts_with("nobody was there")),
                "{missed:?}"
            );
        }
        let events = api.get("/api/v1/events?kind=schedule.missed").await.accepted().value();
        let id = show(&api, name).await.id;
        let object = format!("schedule/{id}");
        assert!(
            events["items"].as_array().expect("events").iter().any(|event| event["object"] == object),
            "{events}"
        );
    }
}

#[tokio::test]
async fn what_overlaps_goes_by_the_policy() {
    let (world, _agent) = world_of_one().await;
    let api = world.api();
    save_job(&api, SLOW).await;
    for policy in ["allow", "skip", "queue_one", "queue_all", "cancel_running"] {
        let name = policy.replace('_', "-");
        create(&api, &name, "slow", json!({ "every": "1s" }), json!({ "overlap": policy })).await;
    }
    let fired = |all: &[Occurrence]| all.iter().filter(|one| one.state == OccurrenceState::Fired).count();
    decided(&api, "allow", OccurrenceState::Fired, 3).await;

    let all = decided(&api, "skip", OccurrenceState::Skipped, 2).await;
    assert_eq!(fired(&all), 1);
    assert_eq!(all[1].cause, Some(Cause::Overlap));
    let first = all[0].execution_id.expect("an execution");
    assert_eq!(all[1].detail, Some(format!("the execution {first} was still open")));

    let all = decided(&api, "queue-one", OccurrenceState::Skipped, 2).await;
    assert_eq!((fired(&all), all[1].state), (1, OccurrenceState::Waiting));
    assert_eq!(all[2].detail.as_deref(), Some("another one waits already"));
    // The end of the one lets the other begin.
    let first = all[0].execution_id.expect("an execution");
    api.act(&format!("/api/v1/executions/{first}/cancel")).await.accepted();
    let all = decided(&api, "queue-one", OccurrenceState::Fired, 2).await;
    assert_eq!(all[1].state, OccurrenceState::Fired, "the one that waited is the one that starts");

    let all = decided(&api, "queue-all", OccurrenceState::Waiting, 3).await;
    assert_eq!(fired(&all), 1);

    let all = decided(&api, "cancel-running", OccurrenceState::Fired, 2).await;
    let cancelled = all.iter().find_map(|one| one.execution_id).expect("an execution");
    let execution: Execution = api.get(&format!("/api/v1/executions/{cancelled}")).await.accepted().json();
    assert!(execution.cancel_requested, "{execution:?}");
    for name in ["allow", "skip", "queue-one", "queue-all", "cancel-running"] {
        without_gaps(&history(&api, name).await, 1);
    }
}

#[tokio::test]
async fn a_pause_accounts_for_what_it_holds_back() {
    let (world, _agent) = world_of_one().await;
    let api = world.api();
    save_job(&api, QUICK).await;
    create(&api, "held", "quick", json!({ "every": "1s" }), json!({ "overlap": "allow" })).await;
    decided(&api, "held", OccurrenceState::Fired, 1).await;
    let body = json!({ "reason": "moving house" });
    let paused: Schedule = api.post("/api/v1/schedules/held/pause", &body).await.accepted().json();
    assert_eq!(paused.state, ScheduleState::Paused);
    assert_eq!(paused.paused_because.as_deref(), Some("paused by administrator: moving house"));
    let all = decided(&api, "held", OccurrenceState::Skipped, 2).await;
    assert!(
        all.iter()
            .filter(|one| one.state == OccurrenceState::Skipped)
            .all(|one| one.cause == Some(Cause::Paused))
    );
    let preview: Preview = api.get("/api/v1/schedules/held/preview?count=2").await.accepted().json();
    assert_eq!(preview.firings[0].skipped, Some(Cause::Paused));
    let before = all.iter().filter(|one| one.state == OccurrenceState::Fired).count();
    api.act("/api/v1/schedules/held/resume").await.accepted();
    let all = decided(&api, "held", OccurrenceState::Fired, before + 1).await;
    without_gaps(&all, 1);
}

#[tokio::test]
async fn it_is_paused_after_failures_in_a_row() {
    let (world, _agent) = world_of_one().await;
    let api = world.api();
    save_job(&api, "name: bad\ntargets: {all: true}\nsteps: [{name: do, run: exit 3}]\n").await;
    let more = json!({ "pause_after_failures": 2 });
    create(&api, "failing", "bad", json!({ "every": "1s" }), more).await;
    let paused = eventually(SOON, "it is paused", async || {
        let now = show(&api, "failing").await;
        (now.state == ScheduleState::Paused).then_some(now)
    })
    .await;
    let why = paused.paused_because.expect("a reason");
    assert!(why.starts_with("2 executions in a row did not succeed, the last one "), "{why}");
    let audit = api.get("/api/v1/audit?verb=schedule.pause").await.accepted().value();
    assert_eq!(audit["items"][0]["entry"]["actor"], "controller", "{audit}");
}

#[tokio::test]
async fn by_hand_it_starts_at_once() {
    let (world, _agent) = world_of_one().await;
    let api = world.api();
    save_job(&api, QUICK).await;
    let made = create(&api, "nightly", "quick", json!({ "cron": "0 3 * * *" }), json!({})).await;
    let execution: Execution = api.act("/api/v1/schedules/nightly/trigger").await.accepted().json();
    assert_eq!(execution.schedule_id, Some(made.id));
    let all = history(&api, "nightly").await;
    assert_eq!(all.len(), 1);
    assert_eq!(
        (all[0].origin, all[0].state, all[0].execution_id),
        (Origin::Manual, OccurrenceState::Fired, Some(execution.id))
    );
    assert_eq!(api.finished(execution.id).await.execution.state, ExecutionState::Succeeded);
    assert_eq!(show(&api, "nightly").await.next, made.next, "the plan stays");
}

#[tokio::test]
async fn once_is_once() {
    let (world, _agent) = world_of_one().await;
    let api = world.api();
    save_job(&api, QUICK).await;
    let at = in_seconds(2);
    create(&api, "one-time", "quick", json!({ "at": at }), json!({})).await;
    decided(&api, "one-time", OccurrenceState::Fired, 1).await;
    assert_eq!(show(&api, "one-time").await.state, ScheduleState::Over);
    assert_eq!(history(&api, "one-time").await.len(), 1);
}

/// Lets schedules of these names, which are planned for later, be due together at this very moment.
async fn all_are_due(world: &World, names: &[&str]) {
    let mut sql = world.sql().await;
    let all: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let done = sqlx::query("update schedules set next_due = now(), next_at = now() where name = any($1)")
        .bind(all)
        .execute(&mut sql)
        .await
        .expect("the owner may");
    assert_eq!(done.rows_affected(), names.len() as u64);
}

#[tokio::test]
async fn of_those_that_are_due_together_each_gets_what_is_its_own() {
    let (world, _agent) = world_of_one().await;
    let api = world.api();
    save_job(&api, QUICK).await;
    save_job(&api, "name: idle\ntargets: {hosts: [one], exclude: 'name=one', allow_empty: true}\nsteps: [{name: do, run: 'true'}]\n").await;
    save_job(&api, "name: barred\ntargets: {selector: 'place=here'}\nsteps: [{name: do, run: 'true'}]\n")
        .await;
    let label = async |change: Value| drop(api.post("/api/v1/agents/one/labels", &change).await.accepted());
    label(json!({ "set": { "place": "here" } })).await;
    // Of two of these more is signed than may wait to be written.
    let step = |name: &str| format!("{{name: {name}, run: 'true #{}'}}", "x".repeat(100_000));
    let long = format!(
        "name: long\ntargets: {{all: true}}\nsteps: [{}, {}, {}, {}]\n",
        step("a"),
        step("b"),
        step("c"),
        step("d")
    );
    save_job(&api, &long).await;
    // A text that can be saved, and that no row can have.
    save_job(&api, "name: odd\ntargets: {all: true}\nsteps: [{name: ask, approval: {message: \"a\\0b\"}}, {name: do, run: 'true'}]\n").await;
    let later = json!({ "at": in_seconds(3600) });
    let jobs = ["quick", "idle", "barred", "long", "quick", "long", "long"];
    let names: Vec<String> = jobs.iter().enumerate().map(|(place, job)| format!("{job}-{place}")).collect();
    let mut names: Vec<&str> = names.iter().map(String::as_str).collect();
    for (name, job) in names.iter().zip(jobs) {
        create(&api, name, job, later.clone(), json!({})).await;
    }
    create(&api, "odd", "odd", later, json!({})).await;
    label(json!({ "remove": ["place"] })).await;

    for round in 1..=2 {
        all_are_due(&world, &names).await;
        for name in &names {
            let times = if *name == "odd" { 1 } else { round };
            let told = eventually(SOON, &format!("{name} was due {times} times"), async || {
                let all = history(&api, name).await;
                (all.len() == times).then(|| all[times - 1].clone())
            })
            .await;
            let said = (told.state, told.cause);
            match *name {
                "barred-2" => {
                    assert_eq!(said, (OccurrenceState::Skipped, Some(Cause::NoTargets)), "{told:?}");
                }
                "odd" => {
                    assert_eq!(said, (OccurrenceState::Skipped, Some(Cause::Refused)), "{told:?}");
                    assert!(told.detail.expect("why").contains("cannot be stored"));
                }
                _ => {
                    assert_eq!(said, (OccurrenceState::Fired, None), "{told:?}");
                    let finished = api.finished(told.execution_id.expect("an execution")).await;
                    let runs = if name.starts_with("idle") {
                        0
                    } else if name.starts_with("long") {
                        4
                    } else {
                        1
                    };
                    assert_eq!(finished.execution.runs.total, runs, "{name}");
                    assert_eq!(finished.execution.state, ExecutionState::Succeeded, "{name}");
                }
            }
        }
        // Once more, with one that spoils what is written together.
        names.push("odd");
    }
}

#[tokio::test]
async fn bad_input_is_told() {
    let (world, _agent) = world_of_one().await;
    let api = world.api();
    save_job(&api, QUICK).await;
    let bad = [
        (json!({ "cron": "0 0 30 2 *" }), json!({}), "30 February"),
        (json!({ "cron": "0 0 * *" }), json!({}), "fields"),
        (json!({ "cron": "0 3 * * *", "zone": "Europe/Warsow" }), json!({}), "Europe/Warsow"),
        (json!({ "every": "0s" }), json!({}), "every"),
        (
            json!({ "every": "1h", "starts_at": "2030-01-01T00:00:00Z", "ends_at": "2029-01-01T00:00:00Z" }),
            json!({}),
            "before starts_at",
        ),
        (json!({ "at": "2020-01-01T00:00:00Z" }), json!({}), "no firing any more"),
        (
            json!({ "every": "1s" }),
            json!({ "misfire": "run_all", "catch_up_window": "12d" }),
            "more than 20000 executions would start at once",
        ),
        (json!({ "every": "10s" }), json!({ "jitter": "1m" }), "10s apart"),
        (json!({ "cron": "0 3 * * *" }), json!({ "job": "no-such" }), "no such job"),
        (json!({ "cron": "0 3 * * *" }), json!({ "parameters": { "x": 1 } }), "parameters.x"),
        (json!({ "cron": "0 3 * * *" }), json!({ "targets": { "selector": "env=none" } }), "env=none"),
        (json!({ "cron": "0 3 * * *" }), json!({ "overlaps": "skip" }), "overlaps"),
    ];
    for (when, more, want) in bad {
        let answer = api.post("/api/v1/schedules", &document("bad", "quick", when.clone(), more)).await;
        assert!((400..500).contains(&answer.status), "{when}: {}", answer.text());
        assert!(answer.text().contains(want), "{when}: {}", answer.text());
    }
    let list: Page<Schedule> = api.get("/api/v1/schedules").await.accepted().json();
    assert!(list.items.is_empty(), "nothing half saved");
    // Two who save the same revision.
    let made = create(&api, "shared", "quick", json!({ "cron": "0 3 * * *" }), json!({})).await;
    let mut next = document("shared", "quick", json!({ "cron": "0 4 * * *" }), json!({}));
    next["expected_revision"] = json!(made.revision);
    api.put("/api/v1/schedules/shared", &next).await.accepted();
    let late = api.put("/api/v1/schedules/shared", &next).await.refused(409, "conflict");
    assert!(late.detail.contains("is at revision 2 by administrator"), "{late:?}");
}

#[tokio::test]
async fn a_forecast_tells_what_reaches_a_host() {
    let world = World::start().await;
    let _web = world.agent("web-1").label("role", "web").start().await;
    let _db = world.agent("db-1").start().await;
    let api = world.api();
    save_job(&api, QUICK).await;
    let every = |minute: u32| json!({ "cron": format!("{minute} * * * *") });
    create(&api, "everywhere", "quick", every(1), json!({})).await;
    create(&api, "on-web", "quick", every(2), json!({ "targets": { "selector": "role=web" } })).await;
    create(&api, "on-db", "quick", every(3), json!({ "targets": { "hosts": ["db-1"] } })).await;
    api.post("/api/v1/schedules/on-db/pause", &json!({})).await.accepted();
    let names = async |query: &str| {
        let forecast: Forecast =
            api.get(&format!("/api/v1/schedules/forecast?{query}")).await.accepted().json();
        assert!(forecast.firings.is_sorted_by_key(|firing| firing.due), "{forecast:?}");
        let mut names: Vec<(String, Option<Cause>)> =
            forecast.firings.iter().map(|firing| (firing.schedule.clone(), firing.skipped)).collect();
        names.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        names.dedup();
        (names, forecast.firings.len())
    };
    let all = |names: &[&str]| -> Vec<(String, Option<Cause>)> {
        let skipped = |name: &str| (name == "on-db").then_some(Cause::Paused);
        names.iter().map(|name| ((*name).to_owned(), skipped(name))).collect()
    };
    assert_eq!(names("hours=2").await, (all(&["everywhere", "on-db", "on-web"]), 6));
    assert_eq!(names("hours=3&target=web-1").await, (all(&["everywhere", "on-web"]), 6));
    assert_eq!(names("hours=1&target=db-1").await, (all(&["everywhere", "on-db"]), 2));
    api.get("/api/v1/schedules/forecast?target=nobody").await.refused(404, "not_found");
    api.get("/api/v1/schedules/forecast?hours=0").await.refused(400, "invalid");
}

#[tokio::test]
async fn a_time_that_is_over_is_filled_up() {
    let (world, _agent) = world_of_one().await;
    let api = world.api();
    let diary = world.folder().join("diary");
    let line = format!("echo $OPSC_DUE {{{{ execution.due }}}} >> {}", diary.display());
    let job = format!(
        "name: told\ntargets: {{all: true}}\nsteps: [{{name: do, template: true, run: \"{line}\"}}]\n"
    );
    save_job(&api, &job).await;
    create(&api, "daily", "told", json!({ "cron": "30 2 * * *", "zone": "Europe/Warsaw" }), json!({})).await;
    let path = "/api/v1/schedules/daily/backfill";
    let mut request =
        json!({ "from": "2026-03-27T00:00:00Z", "to": "2026-03-31T00:00:00Z", "dry_run": true });
    let tried = api.post(path, &request).await.accepted().value();
    // The clock is set forward on the 29th: there is no half past two.
    let times =
        ["2026-03-27T01:30:00Z", "2026-03-28T01:30:00Z", "2026-03-29T01:00:00Z", "2026-03-30T00:30:00Z"];
    assert_eq!(tried["firings"], json!(times));
    assert!(history(&api, "daily").await.is_empty());
    request["dry_run"] = json!(false);
    api.post(path, &request).await.accepted();
    let all = decided(&api, "daily", OccurrenceState::Fired, 4).await;
    assert!(all.iter().all(|one| one.origin == Origin::Backfill), "{all:?}");
    for one in &all {
        api.finished(one.execution_id.expect("an execution")).await;
    }
    let told = std::fs::read_to_string(&diary).expect("it is there");
    let want: Vec<String> = times.iter().map(|time| format!("{time} {time}")).collect();
    assert_eq!(told.lines().collect::<Vec<_>>(), want, "one after the other, the oldest first");
    let again = api.post(path, &request).await.accepted().value();
    assert_eq!((again["firings"].clone(), again["left_out"].clone()), (json!([]), json!(4)));
    for (from, to, want) in [
        ("2026-03-27T00:00:00Z", "2099-01-01T00:00:00Z", "still to come"),
        ("2026-03-27T00:00:00Z", "2026-03-27T00:00:00Z", "not before"),
        ("2000-01-01T00:00:00Z", "2026-01-01T00:00:00Z", "leaves 9497 firings"),
    ] {
        let refused = api.post(path, &json!({ "from": from, "to": to })).await.refused(400, "invalid");
        assert!(refused.detail.contains(want), "{refused:?}");
    }
}

#[tokio::test]
async fn people_type_it() {
    let (world, _agent) = world_of_one().await;
    let api = world.api();
    save_job(&api, "name: sized\nparameters: {size: {type: integer}}\ntargets: {all: true}\nsteps: [{name: do, run: 'true'}]\n").await;
    let types = async |words: &[&str]| world.opsctl(words).await;
    let create = [
        "schedule",
        "create",
        "office",
        "--job",
        "sized",
        "--when",
        "weekdays 9:00 Europe/Warsaw",
        "-p",
        "size=3",
        "--jitter",
        "5m",
        "--overlap",
        "queue-one",
        "--pause-after-failures",
        "3",
    ];
    let said = types(&create).await.ended(0);
    for want in ["Europe/Warsaw", "5m", "queue_one", "Parameter size", "paused at 3"] {
        assert!(said.text().contains(want), "{want}: {}", said.text());
    }
    let made = show(&api, "office").await.schedule;
    assert_eq!((made.parameters["size"].clone(), made.jitter.seconds()), (json!(3), 300));
    let changed = types(&["schedule", "update", "office", "--max-lateness", "2m"]).await.ended(0);
    assert!(changed.text().contains("after 2m"), "{}", changed.text());
    assert_eq!(show(&api, "office").await.schedule.jitter.seconds(), 300, "what is not said stays");
    assert!(types(&["schedule", "list"]).await.ended(0).text().contains("office"));
    let preview = types(&["schedule", "preview", "--when", "daily at 02:30 Europe/Warsaw", "--count", "3"])
        .await
        .ended(0);
    assert_eq!(
        preview.text().lines().filter(|line| line.contains("02:30:00+0")).count(),
        3,
        "{}",
        preview.text()
    );
    assert!(
        types(&["schedule", "forecast", "-t", "one", "--hours", "168"])
            .await
            .ended(0)
            .text()
            .contains("office")
    );
    let id = types(&["schedule", "trigger", "office"]).await.ended(0);
    api.finished(id.text().trim()).await;
    let history = types(&["schedule", "history", "office"]).await.ended(0);
    assert!(
        history.text().contains("manual") && history.text().contains("(succeeded)"),
        "{}",
        history.text()
    );
    types(&["schedule", "pause", "office", "--reason", "moving house"]).await.ended(0);
    assert!(types(&["schedule", "show", "office"]).await.ended(0).text().contains("moving house"));
    types(&["schedule", "resume", "office"]).await.ended(0);
    let wrong = types(&["schedule", "create", "bad", "--job", "sized", "--when", "every blue moon"]).await;
    assert_eq!(wrong.code, 2, "{}", wrong.text());
    types(&["schedule", "delete", "office"]).await.ended(0);
    assert_eq!(types(&["schedule", "show", "office"]).await.code, 5);
}
