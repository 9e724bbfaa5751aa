//! What confines a container is there, or it does not run.

use model::Reason;
use opsconductor_tests::podman::{Does, IMAGE_WITH_VOLUME, WITHOUT_FILTER};

use super::{alone, engine, engine_with};
use crate::one_shim::{Shim, shell};

fn every_limit() -> proto::Limits {
    proto::Limits {
        memory_bytes: 64 << 20,
        pids: 16,
        cpu_percent: 50,
        io_bytes_per_second: 10_000_000,
        open_files: 256,
        file_bytes: 8 << 20,
    }
}

/// What the kernel holds of them, seen from within.
#[test]
fn every_limit_is_the_kernels() {
    let Some(engine) = engine() else { return };
    let line = "ulimit -n; ulimit -c; \
                cat /sys/fs/cgroup/memory/memory.memsw.limit_in_bytes /sys/fs/cgroup/memory.swap.max 2>/dev/null; \
                cat /sys/fs/cgroup/blkio/blkio.throttle.read_bps_device \
                /sys/fs/cgroup/blkio/blkio.throttle.write_bps_device /sys/fs/cgroup/io.max 2>/dev/null; \
                (dd if=/dev/zero of=/tmp/big bs=1048576 count=16) 2>/dev/null; ls -l /tmp/big";
    let limited = proto::Command { limits: Some(every_limit()), ..alone(shell(line)) };
    let (record, output) = engine.run(limited);
    let said = output.text();
    assert_eq!(record.exit_code, Some(0), "{record:?} {said}");
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(&lines[..2], ["256", "0"], "open files, core: {said}");
    assert!(["67108864", "0"].contains(&lines[2]), "swap: {said}");
    let throttled = lines[3..].iter().filter(|line| line.contains("10000000")).count();
    assert!(throttled >= 1, "{said}");
    assert!(throttled >= 2 || lines[3].contains("rbps=10000000 wbps=10000000"), "both ways: {said}");
    let big: u64 = lines.last().unwrap().split_whitespace().nth(4).unwrap().parse().unwrap();
    assert_eq!(big, 8 << 20, "{said}");
}

/// An engine that makes the container without something, as one does whose kernel or settings lack it.
#[test]
fn what_the_engine_left_out_is_named_and_nothing_runs() {
    let Some(engine) = engine() else { return };
    let cases: [(&'static [&'static str], &str); 13] = [
        (&["HostConfig/Memory", "HostConfig/MemorySwap"], "memory limit"),
        (&["HostConfig/MemorySwap"], "swap limit"),
        (&["HostConfig/PidsLimit"], "pids limit"),
        (&["HostConfig/NanoCpus"], "cpu limit"),
        (&["HostConfig/BlkioDeviceReadBps"], "io limit"),
        (&["HostConfig/BlkioDeviceWriteBps"], "io limit"),
        (&["HostConfig/Ulimits"], "limit 'fsize'"),
        (&["HostConfig/CapDrop"], "dropped capabilities"),
        (&["HostConfig/SecurityOpt"], "no_new_privs, seccomp"),
        (&["HostConfig/ReadonlyRootfs"], "read-only file system"),
        (&["HostConfig/NetworkMode"], "no network"),
        (&["HostConfig/Init"], "an init"),
        (&["User"], "its user"),
    ];
    for (forgotten, named) in cases {
        let between = engine.0.between(Does::Forget(forgotten));
        let ordered = proto::Command { limits: Some(every_limit()), ..alone(shell("echo ran")) };
        let mut spec = engine.spec(ordered);
        spec.engine = between.socket().display().to_string();
        let (record, output) = engine.finish(Shim::start(&spec));
        assert_eq!(record.reason, Reason::SandboxUnavailable.as_str(), "{forgotten:?}: {record:?}");
        assert!(record.detail.contains(named), "{forgotten:?}: {record:?}");
        assert_eq!((record.started_at, output.text()), (0, ""), "{record:?}");
    }
}

/// An engine without a filter of its own shows whose filter it is.
#[test]
fn the_profiles_own_filter_of_system_calls_holds() {
    let Some(engine) = engine_with(WITHOUT_FILTER) else { return };
    let line = "unshare -U true && echo namespace; mount -t tmpfs none /tmp 2>&1 && echo mounted; \
                ip link show >/dev/null 2>&1 && echo netlink; \
                dd if=/dev/zero of=/tmp/file bs=1024 count=1 2>/dev/null; (sleep 0 & wait); cat /tmp/file | head -c 1 \
                >/dev/null; grep Seccomp: /proc/self/status; echo end";
    for (profile, allowed) in [
        (proto::Profile::Standard, &["namespace", "netlink"][..]),
        (proto::Profile::Strict, &["netlink"]),
        (proto::Profile::Isolated, &[]),
    ] {
        let (record, output) = engine.run(proto::Command { profile: profile.into(), ..shell(line) });
        let said = output.text();
        assert_eq!(record.exit_code, Some(0), "{profile:?}: {record:?} {said}");
        assert!(said.ends_with("end\n"), "{profile:?}: {said}");
        for call in ["namespace", "netlink", "mounted"] {
            assert_eq!(said.contains(call), allowed.contains(&call), "{profile:?}, {call}: {said}");
        }
        assert_eq!(said.contains("Seccomp:\t2"), profile != proto::Profile::Standard, "{profile:?}: {said}");
    }
}

#[test]
fn an_image_with_volumes_is_none_for_a_file_system_that_can_only_be_read() {
    let Some(engine) = engine() else { return };
    engine.0.make_image_with_volume();
    let line = "touch /data/file && echo written";
    for (profile, runs) in
        [(proto::Profile::Standard, true), (proto::Profile::Strict, false), (proto::Profile::Isolated, false)]
    {
        let image = IMAGE_WITH_VOLUME.to_owned();
        // What an image has there is root's.
        let user = "nobody".to_owned();
        let line = if runs { "ls -d /data && echo written" } else { line };
        let ordered = proto::Command { image, user, profile: profile.into(), ..shell(line) };
        let (record, output) = engine.run(ordered);
        assert_eq!(output.text().contains("written"), runs, "{profile:?}: {record:?} {}", output.text());
        if !runs {
            assert_eq!(record.reason, Reason::SandboxUnavailable.as_str(), "{record:?}");
            assert!(
                record.detail.contains("/data") && record.detail.contains(IMAGE_WITH_VOLUME),
                "{record:?}"
            );
        }
    }
}
