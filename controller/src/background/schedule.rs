//! Fires the schedules whose time has come.

use std::{sync::Arc, time::Duration};

use tokio::time::{sleep, timeout};

use super::noted;
use crate::{
    app::{App, firing},
    clock,
    error::Result,
    store,
};

/// How often it is looked at what is due, whatever the next firing is said to be.
const PERIOD: Duration = Duration::from_secs(1);
/// How long it is waited for somebody else who fires.
const SOMEBODY_ELSE: Duration = Duration::from_millis(50);

/// Waits for the next firing and does what is due.
pub(super) async fn round(app: &Arc<App>) -> Result<()> {
    let next = store::schedules::next_at(app.db.worker()).await?;
    let until = next.map(|next| next.duration_since(clock::now()));
    let rest = until.map_or(PERIOD, |until| Duration::try_from(until).unwrap_or(Duration::ZERO).min(PERIOD));
    // The period is as good as a wake-up.
    let _ = timeout(rest, app.wake.schedules.notified()).await;
    let work = async {
        // What is due and could not be taken, somebody else has: there is no hurry.
        if firing::fire_due(app).await? == 0 && rest.is_zero() {
            sleep(SOMEBODY_ELSE).await;
        }
        Ok(())
    };
    noted(app, "schedule", Some(PERIOD), work).await
}
