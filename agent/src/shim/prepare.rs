//! From an order's command to what `execve` wants: everything that can be looked up before the fork.

use std::{
    collections::BTreeMap,
    ffi::{CString, OsStr},
    fs::{File, Permissions},
    io::{self, Write as _},
    os::{
        fd::OwnedFd,
        unix::{ffi::OsStrExt as _, fs::PermissionsExt as _},
    },
};

use model::{
    Reason,
    id::{ExecutionId, RunId},
};
use nix::unistd::{Gid, Uid, User, fchown, geteuid, getgrouplist};
use zeroize::Zeroize as _;

use super::{
    spawn::{SCRIPT_FD, file_in_memory},
    spec::Spec,
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
    /// Nobody asked for this directory: where it cannot be entered, the root directory does.
    pub(super) cwd_is_default: bool,
    /// Whom to become; none: stay who we are.
    pub(super) identity: Option<Identity>,
    /// The script, to be handed to its interpreter as [`SCRIPT_FD`].
    pub(super) script: Option<OwnedFd>,
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

/// Looks everything up.
///
/// # Errors
/// What is not on this host, by name.
pub(super) fn prepare(spec: &mut Spec) -> Result<Plan, Failure> {
    let mut command =
        spec.command.take().ok_or_else(|| Failure::new(Reason::SpawnFailed, "the order has no command"))?;
    let user = find_user(&command.user)?;
    let identity = identity(&user)?;
    let environment = environment(spec, &user);
    let search = environment.get("PATH").cloned().unwrap_or_default();

    let cwd_is_default = command.cwd.is_empty();
    let cwd = if cwd_is_default {
        c_string(user.dir.as_os_str().as_bytes())?
    } else {
        c_string(command.cwd.as_bytes())?
    };
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
    Ok(Plan { program, candidates, argv, environment: variables, cwd, cwd_is_default, identity, script })
}

fn find_user(name: &str) -> Result<User, Failure> {
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

fn identity(user: &User) -> Result<Option<Identity>, Failure> {
    let own = geteuid();
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
fn environment(spec: &mut Spec, user: &User) -> BTreeMap<String, String> {
    let text = |value: &OsStr| value.to_string_lossy().into_owned();
    let mut variables = BTreeMap::from([
        ("PATH".to_owned(), DEFAULT_PATH.to_owned()),
        ("HOME".to_owned(), text(user.dir.as_os_str())),
        ("USER".to_owned(), user.name.clone()),
        ("LOGNAME".to_owned(), user.name.clone()),
        ("SHELL".to_owned(), text(user.shell.as_os_str())),
        ("LANG".to_owned(), "C.UTF-8".to_owned()),
    ]);
    variables.extend(spec.environment.drain());
    if let Ok(id) = ExecutionId::from_bytes(&spec.execution_id) {
        variables.insert("OPSC_EXECUTION_ID".to_owned(), id.to_string());
    }
    if let Ok(id) = RunId::from_bytes(&spec.run_id) {
        variables.insert("OPSC_RUN_ID".to_owned(), id.to_string());
    }
    variables.insert("OPSC_ATTEMPT".to_owned(), spec.attempt.to_string());
    variables
}

/// The interpreter with its options: the ordered one, or that of the script's first line, read as the kernel does
/// (one option at most, with its spaces).
fn interpreter(script: &proto::Script) -> Result<Vec<String>, Failure> {
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
