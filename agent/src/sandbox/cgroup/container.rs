//! The group of a container. Its engine makes it, somewhere that the engine's settings say, and removes it moments after the
//! container's end.

use std::path::{Path, PathBuf};

use super::{Cgroup, host::Host, v1, v2};

/// What engines write before a container's id in its group's name.
const PREFIXES: [&str; 3] = ["", "libpod-", "docker-"];
/// What a group has behind its name where the engine has systemd make it.
const SUFFIX: &str = ".scope";
/// How many groups of a hierarchy are looked at.
const MOST_GROUPS: usize = 20_000;

impl Cgroup {
    /// The group of the container that has this id at its engine; none where no hierarchy shows one.
    pub(crate) fn of_container(id: &str) -> Option<Self> {
        Self::of_container_at(&Host::roots(), id)
    }

    fn of_container_at(roots: &Host, id: &str) -> Option<Self> {
        let v2 =
            roots.v2.as_ref().and_then(|root| find(&root.0, id)).filter(|folder| v2::Group::is_at(folder));
        let v1 = roots.v1.iter().filter(|hierarchy| hierarchy.is_wanted(false));
        let v1 =
            v1.filter_map(|hierarchy| find(&hierarchy.place.0, id)).filter(|folder| v1::Group::is_at(folder));
        let found = Self { v2: v2.map(v2::Group::at), v1: v1.map(v1::Group::at).collect() };
        (found.v2.is_some() || !found.v1.is_empty()).then_some(found)
    }
}

/// The folder of the container below this one, the highest if there are several.
fn find(root: &Path, id: &str) -> Option<PathBuf> {
    let mut all = vec![root.to_owned()];
    let mut next = 0;
    while let Some(folder) = all.get(next).filter(|_| next < MOST_GROUPS) {
        next += 1;
        let below = std::fs::read_dir(folder).into_iter().flatten().flatten();
        for entry in below.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
            if entry.file_name().to_str().is_some_and(|name| is_of(name, id)) {
                return Some(entry.path());
            }
            all.push(entry.path());
        }
    }
    None
}

/// The engine's own processes for a container may have a group that is called much the same.
fn is_of(name: &str, id: &str) -> bool {
    let name = name.strip_suffix(SUFFIX).unwrap_or(name);
    !id.is_empty() && PREFIXES.iter().any(|prefix| name.strip_prefix(prefix) == Some(id))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sandbox::cgroup::{
        Usage,
        host::{Hierarchy, Place},
    };

    #[test]
    fn the_names_that_engines_give() {
        for name in ["c0ffee", "libpod-c0ffee", "libpod-c0ffee.scope", "docker-c0ffee.scope"] {
            assert!(is_of(name, "c0ffee"), "{name}");
        }
        for name in ["libpod-conmon-c0ffee", "c0ffee1", "libpod-", "docker-c0ffee.scope.d"] {
            assert!(!is_of(name, "c0ffee"), "{name}");
        }
        assert!(!is_of("libpod-", ""));
    }

    #[test]
    fn it_is_found_in_both_versions_and_its_count_outlives_it() {
        let base = tempfile::tempdir().unwrap();
        let at = |path: &str| base.path().join(path);
        let write = |path: &str, text: &str| {
            std::fs::create_dir_all(at(path).parent().unwrap()).unwrap();
            std::fs::write(at(path), text).unwrap();
        };
        write("v2/system.slice/docker-c0ffee.scope/cgroup.events", "populated 1\n");
        write("v2/system.slice/docker-c0ffee.scope/cpu.stat", "user_usec 5\nsystem_usec 7\n");
        write("memory/libpod_parent/libpod-conmon-c0ffee/tasks", "");
        write("memory/libpod_parent/libpod-c0ffee/tasks", "1\n");
        write("memory/libpod_parent/libpod-c0ffee/memory.oom_control", "under_oom 0\noom_kill 2\n");
        write("memory/libpod_parent/libpod-c0ffee/memory.max_usage_in_bytes", "4096\n");
        let memory = Hierarchy { place: Place(at("memory")), controllers: vec!["memory".to_owned()] };
        let roots = Host { v2: Some(Place(at("v2"))), v1: vec![memory] };
        assert!(Cgroup::of_container_at(&roots, "decade").is_none());
        let group = Cgroup::of_container_at(&roots, "c0ffee").unwrap();
        let expected = Usage {
            cpu_user_us: Some(5),
            cpu_system_us: Some(7),
            peak_memory_bytes: Some(4096),
            oom_kills: 2,
            ..Usage::default()
        };
        let before = group.usage();
        assert_eq!(before, expected);
        std::fs::remove_dir_all(at("memory/libpod_parent")).unwrap();
        assert_eq!(group.usage().after(before), expected);
    }
}
