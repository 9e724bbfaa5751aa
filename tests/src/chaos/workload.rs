//! The jobs, asked for and followed to their ends by the API alone, through any controller at a time.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use model::{
    api::{
        Page,
        execution::{Attempt, Execution, Run, RunOutput},
        output::{Data, OutputPage, OutputPiece, Stream},
    },
    attempt::AttemptState,
    run::RunState,
};
use reqwest::Method;
use sha2::{Digest, Sha256};
use tokio::time::sleep;

use super::{
    Plan,
    content::{STDERR, STDOUT},
    history::{Held, Record},
    job::Job,
    lab::Lab,
};

/// Runs that may be open at a time; then no more is asked for.
const OPEN_RUNS: u64 = 1000;
const ASK_AGAIN: Duration = Duration::from_millis(200);
const LOOK_EVERY: Duration = Duration::from_millis(400);
/// How long after the end of a run, and of all faults, its output may be on its way.
const OUTPUT_WITHIN: Duration = Duration::from_secs(40);
/// After so long an ended execution is looked at again.
const LOOK_AGAIN_AFTER: Duration = Duration::from_secs(4);

/// Asks for jobs until `until`, and follows each; done when all that was asked for has been followed to its end, or
/// `patience` after `until` is over.
pub async fn run(lab: Arc<Lab>, plan: &Plan, until: Instant) {
    let mut rng = fastrand::Rng::with_seed(plan.seed ^ 0x6a6f_6273);
    let open = Arc::new(AtomicU64::new(0));
    let mut followers = tokio::task::JoinSet::new();
    let (begun, mut number, mut asked_runs) = (Instant::now(), 0, 0_u64);
    while Instant::now() < until {
        let due = begun.elapsed().as_secs_f64() * plan.runs_per_second;
        if open.load(Relaxed) >= OPEN_RUNS || asked_runs as f64 > due {
            sleep(Duration::from_millis(5)).await;
            continue;
        }
        number += 1;
        let job = Job::invent(number, &lab.fleet, &mut rng);
        let runs = job.hosts.len() as u64;
        asked_runs += runs;
        open.fetch_add(runs, Relaxed);
        let (lab, open) = (Arc::clone(&lab), Arc::clone(&open));
        followers.spawn(async move {
            follow(&lab, job, until, || {
                open.fetch_sub(runs, Relaxed);
            })
            .await;
        });
        while let Some(done) = followers.try_join_next() {
            done.expect("a follower does not panic");
        }
    }
    while let Some(done) = followers.join_next().await {
        done.expect("a follower does not panic");
    }
}

/// One job from the request to the last look; calls `over` once its runs have ended. Until `until` things are broken.
async fn follow(lab: &Lab, job: Job, until: Instant, over: impl FnOnce()) {
    let (number, history) = (job.number, &lab.history);
    let body = job.request(&lab.helper, &lab.starts);
    history.add(Record::Asked { at: history.now(), job: job.clone() });
    let execution: Execution = loop {
        let api = lab.api();
        let request = api.request(Method::POST, "/api/v1/executions");
        let request = request.header("Idempotency-Key", format!("chaos-{number}")).json(&body);
        match api.try_send(request).await {
            Some(answer) if (200..300).contains(&answer.status) => break answer.json(),
            Some(answer) if answer.status < 500 && answer.status != 409 => {
                history.add(Record::Denied { at: history.now(), number, answer: answer.text() });
                return over();
            }
            _ => sleep(ASK_AGAIN).await,
        }
    };
    let id = execution.id.to_string();
    let acknowledged = Instant::now();
    history.add(Record::Acknowledged { at: history.now(), number, execution: id.clone() });
    let cancelling = async {
        let Some(after) = job.cancel_after_ms else { return };
        sleep(Duration::from_millis(after)).await;
        cancel(lab, number, &id).await;
    };
    let mut seen = Seen { lab, number, states: BTreeMap::new() };
    let watching = seen.until_ended(&id, acknowledged);
    let ((), has_ended) = tokio::join!(cancelling, watching);
    over();
    if !has_ended {
        return;
    }
    output(lab, number, &id, until).await;
    sleep(LOOK_AGAIN_AFTER).await;
    seen.look(&id).await;
}

async fn cancel(lab: &Lab, number: u64, id: &str) {
    let begun = Instant::now();
    while begun.elapsed() < LAST_WORD_WITHIN {
        let api = lab.api();
        let request = api.request(Method::POST, &format!("/api/v1/executions/{id}/cancel"));
        if api.try_send(request).await.is_some_and(|answer| answer.status < 500 && answer.status != 409) {
            let at = lab.history.now();
            return lab.history.add(Record::CancelAcknowledged { at, number });
        }
        sleep(ASK_AGAIN).await;
    }
}

/// How long one execution is followed before it counts as one that never ends.
const LAST_WORD_WITHIN: Duration = Duration::from_secs(300);

/// What was last seen of each run of an execution.
struct Seen<'a> {
    lab: &'a Lab,
    number: u64,
    states: BTreeMap<String, Run>,
}

impl Seen<'_> {
    /// Until all runs have ended; false when they do not.
    async fn until_ended(&mut self, id: &str, since: Instant) -> bool {
        while since.elapsed() < LAST_WORD_WITHIN {
            sleep(LOOK_EVERY).await;
            if let Some(runs) = self.look(id).await
                && runs.iter().all(|run| run.state.is_terminal())
            {
                return true;
            }
        }
        false
    }

    /// Looks, and notes what is new.
    async fn look(&mut self, id: &str) -> Option<Vec<Run>> {
        let runs = runs(self.lab, id).await?;
        let at = self.lab.history.now();
        for run in &runs {
            let key = run.id.to_string();
            let is_new = self.states.get(&key).is_none_or(|last| {
                (last.state, last.reason, last.attempt, last.exit_code)
                    != (run.state, run.reason, run.attempt, run.exit_code)
            });
            if is_new {
                self.lab.history.add(Record::Seen {
                    at,
                    number: self.number,
                    run: key.clone(),
                    host: run.target.clone(),
                    state: run.state,
                    reason: run.reason,
                    attempt: run.attempt,
                    exit_code: run.exit_code,
                });
                self.states.insert(key, run.clone());
            }
        }
        Some(runs)
    }
}

/// The runs of an execution; none while nobody answers.
pub(super) async fn runs(lab: &Lab, id: &str) -> Option<Vec<Run>> {
    let answer = lab.api().try_get(&format!("/api/v1/executions/{id}/runs?limit=1000")).await?;
    (answer.status == 200).then(|| answer.json::<Page<Run>>().items)
}

/// An attempt, and what the API says of its output.
struct Told {
    run: String,
    attempt: i32,
    /// Nobody promises the output of one whose end is not known.
    is_known: bool,
    output: RunOutput,
}

impl Told {
    fn is_awaited(&self) -> bool {
        self.is_known && self.output.complete == Some(false)
    }
}

/// All attempts of the runs of an execution; none when nobody answers.
async fn told(lab: &Lab, id: &str) -> Option<Vec<Told>> {
    let mut all = Vec::new();
    for run in runs(lab, id).await? {
        let (key, newest) = (run.id.to_string(), run.attempt);
        if newest > 1 {
            let path = format!("/api/v1/executions/{id}/runs/{key}/attempts");
            let answer = lab.api().try_get(&path).await.filter(|answer| answer.status == 200)?;
            let attempts = answer.json::<Page<Attempt>>().items.into_iter();
            all.extend(attempts.filter(|attempt| attempt.number < newest).map(|attempt| Told {
                run: key.clone(),
                attempt: attempt.number,
                is_known: attempt.state == AttemptState::Finished,
                output: attempt.output,
            }));
        }
        let is_known = run.state != RunState::Unknown;
        all.push(Told { run: key, attempt: newest, is_known, output: run.output });
    }
    Some(all)
}

/// Waits until all output of the runs is there that will be, and notes what it is.
async fn output(lab: &Lab, number: u64, id: &str, until: Instant) {
    let by = until.max(Instant::now()) + OUTPUT_WITHIN;
    let mut attempts = None;
    while Instant::now() < by {
        attempts = told(lab, id).await.or(attempts);
        if attempts.as_ref().is_some_and(|all| !all.iter().any(Told::is_awaited)) {
            break;
        }
        sleep(LOOK_EVERY).await;
    }
    let begun = Instant::now();
    let mut streams = loop {
        if let Some(streams) = read_output(lab, id).await {
            break streams;
        }
        if begun.elapsed() > OUTPUT_WITHIN {
            return;
        }
        sleep(ASK_AGAIN).await;
    };
    let add = |run: String, attempt, stream, read: Read, written: Option<i64>, complete| {
        let held = Held {
            bytes: read.bytes,
            sha256: hex::encode(read.hash.finalize()),
            gap: read.gap,
            written: written.map(i64::unsigned_abs),
            complete,
            fault: read.fault,
        };
        lab.history.add(Record::Output { at: lab.history.now(), number, run, attempt, stream, held });
    };
    for Told { run, attempt, output, .. } in attempts.into_iter().flatten() {
        for (stream, told) in [(STDOUT, &output.stdout), (STDERR, &output.stderr)] {
            let read = streams.remove(&(run.clone(), attempt, stream)).unwrap_or_default();
            add(run.clone(), attempt, stream, read, told.written_bytes, output.complete);
        }
    }
    // Of attempts that nobody knows there should be none.
    for ((run, attempt, stream), read) in streams {
        add(run, attempt, stream, read, None, None);
    }
}

/// A run's id, an attempt's number, and one of its streams.
type Key = (String, i32, u8);

/// A stream while it is read.
#[derive(Default)]
struct Read {
    bytes: u64,
    gap: u64,
    hash: Sha256,
    fault: Option<String>,
}

/// All output of an execution, by attempt and stream; none when nobody answers.
async fn read_output(lab: &Lab, id: &str) -> Option<BTreeMap<Key, Read>> {
    let (mut streams, mut after) = (BTreeMap::<_, Read>::new(), 0);
    loop {
        let path = format!("/api/v1/executions/{id}/output?limit=1000&after={after}");
        let answer = lab.api().try_get(&path).await.filter(|answer| answer.status == 200)?;
        let page: OutputPage = answer.json();
        for piece in &page.items {
            let stream = if piece.stream == Stream::Stdout { STDOUT } else { STDERR };
            let read = streams.entry((piece.run_id.to_string(), piece.attempt, stream)).or_default();
            if piece.position <= after {
                read.fault = Some(format!("position {} after {after}", piece.position));
            }
            read.take(piece);
            after = piece.position;
        }
        if page.items.is_empty() || page.end {
            return Some(streams);
        }
        after = page.next_after;
    }
}

impl Read {
    fn take(&mut self, piece: &OutputPiece) {
        if u64::try_from(piece.offset) != Ok(self.bytes + self.gap) {
            self.fault = Some(format!("a hole or a repeat: {} at {}", piece.offset, self.bytes + self.gap));
        }
        let mut write = |bytes: &[u8]| {
            self.hash.update(bytes);
            self.bytes += bytes.len() as u64;
        };
        match &piece.data {
            Data::Text(text) => write(text.as_bytes()),
            Data::Base64(text) => match BASE64_STANDARD.decode(text) {
                Ok(bytes) => write(&bytes),
                Err(error) => self.fault = Some(error.to_string()),
            },
            Data::Gap(missing) => self.gap += missing.unsigned_abs(),
        }
    }
}
