//! A hostile program in the link's place, as somebody would have it who took over the link through the network: with its
//! socket, its user and its confinement. It starts nothing that no controller signed, reads nothing of the executor or of
//! a run, and gets at no other process.
//!
//! The program is this test's own, started again by the executor; it notes what it could do. Each denial has its control:
//! who tests can do the same, or the same door opens for what is allowed.

use std::{
    fs::File,
    io::{self, Read as _, Write as _},
    os::{
        fd::AsFd as _,
        unix::net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::{SignedDuration, Timestamp};
use model::id::ControllerId;
use nix::{
    errno::Errno,
    sys::{signal, socket},
    unistd::{Pid, geteuid},
};
use opsconductor_agent::{
    channel::{
        files::Files,
        frame::{Parser, encode},
        wire::{Ask, FromExecutor, FromLink, Held, Hello, Key, Setup},
    },
    config::LogFormat,
    executor::{Executor, link::Keeper, user},
    link::confine::confine,
    messages::{AttemptKey, ToExecutor},
};
use pki::{Authority, DispatchKey, Signer, seal};
use prost::Message as _;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::world::{LONG, World, command, new_key};

/// Where the program notes what it could do, and finds the orders that it is to bring.
const PLACE: &str = "OPSC_HOSTILE";
/// The orders, in the turn in which it brings them; only the last one is good.
const ORDERS: [&str; 4] = ["unsigned", "changed", "own", "signed"];

/// More than there is room for in sockets and queues.
const QUESTIONS: usize = 10_000_000;

/// A run that tells that it began, and stays.
fn line(place: &Path, name: &str) -> String {
    format!("echo > '{}/began-{name}'; sleep 1000", place.display())
}

/// Writes the orders. The good one is of the world's controller.
fn write_orders(world: &World, epoch: &[u8], place: &Path) -> AttemptKey {
    let order = |name: &str| {
        let key = new_key();
        let mut order = world.order_of(epoch, key, command(&line(place, name)));
        let aad = [key.execution_id.to_bytes(), key.run_id.to_bytes(), 1_u32.to_be_bytes().to_vec()].concat();
        let variables = [("SECRET".to_owned(), "what no link may read".to_owned())].into();
        let plain = proto::Environment { variables }.encode_to_vec();
        let sealed = seal(&world.seal_key, b"opsconductor environment", &aad, &plain).unwrap();
        let (encapsulated_key, ciphertext) = (sealed.encapsulated_key, sealed.ciphertext);
        order.command.as_mut().unwrap().environment = Some(proto::Sealed { encapsulated_key, ciphertext });
        (key, order)
    };
    let envelope = |order: &proto::WorkOrder| match world.sign(order) {
        ToExecutor::Order(envelope) => envelope,
        _ => unreachable!("it is an order"),
    };
    let write = |name: &str, envelope: &proto::Envelope| {
        std::fs::write(place.join(name), envelope.encode_to_vec()).unwrap();
    };
    let unsigned = proto::Envelope { signature: Vec::new(), ..envelope(&order("unsigned").1) };
    write("unsigned", &unsigned);
    // A good signature, of another order.
    let changed =
        proto::Envelope { payload: order("changed").1.encode_to_vec(), ..envelope(&order("other").1) };
    write("changed", &changed);
    // An authority of its own.
    let now = Timestamp::now();
    let authority = Authority::create("test.example", now).unwrap().authority;
    let key = DispatchKey::generate();
    let id = ControllerId::from(Uuid::from_bytes(pki::random()));
    let (from, until) = (now - SignedDuration::from_secs(60), now + SignedDuration::from_hours(1));
    let certificate = authority.issue_dispatch(id, &key, from, until).unwrap();
    let signer = Signer::new(key, certificate);
    let payload = order("own").1.encode_to_vec();
    let own = proto::Envelope {
        kind: "work-order".to_owned(),
        signature: signer.sign("work-order", &payload),
        certificate: signer.certificate().to_vec(),
        payload,
    };
    write("own", &own);
    let (key, good) = order("signed");
    write("signed", &envelope(&good));
    key
}

/// What the program noted.
fn tale(place: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(place.join("tale")).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

#[tokio::test]
async fn a_hostile_link_starts_nothing_and_reads_nothing() {
    let world = World::new();
    // To know the journal's epoch.
    let agent = world.start(4, false).await;
    let epoch = agent.epoch.clone();
    agent.stop().await;
    let place = tempfile::tempdir().unwrap();
    let key = write_orders(&world, &epoch, place.path());

    let folder = world.data.path().join("link");
    std::fs::create_dir(&folder).unwrap();
    let user = user::of_link(None).unwrap();
    assert_eq!(user.is_some(), geteuid().is_root());
    if let Some(user) = user {
        user::give(&folder, user).unwrap();
    }
    let test = std::env::current_exe().unwrap();
    // Its standard output is a socket, and that of a test is talkative: the two are exchanged.
    let script = format!(
        "{PLACE}='{0}' exec '{1}' --exact hostile_link::plays_the_link --ignored 2>&1 1>>'{0}/log'",
        place.path().display(),
        test.display()
    );
    let keeper = Keeper {
        program: "/bin/sh".into(),
        arguments: vec!["-c".to_owned(), script],
        data: world.data.path().to_owned(),
        folder,
        attempts: world.data.path().join("executor/attempts"),
        config: String::new(),
        agent_id: world.agent_id,
        user,
        delivers: false,
        log: LogFormat::Human,
    };
    let (to_executor, from_link) = mpsc::channel(16);
    let (to_link, from_executor) = mpsc::channel(16);
    let shutdown = CancellationToken::new();
    let executing = Executor::start(world.config(4, true), from_link, to_link, shutdown.clone()).unwrap();
    let keeping = tokio::spawn(keeper.keep(from_executor, to_executor));

    // Its nonsense at the end costs it its life, and another one begins.
    let begun = Instant::now();
    let is_over = || tale(place.path()).iter().any(|line| line.starts_with("flood"));
    while !is_over() {
        let log = || std::fs::read_to_string(place.path().join("log")).unwrap_or_default();
        assert!(begun.elapsed() < LONG, "{:#?}\n{}", tale(place.path()), log());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let lives = tale(place.path()).iter().filter(|line| *line == "begins").count();
    assert_eq!(lives, 2);
    assert!(place.path().join("began-signed").exists());
    for name in ["unsigned", "changed", "own", "other"] {
        assert!(!place.path().join(format!("began-{name}")).exists(), "{name}");
    }
    let attempts = std::fs::read_dir(world.data.path().join("executor/attempts")).unwrap();
    let names: Vec<_> = attempts.map(|attempt| attempt.unwrap().path()).collect();
    assert_eq!(names, [world.folder(key)]);
    // Who tests can read what it could not.
    let own = ["executor/keys/result.key", "executor/keys/seal.key", "executor/journal/db"];
    for path in own.map(|path| world.data.path().join(path)) {
        assert!(File::open(&path).is_ok(), "{}", path.display());
    }
    let said = tale(place.path());
    let (could, denied): (Vec<&String>, Vec<&String>) =
        said.iter().filter(|line| line.contains(": ")).partition(|line| line.ends_with(": could"));
    let could: Vec<&str> = could.iter().filter_map(|line| line.strip_suffix(": could")).collect();
    let mut may = vec!["read its own folder", "read /etc/hosts", "ask for the inventory", "read the output"];
    if !geteuid().is_root() {
        // Of the same user, and Landlock does not ask who connects to a socket: it could end the run, as by a cancel.
        may.push("speak to the shim");
    }
    assert_eq!(could, may);
    assert!(denied.len() >= 20, "{denied:?}");

    shutdown.cancel();
    executing.await.unwrap();
    // It reads nothing, so it does not hear that it is to end.
    keeping.abort();
    assert!(keeping.await.unwrap_err().is_cancelled());
}

/// The hostile program.
struct Hostile {
    tale: File,
    socket: UnixStream,
    parser: Parser<FromExecutor>,
}

impl Hostile {
    fn note<T, E: std::fmt::Debug>(&mut self, what: &str, done: Result<T, E>) {
        let how = done.map_or_else(|error| format!("{error:?}"), |_| "could".to_owned());
        writeln!(self.tale, "{what}: {how}").unwrap();
    }

    fn say(&mut self, kind: FromLink, message: &impl prost::Message) {
        self.socket.write_all(&encode(kind, message).unwrap()).unwrap();
    }

    /// The next frame of a kind.
    fn hear<M: prost::Message + Default>(&mut self, kind: FromExecutor) -> Option<M> {
        while let Some(frame) = self.parser.read(&mut self.socket).unwrap() {
            if frame.kind == kind {
                return Some(frame.message().unwrap());
            }
        }
        None
    }

    /// The process of the good order's run.
    fn started(&mut self) -> (Key, u32) {
        loop {
            let report: proto::Report = self.hear(FromExecutor::Report).expect("a run begins");
            if let Some(proto::report::Body::Started(started)) = report.body {
                let proto::Report { execution_id, run_id, attempt, .. } = report;
                return (Key { execution_id, run_id, attempt }, started.pid);
            }
        }
    }
}

fn read(path: impl AsRef<Path>) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(100).read_to_end(&mut bytes).map(|_| bytes)
}

/// It ends with the process that it is started by, whatever that says.
#[test]
#[ignore = "it is the program of the test above, which starts it"]
fn plays_the_link() {
    let Some(place) = std::env::var_os(PLACE).map(PathBuf::from) else { return };
    let socket: UnixStream = io::stdin().as_fd().try_clone_to_owned().unwrap().into();
    let files: UnixStream = io::stderr().as_fd().try_clone_to_owned().unwrap().into();
    let has_lived = !tale(&place).is_empty();
    let tale = File::options().create(true).append(true).open(place.join("tale")).unwrap();
    let mut hostile = Hostile { tale, socket, parser: Parser::default() };
    let setup: Setup = hostile.hear(FromExecutor::Setup).unwrap();
    let data = std::env::current_dir().unwrap().parent().unwrap().to_owned();
    let orders =
        ORDERS.map(|name| proto::Envelope::decode(&*std::fs::read(place.join(name)).unwrap()).unwrap());
    confine(setup.user, setup.executor).unwrap();
    writeln!(hostile.tale, "begins").unwrap();
    hostile.say(FromLink::Hello, &Hello::default());
    if has_lived {
        // In its second life it asks, and hears no answer.
        hostile.socket.set_write_timeout(Some(Duration::from_secs(1))).unwrap();
        let question = encode(FromLink::Ask, &Ask { number: 1 }).unwrap();
        let flood = (0..QUESTIONS).try_for_each(|_| hostile.socket.write_all(&question));
        hostile.note("flood the executor", flood);
        std::thread::park();
    }
    for order in &orders {
        hostile.say(FromLink::Order, order);
    }
    let (key, job) = hostile.started();
    let executor = setup.executor;

    // What it may.
    std::fs::write("/proc/self/cwd/note", "").unwrap();
    hostile.note("read its own folder", read("/proc/self/cwd/note"));
    hostile.note("read /etc/hosts", read("/etc/hosts"));
    hostile.say(FromLink::Ask, &Ask { number: 7 });
    let held: Option<Held> = hostile.hear(FromExecutor::Inventory);
    hostile.note("ask for the inventory", held.filter(|held| held.number == 7).ok_or("another answer"));
    let files = Arc::new(Files::new(files).unwrap());
    let opened =
        files.of(key.get().unwrap()).open().and_then(|opened| opened.ok_or(io::ErrorKind::NotFound.into()));
    hostile.note("read the output", opened.as_ref().map(|opened| opened.begins_at));

    // What it may not.
    if let Ok(opened) = &opened {
        hostile.note("write the output", (&opened.file).write_all(b"forged"));
    }
    let key = key.get().unwrap();
    let attempt = data.join(format!("executor/attempts/{}-{}", key.run_id, key.attempt));
    for path in ["keys/result.key", "keys/seal.key", "journal/db", "anchor.toml", "attempts"] {
        hostile.note(&format!("read {path}"), read(data.join("executor").join(path)));
    }
    hostile.note("read past its folder", read("/proc/self/cwd/../executor/keys/seal.key"));
    hostile.note("list the attempts", std::fs::read_dir(data.join("executor/attempts")));
    for file in ["output", "lock"] {
        hostile.note(&format!("read {file}"), read(attempt.join(file)));
    }
    hostile.note("speak to the shim", UnixStream::connect(attempt.join("control.sock")));
    for pid in [job, executor] {
        for file in ["environ", "mem", "maps"] {
            hostile.note(&format!("read /proc/{pid}/{file}"), read(format!("/proc/{pid}/{file}")));
        }
        hostile.note(&format!("see /proc/{pid}/fd/0"), std::fs::read_link(format!("/proc/{pid}/fd/0")));
        let pid = Pid::from_raw(pid.cast_signed());
        hostile.note(&format!("signal {pid}"), signal::kill(pid, None));
    }
    hostile.note("read /etc/shadow", read("/etc/shadow").and_then(|_| not_for_everybody("/etc/shadow")));
    hostile.note(
        "write elsewhere",
        File::create("/tmp/opsc-hostile").or_else(|_| File::create(place.join("new"))),
    );
    hostile.note("execute", std::process::Command::new("/bin/true").status());
    hostile.note("become root", nix::unistd::setuid(nix::unistd::Uid::from_raw(0)));
    hostile.note("outlive the executor", nix::sys::prctl::set_pdeathsig(None));
    hostile.note("leave its namespaces", nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWUSER));
    let raw = |family| socket::socket(family, socket::SockType::Raw, socket::SockFlag::empty(), None);
    hostile.note("hear the wire", raw(socket::AddressFamily::Packet));
    hostile.note("speak raw", raw(socket::AddressFamily::Inet));
    hostile.note("listen", std::net::TcpListener::bind("127.0.0.1:0"));
    hostile.note("stand in for the shim", UnixListener::bind(attempt.join("control.sock.2")));
    // Twice said is nonsense, and costs it its life.
    hostile.say(FromLink::Hello, &Hello::default());
    while let Ok(Some(_)) = hostile.parser.read(&mut hostile.socket) {}
    writeln!(hostile.tale, "the socket is closed").unwrap();
    std::thread::park();
}

/// A host may let everybody read it; then that is no secret.
fn not_for_everybody(path: &str) -> io::Result<()> {
    use std::os::unix::fs::MetadataExt as _;
    if std::fs::metadata(path)?.mode() & 0o004 == 0 { Ok(()) } else { Err(Errno::EACCES.into()) }
}
