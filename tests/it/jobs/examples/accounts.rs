//! Accounts: `useradd` is real, in the hosts' own `/etc` and `/home`.

use std::os::unix::fs::{MetadataExt, PermissionsExt};

use opsconductor_tests::World;
use serde_json::json;

use super::{example, has_hosts, host::Host, run, states, step, with};

const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f";

#[tokio::test]
async fn somebody_gets_an_account_once() {
    if !has_hosts() {
        return;
    }
    let world = World::start().await;
    let hosts = [Host::start(&world, "a").await, Host::start(&world, "b").await];
    // One has the account already, with a key whose line has no end.
    hosts[1].write(
        "/etc/passwd",
        &format!("{}ada:x:4321:100:Ada:/home/ada:/bin/sh\n", hosts[1].read("/etc/passwd")),
    );
    hosts[1].write("/home/ada/.ssh/authorized_keys", "ssh-ed25519 AAAAother other");
    for path in ["/home/ada", "/home/ada/.ssh", "/home/ada/.ssh/authorized_keys"] {
        std::os::unix::fs::chown(hosts[1].path(path), Some(4321), Some(100)).expect("we are root");
    }
    let api = world.api();
    let parameters = json!({
        "login": "ada", "full_name": "Ada O'Lovelace; $(id)", "ssh_key": format!("{KEY} ada@laptop"),
        "groups": ["sudo", "adm"], "expires": "2099-12-31",
    });
    let finished = run(&api, &example("onboard-user"), parameters.clone()).await;
    let good = |host: &str| format!("{host}: succeeded succeeded succeeded");
    assert_eq!(states(&api, &finished).await, ["a", "b"].map(good));

    let passwd = hosts[0].read("/etc/passwd");
    let line = passwd.lines().find(|line| line.starts_with("ada:")).expect("it has a line");
    let fields: Vec<&str> = line.split(':').collect();
    assert_eq!(fields[4..], ["Ada O'Lovelace; $(id)", "/home/ada", "/bin/bash"]);
    let shadow = hosts[0].read("/etc/shadow");
    let line = shadow.lines().find(|line| line.starts_with("ada:")).expect("it has a line");
    let fields: Vec<&str> = line.split(':').collect();
    assert_eq!((fields[1], fields[7]), ("!", "47481"), "no password, and the day on which it ends");
    let group = hosts[0].read("/etc/group");
    for name in ["sudo", "adm"] {
        let line =
            group.lines().find(|line| line.starts_with(&format!("{name}:"))).expect("the group is there");
        assert!(line.ends_with(":ada") || line.ends_with(",ada"), "{line}");
    }
    let keys = hosts[0].path("/home/ada/.ssh/authorized_keys").metadata().expect("it is there");
    let home = hosts[0].path("/home/ada").metadata().expect("it is there");
    assert_eq!((keys.uid(), keys.permissions().mode() & 0o777), (home.uid(), 0o600));
    assert_ne!(home.uid(), 0);
    assert_eq!(hosts[0].read("/home/ada/.ssh/authorized_keys"), format!("{KEY} ada@laptop\n"));
    let (_, said) = step(&api, &finished, "a", "check").await;
    assert!(said.contains("(ED25519)"), "{said}");

    // The other got the key and kept what it had.
    let passwd = hosts[1].read("/etc/passwd");
    assert!(passwd.ends_with("ada:x:4321:100:Ada:/home/ada:/bin/sh\n"), "{passwd}");
    let keys = hosts[1].read("/home/ada/.ssh/authorized_keys");
    assert_eq!(keys, format!("ssh-ed25519 AAAAother other\n{KEY} ada@laptop\n"));

    // Again, and nothing changes; also under another name for the same key.
    let before = [
        hosts[0].read("/etc/passwd"),
        hosts[0].read("/etc/shadow"),
        hosts[0].read("/home/ada/.ssh/authorized_keys"),
    ];
    let mut other = parameters;
    other["ssh_key"] = json!(format!("{KEY} ada@desk"));
    let again = run(&api, &with(&example("onboard-user"), "name: onboard-user", "name: again"), other).await;
    assert_eq!(states(&api, &again).await, ["a", "b"].map(good));
    let after = [
        hosts[0].read("/etc/passwd"),
        hosts[0].read("/etc/shadow"),
        hosts[0].read("/home/ada/.ssh/authorized_keys"),
    ];
    assert_eq!(before, after);
}

#[tokio::test]
async fn what_is_no_key_or_no_group_makes_no_account() {
    if !has_hosts() {
        return;
    }
    let world = World::start().await;
    let host = Host::start(&world, "a").await;
    let api = world.api();
    super::save(&api, &example("onboard-user")).await;
    for (field, value) in [
        ("ssh_key", "-----BEGIN OPENSSH PRIVATE KEY-----"),
        ("ssh_key", &format!("{KEY} ada\ncommand=\"sh\" {KEY}")),
        ("login", "root:x"),
        ("full_name", "Ada:/root:/bin/sh"),
    ] {
        let mut parameters = json!({ "login": "ada", "full_name": "Ada", "ssh_key": KEY });
        parameters[field] = json!(value);
        let body = json!({ "parameters": parameters, "targets": { "all": true } });
        let problem = api.post("/api/v1/jobs/onboard-user/execute", &body).await.refused(400, "invalid");
        assert_eq!(problem.field, Some(format!("parameters.{field}")), "{value}");
    }
    let parameters = json!({ "login": "ada", "full_name": "Ada", "ssh_key": KEY, "groups": ["nosuchgroup"] });
    let finished =
        run(&api, &with(&example("onboard-user"), "name: onboard-user", "name: other"), parameters).await;
    assert_eq!(states(&api, &finished).await, ["a: failed skipped skipped"]);
    assert!(!host.read("/etc/passwd").contains("ada:") && !host.has("/home/ada"));
}
