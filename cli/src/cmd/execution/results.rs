//! What the steps of a job came to: hosts × steps, and the summary at the end of a run.

use anyhow::Result;
use model::{
    Reason,
    api::{
        job::{Cell, Results},
        output::Stream,
    },
    id::ExecutionId,
    run::RunState,
};

use crate::{
    client::Client,
    labels::CONTROLLER,
    output::{self, Table, human},
};

/// One row for the controller's own steps, where there are any, then one for each host; a column for each step. Below it what
/// steps have started.
pub(crate) fn matrix(results: &Results) -> String {
    let mut table = Table::plain();
    let head = ["TARGET", "BATCH", "STATE"].map(str::to_owned).into_iter();
    table.row(head.chain(results.steps.iter().map(|step| step.name.clone())));
    if results.controller.iter().any(Option::is_some) {
        let head = [format!("({CONTROLLER})"), "-".to_owned(), "-".to_owned()].into_iter();
        table.row(head.chain(results.controller.iter().map(|cell| word(cell.as_ref()))));
    }
    let started = results.controller.iter().zip(&results.steps).filter_map(|(cell, step)| {
        let cell = cell.as_ref()?;
        Some(format!("{}: execution {} ({})\n", step.name, cell.started?, cell.state.as_str()))
    });
    let started: String = started.collect();
    for host in &results.hosts {
        let head = [host.target.clone(), host.batch.to_string(), host.state.clone()].into_iter();
        table.row(head.chain(host.runs.iter().map(|cell| word(cell.as_ref()))));
    }
    let table = table.take();
    if started.is_empty() { table } else { format!("{table}\n{started}") }
}

/// How a run stands, as short as it can be said.
fn word(cell: Option<&Cell>) -> String {
    let Some(cell) = cell else { return "-".to_owned() };
    match (cell.state, cell.exit_code) {
        (RunState::Succeeded, _) => "ok".to_owned(),
        (RunState::Failed, Some(code)) => format!("failed {code}"),
        (RunState::TimedOut, _) => "timed out".to_owned(),
        (state, _) => state.as_str().to_owned(),
    }
}

/// Says for each step how many of its runs are in which state, and which runs did not end well, `most` of them.
///
/// # Errors
/// As the request.
pub(crate) async fn summary(client: &Client, id: ExecutionId, most: usize) -> Result<()> {
    let results = client.results(id, None).await?;
    // That stderr is gone changes nothing about how the execution ended.
    let _ = output::write(Stream::Stderr, by_step(&results).as_bytes());
    let (bad, count) = bad(&results, most);
    if count > 0 {
        let _ = output::write(Stream::Stderr, bad.as_bytes());
    }
    if count > most {
        output::note(&format!("and {} more: opsctl execution results {id} --state failed", count - most));
    }
    Ok(())
}

/// All runs with the name of who does them and the place of their step.
fn cells(results: &Results) -> impl Iterator<Item = (&str, usize, &Cell)> {
    fn there<'a>(
        target: &'a str,
        cells: &'a [Option<Cell>],
    ) -> impl Iterator<Item = (&'a str, usize, &'a Cell)> {
        cells.iter().enumerate().filter_map(move |(step, cell)| Some((target, step, cell.as_ref()?)))
    }
    there(CONTROLLER, &results.controller)
        .chain(results.hosts.iter().flat_map(|host| there(&host.target, &host.runs)))
}

/// Steps × states, with those states that there are.
fn by_step(results: &Results) -> String {
    let mut counts = vec![[0_usize; RunState::ALL.len()]; results.steps.len()];
    for (_, step, cell) in cells(results) {
        let state = RunState::ALL.iter().position(|state| *state == cell.state);
        if let (Some(row), Some(state)) = (counts.get_mut(step), state) {
            row[state] += 1;
        }
    }
    let there: Vec<usize> =
        (0..RunState::ALL.len()).filter(|state| counts.iter().any(|row| row[*state] > 0)).collect();
    let mut table = Table::plain();
    let head = there.iter().map(|state| RunState::ALL[*state].as_str().to_uppercase().replace('_', " "));
    table.row(["STEP".to_owned()].into_iter().chain(head));
    for (step, row) in results.steps.iter().zip(&counts) {
        let cells = there.iter().map(|state| row[*state].to_string());
        table.row([step.name.clone()].into_iter().chain(cells));
    }
    table.take()
}

/// Runs that did not end well, `most` of them, and how many there are.
fn bad(results: &Results, most: usize) -> (String, usize) {
    let is_bad = |cell: &Cell| !matches!(cell.state, RunState::Succeeded | RunState::Skipped);
    let mut table = Table::new(&["TARGET", "STEP", "STATE", "EXIT", "REASON"]);
    let mut count = 0;
    for (target, step, cell) in cells(results).filter(|(.., cell)| is_bad(cell)) {
        count += 1;
        if count <= most {
            table.row([
                target.to_owned(),
                results.steps.get(step).map(|step| step.name.clone()).unwrap_or_default(),
                cell.state.as_str().to_owned(),
                human::or_dash(cell.exit_code),
                human::or_dash(cell.reason.map(Reason::as_str)),
            ]);
        }
    }
    (table.take(), count)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn results() -> Results {
        let id = "00000000-0000-7000-8000-000000000001";
        let cell = |state: &str, exit: Option<i32>| serde_json::json!({ "run_id": id, "state": state, "exit_code": exit });
        let step = |name: &str, is_controllers: bool| {
            serde_json::json!({
                "name": name, "needs": [], "summary": "", "is_controllers": is_controllers, "is_rollback": false
            })
        };
        let host = |target: &str, state: &str, runs: serde_json::Value| serde_json::json!({ "agent_id": id, "target": target, "batch": 0, "state": state, "runs": runs });
        serde_json::from_value(serde_json::json!({
            "execution_id": id,
            "steps": [step("settle", true), step("ask", false), step("act", false)],
            "controller": [cell("succeeded", None), null, null],
            "hosts": [
                host("web-1", "succeeded", serde_json::json!([null, cell("succeeded", Some(0)), cell("succeeded", Some(0))])),
                host("web-2", "failed", serde_json::json!([null, cell("failed", Some(3)), cell("skipped", None)])),
            ],
        }))
        .unwrap()
    }

    #[test]
    fn hosts_and_steps() {
        assert_eq!(
            matrix(&results()),
            "TARGET        BATCH  STATE      settle  ask       act\n\
             (controller)  -      -          ok      -         -\n\
             web-1         0      succeeded  -       ok        ok\n\
             web-2         0      failed     -       failed 3  skipped\n"
        );
    }

    #[test]
    fn steps_and_states() {
        assert_eq!(
            by_step(&results()),
            "STEP    SUCCEEDED  FAILED  SKIPPED\n\
             settle  1          0       0\n\
             ask     1          1       0\n\
             act     1          0       1\n"
        );
        let (table, count) = bad(&results(), 50);
        assert_eq!(count, 1);
        assert!(table.contains("web-2   ask   failed  3"), "{table}");
        assert_eq!(bad(&results(), 0).1, 1);
    }
}
