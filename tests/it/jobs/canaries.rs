//! Hosts that come first: what is asked of them, for how long the others wait, and that nobody follows when it goes wrong.

use model::{
    Reason,
    api::{execution::Execution, job::Cell},
    execution::ExecutionState,
    run::RunState,
};
use opsconductor_tests::{Api, SOON, World, eventually};
use serde_json::json;

use super::{agents, diary, execute, hosts_are, results, run, save, states, types, written};

/// A job that each host writes down, as its probe does.
fn noting(world: &World, canary: &str, probe: &str, more: &str) -> String {
    let diary = diary(world);
    let note =
        |what: &str| format!("template: true, run: 'echo {what}-{{{{ host.name }}}} >> {}", diary.display());
    let probe =
        if probe.is_empty() { String::new() } else { format!(", probe: {{{}{probe}}}", note("probe")) };
    format!(
        "name: noting\ntargets: {{all: true}}\nrollout: {{canary: {{{canary}{probe}}}, max_failures: 100%}}\nsteps:\n  \
         - {{name: do, {}'}}\n{more}",
        note("do")
    )
}

async fn cell(api: &Api, execution: &Execution, host: usize, step: usize) -> Option<Cell> {
    results(api, execution).await.hosts.get(host)?.runs.get(step)?.clone()
}

/// Waits until the run of the step on the host is in this state.
async fn reaches(api: &Api, execution: &Execution, host: usize, step: usize, state: RunState) -> Cell {
    eventually(SOON, &format!("the run is {}", state.as_str()), async || {
        cell(api, execution, host, step).await.filter(|cell| cell.state == state)
    })
    .await
}

#[tokio::test]
async fn a_good_canary_lets_the_others_follow() {
    let world = World::start().await;
    let _agents = agents(&world, &["one", "three", "two"]).await;
    let api = world.api();
    save(&api, &noting(&world, "hosts: 1", "'", "")).await;
    let plan = types(&world, "job plan noting").await.ended(0).text();
    for words in
        ["canary 1; 100% may fail", "4 runs on 3 hosts", "canary  one", "1       three", "probe  canary"]
    {
        assert!(plan.contains(words), "{words}: {plan}");
    }
    let execution = execute(&api, "noting", json!({})).await;
    assert_eq!(api.finished(execution.id).await.execution.state, ExecutionState::Succeeded);
    let want = ["one: succeeded succeeded", "three: succeeded -", "two: succeeded -"];
    assert_eq!(states(&results(&api, &execution).await), want, "only the canary is asked");
    let mut written = written(&world);
    written[2..].sort();
    assert_eq!(written, ["do-one", "probe-one", "do-three", "do-two"]);
    let shown = types(&world, &format!("execution show {}", execution.id)).await.ended(0).text();
    assert!(shown.contains("canary 1; 100% may fail") && shown.contains("one/probe"), "{shown}");
    let matrix = types(&world, &format!("execution results {}", execution.id)).await.ended(0).text();
    assert!(matrix.contains("two     1      succeeded  ok  -"), "{matrix}");
}

#[tokio::test]
async fn a_probe_that_fails_stops_it_and_nobody_else_is_touched() {
    let world = World::start().await;
    let _agents = agents(&world, &["a", "b", "c", "d"]).await;
    let api = world.api();
    let execution = run(&api, &noting(&world, "hosts: 50%", "; test {{ host.name }} = a'", "")).await;
    let finished = api.finished(execution.id).await.execution;
    assert!(finished.stopped);
    assert_eq!(finished.state, ExecutionState::PartiallySucceeded);
    let results = results(&api, &execution).await;
    let want = ["a: succeeded succeeded", "b: succeeded failed", "c: skipped -", "d: skipped -"];
    assert_eq!(states(&results), want);
    assert_eq!(results.hosts[3].runs[0].as_ref().and_then(|run| run.reason), Some(Reason::RolloutStopped));
    hosts_are(&api, &execution, &["succeeded", "failed", "skipped", "skipped"]).await;
    let mut written = written(&world);
    written.sort();
    assert_eq!(written, ["do-a", "do-b", "probe-a", "probe-b"]);
    // Of those on which it is tried again one is the canary again.
    let retry = format!("/api/v1/executions/{}/retry", execution.id);
    let again: Execution = api.post(&retry, &json!({ "hosts": "unfinished" })).await.accepted().json();
    api.finished(again.id).await;
    let states = states(&super::results(&api, &again).await);
    assert_eq!(states, ["b: succeeded failed", "c: skipped -", "d: skipped -"], "half of three is one");
}

#[tokio::test]
async fn the_soak_stands_before_the_probe_and_the_others_wait() {
    let world = World::start().await;
    let _agents = agents(&world, &["one", "two"]).await;
    let api = world.api();
    let execution = run(&api, &noting(&world, "hosts: 1, soak: 2s", "'", "")).await;
    let done = reaches(&api, &execution, 0, 0, RunState::Succeeded).await;
    hosts_are(&api, &execution, &["active", "waiting"]).await;
    api.finished(execution.id).await;
    let probe = reaches(&api, &execution, 0, 1, RunState::Succeeded).await;
    let soaked = probe.started_at.expect("begun").duration_since(done.ended_at.expect("ended"));
    assert!(soaked.as_millis() >= 1_900, "{soaked:?}");
    let other = reaches(&api, &execution, 1, 0, RunState::Succeeded).await;
    assert!(other.started_at >= probe.ended_at, "{other:?} {probe:?}");
}

#[tokio::test]
async fn a_soak_without_a_probe_is_a_pause() {
    let world = World::start().await;
    let _agents = agents(&world, &["one", "two"]).await;
    let api = world.api();
    let execution = run(&api, &noting(&world, "hosts: 1, soak: 1h", "", "")).await;
    hosts_are(&api, &execution, &["succeeded", "waiting"]).await;
    api.act(&format!("/api/v1/executions/{}/resume", execution.id)).await.accepted();
    assert_eq!(api.finished(execution.id).await.execution.state, ExecutionState::Succeeded);
    assert_eq!(written(&world), ["do-one", "do-two"]);
}

#[tokio::test]
async fn what_a_bad_canary_did_is_undone() {
    let world = World::start().await;
    let _agents = agents(&world, &["one", "two"]).await;
    let api = world.api();
    let undo = format!(
        "rollback:\n  - {{name: undo, template: true, if: steps.probe.state == 'failed', \
         run: 'echo undo-{{{{ host.name }}}} >> {}'}}\n",
        diary(&world).display()
    );
    let execution =
        run(&api, &noting(&world, "hosts: 1", "; false', on_failure: rollback, env: {A: b}", &undo)).await;
    assert!(api.finished(execution.id).await.execution.stopped);
    let want = ["one: succeeded failed succeeded", "two: skipped - skipped"];
    assert_eq!(states(&results(&api, &execution).await), want);
    assert_eq!(written(&world), ["do-one", "probe-one", "undo-one"]);
}

#[tokio::test]
async fn a_step_that_fails_on_the_canary_is_enough() {
    let world = World::start().await;
    let _agents = agents(&world, &["one", "two"]).await;
    let api = world.api();
    let execution =
        run(&api, &noting(&world, "hosts: 1, soak: 1h", "'", "  - {name: breaks, run: 'false'}\n")).await;
    assert!(api.finished(execution.id).await.execution.stopped);
    let want = ["one: succeeded failed skipped", "two: skipped skipped -"];
    assert_eq!(states(&results(&api, &execution).await), want, "no soak, and no probe");
}

#[tokio::test]
async fn a_controller_that_dies_in_the_soak_asks_once_and_goes_on() {
    let world = World::start().await;
    let _agents = agents(&world, &["one", "two"]).await;
    let api = world.api();
    let execution = run(&api, &noting(&world, "hosts: 1, soak: 4s", "'", "")).await;
    let done = reaches(&api, &execution, 0, 0, RunState::Succeeded).await;
    hosts_are(&api, &execution, &["active", "waiting"]).await;
    world.kill_controller();
    world.start_controller().await;
    assert_eq!(api.finished(execution.id).await.execution.state, ExecutionState::Succeeded);
    assert_eq!(written(&world), ["do-one", "probe-one", "do-two"]);
    let probe = reaches(&api, &execution, 0, 1, RunState::Succeeded).await;
    let soaked = probe.started_at.expect("begun").duration_since(done.ended_at.expect("ended"));
    assert!(soaked.as_millis() >= 3_900, "{soaked:?}");
}

#[tokio::test]
async fn a_cancel_ends_the_soak() {
    let world = World::start().await;
    let _agents = agents(&world, &["one", "two"]).await;
    let api = world.api();
    let execution = run(&api, &noting(&world, "hosts: 1, soak: 1h", "'", "")).await;
    reaches(&api, &execution, 0, 0, RunState::Succeeded).await;
    api.act(&format!("/api/v1/executions/{}/cancel", execution.id)).await.accepted();
    assert_eq!(api.finished(execution.id).await.execution.state, ExecutionState::PartiallySucceeded);
    assert_eq!(states(&results(&api, &execution).await), ["one: succeeded cancelled", "two: cancelled -"]);
    // Nor does one that is stopped wait for its soak.
    let again = noting(&world, "hosts: 1, soak: 1h", "'", "").replace("name: noting", "name: again");
    let execution = run(&api, &again).await;
    reaches(&api, &execution, 0, 0, RunState::Succeeded).await;
    api.act(&format!("/api/v1/executions/{}/abort", execution.id)).await.accepted();
    api.finished(execution.id).await;
    assert_eq!(states(&results(&api, &execution).await), ["one: succeeded skipped", "two: skipped -"]);
}

#[tokio::test]
async fn what_the_controller_does_behind_hosts_is_behind_the_probe() {
    let world = World::start().await;
    let _agents = agents(&world, &["one"]).await;
    let api = world.api();
    let execution = run(&api, &noting(&world, "hosts: 1", "; exit 1'", "  - {name: rest, wait: 1s}\n")).await;
    assert_eq!(api.finished(execution.id).await.execution.state, ExecutionState::PartiallySucceeded);
    let results = results(&api, &execution).await;
    let rest = results.controller[1].as_ref().expect("a run");
    assert_eq!((rest.state, rest.started_at), (RunState::Skipped, None), "the canary was not well");
    assert_eq!(written(&world), ["do-one", "probe-one"]);
}
