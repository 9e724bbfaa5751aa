use model::{
    api::audit::{EXPORT_FORMAT, ExportEntry, ExportHeader, ExportRecord},
    audit::AuditEntry,
};
use serde_json::json;
use uuid::Uuid;

use super::*;
use crate::{
    Authority, DispatchKey,
    testing::{CONTROLLER, DOMAIN, HOUR, ORG, authority, now},
};

/// Entries between two checkpoints.
const EVERY: i64 = 10;

fn signer(authority: &Authority) -> Signer {
    let key = DispatchKey::generate();
    let certificate = authority.issue_dispatch(CONTROLLER, &key, now() - HOUR, now() + HOUR).unwrap();
    Signer::new(key, certificate)
}

fn entry(number: i64) -> AuditEntry {
    AuditEntry {
        id: Uuid::from_u128(number.unsigned_abs().into()),
        org_id: ORG,
        at: now(),
        actor: "somebody".to_owned(),
        actor_id: "api-token/1".to_owned(),
        verb: "agent.drain".to_owned(),
        object: format!("agent/{number}"),
        outcome: "done".to_owned(),
        request_id: "r".to_owned(),
        source: "127.0.0.1".to_owned(),
        detail: json!({ "number": number }),
    }
}

/// An export of `count` entries from number 1, with a checkpoint at every tenth, and its end.
fn export(signer: &Signer, count: i64) -> Vec<ExportRecord> {
    let header = ExportHeader {
        format: EXPORT_FORMAT,
        organization: ORG,
        trust_domain: DOMAIN.to_owned(),
        from_seq: 1,
        to_seq: count,
        prev_hash: hex::encode(BEGINNING),
    };
    let mut records = vec![ExportRecord::Header(header)];
    let entries = (1..=count).map(entry).collect();
    chain(&mut records, signer, entries, None);
    records
}

/// Chains entries behind what `records` has, from the number 1.
fn chain(
    records: &mut Vec<ExportRecord>,
    signer: &Signer,
    entries: Vec<AuditEntry>,
    signs_from: Option<i64>,
) {
    let count = i64::try_from(entries.len()).unwrap();
    let (mut previous, mut before) = (BEGINNING, None);
    for (index, entry) in entries.into_iter().enumerate() {
        let seq = i64::try_from(index).unwrap() + 1;
        previous = link(ORG, seq, &previous, &entry.encode().unwrap());
        records.push(ExportRecord::Entry(ExportEntry {
            seq,
            hash: hex::encode(previous),
            entry: Some(entry),
        }));
        if (seq % EVERY == 0 || seq == count) && signs_from.is_none_or(|from| seq >= from) {
            let place = Place { seq, hash: previous };
            let checkpoint = Checkpoint { organization: ORG, place, at: now(), previous: before };
            records.push(ExportRecord::Checkpoint(checkpoint.sign(signer)));
            before = Some(place);
        }
    }
}

fn verified(authority: &Authority, records: &[ExportRecord], kept: Option<Place>) -> Outcome {
    let verifier = Verifier::new(authority.controllers_ca_der(), DOMAIN).unwrap();
    let kept = kept.map(|place| Checkpoint { organization: ORG, place, at: now(), previous: None });
    let mut verification = Verification::new(&verifier, kept.as_ref());
    for record in records {
        verification.line(&serde_json::to_vec(record).unwrap());
    }
    verification.finish()
}

/// Where the entry with this number stands.
fn at(records: &[ExportRecord], seq: i64) -> usize {
    records
        .iter()
        .position(|record| matches!(record, ExportRecord::Entry(entry) if entry.seq == seq))
        .expect("it is there")
}

fn entry_mut(records: &mut [ExportRecord], seq: i64) -> &mut ExportEntry {
    let index = at(records, seq);
    match &mut records[index] {
        ExportRecord::Entry(entry) => entry,
        other => panic!("{other:?}"),
    }
}

fn entry_of(records: &mut [ExportRecord], seq: i64) -> &mut AuditEntry {
    entry_mut(records, seq).entry.as_mut().unwrap()
}

/// What is found when an export of 35 entries was changed so.
fn found(change: impl FnOnce(&mut Vec<ExportRecord>, &Signer)) -> Vec<Finding> {
    let authority = authority();
    let signer = signer(&authority);
    let mut records = export(&signer, 35);
    change(&mut records, &signer);
    verified(&authority, &records, None).findings
}

#[test]
fn what_nobody_touched_is_well() {
    let authority = authority();
    let signer = signer(&authority);
    for count in [1, 9, 10, 11, 35] {
        let outcome = verified(&authority, &export(&signer, count), None);
        assert!(outcome.is_well(), "{:?}", outcome.findings);
        assert_eq!((outcome.entries, outcome.last_seq), (count.unsigned_abs(), count));
        assert_eq!(outcome.newest.unwrap().seq, count);
    }
}

#[test]
fn an_empty_organization_is_well_with_a_checkpoint_of_the_beginning() {
    let authority = authority();
    let signer = signer(&authority);
    let mut records = export(&signer, 0);
    assert_eq!(verified(&authority, &records, None).findings, [Finding::NoCheckpoint]);
    let checkpoint = Checkpoint { organization: ORG, place: Place::BEGINNING, at: now(), previous: None };
    records.push(ExportRecord::Checkpoint(checkpoint.sign(&signer)));
    assert!(verified(&authority, &records, None).is_well());
    assert_eq!(verified(&authority, &[], None).findings, [Finding::NoHeader]);
}

#[test]
fn each_edited_field_is_found_at_its_number() {
    let edits: [fn(&mut AuditEntry); 12] = [
        |e| e.id = Uuid::nil(),
        |e| e.org_id = OrgId(Uuid::nil()),
        |e| e.at = now() + HOUR,
        |e| e.actor = "nobody".to_owned(),
        |e| e.actor_id.clear(),
        |e| e.verb = "agent.revoke".to_owned(),
        |e| e.object.push('x'),
        |e| e.outcome = "failed".to_owned(),
        |e| e.request_id.push('x'),
        |e| e.source.clear(),
        |e| e.detail["number"] = json!(1.5),
        |e| e.detail["more"] = json!(null),
    ];
    for edit in edits {
        for seq in [1, 2, 10, 20, 34, 35] {
            let found = found(|records, _| edit(entry_of(records, seq)));
            assert_eq!(found, [Finding::Edited { seq }]);
        }
    }
}

#[test]
fn many_edited_entries_are_all_named() {
    let found = found(|records, _| {
        for seq in [3, 4, 5, 10, 11, 35] {
            entry_of(records, seq).actor.push('x');
        }
    });
    assert_eq!(found, [3, 4, 5, 10, 11, 35].map(|seq| Finding::Edited { seq }));
}

#[test]
fn an_edited_hash_is_found_at_its_number() {
    for seq in [1, 7, 10, 34, 35] {
        let found = found(|records, _| entry_mut(records, seq).hash = hex::encode([7; 32]));
        assert_eq!(found, [Finding::Edited { seq }]);
    }
    for wrong in ["", "no hash"] {
        assert_eq!(
            found(|records, _| entry_mut(records, 7).hash = wrong.to_owned()),
            [Finding::Edited { seq: 7 }]
        );
    }
}

#[test]
fn what_was_removed_is_named() {
    let without = |range: std::ops::RangeInclusive<i64>| {
        found(|records, _| {
            records
                .retain(|record| !matches!(record, ExportRecord::Entry(entry) if range.contains(&entry.seq)));
        })
    };
    // What stands around a hole cannot be checked, back to the last checkpoint.
    let (uncovered, unverifiable) =
        (|from, to| Finding::Uncovered { from, to }, |seq| Finding::Unverifiable { seq });
    assert_eq!(without(7..=7), [uncovered(1, 6), unverifiable(8), Finding::Removed { from: 7, to: 7 }]);
    assert_eq!(without(1..=3), [unverifiable(4), Finding::Removed { from: 1, to: 3 }]);
    assert_eq!(without(8..=22), [uncovered(1, 7), unverifiable(23), Finding::Removed { from: 8, to: 22 }]);
    assert_eq!(without(33..=35), [Finding::Cut { from: 33, to: 35 }, uncovered(31, 32)]);
    // A checkpoint says what stood before the entry behind the hole.
    assert_eq!(without(10..=10), [uncovered(1, 9), Finding::Removed { from: 10, to: 10 }]);
    // As the hash does that was left.
    assert_eq!(
        found(|records, _| entry_mut(records, 7).entry = None),
        [uncovered(1, 6), Finding::Removed { from: 7, to: 7 }]
    );
}

#[test]
fn what_stands_at_another_number_is_named() {
    for [a, b] in [[5, 6], [5, 9], [1, 35], [10, 20], [19, 20], [34, 35]] {
        // Which entry the number has was changed.
        let swapped = found(|records, _| {
            let (one, other) = (at(records, a), at(records, b));
            let of = entry_mut(records, a).entry.take();
            entry_mut(records, a).entry = entry_mut(records, b).entry.take();
            entry_mut(records, b).entry = of;
            assert_ne!(one, other);
        });
        assert_eq!(swapped, [a, b].map(|seq| Finding::Reordered { seq }), "{a} {b}");
        // The numbers of two rows were changed, and their hashes went with them.
        let swapped = found(|records, _| {
            let (one, other) = (at(records, a), at(records, b));
            records.swap(one, other);
            if let ExportRecord::Entry(entry) = &mut records[one] {
                entry.seq = a;
            }
            if let ExportRecord::Entry(entry) = &mut records[other] {
                entry.seq = b;
            }
        });
        assert_eq!(swapped, [a, b].map(|seq| Finding::Reordered { seq }), "{a} {b}");
    }
    let lines = found(|records, _| {
        let (one, other) = (at(records, 5), at(records, 6));
        records.swap(one, other);
    });
    assert_eq!(
        lines,
        [
            Finding::Uncovered { from: 1, to: 4 },
            Finding::Unverifiable { seq: 6 },
            Finding::Reordered { seq: 5 }
        ]
    );
}

#[test]
fn a_chain_that_was_computed_anew_contradicts_the_checkpoints() {
    for edited in [1, 10, 11, 15, 35] {
        let found = found(|records, signer| {
            let old = std::mem::take(records);
            let mut entries: Vec<AuditEntry> = Vec::new();
            for record in &old {
                if let ExportRecord::Entry(entry) = record {
                    entries.extend(entry.entry.clone());
                }
            }
            entries[usize::try_from(edited - 1).unwrap()].actor.push('x');
            let mut anew = vec![old[0].clone()];
            chain(&mut anew, signer, entries, None);
            // The checkpoints stay as they were: nobody else can sign.
            for (new, old) in anew.iter_mut().zip(&old) {
                if matches!(new, ExportRecord::Checkpoint(_)) {
                    *new = old.clone();
                }
            }
            *records = anew;
        });
        let after = (edited - 1) / EVERY * EVERY;
        assert_eq!(found, [Finding::Remade { after, until: (after + EVERY).min(35) }], "{edited}");
    }
}

#[test]
fn checkpoints_that_do_not_count_are_named() {
    let checkpoints = |records: &mut Vec<ExportRecord>, change: &dyn Fn(&mut SignedCheckpoint)| {
        for record in records {
            if let ExportRecord::Checkpoint(signed) = record
                && signed.seq == 20
            {
                change(signed);
            }
        }
    };
    let changes: [&dyn Fn(&mut SignedCheckpoint); 6] = [
        &|signed| signed.payload = signed.payload.replace("\"seq\":20", "\"seq\":21"),
        &|signed| signed.signature = "00".repeat(64),
        &|signed| signed.signature = "no".to_owned(),
        &|signed| signed.certificate = "00".repeat(64),
        &|signed| signed.hash = hex::encode([1; 32]),
        &|signed| signed.at += HOUR,
    ];
    for change in changes {
        let found = found(|records, _| checkpoints(records, change));
        assert!(matches!(&found[..], [Finding::BadCheckpoint { seq: 20, .. }]), "{found:?}");
    }
    let found_other = found(|records, signer| {
        let place = Place { seq: 20, hash: [0; 32] };
        let other =
            Checkpoint { organization: OrgId(Uuid::nil()), place, at: now(), previous: None }.sign(signer);
        checkpoints(records, &|signed| *signed = other.clone());
    });
    assert!(matches!(&found_other[..], [Finding::BadCheckpoint { seq: 20, .. }]), "{found_other:?}");
    let removed = found(|records, _| {
        records.retain(
            |record| !matches!(record, ExportRecord::Checkpoint(signed) if [10, 30].contains(&signed.seq)),
        );
    });
    assert_eq!(removed, [10, 30].map(|seq| Finding::CheckpointRemoved { seq }));
}

/// Moves the checkpoints with these numbers directly behind the header, in their order.
fn hoist(records: &mut Vec<ExportRecord>, seqs: &[i64]) {
    let is_one = |record: &ExportRecord| matches!(record, ExportRecord::Checkpoint(signed) if seqs.contains(&signed.seq));
    let (moved, rest): (Vec<_>, Vec<_>) = std::mem::take(records).into_iter().partition(is_one);
    *records = rest;
    records.splice(1..1, moved);
}

/// Changes the entries with these numbers, and computes the hashes of the numbers from `from` up to `to` anew.
fn forge(records: &mut [ExportRecord], edited: &[i64], from: i64, to: i64) {
    for seq in edited {
        entry_of(records, *seq).actor = "nobody".to_owned();
    }
    let mut previous = match from {
        1 => BEGINNING,
        _ => parse_hash(&entry_mut(records, from - 1).hash).unwrap(),
    };
    for seq in from..=to {
        let bytes = entry_of(records, seq).encode().unwrap();
        previous = link(ORG, seq, &previous, &bytes);
        entry_mut(records, seq).hash = hex::encode(previous);
    }
}

fn names(findings: &[Finding], seq: i64) -> bool {
    findings.iter().any(|finding| matches!(finding, Finding::BadCheckpoint { seq: bad, .. } if *bad == seq))
}

#[test]
fn a_checkpoint_before_its_entry_vouches_for_nothing() {
    // A whole history of somebody's own, behind checkpoints that are genuine.
    let all = found(|records, _| {
        hoist(records, &[10, 20, 30, 35]);
        forge(records, &[1, 12, 34], 1, 35);
    });
    assert!([10, 20, 30, 35].into_iter().all(|seq| names(&all, seq)), "{all:?}");
    assert!(all.contains(&Finding::Uncovered { from: 1, to: 35 }), "{all:?}");
    // One segment, and the newest.
    for (moved, edited, to) in [(10, 5, 10), (20, 15, 20), (35, 33, 35)] {
        let one = found(|records, _| {
            hoist(records, &[moved]);
            forge(records, &[edited], edited, to);
        });
        assert!(names(&one, moved), "{one:?}");
    }
    // Only moved by one line.
    let early = found(|records, _| {
        let index = at(records, 20);
        records.swap(index, index + 1);
    });
    assert!(names(&early, 20), "{early:?}");
    // By one line the other way.
    let late = found(|records, _| {
        let index = at(records, 20);
        records.swap(index + 1, index + 2);
    });
    assert!(names(&late, 20), "{late:?}");
}

#[test]
fn a_checkpoint_that_was_kept_is_not_contained_by_standing_there() {
    let authority = authority();
    let signer = signer(&authority);
    let mut records = export(&signer, 35);
    let kept = Place { seq: 20, hash: parse_hash(&entry_mut(&mut records, 20).hash).unwrap() };
    hoist(&mut records, &[20]);
    forge(&mut records, &[15], 15, 20);
    let findings = verified(&authority, &records, Some(kept)).findings;
    assert!(findings.contains(&Finding::RolledBack { seq: 20 }), "{findings:?}");
}

/// The export as one from the entry with this number on, which follows `previous`.
fn part(records: &mut Vec<ExportRecord>, from: i64, previous: &str) {
    let first = at(records, from);
    records.drain(1..first);
    let ExportRecord::Header(header) = &mut records[0] else { panic!() };
    (header.from_seq, header.prev_hash) = (from, previous.to_owned());
}

#[test]
fn what_follows_nothing_that_is_known_is_named() {
    let before = |records: &mut Vec<ExportRecord>, seq: i64| entry_mut(records, seq - 1).hash.clone();
    // The checkpoint behind it vouches for the hash before the first entry too.
    for from in [5, 11, 12] {
        let honest = found(|records, _| {
            let previous = before(records, from);
            part(records, from, &previous);
        });
        assert_eq!(honest, [], "{from}");
        let edited = found(|records, _| {
            let previous = before(records, from);
            entry_of(records, from).actor.push('x');
            part(records, from, &previous);
        });
        assert_eq!(edited, [Finding::Edited { seq: from }]);
        // Without that hash it may say anything.
        let free = found(|records, _| {
            entry_of(records, from).actor.push('x');
            part(records, from, "");
        });
        assert_eq!(free, [Finding::Unverifiable { seq: from }]);
    }
}

#[test]
fn a_hole_hides_no_edit() {
    // The entry with the checkpoint is gone, so nothing contradicts those before it.
    let before = found(|records, _| {
        forge(records, &[5], 5, 9);
        let index = at(records, 10);
        records.remove(index);
    });
    assert_eq!(before, [Finding::Uncovered { from: 1, to: 9 }, Finding::Removed { from: 10, to: 10 }]);
    // The entry behind the hole, of which the hash alone stays.
    let behind = found(|records, _| {
        entry_of(records, 8).actor.push('x');
        let index = at(records, 7);
        records.remove(index);
    });
    assert!(behind.contains(&Finding::Unverifiable { seq: 8 }), "{behind:?}");
    let with_rows = found(|records, _| {
        forge(records, &[5], 5, 6);
        entry_mut(records, 7).entry = None;
    });
    assert_eq!(with_rows, [Finding::Uncovered { from: 1, to: 6 }, Finding::Removed { from: 7, to: 7 }]);
}

#[test]
fn checkpoints_are_signed_one_after_the_other() {
    let earlier = found(|records, signer| {
        let index = at(records, 20) + 1;
        let hash = |records: &mut [ExportRecord], seq| parse_hash(&entry_mut(records, seq).hash).unwrap();
        let previous = Some(Place { seq: 10, hash: hash(records, 10) });
        let place = Place { seq: 20, hash: hash(records, 20) };
        let at = now() - jiff::SignedDuration::from_secs(1);
        records[index] =
            ExportRecord::Checkpoint(Checkpoint { organization: ORG, place, at, previous }.sign(signer));
    });
    assert!(matches!(&earlier[..], [Finding::BadCheckpoint { seq: 20, .. }]), "{earlier:?}");
}

#[test]
fn a_checkpoint_counts_at_its_own_time_alone() {
    let authority = authority();
    let signer = signer(&authority);
    let verifier = Verifier::new(authority.controllers_ca_der(), DOMAIN).unwrap();
    for (at, counts) in [(now(), true), (now() + HOUR * 2, false), (now() - HOUR * 2, false)] {
        let checkpoint = Checkpoint { organization: ORG, place: Place::BEGINNING, at, previous: None };
        let opened = Checkpoint::open(&checkpoint.sign(&signer), &verifier);
        assert_eq!(opened.is_ok(), counts, "{opened:?}");
    }
    let undated = signer.sign(KIND, b"{}");
    assert!(Checkpoint::read(b"{}", &undated, signer.certificate(), &verifier).is_err());
    let order = signer.sign("work-order", b"{}");
    assert!(Checkpoint::read(b"{}", &order, signer.certificate(), &verifier).is_err());
}

#[test]
fn a_key_that_is_out_of_use_signs_nothing_that_is_new() {
    let authority = authority();
    let signer = signer(&authority);
    let verifier = Verifier::new(authority.controllers_ca_der(), DOMAIN).unwrap();
    let minute = SignedDuration::from_mins(1);
    let signed =
        Checkpoint { organization: ORG, place: Place::BEGINNING, at: now(), previous: None }.sign(&signer);
    let signature = hex::decode(&signed.signature).unwrap();
    let read = |at| {
        let (payload, certificate) = (signed.payload.as_bytes(), signer.certificate());
        Checkpoint::read_fresh(KIND, payload, &signature, certificate, &verifier, (at, minute))
    };
    // Its certificate ends in an hour; the clocks may be a minute apart.
    assert!(read(now()).is_ok());
    assert!(read(now() + HOUR + minute).is_ok());
    assert!(read(now() + HOUR + minute * 2).is_err());
    assert!(read(now() - HOUR - minute * 2).is_err());
    assert!(Checkpoint::open(&signed, &verifier).is_ok());
}

#[test]
fn with_the_key_of_another_installation_nothing_counts() {
    let (authority, other) = (authority(), authority());
    let records = export(&signer(&authority), 15);
    let findings = verified(&other, &records, None).findings;
    assert!(matches!(
        &findings[..2],
        [Finding::BadCheckpoint { seq: 10, .. }, Finding::BadCheckpoint { .. }]
    ));
    assert_eq!(findings[2], Finding::NoCheckpoint);
}

#[test]
fn a_file_that_was_cut_off_shows() {
    let authority = authority();
    let records = export(&signer(&authority), 35);
    for length in 1..records.len() {
        let outcome = verified(&authority, &records[..length], None);
        assert!(!outcome.is_well(), "{length}");
        assert!(
            outcome.findings.iter().any(|finding| matches!(finding, Finding::Cut { to: 35, .. }))
                || length == records.len() - 1,
            "{:?}",
            outcome.findings
        );
    }
    let damaged = found(|records, _| records.push(records[0].clone()));
    assert_eq!(damaged, [Finding::Unreadable { line: 41 }]);
}

#[test]
fn a_kept_checkpoint_must_be_contained() {
    let authority = authority();
    let records = export(&signer(&authority), 35);
    let hash = |seq| {
        let ExportRecord::Entry(entry) = &records[at(&records, seq)] else { panic!() };
        parse_hash(&entry.hash).unwrap()
    };
    for seq in [1, 10, 33, 35] {
        let kept = Place { seq, hash: hash(seq) };
        assert!(verified(&authority, &records, Some(kept)).is_well());
    }
    for kept in [Place { seq: 36, hash: hash(35) }, Place { seq: 20, hash: hash(21) }] {
        let outcome = verified(&authority, &records, Some(kept));
        assert_eq!(outcome.findings, [Finding::RolledBack { seq: kept.seq }]);
    }
}

#[test]
fn an_unchained_entry_is_named() {
    let unchained = model::api::audit::ExportUnchained { entry: entry(99) };
    let found = found(|records, _| records.push(ExportRecord::Unchained(unchained)));
    assert_eq!(found, [Finding::Unchained { id: Uuid::from_u128(99) }]);
}

/// `cargo test --release -p pki -- --ignored a_million`: how long it takes.
#[test]
#[ignore = "measures; for a release build"]
fn a_million_entries_are_verified_within_seconds() {
    let authority = authority();
    let records = export(&signer(&authority), 1_000_000);
    let lines: Vec<Vec<u8>> = records.iter().map(|record| serde_json::to_vec(record).unwrap()).collect();
    let verifier = Verifier::new(authority.controllers_ca_der(), DOMAIN).unwrap();
    let begun = std::time::Instant::now();
    let mut verification = Verification::new(&verifier, None);
    for line in &lines {
        verification.line(line);
    }
    assert!(verification.finish().is_well());
    let took = begun.elapsed();
    assert!(took < std::time::Duration::from_secs(20), "{took:?}");
}
