//! Connections of simulated agents: TCP from one of many loopback addresses, TLS 1.3, HTTP/2.
//!
//! A source address has about 28,000 ports, and a port that was closed is not free at once: the agents are spread over
//! many addresses of 127.0.0.0/8.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::Context as _;
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, pki_types::ServerName};
use tokio::{net::TcpSocket, time::timeout};
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint};

/// Source addresses: 127.0.1.1 to 127.0.1.64.
const SOURCES: usize = 64;
/// From the first packet to the end of the TLS handshake.
const WITHIN: Duration = Duration::from_secs(30);

/// Where a connection goes and where it comes from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    pub(crate) controller: SocketAddr,
    pub(crate) source: Ipv4Addr,
}

/// The source address of the `index`th agent.
pub(crate) fn source(index: usize) -> Ipv4Addr {
    let last = u8::try_from(index % SOURCES).expect("there are fewer sources than a byte counts");
    Ipv4Addr::new(127, 0, 1, last + 1)
}

/// Opens one connection, which is never opened again by itself.
///
/// # Errors
/// Which step failed.
pub(crate) async fn connect(place: Place, tls: Arc<ClientConfig>) -> anyhow::Result<Channel> {
    timeout(WITHIN, connect_unbounded(place, tls)).await.context("the controller does not answer")?
}

async fn connect_unbounded(place: Place, tls: Arc<ClientConfig>) -> anyhow::Result<Channel> {
    let socket = TcpSocket::new_v4().context("cannot make a socket")?;
    socket
        .bind((place.source, 0).into())
        .with_context(|| format!("cannot use the address {}", place.source))?;
    let tcp = socket
        .connect(place.controller)
        .await
        .with_context(|| format!("cannot reach {}", place.controller))?;
    tcp.set_nodelay(true).context("cannot set up the connection")?;
    let name = ServerName::try_from("controller").expect("a plain word is a name");
    let stream = TlsConnector::from(tls).connect(name, tcp).await.context("the TLS handshake failed")?;
    // The connector gives its one stream away; a channel that lost it gets an error instead of a second one.
    let stream = Mutex::new(Some(TokioIo::new(stream)));
    let connector = tower::service_fn(move |_| {
        let stream = stream.lock().unwrap_or_else(PoisonError::into_inner).take();
        async move { stream.ok_or_else(|| io::Error::new(io::ErrorKind::NotConnected, "the connection is over")) }
    });
    Endpoint::from_static("http://controller")
        .buffer_size(4)
        .connect_with_connector(connector)
        .await
        .context("HTTP/2 could not begin")
}
