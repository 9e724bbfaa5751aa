//! What a run tells: the file `OPSC_OUTPUTS`, which is read when it has ended.
//!
//! The file is made, and kept open, before anything of the run begins. What is read is that file, wherever its path leads by
//! then: a run cannot have another one read for it.

use std::{
    fs::{File, OpenOptions, Permissions},
    io,
    os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::Path,
};

use model::{job::outputs, limits::OUTPUTS_BYTES};
use nix::unistd::{Gid, Uid, fchown};

/// The variable that tells its path.
pub(super) const VARIABLE: &str = "OPSC_OUTPUTS";
pub(super) const FILE_NAME: &str = "opsconductor-outputs";

/// The file, and what it is to hold in the end.
#[derive(Debug)]
pub(super) struct Outputs {
    file: File,
    names: Vec<String>,
}

impl Outputs {
    /// Makes the file in `folder`, where nobody else can make any.
    ///
    /// # Errors
    /// When it cannot be made, or given to its owner.
    pub(super) fn make(folder: &Path, names: Vec<String>, owner: Option<(Uid, Gid)>) -> io::Result<Self> {
        let made = Self::make_with(folder, names, 0o600)?;
        if let Some((uid, gid)) = owner {
            fchown(&made.file, Some(uid), Some(gid))?;
        }
        Ok(made)
    }

    /// The same for a folder that is closed to others, where anybody may write it whom it is shown to.
    ///
    /// # Errors
    /// When it cannot be made.
    pub(super) fn make_open(folder: &Path, names: Vec<String>) -> io::Result<Self> {
        Self::make_with(folder, names, 0o666)
    }

    fn make_with(folder: &Path, names: Vec<String>, mode: u32) -> io::Result<Self> {
        let path = folder.join(FILE_NAME);
        let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path)?;
        file.set_permissions(Permissions::from_mode(mode))?;
        Ok(Self { file, names })
    }

    /// What the run told, as JSON.
    ///
    /// # Errors
    /// What is wrong with it, for people.
    pub(super) fn read(&self) -> Result<Vec<u8>, String> {
        let unreadable = |error: io::Error| format!("its outputs cannot be read: {error}");
        if self.file.metadata().map_err(unreadable)?.nlink() == 0 {
            return Err(format!("it put another file in the place of {VARIABLE}, which is to be written"));
        }
        let mut bytes = vec![0; OUTPUTS_BYTES + 1];
        let mut filled = 0;
        while filled < bytes.len() {
            match self.file.read_at(&mut bytes[filled..], filled as u64) {
                Ok(0) => break,
                Ok(more) => filled += more,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(unreadable(error)),
            }
        }
        let told = outputs::read(&self.names, &bytes[..filled]).map_err(|why| format!("it {why}"))?;
        let json =
            serde_json::to_vec(&told).map_err(|error| format!("its outputs cannot be written: {error}"))?;
        if json.len() > OUTPUTS_BYTES {
            return Err(format!("it told more than {OUTPUTS_BYTES} bytes (OUTPUTS_BYTES) of outputs"));
        }
        // What it takes of the disk is not needed any more; if it stays it goes with the attempt.
        let _ = self.file.set_len(0);
        Ok(json)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_is_the_file_that_was_made() {
        let folder = tempfile::tempdir().unwrap();
        let made = Outputs::make(folder.path(), vec!["a".to_owned()], None).unwrap();
        assert!(made.read().unwrap_err().contains("wrote none"));
        let path = folder.path().join(FILE_NAME);
        let numbers = format!("{{\"a\": [{}1]}}", "1e15,".repeat(2000));
        std::fs::write(&path, numbers).unwrap();
        assert!(made.read().unwrap_err().contains("OUTPUTS_BYTES"), "as it is written again");
        std::fs::write(&path, "{\"a\": 1}\n").unwrap();
        assert_eq!(made.read().unwrap(), b"{\"a\":1}");
        std::fs::write(&path, "x".repeat(OUTPUTS_BYTES * 2)).unwrap();
        assert!(made.read().unwrap_err().contains("OUTPUTS_BYTES"));
        let other = folder.path().join("other");
        std::fs::write(&other, "{\"a\": 2}").unwrap();
        std::fs::rename(&other, &path).unwrap();
        assert!(made.read().unwrap_err().contains("another file"));
        assert!(Outputs::make(folder.path(), Vec::new(), None).is_err(), "it is there already");
    }
}
