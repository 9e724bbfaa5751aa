//! The audit: how many actions a second leave their entries, chained, and how long a million entries take to verify.

use std::{
    fs::File,
    io::{BufRead as _, BufReader, BufWriter, Write as _},
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use futures_util::future::try_join_all;
use jiff::{SignedDuration, Timestamp};
use model::{
    api::audit::{EXPORT_FORMAT, ExportEntry, ExportHeader, ExportRecord},
    audit::AuditEntry,
    id::{ControllerId, OrgId},
};
use pki::{
    Authority, DispatchKey, Signer, Verifier,
    audit::{BEGINNING, Checkpoint, Place, Verification, link},
};
use serde_json::json;
use uuid::Uuid;

use super::number;
use crate::{
    clock,
    figure::Book,
    lab::{Connection, Lab, Request},
    plan::Plan,
};

/// Entries between two checkpoints, as a controller signs them.
const CHECKPOINT_EVERY: i64 = 1000;
/// How long the chain may take to catch up.
const CHAINED_WITHIN: Duration = Duration::from_secs(60);

/// Actions through the API, each with its entry, until the last of them is chained.
pub(super) async fn writes(lab: &mut Lab, plan: &Plan, book: &mut Book) -> anyhow::Result<()> {
    let mut database = lab.database().await?;
    let request = Request::post("/api/v1/enroll-tokens", lab.api.token(), "{}");
    let mut rates = Vec::new();
    for _ in 0..plan.repetitions {
        let mut connections = Vec::new();
        for _ in 0..plan.api_connections {
            connections.push(Connection::open(lab.http).await?);
        }
        let begun = Instant::now();
        let clients = connections.into_iter().map(|mut connection| {
            let (request, window) = (request.clone(), plan.api_window);
            async move {
                let client = tokio::spawn(async move {
                    let mut done = 0;
                    while begun.elapsed() < window {
                        connection.send(&request).await?;
                        done += 1;
                    }
                    anyhow::Ok(done)
                });
                client.await?
            }
        });
        let done: usize = try_join_all(clients).await?.into_iter().sum();
        database.wait_chained(CHAINED_WITHIN).await?;
        rates.push(number(done) / begun.elapsed().as_secs_f64());
    }
    let note = format!(
        "enroll tokens made over {} connections for {:?}, until the last entry is chained",
        plan.api_connections, plan.api_window
    );
    book.enter("audited_writes_per_s", rates, note, json!({}));
    Ok(())
}

/// The verification of an export, read from a file.
pub(super) async fn verification(_: &mut Lab, plan: &Plan, book: &mut Book) -> anyhow::Result<()> {
    let (count, repetitions) = (plan.verified_entries, plan.repetitions);
    let seconds = tokio::task::spawn_blocking(move || verify(count, repetitions)).await??;
    // Of fewer entries the same for a million.
    let scale = 1_000_000.0 / count as f64;
    let samples = seconds.iter().map(|seconds| seconds * scale).collect();
    let note =
        format!("an export of {count} entries with a checkpoint at every {CHECKPOINT_EVERY}th, from a file");
    book.enter("audit_verify_1m_s", samples, note, json!({ "seconds": seconds }));
    Ok(())
}

fn verify(count: i64, repetitions: usize) -> anyhow::Result<Vec<f64>> {
    let now = Timestamp::from_microsecond(clock::now_micros()).context("this machine's clock is far off")?;
    let hour = SignedDuration::from_hours(1);
    let authority = Authority::create("bench.example", now)?.authority;
    let key = DispatchKey::generate();
    let certificate = authority.issue_dispatch(ControllerId(Uuid::nil()), &key, now - hour, now + hour)?;
    let folder = tempfile::tempdir().context("cannot make a folder")?;
    let path = folder.path().join("audit.ndjson");
    write(&path, count, &Signer::new(key, certificate), now)?;
    let verifier = Verifier::new(authority.controllers_ca_der(), authority.trust_domain())?;
    let mut seconds = Vec::new();
    for _ in 0..repetitions {
        let begun = Instant::now();
        let mut verification = Verification::new(&verifier, None);
        let mut reader = BufReader::with_capacity(1 << 20, File::open(&path)?);
        let mut line = Vec::new();
        while reader.read_until(b'\n', &mut line)? > 0 {
            verification.line(&line);
            line.clear();
        }
        let outcome = verification.finish();
        seconds.push(begun.elapsed().as_secs_f64());
        ensure!(outcome.is_well() && outcome.last_seq == count, "the export does not verify: {outcome:?}");
    }
    Ok(seconds)
}

/// Writes an export as a controller would.
fn write(path: &Path, count: i64, signer: &Signer, now: Timestamp) -> anyhow::Result<()> {
    let organization = OrgId(Uuid::from_u128(1));
    let mut file = BufWriter::new(File::create(path)?);
    let mut line = |record: ExportRecord| -> anyhow::Result<()> {
        serde_json::to_writer(&mut file, &record)?;
        Ok(file.write_all(b"\n")?)
    };
    line(ExportRecord::Header(ExportHeader {
        format: EXPORT_FORMAT,
        organization,
        trust_domain: "bench.example".to_owned(),
        from_seq: 1,
        to_seq: count,
        prev_hash: hex::encode(BEGINNING),
    }))?;
    let (mut place, mut previous) = (Place { seq: 0, hash: BEGINNING }, None);
    for seq in 1..=count {
        let entry = AuditEntry {
            id: Uuid::from_u128(seq.unsigned_abs().into()),
            org_id: organization,
            at: now,
            actor: "administrator".to_owned(),
            actor_id: format!("api-token/{organization}"),
            verb: "execution.create".to_owned(),
            object: format!("execution/{}", Uuid::from_u128(seq.unsigned_abs().into())),
            outcome: "done".to_owned(),
            request_id: Uuid::from_u128(seq.unsigned_abs().into()).to_string(),
            source: "192.0.2.7".to_owned(),
            detail: json!({ "summary": "systemctl restart web", "targets": 50, "selector": "env=prod and role=web",
                            "timeout_seconds": 3600, "number": seq }),
        };
        place = Place { seq, hash: link(organization, seq, &place.hash, &entry.encode()?) };
        let hash = hex::encode(place.hash);
        line(ExportRecord::Entry(ExportEntry { seq, hash, entry: Some(entry) }))?;
        if seq % CHECKPOINT_EVERY == 0 || seq == count {
            let checkpoint = Checkpoint { organization, place, at: now, previous };
            line(ExportRecord::Checkpoint(checkpoint.sign(signer)))?;
            previous = Some(place);
        }
    }
    Ok(file.flush()?)
}
