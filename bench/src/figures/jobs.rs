//! Jobs: what the engine takes beyond the steps themselves, and how soon people see a plan and the matrix of many hosts.

use std::{
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use anyhow::ensure;
use model::{api::execution::Execution, id::ExecutionId};
use serde_json::json;

use super::{NOTHING, millis};
use crate::{
    clock,
    figure::Book,
    lab::{Connection, Database, Lab, Request, SIMULATED, check_succeeded},
    plan::Plan,
    stats::percentile,
    swarm::Swarm,
};

const CONNECT_WITHIN: Duration = Duration::from_secs(120);
/// How long one execution of a job may take.
const JOB_WITHIN: Duration = Duration::from_secs(240);
/// Hosts of a page, as the API has it when nobody says otherwise.
const PAGE: usize = 100;
/// Looks at pages in a repetition, at least.
const LOOKS: usize = 200;

/// All simulated agents, connected.
async fn connected(lab: &mut Lab, agents: usize) -> anyhow::Result<(Swarm, Database)> {
    lab.stop_real().await?;
    lab.simulated(agents).await?;
    let count = lab.simulated_count();
    let swarm = lab.swarm()?;
    swarm.wait_connected(count, CONNECT_WITHIN).await?;
    let mut database = lab.database().await?;
    database.wait_sessions(count, CONNECT_WITHIN).await?;
    Ok((swarm, database))
}

/// Starts a job and waits until its last result is committed.
async fn finished(lab: &Lab, database: &mut Database, job: &str) -> anyhow::Result<(Duration, Execution)> {
    let begun = Instant::now();
    let id = lab.api.execute(job).await?.id;
    let ended = database.wait_ended(id, JOB_WITHIN).await?;
    Ok((ended - begun, lab.api.execution(id).await?))
}

/// A job of many steps that take no time, in batches: all of its time is the engine's.
pub(super) async fn overhead(lab: &mut Lab, plan: &Plan, book: &mut Book) -> anyhow::Result<()> {
    let (swarm, mut database) = connected(lab, plan.job_hosts).await?;
    let (hosts, steps) = (plan.job_hosts, plan.job_steps);
    let document = json!({
        "name": "overhead",
        "targets": { "selector": SIMULATED, "limit": hosts },
        "rollout": { "batches": [1, "10%", "100%"] },
        "steps": (0..steps).map(|n| json!({ "name": format!("s{n}"), "argv": [NOTHING] })).collect::<Vec<_>>(),
    });
    lab.api.save_job(document.to_string()).await?;
    let mut samples = Vec::new();
    for repetition in 0..=plan.repetitions {
        let (took, execution) = finished(lab, &mut database, "overhead").await?;
        check_succeeded(&execution, hosts * steps)?;
        // The first warms up.
        if repetition > 0 {
            samples.push(took.as_secs_f64());
        }
    }
    swarm.check()?;
    swarm.stop().await;
    database.wait_sessions(0, CONNECT_WITHIN).await?;
    let note =
        format!("{steps} steps of no duration on {hosts} simulated hosts in batches of 1, 10% and all");
    book.enter("job_overhead_s", samples, note, json!({ "runs": hosts * steps }));
    Ok(())
}

/// Rollouts with planted failures, budgets and numbers of hosts at a time drawn at random. What counts is on how many hosts something
/// was started, as the hosts themselves count it.
///
/// Hosts begin in the order of their turns, so those that have begun are the first ones. One more failure than the budget stops the
/// rollout, and of those at work then each may fail too: for one host at a time that is a single number.
pub(super) async fn budgets(lab: &mut Lab, plan: &Plan, book: &mut Book) -> anyhow::Result<()> {
    let (swarm, mut database) = connected(lab, plan.job_hosts).await?;
    let mut exact = 0;
    for number in 0..plan.rollouts {
        let (budget, at_a_time) = match number % 4 {
            0 => (usize::from(draw(4)), 1),
            _ => (usize::from(draw(12)), 2 + usize::from(draw(40))),
        };
        let document = json!({
            "name": format!("budget-{number}"),
            "parameters": { "bad": { "type": "list", "default": [] } },
            "targets": { "selector": SIMULATED, "limit": plan.job_hosts },
            "rollout": { "max_parallel": at_a_time, "max_failures": budget },
            "steps": [{
                "name": "do", "template": true,
                "argv": ["{{ 'false' if host.name[-2:] in params.bad else '/bin/true' }}"],
            }],
        });
        lab.api.save_job(document.to_string()).await?;
        // One ending of a name in twenty, of 256.
        let bad: Vec<String> =
            (0..=255_u8).filter(|_| draw(20) == 0).map(|end| format!("{end:02x}")).collect();
        let before = swarm.counts().finished.load(Ordering::Relaxed);
        let id = lab.api.execute_with(&format!("budget-{number}"), json!({ "bad": bad })).await?.id;
        database.wait_ended(id, JOB_WITHIN).await?;
        let started = usize::try_from(swarm.counts().finished.load(Ordering::Relaxed) - before)?;
        let hosts = database.hosts_in_turn(id).await?;
        let failing = |name: &&String| bad.iter().any(|end| name.ends_with(end.as_str()));
        let places: Vec<usize> =
            hosts.iter().enumerate().filter(|(_, name)| failing(name)).map(|(place, _)| place).collect();
        // Of those that had ended before the last look so many may have failed as the budget says, and all that were at work then.
        let (least, most) = match (places.get(budget), at_a_time) {
            (None, _) => (hosts.len(), hosts.len()),
            (Some(last), 1) => (last + 1, last + 1),
            (Some(last), _) => (last + 1, places.get(budget + at_a_time).copied().unwrap_or(hosts.len())),
        };
        ensure!(
            (least..=most).contains(&started),
            "a rollout with a budget of {budget}, {at_a_time} at a time, began on {started} hosts: {least} to {most} are right"
        );
        exact += 1;
    }
    swarm.check()?;
    swarm.stop().await;
    database.wait_sessions(0, CONNECT_WITHIN).await?;
    let note = format!(
        "of {} rollouts on {} simulated hosts, each with failures, a budget and hosts at a time of its own; starts as the hosts count them",
        plan.rollouts, plan.job_hosts
    );
    book.enter("rollouts_exact", vec![super::number(exact)], note, json!({ "rollouts": plan.rollouts }));
    Ok(())
}

/// A number below `below`.
fn draw(below: u8) -> u8 {
    let [random, ..] = clock::entropy();
    random % below
}

/// The plan of a job on many hosts, and the pages of its matrix when it has run there.
pub(super) async fn at_size(lab: &mut Lab, plan: &Plan, book: &mut Book) -> anyhow::Result<()> {
    let (swarm, mut database) = connected(lab, plan.matrix_hosts).await?;
    let (hosts, steps) = (lab.simulated_count(), plan.matrix_steps);
    let mut all: Vec<_> = (1..steps).map(|n| json!({ "name": format!("s{n}"), "argv": [NOTHING] })).collect();
    // One host in sixteen fails at the end.
    all.push(json!({ "name": "last", "argv": ["false"], "if": "host.name[-1:] == 'f'" }));
    let document = json!({ "name": "matrix", "targets": { "selector": SIMULATED }, "steps": all });
    lab.api.save_job(document.to_string()).await?;

    let request = Request::post("/api/v1/jobs/matrix/plan", lab.api.token(), "{}");
    let mut connection = Connection::open(lab.http).await?;
    connection.send(&request).await?;
    let (mut samples, mut bytes) = (Vec::new(), 0);
    for _ in 0..plan.repetitions {
        let begun = Instant::now();
        bytes = connection.send(&request).await?;
        samples.push(begun.elapsed().as_secs_f64());
    }
    let note = format!("{hosts} simulated hosts by selector, {steps} steps; an answer of {bytes} bytes");
    book.enter("plan_10k_s", samples, note, json!({ "hosts": hosts, "bytes": bytes }));

    let (took, execution) = finished(lab, &mut database, "matrix").await?;
    let ran = execution.runs;
    ensure!(ran.failed > 0 && ran.skipped > ran.failed, "not one host in sixteen failed: {ran:?}");
    swarm.check()?;
    swarm.stop().await;
    database.wait_sessions(0, CONNECT_WITHIN).await?;
    let raw = json!({ "hosts": hosts, "steps": steps, "runs": ran, "took_s": took.as_secs_f64() });
    let whole = pages(lab, plan, execution.id, "").await?;
    let note = format!("{PAGE} hosts of {hosts} with {steps} steps each; all pages in turn, one connection");
    book.enter("matrix_page_ms", whole.p50, note.clone(), raw);
    book.enter("matrix_page_p99_ms", whole.p99, note.clone(), json!({ "requests_ms": whole.raw }));
    let failed = pages(lab, plan, execution.id, "&state=failed").await?;
    let note = format!("{note}; those that failed, one in sixteen");
    book.enter(
        "matrix_failed_page_p99_ms",
        failed.p99,
        note,
        json!({ "p50_ms": failed.p50, "requests_ms": failed.raw }),
    );
    Ok(())
}

/// What the pages of a matrix took, each repetition for itself, in milliseconds.
#[derive(Debug, Default)]
struct Pages {
    p50: Vec<f64>,
    p99: Vec<f64>,
    raw: Vec<Vec<f64>>,
}

/// Asks for all pages in turn.
async fn pages(lab: &Lab, plan: &Plan, id: ExecutionId, filter: &str) -> anyhow::Result<Pages> {
    let mut requests = Vec::new();
    let mut cursor = None;
    loop {
        let from = cursor.map(|cursor| format!("&cursor={cursor}")).unwrap_or_default();
        let query = format!("limit={PAGE}{filter}{from}");
        requests.push(Request::get(&format!("/api/v1/executions/{id}/results?{query}"), lab.api.token()));
        cursor = lab.api.results(id, &query).await?.next_cursor;
        if cursor.is_none() {
            break;
        }
    }
    let mut connection = Connection::open(lab.http).await?;
    let mut pages = Pages::default();
    for _ in 0..plan.repetitions {
        let mut took = Vec::new();
        for request in requests.iter().cycle().take(requests.len().max(LOOKS)) {
            let begun = Instant::now();
            connection.send(request).await?;
            took.push(millis(begun.elapsed()));
        }
        pages.p50.extend(percentile(&took, 50.0));
        pages.p99.extend(percentile(&took, 99.0));
        pages.raw.push(took);
    }
    Ok(pages)
}
