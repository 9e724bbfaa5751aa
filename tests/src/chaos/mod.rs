//! The chaos: real controllers, agents, shims and Postgres that are broken at random while thousands of commands run, and
//! a checker that says from the recorded history alone whether anything happened that must not.
//!
//! - [`job`], [`content`]: what is run, and what it writes
//! - [`workload`]: asks for it and follows it by the API, as a client would
//! - [`faults`], [`forge`], [`network`], [`database`], [`disk`], [`lab`]: what is broken, and how
//! - [`watch`]: what is seen from outside: processes, memory, disks; and what is left at the end
//! - [`history`]: the record of all this; [`checker`]: what must hold of it; [`report`]: what is told

pub mod checker;
pub mod content;
pub mod database;
pub mod disk;
pub mod faults;
mod forge;
pub mod history;
pub mod job;
pub mod lab;
pub mod network;
pub mod report;
pub mod watch;
pub mod workload;

use std::{
    collections::VecDeque,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use fastrand::Rng;
use tokio::{task::JoinSet, time::sleep};

use self::{
    checker::{Promise, Violation},
    faults::Kind,
    history::Record,
    lab::Lab,
};

/// Shorter than by default, so that everything that can run out does.
const TIMING: &str = "[timing]\nstart_window = '4s'\nclock_skew = '1s'\nlost_after = '10s'\nheartbeat = '1s'\n\
                      silence = '3s'\nlease = '3s'\n";

/// What a chaos shall be like.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Decides the jobs and the faults; when each comes is also up to the machine.
    pub seed: u64,
    /// How long things are broken.
    pub seconds: u64,
    pub agents: usize,
    pub faults_per_second: f64,
    pub runs_per_second: f64,
    /// Where the history goes, and the logs of a chaos with violations.
    pub folder: PathBuf,
    pub promise: Promise,
}

/// What is promised of a lab, whose controllers have [`TIMING`].
pub fn promise() -> Promise {
    Promise {
        settles_within_ms: 90_000,
        lost_after_ms: 10_000,
        gone_within_ms: 0,
        controller_kib: 512 * 1024,
        agent_kib: 128 * 1024,
        agent_disk_kib: 256 * 1024,
    }
}

/// What came of it.
#[derive(Debug)]
pub struct Outcome {
    pub history: Vec<Record>,
    pub violations: Vec<Violation>,
}

/// Makes the chaos, mends everything, looks at what is left, and checks.
///
/// # Panics
/// When something that was broken cannot be mended.
pub async fn run(plan: &Plan) -> Outcome {
    std::fs::create_dir_all(&plan.folder).expect("the work folder can be made");
    let lab = Arc::new(Lab::build(plan).await);
    let until = Instant::now() + Duration::from_secs(plan.seconds);
    let watching = tokio::spawn(watch::watch(Arc::clone(&lab)));
    let supervising = tokio::spawn(watch::supervise(Arc::clone(&lab)));
    let (working_lab, working_plan) = (Arc::clone(&lab), plan.clone());
    let working = tokio::spawn(async move { workload::run(working_lab, &working_plan, until).await });
    break_things(&lab, plan, until).await;
    lab.history.add(Record::FaultsOver { at: lab.history.now() });
    working.await.expect("the workload does not panic");
    supervising.abort();
    watch::last_look(&lab).await;
    watching.abort();
    lab.history.add(Record::Over { at: lab.history.now() });
    let history = lab.history.all();
    let violations = checker::check(&history, &plan.promise);
    if !violations.is_empty() {
        lab.keep_logs(&plan.folder).await;
    }
    Outcome { history, violations }
}

/// Breaks things, several at a time, each kind as often as it is to come.
async fn break_things(lab: &Arc<Lab>, plan: &Plan, until: Instant) {
    let mut rng = Rng::with_seed(plan.seed);
    let mut deck: Vec<Kind> = Vec::new();
    let mut breaking = JoinSet::new();
    // Each kind once, then each as often as its weight says; what found nothing to break comes again.
    let mut owed: VecDeque<Kind> = {
        let mut kinds = Kind::ALL.map(|(kind, _)| kind);
        rng.shuffle(&mut kinds);
        kinds.into()
    };
    while Instant::now() < until {
        let kind = owed.pop_front().unwrap_or_else(|| {
            if deck.is_empty() {
                let kinds = Kind::ALL.iter();
                deck = kinds.flat_map(|(kind, weight)| std::iter::repeat_n(*kind, *weight)).collect();
                rng.shuffle(&mut deck);
            }
            deck.pop().expect("it was filled")
        });
        let (lab, mut own) = (Arc::clone(lab), rng.fork());
        breaking.spawn(async move {
            // Whom it was for may be broken already, or have nothing of the kind to break.
            for _ in 0..10 {
                if faults::inject(&lab, kind, &mut own).await {
                    return None;
                }
                if Instant::now() >= until {
                    break;
                }
                sleep(Duration::from_millis(300)).await;
            }
            Some(kind)
        });
        let pause = -(1.0 - rng.f64()).ln() / plan.faults_per_second;
        sleep(Duration::from_secs_f64(pause.min(3.0))).await;
        while let Some(done) = breaking.try_join_next() {
            owed.extend(done.expect("what was broken can be mended"));
        }
    }
    while let Some(done) = breaking.join_next().await {
        done.expect("what was broken can be mended");
    }
}
