//! What the host's own administrator allows, whatever a controller signs: an optional TOML file.
//!
//! It is read again for each order, so that a change holds at once. A file that cannot be read or understood allows
//! nothing.

use std::{
    io::ErrorKind,
    path::{Path, PathBuf},
};

use serde::Deserialize;

/// The rules of this host. Without a file nothing is forbidden.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Policy {
    /// Take no new runs.
    pub paused: bool,
    /// May commands run that are not defined by a job?
    pub allow_adhoc: bool,
    /// The users that runs may run as; by default all.
    pub users: Option<Vec<String>>,
    /// The longest timeout that a run may have; by default as long as the controller says.
    pub max_timeout_seconds: Option<u64>,
}

impl Default for Policy {
    fn default() -> Self {
        Self { paused: false, allow_adhoc: true, users: None, max_timeout_seconds: None }
    }
}

/// Why the host does not allow a run.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Forbidden {
    #[error("the host's policy file '{path}' cannot be used, so nothing is allowed: {why}")]
    Unreadable { path: PathBuf, why: String },
    #[error("the host is paused by its policy")]
    Paused,
    #[error("the host's policy does not allow commands outside of a job")]
    Adhoc,
    #[error("the host's policy does not allow runs as the user '{0}'")]
    User(String),
    #[error("the agent runs as '{own}', not as root, and cannot run as '{wanted}'")]
    NotRoot { own: String, wanted: String },
    #[error("the host's policy allows {allowed} s at most; the run's timeout is {wanted} s")]
    Timeout { allowed: u64, wanted: u64 },
}

/// Who the agent is on this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Own {
    pub name: String,
    pub is_root: bool,
}

impl Own {
    /// Looks it up.
    pub fn find() -> Self {
        let uid = nix::unistd::geteuid();
        let found = nix::unistd::User::from_uid(uid).ok().flatten();
        Self { name: found.map_or_else(|| uid.to_string(), |user| user.name), is_root: uid.is_root() }
    }
}

impl Policy {
    /// Reads the file.
    ///
    /// # Errors
    /// When it is there and cannot be used.
    pub fn read(path: &Path) -> Result<Self, Forbidden> {
        let unreadable = |why: String| Forbidden::Unreadable { path: path.to_owned(), why };
        match std::fs::read_to_string(path) {
            Ok(text) => toml::from_str(&text).map_err(|error| unreadable(error.message().to_owned())),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(unreadable(error.to_string())),
        }
    }

    /// May this command run here?
    ///
    /// # Errors
    /// The first rule that says no.
    pub fn check(&self, command: &proto::Command, own: &Own) -> Result<(), Forbidden> {
        if self.paused {
            return Err(Forbidden::Paused);
        }
        // So far every execution is of an unnamed job.
        if !self.allow_adhoc {
            return Err(Forbidden::Adhoc);
        }
        let user = if command.user.is_empty() { &own.name } else { &command.user };
        if self.users.as_ref().is_some_and(|users| !users.contains(user)) {
            return Err(Forbidden::User(user.clone()));
        }
        if !own.is_root && *user != own.name {
            return Err(Forbidden::NotRoot { own: own.name.clone(), wanted: user.clone() });
        }
        let wanted = command.timeout_ms.div_ceil(1000);
        match self.max_timeout_seconds {
            Some(allowed) if wanted > allowed => Err(Forbidden::Timeout { allowed, wanted }),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_rule_says_no_by_its_name() {
        let root = Own { name: "root".to_owned(), is_root: true };
        let other = Own { name: "agent".to_owned(), is_root: false };
        let command = |user: &str| proto::Command {
            user: user.to_owned(),
            timeout_ms: 10_500,
            ..proto::Command::default()
        };
        let policy = |text: &str| toml::from_str::<Policy>(text).unwrap();
        assert_eq!(policy("").check(&command("www"), &root), Ok(()));
        assert_eq!(policy("paused = true").check(&command(""), &root), Err(Forbidden::Paused));
        assert_eq!(policy("allow_adhoc = false").check(&command(""), &root), Err(Forbidden::Adhoc));
        let users = policy("users = ['www']");
        assert_eq!(users.check(&command("www"), &root), Ok(()));
        assert_eq!(users.check(&command(""), &root), Err(Forbidden::User("root".to_owned())));
        let denied = policy("").check(&command("www"), &other).unwrap_err();
        assert_eq!(denied.to_string(), "the agent runs as 'agent', not as root, and cannot run as 'www'");
        assert_eq!(policy("").check(&command("agent"), &other), Ok(()));
        let limit = policy("max_timeout_seconds = 10").check(&command(""), &root);
        assert_eq!(limit, Err(Forbidden::Timeout { allowed: 10, wanted: 11 }));
    }

    #[test]
    fn a_file_that_is_not_understood_allows_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("policy.toml");
        assert_eq!(Policy::read(&path), Ok(Policy::default()));
        std::fs::write(&path, "pause = true").unwrap();
        assert!(matches!(Policy::read(&path), Err(Forbidden::Unreadable { .. })));
    }
}
