//! Fires schedules: works out which firings are not accounted for, decides about each, starts what is to start, and writes
//! down what became of it.
//!
//! Invariants: whoever fires a schedule holds its row; executions, occurrences and the next firing are written in one
//! transaction; what a firing does follows from the signed document, the clock and the tables alone, so that whoever comes next
//! after a crash does the same.

mod ends;
mod outcome;
mod round;
mod start;

use std::panic::AssertUnwindSafe;

use futures_util::{FutureExt as _, future::try_join_all};
use jiff::{SignedDuration, Timestamp};
use model::{
    api::job::ExecuteJob,
    id::ScheduleId,
    schedule::{Schedule, jitter},
};
use uuid::Uuid;

use self::round::Round;
use super::{App, start::tell};
use crate::{
    clock,
    error::{During, Error, Result},
    store,
};

/// Transactions at a time: while one waits for the database another one signs.
const AT_A_TIME: usize = 4;
/// Schedules that one transaction fires.
const SCHEDULES: i64 = 32;
/// When one is looked at again that could not be fired.
const PUT_OFF: SignedDuration = SignedDuration::from_secs(5);

/// Fires all schedules whose time has come; answers how many these were.
///
/// # Errors
/// When the database does not answer: what was not committed has not happened, and the next round does it.
pub(crate) async fn fire_due(app: &App) -> Result<usize> {
    // Whoever comes second finds what the first has not taken.
    let all = std::iter::repeat_with(|| fire_on(app)).take(AT_A_TIME);
    Ok(try_join_all(all).await?.into_iter().sum())
}

/// Fires some after the other until none is left. When some cannot be fired together each gets a transaction of its own, with a
/// savepoint around each start; one that cannot be fired even so is put off, and holds up nobody.
async fn fire_on(app: &App) -> Result<usize> {
    let (mut count, mut limit) = (0, SCHEDULES);
    loop {
        match fire_some(app, clock::now(), limit).await {
            Ok(0) => return Ok(count),
            Ok(fired) => count += fired,
            Err((taken, error)) if taken.is_empty() || !is_about_it(&error) => return Err(error),
            Err((taken, error)) if limit == 1 => {
                for id in taken.into_iter().map(ScheduleId) {
                    tracing::error!(schedule.id = %id, %error, "a schedule cannot be fired");
                    let until = clock::now().saturating_add(PUT_OFF).unwrap_or(Timestamp::MAX);
                    store::schedules::put_off(app.db.worker(), id, until).await?;
                }
            }
            Err((_, error)) => {
                tracing::warn!(%error, "some schedules cannot be fired together: each is fired by itself, and more carefully");
                limit = 1;
            }
        }
    }
}

/// Whether an error is about what was fired, and would come again, or about the database, which will answer.
fn is_about_it(error: &Error) -> bool {
    match error {
        // 08: connection, 25P03: idle for too long, 40: rolled back, 53: resources, 57: somebody stops it.
        Error::Database(_, sqlx::Error::Database(error)) => error.code().is_none_or(|code| {
            code != "25P03" && !["08", "40", "53", "57"].iter().any(|class| code.starts_with(class))
        }),
        Error::Database(_, error) => {
            matches!(
                error,
                sqlx::Error::Decode(_) | sqlx::Error::ColumnDecode { .. } | sqlx::Error::Encode(_)
            )
        }
        Error::Fatal(_) => false,
        _ => true,
    }
}

/// Fires some of them in one transaction; answers how many these were.
///
/// # Errors
/// With those that it took.
async fn fire_some(app: &App, now: Timestamp, limit: i64) -> std::result::Result<usize, (Vec<Uuid>, Error)> {
    let nobody = |error| (Vec::new(), error);
    let mut tx = app.db.worker().begin().await.during("begin").map_err(nobody)?;
    let ids = store::schedules::take(&mut tx, now, limit).await.map_err(nobody)?;
    if ids.is_empty() {
        tx.rollback().await.during("rollback").map_err(nobody)?;
        return Ok(0);
    }
    fault::point("controller.schedule.taken");
    let mut round = Round::new(app, now, limit == 1);
    let fired = AssertUnwindSafe(round.fire_all(&mut tx, &ids)).catch_unwind().await;
    let fired = fired.unwrap_or_else(|_| Err(Error::internal("a firing panicked", "the log says where")));
    if let Err(error) = fired {
        // Best effort: it is rolled back with its connection too.
        tx.rollback().await.ok();
        return Err((ids, error));
    }
    fault::point("controller.schedule.written");
    if let Err(error) = tx.commit().await.during("commit") {
        return Err((ids, error));
    }
    fault::point("controller.schedule.committed");
    for execution in &round.started {
        tell(app, execution, &execution.request_id);
    }
    if round.has_cancelled {
        app.wake.cancel.notify_one();
        app.wake.advance.notify_one();
        app.wake.others.notify_one();
    }
    Ok(ids.len())
}

/// When the firing planned for `at` begins.
pub(in crate::app) fn begins(id: ScheduleId, schedule: &Schedule, at: Timestamp) -> Timestamp {
    let width = std::time::Duration::from_secs(schedule.jitter.seconds().unsigned_abs());
    at.saturating_add(jitter(id.0, at, width)).unwrap_or(Timestamp::MAX)
}

/// What a schedule asks of its job.
pub(in crate::app) fn as_request(schedule: &Schedule) -> ExecuteJob {
    ExecuteJob {
        parameters: schedule.parameters.clone(),
        version: schedule.version,
        targets: schedule.targets.clone(),
        expect_targets: None,
        priority: schedule.priority,
    }
}
