//! From an order's command to what the engine is asked for.
//!
//! Every container has: a user of the host by number, no capabilities, no new privileges, an init, a bound number of
//! processes and open files, no core dumps, no log at the engine, no health checks, and nothing of the host but the folders
//! that were named. `strict` and `isolated` add a read-only file system with a temporary folder in memory and our own filter
//! of system calls, `isolated` takes the network away.

use std::{
    collections::HashMap,
    io,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use bollard::models::{
    ContainerCreateBody, HealthConfig, HostConfig, HostConfigLogConfig, Mount, MountBindOptions,
    MountBindOptionsPropagationEnum, MountType, ResourcesUlimits, ThrottleDevice,
};
use model::{
    Reason,
    limits::{DEFAULT_RUN_OPEN_FILES, DEFAULT_RUN_PIDS},
    sandbox::Profile,
};
use nix::{
    sys::resource::{Resource, getrlimit},
    unistd::geteuid,
};

use super::{
    engine::{Engine, Image},
    folders, note, unavailable,
};
use crate::{
    sandbox::{seccomp::oci, user::Lent},
    shim::{
        outputs::{self, Outputs},
        prepare::{self, Failure},
        spec::Spec,
    },
};

const SCRIPT_FILE_NAME: &str = "script";
/// Where the run finds the file for what it tells.
const OUTPUTS_TARGET: &str = "/.opsconductor-outputs";
const FILTER_FILE_NAME: &str = "seccomp.json";
/// Where a script's interpreter finds it in the container.
const SCRIPT_TARGET: &str = "/.opsconductor-script";
const TEMPORARY: &str = "/tmp";
const TEMPORARY_OPTIONS: &str = "rw,nosuid,nodev,mode=1777";
/// What the kernel's killer prefers to the agent and the engine.
const OOM_SCORE: i64 = 500;
/// As many as a kernel can have.
const MOST_PROCESSES: u64 = 4_194_304;
/// Billionths of a processor in a hundredth.
const NANOS_OF_PERCENT: u64 = 10_000_000;

/// A container as it is to be made.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) image: String,
    agent: String,
    attempt: String,
    profile: Profile,
    user: Option<ContainerUser>,
    words: Vec<String>,
    environment: Vec<String>,
    cwd: String,
    readable: Vec<String>,
    writable: Vec<String>,
    hidden: Vec<String>,
    limits: proto::Limits,
    script: Option<HandedOver>,
    outputs: Option<(Outputs, PathBuf)>,
    lent: Option<Lent>,
    throttled: Vec<String>,
}

#[derive(Debug)]
struct ContainerUser {
    /// `UID:GID`: a name would be looked up in the image, and there may be anybody's.
    numbers: String,
    groups: Vec<String>,
}

/// What is there for as long as the container is: its user, where that exists for this run only, and what it was handed.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) outputs: Option<Outputs>,
    _lent: Option<Lent>,
    _script: Option<HandedOver>,
    _filter: Option<HandedOver>,
}

/// A file in the attempt's folder for the engine; removed when this is dropped.
#[derive(Debug)]
struct HandedOver(PathBuf);

impl HandedOver {
    fn write(name: &str, content: &str) -> io::Result<Self> {
        use std::io::Write as _;

        let path = std::env::current_dir()?.join(name);
        // The attempt's folder is closed to others; in the container anybody may read it.
        let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o444).open(&path)?;
        let handed = Self(path);
        file.write_all(content.as_bytes())?;
        Ok(handed)
    }
}

impl Drop for HandedOver {
    fn drop(&mut self) {
        // It goes with the attempt's folder otherwise.
        let _ = std::fs::remove_file(&self.0);
    }
}

impl Plan {
    /// Looks up what there is to look up on the host.
    pub(super) fn new(spec: &mut Spec) -> Result<Self, Failure> {
        let attempt = spec.attempt_name();
        let mut command = spec.command.take().ok_or_else(|| failed("the order has no command"))?;
        let profile = prepare::profile(command.profile())?;
        let lent = prepare::lend_user(&command, profile, spec)?;
        let user = user(&command.user, profile, lent.as_ref())?;
        let mut environment = environment(spec, lent.is_some());
        let mut outputs = None;
        if !command.outputs.is_empty() {
            let make = || {
                let folder = std::env::current_dir()?;
                let made = Outputs::make_open(&folder, std::mem::take(&mut command.outputs))?;
                io::Result::Ok((made, folder.join(outputs::FILE_NAME)))
            };
            let mut make = make;
            let made = make().map_err(|error| failed(&format!("the file for its outputs: {error}")))?;
            environment.push(format!("{}={OUTPUTS_TARGET}", outputs::VARIABLE));
            outputs = Some(made);
        }
        let mut script = None;
        let words = match command.program.take() {
            Some(proto::command::Program::Argv(argv)) => argv.argv,
            Some(proto::command::Program::Shell(line)) => vec!["/bin/sh".to_owned(), "-c".to_owned(), line],
            Some(proto::command::Program::Script(ordered)) => {
                let mut words = prepare::interpreter(&ordered)?;
                let file = HandedOver::write(SCRIPT_FILE_NAME, &ordered.content)
                    .map_err(|error| failed(&format!("the script cannot be handed over: {error}")))?;
                script = Some(file);
                words.push(SCRIPT_TARGET.to_owned());
                words.extend(ordered.args);
                words
            }
            None => Vec::new(),
        };
        if words.first().is_none_or(String::is_empty) {
            return Err(failed("the order names no program"));
        }
        if words.iter().chain([&command.cwd]).any(|word| word.contains('\0')) {
            return Err(failed("the order has a NUL character in a word, path or variable"));
        }
        let limits = command.limits.unwrap_or_default();
        let throttled = if limits.io_bytes_per_second == 0 { Vec::new() } else { block_devices() };
        if limits.io_bytes_per_second != 0 && throttled.is_empty() {
            return Err(unavailable("io limit: it has no block device"));
        }
        Ok(Self {
            image: std::mem::take(&mut command.image),
            agent: spec.agent.clone(),
            attempt,
            profile,
            user,
            words,
            environment,
            cwd: std::mem::take(&mut command.cwd),
            readable: std::mem::take(&mut command.read),
            writable: std::mem::take(&mut command.write),
            hidden: spec.hidden.clone(),
            limits,
            script,
            outputs,
            lent,
            throttled,
        })
    }

    /// Are the folders such that a container may have them?
    pub(super) fn check_folders(&self, engine: &Engine) -> Result<(), Failure> {
        folders::check(self.readable.iter().chain(&self.writable), &self.hidden, engine)
            .map_err(|why| unavailable(&why))
    }

    /// May a container of this profile be made from the image? A file system that can only be read has no part that cannot.
    pub(super) fn check_image(&self, image: &Image) -> Result<(), Failure> {
        if !self.is_sealed() || image.volumes.is_empty() {
            return Ok(());
        }
        let (name, volumes) = (&self.image, image.volumes.join("', '"));
        Err(unavailable(&format!(
            "the image '{name}' has volumes ('{volumes}'), which could be written: with the sandbox '{}' none may be",
            self.profile
        )))
    }

    fn is_sealed(&self) -> bool {
        self.profile >= Profile::Strict
    }

    fn pids(&self) -> u64 {
        if self.limits.pids == 0 { DEFAULT_RUN_PIDS } else { self.limits.pids }
    }

    /// What the engine is told, and what must be kept for as long as the container is there.
    pub(super) fn into_body(
        mut self,
        image: Image,
        engine: &Engine,
    ) -> Result<(ContainerCreateBody, Kept), Failure> {
        let mut host = self.host_config();
        let mut filter_file = None;
        if let Some(filter) = oci::filter(self.profile) {
            let option = if engine.wants_files {
                let file = HandedOver::write(FILTER_FILE_NAME, &filter).map_err(|error| {
                    unavailable(&format!("seccomp: its filter cannot be written: {error}"))
                })?;
                let path = file.0.to_str().map(str::to_owned);
                filter_file = Some(file);
                path.ok_or_else(|| unavailable("seccomp: the path of its filter is not UTF-8"))?
            } else {
                filter
            };
            host.security_opt.get_or_insert_default().push(format!("seccomp={option}"));
        }
        let (numbers, groups) =
            self.user.map_or((None, None), |user| (Some(user.numbers), Some(user.groups)));
        let rest = self.words.split_off(1);
        let none = || Some(vec!["NONE".to_owned()]);
        let body = ContainerCreateBody {
            image: Some(image.id),
            user: numbers,
            // The image's own entry point is not what was ordered.
            entrypoint: Some(self.words),
            cmd: Some(rest),
            env: Some(self.environment),
            working_dir: Some(self.cwd).filter(|cwd| !cwd.is_empty()),
            attach_stdin: Some(false),
            attach_stdout: Some(true),
            attach_stderr: Some(true),
            tty: Some(false),
            open_stdin: Some(false),
            stop_signal: Some("SIGTERM".to_owned()),
            healthcheck: Some(HealthConfig { test: none(), ..Default::default() }),
            labels: Some(note::labels(&self.agent, &self.attempt)),
            host_config: Some(HostConfig { group_add: groups, ..host }),
            ..Default::default()
        };
        let outputs = self.outputs.map(|(outputs, _)| outputs);
        Ok((body, Kept { outputs, _lent: self.lent, _script: self.script, _filter: filter_file }))
    }

    fn host_config(&self) -> HostConfig {
        let limits = &self.limits;
        let set = |limit: u64| Some(number(limit)).filter(|limit| *limit != 0);
        let memory = set(limits.memory_bytes);
        let is_sealed = self.is_sealed();
        let throttle = || {
            let rate = Some(number(limits.io_bytes_per_second));
            let device = |path: &String| ThrottleDevice { path: Some(path.clone()), rate };
            Some(self.throttled.iter().map(device).collect()).filter(|all: &Vec<_>| !all.is_empty())
        };
        HostConfig {
            memory,
            // As much with swap as without: none.
            memory_swap: memory,
            pids_limit: Some(number(self.pids())),
            nano_cpus: set(limits.cpu_percent.saturating_mul(NANOS_OF_PERCENT)),
            blkio_device_read_bps: throttle(),
            blkio_device_write_bps: throttle(),
            ulimits: Some(self.ulimits()),
            oom_score_adj: Some(OOM_SCORE),
            cap_drop: Some(vec!["ALL".to_owned()]),
            security_opt: Some(vec!["no-new-privileges".to_owned()]),
            privileged: Some(false),
            init: Some(true),
            auto_remove: Some(false),
            network_mode: (self.profile == Profile::Isolated).then(|| "none".to_owned()),
            readonly_rootfs: Some(is_sealed),
            tmpfs: is_sealed.then(|| HashMap::from([(TEMPORARY.to_owned(), TEMPORARY_OPTIONS.to_owned())])),
            mounts: Some(self.mounts()),
            log_config: Some(HostConfigLogConfig { typ: Some("none".to_owned()), config: None }),
            ..Default::default()
        }
    }

    fn ulimits(&self) -> Vec<ResourcesUlimits> {
        let limits = &self.limits;
        let limit = |name: &str, value: u64| ResourcesUlimits {
            name: Some(name.to_owned()),
            soft: Some(number(value)),
            hard: Some(number(value)),
        };
        let open_files = if limits.open_files == 0 { DEFAULT_RUN_OPEN_FILES } else { limits.open_files };
        // The kernel counts these for a user on all of the host; the limit for the run is that of its processes. An engine
        // that is told nothing may choose more than it may give.
        let mut all = vec![limit("core", 0), limit("nofile", open_files), limit("nproc", user_processes())];
        if limits.file_bytes != 0 {
            all.push(limit("fsize", limits.file_bytes));
        }
        all
    }

    fn mounts(&self) -> Vec<Mount> {
        let bind = |source: &str, target: &str, read_only: bool| Mount {
            typ: Some(MountType::BIND),
            source: Some(source.to_owned()),
            target: Some(target.to_owned()),
            read_only: Some(read_only),
            bind_options: Some(MountBindOptions {
                propagation: Some(MountBindOptionsPropagationEnum::RPRIVATE),
                ..Default::default()
            }),
            ..Default::default()
        };
        let is_writable = |folder: &String| self.writable.contains(folder);
        let readable = self.readable.iter().filter(|folder| !is_writable(folder));
        readable
            .map(|folder| bind(folder, folder, true))
            .chain(self.writable.iter().map(|folder| bind(folder, folder, false)))
            .chain(self.script.iter().map(|script| bind(&script.0.to_string_lossy(), SCRIPT_TARGET, true)))
            .chain(self.outputs.iter().map(|(_, path)| bind(&path.to_string_lossy(), OUTPUTS_TARGET, false)))
            .collect()
    }
}

fn number(limit: u64) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}

fn failed(detail: &str) -> Failure {
    Failure { reason: Reason::SpawnFailed, detail: detail.to_owned() }
}

/// Whom the processes in the container run as; none: whom the image says.
fn user(name: &str, profile: Profile, lent: Option<&Lent>) -> Result<Option<ContainerUser>, Failure> {
    let numbers = |uid, gid| format!("{uid}:{gid}");
    if let Some(lent) = lent {
        return Ok(Some(ContainerUser {
            numbers: numbers(lent.uid.as_raw(), lent.uid.as_raw()),
            groups: Vec::new(),
        }));
    }
    if name.is_empty() && geteuid().is_root() {
        return Ok(None);
    }
    let found = prepare::find_user(name)?;
    if profile != Profile::None && found.uid.is_root() {
        return Err(prepare::unavailable(profile, &format!("'{}' is no unprivileged user", found.name)));
    }
    let identity = prepare::identity(&found, false)?;
    let groups = identity.iter().flat_map(|identity| &identity.groups).map(ToString::to_string).collect();
    Ok(Some(ContainerUser { numbers: numbers(found.uid.as_raw(), found.gid.as_raw()), groups }))
}

/// The ordered variables, and what only we can say. The image's own are the engine's to add.
fn environment(spec: &mut Spec, has_own_user: bool) -> Vec<String> {
    let mut variables: HashMap<String, String> = HashMap::new();
    if has_own_user {
        // The image knows no home of it.
        variables.insert("HOME".to_owned(), TEMPORARY.to_owned());
    }
    variables.extend(spec.environment.drain());
    variables.extend(prepare::own_variables(spec));
    variables.into_iter().map(|(name, value)| format!("{name}={value}")).collect()
}

/// As many processes as a user can have: what this process may have at most, and no more than the host has numbers for.
fn user_processes() -> u64 {
    let (_, own) = getrlimit(Resource::RLIMIT_NPROC).unwrap_or((0, MOST_PROCESSES));
    let numbers = std::fs::read_to_string("/proc/sys/kernel/pid_max").ok();
    let numbers = numbers.and_then(|numbers| numbers.trim().parse().ok()).unwrap_or(MOST_PROCESSES);
    own.min(numbers).min(MOST_PROCESSES)
}

/// The devices whose reading and writing can be bound.
fn block_devices() -> Vec<String> {
    let names = std::fs::read_dir("/sys/block").into_iter().flatten().flatten();
    let names = names.filter_map(|entry| entry.file_name().into_string().ok());
    let is_memory = |name: &str| ["loop", "ram", "zram"].iter().any(|kind| name.starts_with(kind));
    names
        .filter(|name| !is_memory(name))
        .map(|name| format!("/dev/{name}"))
        .filter(|path| Path::new(path).exists())
        .collect()
}
