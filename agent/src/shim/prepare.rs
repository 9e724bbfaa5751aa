//! From an order's command to what `execve` wants: everything that can be looked up before the fork.

use std::{
    collections::BTreeMap,
    ffi::{CString, OsStr},
    fs::{File, Permissions},
    io::{self, Write as _},
    os::{fd::OwnedFd, unix::fs::PermissionsExt as _},
    path::{Path, PathBuf},
};

use model::{
    Reason,
    id::{ExecutionId, RunId},
    limits::{DEFAULT_RUN_OPEN_FILES, DEFAULT_RUN_PIDS},
    sandbox::Profile,
};
use nix::{
    sys::resource::Resource,
    unistd::{Gid, Uid, User, fchown, geteuid, getgrouplist},
};
use zeroize::Zeroize as _;

use super::{
    child::SCRIPT_FD,
    outputs::{self, Outputs},
    spec::Spec,
};
use crate::{
    sandbox::{
        confine::{Confinement, Wanted},
        temporary,
        user::{self, Lent},
    },
    sys::{file_in_memory, leave_session_keyring},
};

const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Why nothing can be started.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) reason: Reason,
    pub(super) detail: String,
}

impl Failure {
    fn new(reason: Reason, detail: impl Into<String>) -> Self {
        Self { reason, detail: detail.into() }
    }
}

/// All that the child needs between fork and exec.
#[derive(Debug)]
pub(super) struct Plan {
    /// The program's name as it was ordered.
    pub(super) program: String,
    /// Where it may be, in the order of the search path.
    pub(super) candidates: Vec<CString>,
    pub(super) argv: Vec<CString>,
    pub(super) environment: Environment,
    pub(super) cwd: CString,
    pub(super) cwd_is: Cwd,
    /// Whom to become; none: stay who we are.
    pub(super) identity: Option<Identity>,
    /// The script, to be handed to its interpreter as [`SCRIPT_FD`].
    pub(super) script: Option<OwnedFd>,
    /// Files that it may have open until it raises that itself.
    pub(super) open_files: u64,
    pub(super) profile: Profile,
    /// Outside of its control group nothing would limit it as it was promised.
    pub(super) needs_group: bool,
    /// What must be denied is tried in place of the program.
    pub(super) is_canary: bool,
    pub(super) confinement: Confinement,
    /// What it is to tell, if anything.
    pub(super) outputs: Option<Outputs>,
    /// Its user, where that exists for this run only.
    _lent: Option<Lent>,
}

/// How the working folder was chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cwd {
    /// Nobody asked for it: where it cannot be entered, the root directory does.
    Default,
    Named,
    /// It has no symbolic links in it, or is not what was allowed.
    Resolved,
}

/// The variables as `NAME=value`; overwritten when dropped.
#[derive(Default)]
pub(super) struct Environment(pub(super) Vec<CString>);

impl std::fmt::Debug for Environment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("<redacted>")
    }
}

impl Drop for Environment {
    fn drop(&mut self) {
        for variable in &mut self.0 {
            std::mem::take(variable).into_bytes_with_nul().zeroize();
        }
    }
}

/// A user with all groups.
#[derive(Debug)]
pub(super) struct Identity {
    pub(super) uid: Uid,
    pub(super) gid: Gid,
    pub(super) groups: Vec<Gid>,
}

/// Looks everything up, and makes what the run is to have of its own.
///
/// # Errors
/// What is not on this host, by name.
pub(super) fn prepare(spec: &mut Spec, limits: &Enforced) -> Result<Plan, Failure> {
    let mut command =
        spec.command.take().ok_or_else(|| Failure::new(Reason::SpawnFailed, "the order has no command"))?;
    let profile = profile(command.profile())?;
    let lent = lend_user(&command, profile, spec)?;
    let user = match &lent {
        Some(lent) => temporary_user(lent),
        None => find_user(&command.user)?,
    };
    if profile != Profile::None && user.uid.is_root() {
        let why = format!("'{}' is no unprivileged user", user.name);
        return Err(unavailable(profile, &why));
    }
    if profile != Profile::None && geteuid().is_root() {
        // Of the user that the agent is, where it is none of root's, the run may know all.
        leave_session_keyring().map_err(|errno| {
            unavailable(profile, &format!("a session of its own for keys: {}", errno.desc()))
        })?;
    }
    let identity = identity(&user, lent.is_some())?;
    let folder = make_temporary(spec, profile, !command.outputs.is_empty())?;
    let owner = identity.as_ref().map(|identity| (identity.uid, identity.gid));
    let made_outputs = match folder.as_deref().filter(|_| !command.outputs.is_empty()) {
        Some(folder) => {
            let made = Outputs::make(folder, std::mem::take(&mut command.outputs), owner);
            Some(made.map_err(no_temporary(profile))?)
        }
        None => None,
    };
    let temporary = folder.clone().filter(|_| profile != Profile::None);
    let seen = if profile >= Profile::Strict { Some(PathBuf::from("/tmp")) } else { temporary.clone() };
    let mut environment =
        environment(spec, &user, seen.as_deref().filter(|_| lent.is_some()), seen.as_deref());
    if let Some(folder) = seen.as_ref().or(folder.as_ref()).filter(|_| made_outputs.is_some()) {
        let path = folder.join(outputs::FILE_NAME);
        environment.insert(outputs::VARIABLE.to_owned(), path.to_string_lossy().into_owned());
    }
    let search = environment.get("PATH").cloned().unwrap_or_default();

    let home = environment.get("HOME").cloned().unwrap_or_default();
    let (cwd, cwd_is) = match &command.cwd[..] {
        "" => (home.as_str(), Cwd::Default),
        cwd if spec.cwd_is_resolved => (cwd, Cwd::Resolved),
        cwd => (cwd, Cwd::Named),
    };
    let mut writable: Vec<PathBuf> = command.write.iter().map(PathBuf::from).collect();
    if cwd_is != Cwd::Default && cwd != "/" {
        writable.push(cwd.into());
    } else if lent.is_none() && profile >= Profile::Strict && user.dir != Path::new("/") && user.dir.is_dir()
    {
        writable.extend(std::fs::canonicalize(&user.dir));
    }
    let wanted = Wanted {
        profile,
        root_to: owner,
        temporary: temporary.as_deref(),
        readable: command.read.iter().map(PathBuf::from).collect(),
        writable,
        hidden: spec.hidden.iter().map(PathBuf::from).collect(),
        loopback: command.loopback,
        resources: resources(&command, profile, limits, lent.is_some()),
    };
    let confinement = Confinement::new(&wanted).map_err(|why| unavailable(profile, &why))?;
    if let (Some(folder), Some((uid, gid))) = (&folder, owner) {
        temporary::give(folder, uid, gid).map_err(no_temporary(profile))?;
    }
    let cwd = c_string(cwd.as_bytes())?;
    let mut script = None;
    let words = match command.program.take() {
        Some(proto::command::Program::Argv(argv)) => argv.argv,
        Some(proto::command::Program::Shell(line)) => vec!["/bin/sh".to_owned(), "-c".to_owned(), line],
        Some(proto::command::Program::Script(ordered)) => {
            let mut words = interpreter(&ordered)?;
            words.push(format!("/proc/self/fd/{SCRIPT_FD}"));
            let file = script_file(&ordered.content, identity.as_ref()).map_err(|error| {
                Failure::new(Reason::SpawnFailed, format!("the script cannot be handed over: {error}"))
            })?;
            script = Some(file);
            words.extend(ordered.args);
            words
        }
        None => Vec::new(),
    };
    let program = words.first().filter(|word| !word.is_empty()).cloned();
    let program = program.ok_or_else(|| Failure::new(Reason::SpawnFailed, "the order names no program"))?;
    let argv = words.iter().map(|word| c_string(word.as_bytes())).collect::<Result<_, _>>()?;
    let candidates = candidates(&program, &search)?;
    let mut variables = Environment::default();
    for (name, mut value) in environment {
        let variable = c_string(format!("{name}={value}").as_bytes());
        value.zeroize();
        variables.0.push(variable?);
    }
    let open_files = command.limits.map_or(0, |limits| limits.open_files);
    let needs_group =
        profile != Profile::None || command.limits.is_some_and(|limits| limits != proto::Limits::default());
    Ok(Plan {
        program,
        candidates,
        argv,
        environment: variables,
        cwd,
        cwd_is,
        identity,
        script,
        open_files: if open_files == 0 { DEFAULT_RUN_OPEN_FILES } else { open_files },
        profile,
        needs_group,
        is_canary: false,
        confinement,
        outputs: made_outputs,
        _lent: lent,
    })
}

/// What the control group of the run enforces.
#[derive(Debug, Clone, Copy)]
pub(super) struct Enforced {
    pub(super) pids: bool,
}

/// The profile that the executor has decided on.
pub(super) fn profile(ordered: proto::Profile) -> Result<Profile, Failure> {
    let undecided = || Failure::new(Reason::SandboxUnavailable, "nobody has decided on its sandbox");
    ordered.named().ok_or_else(undecided)
}

/// What is said of a sandbox that cannot be made.
pub(super) fn unavailable(profile: Profile, missing: &str) -> Failure {
    let detail = format!("this host cannot give the sandbox '{profile}': {missing}");
    Failure::new(Reason::SandboxUnavailable, detail)
}

/// A user for this run only, where an agent that is root is to confine one that names none.
pub(super) fn lend_user(
    command: &proto::Command,
    profile: Profile,
    spec: &Spec,
) -> Result<Option<Lent>, Failure> {
    if profile == Profile::None || !command.user.is_empty() || !geteuid().is_root() {
        return Ok(None);
    }
    let seed =
        spec.run_id.iter().fold(u64::from(spec.attempt), |seed, byte| seed.rotate_left(7) ^ u64::from(*byte));
    user::lend((spec.first_uid, spec.last_uid), seed)
        .map(Some)
        .map_err(|error| unavailable(profile, &format!("a user of its own: {error}")))
}

fn temporary_user(lent: &Lent) -> User {
    User {
        name: format!("opsc-{}", lent.uid),
        passwd: CString::default(),
        uid: lent.uid,
        gid: Gid::from_raw(lent.uid.as_raw()),
        gecos: CString::default(),
        dir: "/".into(),
        shell: "/bin/sh".into(),
    }
}

fn make_temporary(spec: &Spec, profile: Profile, is_needed: bool) -> Result<Option<PathBuf>, Failure> {
    if profile == Profile::None && !is_needed {
        return Ok(None);
    }
    temporary::make(Path::new("."), &spec.attempt_name()).map(Some).map_err(no_temporary(profile))
}

fn no_temporary(profile: Profile) -> impl Fn(io::Error) -> Failure {
    move |error| unavailable(profile, &format!("a temporary folder of its own: {error}"))
}

/// Limits that each process of the run has for itself.
fn resources(
    command: &proto::Command,
    profile: Profile,
    enforced: &Enforced,
    has_own_user: bool,
) -> Vec<(Resource, u64)> {
    let limits = command.limits.unwrap_or_default();
    let mut resources = Vec::new();
    if profile != Profile::None {
        // One byte: of less than that a handler of the host's, to which the kernel pipes cores, is started all the same.
        resources.push((Resource::RLIMIT_CORE, 1));
        resources.push((
            Resource::RLIMIT_NOFILE,
            if limits.open_files == 0 { DEFAULT_RUN_OPEN_FILES } else { limits.open_files },
        ));
    }
    if limits.file_bytes != 0 {
        resources.push((Resource::RLIMIT_FSIZE, limits.file_bytes));
    }
    // The kernel counts a user's processes, whoever started them: a user of one run only is that run.
    if has_own_user && !enforced.pids {
        let pids = if limits.pids == 0 { DEFAULT_RUN_PIDS } else { limits.pids };
        resources.push((Resource::RLIMIT_NPROC, pids));
    }
    resources
}

pub(super) fn find_user(name: &str) -> Result<User, Failure> {
    if name.is_empty() {
        let uid = geteuid();
        let found = User::from_uid(uid).ok().flatten();
        return Ok(found.unwrap_or_else(|| User {
            name: uid.to_string(),
            passwd: CString::default(),
            uid,
            gid: nix::unistd::getegid(),
            gecos: CString::default(),
            dir: "/".into(),
            shell: "/bin/sh".into(),
        }));
    }
    match User::from_name(name) {
        Ok(Some(user)) => Ok(user),
        Ok(None) => {
            Err(Failure::new(Reason::UnknownUser, format!("the user '{name}' does not exist on this host")))
        }
        Err(error) => {
            let detail = format!("the user '{name}' cannot be looked up: {}", error.desc());
            Err(Failure::new(Reason::UnknownUser, detail))
        }
    }
}

pub(super) fn identity(user: &User, is_lent: bool) -> Result<Option<Identity>, Failure> {
    let own = geteuid();
    if is_lent {
        return Ok(Some(Identity { uid: user.uid, gid: user.gid, groups: vec![user.gid] }));
    }
    if user.uid == own {
        return Ok(None);
    }
    let fail = |why: &str| {
        let detail = format!("the agent runs as user {own} and cannot become '{}': {why}", user.name);
        Failure::new(Reason::SpawnFailed, detail)
    };
    if !own.is_root() {
        return Err(fail("only root can"));
    }
    let name = c_string(user.name.as_bytes())?;
    let groups = getgrouplist(&name, user.gid).map_err(|error| fail(error.desc()))?;
    Ok(Some(Identity { uid: user.uid, gid: user.gid, groups }))
}

/// The host's minimal environment, over it the ordered one, over both what only we can say.
fn environment(
    spec: &mut Spec,
    user: &User,
    home: Option<&Path>,
    temporary: Option<&Path>,
) -> BTreeMap<String, String> {
    let text = |value: &OsStr| value.to_string_lossy().into_owned();
    let mut variables = BTreeMap::from([
        ("PATH".to_owned(), DEFAULT_PATH.to_owned()),
        ("HOME".to_owned(), text(home.unwrap_or(&user.dir).as_os_str())),
        ("USER".to_owned(), user.name.clone()),
        ("LOGNAME".to_owned(), user.name.clone()),
        ("SHELL".to_owned(), text(user.shell.as_os_str())),
        ("LANG".to_owned(), "C.UTF-8".to_owned()),
    ]);
    if let Some(temporary) = temporary {
        variables.insert("TMPDIR".to_owned(), text(temporary.as_os_str()));
    }
    variables.extend(spec.environment.drain());
    variables.extend(own_variables(spec));
    variables
}

/// What a run can know of itself.
pub(super) fn own_variables(spec: &Spec) -> Vec<(String, String)> {
    let mut variables = vec![("OPSC_ATTEMPT".to_owned(), spec.attempt.to_string())];
    if let Ok(id) = ExecutionId::from_bytes(&spec.execution_id) {
        variables.push(("OPSC_EXECUTION_ID".to_owned(), id.to_string()));
    }
    if let Ok(id) = RunId::from_bytes(&spec.run_id) {
        variables.push(("OPSC_RUN_ID".to_owned(), id.to_string()));
    }
    variables
}

/// The interpreter with its options: the ordered one, or that of the script's first line, read as the kernel does
/// (one option at most, with its spaces).
pub(super) fn interpreter(script: &proto::Script) -> Result<Vec<String>, Failure> {
    if !script.interpreter.is_empty() {
        return Ok(script.interpreter.split_whitespace().map(str::to_owned).collect());
    }
    let line =
        script.content.lines().next().and_then(|line| line.strip_prefix("#!")).unwrap_or_default().trim();
    let mut words = line.splitn(2, [' ', '\t']).map(|word| word.trim().to_owned());
    match words.next() {
        Some(program) if !program.is_empty() => Ok(std::iter::once(program).chain(words).collect()),
        _ => Err(Failure::new(
            Reason::ProgramNotFound,
            "the script has no interpreter: none is ordered, and its first line names none",
        )),
    }
}

/// A file in memory that only the user can read: the script never touches a disk.
fn script_file(content: &str, identity: Option<&Identity>) -> io::Result<OwnedFd> {
    let mut file = File::from(file_in_memory(c"script")?);
    file.write_all(content.as_bytes())?;
    file.set_permissions(Permissions::from_mode(0o700))?;
    if let Some(identity) = identity {
        fchown(&file, Some(identity.uid), Some(identity.gid))?;
    }
    Ok(file.into())
}

fn candidates(program: &str, search: &str) -> Result<Vec<CString>, Failure> {
    if program.contains('/') {
        return Ok(vec![c_string(program.as_bytes())?]);
    }
    let folders = search.split(':').filter(|folder| !folder.is_empty());
    folders.map(|folder| c_string(format!("{folder}/{program}").as_bytes())).collect()
}

fn c_string(bytes: &[u8]) -> Result<CString, Failure> {
    CString::new(bytes).map_err(|_| {
        Failure::new(Reason::SpawnFailed, "the order has a NUL character in a word, path or variable")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(interpreter_: &str, content: &str) -> Result<Vec<String>, Reason> {
        let script = proto::Script {
            content: content.to_owned(),
            interpreter: interpreter_.to_owned(),
            args: Vec::new(),
        };
        interpreter(&script).map_err(|failure| failure.reason)
    }

    #[test]
    fn the_interpreter_of_a_script() {
        assert_eq!(words("python3 -u", "#!/bin/sh\n").unwrap(), ["python3", "-u"]);
        assert_eq!(words("", "#!/bin/sh\ntrue").unwrap(), ["/bin/sh"]);
        assert_eq!(words("", "#! /usr/bin/env -S a b\r\n").unwrap(), ["/usr/bin/env", "-S a b"]);
        assert_eq!(words("", "echo\n").unwrap_err(), Reason::ProgramNotFound);
        assert_eq!(words("", "#!\n").unwrap_err(), Reason::ProgramNotFound);
    }

    #[test]
    fn a_program_is_searched_for_unless_it_is_a_path() {
        assert_eq!(candidates("true", "/a::/b").unwrap(), [c"/a/true".to_owned(), c"/b/true".to_owned()]);
        assert_eq!(candidates("./true", "/a").unwrap(), [c"./true".to_owned()]);
    }
}
