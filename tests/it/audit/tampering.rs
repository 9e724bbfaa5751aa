//! Whatever the owner of the database does to the audit, an export shows it and names where.

use model::api::audit::{AuditKey, ExportRecord};
use opsconductor_tests::{SOON, World, eventually};
use pki::{
    Verifier,
    audit::{BEGINNING, Finding, Hash, Verification, link, parse_hash},
};
use serde_json::json;
use sqlx::{AssertSqlSafe, Executor as _, PgConnection, Row as _};

use super::{act, export, findings, records};

const ENTRIES: usize = 30;

/// A World with entries, a checkpoint in their middle and one at their end.
async fn world() -> (World, PgConnection) {
    let world = World::builder().with_an_empty_audit().start().await;
    // The beginning is signed, so that the sequencer signs nothing by itself for a minute.
    export(&world, &[]).await;
    act(&world, ENTRIES / 2).await;
    export(&world, &[]).await;
    act(&world, ENTRIES / 2).await;
    assert_eq!(findings(&world, &export(&world, &[]).await).await, [""; 0]);
    let sql = world.sql().await;
    (world, sql)
}

async fn run(sql: &mut PgConnection, statement: &str) {
    let done = sql.execute(sqlx::raw_sql(AssertSqlSafe(statement.to_owned()))).await;
    done.unwrap_or_else(|error| panic!("{statement}: {error}"));
}

/// Waits until the controller itself says that something is wrong.
async fn degraded(world: &World) {
    eventually(SOON, "the controller notices it", async || {
        let status = world.api().get("/status").await.accepted().value();
        let parts = status["parts"].as_array()?;
        let part = parts.iter().find(|part| part["name"] == "sequence")?;
        part["message"].as_str()?.contains("was tampered with").then_some(())
    })
    .await;
}

/// What is found after `statement`, which `undo` makes undone again.
async fn found(world: &World, sql: &mut PgConnection, statement: &str, undo: &str) -> Vec<String> {
    run(sql, statement).await;
    let found = findings(world, &export(world, &[]).await).await;
    run(sql, undo).await;
    found
}

/// The copies from which tampered rows are made whole again.
async fn keep(sql: &mut PgConnection) {
    for table in ["audit_entries", "audit_chain", "audit_checkpoints"] {
        run(sql, &format!("create table kept_{table} as select * from {table}")).await;
    }
}

const UNDO: &str = "delete from audit_entries; delete from audit_chain; delete from audit_checkpoints;
    insert into audit_entries select * from kept_audit_entries;
    insert into audit_chain select * from kept_audit_chain;
    insert into audit_checkpoints select * from kept_audit_checkpoints";

#[tokio::test]
async fn each_edited_column_is_named_by_its_entry() {
    let (world, mut sql) = world().await;
    keep(&mut sql).await;
    let seven = "id = (select entry_id from audit_chain where seq = 7)";
    for change in [
        "actor = actor || 'x'",
        "actor_id = 'api-token/0'",
        "verb = 'agent.revoke'",
        "object = object || '0'",
        "outcome = 'failed'",
        "request_id = ''",
        "source = '192.0.2.1'",
        "detail = detail || '{\"more\": 1}'",
        "detail = '{}'",
        "detail = detail || '{\"more\": 1.5}'",
    ] {
        let statement = format!("update audit_entries set {change} where {seven}");
        let found = found(&world, &mut sql, &statement, UNDO).await;
        assert!(found.len() == 1 && found[0].starts_with("edited: entry 7 "), "{change}: {found:?}");
    }
    // These part the entry from its place in the chain: the place is empty, and the entry has none.
    for change in ["id = gen_random_uuid()", "at = at + interval '1 second'", "org_id = gen_random_uuid()"] {
        let statement = format!("update audit_entries set {change} where {seven}");
        let found = found(&world, &mut sql, &statement, UNDO).await;
        assert!(found.contains(&"removed: entry 7 is missing".to_owned()), "{change}: {found:?}");
    }
    for (change, want) in [
        ("hash = '\\x00'", "edited: entry 7 "),
        ("hash = sha256(hash)", "edited: entry 7 "),
        ("entry_id = gen_random_uuid()", "removed: entry 7 "),
        ("at = at + interval '1 second'", "removed: entry 7 "),
        ("seq = 99", "removed: entry 7 "),
        ("org_id = gen_random_uuid()", "removed: entry 7 "),
    ] {
        let statement = format!("update audit_chain set {change} where seq = 7");
        let found = found(&world, &mut sql, &statement, UNDO).await;
        assert!(found.iter().any(|finding| finding.starts_with(want)), "{change}: {found:?}");
    }
    assert_eq!(findings(&world, &export(&world, &[]).await).await, [""; 0], "all was undone");
}

#[tokio::test]
async fn each_edited_column_of_a_checkpoint_is_found() {
    let (world, mut sql) = world().await;
    keep(&mut sql).await;
    for change in [
        "seq = 14",
        "hash = sha256(hash)",
        "at = at + interval '1 second'",
        "payload = payload || '\\x20'",
        "payload = convert_to(replace(convert_from(payload, 'UTF8'), '\"seq\":15', '\"seq\":14'), 'UTF8')",
        "signature = sha256(signature) || sha256(payload)",
        "signature = ''",
        "certificate = sha256(certificate)",
    ] {
        let statement = format!("update audit_checkpoints set {change} where seq = 15");
        let found = found(&world, &mut sql, &statement, UNDO).await;
        assert!(found.iter().any(|finding| finding.starts_with("bad checkpoint")), "{change}: {found:?}");
    }
    // Also of the newest, and the chain goes on all the same.
    let newest = "update audit_checkpoints set signature = '' where seq = 30";
    run(&mut sql, newest).await;
    act(&world, 1).await;
    let found_later = findings(&world, &export(&world, &[]).await).await;
    assert!(
        found_later.len() == 1 && found_later[0].starts_with("bad checkpoint: that of entry 30"),
        "{found_later:?}"
    );
    let (world, mut sql) = self::world().await;
    keep(&mut sql).await;
    let removed = found(&world, &mut sql, "delete from audit_checkpoints where seq = 15", UNDO).await;
    assert!(removed[0].starts_with("removed checkpoint: that of entry 15"), "{removed:?}");
    let other = "update audit_checkpoints set org_id = gen_random_uuid() where seq = 15";
    assert!(!found(&world, &mut sql, other, UNDO).await.is_empty());
}

#[tokio::test]
async fn what_is_removed_or_moved_is_named() {
    let (world, mut sql) = world().await;
    keep(&mut sql).await;
    let entry = "delete from audit_entries where id in (select entry_id from audit_chain where seq";
    for (statement, want) in [
        (format!("{entry} = 7)"), "removed: entry 7 is missing"),
        (format!("{entry} = 30)"), "removed: entry 30 is missing"),
        ("delete from audit_chain where seq = 7".to_owned(), "removed: entry 7 is missing"),
        (
            format!("{entry} between 7 and 9); delete from audit_chain where seq between 7 and 9"),
            "removed: entries 7 to 9 are missing",
        ),
        (
            format!("{entry} <= 15); delete from audit_chain where seq <= 15"),
            "removed: entries 1 to 15 are missing",
        ),
    ] {
        let found = found(&world, &mut sql, &statement, UNDO).await;
        assert!(found.contains(&want.to_owned()), "{statement}: {found:?}");
        // What stands around a hole cannot be checked any more.
        let named = ["removed: ", "not chained: ", "not covered: ", "not verifiable: "];
        assert!(found.iter().all(|finding| named.iter().any(|name| finding.starts_with(name))), "{found:?}");
    }
    for swap in [
        "update audit_chain set seq = 16 - seq where seq in (7, 9)",
        "update audit_chain set seq = 15 - seq where seq in (7, 8)",
        "update audit_chain c set seq = o.seq, hash = o.hash from audit_chain o
         where c.seq in (7, 9) and o.seq = 16 - c.seq",
    ] {
        let found = found(&world, &mut sql, swap, UNDO).await;
        let other = if swap.contains("15 -") { 8 } else { 9 };
        let want =
            [7, other].map(|seq| format!("reordered: entry {seq} is not the one that had this number"));
        assert_eq!(found, want, "{swap}");
    }
    // One that nobody wrote through a controller.
    let forged = "insert into audit_entries (id, org_id, at, actor, verb, object, outcome, request_id)
                  select gen_random_uuid(), org_id, at, 'a', 'v', 'o/1', 'done', '' from audit_entries limit 1";
    let found = found(&world, &mut sql, forged, UNDO).await;
    assert!(found.len() == 1 && found[0].starts_with("not chained: "), "{found:?}");
}

#[tokio::test]
async fn a_tail_that_is_cut_off_is_found_and_stays_so() {
    let (world, mut sql) = world().await;
    run(
        &mut sql,
        "delete from audit_entries where id in (select entry_id from audit_chain where seq > 25);
         delete from audit_chain where seq > 25",
    )
    .await;
    let cut = findings(&world, &export(&world, &[]).await).await;
    let uncovered = "not covered: no checkpoint vouches for entries 16 to 25";
    assert_eq!(cut, ["cut: entries 26 to 30, at the end, are missing", uncovered]);
    degraded(&world).await;
    // The chain goes on behind what was signed: what is missing stays missing, and what comes can be verified.
    act(&world, 5).await;
    let gone = findings(&world, &export(&world, &[]).await).await;
    assert_eq!(gone, [uncovered, "removed: entries 26 to 30 are missing"]);
}

/// Edits an entry and computes the hashes of the whole chain anew, as somebody would who knows how.
async fn compute_anew(world: &World, sql: &mut PgConnection, edited: i64) {
    let edit = format!(
        "update audit_entries set actor = 'nobody' where id = (select entry_id from audit_chain where seq = {edited})"
    );
    run(sql, &edit).await;
    let mut previous: Hash = BEGINNING;
    for record in records(&export(world, &[]).await) {
        let ExportRecord::Entry(record) = record else { continue };
        let entry = record.entry.expect("it is there");
        previous = link(entry.org_id, record.seq, &previous, &entry.encode().expect("it has bytes"));
        sqlx::query("update audit_chain set hash = $1 where seq = $2")
            .bind(&previous[..])
            .bind(record.seq)
            .execute(&mut *sql)
            .await
            .expect("the owner may");
    }
}

#[tokio::test]
async fn a_chain_that_was_computed_anew_is_found_by_its_checkpoints() {
    for (edited, want) in [
        (7, "computed anew: entries 1 to 15 do not lead from checkpoint 0 to checkpoint 15"),
        (20, "computed anew: entries 16 to 30 do not lead from checkpoint 15 to checkpoint 30"),
    ] {
        let (world, mut sql) = world().await;
        compute_anew(&world, &mut sql, edited).await;
        // Also with entries that come later, and their checkpoints.
        act(&world, 3).await;
        let found = findings(&world, &export(&world, &[]).await).await;
        assert!(found.contains(&want.to_owned()), "{found:?}");
        assert!(found.iter().all(|finding| finding.starts_with("computed")), "{found:?}");
        degraded(&world).await;
    }
}

#[tokio::test]
async fn genuine_checkpoints_at_other_places_vouch_for_nothing() {
    let (world, _sql) = world().await;
    let whole = records(&export(&world, &[]).await);
    let text_of = |records: &[ExportRecord]| -> Vec<u8> {
        let line = |record| serde_json::to_string(record).expect("plain data becomes JSON") + "\n";
        records.iter().map(line).collect::<String>().into_bytes()
    };
    assert_eq!(findings(&world, &text_of(&whole)).await, [""; 0]);
    // A history of somebody's own, with hashes that fit each other, behind what controllers signed of the true one.
    let (header, rest) = whole.split_first().expect("a header");
    let (mut forged, entries): (Vec<_>, Vec<_>) =
        rest.iter().cloned().partition(|record| matches!(record, ExportRecord::Checkpoint(_)));
    let signed = forged.len();
    forged.insert(0, header.clone());
    let mut previous: Hash = BEGINNING;
    for record in entries {
        let ExportRecord::Entry(mut record) = record else { panic!("it is an entry") };
        let entry = record.entry.as_mut().expect("it is there");
        entry.actor = "nobody".to_owned();
        previous = link(entry.org_id, record.seq, &previous, &entry.encode().expect("it has bytes"));
        record.hash = hex::encode(previous);
        forged.push(ExportRecord::Entry(record));
    }
    let found = findings(&world, &text_of(&forged)).await;
    let early = found.iter().filter(|finding| finding.ends_with("it stands before its entry")).count();
    // That of the beginning is where it should be.
    assert_eq!(early, signed - 1, "{found:?}");
    assert!(
        found.contains(&"not covered: no checkpoint vouches for entries 1 to 30".to_owned()),
        "{found:?}"
    );
}

#[tokio::test]
async fn of_a_thousand_single_edits_each_is_named() {
    let (world, mut sql) = world().await;
    act(&world, 170).await;
    let whole = export(&world, &[]).await;
    let key: AuditKey = world.api().get("/api/v1/audit/key").await.accepted().json();
    let certificate = pki::pem::decode(&key.certificate).expect("a certificate");
    let verifier = Verifier::new(&certificate, &key.trust_domain).expect("a key of controllers");
    let records = records(&whole);
    let places: Vec<usize> =
        (0..records.len()).filter(|index| matches!(records[*index], ExportRecord::Entry(_))).collect();
    for round in 0..1000 {
        let mut records = records.clone();
        let ExportRecord::Entry(record) = &mut records[places[fastrand::usize(..places.len())]] else {
            panic!("it is an entry")
        };
        let seq = record.seq;
        let entry = record.entry.as_mut().expect("it is there");
        match fastrand::u8(..12) {
            0 => entry.id = uuid::Uuid::now_v7(),
            1 => entry.org_id = uuid::Uuid::now_v7().into(),
            2 => entry.at += jiff::SignedDuration::from_micros(fastrand::i64(1..1_000_000)),
            3 => entry.actor.push('x'),
            4 => entry.actor_id = entry.actor_id.to_uppercase(),
            5 => entry.verb = "agent.revoke".to_owned(),
            6 => drop(entry.object.pop()),
            7 => entry.outcome.insert(0, 'x'),
            8 => entry.request_id = format!("r{round}"),
            9 => entry.source = "192.0.2.1".to_owned(),
            10 => entry.detail["more"] = json!(round),
            _ => {
                let mut hash = parse_hash(&record.hash).expect("a hash");
                hash[fastrand::usize(..32)] ^= 1 << fastrand::u8(..8);
                record.hash = hex::encode(hash);
            }
        }
        let mut verification = Verification::new(&verifier, None);
        for record in &records {
            verification.line(&serde_json::to_vec(record).expect("plain data becomes JSON"));
        }
        assert_eq!(verification.finish().findings, [Finding::Edited { seq }], "round {round}");
    }

    // And some of them in the database itself.
    keep(&mut sql).await;
    let row =
        sqlx::query("select max(seq) as max from audit_chain").fetch_one(&mut sql).await.expect("a number");
    for _ in 0..20 {
        let seq = fastrand::i64(1..=row.get("max"));
        let statement = format!(
            "update audit_entries set actor = 'nobody' where id = (select entry_id from audit_chain where seq = {seq})"
        );
        let found = found(&world, &mut sql, &statement, UNDO).await;
        assert!(
            found.len() == 1 && found[0].starts_with(&format!("edited: entry {seq} ")),
            "{seq}: {found:?}"
        );
    }
}
