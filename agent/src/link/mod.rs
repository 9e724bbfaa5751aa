//! The network half of the agent, a process of its own: it brings orders in and carries reports and output out. It decides
//! nothing, starts nothing and has no privileges ([`confine`]).
//!
//! | task | owns |
//! |---|---|
//! | [`session`] | the control connection: orders, cancels, reports and their answers, heartbeats, renewal |
//! | [`shipper`] | the output connection, there only while there is output |
//! | [`metrics`] | samples of the host, over the session's connection |
//! | [`spool`] (a thread) | the database of reports that are not answered |
//! | intake (here) | what the executor says: reports to the spool, output to the shipper |
//! | [`bridge`] | the socket to the executor |
//!
//! Invariant: intake never waits for the network or for the executor, so that the executor never waits for either.

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use proto::report::Body;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use self::{
    confine::Confinement,
    connect::Address,
    identity::Identity,
    report::{ReportKind, report_id},
    session::{Session, Standing},
    shipper::Shipper,
    spool::Spool,
};
use crate::{
    config::Timing,
    messages::{AttemptKey, ToExecutor, ToLink},
    segment::Source,
};

mod backoff;
pub mod bridge;
pub mod confine;
pub mod connect;
pub mod controllers;
mod cut;
pub mod enroll;
pub mod facts;
pub mod identity;
mod metrics;
pub mod owner;
mod report;
pub mod session;
mod shipper;
pub mod spool;
pub mod status;
#[cfg(test)]
mod tests;
pub mod witness;

/// The link's folder for a process that stands in it: those above it are closed to the link's user. The spool's database
/// takes no relative path.
pub const HERE: &str = "/proc/self/cwd";

/// The link's part of the data folder.
pub fn folder(data: &Path) -> PathBuf {
    data.join("link")
}

/// Where the identity is, inside the link's folder.
pub fn identity_folder(link: &Path) -> PathBuf {
    link.join("identity")
}

/// Where the spool is, inside the link's folder.
pub fn spool_folder(link: &Path) -> PathBuf {
    link.join("spool")
}

/// Gives out the output files of attempts.
pub type Sources = Arc<dyn Fn(AttemptKey) -> Arc<dyn Source> + Send + Sync>;

/// What the link must know.
#[derive(Debug)]
pub struct Settings {
    /// The link's part of the data folder.
    pub folder: PathBuf,
    /// Tried in turn; at least one.
    pub controllers: Vec<Address>,
    /// Nobody configured them: those that announce themselves are added.
    pub learns_controllers: bool,
    pub identity: Identity,
    /// Runs at a time.
    pub slots: u32,
    pub timing: Timing,
    /// How often the host is sampled, if not as the controller says; zero is never.
    pub metrics_every: Option<Duration>,
    /// For people: the process of the executor, and how this one is confined.
    pub executor_pid: u32,
    pub confinement: Confinement,
}

/// The running link.
#[derive(Debug)]
pub struct Link {
    /// Attempts that are accepted and not over.
    pub active: watch::Receiver<usize>,
    pub spool: watch::Receiver<spool::SpoolState>,
    pub standing: watch::Receiver<Standing>,
    shipper: mpsc::Sender<shipper::Command>,
    stop: CancellationToken,
    tasks: tokio::task::JoinSet<()>,
    spool_thread: std::thread::JoinHandle<()>,
}

impl Link {
    /// Starts the link's tasks.
    ///
    /// # Errors
    /// When the spool's thread cannot be started.
    pub fn start(
        settings: Settings,
        executor: mpsc::Sender<ToExecutor>,
        from_executor: mpsc::Receiver<ToLink>,
        sources: Sources,
    ) -> std::io::Result<Self> {
        let (spool, spool_thread) = Spool::open(&spool_folder(&settings.folder))?;
        let stop = CancellationToken::new();
        let (active_sender, active) = watch::channel(0);
        let (shipper_sender, shipper_inbox) = mpsc::channel(shipper::COMMANDS);
        let (session, online, standing) =
            Session::new(&settings, spool.clone(), executor.clone(), shipper_sender.clone(), active.clone());
        let spool_state = spool.watch();
        let agent_id = settings.identity.agent_id;
        let status = status::Source {
            agent_id,
            session: standing.clone(),
            spool: spool_state.clone(),
            active: active.clone(),
            executor_pid: settings.executor_pid,
            confinement: settings.confinement.clone(),
        };
        let ship = Shipper::new(spool.clone(), sources, executor, shipper_inbox, online.clone());

        let mut tasks = tokio::task::JoinSet::new();
        let mut spawn = |task: std::pin::Pin<Box<dyn Future<Output = ()> + Send>>| {
            let stopped = stop.clone().cancelled_owned();
            tasks.spawn(async move {
                tokio::select! {
                    () = stopped => {}
                    () = task => {}
                }
            });
        };
        spawn(Box::pin(intake(from_executor, spool, shipper_sender.clone(), active_sender)));
        spawn(Box::pin(session.run()));
        spawn(Box::pin(ship.run()));
        spawn(Box::pin(metrics::run(agent_id, settings.metrics_every, online)));
        spawn(Box::pin(status::serve(settings.folder, status)));
        Ok(Self { active, spool: spool_state, standing, shipper: shipper_sender, stop, tasks, spool_thread })
    }

    /// Returns when the controller has answered every report and holds all output; to be asked once the executor has
    /// ended, or there is always more to come.
    pub async fn delivered(&mut self) {
        // The intake lets go of its end once it has passed on the executor's last word.
        while self.active.changed().await.is_ok() {}
        let (reply, shipped) = oneshot::channel();
        // Tasks that have ended deliver nothing; `failed` tells of them.
        if self.shipper.send(shipper::Command::Shipped(reply)).await.is_ok() {
            let _ = shipped.await;
        }
        let _ = self.spool.wait_for(|spool| spool.unanswered == 0).await;
    }

    /// Ends the tasks, and waits until the spool is on the disk.
    pub async fn stop(mut self) {
        self.stop.cancel();
        while self.tasks.join_next().await.is_some() {}
        if tokio::task::spawn_blocking(move || self.spool_thread.join()).await.is_err() {
            tracing::error!("the spool's thread did not end well");
        }
    }

    /// Returns when one of the tasks has ended by itself, which none should.
    pub async fn failed(&mut self) {
        self.tasks.join_next().await;
    }
}

/// Sorts what the executor says.
///
/// The shipper hears of an end before the spool has its report, so that no answer to the report can come too early.
/// When the executor has ended and the spool has its last report, `active` is let go of.
async fn intake(
    mut from_executor: mpsc::Receiver<ToLink>,
    spool: Spool,
    shipper: mpsc::Sender<shipper::Command>,
    active: watch::Sender<usize>,
) {
    let mut running: HashSet<AttemptKey> = HashSet::new();
    while let Some(message) = from_executor.recv().await {
        match message {
            ToLink::Report(report) => {
                match report_id(&report).map(|id| (id.key, id.kind)) {
                    Ok((key, ReportKind::Accepted | ReportKind::Started)) => drop(running.insert(key)),
                    Ok((key, _)) => drop(running.remove(&key)),
                    Err(_) => {}
                }
                active.send_replace(running.len());
                spool.append(report).await;
            }
            ToLink::OutputGrew(key) => {
                if shipper.send(shipper::Command::Grew(key)).await.is_err() {
                    return;
                }
            }
            ToLink::Ended { key, report } => {
                running.remove(&key);
                active.send_replace(running.len());
                fault::point("link.end.received");
                let totals = totals(&report);
                if shipper.send(shipper::Command::Ended { key, totals }).await.is_err() {
                    return;
                }
                spool.append(report).await;
            }
        }
    }
    // An answer means that it has taken all that was sent before.
    spool.unanswered(0, 0).await;
}

/// How many bytes the process wrote to its two streams, if the report says so.
fn totals(report: &proto::Report) -> Option<[u64; 2]> {
    let Some(Body::Finished(finished)) = &report.body else { return None };
    let record: proto::ExitRecord = prost::Message::decode(finished.record.as_slice()).ok()?;
    let bytes = |stream: Option<proto::StreamTotals>| stream.map_or(0, |totals| totals.bytes);
    Some([bytes(record.stdout), bytes(record.stderr)])
}
