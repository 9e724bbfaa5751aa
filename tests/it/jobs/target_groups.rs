//! Target groups: hosts that jobs and commands name together.

use model::api::{
    Page,
    job::JobPlan,
    target_group::{Members, TargetGroup},
};
use opsconductor_tests::{Api, World};
use serde_json::{Value, json};

use super::{agents, execute, save, types};

const JOB: &str = "name: ask\ntargets: {group: pair}\nsteps:\n  - {name: ask, run: uptime}\n";

async fn made(api: &Api, name: &str, members: Value) -> TargetGroup {
    let body = json!({ "name": name, "members": members });
    api.post("/api/v1/target-groups", &body).await.accepted().json()
}

async fn shown(api: &Api, name: &str) -> TargetGroup {
    api.get(&format!("/api/v1/target-groups/{name}")).await.accepted().json()
}

async fn planned(api: &Api, body: Value) -> Vec<String> {
    let plan: JobPlan = api.post("/api/v1/jobs/ask/plan", &body).await.accepted().json();
    plan.hosts.into_iter().map(|host| host.name).collect()
}

#[tokio::test]
async fn a_job_runs_on_the_hosts_of_its_group() {
    let world = World::start().await;
    let _agents = agents(&world, &["one", "two", "three"]).await;
    let api = world.api();
    let refused = json!({ "name": "pair", "members": { "hosts": ["one", "four"] } });
    let problem = api.post("/api/v1/target-groups", &refused).await.refused(400, "invalid");
    assert_eq!(problem.field.as_deref(), Some("members.hosts"));
    assert!(problem.detail.contains("'four'"), "{}", problem.detail);
    let group = made(&api, "pair", json!({ "hosts": ["two", "one", "two"] })).await;
    assert_eq!((group.hosts, group.size, group.version), (vec!["one".to_owned(), "two".to_owned()], 2, 1));
    let again = json!({ "name": "pair", "members": { "selector": "name=one" } });
    api.post("/api/v1/target-groups", &again).await.refused(409, "conflict");
    let page: Page<TargetGroup> = api.get("/api/v1/target-groups").await.accepted().json();
    assert!(matches!(page.items.as_slice(), [one] if one.size == 2 && one.hosts.is_empty()), "{page:?}");

    let job = save(&api, JOB).await;
    assert_eq!(planned(&api, json!({})).await, ["one", "two"]);
    assert_eq!(
        planned(&api, json!({ "targets": { "group": "pair", "exclude": "name=one" } })).await,
        ["two"]
    );
    let execution = execute(&api, &job, json!({})).await;
    let mut ran: Vec<String> =
        api.finished(execution.id).await.runs.into_iter().map(|run| run.target).collect();
    ran.sort();
    assert_eq!(ran, ["one", "two"]);
    let command = json!({ "argv": ["true"] });
    let execution = api.start(json!({ "group": "pair" }), json!({ "program": command })).await;
    assert_eq!(api.finished(execution.id).await.runs.len(), 2);

    let late = json!({ "members": { "hosts": ["three"] }, "expected_version": 7 });
    let path = "/api/v1/target-groups/pair";
    assert!(api.put(path, &late).await.refused(409, "conflict").detail.contains("version 1 by"));
    let change = json!({ "description": "One.", "members": { "hosts": ["three"] }, "expected_version": 1 });
    let group: TargetGroup = api.put(path, &change).await.accepted().json();
    assert_eq!((group.version, group.description.as_str()), (2, "One."));
    assert_eq!(planned(&api, json!({})).await, ["three"]);

    // What is deleted is missed at the next start.
    api.delete(path).await.accepted();
    for request in [json!({}), json!({ "targets": { "group": "pair", "allow_empty": true } })] {
        let problem = api.post("/api/v1/jobs/ask/execute", &request).await.refused(404, "not_found");
        assert!(problem.detail.contains("target group 'pair'"), "{}", problem.detail);
    }
    let audit = api.get(&format!("/api/v1/audit?object=target-group/{}", group.id)).await.accepted().value();
    let verbs: Vec<&str> =
        audit["items"].as_array().unwrap().iter().map(|e| e["entry"]["verb"].as_str().unwrap()).collect();
    assert_eq!(verbs, ["target_group.delete", "target_group.update", "target_group.create"]);
    assert_eq!(audit["items"][1]["entry"]["detail"]["before"]["hosts"], json!(["one", "two"]));
}

#[tokio::test]
async fn a_member_that_is_gone_is_told() {
    let world = World::start().await;
    let _agents = agents(&world, &["one", "two"]).await;
    let api = world.api();
    made(&api, "pair", json!({ "hosts": ["one", "two"] })).await;
    save(&api, JOB).await;
    api.act("/api/v1/agents/two/revoke").await.accepted();
    assert_eq!(shown(&api, "pair").await.missing, ["two"]);
    for request in [
        json!({}),
        json!({ "targets": { "group": "pair", "exclude": "name=two" } }),
        json!({ "targets": { "group": "pair", "allow_empty": true } }),
    ] {
        let problem = api.post("/api/v1/jobs/ask/execute", &request).await.refused(409, "conflict");
        assert!(problem.detail.contains("'pair' names the host 'two'"), "{}", problem.detail);
    }
    let change = json!({ "members": { "hosts": ["one"] } });
    api.put("/api/v1/target-groups/pair", &change).await.accepted();
    assert_eq!(planned(&api, json!({})).await, ["one"]);
}

#[tokio::test]
async fn a_selector_is_asked_at_each_start() {
    let world = World::start().await;
    let _one = world.agent("one").label("role", "web").start().await;
    let api = world.api();
    made(&api, "pair", json!({ "selector": "role=web" })).await;
    save(&api, JOB).await;
    assert_eq!(planned(&api, json!({})).await, ["one"]);
    let _two = world.agent("two").label("role", "web").start().await;
    assert_eq!(planned(&api, json!({})).await, ["one", "two"]);
    let nobody = json!({ "members": { "selector": "role=db" } });
    api.put("/api/v1/target-groups/pair", &nobody).await.accepted();
    let problem = api.post("/api/v1/jobs/ask/execute", &json!({})).await.refused(422, "no_targets");
    assert!(problem.detail.contains("the target group 'pair'"), "{}", problem.detail);
    assert!(planned(&api, json!({ "targets": { "group": "pair", "allow_empty": true } })).await.is_empty());
    for members in [json!({}), json!({ "selector": "role=" }), json!({ "selector": "a", "hosts": ["one"] })] {
        let body = json!({ "members": members });
        api.put("/api/v1/target-groups/pair", &body).await.refused(400, "invalid");
    }
}

#[tokio::test]
async fn a_group_gives_no_right_and_shows_no_host() {
    let world = World::start().await;
    let _prod = world.agent("prod").label("env", "prod").start().await;
    let _staging = world.agent("staging").label("env", "staging").start().await;
    let api = world.api();
    made(&api, "pair", json!({ "hosts": ["prod", "staging"] })).await;
    save(&api, JOB).await;
    let dora = world.person("dora", None).await;
    let binding = json!({ "role": "operator", "user": "dora", "hosts": "env=staging" });
    api.post("/api/v1/role-bindings", &binding).await.accepted();
    let seen = shown(&dora, "pair").await;
    assert_eq!((seen.hosts, seen.hidden, seen.size), (vec!["staging".to_owned()], 1, 2));
    let problem = dora.post("/api/v1/jobs/ask/execute", &json!({})).await.refused(403, "out_of_scope");
    assert!(problem.detail.contains("1 of the 2 hosts"), "{}", problem.detail);
    api.act("/api/v1/agents/prod/revoke").await.accepted();
    let problem = dora.post("/api/v1/jobs/ask/execute", &json!({})).await.refused(409, "conflict");
    assert!(!problem.detail.contains("'prod'"), "{}", problem.detail);

    // Groups are for all jobs: who manages some may not change where the others run.
    let binding = json!({ "role": "author", "user": "dora", "jobs": "team=web" });
    api.post("/api/v1/role-bindings", &binding).await.accepted();
    let members = Members { hosts: vec!["staging".to_owned()], selector: None };
    let change = json!({ "members": members });
    dora.put("/api/v1/target-groups/pair", &change).await.refused(403, "forbidden");
    dora.delete("/api/v1/target-groups/pair").await.refused(403, "forbidden");

    // Who may, but does not see all of a group, takes nothing out of it unknowingly.
    api.put("/api/v1/roles/manager", &json!({ "permissions": ["job.read", "job.manage"] })).await.accepted();
    let binding = json!({ "role": "manager", "user": "dora" });
    api.post("/api/v1/role-bindings", &binding).await.accepted();
    let problem = dora.put("/api/v1/target-groups/pair", &change).await.refused(403, "forbidden");
    assert!(problem.detail.contains("may not see"), "{}", problem.detail);
    let more = json!({ "name": "own", "members": { "hosts": ["prod"] } });
    dora.post("/api/v1/target-groups", &more).await.refused(400, "invalid");
    made(&dora, "own", json!({ "hosts": ["staging"] })).await;
}

#[tokio::test]
async fn groups_from_the_shell() {
    let world = World::start().await;
    let _agents = agents(&world, &["one", "two", "three"]).await;
    save(&world.api(), &JOB.replace("{group: pair}", "{all: true}")).await;
    let said = types(&world, "target-group create pair -t one,two --description Both.").await.ended(0);
    assert_eq!(said.text(), "the target group pair is 2 hosts\n");
    let said = types(&world, "run ask --target-group pair").await.ended(0);
    assert!(said.text().contains("two/ask"), "{}", said.text());
    types(&world, "target-group update pair --add three --remove one").await.ended(0);
    let group = types(&world, "target-group show pair -o json").await.ended(0).json();
    assert_eq!((&group["hosts"], &group["description"]), (&json!(["three", "two"]), &json!("Both.")));
    let plan = types(&world, "job plan ask --target-group pair --limit 1 -o json").await.ended(0).json();
    assert_eq!(plan["hosts"].as_array().map(Vec::len), Some(1));
    assert!(types(&world, "target-group list").await.ended(0).text().contains("2 hosts"));
    types(&world, "target-group update pair --remove one").await.ended(2);
    types(&world, "target-group delete pair").await.ended(0);
    types(&world, "exec --target-group pair -- uptime").await.ended(5);
}
