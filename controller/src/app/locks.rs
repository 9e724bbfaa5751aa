//! Locks of executions: who holds what only one can hold, and what becomes of the others.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};
use model::{
    id::{AgentId, ExecutionId},
    job::{Lock, OnConflict},
};
use serde_json::json;
use sqlx::PgConnection;

use super::{App, manifest::Verified};
use crate::{
    error::Result,
    store::{self, audit},
};

/// How long until somebody who waits looks again.
const LOOK_AGAIN: SignedDuration = SignedDuration::from_secs(1);

/// Whether an execution has the lock that it needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Taken {
    /// It has it, or needs none.
    Yes,
    /// It waits; when somebody has to look again is written down.
    Waits,
    /// It does not wait for it.
    Skip,
}

/// Takes the lock of a whole execution.
///
/// # Errors
/// When the database does not answer.
pub(crate) async fn take(
    app: &App,
    connection: &mut PgConnection,
    (id, verified): (ExecutionId, &Verified),
    is_waiting: bool,
    now: Timestamp,
) -> Result<Taken> {
    let Some(plan) = verified.plan() else { return Ok(Taken::Yes) };
    let key = match plan.lock() {
        None | Some(Lock::Host) => return Ok(Taken::Yes),
        Some(Lock::Job) => format!("job/{}", plan.job.id),
        Some(Lock::Name(name)) => format!("name/{name}"),
    };
    let Some(holder) = store::locks::take(connection, (id, verified.org_id), &key, now).await? else {
        if is_waiting {
            store::progress::set_waiting(connection, id, None, None).await?;
        }
        return Ok(Taken::Yes);
    };
    match plan.on_conflict {
        OnConflict::Skip => return Ok(Taken::Skip),
        OnConflict::CancelRunning => cancel(app, connection, (id, verified), holder, &key, now).await?,
        OnConflict::Queue => {}
    }
    store::progress::set_waiting(connection, id, Some(&key), Some(look_again(now))).await?;
    Ok(Taken::Waits)
}

/// Takes the hosts whose turn it is, where the job holds them for itself; answers those that others hold, who are cancelled
/// where the job says so.
///
/// # Errors
/// When the database does not answer.
pub(crate) async fn take_hosts(
    app: &App,
    connection: &mut PgConnection,
    (id, verified): (ExecutionId, &Verified),
    agents: &[AgentId],
    now: Timestamp,
) -> Result<BTreeSet<AgentId>> {
    let Some(plan) = verified.plan().filter(|plan| plan.lock() == Some(Lock::Host)) else {
        return Ok(BTreeSet::new());
    };
    if agents.is_empty() {
        return Ok(BTreeSet::new());
    }
    let held = store::locks::take_hosts(connection, (id, verified.org_id), agents, now).await?;
    if plan.on_conflict == OnConflict::CancelRunning {
        for holder in held.values().copied().collect::<BTreeSet<_>>() {
            cancel(app, connection, (id, verified), holder, "host", now).await?;
        }
    }
    Ok(held.into_keys().collect())
}

/// When somebody who waits looks again: nobody tells him.
pub(crate) fn look_again(now: Timestamp) -> Timestamp {
    now.saturating_add(LOOK_AGAIN).unwrap_or(Timestamp::MAX)
}

/// Cancels whoever holds the lock, once.
async fn cancel(
    app: &App,
    connection: &mut PgConnection,
    (id, verified): (ExecutionId, &Verified),
    holder: ExecutionId,
    key: &str,
    now: Timestamp,
) -> Result<()> {
    let org = verified.org_id;
    if !store::executions::cancelled(connection, &[holder.0]).await?.is_empty() {
        return Ok(());
    }
    store::progress::wake(connection, holder, now).await?;
    if store::executions::request_cancel(connection, org, holder, now).await? {
        let detail = json!({ "lock": key, "for": id, "started_by": verified.actor });
        let entry = audit::Entry {
            outcome: "requested",
            ..audit::Entry::new("controller", "execution.cancel", format!("execution/{holder}"), detail)
        };
        audit::record_all(connection, now, vec![(org, entry)]).await?;
        app.wake.cancel.notify_one();
    }
    Ok(())
}
