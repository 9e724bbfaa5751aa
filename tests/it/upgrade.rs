//! Agents that stop, are replaced, or come back after the host was restarted: what becomes of the jobs.

use std::{os::unix::fs::PermissionsExt, path::Path};

use model::{Reason, api::output::Stream, execution::ExecutionState};
use nix::sys::signal::Signal;
use opsconductor_tests::{Agent, SOON, World, eventually, process, scene};

/// A job that says its process id and waits for the file `go`.
fn waiting(world: &World) -> String {
    format!("echo $$; while [ ! -e '{}' ]; do sleep 0.02; done; echo done", go(world).display())
}

fn go(world: &World) -> std::path::PathBuf {
    world.folder().join("go")
}

/// Starts the waiting job and gives its execution and process.
async fn job(world: &World) -> (String, u32) {
    let api = world.api();
    let id = api.start_shell("one", &waiting(world)).await.id.to_string();
    let pid = eventually(SOON, "the run prints its process id", async || {
        let output = api.output(&id, "one", Stream::Stdout).await;
        String::from_utf8(output).ok()?.trim().parse::<u32>().ok()
    })
    .await;
    (id, pid)
}

/// Lets the job end and checks that it is whole.
async fn ends_whole(world: &World, id: &str, pid: u32) {
    std::fs::write(go(world), "").expect("the folder can be written");
    let finished = world.api().whole(id).await;
    assert_eq!(finished.execution.state, ExecutionState::Succeeded, "{finished:?}");
    assert_eq!(finished.run().attempt, 1);
    assert_eq!(world.api().stdout(&finished).await, format!("{pid}\ndone\n"));
}

#[tokio::test]
async fn an_agent_that_is_asked_to_stop_leaves_its_jobs() {
    let world = World::start().await;
    let mut agent = world.agent("one").start().await;
    let (id, pid) = job(&world).await;
    agent.stop();
    agent.is("offline").await;
    assert!(process::is_alive(pid), "SIGTERM detaches");
    agent.run();
    agent.online().await;
    ends_whole(&world, &id, pid).await;
}

#[tokio::test]
async fn an_agent_that_is_told_to_kills_its_jobs_first() {
    let world = World::start().await;
    let mut agent = world.agent("one").start().await;
    agent.stop();
    agent.run_with(&["run", "--kill-jobs"]);
    agent.online().await;
    let (id, pid) = job(&world).await;
    agent.stop();
    assert!(!process::is_alive(pid));
    let finished = world.api().finished(&id).await;
    assert_eq!(finished.run().reason, Some(Reason::Cancelled), "{finished:?}");
}

#[tokio::test]
async fn another_binary_takes_over_what_runs() {
    let world = World::start().await;
    let mut agent = world.agent("one").start().await;
    let (id, pid) = job(&world).await;
    agent.stop();
    // Other bytes, as of another version; the first one is gone with its package.
    let new = world.folder().join("opsconductor-agent-new");
    let mut bytes = std::fs::read(scene::binary("opsconductor-agent")).expect("it is built");
    bytes.extend_from_slice(b"another build");
    std::fs::write(&new, bytes).expect("the folder can be written");
    std::fs::set_permissions(&new, PermissionsExt::from_mode(0o755)).expect("it is ours");
    agent.run_program(&new);
    agent.online().await;
    let copies = std::fs::read_dir(agent.data.join("executor/bin")).expect("the agent made it").count();
    assert_eq!(copies, 1, "the old copy is removed, though a shim runs from it");
    assert!(process::is_alive(pid));
    // The new one also starts shims of its own.
    let other = world.api().start_shell("one", "echo new").await;
    let finished = world.api().finished(other.id).await;
    assert_eq!(world.api().stdout(&finished).await, "new\n");
    ends_whole(&world, &id, pid).await;
}

/// Kills agent and shims, as a host does that loses its power; the job goes with its shim.
async fn lose_power(agent: &mut Agent, pid: u32) {
    let shims = agent.shims();
    agent.kill();
    for shim in shims {
        process::signal(shim, Signal::SIGKILL);
    }
    eventually(SOON, "the job is gone", async || (!process::is_alive(pid)).then_some(())).await;
}

fn can_pretend_to_reboot(world: &World) -> bool {
    let file = world.folder().join("boot");
    std::fs::write(&file, "00000000-0000-0000-0000-000000000001\n").expect("the folder can be written");
    let can = std::process::Command::new("unshare")
        .args(["--mount", "mount", "--bind"])
        .arg(&file)
        .arg(BOOT_ID)
        .status()
        .is_ok_and(|status| status.success());
    if !can {
        eprintln!("SKIPPED: this user cannot have mounts of its own");
    }
    can
}

const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// Starts the agent so that it sees another boot of its host.
fn run_after_reboot(world: &World, agent: &mut Agent) {
    let file = world.folder().join("boot");
    let script = format!("mount --bind '{}' {BOOT_ID} && exec \"$@\"", file.display());
    agent.run_through(Path::new("unshare"), &["--mount", "sh", "-c", &script, "sh"]);
}

#[tokio::test]
async fn what_ran_when_the_host_restarted_is_unknown() {
    let world = World::start().await;
    if !can_pretend_to_reboot(&world) {
        return;
    }
    let mut agent = world.agent("one").start().await;
    let (id, pid) = job(&world).await;
    lose_power(&mut agent, pid).await;
    run_after_reboot(&world, &mut agent);
    let finished = world.api().finished(&id).await;
    assert_eq!(finished.execution.state, ExecutionState::Unknown, "{finished:?}");
    assert_eq!(finished.run().reason, Some(Reason::HostRebooted));
    let output = world.api().output(&id, "one", Stream::Stdout).await;
    assert_eq!(String::from_utf8(output), Ok(format!("{pid}\n")), "its output until then is there");
}

#[tokio::test]
async fn what_had_ended_when_the_host_restarted_is_known() {
    let world = World::start().await;
    if !can_pretend_to_reboot(&world) {
        return;
    }
    let mut agent = world.agent("one").start().await;
    let (id, pid) = job(&world).await;
    agent.kill();
    std::fs::write(go(&world), "").expect("the folder can be written");
    eventually(SOON, "the shim ends without an agent", async || agent.shims().is_empty().then_some(())).await;
    run_after_reboot(&world, &mut agent);
    ends_whole(&world, &id, pid).await;
}
