//! Requests that steps of executions make to web servers.
//!
//! Invariants: what is asked comes from the signed plan; one that is sent has been written down as sent before; whatever nobody
//! knows the answer of is asked again only where that does no harm, and is `unknown` otherwise.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use jiff::SignedDuration;
use model::{
    Reason,
    id::{ExecutionId, RunId},
    job::{
        HttpCall, Ready,
        outputs::{self, Outputs},
    },
    limits,
    run::RunState,
};
use serde_json::{Value, json};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::task::TaskTracker;

use super::{App, approvals, egress, gathered, manifest};
use crate::{
    clock,
    error::{During, Result},
    store::{
        self,
        http_calls::{Answer, Taken},
    },
};

/// Requests that are under way at a time, and those of one organization.
const AT_A_TIME: usize = 64;
const OF_ONE: i64 = 16;
/// Those whose answers nobody has written that one look settles, beside those that are under way here.
const LOST: usize = 256;
/// How long after the last moment of a try what came of it may be written, should the database be away.
const RESERVE: i64 = 60;
/// Tries that one may come to when the controller dies over it again and again, beside those that its step allows.
const LOST_TRIES: u32 = 5;

/// Those that are under way here.
#[derive(Debug)]
pub(crate) struct Calls {
    places: Arc<Semaphore>,
    tasks: TaskTracker,
    runs: Mutex<HashSet<(ExecutionId, RunId)>>,
}

impl Default for Calls {
    fn default() -> Self {
        Self {
            places: Arc::new(Semaphore::new(AT_A_TIME)),
            tasks: TaskTracker::new(),
            runs: Mutex::default(),
        }
    }
}

impl Calls {
    /// Waits until none is under way any more; none begins from now on.
    pub(crate) async fn wind_down(&self) {
        self.places.close();
        self.tasks.close();
        self.tasks.wait().await;
    }

    fn runs(&self) -> MutexGuard<'_, HashSet<(ExecutionId, RunId)>> {
        self.runs.lock().expect("no holder of this lock panics")
    }
}

/// Sends what is due, as far as there are places, and settles what was lost.
///
/// # Errors
/// When the database does not answer.
pub(crate) async fn send_due(app: &Arc<App>) -> Result<()> {
    let (now, me) = (clock::now(), app.info.controller_id);
    let most = i64::try_from(AT_A_TIME + LOST).unwrap_or(i64::MAX);
    for lost in store::http_calls::unwritten(app.db.worker(), me, now, most).await? {
        // One that is under way here will be written.
        if !app.http_calls.runs().contains(&(lost.execution_id, lost.run_id)) {
            settle_lost(app, &lost).await?;
        }
    }
    let mut places = Vec::new();
    while let Ok(place) = Arc::clone(&app.http_calls.places).try_acquire_owned() {
        places.push(place);
    }
    if places.is_empty() {
        return Ok(());
    }
    let until = now.saturating_add(SignedDuration::from_secs(limits::STEP_HTTP_SECONDS.end() + RESERVE));
    let times = (now, until.unwrap_or(now));
    let limit = i64::try_from(places.len()).unwrap_or(1);
    let taken = store::http_calls::take(app.db.worker(), me, times, (limit, OF_ONE)).await?;
    for (taken, place) in taken.into_iter().zip(places) {
        app.http_calls.runs().insert((taken.execution_id, taken.run_id));
        let app = Arc::clone(app);
        app.http_calls.tasks.clone().spawn(async move {
            fault::point("controller.http_call.taken");
            call(&app, &taken, place).await;
            app.http_calls.runs().remove(&(taken.execution_id, taken.run_id));
            app.wake.advance.notify_one();
            app.wake.http_calls.notify_one();
            app.wake.others.notify_one();
        });
    }
    Ok(())
}

/// What becomes of one whose answer nobody has written.
async fn settle_lost(app: &App, lost: &Taken) -> Result<()> {
    let mut connection = app.db.worker().acquire().await.during("acquire of a connection")?;
    let verified = manifest::authorised(app, &mut connection, [lost.execution_id]).await?;
    let call = verified.get(&lost.execution_id).and_then(|verified| {
        let verified = verified.as_ref().ok()?;
        verified.plan()?.http_call(verified.place(lost.run_id)?).cloned()
    });
    drop(connection);
    let answer = Answer {
        state: RunState::Unknown,
        reason: Reason::AnswerLost,
        detail: "the controller ended before it could write what the server answered".to_owned(),
        outputs: Outputs::default(),
    };
    match call {
        Some(call) if call.may_repeat() && lost.tries < call.tries() + LOST_TRIES => {
            store::http_calls::again(app.db.worker(), lost, clock::now(), &answer).await
        }
        _ => store::http_calls::end(app.db.worker(), lost, &answer).await,
    }
}

/// What is to be written of a try.
enum Outcome {
    Ended(Answer),
    Again(Answer, Duration),
    /// Nothing was sent: it is as if it had not been taken.
    NotSent,
}

/// Makes one request, and writes what came of it.
async fn call(app: &App, taken: &Taken, _place: OwnedSemaphorePermit) {
    let outcome = match prepare(app, taken).await {
        Ok(Prepared::Send(ready)) => {
            let (call, request) = *ready;
            let within = Duration::from_secs(u64::try_from(call.timeout_seconds).unwrap_or(0));
            let ends = clock::now().saturating_add(SignedDuration::try_from(within).unwrap_or_default());
            // Somebody may have taken it for lost when it has come so late.
            if ends.is_ok_and(|ends| ends < taken.until) {
                send(app, taken, &call, request, within).await
            } else {
                Outcome::NotSent
            }
        }
        Ok(Prepared::Refused(answer)) => Outcome::Ended(answer),
        Err(error) => {
            tracing::warn!(execution.id = %taken.execution_id, %error, "an http step was not sent yet");
            Outcome::NotSent
        }
    };
    fault::point("controller.http_call.answered");
    // What came of it is not lost because the database is away for a moment.
    while let Err(error) = write(app, taken, &outcome).await {
        tracing::warn!(execution.id = %taken.execution_id, %error, "what came of an http step could not be written yet");
        if clock::now() >= taken.until {
            return;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    fault::point("controller.http_call.written");
}

async fn write(app: &App, taken: &Taken, outcome: &Outcome) -> Result<()> {
    let pool = app.db.worker();
    let later = |pause| {
        let pause = SignedDuration::try_from(pause).unwrap_or(SignedDuration::MAX);
        clock::now().saturating_add(pause).unwrap_or(jiff::Timestamp::MAX)
    };
    match outcome {
        Outcome::Ended(answer) => store::http_calls::end(pool, taken, answer).await,
        Outcome::Again(answer, pause) => store::http_calls::again(pool, taken, later(*pause), answer).await,
        Outcome::NotSent => store::http_calls::put_back(pool, taken, later(Duration::from_secs(1))).await,
    }
}

/// What is to be sent, or why nothing is.
enum Prepared {
    Send(Box<(HttpCall, Ready)>),
    Refused(Answer),
}

/// Looks once more whether it may be sent, and fills it in.
async fn prepare(app: &App, taken: &Taken) -> Result<Prepared> {
    let refused = |reason, detail: String| {
        let (state, outputs) = (RunState::Failed, Outputs::default());
        Ok(Prepared::Refused(Answer { state, reason, detail, outputs }))
    };
    let id = taken.execution_id;
    let mut connection = app.db.worker().acquire().await.during("acquire of a connection")?;
    let mut authorised = manifest::authorised(app, &mut connection, [id]).await?;
    let verified = match authorised.remove(&id) {
        Some(Ok(verified)) => verified,
        Some(Err(mismatch)) => return refused(Reason::ManifestMismatch, mismatch.to_string()),
        None => return refused(Reason::ManifestMismatch, "there is no such execution".to_owned()),
    };
    let found = verified.place(taken.run_id).and_then(|place| {
        let plan = verified.plan()?;
        Some((place, plan.http_call(place)?, plan.steps[place].template))
    });
    let Some((place, call, is_template)) = found else {
        return refused(Reason::ManifestMismatch, "the plan has no such request".to_owned());
    };
    if clock::now() >= verified.start_by || !store::runs::is_active(&mut connection, id, taken.run_id).await?
    {
        return refused(Reason::StartExpired, "its time was over before it was sent".to_owned());
    }
    if !approvals::is_open(app, &mut connection, (id, &verified), place).await? {
        return refused(Reason::ManifestMismatch, "nobody has approved it".to_owned());
    }
    let context = gathered::context(&mut connection, (id, &verified), place).await?;
    match context.and_then(|context| call.http.filled(is_template, &context)) {
        Ok(request) => Ok(Prepared::Send(Box::new((call.clone(), request)))),
        Err(invalid) => refused(Reason::BadTemplate, invalid.to_string()),
    }
}

/// Sends it, and judges what came of it.
async fn send(app: &App, taken: &Taken, call: &HttpCall, request: Ready, within: Duration) -> Outcome {
    let (answer, may_try_again) = match app.egress.send(request, within).await {
        Ok(answer) => {
            let may_try_again = answer.status >= 500 || matches!(answer.status, 408 | 425 | 429);
            (judge(call, &answer), may_try_again)
        }
        Err(none) => {
            let state = if none.is_late { RunState::TimedOut } else { RunState::Failed };
            let reason = match (none.is_refused, none.is_late) {
                (true, _) => Reason::PolicyRefused,
                (false, true) => Reason::TimeLimit,
                (false, false) => Reason::NoAnswer,
            };
            let answer = Answer { state, reason, detail: none.why, outputs: Outputs::default() };
            (answer, !none.is_final)
        }
    };
    let answer = match taken.tries {
        0 | 1 => answer,
        tries => Answer { detail: format!("{}; it was sent {tries} times", answer.detail), ..answer },
    };
    match &call.retry {
        Some(retry) if answer.state != RunState::Succeeded && may_try_again && taken.tries < call.tries() => {
            Outcome::Again(answer, retry.pause(taken.tries, fastrand::u64(..)))
        }
        _ => Outcome::Ended(answer),
    }
}

/// Whether it is what was expected, and what is told of it.
fn judge(call: &HttpCall, answer: &egress::Answer) -> Answer {
    let is_expected = call.http.is_expected(answer.status);
    let (state, reason) = match is_expected {
        true => (RunState::Succeeded, Reason::Done),
        false => (RunState::Failed, Reason::UnexpectedAnswer),
    };
    let name = reqwest::StatusCode::from_u16(answer.status).ok().and_then(|status| status.canonical_reason());
    let mut detail = format!("the server answered {} {}", answer.status, name.unwrap_or_default());
    if (300..400).contains(&answer.status) && !is_expected {
        detail.push_str(", and it is not led elsewhere");
    }
    let text = || Value::String(String::from_utf8_lossy(&answer.body).replace('\0', "\u{fffd}"));
    let parsed = (answer.is_json && !answer.is_cut).then(|| serde_json::from_slice(&answer.body).ok());
    let body = parsed.flatten().unwrap_or_else(text);
    let told = |body: Value| {
        let object = json!({ "status": answer.status, "body": body });
        outputs::read_any(&serde_json::to_vec(&object).unwrap_or_default())
    };
    // What is too deep, or has what no database keeps, is told as the text that it was, as much of it as there is room for.
    let mut outputs = told(body);
    let mut rest = String::from_utf8_lossy(&answer.body).replace('\0', "\u{fffd}");
    let mut is_cut = answer.is_cut;
    let whole = rest.len();
    while outputs.is_err() {
        is_cut |= rest.len() < whole;
        outputs = told(Value::String(rest.clone()));
        rest.truncate(rest.floor_char_boundary(rest.len() / 2));
    }
    let outputs = outputs.unwrap_or_default();
    let mut detail = detail.trim_end().to_owned();
    if is_cut {
        let kept = outputs.get("body").and_then(Value::as_str).map_or(0, str::len);
        detail.push_str(&format!("; of its body the first {kept} bytes are kept"));
    }
    Answer { state, reason, detail, outputs }
}
