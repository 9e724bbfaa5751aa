//! Random histories: dispatches, reports of any attempt in any order and number, expiries and cancels.

use jiff::Timestamp;
use model::{
    api::execution::Usage,
    command::{Command, Program},
    retry::{self, Next, Retry},
};
use proptest::prelude::*;
use uuid::Uuid;

use super::{super::Finish, *};
use crate::store::attempts::Exit;

#[derive(Debug, Clone, Copy)]
enum Event {
    Dispatch,
    /// Of the attempt at this place, modulo their number.
    Report(usize, Told),
    StartExpired,
    Cancel,
}

#[derive(Debug, Clone, Copy)]
enum Told {
    Accepted,
    Started,
    Finished(Reason, i32),
    Refused(Reason),
    Withdrawn,
    Lost(Reason),
}

impl Told {
    fn happening(self) -> Happening {
        let at = Timestamp::UNIX_EPOCH;
        match self {
            Self::Accepted => Happening::Accepted { at },
            Self::Started => Happening::Started { at, pid: 1, boot_id: String::new() },
            Self::Finished(reason, code) => Happening::Finished(Box::new(Finish {
                outputs: None,
                started_at: Some(at),
                ended_at: at,
                reason,
                detail: String::new(),
                exit_code: (reason == Reason::Exited).then_some(code),
                signal: None,
                exit: Exit {
                    record: Vec::new(),
                    signature: Vec::new(),
                    stdout_written: 0,
                    stderr_written: 0,
                    stdout_sha256: Vec::new(),
                    stderr_sha256: Vec::new(),
                    usage: Usage::default(),
                    sandbox: None,
                },
            })),
            Self::Refused(reason) => Happening::Refused { reason, detail: String::new() },
            Self::Withdrawn => Happening::Withdrawn,
            Self::Lost(reason) => Happening::Lost { reason, detail: String::new() },
        }
    }
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let reason = || proptest::sample::select(Reason::ALL.to_vec());
    let told = prop_oneof![
        Just(Told::Accepted),
        Just(Told::Started),
        (reason(), 0..2).prop_map(|(reason, code)| Told::Finished(reason, code)),
        reason().prop_map(Told::Refused),
        Just(Told::Refused(Reason::AgentBusy)),
        Just(Told::Withdrawn),
        reason().prop_map(Told::Lost),
        Just(Told::Lost(Reason::AgentLost)),
    ];
    let event = prop_oneof![
        8 => Just(Event::Dispatch),
        16 => (any::<usize>(), told).prop_map(|(which, told)| Event::Report(which, told)),
        1 => Just(Event::StartExpired),
        1 => Just(Event::Cancel),
    ];
    prop::collection::vec(event, 1..80)
}

/// The rows of one run, as the tables would hold them.
struct Rows {
    command: Command,
    run: RunState,
    attempts: Vec<Tried>,
    observed: usize,
}

impl Rows {
    fn newest(&self) -> i32 {
        i32::try_from(self.attempts.len()).unwrap()
    }

    fn step(&mut self, event: Event) {
        match event {
            Event::Dispatch => {
                // As the dispatcher does: what was tried before decides, beside the run's own state.
                if let Ok(run) = run::next(self.run, RunEvent::Offered)
                    && !matches!(retry::next(&self.command, &self.attempts), Next::Over(_))
                {
                    self.run = run;
                    let number = self.newest() + 1;
                    let state = AttemptState::Offered;
                    self.attempts.push(Tried { number, state, reason: None, exit_code: None });
                }
            }
            Event::Report(which, told) if !self.attempts.is_empty() => {
                let which = which % self.attempts.len();
                self.report(which, told);
            }
            Event::Report(..) => {}
            Event::StartExpired => self.run = run::next(self.run, RunEvent::StartExpired).unwrap_or(self.run),
            Event::Cancel => self.run = run::next(self.run, RunEvent::Cancelled).unwrap_or(self.run),
        }
    }

    fn report(&mut self, which: usize, told: Told) {
        let attempt = self.attempts[which];
        let locked = Locked {
            execution_id: Uuid::nil(),
            run_id: Uuid::nil(),
            number: attempt.number,
            org_id: Uuid::nil(),
            agent_id: Uuid::nil(),
            state: attempt.state.as_str().to_owned(),
            generation: 0,
            run_state: self.run.as_str().to_owned(),
            run_generation: 0,
            is_step: false,
            run_attempt: self.newest(),
            offered_at: jiff_sqlx::ToSqlx::to_sqlx(crate::clock::now()),
        };
        let mut open = Open::new(locked).unwrap();
        let again = |last: Tried| {
            let mut tried = self.attempts.clone();
            tried[which] = last;
            let at = Timestamp::UNIX_EPOCH;
            matches!(retry::next(&self.command, &tried), Next::Again { .. }).then(|| Due {
                at,
                start_before: at,
                detail: String::new(),
            })
        };
        let verdict = apply(&mut open, told.happening(), Timestamp::UNIX_EPOCH, again);
        if verdict == Verdict::Duplicate {
            assert!(
                open.attempt_change.is_none() && open.run_change.is_none(),
                "a repetition changes nothing"
            );
        }
        if let Some(change) = open.attempt_change {
            let exit_code = change.exit_code;
            self.attempts[which] =
                Tried { state: change.state, reason: change.reason, exit_code, ..self.attempts[which] };
        }
        if let Some(change) = open.run_change {
            self.run = change.state;
        }
        self.observed += usize::from(open.observed.is_some());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn no_history_breaks_the_rules(
        events in events(),
        tries in prop::option::of(1_i64..=10),
        idempotent: bool,
    ) {
        let command = Command {
            retry: tries.map(Retry::of),
            idempotent,
            ..Command::new(Program::Shell("true".to_owned()))
        };
        let mut rows = Rows { command, run: RunState::Queued, attempts: Vec::new(), observed: 0 };
        for event in events {
            let (run, attempts) = (rows.run, rows.attempts.clone());
            rows.step(event);
            if run.is_terminal() {
                prop_assert_eq!(rows.run, run, "a terminal run moved");
                prop_assert_eq!(rows.attempts.len(), attempts.len(), "an ended run was tried");
            }
            for (before, after) in attempts.iter().zip(&rows.attempts) {
                if before.state.is_terminal() {
                    prop_assert_eq!(before, after, "a terminal attempt moved");
                }
            }
            let open: Vec<i32> =
                rows.attempts.iter().filter(|a| !a.state.is_terminal()).map(|a| a.number).collect();
            let want = if rows.run == RunState::Active { vec![rows.newest()] } else { Vec::new() };
            prop_assert_eq!(&open, &want, "{:?}: its newest attempt alone is open", rows.run);
            let began = rows.attempts.iter().filter(|a| {
                !matches!((a.state, a.reason), (AttemptState::Withdrawn, _)
                    | (AttemptState::Refused, Some(Reason::AgentBusy | Reason::NotStarted)))
            });
            let allowed = match (tries, idempotent) {
                (Some(tries), _) => tries,
                (None, true) => 10,
                (None, false) => 1,
            };
            prop_assert!(began.count() <= usize::try_from(allowed).unwrap(), "more tries than allowed");
        }
    }
}
