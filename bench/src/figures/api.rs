//! Reading over the API: how much, and how long it takes at a rate that does not wait for the answers.

use std::{
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use futures_util::future::try_join_all;
use serde_json::json;
use tokio::sync::{Mutex, mpsc};

use super::{NOTHING, millis, number, only, run};
use crate::{
    figure::Book,
    lab::{Connection, Lab, Request},
    plan::Plan,
    stats::percentile,
};

/// Connections of the open loop: more than answers are ever under way in a controller that keeps up.
const OPEN_CONNECTIONS: usize = 32;
/// Requests of the open loop that wait for a free connection.
const WAITING: usize = 1 << 16;
const AGENTS_PAGE: usize = 20;

pub(super) async fn measure(lab: &mut Lab, plan: &Plan, book: &mut Book) -> anyhow::Result<()> {
    lab.real(1).await?;
    lab.simulated(plan.fanout_agents).await?;
    let mut database = lab.database().await?;
    let (_, execution) = run(lab, &mut database, only(0), 1, &[NOTHING]).await?;
    let paths = [format!("/api/v1/executions/{execution}"), format!("/api/v1/agents?limit={AGENTS_PAGE}")];
    let requests: Arc<[Request]> = paths.iter().map(|path| Request::get(path, lab.api.token())).collect();

    let (mut rates, mut tails, mut raw) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..plan.repetitions {
        rates.push(closed_loop(lab, plan, &requests).await?);
        let took = open_loop(lab, plan, &requests).await?;
        tails.extend(percentile(&took, 99.0));
        raw.push(took);
    }
    let half = format!("half an execution, half a page of {AGENTS_PAGE} agents");
    let note = format!("{half}; {} connections, {:?}", plan.api_connections, plan.api_window);
    book.enter("api_reads_per_s", rates, note, json!({ "paths": paths }));
    let note =
        format!("{half}; open loop of {}/s for {:?}, from when each was due", plan.api_rate, plan.api_window);
    book.enter("api_p99_ms", tails, note, json!({ "requests_ms": raw }));
    Ok(())
}

/// As many requests as the answers allow; how many a second.
async fn closed_loop(lab: &Lab, plan: &Plan, requests: &Arc<[Request]>) -> anyhow::Result<f64> {
    let mut connections = Vec::new();
    for _ in 0..plan.api_connections {
        connections.push(Connection::open(lab.http).await?);
    }
    let begun = Instant::now();
    let clients = connections.into_iter().enumerate().map(|(index, mut connection)| {
        let (requests, window) = (Arc::clone(requests), plan.api_window);
        async move {
            let client = tokio::spawn(async move {
                let mut done = 0;
                while begun.elapsed() < window {
                    connection.send(&requests[(index + done) % requests.len()]).await?;
                    done += 1;
                }
                anyhow::Ok(done)
            });
            client.await?
        }
    });
    let done: usize = try_join_all(clients).await?.into_iter().sum();
    Ok(number(done) / begun.elapsed().as_secs_f64())
}

/// Requests at a steady rate, whatever the answers do; how long each took from when it was due, in milliseconds.
async fn open_loop(lab: &Lab, plan: &Plan, requests: &Arc<[Request]>) -> anyhow::Result<Vec<f64>> {
    let mut connections = Vec::new();
    for _ in 0..OPEN_CONNECTIONS {
        connections.push(Connection::open(lab.http).await?);
    }
    let (due, dues) = mpsc::channel(WAITING);
    let dues = Arc::new(Mutex::new(dues));
    let pacer = thread::spawn({
        let (rate, window) = (plan.api_rate, plan.api_window);
        move || pace(rate, window, &due)
    });
    let clients = connections.into_iter().map(|mut connection| {
        let (requests, dues) = (Arc::clone(requests), Arc::clone(&dues));
        async move {
            let client = tokio::spawn(async move {
                let mut took = Vec::new();
                loop {
                    let next = dues.lock().await.recv().await;
                    let Some((number, due)) = next else { return anyhow::Ok(took) };
                    connection.send(&requests[number % requests.len()]).await?;
                    took.push(millis(Instant::now().saturating_duration_since(due)));
                }
            });
            client.await?
        }
    });
    let took = try_join_all(clients).await?.into_iter().flatten().collect();
    pacer.join().ok().context("the pacer failed")?;
    Ok(took)
}

/// Says when each request is due, at that time: a thread of its own sleeps more exactly than the runtime does.
fn pace(rate: u32, window: Duration, due: &mpsc::Sender<(usize, Instant)>) {
    let begun = Instant::now();
    let gap = Duration::from_secs(1) / rate;
    let mut offset = Duration::ZERO;
    for number in 0.. {
        if offset >= window {
            return;
        }
        if let Some(early) = offset.checked_sub(begun.elapsed()) {
            thread::sleep(early);
        }
        // Nobody takes it when the clients have failed.
        if due.blocking_send((number, begun + offset)).is_err() {
            return;
        }
        offset += gap;
    }
}
