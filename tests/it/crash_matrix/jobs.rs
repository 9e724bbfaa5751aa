//! What is run while processes die, and what must be of it at the end.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
};

use model::{Reason, id::ExecutionId, run::RunState};
use opsconductor_tests::process;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::stand::Stand;

/// A kind of run. They are tried in this order until the point is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Writes to both streams and ends.
    Short,
    /// Leaves processes everywhere and goes on until it is cancelled.
    Cancelled,
    /// Ends, and leaves a process behind that does not want to.
    Stubborn,
    /// Writes for longer than a second, while its agent is killed.
    Long,
    /// Is tried again, because its shim was killed and then because it failed; each try looks whether an earlier one lives.
    Again,
    /// As the short one, as a step of a saved job, behind a request of the controller to itself.
    Planned,
    /// The host's policy does not allow it. The last of all: an agent that starts says its refusals again.
    Refused,
}

pub(super) const KINDS: [Kind; 7] =
    [Kind::Short, Kind::Cancelled, Kind::Stubborn, Kind::Long, Kind::Again, Kind::Planned, Kind::Refused];

/// How a run may end without anybody knowing how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Excuse {
    None,
    /// The shim died before it had recorded the end.
    ShimDied,
}

/// Lines of a short and of a long run.
const SHORT: usize = 3000;
const LONG: usize = 40;

/// One run and what it did.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) kind: Kind,
    pub(super) id: ExecutionId,
    /// Gets a line with each start.
    tale: PathBuf,
    /// Stands in the arguments of all of its processes.
    mark: String,
    /// How it ended, once that was shown.
    shown: Option<Shown>,
}

/// What the API said at the end.
#[derive(Debug, Clone, PartialEq)]
struct Shown {
    state: RunState,
    reason: Option<Reason>,
    exit_code: Option<i32>,
    attempt: i32,
    /// SHA-256 of both streams, where all of them is stored.
    output: Option<[Vec<u8>; 2]>,
}

impl Job {
    /// The request that starts it, with what is needed to know it again. `door` is the controller's.
    pub(super) fn request(
        kind: Kind,
        folder: &Path,
        number: u32,
        door: SocketAddr,
    ) -> (Value, PathBuf, String) {
        let tale = folder.join(format!("tale-{number}"));
        // So long a sleep nobody else on this machine asks for.
        static MARKS: AtomicU32 = AtomicU32::new(1);
        let mark = format!("{}.{:05}", 1_000_000 + std::process::id(), MARKS.fetch_add(1, Ordering::Relaxed));
        let told = format!("echo $$ >> '{}'", tale.display());
        let line = match kind {
            Kind::Short | Kind::Planned => format!("{told}; seq {SHORT}; echo bad >&2"),
            Kind::Cancelled => format!(
                "(setsid sleep {mark} & setsid sh -c 'sleep {mark} & wait' &) ; seq 3; {told}; exec sleep {mark}"
            ),
            Kind::Refused => told,
            Kind::Stubborn => {
                format!("{told}; (trap '' TERM; setsid sleep {mark} >/dev/null 2>&1 &) ; echo left")
            }
            Kind::Again => {
                let tale = tale.display();
                // A zombie is dead, whoever is to bury it.
                let look = "grep -qs '^State:.[^ZX]' /proc/$p/status && echo alive";
                let look = format!("for p in $(head -n $((n - 1)) '{tale}'); do {look}; done");
                let act = format!("case $n in 1) exec sleep {mark};; 2) exit 1;; *) echo done;; esac");
                format!("{told}; n=$(wc -l < '{tale}'); {look}; {act}")
            }
            Kind::Long => format!("{told}; for i in $(seq {LONG}); do echo $i; sleep 0.05; done"),
        };
        if kind == Kind::Planned {
            let retry = json!({ "attempts": 10, "backoff_seconds": 1, "max_backoff_seconds": 1 });
            let ask =
                json!({ "name": "ask", "http": { "url": format!("http://{door}/health") }, "retry": retry });
            let steps = json!([ask, { "name": "only", "run": line }]);
            let job = json!({ "name": Self::name(number), "steps": steps });
            return (json!({ "document": job.to_string() }), tale, mark);
        }
        let mut command = json!({ "program": { "shell": line } });
        if kind == Kind::Again {
            command["idempotent"] = json!(true);
            command["retry"] = json!({ "attempts": 3, "backoff_seconds": 1, "max_backoff_seconds": 1 });
        }
        (json!({ "targets": { "names": ["one"] }, "command": command }), tale, mark)
    }

    /// What the saved job is called.
    pub(super) fn name(number: u32) -> String {
        format!("matrix-{number}")
    }

    pub(super) fn new(kind: Kind, id: ExecutionId, tale: PathBuf, mark: String) -> Self {
        Self { kind, id, tale, mark, shown: None }
    }

    /// How often its program was started.
    pub(super) fn starts(&self) -> usize {
        std::fs::read_to_string(&self.tale).unwrap_or_default().lines().count()
    }

    fn expected(&self) -> [String; 2] {
        let numbers = |last: usize| (1..=last).map(|i| format!("{i}\n")).collect::<String>();
        match self.kind {
            Kind::Short | Kind::Planned => [numbers(SHORT), "bad\n".to_owned()],
            Kind::Long => [numbers(LONG), String::new()],
            Kind::Stubborn => ["left\n".to_owned(), String::new()],
            Kind::Again => ["done\n".to_owned(), String::new()],
            Kind::Cancelled | Kind::Refused => [String::new(), String::new()],
        }
    }

    /// Waits for its end, and checks all that must be so then.
    pub(super) async fn check(&mut self, stand: &mut Stand, excuse: Excuse) {
        let run = stand.ended(self.id).await;
        let (starts, said) = (self.starts(), format!("{:?}: {run:?}", self.kind));
        let most = if self.kind == Kind::Again { 3 } else { 1 };
        assert!(starts <= most, "{starts} starts of {said}");
        if run.state == RunState::Cancelled || run.state == RunState::Succeeded {
            let left = process::with_argument(&self.mark);
            assert!(left.is_empty(), "{left:?} are left of {said}");
        }
        match (self.kind, run.state) {
            (
                Kind::Short | Kind::Long | Kind::Stubborn | Kind::Again | Kind::Planned,
                RunState::Succeeded,
            ) => {
                assert_eq!(starts, most, "{said}");
                let output = stand.output(self.id).await;
                assert_eq!(hashes(output), hashes(self.expected()), "{said}");
            }
            (Kind::Cancelled, RunState::Cancelled) => {}
            (Kind::Refused, RunState::Failed) if run.reason == Some(Reason::PolicyRefused) => {
                assert_eq!(starts, 0, "{said}");
            }
            // It was told that the shim died before it was ready.
            (_, RunState::Failed)
                if excuse == Excuse::ShimDied && run.reason == Some(Reason::SpawnFailed) =>
            {
                assert_eq!(starts, 0, "{said}");
            }
            (_, RunState::Unknown) if excuse == Excuse::ShimDied => {}
            _ => panic!("it may not end so: {said}"),
        }
        // What nobody could end any more is not to outlive the test.
        for pid in process::with_argument(&self.mark) {
            process::kill_tree(pid);
        }
        self.shown = Some(self.look(stand).await);
    }

    /// Checks that what was shown once is still so.
    pub(super) async fn check_again(&self, stand: &mut Stand) {
        let now = self.look(stand).await;
        assert_eq!(Some(now), self.shown, "a result has changed after its end");
    }

    async fn look(&self, stand: &mut Stand) -> Shown {
        let run = stand.ended(self.id).await;
        let is_whole = run.state == RunState::Succeeded;
        let output = if is_whole { Some(hashes(stand.output(self.id).await)) } else { None };
        let (state, reason, exit_code, attempt) = (run.state, run.reason, run.exit_code, run.attempt);
        Shown { state, reason, exit_code, attempt, output }
    }
}

fn hashes<T: AsRef<[u8]>>(streams: [T; 2]) -> [Vec<u8>; 2] {
    streams.map(|bytes| Sha256::digest(bytes.as_ref()).to_vec())
}
