//! A folder in the hierarchy of version 2. A controller's files are there if the folder above has enabled it.

use std::{
    io,
    path::{Path, PathBuf},
};

use super::{
    files,
    usage::{Usage, stacked_devices},
    v1::{PERIOD_US, quota_us, set_for_each_device},
};

/// Lists the controllers that groups below may have.
pub(super) const CONTROLLERS: &str = "cgroup.controllers";
/// Lists the controllers that groups below have.
pub(super) const SUBTREE: &str = "cgroup.subtree_control";
const EVENTS: &str = "cgroup.events";
const KILL: &str = "cgroup.kill";
const FREEZE: &str = "cgroup.freeze";

#[derive(Debug)]
pub(super) struct Group {
    folder: PathBuf,
}

impl Group {
    pub(super) fn at(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// Whether the folder is one of this version, and not the root of its hierarchy.
    pub(super) fn is_at(folder: &Path) -> bool {
        files::has(folder, EVENTS)
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// All of the group dies together: what a process of it was about to do may not be done by halves.
    pub(super) fn limit_memory(&self, bytes: u64) -> bool {
        if !self.set("memory.max", &bytes.to_string()) {
            return false;
        }
        // Both are missing in old kernels, the first also without swap.
        self.set("memory.oom.group", "1");
        !files::has(&self.folder, "memory.swap.max") || self.set("memory.swap.max", "0")
    }

    pub(super) fn limit_pids(&self, count: u64) -> bool {
        self.set("pids.max", &count.to_string())
    }

    pub(super) fn limit_cpu(&self, percent: u64) -> bool {
        self.set("cpu.max", &format!("{} {PERIOD_US}", quota_us(percent)))
    }

    pub(super) fn limit_io(&self, bytes_per_second: u64) -> bool {
        files::has(&self.folder, "io.max")
            && set_for_each_device(|device| {
                self.set("io.max", &format!("{device} rbps={bytes_per_second} wbps={bytes_per_second}"))
            })
    }

    fn set(&self, name: &str, value: &str) -> bool {
        files::write(&self.folder, name, value).is_ok()
    }

    pub(super) fn can_kill(&self) -> bool {
        files::has(&self.folder, KILL) || self.can_freeze()
    }

    pub(super) fn can_freeze(&self) -> bool {
        files::has(&self.folder, FREEZE)
    }

    /// Kills all. A kernel without a call for that (before 5.14) holds them still meanwhile; they die frozen.
    pub(super) fn kill(&self) -> io::Result<()> {
        match files::write(&self.folder, KILL, "1") {
            Err(error) if error.kind() == io::ErrorKind::NotFound && self.can_freeze() => {
                files::unless_gone(files::write(&self.folder, FREEZE, "1"))?;
                let killed = files::kill(&files::processes(&self.folder));
                // One that was born before the others were still.
                let killed = killed.and(files::kill(&files::processes(&self.folder)));
                files::unless_gone(files::write(&self.folder, FREEZE, "0"))?;
                killed
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                files::kill(&files::processes(&self.folder))
            }
            outcome => files::unless_gone(outcome),
        }
    }

    pub(super) fn is_populated(&self) -> bool {
        files::value(&self.folder, EVENTS, "populated") == Some(1)
    }

    pub(super) fn usage(&self) -> Usage {
        let value = |name, key| files::value(&self.folder, name, key);
        let io = files::read(&self.folder, "io.stat").map(|text| io_bytes(&text, &stacked_devices()));
        Usage {
            cpu_user_us: value("cpu.stat", "user_usec"),
            cpu_system_us: value("cpu.stat", "system_usec"),
            peak_memory_bytes: files::number(&self.folder, "memory.peak"),
            peak_pids: files::number(&self.folder, "pids.peak"),
            io_read_bytes: io.map(|(read, _)| read),
            io_write_bytes: io.map(|(_, written)| written),
            oom_kills: value("memory.events", "oom_kill").unwrap_or(0),
            pids_refused: value("pids.events", "max").unwrap_or(0),
        }
    }
}

/// Bytes read and written, from lines such as `8:0 rbytes=4096 wbytes=0 rios=1 …`, without the devices in `except`.
fn io_bytes(text: &str, except: &[String]) -> (u64, u64) {
    let mut sum = (0, 0);
    for line in text.lines() {
        let mut words = line.split(' ');
        if words.next().is_none_or(|device| except.iter().any(|other| other == device)) {
            continue;
        }
        for word in words {
            match word.split_once('=') {
                Some(("rbytes", bytes)) => sum.0 += bytes.parse().unwrap_or(0),
                Some(("wbytes", bytes)) => sum.1 += bytes.parse().unwrap_or(0),
                Some(_) | None => {}
            }
        }
    }
    sum
}
