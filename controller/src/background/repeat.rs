//! Repeats a worker's rounds until the controller stops.
//!
//! 1. A round that fails is repeated after a short rest, for ever: the database may be away for long.
//! 2. A round that panics is an error of ours. It is logged and counted, and the worker begins again, later each time.
//! 3. After [`PANICS`] of them without a good round between, the worker gives up, and with it the controller: what a panic
//!    left behind in memory (a lock that nobody may take any more) goes away with the process, which is then started anew.

use std::{any::Any, future::Future, panic::AssertUnwindSafe, time::Duration};

use futures_util::FutureExt as _;
use tokio_util::sync::CancellationToken;

use crate::{app::parts::Parts, error::Result};

/// How long a worker rests after a round that failed.
const AFTER_FAILURE: Duration = Duration::from_millis(500);
/// How long after a first panic; twice as long after each further one.
pub(super) const AFTER_PANIC: Duration = Duration::from_millis(100);
/// So many panics in succession end the controller: with [`AFTER_PANIC`] within about six seconds.
const PANICS: u32 = 7;

/// A worker panics whenever it is started.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the worker '{worker}' panicked {PANICS} times in succession, the last time with: {message}")]
pub(crate) struct GaveUp {
    worker: &'static str,
    message: String,
}

/// Does one round after the other until `shutdown`, and rests for `after_panic` behind the first one that panics.
///
/// # Errors
/// When [`PANICS`] rounds in succession panicked.
pub(super) async fn repeat<F, R>(
    worker: &'static str,
    parts: &Parts,
    shutdown: &CancellationToken,
    after_panic: Duration,
    round: F,
) -> std::result::Result<(), GaveUp>
where
    F: Fn() -> R,
    R: Future<Output = Result<()>>,
{
    let mut panics = 0;
    // Rounds are cancelled between their statements: a transaction that is not committed has not happened. That holds for
    // one that panics too, and no round keeps anything of the one before it.
    while let Some(ended) =
        shutdown.run_until_cancelled(AssertUnwindSafe(async { round().await }).catch_unwind()).await
    {
        let rest = match ended {
            Ok(Ok(())) => {
                panics = 0;
                continue;
            }
            Ok(Err(error)) => {
                panics = 0;
                let source = std::error::Error::source(&error).map(ToString::to_string);
                tracing::warn!(worker, %error, source, "a round failed and will be repeated");
                parts.failed(worker, error.to_string());
                AFTER_FAILURE
            }
            Err(panic) => {
                let message = message(panic.as_ref());
                metrics::counter!("opsc_worker_panics_total", "worker" => worker).increment(1);
                tracing::error!(worker, panics = panics + 1, "a round panicked: {message}");
                parts.failed(worker, format!("panicked: {message}"));
                panics += 1;
                if panics == PANICS {
                    return Err(GaveUp { worker, message });
                }
                after_panic * 2_u32.pow(panics - 1)
            }
        };
        shutdown.run_until_cancelled(tokio::time::sleep(rest)).await;
    }
    Ok(())
}

/// What the panic said.
fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("nothing").to_owned()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use model::api::status::PartState;

    use super::*;

    fn broken() -> Result<()> {
        panic!("a broken lock")
    }

    #[tokio::test]
    async fn a_worker_that_panicked_is_started_again() {
        let (parts, shutdown, rounds) = (Parts::default(), CancellationToken::new(), AtomicU32::new(0));
        // More panics than end the controller, but a good round after every second one.
        let ended = repeat("tried", &parts, &shutdown, Duration::ZERO, || async {
            let round = rounds.fetch_add(1, Ordering::Relaxed);
            if round == 3 * PANICS {
                shutdown.cancel();
            }
            assert!(round % 3 == 2 || round == 3 * PANICS, "round {round}");
            Ok(())
        })
        .await;
        assert_eq!(ended, Ok(()));
        assert_eq!(rounds.into_inner(), 3 * PANICS + 1);
        let part = &parts.list()[0];
        assert_eq!((part.name.as_str(), &part.state), ("tried", &PartState::Degraded));
        assert_eq!(part.message, format!("panicked: round {}", 3 * PANICS - 2));
    }

    #[tokio::test]
    async fn one_that_always_panics_ends_the_controller() {
        let (parts, shutdown, rounds) = (Parts::default(), CancellationToken::new(), AtomicU32::new(0));
        let ended = repeat("tried", &parts, &shutdown, Duration::ZERO, || async {
            rounds.fetch_add(1, Ordering::Relaxed);
            broken()
        })
        .await;
        assert_eq!(ended, Err(GaveUp { worker: "tried", message: "a broken lock".to_owned() }));
        assert_eq!(rounds.into_inner(), PANICS);
    }
}
