//! Events: what is told of itself, what people's programs add, and how it is followed without a hole.

use model::{
    api::event::{Event, EventPage},
    limits,
};
use opsconductor_tests::{Api, SOON, Stage, World, eventually, stage::Visit};
use reqwest::Method;
use serde_json::{Value, json};
use sqlx::Connection;
use tokio::sync::OnceCell;

use crate::access::api_token;

static STAGE: OnceCell<Stage> = OnceCell::const_new();

async fn stage() -> Visit {
    Stage::shared(&STAGE, &[("told", &[])]).await
}

async fn list(api: &Api, query: &str) -> EventPage {
    api.get(&format!("/api/v1/events?{query}")).await.accepted().json()
}

/// Waits for an event.
async fn find(api: &Api, query: &str) -> Event {
    eventually(SOON, query, async || list(api, query).await.items.into_iter().next()).await
}

async fn add(api: &Api, kind: &str, object: &str) -> Event {
    let body = json!({ "kind": kind, "object": object, "data": { "n": 1 } });
    api.post("/api/v1/events", &body).await.accepted().json()
}

#[tokio::test]
async fn agents_and_executions_are_told_of() {
    let world = World::start().await;
    let api = world.api();
    let mut agent = world.agent("coming").start().await;
    let object = format!("agent/{}", agent.id().await);
    let came = find(&api, &format!("kind=agent.connected&object={object}")).await;
    assert_eq!(came.data["name"], "coming");
    assert_eq!(came.actor, None);

    let done = api.exec("coming", json!({ "program": { "shell": "exit 3" } })).await;
    let object_of_it = format!("execution/{}", done.execution.id);
    let ended = find(&api, &format!("kind=execution.ended&object={object_of_it}")).await;
    assert_eq!(
        (&ended.data["state"], &ended.data["runs"]["failed"]),
        (&json!("failed"), &json!(1)),
        "{ended:?}"
    );
    let began = find(&api, &format!("kind=execution.create&object={object_of_it}")).await;
    assert!(began.actor.is_some() && began.time < ended.time, "{began:?} {ended:?}");
    // One for the whole of it.
    assert_eq!(list(&api, &format!("kind=execution.ended&object={object_of_it}")).await.items.len(), 1);

    agent.stop();
    let went = find(&api, &format!("kind=agent.disconnected&object={object}")).await;
    assert!(went.time > came.time);
    let all = list(&api, &format!("kind=agent.*&object={object}")).await.items;
    assert!(all.len() >= 2 && all.iter().all(|event| event.kind.starts_with("agent.")), "{all:?}");
    assert!(all.is_sorted_by(|a, b| a.time >= b.time), "the newest first: {all:?}");
}

#[tokio::test]
async fn programs_add_their_own() {
    let stage = stage().await;
    let api = stage.world.api();
    let event = add(&api, "custom.deploy.done", "shop").await;
    assert!(event.actor.is_some());
    assert_eq!(list(&api, "kind=custom.*&object=shop").await.items[0].id, event.id);
    for (body, field) in [
        (json!({ "kind": "agent.connected" }), "kind"),
        (json!({ "kind": "custom.a", "data": [] }), "data"),
        (json!({ "kind": "custom.a", "object": "x".repeat(limits::EVENT_OBJECT_BYTES + 1) }), "object"),
        (json!({ "kind": "custom.a", "data": { "x": "x".repeat(limits::EVENT_DATA_BYTES) } }), "data"),
        (json!({ "kind": "custom.a", "time": "now" }), "time"),
    ] {
        let problem = api.post("/api/v1/events", &body).await.refused(400, "invalid");
        assert_eq!(problem.field.as_deref(), Some(field), "{problem:?}");
    }
    let body = json!({ "kind": "custom.a", "data": { "x": "\u{0}" } });
    api.post("/api/v1/events", &body).await.refused(400, "unstorable");

    let send = async |body: Value| {
        let request =
            api.request(Method::POST, "/api/v1/events").header("Idempotency-Key", "once").json(&body);
        api.send(request).await
    };
    let first: Event = send(json!({ "kind": "custom.once" })).await.accepted().json();
    let again: Event = send(json!({ "kind": "custom.once" })).await.accepted().json();
    assert_eq!(first.id, again.id);
    assert_eq!(list(&api, "kind=custom.once").await.items.len(), 1);
    send(json!({ "kind": "custom.twice" })).await.refused(422, "idempotency_key_reused");

    let reader = stage.world.api_as(&api_token(&stage.world, "event reader", &["event.read"], "").await);
    list(&reader, "").await;
    reader.post("/api/v1/events", &json!({ "kind": "custom.a" })).await.refused(403, "forbidden");
}

#[tokio::test]
async fn lists_are_narrowed_and_paged() {
    let stage = stage().await;
    let api = stage.world.api();
    let mut all = Vec::new();
    for n in 0..7 {
        all.push(add(&api, "custom.paged", &format!("n{n}")).await.id);
    }
    all.reverse();
    let (mut seen, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = list(&api, &format!("kind=custom.paged&limit=3{cursor}")).await;
        assert!(page.items.len() <= 3);
        seen.extend(page.items.iter().map(|event| event.id));
        let Some(next) = page.next_cursor else { break };
        cursor = format!("&cursor={next}");
    }
    assert_eq!(seen, all);
    let third = &list(&api, "kind=custom.paged&object=n3").await.items[0];
    let since = list(&api, &format!("kind=custom.paged&since={}", third.time)).await.items;
    assert_eq!(since.last().map(|event| event.id), Some(third.id));
    let until = list(&api, &format!("kind=custom.paged&until={}", third.time)).await.items;
    assert_eq!((since.len() + until.len(), until.iter().any(|event| event.id == third.id)), (7, false));
    for (query, field) in [
        ("kind=*", "kind"),
        ("kind=A", "kind"),
        ("after=soon", "after"),
        ("cursor=x", "cursor"),
        ("after=0&cursor=x", "cursor"),
        ("since=yesterday", "since"),
        ("limit=0", "limit"),
        ("what=1", "what"),
    ] {
        let problem = api.get(&format!("/api/v1/events?{query}")).await.refused(400, "invalid");
        assert_eq!(problem.field.as_deref(), Some(field), "{query}: {problem:?}");
    }
}

#[tokio::test]
async fn what_is_committed_late_is_not_missed() {
    let world = World::start().await;
    let api = world.api();
    let insert = "insert into events (id, org_id, at, kind, object)
                  select gen_random_uuid(), id, now(), 'custom.late', 'late' from organizations";
    let mut slow = world.sql().await;
    let mut transaction = slow.begin().await.expect("the owner may");
    sqlx::query(insert).execute(&mut *transaction).await.expect("the owner may");
    let begun = list(&api, "limit=1").await.next_after;
    // Written after the late one, and committed before it.
    let early = add(&api, "custom.early", "").await;
    let page = list(&api, &format!("kind=custom.*&after={begun}")).await;
    assert!(page.items.is_empty(), "nothing that another one may still come before: {page:?}");
    transaction.commit().await.expect("the owner may");
    let page = eventually(SOON, "both are told", async || {
        Some(list(&api, &format!("kind=custom.*&after={begun}")).await).filter(|page| page.items.len() == 2)
    })
    .await;
    assert_eq!(page.items[0].kind, "custom.late");
    assert_eq!(page.items[1].id, early.id);
    let page = list(&api, &format!("kind=custom.*&after={}", page.next_after)).await;
    assert!(page.items.is_empty(), "none twice: {page:?}");
}

#[tokio::test]
async fn events_of_another_cluster_come_before_all_that_is_written_here() {
    let world = World::start().await;
    let api = world.api();
    let old = [add(&api, "custom.moved", "a").await, add(&api, "custom.moved", "b").await];
    world.stop_controller();
    // As after a dump was read into a cluster that has counted fewer transactions.
    let far = "update events set tx = (pg_current_xact_id()::text::bigint + 1000000 + (object = 'a')::int)::text::xid8
               where kind = 'custom.moved'";
    sqlx::query(far).execute(&mut world.sql().await).await.expect("the owner may");
    world.start_controller().await;
    let new = add(&api, "custom.moved", "c").await;
    let page = eventually(SOON, "all are told", async || {
        Some(list(&api, "kind=custom.moved&after=0").await).filter(|page| page.items.len() == 3)
    })
    .await;
    let ids: Vec<_> = page.items.iter().map(|event| event.id).collect();
    assert_eq!(ids, [old[0].id, old[1].id, new.id]);
}

/// The next event of a stream, with its id; what is not an event is passed over.
async fn next(response: &mut reqwest::Response, buffer: &mut String) -> (String, Event) {
    let found = tokio::time::timeout(SOON, async {
        loop {
            if let Some((block, rest)) = buffer.split_once("\n\n") {
                let line = |name: &str| block.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
                let event = line("data:")
                    .zip(line("id:"))
                    .map(|(data, id)| (id.to_owned(), serde_json::from_str(data).expect("an event")));
                *buffer = rest.to_owned();
                if let Some(event) = event {
                    return event;
                }
                continue;
            }
            let part = response.chunk().await.expect("the stream holds").expect("the stream goes on");
            buffer.push_str(std::str::from_utf8(&part).expect("UTF-8"));
        }
    });
    found.await.expect("an event comes")
}

#[tokio::test]
async fn a_stream_goes_on_where_it_broke() {
    let stage = stage().await;
    let api = stage.world.api();
    let follow = async |last: Option<&str>| {
        let mut request = api.request(Method::GET, "/api/v1/events?follow=true&kind=custom.streamed");
        if let Some(last) = last {
            request = request.header("Last-Event-ID", last);
        }
        let response = request.send().await.expect("the controller answers");
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        response
    };
    let before = add(&api, "custom.streamed", "before").await;
    let (mut stream, mut buffer) = (follow(None).await, String::new());
    add(&api, "custom.streamed", "one").await;
    let (mut id, mut event) = next(&mut stream, &mut buffer).await;
    if event.id == before.id {
        // Something else was being written when that was.
        (id, event) = next(&mut stream, &mut buffer).await;
    }
    assert_eq!(event.object, "one");
    drop(stream);
    add(&api, "custom.streamed", "two").await;
    add(&api, "custom.streamed", "three").await;
    let (mut stream, mut buffer) = (follow(Some(&id)).await, String::new());
    let (_, event) = next(&mut stream, &mut buffer).await;
    assert_eq!(event.object, "two");
    let (id, event) = next(&mut stream, &mut buffer).await;
    assert_eq!(event.object, "three");
    let page = list(&api, &format!("kind=custom.streamed&after={id}")).await;
    assert!(page.items.is_empty(), "a stream's id is a position of pages, too: {page:?}");
    let problem = api.send(api.request(Method::GET, "/api/v1/events").header("Last-Event-ID", "x")).await;
    assert_eq!(problem.refused(400, "invalid").field.as_deref(), Some("Last-Event-ID"));
}

#[tokio::test]
async fn opsctl_lists_adds_and_follows() {
    let stage = stage().await;
    let world = &stage.world;
    let added = world
        .opsctl(&[
            "event",
            "create",
            "--kind",
            "custom.cli",
            "--object",
            "it",
            "--data",
            r#"{"n": 2}"#,
            "-o",
            "json",
        ])
        .await
        .ended(0)
        .json();
    let listed =
        world.opsctl(&["event", "list", "--kind", "custom.*", "--object", "it", "-o", "json"]).await.ended(0);
    assert_eq!(listed.json()[0]["id"], added["id"]);
    assert_eq!(listed.json()[0]["data"]["n"], 2);
    world.opsctl(&["event", "create", "--kind", "agent.gone"]).await.ended(2);
    let table = world.opsctl(&["event", "list", "--since", "1h"]).await.ended(0).text();
    assert!(table.starts_with("TIME") && table.contains("agent.connected"), "{table}");

    let mut follower = world
        .opsctl_command(&["event", "list", "--follow", "--kind", "custom.followed", "-o", "json"])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("it runs");
    let mut lines =
        tokio::io::AsyncBufReadExt::lines(tokio::io::BufReader::new(follower.stdout.take().expect("piped")));
    let line = eventually(SOON, "the follower is told", async || {
        add(&world.api(), "custom.followed", "x").await;
        let line = tokio::time::timeout(std::time::Duration::from_secs(2), lines.next_line()).await;
        line.ok()?.expect("UTF-8")
    })
    .await;
    let event: Event = serde_json::from_str(&line).expect("one event a line");
    assert_eq!(event.kind, "custom.followed");
    follower.kill().await.expect("it runs");
}
