//! The steps of the controller's own: how they begin, and how they end.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use jiff::{SignedDuration, Timestamp};
use model::{
    Invalid, Reason,
    api::approval::Decision,
    id::{ExecutionId, RunId},
    job::{
        Choice, Work as StepWork, condition,
        context::Context,
        outputs::Outputs,
        progress::{self, Gathered, HostState, Move, Standing, Why},
    },
    run::{RunEvent, RunOutcome, RunState},
};
use serde_json::json;
use sqlx::PgConnection;

use super::Going;
use crate::{
    app::{
        App,
        approvals::{self, Decisions},
        gathered, started,
    },
    error::{Error, Result},
    store::{
        self,
        http_calls::Standing as CallStanding,
        progress::{Ask, Host, NO_AGENT, StepRun},
    },
};

/// When it is looked again at what others do, should nobody tell that it has ended.
const LOOK_ANYWAY: SignedDuration = SignedDuration::from_mins(1);

/// The runs of the controller's own steps.
pub(super) async fn runs(connection: &mut PgConnection, id: ExecutionId) -> Result<BTreeMap<usize, StepRun>> {
    let runs = store::progress::runs(connection, id, &[NO_AGENT.0]).await?;
    Ok(runs.into_iter().map(|run| (run.step, run)).collect())
}

/// How a step of the controller's own has ended.
struct End {
    event: RunEvent,
    reason: Reason,
    detail: String,
    /// What it tells, where that was not known yet.
    told: Option<Outputs>,
}

impl End {
    fn of(outcome: RunOutcome, reason: Reason) -> Self {
        Self { event: RunEvent::Ended(outcome), reason, detail: String::new(), told: None }
    }
}

/// Who ended an approval by a word of his own, and why.
fn said(made: &[Decision], reason: Reason) -> String {
    let (choice, did) = match reason {
        Reason::Rejected => (Choice::Reject, "rejected it"),
        Reason::BrokenGlass => (Choice::BreakGlass, "broke the glass"),
        _ => return String::new(),
    };
    let of = made.iter().find(|made| made.decision == choice);
    of.map_or_else(String::new, |made| {
        format!("{} {did}: {}", made.actor, made.reason.as_deref().unwrap_or_default())
    })
}

/// What is known of what the controller's own steps wait for.
#[derive(Default)]
struct Known {
    decisions: Decisions,
    calls: HashMap<RunId, CallStanding>,
    started: HashMap<RunId, (ExecutionId, model::execution::ExecutionState)>,
}

impl Going<'_> {
    /// Ends the controller's own runs that are done, whose time is over, or that are to be cancelled. What is stopped asks
    /// nobody any more, and what it has started is stopped with it.
    ///
    /// # Errors
    /// When the database does not answer.
    pub(super) async fn end_own(
        &mut self,
        app: &App,
        connection: &mut PgConnection,
        is_cancelled: bool,
        standing: Standing,
    ) -> Result<()> {
        let active: Vec<StepRun> =
            self.own.values().filter(|run| run.state == RunState::Active).copied().collect();
        if active.is_empty() {
            return Ok(());
        }
        let known = self.known(app, connection, &active).await?;
        for run in active {
            let Some(end) = self.end_of(connection, &run, &known, is_cancelled, standing).await? else {
                continue;
            };
            if let Some(told) = end.told {
                self.told.insert((NO_AGENT, run.step), told);
            }
            if known.calls.contains_key(&run.id) {
                store::http_calls::remove(connection, self.id, run.id).await?;
            }
            self.change(&run, end.event, Some((end.reason, &end.detail)));
        }
        Ok(())
    }

    /// Reads what the steps at work wait for, each kind only where one of them does.
    async fn known(&self, app: &App, connection: &mut PgConnection, active: &[StepRun]) -> Result<Known> {
        let is_there =
            |of: fn(&StepWork) -> bool| active.iter().any(|run| of(&self.plan.steps[run.step].work));
        let mut known = Known::default();
        if is_there(|work| matches!(work, StepWork::Approval(_))) {
            let mut made = approvals::decisions(app, connection, [(self.id, self.verified)]).await?;
            known.decisions = made.remove(&self.id).unwrap_or_default();
        }
        if is_there(|work| matches!(work, StepWork::Http(_))) {
            known.calls = store::http_calls::of_execution(connection, self.id).await?.into_iter().collect();
        }
        if is_there(|work| matches!(work, StepWork::Job(_))) {
            let all = store::executions::started_by(connection, self.id).await?;
            known.started =
                all.into_iter().map(|(run, execution, state)| (run, (execution, state))).collect();
        }
        Ok(known)
    }

    /// How a step at work has ended, if it has.
    async fn end_of(
        &mut self,
        connection: &mut PgConnection,
        run: &StepRun,
        known: &Known,
        is_cancelled: bool,
        Standing { is_stopped, is_aborted, .. }: Standing,
    ) -> Result<Option<End>> {
        let plan = self.plan;
        let is_always = plan.steps[run.step].always;
        let is_over = self.wait_ends(run).is_some_and(|ends| self.now >= ends);
        let cancelled = || {
            if is_cancelled {
                End::of(RunOutcome::Cancelled, Reason::Cancelled)
            } else {
                let end = End::of(RunOutcome::Cancelled, Reason::RolloutStopped);
                End { detail: "the rollout was aborted".to_owned(), ..end }
            }
        };
        // Nobody is waited for any more.
        let is_left = is_cancelled || is_aborted;
        Ok(match &plan.steps[run.step].work {
            StepWork::Wait(_) if is_left => Some(cancelled()),
            StepWork::Wait(_) => is_over.then(|| End::of(RunOutcome::Succeeded, Reason::Done)),
            StepWork::Approval(approval) => {
                let made = known.decisions.get(&run.step).map_or(&[][..], Vec::as_slice);
                let verdict = approval.verdict(made);
                // What people said with their approvals; of several who said the same, the last.
                let told =
                    verdict.is_some().then(|| made.iter().flat_map(|made| made.input.clone()).collect());
                let end = match verdict {
                    _ if is_left => Some(cancelled()),
                    Some((outcome, reason)) => {
                        Some(End { detail: said(made, reason), ..End::of(outcome, reason) })
                    }
                    None => is_over.then(|| End::of(RunOutcome::TimedOut, Reason::ApprovalExpired)),
                };
                end.map(|end| End { told, ..end })
            }
            StepWork::Http(_) => match known.calls.get(&run.id) {
                Some(CallStanding::Ended(answer)) => Some(End {
                    event: match answer.state {
                        RunState::Succeeded => RunEvent::Ended(RunOutcome::Succeeded),
                        RunState::TimedOut => RunEvent::Ended(RunOutcome::TimedOut),
                        RunState::Unknown => RunEvent::Lost,
                        _ => RunEvent::Ended(RunOutcome::Failed),
                    },
                    reason: answer.reason,
                    detail: answer.detail.clone(),
                    told: Some(answer.outputs.clone()),
                }),
                // What is under way nobody can take back: it ends as it ends.
                Some(CallStanding::Waiting)
                    if (is_cancelled || is_stopped && !is_always)
                        && store::http_calls::take_back(connection, self.id, run.id).await? =>
                {
                    let reason = if is_cancelled { Reason::Cancelled } else { Reason::RolloutStopped };
                    Some(End::of(RunOutcome::Cancelled, reason))
                }
                Some(CallStanding::Waiting | CallStanding::Sent) => None,
                None => Some(End {
                    event: RunEvent::Lost,
                    reason: Reason::AnswerLost,
                    detail: "nothing is known of its request".to_owned(),
                    told: None,
                }),
            },
            StepWork::Job(_) => match known.started.get(&run.id) {
                Some((execution, state)) => {
                    let end = started::end(*state);
                    if end.is_none() && is_cancelled {
                        self.cancel_started.insert(*execution);
                    } else if end.is_none() && is_stopped && !is_always {
                        let ask = if is_aborted { Ask::Abort } else { Ask::Stop };
                        self.stop_started.insert(*execution, ask);
                    }
                    end.map(|event| End {
                        event,
                        reason: match event {
                            RunEvent::Ended(RunOutcome::Succeeded) => Reason::Done,
                            RunEvent::Ended(RunOutcome::Cancelled) => Reason::Cancelled,
                            _ => Reason::JobFailed,
                        },
                        detail: format!("the execution {execution} is {}", state.as_str()),
                        told: Some(Outputs::from_iter([
                            ("execution_id".to_owned(), json!(execution)),
                            ("state".to_owned(), json!(state.as_str())),
                        ])),
                    })
                }
                None => Some(End {
                    event: RunEvent::Lost,
                    reason: Reason::JobFailed,
                    detail: "nothing is known of the execution that it started".to_owned(),
                    told: None,
                }),
            },
            StepWork::Command(_) => None,
        })
    }

    /// When a step at work is over, whatever happens meanwhile.
    fn wait_ends(&self, run: &StepRun) -> Option<Timestamp> {
        match &self.plan.steps.get(run.step)?.work {
            StepWork::Wait(length) => run.started_at?.checked_add(length.duration()).ok(),
            StepWork::Approval(approval) => Some(approval.expires_at(run.started_at?)),
            _ => None,
        }
    }

    /// Its own runs for which others do something now: web servers, and other executions.
    pub(super) fn acting(&self) -> BTreeSet<RunId> {
        let active = self.own.values().filter(|run| run.state == RunState::Active && self.is_others(run));
        active.map(|run| run.id).collect()
    }

    fn is_others(&self, run: &StepRun) -> bool {
        self.plan.steps[run.step].work.is_of_others()
    }

    /// When somebody has to look at the controller's own steps again although nothing happens.
    pub(super) fn next_look_at_own(&self) -> impl Iterator<Item = Timestamp> {
        let active = self.own.values().filter(|run| run.state == RunState::Active);
        active.filter_map(|run| match self.plan.steps[run.step].work {
            StepWork::Job(_) | StepWork::Http(_) => self.now.checked_add(LOOK_ANYWAY).ok(),
            _ => self.wait_ends(run),
        })
    }

    /// Where it was stopped and no host is at work any more, nobody waits for what the controller does itself; what others do
    /// for it is seen to its end. (What was aborted has left all already that need not run.)
    pub(super) fn leave_own(&mut self, standing: Standing) {
        let at_work = |host: &Host| matches!(host.state, HostState::Waiting | HostState::Active);
        if !standing.is_stopped || standing.is_aborted || self.hosts.iter().any(at_work) {
            return;
        }
        let open: Vec<StepRun> = self.own.values().filter(|run| !run.state.is_terminal()).copied().collect();
        for run in open {
            if run.state == RunState::Blocked {
                self.skip(&run, Why::RolloutStopped);
            } else if !self.is_others(&run) {
                let why = (Reason::RolloutStopped, "the rollout was stopped");
                self.change(&run, RunEvent::Ended(RunOutcome::Cancelled), Some(why));
            }
        }
    }

    /// Begins the controller's own steps whose turn it is, or skips them.
    ///
    /// # Errors
    /// When the database does not answer.
    pub(super) async fn begin_own(
        &mut self,
        app: &App,
        connection: &mut PgConnection,
        standing: Standing,
        gathered: &[Gathered],
    ) -> Result<()> {
        // What looks at other steps looks at the tables, where what ended in this look does not stand yet.
        let is_late = self.changes.iter().any(|change| change.state.is_terminal());
        let mut later = BTreeSet::new();
        loop {
            let states = self.states(NO_AGENT);
            let blocked = |run: &&StepRun| run.state == RunState::Blocked && !later.contains(&run.step);
            let next = self.own.values().filter(blocked).find_map(|run| {
                Some((
                    *run,
                    progress::of_controller(self.plan, run.step, &states, gathered, standing.is_aborted)?,
                ))
            });
            let Some((run, step)) = next else { return Ok(()) };
            let planned = &self.plan.steps[run.step];
            let looks = planned.template || planned.condition.is_some();
            if step == Move::Begin && looks && is_late {
                later.insert(run.step);
                continue;
            }
            match step {
                Move::Begin => self.begin_one(app, connection, &run).await?,
                Move::Skip(why) => self.skip(&run, why),
                Move::Fail(why) => self.fail(&run, Reason::BadTemplate, &why),
            }
            if self.own.get(&run.step).is_some_and(|own| own.state == RunState::Blocked) {
                return Err(Error::internal("a step of the controller does not move", run.id.to_string()));
            }
        }
    }

    async fn begin_one(&mut self, app: &App, connection: &mut PgConnection, run: &StepRun) -> Result<()> {
        let plan = self.plan;
        let step = &plan.steps[run.step];
        let mut context = Ok(Context::default());
        if step.template || step.condition.is_some() {
            context = gathered::context(connection, (self.id, self.verified), run.step).await?;
        }
        let context = match context.and_then(|context| Ok((self.holds(run.step, &context)?, context))) {
            Ok((true, context)) => context,
            Ok((false, _)) => {
                self.skip(run, Why::ConditionFalse);
                return Ok(());
            }
            Err(invalid) => {
                self.fail(run, Reason::BadTemplate, &invalid.to_string());
                return Ok(());
            }
        };
        let acts = step.work.is_of_others();
        if acts && !approvals::is_open(app, connection, (self.id, self.verified), run.step).await? {
            self.fail(run, Reason::ManifestMismatch, "nobody has approved it");
            return Ok(());
        }
        match &step.work {
            StepWork::Http(_) => {
                store::http_calls::insert(connection, (self.id, self.verified.org_id), run.id, self.now)
                    .await?;
                self.is_calling = true;
            }
            StepWork::Job(job) => {
                let filled = job.filled(step.template, &context);
                let (Some(frozen), Ok(Some(plan))) = (&job.frozen, &filled) else {
                    let why = filled.err().map_or_else(
                        || "what it starts was not frozen".to_owned(),
                        |invalid| invalid.to_string(),
                    );
                    self.fail(run, Reason::BadTemplate, &why);
                    return Ok(());
                };
                let me = (self.id, self.verified);
                Box::pin(started::begin(app, connection, me, run.id, (frozen, plan.clone()), self.now))
                    .await?;
            }
            StepWork::Approval(_) => self.asked.push(run.step),
            StepWork::Wait(_) | StepWork::Command(_) => {}
        }
        self.change(run, RunEvent::Begun, None);
        Ok(())
    }

    fn holds(&self, place: usize, context: &Context) -> Result<bool, Invalid> {
        match &self.plan.steps[place].condition {
            Some(condition) => condition::evaluate("if", condition, context),
            None => Ok(true),
        }
    }
}
