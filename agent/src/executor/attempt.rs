//! One attempt, from its folder to its final report: the agent's side of the shim.
//!
//! 1. What ends here ends with exactly one [`Event::Refused`] or [`Event::Ended`].
//! 2. An attempt counts as lost, or as never begun, only while its lock is ours: then no shim lives, and none will start.
//! 3. A cancel never waits for output to be taken.

use std::{
    fs::DirBuilder,
    io::{self, ErrorKind},
    os::{
        fd::AsRawFd as _,
        unix::{fs::DirBuilderExt as _, net},
    },
    path::Path,
    process::Stdio,
    sync::Arc,
    time::Duration,
};

use model::Reason;
use prost::Message as _;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::UnixStream,
    process::Command,
    sync::mpsc,
};
use tokio_util::{sync::CancellationToken, task::task_tracker::TaskTrackerToken};

use self::last_word::LastWord;
use super::{Shared, decide, journal::JournalError, order::Order, report};
use crate::{
    clock,
    messages::{AttemptKey, ToLink},
    mutant,
    shim::{
        self,
        control::{self, ToAgent, ToShim},
        lock::Lock,
        record::{self, Place},
        spec::Spec,
    },
};

mod clear;
mod last_word;

pub(super) use self::clear::{Grave, bury, clear_away, remove_output};

const EXIT_RECORD_KIND: &str = "exit-record";
/// How long a new shim may take to say that it is ready.
pub(super) const READY_WITHIN: Duration = Duration::from_secs(30);
/// How often a shim that lives but does not answer is tried again.
const TRY_AGAIN: Duration = Duration::from_millis(20);
/// How often one that speaks an unknown version is.
const TRY_FOREIGN_AGAIN: Duration = Duration::from_secs(1);
/// The longest socket address, with its terminator.
const ADDRESS_BYTES: usize = 108;

/// What the manager is told.
#[derive(Debug)]
pub(super) enum Event {
    Accepted(AttemptKey),
    Started {
        key: AttemptKey,
        pid: u32,
        at: i64,
    },
    /// It never began, and never will.
    Refused {
        key: AttemptKey,
        reason: Reason,
        detail: String,
    },
    Ended {
        key: AttemptKey,
        report: proto::Report,
    },
    /// Nothing is left of the attempts that an order supersedes; or one of them, by its number, cannot be ended.
    Superseded {
        order: Box<Order>,
        unkillable: Option<u32>,
    },
}

/// One attempt that this process follows.
#[derive(Debug)]
pub(super) struct Attempt {
    pub(super) key: AttemptKey,
    pub(super) shared: Arc<Shared>,
    /// Somebody wants it to end.
    pub(super) cancel: CancellationToken,
    pub(super) events: mpsc::Sender<Event>,
    /// The host's boot in which it was to start.
    pub(super) boot_id: String,
    /// An earlier agent wanted to start it; whether that came about is not known yet.
    pub(super) is_doubtful: bool,
}

/// Why a connection to a shim was given up.
enum Parted {
    /// The shim said that it has ended, or is gone.
    Ended,
    /// It speaks another version.
    Foreign,
}

impl Attempt {
    /// Starts the attempt once its `starting` is `journaled`, and follows it. `beginning` is let go of when it has its shim
    /// or its end: between the two a stop would make it look like one that may have run. A disk that took its time may have
    /// cost it its own: after `start_by` the controller may have given it up.
    pub(super) async fn begin(
        self,
        journaled: impl Future<Output = Result<(), JournalError>> + Send,
        spec: Spec,
        start_by: i64,
        beginning: TaskTrackerToken,
    ) {
        let folder = self.shared.folder(self.key);
        if let Err(error) = journaled.await {
            let reason = if error.is_no_space() { Reason::NoSpace } else { Reason::SpawnFailed };
            return self.refuse(reason, &error).await;
        }
        fault::point("executor.starting.journaled");
        let made = DirBuilder::new().mode(0o700).create(&folder).and_then(|()| Lock::make(&folder));
        if let Err(error) = made {
            return match error.kind() {
                // Whoever made it may have started it.
                ErrorKind::AlreadyExists => {
                    let detail = "there is a folder of this attempt that the journal does not know";
                    self.end(report::lost(self.key, Reason::JournalLost, detail)).await;
                }
                ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
                    self.refuse(Reason::NoSpace, &error).await;
                }
                _ => self.refuse(Reason::SpawnFailed, &error).await,
            };
        }
        fault::point("executor.folder.made");
        self.tell(Event::Accepted(self.key)).await;
        fault::point("executor.accepted.told");
        if self.cancel.is_cancelled() {
            return self.end_unstarted(&folder, Reason::Cancelled, "cancelled before it began").await;
        }
        if decide::is_too_late(start_by, clock::now_micros()) {
            let detail = "its time to start was over before its host came to it";
            return self.end_unstarted(&folder, Reason::StartExpired, detail).await;
        }
        match self.start_shim(&folder, &spec).await {
            Ok(()) => {
                fault::point("executor.shim.ready");
                drop((spec, beginning));
                self.follow().await;
            }
            Err(_) if self.cancel.is_cancelled() => {
                self.end_unstarted(&folder, Reason::Cancelled, "cancelled before it began").await;
            }
            Err(detail) => self.end_unstarted(&folder, Reason::SpawnFailed, &detail).await,
        }
    }

    /// Follows the attempt to its end, whether its shim lives or not.
    pub(super) async fn follow(self) {
        let folder = self.shared.folder(self.key);
        let mut pause = TRY_AGAIN;
        loop {
            if let Ok(stream) = connect(&folder)
                && let Parted::Foreign = self.converse(stream).await
                && pause != TRY_FOREIGN_AGAIN
            {
                tracing::error!(run.id = %self.key.run_id, "the shim of this run speaks an unknown version");
                pause = TRY_FOREIGN_AGAIN;
            }
            match self.last_word(&folder).await {
                Some(LastWord::Report(report)) => {
                    fault::point("executor.end.found");
                    return self.end(report).await;
                }
                Some(LastWord::NeverBegan(detail)) => {
                    let wanted_to_end = self.cancel.is_cancelled();
                    let reason = if wanted_to_end { Reason::Cancelled } else { Reason::NotStarted };
                    return self.tell(Event::Refused { key: self.key, reason, detail }).await;
                }
                None => {}
            }
            // It lives, and has not opened its socket yet or closes it right now.
            tokio::time::sleep(pause).await;
        }
    }

    /// Starts the shim; when this is done the attempt is its own, or was for a moment. The error says why nothing was
    /// started.
    async fn start_shim(&self, folder: &Path, spec: &Spec) -> Result<(), String> {
        let mut shim = Command::new(&self.shared.program)
            .arg("shim")
            .arg(folder)
            .env_clear()
            .envs(mutant::variable())
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .envs(fault::variables())
            .spawn()
            .map_err(|error| format!("the shim cannot be started: {error}"))?;
        fault::point("executor.shim.spawned");
        let (stdin, stdout) = (shim.stdin.take(), shim.stdout.take());
        let (mut stdin, mut stdout) = stdin.zip(stdout).ok_or("the shim has no pipes")?;
        let talk = async {
            // A shim that has ended already has said why.
            let _ = stdin.write_all(&spec.encode_framed()).await;
            drop(stdin);
            fault::point("executor.shim.described");
            let mut line = String::new();
            stdout.read_to_string(&mut line).await.map(|_| line)
        };
        let said = match tokio::time::timeout(READY_WITHIN, talk).await {
            Ok(Ok(line)) => line,
            Ok(Err(error)) => format!("its answer is not readable: {error}"),
            Err(_) => format!("it was not ready within {} s", READY_WITHIN.as_secs()),
        };
        let said = said.trim_end();
        if said == shim::READY {
            return Ok(());
        }
        // It must be gone before the attempt may count as never started.
        let _ = shim.start_kill();
        let _ = shim.wait().await;
        if folder.join(control::SOCKET_NAME).exists() {
            // It was ready, only late: it may have started the program.
            return Ok(());
        }
        let said = if said.is_empty() { "it ended without a word" } else { said };
        Err(format!("the shim was not ready: {said}"))
    }

    /// Speaks with the shim until it has ended or is gone.
    async fn converse(&self, mut stream: UnixStream) -> Parted {
        let mut heard = Vec::new();
        let mut is_greeted = false;
        let mut is_cancelled = false;
        // Whoever comes new does not know whether the link has been told of all output.
        let mut output = true;
        let mut answer_due = false;
        loop {
            tokio::select! {
                () = self.cancel.cancelled(), if !is_cancelled => {
                    is_cancelled = true;
                    fault::point("executor.cancel.telling");
                    if stream.write_all(&[ToShim::Cancel.byte()]).await.is_err() {
                        return Parted::Ended;
                    }
                }
                permit = self.shared.to_link.reserve(), if output => {
                    output = false;
                    if let Ok(permit) = permit {
                        permit.send(ToLink::OutputGrew(self.key));
                    }
                    if std::mem::take(&mut answer_due) && stream.write_all(&[ToShim::Ready.byte()]).await.is_err() {
                        return Parted::Ended;
                    }
                }
                readable = stream.readable() => {
                    let read = readable.and_then(|()| stream.try_read_buf(&mut heard));
                    match read {
                        Ok(0) => return Parted::Ended,
                        Ok(_) => {}
                        Err(error) if error.kind() == ErrorKind::WouldBlock => continue,
                        Err(_) => return Parted::Ended,
                    }
                    if !is_greeted {
                        if heard.remove(0) != control::VERSION {
                            if self.cancel.is_cancelled() {
                                // This it understands. One that is gone already has ended.
                                let _ = stream.write_all(&[ToShim::Cancel.byte()]).await;
                            }
                            return Parted::Foreign;
                        }
                        is_greeted = true;
                        fault::point("executor.shim.greeted");
                    }
                    while let Some(message) = take_message(&mut heard) {
                        match message {
                            ToAgent::Started { pid, at } => {
                                self.tell(Event::Started { key: self.key, pid, at }).await;
                            }
                            ToAgent::Output => (output, answer_due) = (true, true),
                            ToAgent::Ended => return Parted::Ended,
                        }
                    }
                }
            }
        }
    }

    /// Records that nothing was started.
    async fn end_unstarted(&self, folder: &Path, reason: Reason, detail: &str) {
        let empty = || {
            let sha256 = pki::sha256(b"").to_vec();
            Some(proto::StreamTotals { bytes: 0, stored: 0, sha256 })
        };
        let record = proto::ExitRecord {
            execution_id: self.key.execution_id.to_bytes(),
            run_id: self.key.run_id.to_bytes(),
            attempt: self.key.attempt,
            ended_at: clock::now_micros(),
            reason: reason.as_str().to_owned(),
            detail: record::detail(detail.to_owned()),
            stdout: empty(),
            stderr: empty(),
            ..proto::ExitRecord::default()
        };
        let bytes = record.encode_to_vec();
        if let Err(error) = Place::reserve(folder, 0).and_then(|place| place.write(&bytes)) {
            tracing::error!(run.id = %self.key.run_id, %error, "cannot record that a run was not started");
        }
        let signature = self.shared.keys.result_key.sign(EXIT_RECORD_KIND, &bytes);
        self.end(report::finished(self.key, bytes, signature)).await;
    }

    async fn refuse(&self, reason: Reason, error: &(dyn std::error::Error + Send + Sync)) {
        let detail = match error.source() {
            Some(source) => format!("{error}: {source}"),
            None => error.to_string(),
        };
        self.tell(Event::Refused { key: self.key, reason, detail }).await;
    }

    async fn end(&self, report: proto::Report) {
        self.tell(Event::Ended { key: self.key, report }).await;
    }

    async fn tell(&self, event: Event) {
        // Without a manager the agent is stopping; the next one adopts the attempt.
        let _ = self.events.send(event).await;
    }
}

/// Connects to the shim in `folder`, whose path may be longer than a socket's address.
fn connect(folder: &Path) -> io::Result<UnixStream> {
    let path = folder.join(control::SOCKET_NAME);
    let stream = if path.as_os_str().len() < ADDRESS_BYTES {
        net::UnixStream::connect(&path)?
    } else {
        let folder = std::fs::File::open(folder)?;
        let short = format!("/proc/self/fd/{}/{}", folder.as_raw_fd(), control::SOCKET_NAME);
        net::UnixStream::connect(short)?
    };
    stream.set_nonblocking(true)?;
    UnixStream::from_std(stream)
}

/// Takes the first message out of what was heard, if it is all there. What is not understood is passed over.
fn take_message(heard: &mut Vec<u8>) -> Option<ToAgent> {
    loop {
        let (letter, rest) = heard.split_first()?;
        let (message, length) = match letter {
            b'O' => (Some(ToAgent::Output), 1),
            b'E' => (Some(ToAgent::Ended), 1),
            b'S' => {
                let body = rest.first_chunk::<{ ToAgent::STARTED_BYTES }>()?;
                (Some(ToAgent::started(*body)), 1 + ToAgent::STARTED_BYTES)
            }
            _ => (None, 1),
        };
        heard.drain(..length);
        if message.is_some() {
            return message;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_taken_whole() {
        let started = ToAgent::Started { pid: 77, at: -5 };
        let mut heard = started.encode();
        heard.extend(ToAgent::Output.encode());
        let last = heard.pop().unwrap();
        let end = heard.split_off(4);
        assert_eq!(take_message(&mut heard), None);
        heard.extend(end);
        assert_eq!(take_message(&mut heard), Some(started));
        assert_eq!(take_message(&mut heard), None);
        heard.push(last);
        assert_eq!(take_message(&mut heard), Some(ToAgent::Output));
    }
}
