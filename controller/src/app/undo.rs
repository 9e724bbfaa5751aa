//! What an execution has changed on its hosts, and its undoing: a new execution of what the job says under `rollback`.

use std::collections::HashMap;

use model::{
    api::{
        execution::Execution,
        undo::{Changes, UndoExecution, UndoHosts},
    },
    id::{AgentId, ExecutionId, OrgId},
    job::Plan,
};
use serde_json::json;
use sqlx::PgConnection;
use uuid::Uuid;

use super::{
    App,
    access::{Authorized, ExecutionRead},
    dangers,
    executions::{Key, earlier, seen_whole},
    retry,
    start::{Frozen, launch, tell},
};
use crate::{
    clock,
    error::{During, Error, Result},
    store::{self, audit, executions::Because},
};

/// A page of the hosts on which something of it began and was not undone, by name, from behind `after`.
///
/// # Errors
/// When there is no such execution.
pub(crate) async fn list(
    app: &App,
    by: &Authorized<ExecutionRead>,
    id: ExecutionId,
    after: Option<&str>,
    limit: i64,
) -> Result<Changes> {
    seen_whole(app, by, id).await?;
    let (pool, org) = (app.db.of(by.org_id()), by.org_id());
    let execution = store::executions::get(&pool, org, id).await?;
    let execution = execution.ok_or_else(|| Error::not_found("execution", id.to_string()))?;
    let plan = store::executions::plan(&pool, org, id).await?;
    let undoing = plan.as_ref().map(undoing).unwrap_or_default();
    let mut connection = pool.acquire().await.during("acquire of a connection")?;
    let (mut hosts, total) =
        store::undo::hosts(&mut connection, (id, org), &undoing, UndoHosts::All, after, limit).await?;
    let refused = match refusal(&execution, plan.as_ref()) {
        None if total > 0 => unable(&mut connection, org, &execution, plan.as_ref()).await?,
        why => why,
    };
    drop(connection);
    let agents: Vec<Uuid> = hosts.iter().map(|host| host.agent_id.0).collect();
    let places: HashMap<AgentId, usize> =
        hosts.iter().enumerate().map(|(index, host)| (host.agent_id, index)).collect();
    for (agent, place, mut run) in store::undo::runs(&pool, (id, org), &agents).await? {
        let step = plan.as_ref().zip(place).and_then(|(plan, place)| plan.steps.get(place));
        run.step = step.map(|step| step.name.clone());
        run.is_rollback = step.is_some_and(|step| step.is_rollback);
        if let Some(host) = places.get(&agent) {
            hosts[*host].runs.push(run);
        }
    }
    let refused = refused.map(|why| match why {
        Error::Conflict(text) => text,
        other => other.to_string(),
    });
    Ok(Changes { execution_id: id, total, refused, hosts, next_cursor: None })
}

/// What stands in the way of one that could be undone: its job is deleted, or none of its hosts is enrolled any more.
async fn unable(
    connection: &mut PgConnection,
    org: OrgId,
    execution: &Execution,
    plan: Option<&Plan>,
) -> Result<Option<Error>> {
    let Some((plan, job)) = plan.and_then(|plan| Some((plan, plan.job.as_ref()?))) else { return Ok(None) };
    if store::jobs::find(connection, org, &job.id.to_string(), false).await?.is_none() {
        return Ok(Some(retry::gone(&job.name)));
    }
    let all = UndoHosts::All;
    let (hosts, _) =
        store::undo::hosts(connection, (execution.id, org), &undoing(plan), all, None, i64::MAX).await?;
    let agents: Vec<Uuid> = hosts.iter().map(|host| host.agent_id.0).collect();
    let is_somebody_there = !store::undo::enrolled(connection, org, &agents).await?.is_empty();
    Ok((!is_somebody_there).then(|| Error::Conflict(retry::NONE_ENROLLED.to_owned())))
}

/// The places of the steps that undo.
fn undoing(plan: &Plan) -> Vec<i16> {
    let steps = plan.steps.iter().enumerate().filter(|(_, step)| step.is_rollback);
    steps.filter_map(|(place, _)| i16::try_from(place).ok()).collect()
}

/// Why it cannot be undone, whatever it has changed.
fn refusal(execution: &Execution, plan: Option<&Plan>) -> Option<Error> {
    let refused = |why: String| Some(Error::Conflict(why));
    let Some(plan) = plan.filter(|plan| plan.job.is_some()) else {
        return refused("it is a command of its own, and nothing says what undoes that".to_owned());
    };
    if !execution.state.is_terminal() {
        let state = execution.state.as_str();
        return refused(format!("the execution is not over: it is {state}; cancel it or wait for its end"));
    }
    if plan.undoes.is_some() {
        return refused(
            "it undoes another execution: undo that one again, where it is not undone yet".to_owned(),
        );
    }
    match plan.undo(execution.id) {
        Ok(_) => None,
        Err(invalid) => refused(invalid.to_string()),
    }
}

/// Undoes an execution that is over, where it has changed something: the rollback of the same version of its job, with the same
/// values. A repetition with the same `idempotency_key` answers the execution that the first one started.
///
/// # Errors
/// When there is no such execution, it is not over, there is nothing that undoes it or nothing to undo, it is being undone, or
/// one of the hosts may not be touched.
pub(crate) async fn start(
    app: &App,
    by: &Authorized<ExecutionRead>,
    id: ExecutionId,
    request: &UndoExecution,
    idempotency_key: Option<&str>,
) -> Result<Execution> {
    let key = idempotency_key.map(|key| Key::of(key, &("undo", id, request))).transpose()?;
    if let Some(execution) = earlier(app, by, key.as_ref()).await? {
        return Ok(execution);
    }
    seen_whole(app, by, id).await?;
    let (pool, org) = (app.db.of(by.org_id()), by.org_id());
    let before = store::executions::get(&pool, org, id).await?;
    let before = before.ok_or_else(|| Error::not_found("execution", id.to_string()))?;
    let mut tx = pool.begin().await.during("begin")?;
    let verified = retry::verified(app, &mut tx, id).await?;
    let plan = verified.plan();
    let starting = match plan {
        Some(plan) if plan.job.is_some() => retry::may_start(app, &mut tx, by, &before, plan).await?,
        _ => by.also()?,
    };
    if let Some(why) = refusal(&before, plan) {
        return Err(why);
    }
    let plan = plan.ok_or_else(|| Error::not_found("execution", id.to_string()))?;
    // Two at once would both see the same hosts; whoever comes second sees the first.
    store::progress::wake(&mut tx, id, clock::now()).await?;
    if let Some(other) = store::undo::underway(&mut tx, org, id).await? {
        return Err(Error::Conflict(format!(
            "the execution {other} undoes it, or tries it again: wait for its end"
        )));
    }
    let (changed, _) =
        store::undo::hosts(&mut tx, (id, org), &undoing(plan), request.hosts, None, i64::MAX).await?;
    if changed.is_empty() {
        let why = match request.hosts {
            UndoHosts::All => "there is nothing to undo: it changed no host, or was undone on all of them",
            UndoHosts::Failed => "there is nothing to undo: it went well wherever it changed something",
        };
        return Err(Error::Conflict(why.to_owned()));
    }
    let count = changed.len();
    let meant = changed.into_iter().map(|host| (host.agent_id.0, host.target)).collect();
    // Who is not enrolled any more stays on the list and holds up nobody else; who has another name is still the same.
    let (targets, left_out) = retry::still_enrolled(&mut tx, &starting, meant).await?;
    let plan = dangers::guard(app, plan.undo(id)?).await?;
    let entry = starting.entry(
        "execution.undo",
        format!("execution/{id}"),
        json!({ "targets": targets.len(), "changed": count }),
    );
    audit::record(&mut tx, org, clock::now(), entry).await?;
    let frozen = Frozen::new(starting, plan, targets, before.priority)?;
    let because = Because { retry_of: Some(id), ..Because::default() };
    let Some(mut execution) = launch(app, &mut tx, frozen, because, key.as_ref()).await? else {
        tx.rollback().await.during("rollback")?;
        return earlier(app, by, key.as_ref()).await?.ok_or(Error::StillRunning);
    };
    tx.commit().await.during("commit")?;
    tell(app, &execution, by.request_id());
    execution.left_out = left_out;
    Ok(execution)
}
