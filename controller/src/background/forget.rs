//! Housekeeping: partitions for the weeks to come, and what need not be kept.

use std::{sync::Arc, time::Duration};

use jiff::SignedDuration;

use super::noted;
use crate::{app::App, clock, error::Result, store};

const PERIOD: Duration = Duration::from_secs(3600);
/// How long an idempotency key is remembered.
const IDEMPOTENCY: SignedDuration = SignedDuration::from_hours(24);
/// How long failures to enter are remembered: longer than they lock.
const LOGIN_FAILURES: SignedDuration = SignedDuration::from_hours(1);
/// How long it is told what became of firings.
const OCCURRENCES: SignedDuration = SignedDuration::from_hours(400 * 24);
/// Rows that one statement takes away.
const BATCH: i64 = 10_000;
/// How long sessions, one-time tokens and keys are kept after their end.
const ENDED: SignedDuration = SignedDuration::from_hours(30 * 24);

/// Does the chores, then rests.
pub(super) async fn round(app: &Arc<App>) -> Result<()> {
    noted(app, "forget", Some(PERIOD), async {
        let now = clock::now();
        store::controllers::ensure_partitions(app.db.worker(), now).await?;
        store::login_failures::forget_old(app.db.worker(), now - LOGIN_FAILURES).await?;
        store::login_sessions::forget(app.db.worker(), now - ENDED).await?;
        store::one_time_tokens::forget(app.db.worker(), now - ENDED).await?;
        store::oidc_logins::forget(app.db.worker(), now).await?;
        store::access_keys::forget(app.db.worker(), now - ENDED).await?;
        while store::occurrences::forget(app.db.worker(), now - OCCURRENCES, BATCH).await?
            == BATCH.unsigned_abs()
        {}
        store::http_calls::forget(app.db.worker(), now - ENDED).await?;
        store::idempotency::forget(app.db.worker(), now - IDEMPOTENCY).await
    })
    .await?;
    tokio::time::sleep(PERIOD).await;
    Ok(())
}
