//! The start of a job: its hosts are found, its plan is frozen and signed, and its first hosts get their turn.

use jiff::SignedDuration;
use model::{
    Invalid,
    api::{
        execution::{Execution, Targets},
        job::{ExecuteJob, JobPlan, PlannedHost, PlannedStep},
    },
    command::within,
    execution::{ExecutionState, RunCounts},
    id::{AgentId, ExecutionId, RunId},
    job::{self, JobTargets, Plan, Work as StepWork, parameters::resolve as resolve_parameters},
    limits,
};
use serde_json::json;
use sha2::{Digest, Sha256};
use sqlx::PgConnection;

use super::{
    App,
    access::{Authorized, ExecutionCreate, JobRead},
    dangers,
    executions::{parse_selector, replay, resolve, touchable},
    idempotency::check_key,
    jobs, manifest,
};
use crate::{
    clock,
    error::{During, Error, Result},
    store::{
        self,
        agents::Target,
        audit,
        executions::{NewExecution, NewRun, Work},
        progress::NO_AGENT,
        runs::Covered,
    },
};

/// A start, found and frozen, before anything is written.
struct Frozen {
    by: Authorized<ExecutionCreate>,
    plan: Plan,
    document: job::Job,
    /// In the order of their turns, each with its batch.
    hosts: Vec<(Target, u16)>,
    hash: String,
    runs: usize,
    priority: i16,
}

/// What a start would do now.
///
/// # Errors
/// Those of the start.
pub(crate) async fn plan(
    app: &App,
    by: &Authorized<JobRead>,
    key: &str,
    request: &ExecuteJob,
) -> Result<JobPlan> {
    let mut tx = app.db.of(by.org_id()).begin().await.during("begin")?;
    let frozen = freeze(app, &mut tx, by, key, request).await?;
    tx.rollback().await.during("rollback")?;
    let hosts = frozen.hosts.into_iter().map(|(target, batch)| PlannedHost {
        agent_id: target.id.into(),
        name: target.name,
        batch,
        connected: target.connected,
    });
    Ok(JobPlan {
        job: frozen.plan.job.name.clone(),
        version: frozen.plan.job.version,
        hosts: hosts.collect(),
        steps: steps(&frozen.plan),
        targets_hash: frozen.hash,
        runs: frozen.runs,
        dangers: dangers::of_job(&frozen.document).await?,
    })
}

/// The steps of a plan, for people.
pub(crate) fn steps(plan: &Plan) -> Vec<PlannedStep> {
    let name = |place: &usize| plan.steps[*place].name.clone();
    let steps = plan.steps.iter().map(|step| PlannedStep {
        name: step.name.clone(),
        needs: step.needs.iter().map(name).collect(),
        summary: match &step.work {
            StepWork::Command(command) => command.summary(),
            StepWork::Wait(length) => format!("waits {length}"),
        },
        is_controllers: !step.work.is_on_hosts(),
        is_rollback: step.is_rollback,
    });
    steps.collect()
}

/// Starts a job: authorised, frozen, signed and written in one transaction. A repetition with the same `idempotency_key`
/// answers the execution that the first one started.
///
/// # Errors
/// When there is no such job, a field is wrong, the hosts are not those that were expected, or one of them may not be
/// touched.
pub(crate) async fn execute(
    app: &App,
    by: &Authorized<JobRead>,
    key: &str,
    request: &ExecuteJob,
    idempotency_key: Option<&str>,
) -> Result<Execution> {
    let (org, now) = (by.org_id(), clock::now());
    let body = serde_json::to_vec(&(key, request)).map_err(|error| Error::internal("cannot hash", error))?;
    let body_hash = Sha256::digest(body);
    if let Some(key) = idempotency_key {
        check_key(key)?;
        // Before the targets are looked at: which they are may have changed since the first request.
        if let Some(execution) = replay(app, by, key, &body_hash).await? {
            return Ok(execution);
        }
    }
    let mut tx = app.db.of(org).begin().await.during("begin")?;
    let Frozen { by, plan, hosts, hash, priority, .. } = freeze(app, &mut tx, by, key, request).await?;
    let id = ExecutionId::new(now, clock::entropy());
    let runs = runs(&plan, &hosts, now);
    let covered: Vec<Covered> = runs.iter().map(|run| run.covered).collect();
    let start_by = now + SignedDuration::from_secs(limits::PLAN_SECONDS);
    let (planned, summary) = (plan.job.clone(), format!("{} v{}", plan.job.name, plan.job.version));
    let work = Work::Plan(plan);
    let actor = by.actor().name.as_str();
    let intent = manifest::Intent {
        org_id: org,
        execution_id: id,
        actor,
        request_id: by.request_id(),
        issued_at: now,
        start_by,
        work: &work,
        targets: &covered,
    };
    let signed = manifest::sign(&app.ca, &intent);
    let new = NewExecution {
        id,
        org_id: org,
        summary: &summary,
        work: &work,
        actor,
        request_id: by.request_id(),
        created_at: now,
        start_before: start_by,
        priority,
        manifest: &signed,
        runs: &runs,
    };
    if let Some(key) = idempotency_key {
        let (who, answer) = (by.actor().subject.to_string(), json!({ "execution_id": id }));
        if !store::idempotency::claim(&mut tx, org, &who, key, &body_hash, &answer, now).await? {
            tx.rollback().await.during("rollback")?;
            return replay(app, &by, key, &body_hash).await?.ok_or(Error::StillRunning);
        }
    }
    store::executions::insert(&mut tx, &new).await?;
    let places: Vec<(AgentId, String, u16)> =
        hosts.into_iter().map(|(target, batch)| (target.id.into(), target.name, batch)).collect();
    store::progress::insert(&mut tx, (id, org), &places, now).await?;
    if runs.is_empty() {
        // There is nothing to do, and that is done.
        store::executions::set_counts(&mut tx, id, &RunCounts::default(), now).await?;
    }
    let detail = json!({
        "job": planned.name, "job_id": planned.id, "version": planned.version, "targets": places.len(), "runs": runs.len(),
        "targets_hash": hash, "parameters": planned.parameters,
    });
    audit::record(&mut tx, org, now, by.entry("execution.create", format!("execution/{id}"), detail)).await?;
    tx.commit().await.during("commit")?;

    tracing::info!(
        execution.id = %id, job = planned.name, request.id = by.request_id(), actor, targets = places.len(), runs = runs.len(),
        "job started"
    );
    app.wake.advance.notify_one();
    app.wake.others.notify_one();
    let total = i32::try_from(runs.len()).unwrap_or(i32::MAX);
    Ok(Execution {
        id,
        state: if runs.is_empty() { ExecutionState::Succeeded } else { ExecutionState::Pending },
        summary,
        runs: RunCounts { total, waiting: total, ..Default::default() },
        cancel_requested: false,
        priority,
        actor: actor.to_owned(),
        request_id: by.request_id().to_owned(),
        created_at: now,
        ended_at: runs.is_empty().then_some(now),
        job: Some(store::executions::executed(planned)),
        command: None,
    })
}

async fn freeze(
    app: &App,
    connection: &mut PgConnection,
    by: &Authorized<JobRead>,
    key: &str,
    request: &ExecuteJob,
) -> Result<Frozen> {
    if let Some(priority) = request.priority {
        within("priority", priority, &limits::PRIORITY)?;
    }
    let (job, version, document) = jobs::to_run(app, connection, by, key, request).await?;
    // An old version does not bring back a right that its labels gave: both have to, and the present ones say where.
    let _: Authorized<ExecutionCreate> = by.for_job(&document.labels)?;
    let by: Authorized<ExecutionCreate> = by.for_job(&job.labels)?;
    let values = resolve_parameters(&document.parameters, &request.parameters)?;
    let plan = Plan::of(&document, job.id, version, values)?;
    let wanted =
        request.targets.as_ref().or(document.targets.as_ref()).ok_or_else(|| {
            Invalid::new("targets", "is missing: the job names no hosts, so the start has to")
        })?;
    wanted.validate()?;
    let hosts = hosts(connection, &by, wanted).await?;
    let hash = hash(&hosts);
    if let Some(expected) = &request.expect_targets
        && *expected != hash
    {
        let count = hosts.len();
        let why = format!(
            "other hosts match than expected: they are {count} now, with the hash {hash}; look at a new plan"
        );
        return Err(Error::Conflict(why));
    }
    let batches = plan.rollout.batches_of(hosts.len());
    let on_hosts = plan.steps.iter().filter(|step| step.work.is_on_hosts()).count();
    let runs = on_hosts * hosts.len() + (plan.steps.len() - on_hosts);
    if runs > limits::RUNS {
        return Err(Invalid::over("targets", "RUNS", limits::RUNS, "runs (steps × hosts)").into());
    }
    let priority = request.priority.or(document.priority).unwrap_or(0);
    let priority = i16::try_from(priority).expect("it was validated");
    Ok(Frozen { by, plan, document, hosts: hosts.into_iter().zip(batches).collect(), hash, runs, priority })
}

/// The hosts of a start, by name.
async fn hosts(
    connection: &mut PgConnection,
    by: &Authorized<ExecutionCreate>,
    wanted: &JobTargets,
) -> Result<Vec<Target>> {
    let exclude =
        wanted.exclude.as_deref().map(|text| parse_selector("targets.exclude", text)).transpose()?;
    let chosen: Targets = wanted.chosen()?;
    let mut found = match resolve(connection, by, &chosen, exclude.as_ref()).await {
        Err(Error::NoTargets(_)) if wanted.allow_empty => Vec::new(),
        found => found?,
    };
    if let Some(limit) = wanted.limit {
        found.truncate(limit);
    }
    if let Some(most) = wanted.max_targets
        && found.len() > most
    {
        let why = format!("is {most}, and {} hosts match", found.len());
        return Err(Invalid::new("targets.max_targets", why).into());
    }
    touchable(by, found)
}

/// SHA-256 over the hosts in their order, in hex.
fn hash(hosts: &[Target]) -> String {
    let mut hash = Sha256::new();
    for host in hosts {
        hash.update(host.id.as_bytes());
    }
    hex::encode(hash.finalize())
}

/// A run for each step on each host, and one for each of the controller's own, in the order of their ids.
fn runs(plan: &Plan, hosts: &[(Target, u16)], now: jiff::Timestamp) -> Vec<NewRun> {
    let mut places: Vec<(AgentId, String, usize)> = Vec::new();
    for (place, step) in plan.steps.iter().enumerate() {
        if step.work.is_on_hosts() {
            places.extend(hosts.iter().map(|(target, _)| (target.id.into(), target.name.clone(), place)));
        } else {
            places.push((NO_AGENT, String::new(), place));
        }
    }
    let mut ids: Vec<uuid::Uuid> = places.iter().map(|_| model::id::uuid_v7(now, clock::entropy())).collect();
    ids.sort_unstable();
    let made = ids.into_iter().zip(places).map(|(id, (agent, target, place))| {
        let step = Some(i16::try_from(place).unwrap_or(i16::MAX));
        NewRun { covered: Covered { run: RunId(id), agent, step }, target }
    });
    made.collect()
}
