//! The rolling restart of a service. `systemctl` is the hosts' own, and asks the test's service to restart.

use opsconductor_tests::World;
use serde_json::json;

use super::{example, has_hosts, host::Host, run, service::Service, states, step, with};

/// Three hosts with the service; the batches are one, and then the two others.
async fn hosts(world: &World, service: &Service) -> Vec<Host> {
    let mut hosts = Vec::new();
    for (number, name) in (1..).zip(["a", "b", "c"]) {
        let host = Host::start(world, name).await;
        service.on(&host, number);
        hosts.push(host);
    }
    hosts
}

fn document() -> String {
    with(&example("rolling-restart"), "pause: 30s", "pause: 1s")
}

#[tokio::test]
async fn a_service_is_restarted_host_by_host() {
    if !has_hosts() {
        return;
    }
    let world = World::start().await;
    let service = Service::start().await;
    let hosts = hosts(&world, &service).await;
    let api = world.api();
    let parameters = json!({ "service": "app", "health_url": service.url() });
    let finished = run(&api, &document(), parameters).await;
    let whole = |host: &str| format!("{host}: succeeded succeeded succeeded skipped");
    assert_eq!(states(&api, &finished).await, ["a", "b", "c"].map(whole));
    for host in &hosts {
        assert_eq!(host.asked(), ["systemctl restart -- app"], "{}", host.name);
    }
    // Each was asked until it was well again, and the others' turn came only then.
    let diary = service.diary();
    let first: Vec<&str> = diary.iter().take(5).map(String::as_str).collect();
    assert_eq!(first, ["1 well", "1 restart", "1 ill", "1 ill", "1 well"], "{diary:?}");
    for number in [2, 3] {
        let of_host = diary.iter().filter_map(|line| line.strip_prefix(&format!("{number} ")));
        assert_eq!(of_host.collect::<Vec<_>>(), ["well", "restart", "ill", "ill", "well"], "{diary:?}");
    }
}

#[tokio::test]
async fn a_service_that_does_not_come_back_is_left_alone_elsewhere() {
    if !has_hosts() {
        return;
    }
    let world = World::start().await;
    let service = Service::start().await;
    let hosts = hosts(&world, &service).await;
    service.breaks_on(1);
    let api = world.api();
    let document = with(&document(), "attempts: 8", "attempts: 2");
    let parameters = json!({ "service": "app", "health_url": service.url() });
    let finished = run(&api, &document, parameters.clone()).await;
    assert_eq!(
        states(&api, &finished).await,
        [
            "a: succeeded succeeded failed succeeded",
            "b: skipped skipped skipped skipped",
            "c: skipped skipped skipped skipped",
        ]
    );
    let (_, said) = step(&api, &finished, "a", "why-not").await;
    assert!(said.starts_with("app does not answer\n"), "{said}");
    assert!(hosts[0].asked().contains(&"systemctl status --no-pager --full -- app".to_owned()));
    assert_eq!(service.diary(), ["1 well", "1 restart", "1 ill", "1 ill"]);

    // Where it is not well, it is not touched either, unless somebody wants that. Another command may do it.
    let again = run(&api, &with(&document, "name: rolling-restart", "name: again"), parameters).await;
    assert_eq!(states(&api, &again).await[0], "a: failed skipped skipped succeeded");
    let parameters = json!({
        "service": "app", "health_url": service.url(), "check_before": false,
        "restart_command": ["touch", "/run/restarted by hand"],
    });
    let forced = run(&api, &with(&document, "name: rolling-restart", "name: forced"), parameters).await;
    assert_eq!(states(&api, &forced).await[0], "a: skipped succeeded failed succeeded");
    assert!(hosts[0].has("/run/restarted by hand") && !hosts[1].has("/run/restarted by hand"));
}
