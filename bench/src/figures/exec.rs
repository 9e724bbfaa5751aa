//! Commands on one real agent: the time of one alone, and how many it can do.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use futures_util::future::try_join_all;
use model::id::ExecutionId;
use serde_json::json;
use tokio::{
    sync::{mpsc, oneshot},
    time::{sleep, timeout},
};

use super::{EXECUTION_WITHIN, NOTHING, number, only, run};
use crate::{
    figure::Book,
    lab::{Database, Lab},
    plan::Plan,
    stats::percentile,
};

/// Between two looks at the rows of all executions in flight.
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// One execution after the other.
pub(super) async fn one_by_one(lab: &mut Lab, plan: &Plan, book: &mut Book) -> anyhow::Result<()> {
    lab.real(1).await?;
    let mut database = lab.database().await?;
    for _ in 0..plan.warm_up {
        run(lab, &mut database, only(0), 1, &[NOTHING]).await?;
    }
    let (mut medians, mut tails, mut raw) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..plan.repetitions {
        let mut took = Vec::with_capacity(plan.execs);
        for _ in 0..plan.execs {
            took.push(run(lab, &mut database, only(0), 1, &[NOTHING]).await?.0);
        }
        medians.extend(percentile(&took, 50.0));
        tails.extend(percentile(&took, 99.0));
        raw.push(took);
    }
    let note = format!("{} executions of {NOTHING}; SQL look at the row every ms", plan.execs);
    book.enter("exec_p50_ms", medians, note.clone(), json!({ "executions_ms": &raw }));
    book.enter("exec_p99_ms", tails, note, json!({ "executions_ms": &raw }));
    Ok(())
}

/// Several at a time: as many clients as there are slots, each of which starts the next when its last is committed.
pub(super) async fn in_flight(lab: &mut Lab, plan: &Plan, book: &mut Book) -> anyhow::Result<()> {
    lab.real(1).await?;
    let mut database = lab.database().await?;
    for _ in 0..plan.warm_up {
        run(lab, &mut database, only(0), 1, &[NOTHING]).await?;
    }
    let mut rates = Vec::new();
    for _ in 0..plan.repetitions {
        let (watch, watched) = mpsc::channel(plan.in_flight);
        let started = AtomicUsize::new(0);
        let begun = Instant::now();
        let clients = (0..plan.in_flight).map(|_| client(lab, plan.flights, &started, watch.clone()));
        let ids: Vec<Vec<ExecutionId>> = tokio::select! {
            done = try_join_all(clients) => done?,
            Err(error) = look(&mut database, watched) => return Err(error),
        };
        let took = begun.elapsed().as_secs_f64();
        let ids: Vec<ExecutionId> = ids.into_iter().flatten().collect();
        let succeeded = database.succeeded(&ids).await?;
        ensure!(succeeded == plan.flights, "{succeeded} of {} executions succeeded", plan.flights);
        rates.push(number(succeeded) / took);
    }
    let note = format!(
        "{} executions, {} in flight on one agent; one SQL look for all every 2 ms",
        plan.flights, plan.in_flight
    );
    book.enter("exec_per_s", rates, note, json!({ "executions": plan.flights, "in_flight": plan.in_flight }));
    Ok(())
}

type Watched = (ExecutionId, oneshot::Sender<()>);

/// Starts an execution and waits for it, again and again, until so many were started by all clients.
async fn client(
    lab: &Lab,
    count: usize,
    started: &AtomicUsize,
    watch: mpsc::Sender<Watched>,
) -> anyhow::Result<Vec<ExecutionId>> {
    let mut ids = Vec::new();
    while started.fetch_add(1, Ordering::Relaxed) < count {
        let id = lab.api.start(only(0), &[NOTHING]).await?.id;
        let (tell, ended) = oneshot::channel();
        watch.send((id, tell)).await.context("nobody looks at the rows")?;
        timeout(EXECUTION_WITHIN, ended).await.context("an execution does not end")??;
        ids.push(id);
    }
    Ok(ids)
}

/// Looks at the rows of all that is in flight, and tells who waits for one that has ended.
async fn look(database: &mut Database, mut watched: mpsc::Receiver<Watched>) -> anyhow::Result<()> {
    let mut flying: Vec<Watched> = Vec::new();
    loop {
        while let Ok(next) = watched.try_recv() {
            flying.push(next);
        }
        let ids: Vec<ExecutionId> = flying.iter().map(|(id, _)| *id).collect();
        if !ids.is_empty() {
            let ended = database.ended(&ids).await?;
            for (_, tell) in flying.extract_if(.., |(id, _)| ended.contains(id)) {
                // A client that does not wait any more has failed, which ends all of this.
                let _ = tell.send(());
            }
        }
        sleep(LOOK_EVERY).await;
    }
}
