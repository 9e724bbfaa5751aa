//! The bare server that floors are measured against: tonic over the same mTLS as the controller's door, in a process of
//! its own, and nothing behind it. `Renew` echoes, a session gets its welcome and is held open.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::SocketAddr,
    path::{Path, PathBuf},
    pin::Pin,
    process::{ChildStdin, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use anyhow::Context as _;
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
    service::TowerToHyperService,
};
use jiff::SignedDuration;
use model::{
    id::{ControllerId, OrgId},
    limits,
};
use pki::Authority;
use proto::{
    AgentFrame, ControllerFrame, Credentials, EnrollRequest, RenewRequest, Welcome, controller_frame,
    enrollment_server::{Enrollment, EnrollmentServer},
    session_server::{Session, SessionServer},
};
use tokio::{net::TcpListener, sync::mpsc};
use tokio_rustls::TlsAcceptor;
use tokio_stream::{Stream, StreamExt as _, wrappers::ReceiverStream};
use tonic::{Request, Response, Status, Streaming, service::Routes};

use crate::{
    clock,
    process::{Process, quiet},
    swarm::{self, Identity, Trust},
};

const LIFE: SignedDuration = SignedDuration::from_hours(24);
/// How long the server may take to end: it has nothing to do for that.
const PATIENCE: Duration = Duration::from_secs(2);
const TRUST_DOMAIN: &str = "bare.bench";

/// Serves until the standard input is closed: when whoever started it is gone, so is this.
///
/// # Errors
/// When the authority cannot be read or nothing can be served.
pub(crate) fn serve(ca: &Path) -> anyhow::Result<()> {
    let authority = swarm::read_authority(ca)?;
    let runtime = tokio::runtime::Runtime::new().context("cannot start threads")?;
    runtime.block_on(async {
        let address = open(&authority).await?;
        writeln!(std::io::stdout(), "{address}").context("cannot tell the address")?;
        tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new()))
            .await?
            .context("cannot wait")
    })?;
    runtime.shutdown_background();
    Ok(())
}

/// Serves in this process, as long as its runtime lives; where.
///
/// # Errors
/// When nothing can be served.
pub(crate) async fn open(authority: &Authority) -> anyhow::Result<SocketAddr> {
    let now = clock::now();
    let id = ControllerId::new(now, clock::entropy());
    let identity = authority.issue_controller(id, now, now + LIFE).context("cannot issue a certificate")?;
    let tls = pki::tls::server_config(identity, authority.agents_ca_der()).context("cannot serve TLS")?;
    let listener = TcpListener::bind("127.0.0.1:0").await.context("cannot listen")?;
    let address = listener.local_addr().context("cannot listen")?;
    tokio::spawn(accept(listener, TlsAcceptor::from(tls)));
    Ok(address)
}

async fn accept(listener: TcpListener, tls: TlsAcceptor) {
    let routes = Routes::new(EnrollmentServer::new(Door)).add_service(SessionServer::new(Door)).prepare();
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let (tls, routes) = (tls.clone(), routes.clone());
        tokio::spawn(async move {
            if stream.set_nodelay(true).is_err() {
                return;
            }
            let Ok(stream) = tls.accept(stream).await else { return };
            let server = auto::Builder::new(TokioExecutor::new()).http2_only();
            // The peer has gone, which is how every connection ends.
            let _ = server.serve_connection(TokioIo::new(stream), TowerToHyperService::new(routes)).await;
        });
    }
}

struct Door;

#[tonic::async_trait]
impl Enrollment for Door {
    async fn enroll(&self, _request: Request<EnrollRequest>) -> Result<Response<Credentials>, Status> {
        Err(Status::unimplemented("the bare server has nobody to enroll"))
    }

    async fn renew(&self, request: Request<RenewRequest>) -> Result<Response<Credentials>, Status> {
        Ok(Response::new(Credentials { certificate: request.into_inner().csr, ..Credentials::default() }))
    }
}

#[tonic::async_trait]
impl Session for Door {
    type OpenStream = Pin<Box<dyn Stream<Item = Result<ControllerFrame, Status>> + Send>>;

    async fn open(
        &self,
        request: Request<Streaming<AgentFrame>>,
    ) -> Result<Response<Self::OpenStream>, Status> {
        let mut inbound = request.into_inner();
        let (outbound, frames) = mpsc::channel(1);
        tokio::spawn(async move {
            let heartbeat_ms = u32::try_from(limits::HEARTBEAT_EVERY.as_millis()).unwrap_or(u32::MAX);
            while let Some(Ok(frame)) = inbound.next().await {
                if let Some(proto::agent_frame::Frame::Hello(_)) = frame.frame {
                    let welcome = Welcome { protocol: 1, heartbeat_ms, ..Welcome::default() };
                    let frame = ControllerFrame { frame: Some(controller_frame::Frame::Welcome(welcome)) };
                    if outbound.send(Ok(frame)).await.is_err() {
                        return;
                    }
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(frames))))
    }
}

/// A running bare server and those who may connect to it.
#[derive(Debug)]
pub(crate) struct Bare {
    process: Process,
    /// Closed when this is dropped.
    _stdin: Option<ChildStdin>,
    authority: Authority,
    pub(crate) address: SocketAddr,
    pub(crate) trust: Arc<Trust>,
}

impl Bare {
    /// Starts one that keeps its files in `folder`.
    ///
    /// # Errors
    /// When it does not come up.
    pub(crate) fn start(folder: &Path) -> anyhow::Result<Self> {
        let ca = folder.join("bare-ca");
        let authority =
            Authority::create(TRUST_DOMAIN, clock::now()).context("cannot make an authority")?.authority;
        write_authority(&authority, &ca)?;
        let mut command = Command::new(own_program()?);
        command.arg("bare-server").arg("--ca").arg(&ca).stdin(Stdio::piped()).stdout(Stdio::piped());
        quiet(&mut command);
        let mut process = Process::start(command, "the bare server", &folder.join("bare.log"), PATIENCE)?;
        let (stdin, stdout) = process.pipes();
        let mut line = String::new();
        BufReader::new(stdout.context("the bare server has no output")?)
            .read_line(&mut line)
            .context("cannot read what the bare server says")?;
        process.check()?;
        let address =
            line.trim().parse().with_context(|| format!("the bare server said '{}'", line.trim()))?;
        let trust = Arc::new(Trust::of(&authority)?);
        Ok(Self { process, _stdin: stdin, authority, address, trust })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Makes agents that it lets in.
    ///
    /// # Errors
    /// When a key or certificate cannot be made.
    pub(crate) fn identities(&self, count: usize) -> anyhow::Result<Vec<Arc<Identity>>> {
        let org = OrgId::new(clock::now(), clock::entropy());
        let issued = swarm::issue(&self.authority, &self.trust, org, count)?;
        Ok(issued.into_iter().map(|issued| Arc::new(issued.identity)).collect())
    }
}

/// The path of this program.
///
/// # Errors
/// When it is gone.
pub(crate) fn own_program() -> anyhow::Result<PathBuf> {
    std::env::current_exe().context("cannot find the bench's own program")
}

fn write_authority(authority: &Authority, folder: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let pem = authority.to_pem();
    for (name, text) in [
        ("trust-domain", pem.trust_domain.as_str()),
        ("root.pem", &pem.root_cert),
        ("agents.pem", &pem.agents_cert),
        ("agents.key", &pem.agents_key),
        ("controllers.pem", &pem.controllers_cert),
        ("controllers.key", &pem.controllers_key),
    ] {
        let path = folder.join(name);
        std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}
