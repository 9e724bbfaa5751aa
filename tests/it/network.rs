//! Networks that misbehave while a run streams: it ends once, with all that it wrote, and the other agents do not notice.

use std::{path::PathBuf, time::Duration};

use model::{Reason, api::output::Stream, execution::ExecutionState, run::RunState};
use opsconductor_tests::{
    Agent, Api, Finished, Host, Proxy, SOON, World,
    door::Puppet,
    eventually,
    host::Partition,
    proxy::Way::{self, ToAgent, ToController},
    scene,
    world::LOST_AFTER,
};
use proto::{
    AgentFrame, ControllerFrame, Hello, agent_frame, controller_frame::Frame, session_client::SessionClient,
};
use tokio::{io::AsyncWriteExt, net::TcpStream, sync::mpsc};
use tokio_stream::wrappers::ReceiverStream;

/// Lines of a streaming run.
const LINES: usize = 60;
/// Connections that an agent has: its session's and its output's.
const PER_AGENT: usize = 2;

/// Tells in a file that it began and ended, and counts in between, for so many tenths of a second.
fn counting(world: &World, lines: usize) -> String {
    let tale = tale(world);
    let tale = tale.display();
    format!(
        "echo began >> '{tale}'; for i in $(seq {lines}); do echo $i; sleep 0.1; done; echo ended >> '{tale}'"
    )
}

fn tale(world: &World) -> PathBuf {
    world.folder().join("tale")
}

fn told(world: &World) -> String {
    std::fs::read_to_string(tale(world)).unwrap_or_default()
}

/// Waits until a line that is none of the first `skip` has arrived.
async fn streams(api: &Api, id: impl ToString, skip: usize) {
    let id = id.to_string();
    eventually(SOON, "more lines arrive", async || {
        (api.output(&id, &api.runs(&id).await[0].target, Stream::Stdout).await.len() > 2 * skip).then_some(())
    })
    .await;
}

async fn holds_all(api: &Api, finished: &Finished, lines: usize) {
    let want: String = (1..=lines).map(|i| format!("{i}\n")).collect();
    let output = api.output(finished.id(), &finished.run().target, Stream::Stdout).await;
    assert_eq!(String::from_utf8(output).as_deref(), Ok(want.as_str()));
}

/// Checks that the run succeeded, once, with all that it wrote.
async fn counted(world: &World, id: impl ToString, lines: usize) {
    let api = world.api();
    let finished = api.whole(id).await;
    assert_eq!(finished.execution.state, ExecutionState::Succeeded, "{finished:?}");
    assert_eq!(finished.run().attempt, 1);
    holds_all(&api, &finished, lines).await;
    assert_eq!(told(world), "began\nended\n", "it was run more than once, or not to its end");
}

/// Established connections at the agents' door, by the kernel's own table.
fn at_the_door(world: &World) -> usize {
    const ESTABLISHED: &str = "01";
    let port = format!(":{:04X}", world.door().port());
    let table = std::fs::read_to_string("/proc/self/net/tcp").expect("there is /proc");
    let is_one = |line: &&str| {
        let mut fields = line.split_whitespace().skip(1);
        fields.next().is_some_and(|local| local.ends_with(&port)) && fields.nth(1) == Some(ESTABLISHED)
    };
    table.lines().filter(is_one).count()
}

/// One agent behind a proxy, and one beside it.
struct Scenery {
    world: World,
    proxy: Proxy,
    behind: Agent,
    _beside: Agent,
}

impl Scenery {
    async fn set_up() -> Self {
        let world = World::builder().watchful().start().await;
        let proxy = Proxy::start(world.door());
        let behind = world.agent("behind").through(proxy.address()).start().await;
        let beside = world.agent("beside").start().await;
        Self { world, proxy, behind, _beside: beside }
    }

    /// The agent beside the proxy works as ever.
    async fn others_do_not_notice(&self) {
        let api = self.world.api();
        let other = api.shell("beside", "echo well").await;
        assert_eq!(api.stdout(&other).await, "well\n");
        assert_eq!(other.run().attempt, 1);
    }

    /// Nothing of what broke is left at the door.
    async fn nothing_is_left(&self) {
        self.world.agents_online(2).await;
        eventually(SOON, "the broken connections are gone", async || {
            (at_the_door(&self.world) <= 2 * PER_AGENT && self.proxy.open() <= PER_AGENT).then_some(())
        })
        .await;
    }
}

/// Has a run stream behind the proxy, does `fault`, and sees everything come to its end.
async fn survives(fault: impl AsyncFnOnce(&Scenery)) {
    let scenery = Scenery::set_up().await;
    let Scenery { world, proxy, .. } = &scenery;
    let execution = world.api().start_shell("behind", &counting(world, LINES)).await;
    streams(&world.api(), execution.id, 0).await;
    fault(&scenery).await;
    scenery.others_do_not_notice().await;
    proxy.heal();
    counted(world, execution.id, LINES).await;
    scenery.nothing_is_left().await;
}

#[tokio::test]
async fn a_slow_network_only_takes_longer() {
    survives(async |scenery| {
        for way in [ToController, ToAgent] {
            scenery.proxy.delay(way, Duration::from_millis(150));
            scenery.proxy.throttle(way, 16 * 1024);
        }
        // Through all that: another run, its output and its end.
        let api = scenery.world.api();
        let slow = api.shell("behind", "seq 500").await;
        let want: String = (1..=500).map(|i| format!("{i}\n")).collect();
        assert_eq!(api.stdout(&slow).await, want);
    })
    .await;
}

async fn survives_a_stall(way: Way) {
    survives(async |scenery| {
        scenery.proxy.stall_one(way);
        scenery.behind.is("offline").await;
        scenery.others_do_not_notice().await;
        scenery.proxy.heal();
        scenery.behind.online().await;
    })
    .await;
}

#[tokio::test]
async fn an_agent_that_is_not_heard_comes_back() {
    survives_a_stall(ToController).await;
}

#[tokio::test]
async fn an_agent_that_does_not_hear_comes_back() {
    survives_a_stall(ToAgent).await;
}

/// In the TLS record's head, in a frame's head, in the middle of what they carry.
#[tokio::test]
async fn a_connection_may_be_cut_in_the_middle_of_a_frame() {
    survives(async |scenery| {
        let proxy = &scenery.proxy;
        let budgets = [1, 3, 7, 30, 64, 200, 700, 1500, 3100];
        for (number, bytes) in budgets.into_iter().enumerate() {
            let way = if number % 2 == 0 { ToController } else { ToAgent };
            proxy.cut_after(way, bytes);
            eventually(SOON, "a connection is cut", async || (proxy.cuts() > number).then_some(())).await;
        }
        scenery.behind.online().await;
    })
    .await;
}

#[tokio::test]
async fn a_reset_is_got_over() {
    survives(async |scenery| {
        scenery.proxy.reset();
        scenery.behind.is("offline").await;
    })
    .await;
}

#[tokio::test]
async fn what_accepts_and_never_answers_is_left_again() {
    survives(async |scenery| {
        scenery.proxy.half_open();
        scenery.behind.is("offline").await;
        // The agent waits for an answer that does not come.
        eventually(SOON, "it tries again", async || (scenery.proxy.open() > 0).then_some(())).await;
    })
    .await;
}

/// Whoever repeats what an agent said on its connection is a stranger: a recording does not open a session.
#[tokio::test]
async fn a_repeated_connection_changes_nothing() {
    survives(async |scenery| {
        scenery.proxy.repeat();
        scenery.proxy.cut_after(ToController, 1);
        eventually(SOON, "the connections are new", async || (scenery.proxy.cuts() > 0).then_some(())).await;
        scenery.behind.online().await;
        let shown = scenery.behind.shown().await;
        assert_eq!(shown["state"], "online", "{shown}");
    })
    .await;
}

/// Many connections that say nothing, or stop in the middle of their first word.
#[tokio::test]
async fn a_crowd_that_says_nothing_holds_up_nobody() {
    const CROWD: usize = 1500;
    /// What the controller may need for them, in KiB.
    const MEMORY: u64 = 96 * 1024;
    let world = World::builder().watchful().start().await;
    let _inside = world.agent("inside").start().await;
    let memory = || {
        let status =
            std::fs::read_to_string(format!("/proc/{}/status", world.controller_pid())).expect("it lives");
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("the kernel says so");
        line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).expect("it is a number")
    };
    let before = memory();
    let execution = world.api().start_shell("inside", &counting(&world, LINES)).await;
    let mut crowd = Vec::new();
    for number in 0..CROWD {
        let mut stream = TcpStream::connect(world.door()).await.expect("the door is open");
        if number % 2 == 0 {
            // The head of a handshake record of which nothing follows.
            stream.write_all(&[22, 3, 1, 2, 0, 1]).await.expect("it is taken");
        }
        crowd.push(stream);
    }
    let newcomer = world.agent("newcomer").start().await;
    let api = world.api();
    let said = api.shell("newcomer", "echo well").await;
    assert_eq!(api.stdout(&said).await, "well\n");
    counted(&world, execution.id, LINES).await;
    let grown = memory().saturating_sub(before);
    assert!(grown < MEMORY, "the controller grew by {grown} KiB");
    eventually(SOON, "the crowd is sent away", async || (at_the_door(&world) <= 2 * PER_AGENT).then_some(()))
        .await;
    drop((crowd, newcomer));
}

/// Whoever answers nothing, because the network swallows it, and then forgets, may have started what it was ordered.
#[tokio::test]
async fn what_an_agent_forgot_before_it_answered_is_not_started_again() {
    let world = World::builder().watchful().start().await;
    let proxy = Proxy::start(world.door());
    let mut agent = world.agent("one").through(proxy.address()).start().await;
    proxy.stall_one(ToController);
    let line = format!("echo began >> '{}'; sleep 1000", tale(&world).display());
    let execution = world.api().start_shell("one", &line).await;
    eventually(SOON, "it begins", async || (told(&world) == "began\n").then_some(())).await;
    agent.kill();
    let journal = agent.data.join("executor/journal");
    for file in std::fs::read_dir(&journal).expect("it is there").flatten() {
        if file.path().is_file() {
            let length = usize::try_from(file.metadata().expect("it is there").len()).expect("it is small");
            std::fs::write(file.path(), vec![0xa5; length]).expect("it is ours");
        }
    }
    proxy.heal();
    agent.run();
    let finished = world.api().finished(execution.id).await;
    assert_eq!(finished.execution.state, ExecutionState::Unknown, "{finished:?}");
    assert_eq!((finished.run().reason, finished.run().attempt), (Some(Reason::JournalLost), 1));
    assert_eq!(told(&world), "began\n", "it was started again");
}

/// Opens a stream of a session and says nothing yet.
async fn stream(
    puppet: &Puppet,
    world: &World,
) -> (mpsc::Sender<AgentFrame>, tonic::Streaming<ControllerFrame>) {
    let (frames, outbound) = mpsc::channel(4);
    let channel = puppet.connect(world.door()).await.expect("it is enrolled");
    let answer =
        SessionClient::new(channel).open(ReceiverStream::new(outbound)).await.expect("it is enrolled");
    (frames, answer.into_inner())
}

/// An agent that left a connection behind says there, late, that it does not hold what it was ordered on the next one.
#[tokio::test]
async fn a_hello_that_comes_late_opens_nothing() {
    let world = World::start().await;
    let token = world.enroll_token(&serde_json::json!({})).await;
    let puppet = Puppet::enroll(world.door(), &token, "one").await;
    let hello = |since_boot| {
        let (boot_id, journal_epoch) = ("boot".to_owned(), vec![7; 16]);
        let hello = Hello {
            protocol_min: 1,
            protocol_max: 1,
            slots: 4,
            boot_id,
            journal_epoch,
            since_boot,
            ..Hello::default()
        };
        AgentFrame { frame: Some(agent_frame::Frame::Hello(hello)) }
    };
    let (left_behind, mut of_left_behind) = stream(&puppet, &world).await;
    let (next, mut of_next) = stream(&puppet, &world).await;
    next.send(hello(2)).await.expect("there is room");
    let execution = world.api().start_shell("one", "true").await;
    loop {
        let frame = of_next.message().await.expect("the stream holds").expect("the stream goes on");
        if matches!(frame.frame, Some(Frame::Order(_))) {
            break;
        }
    }
    left_behind.send(hello(1)).await.expect("there is room");
    let answer = of_left_behind.message().await.expect("the stream holds").and_then(|frame| frame.frame);
    assert!(matches!(&answer, Some(Frame::Goodbye(goodbye)) if goodbye.code == "superseded"), "{answer:?}");
    let run = world.api().runs(execution.id).await.remove(0);
    assert_eq!((run.state, run.attempt), (RunState::Active, 1), "{run:?}");
}

/// A World and an agent on a host of its own; none where there can be no such host.
async fn on_a_host(world: World) -> Option<(World, Host, Agent)> {
    let host = Host::new()?;
    let agent = world.agent("far").on(&host).start().await;
    Some((world, host, agent))
}

const PARTITIONS: [Partition; 4] =
    [Partition::Both, Partition::ToController, Partition::ToAgent, Partition::Unplugged];

/// Parts the host for `time` while a run streams; it goes on, and nothing of it is lost.
async fn survives_a_partition(world: &World, host: &Host, partition: Partition, time: Duration) {
    let _ = std::fs::remove_file(tale(world));
    let lines = LINES.max(usize::try_from(time.as_millis() / 100).expect("it is short") + 20);
    let execution = world.api().start_shell("far", &counting(world, lines)).await;
    streams(&world.api(), execution.id, 0).await;
    host.part(partition);
    // This is the fault itself; nothing is expected to happen meanwhile.
    tokio::time::sleep(time).await;
    host.heal();
    counted(world, execution.id, lines).await;
    world.agents_online(1).await;
}

#[tokio::test]
async fn a_parted_host_goes_on() {
    // A third of the silence that ends a session, a little less than all of it, and a little more.
    let world = World::builder().watchful().for_hosts().start().await;
    let Some((world, host, _agent)) = on_a_host(world).await else { return };
    for (partition, millis) in [
        (Partition::Both, 1000),
        (Partition::ToAgent, 2800),
        (Partition::ToController, 3500),
        (Partition::Unplugged, 3500),
    ] {
        survives_a_partition(&world, &host, partition, Duration::from_millis(millis)).await;
    }
}

/// Longer than `lost_after`: the run is unknown, and what the host has to say after all is kept beside it.
async fn is_lost_and_found(
    world: &World,
    host: &Host,
    agent: &Agent,
    partition: Partition,
    lost_after: Duration,
) {
    let _ = std::fs::remove_file(tale(world));
    let api = world.api();
    let execution = api.start_shell("far", &counting(world, LINES)).await;
    streams(&api, execution.id, 0).await;
    host.part(partition);
    agent.is_within("offline", lost_after + SOON).await;
    let finished = api.finished_within(execution.id, lost_after + SOON).await;
    assert_eq!(finished.execution.state, ExecutionState::Unknown, "{finished:?}");
    assert_eq!(finished.run().reason, Some(Reason::AgentLost));
    host.heal();
    agent.is_within("online", lost_after + SOON).await;
    let observed = eventually(SOON, "the late result is noted", async || {
        api.runs(execution.id).await.remove(0).observed
    })
    .await;
    assert_eq!(observed.reason, Reason::Exited, "{observed:?}");
    let run = &finished.run();
    assert_eq!((run.state, run.attempt), (RunState::Unknown, 1), "{run:?}");
    let last = format!("\n{LINES}\n");
    eventually(SOON, "its last line is stored", async || {
        api.output(execution.id, "far", Stream::Stdout).await.ends_with(last.as_bytes()).then_some(())
    })
    .await;
    holds_all(&api, &finished, LINES).await;
    assert_eq!(told(world), "began\nended\n", "it was run more than once, or not to its end");
    // The host is as good as before.
    assert_eq!(api.shell("far", "true").await.execution.state, ExecutionState::Succeeded);
}

#[tokio::test]
async fn a_host_that_is_parted_too_long_is_heard_after_all() {
    let world = World::builder().impatient().for_hosts().start().await;
    let Some((world, host, agent)) = on_a_host(world).await else { return };
    let few = &PARTITIONS[..if scene::is_full() { PARTITIONS.len() } else { 2 }];
    for partition in few.iter().copied() {
        is_lost_and_found(&world, &host, &agent, partition, LOST_AFTER).await;
    }
}

/// With the timers of every day, a quarter of an hour long.
#[tokio::test]
async fn partitions_in_real_time() {
    if !scene::is_full() {
        return scene::skipped("partitions of up to two minutes are only for OPSC_TESTS_FULL=1");
    }
    let world = World::builder().for_hosts().start().await;
    let Some((world, host, _agent)) = on_a_host(world).await else { return };
    for seconds in [1, 29, 31, 120] {
        for partition in PARTITIONS {
            survives_a_partition(&world, &host, partition, Duration::from_secs(seconds)).await;
        }
    }
}
