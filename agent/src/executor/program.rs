//! The agent's own copy of its binary, from which the shims run: an upgrade that replaces the installed one changes
//! nothing for them.

use std::{
    ffi::OsStr,
    fs::{DirBuilder, File},
    io,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
};

use sha2::{Digest as _, Sha256};

/// Keeps `program` in `folder` under a name of its version and content, and gives the path. A copy that is not what its
/// name says is made anew, and one that is there survives a loss of power. Other copies are removed; shims that run from
/// one keep it until they end.
///
/// # Errors
/// When the program cannot be read, changes meanwhile, or the copy cannot be made.
pub(super) fn keep(program: &Path, folder: &Path) -> io::Result<PathBuf> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let content = digest(program)?;
    let name = format!("opsconductor-agent-{}-{}", env!("CARGO_PKG_VERSION"), &content[..16]);
    let kept = folder.join(&name);
    if !digest(&kept).is_ok_and(|found| found == content) {
        let new = folder.join("new");
        remove_if_there(&new)?;
        std::fs::copy(program, &new)?;
        if digest(&new)? != content {
            return Err(io::Error::other("it was replaced while it was copied"));
        }
        File::open(&new)?.sync_all()?;
        std::fs::rename(&new, &kept)?;
        File::open(folder)?.sync_all()?;
    }
    for entry in std::fs::read_dir(folder)?.flatten() {
        if entry.file_name() != OsStr::new(&name) {
            remove_if_there(&entry.path())?;
        }
    }
    Ok(kept)
}

/// SHA-256 of a file, hexadecimal.
fn digest(path: &Path) -> io::Result<String> {
    let mut hash = Sha256::new();
    io::copy(&mut File::open(path)?, &mut hash)?;
    Ok(hex::encode(hash.finalize()))
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_outlives_the_program_until_the_next_one() {
        let folder = tempfile::tempdir().unwrap();
        let (program, copies) = (folder.path().join("agent"), folder.path().join("bin"));
        std::fs::write(&program, "one").unwrap();
        let first = keep(&program, &copies).unwrap();
        assert_eq!(keep(&program, &copies).unwrap(), first);
        // What a loss of power left of it is no program.
        std::fs::write(&first, "").unwrap();
        assert_eq!(keep(&program, &copies).unwrap(), first);
        std::fs::remove_file(&program).unwrap();
        assert_eq!(std::fs::read(&first).unwrap(), b"one");
        std::fs::write(&program, "two").unwrap();
        let second = keep(&program, &copies).unwrap();
        assert_eq!(std::fs::read(&second).unwrap(), b"two");
        assert!(!first.exists());
    }
}
