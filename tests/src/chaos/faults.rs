//! What is broken, how, and how it is known that it was.

use std::{sync::Arc, time::Duration};

use fastrand::Rng;
use nix::sys::signal::Signal;
use serde::{Deserialize, Serialize};
use tokio::{sync::OwnedMutexGuard, time::sleep};

use super::{
    forge,
    history::Record,
    job::pick,
    lab::{Host, Lab},
    network::Weather,
};
use crate::{Agent, process};

/// How a part is broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    AgentKilled,
    AgentTerminated,
    AgentFrozen,
    LinkKilled,
    LinkFrozen,
    ShimKilled,
    JournalLost,
    HostCrashed,
    ControllerKilled,
    ControllerTerminated,
    ControllerFrozen,
    PostgresKilled,
    BackendKilled,
    BackendTerminated,
    NetworkCut,
    NetworkStalled,
    NetworkOneWay,
    NetworkSlow,
    NetworkCutMidFrame,
    RowForged,
    FenceRewound,
}

impl Kind {
    /// All of them, with how often they come in relation to each other.
    pub const ALL: [(Self, usize); 21] = [
        (Self::AgentKilled, 14),
        (Self::AgentTerminated, 8),
        (Self::AgentFrozen, 8),
        (Self::LinkKilled, 8),
        (Self::LinkFrozen, 4),
        (Self::ShimKilled, 12),
        (Self::JournalLost, 2),
        (Self::HostCrashed, 4),
        (Self::ControllerKilled, 3),
        (Self::ControllerTerminated, 2),
        (Self::ControllerFrozen, 3),
        (Self::PostgresKilled, 1),
        (Self::BackendKilled, 1),
        (Self::BackendTerminated, 12),
        (Self::NetworkCut, 9),
        (Self::NetworkStalled, 7),
        (Self::NetworkOneWay, 7),
        (Self::NetworkSlow, 6),
        (Self::NetworkCutMidFrame, 8),
        (Self::RowForged, 5),
        (Self::FenceRewound, 3),
    ];

    /// Whether it hits all hosts at once.
    pub fn is_central(self) -> bool {
        matches!(
            self,
            Self::ControllerKilled
                | Self::ControllerTerminated
                | Self::ControllerFrozen
                | Self::PostgresKilled
                | Self::BackendKilled
                | Self::BackendTerminated
        )
    }

    /// Whether a host, or all of them, may be out of the controller's reach by it.
    pub fn keeps_away(self) -> bool {
        !matches!(self, Self::ShimKilled | Self::RowForged)
    }

    /// As the tables of the report name it.
    pub fn name(self) -> String {
        serde_json::to_value(self).ok().and_then(|name| name.as_str().map(str::to_owned)).unwrap_or_default()
    }
}

/// One fault that is over: who was hit, how that is known, and the runs, executions or hosts that it was done to.
struct Done {
    at: u64,
    victim: String,
    proof: String,
    subjects: Vec<String>,
}

impl Done {
    fn to(at: u64, victim: &str, proof: String) -> Self {
        Self { at, victim: victim.to_owned(), proof, subjects: Vec::new() }
    }
}

const POSTGRES: &str = "postgres";

/// Breaks something and mends it; false when there was nothing of that kind to break just now.
pub async fn inject(lab: &Lab, kind: Kind, rng: &mut Rng) -> bool {
    let done = match kind {
        Kind::AgentKilled | Kind::AgentTerminated | Kind::JournalLost | Kind::AgentFrozen => {
            agent(lab, kind, rng).await
        }
        Kind::LinkKilled | Kind::LinkFrozen => link(lab, kind, rng).await,
        Kind::HostCrashed => host_crashed(lab, rng).await,
        Kind::ShimKilled => shim_killed(lab, rng),
        Kind::ControllerKilled | Kind::ControllerTerminated | Kind::ControllerFrozen => {
            controller(lab, kind, rng).await
        }
        Kind::PostgresKilled => postgres_killed(lab, rng).await,
        Kind::BackendKilled => backend_killed(lab).await,
        Kind::BackendTerminated => backend_terminated(lab).await,
        Kind::NetworkCut
        | Kind::NetworkStalled
        | Kind::NetworkOneWay
        | Kind::NetworkSlow
        | Kind::NetworkCutMidFrame => network(lab, kind, rng).await,
        Kind::RowForged => forge::row(lab, rng)
            .await
            .map(|(at, proof, subjects)| Done { subjects, ..Done::to(at, POSTGRES, proof) }),
        Kind::FenceRewound => fence_rewound(lab, rng).await,
    };
    let Some(Done { at, victim, proof, subjects }) = done else { return false };
    lab.history.add(Record::Fault { at, until: lab.history.now(), kind, victim, proof, subjects });
    true
}

fn millis(rng: &mut Rng, from: u64, to: u64) -> Duration {
    Duration::from_millis(rng.u64(from..to))
}

/// A pause that is mostly short, and now and then longer than an agent may be away.
fn pause(rng: &mut Rng) -> Duration {
    if rng.u32(0..12) == 0 { millis(rng, 10_000, 14_000) } else { millis(rng, 0, 1_500) }
}

/// A host that nobody breaks at the moment.
fn whole_host<'a>(lab: &'a Lab, rng: &mut Rng) -> Option<(&'a Host, OwnedMutexGuard<Agent>)> {
    (0..5).find_map(|_| {
        let host = pick(rng, &lab.hosts);
        Arc::clone(&host.agent).try_lock_owned().ok().map(|agent| (host, agent))
    })
}

async fn agent(lab: &Lab, kind: Kind, rng: &mut Rng) -> Option<Done> {
    let (host, mut agent) = whole_host(lab, rng)?;
    if agent.has_ended() {
        return None;
    }
    let (at, pid) = (lab.history.now(), agent.pid());
    let proof = match kind {
        Kind::AgentFrozen => {
            process::signal(pid, Signal::SIGSTOP);
            sleep(
                millis(rng, 500, 3_000)
                    + if rng.u32(0..8) == 0 { Duration::from_secs(9) } else { Duration::ZERO },
            )
            .await;
            let state = stat_state(pid);
            process::signal(pid, Signal::SIGCONT);
            (state == Some('T')).then(|| format!("{pid} stood still"))?
        }
        Kind::AgentTerminated => {
            agent = tokio::task::spawn_blocking(move || {
                agent.stop();
                agent
            })
            .await
            .expect("an agent obeys SIGTERM");
            format!("{pid} ended by itself")
        }
        _ => {
            agent.kill();
            format!("{pid} was killed")
        }
    };
    if kind != Kind::AgentFrozen {
        sleep(pause(rng)).await;
        let mut lost = true;
        if kind == Kind::JournalLost {
            // A flush of the kernel's own may still be on its way into the folder.
            lost = std::fs::remove_dir_all(host.data.join("executor/journal")).is_ok();
        }
        agent.run();
        if !lost {
            return None;
        }
    }
    Some(Done::to(at, &host.name, proof))
}

/// Breaks the part of an agent that speaks to the network; the executor starts another one.
async fn link(lab: &Lab, kind: Kind, rng: &mut Rng) -> Option<Done> {
    let (host, agent) = whole_host(lab, rng)?;
    let (at, pid) = (lab.history.now(), agent.link()?);
    let proof = if kind == Kind::LinkFrozen {
        process::signal(pid, Signal::SIGSTOP);
        sleep(millis(rng, 500, 6_000)).await;
        let state = stat_state(pid);
        process::signal(pid, Signal::SIGCONT);
        (state == Some('T')).then(|| format!("the link {pid} stood still"))?
    } else {
        process::signal(pid, Signal::SIGKILL);
        format!("the link {pid} was killed")
    };
    Some(Done::to(at, &host.name, proof))
}

/// The power of a host fails: every process of its agent is gone, and whatever was not flushed to its disk.
async fn host_crashed(lab: &Lab, rng: &mut Rng) -> Option<Done> {
    let hosts: Vec<&Host> = lab.hosts.iter().filter(|host| host.disk.is_some()).collect();
    let host = *hosts.get(rng.usize(0..hosts.len().max(1)))?;
    let mut agent = Arc::clone(&host.agent).try_lock_owned().ok()?;
    let (at, pid) = (lab.history.now(), agent.pid());
    let killed = host.disk.as_ref()?.fail_power(&mut agent).await;
    sleep(pause(rng)).await;
    agent.run();
    Some(Done::to(
        at,
        &host.name,
        format!("{pid} and {killed} others were killed, and the disk is as it was flushed"),
    ))
}

fn stat_state(pid: u32) -> Option<char> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.trim_start().chars().next()
}

/// Kills a process that owns an attempt.
fn shim_killed(lab: &Lab, rng: &mut Rng) -> Option<Done> {
    let mut shims: Vec<(u32, String, String)> = Vec::new();
    for entry in std::fs::read_dir("/proc").ok()?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        let Ok(arguments) = std::fs::read_to_string(entry.path().join("cmdline")) else { continue };
        let Some((folder, attempt)) = arguments.split_once("/executor/attempts/") else { continue };
        let Some(host) = lab.hosts.iter().find(|host| folder.ends_with(&*host.data.to_string_lossy())) else {
            continue;
        };
        let attempt = attempt.trim_end_matches('\0');
        let Some((run, _)) = attempt.rsplit_once('-') else { continue };
        shims.push((pid, host.name.clone(), run.to_owned()));
    }
    // A child before it executes its program looks like its shim, and comes after it.
    shims.sort();
    let (_, host, run) = shims.get(rng.usize(0..shims.len().max(1)))?.clone();
    let at = lab.history.now();
    let (pid, ..) = shims.iter().find(|(_, _, of)| *of == run)?;
    process::signal(*pid, Signal::SIGKILL);
    Some(Done { subjects: vec![run], ..Done::to(at, &host, format!("{pid} was killed")) })
}

/// Any of the controllers; the others may be broken at the same time, by another fault.
async fn controller(lab: &Lab, kind: Kind, rng: &mut Rng) -> Option<Done> {
    // No controller dies while Postgres is being mended, and none is broken twice.
    let _database = lab.database.read().await;
    let controller = pick(rng, &lab.controllers);
    let _turn = controller.turn.lock().await;
    let (at, pid) = (lab.history.now(), controller.world.controller_pid());
    let proof = match kind {
        Kind::ControllerFrozen => {
            process::signal(pid, Signal::SIGSTOP);
            sleep(millis(rng, 300, 5_000)).await;
            let state = stat_state(pid);
            process::signal(pid, Signal::SIGCONT);
            (state == Some('T')).then(|| format!("{pid} stood still"))?
        }
        Kind::ControllerTerminated => {
            let world = controller.world.clone();
            let status = tokio::task::spawn_blocking(move || world.stop_controller()).await;
            format!("{pid} ended: {}", status.expect("a controller obeys SIGTERM"))
        }
        _ => {
            controller.world.kill_controller();
            format!("{pid} was killed")
        }
    };
    if kind != Kind::ControllerFrozen {
        sleep(millis(rng, 0, 3_000)).await;
        controller.start().await;
    }
    Some(Done::to(at, controller.name, proof))
}

async fn postgres_killed(lab: &Lab, rng: &mut Rng) -> Option<Done> {
    let mut database = lab.database.write().await;
    let (at, pid) = (lab.history.now(), database.kill());
    sleep(millis(rng, 0, 800)).await;
    database.start_again().await;
    mend_controllers(lab).await;
    Some(Done::to(at, POSTGRES, format!("{pid} was killed")))
}

/// A backend that crashes takes all others with it; the server starts anew by itself.
async fn backend_killed(lab: &Lab) -> Option<Done> {
    let database = lab.database.write().await;
    let (at, pid) = (lab.history.now(), database.backend()?);
    process::signal(pid, Signal::SIGKILL);
    sleep(Duration::from_millis(100)).await;
    assert!(database.is_ready(Duration::from_secs(60)).await, "Postgres does not come back");
    mend_controllers(lab).await;
    (!process::is_alive(pid)).then(|| Done::to(at, POSTGRES, format!("{pid} was killed")))
}

/// A controller may end when its database is not there while it starts.
async fn mend_controllers(lab: &Lab) {
    for controller in &lab.controllers {
        controller.mend(&lab.history).await;
    }
}

async fn backend_terminated(lab: &Lab) -> Option<Done> {
    let at = lab.history.now();
    let mut sql = lab.sql().await?;
    let pid: Option<(i32, bool)> = sqlx::query_as(
        "select pid, pg_terminate_backend(pid) from pg_stat_activity
         where application_name = 'opsconductor-controller' order by random() limit 1",
    )
    .fetch_optional(&mut sql)
    .await
    .ok()?;
    let (pid, true) = pid? else { return None };
    Some(Done::to(at, POSTGRES, format!("the backend {pid} was told to end")))
}

async fn network(lab: &Lab, kind: Kind, rng: &mut Rng) -> Option<Done> {
    let (host, _agent) = whole_host(lab, rng)?;
    let (at, before) = (lab.history.now(), host.network.harm());
    let (weather, lasts) = match kind {
        Kind::NetworkCut => (Weather::Cut, pause(rng)),
        Kind::NetworkStalled => {
            (Weather::Stalled { to_controller: true, to_host: true }, millis(rng, 500, 3_000) + pause(rng))
        }
        Kind::NetworkOneWay => {
            let to_host = rng.bool();
            (Weather::Stalled { to_controller: !to_host, to_host }, millis(rng, 500, 3_000) + pause(rng))
        }
        Kind::NetworkSlow => (Weather::Slow, millis(rng, 1_000, 4_000)),
        _ => (Weather::CutMidFrame, Duration::from_secs(3)),
    };
    host.network.set(weather);
    let begun = std::time::Instant::now();
    while begun.elapsed() < lasts && !(weather == Weather::CutMidFrame && host.network.harm() > before) {
        sleep(Duration::from_millis(20).min(lasts)).await;
    }
    host.network.set(Weather::Fair);
    (host.network.harm() > before).then(|| Done::to(at, &host.name, host.network.tell()))
}

/// The fences of half of the hosts go back, as after the restore of a backup, and these hosts open sessions anew: what is
/// ordered from then on has to be above what they have obeyed. It takes hosts that have obeyed more than their first.
async fn fence_rewound(lab: &Lab, rng: &mut Rng) -> Option<Done> {
    let at = lab.history.now();
    let mut sql = lab.sql().await?;
    let mut order: Vec<&Host> = lab.hosts.iter().collect();
    rng.shuffle(&mut order);
    let whole: Vec<(&Host, OwnedMutexGuard<Agent>)> = order
        .into_iter()
        .filter_map(|host| Some((host, Arc::clone(&host.agent).try_lock_owned().ok()?)))
        .take(lab.hosts.len().div_ceil(2))
        .collect();
    let names: Vec<String> = whole.iter().map(|(host, _)| host.name.clone()).collect();
    let rewound = sqlx::query(
        "update sessions s set fence = 0 from agents a where a.id = s.agent_id and a.name = any($1) and exists (
             select from attempts t where t.agent_id = a.id and t.fence > 1 and t.started_at is not null)",
    )
    .bind(&names)
    .execute(&mut sql)
    .await
    .ok()?
    .rows_affected();
    if rewound == 0 {
        return None;
    }
    for (host, _) in &whole {
        host.network.set(Weather::Cut);
    }
    sleep(Duration::from_millis(100)).await;
    for (host, _) in &whole {
        host.network.set(Weather::Fair);
    }
    let proof = format!("{rewound} fences went back to 0");
    Some(Done { subjects: names, ..Done::to(at, POSTGRES, proof) })
}
