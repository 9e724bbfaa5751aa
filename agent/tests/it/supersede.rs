//! Orders that supersede an earlier attempt: it is dead before the new one begins.

use opsconductor_agent::{
    executor::journal::{Change, Entry, State},
    messages::{AttemptKey, ToExecutor, ToLink},
};
use proto::report::Body;

use crate::{
    one_shim::LOOK_EVERY,
    world::{Agent, World, command, new_key},
};

/// Tells in a file which attempt began, and then waits for a long time.
fn line(world: &World, then: &str) -> String {
    format!("echo $OPSC_ATTEMPT $$ >> {}; {then}", world.data.path().join("tale").display())
}

/// The attempts that began, with their process ids.
fn tale(world: &World) -> Vec<(u32, i32)> {
    let tale = std::fs::read_to_string(world.data.path().join("tale")).unwrap_or_default();
    let read = |line: &str| {
        let (attempt, pid) = line.split_once(' ').unwrap();
        (attempt.parse().unwrap(), pid.parse().unwrap())
    };
    tale.lines().map(read).collect()
}

async fn began(world: &World, count: usize) {
    while tale(world).len() < count {
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

fn later(key: AttemptKey, attempt: u32) -> AttemptKey {
    AttemptKey { attempt, ..key }
}

async fn supersede(world: &World, agent: &Agent, key: AttemptKey, old: u32, line: &str) {
    let order = proto::WorkOrder {
        superseded_attempt: old,
        begun: (1..key.attempt).collect(),
        ..world.order(agent, key, command(line))
    };
    agent.to_executor.send(world.sign(&order)).await.unwrap();
}

/// Hears what is said until all of this was: of each report the attempt and what it is. What is said of one attempt and of
/// another has no order of its own: each report waits for its own write.
async fn until_said(world: &World, agent: &mut Agent, all: &[(u32, &str)]) -> Vec<(u32, String)> {
    let mut heard: Vec<(u32, String)> = Vec::new();
    let is_heard = |heard: &[(u32, String)], one: &(u32, &str)| {
        heard.iter().any(|(n, said)| (*n, said.as_str()) == *one)
    };
    while !all.iter().all(|one| is_heard(&heard, one)) {
        let report = match agent.next().await {
            ToLink::OutputGrew(_) => continue,
            ToLink::Report(report) | ToLink::Ended { report, .. } => report,
        };
        let said = match &report.body {
            Some(Body::Accepted(_)) => "accepted".to_owned(),
            Some(Body::Started(_)) => "started".to_owned(),
            Some(Body::Refused(refused)) => refused.reason.clone(),
            Some(Body::Lost(lost)) => lost.reason.clone(),
            _ => world.record(&report).reason,
        };
        heard.push((report.attempt, said));
    }
    heard
}

fn is_alive(pid: i32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

#[tokio::test]
async fn an_attempt_that_runs_is_ended_first() {
    let world = World::new();
    let mut agent = world.start(1, false).await;
    let first = new_key();
    world.run(&agent, first, &line(&world, "setsid sleep 1000 & exec sleep 1000")).await;
    began(&world, 1).await;
    let second = later(first, 2);
    let check = format!("kill -0 {} 2>/dev/null && echo alive", tale(&world)[0].1);
    supersede(&world, &agent, second, 1, &line(&world, &check)).await;
    // Said again meanwhile, it is one order.
    supersede(&world, &agent, second, 1, &line(&world, &check)).await;
    let heard = until_said(&world, &mut agent, &[(1, "cancelled"), (2, "exited")]).await;
    let order: Vec<_> =
        heard.iter().filter(|(_, said)| !matches!(said.as_str(), "accepted" | "started")).collect();
    assert_eq!(order, [&(1, "cancelled".to_owned()), &(2, "exited".to_owned())], "{heard:?}");
    let at = |what: (u32, &str)| heard.iter().position(|(n, said)| (*n, said.as_str()) == what);
    assert!(at((1, "cancelled")) < at((2, "accepted")), "{heard:?}");
    assert_eq!(tale(&world).iter().map(|(attempt, _)| *attempt).collect::<Vec<_>>(), [1, 2]);
    assert!(!is_alive(tale(&world)[0].1));
    agent.stop().await;
}

#[tokio::test]
async fn an_attempt_that_never_came_never_begins() {
    let world = World::new();
    let mut agent = world.start(2, false).await;
    let first = new_key();
    let second = later(first, 2);
    supersede(&world, &agent, second, 1, &line(&world, "true")).await;
    until_said(&world, &mut agent, &[(1, "not_started"), (2, "exited")]).await;
    for _ in 0..2 {
        world.run(&agent, first, &line(&world, "true")).await;
        loop {
            let report = agent.report().await;
            if report.attempt == 1 {
                assert!(matches!(report.body, Some(Body::Refused(_))), "{report:?}");
                break;
            }
        }
        agent.stop().await;
        agent = world.start(2, false).await;
    }
    assert_eq!(tale(&world).len(), 1);
    agent.stop().await;
}

#[tokio::test]
async fn a_crash_in_between_begins_nothing_too_early() {
    let world = World::new();
    let agent = world.start(2, false).await;
    let first = new_key();
    // It ignores what asks it to end, so that there is time to die meanwhile.
    world.run(&agent, first, &line(&world, "trap '' TERM; while :; do sleep 1000; done")).await;
    began(&world, 1).await;
    let second = later(first, 2);
    supersede(&world, &agent, second, 1, &line(&world, "true")).await;
    let (answer, asked) = tokio::sync::oneshot::channel();
    agent.to_executor.send(ToExecutor::Inventory(answer)).await.unwrap();
    assert_eq!(asked.await.unwrap().held.len(), 2, "the order waits, and is held");
    agent.crash().await;

    let mut agent = world.start(2, false).await;
    assert_eq!(agent.held, [first]);
    supersede(&world, &agent, second, 1, &line(&world, "true")).await;
    let heard = until_said(&world, &mut agent, &[(1, "cancelled"), (2, "exited")]).await;
    let at = |what: (u32, &str)| heard.iter().position(|(n, said)| (*n, said.as_str()) == what);
    assert!(at((1, "cancelled")) < at((2, "accepted")), "{heard:?}");
    assert_eq!(tale(&world).iter().map(|(attempt, _)| *attempt).collect::<Vec<_>>(), [1, 2]);
    agent.stop().await;
}

#[tokio::test]
async fn one_that_waits_may_be_superseded_and_cancelled_itself() {
    let world = World::new();
    let mut agent = world.start(2, false).await;
    let first = new_key();
    world.run(&agent, first, &line(&world, "trap '' TERM; while :; do sleep 1000; done")).await;
    began(&world, 1).await;
    let (second, third, fourth) = (later(first, 2), later(first, 3), later(first, 4));
    supersede(&world, &agent, second, 1, &line(&world, "true")).await;
    supersede(&world, &agent, third, 2, &line(&world, "true")).await;
    agent.to_executor.send(ToExecutor::Cancel(third)).await.unwrap();
    supersede(&world, &agent, fourth, 3, &line(&world, "true")).await;
    let all = [(1, "cancelled"), (2, "not_started"), (3, "cancelled"), (4, "exited")];
    let heard = until_said(&world, &mut agent, &all).await;
    let at = |what: (u32, &str)| heard.iter().position(|(n, said)| (*n, said.as_str()) == what);
    assert!(at((1, "cancelled")) < at((4, "accepted")), "{heard:?}");
    assert_eq!(tale(&world).iter().map(|(attempt, _)| *attempt).collect::<Vec<_>>(), [1, 4]);
    agent.stop().await;
}

#[tokio::test]
async fn what_a_killed_shim_left_is_ended_first() {
    let world = World::new();
    let mut agent = world.start(2, false).await;
    let first = new_key();
    world.run(&agent, first, &line(&world, "setsid sleep 1000 & echo $!; wait")).await;
    began(&world, 1).await;
    let pid = tale(&world)[0].1;
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let shim: i32 = stat.rsplit_once(") ").unwrap().1.split(' ').nth(1).unwrap().parse().unwrap();
    // As on a host that gives no control groups.
    let group = world.folder(first).join("cgroup");
    if let Ok(note) = std::fs::read_to_string(&group) {
        std::fs::remove_file(&group).unwrap();
        note.lines().for_each(|path| remove_when_empty(path.to_owned()));
    }
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(shim), nix::sys::signal::Signal::SIGKILL).unwrap();
    let second = later(first, 2);
    supersede(&world, &agent, second, 1, &line(&world, "true")).await;
    until_said(&world, &mut agent, &[(1, "shim_lost"), (2, "exited")]).await;
    assert!(strays(first).is_empty());
    agent.stop().await;
}

#[tokio::test]
async fn what_is_left_of_an_attempt_that_is_over_is_ended_first() {
    let (world, first) = (World::new(), new_key());
    let execution_id = first.execution_id.to_bytes();
    let entry = Entry { execution_id, state: State::Settled.into(), ..Entry::default() };
    world.remember(vec![Change::Put(first, entry.into())]).await;
    let mut left = std::process::Command::new("sleep")
        .arg("1000")
        .env("OPSC_RUN_ID", first.run_id.to_string())
        .env("OPSC_ATTEMPT", "1")
        .spawn()
        .unwrap();
    let mut agent = world.start(1, false).await;
    let second = later(first, 2);
    supersede(&world, &agent, second, 1, &line(&world, "true")).await;
    until_said(&world, &mut agent, &[(2, "exited")]).await;
    assert!(!is_alive(left.id().try_into().unwrap()));
    left.wait().unwrap();
    agent.stop().await;
}

/// Removes a control group that nobody knows any more, once it is empty.
fn remove_when_empty(path: String) {
    std::thread::spawn(move || {
        while std::fs::remove_dir(&path).is_err_and(|error| error.kind() == std::io::ErrorKind::ResourceBusy)
        {
            std::thread::sleep(LOOK_EVERY);
        }
    });
}

fn strays(key: AttemptKey) -> Vec<i32> {
    opsconductor_agent::sandbox::strays::find(key.run_id, key.attempt)
}

#[tokio::test]
async fn one_that_cannot_be_killed_lets_none_begin() {
    let (world, first) = (World::new(), new_key());
    let execution_id = first.execution_id.to_bytes();
    let at = opsconductor_agent::clock::now_micros();
    let entry =
        Entry { execution_id, state: State::Settled.into(), unkillable: true, at, ..Entry::default() };
    world.remember(vec![Change::Put(first, entry.into())]).await;
    let mut agent = world.start(2, false).await;
    supersede(&world, &agent, later(first, 2), 1, &line(&world, "true")).await;
    let refused = agent.refusal().await;
    assert_eq!(refused.0, "unkillable", "{refused:?}");
    supersede(&world, &agent, later(first, 2), 2, &line(&world, "true")).await;
    assert_eq!(agent.refusal().await.0, "unkillable", "it is remembered");
    supersede(&world, &agent, later(first, 3), 3, &line(&world, "true")).await;
    assert_eq!(agent.refusal().await.0, "order_refused");
    assert!(tale(&world).is_empty());
    agent.stop().await;
}

/// A cancel is not signed: whoever has taken over the link can have an order held back, and cancelled until that is forgotten.
#[tokio::test]
async fn an_order_that_comes_after_its_successor_starts_nothing() {
    let world = World::new();
    let mut agent = world.start(2, false).await;
    let first = new_key();
    agent.to_executor.send(ToExecutor::Cancel(first)).await.unwrap();
    assert_eq!(agent.refusal().await.0, "cancelled");
    supersede(&world, &agent, later(first, 3), 1, &line(&world, "true")).await;
    // The tombstone is a lasting refusal now.
    until_said(&world, &mut agent, &[(1, "not_started"), (3, "exited")]).await;
    for attempt in [1, 2] {
        world.run(&agent, later(first, attempt), &line(&world, "true")).await;
        until_said(&world, &mut agent, &[(attempt, "not_started")]).await;
    }
    let began: Vec<u32> = tale(&world).into_iter().map(|(attempt, _)| attempt).collect();
    assert_eq!(began, [3]);
    agent.stop().await;
}
