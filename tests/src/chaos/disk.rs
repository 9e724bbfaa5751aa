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

use nix::sys::signal::Signal;
use tokio::time::sleep;

use crate::{Agent, process, scene};

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

    /// The power of the host fails, and is back: every process of its agent is gone, and so is what was not flushed to the disk.
    /// Answers how many processes there were beside the agent's own, which does not run yet.
    pub async fn fail_power(&self, agent: &mut Agent) -> usize {
        agent.kill();
        let data = agent.data.to_string_lossy().into_owned();
        let mut killed = 0;
        loop {
            let left = process::with_argument(&data);
            if left.is_empty() {
                break;
            }
            killed += left.len();
            // None of them sees the end of another.
            left.iter().for_each(|pid| process::signal(*pid, Signal::SIGSTOP));
            left.into_iter().for_each(process::kill_tree);
            sleep(Duration::from_millis(20)).await;
        }
        self.crash();
        agent.new_boot();
        killed
    }

    /// # Panics
    /// When it cannot be mounted again.
    fn crash(&self) {
        let (after, again) = (self.image.with_extension("after"), self.image.with_extension("again"));
        let copy = |to: &Path| run("cp", &["--sparse=always".as_ref(), self.image.as_ref(), to.as_ref()]);
        let is_same = || run("cmp", &["-s".as_ref(), after.as_ref(), again.as_ref()]);
        // The kernel goes on writing, and no disk was ever in a state that is partly before that and partly after it: two copies
        // that are the same show what there was between them.
        let is_copied = (0..50).any(|_| copy(&after) && copy(&again) && is_same());
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
