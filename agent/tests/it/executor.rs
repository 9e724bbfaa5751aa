//! The executor with real orders and real shims; the test is the link.

use std::{
    io::Write as _,
    os::unix::{fs::PermissionsExt, net::UnixStream},
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};
use model::limits;
use opsconductor_agent::{
    executor::{
        Config,
        journal::{Change, Entry, State},
    },
    messages::{AttemptKey, ToExecutor, ToLink},
    shim::control::{self, ToShim},
};
use pki::seal;
use prost::Message as _;
use proto::report;
use tokio::sync::oneshot;

use crate::{
    one_shim::LOOK_EVERY,
    world::{UNCONFINED, World, command, inventory, key_of, new_key, output},
};

#[tokio::test]
async fn an_order_is_run_reported_and_settled() {
    let world = World::new();
    let mut agent = world.start(2, false).await;
    let key = new_key();
    let mut order = world.order(&agent, key, command("echo $SECRET; exit 3"));
    let aad = [key.execution_id.to_bytes(), key.run_id.to_bytes(), 1_u32.to_be_bytes().to_vec()].concat();
    let variables = [("SECRET".to_owned(), "hush".to_owned())].into();
    let plain = proto::Environment { variables }.encode_to_vec();
    let sealed = seal(&world.seal_key, b"opsconductor environment", &aad, &plain).unwrap();
    let (encapsulated_key, ciphertext) = (sealed.encapsulated_key, sealed.ciphertext);
    order.command.as_mut().unwrap().environment = Some(proto::Sealed { encapsulated_key, ciphertext });
    agent.to_executor.send(world.sign(&order)).await.unwrap();

    assert!(matches!(agent.report().await.body, Some(report::Body::Accepted(_))));
    assert!(matches!(agent.report().await.body, Some(report::Body::Started(_))));
    let (ended, folder, last) = agent.ended().await;
    let record = world.record(&last);
    assert_eq!((ended, record.reason.as_str(), record.exit_code), (key, "exited", Some(3)));
    assert_eq!(output(&folder), b"hush\n");

    // A repeated order is answered with what is recorded.
    agent.to_executor.send(world.sign(&order)).await.unwrap();
    assert_eq!(agent.ended().await.2, last);
    agent.to_executor.send(ToExecutor::Settled(key)).await.unwrap();
    agent.to_executor.send(world.sign(&order)).await.unwrap();
    assert!(agent.loss().await.1.contains("settled"), "not a refusal: it did run");
    while folder.exists() {
        tokio::time::sleep(LOOK_EVERY).await;
    }
    agent.stop().await;
    let mut agent = world.start(2, false).await;
    assert!(agent.held.is_empty());
    agent.to_executor.send(world.sign(&order)).await.unwrap();
    assert!(agent.loss().await.1.contains("settled"), "also after a restart");
    agent.stop().await;
}

#[tokio::test]
async fn a_run_outlives_its_agent() {
    let world = World::new();
    let mut agent = world.start(1, false).await;
    let fifo = world.data.path().join("go");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let key = new_key();
    world.run(&agent, key, &format!("echo before; cat {}; echo after", fifo.display())).await;
    let pid = agent.started().await.pid;
    agent.stop().await;

    let mut agent = world.start(1, false).await;
    assert_eq!(agent.held, [key]);
    assert_eq!(agent.started().await.pid, pid);
    let other = new_key();
    world.run(&agent, other, "true").await;
    let busy = loop {
        match agent.report().await.body {
            Some(report::Body::Refused(refused)) => break refused.reason,
            Some(report::Body::Started(_)) => {}
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(busy, "agent_busy", "an adopted run has its slot");
    tokio::fs::write(&fifo, "between\n").await.unwrap();
    let (ended, folder, last) = agent.ended().await;
    assert_eq!((ended, world.record(&last).exit_code), (key, Some(0)));
    assert_eq!(output(&folder), b"before\nbetween\nafter\n");
    agent.stop().await;
}

#[tokio::test]
async fn a_run_that_ended_without_an_agent_is_reported_by_the_next() {
    let world = World::new();
    let mut agent = world.start(1, false).await;
    let fifo = world.data.path().join("go");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let key = new_key();
    world.run(&agent, key, &format!("cat {}", fifo.display())).await;
    agent.started().await;
    agent.stop().await;
    let exit = world.data.path().join(format!("executor/attempts/{}-1/exit", key.run_id));
    tokio::fs::write(&fifo, "late\n").await.unwrap();
    while !exit.exists() {
        tokio::time::sleep(LOOK_EVERY).await;
    }
    let mut agent = world.start(1, false).await;
    assert_eq!(world.record(&agent.ended().await.2).exit_code, Some(0));
    agent.stop().await;
}

/// What the host can confine runs by is found out by a process that may hang: what runs has its end meanwhile, and a stop is
/// heard.
#[tokio::test]
async fn an_agent_that_looks_at_its_host_follows_what_runs() {
    let world = World::new();
    let key = world.leave_running().await;
    let hangs = world.data.path().join("hangs");
    std::fs::write(&hangs, "#!/bin/sh\nexec sleep 1000\n").unwrap();
    std::fs::set_permissions(&hangs, PermissionsExt::from_mode(0o755)).unwrap();
    let config = Config { program: hangs, ..world.config(1, false) };
    let mut agent = world.start_unasked(config).await;
    let (answer, asked) = oneshot::channel();
    agent.to_executor.send(ToExecutor::Inventory(answer)).await.unwrap();
    let attempt = world.folder(key);
    let socket = attempt.join(control::SOCKET_NAME);
    UnixStream::connect(socket).unwrap().write_all(&[ToShim::Cancel.byte()]).unwrap();
    assert_eq!(world.record(&agent.ended().await.2).reason, "cancelled");
    agent.stop().await;
    assert!(asked.await.is_err(), "it was looking until then");
}

#[tokio::test]
async fn a_killed_shim_is_a_lost_run() {
    let world = World::new();
    let mut agent = world.start(1, false).await;
    let key = new_key();
    world.run(&agent, key, "exec sleep 1000").await;
    let pid = i32::try_from(agent.started().await.pid).unwrap();
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let shim: i32 = stat.rsplit_once(") ").unwrap().1.split(' ').nth(1).unwrap().parse().unwrap();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(shim), nix::sys::signal::Signal::SIGKILL).unwrap();
    let (_, folder, last) = agent.ended().await;
    match last.body {
        Some(report::Body::Lost(lost)) => assert_eq!(lost.reason, "shim_lost"),
        other => panic!("{other:?}"),
    }
    while std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z ")) {
        tokio::time::sleep(LOOK_EVERY).await;
    }
    agent.to_executor.send(ToExecutor::Settled(key)).await.unwrap();
    while folder.exists() {
        tokio::time::sleep(LOOK_EVERY).await;
    }
    agent.stop().await;
}

#[tokio::test]
async fn a_cancel_works_before_and_after_the_order() {
    let world = World::new();
    let mut agent = world.start(1, false).await;
    let early = new_key();
    agent.to_executor.send(ToExecutor::Cancel(early)).await.unwrap();
    assert_eq!(agent.refusal().await.0, "cancelled");
    world.run(&agent, early, "true").await;
    assert_eq!(agent.refusal().await.0, "cancelled", "the order starts nothing");

    let key = new_key();
    world.run(&agent, key, "exec sleep 1000").await;
    agent.started().await;
    agent.to_executor.send(ToExecutor::Cancel(key)).await.unwrap();
    assert_eq!(world.record(&agent.ended().await.2).reason, "cancelled");
    agent.stop().await;
}

/// A cancel is not signed: whoever has taken over the link can invent one, and must not make the host remember times that
/// are yet to come.
#[tokio::test]
async fn a_cancel_of_what_is_yet_to_be_made_is_not_believed() {
    let world = World::new();
    let mut agent = world.start(1, false).await;
    let (past, future) = (new_key(), key_of(Timestamp::now() + SignedDuration::from_hours(1)));
    for key in [future, past] {
        agent.to_executor.send(ToExecutor::Cancel(key)).await.unwrap();
    }
    assert_eq!(agent.refusal().await.0, "cancelled");
    assert_eq!(inventory(&agent.to_executor).await.held, [past]);
    agent.stop().await;
}

#[tokio::test]
async fn orders_that_may_not_run_are_refused() {
    let world = World::new();
    let mut agent = world.start(1, false).await;
    let order = |change: fn(&mut proto::WorkOrder)| {
        let mut order = world.order(&agent, new_key(), command("true"));
        change(&mut order);
        world.sign(&order)
    };
    let orders = [
        (order(|order| order.agent_id = vec![0; 16]), "order_refused", "another agent"),
        (order(|order| order.start_by = order.issued_at - 1), "start_expired", "over"),
        (order(|order| order.nonce.clear()), "order_refused", "nonce"),
    ];
    let stale = order(|order| order.journal_epoch = vec![0; 16]);
    for (order, reason, named) in orders {
        agent.to_executor.send(order).await.unwrap();
        let refused = agent.refusal().await;
        assert!(refused.0 == reason && refused.1.contains(named), "{refused:?}");
    }
    agent.to_executor.send(stale).await.unwrap();
    assert_eq!(agent.loss().await.0, "journal_lost");

    std::fs::write(world.policy(), "paused = true").unwrap();
    world.run(&agent, new_key(), "true").await;
    assert_eq!(agent.refusal().await.0, "policy_refused");
    std::fs::write(world.policy(), UNCONFINED).unwrap();

    // A higher fence is remembered, also by the next agent.
    let key = new_key();
    let raised = proto::WorkOrder { fence: 5, ..world.order(&agent, key, command("true")) };
    agent.to_executor.send(world.sign(&raised)).await.unwrap();
    agent.ended().await;
    agent.stop().await;
    let mut agent = world.start(1, false).await;
    agent.ended().await;
    agent.ended().await;
    world.run(&agent, new_key(), "true").await;
    // What was refused before and not answered is said again first.
    while !agent.refusal().await.1.contains("fence") {}
    agent.stop().await;
}

/// As after the restore of a backup: the controller has forgotten that the run was begun once.
#[tokio::test]
async fn an_order_that_does_not_know_of_an_earlier_attempt_starts_nothing() {
    let world = World::new();
    let mut agent = world.start(1, false).await;
    let first = new_key();
    world.run(&agent, first, "true").await;
    agent.ended().await;
    let second = AttemptKey { attempt: 2, ..first };
    world.run(&agent, second, "true").await;
    let lost = agent.loss().await;
    assert!(lost.0 == "journal_lost" && lost.1.contains("attempt 1"), "{lost:?}");
    let named = proto::WorkOrder { begun: vec![1], ..world.order(&agent, second, command("true")) };
    agent.to_executor.send(world.sign(&named)).await.unwrap();
    agent.ended().await;
    agent.stop().await;
}

/// As after the restore of a backup that is so old that the host does not remember the run any more.
#[tokio::test]
async fn an_order_for_a_forgotten_execution_starts_nothing() {
    let world = World::new();
    let days_ago = |days: i64| Timestamp::now() - SignedDuration::from_hours(24 * days);
    let (older, forgotten, waiting) = (key_of(days_ago(41)), key_of(days_ago(40)), key_of(days_ago(29)));
    let execution_id = forgotten.execution_id.to_bytes();
    let settled = Entry { execution_id, state: State::Settled.into(), ..Entry::default() };
    world.remember(vec![Change::Put(forgotten, settled.into())]).await;
    world.remember(vec![Change::Forget(forgotten)]).await;

    let mut agent = world.start(1, false).await;
    let marker = world.data.path().join("ran");
    let line = format!("echo >> '{}'", marker.display());
    for key in [forgotten, AttemptKey { attempt: 2, ..forgotten }, older] {
        world.run(&agent, key, &line).await;
        let lost = agent.loss().await;
        assert!(lost.0 == "journal_lost" && lost.1.contains("forgotten"), "{lost:?}");
        // Also when it is too late for it: a refusal would say that it never ran.
        let late = proto::WorkOrder { start_by: 1, ..world.order(&agent, key, command(&line)) };
        agent.to_executor.send(world.sign(&late)).await.unwrap();
        assert_eq!(agent.loss().await.0, "journal_lost");
        agent.to_executor.send(ToExecutor::Cancel(key)).await.unwrap();
        assert_eq!(agent.loss().await.0, "journal_lost");
    }
    assert!(!marker.exists());
    // What has merely waited for long begins.
    world.run(&agent, waiting, &line).await;
    assert_eq!(agent.ended().await.0, waiting);
    assert_eq!(std::fs::read(&marker).unwrap(), b"\n");
    agent.stop().await;
}

#[tokio::test]
async fn the_hosts_policy_binds_what_runs() {
    let world = World::new();
    let mut agent = world.start(1, false).await;
    let root = world.data.path().canonicalize().unwrap().join("root");
    std::fs::create_dir(&root).unwrap();
    std::os::unix::fs::symlink(&root, world.data.path().join("link")).unwrap();
    let rules = format!("max_output_bytes = 4096\nworking_roots = ['{}']", root.display());
    std::fs::write(world.policy(), format!("{rules}\n{UNCONFINED}")).unwrap();
    world.run(&agent, new_key(), "true").await;
    let refused = agent.refusal().await;
    assert!(refused.0 == "policy_refused" && refused.1.contains("working_roots"), "{refused:?}");

    let cwd = world.data.path().join("link").display().to_string();
    let here = |line: &str| proto::Command { cwd: cwd.clone(), ..command(line) };
    let order = world.order(&agent, new_key(), here("pwd; head -c 100000 /dev/zero"));
    agent.to_executor.send(world.sign(&order)).await.unwrap();
    let (_, folder, last) = agent.ended().await;
    assert_eq!(world.record(&last).stdout.unwrap().stored, 4096);
    assert!(output(&folder).starts_with(format!("{}\n", root.display()).as_bytes()), "where the link leads");

    std::fs::write(world.policy(), format!("{rules}\n{UNCONFINED}\n[[commands]]\nprogram = '/bin/true'"))
        .unwrap();
    let order = world.order(&agent, new_key(), here("true"));
    agent.to_executor.send(world.sign(&order)).await.unwrap();
    let refused = agent.refusal().await;
    assert!(refused.0 == "policy_refused" && refused.1.contains("allow_shell"), "{refused:?}");
    agent.stop().await;
}

#[tokio::test]
async fn an_agent_that_is_told_to_takes_its_runs_with_it() {
    let world = World::new();
    let mut agent = world.start(2, true).await;
    world.run(&agent, new_key(), "exec sleep 1000").await;
    agent.started().await;
    let heard = agent.stop().await;
    let ended = heard.iter().find_map(|message| match message {
        ToLink::Ended { report, .. } => Some(report),
        _ => None,
    });
    assert_eq!(world.record(ended.unwrap()).reason, "cancelled");
}

#[tokio::test]
async fn runs_that_a_lost_journal_knew_are_ended() {
    let world = World::new();
    let key = world.leave_running().await;
    std::fs::remove_dir_all(world.data.path().join("executor/journal")).unwrap();
    let agent = world.start(1, false).await;
    assert!(agent.held.is_empty());
    let folder = world.data.path().join(format!("executor/attempts/{}-1", key.run_id));
    while folder.exists() {
        tokio::time::sleep(LOOK_EVERY).await;
    }
    let aside = world.data.path().join(format!("executor/attempts-lost/{}-1", key.run_id));
    let record = std::fs::read(aside.join("exit")).expect("its result is kept for people");
    assert_eq!(proto::ExitRecord::decode(record.as_slice()).unwrap().reason, "cancelled");
    agent.stop().await;
}

#[tokio::test]
async fn an_agent_that_stops_lets_what_it_began_have_its_shim() {
    let world = World::new();
    let mut agent = world.start(1, false).await;
    let key = new_key();
    world.run(&agent, key, "exec sleep 1000").await;
    // The attempt is between its journal entry and its shim now.
    assert!(matches!(agent.report().await.body, Some(report::Body::Accepted(_))));
    agent.stop().await;
    let mut agent = world.start(1, true).await;
    assert_eq!(agent.held, [key]);
    agent.started().await;
    agent.to_executor.send(ToExecutor::Cancel(key)).await.unwrap();
    assert_eq!(world.record(&agent.ended().await.2).reason, "cancelled");
    agent.stop().await;
}

#[tokio::test]
async fn a_result_that_cannot_be_read_right_now_is_waited_for() {
    let world = World::new();
    let mut agent = world.start(1, false).await;
    let key = new_key();
    world.run(&agent, key, "exec sleep 1000").await;
    let pid = agent.started().await.pid;
    agent.stop().await;
    let folder = world.data.path().join(format!("executor/attempts/{}-1", key.run_id));
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(i32::try_from(pid).unwrap()),
        nix::sys::signal::Signal::SIGTERM,
    )
    .unwrap();
    while !folder.join("exit").exists() {
        tokio::time::sleep(LOOK_EVERY).await;
    }
    // A folder in its place is as unreadable as a failing disk.
    std::fs::rename(folder.join("exit"), folder.join("kept")).unwrap();
    std::fs::create_dir(folder.join("exit")).unwrap();
    let mut agent = world.start(1, false).await;
    tokio::time::timeout(Duration::from_millis(200), agent.ended())
        .await
        .expect_err("nothing can be known yet");
    std::fs::remove_dir(folder.join("exit")).unwrap();
    std::fs::rename(folder.join("kept"), folder.join("exit")).unwrap();
    assert_eq!(world.record(&agent.ended().await.2).reason, "signaled");
    agent.stop().await;
}

#[tokio::test]
async fn a_host_with_too_many_unsettled_runs_takes_no_new_one() {
    let world = World::new();
    let ended = || {
        let key = new_key();
        let execution_id = key.execution_id.to_bytes();
        let entry = Entry { execution_id, state: State::Ended.into(), ..Entry::default() };
        Change::Put(key, entry.into())
    };
    let changes = std::iter::repeat_with(ended).take(limits::HOST_UNSETTLED).collect();
    world.remember(changes).await;

    let mut agent = world.start(1, false).await;
    world.run(&agent, new_key(), "true").await;
    let (reason, detail) = agent.refusal().await;
    assert!(reason == "agent_busy" && detail.contains("HOST_UNSETTLED"), "{reason}: {detail}");
    // One that is settled makes room.
    let settled = agent.held[0];
    agent.to_executor.send(ToExecutor::Settled(settled)).await.unwrap();
    let key = new_key();
    world.run(&agent, key, "true").await;
    assert_eq!(agent.ended().await.0, key);
    agent.stop().await;
}
