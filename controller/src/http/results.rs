//! `/api/v1/executions/{id}/results`: hosts × steps.

use std::sync::Arc;

use axum::{Json, extract::State};
use model::{
    api::job::{OutputGroup, Results},
    id::ExecutionId,
    job::progress::HostState,
    limits,
};
use serde::Deserialize;
use utoipa::IntoParams;

use super::{
    Door,
    auth::Access,
    id::Id,
    page::Window,
    problem::{Failure, Result},
    query::Query,
};
use crate::{
    app::{self, access::ExecutionRead},
    error::Error,
    store::{self, progress::NO_AGENT},
};

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct Show {
    /// Only hosts in this state: `waiting`, `active`, `succeeded`, `failed` or `skipped`.
    state: Option<String>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
    /// Hosts of the page: 1 to 1000, 100 by default.
    limit: Option<i64>,
}

/// Runs that came to the same, output and all: a thousand hosts become a few lines. At most a thousand groups, the largest of
/// each step first.
#[utoipa::path(get, path = "/api/v1/executions/{id}/groups", tag = "executions", operation_id = "list_output_groups",
    params(("id" = String, Path, format = Uuid)), responses((status = 200, body = Vec<OutputGroup>)))]
pub(super) async fn groups(
    Access(by): Access<ExecutionRead>,
    State(door): State<Arc<Door>>,
    Id(id): Id<ExecutionId>,
) -> Result<Json<Vec<OutputGroup>>> {
    super::executions::find(&door, &by, id).await?;
    let pool = door.app.db.of(by.org_id());
    Ok(Json(store::runs::groups(&pool, by.org_id(), id, limits::OUTPUT_GROUPS).await?))
}

/// What every step of a job came to on every host, hosts in the order of their turns.
#[utoipa::path(get, path = "/api/v1/executions/{id}/results", tag = "executions", operation_id = "show_results",
    params(("id" = String, Path, format = Uuid), Show), responses((status = 200, body = Results)))]
pub(super) async fn show(
    Access(by): Access<ExecutionRead>,
    State(door): State<Arc<Door>>,
    Id(id): Id<ExecutionId>,
    Query(query): Query<Show>,
) -> Result<Json<Results>> {
    let window = Window::<i32>::new("results", query.cursor.as_deref(), query.limit)?;
    let state = match query.state.as_deref() {
        Some(text) => Some(HostState::parse(text).ok_or_else(|| {
            let known = HostState::ALL.map(HostState::as_str).join(", ");
            Failure::invalid("state", format!("is '{text}'; it is one of {known}"))
        })?),
        None => None,
    };
    let (pool, org) = (door.app.db.of(by.org_id()), by.org_id());
    app::executions::seen_whole(&door.app, &by, id).await?;
    let unknown =
        || Failure::from(Error::not_found("execution of a job, or with a rollout,", id.to_string()));
    let plan = store::executions::plan(&pool, org, id).await?.ok_or_else(unknown)?;
    let rows = store::progress::page(&pool, (id, org), plan.steps.len(), state, window.after, window.limit())
        .await?;
    let page = window.page(rows, |(place, _)| *place);
    let mut controller = vec![None; plan.steps.len()];
    for (_, step, cell) in store::progress::cells(&pool, (id, org), &[NO_AGENT.0]).await? {
        if let Some(place) = controller.get_mut(step) {
            *place = Some(cell);
        }
    }
    Ok(Json(Results {
        execution_id: id,
        steps: app::start::steps(&plan),
        controller,
        hosts: page.items.into_iter().map(|(_, row)| row).collect(),
        next_cursor: page.next_cursor,
    }))
}
