//! The audit's chain: entries get their numbers and hashes in the order in which they are found, and now and then a
//! checkpoint is signed. What is known of the newest checkpoints is kept in memory, for agents as witnesses.
//!
//! 1. Of an organization one transaction at a time continues the chain, whichever controller it is of. It takes entries out
//!    of the queue, chains them and signs, or does nothing.
//! 2. The chain goes on behind the newest checkpoint where that contradicts it: what is missing stays missing for all to
//!    see, and what comes after can be verified.
//! 3. The newest checkpoint is always one of a key that is in use: where nothing happens for a quarter of such a key's life,
//!    an entry says so, and is signed.
//! 4. An entry that cannot be chained stops no other.

pub(crate) mod alarms;
mod export;
pub(crate) mod forward;
mod link;
mod newest;

use jiff::{SignedDuration, Timestamp};
use model::{api::audit::SignedCheckpoint, id::OrgId, limits};
use pki::audit::{Checkpoint, Place};
use serde_json::json;
use sqlx::PgConnection;

pub(crate) use self::{
    alarms::Alarms,
    export::range,
    link::link,
    newest::{Newest, refresh},
};
use super::App;
use crate::{
    clock,
    error::{During, Result},
    store::{
        audit::{self, Entry},
        audit_chain as store,
        audit_chain::{Chained, Kept},
    },
};

/// Entries of one transaction.
const BATCH: i64 = 1000;
/// A checkpoint is due after so many entries, or so long after the one before.
const ENTRIES: i64 = 1000;
const AFTER: SignedDuration = SignedDuration::from_secs(60);
/// Checkpoints that are looked at for one that counts.
const LOOKED_AT: i64 = 16;

/// Whether to wait for another controller that continues the chain, and when to sign.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// Another one that is at it does the work; a checkpoint when it is due.
    InPassing,
    /// All that is there is chained, and signed.
    Now,
}

/// Chains what waits, and signs a checkpoint if one is due.
///
/// # Errors
/// When the database does not answer.
pub(crate) async fn advance(app: &App, org: OrgId) -> Result<()> {
    while advance_once(app, org, Mode::InPassing).await? == BATCH {}
    Ok(())
}

/// Chains all that is committed, and makes sure that a checkpoint covers it.
///
/// # Errors
/// When the database does not answer.
pub(crate) async fn catch_up(app: &App, org: OrgId) -> Result<()> {
    while advance_once(app, org, Mode::Now).await? == BATCH {}
    Ok(())
}

/// One transaction; says how many entries it took.
async fn advance_once(app: &App, org: OrgId, mode: Mode) -> Result<i64> {
    let mut tx = app.db.worker().begin().await.during("begin")?;
    match mode {
        Mode::Now => store::lock(&mut tx, org).await?,
        Mode::InPassing if store::try_lock(&mut tx, org).await? => {}
        Mode::InPassing => return Ok(0),
    }
    let now = clock::now();
    let newest = read_newest(app, &mut tx, org).await?;
    let mut head = head(app, &mut tx, org, newest.as_ref()).await?;
    let passed_over = app.audit.passed_over(org);
    let mut entries = store::next(&mut tx, org, &passed_over, BATCH).await?;
    let ages = newest.as_ref().is_some_and(|(newest, _)| ages(app, newest, now));
    if ages && entries.is_empty() && newest.as_ref().is_some_and(|(newest, _)| newest.place == head) {
        let detail = json!({ "seq": head.seq });
        let entry = Entry::new("controller", "audit.idle", format!("organization/{org}"), detail);
        audit::record(&mut tx, org, now, entry).await?;
        entries = store::next(&mut tx, org, &passed_over, BATCH).await?;
    }
    let taken = i64::try_from(entries.len()).unwrap_or(BATCH);
    let mut chained = Vec::with_capacity(entries.len());
    for entry in entries {
        let bytes = match entry.encode() {
            Ok(bytes) => bytes,
            // Nothing of ours writes such a one: it stays in the queue.
            Err(error) => {
                app.audit.pass_over(org, entry.id, &error);
                continue;
            }
        };
        let seq = head.seq + 1;
        head = Place { seq, hash: pki::audit::link(org, seq, &head.hash, &bytes) };
        chained.push(Chained { seq, entry_id: entry.id, at: entry.at, hash: head.hash });
    }
    if !chained.is_empty() {
        store::insert(&mut tx, org, &chained).await?;
    }
    // Where none of them could be chained, none of them comes again.
    let is_last = taken < BATCH;
    let signs = match &newest {
        None => head.seq > 0 || (mode == Mode::Now && is_last),
        Some((newest, _)) => {
            let more = head.seq - newest.place.seq;
            // One that was signed by a clock that runs ahead is due too: else nothing would be signed until then.
            let is_old = ages || !(SignedDuration::ZERO..AFTER).contains(&now.duration_since(newest.at));
            more > 0 && (more >= ENTRIES || is_old || (mode == Mode::Now && is_last))
        }
    };
    let signed = if signs { sign(app, &mut tx, org, head, newest.as_ref(), now).await? } else { None };
    fault::point("controller.audit.chained");
    tx.commit().await.during("commit")?;
    fault::point("controller.audit.committed");
    if let Some((checkpoint, kept)) = signed {
        app.audit.learn(app, org, checkpoint, &kept);
    }
    Ok(if is_last { 0 } else { taken })
}

/// Whether the key of the newest checkpoint will be out of use before long.
fn ages(app: &App, newest: &Checkpoint, now: Timestamp) -> bool {
    let quarter = SignedDuration::try_from(app.info.dispatch_key_life / 4).unwrap_or(SignedDuration::MAX);
    now.duration_since(newest.at) >= quarter
}

/// The newest checkpoint that counts: of a key that is in use. Where there is none, no controller has run for as long as a
/// key lives, or somebody signs with an old one; the chain goes on behind the newest of an old key all the same.
async fn read_newest(
    app: &App,
    connection: &mut PgConnection,
    org: OrgId,
) -> Result<Option<(Checkpoint, Kept)>> {
    let mut old = None;
    for kept in store::checkpoints(connection, org, LOOKED_AT).await? {
        let refused = match open(app, org, &kept) {
            Ok(checkpoint) => match is_fresh(app, &kept) {
                Ok(()) => return Ok(Some((checkpoint, kept))),
                Err(why) => {
                    old.get_or_insert((checkpoint, kept.clone()));
                    why
                }
            },
            Err(why) => why,
        };
        app.audit.contradict(org, format!("the checkpoint of entry {} does not count: {refused}", kept.seq));
    }
    Ok(old)
}

/// Whether the key that signed it is in use.
fn is_fresh(app: &App, kept: &Kept) -> std::result::Result<(), String> {
    let skew = SignedDuration::try_from(limits::CLOCK_SKEW).unwrap_or(SignedDuration::ZERO);
    let counts = app.ca.verifier().still_counts(&kept.certificate, clock::now(), skew);
    counts.map_err(|refused| format!("the key that signed it is out of use: {refused}"))
}

/// Verifies a checkpoint as it is kept.
pub(crate) fn open(app: &App, org: OrgId, kept: &Kept) -> std::result::Result<Checkpoint, String> {
    let checkpoint = Checkpoint::read(&kept.payload, &kept.signature, &kept.certificate, app.ca.verifier())
        .map_err(|refused| refused.to_string())?;
    let is_its_row = checkpoint.organization == org
        && checkpoint.place.seq == kept.seq
        && checkpoint.place.hash[..] == kept.hash[..];
    if is_its_row {
        Ok(checkpoint)
    } else {
        Err("its row says something else than what was signed".to_owned())
    }
}

/// Behind what the chain goes on.
async fn head(
    app: &App,
    connection: &mut PgConnection,
    org: OrgId,
    newest: Option<&(Checkpoint, Kept)>,
) -> Result<Place> {
    let head = store::head(connection, org).await?.unwrap_or(Place::BEGINNING);
    let Some((checkpoint, _)) = newest else { return Ok(head) };
    let signed = checkpoint.place;
    if head.seq > signed.seq || head == signed {
        return Ok(head);
    }
    let what = if head.seq < signed.seq { "ends before" } else { "says something else than" };
    app.audit.contradict(org, format!("the chain {what} its checkpoint of entry {}", signed.seq));
    Ok(signed)
}

/// Signs that the chain ends there; not where there is a checkpoint of this number already, which does not count.
async fn sign(
    app: &App,
    connection: &mut PgConnection,
    org: OrgId,
    place: Place,
    newest: Option<&(Checkpoint, Kept)>,
    now: Timestamp,
) -> Result<Option<(Checkpoint, Kept)>> {
    let mut previous = newest.map(|(checkpoint, _)| checkpoint.place);
    if let Some(before) = &mut previous
        && let Some(hash) = store::hash_at(connection, org, before.seq).await?
        && hash != before.hash
    {
        app.audit.contradict(org, format!("the chain contradicts its checkpoint of entry {}", before.seq));
        // What it says now is signed, so that whoever knows better can tell.
        before.hash = hash;
    }
    // Their times do not go back, unless a clock was far ahead.
    let skew = SignedDuration::try_from(limits::CLOCK_SKEW).unwrap_or(SignedDuration::ZERO);
    let before = newest.map(|(checkpoint, _)| checkpoint.at).filter(|at| at.duration_since(now) <= skew);
    let at = before.map_or(now, |before| before.max(now));
    let checkpoint = Checkpoint { organization: org, place, at, previous };
    let signer = app.ca.signer();
    let SignedCheckpoint { payload, signature, .. } = checkpoint.sign(&signer);
    let kept = Kept {
        seq: place.seq,
        hash: place.hash.to_vec(),
        at,
        payload: payload.into_bytes(),
        signature: hex::decode(signature).unwrap_or_default(),
        certificate: signer.certificate().to_vec(),
    };
    let is_kept = store::insert_checkpoint(connection, org, &kept).await?;
    Ok(is_kept.then_some((checkpoint, kept)))
}

/// A checkpoint as the API shows it.
pub(crate) fn shown(kept: Kept) -> SignedCheckpoint {
    SignedCheckpoint {
        seq: kept.seq,
        hash: hex::encode(kept.hash),
        at: kept.at,
        payload: String::from_utf8_lossy(&kept.payload).into_owned(),
        signature: hex::encode(kept.signature),
        certificate: hex::encode(kept.certificate),
    }
}
