//! Moves executions with a plan on: when one of their steps has ended, when a wait or a pause is over, when people ask.

use std::{sync::Arc, time::Duration};

use tokio::time::{sleep, timeout};

use super::noted;
use crate::{
    app::{App, advance},
    error::Result,
};

/// How often it is looked at what is due.
const PERIOD: Duration = Duration::from_secs(1);
/// How long ends are gathered behind a look that had something to do: a look at ten hosts costs little more than one at a
/// single host, and the first that ends after a quiet moment waits for nothing.
const GATHER: Duration = Duration::from_millis(15);

/// Waits for something to do and does it.
pub(super) async fn round(app: &Arc<App>) -> Result<()> {
    // The period is as good as a wake-up.
    let _ = timeout(PERIOD, app.wake.advance.notified()).await;
    noted(app, "advance", Some(PERIOD), async {
        while advance::advance_due(app).await? > 0 {
            sleep(GATHER).await;
        }
        Ok(())
    })
    .await
}
