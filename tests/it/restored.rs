//! A database that went back to an older copy of itself: nothing waits for ever, and everything says what it is.

use model::{Reason, execution::ExecutionState, run::RunState};
use opsconductor_tests::{Agent, SOON, World, eventually, postgres};

/// Stops the controller and gives it a copy of its database; the answer is the way back to it.
struct Backup {
    world: World,
    copy: String,
}

impl Backup {
    fn take(world: &World) -> Self {
        assert!(world.stop_controller().success());
        Self { world: world.clone(), copy: postgres::copied_database(world.database()) }
    }

    /// Stops the controller again, and starts it with the backup.
    async fn restore(self) -> World {
        assert!(self.world.stop_controller().success());
        self.world.restored(self.copy).await
    }
}

async fn succeeds(world: &World, agent: &str) {
    let finished = world.api().shell(agent, "true").await;
    assert_eq!(finished.execution.state, ExecutionState::Succeeded, "{finished:?}");
}

/// Nothing of it is left on the host.
async fn settled(agent: &Agent) {
    let attempts = agent.data.join("executor/attempts");
    eventually(SOON, "the host has let go of its attempts", async || {
        (std::fs::read_dir(&attempts).ok()?.count() == 0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn agents_work_on_with_a_database_that_knows_less() {
    let world = World::builder().impatient_but_for_absence().start().await;
    let mut agent = world.agent("one").start().await;
    succeeds(&world, "one").await;

    let backup = Backup::take(&world);
    world.start_controller().await;
    // Sessions, and so fences, that the backup has never heard of.
    for _ in 0..4 {
        agent.stop();
        agent.run();
        agent.is("online").await;
        succeeds(&world, "one").await;
    }
    // And a run whose end will come when nobody knows it any more.
    let file = agent.data.join("go");
    let shell = format!("echo begun; while [ ! -e '{}' ]; do sleep 0.05; done; echo done", file.display());
    let forgotten = world.api().start_shell("one", &shell).await;
    eventually(SOON, "the run has begun", async || {
        let runs = world.api().runs(forgotten.id).await;
        runs[0].started_at.map(|_| ())
    })
    .await;

    let world = backup.restore().await;
    world.agents_online(1).await;
    succeeds(&world, "one").await;
    world.api().get(&format!("/api/v1/executions/{}", forgotten.id)).await.refused(404, "not_found");
    std::fs::write(&file, "").expect("the agent's folder is ours");
    settled(&agent).await;
    eventually(SOON, "no report waits for an answer", async || {
        let status =
            opsconductor_tests::agent::command(&agent.data, &["status", "--output", "json"]).output();
        let status = status.expect("the agent's program starts").stdout;
        let status: serde_json::Value = serde_json::from_slice(&status).ok()?;
        (status["unanswered_reports"] == 0).then_some(())
    })
    .await;
    succeeds(&world, "one").await;
}

#[tokio::test]
async fn what_the_backup_calls_open_ends() {
    let world = World::builder().impatient_but_for_absence().start().await;
    let mut agent = world.agent("one").start().await;
    let file = agent.data.join("go");
    let shell = format!("echo begun; while [ ! -e '{}' ]; do sleep 0.05; done; echo done", file.display());
    let running = world.api().start_shell("one", &shell).await;
    eventually(SOON, "the run has begun", async || {
        world.api().runs(running.id).await[0].started_at.map(|_| ())
    })
    .await;
    agent.stop();
    agent.is("offline").await;
    let marker = agent.data.join("ran");
    let queued = world.api().start_shell("one", &format!("echo >> '{}'", marker.display())).await;

    let backup = Backup::take(&world);
    world.start_controller().await;
    agent.run();
    assert_eq!(world.api().finished(queued.id).await.execution.state, ExecutionState::Succeeded);
    std::fs::write(&file, "").expect("the agent's folder is ours");
    assert_eq!(world.api().whole(running.id).await.execution.state, ExecutionState::Succeeded);
    settled(&agent).await;

    // The backup calls the one running, the other queued. The host knows better, and starts nothing again.
    let world = backup.restore().await;
    for execution in [running.id, queued.id] {
        let finished = world.api().finished(execution).await;
        let run = finished.run();
        assert_eq!((run.state, run.reason), (RunState::Unknown, Some(Reason::JournalLost)), "{run:?}");
        assert!(run.detail.is_some(), "{run:?}");
    }
    assert_eq!(std::fs::read_to_string(&marker).expect("it ran once").lines().count(), 1);
    succeeds(&world, "one").await;
}

#[tokio::test]
async fn certificates_that_the_backup_does_not_know_count() {
    let world = World::builder().impatient_but_for_absence().certificate_life("30s").start().await;
    let mut agent = world.agent("one").start().await;
    let first = opsconductor_tests::door::Puppet::of(&agent);
    let backup = Backup::take(&world);
    world.start_controller().await;
    agent.is("online").await;
    let of = |agent: &Agent| std::fs::read(agent.data.join("link/identity/current/certificate.der"));
    let before = of(&agent).expect("it is enrolled");
    eventually(SOON, "the certificate is renewed", async || {
        Some(of(&agent).ok()?).filter(|now| *now != before)
    })
    .await;
    agent.is("online").await;
    let newcomer = world.agent("two").start().await;

    let world = backup.restore().await;
    world.agents_online(1).await;
    succeeds(&world, "one").await;
    // The one before it is worth no more than it was.
    if let Ok(channel) = first.connect(world.door()).await {
        let refused = proto::metrics_client::MetricsClient::new(channel).report(tokio_stream::empty()).await;
        refused.expect_err("a certificate that was replaced counts again");
    }
    // Who enrolled since is a stranger, and is told so.
    eventually(SOON, "the newcomer is told why", async || {
        newcomer.log().contains("there is no such agent").then_some(())
    })
    .await;
    agent.stop();
}
