//! One command to many agents: from the call until the last result is committed.

use std::time::Duration;

use model::api::execution::Targets;
use serde_json::json;

use super::{NOTHING, run};
use crate::{
    figure::Book,
    lab::{Agents, Lab, SIMULATED},
    plan::Plan,
};

const CONNECT_WITHIN: Duration = Duration::from_secs(60);

pub(super) async fn to_1000(lab: &mut Lab, plan: &Plan, book: &mut Book) -> anyhow::Result<()> {
    simulated(lab, plan, book, "fanout_1000_ms", plan.fanout_agents).await
}

pub(super) async fn to_5000(lab: &mut Lab, plan: &Plan, book: &mut Book) -> anyhow::Result<()> {
    simulated(lab, plan, book, "fanout_5000_ms", plan.great_fanout_agents).await
}

/// To simulated agents.
async fn simulated(
    lab: &mut Lab,
    plan: &Plan,
    book: &mut Book,
    name: &'static str,
    agents: usize,
) -> anyhow::Result<()> {
    lab.stop_real().await?;
    lab.simulated(agents).await?;
    let count = lab.simulated_count();
    let swarm = lab.swarm()?;
    swarm.wait_connected(count, CONNECT_WITHIN).await?;
    let mut database = lab.database().await?;
    database.wait_sessions(count, CONNECT_WITHIN).await?;
    let samples = repeat(lab, plan, &Targets::Selector(SIMULATED.to_owned()), count).await?;
    swarm.check()?;
    swarm.stop().await;
    database.wait_sessions(0, CONNECT_WITHIN).await?;
    let note = format!("{count} simulated agents by selector; SQL look at the row every ms");
    book.enter(name, samples, note, json!({ "agents": count }));
    Ok(())
}

/// To processes of the agent's own program, each of which runs a process.
pub(super) async fn real(lab: &mut Lab, plan: &Plan, book: &mut Book) -> anyhow::Result<()> {
    lab.real(plan.fanout_real_agents).await?;
    let count = plan.fanout_real_agents;
    let targets = Targets::Names((0..count).map(Agents::name).collect());
    let samples = repeat(lab, plan, &targets, count).await?;
    let note = format!("{count} real agents run {NOTHING}; SQL look at the row every ms");
    book.enter("fanout_real_50_ms", samples, note, json!({ "agents": count }));
    Ok(())
}

/// Twice as many repetitions as elsewhere: they are short.
async fn repeat(lab: &Lab, plan: &Plan, targets: &Targets, count: usize) -> anyhow::Result<Vec<f64>> {
    let mut database = lab.database().await?;
    let mut samples = Vec::new();
    for repetition in 0..plan.warm_up + 2 * plan.repetitions {
        let (took, _) = run(lab, &mut database, targets.clone(), count, &[NOTHING]).await?;
        if repetition >= plan.warm_up {
            samples.push(took);
        }
        // Slots are free again and caches as warm as after any pause.
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Ok(samples)
}
