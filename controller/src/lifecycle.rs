//! How the controller ends: in two stages.
//!
//! The first signal stops taking in and lets what runs finish within [`GRACE`]; a second one ends the process at once.
//! Work survives either: agents go on, and what was committed is committed.

use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// How long running work may take to finish.
pub(crate) const GRACE: Duration = Duration::from_secs(10);
/// Exit code of a process that was told twice to end.
const IMPATIENT: i32 = 130;

/// What every long-lived task is handed: when to stop, and where it is counted.
#[derive(Debug, Clone, Default)]
pub(crate) struct Lifecycle {
    pub(crate) stop: CancellationToken,
    pub(crate) tracker: TaskTracker,
}

impl Lifecycle {
    /// Tells all tasks to stop and waits for them, at most [`GRACE`].
    pub(crate) async fn wind_down(&self) {
        self.stop.cancel();
        self.tracker.close();
        if tokio::time::timeout(GRACE, self.tracker.wait()).await.is_err() {
            tracing::warn!(tasks = self.tracker.len(), "some work did not finish in time and is cut off");
        }
    }
}

/// The signals that ask for the end.
#[derive(Debug)]
pub(crate) struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Takes the signals over from the default, which would kill the process.
    ///
    /// # Errors
    /// When the runtime cannot.
    pub(crate) fn listen() -> std::io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// Waits for the next one and names it.
    pub(crate) async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }

    /// From now on, a further signal ends the process at once. The embedded Postgres notices and stops by itself.
    #[expect(
        clippy::disallowed_methods,
        reason = "whoever asks twice does not want to wait for the winding down"
    )]
    pub(crate) fn then_exit_at_once(mut self) {
        tokio::spawn(async move {
            let name = self.next().await;
            tracing::warn!("{name} again: ending at once");
            std::process::exit(IMPATIENT);
        });
    }
}
