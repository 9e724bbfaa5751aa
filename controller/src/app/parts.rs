//! How each part of the controller fares, for `GET /status`.

use std::{
    collections::BTreeMap,
    sync::Mutex,
    time::{Duration, Instant},
};

use model::api::status::{Part, PartState};

/// A part that is late with its next round by this much is called down.
const STALE: Duration = Duration::from_secs(30);

#[derive(Debug)]
struct Round {
    took: Duration,
    ended: Instant,
    /// How long it rests before its next round; none when it waits for something to do.
    rest: Option<Duration>,
    problem: Option<String>,
}

/// The last round of each part.
#[derive(Debug, Default)]
pub(crate) struct Parts {
    rounds: Mutex<BTreeMap<&'static str, Round>>,
}

impl Parts {
    /// A round of `part` went well; the next one is due after `rest`, or when there is something to do.
    pub(crate) fn done(&self, part: &'static str, took: Duration, rest: Option<Duration>) {
        let round = Round { took, ended: Instant::now(), rest, problem: None };
        self.rounds.lock().expect("no holder of this lock panics").insert(part, round);
    }

    /// A round of `part` failed.
    pub(crate) fn failed(&self, part: &'static str, problem: String) {
        let round = Round { took: Duration::ZERO, ended: Instant::now(), rest: None, problem: Some(problem) };
        self.rounds.lock().expect("no holder of this lock panics").insert(part, round);
    }

    /// All parts by name.
    pub(crate) fn list(&self) -> Vec<Part> {
        let rounds = self.rounds.lock().expect("no holder of this lock panics");
        rounds
            .iter()
            .map(|(name, round)| {
                let age = round.ended.elapsed();
                let (state, message) = match &round.problem {
                    Some(problem) => (PartState::Degraded, problem.clone()),
                    None if round.rest.is_some_and(|rest| age > rest + STALE) => {
                        (PartState::Down, format!("no round for {} s", age.as_secs()))
                    }
                    None => (PartState::Ok, "ok".to_owned()),
                };
                Part { name: (*name).to_owned(), state, latency_ms: round.took.as_secs_f64() * 1e3, message }
            })
            .collect()
    }
}
