//! A swarm of simulated agents in one process: the real protocol over real mTLS, and no process started.
//!
//! Each agent has its own key, certificate and connection, verifies the signature of every order, and answers with
//! accepted, started and finished, the last with an exit record that it signs. A command `echo WORDS` makes it ship one
//! line of output as well, and `false` is said to have failed. It sends heartbeats and no host metrics, keeps neither journal nor spool, and after a lost
//! session it comes back holding nothing.
//!
//! The swarm has threads of its own, so that it and a driver in the same process share the processors as two processes
//! would.

mod agent;
mod connect;
mod identity;
mod order;
mod output;
#[cfg(test)]
mod tests;

use std::{
    fmt,
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use tokio::{
    runtime::{Builder, Runtime},
    sync::{Semaphore, watch},
    time::sleep,
};

pub(crate) use connect::connect;
pub(crate) use identity::{Identity, Issued, Trust, enroll, issue, place, read_authority};

/// What simulated agents say of themselves.
const VERSION: &str = concat!("bench-", env!("CARGO_PKG_VERSION"));
const BOOT_ID: &str = "00000000-0000-0000-0000-000000000000";
/// Threads of a swarm.
const WORKERS: usize = 2;
/// Agents that connect at the same time.
const CONNECTING: usize = 128;
/// How long the agents may take to end.
const END_WITHIN: Duration = Duration::from_secs(20);

/// What a swarm has been through.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) connected: AtomicUsize,
    /// Sessions that were lost or did not come about.
    pub(crate) failures: AtomicU64,
    /// Orders that were obeyed, and that were dropped because they cannot be believed.
    pub(crate) finished: AtomicU64,
    pub(crate) unbelievable: AtomicU64,
    /// Answers to reports.
    pub(crate) stored: AtomicU64,
    pub(crate) rejected: AtomicU64,
}

/// What the agents of a swarm share.
#[derive(Debug)]
struct Shared {
    trust: Arc<Trust>,
    connecting: Semaphore,
    counts: Counts,
    last_error: Mutex<Option<String>>,
}

impl Shared {
    fn failed(&self, error: &anyhow::Error) {
        self.counts.failures.fetch_add(1, Ordering::Relaxed);
        *self.last_error.lock().unwrap_or_else(PoisonError::into_inner) = Some(format!("{error:#}"));
    }
}

/// Simulated agents that live until this is stopped or dropped.
#[derive(Debug)]
pub(crate) struct Swarm {
    shared: Arc<Shared>,
    stop: watch::Sender<bool>,
    runtime: Option<Runtime>,
}

impl Swarm {
    /// Sends these agents to the controller at `address`, which must be of this machine.
    ///
    /// # Errors
    /// When the address is another machine's, or threads cannot be started.
    pub(crate) fn start(
        address: SocketAddr,
        trust: Arc<Trust>,
        identities: impl IntoIterator<Item = Arc<Identity>>,
    ) -> anyhow::Result<Self> {
        ensure!(address.ip().is_loopback(), "{address} is not of this machine: a swarm is for loopback only");
        let runtime = Builder::new_multi_thread()
            .worker_threads(WORKERS)
            .thread_name("swarm")
            .enable_all()
            .build()
            .context("cannot start the swarm's threads")?;
        let shared = Arc::new(Shared {
            trust,
            connecting: Semaphore::new(CONNECTING),
            counts: Counts::default(),
            last_error: Mutex::default(),
        });
        let stop = watch::Sender::new(false);
        for (index, identity) in identities.into_iter().enumerate() {
            let place = identity::place(address, index);
            runtime.spawn(agent::live(Arc::clone(&shared), identity, place, stop.subscribe()));
        }
        Ok(Self { shared, stop, runtime: Some(runtime) })
    }

    pub(crate) fn counts(&self) -> &Counts {
        &self.shared.counts
    }

    pub(crate) fn connected(&self) -> usize {
        self.shared.counts.connected.load(Ordering::Relaxed)
    }

    /// What went wrong last.
    pub(crate) fn last_error(&self) -> Option<String> {
        self.shared.last_error.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Fails when the agents saw anything that they should not see: a lost session, an order that cannot be believed,
    /// a rejected report.
    ///
    /// # Errors
    /// With the last of it.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        let counts = self.counts();
        let [failures, unbelievable, rejected] = [&counts.failures, &counts.unbelievable, &counts.rejected]
            .map(|count| count.load(Ordering::Relaxed));
        ensure!(
            failures + unbelievable + rejected == 0,
            "of the simulated agents' sessions {failures} failed, {unbelievable} orders were not believed, {rejected} \
             reports were rejected; last: {}",
            self.last_error().unwrap_or_default()
        );
        Ok(())
    }

    /// Waits until so many agents have a session.
    ///
    /// # Errors
    /// When they have none in time, with what went wrong last.
    pub(crate) async fn wait_connected(&self, count: usize, within: Duration) -> anyhow::Result<()> {
        let begun = Instant::now();
        while self.connected() < count {
            ensure!(
                begun.elapsed() < within,
                "{} of {count} simulated agents are connected after {} s; last error: {}",
                self.connected(),
                within.as_secs(),
                self.last_error().unwrap_or_default()
            );
            sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    }

    /// Ends all sessions.
    pub(crate) async fn stop(self) {
        self.stop.send_replace(true);
        let begun = Instant::now();
        while self.stop.receiver_count() > 0 && begun.elapsed() < END_WITHIN {
            sleep(Duration::from_millis(5)).await;
        }
    }
}

impl Drop for Swarm {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // To wait for its threads is not allowed where this may be dropped, and not needed.
            runtime.shutdown_background();
        }
    }
}

impl fmt::Display for Swarm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts = self.counts();
        let [failures, finished, rejected] =
            [&counts.failures, &counts.finished, &counts.rejected].map(|count| count.load(Ordering::Relaxed));
        write!(
            f,
            "{} connected, {finished} orders, {failures} failures, {rejected} rejected",
            self.connected()
        )?;
        match self.last_error() {
            Some(error) => write!(f, "; last: {error}"),
            None => Ok(()),
        }
    }
}
