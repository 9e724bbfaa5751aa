//! Moves executions with a plan on: when one of their steps has ended, when a wait or a pause is over, when people ask.

use std::{sync::Arc, time::Duration};

use tokio::time::timeout;

use super::noted;
use crate::{
    app::{App, advance},
    error::Result,
};

/// How often it is looked at what is due.
const PERIOD: Duration = Duration::from_secs(1);

/// Waits for something to do and does it.
pub(super) async fn round(app: &Arc<App>) -> Result<()> {
    // The period is as good as a wake-up.
    let _ = timeout(PERIOD, app.wake.advance.notified()).await;
    noted(app, "advance", Some(PERIOD), async {
        while advance::advance_due(app).await? > 0 {}
        Ok(())
    })
    .await
}
