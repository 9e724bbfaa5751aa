//! Each part of the kernel that a sandbox is made of, masked in turn: the profiles that need it refuse, name it, and
//! nothing has run. The host's own probe says the same.

use std::{
    path::Path,
    process::{Child, Command, Stdio},
};

use opsconductor_agent::shim::lock::Lock;
use proto::Profile;

use super::{PROFILES, PYTHON, can_try, name};
use crate::one_shim::{Shim, shell, spec};

const ENOSYS: &str = "38";
const EPERM: &str = "1";

/// What is masked, by number, and from which profile on what is named as missing.
struct Mask {
    what: &'static str,
    calls: &'static str,
    errno: &'static str,
    from: Profile,
    named: &'static str,
}

const MASKS: [Mask; 14] = [
    mask("Landlock", "444", ENOSYS, Profile::Strict, "Landlock"),
    mask("seccomp", "317", EPERM, Profile::Strict, "seccomp"),
    mask("seccomp (unknown)", "317", ENOSYS, Profile::Strict, "seccomp"),
    mask("clone3", "435", ENOSYS, Profile::Strict, "namespaces"),
    mask("namespaces", "435", EPERM, Profile::Strict, "namespaces"),
    mask("mount", "165", EPERM, Profile::Strict, "mounts of its own"),
    mask("mount_setattr", "442", ENOSYS, Profile::Strict, "temporary folder of its own"),
    mask("openat2", "437", ENOSYS, Profile::Strict, "temporary folder of its own"),
    mask("open_tree", "428", ENOSYS, Profile::Strict, "/dev of its own"),
    mask("move_mount", "429", ENOSYS, Profile::Strict, "/dev of its own"),
    mask("capset", "126", EPERM, Profile::Standard, "dropped capabilities"),
    mask("PR_CAPBSET_DROP", "157:0=24", EPERM, Profile::Standard, "dropped capabilities"),
    mask("PR_SET_NO_NEW_PRIVS", "157:0=38", EPERM, Profile::Standard, "no_new_privs"),
    mask("setresuid", "117", EPERM, Profile::Standard, "a user of its own"),
];

const fn mask(
    what: &'static str,
    calls: &'static str,
    errno: &'static str,
    from: Profile,
    named: &'static str,
) -> Mask {
    Mask { what, calls, errno, from, named }
}

/// The agent's program, started in a way that masks these.
fn masked(calls: &str, errno: &str) -> Command {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/hostile/mask.py");
    let mut command = Command::new(PYTHON);
    command.arg("-IS").arg(script).args([errno, calls, env!("CARGO_BIN_EXE_opsconductor-agent")]);
    command.env_clear().stdin(Stdio::piped()).stdout(Stdio::piped());
    command
}

/// Runs a program that leaves a file in `trace`, by a shim that `start` starts.
fn run(profile: Profile, limits: proto::Limits, start: impl Fn(&Path) -> Child) -> (proto::ExitRecord, bool) {
    let traces = tempfile::Builder::new().prefix("opsc-trace-").tempdir_in("/var/lib").unwrap();
    std::fs::set_permissions(traces.path(), std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    let mut command = shell(&format!("echo ran > {}/trace", traces.path().display()));
    command.profile = profile.into();
    command.cwd = String::new();
    command.limits = Some(limits);
    command.write = vec![traces.path().display().to_string()];
    let mut ordered = spec(command);
    (ordered.first_uid, ordered.last_uid) = model::limits::DYNAMIC_UIDS;
    let folder = tempfile::tempdir().unwrap();
    Lock::make(folder.path()).unwrap();
    let process = start(folder.path());
    let (record, _) = Shim::drive(folder, process, &ordered).finish();
    (record, traces.path().join("trace").exists())
}

#[test]
fn a_sandbox_without_a_part_is_refused_by_its_name() {
    if !can_try() {
        return;
    }
    for Mask { what, calls, errno, from, named } in MASKS {
        let found = Command::output(masked(calls, errno).args(["probe", "61184", "65519"])).unwrap();
        let found = String::from_utf8(found.stdout).unwrap();
        for profile in PROFILES {
            let start = |folder: &Path| masked(calls, errno).arg("shim").arg(folder).spawn().unwrap();
            let (record, ran) = run(profile, proto::Limits::default(), start);
            let is_refused = profile as i32 >= from as i32;
            let case = format!("{what} on {}: {record:?}", name(profile));
            if is_refused {
                assert_eq!((record.reason.as_str(), ran), ("sandbox_unavailable", false), "{case}");
                assert!(record.detail.contains(named), "{case}");
                assert_eq!(record.started_at, 0, "{case}");
            } else {
                assert_eq!((record.exit_code, ran), (Some(0), true), "{case}");
            }
            if profile != Profile::None {
                let line =
                    found.lines().find(|line| line.starts_with(&format!("sandbox.{} ", name(profile))));
                let line = line.unwrap_or_else(|| panic!("the probe says nothing: {found}"));
                assert_eq!(line.ends_with(" yes"), !is_refused, "{what}: {line}");
                assert!(!is_refused || line.contains(named), "{what}: {line}");
            }
        }
    }
}

#[test]
fn what_has_another_way_is_not_missed() {
    if !can_try() {
        return;
    }
    // close_range
    for profile in PROFILES {
        let start = |folder: &Path| masked("436", ENOSYS).arg("shim").arg(folder).spawn().unwrap();
        let (record, ran) = run(profile, proto::Limits::default(), start);
        assert_eq!((record.exit_code, ran), (Some(0), true), "{}: {record:?}", name(profile));
    }
}

#[test]
fn no_user_namespaces_no_isolated_sandbox() {
    if !can_try() {
        return;
    }
    // Root of a namespace of users in which no other may be made: the host's own bound is not touched.
    let script = "import ctypes, os, sys
ready, go = os.pipe(), os.pipe()
pid = os.fork()
if pid == 0:
    assert ctypes.CDLL(None).unshare(0x10000000) == 0
    os.write(ready[1], b'x')
    os.read(go[0], 1)
    open('/proc/sys/user/max_user_namespaces', 'w').write('0')
    os.execv(sys.argv[1], sys.argv[1:])
os.read(ready[0], 1)
for name in ['uid_map', 'gid_map']:
    open('/proc/%d/%s' % (pid, name), 'w').write('0 0 100000')
os.write(go[1], b'x')
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))";
    let start = |folder: &Path| {
        Command::new(PYTHON)
            .args(["-ISc", script, env!("CARGO_BIN_EXE_opsconductor-agent"), "shim"])
            .arg(folder)
            .env_clear()
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap()
    };
    let (record, ran) = run(Profile::Isolated, proto::Limits::default(), start);
    assert_eq!((record.reason.as_str(), ran), ("sandbox_unavailable", false), "{record:?}");
    assert!(record.detail.contains("user namespace"), "{record:?}");
}

#[test]
fn a_limit_that_nobody_enforces_is_refused_by_its_name() {
    if !can_try() {
        return;
    }
    let script = "for at in $(awk '$3 ~ /^cgroup2?$/ { print $2 }' /proc/self/mounts); do \
                  mount -t tmpfs none $at || exit 1; done; exec \"$@\"";
    let start = |folder: &Path| {
        Command::new("unshare")
            .args(["--mount", "sh", "-c", script, "sh", env!("CARGO_BIN_EXE_opsconductor-agent"), "shim"])
            .arg(folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap()
    };
    let none = proto::Limits::default();
    for (limits, named) in [
        (proto::Limits { memory_bytes: 64 << 20, ..none }, "memory limit"),
        (proto::Limits { pids: 64, ..none }, "pids limit"),
        (proto::Limits { cpu_percent: 50, ..none }, "cpu limit"),
        (proto::Limits { io_bytes_per_second: 1 << 20, ..none }, "io limit"),
    ] {
        for profile in PROFILES {
            let (record, ran) = run(profile, limits, start);
            assert_eq!((record.reason.as_str(), ran), ("sandbox_unavailable", false), "{record:?}");
            assert!(record.detail.contains(named), "{record:?}");
        }
    }
    let (record, ran) = run(Profile::Standard, none, start);
    assert_eq!((record.exit_code, ran), (Some(0), true), "{record:?}");
}
