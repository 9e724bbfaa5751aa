//! The session: orders and cancels go out, reports come in and are answered after their commit.

use std::{num::NonZeroU32, sync::Arc, time::Duration};

use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use jiff::{SignedDuration, Timestamp};
use model::{
    Reason,
    api::execution::Usage,
    id::{AgentId, ExecutionId, RunId},
    job::outputs,
    label::accept_facts,
    limits,
    sandbox::Profile,
};
use prost::Message;
use proto::{
    AgentFrame, ControllerFrame, ExitRecord, agent_frame::Frame, controller_frame, report::Body,
    session_server::Session,
};
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, timeout},
};
use tokio_stream::{Stream, StreamExt, wrappers::ReceiverStream};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use super::{admit, refuse};
use crate::{
    app::{
        App,
        audit::{self, alarms},
        runs::{self, Finish, Happening, Verdict},
        sessions::{self, Connected, Opening, PROTOCOL_MAX},
    },
    clock, store,
    store::attempts::Exit,
};

/// What an executor's signature of an exit record is made over.
const EXIT_RECORD: &str = "exit-record";
/// Reports of one agent that wait for their commit.
const REPORTS: usize = 256;
/// Bytes of an exit record, and of each hash in it.
const RECORD_BYTES: usize = 16 * 1024 + limits::OUTPUTS_BYTES;
const HASH_BYTES: usize = 32;
/// An agent's time counts if it is within this of the controller's.
const BELIEVED: SignedDuration = SignedDuration::from_hours(24 * 366);
/// How often one agent is shown what the audit's chain has at the number that it remembers. It asks half as often.
const LINK_EVERY: Duration = Duration::from_secs(5);
/// How long a goodbye may take to be taken.
const GOODBYE_WITHIN: Duration = Duration::from_secs(1);
/// Characters of a detail that an agent sends.
const DETAIL_CHARS: usize = 1000;

pub(super) struct Door {
    app: Arc<App>,
    shutdown: CancellationToken,
}

impl Door {
    pub(super) fn new(app: Arc<App>, shutdown: CancellationToken) -> Self {
        Self { app, shutdown }
    }
}

#[tonic::async_trait]
impl Session for Door {
    type OpenStream = std::pin::Pin<Box<dyn Stream<Item = Result<ControllerFrame, Status>> + Send>>;

    async fn open(
        &self,
        request: Request<Streaming<AgentFrame>>,
    ) -> Result<Response<Self::OpenStream>, Status> {
        let (identity, standing) = admit(&self.app, &request).await?;
        let (outbound, frames) = mpsc::channel(limits::OUTBOUND_FRAMES);
        let task = SessionTask {
            app: Arc::clone(&self.app),
            agent_id: identity.agent_id,
            result_key: standing.result_key.clone(),
            outbound: outbound.clone(),
            shutdown: self.shutdown.clone(),
        };
        let inbound = request.into_inner();
        tokio::spawn(task.run(identity, standing, inbound));
        Ok(Response::new(Box::pin(ReceiverStream::new(frames).map(Ok))))
    }
}

struct SessionTask {
    app: Arc<App>,
    agent_id: AgentId,
    result_key: Vec<u8>,
    outbound: mpsc::Sender<ControllerFrame>,
    shutdown: CancellationToken,
}

impl SessionTask {
    async fn run(
        self,
        identity: Arc<pki::identity::AgentIdentity>,
        standing: store::agents::Standing,
        mut inbound: Streaming<AgentFrame>,
    ) {
        if standing.pending {
            self.goodbye("pending", "a person has yet to approve this agent").await;
            return;
        }
        let hello = match timeout(self.app.info.timing.silence, inbound.next()).await {
            Ok(Some(Ok(AgentFrame { frame: Some(Frame::Hello(hello)) }))) => hello,
            Ok(Some(Ok(_))) => return self.goodbye("protocol", "the first frame must be a hello").await,
            Ok(Some(Err(_)) | None) => return,
            Err(_) => return self.goodbye("silent", "no hello came").await,
        };
        let opening =
            Opening { agent_id: self.agent_id, org_id: identity.org_id, seal_key: standing.seal_key, hello };
        let end = CancellationToken::new();
        let opened = sessions::open(&self.app, opening, self.outbound.clone(), end.clone()).await;
        let session = match opened {
            Ok(Ok(session)) => session,
            Ok(Err(refusal)) => return self.goodbye(refusal.code, &refusal.detail).await,
            Err(error) => {
                let status = refuse(error);
                return self.goodbye("unavailable", status.message()).await;
            }
        };
        tracing::debug!(agent.id = %self.agent_id, session.epoch = session.epoch, "a session has opened");
        let timing = self.app.info.timing;
        let welcome = proto::Welcome {
            protocol: PROTOCOL_MAX,
            session_epoch: u64::try_from(session.epoch).unwrap_or(0),
            fence: u64::try_from(session.fence).unwrap_or(0),
            heartbeat_ms: millis(timing.heartbeat),
            metrics_ms: millis(limits::METRICS_EVERY),
            now: clock::now().as_microsecond(),
            silence_ms: millis(timing.silence),
            controllers: self.app.sessions.doors(),
            shows_links: true,
        };
        // Before the session is entered: nothing may overtake the welcome.
        if self.send(controller_frame::Frame::Welcome(welcome)).await.is_ok() {
            if sessions::enter(&self.app, &session) {
                fault::point("controller.session.entered");
                self.serve(&session, inbound, &end).await;
            } else {
                self.goodbye("superseded", "a newer session of this agent opened").await;
            }
        }
        tracing::debug!(agent.id = %self.agent_id, session.epoch = session.epoch, "a session has ended");
        if let Err(error) = sessions::close(&self.app, &session).await {
            tracing::warn!(agent.id = %self.agent_id, error = &error as &dyn std::error::Error, "a session's end was not stored");
        }
    }

    async fn serve(&self, session: &Connected, mut inbound: Streaming<AgentFrame>, end: &CancellationToken) {
        let rate = NonZeroU32::new(limits::AGENT_FRAMES_PER_SECOND).expect("the limit is not zero");
        let frames_left: DefaultDirectRateLimiter = RateLimiter::direct(Quota::per_second(rate));
        let silence = self.app.info.timing.silence;
        let mut linked: Option<Instant> = None;
        let (answers, waiting) = mpsc::channel(REPORTS);
        let mut answering = tokio::spawn(answer(waiting, self.outbound.clone()));
        loop {
            let frame = tokio::select! {
                () = end.cancelled() => break self.goodbye("superseded", "a newer session of this agent opened").await,
                () = self.shutdown.cancelled() => {
                    break self.goodbye("shutting_down", "this controller is stopping").await;
                }
                _ = &mut answering => {
                    break self.goodbye("unavailable", "reports cannot be stored now; send them again").await;
                }
                frame = timeout(silence, inbound.next()) => frame,
            };
            let frame = match frame {
                Ok(Some(Ok(AgentFrame { frame: Some(frame) }))) => frame,
                Ok(Some(Ok(AgentFrame { frame: None }))) => continue,
                Ok(Some(Err(_)) | None) => break,
                Err(_) => break self.goodbye("silent", "no heartbeat came").await,
            };
            // Too fast an agent is not read for a moment: what it sends waits in its own spool.
            frames_left.until_ready().await;
            match frame {
                Frame::Report(report) => {
                    let answer = self.report(report).await;
                    // One who does not read the answers to its reports is as good as silent.
                    if !matches!(timeout(silence, answers.send(answer)).await, Ok(Ok(()))) {
                        break;
                    }
                }
                Frame::Facts(update) => {
                    let facts = accept_facts(update.facts);
                    let pool = self.app.db.worker();
                    if let Err(error) =
                        store::agents::update_facts(pool, session.agent_id, &facts, clock::now()).await
                    {
                        tracing::warn!(agent.id = %self.agent_id, error = &error as &dyn std::error::Error, "facts were not stored");
                    }
                }
                Frame::Alarm(alarm) => {
                    let what = text(&alarm.what);
                    if let Err(error) = alarms::take(&self.app, session, &alarm, what).await {
                        tracing::warn!(agent.id = %self.agent_id, error = &error as &dyn std::error::Error, "an alarm was not stored");
                    }
                }
                Frame::Witnessed(_) if linked.is_some_and(|last| last.elapsed() < LINK_EVERY) => {}
                Frame::Witnessed(witnessed) => {
                    linked = Some(Instant::now());
                    if let Err(error) = audit::link(&self.app, session, witnessed.seq).await {
                        tracing::warn!(agent.id = %self.agent_id, error = &error as &dyn std::error::Error, "a witness got no answer");
                    }
                }
                Frame::Heartbeat(_) => {}
                Frame::Hello(_) => break self.goodbye("protocol", "a second hello").await,
            }
        }
        drop(answers);
        answering.abort();
    }

    /// Checks a report and queues it to be recorded.
    async fn report(&self, report: proto::Report) -> (u64, Answer) {
        let seq = report.seq;
        match self.read(report) {
            Ok(report) => match self.app.reports.put(report).await {
                Some(answered) => (seq, Answer::Later(answered)),
                None => (seq, Answer::Never),
            },
            Err(reason) => {
                tracing::warn!(agent.id = %self.agent_id, reason, "a report was rejected");
                (seq, Answer::Now(Verdict::Rejected(reason)))
            }
        }
    }

    fn read(&self, report: proto::Report) -> Result<runs::Report, &'static str> {
        let key = key(&report.execution_id, &report.run_id, report.attempt)?;
        let time = |micros: i64| believed(micros).unwrap_or_else(clock::now);
        let happening = match report.body.ok_or("empty_report")? {
            Body::Accepted(accepted) => Happening::Accepted { at: time(accepted.at) },
            Body::Started(started) => Happening::Started {
                at: time(started.at),
                pid: i32::try_from(started.pid).unwrap_or(0),
                boot_id: text(&started.boot_id),
            },
            Body::Refused(refused) => Happening::Refused {
                reason: Reason::parse(&refused.reason).unwrap_or(Reason::OrderRefused),
                detail: text(&refused.detail),
            },
            Body::Lost(lost) => Happening::Lost {
                reason: Reason::parse(&lost.reason).unwrap_or(Reason::AgentLost),
                detail: text(&lost.detail),
            },
            // An end that cannot be believed is an end all the same: the agent will say nothing else.
            Body::Finished(finished) => match self.exit(finished, key) {
                Ok(finish) => Happening::Finished(Box::new(finish)),
                Err(why) => {
                    tracing::error!(agent.id = %self.agent_id, run.id = %key.1, why, "an exit record does not count");
                    let detail = format!("its exit record does not count: {why}");
                    Happening::Lost { reason: Reason::AgentLost, detail }
                }
            },
        };
        Ok(runs::Report { key, agent_id: self.agent_id, happening })
    }

    /// An exit counts only with the executor's own signature over it: the link cannot forge a result.
    fn exit(&self, finished: proto::Finished, key: runs::Key) -> Result<Finish, &'static str> {
        pki::result_key::verify_result(&self.result_key, EXIT_RECORD, &finished.record, &finished.signature)
            .map_err(|_| "bad_signature")?;
        let record = ExitRecord::decode(finished.record.as_slice()).map_err(|_| "unreadable_record")?;
        if self::key(&record.execution_id, &record.run_id, record.attempt)? != key {
            return Err("record_of_another_attempt");
        }
        let number = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        let (stdout, stderr) = (record.stdout.unwrap_or_default(), record.stderr.unwrap_or_default());
        let hashes = [&stdout.sha256, &stderr.sha256];
        if finished.record.len() > RECORD_BYTES
            || hashes.iter().any(|hash| !matches!(hash.len(), 0 | HASH_BYTES))
        {
            return Err("oversized_record");
        }
        let outputs = match record.outputs.as_slice() {
            [] => None,
            told => Some(outputs::read_any(told).map_err(|_| "unreadable_outputs")?),
        };
        Ok(Finish {
            outputs,
            started_at: believed(record.started_at),
            ended_at: believed(record.ended_at).unwrap_or_else(clock::now),
            reason: Reason::parse(&record.reason).ok_or("unknown_reason")?,
            detail: text(&record.detail),
            exit_code: record.exit_code,
            signal: record.signal,
            exit: Exit {
                stdout_written: number(stdout.bytes),
                stderr_written: number(stderr.bytes),
                stdout_sha256: stdout.sha256,
                stderr_sha256: stderr.sha256,
                usage: Usage {
                    cpu_user_us: number(record.cpu_user_us),
                    cpu_system_us: number(record.cpu_system_us),
                    peak_memory_bytes: number(record.peak_memory_bytes),
                    peak_pids: number(record.peak_pids),
                    io_read_bytes: number(record.io_read_bytes),
                    io_write_bytes: number(record.io_write_bytes),
                    out_of_memory: record.out_of_memory,
                },
                sandbox: sandbox(record.profile),
                record: finished.record,
                signature: finished.signature,
            },
        })
    }

    async fn goodbye(&self, code: &str, detail: &str) {
        let goodbye = proto::Goodbye { code: code.to_owned(), detail: detail.to_owned(), retry_after_ms: 0 };
        // The agent may be gone or not reading; then nobody hears it.
        let _ = timeout(GOODBYE_WITHIN, self.send(controller_frame::Frame::Goodbye(goodbye))).await;
    }

    async fn send(
        &self,
        frame: controller_frame::Frame,
    ) -> Result<(), mpsc::error::SendError<ControllerFrame>> {
        self.outbound.send(ControllerFrame { frame: Some(frame) }).await
    }
}

/// When the answer to a report is known.
enum Answer {
    Now(Verdict),
    Later(oneshot::Receiver<Verdict>),
    Never,
}

/// Answers reports in the order in which they came. One that was not recorded ends this, and the session with it: the
/// agent opens another and sends again.
async fn answer(mut waiting: mpsc::Receiver<(u64, Answer)>, outbound: mpsc::Sender<ControllerFrame>) {
    while let Some((seq, answer)) = waiting.recv().await {
        let verdict = match answer {
            Answer::Now(verdict) => verdict,
            Answer::Later(answered) => match answered.await {
                Ok(verdict) => verdict,
                Err(_) => return,
            },
            Answer::Never => return,
        };
        let (verdict, reason) = match verdict {
            Verdict::Stored => (proto::Verdict::Stored, ""),
            Verdict::Duplicate => (proto::Verdict::Duplicate, ""),
            Verdict::Rejected(reason) => (proto::Verdict::Rejected, reason),
        };
        let ack = proto::ReportAck { seq, verdict: verdict.into(), reason: reason.to_owned() };
        let frame = ControllerFrame { frame: Some(controller_frame::Frame::Ack(ack)) };
        fault::point("controller.ack.sending");
        if outbound.send(frame).await.is_err() {
            return;
        }
        fault::point("controller.ack.sent");
    }
}

/// The profile that a record names; one that is none is not kept.
fn sandbox(profile: i32) -> Option<Profile> {
    proto::Profile::try_from(profile).ok()?.named()
}

fn millis(duration: Duration) -> u32 {
    u32::try_from(duration.as_millis()).unwrap_or(u32::MAX)
}

fn key(execution: &[u8], run: &[u8], attempt: u32) -> Result<runs::Key, &'static str> {
    Ok((
        ExecutionId::from_bytes(execution).map_err(|_| "bad_execution_id")?,
        RunId::from_bytes(run).map_err(|_| "bad_run_id")?,
        i32::try_from(attempt).map_err(|_| "bad_attempt")?,
    ))
}

/// A time of an agent, if it is near the controller's: a host's clock may be wrong, and Postgres cannot keep every time.
fn believed(micros: i64) -> Option<Timestamp> {
    let now = clock::now();
    Timestamp::from_microsecond(micros).ok().filter(|time| now.duration_since(*time).abs() < BELIEVED)
}

/// Text of an agent: without control characters, and not too long.
fn text(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(DETAIL_CHARS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_profile_that_is_none_is_not_kept() {
        for profile in Profile::ALL {
            let wire =
                proto::Profile::from_str_name(&profile.as_str().to_ascii_uppercase()).expect("it has one");
            assert_eq!(sandbox(wire.into()), Some(profile));
        }
        for other in [proto::Profile::HostDefault.into(), -1, 5, i32::MAX, i32::MIN] {
            assert_eq!(sandbox(other), None, "{other}");
        }
    }
}
