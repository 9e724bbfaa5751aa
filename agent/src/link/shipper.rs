//! Ships output over a connection of its own, which is opened when there is some and closed when it is idle.
//!
//! Invariants:
//! 1. The files of the attempts are the queue: what was not stored is read again. A lost connection loses nothing.
//! 2. Bytes on their way are bounded: [`attempt::IN_FLIGHT_BYTES`] of one attempt, [`IN_FLIGHT_BYTES`] of all.
//! 3. Attempts take turns in every batch; one that writes without end does not hold up a line of another.
//! 4. The first output after a pause leaves at once. While a batch is on its way more gathers, and leaves when that is
//!    stored; only what fills batches is sent ahead. So the rate of commits follows what the controller can do.
//! 5. An attempt is settled, and the executor told so, when its final report is answered and its output stored or
//!    rejected. This task never waits for the executor, and goes on when that has ended.

use std::{
    collections::{HashMap, VecDeque},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use model::{id::RunId, limits};
use proto::{OutputFrame, OutputReply, output_client::OutputClient, output_frame, output_reply};
use rustls::ClientConfig;
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::{JoinHandle, JoinSet},
    time::{Instant, sleep_until, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use self::attempt::{Attempt, chunk_size};
use super::{
    backoff::Backoff,
    connect::{Address, connect},
    cut::{Compressor, Cursor, compressor},
    session::Online,
    spool::Spool,
};
use crate::messages::{AttemptKey, ToExecutor};

mod attempt;
mod let_go;

/// Commands that wait for the shipper.
pub(crate) const COMMANDS: usize = 1024;
/// Bytes of all attempts that may be on their way.
const IN_FLIGHT_BYTES: usize = 4 * 1024 * 1024;
/// Frames between this task and the connection; in-flight bounds keep it from filling.
const FRAMES: usize = 64;
/// Resumes without an answer.
const RESUMING: usize = 16;
/// Bytes that one attempt puts into a batch before the next has its turn.
const TURN_BYTES: usize = limits::CHUNK_BYTES;
/// Least time between two batches that are not full: lines that come close together share one.
const MIN_INTERVAL: Duration = Duration::from_millis(10);
/// A connection without output is closed after this time.
const IDLE: Duration = Duration::from_secs(30);
const BACKOFF_BASE: Duration = Duration::from_millis(500);
const BACKOFF_CAP: Duration = Duration::from_secs(30);
/// Reason of a rejection that asks for a new Resume.
const NOT_RESUMED: &str = "not_resumed";

/// What the shipper is told.
#[derive(Debug)]
pub(crate) enum Command {
    /// There is (more) output of an attempt in its folder.
    Grew { key: AttemptKey, folder: PathBuf },
    /// The attempt is over; how many bytes its process wrote, if known.
    Ended { key: AttemptKey, folder: PathBuf, totals: Option<[u64; 2]> },
    /// The controller answered the attempt's final report.
    FinalAnswered(AttemptKey),
    /// To be answered as soon as the controller holds all output that the shipper knows of.
    Shipped(oneshot::Sender<()>),
}

/// An open output stream.
struct Stream {
    outbound: mpsc::Sender<OutputFrame>,
    inbound: Streaming<OutputReply>,
    address: Address,
    tls: Arc<ClientConfig>,
    compressor: Compressor,
    /// When the controller last said something, or began to owe an answer.
    heard: Instant,
    /// How long it may owe one.
    patience: Duration,
}

/// The task that ships output.
pub(crate) struct Shipper {
    attempts: HashMap<AttemptKey, Attempt>,
    /// Whose turn it is: every key of `attempts`, once.
    turns: VecDeque<AttemptKey>,
    /// What the executor is to be told.
    settled: VecDeque<AttemptKey>,
    /// The executor has ended; the next one hears of what is settled when it says it again.
    executor_gone: bool,
    /// Who waits until all output is shipped.
    waiting: Vec<oneshot::Sender<()>>,
    stream: Option<Stream>,
    connecting: Option<JoinHandle<Result<Stream, String>>>,
    /// Files whose stored part is given back to the disk right now.
    letting_go: JoinSet<(AttemptKey, bool)>,
    backoff: Backoff,
    /// No connection before this time.
    not_before: Instant,
    /// No small batch before this time.
    next_batch: Instant,
    /// When a connection without output is closed.
    idle_at: Instant,
    spool: Spool,
    executor: mpsc::Sender<ToExecutor>,
    commands: mpsc::Receiver<Command>,
    online: watch::Receiver<Option<Online>>,
}

impl Shipper {
    pub(crate) fn new(
        spool: Spool,
        executor: mpsc::Sender<ToExecutor>,
        commands: mpsc::Receiver<Command>,
        online: watch::Receiver<Option<Online>>,
    ) -> Self {
        let now = Instant::now();
        Self {
            attempts: HashMap::new(),
            turns: VecDeque::new(),
            settled: VecDeque::new(),
            executor_gone: false,
            waiting: Vec::new(),
            stream: None,
            connecting: None,
            letting_go: JoinSet::new(),
            backoff: Backoff::new(BACKOFF_BASE, BACKOFF_CAP),
            not_before: now,
            next_batch: now,
            idle_at: now,
            spool,
            executor,
            commands,
            online,
        }
    }

    /// Ships until nobody can tell it of output any more.
    pub(crate) async fn run(mut self) {
        let executor = self.executor.clone();
        let mut commands = Vec::new();
        loop {
            let wake = self.progress();
            self.settle().await;
            tokio::select! {
                count = self.commands.recv_many(&mut commands, COMMANDS) => {
                    if count == 0 {
                        return;
                    }
                    commands.drain(..).for_each(|command| self.obey(command));
                }
                permit = executor.reserve(), if !self.settled.is_empty() => match (permit, self.settled.pop_front()) {
                    (Ok(permit), Some(key)) => {
                        permit.send(ToExecutor::Settled(key));
                        fault::point("link.attempt.settled");
                    }
                    _ => {
                        self.settled.clear();
                        self.executor_gone = true;
                    }
                },
                reply = next_reply(&mut self.stream) => self.receive(reply).await,
                connected = async { self.connecting.as_mut().expect("guarded").await }, if self.connecting.is_some() => {
                    self.connecting = None;
                    self.connected(connected.unwrap_or_else(|error| Err(error.to_string())));
                }
                Some(done) = self.letting_go.join_next() => {
                    if let Ok((key, well)) = done && let Some(attempt) = self.attempts.get_mut(&key) {
                        attempt.has_let_go(well);
                        self.let_go(key);
                    }
                }
                changed = self.online.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    self.session_changed();
                }
                () = sleep_until(wake.unwrap_or(self.idle_at)), if wake.is_some() => {}
            }
        }
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Grew { key, folder } => self.attempt(key, folder).grew(),
            Command::Ended { key, folder, totals } => self.attempt(key, folder).end(totals),
            // Of an attempt that ended before this agent started the executor speaks again; then it is answered again.
            Command::FinalAnswered(key) => {
                if let Some(attempt) = self.attempts.get_mut(&key) {
                    attempt.answer();
                }
            }
            Command::Shipped(reply) => self.waiting.push(reply),
        }
    }

    fn attempt(&mut self, key: AttemptKey, folder: PathBuf) -> &mut Attempt {
        self.attempts.entry(key).or_insert_with(|| {
            self.turns.push_back(key);
            Attempt::new(key, folder)
        })
    }

    /// Hands over what is done.
    async fn settle(&mut self) {
        let done: Vec<AttemptKey> =
            self.attempts.iter().filter(|(_, attempt)| attempt.is_settled()).map(|(key, _)| *key).collect();
        for key in done {
            fault::point("link.attempt.settling");
            self.attempts.remove(&key);
            self.turns.retain(|turn| *turn != key);
            self.spool.forget_cursor(key).await;
            if !self.executor_gone {
                self.settled.push_back(key);
            }
        }
        if !self.attempts.values().any(Attempt::has_unstored) {
            // Who asked and is gone needs no answer.
            for waiting in self.waiting.drain(..) {
                let _ = waiting.send(());
            }
        }
    }

    /// Does all that can be done now; when to look again, if nothing happens before.
    fn progress(&mut self) -> Option<Instant> {
        let now = Instant::now();
        // All of them are asked: who finds nothing in its file may be settled.
        let mut wanted = false;
        for attempt in self.attempts.values_mut() {
            wanted |= attempt.wants_connection(now);
        }
        let wake = self.ship(now, wanted);
        self.attempts.values().filter_map(Attempt::blind_until).chain(wake).min()
    }

    /// Does all that the connection allows, or opens or closes it.
    fn ship(&mut self, now: Instant, wanted: bool) -> Option<Instant> {
        if self.stream.is_none() {
            if !wanted || self.connecting.is_some() || self.online.borrow().is_none() {
                return None;
            }
            if now < self.not_before {
                return Some(self.not_before);
            }
            self.begin_connecting();
            return None;
        }
        if wanted {
            self.idle_at = now + IDLE;
        } else if now >= self.idle_at {
            tracing::debug!("the output connection is idle and closed");
            self.disconnect();
            return None;
        }
        match self.send(now) {
            Ok(wake) => {
                let wake = wake.unwrap_or(self.idle_at);
                let Some(owed_until) = self.owed_until(now) else { return Some(wake) };
                if now < owed_until {
                    return Some(wake.min(owed_until));
                }
                self.lost("the controller owes an answer and says nothing");
                Some(self.not_before)
            }
            Err(()) => {
                self.lost("the connection is closed");
                Some(self.not_before)
            }
        }
    }

    /// Until when the controller has to answer what it was sent; none when it owes no answer.
    fn owed_until(&mut self, now: Instant) -> Option<Instant> {
        let is_owed = self.attempts.values().any(|attempt| attempt.is_in_flight() || attempt.is_resuming());
        let stream = self.stream.as_mut()?;
        if !is_owed {
            stream.heard = now;
        }
        is_owed.then(|| stream.heard + stream.patience)
    }

    /// Sends Resumes, then batches as far as the bounds allow. When to go on, if that is a matter of time.
    fn send(&mut self, now: Instant) -> Result<Option<Instant>, ()> {
        let Some(stream) = &mut self.stream else { return Ok(None) };
        let mut resuming = self.attempts.values().filter(|attempt| attempt.is_resuming()).count();
        for key in &self.turns {
            let Some(attempt) = self.attempts.get_mut(key).filter(|_| resuming < RESUMING) else { continue };
            if let Some(resume) = attempt.resume(now) {
                push(stream, output_frame::Frame::Resume(resume))?;
                resuming += 1;
            }
        }
        loop {
            if !self.attempts.values().any(Attempt::has_backlog) {
                return Ok(None);
            }
            let in_flight: usize = self.attempts.values().map(Attempt::unstored_bytes).sum();
            let alone = !self.attempts.values().any(Attempt::is_in_flight);
            if alone && now < self.next_batch {
                return Ok(Some(self.next_batch));
            }
            // What is sent ahead must fill a batch, or it waits for the answer to the last one.
            if !alone && (in_flight >= IN_FLIGHT_BYTES || !self.attempts.values().any(Attempt::fills_batch)) {
                return Ok(None);
            }
            let chunks = batch(now, &mut self.turns, &mut self.attempts, &mut stream.compressor);
            if chunks.is_empty() {
                return Ok(None);
            }
            fault::point("link.chunks.sending");
            push(stream, output_frame::Frame::Batch(proto::Batch { chunks }))?;
            fault::point("link.chunks.sent");
            self.next_batch = now + MIN_INTERVAL;
        }
    }

    async fn receive(&mut self, reply: Result<Option<OutputReply>, tonic::Status>) {
        let reply = match reply {
            Ok(Some(reply)) => reply.reply,
            Ok(None) => return self.lost("the controller closed it"),
            Err(status) => return self.lost(&format!("{} ({:?})", status.message(), status.code())),
        };
        self.backoff.reset();
        if let Some(stream) = &mut self.stream {
            stream.heard = Instant::now();
        }
        match reply {
            Some(output_reply::Reply::Held(cursor)) => self.held(&cursor).await,
            Some(output_reply::Reply::Stored(cursor)) => {
                fault::point("link.cursor.received");
                let Some(key) = self.find(&cursor.run_id, cursor.attempt) else { return };
                let saved =
                    self.attempts.get_mut(&key).and_then(|attempt| attempt.stored(Cursor::from(&cursor)));
                if let Some(saved) = saved {
                    self.spool.save_cursor(key, saved).await;
                }
                self.let_go(key);
            }
            Some(output_reply::Reply::Rejected(rejection)) => self.rejected(&rejection),
            None => {}
        }
    }

    /// Gives the room of what is stored back to the disk, so that who waits for it can go on.
    fn let_go(&mut self, key: AttemptKey) {
        let Some((folder, position)) = self.attempts.get_mut(&key).and_then(Attempt::let_go) else { return };
        self.letting_go.spawn(let_go::let_go(key, folder, position));
    }

    fn rejected(&mut self, rejection: &proto::Rejection) {
        let Some(key) = self.find(&rejection.run_id, rejection.attempt) else { return };
        let Some(attempt) = self.attempts.get_mut(&key) else { return };
        // The controller only lost its place, which it does not keep for every attempt of a long stream.
        if rejection.reason == NOT_RESUMED {
            attempt.resume_again();
            return;
        }
        tracing::warn!(run.id = %key.run_id, attempt = key.attempt, reason = rejection.reason,
            "the controller rejected a run's output");
        attempt.reject();
    }

    async fn held(&mut self, cursor: &proto::Cursor) {
        let Some(key) = self.find(&cursor.run_id, cursor.attempt) else { return };
        fault::point("link.held.received");
        let held = Cursor::from(cursor);
        // Only after a restart, in the middle of a long output, is there something worth remembering.
        let saved = if held == Cursor::default() { None } else { self.spool.cursor(key).await };
        let Some(attempt) = self.attempts.get_mut(&key) else { return };
        attempt.resumed(Instant::now(), held, saved);
        fault::point("link.held.applied");
        self.let_go(key);
    }

    /// The wire names an attempt on this stream without its execution.
    fn find(&self, run_id: &[u8], attempt: u32) -> Option<AttemptKey> {
        let run_id = RunId::from_bytes(run_id).ok()?;
        self.turns.iter().find(|key| key.run_id == run_id && key.attempt == attempt).copied()
    }

    fn begin_connecting(&mut self) {
        let Some(online) = self.online.borrow().clone() else { return };
        self.connecting = Some(tokio::spawn(open(online.address, online.tls, online.silence)));
    }

    fn connected(&mut self, stream: Result<Stream, String>) {
        match stream {
            Ok(stream) => {
                self.idle_at = Instant::now() + IDLE;
                self.stream = Some(stream);
                self.session_changed();
            }
            Err(why) => self.lost(&why),
        }
    }

    /// A new session may be with another controller or another certificate; the old one is not good for long.
    fn session_changed(&mut self) {
        let other = match (&self.stream, &*self.online.borrow()) {
            (Some(stream), Some(online)) => {
                !Arc::ptr_eq(&stream.tls, &online.tls) || stream.address != online.address
            }
            _ => false,
        };
        if other {
            self.disconnect();
        }
        self.not_before = Instant::now();
    }

    fn lost(&mut self, why: &str) {
        let wait = self.backoff.next();
        self.not_before = Instant::now() + wait;
        tracing::warn!(retry_ms = wait.as_millis(), "the output connection is lost: {why}");
        self.disconnect();
    }

    fn disconnect(&mut self) {
        self.stream = None;
        self.attempts.values_mut().for_each(Attempt::disconnect);
    }
}

/// Opens a connection and the stream on it.
async fn open(address: Address, tls: Arc<ClientConfig>, silence: Duration) -> Result<Stream, String> {
    let compressor = compressor().map_err(|error| error.to_string())?;
    let connection =
        connect(&address, Arc::clone(&tls), silence).await.map_err(|error| format!("{error:#}"))?;
    let (outbound, frames) = mpsc::channel(FRAMES);
    let mut client = OutputClient::new(connection.channel)
        .max_decoding_message_size(limits::GRPC_MESSAGE_BYTES)
        .max_encoding_message_size(limits::GRPC_MESSAGE_BYTES);
    let inbound = timeout(silence, client.ship(ReceiverStream::new(frames)))
        .await
        .map_err(|_| "the controller did not answer in time".to_owned())?
        .map_err(|status| format!("{} ({:?})", status.message(), status.code()))?
        .into_inner();
    let heard = Instant::now();
    Ok(Stream { outbound, inbound, address, tls, compressor, heard, patience: silence })
}

async fn next_reply(stream: &mut Option<Stream>) -> Result<Option<OutputReply>, tonic::Status> {
    match stream {
        Some(stream) => stream.inbound.message().await,
        None => std::future::pending().await,
    }
}

fn push(stream: &Stream, frame: output_frame::Frame) -> Result<(), ()> {
    stream.outbound.try_send(OutputFrame { frame: Some(frame) }).map_err(drop)
}

/// Fills one batch, the attempts taking turns.
fn batch(
    now: Instant,
    turns: &mut VecDeque<AttemptKey>,
    attempts: &mut HashMap<AttemptKey, Attempt>,
    compressor: &mut Compressor,
) -> Vec<proto::Chunk> {
    let mut chunks = Vec::new();
    let mut bytes = 0;
    // How many attempts in a row had nothing.
    let mut empty = 0;
    while empty < turns.len() {
        let Some(key) = turns.pop_front() else { break };
        turns.push_back(key);
        let Some(attempt) = attempts.get_mut(&key) else { continue };
        let mut turn = 0;
        while turn < TURN_BYTES {
            if chunks.len() == limits::BATCH_CHUNKS || bytes + limits::CHUNK_BYTES > limits::BATCH_BYTES {
                return chunks;
            }
            let Some(chunk) = attempt.next(now, compressor) else { break };
            turn += chunk_size(&chunk);
            bytes += chunk_size(&chunk);
            chunks.push(chunk);
        }
        empty = if turn == 0 { empty + 1 } else { 0 };
    }
    chunks
}
