//! `opsctl execution`: what was started, and how it ended.

use anyhow::Result;
use jiff::Timestamp;
use model::{
    Reason,
    api::execution::{Execution, Run},
    execution::RunCounts,
    run::RunState,
};
use serde::Serialize;

use crate::{
    args::ExecutionCommand,
    client::Client,
    clock,
    exit::Exit,
    output::{self, Table, human},
};

/// One execution with all of its runs.
#[derive(Serialize)]
struct WithRuns {
    execution: Execution,
    runs: Vec<Run>,
}

/// # Errors
/// As the requests, and when stdout is closed or full.
pub(crate) async fn run(client: &Client, command: ExecutionCommand) -> Result<Exit> {
    match command {
        ExecutionCommand::List { state, limit, shown } => {
            let query = state.map(|state| ("state", state.as_str().to_owned())).into_iter().collect();
            let now = clock::now();
            let header = &["ID", "STATE", "RUNS", "CREATED", "TOOK", "ACTOR", "SUMMARY"];
            let pages = client.pages(&["api", "v1", "executions"], query, Some(limit));
            output::list(pages, shown.output, header, |execution: &Execution| {
                vec![
                    execution.id.to_string(),
                    execution.state.as_str().to_owned(),
                    format!("{}/{}", execution.runs.succeeded, execution.runs.total),
                    human::relative(execution.created_at, now),
                    human::or_dash(execution.ended_at.map(|end| human::elapsed(execution.created_at, end))),
                    execution.actor.clone(),
                    execution.summary.clone(),
                ]
            })
            .await?;
        }
        ExecutionCommand::Show { id, shown } => {
            let execution = client.execution(id).await?;
            let runs = client.runs(id, None).all().await?;
            let whole = WithRuns { execution, runs };
            output::show(shown.output, &whole, |whole| {
                describe(&whole.execution, clock::now()) + "\n" + &runs_table(&whole.runs)
            })?;
        }
        ExecutionCommand::Cancel { id, shown } => {
            let execution = client.cancel(id).await?;
            output::show(shown.output, &execution, |execution| {
                let state = execution.state;
                if state.is_terminal() {
                    format!("the execution {id} has ended: {}\n", state.as_str())
                } else {
                    format!("cancelling the execution {id}: {}\n", counts(&execution.runs))
                }
            })?;
        }
    }
    Ok(Exit::Succeeded)
}

fn describe(execution: &Execution, now: Timestamp) -> String {
    let mut table = Table::plain();
    let mut row = |name: &str, value: String| table.row([name.to_owned(), value]);
    row("Id", execution.id.to_string());
    row("Command", execution.summary.clone());
    let cancelling = execution.cancel_requested && !execution.state.is_terminal();
    row("State", format!("{}{}", execution.state.as_str(), if cancelling { ", cancelling" } else { "" }));
    row("Runs", counts(&execution.runs));
    row("Created", human::moment(execution.created_at, now));
    if let Some(end) = execution.ended_at {
        row(
            "Ended",
            format!("{}, after {}", human::moment(end, now), human::elapsed(execution.created_at, end)),
        );
    }
    row("Actor", execution.actor.clone());
    row("Request", execution.request_id.clone());
    table.take()
}

fn runs_table(runs: &[Run]) -> String {
    let mut table = Table::new(&["TARGET", "STATE", "EXIT", "TOOK", "OUTPUT", "REASON", "DETAIL"]);
    for run in runs {
        let took = run.started_at.zip(run.ended_at).map(|(start, end)| human::elapsed(start, end));
        let stored =
            human::bytes(run.output.stdout.stored_bytes.saturating_add(run.output.stderr.stored_bytes));
        let whole = if run.output.complete == Some(false) { ", not all" } else { "" };
        table.row([
            run.target.clone(),
            run.state.as_str().to_owned(),
            exit_status(run),
            human::or_dash(took),
            format!("{stored}{whole}"),
            human::or_dash(run.reason.map(Reason::as_str)),
            run.detail.clone().unwrap_or_default(),
        ]);
    }
    table.take()
}

/// The exit code, or the signal that ended it.
pub(super) fn exit_status(run: &Run) -> String {
    match (run.exit_code, run.signal) {
        (_, Some(signal)) => format!("signal {signal}"),
        (code, None) => human::or_dash(code),
    }
}

/// `2 succeeded, 1 failed`: those states that there are.
pub(super) fn counts(runs: &RunCounts) -> String {
    let states = [
        (runs.waiting, "waiting"),
        (runs.active, RunState::Active.as_str()),
        (runs.succeeded, RunState::Succeeded.as_str()),
        (runs.failed, RunState::Failed.as_str()),
        (runs.timed_out, "timed out"),
        (runs.cancelled, RunState::Cancelled.as_str()),
        (runs.skipped, RunState::Skipped.as_str()),
        (runs.expired, RunState::Expired.as_str()),
        (runs.unknown, RunState::Unknown.as_str()),
    ];
    let there: Vec<String> = states
        .iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, name)| format!("{count} {name}"))
        .collect();
    if there.is_empty() { "none".to_owned() } else { there.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_states_that_there_are() {
        let runs = RunCounts { total: 3, succeeded: 2, timed_out: 1, ..RunCounts::default() };
        assert_eq!(counts(&runs), "2 succeeded, 1 timed out");
        assert_eq!(counts(&RunCounts::default()), "none");
    }
}
