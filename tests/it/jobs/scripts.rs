//! Scripts that are kept by name, and the jobs that use them.

use model::{
    api::{
        Page,
        job::JobPlan,
        output::Stream,
        script::{CheckState, SavedScript, ScriptSaved, ScriptValidity, ScriptVersion},
    },
    execution::ExecutionState,
};
use opsconductor_tests::{Api, SOON, World, eventually};
use serde_json::{Value, json};

use super::{agents, execute, save, types};

fn script(content: &str) -> Value {
    json!({ "name": "greet", "labels": { "team": "web" }, "content": content })
}

async fn saved(api: &Api, content: &str) -> ScriptSaved {
    api.put("/api/v1/scripts/greet", &json!({ "script": script(content) })).await.accepted().json()
}

const FIRST: &str = "#!/bin/sh\necho \"first $1 $OPSC_PARAM_WHO\"\n";
const SECOND: &str = "#!/bin/sh\necho \"second $1 $OPSC_PARAM_WHO\"\n";

fn job(name: &str, used: &str) -> String {
    format!(
        "name: {name}\nparameters: {{who: {{type: string, default: ada}}}}\ntargets: {{all: true}}\nsteps:\n\
         \x20 - {{name: greet, script: {{use: {used}, args: [hello]}}}}\n"
    )
}

async fn said(api: &Api, job: &str) -> String {
    let execution = execute(api, job, json!({})).await;
    let finished = api.whole(execution.id).await;
    assert_eq!(finished.execution.state, ExecutionState::Succeeded);
    api.stdout(&finished).await
}

#[tokio::test]
async fn every_change_is_a_version() {
    let world = World::start().await;
    let api = world.api();
    let body = json!({ "script": script(FIRST), "comment": "first" });
    let created: ScriptSaved = api.post("/api/v1/scripts", &body).await.accepted().json();
    api.post("/api/v1/scripts", &body).await.refused(409, "conflict");
    assert_eq!(saved(&api, FIRST).await.version, 1, "nothing changed");
    let dry = json!({ "script": script(SECOND), "dry_run": true });
    let dry: ScriptSaved = api.put("/api/v1/scripts/greet", &dry).await.accepted().json();
    assert_eq!(dry.version, 2);
    let body = json!({ "script": script(SECOND), "comment": "louder", "expected_version": 1 });
    api.put("/api/v1/scripts/greet", &body).await.accepted();
    let late = json!({ "script": script("#!/bin/sh\n"), "expected_version": 1 });
    let problem = api.put("/api/v1/scripts/greet", &late).await.refused(409, "conflict");
    assert!(
        problem.detail.contains("version 2 by") && problem.detail.contains("louder"),
        "{}",
        problem.detail
    );

    let shown: SavedScript = api.get("/api/v1/scripts/greet").await.accepted().json();
    assert_eq!((shown.version, shown.script.map(|script| script.content).as_deref()), (2, Some(SECOND)));
    let versions: Page<ScriptVersion> = api.get("/api/v1/scripts/greet/versions").await.accepted().json();
    let comments: Vec<_> = versions.items.iter().map(|version| version.comment.as_deref()).collect();
    assert_eq!(comments, [Some("louder"), Some("first")]);
    let first: ScriptVersion = api.get("/api/v1/scripts/greet/versions/1").await.accepted().json();
    assert_eq!(first.script.map(|script| script.content).as_deref(), Some(FIRST));
    assert_eq!(first.sha256, versions.items[1].sha256);
    api.get("/api/v1/scripts/greet/versions/9").await.refused(404, "not_found");
    let none: Page<SavedScript> = api.get("/api/v1/scripts?selector=team%3Ddb").await.accepted().json();
    assert!(none.items.is_empty());
    for (content, field) in [("echo", "script.interpreter"), (" ", "script.content")] {
        let problem = api
            .put("/api/v1/scripts/greet", &json!({ "script": script(content) }))
            .await
            .refused(400, "invalid");
        assert_eq!(problem.field.as_deref(), Some(field));
    }
    let wiped = saved(&api, "#!/bin/sh\nrm -rf /\n").await;
    assert!(wiped.dangers.iter().any(|danger| danger.step == "greet"), "{wiped:?}");

    // Who takes the name of what was deleted goes on with its numbers.
    api.delete("/api/v1/scripts/greet").await.accepted();
    api.get("/api/v1/scripts/greet").await.refused(404, "not_found");
    assert_eq!(saved(&api, FIRST).await.version, 4);
    let path = format!("/api/v1/audit?object=script/{}", created.id.expect("an id"));
    let audit = api.get(&path).await.accepted().value();
    let verbs: Vec<&str> =
        audit["items"].as_array().unwrap().iter().map(|e| e["entry"]["verb"].as_str().unwrap()).collect();
    assert_eq!(verbs, ["script.delete", "script.update", "script.update", "script.create"]);
}

#[tokio::test]
async fn a_job_runs_the_version_that_it_names() {
    let world = World::start().await;
    let _agents = agents(&world, &["one"]).await;
    let api = world.api();
    let missing = json!({ "document": job("pinned", "greet@1") });
    let problem = api.post("/api/v1/jobs", &missing).await.refused(400, "invalid_document");
    assert!(
        problem.detail.contains("there is no such script") && problem.detail.contains("line 5"),
        "{}",
        problem.detail
    );
    let looked = api.post("/api/v1/jobs/validate", &missing).await.accepted().value();
    assert_eq!((&looked["valid"], &looked["problems"][0]["line"]), (&json!(false), &json!(5)));

    saved(&api, FIRST).await;
    let pinned = save(&api, &job("pinned", "greet@1")).await;
    let newest = save(&api, &job("newest", "greet")).await;
    let late = json!({ "document": job("late", "greet@2") });
    api.post("/api/v1/jobs", &late).await.refused(400, "invalid_document");
    assert_eq!(said(&api, &newest).await, "first hello ada\n");
    saved(&api, SECOND).await;
    assert_eq!(said(&api, &pinned).await, "first hello ada\n");
    assert_eq!(said(&api, &newest).await, "second hello ada\n");
    let plan: JobPlan = api.post("/api/v1/jobs/newest/plan", &json!({})).await.accepted().json();
    assert_eq!(plan.steps[0].summary, "script: greet@2");
    saved(&api, "#!/bin/sh\nrm -rf /\n").await;
    let plan: JobPlan = api.post("/api/v1/jobs/newest/plan", &json!({})).await.accepted().json();
    assert!(plan.dangers.iter().any(|danger| danger.step == "greet"), "{:?}", plan.dangers);

    // What is deleted is missed at the next start, and no other script takes its place under its number.
    api.delete("/api/v1/scripts/greet").await.accepted();
    for again in [false, true] {
        if again {
            saved(&api, SECOND).await;
        }
        let problem = api.post("/api/v1/jobs/pinned/execute", &json!({})).await.refused(404, "not_found");
        assert!(problem.detail.contains("script 'greet@1'"), "{}", problem.detail);
    }
    assert_eq!(said(&api, &newest).await, "second hello ada\n");
}

#[tokio::test]
async fn what_was_started_is_what_was_looked_up() {
    let world = World::start().await;
    let _agents = agents(&world, &["one"]).await;
    let api = world.api();
    saved(&api, FIRST).await;
    let document = job("frozen", "greet").replace("steps:\n", "steps:\n  - {name: rest, wait: 2s}\n");
    let execution = execute(&api, &save(&api, &document).await, json!({})).await;
    saved(&api, SECOND).await;
    assert_eq!(api.finished(execution.id).await.execution.state, ExecutionState::Succeeded);
    eventually(SOON, "the first version has written", async || {
        let written = api.output(execution.id, "one", Stream::Stdout).await;
        (written == b"first hello ada\n").then_some(())
    })
    .await;
    let audit = api.get(&format!("/api/v1/audit?object=execution/{}", execution.id)).await.accepted().value();
    assert_eq!(audit["items"][0]["entry"]["detail"]["scripts"], json!(["greet@1"]));
}

#[tokio::test]
async fn a_version_that_somebody_edits_is_not_run() {
    let world = World::start().await;
    let _agents = agents(&world, &["one"]).await;
    let api = world.api();
    saved(&api, FIRST).await;
    saved(&api, SECOND).await;
    save(&api, &job("newest", "greet")).await;
    let mut database = world.sql().await;
    let mut edit = async |statement: &'static str| {
        sqlx::query(statement).execute(&mut database).await.expect("the owner may");
    };
    edit("update scripts set version = 1").await;
    let problem = api.post("/api/v1/jobs/newest/execute", &json!({})).await.refused(409, "tampered");
    assert!(problem.detail.contains("not its newest"), "{}", problem.detail);
    edit("update scripts set version = 2").await;
    edit("update script_versions set document = replace(document, 'second', 'evil')").await;
    let problem = api.post("/api/v1/jobs/newest/execute", &json!({})).await.refused(409, "tampered");
    assert!(problem.detail.contains("is not what its author saved"), "{}", problem.detail);
}

#[tokio::test]
async fn rights_are_bound_to_scripts_by_label() {
    let world = World::start().await;
    let api = world.api();
    saved(&api, FIRST).await;
    let other = json!({ "script": { "name": "other", "labels": { "team": "db" }, "content": FIRST } });
    api.post("/api/v1/scripts", &other).await.accepted();
    let dora = world.person("dora", None).await;
    let binding = json!({ "role": "author", "user": "dora", "jobs": "team=web" });
    api.post("/api/v1/role-bindings", &binding).await.accepted();
    let page: Page<SavedScript> = dora.get("/api/v1/scripts").await.accepted().json();
    assert_eq!(page.items.iter().map(|script| script.name.as_str()).collect::<Vec<_>>(), ["greet"]);
    dora.get("/api/v1/scripts/other").await.refused(404, "not_found");
    dora.put("/api/v1/scripts/other", &other).await.refused(403, "forbidden");
    let document = |used: &str| job("hers", used).replace("targets", "labels: {team: web}\ntargets");
    let body = json!({ "document": document("other") });
    let problem = dora.post("/api/v1/jobs", &body).await.refused(400, "invalid_document");
    assert!(problem.detail.contains("there is no such script"), "{}", problem.detail);
    save(&dora, &document("greet")).await;
}

#[tokio::test]
async fn a_script_is_checked_without_being_run() {
    let world = World::start().await;
    let api = world.api();
    let mark = world.folder().join("ran");
    let look = async |content: String| -> ScriptValidity {
        let body = json!({ "content": content });
        api.post("/api/v1/scripts/validate", &body).await.accepted().json()
    };
    let state = |validity: &ScriptValidity, by: &str| {
        let check = validity.checks.iter().find(|check| check.by == by);
        check.map_or_else(|| panic!("no {by} in {validity:?}"), |check| check.state)
    };
    let good = look(format!("#!/bin/sh\ntouch {}\n", mark.display())).await;
    assert!(good.valid && state(&good, "sh -n") == CheckState::Passed, "{good:?}");
    let bad = look("#!/bin/sh\nif true; then\n".to_owned()).await;
    assert!(!bad.valid && state(&bad, "sh -n") == CheckState::Failed, "{bad:?}");
    let windows = look("#!/bin/sh\r\ntrue\r\n".to_owned()).await;
    assert!(!windows.valid && state(&windows, "first line") == CheckState::Failed, "{windows:?}");
    let unknown = look("#!/usr/bin/perl\nprint 1;\n".to_owned()).await;
    assert!(unknown.valid && state(&unknown, "syntax") == CheckState::NotChecked, "{unknown:?}");
    let wipes = look("#!/bin/sh\nrm -rf /\n".to_owned()).await;
    assert!(wipes.valid && !wipes.dangers.is_empty(), "{wipes:?}");
    assert!(!mark.exists(), "nothing ran");
    saved(&api, FIRST).await;
    let validity: ScriptValidity = api.get("/api/v1/scripts/greet/validate").await.accepted().json();
    assert!(validity.valid, "{validity:?}");
}

#[tokio::test]
async fn scripts_from_the_shell() {
    let world = World::start().await;
    let _agents = agents(&world, &["one"]).await;
    let file = |name: &str, text: &str| {
        let path = world.folder().join(name);
        std::fs::write(&path, text).expect("the world's folder can be written");
        path.to_str().expect("our paths are UTF-8").to_owned()
    };
    let (first, second) = (file("first.sh", FIRST), file("second.sh", SECOND));
    let expects =
        file("parameters.yaml", "who: {type: string, required: true, description: Whom it greets.}\n");
    let line =
        format!("script create greet -f {first} --label team=web --parameters {expects} --comment first");
    assert_eq!(types(&world, &line).await.ended(0).text(), "the script greet is created in version 1\n");
    types(&world, &line).await.ended(2);
    let said = types(&world, &format!("script update greet -f {second}")).await.ended(0);
    assert_eq!(said.text(), "the script greet is updated in version 2\n");
    let shown = types(&world, "script show greet").await.ended(0).text();
    assert!(
        shown.contains("OPSC_PARAM_WHO") && shown.contains("Whom it greets.") && shown.contains(SECOND),
        "{shown}"
    );
    let diff = types(&world, "script diff greet").await.ended(0).text();
    assert!(diff.contains("-echo \"first") && diff.contains("+echo \"second"), "{diff}");
    let diff = types(&world, &format!("script diff greet -f {first}")).await.ended(0).text();
    assert!(diff.contains("+echo \"first"), "{diff}");
    let history = types(&world, "script history greet -o json").await.ended(0).json();
    assert_eq!((history[1]["comment"].as_str(), history.as_array().map(Vec::len)), (Some("first"), Some(2)));
    let old = types(&world, "script show greet --version 1").await.ended(0).text();
    assert!(old.ends_with(FIRST), "{old}");
    let checks = types(&world, "script validate greet").await.ended(0).text();
    assert!(checks.contains("sh -n"), "{checks}");
    let broken = file("broken.sh", "#!/bin/sh\nfi\n");
    types(&world, &format!("script validate -f {broken}")).await.ended(2);
    assert!(types(&world, "script list -l team=web").await.ended(0).text().contains("greet"));

    let document = file("job.yaml", &job("greets", "greet@1"));
    types(&world, &format!("job apply -f {document}")).await.ended(0);
    let said = types(&world, "run greets -p who=bob").await.ended(0).text();
    assert!(said.contains("first hello bob"), "{said}");
    types(&world, "script delete greet").await.ended(0);
    types(&world, "run greets").await.ended(5);
}
