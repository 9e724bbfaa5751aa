//! Documents and their versions.

use model::api::{
    Page,
    job::{Job, JobPlan, JobVersion},
};
use opsconductor_tests::World;
use serde_json::json;

use super::{agents, execute, save};

const ASK: &str = "name: ask\ndescription: Asks.\nlabels: {team: web}\ntargets: {all: true}\nsteps:\n  - {name: ask, run: uptime}\n";

#[tokio::test]
async fn every_change_is_a_version() {
    let world = World::start().await;
    let api = world.api();
    save(&api, ASK).await;
    api.post("/api/v1/jobs", &json!({ "document": ASK })).await.refused(409, "conflict");
    let same = api.put("/api/v1/jobs/ask", &json!({ "document": ASK })).await.accepted().value();
    assert_eq!((&same["change"], &same["version"]), (&json!("unchanged"), &json!(1)));
    let other = ASK.replace("uptime", "uptime -p");
    let dry =
        api.put("/api/v1/jobs/ask", &json!({ "document": other, "dry_run": true })).await.accepted().value();
    assert_eq!((&dry["change"], &dry["version"]), (&json!("updated"), &json!(2)));
    let body = json!({ "document": other, "comment": "pretty", "expected_version": 1 });
    let saved = api.put("/api/v1/jobs/ask", &body).await.accepted().value();
    assert_eq!((&saved["change"], &saved["version"]), (&json!("updated"), &json!(2)));

    // Somebody else who has seen version 1 is told what came since.
    let late = json!({ "document": ASK.replace("uptime", "w"), "expected_version": 1 });
    let problem = api.put("/api/v1/jobs/ask", &late).await.refused(409, "conflict");
    assert!(
        problem.detail.contains("version 2 by") && problem.detail.contains("pretty"),
        "{}",
        problem.detail
    );

    let job: Job = api.get("/api/v1/jobs/ask").await.accepted().json();
    assert_eq!((job.version, job.document.as_deref()), (2, Some(other.as_str())));
    assert_eq!(job.labels["team"], "web");
    let versions: Page<JobVersion> = api.get("/api/v1/jobs/ask/versions").await.accepted().json();
    assert_eq!(versions.items.iter().map(|version| version.version).collect::<Vec<_>>(), [2, 1]);
    let first: JobVersion = api.get("/api/v1/jobs/ask/versions/1").await.accepted().json();
    assert_eq!(first.document.as_deref(), Some(ASK));
    api.get("/api/v1/jobs/ask/versions/3").await.refused(404, "not_found");

    let page: Page<Job> = api.get("/api/v1/jobs?selector=team%3Dweb").await.accepted().json();
    assert_eq!(page.items.len(), 1);
    let page: Page<Job> = api.get("/api/v1/jobs?selector=team%3Ddb").await.accepted().json();
    assert!(page.items.is_empty());

    let audit = api.get(&format!("/api/v1/audit?object=job/{}", job.id)).await.accepted().value();
    let verbs: Vec<&str> =
        audit["items"].as_array().unwrap().iter().map(|e| e["entry"]["verb"].as_str().unwrap()).collect();
    assert_eq!(verbs, ["job.update", "job.create"]);

    api.delete("/api/v1/jobs/ask").await.accepted();
    api.get("/api/v1/jobs/ask").await.refused(404, "not_found");
    save(&api, ASK).await;
}

#[tokio::test]
async fn wrong_documents_are_refused_with_their_place() {
    let world = World::start().await;
    let api = world.api();
    for (document, words) in [
        ("name: a\nsteps:\n  - {name: one, rnu: x}\n", "line 3, column"),
        (
            "name: a\nsteps:\n  - {name: one, run: x, needs: [two]}\n  - {name: two, run: y, needs: [one]}\n",
            "circle",
        ),
        ("name: a\nsteps:\n  - {name: one, run: x}\n  - {name: one, run: y}\n", "line 4"),
        ("name: validate\nsteps: [{name: one, run: x}]\n", "no name of a job"),
        ("- a list\n", "line 1"),
        ("", ""),
    ] {
        let problem =
            api.post("/api/v1/jobs", &json!({ "document": document })).await.refused(400, "invalid_document");
        assert!(problem.detail.contains(words), "{document}: {}", problem.detail);
        let looked =
            api.post("/api/v1/jobs/validate", &json!({ "document": document })).await.accepted().value();
        assert_eq!(looked["valid"], json!(false));
        assert_eq!(looked["problems"].as_array().map(Vec::len), Some(1));
    }
    let steps: String = (0..10_000).map(|n| format!("  - {{name: s{n}, run: x}}\n")).collect();
    api.post("/api/v1/jobs", &json!({ "document": format!("name: a\nsteps:\n{steps}") }))
        .await
        .refused(400, "invalid_document");
    let none = api.get("/api/v1/jobs").await.accepted().value();
    assert_eq!(none["items"], json!([]), "nothing half saved");
    let schema = api.get("/api/v1/jobs/schema").await.accepted().value();
    assert!(schema["properties"]["steps"].is_object() && schema["$defs"]["Step"].is_object(), "{schema}");
}

#[tokio::test]
async fn a_start_is_bound_to_what_was_planned() {
    let world = World::start().await;
    let _agents = agents(&world, &["a", "b", "c"]).await;
    let api = world.api();
    let job = save(&api, &format!("{ASK}rollout: {{batches: [1, 100%]}}\n")).await;
    let plan = async |body| -> JobPlan { api.post("/api/v1/jobs/ask/plan", &body).await.accepted().json() };
    let whole = plan(json!({})).await;
    let batches: Vec<(&str, u16)> = whole.hosts.iter().map(|host| (host.name.as_str(), host.batch)).collect();
    assert_eq!(batches, [("a", 0), ("b", 1), ("c", 1)]);
    assert_eq!((whole.runs, whole.steps.len(), whole.version), (3, 1, 1));
    let some = plan(json!({ "targets": { "all": true, "exclude": "name=b", "limit": 1 } })).await;
    assert_eq!(some.hosts.iter().map(|host| host.name.as_str()).collect::<Vec<_>>(), ["a"]);

    let path = "/api/v1/jobs/ask/execute";
    api.post(path, &json!({ "targets": { "all": true, "max_targets": 2 } })).await.refused(400, "invalid");
    api.post(path, &json!({ "targets": { "selector": "env=none" } })).await.refused(422, "no_targets");
    api.post(path, &json!({ "targets": { "hosts": ["a", "z"] } })).await.refused(422, "no_targets");
    api.post(path, &json!({ "version": 7 })).await.refused(404, "not_found");
    let other = json!({ "targets": { "hosts": ["a"] }, "expect_targets": whole.targets_hash });
    api.post(path, &other).await.refused(409, "conflict");
    let execution = execute(&api, &job, json!({ "expect_targets": whole.targets_hash })).await;
    api.finished(execution.id).await;

    // With no hosts, where that is allowed, there is nothing to do, and that is done.
    let nobody = json!({ "targets": { "selector": "env=none", "allow_empty": true } });
    let execution = execute(&api, &job, nobody).await;
    assert_eq!(api.finished(execution.id).await.execution.runs.total, 0);
}

#[tokio::test]
async fn a_version_that_somebody_edits_is_not_run() {
    let world = World::start().await;
    let _agents = agents(&world, &["one"]).await;
    let api = world.api();
    save(&api, ASK).await;
    let mut database = world.sql().await;
    sqlx::query("update job_versions set document = replace(document, 'uptime', 'reboot')")
        .execute(&mut database)
        .await
        .expect("the document is edited");
    let problem = api.post("/api/v1/jobs/ask/execute", &json!({})).await.refused(409, "tampered");
    assert!(problem.detail.contains("is not what its author saved"), "{}", problem.detail);
}

#[tokio::test]
async fn rights_are_bound_to_jobs_by_label() {
    let world = World::start().await;
    let _prod = world.agent("prod").label("env", "prod").start().await;
    let _staging = world.agent("staging").label("env", "staging").start().await;
    let api = world.api();
    save(&api, ASK).await;
    save(&api, &ASK.replace("name: ask\n", "name: other\n").replace("team: web", "team: db")).await;
    let dora = world.person("dora", None).await;
    let binding = json!({ "role": "author", "user": "dora", "jobs": "team=web", "hosts": "env=staging" });
    api.post("/api/v1/role-bindings", &binding).await.accepted();
    let page: Page<Job> = dora.get("/api/v1/jobs").await.accepted().json();
    assert_eq!(page.items.iter().map(|job| job.name.as_str()).collect::<Vec<_>>(), ["ask"]);
    dora.get("/api/v1/jobs/other").await.refused(404, "not_found");
    dora.post("/api/v1/jobs/other/execute", &json!({})).await.refused(404, "not_found");
    let problem = dora.post("/api/v1/jobs/ask/execute", &json!({})).await.refused(403, "out_of_scope");
    assert!(problem.detail.contains("1 of the 2 hosts"), "{}", problem.detail);
    let execution = execute(&dora, "ask", json!({ "targets": { "selector": "env=staging" } })).await;
    api.finished(execution.id).await;
    // A command belongs to no job, and what a job does is not confined to hosts.
    let command =
        json!({ "targets": { "names": ["staging"] }, "command": { "program": { "argv": ["true"] } } });
    dora.post("/api/v1/executions", &command).await.refused(403, "forbidden");
    dora.put("/api/v1/jobs/ask", &json!({ "document": ASK.replace("uptime", "reboot") }))
        .await
        .refused(403, "forbidden");
}
