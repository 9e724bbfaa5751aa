//! Shows events to the schedules that wait for them.

use std::{sync::Arc, time::Duration};

use super::noted;
use crate::{
    app::{App, listeners},
    error::Result,
};

/// How often it is looked for new events.
const PERIOD: Duration = Duration::from_millis(500);

pub(super) async fn round(app: &Arc<App>) -> Result<()> {
    let mut has_more = false;
    let work = async {
        has_more = listeners::show_events(app).await?;
        Ok(())
    };
    noted(app, "listeners", Some(PERIOD), work).await?;
    if !has_more {
        tokio::time::sleep(PERIOD).await;
    }
    Ok(())
}
