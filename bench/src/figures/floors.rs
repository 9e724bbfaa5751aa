//! Floors: what the same machine does with nothing of ours in the way, measured in the same run.

use std::{
    fs::File,
    io::Write as _,
    process::{Command, Stdio},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use futures_util::future::try_join_all;
use proto::{RenewRequest, enrollment_client::EnrollmentClient};
use serde::Serialize;
use serde_json::{Value, json};
use sqlx::{Connection as _, PgConnection};
use tempfile::TempDir;
use tokio::time::sleep;
use tonic::transport::Channel;

use super::{NOTHING, millis, number, sandbox};
use crate::{
    bare::Bare,
    lab::Lab,
    plan::Plan,
    process::resident_kib,
    stats::median,
    swarm::{self, Swarm},
};

/// Calls in flight for the echo's rate.
const ECHOES_IN_FLIGHT: usize = 64;
const ECHO_BYTES: usize = 100;
/// Connections for the rate of commits.
const WRITERS: usize = 8;
/// Threads that start processes: one a core of the machine that the targets are meant for.
const SPAWNERS: usize = 2;
const CONNECT_WITHIN: Duration = Duration::from_secs(60);
/// From the last bare connection to the reading of the server's memory.
const SETTLE: Duration = Duration::from_millis(500);

/// The figures that have a floor.
pub(crate) const WITH_FLOOR: [&str; 11] = [
    "fanout_1000_ms",
    "fanout_5000_ms",
    "fanout_real_50_ms",
    "exec_p50_ms",
    "exec_p99_ms",
    "exec_per_s",
    "sandbox_standard_ms",
    "sandbox_strict_ms",
    "sandbox_isolated_ms",
    "connect_per_s",
    "controller_kib_per_agent",
];

/// Medians of the repetitions.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Floors {
    pub(crate) bare_echo_p50_ms: f64,
    pub(crate) bare_echo_per_s: f64,
    pub(crate) bare_connect_per_s: f64,
    pub(crate) bare_kib_per_connection: f64,
    pub(crate) bare_spawn_ms: f64,
    pub(crate) bare_spawn_per_s: f64,
    pub(crate) bare_bwrap_ms: f64,
    pub(crate) bare_flush_ms: f64,
    pub(crate) bare_commit_ms: f64,
    pub(crate) bare_commits_per_s: f64,
    #[serde(skip)]
    samples: serde_json::Map<String, Value>,
}

impl Floors {
    /// Measures all that needs no controller.
    ///
    /// # Errors
    /// When something cannot be measured.
    pub(crate) async fn bare(plan: &Plan) -> anyhow::Result<Self> {
        let mut floors = Self::default();
        let folder =
            tempfile::Builder::new().prefix("opsc-bench-").tempdir().context("cannot make a folder")?;
        floors.processes(plan).await?;
        floors.echoes(plan, &folder).await?;
        Ok(floors)
    }

    /// The least that a figure could be. In words:
    /// - fan-out: two round trips for each agent (order and accepted, finished and its answer) at the echo's rate, or
    ///   one process for each agent;
    /// - an execution: two processes (shim and command), five flushed writes, five commits; at best half as many
    ///   executions as processes can be started;
    /// - a sandbox: bubblewrap's, with all namespaces and a read-only view, though it limits and counts nothing;
    /// - connecting and memory: the bare server's with one stream each.
    pub(crate) fn of(&self, figure: &str, plan: &Plan) -> Option<f64> {
        let one = 2.0 * self.bare_spawn_ms + 5.0 * self.bare_flush_ms + 5.0 * self.bare_commit_ms;
        let floor = match figure {
            "fanout_1000_ms" => 2000.0 * number(plan.fanout_agents) / self.bare_echo_per_s,
            "fanout_5000_ms" => 2000.0 * number(plan.great_fanout_agents) / self.bare_echo_per_s,
            "fanout_real_50_ms" => 1000.0 * number(plan.fanout_real_agents) / self.bare_spawn_per_s,
            "exec_p50_ms" | "exec_p99_ms" => one,
            "exec_per_s" => self.bare_spawn_per_s / 2.0,
            "sandbox_standard_ms" | "sandbox_strict_ms" | "sandbox_isolated_ms" => self.bare_bwrap_ms,
            "connect_per_s" => self.bare_connect_per_s,
            "controller_kib_per_agent" => self.bare_kib_per_connection,
            _ => return None,
        };
        (floor.is_finite() && floor > 0.0).then_some(floor)
    }

    /// Name, value, unit and meaning of each.
    pub(crate) fn rows(&self) -> [(&'static str, f64, &'static str, &'static str); 10] {
        [
            ("bare_echo_p50_ms", self.bare_echo_p50_ms, "ms", "tonic over mTLS, 100 bytes, one in flight"),
            ("bare_echo_per_s", self.bare_echo_per_s, "1/s", "the same, 64 in flight on one connection"),
            ("bare_connect_per_s", self.bare_connect_per_s, "1/s", "mTLS connections with one stream each"),
            (
                "bare_kib_per_connection",
                self.bare_kib_per_connection,
                "KiB",
                "server's memory for each of these",
            ),
            ("bare_spawn_ms", self.bare_spawn_ms, "ms", "fork, exec and wait of /bin/true"),
            ("bare_spawn_per_s", self.bare_spawn_per_s, "1/s", "the same on two threads"),
            ("bare_bwrap_ms", self.bare_bwrap_ms, "ms", "bubblewrap to the start of date, over date alone"),
            ("bare_flush_ms", self.bare_flush_ms, "ms", "write of 100 bytes and fdatasync"),
            ("bare_commit_ms", self.bare_commit_ms, "ms", "insert of one row, one connection"),
            ("bare_commits_per_s", self.bare_commits_per_s, "1/s", "the same on eight connections"),
        ]
    }

    /// All repetitions.
    pub(crate) fn samples(&self) -> Value {
        Value::Object(self.samples.clone())
    }

    fn keep(&mut self, name: &str, samples: &[f64]) -> anyhow::Result<f64> {
        self.samples.insert(name.to_owned(), json!(samples));
        median(samples).with_context(|| format!("{name} has no samples"))
    }

    async fn processes(&mut self, plan: &Plan) -> anyhow::Result<()> {
        let (window, repetitions) = (plan.floor_window, plan.repetitions);
        let starts = plan.sandboxed;
        let (alone, together, wraps, flushes) = tokio::task::spawn_blocking(move || {
            let (mut alone, mut together) = (Vec::new(), Vec::new());
            let (mut wraps, mut flushes) = (Vec::new(), Vec::new());
            for _ in 0..repetitions {
                alone.push(1000.0 / spawns_per_second(1, window)?);
                together.push(spawns_per_second(SPAWNERS, window)?);
                wraps.push(wrap_ms(starts)?);
                flushes.push(flush_ms(window)?);
            }
            anyhow::Ok((alone, together, wraps, flushes))
        })
        .await??;
        self.bare_spawn_ms = self.keep("bare_spawn_ms", &alone)?;
        self.bare_spawn_per_s = self.keep("bare_spawn_per_s", &together)?;
        self.bare_bwrap_ms = self.keep("bare_bwrap_ms", &wraps)?;
        self.bare_flush_ms = self.keep("bare_flush_ms", &flushes)?;
        Ok(())
    }

    async fn echoes(&mut self, plan: &Plan, folder: &TempDir) -> anyhow::Result<()> {
        let bare = Bare::start(folder.path())?;
        let identities = bare.identities(plan.floor_connections)?;
        let first = Arc::clone(identities.first().context("the plan has no connections")?);
        // Before the echoes, whose memory the server would keep.
        let resident = resident_kib(bare.pid())?;
        let mut rates = Vec::new();
        for repetition in 0..plan.repetitions {
            let begun = Instant::now();
            let swarm = Swarm::start(bare.address, Arc::clone(&bare.trust), identities.iter().cloned())?;
            swarm.wait_connected(identities.len(), CONNECT_WITHIN).await?;
            rates.push(number(identities.len()) / begun.elapsed().as_secs_f64());
            if repetition == 0 {
                sleep(SETTLE).await;
                let each = (resident_kib(bare.pid())? - resident) / number(identities.len());
                self.bare_kib_per_connection = self.keep("bare_kib_per_connection", &[each])?;
            }
            swarm.check()?;
            swarm.stop().await;
        }
        self.bare_connect_per_s = self.keep("bare_connect_per_s", &rates)?;

        let channel = swarm::connect(swarm::place(bare.address, 0), Arc::clone(&first.tls)).await?;
        let (mut alone, mut together) = (Vec::new(), Vec::new());
        for _ in 0..plan.repetitions {
            let took = echo(channel.clone(), plan.floor_window).await?;
            alone.extend(median(&took));
            let begun = Instant::now();
            let callers =
                (0..ECHOES_IN_FLIGHT).map(|_| tokio::spawn(echo(channel.clone(), plan.floor_window)));
            let took: Vec<anyhow::Result<Vec<f64>>> = try_join_all(callers).await?;
            let calls = took.into_iter().map(|took| Ok(took?.len())).sum::<anyhow::Result<usize>>()?;
            together.push(number(calls) / begun.elapsed().as_secs_f64());
        }
        self.bare_echo_p50_ms = self.keep("bare_echo_p50_ms", &alone)?;
        self.bare_echo_per_s = self.keep("bare_echo_per_s", &together)?;
        Ok(())
    }

    /// Measures commits on the cluster of the controller.
    ///
    /// # Errors
    /// When the cluster refuses.
    pub(crate) async fn commits(&mut self, lab: &Lab, plan: &Plan) -> anyhow::Result<()> {
        lab.database().await?.create_floor().await?;
        let mut connections = Vec::new();
        for _ in 0..WRITERS {
            let options = lab.database_options("bench_floor");
            connections
                .push(PgConnection::connect_with(&options).await.context("cannot connect for the floor")?);
        }
        sqlx::query("create table rows (id bigserial primary key, text text not null)")
            .execute(&mut connections[0])
            .await
            .context("cannot make a table")?;
        let (mut alone, mut together) = (Vec::new(), Vec::new());
        for _ in 0..plan.repetitions {
            let took = insert(&mut connections[0], plan.floor_window).await?;
            alone.extend(median(&took));
            let begun = Instant::now();
            let writers = connections.iter_mut().map(|connection| insert(connection, plan.floor_window));
            let rows: usize = try_join_all(writers).await?.iter().map(Vec::len).sum();
            together.push(number(rows) / begun.elapsed().as_secs_f64());
        }
        for connection in connections {
            connection.close().await.context("cannot close a connection")?;
        }
        self.bare_commit_ms = self.keep("bare_commit_ms", &alone)?;
        self.bare_commits_per_s = self.keep("bare_commits_per_s", &together)?;
        Ok(())
    }
}

/// Calls one after the other for a while; how long each took in milliseconds.
async fn echo(channel: Channel, window: Duration) -> anyhow::Result<Vec<f64>> {
    let mut client = EnrollmentClient::new(channel);
    let (begun, mut took) = (Instant::now(), Vec::new());
    while begun.elapsed() < window {
        let call = Instant::now();
        let answer = client.renew(RenewRequest { csr: vec![7; ECHO_BYTES] }).await.context("no echo came")?;
        ensure!(answer.get_ref().certificate.len() == ECHO_BYTES, "the echo is another");
        took.push(millis(call.elapsed()));
    }
    Ok(took)
}

/// Inserts rows one after the other for a while; how long each commit took in milliseconds.
async fn insert(connection: &mut PgConnection, window: Duration) -> anyhow::Result<Vec<f64>> {
    let (begun, mut took) = (Instant::now(), Vec::new());
    while begun.elapsed() < window {
        let commit = Instant::now();
        sqlx::query("insert into rows (text) values ($1)")
            .bind("a row of about eighty bytes, as it stands in the table of floors beside this figure")
            .execute(&mut *connection)
            .await
            .context("a row was not taken")?;
        took.push(millis(commit.elapsed()));
    }
    Ok(took)
}

/// Starts processes one after the other on each of `threads` threads for a while.
fn spawns_per_second(threads: usize, window: Duration) -> anyhow::Result<f64> {
    let begun = Instant::now();
    let spawn = || {
        let mut count = 0;
        while begun.elapsed() < window {
            let done = Command::new(NOTHING).stdin(Stdio::null()).stdout(Stdio::null()).status();
            ensure!(done.with_context(|| format!("cannot start {NOTHING}"))?.success(), "{NOTHING} failed");
            count += 1;
        }
        Ok(count)
    };
    let count: anyhow::Result<usize> = thread::scope(|scope| {
        let spawners: Vec<_> = (0..threads).map(|_| scope.spawn(spawn)).collect();
        spawners.into_iter().map(|spawner| spawner.join().expect("starting processes does not panic")).sum()
    });
    Ok(number(count?) / begun.elapsed().as_secs_f64())
}

/// The median of so many starts in bubblewrap, over that of as many without, in turn.
fn wrap_ms(starts: usize) -> anyhow::Result<f64> {
    let (mut wrapped, mut bare) = (Vec::new(), Vec::new());
    for _ in 0..starts {
        bare.push(sandbox::bare(false)?);
        wrapped.push(sandbox::bare(true)?);
    }
    let medians = median(&wrapped).zip(median(&bare)).context("the plan has no starts in a sandbox")?;
    Ok(medians.0 - medians.1)
}

/// Appends to a file and flushes it, one after the other for a while; the median in milliseconds.
fn flush_ms(window: Duration) -> anyhow::Result<f64> {
    let mut file: File = tempfile::tempfile().context("cannot make a file")?;
    let (begun, mut took) = (Instant::now(), Vec::new());
    while begun.elapsed() < window {
        let flush = Instant::now();
        file.write_all(&[7; ECHO_BYTES]).and_then(|()| file.sync_data()).context("cannot flush a file")?;
        took.push(millis(flush.elapsed()));
    }
    median(&took).context("no write was flushed in time")
}
