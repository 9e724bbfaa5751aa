//! Approving, revoking, labelling and draining agents.

use model::{
    api::agent::{Agent, AgentState, ChangeLabels},
    id::AgentId,
    label::Labels,
};
use serde_json::json;

use super::{
    App,
    access::{AgentDrain, AgentManage, Authorized},
};
use crate::{
    clock,
    error::{During, Error, Result},
    store::{self, audit},
};

/// Makes the agent's certificates worthless and cuts its streams. Revoking twice is no error.
///
/// # Errors
/// When there is no such agent.
pub(crate) async fn revoke(app: &App, by: &Authorized<AgentManage>, id: AgentId) -> Result<Agent> {
    let now = clock::now();
    let mut tx = app.db.of(by.org_id()).begin().await.during("begin")?;
    if store::agents::revoke(&mut tx, by.org_id(), id, now).await? {
        audit::record(&mut tx, by.org_id(), now, entry(by, "agent.revoke", id)).await?;
    }
    tx.commit().await.during("commit")?;
    app.wake.revoke.notify_one();
    app.wake.others.notify_one();
    read(app, by, id).await
}

/// Lets an agent in that enrolled with a token of several uses. Approving twice is no error.
///
/// # Errors
/// When there is no such agent, or it was revoked.
pub(crate) async fn approve(app: &App, by: &Authorized<AgentManage>, id: AgentId) -> Result<Agent> {
    let now = clock::now();
    let mut tx = app.db.of(by.org_id()).begin().await.during("begin")?;
    if store::agents::approve(&mut tx, by.org_id(), id).await? {
        audit::record(&mut tx, by.org_id(), now, entry(by, "agent.approve", id)).await?;
    }
    tx.commit().await.during("commit")?;
    let agent = read(app, by, id).await?;
    unless_revoked(agent)
}

/// Sets labels of the agent and takes labels away. Changing nothing is no error.
///
/// # Errors
/// When a field is wrong, there would be too many labels, there is no such agent, it was revoked, or the right does not hold
/// for the host as it is or as it would be.
pub(crate) async fn label(
    app: &App,
    by: &Authorized<AgentManage>,
    id: AgentId,
    request: &ChangeLabels,
) -> Result<Agent> {
    request.validate()?;
    let now = clock::now();
    let mut tx = app.db.of(by.org_id()).begin().await.during("begin")?;
    let found = store::agents::lock_labels(&mut tx, by.org_id(), id).await?;
    let agent = found.ok_or_else(|| Error::not_found("agent", id.to_string()))?;
    if agent.revoked {
        return Err(is_revoked(&agent.name));
    }
    let (before, after) = (&agent.labels.0, request.applied_to(&agent.labels.0)?);
    // Labels say who may do what there: nobody moves a host to where he has no right, nor takes one from there.
    let is_reached =
        |labels: &Labels| by.hosts().is_none_or(|hosts| hosts.matches(&agent.name, labels, &agent.facts.0));
    if !is_reached(before) || !is_reached(&after) {
        return Err(by.out_of_scope(1, 1));
    }
    if after != *before {
        store::agents::set_labels(&mut tx, by.org_id(), id, &after).await?;
        let detail = json!({ "name": agent.name, "before": before, "after": after });
        let entry = by.entry("agent.label", format!("agent/{id}"), detail);
        audit::record(&mut tx, by.org_id(), now, entry).await?;
    }
    tx.commit().await.during("commit")?;
    read(app, by, id).await
}

/// Offers the agent nothing new from the answer on; what it runs goes on, what waits for it waits. Draining twice is no
/// error.
///
/// # Errors
/// When there is no such agent, or it was revoked.
pub(crate) async fn drain(app: &App, by: &Authorized<AgentDrain>, id: AgentId) -> Result<Agent> {
    let now = clock::now();
    let mut tx = app.db.of(by.org_id()).begin().await.during("begin")?;
    if store::agents::set_draining(&mut tx, by.org_id(), id, Some(now)).await? {
        audit::record(&mut tx, by.org_id(), now, entry(by, "agent.drain", id)).await?;
    }
    tx.commit().await.during("commit")?;
    let agent = unless_revoked(read(app, by, id).await?)?;
    // What a dispatcher is offering at this moment is visible to whoever asks after our answer.
    store::sessions::await_dispatch(app.db.worker(), id).await?;
    read(app, by, agent.id).await
}

/// Offers the agent runs again. Resuming what does not drain is no error.
///
/// # Errors
/// When there is no such agent, or it was revoked.
pub(crate) async fn resume(app: &App, by: &Authorized<AgentDrain>, id: AgentId) -> Result<Agent> {
    let now = clock::now();
    let mut tx = app.db.of(by.org_id()).begin().await.during("begin")?;
    if store::agents::set_draining(&mut tx, by.org_id(), id, None).await? {
        audit::record(&mut tx, by.org_id(), now, entry(by, "agent.resume", id)).await?;
    }
    tx.commit().await.during("commit")?;
    app.wake.free([id]);
    app.wake.others.notify_one();
    unless_revoked(read(app, by, id).await?)
}

fn unless_revoked(agent: Agent) -> Result<Agent> {
    if agent.state == AgentState::Revoked {
        return Err(is_revoked(&agent.name));
    }
    Ok(agent)
}

fn is_revoked(name: &str) -> Error {
    Error::Conflict(format!("agent '{name}' is revoked; enroll the host again"))
}

async fn read<P>(app: &App, by: &Authorized<P>, id: AgentId) -> Result<Agent> {
    let agent = store::agents::get(&app.db.of(by.org_id()), by.org_id(), id).await?;
    agent.ok_or_else(|| Error::not_found("agent", id.to_string()))
}

fn entry<'a, P>(by: &'a Authorized<P>, verb: &'static str, id: AgentId) -> audit::Entry<'a> {
    by.entry(verb, format!("agent/{id}"), json!({}))
}
