//! `opsctl execution`: what was started, and how it ended.

pub(super) mod results;
mod undo;

use anyhow::Result;
use jiff::Timestamp;
use model::{
    Reason,
    api::{
        execution::{Attempt, Execution, RetryExecution, Run, Usage},
        undo::UndoExecution,
    },
    command::Command,
    execution::RunCounts,
    id::{ExecutionId, RunId},
    job::Rollout,
    run::RunState,
    sandbox::{Limits, Network, Profile},
};
use serde::Serialize;

use super::exec;
use crate::{
    args::{ExecutionCommand, OneExecution},
    client::Client,
    clock,
    exit::Exit,
    labels,
    output::{self, Table, human},
};

/// One execution with all of its runs.
#[derive(Serialize)]
struct WithRuns {
    execution: Execution,
    /// Where something of one that was stopped is not undone.
    #[serde(skip_serializing_if = "Option::is_none")]
    changed_hosts: Option<i64>,
    runs: Vec<Run>,
    /// Of runs that have more to tell than their newest attempt alone.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    attempts: Vec<OfRun>,
}

/// The tries of one run.
#[derive(Serialize)]
struct OfRun {
    run_id: RunId,
    target: String,
    attempts: Vec<Attempt>,
}

/// Runs whose tries are shown at most.
const SHOWN_TRIES: usize = 20;

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
            let attempts = attempts(client, id, &runs).await?;
            // Of one that was stopped people ask what it has done so far.
            let changed_hosts =
                if execution.stopped { Some(client.changes(id, Some(1)).await?.total) } else { None };
            let whole = WithRuns { execution, changed_hosts, runs, attempts };
            output::show(shown.output, &whole, |whole| {
                let head = describe(&whole.execution, whole.changed_hosts, clock::now());
                let mut text = head + "\n" + &runs_table(&whole.runs);
                if !whole.attempts.is_empty() {
                    text = text + "\n" + &attempts_table(&whole.attempts, clock::now());
                }
                text
            })?;
        }
        ExecutionCommand::Results { id, state, shown } => {
            let found = client.results(id, state.as_deref()).await?;
            output::show(shown.output, &found, results::matrix)?;
        }
        ExecutionCommand::Retry(args) => {
            let request = RetryExecution { hosts: args.hosts.into(), from: args.from, only: args.only };
            let path = ["api", "v1", "executions", &args.id.to_string(), "retry"];
            return exec::begin(client, &path, &request, &[], args.detach, args.shown.output).await;
        }
        ExecutionCommand::Undo(args) if args.list => {
            let changes = client.changes(args.id, None).await?;
            output::show(args.shown.output, &changes, undo::list)?;
        }
        ExecutionCommand::Undo(args) => {
            let request = UndoExecution { hosts: args.hosts.into() };
            let path = ["api", "v1", "executions", &args.id.to_string(), "undo"];
            return exec::begin(client, &path, &request, &[], args.detach, args.shown.output).await;
        }
        ExecutionCommand::Pause(one) => steer(client, one, "pause").await?,
        ExecutionCommand::Resume(one) => steer(client, one, "resume").await?,
        ExecutionCommand::Abort(one) => steer(client, one, "abort").await?,
        ExecutionCommand::Cancel(OneExecution { id, shown }) => {
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

async fn steer(client: &Client, one: OneExecution, verb: &str) -> Result<()> {
    let execution = client.steer(one.id, verb).await?;
    output::show(one.shown.output, &execution, |execution| {
        format!("asked to {verb} the execution {}: {}\n", one.id, counts(&execution.runs))
    })
}

fn describe(execution: &Execution, changed_hosts: Option<i64>, now: Timestamp) -> String {
    let mut table = Table::plain();
    let mut row = |name: &str, value: String| table.row([name.to_owned(), value]);
    row("Id", execution.id.to_string());
    match &execution.job {
        Some(job) => row("Job", format!("{}, version {}", job.name, job.version)),
        None => row("Command", execution.summary.clone()),
    }
    execution.command.iter().flat_map(confinement).for_each(|(name, value)| row(name, value));
    let cancelling = execution.cancel_requested && !execution.state.is_terminal();
    let also = [
        (cancelling, ", cancelling"),
        (execution.paused, ", paused"),
        (execution.aborted, ", aborted"),
        (execution.stopped && !execution.aborted, ", the rollout is stopped"),
    ];
    let also: String = also.into_iter().filter_map(|(is_so, text)| is_so.then_some(text)).collect();
    row("State", format!("{}{also}", execution.state.as_str()));
    if let Some(rollout) = execution.rollout.as_ref().map(Rollout::summary).filter(|text| !text.is_empty()) {
        row("Rollout", rollout);
    }
    if let Some(lock) = &execution.waits_for {
        row("Waits for", waits_for(lock, execution));
    }
    match (execution.undoes, execution.retry_of) {
        (Some(undone), before) if before == Some(undone) => row("Undoes", undone.to_string()),
        (undone, before) => {
            undone.into_iter().for_each(|undone| row("Undoes", undone.to_string()));
            before.into_iter().for_each(|before| row("Retry of", before.to_string()));
        }
    }
    if let Some(parent) = execution.parent_id {
        row("Part of", parent.to_string());
    }
    row("Runs", counts(&execution.runs));
    if let Some(changed) = changed_hosts {
        let hosts = human::count(changed, "host");
        row("Changed", format!("{hosts}: opsctl execution undo {} --list", execution.id));
    }
    if execution.priority != 0 {
        row("Priority", execution.priority.to_string());
    }
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

/// The lock in words, and who holds it.
fn waits_for(lock: &str, execution: &Execution) -> String {
    let what = match (lock.split_once('/'), &execution.job) {
        (Some(("job", _)), Some(job)) => format!("the job '{}', which runs once at a time", job.name),
        (Some(("name", name)), _) => format!("the lock '{name}'"),
        _ => format!("the lock {lock}"),
    };
    match execution.lock_held_by {
        Some(holder) => format!("{what}: the execution {holder} holds it"),
        None => what,
    }
}

/// How the command asks to be kept apart from its hosts, as far as it does.
fn confinement(command: &Command) -> Vec<(&'static str, String)> {
    let mut rows = Vec::new();
    let mut row = |name, value: Option<String>| rows.extend(value.map(|value| (name, value)));
    let folders = |folders: &[String]| (!folders.is_empty()).then(|| folders.join(", "));
    row("Sandbox", command.sandbox.map(|profile| profile.to_string()));
    row("Network", (command.network == Network::Loopback).then(|| "loopback only".to_owned()));
    row("Reads", folders(&command.read));
    row("Writes", folders(&command.write));
    row("Limits", limits(&command.limits));
    row("Container", command.container.as_ref().map(|container| container.image.clone()));
    rows
}

fn limits(limits: &Limits) -> Option<String> {
    let bytes = |count: u64| human::bytes(i64::try_from(count).unwrap_or(i64::MAX));
    let there: Vec<String> = [
        limits.memory_bytes.map(|count| format!("memory {}", bytes(count))),
        limits.pids.map(|count| format!("{count} processes")),
        limits.cpu_percent.map(|percent| format!("cpu {percent}%")),
        limits.io_bytes_per_second.map(|count| format!("disk {}/s", bytes(count))),
        limits.open_files.map(|count| format!("{count} open files")),
        limits.file_bytes.map(|count| format!("files of {}", bytes(count))),
    ]
    .into_iter()
    .flatten()
    .collect();
    (!there.is_empty()).then(|| there.join(", "))
}

/// Sandbox, processor time and peak memory; what is not known or not counted is a dash.
fn usage(sandbox: Option<Profile>, usage: Option<&Usage>) -> [String; 3] {
    let cpu = usage.map(|u| u.cpu_user_us.saturating_add(u.cpu_system_us)).filter(|time| *time > 0);
    let cpu = cpu.map(human::processor_time);
    let memory = usage.map(|u| u.peak_memory_bytes).filter(|peak| *peak > 0).map(human::bytes);
    [human::or_dash(sandbox), human::or_dash(cpu), human::or_dash(memory)]
}

fn runs_table(runs: &[Run]) -> String {
    let mut table = Table::new(&[
        "TARGET", "STATE", "EXIT", "TOOK", "SANDBOX", "CPU", "MEMORY", "OUTPUT", "REASON", "DETAIL",
    ]);
    for run in runs {
        let took = run.started_at.zip(run.ended_at).map(|(start, end)| human::elapsed(start, end));
        let stored =
            human::bytes(run.output.stdout.stored_bytes.saturating_add(run.output.stderr.stored_bytes));
        let whole = if run.output.complete == Some(false) { ", not all" } else { "" };
        let [sandbox, cpu, memory] = usage(run.sandbox, run.usage.as_ref());
        table.row([
            labels::of_run(run),
            run.state.as_str().to_owned(),
            exit_status(run.exit_code, run.signal),
            human::or_dash(took),
            sandbox,
            cpu,
            memory,
            format!("{stored}{whole}"),
            human::or_dash(run.reason.map(Reason::as_str)),
            run.detail.clone().unwrap_or_default(),
        ]);
    }
    table.take()
}

/// The attempts of runs that were tried more than once, or whose newest attempt told something after it was given up.
async fn attempts(client: &Client, id: ExecutionId, runs: &[Run]) -> Result<Vec<OfRun>> {
    let mut telling = runs.iter().filter(|run| run.attempt > 1 || run.observed.is_some());
    let mut found = Vec::new();
    for run in telling.by_ref().take(SHOWN_TRIES) {
        let attempts = client.attempts(id, run.id).all().await?;
        found.push(OfRun { run_id: run.id, target: labels::of_run(run), attempts });
    }
    let more = telling.count();
    if more > 0 {
        output::note(&format!(
            "the tries of {} more are not shown",
            human::count(i64::try_from(more)?, "run")
        ));
    }
    Ok(found)
}

fn attempts_table(runs: &[OfRun], now: Timestamp) -> String {
    let mut table = Table::new(&["TARGET", "TRY", "STATE", "EXIT", "OFFERED", "TOOK", "REASON", "DETAIL"]);
    for run in runs {
        for attempt in &run.attempts {
            let took =
                attempt.started_at.zip(attempt.ended_at).map(|(start, end)| human::elapsed(start, end));
            let mut detail = attempt.detail.clone().unwrap_or_default();
            if let Some(observed) = &attempt.observed {
                let exit = exit_status(observed.exit_code, observed.signal);
                detail = format!(
                    "{detail} (told {}: {}, exit {exit})",
                    human::relative(observed.observed_at, now),
                    observed.reason.as_str()
                );
            }
            table.row([
                run.target.clone(),
                attempt.number.to_string(),
                attempt.state.as_str().to_owned(),
                exit_status(attempt.exit_code, attempt.signal),
                human::relative(attempt.offered_at, now),
                human::or_dash(took),
                human::or_dash(attempt.reason.map(Reason::as_str)),
                detail.trim_start().to_owned(),
            ]);
        }
    }
    table.take()
}

/// The exit code, or the signal that ended it.
pub(super) fn exit_status(code: Option<i32>, signal: Option<i32>) -> String {
    match (code, signal) {
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
    fn what_a_command_asks_of_its_sandbox() {
        let plain = Command::new(model::command::Program::Shell("true".to_owned()));
        assert!(confinement(&plain).is_empty());
        let command = Command {
            sandbox: Some(Profile::Isolated),
            network: Network::Loopback,
            read: vec!["/srv".to_owned(), "/opt".to_owned()],
            limits: Limits { memory_bytes: Some(64 << 20), cpu_percent: Some(50), ..Limits::default() },
            ..plain
        };
        let rows = confinement(&command);
        let want = [
            ("Sandbox", "isolated"),
            ("Network", "loopback only"),
            ("Reads", "/srv, /opt"),
            ("Limits", "memory 64.0 MiB, cpu 50%"),
        ];
        assert_eq!(rows.iter().map(|(name, value)| (*name, value.as_str())).collect::<Vec<_>>(), want);
    }

    #[test]
    fn what_is_not_counted_is_a_dash() {
        assert_eq!(usage(None, None), ["-", "-", "-"]);
        assert_eq!(usage(None, Some(&Usage::default())), ["-", "-", "-"]);
        let counted = Usage { cpu_user_us: 1_000, cpu_system_us: 2_000, ..Usage::default() };
        assert_eq!(usage(Some(Profile::Strict), Some(&counted)), ["strict", "0.003s", "-"]);
    }

    #[test]
    fn only_states_that_there_are() {
        let runs = RunCounts { total: 3, succeeded: 2, timed_out: 1, ..RunCounts::default() };
        assert_eq!(counts(&runs), "2 succeeded, 1 timed out");
        assert_eq!(counts(&RunCounts::default()), "none");
    }
}
