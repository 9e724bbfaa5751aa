//! How many connections may be open, of one address and in all. What is over a limit is closed at once, before a TLS
//! handshake costs anything, and counted. Those of a proxy of ours are many people's: the limit of an address is none for it.

use std::{
    collections::HashMap,
    future::{Ready, ready},
    io,
    net::IpAddr,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
};

use axum_server::accept::Accept;
use model::limits;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

use crate::{address::counted, app::Proxies};

/// The connections that are open now.
#[derive(Debug, Default)]
struct Open(Mutex<Counts>);

#[derive(Debug, Default)]
struct Counts {
    all: usize,
    of_address: HashMap<IpAddr, usize>,
}

/// One place among the open connections, until it is dropped.
#[derive(Debug)]
struct Place {
    open: Arc<Open>,
    address: IpAddr,
}

impl Open {
    /// A place for one more connection of this address, of which there may be `most`, or the name of the limit that is reached.
    fn enter(self: &Arc<Self>, address: IpAddr, most: usize) -> Result<Place, &'static str> {
        let mut counts = self.0.lock().expect("no holder of this lock panics");
        if counts.all >= limits::HTTP_CONNECTIONS {
            return Err("HTTP_CONNECTIONS");
        }
        let own = counts.of_address.entry(address).or_default();
        if *own >= most {
            return Err("HTTP_CONNECTIONS_PER_ADDRESS");
        }
        *own += 1;
        counts.all += 1;
        metrics::gauge!("opsc_http_connections").set(counts.all as f64);
        Ok(Place { open: Arc::clone(self), address })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.open.0.lock().expect("no holder of this lock panics");
        counts.all -= 1;
        metrics::gauge!("opsc_http_connections").set(counts.all as f64);
        if let Some(own) = counts.of_address.get_mut(&self.address) {
            *own -= 1;
            if *own == 0 {
                counts.of_address.remove(&self.address);
            }
        }
    }
}

/// Lets connections in while there is a place for them.
#[derive(Debug, Clone, Default)]
pub(super) struct Bounded {
    open: Arc<Open>,
    proxies: Proxies,
}

impl Bounded {
    pub(super) fn new(proxies: &Proxies) -> Self {
        Self { open: Arc::default(), proxies: proxies.clone() }
    }

    /// As what a connection from this address is counted, and how many of these there may be.
    fn most(&self, address: IpAddr) -> (IpAddr, usize) {
        if self.proxies.has(address) {
            (address.to_canonical(), limits::HTTP_CONNECTIONS)
        } else {
            (counted(address), limits::HTTP_CONNECTIONS_PER_ADDRESS)
        }
    }
}

impl<S> Accept<TcpStream, S> for Bounded {
    type Stream = Placed;
    type Service = S;
    type Future = Ready<io::Result<(Placed, S)>>;

    fn accept(&self, stream: TcpStream, service: S) -> Self::Future {
        ready(stream.peer_addr().and_then(|peer| {
            let (address, most) = self.most(peer.ip());
            let place = self.open.enter(address, most).map_err(|limit| {
                metrics::counter!("opsc_http_connections_refused_total", "limit" => limit).increment(1);
                tracing::debug!(http.peer = %peer, limit, "a connection is closed: too many are open");
                io::Error::other(limit)
            })?;
            Ok((Placed { stream, _place: place }, service))
        }))
    }
}

/// A connection with its place.
#[derive(Debug)]
pub(super) struct Placed {
    stream: TcpStream,
    _place: Place,
}

impl AsyncRead for Placed {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Placed {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(n: usize) -> IpAddr {
        IpAddr::from(u32::try_from(n).expect("small").to_be_bytes())
    }

    #[test]
    fn places_are_bounded_by_address_and_in_all_and_come_back() {
        let open = Arc::new(Open::default());
        let enter = |n| open.enter(address(n), limits::HTTP_CONNECTIONS_PER_ADDRESS);
        let mut own: Vec<Place> =
            (0..limits::HTTP_CONNECTIONS_PER_ADDRESS).map(|_| enter(1).expect("a place")).collect();
        assert_eq!(enter(1).err(), Some("HTTP_CONNECTIONS_PER_ADDRESS"));
        drop(own.pop());
        own.push(enter(1).expect("one came back"));
        let others: Vec<Place> =
            (own.len()..limits::HTTP_CONNECTIONS).map(|n| enter(n + 2).expect("a place")).collect();
        assert_eq!(enter(0).err(), Some("HTTP_CONNECTIONS"));
        drop((own, others));
        let counts = open.0.lock().expect("free");
        assert!(counts.all == 0 && counts.of_address.is_empty(), "{counts:?}");
    }

    #[test]
    fn a_proxy_of_ours_brings_many_people() {
        let bounded = Bounded::new(&Proxies::of(&["10.0.0.5", "2001:db8::5"]));
        let most = |text: &str| bounded.most(text.parse().expect("an address"));
        assert_eq!(most("10.0.0.5").1, limits::HTTP_CONNECTIONS);
        assert_eq!(most("10.0.0.6").1, limits::HTTP_CONNECTIONS_PER_ADDRESS);
        // It takes no place of its neighbours.
        assert_ne!(most("2001:db8::5").0, most("2001:db8::6").0);
    }
}
