//! A TCP proxy with faults: what a network between agent and controller may do.
//!
//! Faults of one [`Way`] leave the other alone. [`Proxy::heal`] ends them all; what is broken by then stays broken.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc, LazyLock, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use nix::{
    libc::linger,
    sys::socket::{setsockopt, sockopt},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{ReadHalf, WriteHalf},
    },
    runtime::Runtime,
    sync::{mpsc, watch},
    time::Instant,
};

/// Bytes that are read at a time, and how many of these may wait in the proxy.
const PIECE: usize = 16 * 1024;
const WAITING: usize = 64;
/// A throttled way passes its bytes in so many pieces a second.
const STEPS: u32 = 20;

/// Proxies outlive the runtimes of single tests.
static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("a runtime starts")
});

/// A direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    ToController = 0,
    ToAgent = 1,
}

/// What becomes of a connection, old or new.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Mode {
    #[default]
    Pass,
    /// It is closed.
    Cut,
    /// It is reset.
    Reset,
    /// New ones are accepted and lead nowhere; old ones are closed.
    HalfOpen,
}

/// The faults of one way.
#[derive(Debug, Clone, Copy, Default)]
struct Lane {
    stalled: bool,
    delay: Duration,
    /// Bytes a second, if that is bounded.
    rate: Option<u32>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Faults {
    mode: Mode,
    lanes: [Lane; 2],
    /// All that a new connection says is said on a second one too.
    repeat: bool,
}

/// What the connections share.
#[derive(Debug, Default)]
struct Shared {
    /// Bytes after which a connection is cut, for each way, once.
    budgets: [Mutex<Option<usize>>; 2],
    /// Connections that are open.
    open: AtomicUsize,
    /// Connections that were cut by a budget.
    cuts: AtomicUsize,
}

/// Listens on a loopback port and passes connections on.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    faults: watch::Sender<Faults>,
    shared: Arc<Shared>,
}

impl Proxy {
    /// A proxy to `to`, healthy.
    pub fn start(to: SocketAddr) -> Self {
        let (faults, seen) = watch::channel(Faults::default());
        let shared = Arc::new(Shared::default());
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("the kernel has a port");
        listener.set_nonblocking(true).expect("a socket can be set");
        let address = listener.local_addr().expect("it is bound");
        let of_connections = Arc::clone(&shared);
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
                let (shared, seen) = (Arc::clone(&of_connections), seen.clone());
                tokio::spawn(async move {
                    shared.open.fetch_add(1, Ordering::Relaxed);
                    connection(near, to, seen, &shared).await;
                    shared.open.fetch_sub(1, Ordering::Relaxed);
                });
            }
        });
        Self { address, faults, shared }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Connections that are open now.
    pub fn open(&self) -> usize {
        self.shared.open.load(Ordering::Relaxed)
    }

    /// Breaks all connections, and each that is made until [`Self::heal`].
    pub fn cut(&self) {
        self.faults.send_modify(|faults| faults.mode = Mode::Cut);
    }

    /// As [`Self::cut`], with a reset instead of an orderly close.
    pub fn reset(&self) {
        self.faults.send_modify(|faults| faults.mode = Mode::Reset);
    }

    /// Breaks all connections; new ones are accepted, and never hear anything.
    pub fn half_open(&self) {
        self.faults.send_modify(|faults| faults.mode = Mode::HalfOpen);
    }

    /// Lets nothing through any more, in neither direction, without breaking a connection.
    pub fn stall(&self) {
        self.stall_one(Way::ToController);
        self.stall_one(Way::ToAgent);
    }

    /// Lets nothing through in one direction, without breaking a connection.
    pub fn stall_one(&self, way: Way) {
        self.faults.send_modify(|faults| faults.lanes[way as usize].stalled = true);
    }

    /// What goes this way comes so much later.
    pub fn delay(&self, way: Way, by: Duration) {
        self.faults.send_modify(|faults| faults.lanes[way as usize].delay = by);
    }

    /// So many bytes a second go this way on each connection.
    pub fn throttle(&self, way: Way, bytes_a_second: u32) {
        self.faults.send_modify(|faults| faults.lanes[way as usize].rate = Some(bytes_a_second));
    }

    /// Once `bytes` more have gone this way, the connection that carries the last of them is cut, once.
    pub fn cut_after(&self, way: Way, bytes: usize) {
        *self.shared.budgets[way as usize].lock().expect("nobody panics") = Some(bytes);
    }

    /// How many connections [`Self::cut_after`] has cut.
    pub fn cuts(&self) -> usize {
        self.shared.cuts.load(Ordering::Relaxed)
    }

    /// All that is said on a new connection is said to the controller on a second one too.
    pub fn repeat(&self) {
        self.faults.send_modify(|faults| faults.repeat = true);
    }

    pub fn heal(&self) {
        self.faults.send_replace(Faults::default());
    }
}

async fn connection(
    mut near: TcpStream,
    to: SocketAddr,
    mut faults: watch::Receiver<Faults>,
    shared: &Shared,
) {
    let Faults { mode, repeat, .. } = *faults.borrow();
    match mode {
        Mode::Pass => {}
        Mode::Cut => return,
        Mode::Reset => return abort(&near),
        Mode::HalfOpen => {
            // Until it is healed, or the other side has enough of it.
            let mut nothing = tokio::io::sink();
            let heard = tokio::io::copy(&mut near, &mut nothing);
            tokio::select! {
                _ = heard => {}
                _ = async { faults.wait_for(|faults| faults.mode != Mode::HalfOpen).await.map(drop) } => {}
            }
            return;
        }
    }
    let Ok(mut far) = TcpStream::connect(to).await else { return };
    let mut again = if repeat { TcpStream::connect(to).await.ok() } else { None };
    // Latency is not one of its faults unless asked for.
    let _ = (near.set_nodelay(true), far.set_nodelay(true));
    {
        let ((near_in, near_out), (far_in, far_out)) = (near.split(), far.split());
        let there = pass(near_in, far_out, again.as_mut(), (Way::ToController, faults.clone(), shared));
        let back = pass(far_in, near_out, None, (Way::ToAgent, faults.clone(), shared));
        tokio::select! {
            _ = async { tokio::try_join!(there, back) } => {}
            _ = async { faults.wait_for(|faults| faults.mode != Mode::Pass).await.map(drop) } => {}
        }
    }
    if faults.borrow().mode == Mode::Reset {
        abort(&near);
        abort(&far);
    }
}

/// Makes the socket's end a reset.
fn abort(stream: &TcpStream) {
    let at_once = linger { l_onoff: 1, l_linger: 0 };
    setsockopt(stream, sockopt::Linger, &at_once).expect("a socket can be set");
}

/// Passes bytes on until one side ends; an error ends the other way too.
async fn pass(
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    mut again: Option<&mut TcpStream>,
    (way, mut faults, shared): (Way, watch::Receiver<Faults>, &Shared),
) -> io::Result<()> {
    let (sender, mut pieces) = mpsc::channel::<(Instant, Vec<u8>)>(WAITING);
    let read = async move {
        loop {
            let mut buffer = vec![0; PIECE];
            let count = from.read(&mut buffer).await?;
            buffer.truncate(count);
            if count == 0 || sender.send((Instant::now(), buffer)).await.is_err() {
                return Ok(());
            }
        }
    };
    let write = async {
        while let Some((read_at, piece)) = pieces.recv().await {
            let mut rest = piece.as_slice();
            while !rest.is_empty() {
                let Lane { delay, rate, .. } = moving(&mut faults, way).await?;
                tokio::time::sleep_until(read_at + delay).await;
                let step = rate.map_or(rest.len(), |rate| usize::try_from(rate / STEPS).unwrap_or(1).max(1));
                let (mut now, mut later) = rest.split_at(step.min(rest.len()));
                let is_cut = spend(&shared.budgets[way as usize], &mut now);
                if is_cut {
                    later = &[];
                }
                to.write_all(now).await?;
                if let Some(again) = again.as_mut() {
                    // The controller may have had enough of it.
                    let _ = again.write_all(now).await;
                }
                if is_cut {
                    shared.cuts.fetch_add(1, Ordering::Relaxed);
                    return Err(io::ErrorKind::ConnectionAborted.into());
                }
                if rate.is_some() {
                    tokio::time::sleep(Duration::from_secs(1) / STEPS).await;
                }
                rest = later;
            }
        }
        to.shutdown().await
    };
    tokio::try_join!(read, write).map(drop)
}

/// Waits until the way is not stalled; an error when the proxy is gone.
async fn moving(faults: &mut watch::Receiver<Faults>, way: Way) -> io::Result<Lane> {
    let moving = faults.wait_for(|faults| !faults.lanes[way as usize].stalled).await;
    moving.map(|faults| faults.lanes[way as usize]).map_err(|_| io::ErrorKind::BrokenPipe.into())
}

/// Takes the bytes from the budget, if there is one; true, and no more bytes than it had, when it is used up.
fn spend(budget: &Mutex<Option<usize>>, bytes: &mut &[u8]) -> bool {
    let mut budget = budget.lock().expect("nobody panics");
    let Some(left) = *budget else { return false };
    if bytes.len() < left {
        *budget = Some(left - bytes.len());
        return false;
    }
    *bytes = &bytes[..left];
    *budget = None;
    true
}
