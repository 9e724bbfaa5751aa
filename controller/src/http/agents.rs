//! `/api/v1/agents`

use std::sync::Arc;

use axum::{Json, extract::State};
use model::{
    api::{
        Page,
        agent::{Agent, AgentRun, ChangeLabels},
    },
    id::{AgentId, OrgId, RunId},
    limits,
    run::RunState,
    selector::Selector,
};
use serde::Deserialize;
use utoipa::IntoParams;

use super::{
    Door,
    auth::Access,
    body::JsonBody,
    id::Name,
    page::Window,
    problem::{Failure, Result},
    query::Query,
};
use crate::{
    app::{
        self,
        access::{AgentDrain, AgentManage, AgentRead, Authorized, ExecutionRead, Right},
        executions::parse_selector,
    },
    error::Error,
    store,
};

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct List {
    /// Only agents that this holds for, as `env=prod and os=linux`.
    selector: Option<String>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
    /// Items of the page: 1 to 1000, 100 by default.
    limit: Option<i64>,
}

/// Which runs of an agent.
#[derive(Debug, Clone, Copy, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Standing {
    /// They wait for it.
    Queued,
    /// It was offered them, or runs them.
    Active,
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct ListRuns {
    /// Those that wait for it, or those that it has.
    #[param(inline)]
    state: Standing,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
    /// Items of the page: 1 to 1000, 100 by default.
    limit: Option<i64>,
}

/// Agents by name.
#[utoipa::path(get, path = "/api/v1/agents", tag = "agents", operation_id = "list_agents", params(List),
    responses((status = 200, body = Page<Agent>)))]
pub(super) async fn list(
    Access(by): Access<AgentRead>,
    State(door): State<Arc<Door>>,
    Query(query): Query<List>,
) -> Result<Json<Page<Agent>>> {
    let window = Window::<String>::new("agents", query.cursor.as_deref(), query.limit)?;
    let selector = query.selector.as_deref().map(|text| {
        if text.len() > limits::SELECTOR_BYTES {
            return Err(Error::Invalid(model::Invalid::over(
                "selector",
                "SELECTOR_BYTES",
                limits::SELECTOR_BYTES,
                "bytes",
            )));
        }
        parse_selector("selector", text)
    });
    let selector = match (selector.transpose()?, by.hosts()) {
        (Some(selector), Some(seen)) => Some(selector.both(seen.clone())),
        (selector, seen) => selector.or_else(|| seen.cloned()),
    };
    let pool = door.app.db.of(by.org_id());
    let rows =
        store::agents::page(&pool, by.org_id(), selector.as_ref(), window.after.as_deref(), window.limit())
            .await?;
    Ok(Json(window.page(rows, |agent| agent.name.clone())))
}

/// One agent with its newest metrics, by id or name.
#[utoipa::path(get, path = "/api/v1/agents/{agent}", tag = "agents", operation_id = "show_agent",
    params(("agent" = String, Path, description = "Id or name")), responses((status = 200, body = Agent)))]
pub(super) async fn show(
    Access(by): Access<AgentRead>,
    State(door): State<Arc<Door>>,
    Name(agent): Name,
) -> Result<Json<Agent>> {
    find(&door, by.org_id(), by.hosts(), &agent).await.map(Json)
}

/// Lets an agent in that enrolled with a token for several.
#[utoipa::path(post, path = "/api/v1/agents/{agent}/approve", tag = "agents", operation_id = "approve_agent",
    params(("agent" = String, Path, description = "Id or name")), responses((status = 200, body = Agent)))]
pub(super) async fn approve(
    Access(by): Access<AgentManage>,
    State(door): State<Arc<Door>>,
    Name(agent): Name,
) -> Result<Json<Agent>> {
    let id = id_of(&door, &by, &agent).await?;
    Ok(Json(app::agents::approve(&door.app, &by, id).await?))
}

/// Makes an agent's certificates worthless; its session is cut.
#[utoipa::path(post, path = "/api/v1/agents/{agent}/revoke", tag = "agents", operation_id = "revoke_agent",
    params(("agent" = String, Path, description = "Id or name")), responses((status = 200, body = Agent)))]
pub(super) async fn revoke(
    Access(by): Access<AgentManage>,
    State(door): State<Arc<Door>>,
    Name(agent): Name,
) -> Result<Json<Agent>> {
    let id = id_of(&door, &by, &agent).await?;
    Ok(Json(app::agents::revoke(&door.app, &by, id).await?))
}

/// Sets labels of an agent and takes labels away; the others stay. Whose right is for some hosts may do so where the host is
/// one of them before and after.
#[utoipa::path(post, path = "/api/v1/agents/{agent}/labels", tag = "agents", operation_id = "label_agent",
    params(("agent" = String, Path, description = "Id or name")), request_body = ChangeLabels,
    responses((status = 200, body = Agent)))]
pub(super) async fn label(
    Access(by): Access<AgentManage>,
    State(door): State<Arc<Door>>,
    Name(agent): Name,
    JsonBody(request): JsonBody<ChangeLabels>,
) -> Result<Json<Agent>> {
    let id = id_of(&door, &by, &agent).await?;
    Ok(Json(app::agents::label(&door.app, &by, id, &request).await?))
}

/// Offers the agent nothing new; what it runs goes on, and what waits for it waits until its time to start is over.
#[utoipa::path(post, path = "/api/v1/agents/{agent}/drain", tag = "agents", operation_id = "drain_agent",
    params(("agent" = String, Path, description = "Id or name")), responses((status = 200, body = Agent)))]
pub(super) async fn drain(
    Access(by): Access<AgentDrain>,
    State(door): State<Arc<Door>>,
    Name(agent): Name,
) -> Result<Json<Agent>> {
    let id = id_of(&door, &by, &agent).await?;
    Ok(Json(app::agents::drain(&door.app, &by, id).await?))
}

/// Offers a draining agent runs again.
#[utoipa::path(post, path = "/api/v1/agents/{agent}/resume", tag = "agents", operation_id = "resume_agent",
    params(("agent" = String, Path, description = "Id or name")), responses((status = 200, body = Agent)))]
pub(super) async fn resume(
    Access(by): Access<AgentDrain>,
    State(door): State<Arc<Door>>,
    Name(agent): Name,
) -> Result<Json<Agent>> {
    let id = id_of(&door, &by, &agent).await?;
    Ok(Json(app::agents::resume(&door.app, &by, id).await?))
}

/// An agent's runs in the order of dispatch: by priority, then by age.
#[utoipa::path(get, path = "/api/v1/agents/{agent}/runs", tag = "agents", operation_id = "list_agent_runs",
    params(("agent" = String, Path, description = "Id or name"), ListRuns),
    responses((status = 200, body = Page<AgentRun>)))]
pub(super) async fn runs(
    Access(by): Access<ExecutionRead>,
    State(door): State<Arc<Door>>,
    Name(agent): Name,
    Query(query): Query<ListRuns>,
) -> Result<Json<Page<AgentRun>>> {
    let (list, state) = match query.state {
        Standing::Queued => ("queued runs", RunState::Queued),
        Standing::Active => ("active runs", RunState::Active),
    };
    let window = Window::<(i16, RunId)>::new(list, query.cursor.as_deref(), query.limit)?;
    let id = id_of(&door, &by, &agent).await?;
    let pool = door.app.db.of(by.org_id());
    let rows = store::runs::of_agent(&pool, by.org_id(), id, state, window.after, window.limit()).await?;
    Ok(Json(window.page(rows, |run| (run.priority, run.id))))
}

/// The agent with this id or name, if it is among the hosts `seen`.
pub(super) async fn find(door: &Door, org: OrgId, seen: Option<&Selector>, text: &str) -> Result<Agent> {
    let pool = door.app.db.of(org);
    let found = match text.parse::<AgentId>() {
        // A name may look like an id.
        Ok(id) => match store::agents::get(&pool, org, id).await? {
            Some(agent) => Some(agent),
            None => store::agents::by_name(&pool, org, text).await?,
        },
        // A name that Postgres could not even be asked for.
        Err(_) if text.contains('\0') => None,
        Err(_) => store::agents::by_name(&pool, org, text).await?,
    };
    let is_seen =
        |agent: &Agent| seen.is_none_or(|seen| seen.matches(&agent.name, &agent.labels, &agent.facts));
    found.filter(is_seen).ok_or_else(|| Failure::from(Error::not_found("agent", text)))
}

/// The agent that somebody asks for with this right. One that he neither sees nor may touch is none; one that he sees, and may
/// not touch, is refused.
async fn id_of<P: Right>(door: &Door, by: &Authorized<P>, text: &str) -> Result<AgentId> {
    let reached = by.hosts();
    let agent = find(door, by.org_id(), None, text).await?;
    let is_among = |hosts: Option<&Selector>| {
        hosts.is_none_or(|hosts| hosts.matches(&agent.name, &agent.labels, &agent.facts))
    };
    if is_among(reached) {
        return Ok(agent.id);
    }
    match by.actor().hosts_seen() {
        Ok(seen) if is_among(seen.as_deref()) => Err(by.out_of_scope(1, 1).into()),
        _ => Err(Error::not_found("agent", text).into()),
    }
}
