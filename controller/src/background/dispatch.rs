//! Dispatch: queued runs are offered to agents that have free slots and a session here.
//!
//! Invariants: nothing is offered that its execution's signed manifest does not cover; an attempt is in the tables
//! before its order is sent; an order that cannot be sent is withdrawn at once. Only agents whose queue or slots may
//! have changed are looked at, and once a second all that have a queue.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::{SignedDuration, Timestamp};
use model::{
    attempt::AttemptState,
    command::Command,
    id::{AgentId, ExecutionId, OrgId, RunId},
    job::{Work as StepWork, context::StepResult},
    retry::{self, Next, Tried},
    run::RunState,
};
use serde_json::json;
use sqlx::PgConnection;
use tokio::time::timeout;
use uuid::Uuid;

use super::noted;
use crate::{
    app::{
        App,
        approvals::{self, Decisions},
        manifest::{self, Verified},
        orders::{self, Try},
        runs::{self, Happening},
        sessions::Connected,
        wake::Ready,
    },
    clock,
    error::{During, Result},
    store::{
        self,
        attempts::Offer,
        audit,
        executions::Work,
        progress::NO_AGENT,
        runs::{Queued, Waiting},
    },
};

/// How often all queues are looked at.
const PERIOD: Duration = Duration::from_secs(1);
/// Agents of one transaction.
const AGENTS: usize = 512;
/// Runs that one agent is offered at a time: fewer than frames that may wait for it.
const RUNS: i64 = 32;

/// Waits for something to do and does it.
pub(super) async fn round(app: &Arc<App>) -> Result<()> {
    // The period is as good as a wake-up.
    let _ = timeout(PERIOD, app.wake.dispatched()).await;
    let done = noted(app, "dispatch", Some(PERIOD), async {
        let agents = match app.wake.take_ready(PERIOD) {
            Some(ready) => with_queue(app, ready).await?,
            None => store::runs::agents_with_queue(app.db.worker()).await?,
        };
        let ready: Vec<Arc<Connected>> =
            agents.into_iter().filter_map(|agent| app.sessions.get(agent)).collect();
        for sessions in ready.chunks(AGENTS) {
            offer(app, sessions).await?;
        }
        Ok(())
    })
    .await;
    if done.is_err() {
        // Whom this round was for is not known any more.
        app.wake.everybody();
    }
    done
}

/// Those of the agents that have something to be offered. Every result that is recorded frees a slot, and mostly nothing
/// waits for it: a look is cheaper than a transaction that holds the sessions.
async fn with_queue(app: &App, ready: Ready) -> Result<Vec<AgentId>> {
    let mut agents: Vec<AgentId> = ready.queued.iter().copied().collect();
    let free: Vec<Uuid> = ready.free.difference(&ready.queued).map(|agent| agent.0).collect();
    if !free.is_empty() {
        agents.extend(store::runs::having_queue(app.db.worker(), &free).await?);
    }
    Ok(agents)
}

/// Offers these agents their next runs.
async fn offer(app: &Arc<App>, sessions: &[Arc<Connected>]) -> Result<()> {
    let begun = Instant::now();
    let now = clock::now();
    let by_agent: HashMap<Uuid, &Arc<Connected>> = sessions.iter().map(|s| (s.agent_id.0, s)).collect();
    let agents: Vec<Uuid> = sessions.iter().map(|session| session.agent_id.0).collect();

    let mut tx = app.db.worker().begin().await.during("begin")?;
    let held = store::sessions::hold(&mut tx, app.info.controller_id, &agents).await?;
    let is_ours = |(agent, epoch): &(Uuid, i64)| by_agent[agent].epoch == *epoch;
    let agents: Vec<Uuid> = held.into_iter().filter(is_ours).map(|(agent, _)| agent).collect();
    let slots: Vec<i32> = agents.iter().map(|agent| by_agent[agent].slots).collect();
    let queued = store::runs::take_queued(&mut tx, &agents, &slots, RUNS, now).await?;
    if queued.is_empty() {
        return tx.rollback().await.during("rollback");
    }
    let plan = plan(app, &mut tx, queued, now).await?;
    let margin = SignedDuration::try_from(app.info.timing.attempt_margin()).unwrap_or(SignedDuration::MAX);
    let offers: Vec<Offer> = plan
        .good
        .iter()
        .map(|planned| {
            let (run, session) = (&planned.run, by_agent[&planned.run.agent_id]);
            let timeout = SignedDuration::from_secs(planned.command().timeout_seconds);
            Offer {
                execution_id: run.execution_id,
                run_id: run.id,
                number: run.attempt + 1,
                org_id: run.org_id,
                agent_id: run.agent_id,
                fence: session.fence,
                epoch: session.epoch,
                deadline: now.saturating_add(timeout + margin).unwrap_or(Timestamp::MAX),
            }
        })
        .collect();
    if !offers.is_empty() {
        store::attempts::offer(&mut tx, &offers, now).await?;
        store::runs::activate(&mut tx, plan.good.iter().map(|planned| &planned.run)).await?;
        let moves: Vec<_> = offers
            .iter()
            .map(|run| (ExecutionId(run.execution_id), RunState::Queued, RunState::Active))
            .collect();
        runs::move_counts(&mut tx, &moves, now).await?;
    }
    let refused = refuse(&mut tx, &plan.bad, now).await?;
    let unfilled: Vec<Waiting> = plan.unfilled.iter().map(waiting).collect();
    let unfilled = runs::end_waiting(&mut tx, &unfilled, runs::Why::BadTemplate, now).await?;
    fault::point("controller.offer.written");
    tx.commit().await.during("commit")?;
    fault::point("controller.offer.committed");
    metrics::histogram!("opsc_dispatch_seconds").record(begun.elapsed().as_secs_f64());
    metrics::counter!("opsc_attempts_offered_total").increment(offers.len() as u64);
    refused.announce(app);
    unfilled.announce(app);

    let touched: BTreeSet<ExecutionId> = offers.iter().map(|offer| ExecutionId(offer.execution_id)).collect();
    app.live.nudge(touched);
    let mut unsent = Vec::new();
    for (offer, planned) in offers.iter().zip(&plan.good) {
        let session = by_agent[&offer.agent_id];
        if !send(app, session, offer, planned, now) {
            unsent.push((session, offer));
        }
        fault::point("controller.order.sent");
    }
    withdraw(app, unsent).await;
    // Who got a round's worth may have more.
    let mut offered: HashMap<Uuid, i64> = HashMap::new();
    for offer in &offers {
        *offered.entry(offer.agent_id).or_default() += 1;
    }
    let more: Vec<AgentId> =
        offered.into_iter().filter(|(_, runs)| *runs >= RUNS).map(|(id, _)| AgentId(id)).collect();
    if !more.is_empty() {
        app.wake.dispatch(more);
    }
    Ok(())
}

/// A run that its execution's manifest covers, and that may be tried now.
struct Planned {
    run: Queued,
    verified: Arc<Verified>,
    /// Its command, where that was filled in for the host.
    filled: Option<Command>,
    this: Try,
}

impl Planned {
    fn command(&self) -> &Command {
        let signed = || self.verified.command_of(RunId(self.run.id)).expect("it is covered: it was judged");
        self.filled.as_ref().unwrap_or_else(signed)
    }
}

/// What becomes of the runs that were taken from the queues.
#[derive(Default)]
struct Plan {
    good: Vec<Planned>,
    /// With what speaks against each.
    bad: Vec<(Queued, String)>,
    /// Whose templates cannot be filled in: their hosts have changed since it was their turn.
    unfilled: Vec<Queued>,
}

/// Compares the runs with what was signed and with what became of their earlier attempts.
async fn plan(app: &App, connection: &mut PgConnection, queued: Vec<Queued>, now: Timestamp) -> Result<Plan> {
    let executions = queued.iter().map(|run| ExecutionId(run.execution_id));
    let authorised = manifest::authorised(app, connection, executions).await?;
    let before = queued.iter().filter(|run| run.attempt > 0);
    let (executions, runs): (Vec<Uuid>, Vec<Uuid>) = before.map(|run| (run.execution_id, run.id)).unzip();
    let mut tried: HashMap<RunId, Vec<Tried>> = HashMap::new();
    if !runs.is_empty() {
        for (run, attempt) in store::attempts::tried(connection, &executions, &runs).await? {
            tried.entry(run).or_default().push(attempt);
        }
    }
    let gated = authorised.iter().filter_map(|(id, verified)| {
        let verified = verified.as_ref().ok()?.as_ref();
        let asks = verified.plan()?.steps.iter().any(|step| matches!(step.work, StepWork::Approval(_)));
        asks.then_some((*id, verified))
    });
    let decisions = approvals::decisions(app, connection, gated).await?;
    let mut plan = Plan::default();
    for run in queued {
        let verdict = match authorised.get(&ExecutionId(run.execution_id)) {
            None => Err("there is no such execution".to_owned()),
            Some(Err(mismatch)) => Err(mismatch.to_string()),
            Some(Ok(verified)) => {
                let tried = tried.get(&RunId(run.id)).map_or(&[][..], Vec::as_slice);
                let made = decisions.get(&ExecutionId(run.execution_id));
                judge(&run, verified, tried, made, now)
                    .map(|this| (Arc::clone(verified), this))
                    .map_err(str::to_owned)
            }
        };
        match verdict {
            Ok((verified, this)) => plan.good.push(Planned { run, verified, filled: None, this }),
            Err(why) => plan.bad.push((run, why)),
        }
    }
    fill(connection, &mut plan).await?;
    Ok(plan)
}

/// Fills in the commands that are templates.
async fn fill(connection: &mut PgConnection, plan: &mut Plan) -> Result<()> {
    let is_template = |planned: &Planned| {
        let Work::Plan(plan) = &planned.verified.work else { return false };
        let step = planned.verified.place(RunId(planned.run.id)).and_then(|place| plan.steps.get(place));
        step.is_some_and(|step| step.template)
    };
    let hosts: Vec<Uuid> =
        plan.good.iter().filter(|one| is_template(one)).map(|one| one.run.agent_id).collect();
    if hosts.is_empty() {
        return Ok(());
    }
    let steps = results(connection, plan.good.iter().filter(|one| is_template(one))).await?;
    let hosts = store::agents::described(connection, &hosts).await?;
    for mut planned in std::mem::take(&mut plan.good) {
        if is_template(&planned)
            && let Work::Plan(work) = &planned.verified.work
        {
            let host = hosts.get(&AgentId(planned.run.agent_id)).cloned().unwrap_or_default();
            let (execution, agent) = (ExecutionId(planned.run.execution_id), AgentId(planned.run.agent_id));
            let mut context = planned.verified.context(execution, host);
            for of in [NO_AGENT, agent] {
                let ended = steps.get(&(execution, of)).into_iter().flatten();
                let named = ended
                    .filter_map(|(place, ended)| Some((work.steps.get(*place)?.name.clone(), ended.clone())));
                context.steps.extend(named);
            }
            let place = planned.verified.place(RunId(planned.run.id)).unwrap_or(usize::MAX);
            match work.filled(place, &context) {
                Ok(filled) => planned.filled = filled,
                Err(invalid) => {
                    tracing::warn!(run.id = %planned.run.id, error = %invalid, "a template cannot be filled in");
                    plan.unfilled.push(planned.run);
                    continue;
                }
            }
        }
        plan.good.push(planned);
    }
    Ok(())
}

/// How the steps before these runs ended, on their hosts and at the controller.
async fn results<'a>(
    connection: &mut PgConnection,
    planned: impl Iterator<Item = &'a Planned> + Send,
) -> Result<HashMap<(ExecutionId, AgentId), Vec<(usize, StepResult)>>> {
    let keys: BTreeSet<(Uuid, Uuid)> = planned
        .flat_map(|one| [one.run.agent_id, NO_AGENT.0].map(|agent| (one.run.execution_id, agent)))
        .collect();
    let (executions, agents): (Vec<Uuid>, Vec<Uuid>) = keys.into_iter().unzip();
    let mut results: HashMap<_, Vec<_>> = HashMap::new();
    for (execution, agent, place, ended) in store::progress::ended(connection, &executions, &agents).await? {
        results.entry((execution, agent)).or_default().push((place, ended));
    }
    Ok(results)
}

/// May this run be tried now? Its row alone decides nothing.
fn judge(
    run: &Queued,
    verified: &Verified,
    tried: &[Tried],
    decisions: Option<&Decisions>,
    now: Timestamp,
) -> std::result::Result<Try, &'static str> {
    let Some(command) = verified.command(RunId(run.id), AgentId(run.agent_id)) else {
        return Err("the manifest does not name this run on this agent");
    };
    if let Some(place) = verified.place(RunId(run.id))
        && !approvals::is_let_through((ExecutionId(run.execution_id), verified), place, decisions)
    {
        return Err("an approval that it needs was not given");
    }
    let newest = tried.iter().map(|attempt| attempt.number).max().unwrap_or(0);
    if run.is_behind || newest != run.attempt {
        return Err("the number of its newest attempt is not that of its attempts");
    }
    match retry::next(command, tried) {
        Next::First if now >= verified.start_by => Err("the time in which it was to start is over"),
        Next::First => Ok(Try { is_first: true, superseded: None, begun: begun(tried) }),
        Next::Again { superseded, .. } => Ok(Try { is_first: false, superseded, begun: begun(tried) }),
        Next::Over(why) => Err(why),
    }
}

/// The attempts that may have begun on their host.
fn begun(tried: &[Tried]) -> Vec<u32> {
    let begun = tried.iter().filter(|one| matches!(one.state, AttemptState::Finished | AttemptState::Lost));
    begun.filter_map(|one| u32::try_from(one.number).ok()).collect()
}

/// Ends runs that nobody authorised, and says so in the audit.
async fn refuse(
    connection: &mut PgConnection,
    bad: &[(Queued, String)],
    now: Timestamp,
) -> Result<runs::Settled> {
    if bad.is_empty() {
        return Ok(runs::Settled::default());
    }
    let entries = bad.iter().map(|(run, why)| {
        tracing::error!(run.id = %run.id, execution.id = %run.execution_id, why, "a run that nobody authorised was refused");
        let detail = json!({ "execution_id": run.execution_id, "agent_id": run.agent_id, "why": why });
        let entry = audit::Entry {
            outcome: "refused",
            ..audit::Entry::new("controller", "run.manifest_mismatch", format!("run/{}", run.id), detail)
        };
        (OrgId(run.org_id), entry)
    });
    audit::record_all(connection, now, entries.collect()).await?;
    let waiting: Vec<Waiting> = bad.iter().map(|(run, _)| waiting(run)).collect();
    runs::end_waiting(connection, &waiting, runs::Why::Unauthorised, now).await
}

/// A run that was taken from its queue and is not offered; what became of its tries does not matter.
fn waiting(run: &Queued) -> Waiting {
    Waiting {
        execution_id: run.execution_id,
        id: run.id,
        state: RunState::Queued.as_str().to_owned(),
        generation: run.generation,
        tried_state: None,
        tried_reason: None,
        tried_exit_code: None,
        tried_signal: None,
    }
}

/// Signs the order and puts it on the agent's stream; `false` when that has no room or is gone.
fn send(app: &App, session: &Connected, offer: &Offer, planned: &Planned, now: Timestamp) -> bool {
    let (execution, run) = (ExecutionId(offer.execution_id), RunId(offer.run_id));
    let key = (execution, run, offer.number);
    match orders::sign(app, session, key, (&planned.verified, planned.command()), &planned.this, now) {
        Ok(envelope) => {
            let frame = proto::controller_frame::Frame::Order(envelope);
            fault::point("controller.order.signed");
            session.outbound.try_send(proto::ControllerFrame { frame: Some(frame) }).is_ok()
        }
        Err(error) => {
            tracing::error!(run.id = %run, %error, "an order cannot be made");
            false
        }
    }
}

/// Takes back the offers whose orders were never sent. They are recorded with the reports of agents; where that fails the
/// session ends, and the next one takes the offer back.
async fn withdraw(app: &App, unsent: Vec<(&Arc<Connected>, &Offer)>) {
    if unsent.is_empty() {
        return;
    }
    let mut recorded = Vec::with_capacity(unsent.len());
    for (session, offer) in unsent {
        let key = (ExecutionId(offer.execution_id), RunId(offer.run_id), offer.number);
        let report = runs::Report { key, agent_id: AgentId(offer.agent_id), happening: Happening::Withdrawn };
        recorded.push((Arc::clone(session), app.reports.put(report).await));
    }
    tokio::spawn(async move {
        for (session, answer) in recorded {
            let is_recorded = match answer {
                Some(answer) => answer.await.is_ok(),
                None => false,
            };
            if !is_recorded {
                session.end.cancel();
            }
        }
    });
}
