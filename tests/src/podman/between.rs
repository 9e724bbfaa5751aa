//! Somebody between a client and its container engine: an engine that forgets what it was asked, or does not come to it.

use std::{
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    net::Shutdown,
    os::unix::net::{UnixListener, UnixStream},
    path::{Path, PathBuf},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
};

use serde_json::Value;

/// The request that makes a container.
const CREATE: &str = "/containers/create";

/// What is done with what comes by.
#[derive(Debug, Clone, Copy)]
pub enum Does {
    /// These, as `HostConfig/Memory`, are taken out of the order for a container.
    Forget(&'static [&'static str]),
    /// The first request whose path has this in it is held until it is let go.
    Hold(&'static str),
    /// Each request whose path has this in it is answered with an error of the engine's own, and not passed on.
    Fail(&'static str),
}

/// It listens at a socket of its own, until the test's process ends.
#[derive(Debug)]
pub struct Between {
    socket: PathBuf,
    gate: Arc<Gate>,
}

#[derive(Debug, Default)]
struct Gate {
    state: Mutex<State>,
    opened: Condvar,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum State {
    #[default]
    Waiting,
    Holding,
    Open,
}

impl Between {
    pub(super) fn start(socket: PathBuf, engine: PathBuf, does: Does) -> Self {
        let listener = UnixListener::bind(&socket).expect("a test's machine gives that");
        let gate = Arc::new(Gate::default());
        let between = Self { socket, gate: Arc::clone(&gate) };
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let (engine, gate) = (engine.clone(), Arc::clone(&gate));
                // Who hangs up has heard enough.
                std::thread::spawn(move || drop(carry(&client, &engine, does, &gate)));
            }
        });
        between
    }

    /// Where it is taken for the engine.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Whether it holds a request.
    pub fn holds(&self) -> bool {
        *self.gate.state() == State::Holding
    }

    /// Passes on what it holds.
    pub fn let_go(&self) {
        *self.gate.state() = State::Open;
        self.gate.opened.notify_all();
    }
}

impl Gate {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pass(&self) {
        let mut state = self.state();
        if *state == State::Waiting {
            *state = State::Holding;
            while *state != State::Open {
                state = self.opened.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
        }
    }
}

/// Carries one request to the engine, and whatever comes of it back. A connection has one request.
fn carry(client: &UnixStream, engine: &Path, does: Does, gate: &Gate) -> io::Result<()> {
    let mut reader = BufReader::new(client.try_clone()?);
    let (mut head, mut length) = (Vec::new(), 0);
    let mut is_upgrade = false;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(());
        }
        let lower = line.to_ascii_lowercase();
        if let Some(value) = lower.strip_prefix("content-length:") {
            length = value.trim().parse().expect("a length is a number");
        } else if line == "\r\n" {
            break;
        } else if lower.starts_with("connection:") && !lower.contains("upgrade") {
            // It is said below.
        } else {
            is_upgrade |= lower.starts_with("upgrade:");
            head.push(line);
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let target = head.first().cloned().unwrap_or_default();
    match does {
        Does::Forget(what) if target.contains(CREATE) => body = forget(&body, what),
        Does::Hold(path) if target.contains(path) => gate.pass(),
        Does::Fail(path) if target.contains(path) => return fail(client),
        Does::Forget(_) | Does::Hold(_) | Does::Fail(_) => {}
    }
    head.push(format!("Content-Length: {}\r\n", body.len()));
    if !is_upgrade {
        head.push("Connection: close\r\n".to_owned());
    }
    head.push("\r\n".to_owned());
    let mut engine = UnixStream::connect(engine)?;
    engine.write_all(head.concat().as_bytes())?;
    engine.write_all(&body)?;
    let (mut to_client, mut from_engine) = (client.try_clone()?, engine.try_clone()?);
    if is_upgrade {
        std::thread::spawn(move || {
            // Either may have hung up.
            let _ = io::copy(&mut reader, &mut engine);
            let _ = engine.shutdown(Shutdown::Write);
        });
    }
    // That the client hung up is not told: the engine does what it was asked.
    io::copy(&mut from_engine, &mut to_client)?;
    client.shutdown(Shutdown::Both)
}

fn fail(mut client: &UnixStream) -> io::Result<()> {
    let body = "{\"message\":\"it is in trouble\"}";
    let head =
        "HTTP/1.1 500 Internal Server Error\r\nContent-Type: application/json\r\nConnection: close\r\n";
    client.write_all(format!("{head}Content-Length: {}\r\n\r\n{body}", body.len()).as_bytes())?;
    client.shutdown(Shutdown::Both)
}

fn forget(order: &[u8], what: &[&str]) -> Vec<u8> {
    let mut order: Value = serde_json::from_slice(order).expect("an order is JSON");
    for path in what {
        let (parent, name) = path.rsplit_once('/').map_or(("", *path), |(parent, name)| (parent, name));
        let parent = if parent.is_empty() { String::new() } else { format!("/{parent}") };
        let parent = order.pointer_mut(&parent).and_then(Value::as_object_mut);
        let taken = parent.and_then(|parent| parent.remove(name));
        assert!(taken.is_some(), "nobody ordered '{path}'");
    }
    serde_json::to_vec(&order).expect("it was JSON before")
}
