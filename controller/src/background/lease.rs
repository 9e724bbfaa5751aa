//! The controller's lease, under which it serves its sessions, and the agreement of the tables with what it serves.
//!
//! A database that was away may have missed a session's end, or been told by another controller that this one's lease
//! was over: what only one side knows ends, and a living agent opens its session anew.

use std::{collections::HashMap, sync::Arc, time::Duration};

use jiff::Timestamp;
use model::id::AgentId;

use super::noted;
use crate::{
    app::{App, clocks},
    clock,
    error::Result,
    store,
};

/// So many renewals may fail before the sessions count as gone.
const RENEWALS: u32 = 4;

/// Agents are told of a controller that has been away for less.
const FORGOTTEN: Duration = Duration::from_hours(7 * 24);

/// Renews the lease, then rests.
pub(super) async fn round(app: &Arc<App>) -> Result<()> {
    let lease = app.info.timing.lease;
    let period = lease / RENEWALS;
    noted(app, "lease", Some(period), async {
        clocks::agree(app.db.worker(), app.info.controller_id, lease).await?;
        let version = env!("CARGO_PKG_VERSION");
        let others = store::controllers::renew_lease(
            app.db.worker(),
            app.info.controller_id,
            version,
            app.info.announce.as_deref(),
            lease,
        )
        .await?;
        app.wake.set_company(others > 0);
        app.sessions.set_doors(store::controllers::announced(app.db.worker(), FORGOTTEN).await?);
        fault::point("controller.lease.renewed");
        agree(app, clock::now()).await
    })
    .await?;
    tokio::time::sleep(period).await;
    Ok(())
}

async fn agree(app: &App, now: Timestamp) -> Result<()> {
    // A younger session may be between its row and its place in memory.
    let settled = app.info.timing.lease.mul_f32(1.5);
    let rows = store::sessions::of_controller(app.db.worker(), app.info.controller_id).await?;
    let stored: HashMap<AgentId, i64> = rows.iter().map(|(agent, epoch, _)| (*agent, *epoch)).collect();
    for session in app.sessions.all() {
        if session.opened.elapsed() > settled && stored.get(&session.agent_id) != Some(&session.epoch) {
            tracing::warn!(agent.id = %session.agent_id, "the tables do not know this session; it is to open anew");
            session.end.cancel();
        }
    }
    for (agent, epoch, opened_at) in rows {
        let is_served = app.sessions.get(agent).is_some_and(|session| session.epoch == epoch);
        if !is_served && now.duration_since(opened_at).unsigned_abs() > settled {
            store::sessions::close(app.db.worker(), agent, epoch, now).await?;
        }
    }
    Ok(())
}
