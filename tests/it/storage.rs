//! Full disks and wrong clocks: what happens is said, nothing is lost, and it goes on by itself when they are mended.

use model::{Reason, api::output::Stream, execution::ExecutionState, run::RunState};
use opsconductor_tests::{SOON, World, chaos::disk::Disk, eventually, small_disk::SmallDisk};

#[tokio::test]
async fn a_full_disk_refuses_runs_and_loses_no_output() {
    let Some(disk) = SmallDisk::mount(96) else { return };
    let world = World::start().await;
    let agent = world.agent("small").data(&disk.folder().join("agent")).start().await;
    let api = world.api();
    // A run that is under way waits for space.
    let go = world.folder().join("go");
    let line =
        format!("echo up; until [ -e '{}' ]; do sleep 0.05; done; seq 100000; echo down >&2", go.display());
    let running = api.start_shell("small", &line).await;
    eventually(SOON, "the run is up", async || {
        (!api.pieces(running.id, "", 10).await.is_empty()).then_some(())
    })
    .await;
    let ballast = disk.fill();
    // New ones are refused, by name: more of them than fit into what the agent's databases have at hand.
    for _ in 0..40 {
        let finished = api.shell("small", "echo no").await;
        let run = finished.run();
        assert_eq!((run.state, run.reason), (RunState::Failed, Some(Reason::NoSpace)), "{run:?}");
        assert!(
            run.detail.as_deref().is_some_and(|detail| detail.contains("free") || detail.contains("space"))
        );
    }
    std::fs::write(&go, "").expect("the folder can be written");
    let blocked = tokio::time::timeout(std::time::Duration::from_secs(2), api.finished(running.id)).await;
    assert!(blocked.is_err(), "it cannot write, and yet it ended: {blocked:?}");
    std::fs::remove_file(ballast).expect("it is ours");
    let finished = api.whole(running.id).await;
    assert_eq!(finished.run().state, RunState::Succeeded, "{finished:?}");
    let want: String =
        std::iter::once("up\n".to_owned()).chain((1..=100_000).map(|i| format!("{i}\n"))).collect();
    assert!(api.output(running.id, "small", Stream::Stdout).await == want.as_bytes(), "the output differs");
    assert_eq!(api.output(running.id, "small", Stream::Stderr).await, b"down\n");
    // With room again it works again, without a restart.
    let finished = eventually(SOON, "runs are taken again", async || {
        Some(api.shell("small", "echo yes").await)
            .filter(|finished| finished.run().state == RunState::Succeeded)
    })
    .await;
    assert_eq!(api.stdout(&finished).await, "yes\n");
    drop(agent);
}

/// What was accepted is on the disk, and not only on its way there.
#[tokio::test]
async fn a_host_that_loses_its_power_knows_what_it_had_accepted() {
    let Some(disk) = Disk::create("power") else { return };
    let world = World::start().await;
    let mut agent = world.agent("one").data(&disk.mounted().join("data")).own_boot().start().await;
    let api = world.api();
    for _ in 0..4 {
        let mut begun = Vec::new();
        for _ in 0..4 {
            let id = api.start_shell("one", "sleep 1000").await.id;
            eventually(SOON, "it runs", async || {
                let shown = api.get(&format!("/api/v1/executions/{id}")).await.accepted().value();
                (shown["runs"]["active"] == 1).then_some(())
            })
            .await;
            begun.push(id);
        }
        disk.fail_power(&mut agent).await;
        agent.run();
        for id in begun {
            let finished = api.finished(id).await;
            let run = finished.run();
            assert_eq!((run.state, run.reason), (RunState::Unknown, Some(Reason::HostRebooted)), "{run:?}");
        }
    }
}

/// The controller's own disk: its Postgres cannot write, so nothing is taken that could be lost.
#[tokio::test]
async fn a_controller_with_a_full_disk_says_so_and_goes_on_when_it_has_room() {
    let Some(disk) = SmallDisk::mount(320) else { return };
    let world = World::builder().embedded().data(&disk.folder().join("controller")).start().await;
    let agent = world.agent("one").start().await;
    let api = world.api();
    let go = world.folder().join("go");
    let line = format!("echo up; until [ -e '{}' ]; do sleep 0.05; done; seq 100000", go.display());
    let running = api.start_shell("one", &line).await;
    eventually(SOON, "the run is up", async || {
        (!api.pieces(running.id, "", 10).await.is_empty()).then_some(())
    })
    .await;
    let ballast = disk.fill();
    std::fs::write(&go, "").expect("the folder can be written");
    // Until what Postgres has at hand is used up, work may still be taken; then it is refused, and said why.
    let refused = eventually(SOON, "the controller refuses work", async || {
        let line = format!(": {}", "x".repeat(100_000));
        let body = serde_json::json!({ "targets": { "names": ["one"] }, "command": { "program": { "shell": line } } });
        Some(api.post("/api/v1/executions", &body).await).filter(|answer| answer.status >= 500)
    })
    .await;
    assert_eq!(refused.status, 503, "{refused:?}");
    std::fs::remove_file(ballast).expect("it is ours");
    let finished = api.whole(running.id).await;
    assert_eq!(finished.run().state, RunState::Succeeded, "{finished:?}");
    let want: String =
        std::iter::once("up\n".to_owned()).chain((1..=100_000).map(|i| format!("{i}\n"))).collect();
    assert!(api.output(running.id, "one", Stream::Stdout).await == want.as_bytes(), "the output differs");
    let finished = eventually(SOON, "runs are taken again", async || {
        let body = serde_json::json!({ "targets": { "names": ["one"] }, "command": { "program": { "shell": "echo yes" } } });
        let answer = api.post("/api/v1/executions", &body).await;
        if answer.status >= 300 {
            return None;
        }
        Some(api.finished(answer.value()["id"].as_str()?).await)
    })
    .await;
    assert_eq!(finished.execution.state, ExecutionState::Succeeded);
    drop(agent);
}

/// A host whose clock is an hour fast believes that every order comes too late.
#[tokio::test]
async fn a_fast_clock_refuses_orders_by_name() {
    let world = World::start().await;
    let agent = world.agent("fast").clock("+1h").start().await;
    let finished = world.api().shell("fast", "echo no").await;
    let run = finished.run();
    assert_eq!((run.state, run.reason), (RunState::Failed, Some(Reason::StartExpired)), "{run:?}");
    assert!(run.detail.as_deref().is_some_and(|detail| detail.contains("clock")), "{run:?}");
    drop(agent);
}

/// One that is an hour slow believes that orders are of the future.
#[tokio::test]
async fn a_slow_clock_starts_nothing_and_says_why() {
    let world = World::start().await;
    let mut agent = world.agent("slow").clock("-1h").enroll().await;
    agent.run();
    eventually(SOON, "the agent blames the clock", async || agent.log().contains("clock").then_some(()))
        .await;
    drop(agent);
}

/// 400 days later every certificate has expired.
#[tokio::test]
async fn a_clock_that_is_far_off_is_blamed() {
    let world = World::start().await;
    let mut agent = world.agent("late").clock("+400d").enroll().await;
    agent.run();
    eventually(SOON, "the agent blames the clock", async || agent.log().contains("clock").then_some(()))
        .await;
    assert_eq!(agent.shown().await["state"], "offline");
    drop(agent);
}
