//! A small file system, to be filled.

use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::scene;

/// A small file system of its own, for as long as it is held.
#[derive(Debug)]
pub struct SmallDisk(PathBuf);

impl SmallDisk {
    /// None, told loudly, where this process may not mount.
    pub fn mount(mebibytes: u32) -> Option<Self> {
        let at = scene::new_folder("small");
        let options = format!("size={mebibytes}m,mode=0711");
        match mount(Some("tmpfs"), &at, Some("tmpfs"), MsFlags::empty(), Some(&options[..])) {
            Ok(()) => Some(Self(at)),
            Err(error) => {
                scene::skipped(&format!(
                    "a full disk can be had by mounting one alone, which failed: {error}"
                ));
                None
            }
        }
    }

    pub fn folder(&self) -> &Path {
        &self.0
    }

    /// Takes all of its space until the answer is removed.
    pub fn fill(&self) -> PathBuf {
        let path = self.0.join("ballast");
        let mut file = std::fs::File::create(&path).expect("there is room for a name");
        let block = vec![7; 4096];
        while std::io::Write::write_all(&mut file, &block).is_ok() {}
        path
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // The janitor tries again.
        let _ = umount2(&self.0, MntFlags::MNT_DETACH);
    }
}
