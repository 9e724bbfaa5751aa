//! The figures, one file a subject, and the order in which they are measured: what needs a quiet machine comes first,
//! and real agents are gone before simulated ones come in numbers.

mod api;
mod audit;
mod authorization;
mod connect;
mod exec;
mod fanout;
mod flood;
pub(crate) mod floors;
mod idle;
mod jobs;
mod reconnect;
mod sandbox;
mod schedules;
mod tail;

use std::time::{Duration, Instant};

use anyhow::Context as _;
use model::{api::execution::Targets, id::ExecutionId};
use tokio::time::timeout;

use crate::{
    figure::Book,
    lab::{Agents, Database, Lab, Programs, check_succeeded},
    plan::Plan,
};

/// How long one execution may take.
const EXECUTION_WITHIN: Duration = Duration::from_secs(60);
/// How long all repetitions of one subject may take, whatever hangs.
const SUBJECT_WITHIN: Duration = Duration::from_secs(600);
/// What real agents run where nothing is asked of them.
const NOTHING: &str = "/bin/true";

/// Measures the figures of these names.
///
/// # Errors
/// When there is no controller to measure. What fails later is noted in `book`, and the next is measured.
pub(crate) async fn measure(
    programs: Programs,
    plan: &Plan,
    wanted: &[String],
    book: &mut Book,
) -> anyhow::Result<()> {
    let wants = |names: &[&str]| names.iter().any(|name| wanted.iter().any(|wanted| wanted == name));
    let mut floors = if wants(&floors::WITH_FLOOR) {
        step("floors without a controller");
        Some(bounded(floors::Floors::bare(plan)).await.context("cannot measure the floors")?)
    } else {
        None
    };

    step("start of a controller");
    let mut lab = Lab::start(programs).await.context("cannot start a controller")?;
    if let Some(floors) = &mut floors {
        step("bare commits");
        bounded(floors.commits(&lab, plan)).await.context("cannot measure the floors")?;
    }
    book.floors = floors;

    macro_rules! figures {
        ($($names:expr => $measure:path;)*) => {$(
            if wants(&$names) {
                step(&$names.join(", "));
                if let Err(error) = bounded($measure(&mut lab, plan, book)).await {
                    note(book, &lab, &$names.join(", "), &error);
                }
            }
        )*};
    }
    figures! {
        ["agent_idle_rss_mib", "agent_idle_cpu_percent"] => idle::measure;
        ["exec_p50_ms", "exec_p99_ms"] => exec::one_by_one;
        ["sandbox_standard_ms", "sandbox_strict_ms", "sandbox_isolated_ms"] => sandbox::measure;
        ["exec_per_s"] => exec::in_flight;
        ["tail_p99_ms"] => tail::measure;
        ["seq_2m_s"] => flood::sequence;
        ["output_mb_per_s", "stored_per_raw_byte"] => flood::rate;
        ["tail_flooded_p99_ms"] => flood::tail;
        ["fanout_real_50_ms"] => fanout::real;
        ["api_reads_per_s", "api_p99_ms"] => api::measure;
        ["authorization_ms"] => authorization::measure;
        ["audited_writes_per_s"] => audit::writes;
        ["audit_verify_1m_s"] => audit::verification;
        ["fanout_1000_ms"] => fanout::to_1000;
        ["job_overhead_s"] => jobs::overhead;
        ["rollouts_exact"] => jobs::budgets;
        ["schedules_idle_cpu_percent"] => schedules::idle;
        ["schedules_late_p99_ms"] => schedules::lateness;
        ["schedules_due_2000_s"] => schedules::at_once;
        ["reconnect_1000_s"] => reconnect::measure;
        ["fanout_5000_ms"] => fanout::to_5000;
        ["plan_10k_s", "matrix_page_ms", "matrix_page_p99_ms", "matrix_failed_page_p99_ms"] => jobs::at_size;
        ["agents_connected", "connect_per_s", "controller_kib_per_agent"] => connect::measure;
    }
    step("end");
    Ok(())
}

/// Gives up on what takes too long.
async fn bounded<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    timeout(SUBJECT_WITHIN, Box::pin(work)).await.context("it took too long")?
}

/// Tells the person what is going on.
fn step(what: &str) {
    eprintln!("bench: {what}");
}

fn note(book: &mut Book, lab: &Lab, what: &str, error: &anyhow::Error) {
    let why = format!("{error:#}");
    eprintln!("bench: {what} FAILED: {why}\nbench: the controller's last words: {}", lab.last_words());
    book.failures.push((what.to_owned(), why));
}

/// A real agent by number, as the only target.
fn only(index: usize) -> Targets {
    Targets::Names(vec![Agents::name(index)])
}

/// Runs a command and waits until its last result is committed: how long that took in milliseconds, and the execution.
async fn run(
    lab: &Lab,
    database: &mut Database,
    targets: Targets,
    count: usize,
    argv: &[&str],
) -> anyhow::Result<(f64, ExecutionId)> {
    let begun = Instant::now();
    let id = lab.api.start(targets, argv).await?.id;
    let ended = database.wait_ended(id, EXECUTION_WITHIN).await?;
    check_succeeded(&lab.api.execution(id).await?, count)?;
    Ok((millis(ended - begun), id))
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

/// A count as a number to calculate with.
#[allow(clippy::cast_precision_loss, reason = "counts here are far below 2^52")]
fn number(count: usize) -> f64 {
    count as f64
}
