//! One shim, driven as the agent drives it: a folder, a description on standard input, a socket.

use std::{
    io::Read as _,
    os::unix::net::UnixStream,
    path::Path,
    process::{Child, Command, Stdio},
    sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, TryLockError},
    time::{Duration, Instant},
};

use model::api::output::Stream;
use opsconductor_agent::{
    segment::{Body, Reader},
    shim::{self, control, lock::Lock, record, spec::Spec},
};
use prost::Message as _;
use proto::command::Program;
use tempfile::TempDir;

pub(crate) const LONG: Duration = Duration::from_secs(60);
/// How often a test looks whether what it waits for has come.
pub(crate) const LOOK_EVERY: Duration = Duration::from_millis(2);

/// A running shim with its folder.
pub(crate) struct Shim {
    pub(crate) folder: TempDir,
    pub(crate) process: Child,
}

pub(crate) fn command(program: Program) -> proto::Command {
    proto::Command {
        program: Some(program),
        timeout_ms: 60_000,
        cwd: "/".to_owned(),
        profile: proto::Profile::None.into(),
        ..proto::Command::default()
    }
}

pub(crate) fn shell(line: &str) -> proto::Command {
    command(Program::Shell(line.to_owned()))
}

pub(crate) fn argv(words: &[&str]) -> proto::Command {
    command(Program::Argv(proto::Argv { argv: words.iter().map(|&word| word.to_owned()).collect() }))
}

pub(crate) fn spec(command: proto::Command) -> Spec {
    let mut spec = Spec::default();
    spec.execution_id = vec![1; 16];
    spec.run_id = uuid::Uuid::from_bytes(pki::random()).as_bytes().to_vec();
    spec.attempt = 1;
    spec.kill_grace_ms = 300;
    spec.kill_within_ms = 60_000;
    spec.block_for_ms = 60_000;
    spec.command = Some(command);
    spec
}

impl Shim {
    pub(crate) fn start(spec: &Spec) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), spec)
    }

    pub(crate) fn start_in(folder: TempDir, spec: &Spec) -> Self {
        Lock::make(folder.path()).unwrap();
        let process = spawn(folder.path());
        Self::drive(folder, process, spec)
    }

    /// Tells a new shim what to run.
    pub(crate) fn drive(folder: TempDir, mut process: Child, spec: &Spec) -> Self {
        spec.write(process.stdin.take().unwrap()).unwrap();
        let mut said = String::new();
        process.stdout.take().unwrap().read_to_string(&mut said).unwrap();
        assert_eq!(said, format!("{}\n", shim::READY));
        Self { folder, process }
    }

    pub(crate) fn run(command: proto::Command) -> (proto::ExitRecord, Output) {
        Self::start(&spec(command)).finish()
    }

    pub(crate) fn connect(&self) -> UnixStream {
        let stream = UnixStream::connect(self.folder.path().join(control::SOCKET_NAME)).unwrap();
        stream.set_read_timeout(Some(LONG)).unwrap();
        stream
    }

    /// Waits for the shim's end and checks that the totals are those of the segment.
    pub(crate) fn finish(mut self) -> (proto::ExitRecord, Output) {
        assert!(self.process.wait().unwrap().success());
        let bytes = record::read(self.folder.path()).unwrap().expect("an exit record");
        let record = proto::ExitRecord::decode(bytes.as_slice()).unwrap();
        let output = Output::read(self.folder.path());
        for (totals, seen) in [(&record.stdout, &output.stdout), (&record.stderr, &output.stderr)] {
            let totals = totals.as_ref().unwrap();
            assert_eq!(totals.stored, seen.data.len() as u64);
            assert_eq!(totals.bytes, totals.stored + seen.gap);
            if seen.gap == 0 {
                assert_eq!(totals.sha256, pki::sha256(&seen.data));
            }
        }
        (record, output)
    }
}

pub(crate) fn spawn(folder: &Path) -> Child {
    Command::new(env!("CARGO_BIN_EXE_opsconductor-agent"))
        .arg("shim")
        .arg(folder)
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

#[derive(Debug, Default)]
pub(crate) struct Output {
    pub(crate) stdout: Seen,
    pub(crate) stderr: Seen,
}

#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) data: Vec<u8>,
    pub(crate) gap: u64,
}

impl Output {
    pub(crate) fn read(folder: &Path) -> Self {
        let mut output = Self::default();
        let mut reader = Reader::open(folder).unwrap();
        while let Some(record) = reader.next().unwrap() {
            let seen = match record.stream {
                Stream::Stdout => &mut output.stdout,
                Stream::Stderr => &mut output.stderr,
            };
            assert_eq!(record.offset, seen.data.len() as u64 + seen.gap, "offsets have no hole");
            match record.body {
                Body::Data(data) => seen.data.extend(data),
                Body::Gap(length) => seen.gap += length,
            }
        }
        output
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.stdout.data).unwrap()
    }
}

pub(crate) fn is_alive(pid: i32) -> bool {
    let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else { return false };
    !stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('Z'))
}

static HOST: RwLock<()> = RwLock::new(());

/// The host is shared for as long as this lives: nothing takes all of it.
pub(crate) fn share_host() -> RwLockReadGuard<'static, ()> {
    HOST.read().unwrap_or_else(PoisonError::into_inner)
}

/// The host is this test's for as long as this lives; all who share it were waited for.
pub(crate) fn take_host() -> RwLockWriteGuard<'static, ()> {
    loop {
        match HOST.try_write() {
            Ok(host) => return host,
            Err(TryLockError::Poisoned(error)) => return error.into_inner(),
            // No queue: who shares it twice must not wait for one who waits for him.
            Err(TryLockError::WouldBlock) => std::thread::sleep(LOOK_EVERY),
        }
    }
}

pub(crate) fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    let until = Instant::now() + LONG;
    while !condition() {
        assert!(Instant::now() < until, "{what}");
        // Who looks all the time takes the processor from what it waits for.
        std::thread::sleep(LOOK_EVERY);
    }
}
