//! Those that look, and the one that removes old logs.

use std::process::Command;

use opsconductor_tests::World;
use serde_json::json;

use super::{example, has_hosts, host::Host, run, states, step};

/// Makes a file that was last written so many days ago.
fn old(host: &Host, path: &str, days: u32) {
    host.write(path, "a line\n");
    let date = format!("{days} days ago");
    let touched = Command::new("touch").args(["-d", &date]).arg(host.path(path)).status();
    assert!(touched.expect("there is touch").success());
}

#[tokio::test]
async fn kernels_and_what_waits_for_a_restart() {
    if !has_hosts() {
        return;
    }
    let world = World::start().await;
    let hosts = [Host::start(&world, "a").await, Host::start(&world, "b").await];
    hosts[1].write("/run/reboot-required", "");
    hosts[1].write("/run/reboot-required.pkgs", "linux-image\nlibc6\n");
    let api = world.api();
    let finished = run(&api, &example("kernel-inventory"), json!({})).await;
    assert_eq!(states(&api, &finished).await, ["a: succeeded succeeded", "b: succeeded succeeded"]);
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").expect("there is a kernel");
    let (_, said) = step(&api, &finished, "a", "kernel").await;
    assert!(said.starts_with(kernel.trim()) && said.contains(" days: "), "{said}");
    assert_eq!(step(&api, &finished, "a", "restart").await.1, "restart: not needed\n");
    assert_eq!(
        step(&api, &finished, "b", "restart").await.1,
        "restart: needed\n  for libc6\n  for linux-image\n"
    );
}

#[tokio::test]
async fn full_disks_fail_their_hosts() {
    if !has_hosts() {
        return;
    }
    let world = World::start().await;
    // What df says is the host's own: one of the two has a disk that is nearly full.
    let hosts = [Host::start(&world, "empty").await, Host::start(&world, "full").await];
    for (host, used) in hosts.iter().zip(["10%", "93%"]) {
        let lines = format!(
            "'Filesystem 1-blocks Used Available Capacity Mounted on' '/dev/sda1 9 9 9 {used} /data'"
        );
        host.program("df", &format!("printf '%s\\n' {lines}"));
        // Not all of the machine's disk.
        host.program("du", "printf '2048\\t/data/large\\n1024\\t/data/small\\n'");
    }
    let api = world.api();
    let finished = run(&api, &example("disk-report"), json!({})).await;
    assert_eq!(states(&api, &finished).await, ["empty: succeeded succeeded", "full: failed succeeded"]);
    let (_, said) = step(&api, &finished, "full", "usage").await;
    assert!(said.contains("/data is used to 93%"), "{said}");
    let (_, said) = step(&api, &finished, "full", "largest").await;
    assert_eq!(said, "     2.0 MiB  /data/large\n     1.0 MiB  /data/small\n");
}

#[tokio::test]
async fn old_logs_are_removed_and_no_others() {
    if !has_hosts() {
        return;
    }
    let world = World::start().await;
    let host = Host::start(&world, "a").await;
    let gone =
        ["app.log.1", "app.log.12", "syslog.2.gz", "db/db.log-20260101", "db/odd name.log-20260101.xz"];
    let kept = ["app.log", "notes.txt", "db/data.gz", "2026"];
    for name in gone.iter().chain(&kept) {
        old(&host, &format!("/var/log/{name}"), 40);
    }
    old(&host, "/var/log/young.log.1", 20);
    let api = world.api();
    let finished = run(&api, &example("log-clean-up"), json!({})).await;
    assert_eq!(states(&api, &finished).await, ["a: succeeded succeeded succeeded"]);
    assert_eq!(host.list("/var/log"), ["2026", "app.log", "db", "notes.txt", "young.log.1"]);
    assert_eq!(host.list("/var/log/db"), ["data.gz"]);
    let (_, said) = step(&api, &finished, "a", "remove").await;
    assert_eq!(said.lines().count(), gone.len(), "{said}");
}
