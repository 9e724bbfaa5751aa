//! Crashes and bad networks: every run ends, its output is whole, and nothing is run twice.

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use model::{Reason, api::output::Stream, execution::ExecutionState, run::RunState};
use opsconductor_tests::{Agent, Finished, Proxy, SOON, World, eventually, process};
use serde_json::json;

/// Counts for some seconds; tells in a file that it began, and that it ended.
const COUNT: usize = 40;

fn counting(world: &World) -> String {
    let tale = tale(world);
    let tale = tale.display();
    format!(
        "echo began >> '{tale}'; for i in $(seq {COUNT}); do echo $i; sleep 0.08; done; echo ended >> '{tale}'"
    )
}

fn tale(world: &World) -> PathBuf {
    world.folder().join("tale")
}

/// Waits until the counting has ended on its host, whoever knows of it.
async fn has_counted(world: &World) {
    eventually(SOON, "the counting ends", async || {
        std::fs::read_to_string(tale(world)).is_ok_and(|tale| tale.contains("ended")).then_some(())
    })
    .await;
}

/// Waits until some of the output is there.
async fn runs(world: &World, id: impl ToString) {
    let (api, id) = (world.api(), id.to_string());
    eventually(SOON, "the first lines arrive", async || {
        (!api.pieces(&id, "", 10).await.is_empty()).then_some(())
    })
    .await;
}

/// Checks that the run succeeded, once, with all that it wrote.
async fn counted(world: &World, id: impl ToString) -> Finished {
    let (api, id) = (world.api(), id.to_string());
    let finished = api.whole(&id).await;
    assert_eq!(finished.execution.state, ExecutionState::Succeeded, "{finished:?}");
    assert_eq!(finished.run().attempt, 1);
    let want: String = (1..=COUNT).map(|i| format!("{i}\n")).collect();
    let output = api.output(&id, &finished.run().target, Stream::Stdout).await;
    assert_eq!(String::from_utf8(output).as_deref(), Ok(want.as_str()));
    let tale = std::fs::read_to_string(tale(world)).expect("it began");
    assert_eq!(tale, "began\nended\n", "it was run more than once, or not to its end");
    finished
}

#[tokio::test]
async fn a_killed_agents_run_goes_on_and_is_whole() {
    let world = World::start().await;
    let mut agent = world.agent("one").start().await;
    let execution = world.api().start_shell("one", &counting(&world)).await;
    runs(&world, execution.id).await;
    agent.kill();
    agent.is("offline").await;
    assert_eq!(agent.shims().len(), 1, "the shim outlives its agent");
    agent.run();
    counted(&world, execution.id).await;
    eventually(SOON, "the shim ends", async || agent.shims().is_empty().then_some(())).await;
}

#[tokio::test]
async fn a_run_that_ended_while_its_agent_was_dead_is_told() {
    let world = World::start().await;
    let mut agent = world.agent("one").start().await;
    let execution = world.api().start_shell("one", &counting(&world)).await;
    runs(&world, execution.id).await;
    agent.kill();
    eventually(SOON, "the shim ends without an agent", async || agent.shims().is_empty().then_some(())).await;
    assert!(!world.api().execution(execution.id).await.state.is_terminal());
    agent.run();
    counted(&world, execution.id).await;
}

#[tokio::test]
async fn a_killed_controller_loses_nothing() {
    let world = World::start().await;
    let _agent = world.agent("one").start().await;
    let execution = world.api().start_shell("one", &counting(&world)).await;
    runs(&world, execution.id).await;
    // Somebody who follows meanwhile sees all of it.
    let id = execution.id.to_string();
    let seen = world.folder().join("seen");
    let file = std::fs::File::create(&seen).expect("the folder can be written");
    let mut following =
        world.opsctl_command(&["logs", "-f", "--raw", &id]).stdout(file).spawn().expect("opsctl starts");
    let read = || std::fs::read_to_string(&seen).expect("it was made");
    eventually(SOON, "the follower sees a line", async || (!read().is_empty()).then_some(())).await;
    world.kill_controller();
    world.start_controller().await;
    counted(&world, execution.id).await;
    assert!(following.wait().await.expect("it is our child").success());
    assert_eq!(read(), (1..=COUNT).map(|i| format!("{i}\n")).collect::<String>());
}

#[tokio::test]
async fn agent_and_controller_may_die_together() {
    let world = World::start().await;
    let mut agent = world.agent("one").start().await;
    let execution = world.api().start_shell("one", &counting(&world)).await;
    runs(&world, execution.id).await;
    agent.kill();
    world.kill_controller();
    agent.run();
    world.start_controller().await;
    counted(&world, execution.id).await;
}

#[tokio::test]
async fn a_cut_network_heals() {
    let world = World::start().await;
    let proxy = Proxy::start(world.door());
    let agent = world.agent("one").through(proxy.address()).start().await;
    let execution = world.api().start_shell("one", &counting(&world)).await;
    runs(&world, execution.id).await;
    proxy.cut();
    agent.is("offline").await;
    proxy.heal();
    agent.online().await;
    proxy.stall();
    has_counted(&world).await;
    assert!(!world.api().execution(execution.id).await.state.is_terminal());
    proxy.heal();
    counted(&world, execution.id).await;
}

#[tokio::test]
async fn what_is_queued_for_an_absent_agent_runs_when_it_returns() {
    let world = World::start().await;
    let mut agent = world.agent("one").start().await;
    agent.stop();
    agent.is("offline").await;
    let execution = world.api().start_shell("one", "echo back").await;
    let run = world.api().runs(execution.id).await.remove(0);
    assert_eq!((run.state, run.attempt), (RunState::Queued, 0), "{run:?}");
    agent.run();
    let finished = world.api().finished(execution.id).await;
    assert_eq!(world.api().stdout(&finished).await, "back\n");
}

#[tokio::test]
async fn what_an_agent_ran_that_stays_away_is_unknown() {
    let world = World::builder().impatient().start().await;
    let mut agent = world.agent("one").start().await;
    let execution = world.api().start_shell("one", "echo up; sleep 1000").await;
    runs(&world, execution.id).await;
    agent.kill();
    let finished = world.api().finished(execution.id).await;
    assert_eq!(finished.execution.state, ExecutionState::Unknown, "{finished:?}");
    assert_eq!(finished.run().reason, Some(Reason::AgentLost));
}

#[tokio::test]
async fn what_nobody_takes_expires() {
    let world = World::start().await;
    let agent = world.agent("away").enroll().await;
    let said = world.opsctl(&["exec", "-t", "away", "--start-within", "1s", "--", "true"]).await.ended(6);
    assert!(said.stderr.contains("start_expired"), "{said}");
    let list = world.opsctl(&["execution", "list", "--state", "expired", "-o", "json"]).await.ended(0);
    assert!(list.text().contains("expired"), "{list}");
    // What waits can be cancelled without the host.
    let execution = world.api().start_shell("away", "true").await;
    world.opsctl(&["execution", "cancel", &execution.id.to_string()]).await.ended(0);
    let finished = world.api().finished(execution.id).await;
    assert_eq!(finished.execution.state, ExecutionState::Cancelled);
    assert_eq!(finished.run().attempt, 0);
    drop(agent);
}

#[tokio::test]
async fn a_revoked_agent_is_cut_off_within_a_second() {
    let world = World::start().await;
    let mut agent = world.agent("one").start().await;
    let api = world.api();
    let execution = api.start_shell("one", "echo up; sleep 1000").await;
    runs(&world, execution.id).await;
    let door = format!(":{:04X}", world.door().port());
    assert!(connections(&agent, &door) > 0);
    let path = format!("/api/v1/agents/{}", agent.id().await);
    api.act(&format!("{path}/revoke")).await.accepted();
    let revoked = Instant::now();
    eventually(SOON, "its connections are cut", async || (connections(&agent, &door) == 0).then_some(()))
        .await;
    let took = revoked.elapsed();
    assert!(took < Duration::from_secs(1), "it took {took:?}");
    assert_eq!(api.get(&path).await.accepted().value()["state"], "revoked");
    let finished = api.finished(execution.id).await;
    assert_eq!(finished.execution.state, ExecutionState::Unknown, "{finished:?}");
    assert_eq!(finished.run().reason, Some(Reason::AgentRevoked));
    // It is told, and does not come back.
    api.post(
        "/api/v1/executions",
        &json!({ "targets": { "names": ["one"] }, "command": { "program": { "shell": "true" } } }),
    )
    .await
    .refused(422, "no_targets");
    eventually(SOON, "the agent knows that it was revoked", async || {
        (agent.has_ended() || agent.log().contains("revoked")).then_some(())
    })
    .await;
}

/// Established connections to a port of this World, by the kernel's own table.
fn connections(agent: &Agent, port: &str) -> usize {
    const ESTABLISHED: &str = "01";
    let table = std::fs::read_to_string(format!("/proc/{}/net/tcp", agent.pid())).unwrap_or_default();
    table
        .lines()
        .skip(1)
        .filter(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            fields.len() > 3 && fields[2].ends_with(port) && fields[3] == ESTABLISHED
        })
        .count()
}

#[tokio::test]
async fn a_cancel_reaches_an_agent_that_was_away() {
    let world = World::start().await;
    let mut agent = world.agent("one").start().await;
    let api = world.api();
    let execution = api.start_shell("one", "echo $$; exec sleep 1000").await;
    let pid = eventually(SOON, "the run prints its process id", async || {
        let output = api.output(execution.id, "one", Stream::Stdout).await;
        String::from_utf8(output).ok()?.trim().parse::<u32>().ok()
    })
    .await;
    agent.kill();
    agent.is("offline").await;
    api.act(&format!("/api/v1/executions/{}/cancel", execution.id)).await.accepted();
    let asked = api.execution(execution.id).await;
    assert!(asked.cancel_requested && !asked.state.is_terminal(), "{asked:?}");
    assert!(process::is_alive(pid));
    agent.run();
    let finished = api.finished(execution.id).await;
    assert_eq!(finished.execution.state, ExecutionState::Cancelled, "{finished:?}");
    assert!(!process::is_alive(pid), "{pid} is left");
}

#[tokio::test]
async fn a_killed_shim_makes_the_outcome_unknown() {
    let world = World::start().await;
    let agent = world.agent("one").start().await;
    let api = world.api();
    let execution = api.start_shell("one", "echo up; sleep 1000").await;
    runs(&world, execution.id).await;
    for shim in agent.shims() {
        process::signal(shim, nix::sys::signal::Signal::SIGKILL);
    }
    let finished = api.finished(execution.id).await;
    assert_eq!(finished.execution.state, ExecutionState::Unknown, "{finished:?}");
    assert_eq!(finished.run().reason, Some(Reason::ShimLost));
}

/// Crashes at moments that nobody chose: each run is started at most once, ends, and has all that it wrote.
#[tokio::test]
async fn many_crashes_start_nothing_twice_and_lose_nothing() {
    const RUNS: usize = 60;
    const ROUNDS: usize = 12;
    let world = World::start().await;
    let mut agents = Vec::new();
    for name in ["one", "two"] {
        agents.push(world.agent(name).slots(4).start().await);
    }
    let api = world.api();
    let tale = tale(&world);
    let mut executions = Vec::new();
    for number in 0..RUNS {
        let line = format!(
            "echo {number}-began >> '{}'; for i in $(seq 20); do echo $i; sleep 0.02; done",
            tale.display()
        );
        executions.push(api.start_shell(["one", "two"][number % 2], &line).await);
    }
    for round in 0..ROUNDS {
        let begun = || std::fs::read_to_string(&tale).unwrap_or_default().lines().count();
        let wanted = (round + 1) * 4;
        eventually(SOON, "some more runs begin", async || (begun() >= wanted).then_some(())).await;
        agents[round % 2].kill();
        agents[round % 2].run();
        if round % 4 == 1 {
            world.kill_controller();
            world.start_controller().await;
        }
    }
    let want: String = (1..=20).map(|i| format!("{i}\n")).collect();
    for (number, execution) in executions.iter().enumerate() {
        let finished = api.finished(execution.id).await;
        let (run, begun) = (finished.run(), std::fs::read_to_string(&tale).expect("some began"));
        // An attempt that never began is told as such and tried again, so that none is unknown.
        assert_eq!(run.state, RunState::Succeeded, "{run:?}");
        let begun = begun.lines().filter(|line| *line == format!("{number}-began")).count();
        assert_eq!(begun, 1, "{run:?}");
        api.whole(execution.id).await;
        let output = api.output(execution.id, &run.target, Stream::Stdout).await;
        assert_eq!(String::from_utf8(output).as_deref(), Ok(want.as_str()), "{run:?}");
    }
}
