//! Chains the audit: what was committed gets its number and its hash within about a second. Coalescing is wanted: an
//! organization's actions must not wait for each other, and a hash over many entries costs one commit.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use model::id::OrgId;

use crate::{
    app::{App, audit},
    error::Result,
    store,
};

const PERIOD: Duration = Duration::from_secs(1);
/// How often all organizations are looked at, for checkpoints that are due and what other controllers signed.
const ROUNDS: u64 = 5;
const PART: &str = "sequence";
const WITNESSES: &str = "witnesses";

/// Chains what waits, then rests.
pub(super) async fn round(app: &Arc<App>) -> Result<()> {
    let begun = Instant::now();
    let waiting = store::audit_chain::waiting(app.db.worker()).await?;
    metrics::gauge!("opsc_audit_unchained").set(waiting.iter().map(|(_, count)| *count as f64).sum::<f64>());
    let is_whole = app.audit.next_round().is_multiple_of(ROUNDS);
    let organizations: Vec<OrgId> = if is_whole {
        store::audit_chain::organizations(app.db.worker()).await?
    } else {
        waiting.into_iter().map(|(org, _)| org).collect()
    };
    for org in organizations {
        audit::advance(app, org).await?;
    }
    if is_whole {
        audit::refresh(app).await?;
    }
    match app.audit.problem() {
        None => app.parts.done(PART, begun.elapsed(), Some(PERIOD)),
        Some(problem) => app.parts.failed(PART, problem),
    }
    match app.alarms.problem() {
        None => app.parts.done(WITNESSES, Duration::ZERO, Some(PERIOD)),
        Some(problem) => app.parts.failed(WITNESSES, problem),
    }
    tokio::time::sleep(PERIOD).await;
    Ok(())
}
