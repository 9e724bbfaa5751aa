//! `/api/v1/executions`

use std::sync::Arc;

use axum::{
    Json,
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::IntoResponse,
};
use model::{
    api::{
        Page,
        execution::{Attempt, CreateExecution, Execution, RetryExecution, Run},
    },
    execution::ExecutionState,
    id::{ExecutionId, RunId},
};
use serde::Deserialize;
use utoipa::IntoParams;

use super::{
    Door,
    auth::Access,
    body::JsonBody,
    id::{Id, Ids},
    page::Window,
    problem::{Failure, Result},
    query::Query,
};
use crate::{
    app::{
        self,
        access::{Authorized, ExecutionCancel, ExecutionCreate, ExecutionRead},
    },
    error::Error,
    store::{self, progress::Ask},
};

const IDEMPOTENCY_KEY: &str = "Idempotency-Key";

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct List {
    /// Only executions in this state.
    #[param(inline)]
    state: Option<ExecutionState>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
    /// Items of the page: 1 to 1000, 100 by default.
    limit: Option<i64>,
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct ListRuns {
    /// `next_cursor` of the page before.
    pub(super) cursor: Option<String>,
    /// Items of the page: 1 to 1000, 100 by default.
    pub(super) limit: Option<i64>,
}

/// Executions, the newest first.
#[utoipa::path(get, path = "/api/v1/executions", tag = "executions", operation_id = "list_executions", params(List),
    responses((status = 200, body = Page<Execution>)))]
pub(super) async fn list(
    Access(by): Access<ExecutionRead>,
    State(door): State<Arc<Door>>,
    Query(query): Query<List>,
) -> Result<Json<Page<Execution>>> {
    let window = Window::new("executions", query.cursor.as_deref(), query.limit)?;
    let pool = door.app.db.of(by.org_id());
    let seen = match by.hosts() {
        Some(hosts) => Some(store::agents::ids(&pool, by.org_id(), hosts).await?),
        None => None,
    };
    let rows = store::executions::page(
        &pool,
        by.org_id(),
        query.state,
        seen.as_deref(),
        window.after,
        window.limit(),
    )
    .await?;
    Ok(Json(window.page(rows, |execution| execution.id)))
}

/// Starts a command on its targets.
#[utoipa::path(post, path = "/api/v1/executions", tag = "executions", operation_id = "create_execution",
    params(("Idempotency-Key" = Option<String>, Header, description = "A repetition with the same key and body starts nothing and is answered with the first one's execution, for 24 h")),
    request_body = CreateExecution, responses((status = 201, body = Execution,
        headers(("Location" = String, description = "Path of the execution")))))]
pub(super) async fn create(
    Access(by): Access<ExecutionCreate>,
    State(door): State<Arc<Door>>,
    headers: HeaderMap,
    JsonBody(request): JsonBody<CreateExecution>,
) -> Result<impl IntoResponse> {
    let execution = app::executions::start(&door.app, &by, request, idempotency_key(&headers)?).await?;
    let location = format!("/api/v1/executions/{}", execution.id);
    Ok((StatusCode::CREATED, [(header::LOCATION, location)], Json(execution)))
}

/// The request's idempotency key, if it has one.
pub(super) fn idempotency_key(headers: &HeaderMap) -> Result<Option<&str>> {
    let key = headers.get(IDEMPOTENCY_KEY).map(|value| {
        value.to_str().map_err(|_| Failure::invalid(IDEMPOTENCY_KEY, "must be visible ASCII characters"))
    });
    key.transpose()
}

/// Refuses an idempotency key where the answer holds a secret.
pub(super) fn no_repetition(headers: &HeaderMap) -> Result<()> {
    if headers.contains_key(IDEMPOTENCY_KEY) {
        let problem = "is not possible here: the answer holds a secret, which is not kept for a repetition";
        return Err(Failure::invalid("Idempotency-Key", problem));
    }
    Ok(())
}

/// One execution with its command.
#[utoipa::path(get, path = "/api/v1/executions/{id}", tag = "executions", operation_id = "show_execution",
    params(("id" = String, Path, format = Uuid)), responses((status = 200, body = Execution)))]
pub(super) async fn show(
    Access(by): Access<ExecutionRead>,
    State(door): State<Arc<Door>>,
    Id(id): Id<ExecutionId>,
) -> Result<Json<Execution>> {
    find(&door, &by, id).await.map(Json)
}

/// What happened on each target.
#[utoipa::path(get, path = "/api/v1/executions/{id}/runs", tag = "executions", operation_id = "list_runs",
    params(("id" = String, Path, format = Uuid), ListRuns), responses((status = 200, body = Page<Run>)))]
pub(super) async fn runs(
    Access(by): Access<ExecutionRead>,
    State(door): State<Arc<Door>>,
    Id(id): Id<ExecutionId>,
    Query(query): Query<ListRuns>,
) -> Result<Json<Page<Run>>> {
    let window = Window::new("runs", query.cursor.as_deref(), query.limit)?;
    let pool = door.app.db.of(by.org_id());
    app::executions::seen_whole(&door.app, &by, id).await?;
    let rows = store::runs::page(&pool, by.org_id(), id, window.after, window.limit()).await?;
    if rows.is_empty() {
        find(&door, &by, id).await?;
    }
    Ok(Json(window.page(rows, |run| run.id)))
}

/// The tries of one run, by number. Those that never began are among them.
#[utoipa::path(get, path = "/api/v1/executions/{id}/runs/{run}/attempts", tag = "executions",
    operation_id = "list_attempts",
    params(("id" = String, Path, format = Uuid), ("run" = String, Path, format = Uuid), ListRuns),
    responses((status = 200, body = Page<Attempt>)))]
pub(super) async fn attempts(
    Access(by): Access<ExecutionRead>,
    State(door): State<Arc<Door>>,
    Ids(id, run): Ids<ExecutionId, RunId>,
    Query(query): Query<ListRuns>,
) -> Result<Json<Page<Attempt>>> {
    let window = Window::new("attempts", query.cursor.as_deref(), query.limit)?;
    let pool = door.app.db.of(by.org_id());
    app::executions::seen_whole(&door.app, &by, id).await?;
    let rows = store::attempts::page(&pool, by.org_id(), id, run, window.after, window.limit()).await?;
    if rows.is_empty() && !store::runs::exists(&pool, by.org_id(), id, run).await? {
        return Err(Failure::from(Error::not_found("run", run.to_string())));
    }
    Ok(Json(window.page(rows, |attempt| attempt.number)))
}

/// Asks for the end of every run that has not ended.
#[utoipa::path(post, path = "/api/v1/executions/{id}/cancel", tag = "executions", operation_id = "cancel_execution",
    params(("id" = String, Path, format = Uuid)), responses((status = 200, body = Execution)))]
pub(super) async fn cancel(
    Access(by): Access<ExecutionCancel>,
    State(door): State<Arc<Door>>,
    Id(id): Id<ExecutionId>,
) -> Result<Json<Execution>> {
    Ok(Json(app::executions::cancel(&door.app, &by, id).await?))
}

/// Tries an execution again that is over, as a new one: the same command, or the same version of a job with the same values.
#[utoipa::path(post, path = "/api/v1/executions/{id}/retry", tag = "executions", operation_id = "retry_execution",
    params(("id" = String, Path, format = Uuid), ("Idempotency-Key" = Option<String>, Header, description = "A repetition with the same key and body starts nothing and is answered with the first one's execution, for 24 h")),
    request_body = RetryExecution, responses((status = 201, body = Execution,
        headers(("Location" = String, description = "Path of the execution")))))]
pub(super) async fn retry(
    Access(by): Access<ExecutionRead>,
    State(door): State<Arc<Door>>,
    Id(id): Id<ExecutionId>,
    headers: HeaderMap,
    JsonBody(request): JsonBody<RetryExecution>,
) -> Result<impl IntoResponse> {
    let execution = app::retry::retry(&door.app, &by, id, &request, idempotency_key(&headers)?).await?;
    let location = format!("/api/v1/executions/{}", execution.id);
    Ok((StatusCode::CREATED, [(header::LOCATION, location)], Json(execution)))
}

/// Holds a job where it is: nothing more of it begins until it is resumed. What runs goes on.
#[utoipa::path(post, path = "/api/v1/executions/{id}/pause", tag = "executions", operation_id = "pause_execution",
    params(("id" = String, Path, format = Uuid)), responses((status = 200, body = Execution)))]
pub(super) async fn pause(
    Access(by): Access<ExecutionCancel>,
    State(door): State<Arc<Door>>,
    Id(id): Id<ExecutionId>,
) -> Result<Json<Execution>> {
    Ok(Json(app::executions::ask(&door.app, &by, id, Ask::Pause).await?))
}

/// Lets a job go on that was paused, or that waits between two batches.
#[utoipa::path(post, path = "/api/v1/executions/{id}/resume", tag = "executions", operation_id = "resume_execution",
    params(("id" = String, Path, format = Uuid)), responses((status = 200, body = Execution)))]
pub(super) async fn resume(
    Access(by): Access<ExecutionCancel>,
    State(door): State<Arc<Door>>,
    Id(id): Id<ExecutionId>,
) -> Result<Json<Execution>> {
    Ok(Json(app::executions::ask(&door.app, &by, id, Ask::Resume).await?))
}

/// Stops the rollout of a job: no further host begins; those that have begun go on to their ends.
#[utoipa::path(post, path = "/api/v1/executions/{id}/abort", tag = "executions", operation_id = "abort_execution",
    params(("id" = String, Path, format = Uuid)), responses((status = 200, body = Execution)))]
pub(super) async fn abort(
    Access(by): Access<ExecutionCancel>,
    State(door): State<Arc<Door>>,
    Id(id): Id<ExecutionId>,
) -> Result<Json<Execution>> {
    Ok(Json(app::executions::ask(&door.app, &by, id, Ask::Abort).await?))
}

/// The execution, or that there is none: one with a host that the actor may not see is none.
pub(super) async fn find(door: &Door, by: &Authorized<ExecutionRead>, id: ExecutionId) -> Result<Execution> {
    let (pool, org) = (door.app.db.of(by.org_id()), by.org_id());
    app::executions::seen_whole(&door.app, by, id).await?;
    let execution = store::executions::get(&pool, org, id).await?;
    execution.ok_or_else(|| Failure::from(Error::not_found("execution", id.to_string())))
}
