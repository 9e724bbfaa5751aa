//! Patching in rings. Nothing is installed and no host restarts here: `apt-get`, `shutdown` and `systemctl` are the hosts' own
//! and note what they are asked. When `shutdown` was asked, the test stops the agent and starts it in another boot.

use opsconductor_tests::{SOON, World, eventually};
use serde_json::json;

use super::{example, execute, has_hosts, host::Host, run, save, states, step, with};

/// Two hosts; the rings are the first, and then the second.
async fn hosts(world: &World) -> [Host; 2] {
    let hosts = [Host::start(world, "a").await, Host::start(world, "b").await];
    for host in &hosts {
        // With a new kernel among it, as its package says.
        host.program("apt-get", "case \"$*\" in *-s*) echo '0 upgraded, 0 newly installed';; *upgrade) touch /run/reboot-required;; esac");
        host.program("shutdown", "");
        // It is not up at once.
        host.program(
            "systemctl",
            "[ -e /run/up ] || { touch /run/up; echo starting; exit 1; }; echo running",
        );
    }
    hosts
}

fn document(name: &str) -> String {
    let mut document = example("patch-rings");
    for (text, other) in [
        ("pause: 30m", "pause: 1s"),
        (
            "attempts: 10, backoff_seconds: 30, max_backoff_seconds: 120",
            "attempts: 10, backoff_seconds: 1, max_backoff_seconds: 2",
        ),
        ("attempts: 5, backoff_seconds: 15", "attempts: 2, backoff_seconds: 1"),
        ("name: patch-rings", &format!("name: {name}")),
    ] {
        document = with(&document, text, other);
    }
    document
}

const UPGRADE: &str =
    "apt-get -q -y -o Dpkg::Options::=--force-confdef -o Dpkg::Options::=--force-confold upgrade";

#[tokio::test]
async fn rings_are_patched_restarted_and_probed() {
    if !has_hosts() {
        return;
    }
    let world = World::start().await;
    let mut hosts = hosts(&world).await;
    let api = world.api();
    let job = save(&api, &document("rings")).await;
    let execution =
        execute(&api, &job, json!({ "targets": { "all": true }, "parameters": { "free_mib": 0 } })).await;
    for turn in 0..2 {
        let asked = ["apt-get -q update", UPGRADE, "shutdown -r +1 updates were installed"];
        eventually(SOON, "the host is asked to restart", async || {
            (hosts[turn].asked() == asked).then_some(())
        })
        .await;
        assert!(hosts[turn..].iter().skip(1).all(|host| host.asked().is_empty()), "only one is at work");
        hosts[turn].reboot().await;
        // What a real one loses.
        std::fs::remove_file(hosts[turn].path("/run/reboot-required")).expect("it is there");
    }
    let finished = api.finished(execution.id).await;
    let whole =
        |host: &str| format!("{host}: succeeded succeeded succeeded succeeded succeeded succeeded succeeded");
    assert_eq!(states(&api, &finished).await, ["a", "b"].map(whole));
    for host in &hosts {
        let probes = host.asked().iter().filter(|line| *line == "systemctl is-system-running --wait").count();
        assert_eq!(probes, 2, "{:?}", host.asked());
        assert!(
            host.list("/run").iter().all(|name| !name.starts_with("patch-rings")),
            "{:?}",
            host.list("/run")
        );
    }
    let (_, said) = step(&api, &finished, "a", "back").await;
    assert!(said.ends_with("it has restarted\n"), "{said}");
}

#[tokio::test]
async fn a_host_that_is_not_well_ends_the_rings() {
    if !has_hosts() {
        return;
    }
    let world = World::start().await;
    let hosts = hosts(&world).await;
    hosts[0].program("systemctl", "echo degraded; exit 1");
    let api = world.api();
    let finished = run(&api, &document("stops"), json!({ "reboot": "never", "free_mib": 0 })).await;
    assert_eq!(
        states(&api, &finished).await,
        [
            "a: succeeded succeeded succeeded skipped skipped failed succeeded",
            "b: skipped skipped skipped skipped skipped skipped skipped",
        ]
    );
    assert!(hosts[1].asked().is_empty());
    let (_, said) = step(&api, &finished, "a", "report").await;
    assert!(said.contains("0 upgraded"), "{said}");

    // Without need there is no restart; and without room there is nothing at all.
    hosts[0].program("systemctl", "echo running");
    std::fs::remove_file(hosts[0].path("/run/reboot-required")).expect("its upgrade made it");
    let document_now = document("calm");
    let finished =
        run(&api, &document_now, json!({ "upgrade_command": ["touch", "/run/up"], "free_mib": 0 })).await;
    let states_now = states(&api, &finished).await;
    assert_eq!(states_now[1], "b: succeeded succeeded succeeded succeeded succeeded succeeded succeeded");
    assert_eq!(step(&api, &finished, "b", "reboot").await.1, "no restart is needed\n");
    assert!(!hosts[1].asked().iter().any(|line| line.starts_with("shutdown")), "{:?}", hosts[1].asked());
    let finished = run(&api, &document("room"), json!({ "free_mib": 1_000_000_000 })).await;
    assert!(states(&api, &finished).await[0].starts_with("a: failed skipped"), "{:?}", finished.runs);
}
