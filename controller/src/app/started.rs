//! Jobs that steps of other jobs start: they are found, frozen and authorised with the job that starts them, and begin when it
//! is their turn.
//!
//! Invariant: who starts a job may start all that it brings with it, or nothing begins.

use jiff::Timestamp;
use model::{
    Invalid,
    api::{execution::Targets, job::ExecuteJob},
    execution::ExecutionState,
    id::{AgentId, ExecutionId, JobId, OrgId, RunId},
    job::{
        FrozenHost, FrozenJob, Job, Plan, StartedJob, condition,
        parameters::{Parameters, Values, resolve},
    },
    limits,
    run::{RunEvent, RunOutcome},
};
use serde_json::json;
use sqlx::PgConnection;

use super::{
    App,
    access::{Authorized, ExecutionCreate, JobRead},
    dangers, executions,
    executions::{Starter, touchable},
    jobs,
    manifest::Verified,
    scripts,
    start::{self, PlanStart, sign_plan, write_plans},
};
use crate::{
    clock,
    error::{During, Error, Result},
    store::{self, agents::Target, audit, executions::Because, progress::Ask},
};

/// What stands above a job that is frozen.
#[derive(Default)]
struct Above {
    /// The jobs, the outermost first.
    jobs: Vec<(JobId, String)>,
    /// What one of them holds while it runs.
    lock: Option<String>,
}

/// How many there are already, of one start.
#[derive(Default)]
struct Brought {
    jobs: usize,
    hosts: usize,
}

/// Freezes the jobs that the steps of `plan` start, and those that these start. A job that says no hosts runs on `hosts`.
///
/// # Errors
/// When there is no such job, it may not be started, it would start itself or wait for itself, or there are too many.
pub(super) async fn freeze(
    app: &App,
    connection: &mut PgConnection,
    by: &Authorized<JobRead>,
    plan: &mut Plan,
    hosts: &[Target],
) -> Result<()> {
    if plan.started_jobs().next().is_none() {
        return Ok(());
    }
    freeze_below(app, connection, by, (plan, hosts), &Above::default(), &mut Brought::default()).await
}

async fn freeze_below(
    app: &App,
    connection: &mut PgConnection,
    by: &Authorized<JobRead>,
    (plan, hosts): (&mut Plan, &[Target]),
    above: &Above,
    brought: &mut Brought,
) -> Result<()> {
    let mut here = Above { jobs: above.jobs.clone(), lock: plan.lock.clone().or_else(|| above.lock.clone()) };
    here.jobs.extend(plan.job.iter().map(|job| (job.id, job.name.clone())));
    for (step, is_filled, started) in plan.started_jobs_mut() {
        let at = |field: &str| format!("steps.{step}.job.{field}");
        freeze_one(app, connection, by, (started, is_filled, hosts), &here, brought).await.map_err(
            |error| match error {
                Error::Invalid(invalid) => Invalid::new(at(&invalid.field), invalid.problem).into(),
                Error::NotFound { noun: "job", name } => {
                    Invalid::new(at("name"), format!("is '{name}', and there is no such job")).into()
                }
                other => other,
            },
        )?;
    }
    Ok(())
}

async fn freeze_one(
    app: &App,
    connection: &mut PgConnection,
    by: &Authorized<JobRead>,
    (started, is_filled, above_hosts): (&mut StartedJob, bool, &[Target]),
    above: &Above,
    brought: &mut Brought,
) -> Result<()> {
    brought.jobs += 1;
    if brought.jobs > limits::JOBS_OF_A_START {
        return Err(Invalid::over("name", "JOBS_OF_A_START", limits::JOBS_OF_A_START, "jobs").into());
    }
    if above.jobs.len() > limits::JOB_DEPTH {
        return Err(
            Invalid::over("name", "JOB_DEPTH", limits::JOB_DEPTH, "jobs, one within the other").into()
        );
    }
    // What was frozen before, and is tried again, stays the version that it was.
    let frozen = started.frozen.as_ref().and_then(|frozen| frozen.plan.job.as_ref());
    let (key, version) = match frozen {
        Some(job) => (job.id.to_string(), Some(job.version)),
        None => (started.start.name.clone(), started.start.version),
    };
    let request = ExecuteJob { version, ..ExecuteJob::default() };
    let (job, mut document) = jobs::to_run(app, connection, by, &key, &request).await?;
    if above.jobs.iter().any(|(id, _)| *id == job.id) {
        let mut path: Vec<&str> = above.jobs.iter().map(|(_, name)| name.as_str()).collect();
        path.push(&job.name);
        return Err(Invalid::new("name", format!("never ends: {}", path.join(" → "))).into());
    }
    scripts::fill(app, connection, by.org_id(), &mut document).await?;
    let _: Authorized<ExecutionCreate> = by.for_job(&document.labels)?;
    let creating: Authorized<ExecutionCreate> = by.for_job(&job.labels)?;
    let (values, declared) = values(started, is_filled, &document)?;
    let plan = Plan::of(&document, job.id, job.saved.version, values)?;
    if is_filled {
        asks_whatever_is_filled_in(&plan, started)?;
    }
    // Two that hold something and wait for more could wait for each other.
    if let (Some(lock), Some(held)) = (&plan.lock, &above.lock) {
        let why = format!(
            "has the lock '{lock}', and the job that starts it holds '{held}' meanwhile: only one of them has a lock"
        );
        return Err(Invalid::new("name", why).into());
    }
    let hosts = match started.start.targets.as_ref().or(document.targets.as_ref()) {
        Some(wanted) => start::hosts(connection, &creating, wanted).await?,
        None if above_hosts.is_empty() => Vec::new(),
        // Which of them may be touched is another question for another job.
        None => {
            let names = above_hosts.iter().map(|host| host.name.clone()).collect();
            let found = executions::resolve(connection, &creating, &Targets::Names(names), None).await?;
            touchable(&creating, found)?
        }
    };
    let says_none = started.start.targets.is_none() && document.targets.is_none();
    if says_none && hosts.is_empty() && plan.has_steps_on_hosts() {
        let why = "is missing: neither job names hosts, so this one has to";
        return Err(Invalid::new("targets", why).into());
    }
    brought.hosts += hosts.len();
    if brought.hosts > limits::HOSTS_OF_JOBS {
        return Err(Invalid::over("targets", "HOSTS_OF_JOBS", limits::HOSTS_OF_JOBS, "hosts").into());
    }
    let mut plan = dangers::guard(app, plan).await?;
    start::fits(&plan, hosts.len())?;
    let below = freeze_below(app, connection, by, (&mut plan, &hosts), above, brought);
    Box::pin(below).await?;
    let priority = i16::try_from(document.priority.unwrap_or(0)).unwrap_or(0);
    let hosts =
        hosts.into_iter().map(|host| FrozenHost { agent_id: AgentId(host.id), name: host.name }).collect();
    started.start.version = Some(job.saved.version);
    started.frozen = Some(Box::new(FrozenJob { plan, declared, hosts, priority }));
    Ok(())
}

/// That no approval of the job asks only sometimes, by what is filled in: whether people are asked follows from what is signed
/// when the first job is started, not from what a host or a web server says later.
fn asks_whatever_is_filled_in(plan: &Plan, started: &StartedJob) -> Result<()> {
    let filled = started.start.filled_in()?;
    for (place, step) in plan.steps.iter().enumerate() {
        let (Some(condition), Some(_)) = (&step.condition, plan.approval(place)) else { continue };
        let reads = |path: &String| {
            *path == "params" && !filled.is_empty()
                || path
                    .strip_prefix("params.")
                    .is_some_and(|rest| filled.contains(rest.split('.').next().unwrap_or_default()))
        };
        if let Some(path) = condition::used("if", condition)?.iter().find(|path| reads(path)) {
            let why = format!(
                "fills in '{path}', by which the approval '{}' of that job asks or not: say it as it is",
                step.name
            );
            return Err(Invalid::new("parameters", why).into());
        }
    }
    Ok(())
}

/// The values that it is started with, or what they have to be where they are filled in later.
fn values(started: &StartedJob, is_filled: bool, document: &Job) -> Result<(Values, Parameters)> {
    if !is_filled {
        return Ok((resolve(&document.parameters, &started.start.parameters)?, Default::default()));
    }
    if let Some(name) = started.start.parameters.keys().find(|name| !document.parameters.contains_key(*name))
    {
        let why = format!("is not a parameter of the job '{}'", document.name);
        return Err(Invalid::new(format!("parameters.{name}"), why).into());
    }
    Ok((Values::default(), document.parameters.clone()))
}

/// Starts what was frozen, with its values, for the run of a step; answers the execution.
///
/// # Errors
/// When it cannot be written.
pub(super) async fn begin(
    app: &App,
    connection: &mut PgConnection,
    (id, verified): (ExecutionId, &Verified),
    run: RunId,
    (frozen, plan): (&FrozenJob, Plan),
    now: Timestamp,
) -> Result<ExecutionId> {
    let batches = plan.rollout.batches_of(frozen.hosts.len());
    let hosts =
        frozen.hosts.iter().zip(batches).map(|(host, batch)| (host.agent_id, host.name.clone(), batch));
    let by = Starter {
        org_id: verified.org_id,
        actor: &verified.actor,
        actor_id: verified.actor_id.clone(),
        request_id: &verified.request_id,
    };
    let new = PlanStart {
        // All of a job has begun by then, and this is a part of it.
        start_by: verified.start_by,
        priority: frozen.priority,
        plan,
        hosts: hosts.collect(),
        because: Because { parent: Some((id, run)), ..Because::default() },
    };
    let mut detail = json!({ "started_by": id });
    let planned = sign_plan(app, connection, &by, (new, now), &mut detail).await?;
    write_plans(connection, &[&planned]).await?;
    let execution = planned.0.execution;
    let entry = audit::Entry {
        actor_id: verified.actor_id.clone(),
        request_id: &verified.request_id,
        ..audit::Entry::new(
            &verified.actor,
            "execution.create",
            format!("execution/{}", execution.id),
            detail,
        )
    };
    audit::record_all(connection, now, vec![(verified.org_id, entry)]).await?;
    tracing::info!(execution.id = %execution.id, parent.id = %id, job = execution.summary, "job started by a job");
    Ok(execution.id)
}

/// What the end of a started job means for the run that started it; none while it goes on.
pub(super) const fn end(state: ExecutionState) -> Option<RunEvent> {
    Some(match state {
        ExecutionState::Pending | ExecutionState::Waiting | ExecutionState::Running => return None,
        ExecutionState::Succeeded => RunEvent::Ended(RunOutcome::Succeeded),
        ExecutionState::PartiallySucceeded | ExecutionState::Failed | ExecutionState::Expired => {
            RunEvent::Ended(RunOutcome::Failed)
        }
        ExecutionState::Cancelled => RunEvent::Ended(RunOutcome::Cancelled),
        ExecutionState::TimedOut => RunEvent::Ended(RunOutcome::TimedOut),
        ExecutionState::Unknown => RunEvent::Lost,
    })
}

/// Stops or aborts a job that was started by one that was.
///
/// # Errors
/// When the database does not answer.
pub(super) async fn stop(app: &App, org: OrgId, child: ExecutionId, ask: Ask) -> Result<()> {
    let now = clock::now();
    let mut tx = app.db.worker().begin().await.during("begin")?;
    store::progress::ask(&mut tx, (child, org), ask, now).await?;
    tx.commit().await.during("commit")?;
    app.wake.advance.notify_one();
    Ok(())
}

/// Asks for the end of a job that was started by one that is cancelled. To ask again changes nothing.
///
/// # Errors
/// When the database does not answer.
pub(super) async fn cancel(
    app: &App,
    (id, verified): (ExecutionId, &Verified),
    child: ExecutionId,
) -> Result<()> {
    let (org, now) = (verified.org_id, clock::now());
    let mut tx = app.db.worker().begin().await.during("begin")?;
    if store::executions::cancelled(&mut tx, &[child.0]).await?.is_empty() {
        store::progress::wake(&mut tx, child, now).await?;
        if store::executions::request_cancel(&mut tx, org, child, now).await? {
            let entry = audit::Entry {
                outcome: "requested",
                ..audit::Entry::new(
                    "controller",
                    "execution.cancel",
                    format!("execution/{child}"),
                    json!({ "with": id }),
                )
            };
            audit::record_all(&mut tx, now, vec![(org, entry)]).await?;
        }
    }
    tx.commit().await.during("commit")?;
    app.wake.cancel.notify_one();
    app.wake.advance.notify_one();
    Ok(())
}
