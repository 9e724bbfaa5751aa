//! How executions with a plan go on: whose turn it is, what begins there, and what never will.
//!
//! Invariants: whoever moves an execution on holds its row of progress; what is decided comes from the signed plan and from
//! the states of the runs alone, so that whoever comes next after a crash decides the same; runs of a host move only once
//! its turn has come.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use jiff::Timestamp;
use model::{
    Reason,
    id::{AgentId, ExecutionId},
    job::{
        Order, Plan, Work as StepWork, condition,
        context::{self, StepResult},
        progress::{self, Gathered, HostState, Move, Standing, Why},
    },
    run::{self, RunEvent, RunOutcome, RunState},
};
use sqlx::PgConnection;
use uuid::Uuid;

use super::{
    App,
    manifest::{self, Verified},
    runs,
};
use crate::{
    clock,
    error::{During, Error, Result},
    store::{
        self,
        executions::Work,
        progress::{Due, Host, NO_AGENT, StepRun},
        runs::Change,
    },
};

/// Executions that one transaction moves on: what goes wrong with one, or waits for its rows, is nobody else's concern.
const EXECUTIONS: i64 = 1;

/// Moves on what is due; answers how many executions that were.
///
/// # Errors
/// When the database does not answer: nothing has moved, and the next round does it.
pub(crate) async fn advance_next(app: &App) -> Result<usize> {
    let now = clock::now();
    let mut tx = app.db.worker().begin().await.during("begin")?;
    let due = store::progress::lock_due(&mut tx, now, EXECUTIONS).await?;
    if due.is_empty() {
        tx.rollback().await.during("rollback")?;
        return Ok(0);
    }
    let count = due.len();
    let ids: Vec<Uuid> = due.iter().map(|due| due.execution_id.0).collect();
    let cancelled = store::executions::cancelled(&mut tx, &ids).await?;
    let authorised = manifest::authorised(app, &mut tx, due.iter().map(|due| due.execution_id)).await?;
    let mut moved = Moved::default();
    for mut due in due {
        let id = due.execution_id;
        // As it is now that its row is locked.
        due.cancel_requested |= cancelled.contains(&id);
        match authorised.get(&id) {
            Some(Ok(verified)) => advance(&mut tx, due, verified, now, &mut moved).await?,
            // The dispatcher refuses its runs; those that are blocked end with it.
            other => {
                let why = match other {
                    Some(Err(mismatch)) => mismatch.to_string(),
                    _ => "there is no such execution".to_owned(),
                };
                tracing::error!(execution.id = %id, why, "an execution that nobody authorised does not go on");
                refuse(&mut tx, &due, now, &mut moved).await?;
            }
        }
    }
    fault::point("controller.advance.written");
    tx.commit().await.during("commit")?;
    fault::point("controller.advance.committed");
    app.live.nudge(moved.executions);
    if !moved.queued.is_empty() {
        app.wake.dispatch(moved.queued);
    }
    app.wake.others.notify_one();
    Ok(count)
}

/// What a transaction has moved, to be told after its commit.
#[derive(Debug, Default)]
struct Moved {
    executions: BTreeSet<ExecutionId>,
    queued: BTreeSet<AgentId>,
}

/// One execution while it is moved on.
struct Going<'a> {
    id: ExecutionId,
    plan: &'a Plan,
    verified: &'a Verified,
    now: Timestamp,
    /// What templates and conditions see of the hosts; empty where there are none.
    described: HashMap<AgentId, context::Host>,
    /// The controller's own runs, by the places of their steps.
    own: BTreeMap<usize, StepRun>,
    /// The runs of hosts that were looked at.
    hosts: BTreeMap<AgentId, Vec<StepRun>>,
    /// What becomes of runs, by their ids.
    changes: Vec<Change>,
    moves: Vec<(ExecutionId, RunState, RunState)>,
    queued: BTreeSet<AgentId>,
}

async fn advance(
    connection: &mut PgConnection,
    due: Due,
    verified: &Arc<Verified>,
    now: Timestamp,
    moved: &mut Moved,
) -> Result<()> {
    let id = due.execution_id;
    let Work::Plan(plan) = &verified.work else {
        store::progress::take_changed(connection, id).await?;
        return store::progress::set(connection, id, due.standing, None, now).await;
    };
    if now >= verified.start_by {
        return expire(connection, &due, now, moved).await;
    }
    let mut changed = store::progress::take_changed(connection, id).await?;
    let mut going = Going {
        id,
        plan,
        verified,
        now,
        described: HashMap::new(),
        own: BTreeMap::new(),
        hosts: BTreeMap::new(),
        changes: Vec::new(),
        moves: Vec::new(),
        queued: BTreeSet::new(),
    };
    let mut hosts = store::progress::hosts(connection, id).await?;
    going.own = own(connection, id).await?;
    going.end_own(due.cancel_requested);
    // Whatever waits for all hosts, or for the controller, may go on with any of them.
    let is_joint = plan.order == Order::Step || !going.own.is_empty();
    changed.retain(|agent| *agent != NO_AGENT);
    going.load(connection, &changed).await?;
    let mut states: Vec<(AgentId, HostState)> = going.host_states(&hosts);
    apply_states(&mut hosts, &states);

    let mut standing = due.standing;
    if !due.is_paused && !due.cancel_requested {
        let seen: Vec<progress::Host> =
            hosts.iter().map(|host| progress::Host { batch: host.batch, state: host.state }).collect();
        let turn = progress::turn(plan, standing, &seen, now);
        standing = turn.standing;
        let begin: Vec<AgentId> = turn.begin.iter().map(|place| hosts[*place].agent_id).collect();
        let skip: Vec<AgentId> = turn.skip.iter().map(|place| hosts[*place].agent_id).collect();
        going.load(connection, &begin).await?;
        going.load(connection, &skip).await?;
        for agent in &skip {
            going.skip_host(*agent);
        }
        let mut skip = skip;
        if standing.is_stopped {
            let active: Vec<AgentId> = hosts
                .iter()
                .filter(|host| host.state == HostState::Active)
                .map(|host| host.agent_id)
                .collect();
            // Whoever offers them at this moment is done first.
            store::runs::lock_queued(connection, id).await?;
            going.load(connection, &active).await?;
            let early: Vec<AgentId> =
                active.into_iter().filter(|agent| going.has_not_begun(*agent)).collect();
            for agent in &early {
                going.skip_host(*agent);
            }
            skip.extend(early);
        }
        let begun: Vec<(AgentId, HostState)> =
            begin.iter().map(|agent| (*agent, HostState::Active)).collect();
        let skipped: Vec<(AgentId, HostState)> =
            skip.iter().map(|agent| (*agent, HostState::Skipped)).collect();
        apply_states(&mut hosts, &begun);
        apply_states(&mut hosts, &skipped);
        states.extend(begun);
        states.extend(skipped);

        let mut gathered = vec![Gathered::default(); plan.steps.len()];
        if is_joint {
            gathered = store::progress::gathered(connection, id, plan.steps.len()).await?;
            going.correct(&mut gathered);
        }
        going.begin_own(&gathered)?;
        if is_joint && going.is_somebody_next(&gathered) {
            let active =
                hosts.iter().filter(|host| host.state == HostState::Active).map(|host| host.agent_id);
            going.load(connection, &active.collect::<Vec<_>>()).await?;
        }
        let on_turn: BTreeSet<AgentId> =
            hosts.iter().filter(|host| host.state == HostState::Active).map(|host| host.agent_id).collect();
        let looked: Vec<AgentId> =
            going.hosts.keys().copied().filter(|agent| on_turn.contains(agent)).collect();
        for agent in looked {
            going.move_host(agent, &gathered)?;
        }
        let ended = going.host_states(&hosts);
        apply_states(&mut hosts, &ended);
        states.extend(ended);
    }

    let again = going.finish_look(&hosts, due.is_paused || due.cancel_requested);
    let Going { changes, moves, queued, own, .. } = going;
    store::runs::change_untold(connection, &changes).await?;
    let last: BTreeMap<AgentId, HostState> = states.into_iter().collect();
    store::progress::set_hosts(connection, id, &last.into_iter().collect::<Vec<_>>()).await?;
    let is_held = due.is_paused || due.cancel_requested;
    let wake_at = if again {
        Some(now)
    } else {
        // The end of a pause that nobody may act on is no reason to look: whoever lets it go on wakes it.
        let pause = standing.pause_until.filter(|_| !is_held);
        next_look(plan, &own, pause, verified.start_by, &hosts)
    };
    store::progress::set(connection, id, standing, wake_at, now).await?;
    runs::move_counts(connection, &moves, now).await?;
    if !moves.is_empty() {
        moved.executions.insert(id);
    }
    moved.queued.extend(queued);
    Ok(())
}

/// The runs of the controller's own steps.
async fn own(connection: &mut PgConnection, id: ExecutionId) -> Result<BTreeMap<usize, StepRun>> {
    let runs = store::progress::runs(connection, id, &[NO_AGENT.0]).await?;
    Ok(runs.into_iter().map(|run| (run.step, run)).collect())
}

fn apply_states(hosts: &mut [Host], states: &[(AgentId, HostState)]) {
    let states: BTreeMap<AgentId, HostState> = states.iter().copied().collect();
    for host in hosts {
        if let Some(state) = states.get(&host.agent_id) {
            host.state = *state;
        }
    }
}

/// When somebody has to look again although nothing happens: the end of a wait or of a pause, and at last the time by which
/// all must have begun. Never, once all has ended.
fn next_look(
    plan: &Plan,
    own: &BTreeMap<usize, StepRun>,
    pause_until: Option<Timestamp>,
    start_by: Timestamp,
    hosts: &[Host],
) -> Option<Timestamp> {
    let open_own = own.values().any(|run| !run.state.is_terminal());
    let open_hosts = hosts.iter().any(|host| matches!(host.state, HostState::Waiting | HostState::Active));
    if !open_own && !open_hosts {
        return None;
    }
    let waits =
        own.values().filter(|run| run.state == RunState::Active).filter_map(|run| wait_ends(plan, run));
    Some(waits.chain(pause_until).fold(start_by, Timestamp::min))
}

fn wait_ends(plan: &Plan, run: &StepRun) -> Option<Timestamp> {
    match plan.steps.get(run.step)?.work {
        StepWork::Wait(length) => run.started_at?.checked_add(length.duration()).ok(),
        StepWork::Command(_) => None,
    }
}

impl Going<'_> {
    /// Reads the runs of these hosts that were not read yet.
    async fn load(&mut self, connection: &mut PgConnection, agents: &[AgentId]) -> Result<()> {
        let missing: Vec<Uuid> =
            agents.iter().filter(|agent| !self.hosts.contains_key(agent)).map(|agent| agent.0).collect();
        if missing.is_empty() {
            return Ok(());
        }
        if self.plan.looks_at_hosts() {
            self.described.extend(store::agents::described(connection, &missing).await?);
        }
        for run in store::progress::runs(connection, self.id, &missing).await? {
            self.hosts.entry(run.agent_id).or_default().push(run);
        }
        Ok(())
    }

    /// The states of all steps as a host sees them; a step that it has no run of is none of its concern.
    fn states(&self, agent: AgentId) -> Vec<RunState> {
        let mut states = vec![RunState::Skipped; self.plan.steps.len()];
        let of_host = self.hosts.get(&agent).into_iter().flatten();
        for run in of_host.chain(self.own.values()) {
            if let Some(state) = states.get_mut(run.step) {
                *state = run.state;
            }
        }
        states
    }

    /// How the hosts stand whose runs were read and whose turn has come, where that is new.
    fn host_states(&self, hosts: &[Host]) -> Vec<(AgentId, HostState)> {
        let looked = hosts.iter().filter(|host| self.hosts.contains_key(&host.agent_id));
        looked
            .filter_map(|host| {
                let now = progress::host_state(self.plan, &self.states(host.agent_id));
                let state = match (host.state, now) {
                    (HostState::Active, now) => now,
                    // Its runs were cancelled before its turn.
                    (HostState::Waiting, HostState::Succeeded | HostState::Failed) => HostState::Skipped,
                    (before, _) => before,
                };
                (state != host.state).then_some((host.agent_id, state))
            })
            .collect()
    }

    /// Ends the controller's own runs whose time is over, or that are to be cancelled.
    fn end_own(&mut self, is_cancelled: bool) {
        let mut ended = Vec::new();
        for run in self.own.values().filter(|run| run.state == RunState::Active) {
            let is_over = wait_ends(self.plan, run).is_none_or(|ends| self.now >= ends);
            if is_cancelled {
                ended.push((*run, RunOutcome::Cancelled, Reason::Cancelled));
            } else if is_over {
                ended.push((*run, RunOutcome::Succeeded, Reason::Done));
            }
        }
        for (run, outcome, reason) in &ended {
            self.change(run, RunEvent::Ended(*outcome), Some((*reason, "")));
        }
    }

    /// Begins the controller's own steps whose turn it is, or skips them.
    fn begin_own(&mut self, gathered: &[Gathered]) -> Result<()> {
        loop {
            let states = self.states(NO_AGENT);
            let next = self.own.values().filter(|run| run.state == RunState::Blocked).find_map(|run| {
                Some((*run, progress::of_controller(self.plan, run.step, &states, gathered)?))
            });
            let Some((run, step)) = next else { return Ok(()) };
            let step = if step == Move::Begin { self.may_begin(NO_AGENT, run.step, &states) } else { step };
            match step {
                Move::Begin => self.change(&run, RunEvent::Begun, None),
                Move::Skip(why) => self.skip(&run, why),
                Move::Fail(why) => self.fail(&run, &why),
            }
            if self.own.get(&run.step).is_some_and(|own| own.state == RunState::Blocked) {
                return Err(Error::internal("a step of the controller does not move", run.id.to_string()));
            }
        }
    }

    /// Whether there is a step that all hosts, or the controller, have cleared the way for, and that has not begun everywhere.
    fn is_somebody_next(&self, gathered: &[Gathered]) -> bool {
        let is_clear = |needed: &usize| match self.own.get(needed) {
            Some(own) => own.state.is_terminal(),
            None => gathered[*needed].open == 0,
        };
        let by_step = self.plan.order == Order::Step;
        self.plan.steps.iter().enumerate().any(|(place, step)| {
            let is_joint = by_step || step.needs.iter().any(|needed| self.own.contains_key(needed));
            is_joint && gathered[place].blocked > 0 && step.needs.iter().all(is_clear)
        })
    }

    /// What follows on a host whose turn has come.
    fn move_host(&mut self, agent: AgentId, gathered: &[Gathered]) -> Result<()> {
        let mut states = self.states(agent);
        let runs = self.hosts.get(&agent).cloned().unwrap_or_default();
        let moves = progress::on_host(self.plan, &mut states, gathered, |place, states| {
            self.may_begin(agent, place, states)
        });
        for (place, step) in moves {
            let Some(run) = runs.iter().find(|run| run.step == place) else {
                return Err(Error::internal("a host has no run of a step", agent.to_string()));
            };
            match step {
                Move::Begin => {
                    self.change(run, RunEvent::Unblocked, None);
                    self.queued.insert(agent);
                }
                Move::Skip(why) => self.skip(run, why),
                Move::Fail(why) => self.fail(run, &why),
            }
        }
        Ok(())
    }

    /// Whether a step whose turn it is may begin on the host: its condition holds, and its command can be filled in.
    fn may_begin(&self, agent: AgentId, place: usize, states: &[RunState]) -> Move {
        let step = &self.plan.steps[place];
        if !step.template && step.condition.is_none() {
            return Move::Begin;
        }
        let host = self.described.get(&agent).cloned().unwrap_or_default();
        let mut context = self.verified.context(self.id, host);
        if step.template
            && let Err(invalid) = self.plan.filled(place, &context)
        {
            return Move::Fail(invalid.to_string());
        }
        let Some(condition) = &step.condition else { return Move::Begin };
        let exit_code = |place: usize| {
            let mut runs = self.hosts.get(&agent).into_iter().flatten().chain(self.own.values());
            runs.find(|run| run.step == place)?.exit_code
        };
        context.steps = self
            .plan
            .steps
            .iter()
            .enumerate()
            .filter(|(place, _)| states[*place].is_terminal())
            .map(|(place, step)| {
                let state = states[place].as_str().to_owned();
                let result = StepResult { state, exit_code: exit_code(place), ..StepResult::default() };
                (step.name.clone(), result)
            })
            .collect();
        match condition::evaluate("if", condition, &context) {
            Ok(true) => Move::Begin,
            Ok(false) => Move::Skip(Why::ConditionFalse),
            Err(invalid) => Move::Fail(invalid.to_string()),
        }
    }

    fn fail(&mut self, run: &StepRun, why: &str) {
        self.change(run, RunEvent::Ended(RunOutcome::Failed), Some((Reason::BadTemplate, why)));
    }

    /// Whether nothing was started on a host whose turn has come: all waits for it, as where it is away.
    fn has_not_begun(&self, agent: AgentId) -> bool {
        self.hosts.get(&agent).is_some_and(|runs| {
            runs.iter().all(|run| match run.state {
                RunState::Blocked | RunState::Skipped => true,
                RunState::Queued => !run.is_tried,
                _ => false,
            })
        })
    }

    /// Nothing begins on the host any more.
    fn skip_host(&mut self, agent: AgentId) {
        let runs = self.hosts.get(&agent).cloned().unwrap_or_default();
        for run in runs.iter().filter(|run| matches!(run.state, RunState::Blocked | RunState::Queued)) {
            self.skip(run, Why::RolloutStopped);
        }
    }

    fn skip(&mut self, run: &StepRun, why: Why) {
        let (reason, detail) = match why {
            Why::HostStopped => (Reason::HostStopped, "a step before it failed on this host"),
            Why::NothingToUndo => (Reason::NothingToUndo, "nothing has to be undone on this host"),
            Why::ConditionFalse => (Reason::ConditionFalse, "its condition does not hold on this host"),
            Why::NoHostLeft => (Reason::NoHostLeft, "what it needs went well on no host"),
            Why::RolloutStopped => {
                (Reason::RolloutStopped, "the rollout was stopped before this host's turn")
            }
        };
        self.change(run, RunEvent::Skipped, Some((reason, detail)));
    }

    /// Moves a run, in memory and among the changes. An event that its state does not allow changes nothing.
    fn change(&mut self, run: &StepRun, event: RunEvent, why: Option<(Reason, &str)>) {
        let Ok(state) = run::next(run.state, event) else { return };
        let is_queued = state == RunState::Queued;
        let start_before = self.now.checked_add(self.plan.start_within.duration()).unwrap_or(Timestamp::MAX);
        let start_before = start_before.min(self.verified.start_by);
        self.moves.push((self.id, run.state, state));
        self.changes.push(Change {
            execution_id: self.id,
            id: run.id,
            generation: run.generation,
            state,
            due_at: is_queued.then_some(self.now),
            start_before: is_queued.then_some(start_before),
            started_at: (state == RunState::Active).then_some(self.now),
            ended_at: state.is_terminal().then_some(self.now),
            reason: why.map(|(reason, _)| reason),
            detail: why.map(|(_, detail)| detail.to_owned()).filter(|detail| !detail.is_empty()),
            exit_code: None,
            signal: None,
        });
        let moved = |run: &mut StepRun| {
            run.state = state;
            run.generation += 1;
            if state == RunState::Active {
                run.started_at = Some(self.now);
            }
        };
        match self.own.get_mut(&run.step).filter(|own| own.id == run.id) {
            Some(own) => moved(own),
            None => {
                let of_host = self.hosts.get_mut(&run.agent_id);
                if let Some(run) = of_host.and_then(|runs| runs.iter_mut().find(|other| other.id == run.id)) {
                    moved(run);
                }
            }
        }
    }

    /// Counts what was ended here where the tables do not know it yet.
    fn correct(&self, gathered: &mut [Gathered]) {
        for change in self.changes.iter().filter(|change| change.state.is_terminal()) {
            let mut all = self.hosts.values().flatten().chain(self.own.values());
            let Some(of) = all.find(|run| run.id == change.id).and_then(|run| gathered.get_mut(run.step))
            else {
                continue;
            };
            of.open = of.open.saturating_sub(1);
            match change.state {
                RunState::Succeeded => of.succeeded += 1,
                RunState::Skipped if change.reason == Some(Reason::ConditionFalse) => of.succeeded += 1,
                _ => of.others += 1,
            }
        }
    }

    /// Whether somebody has to look again at once: a host has ended here, and others may have their turn for it; or a run
    /// was skipped that others wait for.
    fn finish_look(&self, hosts: &[Host], is_held: bool) -> bool {
        let has_ended = self.changes.iter().any(|change| change.state.is_terminal());
        let is_open = hosts.iter().any(|host| matches!(host.state, HostState::Waiting | HostState::Active))
            || self.own.values().any(|run| !run.state.is_terminal());
        has_ended && is_open && !is_held
    }
}

/// All must have begun by now: what is still blocked never will.
async fn expire(connection: &mut PgConnection, due: &Due, now: Timestamp, moved: &mut Moved) -> Result<()> {
    end_blocked(connection, due, runs::Why::StartExpired, now, moved).await
}

/// Nobody authorised this: what is blocked ends, and what is queued is refused by the dispatcher.
async fn refuse(connection: &mut PgConnection, due: &Due, now: Timestamp, moved: &mut Moved) -> Result<()> {
    end_blocked(connection, due, runs::Why::Unauthorised, now, moved).await
}

async fn end_blocked(
    connection: &mut PgConnection,
    due: &Due,
    why: runs::Why,
    now: Timestamp,
    moved: &mut Moved,
) -> Result<()> {
    let id = due.execution_id;
    let waiting = store::runs::lock_blocked(connection, id).await?;
    runs::end_waiting(connection, &waiting, why, now).await?;
    // Nothing could follow what the controller does.
    let (outcome, reason) = match why {
        runs::Why::Unauthorised => (RunOutcome::Failed, Reason::ManifestMismatch),
        _ => (RunOutcome::TimedOut, Reason::StartExpired),
    };
    let (mut changes, mut moves) = (Vec::new(), Vec::new());
    for run in own(connection, id).await?.into_values().filter(|run| run.state == RunState::Active) {
        let Ok(state) = run::next(run.state, RunEvent::Ended(outcome)) else { continue };
        moves.push((id, run.state, state));
        changes.push(Change {
            execution_id: id,
            id: run.id,
            generation: run.generation,
            state,
            due_at: None,
            start_before: None,
            started_at: None,
            ended_at: Some(now),
            reason: Some(reason),
            detail: None,
            exit_code: None,
            signal: None,
        });
    }
    store::runs::change_untold(connection, &changes).await?;
    runs::move_counts(connection, &moves, now).await?;
    store::progress::take_changed(connection, id).await?;
    store::progress::end_hosts(connection, id).await?;
    let standing = Standing { is_stopped: true, pause_until: None, ..due.standing };
    store::progress::set(connection, id, standing, None, now).await?;
    moved.executions.insert(id);
    Ok(())
}
