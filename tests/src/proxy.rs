//! A TCP proxy with faults: what a network between agent and controller may do.

use std::{net::SocketAddr, sync::LazyLock};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, tcp::OwnedReadHalf, tcp::OwnedWriteHalf},
    runtime::Runtime,
    sync::watch,
};

/// Proxies outlive the runtimes of single tests.
static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("a runtime starts")
});

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Pass,
    /// Connections stay, nothing moves.
    Stall,
    /// Connections break, new ones too.
    Cut,
}

/// Listens on a loopback port and passes connections on.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    mode: watch::Sender<Mode>,
}

impl Proxy {
    /// A proxy to `to`, healthy.
    pub fn start(to: SocketAddr) -> Self {
        let (mode, seen) = watch::channel(Mode::Pass);
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("the kernel has a port");
        listener.set_nonblocking(true).expect("a socket can be set");
        let address = listener.local_addr().expect("it is bound");
        RUNTIME.spawn(async move {
            let listener = TcpListener::from_std(listener).expect("the runtime takes it");
            let mut over = seen.clone();
            loop {
                let accepted = tokio::select! {
                    accepted = listener.accept() => accepted,
                    // The proxy was dropped.
                    _ = over.wait_for(|_| false) => return,
                };
                let Ok((near, _)) = accepted else { continue };
                tokio::spawn(connection(near, to, seen.clone()));
            }
        });
        Self { address, mode }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Breaks all connections, and each that is made until [`Self::heal`].
    pub fn cut(&self) {
        self.mode.send_replace(Mode::Cut);
    }

    /// Lets nothing through any more, in neither direction, without breaking a connection.
    pub fn stall(&self) {
        self.mode.send_replace(Mode::Stall);
    }

    pub fn heal(&self) {
        self.mode.send_replace(Mode::Pass);
    }
}

async fn connection(near: TcpStream, to: SocketAddr, mut mode: watch::Receiver<Mode>) {
    if *mode.borrow() == Mode::Cut {
        return;
    }
    let Ok(far) = TcpStream::connect(to).await else { return };
    // Latency is not one of its faults.
    let _ = (near.set_nodelay(true), far.set_nodelay(true));
    let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
    let (there, back) = (pass(near_in, far_out, mode.clone()), pass(far_in, near_out, mode.clone()));
    tokio::select! {
        _ = async { tokio::join!(there, back) } => {}
        _ = async { mode.wait_for(|mode| *mode == Mode::Cut).await.map(drop) } => {}
    }
}

async fn pass(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut mode: watch::Receiver<Mode>) {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let Ok(count @ 1..) = from.read(&mut buffer).await else { return };
        let passes = mode.wait_for(|mode| *mode == Mode::Pass).await.is_ok();
        if !passes || to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}
