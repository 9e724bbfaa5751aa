//! With folders that look like those of the kernel: what this host has not.

use super::*;

/// A folder with files as a group of version 2 has them.
fn group(files: &[(&str, &str)]) -> (tempfile::TempDir, Cgroup) {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        std::fs::write(folder.path().join(name), text).unwrap();
    }
    let group = v2::Group::at(folder.path().to_owned());
    (folder, Cgroup { v2: Some(group), v1: Vec::new() })
}

fn read(folder: &tempfile::TempDir, name: &str) -> String {
    std::fs::read_to_string(folder.path().join(name)).unwrap()
}

const ALL_FILES: [(&str, &str); 6] = [
    ("memory.max", "max\n"),
    ("memory.swap.max", "max\n"),
    ("memory.oom.group", "0\n"),
    ("pids.max", "max\n"),
    ("cpu.max", "max 100000\n"),
    ("io.max", ""),
];

#[test]
fn limits_are_written_as_version_2_wants_them() {
    let (folder, group) = group(&ALL_FILES);
    let devices = usage::devices();
    let expected: &[&str] = if devices.is_empty() { &[IO_LIMIT] } else { &[] };
    assert_eq!(group.limit(&EVERYTHING), expected);
    assert_eq!(read(&folder, "memory.max"), "67108864");
    assert_eq!(read(&folder, "memory.swap.max"), "0");
    assert_eq!(read(&folder, "memory.oom.group"), "1");
    assert_eq!(read(&folder, "pids.max"), "8");
    assert_eq!(read(&folder, "cpu.max"), "250000 100000");
    if let Some(last) = devices.last() {
        assert_eq!(read(&folder, "io.max"), format!("{last} rbps=1048576 wbps=1048576"));
    }
}

#[test]
fn without_limits_nothing_is_written() {
    let (folder, group) = group(&ALL_FILES);
    assert_eq!(group.limit(&NOTHING), [""; 0]);
    for (name, text) in ALL_FILES {
        assert_eq!(read(&folder, name), text, "{name}");
    }
}

#[test]
fn a_limit_without_its_controller_is_missing_and_no_file_is_made() {
    let (folder, group) = group(&ALL_FILES[3..4]);
    assert_eq!(group.limit(&EVERYTHING), [MEMORY_LIMIT, CPU_LIMIT, IO_LIMIT]);
    assert_eq!(group.limit(&Limits { pids: Some(1), ..NOTHING }), [""; 0]);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn a_limit_that_is_refused_is_missing() {
    let (folder, group) = group(&[]);
    for (name, _) in ALL_FILES {
        // What cannot be written even by root.
        std::fs::create_dir(folder.path().join(name)).unwrap();
    }
    assert_eq!(group.limit(&EVERYTHING), ALL_NAMES);
}

#[test]
fn memory_that_may_be_swapped_out_is_not_limited() {
    let (folder, group) = group(&ALL_FILES[..1]);
    let limits = Limits { memory_bytes: Some(1), ..NOTHING };
    assert_eq!(group.limit(&limits), [""; 0], "a host that does not count swap");
    std::fs::create_dir(folder.path().join("memory.swap.max")).unwrap();
    assert_eq!(group.limit(&limits), [MEMORY_LIMIT]);
}

#[test]
fn limits_may_be_as_small_and_as_large_as_they_like() {
    let (folder, group) = group(&ALL_FILES);
    group.limit(&Limits { cpu_percent: Some(0), ..NOTHING });
    assert_eq!(read(&folder, "cpu.max"), "1000 100000");
    group.limit(&Limits { cpu_percent: Some(u64::MAX), memory_bytes: Some(u64::MAX), ..NOTHING });
    assert_eq!(read(&folder, "cpu.max"), format!("{} 100000", u64::MAX));
    assert_eq!(read(&folder, "memory.max"), u64::MAX.to_string());
}

#[test]
fn what_version_2_counts_is_read() {
    let (_folder, group) = group(&[
        ("cpu.stat", "usage_usec 900\nuser_usec 600\nsystem_usec 300\nnr_periods 2\n"),
        ("memory.peak", "5242880\n"),
        ("memory.events", "low 0\nhigh 0\nmax 12\noom 3\noom_kill 2\noom_group_kill 1\n"),
        ("pids.peak", "7\n"),
        ("pids.events", "max 5\n"),
        (
            "io.stat",
            "999:0 rbytes=4096 wbytes=10 rios=1 wios=1 dbytes=0 dios=0\n999:1 rbytes=1 wbytes=2\n999:2 \n",
        ),
    ]);
    let expected = Usage {
        cpu_user_us: Some(600),
        cpu_system_us: Some(300),
        peak_memory_bytes: Some(5_242_880),
        peak_pids: Some(7),
        io_read_bytes: Some(4097),
        io_write_bytes: Some(12),
        oom_kills: 2,
        pids_refused: 5,
    };
    assert_eq!(group.usage(), expected);
}

#[test]
fn what_is_not_counted_or_not_readable_is_none() {
    let (folder, group) =
        group(&[("memory.peak", "max\n"), ("cpu.stat", "user_usec many\n"), ("pids.peak", "")]);
    std::fs::create_dir(folder.path().join("io.stat")).unwrap();
    std::fs::write(folder.path().join("memory.events"), [0xff, 0xfe]).unwrap();
    assert_eq!(group.usage(), Usage::default());
}

#[test]
fn one_folder_knows_what_the_other_does_not() {
    let (_v2_folder, v2) = group(&[("cpu.stat", "user_usec 6\nsystem_usec 3\n")]);
    let (v1_folder, _) = group(&[
        ("cpuacct.usage_user", "9000\n"),
        ("memory.max_usage_in_bytes", "4096\n"),
        ("memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 1\n"),
        (
            "blkio.throttle.io_service_bytes",
            "999:0 Read 5\n999:0 Write 6\n999:0 Sync 11\n999:0 Total 11\nTotal 11\n",
        ),
    ]);
    std::fs::create_dir(v1_folder.path().join("below")).unwrap();
    std::fs::write(v1_folder.path().join("below/memory.oom_control"), "oom_kill 2\n").unwrap();
    let group = Cgroup { v2: v2.v2, v1: vec![v1::Group::at(v1_folder.path().to_owned())] };
    let expected = Usage {
        cpu_user_us: Some(6),
        cpu_system_us: Some(3),
        peak_memory_bytes: Some(4096),
        io_read_bytes: Some(5),
        io_write_bytes: Some(6),
        oom_kills: 3,
        ..Usage::default()
    };
    assert_eq!(group.usage(), expected);
}

#[test]
fn version_2_is_killed_with_one_write() {
    let (folder, group) = group(&[("cgroup.kill", ""), ("cgroup.events", "populated 1\nfrozen 0\n")]);
    assert!(group.can_kill() && group.is_populated());
    group.kill().unwrap();
    assert_eq!(read(&folder, "cgroup.kill"), "1");
    std::fs::write(folder.path().join("cgroup.events"), "populated 0\nfrozen 0\n").unwrap();
    assert!(!group.is_populated());
}

#[test]
fn an_old_version_2_is_killed_one_by_one() {
    for freezes in [true, false] {
        let mut child = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        // A process of another pid namespace is listed as 0, which must not be taken for this one's own group.
        let listed = format!("0\n{}\n", child.id());
        let (folder, group) = group(&[("cgroup.procs", &listed), ("cgroup.events", "populated 0\n")]);
        if freezes {
            std::fs::write(folder.path().join("cgroup.freeze"), "0").unwrap();
        }
        assert_eq!((group.can_kill(), group.can_freeze()), (freezes, freezes));
        group.kill().unwrap();
        if freezes {
            assert_eq!(read(&folder, "cgroup.freeze"), "0", "they are let go");
        }
        assert!(!child.wait().unwrap().success());
    }
}

fn agent_at(root: &Path, unit: &str, controllers: &str) -> Host {
    let own = root.join(unit);
    std::fs::create_dir_all(&own).unwrap();
    for folder in own.ancestors().take_while(|folder| folder.starts_with(root)) {
        std::fs::write(folder.join("cgroup.controllers"), controllers).unwrap();
        std::fs::write(folder.join("cgroup.subtree_control"), "").unwrap();
    }
    Host { v2: Some(Place(own)), v1: Vec::new() }
}

#[test]
fn an_agent_that_systemd_put_in_a_leaf_enables_what_its_unit_has() {
    let root = tempfile::tempdir().unwrap();
    let unit = root.path().join("system.slice/opsconductor-agent.service");
    let host = agent_at(&unit, "opsconductor-agent", "cpuset cpu io memory pids\n");
    let leaf = unit.join("opsconductor-agent");
    std::fs::write(leaf.join("cgroup.procs"), "").unwrap();
    std::fs::write(leaf.join("cpu.weight"), "100\n").unwrap();
    assert_eq!(settle::settle(&host), [""; 0]);
    assert_eq!(files::read(&leaf, "cgroup.procs").unwrap(), std::process::id().to_string());
    assert_eq!(files::read(&leaf, "cpu.weight").unwrap(), "10000");
    assert_eq!(files::read(&unit, "cgroup.subtree_control").unwrap(), "+io", "the last of the writes");
    assert_eq!(files::read(&leaf, "cgroup.subtree_control").unwrap(), "");

    // Nothing is enabled twice.
    std::fs::write(unit.join("cgroup.subtree_control"), "cpu io memory pids\n").unwrap();
    assert_eq!(settle::settle(&host), [""; 0]);
    assert_eq!(files::read(&unit, "cgroup.subtree_control").unwrap(), "cpu io memory pids\n");

    let Created { group, missing } = Cgroup::create_at(&host, "x", &EVERYTHING);
    assert!(group.is_none() && !unit.join("opsconductor-x").exists(), "a mere folder is no group");
    assert_eq!(missing, ALL_NAMES);
    assert_eq!(host.v2.as_ref().unwrap().home(), unit);
}

#[test]
fn what_the_unit_has_not_is_said() {
    let root = tempfile::tempdir().unwrap();
    let host = agent_at(root.path(), "unit/opsconductor-agent", "pids\n");
    std::fs::write(root.path().join("unit/opsconductor-agent/cgroup.procs"), "").unwrap();
    let trouble = settle::settle(&host);
    assert_eq!(trouble.len(), 3, "{trouble:?}");
    assert!(trouble[0].ends_with("no controller 'memory'"), "{trouble:?}");
}

#[test]
fn a_unit_that_takes_the_next_agent_too_is_not_closed_to_it() {
    let root = tempfile::tempdir().unwrap();
    let host = agent_at(root.path(), "system.slice/opsconductor-agent.service", "cpu io memory pids\n");
    let trouble = settle::settle(&host);
    assert!(trouble[0].contains("DelegateSubgroup=opsconductor-agent"), "{trouble:?}");
    let unit = &host.v2.as_ref().unwrap().0;
    assert_eq!(files::read(unit, "cgroup.subtree_control").unwrap(), "");
    assert!(!unit.join("opsconductor-agent").exists());
}

#[test]
fn in_its_own_slice_the_runs_are_beside_the_unit() {
    let root = tempfile::tempdir().unwrap();
    let host = agent_at(root.path(), "opsconductor.slice/opsconductor-agent.service", "cpu io memory pids\n");
    let slice = root.path().join("opsconductor.slice");
    settle::settle(&host);
    assert_eq!(files::read(&slice, "cgroup.subtree_control").unwrap(), "+io");
    assert_eq!(host.v2.as_ref().unwrap().home(), slice.join("opsconductor-runs"));
    let unit = &host.v2.as_ref().unwrap().0;
    assert_eq!(files::read(unit, "cgroup.subtree_control").unwrap(), "");
}

#[test]
fn a_host_that_lets_nothing_be_written_is_told_and_left_alone() {
    let root = tempfile::tempdir().unwrap();
    let host = agent_at(root.path(), "", "cpu io memory pids\n");
    // A file where a group would be made: as on a file system that is read-only.
    std::fs::write(root.path().join("opsconductor-agent"), "").unwrap();
    std::fs::write(root.path().join("opsconductor-x"), "").unwrap();
    assert_eq!(settle::settle(&host).len(), 1);
    let Created { group, missing } = Cgroup::create_at(&host, "x", &EVERYTHING);
    assert!(group.is_none());
    assert_eq!(missing, ALL_NAMES);
    assert_eq!(Cgroup::create_at(&Host::default(), "x", &NOTHING).missing, [""; 0]);
    assert_eq!(abilities(&Host::default()), Abilities::default());
}

#[test]
fn places_are_read_from_what_the_kernel_says() {
    let both = Host::parse(
        "4:memory:/a/b\n2:cpu,cpuacct:/\n1:name=systemd:/x\n0::/y z\n",
        "35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n\
         36 31 0:33 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu,cpuacct\n\
         41 31 0:38 / /mnt/with\\040blank rw shared:1 master:2 - cgroup2 none rw,nsdelegate\n\
         42 31 0:39 / /tmp rw - tmpfs tmpfs rw\n",
    );
    assert_eq!(both.v2, Some(Place("/mnt/with blank/y z".into())));
    let names = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
    let memory =
        Hierarchy { place: Place("/sys/fs/cgroup/memory/a/b".into()), controllers: names(&["memory"]) };
    let cpu =
        Hierarchy { place: Place("/sys/fs/cgroup/cpu".into()), controllers: names(&["cpu", "cpuacct"]) };
    assert_eq!(both.v1, [memory, cpu]);
    assert!(both.v1.iter().all(|hierarchy| hierarchy.is_wanted(false)));

    // In a container: the mount shows a part of the hierarchy, or not the part that this process is in.
    let mount = "1 2 0:3 /docker/1 /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n";
    assert_eq!(
        Host::parse("4:memory:/docker/1/c\n", mount).v1[0].place,
        Place("/sys/fs/cgroup/memory/c".into())
    );
    assert_eq!(Host::parse("4:memory:/docker/2\n", mount), Host::default());
    assert_eq!(Host::parse("0::/../..\n", "1 2 0:3 / /c rw - cgroup2 none rw\n"), Host::default());
    assert_eq!(Host::parse("", ""), Host::default());
}
