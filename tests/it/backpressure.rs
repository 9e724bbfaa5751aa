//! When output comes faster than it goes: the host that makes it waits, nothing is lost in silence, and nobody else suffers.

use std::path::{Path, PathBuf};

use model::{
    api::output::{Data, OutputPage, Stream},
    run::RunState,
};
use opsconductor_tests::{Agent, Proxy, SOON, World, eventually};

/// The room for output on the hosts of these tests.
const SPOOL_BYTES: u64 = 4 * 1024 * 1024;
/// What a run writes there: more than there is room for, some of it twice.
const WRITTEN_BYTES: usize = 12 * 1024 * 1024;

/// A host with little room, behind a network that can be cut; and a run that is about to write far more than that.
struct Scene {
    world: World,
    proxy: Proxy,
    agent: Agent,
    id: String,
    content: Vec<u8>,
}

impl Scene {
    async fn new(block_for_seconds: u32) -> Self {
        let world = World::start().await;
        let proxy = Proxy::start(world.door());
        let agent = world
            .agent("one")
            .through(proxy.address())
            .setting("SPOOL_BYTES", SPOOL_BYTES)
            .setting("TIMING__BLOCK_FOR_SECONDS", block_for_seconds)
            .start()
            .await;
        let content: Vec<u8> =
            std::iter::repeat_with(pki::random::<64>).take(WRITTEN_BYTES / 64).flatten().collect();
        let path = |name: &str| world.folder().join(name).display().to_string();
        std::fs::write(path("content"), &content).expect("the folder can be written");
        let line = format!(
            "echo up >&2; while [ ! -e '{}' ]; do sleep 0.02; done; cat '{}'; echo > '{}'",
            path("go"),
            path("content"),
            path("written")
        );
        let id = world.api().start_shell("one", &line).await.id.to_string();
        let api = world.api();
        eventually(SOON, "it runs", async || (!api.pieces(&id, "", 1).await.is_empty()).then_some(())).await;
        proxy.cut();
        agent.is("offline").await;
        Self { world, proxy, agent, id, content }
    }

    fn go(&self) {
        std::fs::write(self.world.folder().join("go"), "").expect("the folder can be written");
    }

    fn has_written(&self) -> bool {
        self.world.folder().join("written").exists()
    }
}

/// Bytes of the output files of a host.
fn spooled(agent: &Agent) -> u64 {
    let output = |entry: std::fs::DirEntry| std::fs::metadata(entry.path().join("output")).ok();
    let attempts = std::fs::read_dir(agent.data.join("executor/attempts")).expect("the agent made it");
    attempts.flatten().filter_map(output).map(|file| file.len()).sum()
}

#[tokio::test]
async fn a_host_that_is_cut_off_waits_and_loses_nothing() {
    let mut scene = Scene::new(3600).await;
    // Also while no agent runs.
    scene.agent.kill();
    scene.go();
    eventually(SOON, "the room is full", async || (spooled(&scene.agent) >= SPOOL_BYTES).then_some(())).await;
    scene.agent.run();
    let spooled = spooled(&scene.agent);
    assert!(spooled < SPOOL_BYTES + SPOOL_BYTES / 8, "{spooled}");
    assert!(!scene.has_written(), "it waits");
    scene.proxy.heal();
    let finished = scene.world.api().whole(&scene.id).await;
    assert_eq!(finished.run().state, RunState::Succeeded, "{finished:?}");
    assert_eq!(finished.run().output.stdout.gap_bytes, 0);
    let output = scene.world.api().output(&scene.id, "one", Stream::Stdout).await;
    assert!(output == scene.content, "{} of {} bytes", output.len(), scene.content.len());
}

#[tokio::test]
async fn a_host_that_stays_cut_off_goes_on_and_shows_the_gap() {
    let scene = Scene::new(1).await;
    scene.go();
    eventually(SOON, "the run goes on", async || scene.has_written().then_some(())).await;
    scene.proxy.heal();
    let written = i64::try_from(WRITTEN_BYTES).expect("it fits");
    let api = scene.world.api();
    let finished = eventually(SOON, "all is told", async || {
        let finished = api.finished(&scene.id).await;
        let told = &finished.run().output.stdout;
        (told.stored_bytes + told.gap_bytes == written).then_some(finished)
    })
    .await;
    assert_eq!(finished.run().state, RunState::Succeeded, "{finished:?}");
    let output = &finished.run().output;
    assert!(output.stdout.gap_bytes > 0 && output.complete == Some(false), "{output:?}");
    assert_eq!(output.stdout.written_bytes, Some(written));
    // What there is, is what was written there.
    let mut at = 0;
    for piece in api.pieces(&scene.id, "&target=one&stream=stdout", 1000).await {
        assert_eq!(usize::try_from(piece.offset), Ok(at));
        match &piece.data {
            Data::Gap(missing) => at += usize::try_from(*missing).expect("a gap has a size"),
            data => {
                let bytes = opsconductor_tests::api::plain(data);
                assert!(scene.content[at..].starts_with(&bytes), "at {at}");
                at += bytes.len();
            }
        }
    }
    assert_eq!(at, WRITTEN_BYTES);
}

/// The most memory that a process has had, in bytes.
fn peak_memory(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("the kernel says it");
    line.trim().trim_end_matches(" kB").trim().parse::<u64>().expect("it is a number") * 1024
}

/// What an agent and a shim may ever take, debug builds with their logs included.
const AGENT_BYTES: u64 = 112 * 1024 * 1024;
const SHIM_BYTES: u64 = 24 * 1024 * 1024;

#[tokio::test]
async fn a_gibibyte_on_one_host_hurts_no_other() {
    let world = World::start().await;
    let loud = world.agent("loud").start().await;
    let quiet = world.agent("quiet").start().await;
    let path = |name: &str| -> PathBuf { world.folder().join(name) };
    let api = world.api();
    let there = |path: &Path| format!("while [ ! -e '{}' ]; do sleep 0.05; done", path.display());
    let line = format!(
        "echo; yes 'a line of a very long log' | head -c 1073741824; echo > '{}'; {}",
        path("written").display(),
        there(&path("go"))
    );
    let loud_id = api.start_shell("loud", &line).await.id.to_string();
    let first = format!("/api/v1/executions/{loud_id}/output?limit=1");
    eventually(SOON, "it writes", async || {
        let page: OutputPage = api.get(&first).await.accepted().json();
        (!page.items.is_empty()).then_some(())
    })
    .await;
    // Meanwhile a small run goes through, each of its lines as it is written: it waits for us in between.
    let step = |number: u32| path(&format!("step-{number}"));
    let lines: Vec<String> =
        (0..10).map(|number| format!("{}; echo {number}", there(&step(number)))).collect();
    let id = api.start_shell("quiet", &lines.join("; ")).await.id.to_string();
    for number in 0..10 {
        std::fs::write(step(number), "").expect("the folder can be written");
        eventually(SOON, "the next line arrives", async || {
            let output = api.output(&id, "quiet", Stream::Stdout).await;
            String::from_utf8(output).expect("digits").contains(&number.to_string()).then_some(())
        })
        .await;
    }
    assert_eq!(api.finished(&id).await.run().state, RunState::Succeeded);
    eventually(SOON * 8, "all is written", async || path("written").exists().then_some(())).await;
    let (shims, links) = (loud.shims(), [&loud, &quiet].map(|agent| agent.link().expect("it is there")));
    let agents = [loud.pid(), quiet.pid(), links[0], links[1]].map(|pid| (pid, AGENT_BYTES));
    for (pid, most) in agents.into_iter().chain([(shims[0], SHIM_BYTES)]) {
        let peak = peak_memory(pid);
        assert!(peak < most, "{peak} bytes");
    }
    std::fs::write(path("go"), "").expect("the folder can be written");
    let finished = api.finished(&loud_id).await;
    assert_eq!(finished.run().output.stdout.written_bytes, Some((1 << 30) + 1), "{finished:?}");
}
