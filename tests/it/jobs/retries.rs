//! What ended is tried again: on the hosts that are meant, from the step that is meant, and never around an approval.

use model::{api::execution::Execution, execution::ExecutionState};
use opsconductor_tests::{Api, World};
use serde_json::{Value, json};

use super::{agents, execute, results, run, save, states};

async fn retry(api: &Api, before: &Execution, request: Value) -> Execution {
    api.post(&format!("/api/v1/executions/{}/retry", before.id), &request).await.accepted().json()
}

#[tokio::test]
async fn only_the_hosts_where_it_failed() {
    let world = World::start().await;
    let _agents = agents(&world, &["one", "three", "two"]).await;
    let api = world.api();
    let mended = world.folder().join("mended");
    // The second batch fails, and the third never has its turn.
    let document = format!(
        "name: mend\ntargets: {{all: true}}\nparameters: {{why: {{type: string, default: x}}}}\n\
         rollout: {{batches: [1, 2, 3], max_failures: 0}}\nsteps:\n  - name: a\n    template: true\n    \
         run: test {{{{ host.name }}}} = one || test -e {}\n  - {{name: b, run: 'true'}}\n",
        mended.display()
    );
    save(&api, &document).await;
    let first = execute(&api, "mend", json!({ "parameters": { "why": "given" } })).await;
    assert_eq!(api.finished(first.id).await.execution.state, ExecutionState::PartiallySucceeded);
    assert_eq!(
        states(&results(&api, &first).await),
        ["one: succeeded succeeded", "three: failed skipped", "two: skipped skipped"]
    );
    std::fs::write(&mended, "").expect("written");
    // The job has another version since: what is tried again is what was started.
    save_version(&api, "mend", &document.replace("name: b", "name: c")).await;
    let second = retry(&api, &first, json!({})).await;
    assert_eq!(second.retry_of, Some(first.id));
    let finished = api.finished(second.id).await.execution;
    assert_eq!(finished.state, ExecutionState::Succeeded);
    assert_eq!(
        finished.job.as_ref().map(|job| (job.version, &job.parameters["why"])),
        Some((1, &json!("given")))
    );
    assert_eq!(states(&results(&api, &second).await), ["three: succeeded succeeded"]);
    let plan = api.post("/api/v1/jobs/mend/plan", &json!({ "targets": { "hosts": ["two", "three"] } })).await;
    let since = &plan.accepted().value()["since"];
    assert_eq!((&since["execution_id"], &since["version"]), (&json!(second.id), &json!(1)));
    assert_eq!((&since["more_hosts"], &since["fewer_hosts"]), (&json!(["two"]), &Value::Null));
    assert_eq!(since["parameters"], json!(["why"]), "{since}");
    let third = retry(&api, &first, json!({ "hosts": "unfinished" })).await;
    api.finished(third.id).await;
    assert_eq!(
        states(&results(&api, &third).await),
        ["three: succeeded succeeded", "two: succeeded succeeded"]
    );
    let path = format!("/api/v1/executions/{}/retry", second.id);
    api.post(&path, &json!({})).await.refused(422, "no_targets");
    api.post(&path, &json!({ "from": "nothing" })).await.refused(400, "invalid");
    api.post(&path, &json!({ "only": true })).await.refused(400, "invalid");
}

async fn save_version(api: &Api, job: &str, document: &str) {
    api.put(&format!("/api/v1/jobs/{job}"), &json!({ "document": document })).await.accepted();
}

#[tokio::test]
async fn from_a_step_on_and_never_around_an_approval() {
    let world = World::start().await;
    let _agents = agents(&world, &["one"]).await;
    let api = world.api();
    let execution = run(
        &api,
        "name: graph\ntargets: {all: true}\nsteps:\n  - {name: a, run: 'true'}\n  - {name: b, run: 'false'}\n  \
         - {name: c, run: 'true'}\n",
    )
    .await;
    api.finished(execution.id).await;
    let id = execution.id.to_string();
    world.opsctl(&["execution", "retry", &id, "--from", "c", "--only"]).await.ended(0);
    let newest = api.get("/api/v1/executions?limit=1").await.accepted().value();
    assert_eq!(
        (&newest["items"][0]["retry_of"], &newest["items"][0]["runs"]["total"]),
        (&json!(id), &json!(1))
    );
    let later = retry(&api, &execution, json!({ "from": "b" })).await;
    api.finished(later.id).await;
    assert_eq!(states(&results(&api, &later).await), ["one: failed skipped"]);

    let document = "name: gate\ntargets: {all: true}\nsteps:\n  - {name: ok, approval: {expires: 1s}}\n  \
                    - {name: b, run: 'true'}\n";
    let execution = run(&api, document).await;
    api.finished(execution.id).await;
    let again = retry(&api, &execution, json!({ "from": "b", "hosts": "all" })).await;
    let finished = api.finished(again.id).await;
    assert_eq!(finished.execution.state, ExecutionState::TimedOut, "it was asked for again");
    assert_eq!(states(&results(&api, &again).await), ["one: - skipped"]);
}

#[tokio::test]
async fn a_command_of_its_own() {
    let world = World::start().await;
    let _agents = agents(&world, &["one", "two"]).await;
    let api = world.api();
    let body = json!({
        "targets": { "all": true },
        "command": { "program": { "shell": "test \"$SECRET\" = right && exit 3" }, "env": { "SECRET": "right" } },
    });
    let first: Execution = api.post("/api/v1/executions", &body).await.accepted().json();
    api.finished(first.id).await;
    let second = retry(&api, &first, json!({})).await;
    let finished = api.finished(second.id).await;
    assert_eq!((finished.execution.retry_of, finished.runs.len()), (Some(first.id), 2));
    assert!(finished.runs.iter().all(|run| run.exit_code == Some(3)), "its environment is that of the first");
    let audit = api.get("/api/v1/audit?verb=execution.create").await.accepted().value();
    assert!(audit.to_string().contains(&format!("\"retry_of\":\"{}\"", first.id)), "{audit}");
}

#[tokio::test]
async fn a_host_that_is_gone_is_left_out_and_named() {
    let world = World::start().await;
    let _agents = agents(&world, &["one", "two"]).await;
    let api = world.api();
    save(&api, "name: bad\ntargets: {all: true}\nsteps: [{name: a, run: 'false'}]\nrollback: [{name: u, run: 'true'}]\n").await;
    let first = execute(&api, "bad", json!({})).await;
    api.finished(first.id).await;
    world.opsctl(&["agent", "revoke", "two"]).await.ended(0);
    let again = retry(&api, &first, json!({})).await;
    assert_eq!(again.left_out, ["two"]);
    api.finished(again.id).await;
    assert_eq!(states(&results(&api, &again).await), ["one: failed skipped"]);
    let id = first.id.to_string();
    let said = world.opsctl(&["execution", "retry", &id]).await;
    assert!(said.stderr.contains("without 1 host not enrolled any more: two"), "{}", said.stderr);
    world.opsctl(&["agent", "revoke", "one"]).await.ended(0);
    let path = format!("/api/v1/executions/{id}/retry");
    api.post(&path, &json!({})).await.refused(409, "conflict");
    let listed = world.opsctl(&["execution", "undo", &id, "--list"]).await.ended(0).text();
    assert!(
        listed.contains("cannot be undone from here: no host that it is meant for is enrolled"),
        "{listed}"
    );
    api.delete("/api/v1/jobs/bad").await.accepted();
    let listed = world.opsctl(&["execution", "undo", &id, "--list"]).await.ended(0).text();
    assert!(listed.contains("cannot be undone from here: there is no job 'bad'"), "{listed}");
    let undone = api.post(&format!("/api/v1/executions/{id}/undo"), &json!({})).await;
    assert!(undone.text().contains("there is no job 'bad'"), "{}", undone.text());
}

#[tokio::test]
async fn hosts_that_an_approval_kept_from_their_steps() {
    let world = World::start().await;
    let _agents = agents(&world, &["one"]).await;
    let ada = world.person("ada", Some("approver")).await;
    let api = world.api();
    for (before, state, meant) in
        [("  - {name: a, run: 'true'}\n", "failed", "failed"), ("", "skipped", "unfinished")]
    {
        let name = format!("gate-{state}");
        let document = format!(
            "name: {name}\ntargets: {{all: true}}\nsteps:\n{before}  - {{name: ok, approval: {{}}}}\n  \
             - {{name: b, run: 'true'}}\n"
        );
        let execution = run(&api, &document).await;
        let (path, no) =
            super::approvals::decision(&super::approvals::asked(&ada, execution.id).await, "reject");
        ada.post(&path, &no).await.accepted();
        api.finished(execution.id).await;
        super::hosts_are(&api, &execution, &[state]).await;
        let again = retry(&api, &execution, json!({ "hosts": meant })).await;
        let (path, yes) =
            super::approvals::decision(&super::approvals::asked(&ada, again.id).await, "approve");
        ada.post(&path, &yes).await.accepted();
        assert_eq!(api.finished(again.id).await.execution.state, ExecutionState::Succeeded);
    }
    // What the controller does behind all hosts is nobody's failure there.
    let execution = run(
        &api,
        "name: end\ntargets: {all: true}\nsteps:\n  - {name: a, run: 'true'}\n  - {name: ok, approval: {expires: 1s}}\n",
    )
    .await;
    api.finished(execution.id).await;
    let refused = api.post(&format!("/api/v1/executions/{}/retry", execution.id), &json!({})).await;
    assert!(refused.text().contains("--hosts all --from STEP"), "{}", refused.text());
}
