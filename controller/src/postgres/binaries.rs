//! Finds the programs of a Postgres server on this machine.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use super::PostgresError;

/// Oldest version that the schema works with.
const OLDEST: u32 = 15;
/// A folder that is used instead of all others.
const VARIABLE: &str = "OPSC_PG_BIN";
/// Where distributions put the servers, one folder a version.
const VERSIONED: [(&str, &str); 2] = [("/usr/lib/postgresql", ""), ("/usr", "pgsql-")];

/// The folder with `initdb` and `postgres`, and their major version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Binaries {
    folder: PathBuf,
    major: u32,
}

impl Binaries {
    /// The newest ones that are new enough, or those that made the cluster in `folder` (`made`).
    pub(super) fn find(made: Option<u32>, folder: &Path) -> Result<Self, PostgresError> {
        let found = match env::var_os(VARIABLE) {
            Some(folder) => vec![PathBuf::from(folder)],
            None => candidates(),
        };
        let mut usable: Vec<Self> =
            found.into_iter().filter_map(Self::look_at).filter(|binaries| binaries.major >= OLDEST).collect();
        if usable.is_empty() {
            let searched = match env::var_os(VARIABLE) {
                Some(folder) => format!("{VARIABLE} ({})", folder.display()),
                None => format!("PATH and {}", VERSIONED[0].0),
            };
            return Err(PostgresError::NoBinaries { searched });
        }
        // A stable sort: among equals the one that was found first.
        usable.sort_by_key(|binaries| std::cmp::Reverse(binaries.major));
        match made {
            None => Ok(usable.swap_remove(0)),
            Some(made) => match usable.iter().position(|binaries| binaries.major == made) {
                Some(index) => Ok(usable.swap_remove(index)),
                None => {
                    let found: Vec<String> =
                        usable.iter().map(|binaries| binaries.major.to_string()).collect();
                    Err(PostgresError::OtherVersion {
                        folder: folder.to_owned(),
                        made,
                        found: found.join(", "),
                    })
                }
            },
        }
    }

    fn look_at(folder: PathBuf) -> Option<Self> {
        if !folder.join("initdb").is_file() {
            return None;
        }
        let output = Command::new(folder.join("postgres")).arg("--version").current_dir("/").output().ok()?;
        let major = major_of(&String::from_utf8_lossy(&output.stdout))?;
        Some(Self { folder, major })
    }

    pub(super) fn program(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }
}

/// The major version in the answer to `postgres --version`.
fn major_of(text: &str) -> Option<u32> {
    let number = text.split_whitespace().find(|word| word.starts_with(|c: char| c.is_ascii_digit()))?;
    number.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

fn candidates() -> Vec<PathBuf> {
    let mut folders: Vec<PathBuf> = env::var_os("PATH").iter().flat_map(env::split_paths).collect();
    for (parent, prefix) in VERSIONED {
        let Ok(entries) = std::fs::read_dir(parent) else { continue };
        for entry in entries.flatten() {
            let name = entry.file_name();
            if name
                .to_str()
                .and_then(|name| name.strip_prefix(prefix))
                .is_some_and(|rest| rest.parse::<u32>().is_ok())
            {
                folders.push(entry.path().join("bin"));
            }
        }
    }
    folders
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read() {
        for (text, want) in [
            ("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n", Some(15)),
            ("postgres (PostgreSQL) 18beta1", Some(18)),
            ("postgres (PostgreSQL) 9.6.24", Some(9)),
            ("", None),
        ] {
            assert_eq!(major_of(text), want, "{text}");
        }
    }
}
