//! Archives: whole, verified, and the newest few.

use std::{fs, process::Command};

use opsconductor_tests::World;
use serde_json::json;

use super::{example, has_hosts, host::Host, run, states, step, with};

const ARCHIVES: &str = "/var/backups/opsconductor";

fn fill(host: &Host) {
    host.write("/home/data/plain", &format!("of {}\n", host.name));
    host.write("/home/data/sub folder/odd\nname", "odd");
    fs::create_dir(host.path("/home/data/empty")).expect("it can be made");
    fs::hard_link(host.path("/home/data/plain"), host.path("/home/data/same")).expect("it can be linked");
    std::os::unix::fs::symlink("plain", host.path("/home/data/link")).expect("it can be linked");
}

/// The archives of a host, without what stands beside them.
fn archives(host: &Host) -> Vec<String> {
    let names = host.list(&format!("{ARCHIVES}/{}", host.name));
    names.into_iter().filter(|name| name.ends_with(".tar.gz")).collect()
}

#[tokio::test]
async fn folders_come_back_from_their_archives() {
    if !has_hosts() {
        return;
    }
    let world = World::start().await;
    let hosts = [Host::start(&world, "a").await, Host::start(&world, "b").await];
    hosts.iter().for_each(fill);
    let api = world.api();
    // The archives lie in one of the folders, and are not packed themselves.
    let parameters = json!({ "folders": ["/home/data", "/var/backups"], "keep": 2, "free_percent": 0 });
    let mut kept = Vec::new();
    for round in 0..3 {
        let document =
            with(&example("backup-verify"), "name: backup-verify", &format!("name: round-{round}"));
        let finished = run(&api, &document, parameters.clone()).await;
        let whole = |host: &str| format!("{host}: succeeded succeeded succeeded succeeded succeeded");
        assert_eq!(states(&api, &finished).await, ["a", "b"].map(whole));
        let (_, said) = step(&api, &finished, "a", "verify").await;
        assert!(said.contains("4 of 4 files were unpacked\nverified /var/backups/opsconductor/a/"), "{said}");
        kept.push(finished.id());
    }
    for host in &hosts {
        let archives = archives(host);
        assert_eq!(archives.len(), 2, "{archives:?}");
        for (archive, execution) in archives.iter().zip(&kept[1..]) {
            assert!(archive.ends_with(&format!("Z-{execution}.tar.gz")), "{archives:?}");
        }
        let all = host.list(&format!("{ARCHIVES}/{}", host.name));
        assert_eq!(all.len(), 4, "each with its sum, and nothing else: {all:?}");
        // What a person does when it is needed.
        let folder = host.path("/var/tmp/restored");
        fs::create_dir(&folder).expect("it can be made");
        let archive = host.path(&format!("{ARCHIVES}/{}/{}", host.name, archives[1]));
        let restored = Command::new("tar").arg("-xzf").arg(&archive).arg("-C").arg(&folder).status();
        assert!(restored.expect("there is tar").success());
        let same = Command::new("diff")
            .arg("-r")
            .arg(host.path("/home/data"))
            .arg(folder.join("home/data"))
            .status();
        assert!(same.expect("there is diff").success());
        assert!(folder.join("home/data/empty").is_dir() && folder.join("home/data/link").is_symlink());
        assert!(!folder.join("var/backups/opsconductor").exists(), "an archive in an archive");
    }
}

#[tokio::test]
async fn an_archive_that_is_not_whole_counts_for_none() {
    if !has_hosts() {
        return;
    }
    let world = World::start().await;
    let host = Host::start(&world, "a").await;
    fill(&host);
    let api = world.api();
    let parameters = json!({ "folders": ["/home/data"], "keep": 1, "free_percent": 0 });
    run(&api, &example("backup-verify"), parameters.clone()).await;
    let good = archives(&host);
    assert_eq!(good.len(), 1);
    // Something spoils it between the steps: a byte of it is another, or all sums are right and its end is missing.
    for (name, spoil) in [
        ("other", "printf x | dd of=\"$part\" bs=1 seek=40 conv=notrunc"),
        ("short", "truncate -s -30 \"$part\"; sha256sum \"$part\" >\"$part.sha256\""),
    ] {
        let spoiling = format!(
            "  - name: spoil\n    user: root\n    sandbox: none\n    run: cd {ARCHIVES}/a; part=$OPSC_EXECUTION_ID.part; {spoil}\n  \
             - name: verify\n"
        );
        let document = with(&example("backup-verify"), "  - name: verify\n", &spoiling);
        let document = with(&document, "name: backup-verify", &format!("name: {name}"));
        let finished = run(&api, &document, parameters.clone()).await;
        let want = "a: succeeded succeeded succeeded failed skipped succeeded";
        assert_eq!(states(&api, &finished).await, [want], "{name}");
        assert_eq!(
            host.list(&format!("{ARCHIVES}/a")).len(),
            2,
            "the good one with its sum, and nothing else"
        );
        assert_eq!(archives(&host), good, "{name}");
    }
    // Nor is there one of what is not there.
    let document = with(&example("backup-verify"), "name: backup-verify", "name: nothing");
    let finished = run(&api, &document, json!({ "folders": ["/home/data", "/home/nowhere"] })).await;
    assert_eq!(states(&api, &finished).await, ["a: failed skipped skipped skipped succeeded"]);
    assert_eq!(archives(&host), good);
}
