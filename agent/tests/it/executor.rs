//! The executor with real orders and real shims; the test is the link.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};
use model::{
    id::{AgentId, ControllerId, ExecutionId, OrgId, RunId},
    limits,
};
use opsconductor_agent::{
    executor::{
        Config, Executor,
        journal::{Change, Entry, Journal, State},
        keys,
    },
    messages::{AttemptKey, Inventory, ToExecutor, ToLink},
    segment::{Body, Reader},
};
use pki::{Authority, DispatchKey, Signer, seal, verify_result};
use prost::Message as _;
use proto::{command::Program, report};
use tempfile::TempDir;
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

const DOMAIN: &str = "test.example";
const LONG: Duration = Duration::from_secs(60);

/// A controller's keys and an agent's data folder.
struct World {
    data: TempDir,
    authority: Authority,
    signer: Signer,
    org_id: OrgId,
    agent_id: AgentId,
    result_key: Vec<u8>,
    seal_key: Vec<u8>,
}

/// A running executor, as the link sees it.
struct Agent {
    to_executor: mpsc::Sender<ToExecutor>,
    from_executor: mpsc::Receiver<ToLink>,
    shutdown: CancellationToken,
    task: JoinHandle<()>,
    epoch: Vec<u8>,
    held: Vec<AttemptKey>,
}

fn new_key() -> AttemptKey {
    let id = || Uuid::from_bytes(pki::random());
    AttemptKey { execution_id: ExecutionId(id()), run_id: RunId(id()), attempt: 1 }
}

fn command(line: &str) -> proto::Command {
    proto::Command {
        program: Some(Program::Shell(line.to_owned())),
        cwd: "/".to_owned(),
        timeout_ms: 60_000,
        ..proto::Command::default()
    }
}

impl World {
    fn new() -> Self {
        let data = tempfile::tempdir().unwrap();
        let now = Timestamp::now();
        let authority = Authority::create(DOMAIN, now).unwrap().authority;
        let key = DispatchKey::generate();
        let id = ControllerId::from(Uuid::from_bytes(pki::random()));
        let until = now + SignedDuration::from_hours(1);
        let certificate =
            authority.issue_dispatch(id, &key, now - SignedDuration::from_secs(60), until).unwrap();
        let keys = keys::load_or_create(data.path()).unwrap();
        Self {
            data,
            authority,
            signer: Signer::new(key, certificate),
            org_id: OrgId::from(Uuid::from_bytes(pki::random())),
            agent_id: AgentId::from(Uuid::from_bytes(pki::random())),
            result_key: keys.result_key.public_key(),
            seal_key: keys.seal_key.public_key(),
        }
    }

    fn policy(&self) -> PathBuf {
        self.data.path().join("policy.toml")
    }

    async fn start(&self, slots: u32, stop_runs: bool) -> Agent {
        let config = Config {
            clock_skew: model::limits::CLOCK_SKEW,
            data: self.data.path().to_owned(),
            slots,
            org_id: self.org_id,
            agent_id: self.agent_id,
            trust_domain: DOMAIN.to_owned(),
            controllers_ca: self.authority.controllers_ca_der().to_vec(),
            program: PathBuf::from(env!("CARGO_BIN_EXE_opsconductor-agent")),
            policy: self.policy(),
            stop_runs,
        };
        let (to_executor, from_link) = mpsc::channel(16);
        let (to_link, from_executor) = mpsc::channel(16);
        let shutdown = CancellationToken::new();
        let task = Executor::start(config, from_link, to_link, shutdown.clone()).unwrap();
        let (answer, asked) = oneshot::channel();
        to_executor.send(ToExecutor::Inventory(answer)).await.unwrap();
        let Inventory { journal_epoch: epoch, held, .. } = asked.await.unwrap();
        Agent { to_executor, from_executor, shutdown, task, epoch, held }
    }

    fn order(&self, agent: &Agent, key: AttemptKey, command: proto::Command) -> proto::WorkOrder {
        let now = Timestamp::now();
        proto::WorkOrder {
            trust_domain: DOMAIN.to_owned(),
            org_id: self.org_id.to_bytes(),
            agent_id: self.agent_id.to_bytes(),
            journal_epoch: agent.epoch.clone(),
            execution_id: key.execution_id.to_bytes(),
            run_id: key.run_id.to_bytes(),
            attempt: key.attempt,
            fence: 1,
            issued_at: now.as_microsecond(),
            start_by: (now + SignedDuration::from_secs(120)).as_microsecond(),
            nonce: vec![0; 16],
            command: Some(command),
            ..proto::WorkOrder::default()
        }
    }

    fn sign(&self, order: &proto::WorkOrder) -> ToExecutor {
        let payload = order.encode_to_vec();
        ToExecutor::Order(proto::Envelope {
            kind: "work-order".to_owned(),
            signature: self.signer.sign("work-order", &payload),
            certificate: self.signer.certificate().to_vec(),
            payload,
        })
    }

    async fn run(&self, agent: &Agent, key: AttemptKey, line: &str) {
        let order = self.order(agent, key, command(line));
        agent.to_executor.send(self.sign(&order)).await.unwrap();
    }

    /// The exit record of a final report, whose signature holds.
    fn record(&self, report: &proto::Report) -> proto::ExitRecord {
        let Some(report::Body::Finished(finished)) = &report.body else { panic!("{report:?}") };
        verify_result(&self.result_key, "exit-record", &finished.record, &finished.signature).unwrap();
        proto::ExitRecord::decode(finished.record.as_slice()).unwrap()
    }
}

impl Agent {
    async fn next(&mut self) -> ToLink {
        tokio::time::timeout(LONG, self.from_executor.recv()).await.expect("a message in time").unwrap()
    }

    /// The next report, whatever output is told of meanwhile.
    async fn report(&mut self) -> proto::Report {
        loop {
            match self.next().await {
                ToLink::Report(report) | ToLink::Ended { report, .. } => return report,
                ToLink::OutputGrew { .. } => {}
            }
        }
    }

    async fn ended(&mut self) -> (AttemptKey, PathBuf, proto::Report) {
        loop {
            if let ToLink::Ended { key, folder, report } = self.next().await {
                return (key, folder, report);
            }
        }
    }

    async fn started(&mut self) -> proto::Started {
        loop {
            if let Some(report::Body::Started(started)) = self.report().await.body {
                return started;
            }
        }
    }

    async fn refusal(&mut self) -> (String, String) {
        match self.report().await.body {
            Some(report::Body::Refused(refused)) => (refused.reason, refused.detail),
            other => panic!("{other:?}"),
        }
    }

    async fn loss(&mut self) -> (String, String) {
        match self.report().await.body {
            Some(report::Body::Lost(lost)) => (lost.reason, lost.detail),
            other => panic!("{other:?}"),
        }
    }

    /// The link goes on hearing until the executor has ended.
    async fn stop(mut self) -> Vec<ToLink> {
        self.shutdown.cancel();
        let mut heard = Vec::new();
        while let Some(message) = self.from_executor.recv().await {
            heard.push(message);
        }
        self.task.await.unwrap();
        heard
    }
}

fn output(folder: &Path) -> Vec<u8> {
    let mut reader = Reader::open(folder).unwrap();
    let mut bytes = Vec::new();
    while let Some(record) = reader.next().unwrap() {
        if let Body::Data(data) = record.body {
            bytes.extend(data);
        }
    }
    bytes
}

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
        tokio::task::yield_now().await;
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
        tokio::task::yield_now().await;
    }
    let mut agent = world.start(1, false).await;
    assert_eq!(world.record(&agent.ended().await.2).exit_code, Some(0));
    agent.stop().await;
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
        tokio::task::yield_now().await;
    }
    agent.to_executor.send(ToExecutor::Settled(key)).await.unwrap();
    while folder.exists() {
        tokio::task::yield_now().await;
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
    std::fs::remove_file(world.policy()).unwrap();

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
    let refused = agent.refusal().await;
    assert!(refused.1.contains("fence"), "{refused:?}");
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
    let mut agent = world.start(1, false).await;
    let key = new_key();
    world.run(&agent, key, "exec sleep 1000").await;
    agent.started().await;
    agent.stop().await;
    std::fs::remove_dir_all(world.data.path().join("executor/journal")).unwrap();
    let agent = world.start(1, false).await;
    assert!(agent.held.is_empty());
    let folder = world.data.path().join(format!("executor/attempts/{}-1", key.run_id));
    while folder.exists() {
        tokio::task::yield_now().await;
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
        tokio::task::yield_now().await;
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
    let opened = Journal::open(&world.data.path().join("executor/journal")).unwrap();
    let ended = || {
        let key = new_key();
        let execution_id = key.execution_id.to_bytes();
        let entry = Entry { execution_id, state: State::Ended.into(), ..Entry::default() };
        Change::Put(key, entry)
    };
    let changes = std::iter::repeat_with(ended).take(limits::HOST_UNSETTLED).collect();
    opened.journal.write(changes).await.unwrap();
    drop(opened.journal);
    opened.thread.join().unwrap();

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
