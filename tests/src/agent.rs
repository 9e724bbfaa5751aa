//! Agents: real processes with data folders of their own.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{ErrorKind, Write as _},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Command, Output},
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use serde_json::json;

use crate::{
    Host, SOON, World, eventually,
    process::{Process, kill_tree, show_log, signal, with_argument},
    scene,
};

/// How long the shims of an agent may take to go after their jobs were killed.
const SHIMS_END_WITHIN: Duration = Duration::from_secs(10);

/// An agent that is not enrolled yet.
#[derive(Debug)]
pub struct NewAgent {
    world: World,
    name: String,
    labels: BTreeMap<String, String>,
    slots: u32,
    controller: SocketAddr,
    data: Option<PathBuf>,
    variables: Vec<(String, String)>,
    network: Option<PathBuf>,
    without_groups: bool,
    own_boot: bool,
}

impl NewAgent {
    pub(crate) fn new(world: World, name: &str) -> Self {
        let controller = world.door();
        Self {
            world,
            name: name.to_owned(),
            labels: BTreeMap::new(),
            slots: 16,
            controller,
            data: None,
            variables: Vec::new(),
            network: None,
            without_groups: false,
            own_boot: false,
        }
    }

    pub fn label(mut self, key: &str, value: &str) -> Self {
        self.labels.insert(key.to_owned(), value.to_owned());
        self
    }

    /// Runs at a time.
    pub fn slots(mut self, slots: u32) -> Self {
        self.slots = slots;
        self
    }

    /// Connects here instead of to the controller itself.
    pub fn through(mut self, address: SocketAddr) -> Self {
        self.controller = address;
        self
    }

    /// Runs in this host's network, and connects to the World from there.
    pub fn on(mut self, host: &Host) -> Self {
        self.controller = SocketAddr::new(host.outside(), self.world.door().port());
        self.network = Some(host.network());
        self
    }

    /// Its clock is off by so much when it runs, as `faketime` says it (`+1h`, `-1h`, `+400d`). It enrolls with the right one.
    pub fn clock(self, offset: &str) -> Self {
        self.variable("LD_PRELOAD", faketime().display().to_string())
            .variable("FAKETIME", offset)
            .variable("FAKETIME_DONT_FAKE_MONOTONIC", "1")
    }

    /// Has these controllers in its configuration, instead of knowing the one that it enrolls with.
    pub fn controllers(self, doors: &[SocketAddr]) -> Self {
        let doors: Vec<String> = doors.iter().map(ToString::to_string).collect();
        self.setting("CONTROLLER", doors.join(","))
    }

    /// Configures one of its keys, by the name of its variable without the prefix.
    pub fn setting(self, name: &str, value: impl std::fmt::Display) -> Self {
        self.variable(&format!("OPSC_AGENT_{name}"), value.to_string())
    }

    /// Runs with this variable in its environment.
    pub fn variable(mut self, name: &str, value: impl Into<String>) -> Self {
        self.variables.push((name.to_owned(), value.into()));
        self
    }

    /// On a host that has no control groups; takes root.
    pub fn without_groups(mut self) -> Self {
        self.without_groups = true;
        self
    }

    /// On a host whose boots are its own (see [`Agent::new_boot`]); takes root.
    pub fn own_boot(mut self) -> Self {
        self.own_boot = true;
        self
    }

    /// Keeps its state in this folder instead of a new one.
    pub fn data(mut self, folder: &Path) -> Self {
        self.data = Some(folder.to_owned());
        self
    }

    /// Enrolls it with a token of its own. It does not run yet.
    pub async fn enroll(self) -> Agent {
        let token = self.world.enroll_token(&json!({ "labels": self.labels })).await;
        let agent = self.enroll_later();
        let enrolled = agent.enroll_with(&token, &[]);
        assert!(enrolled.status.success(), "enroll: {}", String::from_utf8_lossy(&enrolled.stderr));
        agent
    }

    /// Leaves the enrollment to the test.
    pub fn enroll_later(self) -> Agent {
        let folder = scene::new_folder(&self.name);
        let data = self.data.unwrap_or_else(|| folder.join("data"));
        let policy = data.with_extension("policy.toml");
        if !policy.exists() {
            write_policy(&policy);
        }
        let boot = self.own_boot.then(|| folder.join("boot_id"));
        boot.iter().for_each(|file| write_boot_id(file));
        Agent {
            boot,
            data,
            log: folder.join("agent.log"),
            world: self.world,
            name: self.name,
            slots: self.slots,
            controller: self.controller,
            variables: self.variables,
            network: self.network,
            without_groups: self.without_groups,
            process: None,
        }
    }

    /// Enrolls it, starts it, and waits until the controller shows it as online.
    pub async fn start(self) -> Agent {
        let mut agent = self.enroll().await;
        agent.run();
        agent.online().await;
        agent
    }
}

/// The policy of agents that have no other: runs are whoever the test is.
pub const UNCONFINED: &str = "[sandbox]\ndefault = 'none'\nunconfined = 'all'\n";

/// Writes it so that it outlives a loss of power.
fn write_policy(path: &Path) {
    let written = File::create(path).and_then(|mut file| {
        file.write_all(UNCONFINED.as_bytes())?;
        file.sync_all()
    });
    let folder = path.parent().expect("it lies in a folder");
    written.and_then(|()| File::open(folder)?.sync_all()).expect("the policy can be written");
}

/// The library that gives a process another clock.
fn faketime() -> PathBuf {
    let folders = std::fs::read_dir("/usr/lib").into_iter().flatten().flatten();
    folders
        .map(|folder| folder.path().join("faketime/libfaketimeMT.so.1"))
        .find(|library| library.exists())
        .expect("no libfaketime: install Debian's package libfaketime")
}

/// An enrolled agent. Dropped, its process, its shims and their jobs are killed.
#[derive(Debug)]
pub struct Agent {
    world: World,
    pub name: String,
    pub data: PathBuf,
    log: PathBuf,
    slots: u32,
    controller: SocketAddr,
    variables: Vec<(String, String)>,
    /// The network namespace that it runs in, if not the test's own.
    network: Option<PathBuf>,
    without_groups: bool,
    /// The file that its host's kernel shows as the name of its boot, where that is not the machine's.
    boot: Option<PathBuf>,
    process: Option<Process>,
}

/// The agent's command line, with nothing of this machine's configuration.
pub fn command(data: &Path, arguments: &[&str]) -> Command {
    command_in(None, data, arguments)
}

fn command_in(network: Option<&Path>, data: &Path, arguments: &[&str]) -> Command {
    let program = scene::binary("opsconductor-agent");
    let mut command = match network {
        None => Command::new(program),
        Some(network) => {
            // It becomes the agent: the process keeps its id.
            let mut enter = Command::new("/usr/bin/nsenter");
            enter.arg(format!("--net={}", network.display())).arg(program);
            enter
        }
    };
    command
        .args(arguments)
        .arg("--data")
        .arg(data)
        .env_clear()
        .env("PATH", "/usr/local/bin:/usr/bin:/bin")
        .env("OPSC_AGENT_CONFIG", crate::postgres::empty_file())
        .env("OPSC_AGENT_POLICY", data.with_extension("policy.toml"))
        .envs(crate::mutant());
    command
}

/// Gives a command the arguments and the environment of another.
fn again(mut command: Command, as_in: &Command) -> Command {
    let variables = as_in.get_envs().filter_map(|(name, value)| Some((name, value?)));
    command.args(as_in.get_args()).env_clear().envs(variables);
    command
}

/// The command in a view of the file system without control groups; the process keeps its id.
fn without_groups(command: &Command) -> Command {
    let mut unshared = Command::new("unshare");
    unshared
        .args(["--mount", "sh", "-c", "umount -a -l -t cgroup2 && exec \"$0\" \"$@\""])
        .arg(command.get_program())
        .args(command.get_args())
        .env_clear()
        .envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    unshared
}

/// The command where the kernel names the boot as `file` does; the process keeps its id.
fn in_boot(file: &Path, command: &Command) -> Command {
    const BIND: &str = "mount --bind \"$0\" /proc/sys/kernel/random/boot_id && exec \"$@\"";
    let mut unshared = Command::new("unshare");
    unshared.args(["--mount", "sh", "-c", BIND]).arg(file).arg(command.get_program());
    again(unshared, command)
}

fn write_boot_id(file: &Path) {
    let id = uuid::Uuid::from_bytes(pki::random());
    std::fs::write(file, format!("{id}\n")).expect("the scene's folder can be written");
}

impl Agent {
    /// What the host has booted anew since: nothing that ran before does any more, whatever the journal says.
    pub fn new_boot(&self) {
        self.boot.iter().for_each(|file| write_boot_id(file));
    }

    /// The file of its host's policy.
    pub fn policy(&self) -> PathBuf {
        self.data.with_extension("policy.toml")
    }

    /// `enroll` with this token and `arguments` more.
    pub fn enroll_with(&self, token: &str, arguments: &[&str]) -> Output {
        enroll_in(self.network.as_deref(), &self.data, self.controller, &self.name, token, arguments)
    }

    /// Starts its process.
    pub fn run(&mut self) {
        self.run_with(&["run"]);
    }

    /// As [`Self::run`], with `variables` more in its environment.
    pub fn run_armed(&mut self, variables: &[(&str, &str)]) {
        let mut command = self.command(&["run"]);
        command.envs(variables.iter().copied());
        self.spawn(command);
    }

    /// Starts its process with other arguments.
    pub fn run_with(&mut self, arguments: &[&str]) {
        self.spawn(self.command(arguments));
    }

    /// Starts its process from another binary.
    pub fn run_program(&mut self, program: &Path) {
        self.spawn(again(Command::new(program), &self.command(&["run"])));
    }

    /// Starts its process through another program, which becomes what its last arguments say.
    pub fn run_through(&mut self, program: &Path, arguments: &[&str]) {
        let own = self.command(&["run"]);
        let mut through = Command::new(program);
        through.args(arguments).arg(own.get_program());
        self.spawn(again(through, &own));
    }

    fn command(&self, arguments: &[&str]) -> Command {
        command_in(self.network.as_deref(), &self.data, arguments)
    }

    fn spawn(&mut self, mut command: Command) {
        command
            .env("OPSC_AGENT_SLOTS", self.slots.to_string())
            .env("OPSC_AGENT_LOG__LEVEL", "info,opsconductor_agent=debug")
            .env("OPSC_AGENT_TIMING__RECONNECT_SECONDS", "2");
        if self.world.is_impatient() {
            // As its controller says later.
            command.env("OPSC_AGENT_TIMING__SILENCE_SECONDS", "3");
        }
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        if self.without_groups {
            command = without_groups(&command);
        }
        if let Some(file) = &self.boot {
            command = in_boot(file, &command);
        }
        self.process = Some(Process::spawn(&mut command, self.log.clone()));
    }

    /// SIGKILL, as a crash: shims and jobs go on.
    pub fn kill(&mut self) {
        self.process.as_mut().expect("it runs").kill();
        self.process = None;
    }

    /// SIGTERM, and its orderly end: shims and jobs go on.
    pub fn stop(&mut self) {
        self.process.as_mut().expect("it runs").terminate();
        self.process = None;
    }

    /// Whether its process has ended by itself.
    pub fn has_ended(&mut self) -> bool {
        self.process.as_mut().is_none_or(|process| process.ended().is_some())
    }

    pub fn pid(&self) -> u32 {
        self.process.as_ref().expect("it runs").pid()
    }

    pub fn log_file(&self) -> &Path {
        &self.log
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// The agent as the API shows it.
    pub async fn shown(&self) -> serde_json::Value {
        self.world.api().get(&format!("/api/v1/agents/{}", self.name)).await.accepted().value()
    }

    pub async fn id(&self) -> String {
        self.shown().await["id"].as_str().expect("an agent has an id").to_owned()
    }

    pub async fn online(&self) {
        self.is("online").await;
    }

    /// Waits until the controller shows it in this state.
    pub async fn is(&self, state: &str) {
        self.is_within(state, SOON).await;
    }

    /// As [`Self::is`], where that may take longer.
    pub async fn is_within(&self, state: &str, within: Duration) {
        eventually(within, &format!("the agent {} is {state}", self.name), async || {
            (self.shown().await["state"] == state).then_some(())
        })
        .await;
    }

    /// The processes that own its attempts.
    pub fn shims(&self) -> Vec<u32> {
        let own = self.process.as_ref().map(Process::pid);
        let data = self.data.to_str().expect("our paths are UTF-8");
        with_argument(data).into_iter().filter(|pid| Some(*pid) != own).collect()
    }
}

/// `opsconductor-agent enroll`.
pub fn enroll(data: &Path, controller: SocketAddr, name: &str, token: &str, arguments: &[&str]) -> Output {
    enroll_in(None, data, controller, name, token, arguments)
}

fn enroll_in(
    network: Option<&Path>,
    data: &Path,
    controller: SocketAddr,
    name: &str,
    token: &str,
    arguments: &[&str],
) -> Output {
    command_in(network, data, &["enroll", "--controller", &controller.to_string(), "--name", name])
        .args(arguments)
        .env("OPSC_AGENT_TOKEN", token)
        .output()
        .expect("the agent's program starts")
}

impl Drop for Agent {
    fn drop(&mut self) {
        if std::thread::panicking() {
            show_log(&format!("agent {}", self.name), &self.log);
        }
        // Gone before its shims, so that it starts no other.
        self.process = None;
        for shim in self.shims() {
            kill_tree(shim);
        }
        let begun = Instant::now();
        while !self.shims().is_empty() && begun.elapsed() < SHIMS_END_WITHIN {
            self.shims().into_iter().for_each(|shim| signal(shim, Signal::SIGKILL));
            std::thread::sleep(Duration::from_millis(10));
        }
        remove_groups(&self.data);
    }
}

/// What a killed shim cannot do any more: removes the control groups of its runs.
fn remove_groups(data: &Path) {
    let begun = Instant::now();
    for attempt in std::fs::read_dir(data.join("executor/attempts")).into_iter().flatten().flatten() {
        let Ok(note) = std::fs::read_to_string(attempt.path().join("cgroup")) else { continue };
        for group in note.lines() {
            let is_busy =
                || std::fs::remove_dir(group).is_err_and(|error| error.kind() == ErrorKind::ResourceBusy);
            while is_busy() && begun.elapsed() < SHIMS_END_WITHIN {
                std::thread::sleep(Duration::from_millis(10));
            }
        }
    }
}
