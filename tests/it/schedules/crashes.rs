//! Controllers and databases that die while schedules fire: exactly one row for each planned firing, at most one execution each.

use std::{collections::HashSet, time::Duration};

use jiff::SignedDuration;
use model::{
    api::schedule::{Occurrence, OccurrenceState, Origin},
    id::ExecutionId,
};
use opsconductor_tests::{Api, SOON, World, agent::clock_in, eventually, postgres::Mortal};
use reqwest::Method;
use serde_json::json;

use super::{create, decided, history, in_seconds, save_job, show, triggers::Door, without_gaps};
use crate::crash_matrix::points;

/// The points at which a controller that fires can die.
pub(crate) const POINTS: &str = "controller.schedule.";
/// How long a delivery may take while everything is killed.
const LONG: Duration = Duration::from_secs(120);
/// It starts and ends at the controller alone.
const ALONE: &str = "name: alone\nsteps: [{name: rest, wait: 0s}]\n";

/// Checks that rows and executions belong together, one to one.
pub(super) async fn one_to_one(world: &World, name: &str, all: &[Occurrence]) {
    let schedule = show(&world.api(), name).await.id;
    let mut sql = world.sql().await;
    let ids: Vec<uuid::Uuid> = sqlx::query_scalar("select id from executions where schedule_id = $1")
        .bind(schedule.0)
        .fetch_all(&mut sql)
        .await
        .expect("the owner may");
    let started: HashSet<ExecutionId> = ids.iter().map(|id| ExecutionId(*id)).collect();
    let told: Vec<ExecutionId> = all.iter().filter_map(|one| one.execution_id).collect();
    let distinct: HashSet<ExecutionId> = told.iter().copied().collect();
    assert_eq!(told.len(), distinct.len(), "{name}: an execution stands in two rows");
    assert_eq!(distinct, started, "{name}: rows and executions are the same ones");
    for one in all {
        let has_started = matches!(one.state, OccurrenceState::Fired | OccurrenceState::CaughtUp);
        assert_eq!(has_started, one.execution_id.is_some(), "{one:?}");
        assert!(has_started || one.cause.is_some(), "no reason: {one:?}");
    }
}

#[tokio::test]
async fn a_controller_dies_at_each_step_of_a_firing() {
    points::check_that_they_are_built();
    let points: Vec<String> = points::all().into_iter().filter(|point| point.starts_with(POINTS)).collect();
    assert!(points.len() >= 4, "{points:?}");
    let world = World::start().await;
    let api = world.api();
    let log = world.folder().join("fault.log");
    save_job(&api, ALONE).await;
    for (number, point) in points.iter().enumerate() {
        let name = format!("at-{number}");
        let more = json!({ "overlap": "allow", "max_lateness": "15m" });
        create(&api, &name, "alone", json!({ "every": "1s" }), more).await;
        decided(&api, &name, OccurrenceState::Fired, 1).await;
        // A log that is not there is as good as an empty one.
        let _ = std::fs::remove_file(&log);
        world.kill_controller();
        world.run_controller_with(&[
            ("OPSC_FAULT", point),
            ("OPSC_FAULT_LOG", log.to_str().expect("our paths are UTF-8")),
        ]);
        eventually(SOON, &format!("the controller has died at {point}"), async || {
            world.controller_ended().is_some().then_some(())
        })
        .await;
        assert_eq!(std::fs::read_to_string(&log).expect("it is there").trim(), point);
        world.start_controller().await;
        let before = history(&api, &name).await.len();
        decided(&api, &name, OccurrenceState::Fired, before + 2).await;
        api.post(&format!("/api/v1/schedules/{name}/pause"), &json!({})).await.accepted();
        let all = history(&api, &name).await;
        without_gaps(&all, 1);
        one_to_one(&world, &name, &all).await;
        api.delete(&format!("/api/v1/schedules/{name}")).await.accepted();
    }
}

/// Two controllers that are killed while many schedules are due at once, deliveries come and events happen: one at each point of a
/// firing, and then both at random.
#[tokio::test]
async fn controllers_that_are_killed_at_random_start_everything_once() {
    const MANY: usize = 5000;
    const CAME: usize = 40;
    let seed = fastrand::u64(..);
    eprintln!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let first = World::builder().impatient_but_for_absence().announcing().start().await;
    let api = first.api();
    save_job(&api, ALONE).await;
    let more = json!({ "overlap": "allow" });
    let at = in_seconds(2 * 3600);
    let saved: Vec<usize> = (0..MANY).collect();
    let saves = saved.chunks(MANY / 8).map(async |numbers| {
        for number in numbers {
            create(&api, &format!("many-{number}"), "alone", json!({ "at": at }), more.clone()).await;
        }
    });
    futures_util::future::join_all(saves).await;
    let allow = || more.clone();
    create(&api, "hook", "alone", json!({ "webhook": {} }), allow()).await;
    create(&api, "heard", "alone", json!({ "event": "custom.x" }), allow()).await;
    let door = Door::of(&first, "hook").await;
    let second = first.second_controller().await;
    // All of them are due now; the rule itself says a time that is to come, so each fires once at most.
    let now = opsconductor_tests::clock::now();
    let mut sql = first.sql().await;
    sqlx::query(
        "update schedules set next_due = $1::timestamptz, next_at = $1::timestamptz where starts_on is null",
    )
    .bind(now.to_string())
    .execute(&mut sql)
    .await
    .expect("the owner may");
    second.kill_controller();
    let log = first.folder().join("fault.log");
    for point in points::all().into_iter().filter(|point| point.starts_with(POINTS)) {
        first.kill_controller();
        let variables =
            [("OPSC_FAULT", point.as_str()), ("OPSC_FAULT_LOG", log.to_str().expect("it is UTF-8"))];
        first.run_controller_with(&variables);
        eventually(SOON, &format!("the controller has died at {point}"), async || {
            first.controller_ended().is_some().then_some(())
        })
        .await;
    }
    first.start_controller().await;
    second.start_controller().await;
    let apis = [first.api(), second.api()];
    let comes = async {
        for number in 0..CAME {
            let (one, other) = (&apis[number % 2], &apis[1 - number % 2]);
            // Whoever got no answer asks again.
            eventually(LONG, "it is taken in", async || {
                let is_sent = door.try_deliver(one, &format!("d-{number}")).await;
                (is_sent && told(other, number).await).then_some(())
            })
            .await;
        }
    };
    let all = MANY + 2 * CAME;
    let mut kills = 0;
    let kills_at_random = async {
        loop {
            let fired: i64 = sqlx::query_scalar("select count(*) from occurrences where state = 'fired'")
                .fetch_one(&mut sql)
                .await
                .expect("the owner may");
            if usize::try_from(fired) == Ok(all) {
                break;
            }
            assert!(kills < 1000, "seed {seed}: {fired} of {all} after {kills} kills");
            tokio::time::sleep(Duration::from_millis(random.u64(50..1500))).await;
            let victim = if random.bool() { &first } else { &second };
            victim.kill_controller();
            victim.start_controller().await;
            kills += 1;
        }
    };
    futures_util::future::join(comes, kills_at_random).await;
    eprintln!("{all} were accounted for after {kills} kills");
    let (rows, executions, once): (i64, i64, i64) = sqlx::query_as(
        "select (select count(*) from occurrences),
                (select count(*) from executions where schedule_id is not null),
                (select count(distinct execution_id) from occurrences)",
    )
    .fetch_one(&mut sql)
    .await
    .expect("the owner may");
    assert_eq!([rows, executions, once].map(usize::try_from), [Ok(all); 3], "seed {seed}");
    for name in ["hook", "heard"] {
        let came = history(&first.api(), name).await;
        assert_eq!(came.len(), CAME, "seed {seed}");
        one_to_one(&first, name, &came).await;
    }
}

/// Adds an event, once however often this is called.
async fn told(api: &Api, number: usize) -> bool {
    let event = json!({ "kind": "custom.x", "object": number.to_string() });
    let request = api.request(Method::POST, "/api/v1/events").json(&event);
    let answer = api.try_send(request.header("idempotency-key", format!("e-{number}"))).await;
    answer.is_some_and(|answer| answer.status < 300)
}

#[tokio::test]
async fn a_database_that_was_away_leaves_nothing_out() {
    let mut postgres = Mortal::start();
    let world = World::builder().database(postgres.url()).prepare();
    let file = world.folder().join("clock");
    let set = |offset: &str| std::fs::write(&file, offset).expect("the folder is ours");
    set("+0");
    let clocked = clock_in(&file);
    let variables: Vec<(&str, &str)> = clocked.iter().map(|(name, value)| (*name, value.as_str())).collect();
    world.start_controller_with(&variables).await;
    let api = world.api();
    save_job(&api, ALONE).await;
    let more = || json!({ "overlap": "allow" });
    create(&api, "steady", "alone", json!({ "every": "1s" }), more()).await;
    create(&api, "hook", "alone", json!({ "webhook": {} }), more()).await;
    create(&api, "heard", "alone", json!({ "event": "custom.x" }), more()).await;
    let door = Door::of(&world, "hook").await;
    for number in 0..3 {
        let before = history(&api, "steady").await.len();
        // The event is written, and perhaps not yet shown.
        assert!(told(&api, number).await);
        postgres.die();
        assert!(!door.try_deliver(&api, &format!("d-{number}")).await, "nobody can keep it");
        if number == 2 {
            // Ten minutes go by.
            set("+600s");
        }
        postgres.start_again();
        eventually(SOON, "it goes on, and takes in what comes again", async || {
            let all = api.try_get("/api/v1/schedules/steady/history?limit=1000").await?;
            let is_going_on = all.status == 200 && all.value()["items"].as_array()?.len() > before + 1;
            (is_going_on && door.try_deliver(&api, &format!("d-{number}")).await).then_some(())
        })
        .await;
    }
    let all = eventually(SOON, "all is accounted for", async || {
        let all = history(&api, "steady").await;
        (all.len() > 600).then_some(all)
    })
    .await;
    assert!(all.iter().all(|one| one.origin == Origin::Planned));
    assert!(all.iter().any(|one| one.state == OccurrenceState::Missed));
    without_gaps(&all, 1);
    for name in ["hook", "heard"] {
        let came = eventually(SOON, &format!("all that came for {name} is decided"), async || {
            let all = history(&api, name).await;
            all.iter().all(|one| one.state != OccurrenceState::Waiting).then_some(all)
        })
        .await;
        assert_eq!(came.len(), 3, "{came:?}");
        one_to_one(&world, name, &came).await;
    }
}

#[tokio::test]
async fn a_clock_that_jumps_fires_nothing_twice_and_loses_nothing() {
    let world = World::builder().prepare();
    let file = world.folder().join("clock");
    let set = |offset: &str| std::fs::write(&file, offset).expect("the folder is ours");
    set("+0");
    let clocked = clock_in(&file);
    let variables: Vec<(&str, &str)> = clocked.iter().map(|(name, value)| (*name, value.as_str())).collect();
    world.start_controller_with(&variables).await;
    let api = world.api();
    save_job(&api, ALONE).await;
    let more = json!({ "overlap": "allow" });
    create(&api, "steady", "alone", json!({ "every": "1s" }), more.clone()).await;
    decided(&api, "steady", OccurrenceState::Fired, 1).await;

    set("+3600s");
    let all = eventually(SOON, "the hour that was skipped is accounted for", async || {
        let all = history(&api, "steady").await;
        (all.len() > 3600).then_some(all)
    })
    .await;
    assert!(all.iter().any(|one| one.state == OccurrenceState::Missed));

    set("-3600s");
    // Under this clock another one fires; saved anew or not, the first one has done all that this clock still has to come.
    create(&api, "other", "alone", json!({ "every": "1s" }), more.clone()).await;
    decided(&api, "other", OccurrenceState::Fired, 1).await;
    let until = history(&api, "steady").await.last().expect("a row").due;
    let saved = super::document("steady", "alone", json!({ "every": "1s" }), more);
    api.put("/api/v1/schedules/steady", &saved).await.accepted();
    let fired = history(&api, "other").await.len();
    decided(&api, "other", OccurrenceState::Fired, fired + 2).await;
    assert_eq!(history(&api, "steady").await.last().expect("a row").due, until);

    set("+3660s");
    let all = eventually(SOON, "it goes on", async || {
        let all = history(&api, "steady").await;
        all.last().is_some_and(|last| last.due > until + SignedDuration::from_secs(30)).then_some(all)
    })
    .await;
    without_gaps(&all, 1);
    world.kill_controller();
    world.start_controller().await;
    one_to_one(&world, "steady", &history(&world.api(), "steady").await).await;
}

#[tokio::test]
async fn one_that_cannot_be_fired_holds_up_nobody() {
    let world = World::start().await;
    let api = world.api();
    save_job(&api, ALONE).await;
    let more = json!({ "overlap": "allow" });
    let at = in_seconds(5);
    let stuck = create(&api, "stuck", "alone", json!({ "at": at }), more.clone()).await;
    // Somebody wrote a row for its firing: it can have none of its own.
    let mut sql = world.sql().await;
    sqlx::query(
        "insert into occurrences (id, schedule_id, org_id, origin, due, state, cause, at)
         select gen_random_uuid(), id, org_id, 'planned', next_due, 'skipped', 'overlap', now() from schedules where id = $1",
    )
    .bind(stuck.id.0)
    .execute(&mut sql)
    .await
    .expect("the owner may");
    create(&api, "steady", "alone", json!({ "every": "1s" }), more).await;
    eventually(SOON, "the one was tried", async || {
        world.controller_log().contains("a schedule cannot be fired").then_some(())
    })
    .await;
    let before = history(&api, "steady").await.len();
    let all = decided(&api, "steady", OccurrenceState::Fired, before + 3).await;
    without_gaps(&all, 1);
    one_to_one(&world, "steady", &all).await;
    assert_eq!(history(&api, "stuck").await.len(), 1);
}
