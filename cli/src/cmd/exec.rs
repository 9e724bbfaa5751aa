//! `opsctl exec`: starts a command on hosts, follows its output, and ends with its result.

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
};

use anyhow::{Context as _, Result};
use model::{
    Reason,
    api::{
        execution::{CreateExecution, Execution, Run, Targets},
        output::{OutputEnd, Stream},
    },
    command::{Command, OutputLimit, Program, Script},
    job::{Canary, Rollout, Step},
    limits,
    retry::Retry,
    run::RunState,
    sandbox::{Container, Limits, Network},
};
use serde::Serialize;
use tokio::{signal::ctrl_c, sync::watch};

use super::execution::{counts, exit_status, results};
use crate::{
    args::{ExecArgs, RolloutArgs},
    client::Client,
    exit::{Exit, Usage},
    follow, interrupt,
    labels::Labels,
    output::{self, Content, Format, Table, human, lines::Lines},
    report::Report,
};

/// Runs that the summary names at most; all of them are in `execution show`.
const SUMMARY_ROWS: usize = 50;

/// # Errors
/// When the request is not valid or refused, or the execution cannot be followed to its end.
pub(crate) async fn run(client: &Client, args: ExecArgs) -> Result<Exit> {
    let (format, detach) = (args.output, args.detach);
    let request = request(args)?;
    request.validate().map_err(|invalid| Usage(invalid.to_string()))?;
    let names = match &request.targets {
        Targets::Names(names) => names.as_slice(),
        _ => &[],
    };
    begin(client, &["api", "v1", "executions"], &request, names, detach, format).await
}

/// Starts an execution by a POST of `body` to `path`, and follows it to its end unless it is detached. The lines of
/// `names` are aligned from the first on.
///
/// # Errors
/// When it is refused or cannot be followed to its end.
pub(super) async fn begin(
    client: &Client,
    path: &[&str],
    body: &impl Serialize,
    names: &[String],
    detach: bool,
    format: Format,
) -> Result<Exit> {
    if detach {
        let execution = tokio::select! {
            started = client.start(path, body) => started?,
            Ok(()) = ctrl_c() => {
                output::note(interrupt::LEFT_STARTING);
                return Ok(Exit::Interrupted);
            }
        };
        gone(&execution);
        output::show(format, &Started { execution: &execution }, |_| format!("{}\n", execution.id))?;
        return Ok(Exit::Succeeded);
    }
    let (started, starting) = watch::channel(None);
    tokio::spawn(interrupt::watch(client.clone(), starting));
    let execution = client.start(path, body).await?;
    started.send_replace(Some(execution.id));
    output::note(&match &execution.job {
        Some(job) => {
            let runs = human::count(execution.runs.total, "run");
            format!("execution {} of {} version {}: {runs}", execution.id, job.name, job.version)
        }
        None if execution.rollout.is_some() => {
            format!("execution {}: {}", execution.id, human::count(execution.runs.total, "run"))
        }
        None => format!("execution {} on {}", execution.id, human::count(execution.runs.total, "target")),
    });
    gone(&execution);
    let result = match format {
        Format::Table => live(client, &execution, names).await,
        Format::Json | Format::Yaml => document(client, &execution, format).await,
    };
    result.with_context(|| {
        format!("the execution {id} may still go on (see it with: opsctl logs -f {id})", id = execution.id)
    })
}

/// Names the hosts that it was meant for and that are not there any more.
fn gone(execution: &Execution) {
    let left_out = &execution.left_out;
    if !left_out.is_empty() {
        let hosts = human::count(i64::try_from(left_out.len()).unwrap_or(i64::MAX), "host");
        let more = if left_out.len() > SUMMARY_ROWS { " …" } else { "" };
        let names: Vec<&str> = left_out.iter().take(SUMMARY_ROWS).map(String::as_str).collect();
        output::note(&format!("without {hosts} not enrolled any more: {}{more}", names.join(", ")));
    }
}

/// What `--detach` shows.
#[derive(Serialize)]
struct Started<'a> {
    execution: &'a Execution,
}

fn request(args: ExecArgs) -> Result<CreateExecution> {
    let targets = match (args.selector, args.target_group) {
        (Some(selector), _) => Targets::Selector(selector),
        (None, Some(group)) => Targets::Group(group),
        (None, None) if args.all => Targets::All(true),
        (None, None) => Targets::Names(args.target),
    };
    let program = match (args.shell, args.script) {
        (Some(line), _) => Program::Shell(line),
        (None, Some(path)) => Program::Script(Script {
            content: read_script(&path)?,
            interpreter: args.interpreter,
            args: args.argv,
        }),
        (None, None) => Program::Argv(args.argv),
    };
    let sandbox = args.sandbox;
    let command = Command {
        sandbox: sandbox.sandbox,
        network: if sandbox.loopback { Network::Loopback } else { Network::None },
        read: sandbox.read,
        write: sandbox.write,
        limits: Limits {
            memory_bytes: sandbox.memory,
            pids: sandbox.pids,
            cpu_percent: sandbox.cpu,
            io_bytes_per_second: sandbox.io,
            open_files: sandbox.open_files,
            file_bytes: sandbox.file_size,
        },
        container: sandbox.image.map(|image| Container { image }),
        program,
        env: args.env.into_iter().collect(),
        cwd: args.cwd,
        user: args.user,
        timeout_seconds: args.timeout.unwrap_or(limits::DEFAULT_TIMEOUT_SECONDS),
        retry: args.retries.filter(|retries| *retries > 0).map(|retries| retry(retries, args.retry_backoff)),
        idempotent: args.idempotent,
        output_limit_bytes: args.output_limit,
        on_output_limit: if args.halt_at_output_limit { OutputLimit::Halt } else { OutputLimit::Truncate },
        outputs: Vec::new(),
    };
    let rollout = rollout(args.rollout, &command);
    let (start_within_seconds, priority) = (args.start_within, args.priority);
    Ok(CreateExecution { targets, command, rollout, start_within_seconds, priority })
}

/// How it spreads over its hosts, if anything is said of that. The probe is run as the command is.
fn rollout(args: RolloutArgs, command: &Command) -> Option<Rollout> {
    let probe = args.probe.map(|line| {
        let step = Step {
            run: Some(line),
            env: command.env.clone(),
            cwd: command.cwd.clone(),
            user: command.user.clone(),
            sandbox: command.sandbox,
            network: command.network,
            read: command.read.clone(),
            write: command.write.clone(),
            limits: command.limits,
            container: command.container.clone(),
            ..Step::default()
        };
        Box::new(step)
    });
    let rollout = Rollout {
        canary: args.canary.map(|hosts| Canary { hosts, soak: args.soak, probe }),
        batches: (!args.batches.is_empty()).then_some(args.batches),
        max_parallel: args.max_parallel,
        max_failures: args.max_failures,
        pause: args.pause,
    };
    (rollout != Rollout::default()).then_some(rollout)
}

/// So many tries behind the first.
fn retry(retries: i64, backoff: Option<i64>) -> Retry {
    let policy = Retry::of(retries.saturating_add(1));
    let backoff_seconds = backoff.unwrap_or(policy.backoff_seconds);
    Retry { backoff_seconds, max_backoff_seconds: policy.max_backoff_seconds.max(backoff_seconds), ..policy }
}

/// The text of a script from a file, or from stdin.
///
/// # Errors
/// When it cannot be read, is too long or no text.
pub(super) fn read_script(path: &Path) -> Result<String> {
    let read = |reader: &mut dyn Read| {
        let mut bytes = Vec::new();
        // One byte more than is allowed is enough to find out that it is too much.
        reader.take(limits::SCRIPT_BYTES as u64 + 1).read_to_end(&mut bytes).map(|_| bytes)
    };
    let bytes = if path == Path::new("-") {
        read(&mut io::stdin().lock())
    } else {
        File::open(path).and_then(|mut file| read(&mut file))
    };
    let bytes =
        bytes.map_err(|error| Usage(format!("cannot read the script {}: {error}", path.display())))?;
    if bytes.len() > limits::SCRIPT_BYTES {
        let limit = limits::SCRIPT_BYTES;
        return Err(Usage(format!("the script {} is over the limit of {limit} bytes", path.display())).into());
    }
    String::from_utf8(bytes)
        .map_err(|_| Usage(format!("the script {} is not UTF-8 text", path.display())).into())
}

/// Shows every line as it comes, and a summary at the end.
async fn live(client: &Client, execution: &Execution, names: &[String]) -> Result<Exit> {
    let mut lines = Lines::new(output::wants_colour(Stream::Stdout), output::wants_colour(Stream::Stderr));
    let labels = Labels::of(client, execution).await?;
    if !labels.is_empty() {
        labels.of_host(None).for_each(|label| lines.expect(label));
    } else if !names.is_empty() {
        names.iter().for_each(|name| lines.expect(name));
    } else if let Some(runs) = client.runs(execution.id, None).next().await? {
        runs.iter().for_each(|run| lines.expect(&run.target));
    }
    let end = follow::to_end(client, execution.id, Vec::new(), None, |mut piece| {
        let content = Content::take(&mut piece)?;
        labels.put(&mut piece);
        output::write(piece.stream, &lines.piece(&piece, &content))
    })
    .await?;
    for (stream, bytes) in lines.finish() {
        output::write(stream, &bytes)?;
    }
    summary(client, execution, &end).await?;
    Ok(Exit::of_end(&end))
}

async fn summary(client: &Client, execution: &Execution, end: &OutputEnd) -> Result<()> {
    let total = human::count(end.runs.total, "run");
    output::note(&format!("{total}: {}", counts(&end.runs)));
    left_out(end);
    if execution.rollout.is_some() {
        return results::summary(client, execution.id, SUMMARY_ROWS).await;
    }
    if end.runs.succeeded + end.runs.skipped == end.runs.total {
        return Ok(());
    }
    let mut table = Table::new(&["TARGET", "STATE", "EXIT", "REASON", "DETAIL"]);
    let mut rows = 0;
    let mut pages = client.runs(execution.id, None);
    while let Some(runs) = pages.next().await? {
        for run in runs.iter().filter(|run| !matches!(run.state, RunState::Succeeded | RunState::Skipped)) {
            if rows < SUMMARY_ROWS {
                table.row(summary_row(run));
            }
            rows += 1;
        }
    }
    // That stderr is gone changes nothing about how the execution ended.
    let _ = output::write(Stream::Stderr, table.take().as_bytes());
    if rows > SUMMARY_ROWS {
        let more = rows - SUMMARY_ROWS;
        output::note(&format!("and {more} more: opsctl execution show {}", execution.id));
    }
    Ok(())
}

/// Says that the rollout did not come to its end.
fn left_out(end: &OutputEnd) {
    if end.left_out > 0 {
        let how = if end.aborted { "aborted" } else { "stopped" };
        let were = if end.left_out == 1 { "was" } else { "were" };
        output::note(&format!("the rollout was {how}: {} {were} skipped", human::count(end.left_out, "run")));
    }
}

fn summary_row(run: &Run) -> [String; 5] {
    [
        run.target.clone(),
        run.state.as_str().to_owned(),
        exit_status(run.exit_code, run.signal),
        human::or_dash(run.reason.map(Reason::as_str)),
        run.detail.clone().unwrap_or_default(),
    ]
}

/// Waits for the end and writes all of it as one document.
async fn document(client: &Client, execution: &Execution, format: Format) -> Result<Exit> {
    let mut report = Report::default();
    let end = follow::to_end(client, execution.id, Vec::new(), None, |mut piece| {
        let content = Content::take(&mut piece)?;
        report.take(&piece, content);
        Ok(())
    })
    .await?;
    left_out(&end);
    let ended = client.execution(execution.id).await?;
    let runs = client.runs(execution.id, None).all().await?;
    output::show(format, &report.finish(ended, runs), |_| String::new())?;
    Ok(Exit::of_end(&end))
}
