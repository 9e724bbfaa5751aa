//! Requests that steps of executions make to web servers.
//!
//! Invariants: what is asked comes from the signed plan; one that is sent has been written down as sent before; whatever nobody
//! knows the answer of is asked again only where that does no harm, and is `unknown` otherwise.

use std::{sync::Arc, time::Duration};

use jiff::SignedDuration;
use model::{
    Reason,
    job::{HttpCall, outputs},
    limits,
    run::RunState,
};
use serde_json::{Value, json};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{App, approvals, egress, gathered, manifest};
use crate::{
    clock,
    error::{During, Error, Result},
    store::{
        self,
        http_calls::{Answer, Taken},
    },
};

/// Requests that are under way at a time.
const AT_A_TIME: usize = 64;
/// How long after the last moment of a try what came of it may be written, should the database be away.
const RESERVE: i64 = 60;

/// The places of those that are under way.
#[derive(Debug)]
pub(crate) struct Places(Arc<Semaphore>);

impl Default for Places {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(AT_A_TIME)))
    }
}

/// Sends what is due, as far as there are places, and settles what was lost; answers how many it began with.
///
/// # Errors
/// When the database does not answer.
pub(crate) async fn send_due(app: &Arc<App>) -> Result<usize> {
    let now = clock::now();
    let me = (app.info.controller_id, app.info.started_at);
    for lost in store::http_calls::lost(app.db.worker(), me, now, AT_A_TIME as i64).await? {
        settle_lost(app, &lost).await?;
    }
    let mut places = Vec::new();
    while let Ok(place) = Arc::clone(&app.http_calls.0).try_acquire_owned() {
        places.push(place);
    }
    if places.is_empty() {
        return Ok(0);
    }
    let until = now.saturating_add(SignedDuration::from_secs(limits::STEP_HTTP_SECONDS.end() + RESERVE));
    let times = (now, until.unwrap_or(now));
    let limit = i64::try_from(places.len()).unwrap_or(1);
    let taken = store::http_calls::take(app.db.worker(), me.0, times, limit).await?;
    fault::point("controller.http_call.taken");
    let begun = taken.len();
    for (taken, place) in taken.into_iter().zip(places) {
        let app = Arc::clone(app);
        tokio::spawn(async move { call(&app, taken, place).await });
    }
    Ok(begun)
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
        outputs: Default::default(),
    };
    match call {
        Some(call) if call.may_repeat() => {
            store::http_calls::again(app.db.worker(), lost, clock::now(), &answer).await
        }
        _ => store::http_calls::end(app.db.worker(), lost, &answer).await,
    }
}

/// Makes one request, and writes what came of it.
async fn call(app: &App, taken: Taken, _place: OwnedSemaphorePermit) {
    let done = async {
        let (answer, again_in) = ask(app, &taken).await?;
        fault::point("controller.http_call.answered");
        // It has been asked: what came of it is not lost because the database is away for a moment.
        while let Err(error) = write(app, &taken, &answer, again_in).await {
            tracing::warn!(execution.id = %taken.execution_id, %error, "an answer could not be written yet");
            if clock::now() >= taken.until {
                return Err(error);
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        fault::point("controller.http_call.written");
        Ok::<(), Error>(())
    };
    if let Err(error) = done.await {
        tracing::error!(execution.id = %taken.execution_id, %error, "what became of an http step is not known");
    }
    app.wake.advance.notify_one();
    app.wake.http_calls.notify_one();
    app.wake.others.notify_one();
}

async fn write(app: &App, taken: &Taken, answer: &Answer, again_in: Option<Duration>) -> Result<()> {
    let pool = app.db.worker();
    match again_in {
        Some(pause) => {
            let pause = SignedDuration::try_from(pause).unwrap_or(SignedDuration::MAX);
            let due_at = clock::now().saturating_add(pause).unwrap_or(jiff::Timestamp::MAX);
            store::http_calls::again(pool, taken, due_at, answer).await
        }
        None => store::http_calls::end(pool, taken, answer).await,
    }
}

/// Asks, and says in how long it is asked again, if it is.
async fn ask(app: &App, taken: &Taken) -> Result<(Answer, Option<Duration>)> {
    let failed = |reason, detail: String| Answer {
        state: RunState::Failed,
        reason,
        detail,
        outputs: Default::default(),
    };
    let id = taken.execution_id;
    let mut connection = app.db.worker().acquire().await.during("acquire of a connection")?;
    let mut authorised = manifest::authorised(app, &mut connection, [id]).await?;
    let unauthorised = |why: String| (failed(Reason::ManifestMismatch, why), None);
    let verified = match authorised.remove(&id) {
        Some(Ok(verified)) => verified,
        Some(Err(mismatch)) => return Ok(unauthorised(mismatch.to_string())),
        None => return Ok(unauthorised("there is no such execution".to_owned())),
    };
    let found =
        verified.place(taken.run_id).and_then(|place| Some((place, verified.plan()?.http_call(place)?)));
    let Some((place, call)) = found else {
        return Ok(unauthorised("the plan has no such request".to_owned()));
    };
    if !approvals::is_open(app, &mut connection, (id, &verified), place).await? {
        return Ok(unauthorised("nobody has approved it".to_owned()));
    }
    let context = gathered::context(&mut connection, (id, &verified), place).await?;
    drop(connection);
    let is_template = verified.plan().is_some_and(|plan| plan.steps[place].template);
    let request = match context.and_then(|context| call.http.filled(is_template, &context)) {
        Ok(request) => request,
        Err(invalid) => return Ok((failed(Reason::BadTemplate, invalid.to_string()), None)),
    };
    let within = Duration::from_secs(u64::try_from(call.timeout_seconds).unwrap_or(0));
    let (answer, may_try_again) = match app.egress.send(request, within).await {
        Ok(answer) => {
            let may_try_again = answer.status >= 500 || matches!(answer.status, 408 | 425 | 429);
            (judge(call, &answer), may_try_again)
        }
        Err(none) => {
            let state = if none.is_late { RunState::TimedOut } else { RunState::Failed };
            let reason = if none.is_late { Reason::TimeLimit } else { Reason::NoAnswer };
            let answer = Answer { state, reason, detail: none.why, outputs: Default::default() };
            (answer, !none.is_final)
        }
    };
    if answer.state == RunState::Succeeded || !may_try_again || taken.tries >= call.tries() {
        return Ok((answer, None));
    }
    let pause = call.retry.as_ref().map(|retry| retry.pause(taken.tries, fastrand::u64(..)));
    Ok((answer, pause))
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
    // What is too deep, or has what no database keeps, is told as the text that it was.
    let outputs = told(body).or_else(|_| told(text())).unwrap_or_default();
    Answer { state, reason, detail: detail.trim_end().to_owned(), outputs }
}
