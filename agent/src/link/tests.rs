//! The whole link against a fake controller: real TLS, real HTTP/2, real files; only the peers are made up.

use std::{
    collections::HashMap,
    io,
    sync::{Arc, Mutex},
    time::Duration,
};

use jiff::SignedDuration;
use model::{
    api::output::Stream,
    id::{AgentId, ControllerId, EnrollTokenId, ExecutionId, OrgId, RunId},
};
use pki::{Authority, EnrollToken};
use proto::{
    AgentFrame, ControllerFrame, Credentials, EnrollRequest, HostSample, MetricsReply, OutputFrame,
    OutputReply, RenewRequest, agent_frame, controller_frame,
    enrollment_server::{Enrollment, EnrollmentServer},
    metrics_server::{Metrics, MetricsServer},
    output_frame, output_reply,
    output_server::{Output, OutputServer},
    session_server::{self, SessionServer},
};
use tokio::{
    net::{TcpListener, TcpStream},
    task::AbortHandle,
    time::{sleep, timeout},
};
use tokio_stream::{StreamExt, wrappers::ReceiverStream};
use tonic::{Request, Response, Status, Streaming};
use uuid::Uuid;

use super::*;
use crate::{
    clock,
    link::enroll::{EnrollError, PublicKeys, enroll},
    messages::Inventory,
    segment::Writer,
};

const AGENT: AgentId = AgentId(Uuid::from_u128(11));
const ORG: OrgId = OrgId(Uuid::from_u128(12));

/// What the controller saw and holds.
#[derive(Default)]
struct Held {
    hellos: Vec<proto::Hello>,
    reports: Vec<proto::Report>,
    output: HashMap<Vec<u8>, (proto::Cursor, Vec<u8>)>,
    samples: usize,
    renewals: usize,
    connections: Vec<AbortHandle>,
    output_streams: usize,
}

struct Fake {
    authority: Authority,
    /// Life of the certificates that it gives.
    life: SignedDuration,
    held: Mutex<Held>,
}

impl Fake {
    fn credentials(&self, csr: &[u8]) -> Credentials {
        let now = clock::now();
        let certificate = self
            .authority
            .issue_agent(csr, ORG, AGENT, pki::random(), now - SignedDuration::from_secs(60), now + self.life)
            .unwrap();
        Credentials {
            agent_id: AGENT.to_bytes(),
            org_id: ORG.to_bytes(),
            trust_domain: self.authority.trust_domain().to_owned(),
            certificate,
            issuer: self.authority.agents_ca_der().to_vec(),
            controllers_ca: self.authority.controllers_ca_der().to_vec(),
            root: self.authority.root_der().to_vec(),
            pending: false,
        }
    }
}

struct Door(Arc<Fake>);
type Replies<T> = ReceiverStream<Result<T, Status>>;

#[tonic::async_trait]
impl Enrollment for Door {
    async fn enroll(&self, request: Request<EnrollRequest>) -> Result<Response<Credentials>, Status> {
        let request = request.into_inner();
        if EnrollToken::parse(&request.token).unwrap().id != EnrollTokenId(Uuid::from_u128(1)) {
            return Err(Status::permission_denied("the token was used already"));
        }
        Ok(Response::new(self.0.credentials(&request.csr)))
    }

    async fn renew(&self, request: Request<RenewRequest>) -> Result<Response<Credentials>, Status> {
        self.0.held.lock().unwrap().renewals += 1;
        Ok(Response::new(self.0.credentials(&request.into_inner().csr)))
    }
}

#[tonic::async_trait]
impl session_server::Session for Door {
    type OpenStream = Replies<ControllerFrame>;

    async fn open(
        &self,
        request: Request<Streaming<AgentFrame>>,
    ) -> Result<Response<Self::OpenStream>, Status> {
        let (sender, replies) = mpsc::channel(1000);
        let (fake, mut frames) = (Arc::clone(&self.0), request.into_inner());
        tokio::spawn(async move {
            while let Some(Ok(AgentFrame { frame: Some(frame) })) = frames.next().await {
                let reply = match frame {
                    agent_frame::Frame::Hello(hello) => {
                        fake.held.lock().unwrap().hellos.push(hello);
                        let welcome = proto::Welcome {
                            protocol: 1,
                            heartbeat_ms: 200,
                            metrics_ms: 1000,
                            ..proto::Welcome::default()
                        };
                        controller_frame::Frame::Welcome(welcome)
                    }
                    agent_frame::Frame::Report(report) => {
                        let seq = report.seq;
                        fake.held.lock().unwrap().reports.push(report);
                        let verdict = proto::Verdict::Stored.into();
                        controller_frame::Frame::Ack(proto::ReportAck { seq, verdict, reason: String::new() })
                    }
                    _ => continue,
                };
                if sender.send(Ok(ControllerFrame { frame: Some(reply) })).await.is_err() {
                    return;
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(replies)))
    }
}

#[tonic::async_trait]
impl Output for Door {
    type ShipStream = Replies<OutputReply>;

    async fn ship(
        &self,
        request: Request<Streaming<OutputFrame>>,
    ) -> Result<Response<Self::ShipStream>, Status> {
        let (sender, replies) = mpsc::channel(1000);
        let (fake, mut frames) = (Arc::clone(&self.0), request.into_inner());
        fake.held.lock().unwrap().output_streams += 1;
        tokio::spawn(async move {
            while let Some(Ok(OutputFrame { frame: Some(frame) })) = frames.next().await {
                let mut answers = Vec::new();
                {
                    let mut held = fake.held.lock().unwrap();
                    match frame {
                        output_frame::Frame::Resume(resume) => {
                            let (cursor, _) = held.output.entry(resume.run_id.clone()).or_default();
                            (cursor.run_id, cursor.attempt) = (resume.run_id, resume.attempt);
                            answers.push(output_reply::Reply::Held(cursor.clone()));
                        }
                        output_frame::Frame::Batch(batch) => {
                            for chunk in batch.chunks {
                                let (cursor, bytes) = held.output.get_mut(&chunk.run_id).unwrap();
                                assert_eq!(chunk.seq, cursor.next_seq);
                                assert_eq!(chunk.offset, cursor.stdout_offset);
                                let data = match chunk.encoding() {
                                    proto::Encoding::Plain => chunk.data.to_vec(),
                                    proto::Encoding::Zstd => {
                                        zstd::bulk::decompress(&chunk.data, 1 << 20).unwrap()
                                    }
                                };
                                bytes.extend(data);
                                cursor.next_seq += 1;
                                cursor.stdout_offset += u64::from(chunk.length);
                                answers.push(output_reply::Reply::Stored(cursor.clone()));
                            }
                        }
                    }
                }
                for answer in answers {
                    if sender.send(Ok(OutputReply { reply: Some(answer) })).await.is_err() {
                        return;
                    }
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(replies)))
    }
}

#[tonic::async_trait]
impl Metrics for Door {
    async fn report(
        &self,
        request: Request<Streaming<HostSample>>,
    ) -> Result<Response<MetricsReply>, Status> {
        let mut samples = request.into_inner();
        while let Some(sample) = samples.next().await {
            assert!(sample?.memory_total > 0);
            self.0.held.lock().unwrap().samples += 1;
        }
        Ok(Response::new(MetricsReply { stored: 1 }))
    }
}

/// Starts a controller whose TLS ends in front of a plain server, so that connections can be cut there.
async fn controller(life: SignedDuration) -> (Arc<Fake>, Address) {
    pki::install_provider();
    let now = clock::now();
    let authority = Authority::create("test.example", now).unwrap().authority;
    let (from, until) = (now - SignedDuration::from_secs(60), now + SignedDuration::from_hours(1));
    let identity = authority.issue_controller(ControllerId(Uuid::from_u128(1)), from, until).unwrap();
    let tls = pki::tls::server_config(identity, authority.agents_ca_der()).unwrap();
    let fake = Arc::new(Fake { authority, life, held: Mutex::default() });

    let plain = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let behind = plain.local_addr().unwrap();
    let door = || Door(Arc::clone(&fake));
    let server = tonic::transport::Server::builder()
        .add_service(EnrollmentServer::new(door()))
        .add_service(SessionServer::new(door()))
        .add_service(OutputServer::new(door()))
        .add_service(MetricsServer::new(door()))
        .serve_with_incoming(tokio_stream::wrappers::TcpListenerStream::new(plain));
    tokio::spawn(server);

    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("localhost:{}", listener.local_addr().unwrap().port()).parse().unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(tls);
    let keeper = Arc::clone(&fake);
    tokio::spawn(async move {
        while let Ok((outside, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            let task = tokio::spawn(async move {
                let mut outside = acceptor.accept(outside).await?;
                let mut inside = TcpStream::connect(behind).await?;
                tokio::io::copy_bidirectional(&mut outside, &mut inside).await.map(drop)
            });
            keeper.held.lock().unwrap().connections.push(task.abort_handle());
            drop::<tokio::task::JoinHandle<io::Result<()>>>(task);
        }
    });
    (fake, address)
}

fn token(fake: &Fake, id: u128) -> (EnrollToken, String) {
    let token = EnrollToken {
        id: EnrollTokenId(Uuid::from_u128(id)),
        secret: zeroize::Zeroizing::new(pki::random()),
        root_pin: fake.authority.root_pin(),
    };
    let text = token.reveal();
    (token, text)
}

async fn enrolled(fake: &Fake, address: &Address) -> Identity {
    let (token, text) = token(fake, 1);
    let keys = PublicKeys { result_key: vec![1; 32], seal_key: vec![2; 32] };
    enroll(address, &token, &text, "host".to_owned(), keys).await.unwrap().identity
}

/// A link with a stand-in for the executor.
struct Agent {
    link: Link,
    say: mpsc::Sender<ToLink>,
    heard: mpsc::Receiver<ToExecutor>,
    /// Where the stand-in listens.
    listening: AbortHandle,
    folder: PathBuf,
}

fn start(data: &Path, address: &Address, identity: Identity) -> Agent {
    let folder = super::folder(data);
    identity.save(&identity_folder(&folder)).unwrap();
    let settings = Settings {
        timing: crate::config::Timing::default(),
        folder: folder.clone(),
        controllers: vec![address.clone()],
        learns_controllers: false,
        identity,
        slots: 4,
        metrics_every: None,
        executor_pid: std::process::id(),
        confinement: Confinement::default(),
    };
    let (to_executor, mut inbox) = mpsc::channel(100);
    let (say, from_executor) = mpsc::channel(100);
    let (pass, heard) = mpsc::channel(100);
    let listening = tokio::spawn(async move {
        while let Some(message) = inbox.recv().await {
            match message {
                ToExecutor::Inventory(reply) => {
                    drop(reply.send(Inventory {
                        journal_epoch: vec![7; 16],
                        fence: 0,
                        held: Vec::new(),
                        facts: Default::default(),
                    }));
                }
                message => drop(pass.send(message).await),
            }
        }
    })
    .abort_handle();
    let attempts = data.to_owned();
    let sources: Sources = Arc::new(move |key| Arc::new(attempts.join(key.run_id.0.as_u128().to_string())));
    let link = Link::start(settings, to_executor, from_executor, sources).unwrap();
    Agent { link, say, heard, listening, folder }
}

/// Waits until the controller has seen something.
async fn until(fake: &Fake, what: impl Fn(&Held) -> bool) {
    let seen = async {
        while !what(&fake.held.lock().unwrap()) {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(Duration::from_secs(30), seen).await.expect("the controller saw it");
}

fn key(n: u128) -> AttemptKey {
    AttemptKey {
        execution_id: ExecutionId(Uuid::from_u128(1)),
        run_id: RunId(Uuid::from_u128(n)),
        attempt: 1,
    }
}

fn report(key: AttemptKey, body: Body) -> proto::Report {
    proto::Report {
        seq: 0,
        execution_id: key.execution_id.to_bytes(),
        run_id: key.run_id.to_bytes(),
        attempt: key.attempt,
        body: Some(body),
    }
}

fn finished(key: AttemptKey, bytes: u64) -> proto::Report {
    let stdout = Some(proto::StreamTotals { bytes, stored: bytes, sha256: Vec::new() });
    let record = proto::ExitRecord { stdout, ..proto::ExitRecord::default() };
    let record = prost::Message::encode_to_vec(&record);
    report(key, Body::Finished(proto::Finished { record, signature: Vec::new() }))
}

async fn settled(agent: &mut Agent) -> AttemptKey {
    match timeout(Duration::from_secs(30), agent.heard.recv()).await.expect("in time") {
        Some(ToExecutor::Settled(key)) => key,
        other => panic!("{other:?}"),
    }
}

fn lines(writer: &mut Writer, offset: u64, count: u64) -> u64 {
    let line = [b'x'; 99].into_iter().chain([b'\n']).collect::<Vec<u8>>();
    (0..count).fold(offset, |offset, n| {
        writer.append(Stream::Stdout, i64::try_from(n).unwrap() * 1000, offset, &line).unwrap();
        offset + line.len() as u64
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn output_and_results_are_whole_over_lost_connections() {
    let (fake, address) = controller(SignedDuration::from_hours(1)).await;
    let data = tempfile::tempdir().unwrap();
    let mut agent = start(data.path(), &address, enrolled(&fake, &address).await);
    until(&fake, |held| held.hellos.len() == 1).await;

    // Silence: a result without any output connection.
    std::fs::create_dir(data.path().join("1")).unwrap();
    agent.say.send(ToLink::Report(report(key(1), Body::Accepted(proto::Accepted { at: 1 })))).await.unwrap();
    agent.say.send(ToLink::Ended { key: key(1), report: finished(key(1), 0) }).await.unwrap();
    assert_eq!(settled(&mut agent).await, key(1));
    assert_eq!(fake.held.lock().unwrap().output_streams, 0);

    // Two writers, and the network breaks again and again.
    let folders = [2, 3].map(|n| data.path().join(n.to_string()));
    let mut writers = folders.each_ref().map(|folder| {
        std::fs::create_dir(folder).unwrap();
        Writer::create(folder).unwrap()
    });
    let mut offsets = [0, 0];
    for round in 0..40 {
        for at in [0, 1] {
            offsets[at] = lines(&mut writers[at], offsets[at], 200);
            let grew = ToLink::OutputGrew(key(at as u128 + 2));
            agent.say.send(grew).await.unwrap();
        }
        sleep(Duration::from_millis(20)).await;
        if round % 10 == 5 {
            fake.held.lock().unwrap().connections.drain(..).for_each(|connection| connection.abort());
        }
    }
    for at in [0, 1] {
        let key = key(at as u128 + 2);
        let ended = ToLink::Ended { key, report: finished(key, offsets[at]) };
        agent.say.send(ended).await.unwrap();
    }
    let mut done = [settled(&mut agent).await, settled(&mut agent).await];
    done.sort();
    assert_eq!(done, [key(2), key(3)]);
    {
        let held = fake.held.lock().unwrap();
        for at in [0, 1] {
            let (cursor, bytes) = &held.output[&key(at as u128 + 2).run_id.to_bytes()];
            assert_eq!((cursor.stdout_offset, bytes.len() as u64), (offsets[at], offsets[at]));
            assert!(
                bytes
                    .chunks(100)
                    .all(|line| line[99] == b'\n' && line[..99].iter().all(|byte| *byte == b'x'))
            );
        }
        assert!(held.hellos.len() > 1, "the session came back");
    }
    let live = {
        let folder = agent.folder.clone();
        tokio::task::spawn_blocking(move || status::ask(&folder)).await.unwrap().unwrap()
    };
    assert_eq!((live.agent_id, live.unanswered_reports), (AGENT, 0));
    until(&fake, |held| held.samples > 0).await;
    agent.link.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_is_delivered_after_the_executor_has_ended() {
    let (fake, address) = controller(SignedDuration::from_hours(1)).await;
    let data = tempfile::tempdir().unwrap();
    let mut agent = start(data.path(), &address, enrolled(&fake, &address).await);
    until(&fake, |held| held.hellos.len() == 1).await;
    agent.listening.abort();
    while agent.heard.recv().await.is_some() {}

    let mut written = HashMap::new();
    for n in 0..20 {
        let folder = data.path().join(n.to_string());
        std::fs::create_dir(&folder).unwrap();
        let bytes = lines(&mut Writer::create(&folder).unwrap(), 0, 100 * n as u64);
        written.insert(key(n).run_id.to_bytes(), bytes);
        agent.say.send(ToLink::Ended { key: key(n), report: finished(key(n), bytes) }).await.unwrap();
        let refused = report(key(100 + n), Body::Refused(proto::Refused::default()));
        agent.say.send(ToLink::Report(refused)).await.unwrap();
    }
    drop(agent.say);
    timeout(Duration::from_secs(30), agent.link.delivered()).await.expect("all is delivered");
    {
        let held = fake.held.lock().unwrap();
        assert_eq!((held.reports.len(), held.hellos.len()), (40, 1), "in one session");
        for (run_id, bytes) in written.iter().filter(|(_, bytes)| **bytes > 0) {
            assert_eq!(held.output[run_id].1.len() as u64, *bytes);
        }
    }
    agent.link.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_are_renewed_and_nothing_is_lost() {
    let (fake, address) = controller(SignedDuration::from_secs(3)).await;
    let data = tempfile::tempdir().unwrap();
    let mut agent = start(data.path(), &address, enrolled(&fake, &address).await);
    for n in 0..50 {
        let folder = data.path().join(n.to_string());
        std::fs::create_dir(&folder).unwrap();
        let bytes = lines(&mut Writer::create(&folder).unwrap(), 0, 3);
        agent.say.send(ToLink::Ended { key: key(n), report: finished(key(n), bytes) }).await.unwrap();
        assert_eq!(settled(&mut agent).await, key(n));
        sleep(Duration::from_millis(100)).await;
    }
    until(&fake, |held| held.renewals >= 3 && held.hellos.len() >= 4).await;
    agent.link.stop().await;
    let identity = Identity::load(&identity_folder(&agent.folder)).unwrap();
    assert!(!identity.is_expired());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_expired_certificate_is_renewed_first() {
    let (fake, address) = controller(SignedDuration::from_secs(1)).await;
    let data = tempfile::tempdir().unwrap();
    let identity = enrolled(&fake, &address).await;
    while clock::now() < identity.expires_at + SignedDuration::from_millis(1100) {
        sleep(Duration::from_millis(50)).await;
    }
    let agent = start(data.path(), &address, identity);
    until(&fake, |held| held.renewals >= 1 && !held.hellos.is_empty()).await;
    agent.link.stop().await;
}

#[tokio::test]
async fn enrollment_says_what_is_wrong() {
    let (fake, address) = controller(SignedDuration::from_hours(1)).await;
    let keys = PublicKeys { result_key: vec![1; 32], seal_key: vec![2; 32] };
    let (used, text) = token(&fake, 2);
    let error = enroll(&address, &used, &text, "host".to_owned(), keys.clone()).await.unwrap_err();
    assert!(matches!(&error, EnrollError::Refused(why) if why.contains("used already")), "{error}");

    let (mut foreign, _) = token(&fake, 1);
    foreign.root_pin = [9; 32];
    let text = foreign.reveal();
    let error = enroll(&address, &foreign, &text, "host".to_owned(), keys.clone()).await.unwrap_err();
    assert!(matches!(&error, EnrollError::Connect(connect::ConnectError::Tls { .. })), "{error}");

    let (token, text) = token(&fake, 1);
    let nowhere = "127.0.0.1:1".parse().unwrap();
    let error = enroll(&nowhere, &token, &text, "host".to_owned(), keys).await.unwrap_err();
    assert!(matches!(&error, EnrollError::Connect(connect::ConnectError::Tcp { .. })), "{error}");
}
