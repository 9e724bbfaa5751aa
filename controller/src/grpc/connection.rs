//! Accepting connections: TLS, the caller's identity, and the handle that cuts a connection when its agent is revoked.

use std::{
    collections::VecDeque,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use pki::identity::AgentIdentity;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    time::{Instant, sleep_until, timeout},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::transport::server::Connected;

use super::Peer;
use crate::{app::App, error::Error};

/// How long a handshake may take, how many may be under way, and how long each of these is left alone when others wait:
/// one that takes longer may be of somebody who only wants to hold a place.
const HANDSHAKE: Duration = Duration::from_secs(10);
const HANDSHAKES: usize = 512;
const UNDISTURBED: Duration = Duration::from_secs(1);
/// Connections without a certificate, or with a revoked one: how many at a time, and how long each may stay.
const STRANGERS: usize = 256;
const STRANGER_FOR: Duration = Duration::from_secs(60);
/// Accepted connections that wait for the server to take them.
const ACCEPTED: usize = 64;

/// Accepts until `shutdown`.
pub(super) fn accept(
    app: Arc<App>,
    listener: TcpListener,
    shutdown: CancellationToken,
) -> mpsc::Receiver<io::Result<Connection>> {
    let (sender, receiver) = mpsc::channel(ACCEPTED);
    tokio::spawn(async move {
        let mut handshakes = Handshakes::new();
        let strangers = Arc::new(Semaphore::new(STRANGERS));
        loop {
            let permit = handshakes.place().await;
            let accepted = tokio::select! {
                () = shutdown.cancelled() => return,
                accepted = listener.accept() => accepted,
            };
            let (stream, address) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Too many open files, mostly: others may end meanwhile.
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            let (app, sender, strangers) = (Arc::clone(&app), sender.clone(), Arc::clone(&strangers));
            let over = handshakes.begin();
            tokio::spawn(async move {
                // However it ends, it is over.
                let _over = over.clone().drop_guard();
                let shaken = tokio::select! {
                    shaken = timeout(HANDSHAKE, handshake(&app, stream, address, strangers)) => shaken,
                    () = over.cancelled() => {
                        metrics::counter!("opsc_handshakes_refused_total").increment(1);
                        tracing::debug!(%address, "a slow handshake made room for others");
                        return;
                    }
                };
                let connection = match shaken {
                    Ok(Ok(connection)) => connection,
                    Ok(Err(error)) => {
                        metrics::counter!("opsc_handshakes_refused_total").increment(1);
                        tracing::debug!(%address, %error, "a handshake was refused");
                        return;
                    }
                    Err(_) => {
                        tracing::debug!(%address, "a handshake took too long");
                        return;
                    }
                };
                drop(permit);
                // Nobody takes it when the server is shutting down.
                let _ = sender.send(Ok(connection)).await;
            });
        }
    });
    receiver
}

/// The handshakes under way, the oldest first.
struct Handshakes {
    places: Arc<Semaphore>,
    under_way: VecDeque<(Instant, CancellationToken)>,
}

impl Handshakes {
    fn new() -> Self {
        Self { places: Arc::new(Semaphore::new(HANDSHAKES)), under_way: VecDeque::new() }
    }

    /// Waits for a place; the oldest handshake is ended for it if that has had its time.
    async fn place(&mut self) -> OwnedSemaphorePermit {
        let place = Arc::clone(&self.places).acquire_owned();
        tokio::pin!(place);
        while self.under_way.front().is_some_and(|(_, over)| over.is_cancelled()) {
            self.under_way.pop_front();
        }
        if let Some((begun, over)) = self.under_way.front() {
            tokio::select! {
                biased;
                place = &mut place => return place.expect("the semaphore is never closed"),
                () = sleep_until(*begun + UNDISTURBED) => over.cancel(),
            }
        }
        place.await.expect("the semaphore is never closed")
    }

    /// The end of the handshake that begins now, to be told or to be asked for.
    fn begin(&mut self) -> CancellationToken {
        let over = CancellationToken::new();
        self.under_way.push_back((Instant::now(), over.clone()));
        over
    }
}

async fn handshake(
    app: &Arc<App>,
    stream: TcpStream,
    address: SocketAddr,
    strangers: Arc<Semaphore>,
) -> io::Result<Connection> {
    stream.set_nodelay(true)?;
    let stream = TlsAcceptor::from(app.ca.door()).accept(stream).await?;
    let agent = match stream.get_ref().1.peer_certificates().and_then(<[_]>::first) {
        None => None,
        Some(certificate) => {
            Some(Arc::new(AgentIdentity::from_certificate(certificate).map_err(io::Error::other)?))
        }
    };
    let end = CancellationToken::new();
    let is_known = match &agent {
        None => false,
        Some(identity) => match crate::app::sessions::admit(app, identity).await {
            Ok(_) => true,
            // In, to be told so: each of its calls is refused by the same row, or for want of one.
            Err(Error::Revoked(_) | Error::BadCredential(_)) => false,
            Err(error) => return Err(io::Error::other(error)),
        },
    };
    let mut place = None;
    if let Some(agent) = agent.as_ref().filter(|_| is_known) {
        app.sessions.add_connection(agent.agent_id, end.clone());
    } else {
        place = Some(strangers.try_acquire_owned().map_err(io::Error::other)?);
        let end = end.clone();
        tokio::spawn(async move {
            if timeout(STRANGER_FOR, end.cancelled()).await.is_err() {
                end.cancel();
            }
        });
    }
    Ok(Connection {
        stream,
        peer: Peer { address, agent },
        ended: Box::pin(end.clone().cancelled_owned()),
        end,
        _place: place,
        app: Arc::clone(app),
    })
}

/// A connection of an agent, or of a host that wants to become one.
pub(super) struct Connection {
    stream: TlsStream<TcpStream>,
    peer: Peer,
    ended: Pin<Box<WaitForCancellationFutureOwned>>,
    end: CancellationToken,
    /// Of a stranger, among the strangers.
    _place: Option<OwnedSemaphorePermit>,
    app: Arc<App>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.end.cancel();
        if let Some(agent) = &self.peer.agent {
            self.app.sessions.forget_ended_connections(agent.agent_id);
        }
    }
}

impl Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.ended.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if self.end.is_cancelled() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.stream).poll_shutdown(cx))?;
        Poll::Ready(Ok(()))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
