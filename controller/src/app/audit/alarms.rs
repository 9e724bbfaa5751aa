//! Alarms of agents that remember a checkpoint which the audit contradicts. An alarm is told with every session of its agent
//! for as long as it stands; it gets one entry, and makes the part `witnesses` degraded while that agent is connected.
//!
//! An agent may say what it likes, so of each kind there is one entry an hour of its alarms, whatever their ids; the others
//! are counted, and do not reach the database.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Mutex, MutexGuard},
};

use jiff::Timestamp;

use model::id::AgentId;
use pki::audit::{Checkpoint, KIND, LINK};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{
    app::{App, sessions::Connected},
    clock,
    error::{During, Result},
    store::{
        audit::{self, Entry},
        audit_chain,
    },
};

/// The alarms of the agents that are connected here.
#[derive(Debug, Default)]
pub(crate) struct Alarms {
    standing: Mutex<BTreeMap<AgentId, (i64, String)>>,
    /// The hour in which an agent's alarm of a kind was last noted.
    noted: Mutex<HashMap<(AgentId, &'static str), i64>>,
}

impl Alarms {
    fn standing(&self) -> MutexGuard<'_, BTreeMap<AgentId, (i64, String)>> {
        self.standing.lock().expect("no holder of this lock panics")
    }

    fn noted(&self) -> MutexGuard<'_, HashMap<(AgentId, &'static str), i64>> {
        self.noted.lock().expect("no holder of this lock panics")
    }

    /// The session is over.
    pub(crate) fn leave(&self, session: &Connected) {
        let mut alarms = self.standing();
        if alarms.get(&session.agent_id).is_some_and(|(epoch, _)| *epoch == session.epoch) {
            alarms.remove(&session.agent_id);
        }
    }

    /// What the agents say, if they say anything.
    pub(crate) fn problem(&self) -> Option<String> {
        let alarms = self.standing();
        let (agent, (_, what)) = alarms.first_key_value()?;
        Some(format!("{} agents saw the audit go back; {agent}: {what}", alarms.len()))
    }
}

/// The audit contradicts what an agent remembers.
const ROLLBACK: &str = "rollback";
/// The chain between what an agent remembers and the newest checkpoint was not shown. It does not stand.
const GAP: &str = "gap";

/// Takes an agent's alarm, or that there is none any more. `what` is its text, cleaned.
///
/// # Errors
/// When the database does not answer; the agent tells it again.
pub(crate) async fn take(app: &App, session: &Connected, alarm: &proto::Alarm, what: String) -> Result<()> {
    let (agent, org) = (session.agent_id, session.org_id);
    let Ok(id) = Uuid::from_slice(&alarm.id) else {
        app.alarms.standing().remove(&agent);
        return Ok(());
    };
    let kind = if alarm.kind == GAP { GAP } else { ROLLBACK };
    if kind == ROLLBACK {
        app.alarms.standing().insert(agent, (session.epoch, what.clone()));
    }
    let now = clock::now();
    if app.alarms.noted().get(&(agent, kind)) == Some(&hour(now)) {
        metrics::counter!("opsc_audit_alarms_repeated_total").increment(1);
        return Ok(());
    }
    let mut tx = app.db.worker().begin().await.during("begin")?;
    if audit_chain::insert_alarm(&mut tx, org, agent, (id, kind), (now, hour(now))).await? {
        let detail = json!({
            "alarm": id,
            "what": what,
            "remembered": shown(app, alarm.remembered.as_ref()),
            "seen": shown(app, alarm.seen.as_ref()),
        });
        let verb = if kind == GAP { "audit.gap_seen" } else { "audit.rollback_seen" };
        let entry = Entry {
            actor_id: format!("agent/{agent}"),
            outcome: "alarm",
            ..Entry::new("agent", verb, format!("agent/{agent}"), detail)
        };
        audit::record(&mut tx, org, now, entry).await?;
        metrics::counter!("opsc_audit_alarms_total", "kind" => kind).increment(1);
        tracing::error!(agent.id = %agent, alarm.kind = kind, "an agent's alarm of the audit: {what}");
    } else {
        metrics::counter!("opsc_audit_alarms_repeated_total").increment(1);
    }
    tx.commit().await.during("commit")?;
    app.alarms.noted().insert((agent, kind), hour(now));
    Ok(())
}

/// Full hours since 1970.
fn hour(now: Timestamp) -> i64 {
    now.as_second() / 3600
}

/// A checkpoint that an agent sent: what it says, and whether a controller signed it.
fn shown(app: &App, envelope: Option<&proto::Envelope>) -> Value {
    let Some(envelope) = envelope else { return Value::Null };
    let verifier = app.ca.verifier();
    let proto::Envelope { kind, payload, signature, certificate } = envelope;
    let kind = if kind == LINK { LINK } else { KIND };
    match Checkpoint::read_as(kind, payload, signature, certificate, verifier) {
        Ok(checkpoint) => json!({
            "seq": checkpoint.place.seq,
            "hash": hex::encode(checkpoint.place.hash),
            "at": checkpoint.at,
        }),
        Err(refused) => json!({ "refused": refused.to_string() }),
    }
}
