//! What a group has used, and the block devices that it used.

use std::path::Path;

const BLOCK_DEVICES: &str = "/sys/block";

/// What the processes of a group have used together. None is what this host does not count.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    pub cpu_user_us: Option<u64>,
    pub cpu_system_us: Option<u64>,
    /// Memory and page cache.
    pub peak_memory_bytes: Option<u64>,
    /// Processes and threads.
    pub peak_pids: Option<u64>,
    /// From and to block devices. With version 1 only what did not go through the page cache, or was read.
    pub io_read_bytes: Option<u64>,
    pub io_write_bytes: Option<u64>,
    /// Processes that were killed because the group had no memory left.
    pub oom_kills: u64,
    /// Processes and threads that were not made because there were too many.
    pub pids_refused: u64,
}

impl Usage {
    /// What is known no longer is as it was at an earlier look at the same group.
    pub(crate) fn after(self, earlier: Self) -> Self {
        Self {
            oom_kills: self.oom_kills.max(earlier.oom_kills),
            pids_refused: self.pids_refused.max(earlier.pids_refused),
            ..self.or(earlier)
        }
    }

    /// What another folder of the same group knows is added to what this one does not.
    pub(super) fn or(self, other: Self) -> Self {
        Self {
            cpu_user_us: self.cpu_user_us.or(other.cpu_user_us),
            cpu_system_us: self.cpu_system_us.or(other.cpu_system_us),
            peak_memory_bytes: self.peak_memory_bytes.or(other.peak_memory_bytes),
            peak_pids: self.peak_pids.or(other.peak_pids),
            io_read_bytes: self.io_read_bytes.or(other.io_read_bytes),
            io_write_bytes: self.io_write_bytes.or(other.io_write_bytes),
            oom_kills: self.oom_kills + other.oom_kills,
            pids_refused: self.pids_refused + other.pids_refused,
        }
    }
}

/// The numbers `MAJOR:MINOR` of the block devices that hold something.
pub(super) fn devices() -> Vec<String> {
    devices_where(|folder| number(&folder.join("size")).is_some_and(|sectors| sectors > 0))
}

/// Those that are made of others, which count the same bytes again.
pub(super) fn stacked_devices() -> Vec<String> {
    devices_where(|folder| {
        std::fs::read_dir(folder.join("slaves")).is_ok_and(|mut below| below.next().is_some())
    })
}

fn devices_where(is_wanted: impl Fn(&Path) -> bool) -> Vec<String> {
    let all = std::fs::read_dir(BLOCK_DEVICES).into_iter().flatten().flatten().map(|entry| entry.path());
    let wanted = all.filter(|folder| is_wanted(folder));
    let numbers = wanted.filter_map(|folder| std::fs::read_to_string(folder.join("dev")).ok());
    numbers.map(|number| number.trim().to_owned()).collect()
}

fn number(file: &Path) -> Option<u64> {
    std::fs::read_to_string(file).ok()?.trim().parse().ok()
}
