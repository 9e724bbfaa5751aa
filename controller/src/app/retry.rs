//! Executions that are tried again: a new one, of what was authorised before, on all of its hosts or on some.

use std::{collections::BTreeSet, sync::Arc};

use jiff::SignedDuration;
use model::{
    Invalid,
    api::{
        execution::{Execution, RetryExecution, RetryHosts, Targets},
        job::ExecuteJob,
    },
    command::Command,
    id::ExecutionId,
    job::{COMMAND, Plan},
};
use serde_json::json;
use sqlx::PgConnection;
use uuid::Uuid;

use super::{
    App,
    access::{Authorized, ExecutionCreate, ExecutionRead, JobRead},
    dangers,
    executions::{Key, Start, earlier, resolve, runs_on, seen_whole, touchable, write},
    jobs,
    manifest::{self, Mismatch, Verified},
    start::{Frozen, launch, tell},
    started,
};
use crate::{
    clock,
    error::{During, Error, Result},
    store::{
        self,
        agents::Target,
        audit,
        executions::{Because, Work},
    },
};

/// What began, and the names of the hosts that it leaves out.
type Begun = (Execution, Vec<String>);

/// Why what was meant for some hosts begins on none.
pub(super) const NONE_ENROLLED: &str = "no host that it is meant for is enrolled any more";

/// Tries an execution again that is over: the same command, or the same version of the job with the same values. A repetition
/// with the same `idempotency_key` answers the execution that the first one started.
///
/// # Errors
/// When there is no such execution, it is not over, no host of it is meant, or one of them may not be touched.
pub(crate) async fn retry(
    app: &App,
    by: &Authorized<ExecutionRead>,
    id: ExecutionId,
    request: &RetryExecution,
    idempotency_key: Option<&str>,
) -> Result<Execution> {
    let key = idempotency_key.map(|key| Key::of(key, &(id, request))).transpose()?;
    if let Some(execution) = earlier(app, by, key.as_ref()).await? {
        return Ok(execution);
    }
    seen_whole(app, by, id).await?;
    let pool = app.db.of(by.org_id());
    let unknown = || Error::not_found("execution", id.to_string());
    let before = store::executions::get(&pool, by.org_id(), id).await?.ok_or_else(unknown)?;
    if !before.state.is_terminal() {
        return Err(Error::Conflict(format!("the execution is not over: it is {}", before.state.as_str())));
    }
    let mut tx = pool.begin().await.during("begin")?;
    let verified = verified(app, &mut tx, id).await?;
    let begun = match &verified.work {
        Work::Command(command) => {
            is_whole(request)?;
            let within = verified.start_within;
            command_again(app, &mut tx, by, (&before, command, within), request, key.as_ref()).await?
        }
        Work::Plan(plan) if plan.job.is_none() => {
            is_whole(request)?;
            rollout_again(app, &mut tx, by, (&before, plan), request, key.as_ref()).await?
        }
        Work::Plan(plan) => plan_again(app, &mut tx, by, (&before, plan), request, key.as_ref()).await?,
    };
    let Some((mut execution, left_out)) = begun else {
        tx.rollback().await.during("rollback")?;
        return earlier(app, by, key.as_ref()).await?.ok_or(Error::StillRunning);
    };
    tx.commit().await.during("commit")?;
    tell(app, &execution, by.request_id());
    app.wake.everybody();
    execution.left_out = left_out;
    Ok(execution)
}

/// What was signed of an execution that is over.
///
/// # Errors
/// When there is none, or what there is does not count any more.
pub(super) async fn verified(
    app: &App,
    connection: &mut PgConnection,
    id: ExecutionId,
) -> Result<Arc<Verified>> {
    match manifest::authorised(app, connection, [id]).await?.remove(&id) {
        Some(Ok(verified)) => Ok(verified),
        // What is over is not signed anew.
        Some(Err(Mismatch::Signature(pki::Error::Certificate(_)))) => {
            let why = "what was signed of the execution is too old to be believed: start it anew";
            Err(Error::Conflict(why.to_owned()))
        }
        Some(Err(mismatch)) => {
            Err(Error::Tampered(format!("the execution is not what was signed: {mismatch}")))
        }
        None => Err(Error::not_found("execution", id.to_string())),
    }
}

/// The right to start the version of the job again that was started.
///
/// # Errors
/// When there is no such job any more, or it may not be started.
pub(super) async fn may_start(
    app: &App,
    connection: &mut PgConnection,
    by: &Authorized<ExecutionRead>,
    before: &Execution,
    plan: &Plan,
) -> Result<Authorized<ExecutionCreate>> {
    let reading: Authorized<JobRead> = by.also()?;
    let job = plan.job.as_ref().ok_or_else(|| Error::not_found("job", before.summary.clone()))?;
    let started = ExecuteJob { version: Some(job.version), ..ExecuteJob::default() };
    let found = jobs::to_run(app, connection, &reading, &job.id.to_string(), &started).await;
    let (job, document) = found.map_err(|error| match error {
        Error::NotFound { noun: "job", .. } => gone(&job.name),
        other => other,
    })?;
    // An old version does not bring back a right that its labels gave.
    let _: Authorized<ExecutionCreate> = by.for_job(&document.labels)?;
    by.for_job(&job.labels)
}

/// That the job is not there any more, or not for who asks.
pub(super) fn gone(job: &str) -> Error {
    Error::not_found("job", job)
}

/// That nothing of a command of its own is left out.
fn is_whole(request: &RetryExecution) -> Result<()> {
    let field = match (&request.from, request.only) {
        (Some(_), _) => "from",
        (None, true) => "only",
        (None, false) => return Ok(()),
    };
    Err(Invalid::new(field, "is for jobs, and this is a command of its own").into())
}

const fn again(before: ExecutionId) -> Because {
    Because { retry_of: Some(before), parent: None, schedule: None, chain: 0 }
}

async fn command_again(
    app: &App,
    connection: &mut PgConnection,
    by: &Authorized<ExecutionRead>,
    (before, command, start_within): (&Execution, &Command, SignedDuration),
    request: &RetryExecution,
    key: Option<&Key>,
) -> Result<Option<Begun>> {
    let by: Authorized<ExecutionCreate> = by.also()?;
    dangers::check_commands(app, vec![(COMMAND.to_owned(), command.program.clone())]).await?;
    let (targets, left_out) = hosts(connection, &by, before.id, request.hosts).await?;
    let now = clock::now();
    let detail = json!({
        "summary": before.summary, "targets": targets.len(), "user": command.user, "retry_of": before.id,
    });
    let new = Start {
        now,
        start_by: now.saturating_add(start_within).unwrap_or(jiff::Timestamp::MAX),
        priority: before.priority,
        summary: before.summary.clone(),
        work: Work::Command(command.clone()),
        runs: runs_on(targets, now),
        because: again(before.id),
    };
    let Some(execution) = write(app, connection, &(&by).into(), new, key).await? else { return Ok(None) };
    let entry = by.entry("execution.create", format!("execution/{}", execution.id), detail);
    audit::record(connection, by.org_id(), now, entry).await?;
    Ok(Some((execution, left_out)))
}

/// A command with a rollout, which begins anew on the hosts that are meant.
async fn rollout_again(
    app: &App,
    connection: &mut PgConnection,
    by: &Authorized<ExecutionRead>,
    (before, plan): (&Execution, &Plan),
    request: &RetryExecution,
    key: Option<&Key>,
) -> Result<Option<Begun>> {
    let by: Authorized<ExecutionCreate> = by.also()?;
    dangers::check_plan(app, plan).await?;
    let (targets, left_out) = hosts(connection, &by, before.id, request.hosts).await?;
    let frozen = Frozen::new(by, plan.clone(), targets, before.priority)?;
    let begun = launch(app, connection, frozen, again(before.id), key).await?;
    Ok(begun.map(|execution| (execution, left_out)))
}

async fn plan_again(
    app: &App,
    connection: &mut PgConnection,
    by: &Authorized<ExecutionRead>,
    (before, plan): (&Execution, &Plan),
    request: &RetryExecution,
    key: Option<&Key>,
) -> Result<Option<Begun>> {
    if let Some(undone) = plan.undoes {
        // Where it went well it would undo twice, and beside another one.
        return Err(Error::Conflict(format!("it undoes the execution {undone}: undo that one again")));
    }
    let reading: Authorized<JobRead> = by.also()?;
    let by = may_start(app, connection, by, before, plan).await?;
    let plan = match &request.from {
        Some(step) => plan.from(step, request.only)?,
        None if request.only => return Err(Invalid::new("only", "is beside from: which step?").into()),
        None => plan.clone(),
    };
    let (targets, left_out) = match hosts(connection, &by, before.id, request.hosts).await {
        Err(Error::NoTargets(_)) if !plan.has_steps_on_hosts() => (Vec::new(), Vec::new()),
        found => found?,
    };
    let mut plan = dangers::guard(app, plan).await?;
    started::freeze(app, connection, &reading, &mut plan, &targets).await?;
    let frozen = Frozen::new(by, plan, targets, before.priority)?;
    let begun = launch(app, connection, frozen, again(before.id), key).await?;
    Ok(begun.map(|execution| (execution, left_out)))
}

/// The hosts that are meant, and the names of those of them that are not enrolled any more: these hold up nobody else.
///
/// # Errors
/// When there are none, or one may not be touched.
async fn hosts(
    connection: &mut PgConnection,
    by: &Authorized<ExecutionCreate>,
    id: ExecutionId,
    which: RetryHosts,
) -> Result<(Vec<Target>, Vec<String>)> {
    let meant = store::executions::hosts_again(connection, by.org_id(), id, which).await?;
    if meant.is_empty() {
        return Err(Error::NoTargets(match which {
            RetryHosts::Failed => {
                "the request: it failed on no host; say --hosts unfinished, or --hosts all --from STEP"
                    .to_owned()
            }
            RetryHosts::Unfinished => {
                "the request: it succeeded on every host; say --hosts all --from STEP".to_owned()
            }
            RetryHosts::All => "the request: the execution had no hosts".to_owned(),
        }));
    }
    still_enrolled(connection, by, meant).await
}

/// Those of these hosts that are enrolled, whatever their names are now, and the names of the others.
///
/// # Errors
/// When none is, or one may not be touched.
pub(super) async fn still_enrolled(
    connection: &mut PgConnection,
    by: &Authorized<ExecutionCreate>,
    meant: Vec<(Uuid, String)>,
) -> Result<(Vec<Target>, Vec<String>)> {
    let agents: Vec<Uuid> = meant.iter().map(|(agent, _)| *agent).collect();
    let there = store::undo::enrolled(connection, by.org_id(), &agents).await?;
    if there.is_empty() {
        return Err(Error::Conflict(NONE_ENROLLED.to_owned()));
    }
    let known: BTreeSet<Uuid> = there.iter().map(|(agent, _)| *agent).collect();
    let gone = meant.into_iter().filter(|(agent, _)| !known.contains(agent)).map(|(_, name)| name);
    let left_out = gone.collect();
    Ok((still_there(connection, by, there).await?, left_out))
}

/// The hosts that these are, by their ids and names.
///
/// # Errors
/// When one is gone, is another one, or may not be touched.
async fn still_there(
    connection: &mut PgConnection,
    by: &Authorized<ExecutionCreate>,
    meant: Vec<(Uuid, String)>,
) -> Result<Vec<Target>> {
    let (agents, names): (BTreeSet<Uuid>, Vec<String>) = meant.into_iter().unzip();
    let found = resolve(connection, by, &Targets::Names(names), None).await?;
    // Another host may have its name since.
    if let Some(other) = found.iter().find(|target| !agents.contains(&target.id)) {
        return Err(Error::Conflict(format!("'{}' is another host than it was then", other.name)));
    }
    touchable(by, found)
}
