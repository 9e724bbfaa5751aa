//! How executions with a plan go on: whose turn it is, what begins there, and what never will.
//!
//! Invariants: whoever moves an execution on holds its row of progress; what is decided comes from the signed plan and from
//! the states of the runs alone, so that whoever comes next after a crash decides the same; runs of a host move only once
//! its turn has come.

mod own;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use jiff::{SignedDuration, Timestamp};
use model::{
    Reason,
    id::{AgentId, ExecutionId, RunId},
    job::{
        Offline, OnConflict, Order, Plan, condition,
        context::{self, StepResult},
        outputs::Outputs,
        progress::{self, Gathered, HostState, Move, Standing, Why},
    },
    run::{self, RunEvent, RunOutcome, RunState},
};
use sqlx::PgConnection;
use uuid::Uuid;

use super::{
    App, approvals,
    locks::{self, Taken},
    manifest::{self, Verified},
    runs, started,
};
use crate::{
    clock,
    error::{During, Error, Result},
    store::{
        self,
        executions::Work,
        progress::{Ask, Host, NO_AGENT, Progress, StepRun},
        runs::Change,
    },
};

/// Executions that are looked at before it is asked anew which are due: each has its turn, however busy another is.
const EXECUTIONS: i64 = 256;

/// Moves on what is due, each execution in a transaction of its own; answers how many moved. One that cannot be moved stops no
/// other.
///
/// # Errors
/// When the database does not answer, or something is wrong with one of them: the next round tries again.
pub(crate) async fn advance_due(app: &App) -> Result<usize> {
    let due = store::progress::due(app.db.worker(), clock::now(), EXECUTIONS).await?;
    let (mut done, mut failed) = (0, None);
    for id in due {
        match advance_one(app, id).await {
            Ok(was_free) => done += usize::from(was_free),
            Err(error @ Error::Database(..)) => return Err(error),
            Err(error) => failed = Some(error),
        }
    }
    failed.map_or(Ok(done), Err)
}

/// Moves one on; `false` when somebody else does.
async fn advance_one(app: &App, id: ExecutionId) -> Result<bool> {
    let now = clock::now();
    let mut tx = app.db.worker().begin().await.during("begin")?;
    let Some(progress) = store::progress::lock(&mut tx, id).await? else {
        tx.rollback().await.during("rollback")?;
        return Ok(false);
    };
    // Asked once its row is locked: who cancels wakes it through that row.
    let (is_cancelled, is_over) = store::executions::is_cancelled_or_over(&mut tx, id).await?;
    let verified = manifest::authorised(app, &mut tx, [id]).await?.remove(&id);
    let moved = match &verified {
        Some(Ok(verified)) => {
            advance(app, &mut tx, (id, verified), progress, (is_cancelled, is_over), now).await?
        }
        // The dispatcher refuses its runs; those that are blocked end with it.
        other => {
            let why = match other {
                Some(Err(mismatch)) => mismatch.to_string(),
                _ => "there is no such execution".to_owned(),
            };
            tracing::error!(execution.id = %id, why, "an execution that nobody authorised does not go on");
            end_blocked(&mut tx, id, progress.standing, runs::Why::Unauthorised, &BTreeSet::new(), now)
                .await?;
            Moved { any: true, ..Moved::default() }
        }
    };
    fault::point("controller.advance.written");
    tx.commit().await.during("commit")?;
    fault::point("controller.advance.committed");
    if let Some(Ok(verified)) = &verified {
        for holder in moved.cancel {
            locks::cancel(app, (id, verified), holder).await?;
        }
        for child in moved.cancel_started {
            started::cancel(app, (id, verified), child).await?;
        }
        for (child, ask) in moved.stop_started {
            started::stop(app, verified.org_id, child, ask).await?;
        }
    }
    if moved.is_calling {
        app.wake.http_calls.notify_one();
    }
    if moved.any {
        app.live.nudge([id]);
        app.wake.others.notify_one();
    }
    if !moved.queued.is_empty() {
        app.wake.dispatch(moved.queued);
    }
    Ok(true)
}

/// What a look has moved, to be told after the commit.
#[derive(Default)]
struct Moved {
    any: bool,
    queued: BTreeSet<AgentId>,
    /// Who is to be cancelled, for holding what it waits for.
    cancel: BTreeSet<ExecutionId>,
    cancel_started: BTreeSet<ExecutionId>,
    stop_started: BTreeMap<ExecutionId, Ask>,
    is_calling: bool,
}

/// One execution while it is moved on.
struct Going<'a> {
    id: ExecutionId,
    plan: &'a Plan,
    verified: &'a Verified,
    now: Timestamp,
    /// All of its hosts, in the order of their turns, as they stand now.
    hosts: Vec<Host>,
    /// What templates and conditions see of the hosts; empty where there are none.
    described: HashMap<AgentId, context::Host>,
    /// What the steps told that were looked at; empty where none tells anything.
    told: HashMap<(AgentId, usize), Outputs>,
    /// The controller's own runs, by the places of their steps.
    own: BTreeMap<usize, StepRun>,
    /// The runs of hosts that were looked at.
    runs: BTreeMap<AgentId, Vec<StepRun>>,
    /// What is to be written: of hosts, and of runs.
    states: BTreeMap<AgentId, HostState>,
    changes: Vec<Change>,
    moves: Vec<(ExecutionId, RunState, RunState)>,
    queued: BTreeSet<AgentId>,
    /// The places of the approvals that people are asked for now.
    asked: Vec<usize>,
    /// Hosts whose turn it is are held by other executions.
    waits_for_hosts: bool,
    cancel: BTreeSet<ExecutionId>,
    /// What its own steps have started, which is to be cancelled with it.
    cancel_started: BTreeSet<ExecutionId>,
    /// What they have started, which is to be stopped or aborted with it.
    stop_started: BTreeMap<ExecutionId, Ask>,
    /// A request to a web server may be sent.
    is_calling: bool,
    /// Hosts whose turn has come, on which nothing has begun, and that have been away for longer than a moment.
    silent: Vec<AgentId>,
    /// When it is looked again which hosts have not begun.
    ask_again: Option<Timestamp>,
}

async fn advance(
    app: &App,
    connection: &mut PgConnection,
    (id, verified): (ExecutionId, &Verified),
    progress: Progress,
    (is_cancelled, is_over): (bool, bool),
    now: Timestamp,
) -> Result<Moved> {
    let nothing = Moved::default();
    let Work::Plan(plan) = &verified.work else {
        store::progress::take_changed(connection, id).await?;
        store::progress::set(connection, id, progress.standing, None, now).await?;
        return Ok(nothing);
    };
    if now >= verified.start_by {
        return expire(app, connection, (id, verified), progress.standing, is_cancelled, now).await;
    }
    // Nothing of it has begun as long as it waits: there is nothing else to look at. What is over holds nothing any more.
    if progress.is_waiting && progress.standing.is_stopped && !is_over {
        end_blocked(connection, id, progress.standing, runs::Why::Stopped, &BTreeSet::new(), now).await?;
        return Ok(Moved { any: true, ..nothing });
    }
    if !is_cancelled && !is_over && !progress.is_paused {
        match locks::take(connection, (id, verified), progress.is_waiting, now).await? {
            Taken::Yes => {}
            Taken::Waits(holder) => {
                store::progress::take_changed(connection, id).await?;
                return Ok(Moved { cancel: holder.into_iter().collect(), ..nothing });
            }
            Taken::Skip => {
                end_blocked(connection, id, progress.standing, runs::Why::LockHeld, &BTreeSet::new(), now)
                    .await?;
                return Ok(Moved { any: true, ..nothing });
            }
        }
    }
    let changed = store::progress::take_changed(connection, id).await?;
    if progress.standing.is_stopped && !is_over {
        // Whoever offers them at this moment is done first.
        store::runs::lock_queued(connection, id).await?;
    }
    let mut going = Going::new(connection, (id, verified), plan, now).await?;
    going.hosts = store::progress::hosts(connection, id).await?;
    going.load_told(connection, &[NO_AGENT.0]).await?;
    going.end_own(app, connection, is_cancelled, progress.standing).await?;
    let is_held = progress.is_paused || is_cancelled;
    let silence = (!is_held && !is_over && plan.offline != Offline::Wait).then(|| silence(app));
    if let Some(silence) = silence {
        going.find_silent(connection, silence).await?;
    }
    let soaking = going.soaking();
    going.load(connection, changed.into_iter().chain(soaking)).await?;
    let soaks = going.begin_soaks();
    store::progress::begin_soaks(connection, id, &soaks, now).await?;
    going.note_ended();
    let mut standing = progress.standing;
    if !is_held {
        standing = going.take_turns(app, connection, standing).await?;
        going.leave_silent(connection).await?;
        going.leave_own(standing);
        going.go_on(app, connection, standing).await?;
        going.note_ended();
    }
    if let Some(silence) = silence.filter(|_| !going.queued.is_empty()) {
        let then = now.saturating_add(silence).ok();
        going.ask_again = going.ask_again.into_iter().chain(then).min();
    }
    // What was started learns of a stop in the next look.
    let has_stopped = standing.is_stopped && !progress.standing.is_stopped && !going.acting().is_empty();
    // The end of a pause or a soak that nobody may act on is no reason to look: whoever lets it go on wakes it.
    let look_at = if has_stopped || !is_held && going.has_more() {
        Some(now)
    } else if is_held {
        going.next_look(None)
    } else {
        going.next_look(standing.pause_until.into_iter().chain(going.probes_at()).min())
    };
    for place in &going.asked {
        approvals::announce(connection, (id, verified), *place, now).await?;
    }
    let Going { states, changes, moves, queued, cancel, cancel_started, stop_started, is_calling, .. } =
        going;
    store::runs::change_untold(connection, &changes).await?;
    store::progress::set_hosts(connection, id, &states).await?;
    store::progress::set(connection, id, standing, look_at, now).await?;
    runs::move_counts(connection, &moves, now).await?;
    Ok(Moved { any: !moves.is_empty(), queued, cancel, cancel_started, stop_started, is_calling })
}

impl<'a> Going<'a> {
    /// With its own runs, and nothing of its hosts yet.
    async fn new(
        connection: &mut PgConnection,
        (id, verified): (ExecutionId, &'a Verified),
        plan: &'a Plan,
        now: Timestamp,
    ) -> Result<Self> {
        Ok(Self {
            id,
            plan,
            verified,
            now,
            hosts: Vec::new(),
            described: HashMap::new(),
            told: HashMap::new(),
            own: own::runs(connection, id).await?,
            runs: BTreeMap::new(),
            states: BTreeMap::new(),
            changes: Vec::new(),
            moves: Vec::new(),
            queued: BTreeSet::new(),
            asked: Vec::new(),
            waits_for_hosts: false,
            cancel: BTreeSet::new(),
            cancel_started: BTreeSet::new(),
            stop_started: BTreeMap::new(),
            is_calling: false,
            silent: Vec::new(),
            ask_again: None,
        })
    }

    /// Reads the runs of these hosts that were not read yet.
    async fn load(
        &mut self,
        connection: &mut PgConnection,
        agents: impl IntoIterator<Item = AgentId>,
    ) -> Result<()> {
        let is_missing = |agent: &AgentId| *agent != NO_AGENT && !self.runs.contains_key(agent);
        let missing: Vec<Uuid> = agents.into_iter().filter(is_missing).map(|agent| agent.0).collect();
        if missing.is_empty() {
            return Ok(());
        }
        if self.plan.looks_at_hosts() {
            self.described.extend(store::agents::described(connection, &missing).await?);
        }
        self.load_told(connection, &missing).await?;
        for run in store::progress::runs(connection, self.id, &missing).await? {
            self.runs.entry(run.agent_id).or_default().push(run);
        }
        Ok(())
    }

    /// Reads what the steps of these hosts told, or of the controller's own.
    async fn load_told(&mut self, connection: &mut PgConnection, agents: &[Uuid]) -> Result<()> {
        if self.plan.has_outputs() {
            let executions = vec![self.id.0; agents.len()];
            for (_, agent, place, ended) in store::progress::ended(connection, &executions, agents).await? {
                self.told.insert((agent, place), ended.outputs);
            }
        }
        Ok(())
    }

    /// The hosts of the canary at work: nothing that happens tells that the soak of one is over.
    fn soaking(&self) -> Vec<AgentId> {
        let is_soaking = |host: &&Host| {
            host.state == HostState::Active
                && self.plan.has_probe()
                && self.plan.rollout.is_canary(host.batch)
        };
        self.hosts.iter().filter(is_soaking).map(|host| host.agent_id).collect()
    }

    /// Begins the soaks of those that have nothing else to do any more; answers which these are. It is this clock that counts,
    /// whatever the host says when its steps ended.
    fn begin_soaks(&mut self) -> Vec<AgentId> {
        let mut begun = self.soaking();
        begun.retain(|agent| self.soaked_at(*agent).is_some());
        let now = self.now;
        let mut begin = |agent: &AgentId| {
            let host = self.hosts.iter_mut().find(|host| host.agent_id == *agent);
            let host = host.filter(|host| host.soaks_since.is_none());
            host.map(|host| host.soaks_since = Some(now)).is_some()
        };
        begun.retain(|agent| begin(agent));
        begun
    }

    /// When the probe may be asked on a host; see [`progress::soaked_at`].
    fn soaked_at(&self, agent: AgentId) -> Option<Timestamp> {
        let host = self.hosts.iter().find(|host| host.agent_id == agent);
        let since = host.and_then(|host| host.soaks_since).unwrap_or(self.now);
        let ended = |run: &StepRun| (run.step, run.state.is_terminal().then_some(since));
        progress::soaked_at(self.plan, self.runs.get(&agent).into_iter().flatten().map(ended))
    }

    /// When the probes are to be asked that wait for nothing but the end of a soak.
    fn probes_at(&self) -> Vec<Timestamp> {
        let waits = |agent: &AgentId| {
            let mut runs = self.runs.get(agent).into_iter().flatten();
            runs.any(|run| run.state == RunState::Blocked && self.plan.steps[run.step].is_probe)
        };
        let waiting = self.soaking().into_iter().filter(waits);
        waiting.filter_map(|agent| self.soaked_at(agent)).collect()
    }

    /// The hosts that are at work.
    fn active(&self) -> Vec<AgentId> {
        let active = self.hosts.iter().filter(|host| host.state == HostState::Active);
        active.map(|host| host.agent_id).collect()
    }

    fn set_host(&mut self, place: usize, state: HostState) {
        self.hosts[place].state = state;
        self.states.insert(self.hosts[place].agent_id, state);
    }

    /// Gives the next hosts their turns, and takes them from those that shall have none.
    async fn take_turns(
        &mut self,
        app: &App,
        connection: &mut PgConnection,
        standing: Standing,
    ) -> Result<Standing> {
        let seen: Vec<progress::Host> =
            self.hosts.iter().map(|host| progress::Host { batch: host.batch, state: host.state }).collect();
        let mut turn = progress::turn(self.plan, standing, &seen, self.now);
        let away = self.away(app, connection, &turn.begin).await?;
        let mut next = self.agents(&turn.begin);
        next.retain(|agent| !away.contains(agent));
        let held = locks::take_hosts(connection, (self.id, self.verified), &next, self.now).await?;
        let is_held = |place: &usize| held.contains_key(&self.hosts[*place].agent_id);
        if self.plan.on_conflict == OnConflict::Skip {
            turn.skip.extend(turn.begin.iter().copied().filter(is_held));
        }
        turn.begin.retain(|place| !is_held(place));
        if self.plan.on_conflict == OnConflict::CancelRunning {
            self.cancel.extend(held.values());
        }
        // Whoever holds them tells nobody when he is done.
        self.waits_for_hosts = !held.is_empty() && self.plan.on_conflict != OnConflict::Skip;
        let agents: Vec<AgentId> =
            turn.begin.iter().chain(&turn.skip).map(|place| self.hosts[*place].agent_id).collect();
        self.load(connection, agents).await?;
        for place in turn.begin {
            self.set_host(place, HostState::Active);
            if away.contains(&self.hosts[place].agent_id) {
                self.leave_out(place);
            }
        }
        for place in turn.skip {
            let why = if held.contains_key(&self.hosts[place].agent_id) {
                Why::LockHeld
            } else {
                Why::RolloutStopped
            };
            self.skip_host(place, why);
        }
        if turn.standing.is_stopped {
            // Whoever offers them at this moment is done first.
            store::runs::lock_queued(connection, self.id).await?;
            let active = self.active();
            self.load(connection, active).await?;
            for place in 0..self.hosts.len() {
                if self.hosts[place].state == HostState::Active
                    && self.has_not_begun(self.hosts[place].agent_id)
                {
                    self.skip_host(
                        place,
                        if standing.is_aborted { Why::Aborted } else { Why::RolloutStopped },
                    );
                }
            }
            if standing.is_aborted {
                self.active().into_iter().for_each(|agent| self.abort_host(agent));
            }
            self.skip_probes();
        }
        Ok(turn.standing)
    }

    /// On a host at work nothing begins any more that need not.
    fn abort_host(&mut self, agent: AgentId) {
        let runs = self.runs.get(&agent).cloned().unwrap_or_default();
        let of = |place: usize| runs.iter().find(|run| run.step == place);
        let is_tried = |place: usize| of(place).is_some_and(|run| run.is_tried);
        let aborted = progress::aborted_on_host(self.plan, &self.states(agent), is_tried);
        aborted.into_iter().filter_map(of).for_each(|run| self.skip(run, Why::Aborted));
    }

    /// Nobody asks any more whether the canary is well.
    fn skip_probes(&mut self) {
        let is_waiting = |run: &&StepRun| {
            run.state == RunState::Blocked && self.plan.steps.get(run.step).is_some_and(|step| step.is_probe)
        };
        let waiting: Vec<StepRun> = self.runs.values().flatten().filter(is_waiting).copied().collect();
        waiting.iter().for_each(|run| self.skip(run, Why::RolloutStopped));
    }

    /// Moves the runs that may go on: the controller's own, and those of hosts at work.
    async fn go_on(&mut self, app: &App, connection: &mut PgConnection, standing: Standing) -> Result<()> {
        let mut gathered = vec![Gathered::default(); self.plan.steps.len()];
        // Whatever waits for all hosts, or for the controller, may go on with any of them.
        if self.plan.order == Order::Step || !self.own.is_empty() {
            gathered = store::progress::gathered(connection, self.id, self.plan.steps.len()).await?;
            self.correct(&mut gathered);
            self.begin_own(app, connection, standing, &gathered).await?;
            if self.is_somebody_next(&gathered) {
                let active = self.active();
                self.load(connection, active).await?;
            }
        }
        for agent in self.active() {
            if self.runs.contains_key(&agent) {
                self.move_host(agent, &gathered)?;
            }
        }
        Ok(())
    }

    /// The states of all steps as a host sees them; a step that it has no run of is none of its concern.
    fn states(&self, agent: AgentId) -> Vec<RunState> {
        let mut states = vec![RunState::Skipped; self.plan.steps.len()];
        let of_host = self.runs.get(&agent).into_iter().flatten();
        for run in of_host.chain(self.own.values()) {
            if let Some(state) = states.get_mut(run.step) {
                *state = run.state;
            }
        }
        states
    }

    /// Notes which hosts have ended, of those whose runs were read.
    fn note_ended(&mut self) {
        for place in 0..self.hosts.len() {
            let host = self.hosts[place];
            if !self.runs.contains_key(&host.agent_id) {
                continue;
            }
            let runs = self.runs.get(&host.agent_id);
            let left_out: Vec<usize> =
                runs.into_iter().flatten().filter(|run| run.is_left_out).map(|run| run.step).collect();
            let states = self.states(host.agent_id);
            let now = progress::host_state(self.plan, &states, |place| left_out.contains(&place));
            match (host.state, now) {
                (HostState::Active, HostState::Succeeded | HostState::Failed | HostState::Skipped) => {
                    self.set_host(place, now);
                }
                // Its runs were cancelled before its turn.
                (HostState::Waiting, HostState::Succeeded | HostState::Failed | HostState::Skipped) => {
                    self.set_host(place, HostState::Skipped);
                }
                _ => {}
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
        let runs = self.runs.get(&agent).cloned().unwrap_or_default();
        let is_soaked = self.soaked_at(agent).is_some_and(|at| self.now >= at);
        let moves = progress::on_host(self.plan, &mut states, gathered, is_soaked, |place, states| {
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
                Move::Fail(why) => self.fail(run, Reason::BadTemplate, &why),
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
        context.matrix.clone_from(&step.matrix);
        let exit_code = |place: usize| {
            let mut runs = self.runs.get(&agent).into_iter().flatten().chain(self.own.values());
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
                let of = if step.work.is_on_hosts() { agent } else { NO_AGENT };
                let outputs = self.told.get(&(of, place)).cloned().unwrap_or_default();
                let exit_code = exit_code(place);
                (step.name.clone(), StepResult { state, exit_code, outputs, gathered: None })
            })
            .collect();
        if let Some(condition) = &step.condition {
            match condition::evaluate("if", condition, &context) {
                Ok(true) => {}
                Ok(false) => return Move::Skip(Why::ConditionFalse),
                Err(invalid) => return Move::Fail(invalid.to_string()),
            }
        }
        // What waits for its turn may not be filled in any more when it has it; that it can be now is seen before.
        match step.template.then(|| self.plan.filled(place, &context)) {
            Some(Err(invalid)) => Move::Fail(invalid.to_string()),
            _ => Move::Begin,
        }
    }

    fn fail(&mut self, run: &StepRun, reason: Reason, why: &str) {
        self.change(run, RunEvent::Ended(RunOutcome::Failed), Some((reason, why)));
    }

    /// Whether nothing was started on a host whose turn has come: all waits for it, as where it is away.
    fn has_not_begun(&self, agent: AgentId) -> bool {
        self.runs.get(&agent).is_some_and(|runs| {
            runs.iter().all(|run| match run.state {
                RunState::Blocked | RunState::Skipped => true,
                RunState::Queued => !run.is_tried,
                _ => false,
            })
        })
    }

    /// Nothing begins on the host any more.
    fn skip_host(&mut self, place: usize, why: Why) {
        let runs = self.runs.get(&self.hosts[place].agent_id).cloned().unwrap_or_default();
        for run in runs.iter().filter(|run| matches!(run.state, RunState::Blocked | RunState::Queued)) {
            self.skip(run, why);
        }
        self.set_host(place, HostState::Skipped);
    }

    /// Those whose turn it is and that are away, where the job does not wait for such.
    async fn away(
        &self,
        app: &App,
        connection: &mut PgConnection,
        places: &[usize],
    ) -> Result<BTreeSet<AgentId>> {
        if self.plan.offline == Offline::Wait || places.is_empty() {
            return Ok(BTreeSet::new());
        }
        let agents: Vec<Uuid> = self.agents(places).iter().map(|agent| agent.0).collect();
        // Who has only just gone may be on his way back: after a restart of the controller that is everybody.
        let since = self.now.saturating_sub(silence(app)).unwrap_or(Timestamp::MIN);
        let there = store::agents::there(connection, &agents, since).await?;
        Ok(agents.into_iter().map(AgentId).filter(|agent| !there.contains(agent)).collect())
    }

    /// Finds the hosts that were there, or only just gone, when their turn came, and have begun nothing and been away since; and
    /// when to look again at those that may still become such.
    async fn find_silent(&mut self, connection: &mut PgConnection, silence: SignedDuration) -> Result<()> {
        for (agent, gone_at) in store::progress::unbegun(connection, self.id).await? {
            let until = gone_at.unwrap_or(self.now).saturating_add(silence).unwrap_or(Timestamp::MAX);
            if until <= self.now {
                self.silent.push(agent);
            } else {
                self.ask_again = self.ask_again.into_iter().chain([until]).min();
            }
        }
        if !self.silent.is_empty() {
            // Whoever offers them at this moment is done first.
            store::runs::lock_queued(connection, self.id).await?;
        }
        Ok(())
    }

    /// Leaves out those that were found silent, unless something has begun there meanwhile.
    async fn leave_silent(&mut self, connection: &mut PgConnection) -> Result<()> {
        let silent = std::mem::take(&mut self.silent);
        self.load(connection, silent.iter().copied()).await?;
        for place in 0..self.hosts.len() {
            let Host { agent_id, state, .. } = self.hosts[place];
            if state == HostState::Active && silent.contains(&agent_id) && self.has_not_begun(agent_id) {
                self.leave_out(place);
            }
        }
        Ok(())
    }

    fn agents(&self, places: &[usize]) -> Vec<AgentId> {
        places.iter().map(|place| self.hosts[*place].agent_id).collect()
    }

    /// Nothing begins on a host that is away: it is skipped, or has failed, as the job says.
    fn leave_out(&mut self, place: usize) {
        let runs = self.runs.get(&self.hosts[place].agent_id).cloned().unwrap_or_default();
        let mut failed = self.plan.offline != Offline::Fail;
        for run in runs.iter().filter(|run| matches!(run.state, RunState::Blocked | RunState::Queued)) {
            if failed || self.plan.steps[run.step].is_rollback {
                self.skip(run, Why::HostOffline);
            } else {
                let event = RunEvent::Ended(RunOutcome::Failed);
                self.change(run, event, Some((Reason::HostOffline, "its host was away when its turn came")));
                failed = true;
            }
        }
        let state = if self.plan.offline == Offline::Fail { HostState::Failed } else { HostState::Skipped };
        self.set_host(place, state);
    }

    fn skip(&mut self, run: &StepRun, why: Why) {
        let (reason, detail) = match why {
            Why::HostStopped => (Reason::HostStopped, "a step before it failed, on this host or for all"),
            Why::NothingToUndo => (Reason::NothingToUndo, "nothing has to be undone on this host"),
            Why::ConditionFalse => (Reason::ConditionFalse, "its condition does not hold on this host"),
            Why::NoHostLeft => (Reason::NoHostLeft, "what it needs went well on no host"),
            Why::RolloutStopped => {
                (Reason::RolloutStopped, "the rollout was stopped before this host's turn")
            }
            Why::Aborted => (Reason::RolloutStopped, "the rollout was aborted before it began"),
            Why::HostOffline => (Reason::HostOffline, "its host was away when its turn came"),
            Why::LockHeld => (Reason::LockHeld, "another execution held its host"),
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
            due_at: is_queued.then_some(self.now),
            start_before: is_queued.then_some(start_before),
            started_at: (state == RunState::Active).then_some(self.now),
            ended_at: state.is_terminal().then_some(self.now),
            reason: why.map(|(reason, _)| reason),
            detail: why.map(|(_, detail)| detail.to_owned()).filter(|detail| !detail.is_empty()),
            outputs: self.told.get(&(run.agent_id, run.step)).filter(|told| !told.is_empty()).cloned(),
            ..Change::to(state, (self.id, run.id), run.generation)
        });
        let moved = |run: &mut StepRun| {
            run.state = state;
            run.generation += 1;
            run.is_left_out =
                state == RunState::Skipped && why.is_none_or(|(reason, _)| reason != Reason::ConditionFalse);
            if state == RunState::Active {
                run.started_at = Some(self.now);
            }
        };
        match self.own.get_mut(&run.step).filter(|own| own.id == run.id) {
            Some(own) => moved(own),
            None => {
                let of_host = self.runs.get_mut(&run.agent_id);
                if let Some(run) = of_host.and_then(|runs| runs.iter_mut().find(|other| other.id == run.id)) {
                    moved(run);
                }
            }
        }
    }

    /// Counts what was ended here where the tables do not know it yet.
    fn correct(&self, gathered: &mut [Gathered]) {
        for change in self.changes.iter().filter(|change| change.state.is_terminal()) {
            let mut all = self.runs.values().flatten().chain(self.own.values());
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

    /// Whether anything is open.
    fn is_open(&self) -> bool {
        self.hosts.iter().any(|host| matches!(host.state, HostState::Waiting | HostState::Active))
            || self.own.values().any(|run| !run.state.is_terminal())
    }

    /// Whether there is more to do at once: what ended here may let others begin.
    fn has_more(&self) -> bool {
        self.is_open() && self.changes.iter().any(|change| change.state.is_terminal())
    }

    /// When somebody has to look again although nothing happens: the end of a wait, of a pause or of a silence, and at last the time by which
    /// all must have begun. Never, once all has ended.
    fn next_look(&self, pause_until: Option<Timestamp>) -> Option<Timestamp> {
        let waits = self.next_look_at_own();
        let held = self.waits_for_hosts.then(|| locks::look_again(self.now));
        let unbegun =
            self.ask_again.filter(|_| self.hosts.iter().any(|host| host.state == HostState::Active));
        self.is_open().then(|| {
            waits.chain(pause_until).chain(held).chain(unbegun).fold(self.verified.start_by, Timestamp::min)
        })
    }
}

/// How long a host may be gone before it counts as away.
fn silence(app: &App) -> SignedDuration {
    SignedDuration::try_from(app.info.timing.silence).unwrap_or(SignedDuration::MAX)
}

/// All must have begun by now: nothing does any more. What others do for it is seen to its end.
async fn expire(
    app: &App,
    connection: &mut PgConnection,
    (id, verified): (ExecutionId, &Verified),
    standing: Standing,
    is_cancelled: bool,
    now: Timestamp,
) -> Result<Moved> {
    let mut moved = Moved { any: true, ..Moved::default() };
    let mut acting = BTreeSet::new();
    if let Some(plan) = verified.plan() {
        let mut going = Going::new(connection, (id, verified), plan, now).await?;
        let standing = Standing { is_stopped: true, ..standing };
        going.end_own(app, connection, is_cancelled, standing).await?;
        acting = going.acting();
        store::runs::change_untold(connection, &going.changes).await?;
        runs::move_counts(connection, &going.moves, now).await?;
        (moved.cancel_started, moved.stop_started) = (going.cancel_started, going.stop_started);
    }
    end_blocked(connection, id, standing, runs::Why::StartExpired, &acting, now).await?;
    if !acting.is_empty() {
        store::progress::wake(connection, id, locks::look_again(now)).await?;
    }
    Ok(moved)
}

/// Nothing of it begins any more: all must have begun by now, or nobody authorised it. What is blocked ends, and what the
/// controller does itself but for those `acting`; what is queued is the dispatcher's and the reaper's, and what runs goes on.
async fn end_blocked(
    connection: &mut PgConnection,
    id: ExecutionId,
    standing: Standing,
    why: runs::Why,
    acting: &BTreeSet<RunId>,
    now: Timestamp,
) -> Result<()> {
    let waiting = store::runs::lock_blocked(connection, id).await?;
    runs::end_waiting(connection, &waiting, why, now).await?;
    let (event, reason) = match why {
        runs::Why::Unauthorised => (RunEvent::Ended(RunOutcome::Failed), Reason::ManifestMismatch),
        runs::Why::LockHeld => (RunEvent::Skipped, Reason::LockHeld),
        runs::Why::Stopped => (RunEvent::Skipped, Reason::RolloutStopped),
        _ => (RunEvent::Ended(RunOutcome::TimedOut), Reason::StartExpired),
    };
    let (mut changes, mut moves) = (Vec::new(), Vec::new());
    let own = own::runs(connection, id).await?;
    for run in own.into_values().filter(|run| !acting.contains(&run.id)) {
        let Ok(state) = run::next(run.state, event) else { continue };
        moves.push((id, run.state, state));
        let change = Change::to(state, (id, run.id), run.generation);
        changes.push(Change { ended_at: Some(now), reason: Some(reason), ..change });
    }
    store::runs::change_untold(connection, &changes).await?;
    runs::move_counts(connection, &moves, now).await?;
    store::progress::take_changed(connection, id).await?;
    store::progress::end_hosts(connection, id).await?;
    let standing = Standing { is_stopped: true, pause_until: None, ..standing };
    store::progress::set(connection, id, standing, None, now).await
}
