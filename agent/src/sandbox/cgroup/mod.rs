//! A control group for each attempt: its processes can be limited, counted and killed together, whatever they do.
//!
//! 1. A group is one folder in version 2's hierarchy and one in each hierarchy of version 1 that has something for us: a
//!    controller is in one of them only. Whatever is asked of the group is asked of the folder that can do it.
//! 2. A limit that was wanted and that this host does not enforce for us is named in [`Created::missing`]; nothing is
//!    quietly weaker.
//! 3. Groups of runs are made beside the agent's own leaf (see [`settle_agent`]), or below the agent's group when it has
//!    none. Where the host lets us make none, there is none, and the shim finds the processes of its run by their parents.
//! 4. What a folder can do is told by the files in it, so that a group that another shim made is found by its paths alone.

mod container;
mod files;
mod host;
mod settle;
#[cfg(test)]
mod tests;
mod usage;
mod v1;
mod v2;

use std::{
    ffi::OsStr,
    fs::File,
    io,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use self::host::Host;
pub use self::{settle::settle_agent, usage::Usage};

const PREFIX: &str = "opsconductor-";
/// How often those in a group of version 1 are killed in one go, and what lies between.
const KILL_ROUNDS: u32 = 10;
const KILL_PAUSE: Duration = Duration::from_millis(1);
/// What [`Created::missing`] names.
pub const MEMORY_LIMIT: &str = "memory limit";
pub const PIDS_LIMIT: &str = "pids limit";
pub const CPU_LIMIT: &str = "cpu limit";
pub const IO_LIMIT: &str = "io limit";

/// What a group may use at most; none is as much as the host has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Limits {
    /// Memory and page cache; it cannot be exceeded by swapping, where the host counts swap.
    pub memory_bytes: Option<u64>,
    /// Processes and threads.
    pub pids: Option<u64>,
    /// Of one processor: 250 are two and a half.
    pub cpu_percent: Option<u64>,
    /// Read, and as many written, of each block device. Version 1 holds back direct input and output only: what goes
    /// through the page cache is written later, by the kernel, on nobody's account.
    pub io_bytes_per_second: Option<u64>,
}

/// A group that was made, as far as this host lets us.
#[derive(Debug)]
pub struct Created {
    pub group: Option<Cgroup>,
    /// Which of the wanted limits nobody enforces.
    pub missing: Vec<&'static str>,
}

/// What this host lets us do with groups, tried with one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Abilities {
    pub memory: bool,
    pub pids: bool,
    pub cpu: bool,
    pub io: bool,
    /// All processes of a group can be killed at once, however fast they fork.
    pub kill: bool,
    /// All processes of a group can be held still.
    pub freeze: bool,
}

/// The group of one attempt.
#[derive(Debug)]
pub struct Cgroup {
    v2: Option<v2::Group>,
    v1: Vec<v1::Group>,
}

/// The ways into a group, open.
#[derive(Debug)]
pub struct Doors {
    /// Of version 2: a process can be born into it, which costs nothing.
    pub folder: Option<File>,
    /// Of version 2: a process joins by writing `0`; the kernel makes it wait for all processors, some ten milliseconds.
    pub processes: Option<File>,
    /// Of version 1, one for each hierarchy: a thread joins by writing `0` into all of them, some twenty microseconds
    /// each. All threads and processes that it makes from then on are in the group.
    pub tasks: Vec<File>,
}

impl Cgroup {
    /// Makes the group `opsconductor-NAME` with these limits. A group of that name in which nothing is any more is
    /// replaced; next to one in which something is, there is none.
    pub fn create(name: &str, limits: &Limits) -> Created {
        Self::create_at(&Host::look(), name, limits)
    }

    fn create_at(host: &Host, name: &str, limits: &Limits) -> Created {
        let mut group = Self { v2: None, v1: Vec::new() };
        let is_free = group.make_folders(host, &format!("{PREFIX}{name}"));
        if is_free && group.folders().next().is_some() {
            let missing = group.limit(limits);
            return Created { group: Some(group), missing };
        }
        // Nothing is in what was made of it.
        let _ = group.remove();
        Created { group: None, missing: limits.names() }
    }

    /// Makes the folders that the host lets us make; false when there is one of that name that is in use.
    fn make_folders(&mut self, host: &Host, name: &str) -> bool {
        if let Some(place) = &host.v2 {
            match make(place.home().join(name), v2::Group::is_at) {
                Made::New(folder) => self.v2 = Some(v2::Group::at(folder)),
                Made::Not => {}
                Made::InUse => return false,
            }
        }
        let kills_itself = self.v2.as_ref().is_some_and(v2::Group::can_kill);
        for hierarchy in host.v1.iter().filter(|hierarchy| hierarchy.is_wanted(!kills_itself)) {
            match make(hierarchy.place.home().join(name), v1::Group::is_at) {
                Made::New(folder) => self.v1.push(v1::Group::at(folder)),
                Made::Not => {}
                Made::InUse => return false,
            }
        }
        true
    }

    /// Sets the limits; says which of them nobody enforces.
    fn limit(&self, limits: &Limits) -> Vec<&'static str> {
        let mut missing = Vec::new();
        let mut set = |name,
                       limit: Option<u64>,
                       in_v2: fn(&v2::Group, u64) -> bool,
                       in_v1: fn(&v1::Group, u64) -> bool| {
            let Some(limit) = limit else { return };
            let is_set = self.v2.as_ref().is_some_and(|group| in_v2(group, limit))
                || self.v1.iter().any(|group| in_v1(group, limit));
            if !is_set {
                missing.push(name);
            }
        };
        set(MEMORY_LIMIT, limits.memory_bytes, v2::Group::limit_memory, v1::Group::limit_memory);
        set(PIDS_LIMIT, limits.pids, v2::Group::limit_pids, v1::Group::limit_pids);
        set(CPU_LIMIT, limits.cpu_percent, v2::Group::limit_cpu, v1::Group::limit_cpu);
        set(IO_LIMIT, limits.io_bytes_per_second, v2::Group::limit_io, v1::Group::limit_io);
        missing
    }

    /// Where the group is, for [`Cgroup::find`]: a path on each line.
    pub fn note(&self) -> Vec<u8> {
        let paths: Vec<&[u8]> = self.folders().map(|folder| folder.as_os_str().as_bytes()).collect();
        paths.join(&b'\n')
    }

    /// The group that another shim made for the attempt `name`, from its note. Folders that are gone, or are not those of
    /// such a group, are left out; none when nothing is left.
    pub fn find(note: &[u8], name: &str) -> Option<Self> {
        let name = format!("{PREFIX}{name}");
        let paths = note.split(|byte| *byte == b'\n').map(|path| Path::new(OsStr::from_bytes(path)));
        let ours = paths.filter(|path| path.file_name() == Some(OsStr::new(&name)));
        let mut found = Self { v2: None, v1: Vec::new() };
        for path in ours {
            if v2::Group::is_at(path) {
                found.v2 = Some(v2::Group::at(path.to_owned()));
            } else if v1::Group::is_at(path) {
                found.v1.push(v1::Group::at(path.to_owned()));
            }
        }
        (found.v2.is_some() || !found.v1.is_empty()).then_some(found)
    }

    /// Where the group is.
    pub fn folders(&self) -> impl Iterator<Item = &Path> {
        let v2 = self.v2.iter().map(v2::Group::folder);
        v2.chain(self.v1.iter().map(v1::Group::folder))
    }

    /// The ways into the group. A process that took not all of them is not limited.
    ///
    /// # Errors
    /// When the host does not let us.
    pub fn doors(&self) -> io::Result<Doors> {
        let folder = self.v2.as_ref().map(|group| File::open(group.folder())).transpose()?;
        let processes =
            self.v2.as_ref().map(|group| files::open(group.folder(), files::PROCESSES)).transpose()?;
        let tasks = self.v1.iter().map(|group| files::open(group.folder(), v1::TASKS));
        Ok(Doors { folder, processes, tasks: tasks.collect::<io::Result<_>>()? })
    }

    /// Kills every process in the group. Where only version 1 can do that it may take ten milliseconds, and has to be
    /// repeated as long as the group [is populated](Self::is_populated).
    ///
    /// # Errors
    /// When a process or the group does not let us; not when the group is gone.
    pub fn kill(&self) -> io::Result<()> {
        if let Some(group) = self.v2.as_ref().filter(|group| group.can_kill()) {
            // What has left that folder is killed by the others.
            return group.kill().and(self.kill_by_lists());
        }
        for _ in 0..KILL_ROUNDS {
            self.v2.as_ref().map_or(Ok(()), v2::Group::kill)?;
            self.kill_by_lists()?;
            if !self.is_populated() {
                break;
            }
            std::thread::sleep(KILL_PAUSE);
        }
        Ok(())
    }

    /// Kills once all that the folders list; one that freezes first, so that the others find nobody who forks.
    fn kill_by_lists(&self) -> io::Result<()> {
        let (freezers, others): (Vec<_>, Vec<_>) = self.v1.iter().partition(|group| group.can_freeze());
        freezers.into_iter().chain(others).map(v1::Group::kill).fold(Ok(()), io::Result::and)
    }

    /// Whether a process is in the group, or in one below it. A group that is gone has none.
    pub fn is_populated(&self) -> bool {
        self.v2.as_ref().is_some_and(v2::Group::is_populated) || self.v1.iter().any(v1::Group::is_populated)
    }

    /// Removes the group, and those that a job made below it.
    ///
    /// # Errors
    /// When a process is in one of them: one that was killed may take moments to be gone. Not when the group is gone.
    pub fn remove(&self) -> io::Result<()> {
        self.folders().map(files::remove_tree).fold(Ok(()), io::Result::and)
    }

    /// What the group has used so far.
    pub fn usage(&self) -> Usage {
        let v2 = self.v2.iter().map(v2::Group::usage);
        v2.chain(self.v1.iter().map(v1::Group::usage)).fold(Usage::default(), Usage::or)
    }

    fn can_kill(&self) -> bool {
        self.v2.as_ref().is_some_and(v2::Group::can_kill) || self.v1.iter().any(v1::Group::can_freeze)
    }

    fn can_freeze(&self) -> bool {
        self.v2.as_ref().is_some_and(v2::Group::can_freeze) || self.v1.iter().any(v1::Group::can_freeze)
    }
}

impl Limits {
    /// Those that are set.
    fn names(&self) -> Vec<&'static str> {
        let all = [
            (MEMORY_LIMIT, self.memory_bytes),
            (PIDS_LIMIT, self.pids),
            (CPU_LIMIT, self.cpu_percent),
            (IO_LIMIT, self.io_bytes_per_second),
        ];
        all.into_iter().filter(|(_, limit)| limit.is_some()).map(|(name, _)| name).collect()
    }
}

/// Which limits can be enforced here, and whether groups can be killed and frozen: tried with a group that nothing is in.
pub fn what_host_can() -> Abilities {
    abilities(&Host::look())
}

fn abilities(host: &Host) -> Abilities {
    /// What is tried; nothing runs under it.
    const SOME: Limits = Limits {
        memory_bytes: Some(1 << 30),
        pids: Some(1000),
        cpu_percent: Some(100),
        io_bytes_per_second: Some(1 << 30),
    };
    let Created { group, missing } = Cgroup::create_at(host, &format!("probe-{}", std::process::id()), &SOME);
    let Some(group) = group else { return Abilities::default() };
    let can = |name| !missing.contains(&name);
    let abilities = Abilities {
        memory: can(MEMORY_LIMIT),
        pids: can(PIDS_LIMIT),
        cpu: can(CPU_LIMIT),
        io: can(IO_LIMIT),
        kill: group.can_kill(),
        freeze: group.can_freeze(),
    };
    // Nothing is in it.
    let _ = group.remove();
    abilities
}

enum Made {
    New(PathBuf),
    /// The host does not let us, or something else is mounted there.
    Not,
    /// There is one, with processes in it.
    InUse,
}

/// Makes a folder, anew where there is one without a process in it.
fn make(folder: PathBuf, is_group: fn(&Path) -> bool) -> Made {
    let mut made = std::fs::create_dir(&folder);
    if made.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::AlreadyExists) {
        made = files::remove_tree(&folder).and_then(|()| std::fs::create_dir(&folder));
    }
    match made {
        Ok(()) if is_group(&folder) => Made::New(folder),
        Ok(()) => {
            // If it stays it is a mere folder.
            let _ = std::fs::remove_dir(&folder);
            Made::Not
        }
        Err(error) if error.kind() == io::ErrorKind::ResourceBusy => Made::InUse,
        Err(_) => Made::Not,
    }
}
