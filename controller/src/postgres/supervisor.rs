//! Watches the server's process on a thread of its own, and starts it again when it dies.
//!
//! A thread, because the kernel ties the server's end to the end of the *thread* that started it, and a runtime's
//! threads come and go.

use std::{
    process::Child,
    sync::{Arc, Condvar, Mutex, MutexGuard},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::cluster::Cluster;

/// How often the process is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// The same while its end is waited for.
const LOOK_AT_END_EVERY: Duration = Duration::from_millis(5);
/// Pause before a start, doubled with each one that fails.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// A server that ran so long had started well.
const RAN_WELL: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub(super) struct Supervisor {
    shared: Arc<Shared>,
    /// Gives the cluster back when it ends.
    thread: Option<JoinHandle<Cluster>>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// The process while it is certain to be the server: a child is not reaped without this being cleared.
    pid: Option<Pid>,
    /// Start it again when it dies.
    keep_alive: bool,
    stopping: bool,
    ended: bool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder of this lock panics")
    }

    /// Waits until something was asked for, at most `time`.
    fn pause(&self, time: Duration) -> MutexGuard<'_, State> {
        self.changed.wait_timeout(self.lock(), time).expect("no holder of this lock panics").0
    }
}

/// How a start went so far.
pub(super) enum Started {
    Running,
    /// It ended; this is what it said.
    Ended {
        cluster: Cluster,
        message: String,
    },
}

/// The process that is watched.
enum Server {
    Child(Child),
    /// Started by another controller, which is gone.
    Orphan(Pid),
}

impl Server {
    fn pid(&self) -> Pid {
        match self {
            Self::Child(child) => Pid::from_raw(child.id().cast_signed()),
            Self::Orphan(pid) => *pid,
        }
    }

    /// How it ended, once it has.
    fn end(&mut self, cluster: &Cluster) -> Option<String> {
        match self {
            Self::Child(child) => match child.try_wait() {
                Ok(None) => None,
                Ok(Some(status)) => Some(status.to_string()),
                Err(error) => Some(error.to_string()),
            },
            Self::Orphan(pid) => (!cluster.is_postmaster(*pid)).then(|| "gone".to_owned()),
        }
    }
}

impl Supervisor {
    /// Starts the server; [`Supervisor::started`] tells how it goes.
    pub(super) fn start(cluster: Cluster) -> std::io::Result<Self> {
        Self::watch(cluster, None, State::default())
    }

    /// Watches a server that answers already.
    pub(super) fn of_orphan(cluster: Cluster, pid: Pid) -> std::io::Result<Self> {
        Self::watch(cluster, Some(pid), State { pid: Some(pid), keep_alive: true, ..State::default() })
    }

    fn watch(cluster: Cluster, orphan: Option<Pid>, state: State) -> std::io::Result<Self> {
        let shared = Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new() });
        let thread = std::thread::Builder::new().name("postgres".to_owned()).spawn({
            let shared = Arc::clone(&shared);
            move || {
                run(&cluster, orphan.map(Server::Orphan), &shared);
                cluster
            }
        })?;
        Ok(Self { shared, thread: Some(thread) })
    }

    pub(super) fn pid(&self) -> Option<Pid> {
        self.shared.lock().pid
    }

    /// How the start went so far.
    pub(super) fn started(&mut self) -> Started {
        if !self.shared.lock().ended {
            return Started::Running;
        }
        let thread =
            self.thread.take().expect("it is joined once: whoever sees the end replaces this supervisor");
        let cluster = thread.join().expect("the watching thread does not panic");
        let message = cluster.last_words();
        Started::Ended { cluster, message }
    }

    /// The server answers: from now on it is started again when it dies.
    pub(super) fn keep_alive(&self) {
        self.shared.lock().keep_alive = true;
    }

    /// Asks the server to shut down, waits `within` for it, then kills what is left and waits for `quit`. Answers
    /// whether it ended by itself.
    pub(super) fn stop(mut self, within: Duration, quit: Duration) -> bool {
        self.signal(Signal::SIGINT);
        let clean = self.ended_within(within);
        if !clean {
            self.signal(Signal::SIGQUIT);
            self.ended_within(quit);
        }
        clean
    }

    fn signal(&self, signal: Signal) {
        let mut state = self.shared.lock();
        state.stopping = true;
        if let Some(pid) = state.pid {
            // An error means that it is gone, which the thread sees.
            kill(pid, signal).ok();
        }
        self.shared.changed.notify_all();
    }

    fn ended_within(&mut self, time: Duration) -> bool {
        let began = Instant::now();
        while !self.shared.lock().ended {
            if began.elapsed() > time {
                return false;
            }
            std::thread::sleep(LOOK_AT_END_EVERY);
        }
        true
    }
}

impl Drop for Supervisor {
    /// Whoever is dropped without a stop still asks for one; the thread waits for it.
    fn drop(&mut self) {
        self.signal(Signal::SIGINT);
    }
}

/// The thread: runs servers until it is told to stop, or until one ends that was not to be kept alive.
fn run(cluster: &Cluster, mut server: Option<Server>, shared: &Shared) {
    let mut pause = FIRST_PAUSE;
    loop {
        let began = Instant::now();
        let message = match server.take().map_or_else(|| spawn(cluster, shared), Ok) {
            Ok(server) => watch(server, cluster, shared),
            Err(message) => message,
        };
        let mut state = shared.lock();
        if state.stopping || !state.keep_alive {
            state.ended = true;
            return;
        }
        drop(state);
        if began.elapsed() > RAN_WELL {
            pause = FIRST_PAUSE;
        }
        tracing::error!(
            "the embedded Postgres died ({message}: {}) and is started again in {} ms",
            cluster.last_words(),
            pause.as_millis()
        );
        let until = Instant::now() + pause;
        while !shared.lock().stopping && Instant::now() < until {
            drop(shared.pause(until.saturating_duration_since(Instant::now())));
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

fn spawn(cluster: &Cluster, shared: &Shared) -> Result<Server, String> {
    let mut command = cluster.server(true).map_err(|error| error.to_string())?;
    // Under the lock, so that a stop comes either before the start or to the new process.
    let mut state = shared.lock();
    if state.stopping {
        return Err("stopped".to_owned());
    }
    let server = Server::Child(command.spawn().map_err(|error| error.to_string())?);
    state.pid = Some(server.pid());
    Ok(server)
}

/// Waits for the server's end and says what it was.
fn watch(mut server: Server, cluster: &Cluster, shared: &Shared) -> String {
    loop {
        let mut state = shared.lock();
        if let Some(end) = server.end(cluster) {
            state.pid = None;
            return end;
        }
        let look_again = if state.stopping { LOOK_AT_END_EVERY } else { LOOK_EVERY };
        drop(state);
        drop(shared.pause(look_again));
    }
}
