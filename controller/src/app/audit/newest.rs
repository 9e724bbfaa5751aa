//! The newest checkpoints in memory: agents get them without a question to the database, and a database that went back
//! contradicts them.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{
        Mutex, RwLock,
        atomic::{AtomicU64, Ordering},
    },
};

use model::{audit::NotCanonical, id::OrgId};
use pki::audit::{Checkpoint, KIND, Place};
use proto::{ControllerFrame, Envelope, controller_frame::Frame};
use uuid::Uuid;

use crate::{
    app::App,
    error::Result,
    store::{audit_chain, audit_chain::Kept},
};

#[derive(Debug)]
struct Known {
    place: Place,
    envelope: Envelope,
}

/// What this process knows of the audit's chains.
#[derive(Debug, Default)]
pub(crate) struct Newest {
    known: RwLock<HashMap<OrgId, Known>>,
    /// What is wrong with an organization's chain; the first that was seen stays.
    contradictions: Mutex<BTreeMap<OrgId, String>>,
    /// Entries of the queue that cannot be chained.
    passed_over: Mutex<HashMap<OrgId, HashSet<Uuid>>>,
    rounds: AtomicU64,
}

impl Newest {
    /// The newest checkpoint of an organization, for its agents.
    pub(crate) fn frame(&self, org: OrgId) -> Option<ControllerFrame> {
        let known = self.known.read().expect("no holder of this lock panics");
        known
            .get(&org)
            .map(|known| ControllerFrame { frame: Some(Frame::Checkpoint(known.envelope.clone())) })
    }

    /// Remembers a checkpoint that was just signed or read, unless a newer one is known, and tells the agents.
    pub(super) fn learn(&self, app: &App, org: OrgId, checkpoint: Checkpoint, kept: &Kept) {
        let known = self.place(org);
        if known.is_some_and(|known| known.seq > checkpoint.place.seq) {
            return;
        }
        if let Some(known) = known.filter(|known| known.seq == checkpoint.place.seq) {
            if known == checkpoint.place {
                return;
            }
            self.contradict(org, format!("there are two checkpoints of entry {}", known.seq));
        }
        self.replace(app, org, checkpoint, kept);
    }

    fn replace(&self, app: &App, org: OrgId, checkpoint: Checkpoint, kept: &Kept) {
        let envelope = Envelope {
            kind: KIND.to_owned(),
            payload: kept.payload.clone(),
            signature: kept.signature.clone(),
            certificate: kept.certificate.clone(),
        };
        let known = Known { place: checkpoint.place, envelope };
        self.known.write().expect("no holder of this lock panics").insert(org, known);
        let Some(frame) = self.frame(org) else { return };
        for session in app.sessions.all() {
            if session.org_id == org {
                // Who has no room for it now gets the next one.
                let _ = session.outbound.try_send(frame.clone());
            }
        }
    }

    pub(super) fn place(&self, org: OrgId) -> Option<Place> {
        self.known.read().expect("no holder of this lock panics").get(&org).map(|known| known.place)
    }

    fn places(&self) -> HashMap<OrgId, Place> {
        let known = self.known.read().expect("no holder of this lock panics");
        known.iter().map(|(org, known)| (*org, known.place)).collect()
    }

    /// The number of the sequencer's next round.
    pub(crate) fn next_round(&self) -> u64 {
        self.rounds.fetch_add(1, Ordering::Relaxed)
    }

    /// Something does not agree; it is told once, and stays in `/status`.
    pub(super) fn contradict(&self, org: OrgId, what: String) {
        let mut contradictions = self.contradictions.lock().expect("no holder of this lock panics");
        if contradictions.contains_key(&org) {
            return;
        }
        metrics::counter!("opsc_audit_contradictions_total").increment(1);
        tracing::error!(organization.id = %org, "the audit was tampered with: {what}");
        contradictions.insert(org, what);
    }

    /// An entry cannot be chained; it is told once.
    pub(super) fn pass_over(&self, org: OrgId, entry: Uuid, why: &NotCanonical) {
        let mut passed_over = self.passed_over.lock().expect("no holder of this lock panics");
        if passed_over.entry(org).or_default().insert(entry) {
            tracing::error!(organization.id = %org, entry.id = %entry, "an entry of the audit cannot be chained: {why}");
            self.contradict(org, format!("the entry {entry} cannot be chained: {why}"));
        }
    }

    /// Those entries, which the queue need not give out again.
    pub(super) fn passed_over(&self, org: OrgId) -> Vec<Uuid> {
        let passed_over = self.passed_over.lock().expect("no holder of this lock panics");
        passed_over.get(&org).map(|entries| entries.iter().copied().collect()).unwrap_or_default()
    }

    /// What is wrong, if anything is.
    pub(crate) fn problem(&self) -> Option<String> {
        let contradictions = self.contradictions.lock().expect("no holder of this lock panics");
        let (org, what) = contradictions.first_key_value()?;
        Some(format!("the audit of organization {org} was tampered with: {what}"))
    }
}

/// Reads the newest checkpoints, which other controllers may have signed. Agents get what the database says, also where
/// it went back: they are the ones who know better.
///
/// # Errors
/// When the database does not answer.
pub(crate) async fn refresh(app: &App) -> Result<()> {
    // Before the database is asked: it cannot have less than this.
    let mut before = app.audit.places();
    for (org, kept) in audit_chain::newest_checkpoints(app.db.worker()).await? {
        let known = before.remove(&org);
        let opened = super::open(app, org, &kept);
        match opened.and_then(|checkpoint| super::is_fresh(app, &kept).map(|()| checkpoint)) {
            Ok(checkpoint) => match known.filter(|known| known.seq > checkpoint.place.seq) {
                Some(known) => {
                    let now = checkpoint.place.seq;
                    let what = format!("its newest checkpoint was that of entry {} and is now", known.seq);
                    app.audit.contradict(org, format!("{what} that of entry {now}: the database went back"));
                    app.audit.replace(app, org, checkpoint, &kept);
                }
                None => app.audit.learn(app, org, checkpoint, &kept),
            },
            Err(why) => {
                let what = format!("the checkpoint of entry {} does not count: {why}", kept.seq);
                app.audit.contradict(org, what);
            }
        }
    }
    for (org, known) in before {
        app.audit.contradict(org, format!("its checkpoint of entry {} is gone", known.seq));
    }
    Ok(())
}
