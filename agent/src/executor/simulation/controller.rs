//! A controller that is small enough to be believed: tables, sessions, and the rounds of its workers.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use model::{
    Reason,
    attempt::{self, AttemptEvent, AttemptState},
    run::{self, RunEvent, RunOutcome, RunState},
};
use prost::Message as _;
use proto::report::Body;

use super::{
    CONTROLLER, Down, LOST_AFTER, Mutant, SECOND, SKEW, START_WINDOW, Time, Up, World, broken, key, name,
    run_of,
};
use crate::messages::AttemptKey;

#[derive(Debug)]
pub(super) struct Run {
    pub(super) state: RunState,
    attempt: u32,
    due_at: Time,
    cancel: bool,
}

#[derive(Debug)]
pub(super) struct Attempt {
    state: AttemptState,
    offered_at: Time,
    /// The exit record, in time or after all.
    pub(super) result: Option<Vec<u8>>,
}

/// The row of the agent's session.
#[derive(Debug, Default)]
struct Row {
    connected: bool,
    opened_at: Time,
    closed_at: Time,
    journal_epoch: Vec<u8>,
    fence: u64,
    said_at: Time,
}

#[derive(Debug)]
pub(super) struct Controller {
    pub(super) runs: Vec<Run>,
    pub(super) attempts: BTreeMap<AttemptKey, Attempt>,
    row: Row,
    // What a crash takes.
    /// The session that orders go to.
    session: Option<usize>,
    /// Reports that wait for their transaction, with the session that is to be answered.
    waiting: VecDeque<(usize, proto::Report)>,
    /// Orders whose offer is committed.
    to_send: VecDeque<(usize, AttemptKey)>,
    /// Orders that were never sent.
    unsent: VecDeque<AttemptKey>,
}

/// What happened to an attempt.
enum Happening {
    Accepted,
    Started,
    Finished { record: Vec<u8>, reason: Reason },
    Refused(Reason),
    Withdrawn,
    Lost,
}

impl Controller {
    pub(super) fn new(runs: u64) -> Self {
        let run = |_| Run { state: RunState::Queued, attempt: 0, due_at: 0, cancel: false };
        Self {
            runs: (0..runs).map(run).collect(),
            attempts: BTreeMap::new(),
            row: Row::default(),
            session: None,
            waiting: VecDeque::new(),
            to_send: VecDeque::new(),
            unsent: VecDeque::new(),
        }
    }

    fn move_run(&mut self, number: u64, event: RunEvent) {
        let run = &mut self.runs[usize::try_from(number).unwrap()];
        if let Ok(next) = run::next(run.state, event) {
            if run.state.is_terminal() {
                broken(format!("final: run {number} was {:?} and is {next:?}", run.state));
            }
            run.state = next;
        }
    }
}

impl World {
    pub(super) fn controller_crashes(&mut self) {
        self.say(|| "the controller crashes".to_owned());
        let controller = &mut self.controller;
        controller.session = None;
        controller.waiting.clear();
        controller.to_send.clear();
        controller.unsent.clear();
        if std::mem::take(&mut controller.row.connected) {
            controller.row.closed_at = self.now;
        }
        for session in &mut self.sessions {
            session.open[CONTROLLER] = false;
            session.up.clear();
        }
    }

    pub(super) fn user_cancels(&mut self) {
        let number = self.rng.usize(..self.controller.runs.len());
        self.say(|| format!("somebody cancels run {number}"));
        self.controller.runs[number].cancel = true;
    }

    pub(super) fn controller_step(&mut self) {
        match self.rng.u8(0..6) {
            0 => self.offer(),
            1 => self.send_order(),
            2 => self.cancel_round(),
            3 => self.reap(),
            4 => self.record(),
            _ => self.withdraw_unsent(),
        }
    }

    pub(super) fn deliver_up(&mut self) {
        self.hear_of_ends();
        let ready: Vec<usize> = (0..self.sessions.len())
            .filter(|at| self.sessions[*at].open[CONTROLLER] && !self.sessions[*at].up.is_empty())
            .collect();
        let Some(at) = self.rng.choice(ready) else { return };
        let Some(message) = self.sessions[at].up.pop_front() else { return };
        match message {
            Up::Report(report) => {
                if self.has(Mutant::AnswersEarly) {
                    self.sessions[at].down.push_back(Down::Ack(report.seq));
                }
                self.controller.waiting.push_back((at, report));
            }
            Up::Hello { epoch, held, said_at } => {
                self.say(|| format!("session {at} opens with {} held", held.len()));
                self.welcome(at, epoch, &held, said_at);
            }
        }
    }

    fn welcome(&mut self, at: usize, epoch: Vec<u8>, held: &BTreeSet<AttemptKey>, said_at: Time) {
        let Row { connected, closed_at, said_at: newest, .. } = self.controller.row;
        let is_forgotten = !connected && closed_at < self.now - LOST_AFTER;
        if said_at < newest && !is_forgotten && !self.has(Mutant::BelievesLateHellos) {
            self.say(|| "that is late, and opens nothing".to_owned());
            return self.close_session(at);
        }
        let row = &mut self.controller.row;
        let is_same_journal = row.journal_epoch.is_empty() || row.journal_epoch == epoch;
        let fence = row.fence + 1;
        *row =
            Row { connected: true, opened_at: self.now, closed_at: 0, journal_epoch: epoch, fence, said_at };
        let absent: Vec<(AttemptKey, AttemptState)> = self
            .controller
            .attempts
            .iter()
            .filter(|(key, attempt)| !attempt.state.is_terminal() && !held.contains(key))
            .map(|(key, attempt)| (*key, attempt.state))
            .collect();
        for (key, state) in absent {
            let never_came = state == AttemptState::Offered
                && (is_same_journal || self.has(Mutant::WithdrawsFromLostJournals));
            if !never_came && is_same_journal {
                broken(format!(
                    "result-kept: {}.{} was {state:?}, and the agent forgot it",
                    run_of(key),
                    key.attempt
                ));
            }
            self.settle(key, if never_came { &Happening::Withdrawn } else { &Happening::Lost });
        }
        if let Some(older) = self.controller.session.replace(at) {
            self.sessions[older].open[CONTROLLER] = false;
        }
        self.sessions[at].down.push_back(Down::Welcome);
    }

    pub(super) fn close_session(&mut self, at: usize) {
        self.sessions[at].open[CONTROLLER] = false;
        self.sessions[at].up.clear();
        if self.controller.session == Some(at) {
            self.controller.session = None;
            self.controller.row.connected = false;
            self.controller.row.closed_at = self.now;
        }
    }

    /// Commits an offer; the order goes out later.
    fn offer(&mut self) {
        let Some(session) = self.controller.session else { return };
        let now = self.now;
        let due = |run: &Run| run.state == RunState::Queued && run.due_at <= now && !run.cancel;
        let Some(number) = self.controller.runs.iter().position(due) else { return };
        self.controller.runs[number].attempt += 1;
        let key = key(number as u64, self.controller.runs[number].attempt);
        self.controller.move_run(number as u64, RunEvent::Offered);
        let attempt = Attempt { state: AttemptState::Offered, offered_at: now, result: None };
        self.controller.attempts.insert(key, attempt);
        self.controller.to_send.push_back((session, key));
    }

    fn send_order(&mut self) {
        let Some((at, key)) = self.controller.to_send.pop_front() else { return };
        let is_gone = !self.sessions[at].open[CONTROLLER];
        if is_gone || self.faults && self.rng.u8(0..8) == 0 {
            return self.controller.unsent.push_back(key);
        }
        self.say(|| format!("order {} goes to session {at}", name(key)));
        let offered_at = self.controller.attempts[&key].offered_at;
        let argv = proto::Argv { argv: vec!["true".to_owned()] };
        let order = proto::WorkOrder {
            execution_id: key.execution_id.to_bytes(),
            run_id: key.run_id.to_bytes(),
            attempt: key.attempt,
            journal_epoch: self.controller.row.journal_epoch.clone(),
            fence: self.controller.row.fence,
            issued_at: offered_at,
            start_by: offered_at + START_WINDOW,
            nonce: vec![0; 16],
            command: Some(proto::Command {
                program: Some(proto::command::Program::Argv(argv)),
                timeout_ms: 1000,
                ..proto::Command::default()
            }),
            ..proto::WorkOrder::default()
        };
        self.sessions[at].down.push_back(Down::Order(Box::new(order)));
    }

    fn withdraw_unsent(&mut self) {
        if let Some(key) = self.controller.unsent.pop_front() {
            self.settle(key, &Happening::Withdrawn);
        }
    }

    fn cancel_round(&mut self) {
        for number in 0..self.controller.runs.len() {
            let run = &self.controller.runs[number];
            if !run.cancel {
                continue;
            }
            let (state, key) = (run.state, key(number as u64, run.attempt));
            if state == RunState::Active && self.has(Mutant::CancelsBlindly) {
                self.controller.move_run(number as u64, RunEvent::Ended(RunOutcome::Cancelled));
            } else if state == RunState::Active {
                if let Some(at) = self.controller.session {
                    self.sessions[at].down.push_back(Down::Cancel(key));
                }
            } else {
                self.controller.move_run(number as u64, RunEvent::Cancelled);
            }
        }
    }

    fn reap(&mut self) {
        let (row, now) = (&self.controller.row, self.now);
        let is_absent = !row.connected && row.closed_at < now - LOST_AFTER;
        let unanswered_before = now - START_WINDOW - 2 * SKEW;
        let (connected, opened_at) = (row.connected, row.opened_at);
        let lost: Vec<AttemptKey> = self
            .controller
            .attempts
            .iter()
            .filter(|(_, attempt)| {
                let is_unanswered = connected
                    && attempt.state == AttemptState::Offered
                    && attempt.offered_at < unanswered_before
                    && opened_at < unanswered_before;
                !attempt.state.is_terminal() && (is_absent || is_unanswered)
            })
            .map(|(key, _)| *key)
            .collect();
        for key in lost {
            self.settle(key, &Happening::Lost);
        }
    }

    /// One transaction: some reports are applied, and then answered.
    fn record(&mut self) {
        let count = self.rng.usize(0..=self.controller.waiting.len());
        let batch: Vec<(usize, proto::Report)> = self.controller.waiting.drain(..count).collect();
        for (at, report) in batch {
            let key = super::agent::key_of(&report);
            self.settle(key, &happening(report.body.expect("a report has a body")));
            if self.sessions[at].open[CONTROLLER] {
                self.sessions[at].down.push_back(Down::Ack(report.seq));
            }
        }
    }

    /// What `controller/src/app/runs.rs` does with what happened to an attempt.
    fn settle(&mut self, key: AttemptKey, happening: &Happening) {
        let Some(attempt) = self.controller.attempts.get_mut(&key) else { return };
        let event = match happening {
            Happening::Accepted => AttemptEvent::Accept,
            Happening::Started => AttemptEvent::Start,
            Happening::Finished { .. } => AttemptEvent::Finish,
            Happening::Refused(_) => AttemptEvent::Refuse,
            Happening::Withdrawn => AttemptEvent::Withdraw,
            Happening::Lost => AttemptEvent::Lose,
        };
        if let Happening::Finished { record, .. } = happening
            && matches!(attempt.state, AttemptState::Lost)
        {
            attempt.result = Some(record.clone());
        }
        let Ok(next) = attempt::next(attempt.state, event) else { return };
        attempt.state = next;
        let why = match happening {
            Happening::Finished { record, .. } => {
                attempt.result = Some(record.clone());
                "it had finished"
            }
            Happening::Refused(_) => "it was refused",
            Happening::Withdrawn => "it was withdrawn",
            Happening::Lost => "it was given up",
            Happening::Accepted | Happening::Started => "",
        };
        if next.is_terminal() {
            self.say(|| format!("{}: {why}", name(key)));
            self.witness.forbid(key, why);
        }
        let number = run_of(key);
        let run = &mut self.controller.runs[usize::try_from(number).unwrap()];
        if run.attempt != key.attempt {
            return;
        }
        let event = match happening {
            Happening::Accepted | Happening::Started => return,
            Happening::Finished { reason, .. } => RunEvent::Ended(match reason {
                Reason::Exited => RunOutcome::Succeeded,
                Reason::Cancelled => RunOutcome::Cancelled,
                _ => RunOutcome::Failed,
            }),
            Happening::Refused(Reason::AgentBusy | Reason::NotStarted) | Happening::Withdrawn => {
                run.due_at = self.now + SECOND;
                RunEvent::Returned
            }
            Happening::Refused(Reason::Cancelled) => RunEvent::Ended(RunOutcome::Cancelled),
            Happening::Refused(_) => RunEvent::Ended(RunOutcome::Failed),
            Happening::Lost => RunEvent::Lost,
        };
        self.controller.move_run(number, event);
    }
}

fn happening(body: Body) -> Happening {
    let reason = |text: &str| Reason::parse(text).expect("our own agent says it");
    match body {
        Body::Accepted(_) => Happening::Accepted,
        Body::Started(_) => Happening::Started,
        Body::Refused(refused) => Happening::Refused(reason(&refused.reason)),
        Body::Lost(_) => Happening::Lost,
        Body::Finished(finished) => {
            let record =
                proto::ExitRecord::decode(finished.record.as_slice()).expect("our own agent wrote it");
            Happening::Finished { reason: reason(&record.reason), record: finished.record }
        }
    }
}
