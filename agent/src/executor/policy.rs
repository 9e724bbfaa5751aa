//! What the host's own administrator allows, whatever a controller signs: an optional TOML file.
//!
//! 1. It is read again for each order, so that a change holds at once. A file that cannot be read or understood allows
//!    nothing.
//! 2. A refusal names the rule that says no.
//! 3. What runs without confinement has to be allowed by name: see [`sandbox`].
//! 4. Where single commands are listed, all else is off unless it is allowed by name: shell lines, scripts, variables.

pub mod sandbox;

use std::{
    io::ErrorKind,
    num::NonZeroU64,
    path::{Path, PathBuf},
};

use model::{limits, sandbox::Profile};
use nix::unistd::User;
use proto::command::Program;
use serde::{Deserialize, Serialize};

use self::sandbox::Sandbox;

/// What `users` calls a user that exists for one run only.
const DYNAMIC_USER: &str = "dynamic";

/// The rules of this host. Without a file nothing is forbidden.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Policy {
    /// Take no new runs.
    pub paused: bool,
    /// May commands run that are not defined by a job?
    pub allow_adhoc: bool,
    /// The users that runs may run as; by default all. `dynamic` is one that exists for the run only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub users: Option<Vec<String>>,
    /// The folders in or below which runs may begin, with all symbolic links resolved; by default everywhere. It holds for the
    /// user's home too, where a run begins that names no folder.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub working_roots: Option<Vec<AbsolutePath>>,
    /// The longest timeout that a run may have; by default as long as the controller says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_timeout_seconds: Option<u64>,
    /// Bytes of output that are kept of a run at most; a higher limit of a run is lowered to it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_output_bytes: Option<NonZeroU64>,
    /// May shell lines run? By default where no commands are listed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allow_shell: Option<bool>,
    /// May scripts run? By default where no commands are listed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allow_scripts: Option<bool>,
    /// Names of variables that runs may bring; by default all, or none where commands are listed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub environment: Option<Vec<String>>,
    /// The commands that may run; by default all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub commands: Option<Vec<Listed>>,
    /// What runs are confined to.
    pub sandbox: Sandbox,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            paused: false,
            allow_adhoc: true,
            users: None,
            working_roots: None,
            max_timeout_seconds: None,
            max_output_bytes: None,
            allow_shell: None,
            allow_scripts: None,
            environment: None,
            commands: None,
            sandbox: Sandbox::default(),
        }
    }
}

/// A command that may run. With neither kind of arguments it may have none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Listed {
    /// As the order has to name it.
    pub program: AbsolutePath,
    /// These arguments and no others.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub arguments: Option<Vec<String>>,
    /// These arguments, and behind them any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub arguments_begin: Option<Vec<String>>,
}

/// A path that begins at the root.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "PathBuf")]
pub struct AbsolutePath(PathBuf);

impl TryFrom<PathBuf> for AbsolutePath {
    type Error = String;

    fn try_from(path: PathBuf) -> Result<Self, String> {
        if path.is_absolute() {
            Ok(Self(path))
        } else {
            Err(format!("'{}' is not an absolute path", path.display()))
        }
    }
}

/// Why the host does not allow a run.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Forbidden {
    #[error("the host's policy file '{path}' cannot be used, so nothing is allowed: {why}")]
    Unreadable { path: PathBuf, why: String },
    #[error("the host is paused by its policy (paused)")]
    Paused,
    #[error("the host's policy does not allow commands outside of a job (allow_adhoc)")]
    Adhoc,
    #[error("the host's policy does not allow runs as the user '{0}' (users)")]
    User(String),
    #[error("the agent runs as '{own}', not as root, and cannot run as '{wanted}'")]
    NotRoot { own: String, wanted: String },
    #[error(
        "the host's policy allows {allowed} s at most; the run's timeout is {wanted} s (max_timeout_seconds)"
    )]
    Timeout { allowed: u64, wanted: u64 },
    #[error("the host's policy does not allow shell lines (allow_shell)")]
    Shell,
    #[error("the host's policy does not allow scripts (allow_scripts)")]
    Scripts,
    #[error("the host's policy does not list this command: '{0}' with these arguments (commands)")]
    Command(String),
    #[error("the host's policy does not allow runs to bring the variable '{0}' (environment)")]
    Environment(String),
    #[error("the host's policy does not allow runs in '{0}' (working_roots)")]
    WorkingRoot(PathBuf),
    #[error(
        "the working directory '{folder}' cannot be looked up, and the host's policy wants to know it (working_roots): {why}"
    )]
    UnknownFolder { folder: PathBuf, why: String },
    #[error(
        "the host's policy does not allow {what} without confinement (sandbox.unconfined); \
         another sandbox than 'none' may be asked for"
    )]
    Unconfined { what: &'static str },
    #[error("the host's policy does not allow containers (sandbox.containers)")]
    Containers,
    #[error(
        "the host's policy does not list the image '{0}' (sandbox.images; where commands are listed, images have to be)"
    )]
    Image(String),
    #[error("the order asks for a sandbox that this agent does not know")]
    UnknownProfile,
    #[error("the sandbox '{0}' takes an unprivileged user, and '{1}' is none")]
    Privileged(Profile, String),
    #[error("the host's policy does not allow runs to {what} '{folder}' ({rule})")]
    Folder { what: &'static str, folder: PathBuf, rule: &'static str },
    #[error("the folder '{folder}' that the run is to {what} cannot be had: {why}")]
    NoFolder { what: &'static str, folder: PathBuf, why: String },
    #[error(
        "'{0}' is the user of the agent's link, which holds the agent's key; no run may be that (link_user)"
    )]
    LinkUser(String),
    #[error("the user '{user}' cannot be looked up: {why}")]
    UserLookup { user: String, why: &'static str },
    #[error(
        "the host's policy lends runs the number of the agent's link, {0}: \
         one of the two has to change (sandbox.uids, link_user)"
    )]
    LendsLinkUser(u32),
}

/// Who the agent is on this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Own {
    pub name: String,
    pub is_root: bool,
    /// The number of the link's user, where that is another one.
    pub link_uid: Option<u32>,
}

impl Own {
    /// Looks it up.
    pub fn find(link_uid: Option<u32>) -> Self {
        let uid = nix::unistd::geteuid();
        let found = User::from_uid(uid).ok().flatten();
        Self {
            name: found.map_or_else(|| uid.to_string(), |user| user.name),
            is_root: uid.is_root(),
            link_uid,
        }
    }
}

impl Policy {
    /// Reads the file.
    ///
    /// # Errors
    /// When it is there and cannot be used; names the line.
    pub fn read(path: &Path) -> Result<Self, Forbidden> {
        let unreadable = |why: String| Forbidden::Unreadable { path: path.to_owned(), why };
        match std::fs::read_to_string(path) {
            Ok(text) => Self::parse(&text).map_err(unreadable),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(unreadable(error.to_string())),
        }
    }

    fn parse(text: &str) -> Result<Self, String> {
        let policy: Self = toml::from_str(text).map_err(|error| {
            let before = error.span().and_then(|span| text.get(..span.start));
            let line = before.map_or(0, |before| before.matches('\n').count() + 1);
            format!("line {line}: {}", error.message())
        })?;
        let both = |listed: &&Listed| listed.arguments.is_some() && listed.arguments_begin.is_some();
        match policy.commands.iter().flatten().find(both) {
            Some(listed) => Err(format!(
                "the command '{}' has both arguments and arguments_begin",
                listed.program.0.display()
            )),
            None => Ok(policy),
        }
    }

    /// May this command run here? Its output limit is lowered to what the host allows, and where it may begin is bound to
    /// certain folders, it gets the folder that was looked at.
    ///
    /// # Errors
    /// The first rule that says no.
    pub fn apply(&self, command: &mut proto::Command, own: &Own) -> Result<(), Forbidden> {
        if self.paused {
            return Err(Forbidden::Paused);
        }
        // So far every execution is of an unnamed job.
        if !self.allow_adhoc {
            return Err(Forbidden::Adhoc);
        }
        self.check_program(command.program.as_ref())?;
        let profile = self.sandbox.apply(command, self.commands.is_some())?;
        let user = match (&command.user[..], profile) {
            ("", Profile::Standard | Profile::Strict | Profile::Isolated) if own.is_root => DYNAMIC_USER,
            ("", _) => &own.name,
            (named, _) => named,
        };
        if self.users.as_ref().is_some_and(|users| !users.iter().any(|one| one == user)) {
            return Err(Forbidden::User(user.to_owned()));
        }
        if !own.is_root && user != own.name {
            return Err(Forbidden::NotRoot { own: own.name.clone(), wanted: user.to_owned() });
        }
        if profile != Profile::None && is_privileged(user) {
            return Err(Forbidden::Privileged(profile, user.to_owned()));
        }
        self.check_link_user(user, own)?;
        let wanted = command.timeout_ms.div_ceil(1000);
        if let Some(allowed) = self.max_timeout_seconds.filter(|allowed| wanted > *allowed) {
            return Err(Forbidden::Timeout { allowed, wanted });
        }
        match &self.working_roots {
            // It begins in its image's folders, which are not the host's.
            _ if !command.image.is_empty() => {}
            // It begins in the temporary folder of its own.
            Some(_) if command.cwd.is_empty() && user == DYNAMIC_USER => {}
            Some(roots) => {
                let folder = if command.cwd.is_empty() { home(user)? } else { PathBuf::from(&command.cwd) };
                command.cwd = below(roots, &folder)?;
            }
            // The shim finds out what is not there, and tells.
            None if profile > Profile::Standard && !command.cwd.is_empty() => {
                if let Ok(real) = resolved(&command.cwd) {
                    command.cwd = real;
                }
            }
            None => {}
        }
        if let Some(most) = self.max_output_bytes {
            let ordered = Some(command.output_limit_bytes).filter(|bytes| *bytes > 0);
            command.output_limit_bytes = ordered.unwrap_or(limits::RUN_OUTPUT_BYTES).min(most.get());
        }
        Ok(())
    }

    /// Whether the command that was applied has a working folder without symbolic links.
    pub fn resolves_cwd(&self, command: Option<&proto::Command>) -> bool {
        command.is_some_and(|command| {
            command.image.is_empty()
                && !command.cwd.is_empty()
                && (self.working_roots.is_some()
                    || matches!(command.profile(), proto::Profile::Strict | proto::Profile::Isolated))
        })
    }

    fn check_link_user(&self, user: &str, own: &Own) -> Result<(), Forbidden> {
        let Some(link_uid) = own.link_uid else { return Ok(()) };
        let (first, last) = self.sandbox.uids;
        if user == DYNAMIC_USER {
            let lends = (first..=last).contains(&link_uid);
            return if lends { Err(Forbidden::LendsLinkUser(link_uid)) } else { Ok(()) };
        }
        match User::from_name(user) {
            Ok(Some(found)) if found.uid.as_raw() == link_uid => Err(Forbidden::LinkUser(user.to_owned())),
            Ok(_) => Ok(()),
            Err(errno) => Err(Forbidden::UserLookup { user: user.to_owned(), why: errno.desc() }),
        }
    }

    fn check_program(&self, program: Option<&Program>) -> Result<(), Forbidden> {
        let all = self.commands.is_none();
        match (program, &self.commands) {
            (Some(Program::Shell(_)), _) if !self.allow_shell.unwrap_or(all) => Err(Forbidden::Shell),
            (Some(Program::Script(_)), _) if !self.allow_scripts.unwrap_or(all) => Err(Forbidden::Scripts),
            (Some(Program::Argv(argv)), Some(commands)) if !commands.iter().any(|one| one.is(&argv.argv)) => {
                Err(Forbidden::Command(argv.argv.first().cloned().unwrap_or_default()))
            }
            _ => Ok(()),
        }
    }

    /// May a run bring these variables? They are sealed until it is certain that the order is obeyed.
    ///
    /// # Errors
    /// Names one that it may not.
    pub fn check_environment<'a>(
        &self,
        names: impl IntoIterator<Item = &'a String>,
    ) -> Result<(), Forbidden> {
        let allowed = match (&self.environment, &self.commands) {
            (Some(allowed), _) => allowed.as_slice(),
            // A listed command would be another one with, say, a library of its own preloaded.
            (None, Some(_)) => &[],
            (None, None) => return Ok(()),
        };
        match names.into_iter().find(|name| !allowed.contains(name)) {
            Some(name) => Err(Forbidden::Environment(name.clone())),
            None => Ok(()),
        }
    }
}

impl Listed {
    fn is(&self, argv: &[String]) -> bool {
        let Some((program, arguments)) = argv.split_first() else { return false };
        let fits = match (&self.arguments, &self.arguments_begin) {
            (Some(exact), _) => arguments == exact,
            (None, Some(begin)) => arguments.starts_with(begin),
            (None, None) => arguments.is_empty(),
        };
        fits && self.program.0.to_str() == Some(program)
    }
}

/// Whether it is a user that may do everything.
fn is_privileged(user: &str) -> bool {
    User::from_name(user).ok().flatten().is_some_and(|user| user.uid.is_root())
}

/// A path from the root on, without symbolic links.
///
/// # Errors
/// Why it cannot be looked up.
fn resolved(path: &str) -> Result<String, String> {
    if !Path::new(path).is_absolute() {
        return Err("it is not an absolute path".to_owned());
    }
    let real = std::fs::canonicalize(path).map_err(|error| error.to_string())?;
    real.into_os_string().into_string().map_err(|_| "its name is not UTF-8".to_owned())
}

/// Where a run begins that names no folder.
fn home(user: &str) -> Result<PathBuf, Forbidden> {
    let found = User::from_name(user).ok().flatten().map(|user| user.dir);
    found.ok_or_else(|| Forbidden::UnknownFolder {
        folder: PathBuf::from(format!("~{user}")),
        why: "there is no such user".to_owned(),
    })
}

/// The folder without any symbolic links, if it is one of the roots or below one.
fn below(roots: &[AbsolutePath], folder: &Path) -> Result<String, Forbidden> {
    let unknown = |why| Forbidden::UnknownFolder { folder: folder.to_owned(), why };
    let named = folder.to_str().ok_or_else(|| unknown("its name is not UTF-8".to_owned()))?;
    let real = resolved(named).map_err(unknown)?;
    // A root that is not there has nothing below it.
    let mut roots = roots.iter().filter_map(|root| std::fs::canonicalize(&root.0).ok());
    if !roots.any(|root| Path::new(&real).starts_with(root)) {
        return Err(Forbidden::WorkingRoot(real.into()));
    }
    Ok(real)
}

#[cfg(test)]
mod tests;
