//! How often the kernel killed something in a container because its memory limit was reached. Not every engine says so; the
//! container's control group does, for as long as it is there.

use std::path::PathBuf;

const ROOT: &str = "/sys/fs/cgroup";

/// The file of the container's control group that counts.
#[derive(Debug, Default)]
pub(super) struct Kills {
    file: Option<PathBuf>,
    counted: u64,
}

impl Kills {
    /// In the group of this process of the host; 0 is none.
    pub(super) fn of(pid: u32) -> Self {
        let groups = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
        Self { file: counter(&groups), counted: 0 }
    }

    /// Looks again; what was counted stays so when the group is gone.
    pub(super) fn count(&mut self) -> u64 {
        let content = self.file.as_ref().and_then(|file| std::fs::read_to_string(file).ok());
        let found = content
            .iter()
            .flat_map(|content| content.lines())
            .find_map(|line| line.strip_prefix("oom_kill "));
        self.counted = self.counted.max(found.and_then(|count| count.parse().ok()).unwrap_or(0));
        self.counted
    }
}

/// Where version 1 of control groups counts, or else version 2; from what `/proc/PID/cgroup` says.
fn counter(groups: &str) -> Option<PathBuf> {
    let path = |wanted: &str| {
        groups.lines().find_map(|line| {
            let (_, rest) = line.split_once(':')?;
            let (controllers, path) = rest.split_once(':')?;
            controllers.split(',').any(|one| one == wanted).then_some(path)
        })
    };
    let version_1 = path("memory").map(|path| format!("{ROOT}/memory{path}/memory.oom_control"));
    version_1.or_else(|| path("").map(|path| format!("{ROOT}{path}/memory.events"))).map(PathBuf::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_versions_are_found() {
        let hybrid = "5:pids:/a\n4:cpu,memory:/libpod/b:c\n0::/d\n";
        assert_eq!(
            counter(hybrid).unwrap(),
            PathBuf::from("/sys/fs/cgroup/memory/libpod/b:c/memory.oom_control")
        );
        assert_eq!(counter("0::/d\n").unwrap(), PathBuf::from("/sys/fs/cgroup/d/memory.events"));
        assert_eq!(counter(""), None);
    }

    #[test]
    fn a_count_outlives_its_group() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("memory.events");
        std::fs::write(&file, "oom 4\noom_kill 2\n").unwrap();
        let mut kills = Kills { file: Some(file.clone()), counted: 0 };
        assert_eq!(kills.count(), 2);
        std::fs::remove_file(file).unwrap();
        assert_eq!((kills.count(), Kills::of(0).count()), (2, 0));
    }
}
