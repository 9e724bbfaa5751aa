//! Sends the requests of http steps.

use std::{sync::Arc, time::Duration};

use tokio::time::timeout;

use super::noted;
use crate::{
    app::{App, http_calls},
    error::Result,
};

/// How often it is looked at what is due.
const PERIOD: Duration = Duration::from_secs(1);

/// Waits for something to send and sends it.
pub(super) async fn round(app: &Arc<App>) -> Result<()> {
    // The period is as good as a wake-up.
    let _ = timeout(PERIOD, app.wake.http_calls.notified()).await;
    noted(app, "http_calls", Some(PERIOD), async { http_calls::send_due(app).await }).await
}
