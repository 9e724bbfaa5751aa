//! What an agent costs its host while there is nothing to do.

use serde_json::json;
use tokio::time::{Instant, sleep};

use super::{NOTHING, only, run};
use crate::{
    figure::Book,
    lab::Lab,
    plan::Plan,
    process::{tree_cpu_seconds, tree_pss_kib},
};

/// One agent alone, so that no other shares the pages of its program; it has run a command, so that all of its parts
/// are there.
pub(super) async fn measure(lab: &mut Lab, plan: &Plan, book: &mut Book) -> anyhow::Result<()> {
    lab.real(1).await?;
    let mut database = lab.database().await?;
    run(lab, &mut database, only(0), 1, &[NOTHING]).await?;
    sleep(plan.idle_settle).await;
    let pid = lab.agents.pid(0).expect("it was just started");
    let (mut memory, mut cpu) = (Vec::new(), Vec::new());
    for _ in 0..plan.repetitions {
        let (begun, before) = (Instant::now(), tree_cpu_seconds(pid)?);
        sleep(plan.idle_window).await;
        let used = tree_cpu_seconds(pid)? - before;
        cpu.push(100.0 * used / begun.elapsed().as_secs_f64());
        memory.push(tree_pss_kib(pid)? / 1024.0);
    }
    lab.agents.check()?;
    let window = plan.idle_window.as_secs();
    let raw = json!({ "agents_on_the_machine": lab.agents.count() });
    book.enter("agent_idle_rss_mib", memory, "PSS of one connected agent and its processes", raw.clone());
    book.enter("agent_idle_cpu_percent", cpu, format!("utime + stime over {window} s, of one core"), raw);
    Ok(())
}
