//! What happens to runs: every report, timeout, cancel and loss ends here. There is no second path.
//!
//! Invariants: a state moves only through the pure functions of `model`, on rows that are locked, guarded by their
//! generation; what an attempt tells goes to its run only while it is the run's newest; counts and state of the
//! execution change in the same transaction; a report is answered after the commit.

mod again;
mod apply;
mod waiting;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use jiff::Timestamp;
use model::{
    Reason,
    attempt::AttemptState,
    execution::RunCounts,
    id::{AgentId, ExecutionId, OrgId, RunId},
    job::outputs::Outputs,
    run::RunState,
};
use serde_json::json;
use sqlx::PgConnection;
use tokio::sync::{Mutex, mpsc, oneshot};
use uuid::Uuid;

use super::App;
use crate::{
    clock,
    error::{During, Error, Result},
    store::{
        self,
        attempts::{self, Exit},
        audit,
    },
};

use again::Again;
use apply::Open;
pub(crate) use waiting::{Why, end_waiting};

/// An attempt's key.
pub(crate) type Key = (ExecutionId, RunId, i32);

/// Reports that wait to be recorded, of all agents together.
const WAITING: usize = 8192;
/// Reports that one transaction records at most.
const BATCH: usize = 1024;

/// Something that happened to an attempt.
#[derive(Debug, Clone)]
pub(crate) enum Happening {
    Accepted {
        at: Timestamp,
    },
    Started {
        at: Timestamp,
        pid: i32,
        boot_id: String,
    },
    Finished(Box<Finish>),
    Refused {
        reason: Reason,
        detail: String,
    },
    /// The order never reached the agent.
    Withdrawn,
    Lost {
        reason: Reason,
        detail: String,
    },
}

/// How an attempt ended, by its host's signed exit record.
#[derive(Debug, Clone)]
pub(crate) struct Finish {
    pub started_at: Option<Timestamp>,
    pub ended_at: Timestamp,
    pub reason: Reason,
    pub detail: String,
    pub exit_code: Option<i32>,
    pub signal: Option<i32>,
    /// What it told later steps.
    pub outputs: Option<Outputs>,
    pub exit: Exit,
}

/// A happening with the attempt that it happened to and the agent that says so.
#[derive(Debug, Clone)]
pub(crate) struct Report {
    pub key: Key,
    pub agent_id: AgentId,
    pub happening: Happening,
}

/// What became of a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Stored,
    Duplicate,
    Rejected(&'static str),
}

/// The queue of reports before the tables.
#[derive(Debug)]
pub(crate) struct Reports {
    sender: mpsc::Sender<(Report, oneshot::Sender<Verdict>)>,
    receiver: Mutex<mpsc::Receiver<(Report, oneshot::Sender<Verdict>)>>,
}

impl Reports {
    pub(crate) fn new() -> Self {
        let (sender, receiver) = mpsc::channel(WAITING);
        Self { sender, receiver: Mutex::new(receiver) }
    }

    /// Hands a report over; waits while too many wait. The answer comes after the commit, or never when it failed: then
    /// the agent sends the report again.
    pub(crate) async fn put(&self, report: Report) -> Option<oneshot::Receiver<Verdict>> {
        let (answer, answered) = oneshot::channel();
        self.sender.send((report, answer)).await.ok()?;
        Some(answered)
    }
}

/// Waits for reports and records them, all that wait in one transaction. If one of them has a value that cannot be
/// stored, each gets a transaction of its own, so that it stops nobody else's.
///
/// # Errors
/// When the database does not answer: nothing is recorded, and the agents send again.
pub(crate) async fn record_next(app: &App) -> Result<()> {
    let mut batch = Vec::with_capacity(64);
    app.reports.receiver.lock().await.recv_many(&mut batch, BATCH).await;
    let (reports, answers): (Vec<Report>, Vec<_>) = batch.into_iter().unzip();
    metrics::counter!("opsc_reports_total").increment(reports.len() as u64);
    let verdicts = match record(app, reports.clone()).await {
        Err(Error::Unstorable(..)) => {
            let mut verdicts = Vec::with_capacity(reports.len());
            for report in reports {
                match record(app, vec![report]).await {
                    Ok(one) => verdicts.extend(one),
                    Err(error @ Error::Unstorable(..)) => {
                        tracing::error!(
                            error = &error as &dyn std::error::Error,
                            "a report cannot be stored"
                        );
                        verdicts.push(Verdict::Rejected("unstorable"));
                    }
                    Err(error) => return Err(error),
                }
            }
            verdicts
        }
        recorded => recorded?,
    };
    for (answer, verdict) in answers.into_iter().zip(verdicts) {
        // The session may be gone; then nobody waits.
        let _ = answer.send(verdict);
    }
    Ok(())
}

/// Records reports in one transaction.
async fn record(app: &App, reports: Vec<Report>) -> Result<Vec<Verdict>> {
    let mut tx = app.db.worker().begin().await.during("begin")?;
    let mut settled = settle(app, &mut tx, reports, clock::now()).await?;
    fault::point("controller.report.written");
    tx.commit().await.during("commit")?;
    fault::point("controller.report.committed");
    let verdicts = std::mem::take(&mut settled.verdicts);
    settled.announce(app);
    Ok(verdicts)
}

/// What a transaction changed, to be told after its commit.
#[derive(Debug, Default)]
pub(crate) struct Settled {
    /// One for each report, in their order.
    pub verdicts: Vec<Verdict>,
    executions: BTreeSet<ExecutionId>,
    freed: BTreeSet<AgentId>,
    /// A step of a plan has ended.
    has_step: bool,
}

impl Settled {
    /// Nudges the followers, and the dispatcher where slots became free or runs went back to the queue.
    pub(crate) fn announce(self, app: &App) {
        if !self.executions.is_empty() {
            app.live.nudge(self.executions);
        }
        if self.has_step {
            app.wake.advance.notify_one();
        }
        if !self.freed.is_empty() {
            app.wake.free(self.freed);
            app.wake.others.notify_one();
        }
    }
}

/// An order that its agent refused as too late says nothing of the run, if it was late by this controller's clock as well:
/// it was on its way for too long, and the run is offered again. Otherwise the host's clock is wrong, which a person has to
/// hear of.
fn if_really_late(app: &App, of: &apply::Open, happening: Happening, now: Timestamp) -> Happening {
    let offered_at = of.locked.offered_at.to_jiff();
    let was_late = now.duration_since(offered_at).unsigned_abs() > app.info.timing.start_window;
    match happening {
        Happening::Refused { reason: Reason::StartExpired, detail } if was_late => {
            Happening::Refused { reason: Reason::NotStarted, detail }
        }
        other => other,
    }
}

/// Applies reports to the tables within the caller's transaction.
///
/// # Errors
/// When the database does not answer.
pub(crate) async fn settle(
    app: &App,
    connection: &mut PgConnection,
    reports: Vec<Report>,
    now: Timestamp,
) -> Result<Settled> {
    if reports.is_empty() {
        return Ok(Settled::default());
    }
    let keys: BTreeSet<Key> = reports.iter().map(|report| report.key).collect();
    let keys: Vec<Key> = keys.into_iter().collect();
    let mut open: HashMap<Key, Open> = attempts::lock(connection, &keys)
        .await?
        .into_iter()
        .filter_map(|locked| {
            let key = (locked.execution_id.into(), locked.run_id.into(), locked.number);
            Some((key, Open::new(locked)?))
        })
        .collect();

    // Read when the runs are locked, so that nobody tries them meanwhile.
    let again = Again::read(app, connection, &reports).await?;

    let mut settled = Settled::default();
    let mut moves: Vec<(ExecutionId, RunState, RunState)> = Vec::new();
    for report in reports {
        let verdict = match open.get_mut(&report.key) {
            None => Verdict::Rejected("unknown_attempt"),
            Some(of) if of.locked.agent_id != report.agent_id.0 => Verdict::Rejected("not_of_this_agent"),
            Some(of) => {
                let before = of.run;
                let happening = if_really_late(app, of, report.happening, now);
                let verdict = apply::apply(of, happening, now, |tried| again.after(report.key, tried, now));
                if verdict == Verdict::Stored {
                    settled.executions.insert(report.key.0);
                    if of.attempt.is_terminal() {
                        settled.freed.insert(report.agent_id);
                    }
                }
                if before != of.run {
                    if of.run.is_terminal() {
                        settled.has_step |= of.locked.is_step;
                        metrics::counter!("opsc_runs_ended_total", "state" => of.run.as_str()).increment(1);
                    }
                    moves.push((report.key.0, before, of.run));
                }
                verdict
            }
        };
        settled.verdicts.push(verdict);
    }

    let mut attempt_changes = Vec::new();
    let mut run_changes = Vec::new();
    let mut refusals = Vec::new();
    for (key, of) in open {
        if let Some(change) = &of.run_change
            && of.attempt == AttemptState::Refused
            && change.state.is_terminal()
        {
            refusals.push((OrgId(of.locked.org_id), key, change.reason, change.detail.clone()));
        }
        attempt_changes.extend(of.attempt_change);
        run_changes.extend(of.run_change);
        if let Some(outcome) = of.observed {
            attempts::observe(connection, key, &outcome).await?;
        }
    }
    attempts::change(connection, &attempt_changes).await?;
    store::runs::change(connection, &run_changes).await?;
    let refusals = refusals.into_iter().map(|(org, key, reason, detail)| {
        let detail = json!({ "execution_id": key.0, "attempt": key.2, "reason": reason, "detail": detail });
        let entry = audit::Entry {
            outcome: "refused",
            ..audit::Entry::new("agent", "run.refused", format!("run/{}", key.1), detail)
        };
        (org, entry)
    });
    audit::record_all(connection, now, refusals.collect()).await?;
    move_counts(connection, &moves, now).await?;
    Ok(settled)
}

/// Counts each run that moved where it is now, and computes the states of the executions. The row of one whose counts stay
/// what they are is not touched: others wait for it.
pub(crate) async fn move_counts(
    connection: &mut PgConnection,
    moves: &[(ExecutionId, RunState, RunState)],
    now: Timestamp,
) -> Result<()> {
    let mut by_execution: BTreeMap<ExecutionId, RunCounts> = BTreeMap::new();
    for (execution, before, after) in moves {
        let moved = by_execution.entry(*execution).or_default();
        moved.add(*before, -1);
        moved.add(*after, 1);
    }
    by_execution.retain(|_, moved| *moved != RunCounts::default());
    if by_execution.is_empty() {
        return Ok(());
    }
    let ids: Vec<Uuid> = by_execution.keys().map(|id| id.0).collect();
    for (id, mut counts) in store::executions::counts_for_update(connection, &ids).await? {
        counts += &by_execution[&id];
        store::executions::set_counts(connection, id, &counts, now).await?;
    }
    Ok(())
}
