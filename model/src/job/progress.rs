//! How a started job goes on: which runs of a host may begin, which never will, and which hosts are next. Pure functions of
//! the plan and of the states that the runs have.
//!
//! Invariants: nothing begins before all that it needs has ended; on a host that was stopped nothing begins but what runs
//! always, and what undoes; when more hosts have failed than may, or one of the canary, no further host begins; once somebody
//! has aborted it nothing begins but what runs always, where something has begun, and what undoes, where that is under way.

use jiff::Timestamp;

use super::{OnFailure, Order, Plan};
use crate::run::RunState;

/// What becomes of a run that is blocked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Move {
    Begin,
    Skip(Why),
    /// It cannot begin: what it says cannot be filled in, or its condition cannot be told.
    Fail(String),
}

/// Why a run never begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// A step before it failed on its host.
    HostStopped,
    /// Nothing has to be undone.
    NothingToUndo,
    /// Its condition does not hold.
    ConditionFalse,
    /// What it needs went well on no host.
    NoHostLeft,
    /// The rollout was stopped before its host's turn.
    RolloutStopped,
    /// The rollout was aborted before it began.
    Aborted,
    /// Its host was away when its turn came.
    HostOffline,
    /// Another execution held its host then.
    LockHeld,
}

/// How a step stands on all hosts together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Gathered {
    /// Runs that have not ended, and those of them that wait for others.
    pub open: usize,
    pub blocked: usize,
    pub succeeded: usize,
    /// Runs that ended in any other way, and those of them that were to be.
    pub others: usize,
    pub failed: usize,
}

/// Whether the state is an end that is no success.
const fn is_bad(state: RunState) -> bool {
    matches!(
        state,
        RunState::Failed | RunState::TimedOut | RunState::Cancelled | RunState::Expired | RunState::Unknown
    )
}

/// Whether a step of the host's failed that stops it.
pub fn is_stopped(plan: &Plan, states: &[RunState]) -> bool {
    let mut main = plan.steps.iter().zip(states).filter(|(step, _)| !step.is_rollback);
    main.any(|(step, state)| is_bad(*state) && step.on_failure != OnFailure::Continue)
}

/// When the probe may be asked on a host: the soak after the last of its other steps has ended there; never while one is open.
/// `ended` has, by their places, when the runs of the host ended, or that they did not.
pub fn soaked_at(
    plan: &Plan,
    ended: impl IntoIterator<Item = (usize, Option<Timestamp>)>,
) -> Option<Timestamp> {
    let is_before =
        |place: usize| plan.steps.get(place).is_some_and(|step| !step.is_rollback && !step.is_probe);
    let mut last = Timestamp::MIN;
    for (_, ended) in ended.into_iter().filter(|(place, _)| is_before(*place)) {
        last = last.max(ended?);
    }
    let soak = plan.rollout.canary.as_ref().and_then(|canary| canary.soak).unwrap_or_default();
    Some(last.checked_add(soak.duration()).unwrap_or(Timestamp::MAX))
}

/// What becomes of the blocked runs of a host whose turn it is. `states` has the state of each step there, and of the
/// controller's own steps; what follows from a move is decided in the same call. `gathered` counts for the order by steps, and
/// `is_soaked` says that the probe may be asked there. What could begin is asked for last whether it may: `may_begin` knows the
/// host.
pub fn on_host(
    plan: &Plan,
    states: &mut [RunState],
    gathered: &[Gathered],
    is_soaked: bool,
    mut may_begin: impl FnMut(usize, &[RunState]) -> Move,
) -> Vec<(usize, Move)> {
    let mut moves = Vec::new();
    loop {
        let found = (0..plan.steps.len())
            .filter(|place| states[*place] == RunState::Blocked && plan.steps[*place].work.is_on_hosts())
            .filter(|place| !plan.steps[*place].is_probe || is_soaked || is_stopped(plan, states))
            .find_map(|place| Some((place, next_on_host(plan, place, states, gathered)?)));
        let Some((place, mut step)) = found else { return moves };
        if step == Move::Begin {
            step = may_begin(place, states);
        }
        states[place] = match step {
            Move::Begin => RunState::Queued,
            Move::Skip(_) => RunState::Skipped,
            Move::Fail(_) => RunState::Failed,
        };
        moves.push((place, step));
    }
}

/// The places of the steps of a host at work that never begin once the rollout was aborted. What is queued has not begun unless
/// `is_tried`: it was offered to the host before.
pub fn aborted_on_host(plan: &Plan, states: &[RunState], is_tried: impl Fn(usize) -> bool) -> Vec<usize> {
    let has_not_begun = |place: usize| match states[place] {
        RunState::Blocked => true,
        RunState::Queued => !is_tried(place),
        _ => false,
    };
    let is_under_way =
        plan.steps.iter().enumerate().any(|(place, step)| {
            step.is_rollback && !has_not_begun(place) && states[place] != RunState::Skipped
        });
    let steps = plan.steps.iter().enumerate().filter(|(_, step)| step.work.is_on_hosts());
    steps
        .filter(|(place, step)| {
            let goes_on = if step.is_rollback { is_under_way } else { step.always };
            has_not_begun(*place) && !goes_on
        })
        .map(|(place, _)| place)
        .collect()
}

fn next_on_host(plan: &Plan, place: usize, states: &[RunState], gathered: &[Gathered]) -> Option<Move> {
    let step = &plan.steps[place];
    let ended = |place: &usize| states[*place].is_terminal();
    if step.is_rollback {
        return next_of_rollback(plan, place, states);
    }
    if is_stopped(plan, states) && !step.always {
        return Some(Move::Skip(Why::HostStopped));
    }
    let everywhere = |place: &usize| plan.order == Order::Host || gathered[*place].open == 0;
    // Steps that it needs may have been skipped while others that these need still run.
    let before = if step.always { all_before(plan, place) } else { step.needs.clone() };
    (before.iter().all(ended) && before.iter().all(everywhere)).then_some(Move::Begin)
}

/// The steps that the one at `place` needs, and those on hosts that these need: what runs always waits for nobody's answer that it
/// does not ask for itself.
fn all_before(plan: &Plan, place: usize) -> Vec<usize> {
    let (mut found, mut seen) = (plan.steps[place].needs.clone(), vec![false; plan.steps.len()]);
    let mut next = 0;
    found.retain(|before| !std::mem::replace(&mut seen[*before], true));
    while let Some(before) = found.get(next).copied() {
        next += 1;
        let more = plan.steps[before].needs.iter().filter(|more| !std::mem::replace(&mut seen[**more], true));
        found.extend(more.copied().collect::<Vec<_>>());
    }
    found.retain(|before| plan.steps[place].needs.contains(before) || plan.steps[*before].work.is_on_hosts());
    found
}

/// What undoes begins when all else has ended, one behind the other.
fn next_of_rollback(plan: &Plan, place: usize, states: &[RunState]) -> Option<Move> {
    let main = || plan.steps.iter().zip(states).filter(|(step, _)| !step.is_rollback);
    // What the controller does behind the hosts waits for them, and they must not wait for it.
    if main().any(|(step, state)| step.work.is_on_hosts() && !state.is_terminal()) {
        return None;
    }
    if !main().any(|(step, state)| is_bad(*state) && step.on_failure == OnFailure::Rollback) {
        return Some(Move::Skip(Why::NothingToUndo));
    }
    let step = &plan.steps[place];
    if step.needs.iter().any(|before| !states[*before].is_terminal()) {
        return None;
    }
    let goes_on = |before: &usize| {
        states[*before] == RunState::Succeeded || plan.steps[*before].on_failure == OnFailure::Continue
    };
    Some(if step.always || step.needs.iter().all(goes_on) {
        Move::Begin
    } else {
        Move::Skip(Why::HostStopped)
    })
}

/// What becomes of a step of the controller's own that is blocked: it begins when all that it needs has ended on all hosts,
/// and went well on one. Once the rollout was aborted nobody is asked or waited for any more, and nothing else begins but what
/// runs always.
pub fn of_controller(
    plan: &Plan,
    place: usize,
    states: &[RunState],
    gathered: &[Gathered],
    is_aborted: bool,
) -> Option<Move> {
    let step = &plan.steps[place];
    if is_aborted && !(step.always && step.work.is_of_others()) {
        return Some(Move::Skip(Why::Aborted));
    }
    let is_open = |place: usize| {
        let is_own = !plan.steps[place].work.is_on_hosts();
        gathered[place].open > 0 || is_own && !states[place].is_terminal()
    };
    let mut open = step.always && all_before(plan, place).into_iter().any(is_open);
    let mut went_well = true;
    for needed in &step.needs {
        let (before, all) = (&plan.steps[*needed], gathered[*needed]);
        open |= is_open(*needed);
        went_well &= all.succeeded > 0 || all.others == 0 || before.on_failure == OnFailure::Continue;
    }
    if open {
        None
    } else if went_well || step.always {
        Some(Move::Begin)
    } else {
        Some(Move::Skip(Why::NoHostLeft))
    }
}

/// How a host stands in a rollout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HostState {
    /// It was not its turn yet.
    Waiting,
    Active,
    Succeeded,
    Failed,
    /// Its turn never came.
    Skipped,
}

impl HostState {
    pub const ALL: [Self; 5] = [Self::Waiting, Self::Active, Self::Succeeded, Self::Failed, Self::Skipped];

    /// The name that the API and the database use.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Active => "active",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Skipped => "skipped",
        }
    }

    /// Reads what [`HostState::as_str`] writes.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == text)
    }

    const fn has_ended(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Skipped)
    }
}

/// How a host stands whose turn has come, by the states of its runs. `is_left_out` has the steps that were skipped although their
/// conditions held: something that they need has failed, or somebody aborted it. Where that happened it did not succeed.
pub fn host_state(plan: &Plan, states: &[RunState], is_left_out: impl Fn(usize) -> bool) -> HostState {
    let on_host = || plan.steps.iter().zip(states).filter(|(step, _)| step.work.is_on_hosts());
    if on_host().any(|(_, state)| !state.is_terminal()) {
        return HostState::Active;
    }
    let failed = on_host().any(|(step, state)| is_bad(*state) && step.on_failure != OnFailure::Continue);
    let counts = |place: usize| {
        let step = &plan.steps[place];
        step.work.is_on_hosts() && !step.is_rollback && !step.is_probe
    };
    let is_unfinished = (0..plan.steps.len()).any(|place| counts(place) && is_left_out(place));
    if !failed && !is_unfinished {
        HostState::Succeeded
    } else if !failed && on_host().all(|(_, state)| *state == RunState::Skipped) {
        // Nothing was done there, for what the controller was to do before did not come.
        HostState::Skipped
    } else {
        HostState::Failed
    }
}

/// A host as the rollout sees it, in the order of their turns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Host {
    pub batch: u16,
    pub state: HostState,
}

/// Where a rollout stands, beside its hosts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Standing {
    /// The batch whose turn it is.
    pub batch: u16,
    /// Until when it waits between two batches.
    pub pause_until: Option<Timestamp>,
    /// Nobody more begins.
    pub is_stopped: bool,
    /// Somebody said so, of those at work too. What is aborted is stopped.
    pub is_aborted: bool,
}

/// What a rollout does next.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Turn {
    pub standing: Standing,
    /// The places of the hosts whose turn it is now.
    pub begin: Vec<usize>,
    /// The places of the hosts whose turn will never come.
    pub skip: Vec<usize>,
}

/// Whether the canary says that the others must not begin: one of its hosts has failed, or it went well on none.
fn canary_failed(plan: &Plan, hosts: &[Host]) -> bool {
    let canary = || hosts.iter().filter(|host| plan.rollout.is_canary(host.batch)).map(|host| host.state);
    let (mut went_well, mut is_open) = (false, canary().next().is_none());
    for state in canary() {
        if state == HostState::Failed {
            return true;
        }
        went_well |= state == HostState::Succeeded;
        is_open |= !state.has_ended();
    }
    !went_well && !is_open
}

/// Which hosts are next.
pub fn turn(plan: &Plan, mut standing: Standing, hosts: &[Host], now: Timestamp) -> Turn {
    let failed = hosts.iter().filter(|host| host.state == HostState::Failed).count();
    let over_budget = plan.rollout.budget(hosts.len()).is_some_and(|budget| failed > budget);
    standing.is_stopped |= over_budget || canary_failed(plan, hosts);
    let waiting = || hosts.iter().enumerate().filter(|(_, host)| host.state == HostState::Waiting);
    if standing.is_stopped {
        let skip = waiting().map(|(place, _)| place).collect();
        return Turn { standing: Standing { pause_until: None, ..standing }, begin: Vec::new(), skip };
    }
    let mut turn = Turn { standing, ..Turn::default() };
    let Some(open) = hosts.iter().filter(|host| !host.state.has_ended()).map(|host| host.batch).min() else {
        return turn;
    };
    if open > turn.standing.batch {
        let soak = plan.rollout.canary.as_ref().and_then(|canary| canary.soak);
        // With a probe the hosts of the canary have had their soak.
        let soak = soak.filter(|_| turn.standing.batch == 0 && !plan.has_probe());
        let pause = plan.rollout.pause.max(soak);
        turn.standing.batch = open;
        turn.standing.pause_until = pause.and_then(|pause| now.checked_add(pause.duration()).ok());
    }
    if turn.standing.pause_until.is_some_and(|until| now < until) {
        return turn;
    }
    turn.standing.pause_until = None;
    let active = hosts.iter().filter(|host| host.state == HostState::Active).count();
    let room = plan.rollout.max_parallel.map_or(usize::MAX, |most| most.saturating_sub(active));
    turn.begin =
        waiting().filter(|(_, host)| host.batch == open).map(|(place, _)| place).take(room).collect();
    turn
}

#[cfg(test)]
mod tests;
