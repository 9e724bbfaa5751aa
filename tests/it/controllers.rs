//! Two controllers on one database: work goes on at the other one, and an old one disturbs nothing.

use std::time::Duration;

use model::{Reason, api::output::Stream, execution::ExecutionState, run::RunState};
use nix::sys::signal::Signal;
use opsconductor_tests::{Agent, SOON, World, agent, eventually};
use serde_json::{Value, json};
use sqlx::postgres::PgListener;

async fn two() -> (World, World) {
    let first = World::builder().impatient_but_for_absence().announcing().start().await;
    let second = first.second_controller().await;
    (first, second)
}

/// How many sessions this controller serves, as `by` shows it.
async fn sessions(of: &World, by: &World) -> i64 {
    let id = std::fs::read_to_string(of.data().join("controller-id")).expect("it is there");
    let list = by.api().get("/api/v1/controllers").await.accepted().value();
    let found = list["items"].as_array().expect("a list").iter().find(|one| one["id"] == id.trim());
    found.map_or(0, |one: &Value| one["sessions"].as_i64().expect("a number"))
}

/// Waits until the agent was told of these controllers.
async fn knows(agent: &Agent, controllers: &[&World]) {
    let known = agent.data.join("link/controllers");
    eventually(SOON, "the agent knows the controllers", async || {
        let text = std::fs::read_to_string(&known).unwrap_or_default();
        controllers.iter().all(|world| text.contains(&world.door().to_string())).then_some(())
    })
    .await;
}

async fn serves(world: &World, by: &World, count: i64) {
    eventually(SOON, "the controller serves these sessions", async || {
        (sessions(world, by).await == count).then_some(())
    })
    .await;
}

async fn line(world: &World, id: impl ToString, want: &str) {
    let id = id.to_string();
    eventually(SOON, &format!("the line '{want}'"), async || {
        let bytes = world.api().output(&id, "one", Stream::Stdout).await;
        String::from_utf8_lossy(&bytes).lines().any(|line| line == want).then_some(())
    })
    .await;
}

/// A run that goes on until its host has the file.
fn until(agent: &Agent, name: &str) -> (String, std::path::PathBuf) {
    let file = agent.data.join(name);
    let line = format!("echo begun; while [ ! -e '{}' ]; do sleep 0.05; done; echo done", file.display());
    (line, file)
}

#[tokio::test]
async fn a_run_is_started_followed_and_cancelled_through_either() {
    let (first, second) = two().await;
    let agent = second.agent("one").start().await;
    serves(&second, &first, 1).await;

    let (shell, file) = until(&agent, "go-1");
    let execution = first.api().start_shell("one", &shell).await;
    // The follower at the first controller gets what comes in at the second.
    let mut follower = first.opsctl_command(&["logs", "--follow", &execution.id.to_string()]);
    let follower = tokio::spawn(async move { follower.output().await.expect("opsctl starts") });
    line(&first, execution.id, "begun").await;
    std::fs::write(&file, "").expect("the agent's folder is ours");
    let followed = follower.await.expect("it ends");
    let text = String::from_utf8_lossy(&followed.stdout).into_owned();
    assert!(text.contains("begun") && text.contains("done"), "{text}");
    assert_eq!(first.api().finished(execution.id).await.execution.state, ExecutionState::Succeeded);

    for canceller in [&first, &second] {
        let (shell, _) = until(&agent, "never");
        let execution = first.api().start_shell("one", &shell).await;
        line(&second, execution.id, "begun").await;
        canceller.api().act(&format!("/api/v1/executions/{}/cancel", execution.id)).await.accepted();
        let finished = second.api().finished(execution.id).await;
        assert_eq!(finished.run().state, RunState::Cancelled, "{finished:?}");
    }
}

#[tokio::test]
async fn controllers_wake_each_other_and_leave_out_themselves() {
    let (first, second) = two().await;
    let agent = second.agent("one").start().await;
    let id = |world: &World| {
        std::fs::read_to_string(world.data().join("controller-id")).expect("it is there").trim().to_owned()
    };
    let mut listener = PgListener::connect(first.database()).await.expect("the database answers");
    listener.listen_all(["opsconductor", "opsconductor_output"]).await.expect("everybody may");
    let execution = first.api().start_shell("one", "echo heard").await;
    let mut expected = vec![("opsconductor", id(&first)), ("opsconductor_output", id(&second))];
    let heard = tokio::time::timeout(SOON, async {
        while !expected.is_empty() {
            let heard = listener.recv().await.expect("the database answers");
            expected.retain(|(channel, from)| heard.channel() != *channel || heard.payload() != from);
        }
    });
    assert!(heard.await.is_ok(), "never heard: {expected:?}");
    assert_eq!(first.api().finished(execution.id).await.execution.state, ExecutionState::Succeeded);

    // Who is alone wakes nobody: its lease's next round notices that the other one has gone.
    drop(agent);
    assert!(second.stop_controller().success());
    eventually(SOON, "the first controller is silent", async || {
        let body = json!({ "targets": { "names": ["one"] }, "command": { "program": { "shell": "true" } } });
        first.api().post("/api/v1/executions", &body).await.accepted();
        let silent = tokio::time::timeout(Duration::from_millis(300), listener.recv()).await.is_err();
        silent.then_some(())
    })
    .await;
}

#[tokio::test]
async fn agents_go_to_the_other_one_when_theirs_is_killed() {
    let (first, second) = two().await;
    // One was told by the controllers where they are, the other by its own configuration.
    let told = first.agent("one").start().await;
    let mut configured = first.agent("two").controllers(&[first.door(), second.door()]).enroll().await;
    configured.run();
    configured.online().await;
    knows(&told, &[&first, &second]).await;

    let (shell, file) = until(&told, "go");
    let execution = first.api().start_shell("one", &shell).await;
    line(&first, execution.id, "begun").await;
    first.kill_controller();
    serves(&second, &second, 2).await;
    // Work that was begun goes on, and what is queued anew starts.
    std::fs::write(&file, "").expect("the agent's folder is ours");
    let finished = second.api().whole(execution.id).await;
    assert_eq!(finished.execution.state, ExecutionState::Succeeded, "{finished:?}");
    assert_eq!(second.api().output(execution.id, "one", Stream::Stdout).await, b"begun\ndone\n");
    for name in ["one", "two"] {
        let finished = second.api().shell(name, "true").await;
        assert_eq!(finished.execution.state, ExecutionState::Succeeded, "{finished:?}");
    }

    // And back: an orderly stop sends them away at once. Each can be alone, and come first.
    first.start_controller().await;
    assert!(second.stop_controller().success());
    serves(&first, &first, 2).await;
    assert!(first.stop_controller().success());
    second.start_controller().await;
    serves(&second, &second, 2).await;
    first.start_controller().await;
    let finished = first.api().shell("one", "true").await;
    assert_eq!(finished.execution.state, ExecutionState::Succeeded, "{finished:?}");
}

#[tokio::test]
async fn sessions_of_a_killed_controller_end_with_its_lease() {
    let first = World::builder().impatient().start().await;
    let second = first.second_controller().await;
    // It knows the first controller alone.
    let agent = first.agent("one").start().await;
    let (shell, _) = until(&agent, "never");
    let running = first.api().start_shell("one", &shell).await;
    line(&first, running.id, "begun").await;
    first.kill_controller();
    let shown = second.api();
    eventually(SOON, "the agent is offline", async || {
        let agent = shown.get("/api/v1/agents/one").await.accepted().value();
        (agent["state"] == "offline").then_some(())
    })
    .await;
    let body = json!({
        "targets": { "names": ["one"] }, "command": { "program": { "shell": "true" } }, "start_within_seconds": 2,
    });
    let queued: Value = second.api().post("/api/v1/executions", &body).await.accepted().value();
    let finished = second.api().finished(queued["id"].as_str().expect("an id")).await;
    assert_eq!(finished.run().state, RunState::Expired, "{finished:?}");
    let finished = second.api().finished(running.id).await;
    assert_eq!((finished.run().state, finished.run().reason), (RunState::Unknown, Some(Reason::AgentLost)));
}

#[tokio::test]
async fn a_controller_that_slept_past_its_lease_disturbs_nothing() {
    let (first, second) = two().await;
    let agent = first.agent("one").start().await;
    knows(&agent, &[&first, &second]).await;
    let (shell, file) = until(&agent, "go");
    let execution = first.api().start_shell("one", &shell).await;
    line(&first, execution.id, "begun").await;
    first.signal_controller(Signal::SIGSTOP);
    serves(&second, &second, 1).await;
    let marker = agent.data.join("ran");
    let other = second.api().start_shell("one", &format!("echo >> '{}'", marker.display())).await;
    assert_eq!(second.api().finished(other.id).await.execution.state, ExecutionState::Succeeded);

    first.signal_controller(Signal::SIGCONT);
    // It works again, and its sessions are over.
    eventually(SOON, "the controller answers again", async || {
        first.api().try_get("/ready").await.filter(|answer| answer.status == 200)
    })
    .await;
    serves(&first, &first, 0).await;
    assert_eq!(sessions(&second, &first).await, 1);
    let third = first.api().start_shell("one", &format!("echo >> '{}'", marker.display())).await;
    assert_eq!(first.api().finished(third.id).await.execution.state, ExecutionState::Succeeded);
    std::fs::write(&file, "").expect("the agent's folder is ours");
    let finished = first.api().whole(execution.id).await;
    assert_eq!(finished.execution.state, ExecutionState::Succeeded, "{finished:?}");
    assert_eq!(first.api().output(execution.id, "one", Stream::Stdout).await, b"begun\ndone\n");
    let starts = std::fs::read_to_string(&marker).expect("it ran").lines().count();
    assert_eq!(starts, 2, "each was started once");
}

#[tokio::test]
async fn no_controller_works_beside_others_with_a_wrong_clock() {
    let (first, second) = two().await;
    second.stop_controller();
    for (offset, says) in [("+1h", "ahead of"), ("-1h", "behind")] {
        let wrong = agent::clock(offset);
        let wrong: Vec<(&str, &str)> = wrong.iter().map(|(name, value)| (*name, value.as_str())).collect();
        second.run_controller_with(&wrong);
        let status = eventually(SOON, "it ends", async || second.controller_ended()).await;
        assert!(!status.success(), "{status:?}");
        let log = second.controller_log();
        assert!(log.contains(&format!("{says} the database's, and other controllers work on it")), "{log}");
    }
    // It may also come to be wrong while it works.
    let clock = second.folder().join("clock");
    std::fs::write(&clock, "+0").expect("the folder is ours");
    let clocked = agent::clock_in(&clock);
    let clocked: Vec<(&str, &str)> = clocked.iter().map(|(name, value)| (*name, value.as_str())).collect();
    second.start_controller_with(&clocked).await;
    std::fs::write(&clock, "+1h").expect("the folder is ours");
    let status = eventually(SOON, "it ends", async || second.controller_ended()).await;
    assert!(!status.success(), "{status:?}");
    // One that is alone has nobody to confuse.
    first.stop_controller();
    second.start_controller_with(&clocked).await;
    assert!(second.controller_log().contains("another controller could not work beside it"));
}

#[tokio::test]
async fn a_repeated_request_starts_nothing_twice_through_either() {
    let (first, second) = two().await;
    let agent = first.agent("one").start().await;
    let body = json!({ "targets": { "names": ["one"] }, "command": { "program": { "shell": "true" } } });
    let ask = async |world: &World| {
        let api = world.api();
        let request = api.request(reqwest::Method::POST, "/api/v1/executions");
        api.send(request.header("idempotency-key", "once").json(&body)).await
    };
    let (one, two) = tokio::join!(ask(&first), ask(&second));
    let mut ids = Vec::new();
    for answer in [one, two, ask(&first).await, ask(&second).await] {
        // The one that came second may have come before the first was done.
        if answer.status == 409 {
            answer.refused(409, "still_running");
        } else {
            ids.push(answer.accepted().value()["id"].clone());
        }
    }
    assert!(ids.len() >= 3 && ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    drop(agent);
}

#[tokio::test]
async fn dispatch_keys_rotate_while_jobs_run() {
    let world = World::builder().impatient().dispatch_key_life("4s").announcing().start().await;
    let second = world.second_controller().await;
    let mut agent = world.agent("one").start().await;
    let certificates = async || -> i64 {
        let count = "select count(distinct manifest_certificate) from executions";
        sqlx::query_scalar(count).fetch_one(&mut world.sql().await).await.expect("the owner may")
    };
    let (shell, file) = until(&agent, "go");
    let long = world.api().start_shell("one", &shell).await;
    line(&world, long.id, "begun").await;
    // Runs of either controller, under one key after the other.
    let mut turn = [&world, &second].into_iter().cycle();
    while certificates().await < 6 {
        let through = turn.next().expect("it goes on for ever");
        let finished = through.api().shell("one", "seq 100").await;
        assert_eq!(finished.execution.state, ExecutionState::Succeeded, "{finished:?}");
    }
    std::fs::write(&file, "").expect("the agent's folder is ours");
    let finished = world.api().whole(long.id).await;
    assert_eq!(finished.execution.state, ExecutionState::Succeeded, "{finished:?}");
    assert_eq!(world.api().output(long.id, "one", Stream::Stdout).await, b"begun\ndone\n");

    // A run that waits for longer than any of these keys lives starts all the same.
    agent.stop();
    agent.is("offline").await;
    let waiting = world.api().start_shell("one", "echo late").await;
    let certificate = async || -> Vec<u8> {
        sqlx::query_scalar("select manifest_certificate from executions where id = $1")
            .bind(waiting.id.0)
            .fetch_one(&mut world.sql().await)
            .await
            .expect("the owner may")
    };
    let mut seen = vec![certificate().await];
    while seen.len() < 6 {
        seen.push(
            eventually(SOON, "the manifest is signed anew", async || {
                Some(certificate().await).filter(|new| !seen.contains(new))
            })
            .await,
        );
    }
    agent.run();
    let finished = world.api().finished(waiting.id).await;
    assert_eq!(finished.execution.state, ExecutionState::Succeeded, "{finished:?}");
}
