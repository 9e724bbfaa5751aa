use bollard::models::{ContainerConfig, DeviceMapping, HostConfigLogConfig};

use super::*;

fn device(path: &str, rate: i64) -> ThrottleDevice {
    ThrottleDevice { path: Some(path.to_owned()), rate: Some(rate) }
}

fn ulimit(name: &str, value: i64) -> ResourcesUlimits {
    ResourcesUlimits { name: Some(name.to_owned()), soft: Some(value), hard: Some(value) }
}

fn words(words: &[&str]) -> Option<Vec<String>> {
    Some(words.iter().map(|&word| word.to_owned()).collect())
}

fn asked() -> Asked {
    let bind = |target: &str, read_only| Mount {
        source: Some("/srv".to_owned()),
        target: Some(target.to_owned()),
        read_only: Some(read_only),
        ..Default::default()
    };
    let host = HostConfig {
        memory: Some(1 << 20),
        memory_swap: Some(1 << 20),
        pids_limit: Some(10),
        nano_cpus: Some(500_000_000),
        blkio_device_read_bps: Some(vec![device("/dev/a", 100), device("/dev/b", 100)]),
        blkio_device_write_bps: Some(vec![device("/dev/a", 100), device("/dev/b", 100)]),
        ulimits: Some(vec![ulimit("core", 0), ulimit("nofile", 64)]),
        cap_drop: words(&["ALL"]),
        security_opt: words(&["no-new-privileges", "seccomp=/filter"]),
        privileged: Some(false),
        init: Some(true),
        network_mode: Some("none".to_owned()),
        readonly_rootfs: Some(true),
        log_config: Some(HostConfigLogConfig { typ: Some("none".to_owned()), config: None }),
        mounts: Some(vec![bind("/in", true), bind("/out", false)]),
        ..Default::default()
    };
    Asked { host, user: Some("5:5".to_owned()) }
}

/// As engines tell of one that is as it was asked to be; podman and Docker write some of it in other words.
fn made() -> ContainerInspectResponse {
    let point = |target: &str, rw| MountPoint {
        typ: Some("bind".to_owned()),
        source: Some("/srv".to_owned()),
        destination: Some(target.to_owned()),
        rw: Some(rw),
        ..Default::default()
    };
    let host = HostConfig {
        nano_cpus: None,
        cpu_quota: Some(50_000),
        cpu_period: Some(100_000),
        ulimits: Some(vec![ulimit("RLIMIT_NOFILE", 64), ulimit("RLIMIT_CORE", 0)]),
        cap_drop: words(&["CHOWN", "KILL"]),
        cap_add: Some(Vec::new()),
        ..asked().host
    };
    ContainerInspectResponse {
        host_config: Some(host),
        config: Some(ContainerConfig { user: Some("5:5".to_owned()), ..Default::default() }),
        mounts: Some(vec![point("/out", true), point("/in", false)]),
        ..Default::default()
    }
}

#[test]
fn one_that_is_as_it_was_asked_to_be_is_taken() {
    asked().compare(Some(&made())).unwrap();
    let docker = HostConfig {
        cap_drop: words(&["ALL"]),
        cap_add: None,
        security_opt: words(&["no-new-privileges:true", "seccomp=/filter"]),
        ..asked().host
    };
    asked().compare(Some(&ContainerInspectResponse { host_config: Some(docker), ..made() })).unwrap();
    assert!(asked().compare(None).is_err());
    assert!(asked().compare(Some(&ContainerInspectResponse::default())).is_err());
}

#[test]
fn whatever_is_weaker_is_named() {
    type Weaken = fn(&mut HostConfig);
    let cases: [(&str, Weaken); 25] = [
        ("memory limit", |host| host.memory = Some(0)),
        ("memory limit", |host| host.memory = Some(2 << 20)),
        ("swap limit", |host| host.memory_swap = Some(-1)),
        ("swap limit", |host| host.memory_swap = None),
        ("pids limit", |host| host.pids_limit = None),
        ("cpu limit", |host| host.cpu_quota = Some(0)),
        ("io limit", |host| host.blkio_device_read_bps = None),
        ("io limit", |host| host.blkio_device_write_bps = Some(vec![device("/dev/a", 100)])),
        ("io limit", |host| {
            host.blkio_device_write_bps = Some(vec![device("/dev/a", 0), device("/dev/b", 101)]);
        }),
        ("limit 'core', limit 'nofile'", |host| host.ulimits = None),
        ("limit 'nofile'", |host| host.ulimits = Some(vec![ulimit("core", 0), ulimit("nofile", 65)])),
        ("limit 'core'", |host| host.ulimits = Some(vec![ulimit("core", -1), ulimit("nofile", 64)])),
        ("dropped capabilities", |host| host.cap_drop = None),
        ("dropped capabilities", |host| host.cap_add = words(&["SYS_ADMIN"])),
        ("no_new_privs", |host| host.security_opt = words(&["seccomp=/filter"])),
        ("no_new_privs", |host| host.security_opt = words(&["no-new-privileges:false", "seccomp=/filter"])),
        ("seccomp", |host| host.security_opt = words(&["no-new-privileges"])),
        ("seccomp", |host| host.security_opt = words(&["no-new-privileges", "seccomp=unconfined"])),
        ("no privileges", |host| host.privileged = Some(true)),
        ("devices of its own", |host| host.devices = Some(vec![DeviceMapping::default()])),
        ("read-only file system", |host| host.readonly_rootfs = None),
        ("no network", |host| host.network_mode = Some("bridge".to_owned())),
        ("/proc of its own", |host| host.pid_mode = Some("host".to_owned())),
        ("no log at its engine", |host| host.log_config = None),
        ("an init", |host| host.init = None),
    ];
    for (named, weaken) in cases {
        let mut made = made();
        weaken(made.host_config.as_mut().unwrap());
        assert_eq!(asked().compare(Some(&made)).unwrap_err(), named);
    }
    let mut other = made();
    other.config = None;
    assert_eq!(asked().compare(Some(&other)).unwrap_err(), "its user");
}

#[test]
fn folders_are_those_that_were_asked_for() {
    let compare = |change: fn(&mut Vec<MountPoint>)| {
        let mut made = made();
        change(made.mounts.as_mut().unwrap());
        asked().compare(Some(&made))
    };
    assert_eq!(compare(|mounts| drop(mounts.pop())).unwrap_err(), "the folder '/in'");
    let writable = compare(|mounts| mounts[1].rw = Some(true)).unwrap_err();
    assert_eq!(writable, "the folder '/in', no folder that was not asked for ('/in')");
    for (kind, is_refused) in [("bind", true), ("volume", true), ("tmpfs", false)] {
        let mut made = made();
        let strange = MountPoint {
            typ: Some(kind.to_owned()),
            destination: Some("/strange".to_owned()),
            ..Default::default()
        };
        made.mounts.as_mut().unwrap().push(strange);
        assert_eq!(asked().compare(Some(&made)).is_err(), is_refused, "{kind}");
        let mut open = asked();
        open.host.readonly_rootfs = Some(false);
        assert_eq!(open.compare(Some(&made)).is_err(), kind == "bind", "{kind}");
    }
}

#[test]
fn a_warning_refuses_where_a_limit_was_wanted() {
    let warnings = ["cpu is discarded".to_owned()];
    let said = asked().check(&warnings, Some(&made())).unwrap_err();
    assert_eq!(said, "its engine warned: cpu is discarded");
    let without = HostConfig { memory: None, memory_swap: None, nano_cpus: None, ..asked().host };
    let without = HostConfig { blkio_device_read_bps: None, blkio_device_write_bps: None, ..without };
    let asked_less = Asked { host: without, ..asked() };
    asked_less.check(&warnings, Some(&made())).unwrap();
    let named = asked_less.check(&warnings, None).unwrap_err();
    assert!(named.ends_with("(its engine warned: cpu is discarded)"), "{named}");
}
