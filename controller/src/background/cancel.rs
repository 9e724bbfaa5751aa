//! Cancels: runs that no host has end at once, hosts are told of the others until they confirm.

use std::{sync::Arc, time::Duration};

use model::id::AgentId;
use tokio::time::timeout;

use super::noted;
use crate::{
    app::{App, runs},
    clock,
    error::{During, Result},
    store,
};

/// How often a host is told again.
const PERIOD: Duration = Duration::from_secs(2);
/// Waiting runs that one transaction ends.
const RUNS: i64 = 5000;

/// Waits for a cancel or the period, and delivers what is to be cancelled.
pub(super) async fn round(app: &Arc<App>) -> Result<()> {
    // The period is as good as a wake-up.
    let _ = timeout(PERIOD, app.wake.cancel.notified()).await;
    noted(app, "cancel", Some(PERIOD), async {
        loop {
            let now = clock::now();
            let mut tx = app.db.worker().begin().await.during("begin")?;
            let waiting = store::runs::lock_cancelled(&mut tx, RUNS).await?;
            let settled = runs::end_waiting(&mut tx, &waiting, runs::Why::Cancelled, now).await?;
            tx.commit().await.during("commit")?;
            settled.announce(app);
            if i64::try_from(waiting.len()) != Ok(RUNS) {
                break;
            }
        }

        for run in store::runs::to_cancel(app.db.worker(), app.info.controller_id).await? {
            let Some(session) = app.sessions.get(AgentId(run.agent_id)) else { continue };
            let cancel = proto::Cancel {
                execution_id: run.execution_id.as_bytes().to_vec(),
                run_id: run.id.as_bytes().to_vec(),
                attempt: u32::try_from(run.attempt).unwrap_or(0),
            };
            let frame = proto::controller_frame::Frame::Cancel(cancel);
            fault::point("controller.cancel.sending");
            // A full or closed stream is met again in the next round.
            let _ = session.outbound.try_send(proto::ControllerFrame { frame: Some(frame) });
            fault::point("controller.cancel.sent");
        }
        Ok(())
    })
    .await
}
