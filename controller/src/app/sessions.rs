//! Sessions: which agents are connected here, and what happens when one opens or closes.
//!
//! Invariants: an agent has one current session, the one with the highest epoch. What the tables call open and the
//! agent does not hold was never started (then it is withdrawn) or is lost.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, RwLock},
    time::Instant,
};

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
    store,
};

/// Protocol versions that this controller speaks.
pub(crate) const PROTOCOL_MIN: u32 = 1;
pub(crate) const PROTOCOL_MAX: u32 = 1;

/// Bytes of a journal's epoch.
const EPOCH_BYTES: usize = 16;

/// One agent's session, served here.
#[derive(Debug)]
pub(crate) struct Connected {
    pub agent_id: AgentId,
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
}

impl Sessions {
    pub(crate) fn get(&self, agent: AgentId) -> Option<Arc<Connected>> {
        self.connected.read().expect("no holder of this lock panics").get(&agent).cloned()
    }

    pub(crate) fn count(&self) -> usize {
        self.connected.read().expect("no holder of this lock panics").len()
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
    let numbers = store::sessions::open(&mut tx, org_id, agent_id, app.info.controller_id, now).await?;
    let before =
        store::agents::update_at_hello(&mut tx, agent_id, &facts, &version, slots, &hello.journal_epoch, now)
            .await?;
    let absent: Vec<runs::Report> = store::attempts::open_of(&mut tx, agent_id)
        .await?
        .into_iter()
        .filter(|(key, _)| !held.contains(key))
        .map(|(key, state)| {
            let happening = what_became_of(state, before.is_empty() || before == hello.journal_epoch);
            runs::Report { key, agent_id, happening }
        })
        .collect();
    let settled = runs::settle(&mut tx, absent, now).await?;
    tx.commit().await.during("commit")?;
    settled.announce(app);

    let session = Arc::new(Connected {
        agent_id,
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

/// An attempt that the tables call open and the agent does not hold. That it never had the order can only be said while it
/// has the journal that it had.
fn what_became_of(state: AttemptState, same_journal: bool) -> Happening {
    match state {
        AttemptState::Offered if same_journal => Happening::Withdrawn,
        AttemptState::Offered => Happening::Lost {
            reason: Reason::JournalLost,
            detail: "it was offered, and the agent has lost the journal that would say whether it began"
                .to_owned(),
        },
        _ => Happening::Lost {
            reason: Reason::JournalLost,
            detail: "the agent accepted it once and has no memory of it".to_owned(),
        },
    }
}

/// Enters a session whose welcome is on its way: from now on orders may follow it, and cancels that wait for this agent.
/// `false` when a newer session of the agent is there already.
pub(crate) fn enter(app: &App, session: &Arc<Connected>) -> bool {
    if !app.sessions.enter(session) {
        return false;
    }
    app.wake.dispatch([session.agent_id]);
    app.wake.cancel.notify_one();
    true
}

/// Ends a session, unless a newer one has taken its place.
///
/// # Errors
/// When the database does not answer; the next session, or the end of this controller's lease, mends the row.
pub(crate) async fn close(app: &App, session: &Connected) -> Result<()> {
    app.sessions.leave(session.agent_id, session.epoch);
    store::sessions::close(app.db.worker(), session.agent_id, session.epoch, clock::now()).await
}

/// What decides over an agent's call: its certificate's serial must be the current one or the new one, and it must be
/// neither revoked nor, where that matters, pending.
///
/// # Errors
/// [`Error::BadCredential`] for a serial that does not count (any more), [`Error::Forbidden`] for a revoked agent.
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
        return Err(Error::Forbidden { actor: standing.name, permission: "revoked" });
    }
    if identity.serial != standing.serial_current {
        if standing.serial_new.as_deref() != Some(&identity.serial[..]) {
            return Err(refused("the certificate was replaced by a newer one"));
        }
        store::agents::promote_serial(app.db.worker(), identity.agent_id, &identity.serial).await?;
    }
    Ok(standing)
}
