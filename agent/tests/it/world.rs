//! The executor with real orders and real shims; the test is the link.

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use jiff::{SignedDuration, Timestamp};
use model::id::{AgentId, ControllerId, ExecutionId, OrgId, RunId};
use opsconductor_agent::{
    executor::{
        Config, Executor, StartError,
        journal::{Change, Journal, JournalError},
        keys,
    },
    messages::{AttemptKey, Inventory, ToExecutor, ToLink},
    segment::{Body, Reader},
};
use pki::{Authority, DispatchKey, Signer, verify_result};
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
pub(crate) const LONG: Duration = Duration::from_secs(60);

/// A controller's keys and an agent's data folder.
pub(crate) struct World {
    pub(crate) data: TempDir,
    authority: Authority,
    signer: Signer,
    org_id: OrgId,
    pub(crate) agent_id: AgentId,
    result_key: Vec<u8>,
    pub(crate) seal_key: Vec<u8>,
}

/// A policy by which runs are whoever the test is.
pub(crate) const UNCONFINED: &str = "[sandbox]\ndefault = 'none'\nunconfined = 'all'\n";

/// A running executor, as the link sees it.
pub(crate) struct Agent {
    pub(crate) to_executor: mpsc::Sender<ToExecutor>,
    pub(crate) from_executor: mpsc::Receiver<ToLink>,
    pub(crate) shutdown: CancellationToken,
    pub(crate) task: JoinHandle<()>,
    pub(crate) epoch: Vec<u8>,
    pub(crate) held: Vec<AttemptKey>,
    attempts: PathBuf,
}

pub(crate) fn new_key() -> AttemptKey {
    key_of(Timestamp::now())
}

/// The first attempt of an execution that was made then.
pub(crate) fn key_of(made: Timestamp) -> AttemptKey {
    let (execution_id, run_id) = (ExecutionId::new(made, pki::random()), RunId::new(made, pki::random()));
    AttemptKey { execution_id, run_id, attempt: 1 }
}

pub(crate) fn command(line: &str) -> proto::Command {
    proto::Command {
        program: Some(Program::Shell(line.to_owned())),
        cwd: "/".to_owned(),
        timeout_ms: 60_000,
        ..proto::Command::default()
    }
}

impl World {
    pub(crate) fn new() -> Self {
        let data = tempfile::tempdir().unwrap();
        let now = Timestamp::now();
        let authority = Authority::create(DOMAIN, now).unwrap().authority;
        let key = DispatchKey::generate();
        let id = ControllerId::from(Uuid::from_bytes(pki::random()));
        let until = now + SignedDuration::from_hours(1);
        let certificate =
            authority.issue_dispatch(id, &key, now - SignedDuration::from_secs(60), until).unwrap();
        let keys = keys::load_or_create(data.path()).unwrap();
        std::fs::write(data.path().join("policy.toml"), UNCONFINED).unwrap();
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

    pub(crate) fn policy(&self) -> PathBuf {
        self.data.path().join("policy.toml")
    }

    pub(crate) fn config(&self, slots: u32, kill_jobs: bool) -> Config {
        Config {
            clock_skew: model::limits::CLOCK_SKEW,
            data: self.data.path().to_owned(),
            slots,
            org_id: self.org_id,
            agent_id: self.agent_id,
            trust_domain: DOMAIN.to_owned(),
            controllers_ca: self.authority.controllers_ca_der().to_vec(),
            program: PathBuf::from(env!("CARGO_BIN_EXE_opsconductor-agent")),
            policy: self.policy(),
            kill_jobs,
            spool_bytes: model::limits::HOST_SPOOL_BYTES,
            block_for: model::limits::BLOCK_FOR,
            link_uid: None,
        }
    }

    pub(crate) async fn start(&self, slots: u32, kill_jobs: bool) -> Agent {
        let mut agent = self.start_unasked(self.config(slots, kill_jobs)).await;
        let Inventory { journal_epoch, held, .. } = inventory(&agent.to_executor).await;
        (agent.epoch, agent.held) = (journal_epoch, held);
        agent
    }

    /// A run that goes on for a long time, without an agent.
    pub(crate) async fn leave_running(&self) -> AttemptKey {
        let mut agent = self.start(1, false).await;
        let key = new_key();
        self.run(&agent, key, "exec sleep 1000").await;
        agent.started().await;
        agent.stop().await;
        key
    }

    /// An executor that may not answer yet: its epoch, and what it holds, are not known.
    pub(crate) async fn start_unasked(&self, config: Config) -> Agent {
        let until = Instant::now() + LONG;
        loop {
            let (to_executor, from_link) = mpsc::channel(16);
            let (to_link, from_executor) = mpsc::channel(16);
            let shutdown = CancellationToken::new();
            match Executor::start(config.clone(), from_link, to_link, shutdown.clone()) {
                Ok(task) => {
                    let attempts = self.data.path().join("executor/attempts");
                    let (epoch, held) = (Vec::new(), Vec::new());
                    return Agent { to_executor, from_executor, shutdown, task, epoch, held, attempts };
                }
                // The remains of one that crashed hold it for moments.
                Err(StartError::Journal(JournalError::InUse { .. })) if Instant::now() < until => {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                Err(error) => panic!("{error:?}"),
            }
        }
    }

    pub(crate) fn order(&self, agent: &Agent, key: AttemptKey, command: proto::Command) -> proto::WorkOrder {
        self.order_of(&agent.epoch, key, command)
    }

    /// The same, for the journal of this epoch.
    pub(crate) fn order_of(
        &self,
        epoch: &[u8],
        key: AttemptKey,
        command: proto::Command,
    ) -> proto::WorkOrder {
        let now = Timestamp::now();
        proto::WorkOrder {
            trust_domain: DOMAIN.to_owned(),
            org_id: self.org_id.to_bytes(),
            agent_id: self.agent_id.to_bytes(),
            journal_epoch: epoch.to_vec(),
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

    pub(crate) fn sign(&self, order: &proto::WorkOrder) -> ToExecutor {
        let payload = order.encode_to_vec();
        ToExecutor::Order(proto::Envelope {
            kind: "work-order".to_owned(),
            signature: self.signer.sign("work-order", &payload),
            certificate: self.signer.certificate().to_vec(),
            payload,
        })
    }

    /// Writes into the journal what an agent wrote that is gone; its folder for attempts is there.
    pub(crate) async fn remember(&self, changes: Vec<Change>) {
        let folder = self.data.path().join("executor");
        std::fs::create_dir_all(folder.join("attempts")).unwrap();
        let opened = Journal::open(&folder.join("journal")).unwrap();
        opened.journal.write(changes).await.unwrap();
        drop(opened.journal);
        opened.thread.join().unwrap();
    }

    /// The folder of an attempt.
    pub(crate) fn folder(&self, key: AttemptKey) -> PathBuf {
        folder_of(&self.data.path().join("executor/attempts"), key)
    }

    pub(crate) async fn run(&self, agent: &Agent, key: AttemptKey, line: &str) {
        let order = self.order(agent, key, command(line));
        agent.to_executor.send(self.sign(&order)).await.unwrap();
    }

    /// The exit record of a final report, whose signature holds.
    pub(crate) fn record(&self, report: &proto::Report) -> proto::ExitRecord {
        let Some(report::Body::Finished(finished)) = &report.body else { panic!("{report:?}") };
        verify_result(&self.result_key, "exit-record", &finished.record, &finished.signature).unwrap();
        proto::ExitRecord::decode(finished.record.as_slice()).unwrap()
    }
}

/// What the executor holds, as it tells a link that asks.
pub(crate) async fn inventory(to_executor: &mpsc::Sender<ToExecutor>) -> Inventory {
    let (answer, asked) = oneshot::channel();
    to_executor.send(ToExecutor::Inventory(answer)).await.unwrap();
    asked.await.unwrap()
}

impl Agent {
    pub(crate) async fn next(&mut self) -> ToLink {
        tokio::time::timeout(LONG, self.from_executor.recv()).await.expect("a message in time").unwrap()
    }

    /// The next report, whatever output is told of meanwhile.
    pub(crate) async fn report(&mut self) -> proto::Report {
        loop {
            match self.next().await {
                ToLink::Report(report) | ToLink::Ended { report, .. } => return report,
                ToLink::OutputGrew(_) => {}
            }
        }
    }

    pub(crate) async fn ended(&mut self) -> (AttemptKey, PathBuf, proto::Report) {
        loop {
            if let ToLink::Ended { key, report } = self.next().await {
                return (key, folder_of(&self.attempts, key), report);
            }
        }
    }

    pub(crate) async fn started(&mut self) -> proto::Started {
        loop {
            if let Some(report::Body::Started(started)) = self.report().await.body {
                return started;
            }
        }
    }

    pub(crate) async fn refusal(&mut self) -> (String, String) {
        match self.report().await.body {
            Some(report::Body::Refused(refused)) => (refused.reason, refused.detail),
            other => panic!("{other:?}"),
        }
    }

    pub(crate) async fn loss(&mut self) -> (String, String) {
        match self.report().await.body {
            Some(report::Body::Lost(lost)) => (lost.reason, lost.detail),
            other => panic!("{other:?}"),
        }
    }

    /// Dies in the middle of what it does, without a last word.
    pub(crate) async fn crash(self) {
        self.task.abort();
        assert!(self.task.await.is_err());
    }

    /// The link goes on hearing until the executor has ended.
    pub(crate) async fn stop(mut self) -> Vec<ToLink> {
        self.shutdown.cancel();
        let mut heard = Vec::new();
        while let Some(message) = self.from_executor.recv().await {
            heard.push(message);
        }
        self.task.await.unwrap();
        heard
    }
}

fn folder_of(attempts: &Path, key: AttemptKey) -> PathBuf {
    attempts.join(format!("{}-{}", key.run_id, key.attempt))
}

pub(crate) fn output(folder: &Path) -> Vec<u8> {
    let mut reader = Reader::open(folder).unwrap();
    let mut bytes = Vec::new();
    while let Some(record) = reader.next().unwrap() {
        if let Body::Data(data) = record.body {
            bytes.extend(data);
        }
    }
    bytes
}
