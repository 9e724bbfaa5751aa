//! Samples of the hosts' load: stored many at a time.

use jiff::{SignedDuration, Timestamp};
use model::{
    api::agent::{Disk, HostMetrics},
    id::{AgentId, OrgId},
};
use tokio::sync::{Mutex, mpsc};

use super::App;
use crate::{
    clock,
    error::Result,
    store::{self, host_metrics::Sample},
};

/// Samples that wait to be stored; what comes beyond is dropped, for a newer one follows soon.
const WAITING: usize = 4096;
const BATCH: usize = 1024;
/// A sample's own time counts if it is within this of the controller's.
const BELIEVED: SignedDuration = SignedDuration::from_hours(1);
/// File systems of one sample that are kept.
const DISKS: usize = 64;

/// The queue before the table.
#[derive(Debug)]
pub(crate) struct Samples {
    sender: mpsc::Sender<Sample>,
    receiver: Mutex<mpsc::Receiver<Sample>>,
}

impl Samples {
    pub(crate) fn new() -> Self {
        let (sender, receiver) = mpsc::channel(WAITING);
        Self { sender, receiver: Mutex::new(receiver) }
    }

    /// Takes a sample of this agent's host; `false` when there are too many.
    pub(crate) fn put(&self, org_id: OrgId, agent_id: AgentId, sample: proto::HostSample) -> bool {
        let metrics = checked(sample, clock::now());
        self.sender.try_send(Sample { org_id, agent_id, metrics }).is_ok()
    }
}

/// Waits for samples and stores them.
///
/// # Errors
/// When the database does not answer; the samples are gone then, newer ones follow.
pub(crate) async fn store_next(app: &App) -> Result<()> {
    let mut batch = Vec::with_capacity(BATCH);
    app.samples.receiver.lock().await.recv_many(&mut batch, BATCH).await;
    store::host_metrics::insert(app.db.output(), &batch, clock::now()).await
}

fn checked(sample: proto::HostSample, now: Timestamp) -> HostMetrics {
    let at = Timestamp::from_microsecond(sample.at)
        .ok()
        .filter(|at| now.duration_since(*at).abs() < BELIEVED)
        .unwrap_or(now);
    let bytes = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    let finite = |value: f64| if value.is_finite() { value.clamp(0.0, 1e9) } else { 0.0 };
    HostMetrics {
        at,
        cpu_percent: finite(sample.cpu_percent),
        memory_total_bytes: bytes(sample.memory_total),
        memory_used_bytes: bytes(sample.memory_used),
        swap_total_bytes: bytes(sample.swap_total),
        swap_used_bytes: bytes(sample.swap_used),
        load: [finite(sample.load1), finite(sample.load5), finite(sample.load15)],
        uptime_seconds: bytes(sample.uptime_seconds),
        disks: sample
            .disks
            .into_iter()
            .take(DISKS)
            .map(|disk| Disk {
                mount: disk.mount.chars().filter(|c| !c.is_control()).take(256).collect(),
                total_bytes: bytes(disk.total),
                available_bytes: bytes(disk.available),
            })
            .collect(),
        network_received_bytes: bytes(sample.network_received),
        network_sent_bytes: bytes(sample.network_sent),
    }
}
