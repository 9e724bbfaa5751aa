//! The agent as a witness of its organization's audit: it remembers the newest checkpoints that controllers have sent it, and
//! raises an alarm when a later one contradicts them. A database that was rolled back or written anew does.
//!
//! 1. Only what a controller of the own installation signed, for the own organization, is believed or remembered.
//! 2. A checkpoint is remembered on disk before anything else is made of it.
//! 3. An alarm stands until a person forgets it (`opsconductor-agent forget-alarm`): the file goes, and with it what was
//!    remembered. Until then nothing more is remembered.
//! 4. An older checkpoint is no alarm by itself: of two controllers one may hear of the newest later. It must not say anything
//!    else than what is remembered, and the newest, or a newer one, must come soon.
//! 5. A newer one that does not name the newest that is remembered, because this agent missed some, is believed once the
//!    controller has shown what the chain has at that number now (a *link*). When it does not, that is told, and it is
//!    believed all the same: what is missing may have been removed by somebody who may.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};
use model::{api::audit::SignedCheckpoint, id::OrgId};
use pki::{
    Verifier,
    audit::{Checkpoint, KIND, LINK, Place},
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::time::Instant;
use uuid::Uuid;

use super::identity::{self, Identity};
use crate::clock;

const MEMORY: &str = "witness.json";
const ALARM: &str = "audit-alarm.json";
/// Checkpoints whose numbers and hashes are remembered.
const PLACES: usize = 64;
/// For so long an older checkpoint may be the last that came.
const BEHIND_FOR: Duration = Duration::from_secs(60);
/// For so long a link may not come, and so often it is asked for.
const UNLINKED_FOR: Duration = Duration::from_secs(60);
const ASK_EVERY: Duration = Duration::from_secs(10);
/// The kind of an alarm that tells of a link that did not come.
const GAP: &str = "gap";

/// What is remembered.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
struct Memory {
    /// The newest last.
    places: Vec<Place>,
    newest: Option<SignedCheckpoint>,
}

/// The audit contradicts what is remembered.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Alarm {
    pub id: Uuid,
    pub at: Timestamp,
    pub what: String,
    pub remembered: SignedCheckpoint,
    pub seen: SignedCheckpoint,
    /// What was seen is a link.
    #[serde(default)]
    pub is_link: bool,
}

impl Alarm {
    /// As the controller is told.
    pub(super) fn frame(&self) -> proto::Alarm {
        proto::Alarm {
            id: self.id.as_bytes().to_vec(),
            what: self.what.clone(),
            remembered: Some(envelope(KIND, &self.remembered)),
            seen: Some(envelope(if self.is_link { LINK } else { KIND }, &self.seen)),
            kind: String::new(),
        }
    }
}

/// What a person sees of the witness.
#[derive(Debug, Serialize)]
pub struct Shown {
    /// The number of the newest entry that a checkpoint is remembered of.
    pub newest_seq: Option<i64>,
    pub alarm: Option<Alarm>,
}

/// Reads what the witness in the link's folder has kept.
pub fn shown(folder: &Path) -> Shown {
    let memory: Option<Memory> = read(&folder.join(MEMORY)).ok().flatten();
    let newest_seq = memory.and_then(|memory| memory.places.last().map(|place| place.seq));
    Shown { newest_seq, alarm: read(&folder.join(ALARM)).ok().flatten() }
}

/// Forgets the alarm and what led to it; the next checkpoint is believed. Gives back the alarm that stood.
///
/// # Errors
/// When a file cannot be removed.
pub fn forget(folder: &Path) -> io::Result<Option<Alarm>> {
    let alarm = read(&folder.join(ALARM)).ok().flatten();
    // The alarm last: a link that runs takes its end for the sign.
    for file in [MEMORY, ALARM] {
        match std::fs::remove_file(folder.join(file)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    identity::sync_folder(folder)?;
    Ok(alarm)
}

/// What came of a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Verdict {
    New,
    Known,
    /// It is older than the newest, and may be.
    Older,
    /// It does not name the newest, because there were others in between.
    Unlinked,
    Contradicts(String),
}

/// What there is to tell the controller.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Step {
    Nothing,
    /// There is an alarm since.
    Alarm,
    /// What lies between was not shown.
    Gap(Box<proto::Alarm>),
    /// A link from this number is wanted.
    Ask(i64),
}

/// One that waits for its link.
#[derive(Debug)]
struct Unlinked {
    since: Instant,
    asked: Instant,
    place: Place,
    signed: SignedCheckpoint,
}

/// The witness of a running link.
#[derive(Debug)]
pub(super) struct Witness {
    folder: PathBuf,
    memory: Memory,
    alarm: Option<Alarm>,
    /// Since when an older one is the last that came, and which.
    behind: Option<(Instant, SignedCheckpoint)>,
    unlinked: Option<Unlinked>,
    /// Whether the controller of this session shows links.
    shows_links: bool,
}

impl Witness {
    pub(super) fn open(folder: &Path) -> Self {
        let memory = read(&folder.join(MEMORY)).unwrap_or_else(|error| {
            tracing::error!(path = %folder.join(MEMORY).display(), %error, "what was remembered of the audit is lost");
            None
        });
        let alarm = read(&folder.join(ALARM)).unwrap_or_else(|error| {
            tracing::error!(path = %folder.join(ALARM).display(), %error, "an alarm cannot be read");
            None
        });
        Self {
            folder: folder.to_owned(),
            memory: memory.unwrap_or_default(),
            alarm,
            behind: None,
            unlinked: None,
            shows_links: false,
        }
    }

    /// A session begins, with a controller that shows links or an older one.
    pub(super) fn begin(&mut self, shows_links: bool) {
        (self.unlinked, self.shows_links) = (None, shows_links);
    }

    pub(super) fn alarm(&self) -> Option<&Alarm> {
        self.alarm.as_ref()
    }

    /// Takes a checkpoint of a controller, or a link.
    pub(super) fn see(&mut self, identity: &Identity, skew: Duration, envelope: &proto::Envelope) -> Step {
        let (ca, now) = (identity.controllers_ca(), clock::now());
        let checkpoint = match read_checkpoint(ca, &identity.trust_domain, envelope, now, skew) {
            Ok(checkpoint) => checkpoint,
            Err(why) => {
                tracing::error!("a checkpoint of the audit does not count: {why}");
                return Step::Nothing;
            }
        };
        let signed = signed(envelope, &checkpoint);
        self.accept(identity.org_id, &envelope.kind, checkpoint, signed)
    }

    fn accept(&mut self, own: OrgId, kind: &str, checkpoint: Checkpoint, signed: SignedCheckpoint) -> Step {
        if checkpoint.organization != own {
            tracing::error!(organization.id = %checkpoint.organization, "a checkpoint of another organization's audit came");
            return Step::Nothing;
        }
        if self.alarm.is_some() {
            return Step::Nothing;
        }
        if kind == LINK { self.link(checkpoint, signed) } else { self.take(checkpoint, signed) }
    }

    fn take(&mut self, checkpoint: Checkpoint, signed: SignedCheckpoint) -> Step {
        match judge(&self.memory.places, &checkpoint) {
            Verdict::New => self.remember(checkpoint.place, signed),
            Verdict::Known => self.behind = None,
            Verdict::Older => {
                self.behind.get_or_insert((Instant::now(), signed));
            }
            // An older controller has nothing else to show.
            Verdict::Unlinked if !self.shows_links => self.remember(checkpoint.place, signed),
            Verdict::Unlinked => {
                self.behind = None;
                let (now, place) = (Instant::now(), checkpoint.place);
                let Some(unlinked) = &mut self.unlinked else {
                    self.unlinked = Some(Unlinked { since: now, asked: now, place, signed });
                    return Step::Ask(self.newest_seq());
                };
                (unlinked.place, unlinked.signed) = (place, signed);
            }
            Verdict::Contradicts(what) => {
                self.raise(what, signed, false);
                return Step::Alarm;
            }
        }
        Step::Nothing
    }

    /// Takes what the chain has now at the number that was asked about.
    fn link(&mut self, link: Checkpoint, signed: SignedCheckpoint) -> Step {
        let (Some(unlinked), Some(newest)) = (&self.unlinked, self.memory.places.last()) else {
            return Step::Nothing;
        };
        // Of another number, or to one that is not the last that came: it is asked for again.
        let Some(previous) = link.previous.filter(|previous| previous.seq == newest.seq) else {
            return Step::Nothing;
        };
        if previous != *newest || (link.place.seq == unlinked.place.seq && link.place != unlinked.place) {
            let differs = if previous == *newest { link.place.seq } else { newest.seq };
            self.raise(format!("entry {differs} had another hash"), signed, true);
            return Step::Alarm;
        }
        if let Some(unlinked) = self.unlinked.take_if(|unlinked| unlinked.place == link.place) {
            self.remember(unlinked.place, unlinked.signed);
        }
        Step::Nothing
    }

    fn newest_seq(&self) -> i64 {
        self.memory.places.last().map_or(0, |place| place.seq)
    }

    fn remember(&mut self, place: Place, signed: SignedCheckpoint) {
        (self.behind, self.unlinked) = (None, None);
        self.memory.places.push(place);
        let excess = self.memory.places.len().saturating_sub(PLACES);
        self.memory.places.drain(..excess);
        self.memory.newest = Some(signed);
        if let Err(error) = write(&self.folder, MEMORY, &self.memory) {
            tracing::error!(path = %self.folder.join(MEMORY).display(), %error,
                "a checkpoint of the audit is not remembered on the disk");
        }
    }

    /// Looks whether an older checkpoint has been the last that came for too long, or a link has not come.
    pub(super) fn tick(&mut self, now: Instant) -> Step {
        if self.alarm.is_some() {
            return Step::Nothing;
        }
        let is_late = |(since, _): &mut (Instant, SignedCheckpoint)| now.duration_since(*since) >= BEHIND_FOR;
        if let Some((_, signed)) = self.behind.take_if(is_late) {
            let newest = self.newest_seq();
            let what =
                format!("its newest checkpoint is that of entry {}, and was that of {newest}", signed.seq);
            self.raise(what, signed, false);
            return Step::Alarm;
        }
        let newest = self.newest_seq();
        let is_late = |one: &mut Unlinked| now.duration_since(one.since) >= UNLINKED_FOR;
        if let Some(unlinked) = self.unlinked.take_if(is_late) {
            return self.gap(unlinked);
        }
        match &mut self.unlinked {
            Some(unlinked) if now.duration_since(unlinked.asked) >= ASK_EVERY => {
                unlinked.asked = now;
                Step::Ask(newest)
            }
            _ => Step::Nothing,
        }
    }

    /// Tells that nothing was shown of what lies between, and goes on from what came.
    fn gap(&mut self, unlinked: Unlinked) -> Step {
        let what = format!(
            "nothing shows that checkpoint {} follows checkpoint {}, which is remembered",
            unlinked.place.seq,
            self.newest_seq()
        );
        tracing::warn!("the audit of this organization may have been written anew: {what}");
        let alarm = proto::Alarm {
            id: pki::random::<16>().to_vec(),
            what,
            remembered: self.memory.newest.as_ref().map(|newest| envelope(KIND, newest)),
            seen: Some(envelope(KIND, &unlinked.signed)),
            kind: GAP.to_owned(),
        };
        self.remember(unlinked.place, unlinked.signed);
        Step::Gap(Box::new(alarm))
    }

    fn raise(&mut self, what: String, seen: SignedCheckpoint, is_link: bool) {
        tracing::error!("the audit of this organization was rolled back or written anew: {what}");
        let Some(remembered) = self.memory.newest.clone() else { return };
        let alarm =
            Alarm { id: Uuid::from_bytes(pki::random()), at: clock::now(), what, remembered, seen, is_link };
        if let Err(error) = write(&self.folder, ALARM, &alarm) {
            tracing::error!(path = %self.folder.join(ALARM).display(), %error, "the alarm is not kept on the disk");
        }
        self.alarm = Some(alarm);
    }

    /// Whether a person has forgotten the alarm since the last look.
    pub(super) fn was_forgotten(&mut self) -> bool {
        if self.alarm.is_none() || self.folder.join(ALARM).exists() {
            return false;
        }
        tracing::warn!("the alarm of the audit was forgotten; what comes next is believed");
        (self.alarm, self.memory, self.behind, self.unlinked) = (None, Memory::default(), None, None);
        true
    }
}

/// Holds a checkpoint against those that are remembered.
fn judge(places: &[Place], checkpoint: &Checkpoint) -> Verdict {
    let Some(newest) = places.last() else { return Verdict::New };
    let place = checkpoint.place;
    if place == *newest {
        return Verdict::Known;
    }
    if let Some(known) = places.iter().find(|known| known.seq == place.seq)
        && *known != place
    {
        return Verdict::Contradicts(format!("entry {} had another hash", place.seq));
    }
    if place.seq < newest.seq {
        return Verdict::Older;
    }
    // The newest one that is remembered has to be among those before it.
    match checkpoint.previous {
        Some(previous) if previous.seq > newest.seq => Verdict::Unlinked,
        Some(previous) if previous == *newest => Verdict::New,
        Some(previous) if previous.seq == newest.seq => {
            Verdict::Contradicts(format!("entry {} had another hash", newest.seq))
        }
        _ => Verdict::Contradicts(format!("the checkpoint of entry {} is not there any more", newest.seq)),
    }
}

fn read_checkpoint(
    ca: &[u8],
    trust_domain: &str,
    envelope: &proto::Envelope,
    now: Timestamp,
    skew: Duration,
) -> Result<Checkpoint, String> {
    let proto::Envelope { kind, payload, signature, certificate } = envelope;
    if ![KIND, LINK].contains(&kind.as_str()) {
        return Err(format!("it is a {kind}"));
    }
    let verifier = Verifier::new(ca, trust_domain).map_err(|error| error.to_string())?;
    let skew = SignedDuration::try_from(skew).unwrap_or(SignedDuration::ZERO);
    Checkpoint::read_fresh(kind, payload, signature, certificate, &verifier, (now, skew))
        .map_err(|refused| refused.to_string())
}

fn signed(envelope: &proto::Envelope, checkpoint: &Checkpoint) -> SignedCheckpoint {
    SignedCheckpoint {
        seq: checkpoint.place.seq,
        hash: hex::encode(checkpoint.place.hash),
        at: checkpoint.at,
        payload: String::from_utf8_lossy(&envelope.payload).into_owned(),
        signature: hex::encode(&envelope.signature),
        certificate: hex::encode(&envelope.certificate),
    }
}

fn envelope(kind: &str, signed: &SignedCheckpoint) -> proto::Envelope {
    proto::Envelope {
        kind: kind.to_owned(),
        payload: signed.payload.clone().into_bytes(),
        signature: hex::decode(&signed.signature).unwrap_or_default(),
        certificate: hex::decode(&signed.certificate).unwrap_or_default(),
    }
}

/// Reads a file; none when there is none.
fn read<T: DeserializeOwned>(path: &Path) -> io::Result<Option<T>> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes)?)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Writes a file: whole or not at all, and durable.
fn write(folder: &Path, name: &str, value: &impl Serialize) -> io::Result<()> {
    let fresh = folder.join(format!("{name}.new"));
    identity::write_private(&fresh, &serde_json::to_vec_pretty(value)?)
        .and_then(|()| std::fs::rename(&fresh, folder.join(name)))
        .and_then(|()| identity::sync_folder(folder))
}

#[cfg(test)]
mod tests;
