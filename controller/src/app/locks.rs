//! Locks of executions: who holds what only one can hold, and what becomes of the others.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use model::{
    id::{AgentId, ExecutionId},
    job::{Lock, OnConflict, Plan},
};
use serde_json::json;
use sqlx::PgConnection;

use super::{App, manifest::Verified};
use crate::{
    clock,
    error::{During, Result},
    store::{self, audit},
};

/// How long until somebody who waits looks again.
const LOOK_AGAIN: SignedDuration = SignedDuration::from_secs(1);

/// Whether an execution has the lock that it needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Taken {
    /// It has it, or needs none.
    Yes,
    /// It waits; when somebody has to look again is written down. This one, if any, is to be cancelled for it.
    Waits(Option<ExecutionId>),
    /// It does not wait for it.
    Skip,
}

/// What a whole execution of the plan holds, if it does.
pub(crate) fn key(plan: &Plan) -> Option<String> {
    match plan.lock()? {
        Lock::Host => None,
        Lock::Job => plan.job.as_ref().map(|job| format!("job/{}", job.id)),
        Lock::Name(name) => Some(format!("name/{name}")),
    }
}

/// Takes the lock of a whole execution.
///
/// # Errors
/// When the database does not answer.
pub(crate) async fn take(
    connection: &mut PgConnection,
    (id, verified): (ExecutionId, &Verified),
    is_waiting: bool,
    now: Timestamp,
) -> Result<Taken> {
    let Some(plan) = verified.plan() else { return Ok(Taken::Yes) };
    let Some(key) = key(plan) else { return Ok(Taken::Yes) };
    let holder = store::locks::take(connection, (id, verified.org_id), &key, now).await?;
    if holder == Some(id) {
        if is_waiting {
            store::progress::set_waiting(connection, id, None, None).await?;
        }
        return Ok(Taken::Yes);
    }
    if plan.on_conflict == OnConflict::Skip {
        return Ok(Taken::Skip);
    }
    store::progress::set_waiting(connection, id, Some(&key), Some(look_again(now))).await?;
    Ok(Taken::Waits(holder.filter(|_| plan.on_conflict == OnConflict::CancelRunning)))
}

/// Takes the hosts whose turn it is, where the job holds them for itself; answers those that others hold, with who does.
///
/// # Errors
/// When the database does not answer.
pub(crate) async fn take_hosts(
    connection: &mut PgConnection,
    (id, verified): (ExecutionId, &Verified),
    agents: &[AgentId],
    now: Timestamp,
) -> Result<BTreeMap<AgentId, ExecutionId>> {
    let is_wanted = verified.plan().is_some_and(|plan| plan.lock() == Some(Lock::Host));
    if !is_wanted || agents.is_empty() {
        return Ok(BTreeMap::new());
    }
    store::locks::take_hosts(connection, (id, verified.org_id), agents, now).await
}

/// When somebody who waits looks again: nobody tells him.
pub(crate) fn look_again(now: Timestamp) -> Timestamp {
    now.saturating_add(LOOK_AGAIN).unwrap_or(Timestamp::MAX)
}

/// Cancels whoever holds what this execution waits for, once, if that is another start of the same job: the right to cancel
/// other work is nobody's who starts a job.
///
/// # Errors
/// When the database does not answer.
pub(crate) async fn cancel(
    app: &App,
    (id, verified): (ExecutionId, &Verified),
    holder: ExecutionId,
) -> Result<()> {
    let (org, now) = (verified.org_id, clock::now());
    let Some(plan) = verified.plan() else { return Ok(()) };
    let Some(job) = &plan.job else { return Ok(()) };
    let mut tx = app.db.worker().begin().await.during("begin")?;
    let is_same = store::executions::is_of_job(&mut tx, org, holder, job.id).await?;
    if is_same && store::executions::cancelled(&mut tx, &[holder.0]).await?.is_empty() {
        store::progress::wake(&mut tx, holder, now).await?;
        if store::executions::request_cancel(&mut tx, org, holder, now).await? {
            let detail = json!({ "lock": plan.lock, "for": id, "started_by": verified.actor });
            let entry = audit::Entry {
                outcome: "requested",
                ..audit::Entry::new("controller", "execution.cancel", format!("execution/{holder}"), detail)
            };
            audit::record_all(&mut tx, now, vec![(org, entry)]).await?;
        }
    }
    tx.commit().await.during("commit")?;
    app.wake.cancel.notify_one();
    app.wake.advance.notify_one();
    Ok(())
}
