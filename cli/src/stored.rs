//! The file of contexts: the controllers that this user has logged in to, each with its credential.
//!
//! Invariants:
//! 1. It is readable by its owner alone, and replaced as a whole.
//! 2. It is written by whoever holds its lock alone, with what was read under the lock: [`Held`].

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::Write as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use crate::{exit::Usage, session::Session};

/// All contexts.
#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Contexts {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) current: Option<String>,
    #[serde(default)]
    pub(crate) contexts: BTreeMap<String, Stored>,
}

/// One controller that the user has logged in to, with an API token or a session, or with neither after a logout.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Stored {
    pub(crate) addr: String,
    /// An API token; the only place where one is written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) token: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) ca_file: Option<PathBuf>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) session: Option<Session>,
}

impl Contexts {
    /// A file that does not exist has no contexts.
    ///
    /// # Errors
    /// When it cannot be read or is damaged.
    pub(crate) fn load(path: &Path) -> Result<Self> {
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
        };
        // The parser's own error would quote the line, which may have a token in it.
        toml::from_str(&text).map_err(|error: toml::de::Error| {
            Usage(format!("{} is not a file of contexts: {}", path.display(), error.message())).into()
        })
    }

    /// Replaces the file, so that a crash leaves the old one.
    fn save(&self, path: &Path) -> Result<()> {
        let what = || format!("cannot write {}", path.display());
        let name = path.file_name().with_context(what)?.to_string_lossy();
        let fresh = folder(path).join(format!(".{name}.{}", std::process::id()));
        let text = toml::to_string(self).with_context(what)?;
        let mut options = private();
        let written = options.write(true).create_new(true).open(&fresh).and_then(|mut file| {
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            fs::rename(&fresh, path)
        });
        if written.is_err() {
            let _ = fs::remove_file(&fresh);
        }
        written.with_context(what)
    }

    /// # Errors
    /// Names the contexts that there are.
    pub(crate) fn get(&self, name: &str) -> Result<&Stored, Usage> {
        self.contexts.get(name).ok_or_else(|| {
            let names: Vec<&str> = self.contexts.keys().map(String::as_str).collect();
            let known = if names.is_empty() { "there are none".to_owned() } else { names.join(", ") };
            Usage(format!("there is no context '{name}' ({known}); 'opsctl login' makes one"))
        })
    }
}

/// The contexts, while no other `opsctl` changes them.
pub(crate) struct Held {
    pub(crate) contexts: Contexts,
    path: PathBuf,
    /// Locked until it is closed.
    _lock: File,
}

impl Held {
    /// Waits until no other process holds the file, and reads it.
    ///
    /// # Errors
    /// When the folder or the lock cannot be made, or the file cannot be read.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let mut beside = path.file_name().context("OPSCTL_CONFIG names no file")?.to_owned();
        beside.push(".lock");
        let lock = folder(path).join(beside);
        let what = || format!("cannot lock {}", lock.display());
        let mut make = fs::DirBuilder::new();
        make.recursive(true);
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut make, 0o700);
        make.create(folder(path)).with_context(what)?;
        let file = private().write(true).create(true).truncate(false).open(&lock).with_context(what)?;
        file.lock().with_context(what)?;
        Ok(Self { contexts: Contexts::load(path)?, path: path.to_owned(), _lock: file })
    }

    /// # Errors
    /// When the file cannot be written.
    pub(crate) fn save(&self) -> Result<()> {
        self.contexts.save(&self.path)
    }
}

fn folder(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Options of a file that only its owner may read.
fn private() -> fs::OpenOptions {
    let mut options = fs::OpenOptions::new();
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::tests::session;

    fn stored(token: Option<&str>, session: Option<Session>) -> Stored {
        Stored { addr: "http://a.example".into(), token: token.map(str::to_owned), ca_file: None, session }
    }

    #[test]
    fn the_file_is_private_and_reads_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new/contexts.toml");
        assert!(Contexts::load(&path).unwrap().contexts.is_empty());
        for _ in 0..2 {
            let mut held = Held::open(&path).unwrap();
            held.contexts.current = Some("b".into());
            held.contexts.contexts.insert("a".into(), stored(Some("of-a"), None));
            held.contexts.contexts.insert("b".into(), stored(None, Some(session("ada", 600))));
            held.contexts.contexts.insert("c".into(), stored(None, None));
            held.save().unwrap();
        }
        let read = Contexts::load(&path).unwrap();
        assert_eq!(read.current.as_deref(), Some("b"));
        assert_eq!(read.contexts["a"].token.as_deref(), Some("of-a"));
        let kept = read.contexts["b"].session.as_ref().unwrap();
        assert_eq!((kept.user.as_str(), kept.refresh_token.expose()), ("ada", "refresh-of-ada"));
        assert!(read.contexts["c"].token.is_none() && read.contexts["c"].session.is_none());
        #[cfg(unix)]
        for file in ["contexts.toml", "contexts.toml.lock"] {
            use std::os::unix::fs::PermissionsExt as _;
            let mode = fs::metadata(path.with_file_name(file)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{file}");
        }
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 2, "only the lock is beside it");
    }

    #[test]
    fn a_file_from_before_there_were_sessions_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("contexts.toml");
        let old =
            "current = \"x\"\n\n[contexts.x]\naddr = \"http://x\"\ntoken = \"t\"\nca_file = \"/ca.pem\"\n";
        fs::write(&path, old).unwrap();
        let read = Contexts::load(&path).unwrap();
        let stored = read.get("x").unwrap();
        assert_eq!(stored.token.as_deref(), Some("t"));
        assert_eq!(stored.ca_file.as_deref(), Some(Path::new("/ca.pem")));
        assert!(stored.session.is_none());
    }

    #[test]
    fn one_changes_it_after_the_other() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("contexts.toml");
        let names: Vec<String> = (0..20).map(|n| format!("c{n}")).collect();
        std::thread::scope(|scope| {
            for name in &names {
                scope.spawn(|| {
                    let mut held = Held::open(&path).unwrap();
                    held.contexts.contexts.insert(name.clone(), stored(Some(name), None));
                    held.save().unwrap();
                });
            }
        });
        assert_eq!(Contexts::load(&path).unwrap().contexts.len(), names.len(), "none was lost");
    }

    #[test]
    fn secrets_are_not_printed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("contexts.toml");
        fs::write(&path, "[contexts.a]\ntoken = very-secret\n").unwrap();
        let error = Contexts::load(&path).err().unwrap();
        assert!(!format!("{error:#} {error:?}").contains("very-secret"));
    }
}
