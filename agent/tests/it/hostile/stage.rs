//! What the programs of the corpus find on their host: a fake agent's data, another run, a process, sockets, a terminal.

use std::{
    collections::HashMap,
    fs::Permissions,
    io::{BufRead as _, BufReader},
    net::TcpListener,
    os::{
        linux::net::SocketAddrExt as _,
        unix::{
            fs::PermissionsExt as _,
            net::{SocketAddr, UnixListener},
        },
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use model::id::RunId;
use opsconductor_agent::{sandbox::strays, shim::lock::Lock};
use proto::Profile;
use tempfile::TempDir;

use super::{PYTHON, corpus::Entry};
use crate::one_shim::{Shim, argv, spawn, spec, wait_for};

/// A key that the agent has in its session.
const SESSION_KEY: &str = "opsconductor-hostile-session";
/// Gives the shim a session of keys with one in it.
const WITH_KEY: &str = "import ctypes, os, sys; call = ctypes.CDLL(None).syscall; call(250, 1, None); \
     call(248, b'user', sys.argv[1].encode(), b'secret', 6, -3); os.execv(sys.argv[2], sys.argv[2:])";
const TIMEOUT_MS: u64 = 30_000;

pub(super) struct Stage {
    folder: TempDir,
    listener: TcpListener,
    _abstract: UnixListener,
    terminal: Terminal,
    shared_memory: tempfile::NamedTempFile,
    others: HashMap<&'static str, Other>,
}

/// Another run of the host.
struct Other {
    shim: Shim,
    pid: i32,
    temporary: PathBuf,
}

impl Stage {
    pub(super) fn set() -> Self {
        // Not in a folder that runs have for themselves.
        let folder = tempfile::Builder::new().prefix("opsc-stage-").tempdir_in("/var/lib").unwrap();
        let at = |name: &str| folder.path().join(name);
        allow(folder.path(), 0o711);
        for name in ["data/identity", "data/journal", "data/attempts/other", "open"] {
            std::fs::create_dir_all(at(name)).unwrap();
        }
        for name in ["data/identity/key.pem", "data/journal/0", "data/attempts/other/output", "open/key.pem"]
        {
            std::fs::write(at(name), "secret").unwrap();
        }
        allow(&at("data"), 0o700);
        std::fs::copy("/usr/bin/id", at("id")).unwrap();
        allow(&at("id"), 0o4755);
        let shared_memory = tempfile::NamedTempFile::new_in("/dev/shm").unwrap();
        allow(shared_memory.path(), 0o644);
        let address = SocketAddr::from_abstract_name(abstract_name()).unwrap();
        let mut stage = Self {
            folder,
            listener: TcpListener::bind("127.0.0.1:0").unwrap(),
            _abstract: UnixListener::bind_addr(&address).unwrap(),
            terminal: Terminal::open(),
            shared_memory,
            others: HashMap::new(),
        };
        for profile in super::PROFILES {
            let other = stage.start_other(if profile == Profile::None { Profile::Standard } else { profile });
            stage.others.insert(super::name(profile), other);
        }
        stage
    }

    fn start_other(&self, profile: Profile) -> Other {
        let mut command = argv(&["sleep", "1000"]);
        command.profile = profile.into();
        command.cwd = String::new();
        let ordered = self.ordered(command);
        let run_id = RunId::from_bytes(&ordered.run_id).unwrap();
        let shim = Shim::start(&ordered);
        wait_for("another run is up", || !strays::find(run_id, 1).is_empty());
        let temporary = std::fs::read_to_string(shim.folder.path().join("temporary")).unwrap();
        Other { pid: strays::find(run_id, 1)[0], temporary: temporary.into(), shim }
    }

    fn ordered(&self, command: proto::Command) -> opsconductor_agent::shim::spec::Spec {
        let mut ordered = spec(command);
        (ordered.first_uid, ordered.last_uid) = model::limits::DYNAMIC_UIDS;
        let hidden = ["data", "open"].map(|name| self.folder.path().join(name).display().to_string());
        ordered.hidden = hidden.to_vec();
        ordered
    }

    /// Runs an entry in a profile; a word for what became of it, and for a denial why.
    pub(super) fn play(&self, entry: &Entry, profile: Profile) -> String {
        let is_confined = profile != Profile::None;
        let mut command = argv(&[PYTHON, "-ISc", &source(&entry.program)]);
        command.profile = profile.into();
        command.cwd = String::new();
        if entry.writes_around_data {
            command.write = vec![self.folder.path().display().to_string()];
        }
        command.timeout_ms = entry.timeout_ms.unwrap_or(TIMEOUT_MS);
        if is_confined {
            command.limits = Some(proto::Limits {
                pids: entry.limits.pids,
                memory_bytes: entry.limits.memory_bytes,
                open_files: entry.limits.open_files,
                file_bytes: entry.limits.file_bytes,
                cpu_percent: entry.limits.cpu_percent,
                ..proto::Limits::default()
            });
        } else {
            command.user.clone_from(&entry.control_user);
        }
        let outside = tempfile::tempdir_in(self.folder.path()).unwrap();
        allow(outside.path(), 0o777);
        let socket = outside.path().join("socket");
        let _listener = UnixListener::bind(&socket).unwrap();
        allow(&socket, 0o777);
        let mut victim = entry.program.contains("VICTIM").then(Victim::start);

        let mut ordered = self.ordered(command);
        let folder = tempfile::tempdir().unwrap();
        Lock::make(folder.path()).unwrap();
        let process = if entry.program.contains("SESSION_KEY") {
            with_key(folder.path())
        } else {
            spawn(folder.path())
        };
        let other = &self.others[super::name(profile)];
        let at = |name: &str| self.folder.path().join(name).display().to_string();
        ordered.environment = HashMap::from(
            [
                ("PROFILE", super::name(profile).to_owned()),
                ("DATA", at("data")),
                ("OPEN_DATA", at("open")),
                ("SETUID_ID", at("id")),
                ("OUTSIDE", outside.path().display().to_string()),
                ("PORT", self.listener.local_addr().unwrap().port().to_string()),
                ("ABSTRACT", abstract_name()),
                ("TERMINAL", self.terminal.name.clone()),
                ("SHARED_MEMORY", self.shared_memory.path().display().to_string()),
                ("SESSION_KEY", SESSION_KEY.to_owned()),
                ("SHIM", process.id().to_string()),
                ("OTHER", other.pid.to_string()),
                ("OTHER_TEMPORARY", other.temporary.display().to_string()),
                ("VICTIM", victim.as_ref().map_or(0, |victim| victim.0.id()).to_string()),
            ]
            .map(|(name, value)| (name.to_owned(), value)),
        );
        let run_id = RunId::from_bytes(&ordered.run_id).unwrap();
        let (record, output) = Shim::drive(folder, process, &ordered).finish();
        let what = format!("{} on {}", entry.name, super::name(profile));
        assert_eq!(strays::find(run_id, 1), Vec::<i32>::new(), "{what} left processes");
        let said = String::from_utf8_lossy(&output.stdout.data).into_owned();
        if said.lines().next() != Some("trying") {
            let errors = String::from_utf8_lossy(&output.stderr.data);
            return format!("it never tried: {record:?} {said} {errors}");
        }
        let last = said.lines().last().unwrap_or_default();
        let outcome = match last.split(':').next().unwrap_or_default() {
            "allowed" | "denied" | "absent" => last.to_owned(),
            _ if record.detail.contains("that it left behind were ended") => "ended".to_owned(),
            _ => record.reason.clone(),
        };
        // What a program says of itself is held against what is to be seen from outside.
        if outcome.starts_with("denied") {
            for name in ["written", "followed"] {
                assert!(!outside.path().join(name).exists(), "{what} wrote outside");
            }
            if let Some(victim) = &mut victim {
                assert!(victim.0.try_wait().unwrap().is_none(), "{what} killed");
            }
        }
        if outcome.starts_with("it") || outcome == "exited" {
            return format!("{outcome} {}", String::from_utf8_lossy(&output.stderr.data));
        }
        outcome
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        for other in self.others.values_mut() {
            // Its shim takes all of it along.
            let _ = other.shim.process.kill();
            let _ = other.shim.process.wait();
            let _ = std::fs::remove_dir_all(&other.temporary);
        }
    }
}

/// A terminal, and the process that has it open.
struct Terminal {
    process: Child,
    name: String,
}

impl Terminal {
    fn open() -> Self {
        let line =
            "import os, sys; own = os.openpty()[1]; print(os.ttyname(own), flush=True); sys.stdin.read()";
        let mut process = Command::new(PYTHON)
            .args(["-ISc", line])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut name = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut name).unwrap();
        Self { process, name: name.trim().to_owned() }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A process of the host.
struct Victim(Child);

impl Victim {
    fn start() -> Self {
        Self(Command::new("sleep").arg("1000").spawn().unwrap())
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn with_key(folder: &Path) -> Child {
    Command::new(PYTHON)
        .args(["-ISc", WITH_KEY, SESSION_KEY, env!("CARGO_BIN_EXE_opsconductor-agent"), "shim"])
        .arg(folder)
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

fn source(program: &str) -> String {
    let indented: String = program.lines().map(|line| format!("    {line}\n")).collect();
    format!("{}\n\ndef work():\n{indented}\nmain(work)\n", include_str!("prelude.py"))
}

fn abstract_name() -> String {
    format!("opsconductor-hostile-{}", std::process::id())
}

fn allow(path: &Path, mode: u32) {
    std::fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}
