//! Labels that are changed after the enrollment: what selects by them, who may change them, and what is told of it.

use std::collections::BTreeMap;

use model::{execution::ExecutionState, limits};
use opsconductor_tests::{Api, Stage, World, door::Puppet, stage::Visit};
use serde_json::{Value, json};
use tokio::sync::OnceCell;

static STAGE: OnceCell<Stage> = OnceCell::const_new();

async fn stage() -> Visit {
    Stage::shared(&STAGE, &[("moving", &[("env", "lab"), ("canary", "yes")])]).await
}

/// A host with these labels that never connects; its id.
async fn host(world: &World, name: &str, labels: Value) -> String {
    let token = world.enroll_token(&json!({ "labels": labels })).await;
    let puppet = Puppet::enroll(world.door(), &token, name).await;
    model::id::AgentId::from_bytes(&puppet.credentials.agent_id).expect("an id").to_string()
}

fn path(agent: &str) -> String {
    format!("/api/v1/agents/{agent}/labels")
}

async fn shown(api: &Api, agent: &str) -> Value {
    api.get(&format!("/api/v1/agents/{agent}")).await.accepted().value()["labels"].take()
}

#[tokio::test]
async fn new_labels_are_shown_and_selected_by_and_told_of() {
    let stage = stage().await;
    let api = stage.world.api();
    let object = format!("agent/{}", stage.agents[0].id().await);
    let after = json!({ "env": "qa", "team": "movers" });
    let change = json!({ "set": { "env": "qa", "team": "movers" }, "remove": ["canary", "never-there"] });
    let changed = api.post(&path("moving"), &change).await.accepted().value();
    assert_eq!((&changed["name"], &changed["labels"]), (&json!("moving"), &after));
    assert_eq!(shown(&api, "moving").await, after);

    let command = json!({ "program": { "argv": ["true"] } });
    let started = api.start(json!({ "selector": "team=movers and env=qa" }), command.clone()).await;
    let finished = api.finished(started.id).await;
    assert_eq!(finished.execution.state, ExecutionState::Succeeded, "{finished:?}");
    assert_eq!(finished.run().target, "moving");
    let body = json!({ "targets": { "selector": "canary" }, "command": command });
    api.post("/api/v1/executions", &body).await.refused(422, "no_targets");

    // What changes nothing is not told.
    api.post(&path("moving"), &change).await.accepted();
    let audit = api.get(&format!("/api/v1/audit?verb=agent.label&object={object}")).await.accepted().value();
    let events =
        api.get(&format!("/api/v1/events?kind=agent.label&object={object}")).await.accepted().value();
    for (page, pointer) in [(&audit, "/entry/detail"), (&events, "/data")] {
        let items = page["items"].as_array().expect("a list");
        assert_eq!(items.len(), 1, "{page}");
        let told = items[0].pointer(pointer).expect("it is there");
        assert_eq!(told["name"], "moving", "{page}");
        assert_eq!(told["before"], json!({ "env": "lab", "canary": "yes" }), "{page}");
        assert_eq!(told["after"], after, "{page}");
    }
}

#[tokio::test]
async fn a_wrong_change_is_named_and_changes_nothing() {
    let stage = stage().await;
    let (world, api) = (&stage.world, stage.world.api());
    let before = json!({ "env": "lab", "team": "plain" });
    host(world, "plain", before.clone()).await;
    let many =
        |count: usize| -> BTreeMap<String, &str> { (0..count).map(|n| (format!("l{n}"), "")).collect() };
    let long = "x".repeat(limits::NAME_CHARS + 1);
    for (body, field, said) in [
        (json!({}), "set", "empty"),
        (json!({ "set": {}, "remove": [] }), "set", "empty"),
        (json!({ "set": { "a b": "x" } }), "set.a b", "label key"),
        (json!({ "set": { "os": "linux" } }), "set.os", "fact"),
        (json!({ "set": { "name": "x" } }), "set.name", "selector"),
        (json!({ "set": { "env": "a\u{7}" } }), "set.env", "control"),
        (json!({ "set": { "env": "a\0" } }), "set.env", "control"),
        (json!({ "set": { "env": long } }), "set.env", "NAME_CHARS"),
        (json!({ "set": { "env": 7 } }), "set.env", "integer"),
        (json!({ "set": { "env": "prod" }, "remove": ["team", "env"] }), "remove[1]", "set"),
        (json!({ "remove": ["a b"] }), "remove[0]", "label key"),
        (json!({ "remove": "env" }), "remove", "sequence"),
        (json!({ "set": many(limits::LABELS + 1) }), "set", "LABELS"),
        (json!({ "remove": vec!["env"; limits::LABELS + 1] }), "remove", "LABELS"),
        // With those that it has.
        (json!({ "set": many(limits::LABELS - 1) }), "set", "LABELS"),
        (json!({ "labels": { "env": "prod" } }), "labels", "unknown"),
    ] {
        let problem = api.post(&path("plain"), &body).await.refused(400, "invalid");
        assert_eq!(problem.field.as_deref(), Some(field), "{problem:?}");
        assert!(problem.detail.contains(said), "{said}: {problem:?}");
    }
    assert_eq!(shown(&api, "plain").await, before);
    let full = json!({ "set": many(limits::LABELS - 1), "remove": ["team"] });
    api.post(&path("plain"), &full).await.accepted();
    assert_eq!(shown(&api, "plain").await.as_object().map(serde_json::Map::len), Some(limits::LABELS));
}

#[tokio::test]
async fn nobody_moves_a_host_across_his_scope() {
    let stage = stage().await;
    let world = &stage.world;
    host(world, "scoped-staging", json!({ "env": "staging" })).await;
    host(world, "scoped-prod", json!({ "env": "prod" })).await;
    let admin = world.administrator().await;
    let role = json!({ "permissions": ["agent.read", "agent.manage"] });
    admin.put("/api/v1/roles/labeller", &role).await.accepted();
    // One sees the hosts of the scope alone, the other sees all.
    for (name, viewer) in [("narrow", false), ("seeing", true)] {
        world.person(name, viewer.then_some("viewer")).await;
        let binding = json!({ "role": "labeller", "user": name, "hosts": "env=staging" });
        admin.post("/api/v1/role-bindings", &binding).await.accepted();
    }
    let enter = async |name: &str| {
        world.session(&world.log_in(name, &opsconductor_tests::people::password_of(name), None).await)
    };
    let (narrow, seeing) = (enter("narrow").await, enter("seeing").await);

    let into = json!({ "set": { "env": "staging" } });
    narrow.post(&path("scoped-prod"), &into).await.refused(404, "not_found");
    seeing.post(&path("scoped-prod"), &into).await.refused(403, "out_of_scope");
    seeing.post(&path("scoped-prod"), &json!({ "set": { "rack": "7" } })).await.refused(403, "out_of_scope");
    for away in [
        json!({ "set": { "env": "prod" } }),
        json!({ "remove": ["env"] }),
        json!({ "set": { "env": "prod", "rack": "7" } }),
    ] {
        narrow.post(&path("scoped-staging"), &away).await.refused(403, "out_of_scope");
    }
    assert_eq!(shown(&admin, "scoped-prod").await, json!({ "env": "prod" }));
    assert_eq!(shown(&admin, "scoped-staging").await, json!({ "env": "staging" }));

    let within = json!({ "set": { "rack": "7", "env": "staging" } });
    narrow.post(&path("scoped-staging"), &within).await.accepted();
    assert_eq!(shown(&admin, "scoped-staging").await, json!({ "env": "staging", "rack": "7" }));
    // Whoever has the right for all hosts moves it, and from then on the others have none there.
    admin.post(&path("scoped-staging"), &json!({ "set": { "env": "prod" } })).await.accepted();
    narrow.post(&path("scoped-staging"), &within).await.refused(404, "not_found");
    seeing.post(&path("scoped-staging"), &within).await.refused(403, "out_of_scope");
}

#[tokio::test]
async fn a_revoked_agent_keeps_its_labels() {
    let stage = stage().await;
    let (world, api) = (&stage.world, stage.world.api());
    let id = host(world, "gone", json!({ "env": "lab" })).await;
    api.act(&format!("/api/v1/agents/{id}/revoke")).await.accepted();
    let change = json!({ "set": { "env": "prod" } });
    let problem = api.post(&path(&id), &change).await.refused(409, "conflict");
    assert!(problem.detail.contains("'gone' is revoked"), "{problem:?}");
    api.post(&path("gone"), &change).await.refused(404, "not_found");
    assert_eq!(shown(&api, &id).await, json!({ "env": "lab" }));
}

#[tokio::test]
async fn opsctl_labels() {
    let stage = stage().await;
    let world = &stage.world;
    host(world, "typed", json!({ "env": "lab", "old": "yes" })).await;
    let said = world
        .opsctl(&["agent", "label", "typed", "env=qa", "role=db=1", "old-", "-o", "json"])
        .await
        .ended(0);
    assert_eq!(said.json()["labels"], json!({ "env": "qa", "role": "db=1" }), "{said}");
    let said = world.opsctl(&["agent", "label", "typed", "role-", "tier=gold"]).await.ended(0);
    assert!(said.text().contains("Name") && said.text().contains("gold"), "{said}");
    assert_eq!(shown(&world.api(), "typed").await, json!({ "env": "qa", "tier": "gold" }));
    for (wrong, code) in [
        (&["agent", "label", "typed"][..], 2),
        (&["agent", "label", "typed", "env"], 2),
        (&["agent", "label", "typed", "os=linux"], 2),
        (&["agent", "label", "typed", "env=prod", "env-"], 2),
        (&["agent", "label", "nowhere", "env=prod"], 5),
    ] {
        world.opsctl(wrong).await.ended(code);
    }
    assert_eq!(shown(&world.api(), "typed").await, json!({ "env": "qa", "tier": "gold" }));
}
