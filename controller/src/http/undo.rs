//! `/api/v1/executions/{id}/undo`: what an execution has changed, and its undoing.

use std::sync::Arc;

use axum::{
    Json,
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::IntoResponse,
};
use model::{
    api::{
        execution::Execution,
        undo::{Changes, UndoExecution},
    },
    id::ExecutionId,
};

use super::{
    Door,
    auth::Access,
    body::JsonBody,
    executions::{ListRuns, idempotency_key},
    id::Id,
    page::Window,
    problem::Result,
    query::Query,
};
use crate::app::{self, access::ExecutionRead};

/// The hosts on which something of the execution began and was not undone, by name, with the runs that began there.
#[utoipa::path(get, path = "/api/v1/executions/{id}/undo", tag = "executions", operation_id = "list_changes",
    params(("id" = String, Path, format = Uuid), ListRuns), responses((status = 200, body = Changes)))]
pub(super) async fn list(
    Access(by): Access<ExecutionRead>,
    State(door): State<Arc<Door>>,
    Id(id): Id<ExecutionId>,
    Query(query): Query<ListRuns>,
) -> Result<Json<Changes>> {
    let window = Window::<String>::new("changes", query.cursor.as_deref(), query.limit)?;
    let found = app::undo::list(&door.app, &by, id, window.after.as_deref(), window.limit()).await?;
    let page = window.page(found.hosts, |host| host.target.clone());
    Ok(Json(Changes { hosts: page.items, next_cursor: page.next_cursor, ..found }))
}

/// Undoes an execution of a job that is over, as a new one: the steps of its rollback, on the hosts where something began and was
/// not undone.
#[utoipa::path(post, path = "/api/v1/executions/{id}/undo", tag = "executions", operation_id = "undo_execution",
    params(("id" = String, Path, format = Uuid), ("Idempotency-Key" = Option<String>, Header, description = "A repetition with the same key and body starts nothing and is answered with the first one's execution, for 24 h")),
    request_body = UndoExecution, responses((status = 201, body = Execution,
        headers(("Location" = String, description = "Path of the execution")))))]
pub(super) async fn start(
    Access(by): Access<ExecutionRead>,
    State(door): State<Arc<Door>>,
    Id(id): Id<ExecutionId>,
    headers: HeaderMap,
    JsonBody(request): JsonBody<UndoExecution>,
) -> Result<impl IntoResponse> {
    let execution = app::undo::start(&door.app, &by, id, &request, idempotency_key(&headers)?).await?;
    let location = format!("/api/v1/executions/{}", execution.id);
    Ok((StatusCode::CREATED, [(header::LOCATION, location)], Json(execution)))
}
