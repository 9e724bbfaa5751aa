//! A folder in one of the hierarchies of version 1. Which controllers a hierarchy has, one or several, the files tell.

use std::{
    collections::HashSet,
    io,
    path::{Path, PathBuf},
};

use super::{
    files,
    usage::{Usage, devices, stacked_devices},
};

/// A thread that writes its id there joins the group.
pub(super) const TASKS: &str = "tasks";
/// The period over which processor time is shared out, in both versions.
pub(super) const PERIOD_US: u64 = 100_000;
const FREEZER: &str = "freezer.state";
/// How often a group that is being frozen is searched for those that were born meanwhile.
const FREEZE_ROUNDS: u32 = 100;

#[derive(Debug)]
pub(super) struct Group {
    folder: PathBuf,
}

impl Group {
    pub(super) fn at(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// Whether the folder is one of this version.
    pub(super) fn is_at(folder: &Path) -> bool {
        files::has(folder, TASKS)
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Of a group that has no memory left the kernel kills one process; it is for the shim to end the others.
    pub(super) fn limit_memory(&self, bytes: u64) -> bool {
        // Groups that a job makes below count too; newer kernels know no other way, and may refuse to be told.
        let _ = files::write(&self.folder, "memory.use_hierarchy", "1");
        let bytes = bytes.to_string();
        // Memory and swap together cannot be less than memory alone.
        self.set("memory.limit_in_bytes", &bytes)
            && (!files::has(&self.folder, "memory.memsw.limit_in_bytes")
                || self.set("memory.memsw.limit_in_bytes", &bytes))
    }

    pub(super) fn limit_pids(&self, count: u64) -> bool {
        self.set("pids.max", &count.to_string())
    }

    pub(super) fn limit_cpu(&self, percent: u64) -> bool {
        self.set("cpu.cfs_period_us", &PERIOD_US.to_string())
            && self.set("cpu.cfs_quota_us", &quota_us(percent).to_string())
    }

    /// Holds back direct input and output only: what goes through the page cache is written by the kernel itself.
    pub(super) fn limit_io(&self, bytes_per_second: u64) -> bool {
        let (read, write) = ("blkio.throttle.read_bps_device", "blkio.throttle.write_bps_device");
        files::has(&self.folder, read)
            && set_for_each_device(|device| {
                let limit = format!("{device} {bytes_per_second}");
                self.set(read, &limit) && self.set(write, &limit)
            })
    }

    fn set(&self, name: &str, value: &str) -> bool {
        files::write(&self.folder, name, value).is_ok()
    }

    pub(super) fn can_freeze(&self) -> bool {
        files::has(&self.folder, FREEZER)
    }

    /// Kills all that are listed. Where they can be frozen, none is born meanwhile; they die when they are let go.
    pub(super) fn kill(&self) -> io::Result<()> {
        if !self.can_freeze() {
            return files::kill(&files::processes(&self.folder));
        }
        files::unless_gone(files::write(&self.folder, FREEZER, "FROZEN"))?;
        let killed = self.kill_until_nobody_is_new();
        // In any case: who is frozen does not die.
        files::unless_gone(files::write(&self.folder, FREEZER, "THAWED")).and(killed)
    }

    fn kill_until_nobody_is_new(&self) -> io::Result<()> {
        let mut killed = HashSet::new();
        for _ in 0..FREEZE_ROUNDS {
            let mut new = files::processes(&self.folder);
            new.retain(|pid| !killed.contains(pid));
            if new.is_empty() {
                break;
            }
            files::kill(&new)?;
            killed.extend(new);
        }
        Ok(())
    }

    pub(super) fn is_populated(&self) -> bool {
        files::any_process(&self.folder)
    }

    /// Of input and output only what was direct, or read, is on the group's account.
    pub(super) fn usage(&self) -> Usage {
        let micros = |name| files::number(&self.folder, name).map(|nanos| nanos / 1000);
        let service = ["blkio.throttle.io_service_bytes_recursive", "blkio.throttle.io_service_bytes"];
        let io = service.iter().find_map(|name| files::read(&self.folder, name));
        let io = io.map(|text| io_bytes(&text, &stacked_devices()));
        Usage {
            cpu_user_us: micros("cpuacct.usage_user"),
            cpu_system_us: micros("cpuacct.usage_sys"),
            peak_memory_bytes: files::number(&self.folder, "memory.max_usage_in_bytes"),
            peak_pids: files::number(&self.folder, "pids.peak"),
            io_read_bytes: io.map(|(read, _)| read),
            io_write_bytes: io.map(|(_, written)| written),
            oom_kills: self.sum("memory.oom_control", "oom_kill"),
            pids_refused: self.sum("pids.events", "max"),
        }
    }

    /// A group counts what happened in itself; this is with those below it.
    fn sum(&self, name: &str, key: &str) -> u64 {
        if !files::has(&self.folder, name) {
            return 0;
        }
        files::tree(&self.folder).iter().filter_map(|group| files::value(group, name, key)).sum()
    }
}

/// Processor time in one period, µs; the kernel wants a thousandth of a second at least.
pub(super) fn quota_us(percent: u64) -> u64 {
    percent.max(1).saturating_mul(PERIOD_US / 100)
}

/// Sets something for each block device; false when one does not take it, or there is none.
pub(super) fn set_for_each_device(set: impl Fn(&str) -> bool) -> bool {
    let devices = devices();
    !devices.is_empty() && devices.iter().all(|device| set(device))
}

/// Bytes read and written, from lines such as `8:0 Read 4096`, without the devices in `except`.
fn io_bytes(text: &str, except: &[String]) -> (u64, u64) {
    let mut sum = (0, 0);
    for line in text.lines() {
        let mut words = line.split(' ');
        let (Some(device), Some(what), Some(bytes)) = (words.next(), words.next(), words.next()) else {
            continue;
        };
        let bytes: u64 = bytes.parse().unwrap_or(0);
        match what {
            _ if except.iter().any(|other| other == device) => {}
            "Read" => sum.0 += bytes,
            "Write" => sum.1 += bytes,
            _ => {}
        }
    }
    sum
}
