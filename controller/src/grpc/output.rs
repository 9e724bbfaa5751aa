//! Output: an agent says which attempt's output it brings, hears how much of it is held, and sends what follows.

use std::{collections::HashMap, sync::Arc};

use model::{
    api::output::Stream,
    id::{AgentId, ExecutionId, RunId},
    limits,
};
use proto::{OutputFrame, OutputReply, output_frame::Frame, output_reply::Reply, output_server::Output};
use tokio::sync::mpsc;
use tokio_stream::{StreamExt, wrappers::ReceiverStream};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use super::{admit, refuse};
use crate::{
    app::{App, output as verbs, output::Place},
    store::{self, output::Cursor},
};

/// Answers that wait to be written to one agent.
const REPLIES: usize = 64;
/// Batches of one agent that wait to be stored.
const IN_FLIGHT: usize = 8;
/// Attempts whose output one stream carries at a time.
const ATTEMPTS: usize = 2 * limits::MAX_SLOTS as usize;

pub(super) struct Door {
    app: Arc<App>,
    shutdown: CancellationToken,
}

impl Door {
    pub(super) fn new(app: Arc<App>, shutdown: CancellationToken) -> Self {
        Self { app, shutdown }
    }
}

type Key = (RunId, u32);
type Replies = mpsc::Sender<Result<OutputReply, Status>>;

#[tonic::async_trait]
impl Output for Door {
    type ShipStream = ReceiverStream<Result<OutputReply, Status>>;

    async fn ship(
        &self,
        request: Request<Streaming<OutputFrame>>,
    ) -> Result<Response<Self::ShipStream>, Status> {
        let (identity, standing) = admit(&self.app, &request).await?;
        if standing.pending {
            return Err(Status::permission_denied("pending"));
        }
        let (replies, answer) = mpsc::channel(REPLIES);
        let stream = ShipStream {
            app: Arc::clone(&self.app),
            agent: identity.agent_id,
            places: HashMap::new(),
            replies: replies.clone(),
        };
        let frames = request.into_inner();
        let shutdown = self.shutdown.clone();
        tokio::spawn(async move {
            let ended = shutdown.run_until_cancelled(stream.run(frames)).await;
            if let Err(status) =
                ended.unwrap_or_else(|| Err(Status::unavailable("this controller is stopping")))
            {
                // The agent may be gone; then nobody reads it.
                let _ = replies.send(Err(status)).await;
            }
        });
        Ok(Response::new(ReceiverStream::new(answer)))
    }
}

/// One agent's open output stream.
struct ShipStream {
    app: Arc<App>,
    agent: AgentId,
    places: HashMap<Key, Place>,
    replies: Replies,
}

impl ShipStream {
    async fn run(mut self, mut frames: Streaming<OutputFrame>) -> Result<(), Status> {
        let (acks, waiting) = mpsc::channel(IN_FLIGHT);
        let mut acknowledging = tokio::spawn(acknowledge(waiting, self.replies.clone()));
        // A batch that was not stored ends the stream at once: the agent waits for its answer and sends nothing more.
        tokio::select! {
            result = self.read(&mut frames, &acks) => {
                drop(acks);
                let acknowledged = acknowledging.await.unwrap_or(Ok(()));
                result.and(acknowledged)
            }
            acknowledged = &mut acknowledging => acknowledged.unwrap_or(Ok(())),
        }
    }

    async fn read(
        &mut self,
        frames: &mut Streaming<OutputFrame>,
        acks: &mpsc::Sender<Pending>,
    ) -> Result<(), Status> {
        while let Some(frame) = frames.next().await {
            match frame?.frame {
                Some(Frame::Resume(resume)) => self.resume(resume).await?,
                Some(Frame::Batch(batch)) => {
                    if let Some(pending) = self.take(batch).await?
                        && acks.send(pending).await.is_err()
                    {
                        return Ok(());
                    }
                }
                None => return Err(Status::invalid_argument("an empty frame")),
            }
        }
        Ok(())
    }

    /// Answers what is held of an attempt, from which it goes on.
    async fn resume(&mut self, resume: proto::Resume) -> Result<(), Status> {
        let invalid = |error: model::id::InvalidId| Status::invalid_argument(error.to_string());
        let execution_id = ExecutionId::from_bytes(&resume.execution_id).map_err(invalid)?;
        let run_id = RunId::from_bytes(&resume.run_id).map_err(invalid)?;
        let attempt =
            i32::try_from(resume.attempt).map_err(|_| Status::invalid_argument("attempt is too large"))?;
        if self.places.len() >= ATTEMPTS {
            self.places.clear();
        }
        let pool = self.app.db.output();
        let owner = store::attempts::owner(pool, execution_id, run_id, attempt).await.map_err(refuse)?;
        let Some((_, org_id)) = owner.filter(|(agent, _)| *agent == self.agent) else {
            return self.reply(rejection(&resume.run_id, resume.attempt, "unknown_attempt")).await;
        };
        let cursor = store::output::cursor(pool, execution_id, run_id, attempt).await.map_err(refuse)?;
        let place = Place { execution_id, run_id, attempt, org_id, cursor };
        self.places.insert((run_id, resume.attempt), place);
        fault::point("controller.resume.answering");
        self.reply(Reply::Held(wire(run_id, resume.attempt, &cursor))).await
    }

    /// Checks a batch and hands it over to be stored.
    async fn take(&mut self, batch: proto::Batch) -> Result<Option<Pending>, Status> {
        if batch.chunks.len() > limits::BATCH_CHUNKS {
            return Err(Status::invalid_argument("over the limit BATCH_CHUNKS"));
        }
        let mut by_attempt: Vec<(Key, Vec<proto::Chunk>)> = Vec::new();
        for chunk in batch.chunks {
            let run_id =
                RunId::from_bytes(&chunk.run_id).map_err(|e| Status::invalid_argument(e.to_string()))?;
            let key = (run_id, chunk.attempt);
            match by_attempt.iter_mut().find(|(known, _)| *known == key) {
                Some((_, chunks)) => chunks.push(chunk),
                None => by_attempt.push((key, vec![chunk])),
            }
        }
        let mut checked = Vec::with_capacity(by_attempt.len());
        let mut cursors = Vec::with_capacity(by_attempt.len());
        for (key, chunks) in by_attempt {
            let Some(place) = self.places.get_mut(&key) else {
                self.reply(rejection(&key.0.to_bytes(), key.1, "not_resumed")).await?;
                continue;
            };
            match verbs::check(place, chunks) {
                Ok(good) => {
                    cursors.push((key, good.advance.to));
                    checked.push(good);
                }
                // What a job wrote into its own output file must not hold up the output of others.
                Err(fault) if fault.is_of_the_data() => {
                    tracing::warn!(agent.id = %self.agent, run.id = %key.0, %fault, "a run's output is rejected");
                    self.places.remove(&key);
                    self.reply(rejection(&key.0.to_bytes(), key.1, &fault.to_string())).await?;
                }
                Err(fault) => {
                    return Err(Status::failed_precondition(format!(
                        "{fault}: run {} attempt {}",
                        key.0, key.1
                    )));
                }
            }
        }
        if checked.is_empty() {
            return Ok(None);
        }
        let stored =
            self.app.chunks.put(checked).await.ok_or_else(|| Status::unavailable("shutting down"))?;
        Ok(Some(Pending { cursors, stored }))
    }

    async fn reply(&self, reply: Reply) -> Result<(), Status> {
        let sent = self.replies.send(Ok(OutputReply { reply: Some(reply) })).await;
        sent.map_err(|_| Status::cancelled("the agent is gone"))
    }
}

/// A batch on its way into the tables.
struct Pending {
    cursors: Vec<(Key, Cursor)>,
    stored: tokio::sync::oneshot::Receiver<std::collections::HashSet<(RunId, i32)>>,
}

/// Answers each batch after its commit, in order. A batch that was not stored ends the stream: the agent resumes.
async fn acknowledge(mut waiting: mpsc::Receiver<Pending>, replies: Replies) -> Result<(), Status> {
    while let Some(pending) = waiting.recv().await {
        let stored =
            pending.stored.await.map_err(|_| Status::unavailable("the output was not stored; resume"))?;
        for ((run_id, attempt), cursor) in pending.cursors {
            if !stored.contains(&(run_id, i32::try_from(attempt).unwrap_or(0))) {
                return Err(Status::aborted("another stream brought this output; resume"));
            }
            let reply = OutputReply { reply: Some(Reply::Stored(wire(run_id, attempt, &cursor))) };
            fault::point("controller.cursor.sending");
            if replies.send(Ok(reply)).await.is_err() {
                return Ok(());
            }
            fault::point("controller.cursor.sent");
        }
    }
    Ok(())
}

fn wire(run_id: RunId, attempt: u32, cursor: &Cursor) -> proto::Cursor {
    let unsigned = |value: i64| u64::try_from(value).unwrap_or(0);
    proto::Cursor {
        run_id: run_id.to_bytes(),
        attempt,
        next_seq: unsigned(cursor.next_seq),
        stdout_offset: unsigned(cursor.stdout_offset),
        stderr_offset: unsigned(cursor.stderr_offset),
    }
}

fn rejection(run_id: &[u8], attempt: u32, reason: &str) -> Reply {
    Reply::Rejected(proto::Rejection { run_id: run_id.to_vec(), attempt, reason: reason.to_owned() })
}

/// The streams of a process have the same numbers on the wire and in the tables.
const _: () = assert!(Stream::Stdout.number() == 1 && Stream::Stderr.number() == 2);
