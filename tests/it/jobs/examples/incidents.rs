//! What is collected from hosts in an incident.

use std::{fs, process::Command};

use opsconductor_tests::{World, scene};
use serde_json::json;

use super::{example, has_hosts, host::Host, run, states};

#[tokio::test]
async fn what_is_collected_comes_with_the_output_and_leaves_nothing_behind() {
    if !has_hosts() {
        return;
    }
    let world = World::start().await;
    let hosts = [Host::start(&world, "a").await, Host::start(&world, "b").await];
    for host in &hosts {
        let lines: String = (0..1000).map(|n| format!("{} line {n}\n", host.name)).collect();
        host.write("/var/log/syslog", &lines);
        host.write("/var/log/app/odd name.log", "odd\n");
    }
    // It fails where it cannot tell of everything, and that spoils nothing.
    hosts[0].program("lsof", "echo COMMAND PID USER; exit 1");
    let api = world.api();
    let parameters =
        json!({ "logs": ["/var/log/syslog", "/var/log/app/odd name.log", "/var/log/none"], "log_kib": 2 });
    let finished = run(&api, &example("incident-collect"), parameters).await;
    let whole =
        |host: &str| format!("{host}: succeeded succeeded succeeded succeeded succeeded succeeded succeeded");
    assert_eq!(states(&api, &finished).await, ["a", "b"].map(whole));
    for host in &hosts {
        assert!(host.list("/var/tmp").is_empty(), "{:?}", host.list("/var/tmp"));
        let said = world
            .opsctl(&["logs", &finished.id(), "--step", "bundle", "-t", &host.name, "--raw"])
            .await
            .ended(0);
        let folder = scene::new_folder("collected");
        fs::write(folder.join("all.tar.gz"), &said.stdout).expect("the scene's folder can be written");
        let unpacked =
            Command::new("tar").arg("-xzf").arg(folder.join("all.tar.gz")).arg("-C").arg(&folder).status();
        assert!(unpacked.expect("there is tar").success());
        let inside = folder.join(format!("incident-{}-{}", finished.id(), host.name));
        let read = |name: &str| {
            fs::read_to_string(inside.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
        };
        let tail = read("logs/var_log_syslog");
        assert!(tail.ends_with(&format!("{} line 999\n", host.name)) && tail.len() == 2048, "{tail}");
        assert_eq!(read("logs/var_log_app_odd name.log"), "odd\n");
        assert_eq!(read("logs/missing.txt"), "/var/log/none is not there\n");
        assert!(read("processes.txt").contains("opsconductor-agent"), "this very step is among them");
        if host.name == "a" {
            assert_eq!(read("open-files.txt"), "COMMAND PID USER\n");
        }
        assert!(read("meminfo.txt").starts_with("MemTotal:"));
        assert!(read("disks.txt").contains(" /proc proc "));
    }
}
