//! The network between one host and the controllers, with the weather that the chaos makes; it is the same on the way to
//! each of them.
//!
//! Every piece of bad weather counts what it did, so that a fault that met no traffic is not taken for one.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
};

const PIECE: usize = 16 * 1024;
/// In slow weather a piece of this size passes at a time, with this pause.
const SLOW_PIECE: usize = 512;
const SLOW_PAUSE: Duration = Duration::from_millis(40);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weather {
    Fair,
    /// Connections break, new ones too.
    Cut,
    /// Connections stay, nothing moves, in the directions that are named.
    Stalled {
        to_controller: bool,
        to_host: bool,
    },
    Slow,
    /// The next connection that carries something breaks in the middle of it.
    CutMidFrame,
}

/// What the weather did.
#[derive(Debug, Default)]
struct Toll {
    open: AtomicU64,
    broken: AtomicU64,
    refused: AtomicU64,
    held: AtomicU64,
    slowed: AtomicU64,
    cut_midway: AtomicU64,
}

/// Proxies between a host and the controllers.
#[derive(Debug)]
pub struct Network {
    doors: Vec<SocketAddr>,
    weather: watch::Sender<Weather>,
    toll: Arc<Toll>,
}

impl Network {
    /// One to these doors, in fair weather.
    ///
    /// # Errors
    /// When there is no port.
    pub async fn start(to: &[SocketAddr]) -> std::io::Result<Self> {
        let (weather, seen) = watch::channel(Weather::Fair);
        let toll = Arc::new(Toll::default());
        let mut doors = Vec::new();
        for to in to.iter().copied() {
            let listener = TcpListener::bind("127.0.0.1:0").await?;
            doors.push(listener.local_addr()?);
            let (seen, counted) = (seen.clone(), Arc::clone(&toll));
            tokio::spawn(async move {
                let mut over = seen.clone();
                loop {
                    let accepted = tokio::select! {
                        accepted = listener.accept() => accepted,
                        _ = over.wait_for(|_| false) => return,
                    };
                    let Ok((near, _)) = accepted else { continue };
                    tokio::spawn(connection(near, to, seen.clone(), Arc::clone(&counted)));
                }
            });
        }
        Ok(Self { doors, weather, toll })
    }

    /// The host's side, in the order of the controllers' doors.
    pub fn doors(&self) -> &[SocketAddr] {
        &self.doors
    }

    pub fn set(&self, weather: Weather) {
        self.weather.send_replace(weather);
    }

    /// What bad weather did so far, all kinds added up.
    pub fn harm(&self) -> u64 {
        let toll = &self.toll;
        let counts = [&toll.broken, &toll.refused, &toll.held, &toll.slowed, &toll.cut_midway];
        counts.into_iter().map(|count| count.load(Relaxed)).sum()
    }

    /// The same, for people.
    pub fn tell(&self) -> String {
        let toll = &self.toll;
        let [open, broken, refused, held, slowed, cut] =
            [&toll.open, &toll.broken, &toll.refused, &toll.held, &toll.slowed, &toll.cut_midway]
                .map(|count| count.load(Relaxed));
        format!("open {open}, broken {broken}, refused {refused}, held {held}, slowed {slowed}, cut {cut}")
    }
}

async fn connection(near: TcpStream, to: SocketAddr, mut weather: watch::Receiver<Weather>, toll: Arc<Toll>) {
    if *weather.borrow() == Weather::Cut {
        toll.refused.fetch_add(1, Relaxed);
        return;
    }
    let Ok(far) = TcpStream::connect(to).await else { return };
    let _ = (near.set_nodelay(true), far.set_nodelay(true));
    toll.open.fetch_add(1, Relaxed);
    let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
    let up = Way { weather: weather.clone(), toll: &toll, is_up: true };
    let down = Way { weather: weather.clone(), toll: &toll, is_up: false };
    tokio::select! {
        () = up.pass(near_in, far_out) => {}
        () = down.pass(far_in, near_out) => {}
        _ = async { weather.wait_for(|weather| *weather == Weather::Cut).await.map(drop) } => {
            toll.broken.fetch_add(1, Relaxed);
        }
    }
    toll.open.fetch_sub(1, Relaxed);
}

/// One direction of a connection.
struct Way<'a> {
    weather: watch::Receiver<Weather>,
    toll: &'a Toll,
    is_up: bool,
}

impl Way<'_> {
    fn is_stalled(&self, weather: Weather) -> bool {
        matches!(weather, Weather::Stalled { to_controller, to_host } if if self.is_up { to_controller } else { to_host })
    }

    /// Until either end is gone, or the weather breaks it.
    async fn pass(mut self, mut from: OwnedReadHalf, mut to: OwnedWriteHalf) {
        let mut buffer = vec![0; PIECE];
        loop {
            let Ok(count @ 1..) = from.read(&mut buffer).await else { return };
            let mut left = &buffer[..count];
            while !left.is_empty() {
                let weather = *self.weather.borrow_and_update();
                if self.is_stalled(weather) {
                    self.toll.held.fetch_add(1, Relaxed);
                    if self.weather.changed().await.is_err() {
                        return;
                    }
                    continue;
                }
                let piece = match weather {
                    Weather::CutMidFrame => {
                        // Half of what there is, and no more of it ever.
                        let _ = to.write_all(&left[..left.len() / 2]).await;
                        self.toll.cut_midway.fetch_add(1, Relaxed);
                        return;
                    }
                    Weather::Slow => left.len().min(SLOW_PIECE),
                    _ => left.len(),
                };
                if to.write_all(&left[..piece]).await.is_err() {
                    return;
                }
                left = &left[piece..];
                if weather == Weather::Slow {
                    self.toll.slowed.fetch_add(1, Relaxed);
                    tokio::time::sleep(SLOW_PAUSE).await;
                }
            }
        }
    }
}
