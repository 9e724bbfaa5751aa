//! Sessions: which agents are connected here, and what happens when one opens or closes.
//!
//! Invariants: an agent has one current session, the one with the highest epoch. What the tables call open and the
//! agent does not hold was never started (then it is withdrawn) or is lost.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, RwLock},
    time::Instant,
};

use jiff::{SignedDuration, Timestamp};
use model::{
    Reason,
    attempt::AttemptState,
    id::{AgentId, ExecutionId, OrgId, RunId},
    label::accept_facts,
    limits,
};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{
    App,
    runs::{self, Happening},
};
use crate::{
    clock,
    error::{During, Error, Result},
    mutant,
    store::{self, sessions::Said},
};

/// Protocol versions that this controller speaks.
pub(crate) const PROTOCOL_MIN: u32 = 1;
pub(crate) const PROTOCOL_MAX: u32 = 1;

/// Fences count an agent's sessions: no agent had so many.
const HIGHEST_FENCE: i64 = 1 << 62;
/// Bytes of a journal's epoch.
const EPOCH_BYTES: usize = 16;

/// One agent's session, served here.
#[derive(Debug)]
pub(crate) struct Connected {
    pub agent_id: AgentId,
    pub org_id: OrgId,
    pub epoch: i64,
    pub fence: i64,
    pub slots: i32,
    pub journal_epoch: Vec<u8>,
    pub seal_key: Vec<u8>,
    pub outbound: mpsc::Sender<proto::ControllerFrame>,
    pub opened: Instant,
    /// Ends the session's stream.
    pub end: CancellationToken,
}

/// The sessions of this controller, and the connections of each agent.
#[derive(Debug, Default)]
pub(crate) struct Sessions {
    connected: RwLock<HashMap<AgentId, Arc<Connected>>>,
    connections: RwLock<HashMap<AgentId, Vec<CancellationToken>>>,
    /// Where agents reach the controllers that say so.
    doors: RwLock<Vec<String>>,
}

impl Sessions {
    pub(crate) fn get(&self, agent: AgentId) -> Option<Arc<Connected>> {
        self.connected.read().expect("no holder of this lock panics").get(&agent).cloned()
    }

    pub(crate) fn count(&self) -> usize {
        self.connected.read().expect("no holder of this lock panics").len()
    }

    /// What agents are told of the controllers' doors.
    pub(crate) fn doors(&self) -> Vec<String> {
        self.doors.read().expect("no holder of this lock panics").clone()
    }

    /// Remembers where the controllers' doors are, and tells the agents when that has changed.
    pub(crate) fn set_doors(&self, doors: Vec<String>) {
        let before = {
            let mut known = self.doors.write().expect("no holder of this lock panics");
            std::mem::replace(&mut *known, doors.clone())
        };
        if before == doors {
            return;
        }
        let frame = proto::controller_frame::Frame::Controllers(proto::Controllers { controllers: doors });
        for session in self.all() {
            // Who has no room for it now learns it with the next welcome.
            let _ = session.outbound.try_send(proto::ControllerFrame { frame: Some(frame.clone()) });
        }
    }

    /// All sessions that are served here.
    pub(crate) fn all(&self) -> Vec<Arc<Connected>> {
        self.connected.read().expect("no holder of this lock panics").values().cloned().collect()
    }

    /// Takes the place of an older session of the same agent, which ends; `false` when a newer one is there already.
    fn enter(&self, session: &Arc<Connected>) -> bool {
        let mut connected = self.connected.write().expect("no holder of this lock panics");
        if connected.get(&session.agent_id).is_some_and(|present| present.epoch > session.epoch) {
            return false;
        }
        let older = connected.insert(session.agent_id, Arc::clone(session));
        drop(connected);
        if let Some(older) = older {
            older.end.cancel();
        }
        self.count_connected();
        true
    }

    fn leave(&self, agent: AgentId, epoch: i64) {
        let mut connected = self.connected.write().expect("no holder of this lock panics");
        if connected.get(&agent).is_some_and(|session| session.epoch == epoch) {
            connected.remove(&agent);
        }
        drop(connected);
        self.count_connected();
    }

    fn count_connected(&self) {
        metrics::gauge!("opsc_agents_connected").set(self.count() as f64);
    }

    /// Remembers a connection of this agent, so that a revocation can cut it.
    pub(crate) fn add_connection(&self, agent: AgentId, end: CancellationToken) {
        let mut connections = self.connections.write().expect("no holder of this lock panics");
        connections.entry(agent).or_default().push(end);
    }

    /// Forgets the connections of this agent that have ended.
    pub(crate) fn forget_ended_connections(&self, agent: AgentId) {
        let mut connections = self.connections.write().expect("no holder of this lock panics");
        if let Some(of_agent) = connections.get_mut(&agent) {
            of_agent.retain(|connection| !connection.is_cancelled());
            if of_agent.is_empty() {
                connections.remove(&agent);
            }
        }
    }

    /// Cuts every connection of this agent.
    pub(crate) fn cut(&self, agent: AgentId) -> usize {
        let of_agent = self.connections.write().expect("no holder of this lock panics").remove(&agent);
        let of_agent = of_agent.unwrap_or_default();
        for connection in &of_agent {
            connection.cancel();
        }
        of_agent.len()
    }
}

/// Why a session does not open: the code and the text of the goodbye.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub code: &'static str,
    pub detail: String,
}

/// What the agent brings: who its certificate says it is, and its hello.
#[derive(Debug)]
pub(crate) struct Opening {
    pub agent_id: AgentId,
    pub org_id: OrgId,
    pub seal_key: Vec<u8>,
    pub hello: proto::Hello,
}

/// Opens a session: its numbers are drawn, and what the agent holds is compared with what the tables say.
///
/// # Errors
/// When the database does not answer. A [`Refusal`] is not an error: the agent is told and goes.
pub(crate) async fn open(
    app: &App,
    opening: Opening,
    outbound: mpsc::Sender<proto::ControllerFrame>,
    end: CancellationToken,
) -> Result<std::result::Result<Arc<Connected>, Refusal>> {
    let Opening { agent_id, org_id, seal_key, hello } = opening;
    if hello.protocol_max < PROTOCOL_MIN || hello.protocol_min > PROTOCOL_MAX {
        return Ok(Err(Refusal {
            code: "protocol_too_old",
            detail: format!(
                "this controller speaks protocols {PROTOCOL_MIN} to {PROTOCOL_MAX}, the agent {} to {}: \
                 upgrade the older one",
                hello.protocol_min, hello.protocol_max
            ),
        }));
    }
    if hello.journal_epoch.len() != EPOCH_BYTES {
        let detail =
            format!("the journal's epoch has {} bytes, not {EPOCH_BYTES}", hello.journal_epoch.len());
        return Ok(Err(Refusal { code: "protocol", detail }));
    }
    let obeyed = match i64::try_from(hello.fence) {
        Ok(obeyed) if obeyed < HIGHEST_FENCE => obeyed,
        _ => {
            let detail = "the highest fence that the journal says to have obeyed was never given".to_owned();
            return Ok(Err(Refusal { code: "protocol", detail }));
        }
    };
    let slots = i32::try_from(hello.slots.clamp(1, limits::MAX_SLOTS)).unwrap_or(1);
    let held: HashSet<(ExecutionId, RunId, i32)> = hello
        .held
        .iter()
        .filter_map(|held| {
            Some((
                ExecutionId::from_bytes(&held.execution_id).ok()?,
                RunId::from_bytes(&held.run_id).ok()?,
                i32::try_from(held.attempt).ok()?,
            ))
        })
        .collect();
    let facts = accept_facts(hello.facts);
    let version: String =
        hello.agent_version.chars().filter(|c| !c.is_control()).take(limits::NAME_CHARS).collect();

    let now = clock::now();
    let mut tx = app.db.worker().begin().await.during("begin")?;
    let me = app.info.controller_id;
    let boot_id: String =
        hello.boot_id.chars().filter(|c| !c.is_control()).take(limits::NAME_CHARS).collect();
    let since_boot = i64::try_from(hello.since_boot).unwrap_or(i64::MAX);
    let obeyed = if mutant::is("fence_ignored") { 0 } else { obeyed };
    let said = Said { obeyed, boot_id: &boot_id, since_boot };
    // What it was offered in a session that ended so long ago is lost whatever it holds.
    let patience = SignedDuration::try_from(app.info.timing.lost_after).unwrap_or(SignedDuration::MAX);
    let forgotten = now.saturating_sub(patience).unwrap_or(Timestamp::MIN);
    let opened = store::sessions::open(&mut tx, org_id, agent_id, me, said, forgotten, now).await?;
    let Some(numbers) = opened else {
        let detail = "the agent has opened another session since it said hello".to_owned();
        return Ok(Err(Refusal { code: "superseded", detail }));
    };
    let until_now =
        store::agents::update_at_hello(&mut tx, agent_id, &facts, &version, slots, &hello.journal_epoch, now)
            .await?;
    let is_same_journal = until_now.is_empty() || until_now == hello.journal_epoch;
    let absent: Vec<runs::Report> = store::attempts::open_of(&mut tx, agent_id)
        .await?
        .into_iter()
        .filter(|(key, _)| !held.contains(key))
        .map(|(key, state)| runs::Report { key, agent_id, happening: what_became_of(state, is_same_journal) })
        .collect();
    let settled = runs::settle(app, &mut tx, absent, now).await?;
    fault::point("controller.session.written");
    tx.commit().await.during("commit")?;
    fault::point("controller.session.committed");
    settled.announce(app);

    let session = Arc::new(Connected {
        agent_id,
        org_id,
        epoch: numbers.epoch,
        fence: numbers.fence,
        slots,
        journal_epoch: hello.journal_epoch,
        seal_key,
        outbound,
        opened: Instant::now(),
        end,
    });
    Ok(Ok(session))
}

/// An attempt that the tables call open and the agent does not hold. One whose offer was not answered never reached it,
/// unless its journal began anew: the one before may have known it.
fn what_became_of(state: AttemptState, is_same_journal: bool) -> Happening {
    if state == AttemptState::Offered && is_same_journal {
        return Happening::Withdrawn;
    }
    let detail = if state == AttemptState::Offered {
        "the agent lost its memory before it answered the order"
    } else {
        "the agent accepted it once and has no memory of it"
    };
    Happening::Lost { reason: Reason::JournalLost, detail: detail.to_owned() }
}

/// Enters a session whose welcome is on its way: from now on orders may follow it, and cancels that wait for this agent.
/// `false` when a newer session of the agent is there already.
pub(crate) fn enter(app: &App, session: &Arc<Connected>) -> bool {
    if !app.sessions.enter(session) {
        return false;
    }
    if let Some(checkpoint) = app.audit.frame(session.org_id) {
        // Who has no room for it now gets the next one.
        let _ = session.outbound.try_send(checkpoint);
    }
    app.wake.free([session.agent_id]);
    app.wake.cancel.notify_one();
    true
}

/// Ends a session, unless a newer one has taken its place.
///
/// # Errors
/// When the database does not answer; the next session, or the end of this controller's lease, mends the row.
pub(crate) async fn close(app: &App, session: &Connected) -> Result<()> {
    app.sessions.leave(session.agent_id, session.epoch);
    app.alarms.leave(session);
    store::sessions::close(app.db.worker(), session.agent_id, session.epoch, clock::now()).await
}

/// What decides over an agent's call: its certificate's serial must be the current one or the new one, and it must be
/// neither revoked nor, where that matters, pending. A certificate that began later than all that the row knows of was
/// issued before the database went back to an older copy, and counts too.
///
/// # Errors
/// [`Error::BadCredential`] for a serial that does not count (any more), [`Error::Revoked`] for a revoked agent.
pub(crate) async fn admit(
    app: &App,
    identity: &pki::identity::AgentIdentity,
) -> Result<store::agents::Standing> {
    let refused = |why: &str| Error::BadCredential(why.to_owned());
    if identity.trust_domain != *app.info.trust_domain {
        return Err(refused("the certificate is of another trust domain"));
    }
    let standing = store::agents::standing(app.db.worker(), identity.org_id, identity.agent_id)
        .await?
        .ok_or_else(|| refused("there is no such agent"))?;
    if standing.revoked {
        return Err(Error::Revoked(standing.name));
    }
    if identity.serial != standing.serial_current {
        let (pool, agent, serial) = (app.db.worker(), identity.agent_id, &identity.serial);
        if standing.serial_new.as_ref() == Some(serial) {
            store::agents::promote_serial(pool, agent, serial).await?;
        } else if store::agents::adopt_serial(pool, agent, serial, identity.not_before, identity.not_after)
            .await?
        {
            tracing::warn!(agent.id = %agent, "the agent's certificate is newer than the database, which is a copy of an \
                earlier one; it counts from now on");
        } else {
            return Err(refused("the certificate was replaced by a newer one"));
        }
    }
    Ok(standing)
}
