//! The link as the executor sees it: a process that it starts, speaks with, and does not believe.
//!
//! 1. There is one at a time. One that ends, or says what nobody may say, is ended and followed by another one, after a
//!    pause that doubles while they end soon.
//! 2. What it says counts from its hello on, which has to come from the process that was started and from the user that it
//!    was to become.
//! 3. While there is none, what is said to it is dropped: the next one asks for the inventory, and hears the newest of all
//!    that is unsettled.
//! 4. It has none of the agent's variables but those that tell how to speak, and what it writes to its standard error is marked
//!    as its own (see [`voice`]).
//! 5. The executor never waits for it: a link that reads nothing is told nothing more, is listened to no more either, and
//!    is ended after a while.

mod voice;

use std::{
    io,
    os::{
        fd::OwnedFd,
        unix::{net, process::ExitStatusExt as _},
    },
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use tokio::{
    io::{AsyncWriteExt as _, Interest},
    net::{
        UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
    process::{Child, Command},
    sync::{mpsc, oneshot},
    task::JoinHandle,
    time::{Instant, timeout},
};

use crate::{
    channel::{
        credentials::{self, Peer},
        files,
        frame::{FrameError, Parser, encode},
        wire::{self, FromExecutor, FromLink, Heard, Held, Hello, Setup, Stop},
    },
    config::LogFormat,
    messages::{AttemptKey, ToExecutor, ToLink},
    mutant,
};

/// How long a new one may take until its hello.
const HELLO_WITHIN: Duration = Duration::from_secs(30);
/// Pauses between two of them: the first, and the longest.
const PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// One that lived so long was a good one.
const LASTED: Duration = Duration::from_secs(30);
/// How long one may read nothing that it is told. Its spool may be on a disk that hangs.
const LISTENS_WITHIN: Duration = Duration::from_secs(60);
/// How long the last one may try to deliver what there is, and take to end.
pub const DELIVERS_WITHIN: Duration = Duration::from_secs(10);
const ENDS_WITHIN: Duration = Duration::from_secs(5);
/// How long all of that may take from the executor's end on.
pub const GONE_WITHIN: Duration = DELIVERS_WITHIN.saturating_add(ENDS_WITHIN).saturating_add(ENDS_WITHIN);
/// How long its last words may take once it has ended.
const SAYS_WITHIN: Duration = Duration::from_secs(1);
/// Variables of the agent that are the link's too.
const FOR_THE_LINK: [&str; 4] = ["TZ", "LANG", "LC_ALL", "RUST_BACKTRACE"];

/// What it takes to start one.
#[derive(Debug)]
pub struct Keeper {
    /// What is started, and its first arguments; the data folder follows.
    pub program: PathBuf,
    pub arguments: Vec<String>,
    /// The agent's data folder.
    pub data: PathBuf,
    /// Its part of that, which is its working directory.
    pub folder: PathBuf,
    /// The attempts' folders.
    pub attempts: PathBuf,
    /// The agent's configuration, TOML.
    pub config: String,
    pub agent_id: model::id::AgentId,
    /// Whom it becomes; none: it stays who the executor is.
    pub user: Option<wire::User>,
    /// At the end it tries to deliver what there is.
    pub delivers: bool,
    /// How the agent's log is written.
    pub log: LogFormat,
}

/// Why there is no link, or no more.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    #[error("the link cannot be started")]
    Start(#[source] io::Error),
    #[error("the link has ended before it was ready; the log says why")]
    NotReady,
    #[error("the link was killed before it was ready")]
    Killed,
    #[error("the link was not ready within {} s", HELLO_WITHIN.as_secs())]
    Late,
    #[error("the link has ended")]
    Ended,
    #[error("the link has read nothing for {} s", LISTENS_WITHIN.as_secs())]
    Deaf,
    #[error("the link said what is not understood")]
    Said(#[from] FrameError),
    #[error("the link spoke before its hello, or said it twice")]
    Order,
}

/// How far one came.
struct Life {
    child: Child,
    reader: Reader,
    writer: OwnedWriteHalf,
    /// Copies what it says to the log.
    voice: JoinHandle<()>,
}

/// Reads frames of one process.
struct Reader {
    half: OwnedReadHalf,
    parser: Parser<FromLink>,
    from: Peer,
}

impl Keeper {
    /// Keeps a link until the executor has ended, which its end of `from_executor` tells.
    ///
    /// # Errors
    /// When none was ever ready, and the last one was not merely killed. A later one is tried again for ever.
    pub async fn keep(
        self,
        mut from_executor: mpsc::Receiver<ToLink>,
        to_executor: mpsc::Sender<ToExecutor>,
    ) -> Result<(), LinkError> {
        let mut pause = PAUSE;
        let mut is_first = true;
        let mut was_ready = false;
        loop {
            let begun = Instant::now();
            let error = match self.begin(std::mem::take(&mut is_first)).await {
                Ok(life) => {
                    was_ready = true;
                    match self.live(life, &mut from_executor, &to_executor).await {
                        Ok(()) => return Ok(()),
                        Err(error) => error,
                    }
                }
                Err(error @ LinkError::Killed) => error,
                Err(error) if !was_ready => return Err(error),
                Err(error) => error,
            };
            if begun.elapsed() >= LASTED {
                pause = PAUSE;
            }
            let source = std::error::Error::source(&error).map(ToString::to_string);
            tracing::error!(%error, source, retry_ms = pause.as_millis(), "there is no link; another one is started");
            let until = Instant::now() + pause;
            pause = (pause * 2).min(LONGEST_PAUSE);
            // Nobody is there to hear it.
            while let Ok(said) = tokio::time::timeout_at(until, from_executor.recv()).await {
                if said.is_none() {
                    return Ok(());
                }
            }
        }
    }

    /// Starts one, and waits for its hello.
    async fn begin(&self, is_first: bool) -> Result<Life, LinkError> {
        let (own, its) = net::UnixStream::pair().map_err(LinkError::Start)?;
        let (own_files, its_files) = net::UnixStream::pair().map_err(LinkError::Start)?;
        credentials::ask_for(&own).map_err(LinkError::Start)?;
        own.set_nonblocking(true).map_err(LinkError::Start)?;
        let mut command = Command::new(&self.program);
        command
            .arg0("opsconductor-agent")
            .args(&self.arguments)
            .arg(&self.data)
            .current_dir(&self.folder)
            .stdin(OwnedFd::from(its))
            .stdout(OwnedFd::from(its_files))
            .stderr(Stdio::piped())
            .env_clear()
            .envs(FOR_THE_LINK.iter().filter_map(|name| Some((name, std::env::var_os(name)?))))
            .envs(mutant::variable())
            // A test's fault is that of the first one, or none would ever live.
            .envs(fault::variables().filter(|_| is_first))
            .envs(fault::clock())
            .kill_on_drop(true);
        let mut child = command.spawn().map_err(LinkError::Start)?;
        // It has its ends of the sockets, and nobody else may.
        drop(command);
        let from = self.peer(child.id().unwrap_or_default());
        let said = child.stderr.take().ok_or_else(|| LinkError::Start(io::ErrorKind::BrokenPipe.into()))?;
        let voice = tokio::spawn(voice::copy(said, from.pid, self.log));
        let (half, mut writer) = UnixStream::from_std(own).map_err(LinkError::Start)?.into_split();
        let mut reader = Reader { half, parser: Parser::default(), from };

        let setup = Setup {
            config: self.config.clone(),
            executor: std::process::id(),
            user: self.user,
            agent_id: self.agent_id.to_bytes(),
        };
        let setup = encode(FromExecutor::Setup, &setup)?;
        let greeting = async {
            // One that has ended already has said why.
            let _ = writer.write_all(&setup).await;
            reader.next().await
        };
        let hello = match timeout(HELLO_WITHIN, greeting).await.map_err(|_| LinkError::Late)?? {
            Some(Heard::Hello(hello)) => hello,
            Some(_) => return Err(LinkError::Order),
            None => {
                // Who ends by itself has a reason, and would end again.
                let ended = timeout(ENDS_WITHIN, child.wait()).await;
                let _ = timeout(SAYS_WITHIN, voice).await;
                let by_signal = matches!(ended, Ok(Ok(status)) if status.signal().is_some());
                return Err(if by_signal { LinkError::Killed } else { LinkError::NotReady });
            }
        };
        self.greet(&hello, from);
        let attempts = self.attempts.clone();
        files::serve(own_files, move |key| folder_of(&attempts, key)).map_err(LinkError::Start)?;
        Ok(Life { child, reader, writer, voice })
    }

    /// Who it has to be.
    fn peer(&self, pid: u32) -> Peer {
        let (uid, gid) = match self.user {
            Some(user) => (user.uid, user.gid),
            None => (nix::unistd::getuid().as_raw(), nix::unistd::getgid().as_raw()),
        };
        Peer { pid, uid, gid }
    }

    fn greet(&self, hello: &Hello, from: Peer) {
        tracing::info!(link.pid = from.pid, link.uid = from.uid, "the link is there");
        for missing in &hello.missing {
            tracing::warn!(link.pid = from.pid, missing, "this host cannot confine the link as it should");
        }
    }

    /// Carries messages until the executor or the link has ended.
    async fn live(
        &self,
        life: Life,
        from_executor: &mut mpsc::Receiver<ToLink>,
        to_executor: &mpsc::Sender<ToExecutor>,
    ) -> Result<(), LinkError> {
        let Life { mut child, mut reader, mut writer, voice } = life;
        // One question at a time is answered; the next one waits in the socket.
        let (answer, mut answers) = mpsc::channel(1);
        let ended = tokio::select! {
            ended = self.write(&mut writer, from_executor, &mut answers) => ended,
            ended = listen(&mut reader, to_executor, &answer) => Err(ended),
        };
        if let Err(error) = ended {
            // What is left of it may be anything.
            let _ = child.start_kill();
            let _ = child.wait().await;
            let _ = timeout(SAYS_WITHIN, voice).await;
            return Err(error);
        }
        let within = if self.delivers { DELIVERS_WITHIN + ENDS_WITHIN } else { ENDS_WITHIN };
        // What it says until its end is heard by nobody, and must not keep it waiting.
        let ended = async {
            tokio::select! {
                ended = child.wait() => ended.map(drop),
                error = drain(&mut reader) => { tracing::debug!(%error, "the link's last words"); child.wait().await.map(drop) }
            }
        };
        if timeout(within, ended).await.is_err() {
            tracing::warn!("the link did not end in time, and is killed");
            let _ = child.start_kill();
            let _ = child.wait().await;
        }
        let _ = timeout(SAYS_WITHIN, voice).await;
        Ok(())
    }

    /// Tells the link what the executor says, to its last word.
    async fn write(
        &self,
        writer: &mut OwnedWriteHalf,
        from_executor: &mut mpsc::Receiver<ToLink>,
        answers: &mut mpsc::Receiver<Held>,
    ) -> Result<(), LinkError> {
        loop {
            let frame = tokio::select! {
                Some(held) = answers.recv() => encode(FromExecutor::Inventory, &held),
                said = from_executor.recv() => match said {
                    Some(ToLink::Report(report)) => encode(FromExecutor::Report, &report),
                    Some(ToLink::OutputGrew(key)) => encode(FromExecutor::OutputGrew, &wire::Key::from(key)),
                    Some(ToLink::Ended { key, report }) => {
                        let ended = wire::Ended { key: Some(key.into()), report: Some(report) };
                        encode(FromExecutor::Ended, &ended)
                    }
                    None => {
                        let stop = encode(FromExecutor::Stop, &Stop { deliver: self.delivers })?;
                        return tell(writer, &stop).await;
                    }
                },
            };
            let frame = match frame {
                Ok(frame) => frame,
                // An inventory that no session could carry either; a report has its bounds.
                Err(error) => {
                    tracing::error!(%error, "the link cannot be told");
                    continue;
                }
            };
            tell(writer, &frame).await?;
        }
    }
}

async fn tell(writer: &mut OwnedWriteHalf, frame: &[u8]) -> Result<(), LinkError> {
    match timeout(LISTENS_WITHIN, writer.write_all(frame)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) => Err(LinkError::Ended),
        Err(_) => Err(LinkError::Deaf),
    }
}

/// Hears what the link says, and passes it on; why that came to an end.
async fn listen(
    reader: &mut Reader,
    to_executor: &mpsc::Sender<ToExecutor>,
    answers: &mpsc::Sender<Held>,
) -> LinkError {
    loop {
        let message = match reader.next().await {
            Ok(Some(Heard::Hello(_))) => return LinkError::Order,
            Ok(Some(Heard::Order(envelope))) => ToExecutor::Order(envelope),
            Ok(Some(Heard::Cancel(key))) => ToExecutor::Cancel(key),
            Ok(Some(Heard::Settled(key))) => ToExecutor::Settled(key),
            Ok(Some(Heard::Ask(number))) => {
                let (reply, inventory) = oneshot::channel();
                // An executor that has ended answers nothing more.
                if to_executor.send(ToExecutor::Inventory(reply)).await.is_ok()
                    && let Ok(inventory) = inventory.await
                {
                    let _ = answers.send(Held::new(number, inventory)).await;
                }
                continue;
            }
            Ok(None) => return LinkError::Ended,
            Err(error) => return error.into(),
        };
        // The same.
        let _ = to_executor.send(message).await;
    }
}

/// Reads to the end.
async fn drain(reader: &mut Reader) -> LinkError {
    loop {
        match reader.next().await {
            Ok(Some(_)) => {}
            Ok(None) => return LinkError::Ended,
            Err(error) => return error.into(),
        }
    }
}

impl Reader {
    /// The next thing it says; nothing when it has ended.
    async fn next(&mut self) -> Result<Option<Heard>, FrameError> {
        loop {
            let (half, parser, from) = (&self.half, &mut self.parser, self.from);
            let stream: &UnixStream = half.as_ref();
            let read = stream
                .async_io(Interest::READABLE, || credentials::read_from(stream, parser.room(), from))
                .await;
            match read {
                Ok(0) if parser.is_between() => return Ok(None),
                Ok(0) => return Err(FrameError::CutOff),
                // A process that was killed leaves unread what it was told.
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(None),
                Ok(bytes) => {
                    if let Some(frame) = parser.filled(bytes)? {
                        return wire::heard(&frame).map(Some);
                    }
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
}

fn folder_of(attempts: &Path, key: AttemptKey) -> PathBuf {
    attempts.join(super::name(key))
}
