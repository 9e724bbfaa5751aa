//! A control group (version 2) for each attempt: its processes can be killed together, whatever they do.
//!
//! The group is made under the agent's own one, where the host allows that; otherwise there is none, and the shim
//! finds the processes of its run by their parents.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

const PREFIX: &str = "opsconductor-";

/// The group of one attempt.
#[derive(Debug)]
pub struct Cgroup {
    path: PathBuf,
}

impl Cgroup {
    /// Makes the group; none where the host has no such groups or does not let us.
    pub fn create(name: &str) -> Option<Self> {
        let path = own_group()?.join(format!("{PREFIX}{name}"));
        std::fs::create_dir(&path).ok()?;
        let group = Self { path };
        if group.path.join("cgroup.kill").exists() {
            Some(group)
        } else {
            // Nothing is in it.
            let _ = group.remove();
            None
        }
    }

    /// The group that another shim made for the attempt `name`, from its path; none when it is gone, or the path is
    /// not one of such a group.
    pub fn find(path: &Path, name: &str) -> Option<Self> {
        let ours = path.file_name().is_some_and(|last| last.to_str() == Some(&format!("{PREFIX}{name}")));
        (ours && path.join("cgroup.kill").exists()).then(|| Self { path: path.to_owned() })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The ways into the group.
    ///
    /// # Errors
    /// When the host does not let us.
    pub fn doors(&self) -> io::Result<Doors> {
        let processes = OpenOptions::new().write(true).open(self.path.join("cgroup.procs"))?;
        Ok(Doors { folder: File::open(&self.path)?, processes })
    }

    /// Kills every process in the group.
    ///
    /// # Errors
    /// When the group is gone.
    pub fn kill(&self) -> io::Result<()> {
        OpenOptions::new().write(true).open(self.path.join("cgroup.kill"))?.write_all(b"1")
    }

    /// Whether a process is in the group, or in one below it. A group that is gone has none.
    pub fn is_populated(&self) -> bool {
        std::fs::read_to_string(self.path.join("cgroup.events"))
            .is_ok_and(|events| events.lines().any(|line| line == "populated 1"))
    }

    /// Removes the group, and those that a job made below it.
    ///
    /// # Errors
    /// When a process is in one of them: one that was killed may take moments to be gone.
    pub fn remove(&self) -> io::Result<()> {
        remove_tree(&self.path)
    }
}

fn remove_tree(group: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(group)?.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_tree(&entry.path())?;
        }
    }
    std::fs::remove_dir(group)
}

/// The two ways into a group, open.
#[derive(Debug)]
pub struct Doors {
    /// A process can be born into it, which costs nothing.
    pub folder: File,
    /// A process joins by writing `0`; the kernel makes it wait for all processors, some ten milliseconds.
    pub processes: File,
}

/// The directory of the group that this process is in.
fn own_group() -> Option<PathBuf> {
    let groups = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    let own = groups.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let mounts = std::fs::read_to_string("/proc/self/mounts").ok()?;
    let mount = mounts.lines().find_map(|line| {
        let mut words = line.split(' ').skip(1);
        let (at, kind) = (words.next()?, words.next()?);
        (kind == "cgroup2").then(|| PathBuf::from(at))
    })?;
    Some(mount.join(own))
}
