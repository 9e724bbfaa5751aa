//! The workers behind the verbs. Each takes no input: it is woken by a period or a notification, reads the tables again,
//! and does what is due. Repeating a round changes nothing; the next round is the retry.

mod advance;
mod cancel;
mod certify;
mod dispatch;
mod forget;
mod forward;
mod http_calls;
mod lease;
mod listen;
mod listeners;
mod reap;
mod repeat;
mod revoke;
mod schedule;
mod sequence;

use std::{
    future::Future,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::mpsc;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    app::{App, host_metrics, output, runs},
    error::Result,
};

pub(crate) use repeat::GaveUp;

/// Starts every worker; they end at `shutdown`. One that gives up before says so, and the controller has to end.
pub(crate) fn spawn(
    app: &Arc<App>,
    tracker: &TaskTracker,
    shutdown: &CancellationToken,
) -> mpsc::Receiver<GaveUp> {
    let (gave_up, given_up) = mpsc::channel(1);
    let start = Starter { app, tracker, shutdown, gave_up };
    // These three wait within their rounds for something to do.
    start.worker("reports", |app| async move { noted(&app, "reports", None, runs::record_next(&app)).await });
    start.worker("output", |app| async move { noted(&app, "output", None, output::store_next(&app)).await });
    start.worker("host_metrics", |app| async move {
        noted(&app, "host_metrics", None, host_metrics::store_next(&app)).await
    });
    start.worker("dispatch", |app| async move { dispatch::round(&app).await });
    start.worker("advance", |app| async move { advance::round(&app).await });
    start.worker("http_calls", |app| async move { http_calls::round(&app).await });
    start.worker("schedule", |app| async move { schedule::round(&app).await });
    start.worker("listeners", |app| async move { listeners::round(&app).await });
    start.worker("cancel", |app| async move { cancel::round(&app).await });
    start.worker("revoke", |app| async move { revoke::round(&app).await });
    start.worker("lease", |app| async move { lease::round(&app).await });
    start.worker("reap", |app| async move { reap::round(&app).await });
    start.worker("forget", |app| async move { forget::round(&app).await });
    start.worker("sequence", |app| async move { sequence::round(&app).await });
    start.worker("forward", |app| async move { forward::round(&app).await });
    start.worker("certify", |app| async move { certify::round(&app).await });
    start.worker("wake_ups", |app| async move { listen::hear(&app).await });
    start.worker("tell_of_work", |app| async move { listen::tell_of_work(&app).await });
    start.worker("tell_of_output", |app| async move { listen::tell_of_output(&app).await });
    let (calls, stop) = (Arc::clone(app), shutdown.clone());
    tracker.spawn(async move {
        stop.cancelled().await;
        calls.http_calls.wind_down().await;
    });
    given_up
}

struct Starter<'a> {
    app: &'a Arc<App>,
    tracker: &'a TaskTracker,
    shutdown: &'a CancellationToken,
    gave_up: mpsc::Sender<GaveUp>,
}

impl Starter<'_> {
    fn worker<F, R>(&self, name: &'static str, round: F)
    where
        F: Fn(Arc<App>) -> R + Send + Sync + 'static,
        R: Future<Output = Result<()>> + Send,
    {
        let (app, shutdown) = (Arc::clone(self.app), self.shutdown.clone());
        let gave_up = self.gave_up.clone();
        self.tracker.spawn(async move {
            let round = || round(Arc::clone(&app));
            if let Err(reason) = repeat::repeat(name, &app.parts, &shutdown, repeat::AFTER_PANIC, round).await
            {
                // One reason is enough, and without a receiver the controller is ending.
                gave_up.try_send(reason).ok();
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
