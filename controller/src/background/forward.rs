//! Hands the audit to its sinks outside of the database. A signal to open the files anew (SIGHUP) is taken: they are opened
//! for every batch.

use std::{sync::Arc, time::Duration};

use tokio::signal::unix::{SignalKind, signal};

use super::noted;
use crate::{
    app::{App, audit::forward},
    error::{Error, Result},
};

const PERIOD: Duration = Duration::from_secs(1);

/// Forwards what is new, then rests; for ever where there is no sink.
pub(super) async fn round(app: &Arc<App>) -> Result<()> {
    if !forward::is_wanted(app) {
        return std::future::pending().await;
    }
    let mut reopen =
        signal(SignalKind::hangup()).map_err(|error| Error::internal("cannot listen for SIGHUP", error))?;
    noted(app, "forward", Some(PERIOD), forward::advance(app)).await?;
    tokio::select! {
        () = tokio::time::sleep(PERIOD) => {}
        _ = reopen.recv() => {}
    }
    Ok(())
}
