//! What no clock starts: deliveries at webhooks, and events. Each has one row and starts at most one execution.

use aws_lc_rs::hmac;
use jiff::SignedDuration;
use model::{
    api::schedule::{Cause, Delivered, Occurrence, OccurrenceState, Origin, Schedule, ScheduleState},
    execution::ExecutionState,
};
use opsconductor_tests::{Answer, Api, SOON, World, eventually};
use reqwest::Method;
use serde_json::{Value, json};

use super::{QUICK, create, decided, document, history, save_job, show, world_of_one};
use crate::crash_matrix::points;

/// The points at which a controller can die that takes in what comes.
pub(crate) const POINTS: &str = "controller.trigger.";
/// It says what it was given, and where.
const DEPLOY: &str = "name: deploy\nparameters:\n  commit: {type: string, required: true, pattern: '[0-9a-f]+'}\n  count: {type: integer}\n\
                      targets: {all: true}\nsteps: [{name: do, run: 'echo $OPSC_PARAM_COMMIT $OPSC_PARAM_COUNT'}]\n";
/// It starts and ends at the controller alone.
const ALONE: &str = "name: alone\nsteps: [{name: rest, wait: 0s}]\n";
const SLOW: &str = "name: slow\nparameters: {n: {type: integer}}\nsteps: [{name: wait, wait: 1h}]\n";

/// A door of a webhook, with its secret.
pub(super) struct Door {
    api: Api,
    path: String,
    secret: String,
}

impl Door {
    /// A new secret for the webhook of this schedule.
    pub(super) async fn of(world: &World, name: &str) -> Self {
        let path = format!("/api/v1/schedules/{name}/webhook-secret");
        let told = world.api().act(&path).await.accepted().value();
        let text = |key: &str| told[key].as_str().expect("a text").to_owned();
        Self { api: world.api_as_nobody(), path: text("path"), secret: text("secret") }
    }

    async fn send(&self, headers: &[(&str, &str)], body: &str) -> Answer {
        let mut request = self.api.request(Method::POST, &self.path).body(body.to_owned());
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.api.send(request).await
    }

    /// A delivery with the secret.
    async fn deliver(&self, name: &str, body: &Value) -> Answer {
        let bearer = format!("Bearer {}", self.secret);
        let headers = [
            ("authorization", bearer.as_str()),
            ("content-type", "application/json"),
            ("idempotency-key", name),
        ];
        self.send(&headers, &body.to_string()).await
    }

    /// Whether this controller took a delivery in.
    pub(super) async fn try_deliver(&self, api: &Api, name: &str) -> bool {
        let request = api.request(Method::POST, &format!("{}/{}", self.path, self.secret));
        let answer = api.try_send(request.header("idempotency-key", name).body("{}")).await;
        answer.is_some_and(|answer| answer.status < 300)
    }

    fn signature(&self, body: &str) -> String {
        let key = hmac::Key::new(hmac::HMAC_SHA256, self.secret.as_bytes());
        format!("sha256={}", hex::encode(hmac::sign(&key, body.as_bytes())))
    }
}

/// The occurrence of a delivery, once somebody has decided about it.
async fn become_of(api: &Api, schedule: &str, delivery: &str) -> Occurrence {
    eventually(SOON, &format!("somebody has decided about {delivery}"), async || {
        let all = history(api, schedule).await;
        all.into_iter().find(|one| {
            one.delivery.as_deref() == Some(delivery)
                && (one.state != OccurrenceState::Waiting || one.cause.is_some())
        })
    })
    .await
}

/// A host can have no such name, and no query can ask for it.
#[tokio::test]
async fn a_delivery_that_no_query_can_take_holds_up_nothing() {
    let (world, _agent) = world_of_one().await;
    let api = world.api();
    save_job(&api, QUICK).await;
    let when = json!({ "webhook": {}, "hosts": "body.host" });
    create(&api, "on-host", "quick", when, json!({ "overlap": "allow" })).await;
    let door = Door::of(&world, "on-host").await;
    door.deliver("odd", &json!({ "host": "a\0b" })).await.accepted();
    door.deliver("good", &json!({ "host": "one" })).await.accepted();
    assert_eq!(become_of(&api, "on-host", "odd").await.cause, Some(Cause::Refused));
    let good = become_of(&api, "on-host", "good").await;
    assert_eq!((good.state, good.cause), (OccurrenceState::Fired, None), "{good:?}");
}

fn when_delivered() -> Value {
    json!({
        "webhook": {},
        "if": "body.ref == 'refs/heads/main'",
        "parameters": { "commit": "body.after", "count": "body.commits | length" },
    })
}

fn push(commit: &str) -> Value {
    json!({ "ref": "refs/heads/main", "after": commit, "commits": [1, 2] })
}

#[tokio::test]
async fn a_delivery_starts_the_job_with_its_values_once() {
    let (world, _agent) = world_of_one().await;
    let api = world.api();
    save_job(&api, DEPLOY).await;
    let made = create(&api, "on-push", "deploy", when_delivered(), json!({ "overlap": "queue_all" })).await;
    assert_eq!((made.state, made.next, made.webhook_has_secret), (ScheduleState::Active, None, Some(false)));
    let path = made.webhook_path.expect("a path");
    let early = Door { api: world.api_as_nobody(), path, secret: "och1_nothing".to_owned() };
    let refused = early.deliver("1", &push("abc")).await.refused(401, "bad_credential");

    let door = Door::of(&world, "on-push").await;
    let taken: Delivered = door.deliver("1", &push("abc")).await.accepted().json();
    assert!(!taken.repeated && taken.cause.is_none(), "{taken:?}");
    let came = become_of(&api, "on-push", "1").await;
    assert_eq!(
        (came.id, came.state, came.origin),
        (taken.occurrence_id, OccurrenceState::Fired, Origin::Webhook)
    );
    assert_eq!(came.detail.as_deref(), Some("from 127.0.0.1"));
    let finished = api.finished(came.execution_id.expect("an execution")).await;
    assert_eq!(api.stdout(&finished).await, "abc 2\n");
    assert_eq!(finished.execution.actor, "administrator");

    // It comes again, also from a sender that has other things to say by now.
    let again = door.deliver("1", &push("def")).await;
    assert_eq!(again.status, 200);
    let again: Delivered = again.json();
    assert!(again.repeated && again.state == OccurrenceState::Fired, "{again:?}");
    assert_eq!(again.occurrence_id, taken.occurrence_id);

    // What is not meant, and what cannot be used, has its row with a reason.
    let answer =
        door.deliver("2", &json!({ "ref": "refs/heads/other", "after": "abc", "commits": [] })).await;
    assert_eq!(answer.status, 200);
    let other: Delivered = answer.json();
    assert_eq!((other.state, other.cause), (OccurrenceState::Skipped, Some(Cause::Condition)), "{other:?}");
    let bare: Delivered = door.deliver("3", &json!({ "ref": "refs/heads/main" })).await.accepted().json();
    assert_eq!(bare.cause, Some(Cause::Refused), "{bare:?}");
    assert!(bare.detail.expect("why").contains("body.after"));
    door.deliver("4", &push("no commit; rm -rf /")).await.accepted();
    let refused_later = become_of(&api, "on-push", "4").await;
    assert_eq!(refused_later.cause, Some(Cause::Refused), "{refused_later:?}");
    assert!(refused_later.detail.expect("why").contains("parameters.commit"));
    assert_eq!(history(&api, "on-push").await.len(), 4);

    // A stranger learns nothing, not even whether there is such a webhook.
    let unknown = Door { path: format!("/api/v1/hooks/{}", uuid::Uuid::now_v7()), ..early };
    let nobody = unknown.deliver("1", &push("abc")).await.refused(401, "bad_credential");
    assert_eq!(nobody.detail, refused.detail);
    let next = Door::of(&world, "on-push").await;
    assert_ne!(next.secret, door.secret);
    door.deliver("5", &push("abc")).await.refused(401, "bad_credential");
    next.deliver("5", &push("abc")).await.accepted();
    become_of(&api, "on-push", "5").await;
    let mut sql = world.sql().await;
    let kept: String = sqlx::query_scalar("select coalesce(string_agg(s::text, ''), '') from schedules s")
        .fetch_one(&mut sql)
        .await
        .expect("the owner may");
    assert!(!kept.contains(next.secret.trim_start_matches("och1_")), "it is kept nowhere");
}

#[tokio::test]
async fn a_sender_proves_itself_as_the_schedule_says() {
    let (world, _agent) = world_of_one().await;
    let api = world.api();
    save_job(&api, QUICK).await;
    let more = json!({ "overlap": "allow" });
    let hook = |webhook: Value| json!({ "webhook": webhook });
    create(&api, "signed", "quick", hook(json!({ "proof": "signature" })), more.clone()).await;
    let signed = Door::of(&world, "signed").await;
    let body = r#"{"a": 1}"#;
    let right = signed.signature(body);
    for (signature, sent) in
        [(right.as_str(), r#"{"a": 2}"#), ("sha256=00", body), ("", body), (&right[..60], body)]
    {
        signed.send(&[("x-hub-signature-256", signature)], sent).await.refused(401, "bad_credential");
    }
    let bearer = format!("Bearer {}", signed.secret);
    signed.send(&[("authorization", &bearer)], body).await.refused(401, "bad_credential");
    let headers = [("x-hub-signature-256", right.as_str()), ("x-github-delivery", "72d3162e")];
    signed.send(&headers, body).await.accepted();
    become_of(&api, "signed", "72d3162e").await;

    let own = json!({ "header": "X-Gitlab-Token", "delivery_header": "X-Gitlab-Event-UUID" });
    create(&api, "own", "quick", hook(own), more.clone()).await;
    let own = Door::of(&world, "own").await;
    let bearer = format!("Bearer {}", own.secret);
    own.send(&[("authorization", &bearer)], body).await.refused(401, "bad_credential");
    own.send(&[("x-gitlab-token", &own.secret), ("x-gitlab-event-uuid", "g-1")], body).await.accepted();
    become_of(&api, "own", "g-1").await;

    create(&api, "plain", "quick", hook(json!({})), more.clone()).await;
    let plain = Door::of(&world, "plain").await;
    let with_secret =
        Door { path: format!("{}/{}", plain.path, plain.secret), ..Door::of(&world, "own").await };
    with_secret.send(&[("idempotency-key", "p-1")], "just text").await.accepted();
    become_of(&api, "plain", "p-1").await;
    assert!(!world.controller_log().contains(&plain.secret), "no log has a secret");

    create(&api, "near", "quick", hook(json!({ "from": ["127.0.0.2", "10.0.0.0/8"] })), more).await;
    let near = Door::of(&world, "near").await;
    let refused = near.deliver("n-1", &json!({})).await.refused(403, "not_admitted");
    assert!(refused.detail.contains("127.0.0.1"), "{refused:?}");
    let here = Door { api: world.api_as_nobody().from("127.0.0.2".parse().expect("an address")), ..near };
    here.deliver("n-1", &json!({})).await.accepted();
    become_of(&api, "near", "n-1").await;
}

#[tokio::test]
async fn what_comes_goes_by_the_policies_of_its_schedule() {
    let world = World::start().await;
    let api = world.api();
    save_job(&api, SLOW).await;
    let when = json!({ "webhook": {}, "parameters": { "n": "body.n" } });
    create(&api, "turns", "slow", when, json!({ "overlap": "queue_all" })).await;
    let door = Door::of(&world, "turns").await;
    for n in 1..=3 {
        door.deliver(&n.to_string(), &json!({ "n": n })).await.accepted();
    }
    let first = become_of(&api, "turns", "1").await;
    let second = become_of(&api, "turns", "2").await;
    assert_eq!((second.state, second.cause), (OccurrenceState::Waiting, Some(Cause::Overlap)), "{second:?}");
    become_of(&api, "turns", "3").await;

    // Somebody changes what waits: it starts nothing any more.
    let mut sql = world.sql().await;
    let done = sqlx::query("update occurrences set taken = replace(taken, '3', '4') where delivery = '3'")
        .execute(&mut sql)
        .await
        .expect("the owner may");
    assert_eq!(done.rows_affected(), 1);
    api.act(&format!("/api/v1/executions/{}/cancel", first.execution_id.expect("it runs"))).await.accepted();
    let second = eventually(SOON, "the next one has its turn", async || {
        history(&api, "turns")
            .await
            .into_iter()
            .find(|one| one.delivery.as_deref() == Some("2") && one.state == OccurrenceState::Fired)
    })
    .await;
    let execution = api.execution(second.execution_id.expect("it runs")).await;
    assert_eq!(execution.job.expect("a job").parameters["n"], json!(2));
    api.act(&format!("/api/v1/executions/{}/cancel", execution.id)).await.accepted();
    let third = decided(&api, "turns", OccurrenceState::Skipped, 1).await.pop().expect("the newest");
    assert_eq!((third.delivery.as_deref(), third.cause), (Some("3"), Some(Cause::Tampered)), "{third:?}");

    // A row that somebody writes by himself starts nothing either.
    sqlx::query(
        "insert into occurrences (id, schedule_id, org_id, origin, due, state, at, delivery, revision, taken, seal)
         select gen_random_uuid(), schedule_id, org_id, origin, now(), 'waiting', now(), 'forged', revision, '{}', 'seal'
         from occurrences where delivery = '2'",
    )
    .execute(&mut sql)
    .await
    .expect("the owner may");
    assert_eq!(become_of(&api, "turns", "forged").await.cause, Some(Cause::Tampered));

    api.post("/api/v1/schedules/turns/pause", &json!({})).await.accepted();
    door.deliver("5", &json!({ "n": 5 })).await.accepted();
    assert_eq!(become_of(&api, "turns", "5").await.cause, Some(Cause::Paused));
    api.act("/api/v1/schedules/turns/resume").await.accepted();
    let starts = (opsconductor_tests::clock::now() + SignedDuration::from_hours(1)).to_string();
    let later = json!({ "webhook": {}, "starts_at": starts, "parameters": { "n": "body.n" } });
    api.put("/api/v1/schedules/turns", &document("turns", "slow", later, json!({}))).await.accepted();
    door.deliver("6", &json!({ "n": 6 })).await.accepted();
    assert_eq!(become_of(&api, "turns", "6").await.cause, Some(Cause::NotInForce));
    api.delete("/api/v1/schedules/turns").await.accepted();
    door.deliver("7", &json!({ "n": 7 })).await.refused(401, "bad_credential");
}

#[tokio::test]
async fn an_execution_that_ends_starts_another_job() {
    let (world, _agent) = world_of_one().await;
    let api = world.api();
    save_job(&api, "name: breaks\ntargets: {all: true}\nsteps: [{name: do, run: 'exit 3'}]\n").await;
    let tell = "name: tell\nparameters: {job: {type: string, required: true}, failed: {type: integer}}\n\
                targets: {all: true}\nsteps: [{name: do, run: 'echo $OPSC_PARAM_JOB $OPSC_PARAM_FAILED; exit 1'}]\n";
    save_job(&api, tell).await;
    let when = json!({
        "event": "execution.ended",
        "if": "event.data.state == 'failed'",
        "parameters": { "job": "event.data.job", "failed": "event.data.runs.failed" },
    });
    let made = create(&api, "on-failure", "tell", when, json!({ "overlap": "queue_all" })).await;
    assert_eq!((made.state, made.webhook_path), (ScheduleState::Active, None));
    let broken = api.post("/api/v1/jobs/breaks/execute", &json!({})).await.accepted().value();
    let told = decided(&api, "on-failure", OccurrenceState::Fired, 1).await.remove(0);
    assert_eq!(told.origin, Origin::Event);
    let detail = told.detail.clone().expect("whence");
    assert!(detail.contains(broken["id"].as_str().expect("an id")), "{detail}");
    let finished = api.finished(told.execution_id.expect("an execution")).await;
    assert_eq!(api.stdout(&finished).await, "breaks 1\n");
    // It failed itself, and does not start itself for that.
    let looped = decided(&api, "on-failure", OccurrenceState::Skipped, 1).await.pop().expect("the newest");
    assert_eq!(looped.cause, Some(Cause::Loop), "{looped:?}");
    // What ends well is no firing, and neither is what ended before.
    save_job(&api, QUICK).await;
    let quick = api.post("/api/v1/jobs/quick/execute", &json!({})).await.accepted().value();
    let quick = api.finished(quick["id"].as_str().expect("an id")).await;
    assert_eq!(quick.execution.state, ExecutionState::Succeeded);
    let again = api.post("/api/v1/jobs/breaks/execute", &json!({})).await.accepted().value();
    let all = decided(&api, "on-failure", OccurrenceState::Skipped, 2).await;
    assert_eq!(all.len(), 4, "{all:?}");
    assert!(
        all[2].detail.as_deref().is_some_and(|detail| detail.contains(again["id"].as_str().expect("an id")))
    );
}

#[tokio::test]
async fn two_schedules_do_not_start_each_other_for_ever() {
    let world = World::start().await;
    let api = world.api();
    for (name, of) in [("ping", "pong"), ("pong", "ping")] {
        save_job(&api, &ALONE.replace("alone", name)).await;
        let when = json!({ "event": "execution.ended", "if": format!("event.data.job == '{of}'") });
        create(&api, name, name, when, json!({ "overlap": "allow" })).await;
    }
    api.post("/api/v1/jobs/ping/execute", &json!({})).await.accepted();
    let end = eventually(SOON, "somebody stops it", async || {
        let mut all = history(&api, "ping").await;
        all.extend(history(&api, "pong").await);
        all.into_iter().find(|one| one.cause == Some(Cause::Loop))
    })
    .await;
    assert!(end.detail.expect("why").contains("CHAINED_EXECUTIONS"));
    let (ping, pong) = (history(&api, "ping").await, history(&api, "pong").await);
    let started = ping.iter().chain(&pong).filter(|one| one.execution_id.is_some()).count();
    assert_eq!(i16::try_from(started), Ok(model::limits::CHAINED_EXECUTIONS));
}

#[tokio::test]
async fn a_host_that_comes_gets_its_job() {
    let (world, _agent) = world_of_one().await;
    let api = world.api();
    save_job(&api, "name: greet\nsteps: [{name: do, run: 'hostname >/dev/null; echo here'}]\n").await;
    let when =
        json!({ "event": "agent.*", "if": "event.kind == 'agent.connected'", "hosts": "event.data.name" });
    create(&api, "on-arrival", "greet", when, json!({ "overlap": "queue_all" })).await;
    let two = world.agent("two").start().await;
    let came = decided(&api, "on-arrival", OccurrenceState::Fired, 1).await.remove(0);
    let finished = api.finished(came.execution_id.expect("an execution")).await;
    assert_eq!(finished.run().target, "two");
    assert_eq!(finished.execution.state, ExecutionState::Succeeded);
    drop(two);
    // And one whose labels change.
    let when = json!({
        "event": "agent.label",
        "if": "event.data.after.role == 'db'",
        "hosts": "event.data.name",
    });
    create(&api, "on-label", "greet", when, json!({ "overlap": "queue_all" })).await;
    for role in ["web", "db"] {
        let change = json!({ "set": { "role": role } });
        api.post("/api/v1/agents/one/labels", &change).await.accepted();
    }
    let came = decided(&api, "on-label", OccurrenceState::Fired, 1).await.remove(0);
    assert_eq!(api.finished(came.execution_id.expect("an execution")).await.run().target, "one");
    assert_eq!(history(&api, "on-label").await.len(), 1);
    // Whoever may not see events any more hears none.
    let olga = world.person("olga", Some("operator")).await;
    let when = json!({ "event": "custom.deploy.*" });
    create(&olga, "hers", "greet", when, json!({ "targets": { "all": true }, "overlap": "allow" })).await;
    let event = json!({ "kind": "custom.deploy.done", "object": "shop" });
    api.post("/api/v1/events", &event).await.accepted();
    decided(&api, "hers", OccurrenceState::Fired, 1).await;
    let bindings = api.get("/api/v1/role-bindings").await.accepted().value();
    let items = bindings["items"].as_array().expect("a list");
    let hers = items.iter().find(|binding| binding["user"] == "olga").expect("a binding");
    api.delete(&format!("/api/v1/role-bindings/{}", hers["id"].as_str().expect("an id"))).await.accepted();
    api.post("/api/v1/events", &event).await.accepted();
    let last = decided(&api, "hers", OccurrenceState::Skipped, 1).await.pop().expect("the newest");
    assert_eq!(last.cause, Some(Cause::NotAllowed), "{last:?}");
}

#[tokio::test]
async fn a_controller_that_dies_takes_everything_in_once() {
    points::check_that_they_are_built();
    let points: Vec<String> = points::all().into_iter().filter(|point| point.starts_with(POINTS)).collect();
    assert_eq!(points.len(), 2, "{points:?}");
    let world = World::start().await;
    let api = world.api();
    save_job(&api, ALONE).await;
    let more = json!({ "overlap": "allow" });
    create(&api, "hook", "alone", json!({ "webhook": {} }), more.clone()).await;
    create(&api, "heard", "alone", json!({ "event": "custom.x" }), more).await;
    let door = Door::of(&world, "hook").await;
    let log = world.folder().join("fault.log");
    for (number, point) in points.iter().enumerate() {
        // A log that is not there is as good as an empty one.
        let _ = std::fs::remove_file(&log);
        world.kill_controller();
        world.run_controller_with(&[
            ("OPSC_FAULT", point),
            ("OPSC_FAULT_LOG", log.to_str().expect("our paths are UTF-8")),
        ]);
        let name = format!("d-{number}");
        let sends = async || door.try_deliver(&door.api, &name).await;
        let adds = async || {
            let event = json!({ "kind": "custom.x", "object": name });
            let request = api.request(Method::POST, "/api/v1/events").json(&event);
            api.try_send(request.header("idempotency-key", format!("e-{number}"))).await
        };
        eventually(SOON, &format!("the controller has died at {point}"), async || {
            sends().await;
            adds().await;
            world.controller_ended().is_some().then_some(())
        })
        .await;
        assert_eq!(std::fs::read_to_string(&log).expect("it is there").trim(), point);
        world.start_controller().await;
        assert!(sends().await);
        assert!(adds().await.is_some_and(|answer| answer.status < 300));
        become_of(&api, "hook", &name).await;
        decided(&api, "heard", OccurrenceState::Fired, number + 1).await;
    }
    for (schedule, prefix) in [("hook", "d-"), ("heard", "")] {
        let all = history(&api, schedule).await;
        assert_eq!(all.len(), points.len(), "{all:?}");
        assert!(all.iter().all(|one| one.execution_id.is_some()), "{all:?}");
        assert!(all.iter().all(|one| one.delivery.as_deref().is_some_and(|name| name.starts_with(prefix))));
        super::crashes::one_to_one(&world, schedule, &all).await;
    }
}

#[tokio::test]
async fn what_waits_goes_on_under_a_revision_that_means_the_same() {
    let world = World::start().await;
    let api = world.api();
    save_job(&api, SLOW).await;
    let when = || json!({ "webhook": {}, "parameters": { "n": "body.n" } });
    create(&api, "turns", "slow", when(), json!({ "overlap": "queue_all" })).await;
    let door = Door::of(&world, "turns").await;
    for n in 1..=2 {
        door.deliver(&n.to_string(), &json!({ "n": n })).await.accepted();
    }
    let first = become_of(&api, "turns", "1").await;
    become_of(&api, "turns", "2").await;
    let more = json!({ "overlap": "queue_all", "description": "the same" });
    api.put("/api/v1/schedules/turns", &document("turns", "slow", when(), more)).await.accepted();
    api.act(&format!("/api/v1/executions/{}/cancel", first.execution_id.expect("it runs"))).await.accepted();
    let fired = decided(&api, "turns", OccurrenceState::Fired, 2).await.pop().expect("the newest");
    let execution = api.execution(fired.execution_id.expect("it runs")).await;
    assert_eq!(execution.job.expect("a job").parameters["n"], json!(2));
    // Under one that waits for something else it does not.
    door.deliver("3", &json!({ "n": 3 })).await.accepted();
    become_of(&api, "turns", "3").await;
    let other = json!({ "webhook": {}, "parameters": { "n": "body.m" } });
    api.put("/api/v1/schedules/turns", &document("turns", "slow", other, json!({}))).await.accepted();
    assert_eq!(become_of(&api, "turns", "3").await.cause, Some(Cause::Changed));
}

#[tokio::test]
async fn saving_it_anew_loses_no_event() {
    let world = World::start().await;
    let api = world.api();
    save_job(&api, ALONE).await;
    let heard = || json!({ "event": "custom.x" });
    create(&api, "heard", "alone", heard(), json!({ "overlap": "allow" })).await;
    // Somebody who writes for long holds up what is behind him, for everybody who wants to miss nothing.
    let mut sql = world.sql().await;
    let mut long = sqlx::Connection::begin(&mut sql).await.expect("the owner may");
    sqlx::query("update organizations set name = name").execute(&mut *long).await.expect("the owner may");
    api.post("/api/v1/events", &json!({ "kind": "custom.x" })).await.accepted();
    let more = json!({ "overlap": "allow", "description": "saved anew" });
    api.put("/api/v1/schedules/heard", &document("heard", "alone", heard(), more)).await.accepted();
    assert!(history(&api, "heard").await.is_empty());
    long.commit().await.expect("the owner may");
    decided(&api, "heard", OccurrenceState::Fired, 1).await;
}

#[tokio::test]
async fn whose_it_is_has_its_secret_and_what_nobody_saved_hears_nothing() {
    let (world, _agent) = world_of_one().await;
    let api = world.api();
    save_job(&api, QUICK).await;
    create(&api, "hook", "quick", json!({ "webhook": {} }), json!({})).await;
    let door = Door::of(&world, "hook").await;
    door.deliver("1", &json!({})).await.accepted();
    become_of(&api, "hook", "1").await;
    let olga = world.person("olga", Some("operator")).await;
    let refused = olga.act("/api/v1/schedules/hook/webhook-secret").await.refused(403, "forbidden");
    assert!(refused.detail.contains("save it anew"), "{refused:?}");
    olga.put("/api/v1/schedules/hook", &document("hook", "quick", json!({ "webhook": {} }), json!({})))
        .await
        .accepted();
    // Now it acts as somebody else: who has the old secret has nothing.
    assert_eq!(show(&api, "hook").await.webhook_has_secret, Some(false));
    door.deliver("2", &json!({})).await.refused(401, "bad_credential");
    olga.act("/api/v1/schedules/hook/webhook-secret").await.accepted();
    door.deliver("2", &json!({})).await.refused(401, "bad_credential");
    api.act("/api/v1/schedules/hook/webhook-secret").await.refused(403, "forbidden");

    let heard = || json!({ "event": "custom.x" });
    create(&api, "heard", "quick", heard(), json!({ "overlap": "allow" })).await;
    let mut sql = world.sql().await;
    sqlx::query(
        "update schedules set document = replace(document, '\"allow\"', '\"allow\" ') where name = 'heard'",
    )
    .execute(&mut sql)
    .await
    .expect("the owner may");
    api.post("/api/v1/events", &json!({ "kind": "custom.x" })).await.accepted();
    eventually(SOON, "it is paused", async || {
        let halted =
            "select halted_at is not null and paused_at is not null from schedules where name = 'heard'";
        sqlx::query_scalar::<_, bool>(halted).fetch_one(&mut sql).await.ok().filter(|is| *is)
    })
    .await;
    let audit = api.get("/api/v1/audit?verb=schedule.pause").await.accepted().value();
    assert_eq!(audit["items"][0]["entry"]["outcome"], "alarm", "{audit}");
    api.act("/api/v1/schedules/heard/resume").await.refused(409, "conflict");
    let saved = document("heard", "quick", heard(), json!({ "overlap": "allow" }));
    api.put("/api/v1/schedules/heard", &saved).await.accepted();
    api.post("/api/v1/events", &json!({ "kind": "custom.x" })).await.accepted();
    decided(&api, "heard", OccurrenceState::Fired, 1).await;
    assert_eq!(history(&api, "heard").await.len(), 1);
}

#[tokio::test]
async fn bad_triggers_are_told() {
    let (world, _agent) = world_of_one().await;
    let api = world.api();
    save_job(&api, DEPLOY).await;
    let refuses = async |when: Value, more: Value, says: &str| {
        let body = document("bad", "deploy", when, more);
        let answer = api.post("/api/v1/schedules", &body).await;
        assert_eq!(answer.status, 400, "{}", answer.text());
        assert!(answer.text().contains(says), "{says}: {}", answer.text());
    };
    let nothing = || json!({});
    refuses(json!({ "webhook": {}, "event": "agent.*" }), nothing(), "one too many").await;
    refuses(json!({ "webhook": {}, "cron": "* * * * *" }), nothing(), "one too many").await;
    refuses(json!({ "event": "Agent Connected" }), nothing(), "execution.ended").await;
    refuses(json!({ "webhook": {}, "zone": "Europe/Warsaw" }), nothing(), "zone").await;
    refuses(json!({ "every": "1h", "if": "true" }), nothing(), "webhook and event").await;
    refuses(json!({ "webhook": { "from": ["10.0.0.1/8"] } }), nothing(), "webhook.from").await;
    refuses(json!({ "webhook": { "header": "a b" } }), nothing(), "webhook.header").await;
    refuses(json!({ "webhook": {}, "if": "event.kind == 'x'" }), nothing(), "body, headers, query").await;
    refuses(json!({ "webhook": {}, "if": "body.a ==" }), nothing(), "if").await;
    let signed = |field: &str, of: Value| json!({ "webhook": { "proof": "signature" }, field: of });
    refuses(signed("if", json!("query.a == '1'")), nothing(), "body, headers").await;
    refuses(signed("hosts", json!("headers.host")), nothing(), "is body").await;
    refuses(
        json!({ "webhook": {}, "parameters": { "other": "body.x" } }),
        nothing(),
        "when.parameters.other",
    )
    .await;
    refuses(json!({ "webhook": {} }), nothing(), "parameters.commit").await;
    refuses(json!({ "webhook": {} }), json!({ "jitter": "5m" }), "jitter").await;
    let both = json!({ "parameters": { "commit": "abc" } });
    refuses(json!({ "webhook": {}, "parameters": { "commit": "body.x" } }), both, "parameters.commit").await;

    let made: Schedule = create(&api, "hook", "deploy", when_delivered(), json!({})).await;
    api.get("/api/v1/schedules/hook/preview").await.refused(409, "conflict");
    let past = json!({ "from": "2026-01-01T00:00:00Z", "to": "2026-01-02T00:00:00Z" });
    let refused = api.post("/api/v1/schedules/hook/backfill", &past).await.refused(409, "conflict");
    assert!(refused.detail.contains("started by webhook"), "{refused:?}");
    create(&api, "clock", "deploy", json!({ "every": "1h" }), json!({ "parameters": { "commit": "abc" } }))
        .await;
    api.act("/api/v1/schedules/clock/webhook-secret").await.refused(409, "conflict");

    let door = Door::of(&world, "hook").await;
    let bearer = format!("Bearer {}", door.secret);
    let json = ("content-type", "application/json");
    let answer = door.send(&[("authorization", &bearer), json], "{not json").await.refused(400, "invalid");
    assert_eq!(answer.field.as_deref(), Some("body"));
    let long = "x".repeat(model::limits::DELIVERY_BYTES + 1);
    door.send(&[("authorization", &bearer), ("idempotency-key", &long)], "{}").await.refused(400, "invalid");
    let large = "x".repeat(model::limits::WEBHOOK_BODY_BYTES + 1);
    door.send(&[("authorization", &bearer)], &large).await.refused(413, "body_too_large");
    assert_eq!(door.api.get(&door.path).await.status, 405);
    assert!(history(&api, "hook").await.is_empty());
    assert_eq!(show(&api, "hook").await.id, made.id);
}

#[tokio::test]
async fn people_type_triggers() {
    let (world, _agent) = world_of_one().await;
    let api = world.api();
    save_job(&api, DEPLOY).await;
    let types = async |words: &[&str]| world.opsctl(words).await;
    let create = [
        "schedule",
        "create",
        "on-push",
        "--job",
        "deploy",
        "--webhook",
        "signature",
        "--if",
        "body.ref == 'refs/heads/main'",
        "--take",
        "commit=body.after",
        "--from-network",
        "127.0.0.0/8",
    ];
    let said = types(&create).await.ended(0);
    for want in ["webhook", "body.after", "it has no secret yet", "queue_all"] {
        assert!(said.text().contains(want), "{want}: {}", said.text());
    }
    let secret = types(&["schedule", "new-secret", "on-push"]).await.ended(0);
    assert!(secret.text().contains("och1_") && secret.text().contains("http://"), "{}", secret.text());
    let changed = types(&["schedule", "update", "on-push", "--take", "count=1"]).await.ended(0);
    assert!(changed.text().contains("Takes commit") && changed.text().contains("Takes count"));
    let saved = show(&api, "on-push").await.schedule;
    assert_eq!(saved.when.to_string(), "webhook");
    let words = ["schedule", "update", "on-push", "--event", "execution.ended", "--take", "commit='abc'"];
    let changed = types(&words).await.ended(0);
    assert!(changed.text().contains("event execution.ended") && !changed.text().contains("body.ref"));
    let wrong = ["schedule", "create", "x", "--job", "deploy", "--event", "a b"];
    assert!(types(&wrong).await.ended(2).stderr.contains("event"));
    assert!(types(&["schedule", "create", "x", "--job", "deploy"]).await.ended(2).stderr.contains("--when"));
}
