//! The start of a job, or of a command with a rollout: its hosts are found, its plan is frozen and signed, and its first hosts get
//! their turn.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};
use model::{
    Invalid,
    access::Permission,
    api::{
        execution::{CreateExecution, Execution, Targets},
        job::{ExecuteJob, JobPlan, PlanChanges, PlannedHost, PlannedStep},
    },
    command::{Command, within},
    id::{AgentId, JobId, RunId, ScheduleId},
    job::{JobTargets, Length, Plan, Rollout, Work as StepWork, parameters::resolve as resolve_parameters},
    limits,
};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use sqlx::PgConnection;

use super::{
    App,
    access::{Authorized, ExecutionCreate, ExecutionRead, JobRead},
    approvals, dangers,
    executions::{
        self, Key, Signed, Start, Starter, earlier, parse_selector, resolve, seen_whole, touchable,
    },
    jobs, manifest, scripts, started,
};
use crate::{
    clock,
    error::{During, Error, Result},
    store::{
        self,
        agents::Target,
        audit,
        executions::{Because, NewRun, Work},
        progress::{Beginning, NO_AGENT},
        runs::Covered,
    },
};

/// A start, found and frozen, before anything is written.
pub(super) struct Frozen {
    by: Authorized<ExecutionCreate>,
    plan: Plan,
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
    let frozen = freeze(app, &mut tx, by, key, request, &Later::default()).await?;
    tx.rollback().await.during("rollback")?;
    let since = since(app, by, &frozen).await?;
    let dangers = dangers::of_plan(app, &frozen.plan).await?;
    let warnings = approvals::without_roles(app, by.org_id(), &frozen.plan).await?;
    let (job, version) = match &frozen.plan.job {
        Some(job) => (job.name.clone(), job.version),
        None => return Err(Error::internal("a job has a plan of none", key.to_owned())),
    };
    let hosts = frozen.hosts.into_iter().map(|(target, batch)| PlannedHost {
        agent_id: target.id.into(),
        name: target.name,
        batch,
        connected: target.connected,
        draining: target.draining,
    });
    Ok(JobPlan {
        job,
        version,
        hosts: hosts.collect(),
        steps: steps(&frozen.plan),
        rollout: frozen.plan.rollout,
        targets_hash: frozen.hash,
        runs: frozen.runs,
        since,
        dangers,
        warnings,
    })
}

/// How it differs from the newest start of the job, if that is one that the actor may see.
async fn since(app: &App, by: &Authorized<JobRead>, frozen: &Frozen) -> Result<Option<PlanChanges>> {
    let pool = app.db.of(by.org_id());
    let Some(job) = &frozen.plan.job else { return Ok(None) };
    let Some((last, then)) = store::executions::newest_of_job(&pool, by.org_id(), job.id).await? else {
        return Ok(None);
    };
    let Some(before) = last.job else { return Ok(None) };
    let Ok(reading) = by.also::<ExecutionRead>() else { return Ok(None) };
    match seen_whole(app, &reading, last.id).await {
        Ok(()) => {}
        Err(Error::NotFound { .. }) => return Ok(None),
        Err(error) => return Err(error),
    }
    let then: BTreeSet<&str> = then.iter().map(String::as_str).collect();
    let now: BTreeSet<&str> = frozen.hosts.iter().map(|(target, _)| target.name.as_str()).collect();
    let names = |names: &BTreeSet<&str>, without: &BTreeSet<&str>| -> Vec<String> {
        names.difference(without).map(|name| (*name).to_owned()).collect()
    };
    let values = &job.parameters.0;
    let all: BTreeSet<&String> = values.keys().chain(before.parameters.keys()).collect();
    let differs = |name: &&String| values.get(*name) != before.parameters.get(*name);
    Ok(Some(PlanChanges {
        execution_id: last.id,
        state: last.state,
        created_at: last.created_at,
        version: before.version,
        more_hosts: names(&now, &then),
        fewer_hosts: names(&then, &now),
        parameters: all.into_iter().filter(differs).cloned().collect(),
    }))
}

/// The steps of a plan, for people.
pub(crate) fn steps(plan: &Plan) -> Vec<PlannedStep> {
    let name = |place: &usize| plan.steps[*place].name.clone();
    let steps = plan.steps.iter().map(|step| PlannedStep {
        name: step.name.clone(),
        needs: step.needs.iter().map(name).collect(),
        summary: match &step.work {
            StepWork::Command(command) => match &step.script {
                Some(script) => format!("script: {script}"),
                None => command.summary(),
            },
            StepWork::Wait(length) => format!("waits {length}"),
            StepWork::Approval(approval) => approval.summary(),
            StepWork::Http(call) => call.http.summary(),
            StepWork::Job(started) => started.summary(),
        },
        is_controllers: !step.work.is_on_hosts(),
        is_rollback: step.is_rollback,
        is_probe: step.is_probe,
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
    let repeated = idempotency_key.map(|text| Key::of(text, &(key, request))).transpose()?;
    // Before the targets are looked at: which they are may have changed since the first request.
    if let Some(execution) = earlier(app, by, repeated.as_ref()).await? {
        return Ok(execution);
    }
    let mut tx = app.db.of(by.org_id()).begin().await.during("begin")?;
    let frozen = freeze(app, &mut tx, by, key, request, &Later::default()).await?;
    let Some(execution) = launch(app, &mut tx, frozen, Because::default(), repeated.as_ref()).await? else {
        tx.rollback().await.during("rollback")?;
        return earlier(app, by, repeated.as_ref()).await?.ok_or(Error::StillRunning);
    };
    tx.commit().await.during("commit")?;
    tell(app, &execution, by.request_id());
    Ok(execution)
}

/// The schedule that starts a job.
pub(super) struct Scheduled<'a> {
    pub id: ScheduleId,
    pub job_id: JobId,
    /// What its document, which is signed, calls the job.
    pub job: &'a str,
    /// For when it was planned, or when what starts it came.
    pub due: Option<Timestamp>,
    /// Executions that led to it, each of which caused the next.
    pub chain: i16,
    /// Nothing starts when none of its hosts is connected.
    pub needs_one_there: bool,
}

/// Prepares the start of a job for its schedule; none when no host is there and one is needed. It writes nothing.
///
/// # Errors
/// Those of [`execute`], and when the schedule names another job.
pub(super) async fn scheduled(
    app: &App,
    connection: &mut PgConnection,
    by: &Authorized<JobRead>,
    schedule: Scheduled<'_>,
    request: &ExecuteJob,
) -> Result<Option<Launch>> {
    let key_of_job = schedule.job_id.to_string();
    let mut frozen = freeze(app, connection, by, &key_of_job, request, &Later::default()).await?;
    if let Some(due) = schedule.due {
        frozen.plan.tell_due(due);
    }
    if frozen.plan.job.as_ref().is_none_or(|job| job.name != schedule.job) {
        return Err(Error::Tampered(format!(
            "the schedule is for the job '{}', and its row for another",
            schedule.job
        )));
    }
    let is_there = |(host, _): &(Target, u16)| host.connected;
    if schedule.needs_one_there && !frozen.hosts.is_empty() && !frozen.hosts.iter().any(is_there) {
        return Ok(None);
    }
    let because = Because { schedule: Some(schedule.id), chain: schedule.chain, ..Because::default() };
    prepare(app, connection, frozen, because).await.map(Some)
}

/// What of a start is known only when something comes.
#[derive(Debug, Default)]
pub(super) struct Later<'a> {
    /// Parameters.
    pub parameters: Vec<&'a str>,
    /// The hosts, in place of those that are named.
    pub hosts: bool,
}

/// Whether a job could be started like this now.
///
/// # Errors
/// Those of [`execute`].
pub(super) async fn try_out(
    app: &App,
    connection: &mut PgConnection,
    by: &Authorized<JobRead>,
    key: &str,
    request: &ExecuteJob,
    later: &Later<'_>,
) -> Result<()> {
    freeze(app, connection, by, key, request, later).await.map(drop)
}

/// Starts a command of its own that spreads over its hosts, as [`execute`] does a job.
///
/// # Errors
/// When a field is wrong, nothing matches, one of the hosts may not be touched, or it needs an approval here.
pub(super) async fn command(
    app: &App,
    by: &Authorized<ExecutionCreate>,
    request: &CreateExecution,
    rollout: &Rollout,
    idempotency_key: Option<&str>,
) -> Result<Execution> {
    let plan = Plan::of_command(request.command.clone(), rollout, Length(request.start_within_seconds()))?;
    dangers::check_plan(app, &plan).await?;
    let repeated = idempotency_key.map(|text| Key::of(text, request)).transpose()?;
    if let Some(execution) = earlier(app, by, repeated.as_ref()).await? {
        return Ok(execution);
    }
    let mut tx = app.db.of(by.org_id()).begin().await.during("begin")?;
    let hosts = touchable(by, resolve(&mut tx, by, &request.targets, None).await?)?;
    let priority = i16::try_from(request.priority()).expect("it was validated");
    let frozen = Frozen::new(by.also()?, plan, hosts, priority)?;
    let Some(execution) = launch(app, &mut tx, frozen, Because::default(), repeated.as_ref()).await? else {
        tx.rollback().await.during("rollback")?;
        return earlier(app, by, repeated.as_ref()).await?.ok_or(Error::StillRunning);
    };
    tx.commit().await.during("commit")?;
    tell(app, &execution, by.request_id());
    Ok(execution)
}

/// A start that is signed, and not yet written.
#[derive(Debug)]
pub(super) struct Launch {
    by: Authorized<ExecutionCreate>,
    planned: Planned,
    /// What the audit has to say of it.
    detail: Value,
}

impl Launch {
    /// As people will see it.
    pub(super) const fn execution(&self) -> &Execution {
        &self.planned.0.execution
    }

    /// Bytes that it takes in memory, about.
    pub(super) fn weight(&self) -> usize {
        let new = &self.planned.0.new;
        manifest::weight(&new.work, new.runs.len())
    }

    /// Writes it; none when another request with the same key was faster.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(super) async fn write(
        self,
        connection: &mut PgConnection,
        key: Option<&Key>,
    ) -> Result<Option<Execution>> {
        if let Some(key) = key
            && !key.claim(connection, &(&self.by).into(), &self.planned.0).await?
        {
            return Ok(None);
        }
        write_all(connection, std::slice::from_ref(&self)).await?;
        Ok(Some(self.planned.0.execution))
    }
}

/// Signs the start of a job.
///
/// # Errors
/// When what it names is not there any more.
async fn prepare(
    app: &App,
    connection: &mut PgConnection,
    frozen: Frozen,
    because: Because,
) -> Result<Launch> {
    let Frozen { by, plan, hosts, hash, priority, .. } = frozen;
    let now = clock::now();
    let mut detail = json!({ "targets_hash": hash, "retry_of": because.retry_of });
    if let Some(schedule) = because.schedule {
        detail["schedule_id"] = json!(schedule);
    }
    let new = PlanStart {
        start_by: now + SignedDuration::from_secs(limits::PLAN_SECONDS),
        priority,
        plan,
        hosts: hosts.into_iter().map(|(target, batch)| (target.id.into(), target.name, batch)).collect(),
        because,
    };
    let planned = sign_plan(app, connection, &(&by).into(), (new, now), &mut detail).await?;
    Ok(Launch { by, planned, detail })
}

/// Writes starts, each with its entry of the audit.
///
/// # Errors
/// When they cannot be written.
pub(super) async fn write_all(connection: &mut PgConnection, launches: &[Launch]) -> Result<()> {
    if launches.is_empty() {
        return Ok(());
    }
    write_plans(connection, &launches.iter().map(|launch| &launch.planned).collect::<Vec<_>>()).await?;
    let times: Vec<Timestamp> = launches.iter().map(|launch| launch.execution().created_at).collect();
    let entries = launches.iter().map(|Launch { by, planned, detail }| {
        let object = format!("execution/{}", planned.0.new.id);
        (by.org_id(), by.entry("execution.create", object, detail.clone()))
    });
    audit::record_each(connection, &times, entries.collect()).await
}

/// Writes the start of a job; none when another request with the same key was faster.
///
/// # Errors
/// When it cannot be written, or what it names is not there any more.
pub(super) async fn launch(
    app: &App,
    connection: &mut PgConnection,
    frozen: Frozen,
    because: Because,
    key: Option<&Key>,
) -> Result<Option<Execution>> {
    prepare(app, connection, frozen, because).await?.write(connection, key).await
}

/// The start of a plan: all that is authorised of it.
pub(super) struct PlanStart {
    pub start_by: Timestamp,
    pub priority: i16,
    pub plan: Plan,
    /// In the order of their turns, each with its name and batch.
    pub hosts: Vec<(AgentId, String, u16)>,
    pub because: Because,
}

/// An execution of a plan that is signed, and not yet written, with its hosts.
#[derive(Debug)]
pub(super) struct Planned(pub Signed, Vec<(AgentId, String, u16)>);

/// Signs a plan; `detail` is filled up with what the audit has to say of it.
///
/// # Errors
/// When what it names is not there any more.
pub(super) async fn sign_plan(
    app: &App,
    connection: &mut PgConnection,
    by: &Starter<'_>,
    (new, now): (PlanStart, Timestamp),
    detail: &mut Value,
) -> Result<Planned> {
    let PlanStart { start_by, priority, plan, hosts: places, because } = new;
    let plan = plan.normal().map_err(|error| Error::internal("cannot write a plan", error))?;
    let runs = runs(&plan, &places, now);
    detail["targets"] = places.len().into();
    detail["runs"] = runs.len().into();
    let summary = match &plan.job {
        Some(job) => {
            detail["job"] = job.name.as_str().into();
            detail["job_id"] = json!(job.id);
            detail["version"] = job.version.into();
            detail["parameters"] = json!(job.parameters);
            detail["scripts"] = json!(plan.scripts());
            if let Some(undone) = plan.undoes {
                detail["undoes"] = json!(undone);
            }
            let what = if plan.undoes.is_some() { "undo of " } else { "" };
            format!("{what}{} v{}", job.name, job.version)
        }
        None => {
            let command = plan.command(0);
            let summary = command.map(Command::summary).unwrap_or_default();
            detail["summary"] = summary.as_str().into();
            detail["user"] = json!(command.and_then(|command| command.user.as_ref()));
            detail["rollout"] = json!(plan.rollout);
            summary
        }
    };
    let start = Start { now, start_by, priority, summary, work: Work::Plan(plan), runs, because };
    let mut signed = executions::sign(app, connection, by, start).await?;
    let execution = &mut signed.execution;
    if execution.runs.total == 0 {
        // There is nothing to do, and that is done.
        (execution.state, execution.ended_at) = (execution.runs.state(), Some(now));
    }
    Ok(Planned(signed, places))
}

/// Writes plans with their runs and hosts.
///
/// # Errors
/// When they cannot be written.
pub(super) async fn write_plans(connection: &mut PgConnection, all: &[&Planned]) -> Result<()> {
    let new: Vec<_> = all.iter().map(|planned| &planned.0.new).collect();
    store::executions::insert(connection, &new).await?;
    let beginning = all.iter().map(|Planned(Signed { new, .. }, hosts)| Beginning {
        execution: new.id,
        org_id: new.org_id,
        at: new.created_at,
        hosts,
    });
    store::progress::insert(connection, &beginning.collect::<Vec<_>>()).await?;
    for Signed { execution, .. } in all.iter().map(|planned| &planned.0) {
        if let Some(ended_at) = execution.ended_at {
            store::executions::set_counts(connection, execution.id, &execution.runs, ended_at).await?;
        }
    }
    Ok(())
}

/// Tells of the start of a job, once it is committed.
pub(super) fn tell(app: &App, execution: &Execution, request_id: &str) {
    tracing::info!(
        execution.id = %execution.id, summary = execution.summary, request.id = request_id, actor = execution.actor,
        runs = execution.runs.total, "execution started"
    );
    app.wake.advance.notify_one();
    app.wake.others.notify_one();
}

async fn freeze(
    app: &App,
    connection: &mut PgConnection,
    reading: &Authorized<JobRead>,
    key: &str,
    request: &ExecuteJob,
    later: &Later<'_>,
) -> Result<Frozen> {
    if let Some(priority) = request.priority {
        within("priority", priority, &limits::PRIORITY)?;
    }
    let (job, mut document) = jobs::to_run(app, connection, reading, key, request).await?;
    scripts::fill(app, connection, reading.org_id(), &mut document).await?;
    // An old version does not bring back a right that its labels gave: both have to, and the present ones say where.
    let _: Authorized<ExecutionCreate> = reading.for_job(&document.labels)?;
    let by: Authorized<ExecutionCreate> = reading.for_job(&job.labels)?;
    let mut definitions = document.parameters.clone();
    for name in &later.parameters {
        let field = || format!("when.parameters.{name}");
        let unknown = || Invalid::new(field(), format!("is not a parameter of the job '{}'", job.name));
        definitions.get_mut(*name).ok_or_else(unknown)?.required = false;
    }
    let values = resolve_parameters(&definitions, &request.parameters)?;
    let plan = Plan::of(&document, job.id, job.saved.version, values)?;
    let priority = request.priority.or(document.priority).unwrap_or(0);
    let priority = i16::try_from(priority).expect("it was validated");
    let hosts = match request.targets.as_ref().or(document.targets.as_ref()) {
        Some(wanted) => {
            wanted.validate()?;
            hosts(connection, &by, wanted).await?
        }
        // What the controller does alone needs none; whose right is for some hosts has none for that.
        None if !plan.has_steps_on_hosts() => match by.hosts() {
            None => Vec::new(),
            Some(_) => {
                let why = "a job without hosts is for those whose right holds for all hosts";
                return Err(by.actor().refusal(Permission::ExecutionCreate, why));
            }
        },
        None if later.hosts => Vec::new(),
        None => {
            let why = "is missing: the job names no hosts, so the start has to";
            return Err(Invalid::new("targets", why).into());
        }
    };
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
    let mut plan = dangers::guard(app, plan).await?;
    started::freeze(app, connection, reading, &mut plan, &hosts).await?;
    Frozen::new(by, plan, hosts, priority)
}

impl Frozen {
    /// # Errors
    /// When there would be too many runs.
    pub(super) fn new(
        by: Authorized<ExecutionCreate>,
        plan: Plan,
        hosts: Vec<Target>,
        priority: i16,
    ) -> Result<Self> {
        let batches = plan.rollout.batches_of(hosts.len());
        let runs = fits(&plan, hosts.len())?;
        let hash = hash(&hosts);
        Ok(Self { by, plan, hosts: hosts.into_iter().zip(batches).collect(), hash, runs, priority })
    }
}

/// How many runs there will be.
///
/// # Errors
/// When these are too many.
pub(super) fn fits(plan: &Plan, hosts: usize) -> Result<usize> {
    let on_hosts = plan.steps.iter().filter(|step| step.work.is_on_hosts()).count();
    let probes = plan.steps.iter().filter(|step| step.is_probe).count();
    let canary =
        plan.rollout.batches_of(hosts).into_iter().filter(|batch| plan.rollout.is_canary(*batch)).count();
    let runs = (on_hosts - probes) * hosts + probes * canary + (plan.steps.len() - on_hosts);
    if runs > limits::RUNS {
        return Err(Invalid::over("targets", "RUNS", limits::RUNS, "runs (steps × hosts)").into());
    }
    Ok(runs)
}

/// The hosts of a start, by name.
///
/// # Errors
/// When there are none or too many, or one of them may not be touched.
pub(super) async fn hosts(
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

/// A run for each step on each host (for the probe, on those of the canary), and one for each of the controller's own, in the
/// order of their ids.
fn runs(plan: &Plan, hosts: &[(AgentId, String, u16)], now: Timestamp) -> Vec<NewRun> {
    let mut places: Vec<(AgentId, String, usize)> = Vec::new();
    for (place, step) in plan.steps.iter().enumerate() {
        if step.work.is_on_hosts() {
            let on = hosts.iter().filter(|(.., batch)| plan.is_on(place, *batch));
            places.extend(on.map(|(agent, name, _)| (*agent, name.clone(), place)));
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
