//! An engine that hangs keeps nobody from ending a run, and leaves nothing in the end.

use std::{
    io::Write as _,
    time::{Duration, Instant},
};

use model::{Reason, id::RunId};
use nix::sys::signal::{Signal, kill};
use opsconductor_agent::{
    messages::ToExecutor,
    sandbox::strays,
    shim::{
        container::note::{self, AGENT_LABEL, ATTEMPT_LABEL},
        control,
    },
};
use opsconductor_tests::podman::{Between, Does, IMAGE};
use tokio::sync::oneshot;

use super::{Engine, alone, engine, says_up, shim_of};
use crate::{
    one_shim::{Shim, shell, wait_for},
    world::{Agent, World},
};

/// What is promised of every run: so long after a cancel, or the end of its time, nothing of it is left.
const PROMISED: Duration = Duration::from_secs(10);
const DEAF: &str = "trap '' TERM; echo up; while :; do sleep 1; done";

fn cancel(shim: &Shim) {
    shim.connect().write_all(&[control::ToShim::Cancel.byte()]).unwrap();
}

/// Ended without its engine; when the engine is back the container is removed by whoever finds the note.
fn is_ended_without_engine(engine: &Engine, ends: impl FnOnce(&Shim), timeout_ms: u64, reason: Reason) {
    let ordered = engine.spec(proto::Command { timeout_ms, ..alone(shell(DEAF)) });
    let (run_id, name) = (RunId::from_bytes(&ordered.run_id).unwrap(), ordered.attempt_name());
    let shim = Shim::start(&ordered);
    let folder = shim.folder.path().to_owned();
    says_up(&folder);
    assert!(!strays::find(run_id, 1).is_empty(), "the control: its processes are found");
    engine.0.pause();
    ends(&shim);
    let begun = Instant::now();
    wait_for("nothing of it runs", || strays::find(run_id, 1).is_empty());
    assert!(
        begun.elapsed() < PROMISED + Duration::from_millis(timeout_ms.min(5000)),
        "{:?}",
        begun.elapsed()
    );
    let mut process = shim.process;
    process.wait().unwrap();
    let record = opsconductor_agent::shim::record::read(&folder).unwrap().expect("a record");
    let record = <proto::ExitRecord as prost::Message>::decode(record.as_slice()).unwrap();
    engine.0.resume();
    assert_eq!((record.reason.as_str(), record.exit_code), (reason.as_str(), None), "{record:?}");
    for said in ["was killed", "control group", "could not be removed"] {
        assert!(record.detail.contains(said), "{said}: {record:?}");
    }
    note::remove_noted(&folder, &name).unwrap();
    assert_eq!(engine.0.containers(), "");
    drop(shim.folder);
}

#[test]
fn a_cancel_and_a_timeout_end_what_runs_although_the_engine_hangs() {
    let Some(engine) = engine() else { return };
    is_ended_without_engine(&engine, cancel, 60_000, Reason::Cancelled);
    is_ended_without_engine(&engine, |_| {}, 5000, Reason::TimeLimit);
}

#[test]
fn what_has_not_begun_is_ended_at_once_although_the_engine_hangs() {
    let Some(engine) = engine() else { return };
    for (timeout_ms, reason) in [(60_000, Reason::Cancelled), (1000, Reason::TimeLimit)] {
        engine.0.pause();
        let shim = Shim::start(&engine.spec(proto::Command { timeout_ms, ..alone(shell("echo ran")) }));
        let begun = Instant::now();
        if reason == Reason::Cancelled {
            cancel(&shim);
        }
        let (record, output) = shim.finish();
        engine.0.resume();
        assert!(begun.elapsed() < PROMISED, "{:?}", begun.elapsed());
        assert_eq!((record.reason.as_str(), record.started_at), (reason.as_str(), 0), "{record:?}");
        assert_eq!(output.text(), "");
        assert_eq!(engine.0.containers(), "");
    }
}

/// Whatever the engine is at when the run is cancelled, it is over soon, has not run, and leaves nothing.
#[test]
fn a_cancel_is_heard_at_each_step_of_the_beginning() {
    let Some(engine) = engine() else { return };
    for step in ["/images/", "/containers/create", "/attach", "/start"] {
        let between = engine.0.between(Does::Hold(step));
        // The filter of the other profiles is in a file that is gone when the engine comes to it, and it makes none.
        let profile = proto::Profile::Standard.into();
        let mut ordered = engine.spec(proto::Command { profile, ..shell("echo ran") });
        ordered.engine = between.socket().display().to_string();
        let name = ordered.attempt_name();
        let shim = Shim::start(&ordered);
        wait_for(step, || between.holds());
        let begun = Instant::now();
        cancel(&shim);
        let folder = shim.folder.path().to_owned();
        wait_for("it is over", || folder.join("exit").exists());
        assert!(begun.elapsed() < PROMISED, "{step}: {:?}", begun.elapsed());
        between.let_go();
        let mut process = shim.process;
        process.wait().unwrap();
        let record = opsconductor_agent::shim::record::read(&folder).unwrap().expect("a record");
        let record = <proto::ExitRecord as prost::Message>::decode(record.as_slice()).unwrap();
        assert_eq!((record.reason.as_str(), record.exit_code), ("cancelled", None), "{step}: {record:?}");
        assert_eq!(crate::one_shim::Output::read(&folder).text(), "", "{step}");
        if step == "/containers/create" {
            // The engine comes to it only now, and the note is kept for that.
            wait_for("the container is made", || !engine.0.containers().is_empty());
            note::remove_noted(&folder, &name).unwrap();
        }
        assert_eq!(engine.0.containers(), "", "{step}");
        drop(shim.folder);
    }
}

/// One that answers at once, and never as it should, is no better than one that hangs.
#[test]
fn an_engine_that_only_fails_is_done_without() {
    let Some(engine) = engine() else { return };
    let through = |failing: &Between, line| {
        let mut ordered = engine.spec(alone(shell(line)));
        ordered.engine = failing.socket().display().to_string();
        ordered
    };
    let failing = engine.0.between(Does::Fail("/kill"));
    let ordered = through(&failing, DEAF);
    let run_id = RunId::from_bytes(&ordered.run_id).unwrap();
    let shim = Shim::start(&ordered);
    says_up(shim.folder.path());
    let begun = Instant::now();
    cancel(&shim);
    wait_for("nothing of it runs", || strays::find(run_id, 1).is_empty());
    assert!(begun.elapsed() < PROMISED, "{:?}", begun.elapsed());
    let (record, _) = engine.finish(shim);
    assert_eq!(record.reason, Reason::Cancelled.as_str(), "{record:?}");
    assert!(record.detail.contains("was killed"), "{record:?}");

    let failing = engine.0.between(Does::Fail("/start"));
    let (record, output) = engine.finish(Shim::start(&through(&failing, "echo ran")));
    assert_eq!((record.reason.as_str(), record.started_at), (Reason::SpawnFailed.as_str(), 0), "{record:?}");
    assert!(record.detail.contains("it is in trouble"), "{record:?}");
    assert_eq!(output.text(), "");
}

fn policy(engine: &std::path::Path) -> String {
    format!("[sandbox]\ncontainers = true\nengine = '{}'\n", engine.display())
}

fn contained(line: &str) -> proto::Command {
    proto::Command { image: IMAGE.to_owned(), ..alone(crate::world::command(line)) }
}

/// The executor has one thread here, as in the agent: whoever blocks it is found by that.
#[tokio::test]
async fn the_last_word_is_spoken_and_all_else_goes_on_although_the_engine_hangs() {
    let Some(engine) = engine() else { return };
    let world = World::new();
    std::fs::write(world.policy(), policy(&engine.0.socket())).unwrap();
    let mut agent = world.start(1, false).await;
    let key = crate::world::new_key();
    let order = world.order(&agent, key, contained(DEAF));
    agent.to_executor.send(world.sign(&order)).await.unwrap();
    agent.started().await;
    let shim = shim_of(&world.folder(key));
    engine.0.pause();
    let begun = Instant::now();
    kill(shim, Signal::SIGKILL).unwrap();
    wait_for_async("nothing of it runs", || strays::find(key.run_id, 1).is_empty()).await;
    assert!(begun.elapsed() < PROMISED, "{:?}", begun.elapsed());
    let (answer, asked) = oneshot::channel();
    agent.to_executor.send(ToExecutor::Inventory(answer)).await.unwrap();
    tokio::time::timeout(Duration::from_secs(5), asked).await.expect("it is not held up").unwrap();
    let (reason, detail) = loss(&mut agent).await;
    assert_eq!(reason, Reason::ShimLost.as_str());
    assert!(detail.contains("its container may still run"), "{detail}");
    engine.0.resume();
    agent.to_executor.send(ToExecutor::Settled(key)).await.unwrap();
    wait_for_async("the folder is gone", || !world.folder(key).exists()).await;
    assert_eq!(engine.0.containers(), "");
    agent.stop().await;
}

/// The engine makes the container of a shim that is gone; another agent's, and what only looks like ours, stay.
#[tokio::test]
async fn what_was_made_too_late_is_swept_and_nobody_elses() {
    let Some(engine) = engine() else { return };
    let between = engine.0.between(Does::Hold("/containers/create"));
    let world = World::new();
    std::fs::write(world.policy(), policy(between.socket())).unwrap();
    let mut agent = world.start(1, false).await;
    let key = crate::world::new_key();
    let order = world.order(&agent, key, contained("echo ran"));
    agent.to_executor.send(world.sign(&order)).await.unwrap();
    wait_for_async("the engine is at it", || between.holds()).await;
    kill(shim_of(&world.folder(key)), Signal::SIGKILL).unwrap();
    assert_eq!(loss(&mut agent).await.0, Reason::ShimLost.as_str());
    between.let_go();
    wait_for_async("the container is made", || !engine.0.containers().is_empty()).await;
    let label = |agent: &str| format!("{AGENT_LABEL}={agent}");
    let attempt = format!("{ATTEMPT_LABEL}={}-1", key.run_id);
    engine.0.make_strange("another-agents", &[&label("another"), &attempt]);
    engine.0.make_strange("without-attempt", &[&label(&world.agent_id.to_string())]);
    engine.0.make_strange("without-agent", &[&attempt]);
    engine.0.make_strange("of-its-image", &[&label(&world.agent_id.to_string()), &attempt]);
    agent.stop().await;
    let agent = world.start(1, false).await;
    wait_for_async("it is swept", || !engine.0.containers().contains("opsconductor-")).await;
    for stays in ["another-agents", "without-attempt", "without-agent", "of-its-image"] {
        assert!(engine.0.containers().contains(stays), "{stays}");
    }
    agent.stop().await;
}

/// The loss, whatever is said before.
async fn loss(agent: &mut Agent) -> (String, String) {
    loop {
        if let Some(proto::report::Body::Lost(lost)) = agent.report().await.body {
            return (lost.reason, lost.detail);
        }
    }
}

/// As [`wait_for`], where the executor runs on the same thread.
async fn wait_for_async(what: &str, mut condition: impl FnMut() -> bool) {
    let until = Instant::now() + crate::one_shim::LONG;
    while !condition() {
        assert!(Instant::now() < until, "{what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
