//! The audit cannot be changed quietly: entries are chained and signed, an export shows what was done to it, and agents
//! remember.

mod adverse;
mod database;
mod forwarded;
mod tampering;
mod witnesses;

use std::{collections::BTreeSet, path::PathBuf};

use model::api::audit::{AuditKey, ExportRecord};
use opsconductor_tests::{SOON, World, eventually, opsctl::Said};
use reqwest::Method;
use serde_json::{Value, json};

/// Does something that leaves an entry, so many times.
async fn act(world: &World, times: usize) {
    for _ in 0..times {
        world.enroll_token(&json!({})).await;
    }
}

/// The audit as `opsctl` exports it.
async fn export(world: &World, arguments: &[&str]) -> Vec<u8> {
    let arguments = [&["audit", "export"], arguments].concat();
    world.opsctl(&arguments).await.ended(0).stdout
}

/// A file with what exports are verified with.
async fn key(world: &World) -> PathBuf {
    let path = world.folder().join("audit-key.json");
    std::fs::write(&path, world.opsctl(&["audit", "key"]).await.ended(0).stdout).expect("it is our folder");
    path
}

/// `opsctl audit verify`, which reaches no controller.
async fn verify(world: &World, export: &[u8], arguments: &[&str]) -> Said {
    let key = key(world).await;
    let key = key.to_str().expect("our paths are UTF-8");
    let arguments = [&["audit", "verify", "--key", key, "-o", "json", "-"], arguments].concat();
    let mut command = world.opsctl_command(&arguments);
    command.env("OPSC_ADDR", "http://127.0.0.1:9").env_remove("OPSC_TOKEN");
    opsconductor_tests::opsctl::run(&mut command, export).await
}

/// What the verification of an export finds.
async fn findings(world: &World, export: &[u8]) -> Vec<String> {
    let said = verify(world, export, &[]).await;
    let found: Vec<String> = said.json()["findings"].as_array().expect("a list").iter().map(text).collect();
    assert_eq!(said.code, i32::from(!found.is_empty()), "{said}");
    found
}

fn text(value: &Value) -> String {
    value.as_str().expect("a text").to_owned()
}

/// The records of an export.
fn records(export: &[u8]) -> Vec<ExportRecord> {
    export
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| serde_json::from_slice(line).expect("a record"))
        .collect()
}

/// The numbers of an export's entries.
fn numbers(export: &[u8]) -> Vec<i64> {
    let number = |record| match record {
        ExportRecord::Entry(entry) => Some(entry.seq),
        _ => None,
    };
    records(export).into_iter().filter_map(number).collect()
}

#[tokio::test]
async fn entries_are_chained_within_seconds_and_an_export_verifies() {
    let world = World::builder().with_an_empty_audit().start().await;
    act(&world, 12).await;
    let api = world.api();
    let list = eventually(SOON, "all entries have their numbers", async || {
        let list = api.get("/api/v1/audit?limit=1000").await.accepted().value();
        let items = list["items"].as_array().expect("a list").clone();
        (items.len() == 12 && items.iter().all(|item| item["seq"].is_i64())).then_some(items)
    })
    .await;
    let seqs: Vec<i64> = list.iter().map(|item| item["seq"].as_i64().expect("a number")).collect();
    assert_eq!(seqs, (1..=12).rev().collect::<Vec<_>>(), "the newest first");

    let exported = export(&world, &[]).await;
    assert_eq!(numbers(&exported), (1..=12).collect::<Vec<_>>());
    assert!(matches!(records(&exported).last(), Some(ExportRecord::Checkpoint(last)) if last.seq == 12));
    assert_eq!(findings(&world, &exported).await, [""; 0]);
    // What is committed when an export begins is in it, and signed.
    act(&world, 3).await;
    let exported = export(&world, &[]).await;
    assert_eq!(numbers(&exported).len(), 15);
    assert_eq!(findings(&world, &exported).await, [""; 0]);
    // Twice says twice the same.
    assert_eq!(export(&world, &[]).await, exported);
    // It comes whole to who wants it compressed, too.
    let request = api.request(Method::GET, "/api/v1/audit/export").header("accept-encoding", "gzip");
    let compressed = api.send(request).await.accepted();
    assert_eq!(compressed.headers["content-encoding"], "gzip");
}

#[tokio::test]
async fn lists_are_filtered_and_paged() {
    let world = World::builder().with_an_empty_audit().start().await;
    act(&world, 5).await;
    let api = world.api();
    let token = api.post("/api/v1/enroll-tokens", &json!({})).await.accepted();
    let object = format!("enroll-token/{}", text(&token.value()["id"]));
    let get = async |query: &str| {
        let page = api.get(&format!("/api/v1/audit?{query}")).await.accepted().value();
        (page["items"].as_array().expect("a list").clone(), page["next_cursor"].as_str().map(str::to_owned))
    };
    assert_eq!(get(&format!("object={object}")).await.0.len(), 1);
    let (all, _) = get("verb=enroll_token.create&actor=administrator&outcome=done").await;
    assert_eq!(all.len(), 6);
    for nothing in ["verb=enroll_token.creat", "actor=nobody", "outcome=failed", "request_id=x"] {
        assert!(get(nothing).await.0.is_empty(), "{nothing}");
    }
    let entry = &all[0]["entry"];
    assert_eq!(get(&format!("request_id={}", text(&entry["request_id"]))).await.0.len(), 1);
    assert_eq!(get(&format!("actor={}", text(&entry["actor_id"]))).await.0.len(), 6);
    assert_eq!(get(&format!("since={}", text(&entry["at"]))).await.0.len(), 1);
    assert_eq!(get(&format!("until={}", text(&entry["at"]))).await.0.len(), 5);

    let (mut seen, mut cursor) = (BTreeSet::new(), None);
    loop {
        let from = cursor.map_or_else(String::new, |cursor| format!("&cursor={cursor}"));
        let (items, next) = get(&format!("limit=4{from}")).await;
        seen.extend(items.iter().map(|item| text(&item["entry"]["id"])));
        cursor = next;
        if cursor.is_none() {
            break;
        }
    }
    assert_eq!(seen.len(), 6);
    api.get("/api/v1/audit?from_seq=1").await.refused(400, "invalid");
    api.get("/api/v1/audit/export?from_seq=0").await.refused(400, "invalid");
    world.api_as_nobody().get("/api/v1/audit").await.refused(401, "unauthenticated");

    let shown = world.opsctl(&["audit", "list", "--verb", "enroll_token.create"]).await.ended(0).text();
    assert!(shown.contains("administrator") && shown.lines().count() == 7, "{shown}");
}

#[tokio::test]
async fn a_part_can_be_exported_and_verified() {
    let world = World::builder().with_an_empty_audit().start().await;
    act(&world, 4).await;
    export(&world, &[]).await;
    act(&world, 4).await;
    export(&world, &[]).await;
    act(&world, 4).await;
    let whole = export(&world, &[]).await;
    let at = |seq: i64| {
        let of = |record| match record {
            ExportRecord::Entry(entry) if entry.seq == seq => entry.entry,
            _ => None,
        };
        records(&whole).into_iter().find_map(of).expect("it is there").at.to_string()
    };
    // The sequencer may have signed others than the exports did.
    let covered = |last: i64| {
        let of = |record| match record {
            ExportRecord::Checkpoint(checkpoint) if checkpoint.seq >= last => Some(checkpoint.seq),
            _ => None,
        };
        records(&whole).into_iter().find_map(of).expect("the end is covered")
    };
    for (arguments, want) in [
        (vec!["--from-seq".to_owned(), "7".to_owned()], 7..=12),
        (vec!["--since".to_owned(), at(6)], 6..=12),
        // Up to the checkpoint that covers what was asked for.
        (vec!["--until".to_owned(), at(3)], 1..=covered(2)),
        (vec!["--since".to_owned(), at(3), "--until".to_owned(), at(6)], 3..=covered(5)),
    ] {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let part = export(&world, &arguments).await;
        assert_eq!(numbers(&part), want.collect::<Vec<_>>(), "{arguments:?}");
        assert_eq!(findings(&world, &part).await, [""; 0], "{arguments:?}");
    }
    let behind = export(&world, &["--from-seq", "99"]).await;
    assert_eq!((numbers(&behind).len(), findings(&world, &behind).await.len()), (0, 0));
}

#[tokio::test]
async fn verify_tells_a_file_that_is_not_what_it_should_be() {
    let world = World::builder().with_an_empty_audit().start().await;
    // Nothing has happened: the beginning is signed.
    let empty = export(&world, &[]).await;
    assert_eq!((numbers(&empty).len(), findings(&world, &empty).await.len()), (0, 0));
    act(&world, 5).await;
    let exported = export(&world, &[]).await;
    assert_eq!(findings(&world, b"").await.len(), 1);
    assert_eq!(findings(&world, b"{}\n").await.len(), 1);
    for cut in [1, exported.len() / 3, exported.len() / 2, exported.len() - 100] {
        assert!(!findings(&world, &exported[..cut]).await.is_empty(), "{cut}");
    }

    // The key of another installation.
    let other = World::builder().with_an_empty_audit().start().await;
    let found = findings(&other, &exported).await;
    assert!(found.iter().any(|finding| finding.starts_with("bad checkpoint")), "{found:?}");
    let shown: AuditKey = other.api().get("/api/v1/audit/key").await.accepted().json();
    let kept: AuditKey = serde_json::from_slice(&std::fs::read(key(&other).await).expect("it was written"))
        .expect("it is JSON");
    assert_eq!(kept.certificate, shown.certificate);
    let said = world.opsctl_with_input(&["audit", "verify", "--key", "/dev/null", "-"], &exported).await;
    assert_eq!(said.code, 2, "{said}");

    // For people.
    let (file, key) = (world.folder().join("audit.ndjson"), key(&world).await);
    let [file, key] = [&file, &key].map(|path| path.to_str().expect("our paths are UTF-8"));
    world.opsctl(&["audit", "export", "--file", file]).await.ended(0);
    let said = world.opsctl(&["audit", "verify", "--key", key, file]).await.ended(0);
    let text = said.text();
    assert!(
        text.starts_with("all is well: 5 entries up to number 5, 2 checkpoints\norganization "),
        "{text}"
    );
    assert!(text.contains(", newest checkpoint 2"), "{text}");
    let edited = String::from_utf8(exported).expect("JSON is UTF-8").replace("administrator", "nobody");
    std::fs::write(file, edited).expect("it is our folder");
    let said = world.opsctl(&["audit", "verify", "--key", key, file]).await.ended(1).text();
    assert_eq!(said.lines().count(), 7, "{said}");
    assert!(
        said.contains("edited: entry 3 ")
            && said.contains("\n5 findings in 5 entries up to number 5, 2 checkpoints\n")
    );
}

#[tokio::test]
async fn an_export_must_be_of_whom_it_should_and_new() {
    let world = World::builder().with_an_empty_audit().start().await;
    act(&world, 2).await;
    let exported = export(&world, &[]).await;
    let id = text(&verify(&world, &exported, &[]).await.ended(0).json()["organization"]);
    for of in ["main", &id] {
        verify(&world, &exported, &["--organization", of, "--not-older-than", "1h"]).await.ended(0);
    }
    let kept = world.folder().join("newest.json");
    let kept = kept.to_str().expect("our paths are UTF-8");
    let other = uuid::Uuid::now_v7().to_string();
    let said = verify(&world, &exported, &["--organization", &other, "--keep", kept]).await.ended(1).json();
    assert!(text(&said["findings"][0]).starts_with("another organization: "), "{said}");
    assert_eq!(said["is_well"], false);
    assert!(!std::path::Path::new(kept).exists(), "nothing is kept of it");
    verify(&world, &exported, &["--organization", "nobody"]).await.ended(2);
    // An old one is well by itself.
    tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
    let said = verify(&world, &exported, &["--not-older-than", "1s"]).await.ended(1).json();
    assert!(text(&said["findings"][0]).starts_with("too old: "), "{said}");
}

#[tokio::test]
async fn a_kept_checkpoint_must_be_contained() {
    let world = World::builder().with_an_empty_audit().start().await;
    act(&world, 3).await;
    let kept = world.folder().join("kept.json");
    let kept = kept.to_str().expect("our paths are UTF-8");
    let early = export(&world, &[]).await;
    act(&world, 3).await;
    let late = export(&world, &[]).await;
    verify(&world, &late, &["--keep", kept]).await.ended(0);
    act(&world, 3).await;
    verify(&world, &export(&world, &[]).await, &["--after", kept]).await.ended(0);
    // An earlier export is well by itself, and less than what there was.
    assert_eq!(findings(&world, &early).await, [""; 0]);
    let said = verify(&world, &early, &["--after", kept]).await.ended(1).json();
    assert!(text(&said["findings"][0]).starts_with("rolled back: the checkpoint of entry 6"), "{said}");
}
