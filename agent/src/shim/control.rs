//! The socket between agent and shim: `control.sock` in the attempt's folder.
//!
//! 1. The agent may come, go and come again; the newest connection counts. To each the shim first says the version of
//!    what follows, then its state.
//! 2. The shim never waits for the agent: a connection that does not take what it is sent is dropped.
//! 3. Between an [`ToAgent::Output`] and the agent's [`ToShim::Ready`] no second one is sent.

use std::{
    io::{self, ErrorKind, Read as _, Write as _},
    os::{
        fd::{AsFd, BorrowedFd},
        unix::net::{UnixListener, UnixStream},
    },
    path::Path,
};

/// Name of the socket in the attempt's folder.
pub const SOCKET_NAME: &str = "control.sock";
/// The first byte of every connection. [`ToShim::Cancel`] is the same in all versions: whatever an agent understands of a
/// shim, it can end the run.
pub const VERSION: u8 = 1;

/// What the shim says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ToAgent {
    /// The process runs (or ran) under this id since this time (µs since 1970 UTC).
    Started { pid: u32, at: i64 },
    /// There is output that was not there before.
    Output,
    /// The exit record is written.
    Ended,
}

impl ToAgent {
    /// Bytes of a message's number and time.
    pub const STARTED_BYTES: usize = 12;

    /// The message as it is sent: a letter, and what belongs to it.
    pub fn encode(self) -> Vec<u8> {
        match self {
            Self::Started { pid, at } => {
                let mut bytes = vec![b'S'];
                bytes.extend_from_slice(&pid.to_be_bytes());
                bytes.extend_from_slice(&at.to_be_bytes());
                bytes
            }
            Self::Output => vec![b'O'],
            Self::Ended => vec![b'E'],
        }
    }

    /// Reads what stands behind the letter of [`ToAgent::Started`].
    pub fn started(bytes: [u8; Self::STARTED_BYTES]) -> Self {
        let [p0, p1, p2, p3, at @ ..] = bytes;
        Self::Started { pid: u32::from_be_bytes([p0, p1, p2, p3]), at: i64::from_be_bytes(at) }
    }
}

/// What the agent says, a byte each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ToShim {
    /// End the run.
    Cancel,
    /// The last [`ToAgent::Output`] has been dealt with.
    Ready,
}

impl ToShim {
    /// The message as it is sent.
    pub const fn byte(self) -> u8 {
        match self {
            Self::Cancel => b'C',
            Self::Ready => b'R',
        }
    }
}

/// The shim's end.
#[derive(Debug)]
pub struct Control {
    listener: UnixListener,
    connection: Option<UnixStream>,
    started: Option<ToAgent>,
    /// There is output that the agent has not been told of.
    output: bool,
    /// The agent has yet to answer an `Output`.
    unanswered: bool,
}

impl Control {
    /// Opens the socket in the current directory, whose path may be longer than a socket's address.
    ///
    /// # Errors
    /// When it is there already, or cannot be made.
    pub fn bind_here() -> io::Result<Self> {
        let listener = UnixListener::bind(Path::new(SOCKET_NAME))?;
        listener.set_nonblocking(true)?;
        Ok(Self { listener, connection: None, started: None, output: false, unanswered: false })
    }

    /// What to poll for connections.
    pub fn listener(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }

    /// What to poll for messages.
    pub fn connection(&self) -> Option<BorrowedFd<'_>> {
        self.connection.as_ref().map(AsFd::as_fd)
    }

    /// Takes a new connection and tells it the state; true when the agent wants the run to end. What the one before has
    /// said counts, and so does what this one said before it went away again.
    pub fn accept(&mut self) -> bool {
        let Ok((connection, _)) = self.listener.accept() else { return false };
        let mut is_cancelled = self.receive();
        if connection.set_nonblocking(true).is_err() {
            return is_cancelled;
        }
        self.connection = Some(connection);
        self.output |= std::mem::take(&mut self.unanswered);
        is_cancelled |= self.receive();
        self.send(&[VERSION]);
        if let Some(started) = self.started {
            self.send(&started.encode());
        }
        self.tell_output();
        is_cancelled
    }

    /// Reads what the agent said; true when it wants the run to end.
    pub fn receive(&mut self) -> bool {
        let Some(connection) = &mut self.connection else { return false };
        let mut bytes = [0; 64];
        match connection.read(&mut bytes) {
            Ok(0) => {
                self.connection = None;
                // The next agent is told again.
                self.output |= self.unanswered;
                false
            }
            Ok(read) => {
                let said = |message: ToShim| bytes[..read].contains(&message.byte());
                if said(ToShim::Ready) {
                    self.unanswered = false;
                    self.tell_output();
                }
                said(ToShim::Cancel)
            }
            Err(error) => {
                if !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) {
                    self.connection = None;
                    self.output |= self.unanswered;
                }
                false
            }
        }
    }

    /// The process runs.
    pub fn started(&mut self, pid: u32, at: i64) {
        let message = ToAgent::Started { pid, at };
        self.started = Some(message);
        self.send(&message.encode());
    }

    /// Output was added.
    pub fn output(&mut self) {
        self.output = true;
        self.tell_output();
    }

    /// The exit record is there.
    pub fn ended(&mut self) {
        // A short run is over before its agent has been let in.
        self.accept();
        self.send(&ToAgent::Ended.encode());
    }

    fn tell_output(&mut self) {
        if self.output && !self.unanswered && self.connection.is_some() {
            self.output = false;
            self.unanswered = true;
            self.send(&ToAgent::Output.encode());
        }
    }

    fn send(&mut self, bytes: &[u8]) {
        if let Some(connection) = &mut self.connection
            && connection.write_all(bytes).is_err()
        {
            self.connection = None;
            self.output |= self.unanswered;
        }
    }
}
