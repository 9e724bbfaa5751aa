//! The output files of attempts: the link asks the executor for them, which opens each for reading and hands the
//! descriptor over. So the link needs no way into the executor's folders.
//!
//! One question at a time, and its answer. The executor answers on a thread of its own, so that the link, which reads
//! files where it stands, never waits for what the executor is doing. To let go of what is stored takes a flush of the
//! disk: that is only noted, and done by a second thread, which tries again what went wrong.

use std::{
    collections::HashMap,
    fs::File,
    io::{self, IoSlice, IoSliceMut, Write as _},
    mem::MaybeUninit,
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::net::UnixStream,
    },
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{self, RecvTimeoutError},
    },
    thread,
    time::Duration,
};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};

use super::{
    frame::{FrameError, Kind, Parser, encode},
    wire::Key,
};
use crate::{
    messages::AttemptKey,
    segment::{Opened, Source},
};

/// How long the executor may take to answer: it opens one file.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);
/// Files that wait to be let go of.
const LETTING_GO: usize = 64;
/// How long what went wrong is left alone: somebody may make room on a full disk meanwhile.
const AGAIN_AFTER: Duration = Duration::from_secs(5);
/// Bytes of a question or an answer.
const BYTES: usize = 1024;
/// Bytes of an error's text.
const TEXT_BYTES: usize = 512;
/// Bytes of a thread's stack: it opens files, one after the other.
const STACK_BYTES: usize = 256 * 1024;

/// A question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Question {
    Open,
    LetGo,
}

impl Kind for Question {
    fn of(number: u8) -> Option<Self> {
        [Self::Open, Self::LetGo].into_iter().find(|kind| kind.number() == number)
    }

    fn number(self) -> u8 {
        match self {
            Self::Open => 1,
            Self::LetGo => 2,
        }
    }

    fn limit(self) -> usize {
        BYTES
    }
}

/// The answer to one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    /// The file comes along.
    Opened,
    NotThere,
    Noted,
    Failed,
}

impl Kind for Answer {
    fn of(number: u8) -> Option<Self> {
        [Self::Opened, Self::NotThere, Self::Noted, Self::Failed]
            .into_iter()
            .find(|kind| kind.number() == number)
    }

    fn number(self) -> u8 {
        match self {
            Self::Opened => 1,
            Self::NotThere => 2,
            Self::Noted => 3,
            Self::Failed => 4,
        }
    }

    fn limit(self) -> usize {
        BYTES
    }
}

/// The body of a question.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Asked {
    #[prost(message, optional, tag = "1")]
    pub key: Option<Key>,
    /// Before which all may be let go.
    #[prost(uint64, tag = "2")]
    pub position: u64,
}

/// The body of an answer.
#[derive(Clone, PartialEq, Eq, prost::Message)]
struct Answered {
    #[prost(uint64, tag = "1")]
    begins_at: u64,
    /// Why not.
    #[prost(string, tag = "2")]
    text: String,
}

/// Answers the link until it is gone or asks nonsense. `folder` gives an attempt's folder.
///
/// # Errors
/// When the threads cannot be started.
pub fn serve(
    socket: UnixStream,
    folder: impl Fn(AttemptKey) -> PathBuf + Send + 'static,
) -> io::Result<thread::JoinHandle<()>> {
    let (notes, noted) = mpsc::sync_channel::<(PathBuf, u64)>(LETTING_GO);
    let let_go = move || let_go_all(&noted, AGAIN_AFTER);
    thread::Builder::new().name("let-go".to_owned()).stack_size(STACK_BYTES).spawn(let_go)?;
    thread::Builder::new().name("files".to_owned()).stack_size(STACK_BYTES).spawn(move || {
        if let Err(error) = answer_all(&socket, folder, &notes) {
            tracing::error!(%error, "the link asks for output in a way that nobody understands");
        }
        // Whoever waits for an answer sees that there is none.
        let _ = socket.shutdown(std::net::Shutdown::Both);
    })
}

/// Lets go of what is noted, until nobody can note anything any more.
fn let_go_all(noted: &mpsc::Receiver<(PathBuf, u64)>, again_after: Duration) {
    // What went wrong: at most one of each attempt that the host has.
    let mut again = HashMap::<PathBuf, u64>::new();
    loop {
        let next = match again.is_empty() {
            true => noted.recv().map_err(RecvTimeoutError::from),
            false => noted.recv_timeout(again_after),
        };
        let todo = match next {
            Ok((folder, position)) => vec![(folder, position)],
            Err(RecvTimeoutError::Timeout) => again.drain().collect(),
            Err(RecvTimeoutError::Disconnected) => return,
        };
        for (folder, position) in todo {
            match folder.let_go(position) {
                // The folder of a settled attempt is removed.
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    tracing::warn!(folder = %folder.display(), %error,
                        "cannot let go of stored output; it is tried again");
                    again.insert(folder, position);
                }
                // It was for all before that too.
                _ => drop(again.remove(&folder)),
            }
        }
    }
}

fn answer_all(
    mut socket: &UnixStream,
    folder: impl Fn(AttemptKey) -> PathBuf,
    notes: &mpsc::SyncSender<(PathBuf, u64)>,
) -> Result<(), FrameError> {
    let mut parser = Parser::<Question>::default();
    while let Some(frame) = parser.read(&mut socket)? {
        let asked: Asked = frame.message()?;
        let key = asked.key.as_ref().and_then(Key::get);
        let folder = folder(key.ok_or_else(|| FrameError::Key { kind: format!("{:?}", frame.kind) })?);
        let answer = match frame.kind {
            Question::Open => match folder.open() {
                Ok(Some(opened)) => {
                    let answer = encode(
                        Answer::Opened,
                        &Answered { begins_at: opened.begins_at, text: String::new() },
                    )?;
                    send_with(socket, &answer, &opened.file)?;
                    continue;
                }
                Ok(None) => encode(Answer::NotThere, &Answered::default())?,
                Err(error) => {
                    let text: String = error.to_string().chars().take(TEXT_BYTES / 4).collect();
                    encode(Answer::Failed, &Answered { begins_at: 0, text })?
                }
            },
            Question::LetGo => {
                let (answer, text) = match notes.try_send((folder, asked.position)) {
                    Ok(()) => (Answer::Noted, ""),
                    Err(_) => (Answer::Failed, "too many others wait to be let go"),
                };
                encode(answer, &Answered { begins_at: 0, text: text.to_owned() })?
            }
        };
        socket.write_all(&answer)?;
    }
    Ok(())
}

/// Sends bytes, and a file with the first of them.
fn send_with(mut socket: &UnixStream, bytes: &[u8], file: &File) -> io::Result<()> {
    let files = [file.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !control.push(SendAncillaryMessage::ScmRights(&files)) {
        return Err(io::Error::other("there is no room for a descriptor"));
    }
    let sent = sendmsg(socket, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL)?;
    socket.write_all(&bytes[sent..])
}

/// The link's side.
#[derive(Debug)]
pub struct Files {
    /// None once an answer was late or made no sense: the next one would be to another question.
    socket: Mutex<Option<UnixStream>>,
}

impl Files {
    /// Asks over this socket.
    ///
    /// # Errors
    /// When it is none.
    pub fn new(socket: UnixStream) -> io::Result<Self> {
        socket.set_read_timeout(Some(ANSWER_WITHIN))?;
        Ok(Self { socket: Mutex::new(Some(socket)) })
    }

    /// The output of one attempt.
    pub fn of(self: &Arc<Self>, key: AttemptKey) -> Arc<dyn Source> {
        Arc::new(Output { files: Arc::clone(self), key })
    }

    fn ask(&self, question: Question, asked: &Asked) -> io::Result<(Answer, Answered, Option<OwnedFd>)> {
        let mut socket = self.socket.lock().unwrap_or_else(PoisonError::into_inner);
        let open = socket.as_mut().ok_or(io::ErrorKind::NotConnected)?;
        let answer = converse(open, question, asked);
        if answer.is_err() {
            *socket = None;
        }
        answer.map_err(|error| match error {
            FrameError::Io(error) => error,
            error => io::Error::other(error),
        })
    }
}

fn converse(
    socket: &mut UnixStream,
    question: Question,
    asked: &Asked,
) -> Result<(Answer, Answered, Option<OwnedFd>), FrameError> {
    socket.write_all(&encode(question, asked)?)?;
    let mut receiver = Receiver { socket, file: None };
    let frame = Parser::<Answer>::default().read(&mut receiver)?.ok_or(FrameError::CutOff)?;
    Ok((frame.kind, frame.message()?, receiver.file))
}

/// Reads a stream, and keeps the descriptor that comes with it.
struct Receiver<'a> {
    socket: &'a UnixStream,
    file: Option<OwnedFd>,
}

impl io::Read for Receiver<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::CMSG_CLOEXEC;
        let read = recvmsg(self.socket, &mut [IoSliceMut::new(buffer)], &mut control, flags)?;
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(mut files) = message {
                self.file = files.next();
            }
        }
        Ok(read.bytes)
    }
}

/// The output of one attempt, as the link sees it.
#[derive(Debug)]
struct Output {
    files: Arc<Files>,
    key: AttemptKey,
}

impl Source for Output {
    fn open(&self) -> io::Result<Option<Opened>> {
        let asked = Asked { key: Some(self.key.into()), position: 0 };
        match self.files.ask(Question::Open, &asked)? {
            (Answer::Opened, Answered { begins_at, .. }, Some(file)) => {
                Ok(Some(Opened { file: file.into(), begins_at }))
            }
            (Answer::NotThere, ..) => Ok(None),
            (Answer::Failed, Answered { text, .. }, _) => Err(io::Error::other(text)),
            (answer, ..) => Err(io::Error::other(format!("the executor answered {answer:?} to Open"))),
        }
    }

    fn let_go(&self, position: u64) -> io::Result<()> {
        let asked = Asked { key: Some(self.key.into()), position };
        match self.files.ask(Question::LetGo, &asked)? {
            (Answer::Noted, ..) => Ok(()),
            (Answer::Failed, Answered { text, .. }, _) => Err(io::Error::other(text)),
            (answer, ..) => Err(io::Error::other(format!("the executor answered {answer:?} to LetGo"))),
        }
    }
}

#[cfg(test)]
mod tests;
