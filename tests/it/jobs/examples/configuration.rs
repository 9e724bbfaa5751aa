//! A configuration file that is pushed. The service's check is `grep`; `systemctl` is the hosts' own and notes what the file held
//! when it was asked to reload.

use std::os::unix::fs::{MetadataExt, PermissionsExt};

use opsconductor_tests::World;
use serde_json::{Value, json};

use super::{example, has_hosts, host::Host, run, service::Service, states, with};

const FILE: &str = "/etc/app.conf";

fn parameters(content: &str) -> Value {
    json!({
        "path": FILE, "content": content, "check_command": ["grep", "-q", "^port = [0-9]*$", FILE],
        "reload_command": ["systemctl", "reload", "app"],
    })
}

async fn hosts(world: &World) -> [Host; 2] {
    let hosts = [Host::start(world, "a").await, Host::start(world, "b").await];
    for host in &hosts {
        host.write(FILE, "port = 1\n");
        std::fs::set_permissions(host.path(FILE), std::fs::Permissions::from_mode(0o640))
            .expect("it is ours");
        std::os::unix::fs::chown(host.path(FILE), Some(0), Some(4)).expect("we are root");
        host.program(
            "systemctl",
            &format!("cat {FILE} >>/run/loaded 2>/dev/null || echo none >>/run/loaded"),
        );
    }
    hosts
}

fn document(name: &str) -> String {
    let document = with(&example("config-push"), "pause: 1m", "pause: 1s");
    with(&document, "name: config-push", &format!("name: {name}"))
}

/// What lies beside the file.
fn beside(host: &Host) -> Vec<String> {
    host.list("/etc").into_iter().filter(|name| name.starts_with("app.conf")).collect()
}

#[tokio::test]
async fn a_file_goes_out_and_a_wrong_one_comes_back() {
    if !has_hosts() {
        return;
    }
    let world = World::start().await;
    let hosts = hosts(&world).await;
    let api = world.api();
    let content = "# it's \"$(new)\"\nport = 2\n\n";
    let finished = run(&api, &document("good"), parameters(content)).await;
    let good = |host: &str| {
        format!(
            "{host}: succeeded succeeded succeeded succeeded succeeded succeeded skipped skipped skipped skipped"
        )
    };
    assert_eq!(states(&api, &finished).await, ["a", "b"].map(good));
    for host in &hosts {
        assert_eq!(host.read(FILE), content);
        let file = host.path(FILE).metadata().expect("it is there");
        assert_eq!((file.permissions().mode() & 0o777, file.gid()), (0o640, 4), "as the old one");
        assert_eq!(
            (host.asked(), host.read("/run/loaded")),
            (vec!["systemctl reload app".to_owned()], content.to_owned())
        );
        assert_eq!(beside(host), ["app.conf"]);
    }

    // The service does not take it: it comes back on the first host, and the second never sees it.
    let finished = run(&api, &document("bad"), parameters("port = none\n")).await;
    let rolled_back =
        "a: succeeded succeeded failed skipped skipped skipped succeeded succeeded succeeded succeeded";
    let states = states(&api, &finished).await;
    assert_eq!(states[0], rolled_back);
    assert!(states[1].starts_with("b: skipped skipped"), "{states:?}");
    for host in &hosts {
        assert_eq!(host.read(FILE), content);
        assert_eq!(host.path(FILE).metadata().expect("it is there").permissions().mode() & 0o777, 0o640);
        assert_eq!(beside(host), ["app.conf"]);
    }
    assert_eq!(
        hosts[0].read("/run/loaded"),
        format!("{content}{content}"),
        "the service reads the old one again"
    );
    assert_eq!(hosts[1].asked().len(), 1);
}

#[tokio::test]
async fn a_new_file_goes_again_where_the_service_is_not_well_with_it() {
    if !has_hosts() {
        return;
    }
    let world = World::start().await;
    let hosts = hosts(&world).await;
    let service = Service::start().await;
    service.breaks_on(1);
    for (number, host) in (1..).zip(&hosts) {
        service.on(host, number);
        std::fs::remove_file(host.path(FILE)).expect("it is there");
    }
    let api = world.api();
    let mut parameters = parameters("port = 2\n");
    parameters["health_url"] = json!(service.url());
    // What reads it, the test's service, is not well behind that; the check needs no file.
    parameters["check_command"] = json!(["true"]);
    parameters["reload_command"] = json!(["systemctl", "restart", "app"]);
    let document = with(&document("new"), "attempts: 5", "attempts: 2");
    let finished = run(&api, &document, parameters.clone()).await;
    let states_now = states(&api, &finished).await;
    assert_eq!(
        states_now[0],
        "a: succeeded succeeded succeeded succeeded failed skipped succeeded succeeded succeeded succeeded"
    );
    assert!(states_now[1].starts_with("b: skipped skipped"), "{states_now:?}");
    assert_eq!(service.diary(), ["1 restart", "1 ill", "1 ill", "1 restart"]);
    for host in &hosts {
        assert!(beside(host).is_empty(), "{:?}", beside(host));
    }
    // A folder that is not there, and a link, are no place for it.
    std::os::unix::fs::symlink("/etc/passwd", hosts[0].path(FILE)).expect("it can be linked");
    let finished = run(&api, &super::with(&document, "name: new", "name: link"), parameters).await;
    assert!(states(&api, &finished).await[0].starts_with("a: failed skipped"), "{:?}", finished.runs);
    assert!(hosts[0].read("/etc/passwd").starts_with("root:"));
}
