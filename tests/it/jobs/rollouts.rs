//! Whose turn it is: batches, how many at a time, when it stops, and what people ask meanwhile.

use model::{Reason, api::execution::Execution, execution::ExecutionState, run::RunState};
use opsconductor_tests::{
    SOON, World, eventually,
    player::{Player, Playing},
};
use serde_json::json;

use super::{execute, hosts_are, results, run, save, states};

/// Players of these names: agents that do what the test says.
async fn players(world: &World, count: usize) -> Vec<Player> {
    let mut players = Vec::new();
    for number in 0..count {
        players.push(Player::enroll(world, &format!("p{number}")).await);
    }
    players
}

/// A host finishes the step that it is told to do.
async fn does(host: &mut Playing<'_>, exit_code: i32) {
    let order = host.order().await;
    host.finish(&order, exit_code).await;
}

#[tokio::test]
async fn batches_come_one_behind_the_other_and_stop_at_the_budget() {
    let world = World::start().await;
    let players = players(&world, 6).await;
    let mut hosts = Vec::new();
    for player in &players {
        hosts.push(player.play(&[]).await);
    }
    let api = world.api();
    let document = "name: roll\ntargets: {all: true}\nrollout: {batches: [1, 4], max_failures: 1}\nsteps:\n  \
                    - {name: a, run: x}\n  - {name: b, run: y}\n";
    let execution = run(&api, document).await;
    does(&mut hosts[0], 0).await;
    hosts_are(&api, &execution, &["active", "waiting", "waiting", "waiting", "waiting", "waiting"]).await;
    does(&mut hosts[0], 0).await;
    hosts_are(&api, &execution, &["succeeded", "active", "active", "active", "waiting", "waiting"]).await;
    // One may fail; when the second has, nobody more begins, and who has begun goes on to its end.
    does(&mut hosts[1], 1).await;
    hosts_are(&api, &execution, &["succeeded", "failed", "active", "active", "waiting", "waiting"]).await;
    does(&mut hosts[2], 1).await;
    hosts_are(&api, &execution, &["succeeded", "failed", "failed", "active", "skipped", "skipped"]).await;
    does(&mut hosts[3], 0).await;
    does(&mut hosts[3], 0).await;
    let finished = api.finished(execution.id).await;
    assert_eq!(finished.execution.state, ExecutionState::PartiallySucceeded);
    hosts_are(&api, &execution, &["succeeded", "failed", "failed", "succeeded", "skipped", "skipped"]).await;
    let want = [
        "p0: succeeded succeeded",
        "p1: failed skipped",
        "p2: failed skipped",
        "p3: succeeded succeeded",
        "p4: skipped skipped",
        "p5: skipped skipped",
    ];
    assert_eq!(states(&results(&api, &execution).await), want);
    let failed = api
        .get(&format!("/api/v1/executions/{}/results?state=failed", execution.id))
        .await
        .accepted()
        .value();
    assert_eq!(failed["hosts"].as_array().map(Vec::len), Some(2));
}

#[tokio::test]
async fn no_more_are_at_work_than_may_be() {
    let world = World::start().await;
    let players = players(&world, 4).await;
    let mut hosts = Vec::new();
    for player in &players {
        hosts.push(player.play(&[]).await);
    }
    let api = world.api();
    let document =
        "name: few\ntargets: {all: true}\nrollout: {max_parallel: 2}\nsteps: [{name: a, run: x}]\n";
    let execution = run(&api, document).await;
    hosts_are(&api, &execution, &["active", "active", "waiting", "waiting"]).await;
    does(&mut hosts[1], 0).await;
    hosts_are(&api, &execution, &["active", "succeeded", "active", "waiting"]).await;
    for host in [0, 2, 3] {
        does(&mut hosts[host], 0).await;
    }
    assert_eq!(api.finished(execution.id).await.execution.state, ExecutionState::Succeeded);
}

#[tokio::test]
async fn people_pause_resume_and_abort() {
    let world = World::start().await;
    let agents = super::agents(&world, &["one", "two", "three"]).await;
    let api = world.api();
    let document = "name: slow\ntargets: {all: true}\nrollout: {batches: [1, 2, 3]}\nsteps:\n  - {name: a, run: 'true'}\n";
    let job = save(&api, &document.replace("batches: [1, 2, 3]", "batches: [1, 2, 3], pause: 1h")).await;
    let execution = execute(&api, &job, json!({})).await;
    let path = |verb: &str| format!("/api/v1/executions/{}/{verb}", execution.id);
    let first_done = async |done: usize| {
        eventually(SOON, "that many hosts are done", async || {
            let results = results(&api, &execution).await;
            let count = results.hosts.iter().filter(|host| host.state == "succeeded").count();
            (count == done).then_some(())
        })
        .await;
    };
    first_done(1).await;
    // The pause between two batches ends when somebody says so.
    api.act(&path("resume")).await.accepted();
    first_done(2).await;
    api.act(&path("pause")).await.accepted();
    api.act(&path("abort")).await.accepted();
    let finished = api.finished(execution.id).await;
    assert_eq!(finished.execution.state, ExecutionState::Succeeded, "what was skipped is no failure");
    let results = results(&api, &execution).await;
    assert_eq!(states(&results), ["one: succeeded", "three: succeeded", "two: skipped"]);
    let skipped = results.hosts[2].runs[0].as_ref().expect("a run");
    assert_eq!(skipped.reason, Some(Reason::RolloutStopped));
    api.act(&path("resume")).await.refused(409, "conflict");
    drop(agents);
}

#[tokio::test]
async fn after_an_abort_hosts_at_work_begin_nothing_more() {
    let world = World::start().await;
    let players = players(&world, 3).await;
    // The third is away: what waits for it was never offered.
    let (mut first, mut second) = (players[0].play(&[]).await, players[1].play(&[]).await);
    let api = world.api();
    let document = "name: stop\ntargets: {all: true}\nsteps:\n  - {name: a, run: x, on_failure: rollback}\n  \
                    - {name: b, run: x}\n  - {name: c, run: x, always: true}\nrollback:\n  - {name: u, run: x}\n  \
                    - {name: v, run: x}\n";
    let execution = run(&api, document).await;
    let order = first.order().await;
    does(&mut second, 1).await;
    does(&mut second, 0).await;
    // The second is undoing already.
    let undoing = second.order().await;
    let path = |verb: &str| format!("/api/v1/executions/{}/{verb}", execution.id);
    api.act(&path("pause")).await.accepted();
    api.act(&path("abort")).await.accepted();
    hosts_are(&api, &execution, &["active", "active", "skipped"]).await;
    for verb in ["resume", "pause"] {
        let refused = api.act(&path(verb)).await;
        refused.refused(409, "conflict");
    }
    let shown: Execution = api.get(&format!("/api/v1/executions/{}", execution.id)).await.accepted().json();
    assert!(shown.stopped && shown.aborted && !shown.paused);
    first.finish(&order, 0).await;
    does(&mut first, 0).await;
    second.finish(&undoing, 0).await;
    does(&mut second, 0).await;
    let finished = api.finished(execution.id).await;
    assert!(finished.execution.aborted);
    let after = results(&api, &execution).await;
    let want = [
        "p0: succeeded skipped succeeded skipped skipped",
        "p1: failed skipped succeeded succeeded succeeded",
        "p2: skipped skipped skipped skipped skipped",
    ];
    assert_eq!(states(&after), want);
    hosts_are(&api, &execution, &["failed", "failed", "skipped"]).await;
    let run = finished.runs.iter().find(|run| run.target == "p0" && run.step_name.as_deref() == Some("b"));
    let run = run.expect("a run");
    assert_eq!(run.reason, Some(Reason::RolloutStopped));
    assert_eq!(run.detail.as_deref(), Some("the rollout was aborted before it began"));
}

#[tokio::test]
async fn after_an_abort_nobody_is_asked_or_waited_for() {
    let world = World::start().await;
    let _agents = super::agents(&world, &["one"]).await;
    let ada = world.person("ada", Some("approver")).await;
    let api = world.api();
    let document = "name: waits\ntargets: {all: true}\nsteps:\n  - {name: ask, approval: {}}\n  - {name: rest, wait: 1h, needs: []}\n  \
                    - {name: after, run: 'true', needs: [ask]}\n  - {name: then, run: 'true', needs: [rest]}\n";
    let execution = run(&api, document).await;
    let asked = super::approvals::asked(&ada, execution.id).await;
    api.act(&format!("/api/v1/executions/{}/abort", execution.id)).await.accepted();
    let finished = api.finished(execution.id).await;
    assert_eq!(states(&results(&api, &execution).await), ["one: - - skipped skipped"]);
    for step in ["ask", "rest"] {
        let run = finished.runs.iter().find(|run| run.step_name.as_deref() == Some(step)).expect("a run");
        assert_eq!((run.state, run.reason), (RunState::Cancelled, Some(Reason::RolloutStopped)), "{step}");
        assert_eq!(run.detail.as_deref(), Some("the rollout was aborted"), "{step}");
    }
    let (path, yes) = super::approvals::decision(&asked, "approve");
    ada.post(&path, &yes).await.refused(409, "conflict");
}

#[tokio::test]
async fn a_host_that_is_away_does_not_begin_after_the_stop() {
    let world = World::start().await;
    let players = players(&world, 2).await;
    let mut online = players[0].play(&[]).await;
    let api = world.api();
    let document =
        "name: away\ntargets: {all: true}\nrollout: {max_failures: 0}\nsteps: [{name: a, run: x}]\n";
    let execution = run(&api, document).await;
    // Both have their turn at once; one is away, and its run waits for it.
    hosts_are(&api, &execution, &["active", "active"]).await;
    does(&mut online, 1).await;
    hosts_are(&api, &execution, &["failed", "skipped"]).await;
    let finished = api.finished(execution.id).await;
    assert_eq!(finished.execution.state, ExecutionState::Failed);
    assert_eq!(states(&results(&api, &execution).await), ["p0: failed", "p1: skipped"]);
}

#[tokio::test]
async fn who_follows_hears_of_what_was_left_out() {
    let world = World::start().await;
    let _agents = super::agents(&world, &["one", "two"]).await;
    let api = world.api();
    // The first host fails, which is one too many: its second step is not missed, both of the other host are.
    let document = "name: few\ntargets: {all: true}\nrollout: {batches: [1, 2], max_failures: 0}\nsteps:\n  \
                    - {name: a, run: 'false', on_failure: rollback}\n  - {name: b, run: 'true'}\nrollback:\n  - {name: u, run: 'true'}\n";
    save(&api, document).await;
    let said = world.opsctl(&["run", "few"]).await.ended(1);
    assert!(said.stderr.contains("the rollout was stopped: 2 runs were skipped"), "{}", said.stderr);
    // All that ran went well, and that is not all that was asked for.
    let name = "name: long\ntargets: {all: true}\nrollout: {batches: [1, 2], pause: 1h}\nsteps: [{name: a, run: 'true'}]\n";
    save(&api, name).await;
    let aborting = async {
        let execution = eventually(SOON, "it began", async || {
            let all = api.get("/api/v1/executions?limit=1").await.accepted().value();
            let newest: Execution = serde_json::from_value(all["items"][0].clone()).ok()?;
            (newest.summary == "long v1" && newest.runs.succeeded == 1).then_some(newest)
        })
        .await;
        api.act(&format!("/api/v1/executions/{}/abort", execution.id)).await.accepted();
    };
    let (said, ()) = tokio::join!(async { world.opsctl(&["run", "long"]).await }, aborting);
    let said = said.ended(1);
    assert!(said.stderr.contains("the rollout was aborted: 1 run was skipped"), "{}", said.stderr);
}

#[tokio::test]
async fn what_undoes_and_what_the_controller_does_hold_up_no_batch() {
    let world = World::start().await;
    let _agents = super::agents(&world, &["one", "two"]).await;
    let api = world.api();
    let document = "name: both\ntargets: {all: true}\nrollout: {batches: [1, 100%]}\nsteps:\n  \
                    - {name: a, run: 'true'}\n  - {name: rest, wait: 1s}\nrollback:\n  - {name: undo, run: 'true'}\n";
    let execution = run(&api, document).await;
    let finished = api.finished(execution.id).await;
    assert_eq!(finished.execution.state, ExecutionState::Succeeded);
    hosts_are(&api, &execution, &["succeeded", "succeeded"]).await;
}
