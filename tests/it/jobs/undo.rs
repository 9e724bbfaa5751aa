//! What a start has changed, and its undoing on just these hosts.

use model::{
    api::{execution::Execution, undo::Changes},
    execution::ExecutionState,
};
use opsconductor_tests::{Api, World};
use serde_json::{Value, json};

use super::{agents, execute, hosts_are, results, run, save, states};

async fn changes(api: &Api, execution: &Execution) -> Changes {
    api.get(&format!("/api/v1/executions/{}/undo", execution.id)).await.accepted().json()
}

/// The changed hosts with their runs, as `host state: step …`.
fn lines(changes: &Changes) -> Vec<String> {
    let runs = |host: &model::api::undo::ChangedHost| {
        let words = host.runs.iter().map(|run| {
            let step = run.step.as_deref().unwrap_or("-");
            format!("{step} {}", run.state.as_str())
        });
        words.collect::<Vec<_>>().join(", ")
    };
    changes.hosts.iter().map(|host| format!("{} {}: {}", host.target, host.state, runs(host))).collect()
}

async fn undo(api: &Api, execution: &Execution, request: Value) -> Execution {
    api.post(&format!("/api/v1/executions/{}/undo", execution.id), &request).await.accepted().json()
}

/// A job that leaves a mark of each host and fails on the host `three`; what undoes it removes the mark.
fn marking(world: &World, on_failure: &str) -> String {
    let marks = world.folder().join("marks");
    std::fs::create_dir_all(&marks).expect("made");
    let marks = marks.display();
    format!(
        "name: marking\ntargets: {{all: true}}\nrollout: {{batches: [1, 2, 3], max_failures: 0}}\nsteps:\n  \
         - {{name: mark, template: true, run: 'touch {marks}/{{{{ host.name }}}}'}}\n  \
         - {{name: check, template: true, run: 'test {{{{ host.name }}}} != three', on_failure: {on_failure}}}\n\
         rollback:\n  - name: unmark\n    template: true\n    \
         run: 'rm {marks}/{{{{ host.name }}}} && echo \"$OPSC_UNDOES\" {{{{ execution.undoes }}}} > {marks}/{{{{ host.name }}}}.undone'\n"
    )
}

fn marks(world: &World) -> Vec<String> {
    let marks = std::fs::read_dir(world.folder().join("marks")).expect("the marks");
    let mut names: Vec<String> =
        marks.map(|entry| entry.expect("a mark").file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

#[tokio::test]
async fn what_was_changed_is_undone_and_nothing_else() {
    let world = World::start().await;
    let _agents = agents(&world, &["one", "three", "two"]).await;
    let api = world.api();
    let first = run(&api, &marking(&world, "stop")).await;
    assert!(api.finished(first.id).await.execution.stopped);
    assert_eq!(marks(&world), ["one", "three"]);
    let changed = changes(&api, &first).await;
    assert_eq!((changed.total, &changed.refused), (2, &None));
    let want =
        ["one succeeded: mark succeeded, check succeeded", "three failed: mark succeeded, check failed"];
    assert_eq!(lines(&changed), want);
    let id = first.id.to_string();
    let shown = world.opsctl(&["execution", "show", &id]).await.ended(0).text();
    assert!(shown.contains(&format!("2 hosts: opsctl execution undo {id} --list")), "{shown}");
    let listed = world.opsctl(&["execution", "undo", &id, "--list"]).await.ended(0).text();
    assert!(listed.contains("three   failed     mark         check (failed 1)"), "{listed}");
    let page = api.get(&format!("/api/v1/executions/{id}/undo?limit=1")).await.accepted().value();
    assert_eq!((&page["total"], page["hosts"].as_array().map(Vec::len)), (&json!(2), Some(1)));
    let next = page["next_cursor"].as_str().expect("a cursor");
    let next = api.get(&format!("/api/v1/executions/{id}/undo?cursor={next}")).await.accepted().value();
    assert_eq!(next["hosts"][0]["target"], json!("three"));

    // The job says something else since: what is undone is what was started.
    let other = marking(&world, "stop").replace("unmark", "other");
    api.put("/api/v1/jobs/marking", &json!({ "document": other })).await.accepted();
    let failed = undo(&api, &first, json!({ "hosts": "failed" })).await;
    assert_eq!((failed.undoes, failed.retry_of), (Some(first.id), Some(first.id)));
    assert_eq!(api.finished(failed.id).await.execution.state, ExecutionState::Succeeded);
    assert_eq!(states(&results(&api, &failed).await), ["three: succeeded"]);
    assert_eq!(marks(&world), ["one", "three.undone"]);
    let told = std::fs::read_to_string(world.folder().join("marks/three.undone")).expect("told");
    assert_eq!(told.trim(), format!("{id} {id}"), "what it undoes");
    assert_eq!(lines(&changes(&api, &first).await), want[..1]);
    world.opsctl(&["execution", "undo", &id]).await.ended(0);
    assert_eq!(marks(&world), ["one.undone", "three.undone"]);
    let changed = changes(&api, &first).await;
    assert_eq!((changed.total, lines(&changed)), (0, vec![]));
    let path = format!("/api/v1/executions/{id}/undo");
    let refused = api.post(&path, &json!({})).await.refused(409, "conflict");
    assert!(refused.detail.contains("nothing to undo"), "{refused:?}");
    let audit = api.get("/api/v1/audit?verb=execution.undo").await.accepted().value();
    assert_eq!(audit["items"].as_array().map(Vec::len), Some(2), "{audit}");
    assert!(audit.to_string().contains(&format!("\"execution/{id}\"")), "{audit}");
    // An undoing is no start that a plan is compared with, and is itself not undone.
    let plan = api.post("/api/v1/jobs/marking/plan", &json!({})).await.accepted().value();
    assert_eq!(plan["since"]["execution_id"], json!(id), "{plan}");
    let refused = api.post(&format!("/api/v1/executions/{}/undo", failed.id), &json!({})).await;
    assert!(refused.refused(409, "conflict").detail.contains("undoes another"));
}

#[tokio::test]
async fn a_host_that_was_rolled_back_is_not_among_them() {
    let world = World::start().await;
    let _agents = agents(&world, &["one", "three", "two"]).await;
    let api = world.api();
    let execution = run(&api, &marking(&world, "rollback")).await;
    api.finished(execution.id).await;
    assert_eq!(marks(&world), ["one", "three.undone"]);
    assert_eq!(lines(&changes(&api, &execution).await), ["one succeeded: mark succeeded, check succeeded"]);
    // One whose rollback failed is.
    let broken = marking(&world, "rollback")
        .replace("name: marking", "name: broken")
        .replace("run: 'rm ", "run: 'false ");
    save(&api, &broken).await;
    let execution = execute(&api, "broken", json!({ "targets": { "hosts": ["three"] } })).await;
    api.finished(execution.id).await;
    let want = ["three failed: mark succeeded, check failed, unmark failed"];
    assert_eq!(lines(&changes(&api, &execution).await), want);
}

#[tokio::test]
async fn what_cannot_be_undone_says_why() {
    let world = World::start().await;
    let _agents = agents(&world, &["one"]).await;
    let api = world.api();
    let refused = async |execution: &Execution| {
        let why = changes(&api, execution).await.refused.expect("it is refused");
        let path = format!("/api/v1/executions/{}/undo", execution.id);
        let problem = api.post(&path, &json!({})).await.refused(409, "conflict");
        assert!(problem.detail.contains(&why), "{problem:?}");
        why
    };
    let plain = run(&api, "name: plain\ntargets: {all: true}\nsteps: [{name: a, run: 'true'}]\n").await;
    api.finished(plain.id).await;
    assert!(refused(&plain).await.contains("does not say what undoes it"));
    assert_eq!(lines(&changes(&api, &plain).await), ["one succeeded: a succeeded"]);
    // Of one that nobody knows of it may be true, of one that never began not.
    let mut database = world.sql().await;
    for (state, want) in [("unknown", &["one succeeded: a unknown"][..]), ("expired", &[])] {
        sqlx::query("update runs set state = $2, started_at = null where execution_id = $1")
            .bind(plain.id.0)
            .bind(state)
            .execute(&mut database)
            .await
            .expect("the run is edited");
        assert_eq!(lines(&changes(&api, &plain).await), want);
    }
    let open = "name: open\ntargets: {all: true}\nsteps:\n  - {name: a, run: 'true'}\n  - {name: rest, wait: 1h}\n\
                rollback: [{name: b, run: 'true'}]\n";
    let open = run(&api, open).await;
    hosts_are(&api, &open, &["succeeded"]).await;
    assert!(refused(&open).await.contains("not over"));
    let asks = "name: asks\ntargets: {all: true}\nsteps: [{name: a, run: 'true'}]\n\
                rollback: [{name: b, run: 'true', if: steps.a.state == 'failed'}]\n";
    let asks = run(&api, asks).await;
    api.finished(asks.id).await;
    assert!(refused(&asks).await.contains("asks how it ended"));
    let body = json!({ "targets": { "all": true }, "command": { "program": { "shell": "exit 3" } } });
    let command: Execution = api.post("/api/v1/executions", &body).await.accepted().json();
    api.finished(command.id).await;
    assert!(refused(&command).await.contains("a command of its own"));
    let changed = changes(&api, &command).await;
    assert_eq!((changed.total, lines(&changed)), (1, vec!["one failed: - failed".to_owned()]));
}

#[tokio::test]
async fn a_host_that_is_gone_holds_nobody_up() {
    let world = World::start().await;
    let _agents = agents(&world, &["one", "two"]).await;
    let api = world.api();
    let execution = run(&api, &marking(&world, "stop")).await;
    api.finished(execution.id).await;
    assert_eq!(marks(&world), ["one", "two"]);
    world.opsctl(&["agent", "revoke", "two"]).await.ended(0);
    let undoing = undo(&api, &execution, json!({})).await;
    assert_eq!(api.finished(undoing.id).await.execution.state, ExecutionState::Succeeded);
    assert_eq!(marks(&world), ["one.undone", "two"]);
    let left = changes(&api, &execution).await;
    assert_eq!(left.hosts.iter().map(|host| host.target.as_str()).collect::<Vec<_>>(), ["two"]);
    let path = format!("/api/v1/executions/{}", execution.id);
    let refused = api.post(&format!("{path}/undo"), &json!({})).await.refused(409, "conflict");
    assert!(refused.detail.contains("enrolled"), "{refused:?}");
    // What undoes is not tried again by itself.
    let retry = format!("/api/v1/executions/{}/retry", undoing.id);
    let refused = api.post(&retry, &json!({ "hosts": "all" })).await.refused(409, "conflict");
    assert!(refused.detail.contains("undo that one again"), "{refused:?}");
}
