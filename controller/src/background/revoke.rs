//! Revocation: every connection of a revoked agent is cut within a second.

use std::{sync::Arc, time::Duration};

use jiff::SignedDuration;
use tokio::time::timeout;

use super::noted;
use crate::{app::App, clock, error::Result, store};

/// How often revocations of other controllers are looked for.
const PERIOD: Duration = Duration::from_millis(500);
/// How far back: longer than any handshake that was admitted before the revocation.
const LOOK_BACK: SignedDuration = SignedDuration::from_secs(60);

/// Waits for a revocation or the period, and cuts.
pub(super) async fn round(app: &Arc<App>) -> Result<()> {
    // The period is as good as a wake-up.
    let _ = timeout(PERIOD, app.wake.revoke.notified()).await;
    noted(app, "revoke", Some(PERIOD), async {
        for agent in store::agents::revoked_since(app.db.worker(), clock::now() - LOOK_BACK).await? {
            let cut = app.sessions.cut(agent);
            if cut > 0 {
                tracing::info!(agent.id = %agent, connections = cut, "a revoked agent was cut off");
            }
        }
        Ok(())
    })
    .await
}
