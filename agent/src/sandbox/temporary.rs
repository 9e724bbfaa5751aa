//! The temporary folder of an attempt: its user's alone, and gone with the run.
//!
//! Its path stands in the attempt's folder before it is made, so that whoever finds the attempt can remove it.

use std::{
    ffi::OsStr,
    fs::DirBuilder,
    io,
    os::unix::{
        ffi::OsStrExt as _,
        fs::{DirBuilderExt as _, chown},
    },
    path::{Path, PathBuf},
};

use nix::unistd::{Gid, Uid};

/// The file that holds its path.
const NOTE: &str = "temporary";
const PREFIX: &str = "opsconductor-";
const ROOT: &str = "/tmp";

/// Makes the folder of the attempt `name`, and notes it in the attempt's folder `attempt`. It is this user's own until it is
/// given to another.
///
/// # Errors
/// When something of that name is there, or the disk is full.
pub(crate) fn make(attempt: &Path, name: &str) -> io::Result<PathBuf> {
    let path = Path::new(ROOT).join(format!("{PREFIX}{name}"));
    std::fs::write(attempt.join(NOTE), path.as_os_str().as_bytes())?;
    DirBuilder::new().mode(0o700).create(&path)?;
    Ok(path)
}

/// Gives it to the run's user: from now on other processes of that user may change what is in it.
///
/// # Errors
/// When this user is not root.
pub(crate) fn give(folder: &Path, uid: Uid, gid: Gid) -> io::Result<()> {
    chown(folder, Some(uid.as_raw()), Some(gid.as_raw()))
}

/// Removes what was noted in the folder of the attempt `name`; nothing when there is none.
///
/// # Errors
/// When it is there and cannot be removed.
pub fn remove(attempt: &Path, name: &str) -> io::Result<()> {
    let Ok(path) = std::fs::read(attempt.join(NOTE)) else { return Ok(()) };
    let path = Path::new(OsStr::from_bytes(&path));
    let is_ours = path.parent() == Some(Path::new(ROOT))
        && path.file_name().is_some_and(|last| last.to_str() == Some(&format!("{PREFIX}{name}")));
    if !is_ours {
        return Ok(());
    }
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_folder_of_the_attempt_is_removed() {
        let attempt = tempfile::tempdir().unwrap();
        let name = format!("test-{}", std::process::id());
        let made = make(attempt.path(), &name).unwrap();
        std::fs::write(made.join("file"), "x").unwrap();
        assert!(make(attempt.path(), &name).is_err());
        remove(attempt.path(), "another").unwrap();
        assert!(made.exists());
        remove(attempt.path(), &name).unwrap();
        assert!(!made.exists());
        remove(attempt.path(), &name).unwrap();
        let other = tempfile::tempdir().unwrap();
        std::fs::write(attempt.path().join(NOTE), other.path().as_os_str().as_bytes()).unwrap();
        remove(attempt.path(), &name).unwrap();
        assert!(other.path().exists());
    }
}
