//! The conversation between agent and controller, simulated: one thread, no real time, a seed that decides everything.
//!
//! The agent decides by the functions of [`super::decide`] and [`super::order`], the controller moves its states by those of
//! `model`; disk, network and clocks are made up. Messages are lost with their session, delayed, and repeated, and old
//! sessions go on talking beside new ones; agent, host and controller crash between any two steps, the journal fails or is
//! lost. What must hold is checked at every step ([`World::check`]), and at the end when the faults have stopped.
//!
//! `OPSC_SIM_SEED=n` replays one seed and tells its steps, `OPSC_SIM_SEEDS=n` runs so many.

mod agent;
mod controller;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use fastrand::Rng;
use model::{
    id::{ExecutionId, RunId},
    run::RunState,
};
use uuid::Uuid;

use self::{agent::Agent, controller::Controller};
use crate::messages::AttemptKey;

/// Microseconds.
type Time = i64;

const SECOND: Time = 1_000_000;
const START_WINDOW: Time = 2 * SECOND;
const SKEW: Time = SECOND;
const LOST_AFTER: Time = 5 * SECOND;
/// Steps with faults, and steps within which all must have ended without them.
const STEPS: usize = 1500;
const QUIET_STEPS: usize = 10_000;
const RUNS: u64 = 6;

/// Something wrong that is built in on purpose, to see that the simulation finds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mutant {
    /// The agent begins before its journal says so.
    BeginsUnjournaled,
    /// It begins again what its predecessor had begun, in whatever folder.
    BeginsAgain,
    /// It does not remember a cancel that came before its order.
    ForgetsCancels,
    /// It begins orders whose time is over.
    IgnoresTheWindow,
    /// It removes what it has reported, not what was answered.
    SettlesEarly,
    /// It begins what has waited for its disk past its time.
    TakesItsTime,
    /// It holds nothing that it refused.
    ForgetsRefusals,
    /// The controller answers reports before it has committed them.
    AnswersEarly,
    /// It takes back offers whatever became of the journal that they were made for.
    WithdrawsFromLostJournals,
    /// It opens a session for every hello, however old.
    BelievesLateHellos,
    /// It ends cancelled runs without waiting for their hosts.
    CancelsBlindly,
}

/// What the link and the session carry up.
#[derive(Debug, Clone)]
enum Up {
    Hello { epoch: Vec<u8>, held: BTreeSet<AttemptKey>, said_at: Time },
    Report(proto::Report),
}

/// What the session carries down.
#[derive(Debug, Clone)]
enum Down {
    Welcome,
    Order(Box<proto::WorkOrder>),
    Cancel(AttemptKey),
    /// The report of this number is answered.
    Ack(u64),
}

/// One connection. What is on its way is delivered in its order; either side may know of its end before the other.
#[derive(Debug, Default)]
struct Session {
    up: VecDeque<Up>,
    down: VecDeque<Down>,
    /// The agent, the controller holds it open.
    open: [bool; 2],
}

const AGENT: usize = 0;
const CONTROLLER: usize = 1;

/// What only an observer of everything knows.
#[derive(Debug, Default)]
struct Witness {
    /// How often the process of an attempt was started.
    starts: BTreeMap<AttemptKey, u32>,
    /// Attempts that may not start any more, and why.
    forbidden: BTreeMap<AttemptKey, &'static str>,
    /// Results that the agent has let go of because they were answered.
    handed_over: BTreeSet<AttemptKey>,
}

struct World {
    rng: Rng,
    now: Time,
    mutant: Option<Mutant>,
    agent: Agent,
    controller: Controller,
    sessions: Vec<Session>,
    witness: Witness,
    faults: bool,
    verbose: bool,
}

fn key(run: u64, attempt: u32) -> AttemptKey {
    let id = |kind: u64| Uuid::from_u64_pair(kind, run);
    AttemptKey { execution_id: ExecutionId(id(1)), run_id: RunId(id(2)), attempt }
}

fn run_of(key: AttemptKey) -> u64 {
    key.run_id.0.as_u64_pair().1
}

/// Run and attempt.
fn name(key: AttemptKey) -> String {
    format!("{}.{}", run_of(key), key.attempt)
}

/// Ends the world: an invariant does not hold. It is told by whoever played it.
fn broken(what: String) -> ! {
    std::panic::resume_unwind(Box::new(what))
}

impl Witness {
    /// A process of the attempt begins.
    fn started(&mut self, key: AttemptKey) {
        *self.starts.entry(key).or_default() += 1;
        let of_run: u32 = self.starts.iter().filter(|(k, _)| k.run_id == key.run_id).map(|(_, n)| n).sum();
        if of_run != 1 {
            broken(format!("one-start: a run was started again, as {}", name(key)));
        }
    }

    /// The agent has decided to start it, and its shim will.
    fn decided(&self, key: AttemptKey) {
        if let Some(why) = self.forbidden.get(&key) {
            broken(format!(
                "no-late-start: attempt {} of run {} started, but {why}",
                key.attempt,
                run_of(key)
            ));
        }
    }

    fn forbid(&mut self, key: AttemptKey, why: &'static str) {
        self.forbidden.entry(key).or_insert(why);
    }
}

impl World {
    fn new(seed: u64, mutant: Option<Mutant>, verbose: bool) -> Self {
        let mut rng = Rng::with_seed(seed);
        let runs = rng.u64(1..=RUNS);
        // The host's clock is off by less than is allowed.
        let agent = Agent::new(rng.i64(-SKEW + 1..SKEW), rng.usize(1..4), rng.bool());
        Self {
            rng,
            // Far enough from zero for every subtraction.
            now: 1_000_000 * SECOND,
            mutant,
            agent,
            controller: Controller::new(runs),
            sessions: Vec::new(),
            witness: Witness::default(),
            faults: true,
            verbose,
        }
    }

    fn has(&self, mutant: Mutant) -> bool {
        self.mutant == Some(mutant)
    }

    fn say(&self, what: impl FnOnce() -> String) {
        if self.verbose {
            eprintln!("{:>9.3} {}", (self.now - 1_000_000 * SECOND) as f64 / 1e6, what());
        }
    }

    /// From the first order to the last answer.
    fn play(&mut self) {
        for _ in 0..STEPS {
            self.step();
        }
        self.faults = false;
        self.say(|| "the faults stop".to_owned());
        for _ in 0..QUIET_STEPS {
            if self.is_over() {
                return self.check_the_end();
            }
            self.step();
        }
        broken(format!("no-endless-wait: not over:\n{:#?}\n{:#?}", self.controller, self.agent));
    }

    fn step(&mut self) {
        self.now += self.rng.i64(0..SECOND / 50);
        if self.faults && self.rng.u8(..) < 5 {
            self.fault();
        } else {
            match self.rng.u8(0..8) {
                0..3 => self.agent_step(),
                3..5 => self.controller_step(),
                5 => self.deliver_up(),
                6 => self.deliver_down(),
                _ => self.link_step(),
            }
        }
        self.check();
    }

    fn fault(&mut self) {
        match self.rng.u8(0..16) {
            0 | 1 => self.agent_crashes(false),
            2 => self.agent_crashes(true),
            3 | 4 => self.controller_crashes(),
            // Time passes, and nothing else happens.
            5 | 6 => self.now += self.rng.i64(0..LOST_AFTER * 3 / 2),
            7..10 => self.break_session(AGENT),
            10..12 => self.break_session(CONTROLLER),
            12 => self.repeat_message(),
            13 => self.agent.journal_fails = !self.agent.journal_fails,
            14 => self.user_cancels(),
            _ if self.rng.u8(0..4) == 0 => self.journal_is_lost(),
            _ => {}
        }
    }

    /// One side gives the connection up; the other may hear of it later.
    fn break_session(&mut self, side: usize) {
        let open: Vec<usize> = (0..self.sessions.len()).filter(|at| self.sessions[*at].open[side]).collect();
        let Some(at) = self.rng.choice(open) else { return };
        self.say(|| format!("session {at} is over for {}", ["the agent", "the controller"][side]));
        match side {
            AGENT => self.leave_session(at),
            _ => self.close_session(at),
        }
    }

    /// A message comes twice, the second one whenever it likes, within its session.
    fn repeat_message(&mut self) {
        let Some(session) = self.sessions.last_mut() else { return };
        if let Some(at) = (!session.down.is_empty()).then(|| self.rng.usize(..session.down.len())) {
            let again = session.down[at].clone();
            if !matches!(again, Down::Welcome) {
                let to = self.rng.usize(at..session.down.len()) + 1;
                session.down.insert(to, again);
            }
        }
        if let Some(at) = (!session.up.is_empty()).then(|| self.rng.usize(..session.up.len())) {
            let again = session.up[at].clone();
            if !matches!(again, Up::Hello { .. }) {
                session.up.insert(at, again);
            }
        }
    }

    /// The end of a connection reaches whoever still holds it, behind all that was on its way.
    fn hear_of_ends(&mut self) {
        for at in 0..self.sessions.len() {
            let session = &self.sessions[at];
            if session.open == [true, false] && session.down.is_empty() {
                self.leave_session(at);
            } else if session.open == [false, true] && session.up.is_empty() {
                self.close_session(at);
            }
        }
    }

    fn check(&self) {
        for (number, run) in self.controller.runs.iter().enumerate() {
            if run.state == RunState::Cancelled && self.agent.is_alive(number as u64) {
                broken(format!("confirmed-kill: run {number} is cancelled, and lives"));
            }
        }
    }

    fn is_over(&self) -> bool {
        self.controller.runs.iter().all(|run| run.state.is_terminal()) && self.agent.is_done()
    }

    fn check_the_end(&self) {
        for key in &self.witness.handed_over {
            let attempt = &self.controller.attempts[key];
            if attempt.result.is_none() {
                broken(format!(
                    "result-kept: {key:?} was answered, and the controller does not have it: {attempt:?}"
                ));
            }
        }
    }
}
