//! The workers behind the verbs. Each takes no input: it is woken by a period or a notification, reads the tables again,
//! and does what is due. Repeating a round changes nothing; the next round is the retry.

mod cancel;
mod certify;
mod dispatch;
mod forget;
mod lease;
mod listen;
mod reap;
mod revoke;

use std::{
    future::Future,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    app::{App, host_metrics, output, runs},
    error::Result,
};

/// How long a worker rests after a round that failed.
const AFTER_FAILURE: Duration = Duration::from_millis(500);

/// Starts every worker; they end at `shutdown`.
pub(crate) fn spawn(app: &Arc<App>, tracker: &TaskTracker, shutdown: &CancellationToken) {
    let start = Starter { app, tracker, shutdown };
    // These three wait within their rounds for something to do.
    start.worker("reports", |app| async move { noted(&app, "reports", None, runs::record_next(&app)).await });
    start.worker("output", |app| async move { noted(&app, "output", None, output::store_next(&app)).await });
    start.worker("host_metrics", |app| async move {
        noted(&app, "host_metrics", None, host_metrics::store_next(&app)).await
    });
    start.worker("dispatch", |app| async move { dispatch::round(&app).await });
    start.worker("cancel", |app| async move { cancel::round(&app).await });
    start.worker("revoke", |app| async move { revoke::round(&app).await });
    start.worker("lease", |app| async move { lease::round(&app).await });
    start.worker("reap", |app| async move { reap::round(&app).await });
    start.worker("forget", |app| async move { forget::round(&app).await });
    start.worker("certify", |app| async move { certify::round(&app).await });
    start.worker("wake_ups", |app| async move { listen::hear(&app).await });
    start.worker("tell_of_work", |app| async move { listen::tell_of_work(&app).await });
    start.worker("tell_of_output", |app| async move { listen::tell_of_output(&app).await });
}

struct Starter<'a> {
    app: &'a Arc<App>,
    tracker: &'a TaskTracker,
    shutdown: &'a CancellationToken,
}

impl Starter<'_> {
    fn worker<F, R>(&self, name: &'static str, round: F)
    where
        F: Fn(Arc<App>) -> R + Send + 'static,
        R: Future<Output = Result<()>> + Send,
    {
        let (app, shutdown) = (Arc::clone(self.app), self.shutdown.clone());
        self.tracker.spawn(async move {
            // Rounds are cancelled between their statements: a transaction that is not committed has not happened.
            while let Some(result) = shutdown.run_until_cancelled(round(Arc::clone(&app))).await {
                if let Err(error) = result {
                    let source = std::error::Error::source(&error).map(ToString::to_string);
                    tracing::warn!(worker = name, %error, source, "a round failed and will be repeated");
                    app.parts.failed(name, error.to_string());
                    tokio::time::sleep(AFTER_FAILURE).await;
                }
            }
        });
    }
}

/// Does the work of a round and notes how it went and when the next is due.
async fn noted(
    app: &App,
    name: &'static str,
    rest: Option<Duration>,
    work: impl Future<Output = Result<()>>,
) -> Result<()> {
    let begun = Instant::now();
    work.await?;
    app.parts.done(name, begun.elapsed(), rest);
    Ok(())
}
