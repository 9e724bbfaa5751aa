//! What only one execution holds at a time, hosts that are away, and steps that are done for each combination of values.

use model::{Reason, execution::ExecutionState};
use opsconductor_tests::{Api, SOON, World, eventually, player::Player};
use serde_json::json;

use super::{agents, execute, hosts_are, results, save, states};

/// A job that ends when the file is there.
fn waiting(world: &World, name: &str, more: &str) -> String {
    let gate = world.folder().join("gate");
    format!(
        "name: {name}\ntargets: {{all: true}}\n{more}\nsteps:\n  - {{name: a, timeout: 60s, run: \"until test -e {}; do sleep 0.1; done\"}}\n",
        gate.display()
    )
}

fn open(world: &World) {
    std::fs::write(world.folder().join("gate"), "").expect("written");
}

async fn waits_for(api: &Api, execution: &model::api::execution::Execution, lock: &str) {
    eventually(SOON, "it waits for the lock", async || {
        let now = api.get(&format!("/api/v1/executions/{}", execution.id)).await.accepted().value();
        now["waits_for"].as_str().is_some_and(|held| held.starts_with(lock)).then_some(())
    })
    .await;
}

#[tokio::test]
async fn one_execution_at_a_time_the_oldest_first() {
    let world = World::start().await;
    let _agents = agents(&world, &["one"]).await;
    let api = world.api();
    save(&api, &waiting(&world, "first", "lock: deploy")).await;
    save(&api, &waiting(&world, "other", "lock: deploy\non_conflict: skip")).await;
    save(&api, &waiting(&world, "free", "lock: job")).await;
    let first = execute(&api, "first", json!({})).await;
    hosts_are(&api, &first, &["active"]).await;
    let second = execute(&api, "first", json!({})).await;
    waits_for(&api, &second, "name/deploy").await;
    let third = execute(&api, "first", json!({})).await;
    waits_for(&api, &third, "name/deploy").await;
    // One that does not wait is over at once, and one with another lock does not care.
    let skipped = execute(&api, "other", json!({})).await;
    let finished = api.finished(skipped.id).await;
    assert_eq!(finished.runs[0].reason, Some(Reason::LockHeld));
    let free = execute(&api, "free", json!({})).await;
    hosts_are(&api, &free, &["active"]).await;
    let held = execute(&api, "free", json!({})).await;
    waits_for(&api, &held, "job/").await;
    let shown = world.opsctl(&["execution", "show", &held.id.to_string()]).await.ended(0).text();
    assert!(shown.contains("which runs once at a time: the execution "), "{shown}");

    open(&world);
    for execution in [&first, &second, &third, &free, &held] {
        let finished = api.finished(execution.id).await;
        assert_eq!(finished.execution.state, ExecutionState::Succeeded);
        assert_eq!(finished.execution.waits_for, None);
    }
    let began = async |execution: &model::api::execution::Execution| {
        let finished = api.finished(execution.id).await;
        (finished.runs[0].started_at.expect("begun"), finished.runs[0].ended_at.expect("ended"))
    };
    let (first, second, third) = (began(&first).await, began(&second).await, began(&third).await);
    assert!(first.1 <= second.0 && second.1 <= third.0, "{first:?} {second:?} {third:?}");
}

#[tokio::test]
async fn the_newer_one_cancels_the_older_one() {
    let world = World::start().await;
    let _agents = agents(&world, &["one"]).await;
    let api = world.api();
    save(&api, &waiting(&world, "newest", "lock: job\non_conflict: cancel_running")).await;
    let first = execute(&api, "newest", json!({})).await;
    hosts_are(&api, &first, &["active"]).await;
    let second = execute(&api, "newest", json!({})).await;
    assert_eq!(api.finished(first.id).await.execution.state, ExecutionState::Cancelled);
    hosts_are(&api, &second, &["active"]).await;
    let audit = api.get("/api/v1/audit?verb=execution.cancel").await.accepted().value();
    assert_eq!(audit["items"].as_array().map(Vec::len), Some(1), "{audit}");
    // Another job is not cancelled for it, and one that waits can be stopped.
    save(&api, &waiting(&world, "other", "lock: shared")).await;
    save(&api, &waiting(&world, "eager", "lock: shared\non_conflict: cancel_running")).await;
    let other = execute(&api, "other", json!({})).await;
    hosts_are(&api, &other, &["active"]).await;
    let eager = execute(&api, "eager", json!({})).await;
    waits_for(&api, &eager, "name/shared").await;
    api.act(&format!("/api/v1/executions/{}/abort", eager.id)).await.accepted();
    assert_eq!(api.finished(eager.id).await.runs[0].reason, Some(Reason::RolloutStopped));
    open(&world);
    assert_eq!(api.finished(second.id).await.execution.state, ExecutionState::Succeeded);
    assert_eq!(api.finished(other.id).await.execution.state, ExecutionState::Succeeded);
}

#[tokio::test]
async fn hosts_are_held_while_their_turn_lasts() {
    let world = World::start().await;
    let _agents = agents(&world, &["one", "two"]).await;
    let api = world.api();
    save(&api, &waiting(&world, "host", "lock: host")).await;
    let on = |hosts: serde_json::Value| json!({ "targets": { "hosts": hosts } });
    let first = execute(&api, "host", on(json!(["one"]))).await;
    hosts_are(&api, &first, &["active"]).await;
    let second = execute(&api, "host", on(json!(["one", "two"]))).await;
    hosts_are(&api, &second, &["waiting", "active"]).await;
    save(&api, &waiting(&world, "skip", "lock: host\non_conflict: skip")).await;
    let third = execute(&api, "skip", on(json!(["two"]))).await;
    hosts_are(&api, &third, &["skipped"]).await;
    open(&world);
    assert_eq!(api.finished(first.id).await.execution.state, ExecutionState::Succeeded);
    assert_eq!(api.finished(second.id).await.execution.state, ExecutionState::Succeeded);
    hosts_are(&api, &second, &["succeeded", "succeeded"]).await;
}

/// Whether the second host was skipped, once that is known.
async fn hosts_are_known(api: &Api, execution: &model::api::execution::Execution) -> bool {
    eventually(SOON, "its turn has come", async || {
        let results = results(api, execution).await;
        let state = results.hosts[1].state.clone();
        (state != "waiting").then_some(state == "skipped")
    })
    .await
}

#[tokio::test]
async fn a_host_that_is_away_is_skipped_or_has_failed() {
    let world = World::builder().impatient().start().await;
    let mut agents = agents(&world, &["here", "there"]).await;
    agents.remove(1).kill();
    let api = world.api();
    let document = |offline: &str| {
        format!(
            "name: away\ntargets: {{all: true}}\noffline: {offline}\nsteps:\n  - {{name: a, run: 'true'}}\n  \
             - {{name: b, run: 'true', always: true}}\nrollback:\n  - {{name: c, run: 'true'}}\n"
        )
    };
    save(&api, &document("skip")).await;
    // One that has only just gone is waited for.
    let skipped = eventually(SOON, "it counts as away", async || {
        let execution = execute(&api, "away", json!({})).await;
        hosts_are_known(&api, &execution).await.then_some(execution)
    })
    .await;
    assert_eq!(api.finished(skipped.id).await.execution.state, ExecutionState::Succeeded);
    hosts_are(&api, &skipped, &["succeeded", "skipped"]).await;
    api.put("/api/v1/jobs/away", &json!({ "document": document("fail") })).await.accepted();
    let failed = execute(&api, "away", json!({})).await;
    assert_eq!(api.finished(failed.id).await.execution.state, ExecutionState::PartiallySucceeded);
    hosts_are(&api, &failed, &["succeeded", "failed"]).await;
    assert_eq!(
        states(&results(&api, &failed).await),
        ["here: succeeded succeeded skipped", "there: failed skipped skipped"]
    );
}

#[tokio::test]
async fn a_host_that_has_only_just_gone_is_asked_again() {
    let world = World::builder().impatient_but_for_absence().start().await;
    let player = Player::enroll(&world, "gone").await;
    let _here = world.agent("here").start().await;
    let api = world.api();
    for (offline, want) in [("skip", "skipped"), ("fail", "failed")] {
        drop(player.play(&[]).await);
        eventually(SOON, "it is gone", async || {
            let agents = api.get("/api/v1/agents").await.accepted().value();
            let agents = agents["items"].as_array()?.clone();
            agents.iter().any(|agent| agent["name"] == "gone" && agent["connected"] == false).then_some(())
        })
        .await;
        let document = format!(
            "name: brief-{offline}\ntargets: {{all: true}}\noffline: {offline}\nsteps: [{{name: a, run: 'true'}}]\n"
        );
        save(&api, &document).await;
        let execution = execute(&api, &format!("brief-{offline}"), json!({})).await;
        eventually(SOON, "it is waited for at first", async || {
            (results(&api, &execution).await.hosts[0].state == "active").then_some(())
        })
        .await;
        hosts_are(&api, &execution, &[want, "succeeded"]).await;
        let run = &results(&api, &execution).await.hosts[0].runs[0];
        assert_eq!(run.as_ref().and_then(|run| run.reason), Some(Reason::HostOffline));
        api.finished(execution.id).await;
    }
}

#[tokio::test]
async fn a_matrix_is_one_step_for_each_combination() {
    let world = World::start().await;
    let _agents = agents(&world, &["one"]).await;
    let api = world.api();
    let marks = world.folder().join("marks");
    std::fs::create_dir(&marks).expect("made");
    let document = format!(
        "name: grid\ntargets: {{all: true}}\nsteps:\n  - name: mark\n    template: true\n    \
         matrix: {{db: [main, 'it''s; x'], n: [1, 2]}}\n    \
         run: printf '%s' \"$OPSC_MATRIX_DB\" > {0}/{{{{ matrix.n }}}}-{{{{ matrix.db }}}}\n  \
         - {{name: some, matrix: {{n: [1, 2]}}, if: matrix.n == 2, run: 'true'}}\n  \
         - {{name: after, run: \"test $(ls {0} | wc -l) -eq 4\"}}\n",
        marks.display()
    );
    save(&api, &document).await;
    let execution = execute(&api, "grid", json!({})).await;
    let finished = api.finished(execution.id).await;
    assert_eq!(finished.execution.state, ExecutionState::Succeeded, "{:?}", finished.runs);
    assert_eq!(std::fs::read_to_string(marks.join("2-it's; x")).expect("written"), "it's; x");
    let cells = "succeeded succeeded succeeded succeeded skipped succeeded succeeded";
    assert_eq!(states(&results(&api, &execution).await), [format!("one: {cells}")]);
    let names: Vec<&str> = finished.runs.iter().filter_map(|run| run.step_name.as_deref()).collect();
    assert_eq!(names, ["mark.1", "mark.2", "mark.3", "mark.4", "some.1", "some.2", "after"]);
    let bad = "name: x\nsteps:\n  - {name: a, matrix: {n: [1, 2]}, run: x}\n  - {name: b, if: steps.a.exit_code == 0, run: x}\n";
    api.post("/api/v1/jobs", &json!({ "document": bad })).await.refused(400, "invalid_document");
}
