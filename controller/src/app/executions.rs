//! Starting and cancelling executions.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};
use model::{
    Invalid,
    access::Permission,
    api::execution::{CreateExecution, Execution, Targets},
    execution::{ExecutionState, RunCounts},
    id::{AgentId, ExecutionId, OrgId, RunId},
    job::COMMAND,
    limits,
    selector::Selector,
};
use serde::Serialize;
use serde_json::json;
use sha2::{Digest, Sha256};
use sqlx::PgConnection;
use uuid::Uuid;

use super::{
    App,
    access::{Authorized, ExecutionCancel, ExecutionCreate, ExecutionRead, Hosts, Right},
    approvals, dangers,
    idempotency::check_key,
    manifest, start, target_groups,
};
use crate::{
    clock,
    error::{During, Error, Result},
    store::{
        self,
        agents::{Target, Wanted},
        audit,
        executions::{Because, NewExecution, NewRun, Work},
        progress::Ask,
        runs::Covered,
    },
};

/// Starts a command on its targets: authorised, frozen, signed and queued in one transaction.
///
/// A repetition with the same `idempotency_key` answers the execution that the first one started.
///
/// # Errors
/// When a field is wrong, nothing matches, or the key came with another request before.
pub(crate) async fn start(
    app: &App,
    by: &Authorized<ExecutionCreate>,
    request: CreateExecution,
    idempotency_key: Option<&str>,
) -> Result<Execution> {
    request.validate()?;
    if let Some(rollout) = &request.rollout {
        return start::command(app, by, &request, rollout, idempotency_key).await;
    }
    dangers::check_commands(app, vec![(COMMAND.to_owned(), request.command.program.clone())]).await?;
    let key = idempotency_key.map(|key| Key::of(key, &request)).transpose()?;
    // Before the targets are looked at: which they are may have changed since the first request.
    if let Some(execution) = earlier(app, by, key.as_ref()).await? {
        return Ok(execution);
    }
    let (org, now) = (by.org_id(), clock::now());
    let mut tx = app.db.of(org).begin().await.during("begin")?;
    let targets = touchable(by, resolve(&mut tx, by, &request.targets, None).await?)?;
    let agents: Vec<AgentId> = targets.iter().map(|target| AgentId(target.id)).collect();
    let summary = request.command.summary();
    let detail = json!({ "summary": summary, "targets": agents.len(), "user": request.command.user });
    let new = Start {
        now,
        start_by: now + SignedDuration::from_secs(request.start_within_seconds()),
        priority: i16::try_from(request.priority()).expect("it was validated"),
        summary,
        work: Work::Command(request.command),
        runs: runs_on(targets, now),
        because: Because::default(),
    };
    let Some(execution) = write(app, &mut tx, &by.into(), new, key.as_ref()).await? else {
        tx.rollback().await.during("rollback")?;
        return earlier(app, by, key.as_ref()).await?.ok_or(Error::StillRunning);
    };
    let entry = by.entry("execution.create", format!("execution/{}", execution.id), detail);
    audit::record(&mut tx, org, now, entry).await?;
    fault::point("controller.execution.written");
    tx.commit().await.during("commit")?;
    fault::point("controller.execution.committed");

    tracing::info!(
        execution.id = %execution.id, request.id = by.request_id(), actor = by.actor().name, targets = agents.len(),
        "execution started"
    );
    app.wake.dispatch(agents);
    app.wake.others.notify_one();
    Ok(execution)
}

/// A run of a command on each host, in the order of their ids.
pub(super) fn runs_on(targets: Vec<Target>, now: Timestamp) -> Vec<NewRun> {
    let mut ids: Vec<Uuid> = targets.iter().map(|_| model::id::uuid_v7(now, clock::entropy())).collect();
    ids.sort_unstable();
    let runs = ids.into_iter().zip(targets).map(|(run, target)| {
        let covered = Covered { run: RunId(run), agent: AgentId(target.id), step: None };
        NewRun { covered, target: target.name }
    });
    runs.collect()
}

/// An execution to be: all that is authorised of it.
#[derive(Debug)]
pub(super) struct Start {
    pub now: Timestamp,
    pub start_by: Timestamp,
    pub priority: i16,
    /// One line that a person recognises it by.
    pub summary: String,
    pub work: Work,
    /// In the order of their ids.
    pub runs: Vec<NewRun>,
    pub because: Because,
}

/// Who starts an execution.
#[derive(Debug, Clone)]
pub(super) struct Starter<'a> {
    pub org_id: OrgId,
    pub actor: &'a str,
    pub actor_id: String,
    pub request_id: &'a str,
}

impl<'a> From<&'a Authorized<ExecutionCreate>> for Starter<'a> {
    fn from(by: &'a Authorized<ExecutionCreate>) -> Self {
        Self {
            org_id: by.org_id(),
            actor: &by.actor().name,
            actor_id: by.actor().subject.to_string(),
            request_id: by.request_id(),
        }
    }
}

/// An execution that is signed, and not yet written.
#[derive(Debug)]
pub(super) struct Signed {
    pub new: NewExecution,
    /// As people will see it.
    pub execution: Execution,
}

/// Signs an execution.
///
/// # Errors
/// When an approval of its plan is for a role that is not there.
pub(super) async fn sign(
    app: &App,
    connection: &mut PgConnection,
    by: &Starter<'_>,
    start: Start,
) -> Result<Signed> {
    let Start { now, start_by, priority, summary, work, runs, because } = start;
    // What a step starts was looked at with the job that starts it.
    if let (Work::Plan(plan), None) = (&work, &because.parent) {
        approvals::check_roles(connection, by.org_id, plan).await?;
    }
    let (org, id) = (by.org_id, ExecutionId::new(now, clock::entropy()));
    let covered: Vec<Covered> = runs.iter().map(|run| run.covered).collect();
    let intent = manifest::Intent {
        org_id: org,
        execution_id: id,
        actor: by.actor,
        actor_id: &by.actor_id,
        request_id: by.request_id,
        issued_at: now,
        start_by,
        work: &work,
        targets: &covered,
    };
    let signed = manifest::sign(&app.ca, &intent);
    fault::point("controller.manifest.signed");
    let total = i32::try_from(runs.len()).unwrap_or(i32::MAX);
    let plan = work.plan();
    let execution = Execution {
        id,
        state: ExecutionState::Pending,
        summary: summary.clone(),
        runs: RunCounts { total, waiting: total, ..Default::default() },
        cancel_requested: false,
        priority,
        actor: by.actor.to_owned(),
        request_id: by.request_id.to_owned(),
        created_at: now,
        ended_at: None,
        paused: false,
        waits_for: None,
        lock_held_by: None,
        retry_of: because.retry_of,
        parent_id: because.parent.map(|(execution, _)| execution),
        schedule_id: because.schedule,
        stopped: false,
        aborted: false,
        left_out: Vec::new(),
        undoes: plan.and_then(|plan| plan.undoes),
        rollout: plan.map(|plan| plan.rollout.clone()),
        job: plan.and_then(|plan| plan.job.clone()).map(store::executions::executed),
        command: None,
    };
    let new = NewExecution {
        id,
        org_id: org,
        summary,
        work,
        actor: by.actor.to_owned(),
        request_id: by.request_id.to_owned(),
        created_at: now,
        start_before: start_by,
        priority,
        signed,
        runs,
        because,
    };
    Ok(Signed { new, execution })
}

/// Signs an execution and writes it with its runs; none when another request with the same key was faster.
///
/// # Errors
/// When it cannot be written.
pub(super) async fn write(
    app: &App,
    connection: &mut PgConnection,
    by: &Starter<'_>,
    start: Start,
    key: Option<&Key>,
) -> Result<Option<Execution>> {
    let signed = sign(app, connection, by, start).await?;
    if let Some(key) = key
        && !key.claim(connection, by, &signed).await?
    {
        return Ok(None);
    }
    store::executions::insert(connection, &[&signed.new]).await?;
    Ok(Some(signed.execution))
}

/// A client's idempotency key, with the hash of what it came with.
#[derive(Debug)]
pub(super) struct Key {
    key: String,
    body_hash: Vec<u8>,
}

impl Key {
    /// # Errors
    /// When it is no key.
    pub(super) fn of(key: &str, body: &impl Serialize) -> Result<Self> {
        check_key(key)?;
        let body = serde_json::to_vec(body).map_err(|error| Error::internal("cannot hash", error))?;
        Ok(Self { key: key.to_owned(), body_hash: Sha256::digest(body).to_vec() })
    }

    /// Claims the key for an execution; `false` when another request has it.
    pub(super) async fn claim(
        &self,
        connection: &mut PgConnection,
        by: &Starter<'_>,
        signed: &Signed,
    ) -> Result<bool> {
        let (id, now) = (signed.new.id, signed.new.created_at);
        let answer = json!({ "execution_id": id });
        let Self { key, body_hash } = self;
        store::idempotency::claim(connection, by.org_id, &by.actor_id, key, body_hash, &answer, now).await
    }
}

/// The execution that an earlier request with this key started, if there was one.
///
/// # Errors
/// When the key came with another request, or that is still running.
pub(super) async fn earlier<P>(
    app: &App,
    by: &Authorized<P>,
    key: Option<&Key>,
) -> Result<Option<Execution>> {
    let Some(Key { key, body_hash }) = key else { return Ok(None) };
    let pool = app.db.of(by.org_id());
    let who = by.actor().subject.to_string();
    let Some(earlier) = store::idempotency::earlier(&pool, by.org_id(), &who, key).await? else {
        return Ok(None);
    };
    if earlier.body_hash != *body_hash {
        return Err(Error::KeyReused);
    }
    let id = earlier
        .answer
        .and_then(|answer| answer["execution_id"].as_str()?.parse().ok())
        .ok_or(Error::StillRunning)?;
    store::executions::get(&pool, by.org_id(), id).await
}

/// The agents that are meant, without those that `exclude` holds for, by name. Each tells whether it may be touched.
///
/// # Errors
/// When a selector cannot be read, a name or a group is not there, or there are too many.
pub(crate) async fn resolve<P>(
    connection: &mut PgConnection,
    by: &Authorized<P>,
    targets: &Targets,
    exclude: Option<&Selector>,
) -> Result<Vec<Target>> {
    let (org, hosts) = (by.org_id(), by.hosts());
    let found = match targets {
        Targets::All(_) => store::agents::targets(connection, org, Wanted::All, exclude, hosts).await?,
        Targets::Names(names) => {
            let found = store::agents::targets(connection, org, Wanted::Named(names), exclude, hosts).await?;
            let there: BTreeSet<&str> = found.iter().map(|target| target.name.as_str()).collect();
            if exclude.is_none()
                && let Some(missing) = names.iter().find(|name| !there.contains(name.as_str()))
            {
                return Err(Error::NoTargets(format!("the name '{missing}'")));
            }
            found
        }
        Targets::Selector(text) => {
            let selector = parse_selector("targets.selector", text)?;
            store::agents::targets(connection, org, Wanted::Selected(&selector), exclude, hosts).await?
        }
        Targets::Group(name) => target_groups::targets(connection, by, name, exclude).await?,
    };
    if found.is_empty() {
        return Err(Error::NoTargets(match targets {
            Targets::Selector(text) => format!("the selector '{text}'"),
            Targets::Group(name) => format!("the target group '{name}'"),
            Targets::Names(_) | Targets::All(_) => "the request: no agent is enrolled".to_owned(),
        }));
    }
    if found.len() > limits::TARGETS {
        return Err(Invalid::over("targets", "TARGETS", limits::TARGETS, "targets").into());
    }
    Ok(found)
}

/// All of them, or none.
///
/// # Errors
/// When some are not among the hosts that the right holds for: who selects more than he may touch is told how many.
pub(crate) fn touchable<P: Right>(by: &Authorized<P>, targets: Vec<Target>) -> Result<Vec<Target>> {
    let denied = targets.iter().filter(|target| !target.allowed).count();
    if denied > 0 { Err(by.out_of_scope(targets.len(), denied)) } else { Ok(targets) }
}

/// Asks for the end of all runs of an execution. Those that no host has end at once; the others when their hosts
/// confirm that no process is left. Cancelling what has ended changes nothing and is no error.
///
/// # Errors
/// When there is no such execution, or it has hosts on which the caller may not cancel anything.
pub(crate) async fn cancel(
    app: &App,
    by: &Authorized<ExecutionCancel>,
    id: ExecutionId,
) -> Result<Execution> {
    let now = clock::now();
    let org = by.org_id();
    let pool = app.db.of(org);
    touched_whole(app, by, id).await?;
    let mut tx = pool.begin().await.during("begin")?;
    // Before the execution's own row, as whoever moves it on locks them.
    store::progress::wake(&mut tx, id, now).await?;
    if store::executions::request_cancel(&mut tx, org, id, now).await? {
        let entry = audit::Entry {
            outcome: "requested",
            ..by.entry("execution.cancel", format!("execution/{id}"), json!({}))
        };
        audit::record(&mut tx, org, now, entry).await?;
        fault::point("controller.cancel.written");
        tx.commit().await.during("commit")?;
        fault::point("controller.cancel.committed");
        app.wake.cancel.notify_one();
        app.wake.advance.notify_one();
        app.wake.others.notify_one();
    } else {
        tx.rollback().await.during("rollback")?;
    }
    let execution = store::executions::get(&pool, org, id).await?;
    execution.ok_or_else(|| Error::not_found("execution", id.to_string()))
}

/// Pauses, resumes or stops the rollout of an execution.
///
/// # Errors
/// When there is no such execution, it has no plan or is over, or it has hosts on which the caller may cancel nothing.
pub(crate) async fn ask(
    app: &App,
    by: &Authorized<ExecutionCancel>,
    id: ExecutionId,
    ask: Ask,
) -> Result<Execution> {
    let (now, org) = (clock::now(), by.org_id());
    let pool = app.db.of(org);
    touched_whole(app, by, id).await?;
    let execution = store::executions::get(&pool, org, id).await?;
    let execution = execution.ok_or_else(|| Error::not_found("execution", id.to_string()))?;
    if execution.rollout.is_none() {
        return Err(Error::Conflict(
            "this is a command without a rollout: it has no turns that could be held".to_owned(),
        ));
    }
    let mut tx = pool.begin().await.during("begin")?;
    if !store::progress::ask(&mut tx, (id, org), ask, now).await? {
        // As it is now, not as it was before it was asked.
        let now = store::executions::get(&pool, org, id).await?;
        let is_aborted = now.is_some_and(|execution| execution.aborted && !execution.state.is_terminal());
        let why = if is_aborted {
            "the execution was aborted: nothing more of it begins"
        } else {
            "the execution is over"
        };
        return Err(Error::Conflict(why.to_owned()));
    }
    let verb = match ask {
        Ask::Pause => "execution.pause",
        Ask::Resume => "execution.resume",
        Ask::Stop | Ask::Abort => "execution.abort",
    };
    audit::record(&mut tx, org, now, by.entry(verb, format!("execution/{id}"), json!({}))).await?;
    tx.commit().await.during("commit")?;
    app.wake.advance.notify_one();
    app.wake.others.notify_one();
    Ok(execution)
}

/// An execution is seen whole or not at all.
///
/// # Errors
/// That there is none, when one of its hosts is not among those that the right holds for.
pub(crate) async fn seen_whole(app: &App, by: &Authorized<ExecutionRead>, id: ExecutionId) -> Result<()> {
    match unreached(app, by, by.hosts(), id).await? {
        0 => Ok(()),
        _ => Err(Error::not_found("execution", id.to_string())),
    }
}

/// And touched whole or not at all.
///
/// # Errors
/// That there is none, where it is not seen either.
pub(super) async fn touched_whole<P: Right>(app: &App, by: &Authorized<P>, id: ExecutionId) -> Result<()> {
    let denied = unreached(app, by, by.hosts(), id).await?;
    if denied == 0 {
        return Ok(());
    }
    let is_seen = match by.actor().judge(Permission::ExecutionRead) {
        Ok(Hosts::All) => true,
        Ok(Hosts::Where(seen)) => unreached(app, by, Some(&seen), id).await? == 0,
        Err(_) => false,
    };
    let unknown = || Error::not_found("execution", id.to_string());
    if !is_seen {
        return Err(unknown());
    }
    let pool = app.db.of(by.org_id());
    let execution = store::executions::get(&pool, by.org_id(), id).await?.ok_or_else(unknown)?;
    let count = |hosts: i64| usize::try_from(hosts).unwrap_or(usize::MAX);
    Err(by.out_of_scope(count(execution.runs.total.into()), count(denied)))
}

/// How many of the hosts of an execution, and of what it starts, are not among these; `None`: these are all.
async fn unreached<P>(
    app: &App,
    by: &Authorized<P>,
    hosts: Option<&Selector>,
    id: ExecutionId,
) -> Result<i64> {
    match hosts {
        None => Ok(0),
        Some(hosts) => {
            let (pool, org) = (app.db.of(by.org_id()), by.org_id());
            let own = store::executions::unseen(&pool, org, id, hosts).await?;
            // What it starts is touched with it.
            let plan = store::executions::plan(&pool, org, id).await?;
            let started = plan.map(|plan| plan.hosts_of_started()).unwrap_or_default();
            if started.is_empty() {
                return Ok(own);
            }
            let reached: BTreeSet<Uuid> = store::agents::ids(&pool, org, hosts).await?.into_iter().collect();
            let missing = started.iter().filter(|agent| !reached.contains(&agent.0)).count();
            Ok(own.saturating_add(i64::try_from(missing).unwrap_or(i64::MAX)))
        }
    }
}

/// Reads a selector of the request's field `field`.
///
/// # Errors
/// With the position of what is wrong.
pub(crate) fn parse_selector(field: &'static str, text: &str) -> Result<Selector> {
    Selector::parse(text).map_err(|error| Error::Selector { field, error })
}
