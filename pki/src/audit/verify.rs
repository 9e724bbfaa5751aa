//! Verification of an export: offline, one line after the other, in bounded memory.
//!
//! 1. Each entry's hash is computed anew behind the hash that stands at its predecessor, so that one edited entry is found
//!    at its own number and not at all that follow.
//! 2. What does not agree is set aside, up to [`SUSPECTS`], and looked at again at the end ([`resolve`]): an entry that would
//!    be right at another number was moved, and a hash that its neighbours contradict was edited itself.
//! 3. That a whole chain was computed anew shows at the checkpoints alone: they are signed. A checkpoint vouches for the
//!    entries before it if it stands directly behind its own, and no hole parts them from it.
//! 4. What cannot be checked is a finding: the entry behind a hole, and those before it back to the last checkpoint.

mod resolve;

use std::fmt;

use jiff::Timestamp;
use model::{
    api::audit::{EXPORT_FORMAT, ExportEntry, ExportHeader, ExportRecord, SignedCheckpoint},
    id::OrgId,
};
use uuid::Uuid;

use self::resolve::Suspect;
use super::{Checkpoint, Hash, Place, link, parse_hash};
use crate::Verifier;

/// Entries that are looked at again at the end; more are called edited at once.
const SUSPECTS: usize = 256;
/// Findings that are kept; more are counted.
const FINDINGS: usize = 10_000;

/// What is wrong with an export.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// The first line is no header of a form that is known here.
    NoHeader,
    /// A line, counted from 1, is no record.
    Unreadable {
        line: u64,
    },
    /// The entry does not give its hash, or the hash does not follow the one before it.
    Edited {
        seq: i64,
    },
    /// Entries are missing.
    Removed {
        from: i64,
        to: i64,
    },
    /// Entries at the end are missing, though a checkpoint or the header has their numbers.
    Cut {
        from: i64,
        to: i64,
    },
    /// The entry belongs to another number, or stands at another place.
    Reordered {
        seq: i64,
    },
    /// The chain was computed anew: it does not lead from the checkpoint at the one number to that at the other.
    Remade {
        after: i64,
        until: i64,
    },
    BadCheckpoint {
        seq: i64,
        why: String,
    },
    CheckpointRemoved {
        seq: i64,
    },
    /// No checkpoint vouches for these entries: none comes behind them, or a hole parts them from it.
    Uncovered {
        from: i64,
        to: i64,
    },
    /// What the entry follows is missing, so nothing shows what it said.
    Unverifiable {
        seq: i64,
    },
    NoCheckpoint,
    /// An entry has no place in the chain.
    Unchained {
        id: Uuid,
    },
    /// A checkpoint that somebody kept is not contained.
    RolledBack {
        seq: i64,
    },
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoHeader => {
                write!(f, "not an export: the first line is no header of format {EXPORT_FORMAT}")
            }
            Self::Unreadable { line } => write!(f, "unreadable: line {line} is no record"),
            Self::Edited { seq } => {
                write!(f, "edited: entry {seq} does not give its hash behind that of the entry before it")
            }
            Self::Removed { from, to } if from == to => write!(f, "removed: entry {from} is missing"),
            Self::Removed { from, to } => write!(f, "removed: entries {from} to {to} are missing"),
            Self::Cut { from, to } => write!(f, "cut: entries {from} to {to}, at the end, are missing"),
            Self::Reordered { seq } => {
                write!(f, "reordered: entry {seq} is not the one that had this number")
            }
            Self::Remade { after, until } => write!(
                f,
                "computed anew: entries {} to {until} do not lead from checkpoint {after} to checkpoint {until}",
                after + 1
            ),
            Self::BadCheckpoint { seq, why } => write!(f, "bad checkpoint: that of entry {seq}: {why}"),
            Self::CheckpointRemoved { seq } => {
                write!(f, "removed checkpoint: that of entry {seq} is missing")
            }
            Self::Uncovered { from, to } => {
                write!(f, "not covered: no checkpoint vouches for entries {from} to {to}")
            }
            Self::Unverifiable { seq } => {
                write!(f, "not verifiable: what entry {seq} follows is missing, so it may say anything")
            }
            Self::NoCheckpoint => write!(f, "not covered: there is no checkpoint that counts"),
            Self::Unchained { id } => write!(f, "not chained: the entry {id} has no place in the chain"),
            Self::RolledBack { seq } => {
                write!(f, "rolled back: the checkpoint of entry {seq}, which was kept, is not contained")
            }
        }
    }
}

/// What a verification found.
#[derive(Debug)]
pub struct Outcome {
    pub organization: Option<OrgId>,
    pub entries: u64,
    pub checkpoints: u64,
    /// The number of the last entry.
    pub last_seq: i64,
    /// The newest checkpoint that holds.
    pub newest: Option<SignedCheckpoint>,
    pub findings: Vec<Finding>,
    /// Findings beyond those.
    pub more: u64,
}

impl Outcome {
    pub fn is_well(&self) -> bool {
        self.findings.is_empty() && self.more == 0
    }
}

/// What is known of the checkpoint before.
#[derive(Debug, Clone, Copy)]
enum Before {
    First,
    /// It could not be read.
    Unknown,
    Known(Place),
}

/// A verification under way.
#[derive(Debug)]
pub struct Verification<'a> {
    verifier: &'a Verifier,
    header: Option<ExportHeader>,
    organization: OrgId,
    line: u64,
    entries: u64,
    checkpoints: u64,
    /// The number that comes next, and the hash that stands before it; none where that is missing.
    next: i64,
    previous: Option<Hash>,
    suspects: Vec<Suspect>,
    /// Checkpoints of entries that are suspects.
    deferred: Vec<(i64, Place)>,
    missing: Vec<(i64, i64)>,
    before: Before,
    /// When the checkpoint before says that it was signed.
    signed_at: Option<Timestamp>,
    /// The last checkpoint that holds, and whether one since does not.
    holds: i64,
    is_remade: bool,
    /// Up to where it was said what is known of the entries.
    told: i64,
    /// Checkpoints that stand before the place where their entries could be, by their numbers.
    ahead: Vec<i64>,
    highest: Option<Place>,
    newest: Option<SignedCheckpoint>,
    kept: Option<Place>,
    kept_of: Option<OrgId>,
    findings: Vec<Finding>,
    more: u64,
}

impl<'a> Verification<'a> {
    /// `kept` must be contained.
    pub fn new(verifier: &'a Verifier, kept: Option<&Checkpoint>) -> Self {
        Self {
            verifier,
            header: None,
            organization: OrgId(Uuid::nil()),
            line: 0,
            entries: 0,
            checkpoints: 0,
            next: 1,
            previous: None,
            suspects: Vec::new(),
            deferred: Vec::new(),
            missing: Vec::new(),
            before: Before::First,
            signed_at: None,
            holds: 0,
            is_remade: false,
            told: 0,
            ahead: Vec::new(),
            highest: None,
            newest: None,
            kept: kept.map(|kept| kept.place),
            kept_of: kept.map(|kept| kept.organization),
            findings: Vec::new(),
            more: 0,
        }
    }

    /// Takes the next line.
    pub fn line(&mut self, line: &[u8]) {
        self.line += 1;
        let Ok(record) = serde_json::from_slice::<ExportRecord>(line) else {
            let finding =
                if self.line == 1 { Finding::NoHeader } else { Finding::Unreadable { line: self.line } };
            return self.find(finding);
        };
        match (record, &self.header) {
            (ExportRecord::Header(header), None) if self.line == 1 => self.begin(header),
            (ExportRecord::Header(_), _) => self.find(Finding::Unreadable { line: self.line }),
            // Said already; without a header nothing can be checked.
            (_, None) => {}
            (ExportRecord::Entry(entry), _) => self.entry(entry),
            (ExportRecord::Checkpoint(signed), _) => self.checkpoint(signed),
            (ExportRecord::Unchained(unchained), _) => {
                self.find(Finding::Unchained { id: unchained.entry.id });
            }
        }
    }

    fn begin(&mut self, header: ExportHeader) {
        let previous = parse_hash(&header.prev_hash);
        // The hash before the first entry may be missing, not wrong.
        let is_bad = previous.is_none() && !header.prev_hash.is_empty();
        if header.format != EXPORT_FORMAT || header.from_seq < 1 || is_bad {
            return self.find(Finding::NoHeader);
        }
        self.organization = header.organization;
        self.next = header.from_seq;
        (self.holds, self.told) = (header.from_seq - 1, header.from_seq - 1);
        self.previous = if header.from_seq == 1 { Some(super::BEGINNING) } else { previous };
        if let Some(hash) = self.previous {
            self.look_for_kept(Place { seq: self.next - 1, hash });
        }
        self.header = Some(header);
    }

    fn entry(&mut self, record: ExportEntry) {
        let ExportEntry { seq, hash, entry } = record;
        self.entries += 1;
        if seq < self.next {
            self.came_late(seq);
            return self.find(Finding::Reordered { seq });
        }
        for early in std::mem::take(&mut self.ahead) {
            // Those of entries that are missing stand where they should.
            if early >= seq {
                let why = "it stands before its entry".to_owned();
                self.find(Finding::BadCheckpoint { seq: early, why });
            }
        }
        if seq > self.next {
            self.hole(self.next, seq - 1);
            // A checkpoint may say what stood before it.
            self.previous = self.highest.filter(|place| place.seq == seq - 1).map(|place| place.hash);
        }
        self.next = seq.saturating_add(1);
        let stored = parse_hash(&hash);
        let Some(entry) = entry else {
            self.hole(seq, seq);
            self.previous = stored;
            return;
        };
        if self.previous.is_none() {
            self.find(Finding::Unverifiable { seq });
        }
        let bytes = entry.encode().ok().filter(|_| entry.org_id == self.organization);
        let stored = match (stored, &bytes) {
            (Some(stored), Some(bytes)) => {
                let follows = |previous: &Hash| link(self.organization, seq, previous, bytes) == stored;
                // A controller goes on behind a checkpoint where the chain contradicts that.
                let signed = self.highest.filter(|place| place.seq == seq - 1);
                let agrees = self.previous.as_ref().is_none_or(follows)
                    || signed.is_some_and(|place| follows(&place.hash));
                if agrees {
                    self.look_for_kept(Place { seq, hash: stored });
                    self.previous = Some(stored);
                    return;
                }
                stored
            }
            (Some(stored), None) => stored,
            // No hash at all: what follows can be held against what this one should have been.
            (None, bytes) => {
                let own = bytes.as_ref().zip(self.previous);
                own.map_or(super::BEGINNING, |(bytes, previous)| {
                    link(self.organization, seq, &previous, bytes)
                })
            }
        };
        self.look_for_kept(Place { seq, hash: stored });
        if self.suspects.len() < SUSPECTS {
            let is_hash = parse_hash(&hash).is_some();
            self.suspects.push(Suspect { seq, previous: self.previous, stored, is_hash, bytes });
        } else {
            self.find(Finding::Edited { seq });
        }
        self.previous = Some(stored);
    }

    /// Entries are missing. Nothing leads from those before them, back to the last checkpoint, to the next one.
    fn hole(&mut self, from: i64, to: i64) {
        self.missing.push((from, to));
        if self.told + 1 < from {
            self.find(Finding::Uncovered { from: self.told + 1, to: from - 1 });
        }
        self.told = to;
    }

    /// An entry that was missing stands at another place.
    fn came_late(&mut self, seq: i64) {
        if let Some(index) = self.missing.iter().position(|(from, to)| (*from..=*to).contains(&seq)) {
            let (from, to) = self.missing.remove(index);
            self.missing.extend((from < seq).then_some((from, seq - 1)));
            self.missing.extend((seq < to).then_some((seq + 1, to)));
        }
    }

    fn checkpoint(&mut self, signed: SignedCheckpoint) {
        let seq = signed.seq;
        let checkpoint = match Checkpoint::open(&signed, self.verifier) {
            Ok(checkpoint) if checkpoint.organization == self.organization => checkpoint,
            Ok(_) => return self.refuse(seq, "it is one of another organization".to_owned()),
            Err(refused) => return self.refuse(seq, refused.to_string()),
        };
        self.checkpoints += 1;
        let place = checkpoint.place;
        // Controllers do not sign so; whoever has a key that is out of use can date what he signs only into its life.
        if let Some(before) = self.signed_at.filter(|before| *before > checkpoint.at) {
            let why = format!("it was signed at {}, and the one before it at {before}", checkpoint.at);
            self.find(Finding::BadCheckpoint { seq, why });
        }
        self.signed_at = Some(checkpoint.at);
        self.follows(&checkpoint);
        self.before = Before::Known(place);
        if place.seq < self.next - 1 {
            return self.find(Finding::BadCheckpoint { seq, why: "it stands at another place".to_owned() });
        }
        if self.highest.is_none_or(|highest| highest.seq <= place.seq) {
            self.highest = Some(place);
        }
        // Its entry is still to come, and then it stands wrong, or is missing: what is said of that is said then.
        if place.seq > self.next - 1 {
            if self.ahead.last().is_none_or(|last| *last < place.seq) {
                self.ahead.push(place.seq);
            }
            return;
        }
        self.told = self.told.max(place.seq);
        if self.suspects.last().is_some_and(|suspect| suspect.seq == place.seq) {
            self.deferred.push((self.holds, place));
            self.newest = Some(signed);
            return;
        }
        match self.previous {
            Some(hash) if hash != place.hash => self.remade(place.seq),
            Some(_) => {
                (self.holds, self.is_remade) = (place.seq, false);
                self.newest = Some(signed);
                self.look_for_kept(place);
            }
            // It says what stood there; there is nothing that it could be held against.
            None => self.previous = Some(place.hash),
        }
    }

    fn refuse(&mut self, seq: i64, why: String) {
        self.before = Before::Unknown;
        self.find(Finding::BadCheckpoint { seq, why });
    }

    /// Whether the one before it is the one that it names.
    fn follows(&mut self, checkpoint: &Checkpoint) {
        let seq = checkpoint.place.seq;
        let first = self.header.as_ref().map_or(1, |header| header.from_seq);
        match (self.before, checkpoint.previous) {
            (Before::Unknown, _) | (Before::First, None) => {}
            (Before::First, Some(previous)) if first > 1 && previous.seq < first => {}
            (Before::First, Some(previous)) => self.find(Finding::CheckpointRemoved { seq: previous.seq }),
            (Before::Known(known), Some(previous)) if previous.seq > known.seq => {
                self.find(Finding::CheckpointRemoved { seq: previous.seq });
            }
            (Before::Known(known), Some(previous)) if previous.seq == known.seq => {
                // Where the chain contradicts the one before, that was said.
                if previous != known && !self.is_remade {
                    let why = format!("entry {} had another hash when it was signed", known.seq);
                    self.find(Finding::BadCheckpoint { seq, why });
                }
            }
            (Before::Known(known), previous) => {
                let named = previous.map_or_else(|| "none".to_owned(), |previous| previous.seq.to_string());
                let why = format!("it follows checkpoint {named}, not {} as it stands here", known.seq);
                self.find(Finding::BadCheckpoint { seq, why });
            }
        }
    }

    fn remade(&mut self, until: i64) {
        if !self.is_remade {
            self.is_remade = true;
            self.find(Finding::Remade { after: self.holds, until });
        }
    }

    fn look_for_kept(&mut self, place: Place) {
        if self.kept == Some(place) && self.kept_of == Some(self.organization) {
            self.kept = None;
        }
    }

    fn find(&mut self, finding: Finding) {
        if self.findings.len() < FINDINGS {
            self.findings.push(finding);
        } else {
            self.more += 1;
        }
    }

    /// What came of it, when there are no more lines.
    pub fn finish(mut self) -> Outcome {
        let Some(header) = self.header.take() else {
            if self.line == 0 {
                self.find(Finding::NoHeader);
            }
            return self.outcome(None);
        };
        self.resolve();
        for (from, to) in std::mem::take(&mut self.missing) {
            self.find(Finding::Removed { from, to });
        }
        let last = self.next - 1;
        let promised = self.highest.map_or(0, |place| place.seq).max(header.to_seq);
        if promised > last {
            self.find(Finding::Cut { from: last + 1, to: promised });
        }
        match self.highest {
            None => self.find(Finding::NoCheckpoint),
            Some(_) if self.told < last => {
                self.find(Finding::Uncovered { from: self.told + 1, to: last });
            }
            Some(_) => {}
        }
        let is_other = self.kept_of.is_some_and(|of| of != self.organization);
        if let Some(kept) = self.kept.filter(|kept| kept.seq > 0 || is_other) {
            self.find(Finding::RolledBack { seq: kept.seq });
        }
        self.outcome(Some(header.organization))
    }

    fn outcome(self, organization: Option<OrgId>) -> Outcome {
        Outcome {
            organization,
            entries: self.entries,
            checkpoints: self.checkpoints,
            last_seq: self.next - 1,
            newest: self.newest,
            findings: self.findings,
            more: self.more,
        }
    }
}
