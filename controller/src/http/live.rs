//! Output as it comes: pages of the store, one at a time, as fast as the client reads.
//!
//! A follower holds one page and no queue. It is nudged when something was committed, and looks again after a second
//! anyway. Positions only grow, so whoever breaks off goes on without a gap or a repetition.

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::{
    body::Body,
    http::header,
    response::{
        IntoResponse, Response,
        sse::{Event, KeepAlive, Sse},
    },
};
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use model::{
    api::{
        execution::Execution,
        output::{OutputEnd, OutputPiece},
    },
    id::{ExecutionId, OrgId},
};
use tokio::{sync::watch, time::Instant};

use super::{
    Door,
    credential::Credential,
    lines::{self, Lines},
    problem::{Failure, Result},
    tail,
};
use crate::{
    error::Error,
    store::{
        self,
        output::{OutputFilter, TailStart},
    },
};

/// Pieces of one page.
const PIECES: i64 = 256;
/// How long a follower waits for a nudge.
pub(super) const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Shortest time between two looks of a follower that is up to date: many small commits make one page.
const BREATH: Duration = Duration::from_millis(10);
/// How often a silent stream of events says that it is there.
pub(super) const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// The output of one execution, page by page.
#[derive(Debug)]
pub(super) struct Pages {
    door: Arc<Door>,
    credential: Credential,
    org: OrgId,
    execution: ExecutionId,
    filter: OutputFilter,
    after: i64,
    /// Lines of the first piece that the client did not ask for.
    skip_lines: i64,
    follow: bool,
    changes: watch::Receiver<u64>,
    /// When the last look was that found less than a whole page.
    up_to_date: Option<Instant>,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// There may be more.
    Open,
    /// The execution has ended and its last piece was handed out.
    Ended,
    /// Nothing more is handed out.
    Closed,
}

/// What comes next.
enum Step {
    Pieces(Vec<OutputPiece>),
    /// The execution has ended, and there is no more.
    End(OutputEnd),
    /// All that is there now was handed out, and the client does not follow.
    Now,
    /// The controller stops; the client may come back.
    Stopped,
}

impl Pages {
    pub(super) fn new(
        door: Arc<Door>,
        credential: Credential,
        org: OrgId,
        execution: ExecutionId,
        filter: OutputFilter,
        start: TailStart,
        follow: bool,
    ) -> Self {
        let changes = door.app.live.watch(execution);
        let TailStart { after, skip_lines } = start;
        Self {
            door,
            credential,
            org,
            execution,
            filter,
            after,
            skip_lines,
            follow,
            changes,
            up_to_date: None,
            state: State::Open,
        }
    }

    /// The next step; `None` behind the last.
    async fn next(&mut self) -> Option<Result<Step>> {
        let step = match self.state {
            State::Closed => return None,
            State::Ended => self.end().await,
            State::Open => self.look().await,
        };
        match &step {
            Ok(Step::Pieces(_)) => {}
            Ok(Step::End(_) | Step::Now | Step::Stopped) | Err(_) => self.state = State::Closed,
        }
        Some(step)
    }

    async fn look(&mut self) -> Result<Step> {
        let pool = self.door.app.db.of(self.org);
        loop {
            if let Some(up_to_date) = self.up_to_date {
                tokio::time::sleep_until(up_to_date + BREATH).await;
            }
            self.credential.still_counts().await?;
            // Before the look: what is committed during it nudges again.
            self.changes.borrow_and_update();
            let begun = Instant::now();
            let mut page =
                store::output::page(&pool, self.org, self.execution, &self.filter, self.after, PIECES)
                    .await?;
            let is_whole = i64::try_from(page.items.len()) == Ok(PIECES);
            self.up_to_date = (self.follow && !is_whole).then_some(begun);
            let advanced = page.next_after > self.after;
            self.after = self.after.max(page.next_after);
            if page.end {
                self.state = State::Ended;
            }
            if let Some(first) = page.items.first_mut() {
                tail::skip_lines(first, std::mem::take(&mut self.skip_lines));
                return Ok(Step::Pieces(page.items));
            }
            if page.end {
                return self.end().await;
            }
            if !advanced {
                if !self.follow {
                    return Ok(Step::Now);
                }
                if !self.changed().await {
                    return Ok(Step::Stopped);
                }
            }
        }
    }

    /// Waits until another look may be worth it; `false` when the controller stops.
    async fn changed(&mut self) -> bool {
        let stop = self.door.stop.clone();
        let wait = async {
            if tokio::time::timeout(LOOK_EVERY, self.changes.changed())
                .await
                .is_ok_and(|nudge| nudge.is_err())
            {
                tokio::time::sleep(LOOK_EVERY).await;
            }
        };
        tokio::select! {
            () = stop.cancelled() => false,
            () = wait => true,
        }
    }

    async fn end(&self) -> Result<Step> {
        let pool = self.door.app.db.of(self.org);
        let execution = store::executions::get(&pool, self.org, self.execution)
            .await?
            .ok_or_else(|| Failure::from(Error::not_found("execution", self.execution.to_string())))?;
        let left_out = match execution.stopped {
            true => store::progress::left_out(&pool, self.org, self.execution).await?,
            false => 0,
        };
        let Execution { state, runs, aborted, .. } = execution;
        Ok(Step::End(OutputEnd { state, runs, left_out, aborted }))
    }
}

/// Server-sent events.
pub(super) fn events(pages: Pages, request_id: String) -> Response {
    let steps = stream::unfold(pages, |mut pages| async move { Some((pages.next().await?, pages)) });
    let events = steps.flat_map(move |step| {
        let events = match step {
            Ok(Step::Pieces(pieces)) => {
                pieces.iter().map(|piece| event("output", piece).id(piece.position.to_string())).collect()
            }
            Ok(Step::End(end)) => vec![event("end", &end)],
            Ok(Step::Now | Step::Stopped) => Vec::new(),
            Err(failure) => {
                failure.log();
                vec![event("error", &failure.problem(&request_id))]
            }
        };
        stream::iter(events.into_iter().map(Ok::<_, Infallible>))
    });
    let alive = KeepAlive::new().interval(KEEP_ALIVE).text("alive");
    ([("x-accel-buffering", "no")], Sse::new(events).keep_alive(alive)).into_response()
}

pub(super) fn event(name: &str, data: &impl serde::Serialize) -> Event {
    Event::default().event(name).json_data(data).expect("plain data becomes JSON")
}

/// Text: of one target its bytes as they were written, of several each line behind its target's name.
///
/// A stream that does not reach its end is broken off, so that a client can tell.
pub(super) fn text(pages: Pages, is_raw: bool) -> Response {
    let lines = (!is_raw).then(Lines::default);
    let steps = stream::unfold((pages, lines), |(mut pages, mut lines)| async move {
        let bytes = match pages.next().await? {
            Ok(Step::Pieces(pieces)) => match &mut lines {
                Some(lines) => lines.take(&pieces),
                None => pieces.iter().flat_map(|piece| lines::content(&piece.data)).collect(),
            },
            Ok(Step::End(_) | Step::Now) => lines.as_mut().map(Lines::finish).unwrap_or_default(),
            Ok(Step::Stopped) => return Some((Err(Broken), (pages, lines))),
            Err(failure) => {
                failure.log();
                return Some((Err(Broken), (pages, lines)));
            }
        };
        Some((Ok(Bytes::from(bytes)), (pages, lines)))
    });
    // What a process wrote may be in any encoding, or in none.
    let kind = if is_raw { "text/plain" } else { "text/plain; charset=utf-8" };
    (
        [(header::CONTENT_TYPE, kind), (header::HeaderName::from_static("x-accel-buffering"), "no")],
        Body::from_stream(steps),
    )
        .into_response()
}

/// Why a stream of text ends before its end; the cause is in the log.
#[derive(Debug, thiserror::Error)]
#[error("the output was broken off")]
struct Broken;
