//! Retries and re-runs: as often as the command says and no more, with every try's output kept.

use std::path::PathBuf;

use model::{
    Reason,
    api::{
        Page,
        execution::{Attempt, Execution, Run},
    },
    attempt::AttemptState,
    execution::ExecutionState,
    run::RunState,
};
use opsconductor_tests::{Api, SOON, World, eventually, player::Player};
use serde_json::{Value, json};

/// A shell line that tells in a file of its World that it was started, and how often so far.
fn counting(world: &World, then: &str) -> String {
    let count = count_file(world);
    format!("echo >> '{0}'; n=$(wc -l < '{0}'); echo \"try $n\"; {then}", count.display())
}

fn count_file(world: &World) -> PathBuf {
    world.folder().join("count")
}

/// How often it was started on the host.
fn count(world: &World) -> usize {
    std::fs::read_to_string(count_file(world)).unwrap_or_default().lines().count()
}

async fn start(api: &Api, agent: &str, command: Value, more: &[(&str, Value)]) -> Execution {
    let mut body = json!({ "targets": { "names": [agent] }, "command": command });
    for (key, value) in more {
        body[*key] = value.clone();
    }
    api.post("/api/v1/executions", &body).await.accepted().json()
}

async fn attempts(api: &Api, run: &Run) -> Vec<Attempt> {
    let path = format!("/api/v1/executions/{}/runs/{}/attempts", run.execution_id, run.id);
    api.get(&path).await.accepted().json::<Page<Attempt>>().items
}

/// Waits until the only run waits for its next try.
async fn between_tries(api: &Api, execution: &Execution) -> Run {
    eventually(SOON, "the run waits for its next try", async || {
        let run = api.runs(execution.id).await.remove(0);
        (run.state == RunState::Queued && run.attempt > 0).then_some(run)
    })
    .await
}

#[tokio::test]
async fn what_fails_is_tried_as_often_as_it_may_be() {
    let world = World::start().await;
    let _agent = world.agent("one").start().await;
    let api = world.api();
    let retry = json!({ "attempts": 3, "backoff_seconds": 1 });
    let line = counting(&world, "exit 3");
    let execution = start(&api, "one", json!({ "program": { "shell": line }, "retry": retry }), &[]).await;
    let finished = api.whole(execution.id).await;
    let run = finished.run();
    assert_eq!((run.state, run.reason, run.exit_code), (RunState::Failed, Some(Reason::Exited), Some(3)));
    assert_eq!((run.attempt, count(&world)), (3, 3), "{run:?}");
    let attempts = attempts(&api, run).await;
    assert_eq!(attempts.len(), 3, "{attempts:?}");
    for (number, attempt) in (1..).zip(&attempts) {
        assert_eq!((attempt.number, attempt.state), (number, AttemptState::Finished));
        assert_eq!((attempt.reason, attempt.exit_code), (Some(Reason::Exited), Some(3)));
        assert!(attempt.fence > 0 && attempt.accepted_at.is_some() && attempt.started_at.is_some());
    }
    // Between two tries lay a half of the pause at least, and the second pause was twice the first.
    for (pair, least) in attempts.windows(2).zip([0.5, 1.0]) {
        let ended = pair[0].ended_at.expect("it ended");
        assert!(pair[1].offered_at.duration_since(ended).as_secs_f64() >= least - 0.05, "{attempts:?}");
    }

    let id = execution.id.to_string();
    let logs =
        async |more: &[&str]| world.opsctl(&[&["logs", &id, "--raw"], more].concat()).await.ended(0).text();
    assert_eq!(logs(&[]).await, "try 3\n", "the newest by default");
    assert_eq!(logs(&["--attempt", "1"]).await, "try 1\n");
    assert_eq!(logs(&["--attempt", "2"]).await, "try 2\n");
    let text = api.get(&format!("/api/v1/executions/{id}/output?format=text&target=one")).await.accepted();
    assert_eq!(text.text(), "try 3\n");
    assert_eq!(api.pieces(&id, "", 100).await.len(), 3, "all of them without a filter");
    api.get(&format!("/api/v1/executions/{id}/output?attempt=0")).await.refused(400, "invalid");
    let shown = world.opsctl(&["execution", "show", &id]).await.ended(0).text();
    assert_eq!(shown.matches("finished").count(), 3, "{shown}");
    let nil = uuid::Uuid::nil();
    api.get(&format!("/api/v1/executions/{id}/runs/{nil}/attempts")).await.refused(404, "not_found");
}

#[tokio::test]
async fn a_try_that_succeeds_is_the_last() {
    let world = World::start().await;
    let _agent = world.agent("one").start().await;
    let line = counting(&world, "[ $n -ge 2 ]");
    let flags = ["exec", "-t", "one", "--retries", "5", "--retry-backoff", "1s", "--shell", &line];
    let said = world.opsctl(&flags).await.ended(0);
    assert!(said.text().contains("try 1") && said.text().contains("try 2"), "{said}");
    assert_eq!(count(&world), 2);
    let refused = world.opsctl(&["exec", "-t", "one", "--retries", "10", "--", "true"]).await.ended(2);
    assert!(refused.stderr.contains("command.retry.attempts"), "{refused}");
}

/// A limit that a run goes over is its own doing: another try would do the same.
#[tokio::test]
async fn a_run_that_was_ended_at_its_output_limit_is_not_tried_again() {
    let world = World::start().await;
    let api = world.api();
    let player = Player::enroll(&world, "played").await;
    let mut playing = player.play(&[]).await;
    let command = json!({
        "program": { "shell": "yes" }, "retry": { "attempts": 3 }, "output_limit_bytes": 1000, "on_output_limit": "halt",
    });
    let execution = start(&api, "played", command, &[]).await;
    let order = playing.order().await;
    let ordered = order.command.as_ref().expect("an order has one");
    assert_eq!((ordered.output_limit_bytes, ordered.halt_at_output_limit), (1000, true));
    assert_eq!(playing.end(&order, Reason::OutputLimit, None).await, proto::Verdict::Stored);
    let finished = api.finished(execution.id).await;
    let run = finished.run();
    assert_eq!(
        (run.state, run.reason, run.attempt),
        (RunState::Failed, Some(Reason::OutputLimit), 1),
        "{run:?}"
    );
}

#[tokio::test]
async fn what_is_over_the_output_limit_is_counted_and_not_kept() {
    let world = World::start().await;
    let _agent = world.agent("one").start().await;
    let flags = [
        "exec",
        "-t",
        "one",
        "--output-limit",
        "64KiB",
        "-o",
        "json",
        "--",
        "head",
        "-c",
        "200000",
        "/dev/zero",
    ];
    let said = world.opsctl(&flags).await.ended(0).json();
    let id = said["execution"]["id"].as_str().expect("an id").to_owned();
    eventually(SOON, "what is kept is stored", async || {
        let output = world.api().runs(&id).await.remove(0).output.stdout;
        assert_eq!(output.written_bytes, Some(200_000));
        (output.stored_bytes == 65_536 && output.gap_bytes == 200_000 - 65_536).then_some(())
    })
    .await;
    let too_much = ["exec", "-t", "one", "--output-limit", "1GiB", "--", "true"];
    let said = world.opsctl(&too_much).await.ended(2);
    assert!(said.stderr.contains("RUN_OUTPUT_BYTES"), "{said}");
}

#[tokio::test]
async fn what_a_policy_refuses_is_not_tried_again() {
    let world = World::start().await;
    let agent = world.agent("one").enroll().await;
    std::fs::write(agent.policy(), "allow_adhoc = false\n").expect("the folder can be written");
    let mut agent = agent;
    agent.run();
    agent.online().await;
    let api = world.api();
    let command = json!({ "program": { "shell": "true" }, "retry": { "attempts": 3 }, "idempotent": true });
    let execution = start(&api, "one", command, &[]).await;
    let finished = api.finished(execution.id).await;
    let run = finished.run();
    assert_eq!((run.state, run.reason), (RunState::Failed, Some(Reason::PolicyRefused)), "{run:?}");
    assert_eq!(run.attempt, 1);
}

#[tokio::test]
async fn a_cancel_between_two_tries_ends_it() {
    let world = World::start().await;
    let _agent = world.agent("one").start().await;
    let api = world.api();
    let retry = json!({ "attempts": 5, "backoff_seconds": 600, "max_backoff_seconds": 600 });
    let line = counting(&world, "exit 1");
    let execution = start(&api, "one", json!({ "program": { "shell": line }, "retry": retry }), &[]).await;
    let run = between_tries(&api, &execution).await;
    let due = run.due_at.expect("it waits until then");
    assert!(due.duration_since(opsconductor_tests::clock::now()).as_secs() > 200, "{run:?}");
    world.opsctl(&["execution", "cancel", &execution.id.to_string()]).await.ended(0);
    let finished = api.finished(execution.id).await;
    let run = finished.run();
    assert_eq!((run.state, run.reason), (RunState::Cancelled, Some(Reason::Cancelled)), "{run:?}");
    assert_eq!((run.attempt, count(&world)), (1, 1));
}

/// An exit that happened beats a cancel, and a cancel beats the next try.
#[tokio::test]
async fn what_fails_after_a_cancel_was_asked_for_is_not_tried_again() {
    let world = World::start().await;
    let api = world.api();
    let player = Player::enroll(&world, "played").await;
    let mut playing = player.play(&[]).await;
    let command = json!({ "program": { "shell": "true" }, "retry": { "attempts": 5 }, "idempotent": true });
    let execution = start(&api, "played", command, &[]).await;
    let order = playing.order().await;
    playing.start(&order).await;
    api.act(&format!("/api/v1/executions/{}/cancel", execution.id)).await.accepted();
    assert_eq!(playing.finish(&order, 1).await, proto::Verdict::Stored);
    let finished = api.finished(execution.id).await;
    let run = finished.run();
    assert_eq!((run.state, run.exit_code, run.attempt), (RunState::Failed, Some(1), 1), "{run:?}");
}

#[tokio::test]
async fn a_retry_survives_its_controller() {
    let world = World::start().await;
    let _agent = world.agent("one").start().await;
    let api = world.api();
    let retry = json!({ "attempts": 4, "backoff_seconds": 2 });
    let line = counting(&world, "[ $n -ge 2 ]");
    let execution = start(&api, "one", json!({ "program": { "shell": line }, "retry": retry }), &[]).await;
    between_tries(&api, &execution).await;
    world.kill_controller();
    world.start_controller().await;
    let finished = api.finished(execution.id).await;
    assert_eq!(finished.execution.state, ExecutionState::Succeeded, "{finished:?}");
    assert_eq!((finished.run().attempt, count(&world)), (2, 2));
}

/// A try that its host does not take in time: the run ends as its last try did.
#[tokio::test]
async fn a_next_try_does_not_wait_for_ever() {
    let world = World::start().await;
    let mut agent = world.agent("one").start().await;
    let api = world.api();
    let retry = json!({ "attempts": 2, "backoff_seconds": 3, "max_backoff_seconds": 3 });
    let command = json!({ "program": { "shell": counting(&world, "exit 7") }, "retry": retry });
    let execution = start(&api, "one", command, &[("start_within_seconds", json!(2))]).await;
    between_tries(&api, &execution).await;
    agent.stop();
    let finished = api.finished(execution.id).await;
    let run = finished.run();
    assert_eq!(
        (run.state, run.reason, run.exit_code),
        (RunState::Failed, Some(Reason::Exited), Some(7)),
        "{run:?}"
    );
    assert!(run.detail.as_deref().is_some_and(|detail| detail.contains("in time")), "{run:?}");
    assert_eq!(count(&world), 1);
}

#[tokio::test]
async fn what_is_lost_and_idempotent_is_run_again() {
    let world = World::builder().impatient().start().await;
    let api = world.api();
    let player = Player::enroll(&world, "played").await;
    let mut playing = player.play(&[]).await;
    let command = json!({ "program": { "shell": "true" }, "idempotent": true });
    let execution = start(&api, "played", command, &[]).await;
    let first = playing.order().await;
    assert_eq!((first.attempt, first.superseded_attempt), (1, 0));
    playing.start(&first).await;
    drop(playing);
    let run = between_tries(&api, &execution).await;
    let lost = &attempts(&api, &run).await[0];
    assert_eq!((lost.state, lost.reason), (AttemptState::Lost, Some(Reason::AgentLost)), "{lost:?}");

    let mut playing = player.play(&[&first]).await;
    let second = playing.order().await;
    assert_eq!((second.attempt, second.superseded_attempt), (2, 1));
    // What the first says now is kept, and changes nothing.
    assert_eq!(playing.finish(&first, 9).await, proto::Verdict::Duplicate);
    playing.start(&second).await;
    let run = api.runs(execution.id).await.remove(0);
    assert_eq!((run.state, run.attempt, run.exit_code), (RunState::Active, 2, None), "{run:?}");
    assert_eq!(playing.finish(&second, 0).await, proto::Verdict::Stored);
    let finished = api.finished(execution.id).await;
    let run = finished.run();
    assert_eq!((run.state, run.exit_code), (RunState::Succeeded, Some(0)), "{run:?}");
    assert!(run.observed.is_none(), "{run:?}");
    let attempts = attempts(&api, run).await;
    assert_eq!(
        attempts[0].observed.as_ref().map(|observed| observed.exit_code),
        Some(Some(9)),
        "{attempts:?}"
    );
    assert_eq!((attempts[0].state, attempts[0].exit_code), (AttemptState::Lost, None));
    let shown = world.opsctl(&["execution", "show", &execution.id.to_string()]).await.ended(0).text();
    assert!(shown.contains("exited, exit 9"), "{shown}");
}

#[tokio::test]
async fn what_is_lost_and_not_idempotent_stays_unknown_and_its_truth_is_shown() {
    let world = World::builder().impatient().start().await;
    let api = world.api();
    let player = Player::enroll(&world, "played").await;
    let mut playing = player.play(&[]).await;
    let command = json!({ "program": { "shell": "true" }, "retry": { "attempts": 5 } });
    let execution = start(&api, "played", command, &[]).await;
    let order = playing.order().await;
    playing.start(&order).await;
    drop(playing);
    let finished = api.finished(execution.id).await;
    assert_eq!((finished.run().state, finished.run().attempt), (RunState::Unknown, 1), "{finished:?}");
    let mut playing = player.play(&[&order]).await;
    assert_eq!(playing.finish(&order, 0).await, proto::Verdict::Duplicate);
    let run = api.runs(execution.id).await.remove(0);
    assert_eq!((run.state, run.exit_code), (RunState::Unknown, None), "{run:?}");
    let observed = run.observed.expect("it was told");
    assert_eq!((observed.reason, observed.exit_code), (Reason::Exited, Some(0)));
    let shown = world.opsctl(&["execution", "show", &execution.id.to_string()]).await.ended(0).text();
    assert!(shown.contains("exited, exit 0"), "{shown}");
}

/// The agent and its job are gone for longer than anybody waits, then the agent comes back.
#[tokio::test]
async fn a_killed_agents_idempotent_run_is_run_again_when_it_returns() {
    let world = World::builder().impatient().start().await;
    let mut agent = world.agent("one").start().await;
    let api = world.api();
    let line = counting(&world, "[ $n -ge 2 ] || sleep 1000");
    let command = json!({ "program": { "shell": line }, "idempotent": true });
    let execution = start(&api, "one", command, &[]).await;
    eventually(SOON, "it begins", async || (count(&world) == 1).then_some(())).await;
    agent.kill();
    between_tries(&api, &execution).await;
    agent.run();
    let finished = api.finished(execution.id).await;
    assert_eq!(finished.execution.state, ExecutionState::Succeeded, "{finished:?}");
    assert_eq!((finished.run().attempt, count(&world)), (2, 2));
    // Before the second began the first was ended, and that is told of it.
    let told = attempts(&api, finished.run()).await.remove(0).observed.expect("its end is told");
    assert_eq!(told.reason, Reason::Cancelled, "{told:?}");
}

#[tokio::test]
async fn an_idempotent_run_of_an_agent_that_stays_away_ends_all_the_same() {
    let world = World::builder().impatient().start().await;
    let mut agent = world.agent("one").start().await;
    let api = world.api();
    let command = json!({ "program": { "shell": counting(&world, "sleep 1000") }, "idempotent": true });
    let within = [("start_within_seconds", json!(3))];
    let execution = start(&api, "one", command.clone(), &within).await;
    let cancelled = start(&api, "one", command, &[]).await;
    eventually(SOON, "both begin", async || (count(&world) == 2).then_some(())).await;
    agent.kill();
    // A cancel cannot say that nothing is left, so it does not.
    between_tries(&api, &cancelled).await;
    api.act(&format!("/api/v1/executions/{}/cancel", cancelled.id)).await.accepted();
    for id in [execution.id, cancelled.id] {
        let finished = api.finished(id).await;
        let run = finished.run();
        assert_eq!((run.state, run.reason), (RunState::Unknown, Some(Reason::AgentLost)), "{run:?}");
        assert_eq!(run.attempt, 1);
    }
    assert_eq!(count(&world), 2);
}
