//! A controller that is killed: how soon all agents work again.

use std::time::{Duration, Instant};

use model::api::execution::Targets;
use serde_json::json;

use super::{NOTHING, run};
use crate::{
    figure::Book,
    lab::{Lab, SIMULATED},
    plan::Plan,
};

const CONNECT_WITHIN: Duration = Duration::from_secs(60);

/// From the start of the next controller process, which first brings its Postgres up again, until a command on all agents
/// has its last result committed. The agents pause between their tries as real ones do at most.
pub(super) async fn measure(lab: &mut Lab, plan: &Plan, book: &mut Book) -> anyhow::Result<()> {
    lab.stop_real().await?;
    lab.simulated(plan.fanout_agents).await?;
    let count = lab.simulated_count();
    let swarm = lab.swarm()?;
    swarm.wait_connected(count, CONNECT_WITHIN).await?;
    let (mut samples, mut raw) = (Vec::new(), Vec::new());
    for _ in 0..plan.reconnect_repetitions {
        let begun = lab.crash().await?;
        let ready = begun.elapsed();
        let mut database = lab.database().await?;
        let connected = database.wait_sessions(count, CONNECT_WITHIN).await? - begun;
        run(lab, &mut database, Targets::Selector(SIMULATED.to_owned()), count, &[NOTHING]).await?;
        let working = Instant::now() - begun;
        samples.push(working.as_secs_f64());
        raw.push(json!({
            "ready_s": ready.as_secs_f64(), "connected_s": connected.as_secs_f64(), "working_s": working.as_secs_f64(),
        }));
    }
    swarm.stop().await;
    lab.database().await?.wait_sessions(0, CONNECT_WITHIN).await?;
    let note = format!(
        "{count} simulated agents; kill -9 of the controller, whose Postgres ends with it; start to a command on all done"
    );
    book.enter("reconnect_1000_s", samples, note, json!(raw));
    Ok(())
}
