//! Connections to a controller: TCP, TLS 1.3 with our own verifier, HTTP/2.
//!
//! Invariants: a host name is resolved anew for every connection; a channel is one connection and never reconnects by
//! itself, so that whoever lost it notices and decides; a peer that is gone is noticed within the
//! `silence` that the connection was opened with, by HTTP/2 pings, also when nothing is said.

use std::{
    fmt, io,
    net::{IpAddr, SocketAddr},
    str::FromStr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use hyper_util::rt::TokioIo;
use model::{Invalid, limits};
use rustls::{ClientConfig, pki_types::ServerName};
use serde::{Deserialize, Serialize};
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint};

/// How long a connection may take, from the first look at the name to the end of the TLS handshake.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Share of the silence that a ping may stay unanswered; the rest is the interval before it.
const PING_SHARE: u32 = 3;

/// Where a controller's agents' door is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Address {
    host: String,
    port: u16,
}

impl FromStr for Address {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let wrong =
            || Invalid::new("controller", format!("'{text}' is not an address (HOST:PORT is expected)"));
        let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let port = port.parse().ok().filter(|port| *port != 0).ok_or_else(wrong)?;
        ServerName::try_from(host).map_err(|_| wrong())?;
        Ok(Self { host: host.to_owned(), port })
    }
}

impl TryFrom<String> for Address {
    type Error = Invalid;

    fn try_from(text: String) -> Result<Self, Invalid> {
        text.parse()
    }
}

impl From<Address> for String {
    fn from(address: Address) -> Self {
        address.to_string()
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error("cannot find the address of {address}")]
    Resolve { address: Address, source: io::Error },
    #[error("cannot reach {address}")]
    Tcp { address: Address, source: io::Error },
    #[error("cannot agree with {address} on a secure connection")]
    Tls { address: Address, source: io::Error },
    #[error(
        "the certificate of {address} is not valid at this host's time, {now}: is this host's clock right?"
    )]
    Clock { address: Address, now: jiff::Timestamp, source: io::Error },
    #[error("{address} closed the connection (is this the port for agents?)")]
    Http { address: Address, source: tonic::transport::Error },
    #[error("{address} did not answer within {} seconds", CONNECT_TIMEOUT.as_secs())]
    Timeout { address: Address },
}

/// One connection.
#[derive(Debug, Clone)]
pub(crate) struct Connection {
    pub(crate) channel: Channel,
    /// This host's end of it.
    pub(crate) local_ip: IpAddr,
}

/// Opens one connection to the controller at `address`.
///
/// # Errors
/// Which step failed: name, TCP, TLS or HTTP/2, or that it took longer than ten seconds.
pub(crate) async fn connect(
    address: &Address,
    tls: Arc<ClientConfig>,
    silence: Duration,
) -> Result<Connection, ConnectError> {
    timeout(CONNECT_TIMEOUT, connect_unbounded(address, tls, silence))
        .await
        .unwrap_or_else(|_| Err(ConnectError::Timeout { address: address.clone() }))
}

async fn connect_unbounded(
    address: &Address,
    tls: Arc<ClientConfig>,
    silence: Duration,
) -> Result<Connection, ConnectError> {
    let tcp = connect_tcp(address).await?;
    let local_ip =
        tcp.local_addr().map_err(|source| ConnectError::Tcp { address: address.clone(), source })?.ip();
    let name = ServerName::try_from(address.host.clone()).expect("checked when the address was parsed");
    let stream = TlsConnector::from(tls).connect(name, tcp).await.map_err(|source| {
        let address = address.clone();
        if blames_the_time(&source) {
            ConnectError::Clock { address, now: crate::clock::now(), source }
        } else {
            ConnectError::Tls { address, source }
        }
    })?;
    // The connector gives its one stream away; a channel that lost it gets an error instead of a second one.
    let stream = Mutex::new(Some(TokioIo::new(stream)));
    let connector = tower::service_fn(move |_| {
        let stream = stream.lock().unwrap_or_else(PoisonError::into_inner).take();
        async move { stream.ok_or_else(|| io::Error::new(io::ErrorKind::NotConnected, "the connection is over")) }
    });
    endpoint(address, silence)
        .connect_with_connector(connector)
        .await
        .map(|channel| Connection { channel, local_ip })
        .map_err(|source| ConnectError::Http { address: address.clone(), source })
}

/// Whether the handshake failed because a certificate has expired, or is of the future.
fn blames_the_time(error: &io::Error) -> bool {
    use rustls::{CertificateError as E, Error};
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
    matches!(
        inner,
        Some(Error::InvalidCertificate(
            E::Expired | E::ExpiredContext { .. } | E::NotValidYet | E::NotValidYetContext { .. }
        ))
    )
}

async fn connect_tcp(address: &Address) -> Result<TcpStream, ConnectError> {
    let found: Vec<SocketAddr> = tokio::net::lookup_host((address.host.as_str(), address.port))
        .await
        .map_err(|source| ConnectError::Resolve { address: address.clone(), source })?
        .collect();
    let share = CONNECT_TIMEOUT / u32::try_from(found.len().max(1)).unwrap_or(u32::MAX);
    let mut failure = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for candidate in found {
        match timeout(share, TcpStream::connect(candidate)).await {
            Ok(Ok(stream)) => {
                stream
                    .set_nodelay(true)
                    .map_err(|source| ConnectError::Tcp { address: address.clone(), source })?;
                return Ok(stream);
            }
            Ok(Err(error)) => failure = error,
            Err(_) => {
                failure = io::Error::new(io::ErrorKind::TimedOut, format!("{candidate} did not answer"));
            }
        }
    }
    Err(ConnectError::Tcp { address: address.clone(), source: failure })
}

/// The scheme is plain because the TLS below it is ours.
fn endpoint(address: &Address, silence: Duration) -> Endpoint {
    let ping_timeout = silence / PING_SHARE;
    Endpoint::from_shared(format!("http://{address}"))
        .expect("a checked address makes a URI")
        .user_agent(concat!("opsconductor-agent/", env!("CARGO_PKG_VERSION")))
        .expect("the version is a header value")
        .http2_keep_alive_interval(silence - ping_timeout)
        .keep_alive_timeout(ping_timeout)
        .keep_alive_while_idle(true)
        .buffer_size(limits::OUTBOUND_FRAMES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_written_alike() {
        for text in ["controller.example:7443", "10.0.0.1:7443", "[::1]:7443"] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_is_not_an_address_is_named() {
        for text in [
            "",
            "controller",
            "controller:",
            "controller:0",
            "controller:99999",
            ":7443",
            "a b:1",
            "http://x:1",
        ] {
            let error = text.parse::<Address>().unwrap_err();
            assert!(error.to_string().contains(&format!("'{text}'")), "{error}");
        }
    }
}
