//! What each profile gives, seen by programs that run in it.

use crate::one_shim::{Shim, shell, spec};

/// Runs a line in a profile.
fn within(profile: proto::Profile, line: &str) -> (proto::ExitRecord, String) {
    in_sandbox(proto::Command { profile: profile.into(), cwd: String::new(), ..shell(line) })
}

fn in_sandbox(command: proto::Command) -> (proto::ExitRecord, String) {
    let mut spec = spec(command);
    (spec.first_uid, spec.last_uid) = model::limits::DYNAMIC_UIDS;
    let (record, output) = Shim::start(&spec).finish();
    let text = [output.stdout.data, output.stderr.data].concat();
    (record, String::from_utf8_lossy(&text).into_owned())
}

const CONFINED: [proto::Profile; 3] =
    [proto::Profile::Standard, proto::Profile::Strict, proto::Profile::Isolated];

#[test]
fn a_confined_run_is_nobody_and_can_become_nobody_else() {
    for profile in CONFINED {
        let line = "grep -E '^(Cap(Inh|Prm|Eff|Bnd|Amb)|NoNewPrivs):' /proc/self/status; id -u; umask; ulimit -c; \
                    ls -l /proc/self/fd | wc -l; test -w \"$TMPDIR\" && echo writable";
        let (record, text) = within(profile, line);
        assert_eq!(
            (record.reason.as_str(), record.exit_code),
            ("exited", Some(0)),
            "{profile:?}: {record:?} {text}"
        );
        for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
            assert!(text.contains(&format!("{set}:\t0000000000000000")), "{profile:?}: {text}");
        }
        assert!(text.contains("NoNewPrivs:\t1"), "{text}");
        assert!(text.contains("writable"), "{text}");
        assert_eq!(record.profile(), profile);
        if nix::unistd::geteuid().is_root() {
            assert!(text.contains("CapBnd:\t0000000000000000"), "{profile:?}: {text}");
            let uid: u32 = text.lines().find_map(|line| line.parse().ok()).unwrap();
            let (first, last) = model::limits::DYNAMIC_UIDS;
            assert!((first..=last).contains(&uid), "{text}");
        }
    }
}

#[test]
fn a_strict_run_reads_its_host_and_writes_its_own_folders_only() {
    let folder = tempfile::tempdir_in("/var/lib").or_else(|_| tempfile::tempdir()).unwrap();
    let path = folder.path().canonicalize().unwrap();
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    for profile in [proto::Profile::Strict, proto::Profile::Isolated] {
        let line = format!(
            "cat /etc/hostname >/dev/null && echo read; echo x > {p}/no; echo $?; ls /proc | grep -c '^[0-9]'",
            p = path.display()
        );
        let (record, text) = within(profile, &line);
        assert_eq!(record.exit_code, Some(0), "{record:?} {text}");
        assert!(text.contains("read\n"), "{profile:?}: {text}");
        assert!(!path.join("no").exists(), "{profile:?}: {text}");
        // Its own init, its shell, and what that runs.
        let seen: u32 = text.lines().rev().find_map(|line| line.parse().ok()).unwrap();
        assert!(seen <= 5, "{profile:?} sees {seen} processes: {text}");

        let mut command = shell(&format!("echo x > {}/yes; echo y > /tmp/t && cat /tmp/t", path.display()));
        command.profile = profile.into();
        command.cwd = String::new();
        command.write = vec![path.display().to_string()];
        let (record, text) = in_sandbox(command);
        assert_eq!(record.exit_code, Some(0), "{profile:?}: {record:?} {text}");
        assert!(path.join("yes").exists(), "{profile:?}: {text}");
        std::fs::remove_file(path.join("yes")).unwrap();
    }
}

#[test]
fn an_isolated_run_has_no_network_and_others_do() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let line = format!("exec 3<>/dev/tcp/127.0.0.1/{port} && echo through");
    for (profile, through) in
        [(proto::Profile::Standard, true), (proto::Profile::Strict, true), (proto::Profile::Isolated, false)]
    {
        let mut command = crate::one_shim::argv(&["bash", "-c", &line]);
        command.profile = profile.into();
        let (record, text) = in_sandbox(command);
        assert_eq!(text.contains("through"), through, "{profile:?}: {record:?} {text}");
    }
}

#[test]
fn a_sandbox_that_nobody_decided_on_starts_nothing() {
    let (record, _) = within(proto::Profile::HostDefault, "true");
    assert_eq!(record.reason, "sandbox_unavailable");
    assert_eq!(record.started_at, 0);
}

#[test]
fn ends_are_told_through_the_init() {
    for profile in
        [proto::Profile::None, proto::Profile::Standard, proto::Profile::Strict, proto::Profile::Isolated]
    {
        let (record, _) = within(profile, "exit 7");
        assert_eq!((record.exit_code, record.signal), (Some(7), None), "{profile:?}: {record:?}");
        let (record, _) = within(profile, "kill -KILL $$");
        assert_eq!((record.reason.as_str(), record.signal), ("signaled", Some(9)), "{profile:?}: {record:?}");
        let (record, text) = within(profile, "trap 'echo asked; exit 3' TERM; kill $$; sleep 5");
        assert_eq!(record.exit_code, Some(3), "{profile:?}: {record:?} {text}");
        let (record, _) = within(profile, "sleep 1000 & setsid sleep 1000 & exit 0");
        assert!(record.detail.contains("2 processes that it left behind"), "{profile:?}: {record:?}");
        let (record, _) = within(profile, "no-such-program-here; exit 0");
        assert_eq!(record.exit_code, Some(0), "{profile:?}");
        let mut command = crate::one_shim::argv(&["no-such-program"]);
        command.profile = profile.into();
        let (record, _) = in_sandbox(command);
        assert_eq!(record.reason, "program_not_found", "{profile:?}: {record:?}");
    }
}

/// Leaves what it can where everybody may write, and says what.
const LEAVES: &str = "import ctypes, os
for folder in ['/tmp', '/var/tmp', '/dev/shm']:
    path = '%s/opsc-left-%d' % (folder, os.getpid())
    os.mkdir(path)
    open(path + '/file', 'w').write('x')
    os.chmod(path + '/file', 0o4755)
    print(path)
assert ctypes.CDLL(None).shmget(0, 4096, 0o1666) >= 0
print(os.getuid())";

#[test]
fn a_user_of_one_run_leaves_nothing_to_the_next() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("SKIPPED: only root lends users");
        return;
    }
    let mut command = crate::one_shim::argv(&["python3", "-c", LEAVES]);
    command.profile = proto::Profile::Standard.into();
    let (record, text) = in_sandbox(command);
    assert_eq!(record.exit_code, Some(0), "{record:?} {text}");
    let (paths, uids): (Vec<&str>, Vec<&str>) = text.lines().partition(|line| line.starts_with('/'));
    assert_eq!((paths.len(), uids.len()), (3, 1), "{text}");
    for path in paths {
        assert!(!std::path::Path::new(path).exists(), "{path} was left");
    }
    let memory = std::fs::read_to_string("/proc/sysvipc/shm").unwrap();
    let left = memory.lines().find(|line| line.split_whitespace().any(|word| word == uids[0]));
    assert_eq!(left, None);
    let lock = std::path::Path::new("/run/opsconductor/users").join(uids[0]);
    assert_eq!(std::fs::metadata(lock).unwrap().len(), 0, "nothing is left to be removed");
}

/// More processes than it may have; it fails at the first that it is refused.
const FORKS: &str = "import os, time
for _ in range(30):
    if os.fork() == 0:
        time.sleep(100)";

#[test]
fn limits_have_names() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: only root makes control groups here");
        return;
    }
    for profile in CONFINED {
        let limited = |limits, words: &[&str]| {
            let mut command = crate::one_shim::argv(words);
            command.profile = profile.into();
            command.limits = Some(limits);
            in_sandbox(command).0
        };
        let memory = proto::Limits { memory_bytes: 32 << 20, ..proto::Limits::default() };
        let record = limited(memory, &["python3", "-c", "x = bytearray(200 << 20)"]);
        assert_eq!(record.reason, "memory_limit", "{profile:?}: {record:?}");
        assert!(record.out_of_memory && record.peak_memory_bytes > 16 << 20, "{record:?}");
        let pids = proto::Limits { pids: 8, ..proto::Limits::default() };
        let record = limited(pids, &["python3", "-c", FORKS]);
        assert_eq!(record.reason, "pids_limit", "{profile:?}: {record:?}");
        let file = proto::Limits { file_bytes: 1 << 20, ..proto::Limits::default() };
        let record = limited(file, &["bash", "-c", "head -c 10000000 /dev/zero > $TMPDIR/big"]);
        assert_ne!(record.exit_code, Some(0), "{profile:?}: {record:?}");
    }
}
