//! The commands of people that read or write in the link's folder do it there as its owner, so that root follows no path
//! that the link's user has laid, and leaves no file that it could not read.

use std::{io, os::unix::fs::MetadataExt as _, path::Path};

use nix::unistd::{Gid, Uid, chdir, getegid, geteuid, setegid, seteuid};

/// As long as it lives, this process stands in a folder and acts as its owner.
#[derive(Debug)]
pub struct Owner {
    /// Who it was, where that is somebody else.
    was: Option<(Uid, Gid)>,
}

impl Owner {
    /// Goes into `folder`; where this process is root and the folder another user's, it becomes that user.
    ///
    /// # Errors
    /// When there is no such folder, or it cannot be entered.
    pub fn of(folder: &Path) -> io::Result<Self> {
        chdir(folder)?;
        let found = std::fs::metadata(".")?;
        let (uid, gid) = (geteuid(), getegid());
        if !uid.is_root() || found.uid() == 0 {
            return Ok(Self { was: None });
        }
        setegid(Gid::from_raw(found.gid()))?;
        let owner = Self { was: Some((uid, gid)) };
        seteuid(Uid::from_raw(found.uid()))?;
        Ok(owner)
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        if let Some((uid, gid)) = self.was {
            // It was this a moment ago, and may be it again.
            let back = seteuid(uid).and_then(|()| setegid(gid));
            debug_assert!(back.is_ok(), "{back:?}");
        }
    }
}
