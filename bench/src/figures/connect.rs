//! Many agents: how fast they connect, and what each costs the controller.

use std::time::{Duration, Instant};

use anyhow::ensure;
use serde_json::json;
use tokio::time::sleep;

use super::number;
use crate::{figure::Book, lab::Lab, plan::Plan, process::resident_kib};

const CONNECT_WITHIN: Duration = Duration::from_secs(120);
const LEAVE_WITHIN: Duration = Duration::from_secs(60);
/// From the controller's start to the reading of its memory.
const SETTLE: Duration = Duration::from_secs(1);

/// Each repetition is on a controller that was just started, whose memory has seen no agent yet. The agents' keys and
/// rows are made before; the time ends when the last session's row is committed.
pub(super) async fn measure(lab: &mut Lab, plan: &Plan, book: &mut Book) -> anyhow::Result<()> {
    lab.stop_real().await?;
    lab.simulated(plan.connect_agents).await?;
    let count = lab.simulated_count();
    let (mut connected, mut rates, mut memory, mut raw) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for _ in 0..plan.connect_repetitions {
        lab.restart().await?;
        let mut database = lab.database().await?;
        sleep(SETTLE).await;
        let before = resident_kib(lab.controller_pid())?;
        let begun = Instant::now();
        let swarm = lab.swarm()?;
        // To count rows all the time would take from what is measured: the rows are looked at when all have a welcome.
        swarm.wait_connected(count, CONNECT_WITHIN).await?;
        let took = (database.wait_sessions(count, CONNECT_WITHIN).await? - begun).as_secs_f64();
        sleep(plan.connect_settle).await;
        let after = resident_kib(lab.controller_pid())?;
        let held = database.sessions().await?;
        swarm.check()?;
        ensure!(held == count, "{held} of {count} sessions were held for {:?}", plan.connect_settle);
        swarm.stop().await;
        database.wait_sessions(0, LEAVE_WITHIN).await?;

        connected.push(number(held));
        rates.push(number(count) / took);
        memory.push((after - before) / number(count));
        raw.push(json!({ "seconds": took, "before_kib": before, "after_kib": after }));
    }
    let settle = plan.connect_settle;
    book.enter(
        "agents_connected",
        connected,
        format!("simulated, all held for {settle:?} with heartbeats"),
        json!(raw),
    );
    book.enter(
        "connect_per_s",
        rates,
        format!("{count} agents, to the commit of the last session"),
        json!(raw),
    );
    book.enter(
        "controller_kib_per_agent",
        memory,
        format!("RSS after less before / {count} agents"),
        json!(raw),
    );
    Ok(())
}
