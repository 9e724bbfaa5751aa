//! Alarms of agents that remember a checkpoint which the audit contradicts. An alarm is told with every session of its agent
//! for as long as it stands; it gets one entry, and makes the part `witnesses` degraded while that agent is connected.

use std::{collections::BTreeMap, sync::Mutex};

use model::id::AgentId;
use pki::audit::Checkpoint;
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
pub(crate) struct Alarms(Mutex<BTreeMap<AgentId, (i64, String)>>);

impl Alarms {
    /// The session is over.
    pub(crate) fn leave(&self, session: &Connected) {
        let mut alarms = self.0.lock().expect("no holder of this lock panics");
        if alarms.get(&session.agent_id).is_some_and(|(epoch, _)| *epoch == session.epoch) {
            alarms.remove(&session.agent_id);
        }
    }

    /// What the agents say, if they say anything.
    pub(crate) fn problem(&self) -> Option<String> {
        let alarms = self.0.lock().expect("no holder of this lock panics");
        let (agent, (_, what)) = alarms.first_key_value()?;
        Some(format!("{} agents saw the audit go back; {agent}: {what}", alarms.len()))
    }
}

/// Takes an agent's alarm, or that there is none any more. `what` is its text, cleaned.
///
/// # Errors
/// When the database does not answer; the agent tells it again.
pub(crate) async fn take(app: &App, session: &Connected, alarm: &proto::Alarm, what: String) -> Result<()> {
    let (agent, org) = (session.agent_id, session.org_id);
    let Ok(id) = Uuid::from_slice(&alarm.id) else {
        app.alarms.0.lock().expect("no holder of this lock panics").remove(&agent);
        return Ok(());
    };
    let now = clock::now();
    let mut tx = app.db.worker().begin().await.during("begin")?;
    if audit_chain::insert_alarm(&mut tx, org, agent, id, now).await? {
        let detail = json!({
            "alarm": id,
            "what": what,
            "remembered": shown(app, alarm.remembered.as_ref()),
            "seen": shown(app, alarm.seen.as_ref()),
        });
        let entry = Entry {
            actor_id: format!("agent/{agent}"),
            outcome: "alarm",
            ..Entry::new("agent", "audit.rollback_seen", format!("agent/{agent}"), detail)
        };
        audit::record(&mut tx, org, now, entry).await?;
        metrics::counter!("opsc_audit_alarms_total").increment(1);
        tracing::error!(agent.id = %agent, "an agent saw the audit go back: {what}");
    }
    tx.commit().await.during("commit")?;
    app.alarms.0.lock().expect("no holder of this lock panics").insert(agent, (session.epoch, what));
    Ok(())
}

/// A checkpoint that an agent sent: what it says, and whether a controller signed it.
fn shown(app: &App, envelope: Option<&proto::Envelope>) -> Value {
    let Some(envelope) = envelope else { return Value::Null };
    let verifier = app.ca.verifier();
    match Checkpoint::read(&envelope.payload, &envelope.signature, &envelope.certificate, verifier) {
        Ok(checkpoint) => json!({
            "seq": checkpoint.place.seq,
            "hash": hex::encode(checkpoint.place.hash),
            "at": checkpoint.at,
        }),
        Err(refused) => json!({ "refused": refused.to_string() }),
    }
}
