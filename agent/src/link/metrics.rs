//! Samples of the host's state, sent over the session's connection while there is a session. A sample that cannot be
//! sent is dropped: the next one is newer.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    time::Duration,
};

use model::{id::AgentId, limits};
use proto::metrics_client::MetricsClient;
use sysinfo::{DiskRefreshKind, Disks, MemoryRefreshKind, Networks, System};
use tokio::{
    sync::watch,
    task::{JoinHandle, spawn_blocking},
    time::{Instant, timeout},
};

use super::session::Online;
use crate::clock;

/// Mounted file systems in one sample.
const DISKS: usize = 32;
/// How long the host may take to say how it is; a dead network mount can take forever.
const SAMPLE_TIMEOUT: Duration = Duration::from_secs(5);

/// Samples and sends until the session's owner is gone. `every` goes over what the controller asks for; zero is never.
pub(crate) async fn run(
    agent_id: AgentId,
    every: Option<Duration>,
    mut online: watch::Receiver<Option<Online>>,
) {
    if every == Some(Duration::ZERO) {
        return;
    }
    let mut sampler = Sampler::new(SAMPLE_TIMEOUT);
    let mut due = None;
    loop {
        let Ok(session) = online.wait_for(Option::is_some).await.map(|session| session.clone()) else {
            return;
        };
        let Some(session) = session else { continue };
        let every = every.unwrap_or(session.metrics_every).max(Duration::from_secs(1));
        let at = *due.get_or_insert_with(|| Instant::now() + stagger(agent_id, every));
        tokio::select! {
            () = tokio::time::sleep_until(at) => {}
            changed = online.changed() => match changed {
                Ok(()) => continue,
                Err(_) => return,
            },
        }
        due = Some(Instant::now() + every);
        let Some(sample) = sampler.take(sample).await else { continue };
        let mut client = MetricsClient::new(session.channel);
        let sent = timeout(limits::SESSION_SILENCE, client.report(tokio_stream::once(sample))).await;
        match sent {
            Ok(Ok(_)) => {}
            Ok(Err(status)) => tracing::debug!(code = ?status.code(), "a sample of the host was not taken"),
            Err(_) => tracing::debug!("a sample of the host was not taken in time"),
        }
    }
}

/// Where in the interval this agent samples, so that a fleet does not do it all at once.
fn stagger(agent_id: AgentId, every: Duration) -> Duration {
    let mut hasher = DefaultHasher::new();
    agent_id.hash(&mut hasher);
    every.mul_f64((hasher.finish() % 1000) as f64 / 1000.0)
}

type Sampled = (Option<Host>, Option<proto::HostSample>);

/// Samples on a thread beside the runtime, one at a time: on a file system that hangs it may stay for ever.
struct Sampler {
    patience: Duration,
    host: Option<Host>,
    /// A sample that did not come in time.
    late: Option<JoinHandle<Sampled>>,
}

impl Sampler {
    const fn new(patience: Duration) -> Self {
        Self { patience, host: None, late: None }
    }

    /// A sample; none when the host does not say in time how it is, or still owes an earlier answer.
    async fn take(
        &mut self,
        sample: impl FnOnce(Option<Host>) -> Sampled + Send + 'static,
    ) -> Option<proto::HostSample> {
        if let Some(late) = self.late.take_if(|late| late.is_finished()) {
            // The sample itself is old.
            self.host = late.await.ok().and_then(|(host, _)| host);
        }
        if self.late.is_some() {
            return None;
        }
        let host = self.host.take();
        let mut sampling = spawn_blocking(move || sample(host));
        match timeout(self.patience, &mut sampling).await {
            Ok(Ok((host, sample))) => {
                self.host = host;
                sample
            }
            Ok(Err(error)) => {
                tracing::error!(%error, "cannot sample this host");
                None
            }
            Err(_) => {
                tracing::warn!("the host did not say how it is in time; is a file system unreachable?");
                self.late = Some(sampling);
                None
            }
        }
    }
}

/// What is kept from one sample to the next: the use of the CPUs is a difference.
struct Host {
    system: System,
    networks: Networks,
}

/// Takes a sample; the first one only begins the measurement of the CPUs.
fn sample(host: Option<Host>) -> Sampled {
    let mut host = match host {
        Some(host) => host,
        None => match (System::new(), Networks::new_with_refreshed_list()) {
            (Ok(mut system), Ok(networks)) => {
                system.refresh_cpu_usage();
                std::thread::sleep(sysinfo::MINIMUM_CPU_UPDATE_INTERVAL);
                Host { system, networks }
            }
            (Err(error), _) | (_, Err(error)) => {
                tracing::warn!(%error, "cannot sample this host");
                return (None, None);
            }
        },
    };
    host.system.refresh_cpu_usage();
    host.system.refresh_memory_specifics(MemoryRefreshKind::everything());
    host.networks.refresh(true);
    let load = System::load_average().ok();
    let outside = || host.networks.iter().filter(|(name, _)| *name != "lo");
    let sample = proto::HostSample {
        at: clock::now_micros(),
        cpu_percent: f64::from(host.system.global_cpu_usage()),
        memory_total: host.system.total_memory(),
        memory_used: host.system.used_memory(),
        swap_total: host.system.total_swap(),
        swap_used: host.system.used_swap(),
        load1: load.as_ref().map_or(0.0, |load| load.one),
        load5: load.as_ref().map_or(0.0, |load| load.five),
        load15: load.as_ref().map_or(0.0, |load| load.fifteen),
        uptime_seconds: System::uptime().unwrap_or(0),
        disks: disks(),
        network_received: outside().map(|(_, network)| network.total_received()).sum(),
        network_sent: outside().map(|(_, network)| network.total_transmitted()).sum(),
    };
    (Some(host), Some(sample))
}

/// Local file systems, each device once.
fn disks() -> Vec<proto::Disk> {
    let Ok(disks) = Disks::new_with_refreshed_list_specifics(DiskRefreshKind::nothing().with_storage())
    else {
        return Vec::new();
    };
    let mut seen = std::collections::HashSet::new();
    disks
        .iter()
        .filter(|disk| disk.total_space() > 0 && seen.insert(disk.name().to_owned()))
        .take(DISKS)
        .map(|disk| proto::Disk {
            mount: disk.mount_point().to_string_lossy().into_owned(),
            total: disk.total_space(),
            available: disk.available_space(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_says_something_of_the_host() {
        let (host, first) = sample(None);
        let first = first.unwrap();
        assert!(first.memory_total > first.memory_used && first.memory_used > 0, "{first:?}");
        assert!(first.uptime_seconds > 0 && first.at > 0);
        let (_, second) = sample(host);
        assert!(second.unwrap().cpu_percent >= 0.0);
    }

    #[tokio::test]
    async fn a_host_that_hangs_is_not_asked_again_before_it_answers() {
        let (release, released) = std::sync::mpsc::channel::<()>();
        let mut sampler = Sampler::new(Duration::ZERO);
        let hang = move |_: Option<Host>| {
            let _ = released.recv();
            (None, Some(proto::HostSample::default()))
        };
        assert!(sampler.take(hang).await.is_none());
        let asked = |_: Option<Host>| -> Sampled { panic!("asked while the last answer is owed") };
        assert!(sampler.take(asked).await.is_none());
        assert!(sampler.late.is_some());
        drop(release);
        while !sampler.late.as_ref().unwrap().is_finished() {
            tokio::task::yield_now().await;
        }
        sampler.patience = SAMPLE_TIMEOUT;
        let fresh = proto::HostSample { at: 7, ..proto::HostSample::default() };
        let answered = fresh.clone();
        assert_eq!(sampler.take(move |_| (None, Some(answered))).await, Some(fresh), "not the old one");
    }

    #[test]
    fn staggering_stays_in_the_interval() {
        let every = Duration::from_secs(15);
        for n in 0..100 {
            assert!(stagger(AgentId(uuid::Uuid::from_u128(n)), every) < every);
        }
    }
}
