//! An agent is two processes: the link, which speaks to the network and has no privileges, and the executor, which speaks
//! to nobody but the link and the shims. Either may die at any time.

use std::{collections::BTreeMap, os::unix::fs::MetadataExt as _, path::Path, time::Duration};

use model::{api::output::Stream, run::RunState};
use nix::{sys::signal::Signal, unistd::geteuid};
use opsconductor_tests::{Agent, SOON, World, agent, eventually, process};

/// The fields of `/proc/PID/status`.
fn status(pid: u32) -> BTreeMap<String, String> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let lines = text.lines().filter_map(|line| line.split_once(':'));
    lines.map(|(name, value)| (name.to_owned(), value.trim().to_owned())).collect()
}

async fn link(agent: &Agent) -> u32 {
    eventually(SOON, "there is a link", async || agent.link()).await
}

#[tokio::test]
async fn the_link_has_no_privileges() {
    let world = World::start().await;
    let agent = world.agent("one").start().await;
    let pid = link(&agent).await;
    let is = status(pid);
    let field = |name: &str| is.get(name).map(String::as_str).unwrap_or_default();
    for name in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
        assert_eq!(u64::from_str_radix(field(name), 16), Ok(0), "{name}: {is:?}");
    }
    assert_eq!((field("NoNewPrivs"), field("Seccomp")), ("1", "2"), "{is:?}");
    assert_eq!(field("PPid"), agent.pid().to_string());

    let shown = agent::command(&agent.data, &["status", "--output", "json"]).output().expect("it starts");
    let shown: serde_json::Value = serde_json::from_slice(&shown.stdout).expect("it is JSON");
    let live = &shown["live"];
    assert_eq!(live["link_pid"], pid, "{shown}");
    assert_eq!(live["pid"], agent.pid(), "{shown}");
    // The machines that test this have all of it.
    let missing = live["confinement"]["missing"].as_array().expect("a list").clone();
    if geteuid().is_root() {
        assert_eq!(missing, [] as [&str; 0]);
        assert_eq!(u64::from_str_radix(field("CapBnd"), 16), Ok(0), "{is:?}");
        let uid = live["confinement"]["uid"].as_u64().expect("a number");
        assert_ne!(uid, 0);
        for name in ["Uid", "Gid"] {
            let ids: Vec<&str> = field(name).split_whitespace().collect();
            assert!(ids.iter().all(|id| *id == ids[0] && *id != "0"), "{name}: {is:?}");
        }
        assert_eq!(field("Groups"), "");
        // What is the link's is its user's, and of the rest nothing.
        let owner = |path: &str| std::fs::metadata(agent.data.join(path)).expect("it is there").uid();
        for path in ["link", "link/identity/current/key.der", "link/spool"] {
            assert_eq!(u64::from(owner(path)), uid, "{path}");
        }
        for path in [".", "executor", "executor/keys/result.key", "executor/anchor.toml"] {
            assert_eq!(owner(path), 0, "{path}");
        }
    } else {
        assert!(
            missing.iter().all(|what| what.as_str().is_some_and(|what| what.contains("bounding set"))),
            "{shown}"
        );
        assert_eq!(live["confinement"]["uid"], geteuid().as_raw(), "{shown}");
    }
    for folder in ["", "executor", "link"] {
        let mode = std::fs::metadata(agent.data.join(folder)).expect("it is there").mode();
        assert_eq!(mode & 0o077, 0, "{folder}");
    }
}

/// The sockets of a process that are in a table of the kernel.
fn sockets(pid: u32, table: &str) -> usize {
    let files = std::fs::read_dir(format!("/proc/{pid}/fd")).expect("it runs").flatten();
    let own: Vec<String> = files
        .filter_map(|file| std::fs::read_link(file.path()).ok())
        .filter_map(|target| Some(target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned()))
        .collect();
    let table = std::fs::read_to_string(format!("/proc/{pid}/net/{table}")).unwrap_or_default();
    let is_own = |line: &&str| {
        line.split_whitespace().nth(9).is_some_and(|inode| own.iter().any(|socket| socket == inode))
    };
    table.lines().skip(1).filter(is_own).count()
}

#[tokio::test]
async fn the_executor_has_nothing_of_the_network() {
    let world = World::start().await;
    let agent = world.agent("one").start().await;
    world.api().shell("one", "echo some output").await;
    let link = link(&agent).await;
    assert!(sockets(link, "tcp") > 0, "the look finds none");
    for table in ["tcp", "tcp6", "udp", "udp6", "raw", "raw6"] {
        assert_eq!(sockets(agent.pid(), table), 0, "{table}");
    }
}

/// Both die at moments that nobody chose: each run is started at most once, ends, and has all that it wrote.
#[tokio::test]
async fn either_process_dies_and_nothing_is_lost() {
    const RUNS: usize = 50;
    const ROUNDS: usize = 12;
    let world = World::start().await;
    let mut agent = world.agent("one").slots(8).start().await;
    let api = world.api();
    let tale = world.folder().join("tale");
    let mut executions = Vec::new();
    for number in 0..RUNS {
        let line = format!(
            "echo {number}-began >> '{}'; for i in $(seq 20); do echo $i; sleep 0.02; done",
            tale.display()
        );
        executions.push(api.start_shell("one", &line).await);
    }
    for round in 0..ROUNDS {
        let begun = || std::fs::read_to_string(&tale).unwrap_or_default().lines().count();
        eventually(SOON, "some more runs begin", async || (begun() >= (round + 1) * 3).then_some(())).await;
        tokio::time::sleep(Duration::from_millis(fastrand::u64(0..100))).await;
        if round % 3 == 2 {
            let link = link(&agent).await;
            agent.kill();
            // It does not outlive its executor.
            eventually(SOON, "the link ends", async || (!process::is_alive(link)).then_some(())).await;
            agent.run();
        } else {
            process::signal(link(&agent).await, Signal::SIGKILL);
        }
    }
    let want: String = (1..=20).map(|i| format!("{i}\n")).collect();
    for (number, execution) in executions.iter().enumerate() {
        let finished = api.finished(execution.id).await;
        let (run, begun) = (finished.run(), std::fs::read_to_string(&tale).expect("some began"));
        assert_eq!(run.state, RunState::Succeeded, "{run:?}");
        assert_eq!(begun.lines().filter(|line| *line == format!("{number}-began")).count(), 1, "{run:?}");
        api.whole(execution.id).await;
        let output = api.output(execution.id, "one", Stream::Stdout).await;
        assert_eq!(String::from_utf8(output).as_deref(), Ok(want.as_str()), "{run:?}");
    }
    assert!(!agent.has_ended());
}

#[tokio::test]
async fn a_link_that_stands_still_holds_up_no_run() {
    let world = World::start().await;
    let agent = world.agent("one").start().await;
    let api = world.api();
    let done = world.folder().join("done");
    let line = format!("for i in $(seq 50); do echo $i; sleep 0.01; done; echo > '{}'", done.display());
    let execution = api.start_shell("one", &line).await;
    eventually(SOON, "it begins", async || (!agent.shims().is_empty()).then_some(())).await;
    let link = link(&agent).await;
    process::signal(link, Signal::SIGSTOP);
    eventually(SOON, "the run ends meanwhile", async || done.exists().then_some(())).await;
    process::signal(link, Signal::SIGCONT);
    let finished = api.finished(execution.id).await;
    assert_eq!(finished.run().state, RunState::Succeeded, "{finished:?}");
}

/// Gives all of a folder to the user of this test.
fn take(folder: &Path) {
    std::os::unix::fs::lchown(folder, Some(0), Some(0)).expect("root may");
    for entry in std::fs::read_dir(folder).expect("it is there").flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            take(&entry.path());
        } else {
            std::os::unix::fs::lchown(entry.path(), Some(0), Some(0)).expect("root may");
        }
    }
}

#[tokio::test]
async fn the_folder_of_an_agent_of_one_process_is_taken_over() {
    let world = World::start().await;
    let mut agent = world.agent("one").start().await;
    agent.stop();
    let anchor = agent.data.join("executor/anchor.toml");
    let noted = std::fs::read_to_string(&anchor).expect("it was made");
    std::fs::remove_file(&anchor).expect("it was made");
    if geteuid().is_root() {
        // A link that was taken over could have written this folder: nobody takes from it whom to believe.
        let refused = agent::command(&agent.data, &["run"]).output().expect("it starts");
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(!refused.status.success() && said.contains("--force"), "{said}");
        take(&agent.data.join("link"));
    }
    agent.run();
    agent.online().await;
    assert_eq!(std::fs::read_to_string(&anchor).expect("it is there again"), noted);
    world.api().shell("one", "true").await;
}
