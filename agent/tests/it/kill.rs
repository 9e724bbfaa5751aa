//! A kill is confirmed: when the exit record is there, nothing of the run is left, whatever it did. With control groups and
//! without.

use std::{
    io::Write as _,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use model::id::RunId;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use opsconductor_agent::{
    sandbox::strays,
    shim::{CGROUP_FILE_NAME, control, lock::Lock, spec::Spec},
};

use crate::one_shim::{Output, Shim, shell, spec, wait_for};

/// What runs do that do not want to end. Each says that it is about to.
const STUBBORN: [&str; 5] = [
    // Twice removed from its parent.
    "(sh -c 'sleep 1000 & sleep 1000 &' &); (setsid sh -c 'setsid sleep 1000 &' &); echo up; exit 0",
    // In sessions of their own.
    "setsid setsid sleep 1000 & setsid sh -c 'setsid sleep 1000; sleep 1000' & echo up; wait; sleep 1000",
    // Deaf to what asks it to end.
    "trap '' TERM HUP INT; (trap '' TERM; while :; do sleep 1000; done) & echo up; while :; do sleep 1000; done",
    // Stopped.
    "sleep 1000 & kill -STOP $!; sh -c 'trap \"\" TERM; echo up; kill -STOP $$' & wait; sleep 1000",
    // Killed and started anew.
    "trap '' TERM; (trap '' TERM; while :; do sh -c 'trap \"\" TERM; sleep 1000'; done) & echo up; wait; sleep 1000",
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Cancel,
    Timeout,
}

/// A run that is to be ended, and the folder that its group would be in.
struct Run {
    shim: Shim,
    run_id: RunId,
    end: End,
    line: String,
}

impl Run {
    fn start(command: proto::Command, end: End, groups: bool) -> Self {
        let line = format!("{:?}", command.program);
        // Long enough to say something first, also on a busy machine.
        let timeout_ms = if end == End::Timeout { 10_000 } else { 60_000 };
        let ordered = spec(proto::Command { timeout_ms, ..command });
        let run_id = RunId::from_bytes(&ordered.run_id).unwrap();
        let shim = if groups { Shim::start(&ordered) } else { without_groups(&ordered) };
        Self { shim, run_id, end, line }
    }

    fn folder(&self) -> PathBuf {
        self.shim.folder.path().to_owned()
    }

    /// Ends it, and looks at what the kernel knows of it as soon as it is said to be over.
    fn ends(self) {
        let Self { shim, run_id, end, line } = self;
        let folder = shim.folder.path().to_owned();
        wait_for("the run is up", || !Output::read(&folder).stdout.data.is_empty());
        // One whose main process is over is ended by itself, and may be gone.
        let socket = folder.join(control::SOCKET_NAME);
        let mut agent = (end == End::Cancel).then(|| UnixStream::connect(socket).ok()).flatten();
        if let Some(agent) = &mut agent {
            let _ = agent.write_all(&[control::ToShim::Cancel.byte()]);
        }
        let group = std::fs::read_to_string(folder.join(CGROUP_FILE_NAME));
        wait_for("the exit record is there", || folder.join("exit").exists());
        assert_eq!(strays::find(run_id, 1), Vec::<i32>::new(), "{line}");
        for group in group.iter().flat_map(|note| note.lines()) {
            let left = std::fs::read_to_string(Path::new(group).join("cgroup.procs")).unwrap_or_default();
            assert_eq!(left, "", "{line}");
        }
        let (record, _) = shim.finish();
        let wanted = if end == End::Cancel { "cancelled" } else { "time_limit" };
        assert!(record.reason == wanted || record.exit_code == Some(0), "{line}: {record:?}");
        assert!(record.reason != "exited" || record.detail.contains("left behind"), "{line}: {record:?}");
    }
}

/// A shim that finds no control groups on its host.
fn without_groups(ordered: &Spec) -> Shim {
    let folder = tempfile::tempdir().unwrap();
    Lock::make(folder.path()).unwrap();
    let script = "for at in $(awk '$3 ~ /^cgroup2?$/ { print $2 }' /proc/self/mounts); do \
                  mount -t tmpfs none $at || exit 1; done; exec \"$@\"";
    let process = Command::new("unshare")
        .args(["--mount", "sh", "-c", script, "sh", env!("CARGO_BIN_EXE_opsconductor-agent"), "shim"])
        .arg(folder.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let shim = Shim::drive(folder, process, ordered);
    assert!(!shim.folder.path().join(CGROUP_FILE_NAME).exists());
    shim
}

/// Whether this user may have mounts of its own.
fn can_hide_groups() -> bool {
    let can = nix::unistd::geteuid().is_root();
    if !can {
        eprintln!("SKIPPED: only root can hide the control groups from a shim");
    }
    can
}

fn all_end(end: End, groups: bool) {
    let runs: Vec<Run> = STUBBORN.iter().map(|line| Run::start(shell(line), end, groups)).collect();
    runs.into_iter().for_each(Run::ends);
}

#[test]
fn a_cancel_leaves_nothing() {
    all_end(End::Cancel, true);
}

#[test]
fn a_timeout_leaves_nothing() {
    all_end(End::Timeout, true);
}

#[test]
fn a_cancel_leaves_nothing_without_control_groups() {
    if can_hide_groups() {
        all_end(End::Cancel, false);
    }
}

#[test]
fn a_timeout_leaves_nothing_without_control_groups() {
    if can_hide_groups() {
        all_end(End::Timeout, false);
    }
}

/// A bomb of at most so many processes: its user has no more. They go on forking whenever one is free.
/// What is said counts, whoever has hung up or called again before it was heard.
#[test]
fn a_cancel_is_heard_of_who_is_gone_again() {
    for calls_again in [false, true] {
        let shim = Shim::start(&spec(shell("echo up; sleep 1000")));
        let folder = shim.folder.path().to_owned();
        wait_for("it begins", || String::from_utf8_lossy(&Output::read(&folder).stdout.data).contains("up"));
        let pid = Pid::from_raw(shim.process.id().try_into().unwrap());
        kill(pid, Signal::SIGSTOP).unwrap();
        shim.connect().write_all(&[control::ToShim::Cancel.byte()]).unwrap();
        let other = calls_again.then(|| shim.connect());
        kill(pid, Signal::SIGCONT).unwrap();
        let (record, _) = shim.finish();
        assert_eq!(record.reason, "cancelled", "{calls_again}");
        drop(other);
    }
}

#[test]
fn a_fork_bomb_is_ended() {
    if !can_hide_groups() {
        return;
    }
    if !Path::new("/usr/bin/perl").exists() {
        eprintln!("SKIPPED: without perl there is no bomb that outlives a failed fork");
        return;
    }
    // Users that nothing else runs as, so that the bound is the bomb's alone.
    for (user, groups, end) in
        [("games", true, End::Cancel), ("news", false, End::Timeout), ("uucp", false, End::Cancel)]
    {
        let line =
            "trap '' TERM; echo up; prlimit --nproc=40 perl -e '$SIG{TERM} = \"IGNORE\"; fork while 1'";
        let run = Run::start(proto::Command { user: user.to_owned(), ..shell(line) }, end, groups);
        let run_id = run.run_id;
        let folder = run.folder();
        wait_for("it has exploded", || strays::find(run_id, 1).len() > 20 || folder.join("exit").exists());
        run.ends();
    }
}
