//! A disk of a host's own, that loses what was not flushed to it when the power fails: a file with a file system in it.
//!
//! What the file holds is what the file system handed down. At a crash it is copied as it stands, and the copy takes its
//! place: what only the kernel's memory had is gone, as with a machine that loses its power.

use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use crate::scene;

const BYTES: u64 = 192 * 1024 * 1024;

#[derive(Debug)]
pub struct Disk {
    image: PathBuf,
    mounted: PathBuf,
}

impl Disk {
    /// A new one; none where the machine does not let us.
    pub fn create(name: &str) -> Option<Self> {
        let folder = scene::new_folder(&format!("disk-{name}"));
        let disk = Self { image: folder.join("image"), mounted: folder.join("mounted") };
        std::fs::create_dir(&disk.mounted).ok()?;
        std::fs::File::create(&disk.image).ok()?.set_len(BYTES).ok()?;
        let is_made = run("mkfs.ext4", &["-q".as_ref(), "-F".as_ref(), disk.image.as_ref()]) && disk.mount();
        if !is_made {
            scene::skipped("no host can lose its power: there is no mkfs.ext4, or no loop device");
        }
        is_made.then_some(disk)
    }

    pub fn mounted(&self) -> &Path {
        &self.mounted
    }

    fn mount(&self) -> bool {
        run("mount", &["-o".as_ref(), "loop".as_ref(), self.image.as_ref(), self.mounted.as_ref()])
    }

    /// Power off, and on again. Nobody may use it meanwhile.
    ///
    /// # Panics
    /// When it cannot be mounted again.
    pub fn crash(&self) {
        let after = self.image.with_extension("after");
        let is_copied = run("cp", &["--sparse=always".as_ref(), self.image.as_ref(), after.as_ref()]);
        let is_off = (0..50).any(|_| {
            let is_off = run("umount", &[self.mounted.as_ref()]);
            if !is_off {
                std::thread::sleep(Duration::from_millis(100));
            }
            is_off
        });
        assert!(is_copied && is_off, "the disk cannot be taken away");
        std::fs::rename(&after, &self.image).expect("it is ours");
        assert!(self.mount(), "the disk does not come back");
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        run("umount", &["-l".as_ref(), self.mounted.as_ref()]);
    }
}

fn run(program: &str, arguments: &[&OsStr]) -> bool {
    Command::new(program).args(arguments).output().is_ok_and(|output| output.status.success())
}
