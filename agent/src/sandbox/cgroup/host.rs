//! Where this host's control groups are, and where in them this process is.

use std::{
    ffi::OsString,
    os::unix::ffi::OsStringExt as _,
    path::{Path, PathBuf},
};

/// The group of the agent and its shims, beside those of the runs.
pub(super) const AGENT_LEAF: &str = "opsconductor-agent";
/// The slice of the agent's unit, and the group of all runs in it: see [`Place::is_left_to_systemd`].
pub(super) const SLICE: &str = "opsconductor.slice";
pub(super) const RUNS: &str = "opsconductor-runs";
/// The controllers of version 1 that limit or count something for us.
const WANTED: [&str; 5] = ["memory", "pids", "cpu", "cpuacct", "blkio"];
const FREEZER: &str = "freezer";

/// The hierarchies of a host.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Host {
    pub(super) v2: Option<Place>,
    pub(super) v1: Vec<Hierarchy>,
}

/// One hierarchy of version 1.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Hierarchy {
    pub(super) place: Place,
    pub(super) controllers: Vec<String>,
}

/// The folder of the group that this process is in.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Place(pub(super) PathBuf);

impl Host {
    /// What the kernel says of this process.
    pub(super) fn look() -> Self {
        let read = |path| std::fs::read_to_string(path).unwrap_or_default();
        Self::parse(&read("/proc/self/cgroup"), &read("/proc/self/mountinfo"))
    }

    /// The roots of all hierarchies, as far as they are mounted.
    pub(super) fn roots() -> Self {
        let read = |path| std::fs::read_to_string(path).unwrap_or_default();
        let root = |line: &str| {
            let mut words = line.splitn(3, ':');
            Some(format!("{}:{}:/\n", words.next()?, words.next()?))
        };
        let groups: String = read("/proc/self/cgroup").lines().filter_map(root).collect();
        Self::parse(&groups, &read("/proc/self/mountinfo"))
    }

    /// From the texts of `/proc/PID/cgroup` and `/proc/PID/mountinfo`.
    pub(super) fn parse(groups: &str, mounts: &str) -> Self {
        let mounts: Vec<Mount> = mounts.lines().filter_map(Mount::parse).collect();
        let mut host = Self::default();
        for line in groups.lines() {
            let mut words = line.splitn(3, ':').skip(1);
            let (Some(names), Some(group)) = (words.next(), words.next()) else { continue };
            let names: Vec<String> =
                names.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect();
            let place = mounts.iter().filter(|mount| mount.has(&names)).find_map(|mount| mount.place(group));
            match place {
                Some(place) if names.is_empty() => host.v2 = Some(place),
                Some(place) => host.v1.push(Hierarchy { place, controllers: names }),
                None => {}
            }
        }
        host
    }
}

impl Hierarchy {
    /// Whether it has something for us.
    pub(super) fn is_wanted(&self, to_freeze: bool) -> bool {
        let is_wanted = |name: &String| WANTED.contains(&name.as_str()) || to_freeze && name == FREEZER;
        self.controllers.iter().any(is_wanted)
    }
}

impl Place {
    /// Where the groups of runs are made.
    pub(super) fn home(&self) -> PathBuf {
        let above = self.0.parent().filter(|_| self.is_leaf());
        let runs = self.slice().map(|slice| slice.join(RUNS)).filter(|runs| runs.exists());
        runs.as_deref().or(above).unwrap_or(&self.0).to_owned()
    }

    /// Whether this process is in a leaf of the agent's own.
    pub(super) fn is_leaf(&self) -> bool {
        self.0.file_name().is_some_and(|name| name == AGENT_LEAF)
    }

    /// Whether systemd puts each process of the unit right here, also the next agent while runs of this one live. A group
    /// that has enabled controllers for those below it takes no process, and so the agent would not come back.
    pub(super) fn is_left_to_systemd(&self) -> bool {
        self.0.extension().is_some_and(|extension| extension == "service")
    }

    /// The agent's own slice, if this is a unit's group in it.
    pub(super) fn slice(&self) -> Option<&Path> {
        let above = self.0.parent().filter(|_| self.is_left_to_systemd())?;
        (above.file_name()? == SLICE).then_some(above)
    }
}

/// One line of `mountinfo`, of a file system of control groups.
struct Mount {
    /// Which group is seen at the mount point.
    root: PathBuf,
    at: PathBuf,
    is_v2: bool,
    options: String,
}

impl Mount {
    fn parse(line: &str) -> Option<Self> {
        let (before, after) = line.split_once(" - ")?;
        let mut words = before.split(' ').skip(3);
        let (root, at) = (path(words.next()?), path(words.next()?));
        let mut words = after.split(' ');
        let is_v2 = match words.next()? {
            "cgroup" => false,
            "cgroup2" => true,
            _ => return None,
        };
        Some(Self { root, at, is_v2, options: words.nth(1)?.to_owned() })
    }

    /// Whether it is the hierarchy with these controllers: none is version 2.
    fn has(&self, names: &[String]) -> bool {
        if names.is_empty() || self.is_v2 {
            return names.is_empty() && self.is_v2;
        }
        names.iter().all(|name| self.options.split(',').any(|option| option == name))
    }

    /// Where the group is seen; none when it is outside of what is mounted.
    fn place(&self, group: &str) -> Option<Place> {
        let below = Path::new(group).strip_prefix(&self.root).ok()?;
        let is_inside = below.components().all(|part| matches!(part, std::path::Component::Normal(_)));
        is_inside.then(|| Place(self.at.join(below).components().collect()))
    }
}

/// A path as the kernel writes it: blanks and the like as three octal digits behind a backslash.
fn path(word: &str) -> PathBuf {
    let mut bytes = Vec::with_capacity(word.len());
    let mut rest = word.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let octal =
            after.get(..3).filter(|_| *first == b'\\').and_then(|digits| std::str::from_utf8(digits).ok());
        match octal.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[3..];
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    PathBuf::from(OsString::from_vec(bytes))
}
