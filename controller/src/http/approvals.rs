//! `/api/v1/approvals`, and those of one execution.

use std::sync::Arc;

use axum::{Json, extract::State};
use model::{
    api::{
        Page,
        approval::{ApprovalRequest, Decide},
    },
    id::ExecutionId,
};
use serde::Deserialize;
use utoipa::IntoParams;

use super::{
    Door,
    auth::Access,
    body::JsonBody,
    id::{Id, Names},
    page::Window,
    problem::{Failure, Result},
    query::Query,
};
use crate::app::{
    self,
    access::{ApprovalDecide, ExecutionRead},
};

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct List {
    /// `next_cursor` of the page before.
    cursor: Option<String>,
    /// Items of the page: 1 to 1000, 100 by default.
    limit: Option<i64>,
}

/// The approvals that wait for people, the newest execution first.
#[utoipa::path(get, path = "/api/v1/approvals", tag = "approvals", operation_id = "list_approvals", params(List),
    responses((status = 200, body = Page<ApprovalRequest>)))]
pub(super) async fn list(
    Access(by): Access<ExecutionRead>,
    State(door): State<Arc<Door>>,
    Query(query): Query<List>,
) -> Result<Json<Page<ApprovalRequest>>> {
    let window = Window::<(ExecutionId, i16)>::new("approvals", query.cursor.as_deref(), query.limit)?;
    let rows = app::approvals::waiting(&door.app, &by, window.after, window.limit()).await?;
    let page = window.page(rows, |(key, _)| *key);
    let items = page.items.into_iter().map(|(_, request)| request).collect();
    Ok(Json(Page { items, next_cursor: page.next_cursor }))
}

/// The approvals that an execution asks for, in the order of its steps.
#[utoipa::path(get, path = "/api/v1/executions/{id}/approvals", tag = "approvals",
    operation_id = "list_approvals_of_execution", params(("id" = String, Path, format = Uuid)),
    responses((status = 200, body = Vec<ApprovalRequest>)))]
pub(super) async fn of_execution(
    Access(by): Access<ExecutionRead>,
    State(door): State<Arc<Door>>,
    Id(id): Id<ExecutionId>,
) -> Result<Json<Vec<ApprovalRequest>>> {
    Ok(Json(app::approvals::of_execution(&door.app, &by, id).await?))
}

/// Approves, or rejects, or lets go on without the approvals that are missing.
#[utoipa::path(post, path = "/api/v1/executions/{id}/approvals/{step}", tag = "approvals",
    operation_id = "decide_approval",
    params(("id" = String, Path, format = Uuid), ("step" = String, Path, description = "The step's name")),
    request_body = Decide, responses((status = 200, body = ApprovalRequest)))]
pub(super) async fn decide(
    Access(by): Access<ApprovalDecide>,
    State(door): State<Arc<Door>>,
    Names(id, step): Names,
    JsonBody(request): JsonBody<Decide>,
) -> Result<Json<ApprovalRequest>> {
    let id: ExecutionId = id.parse().map_err(|error| Failure::invalid("id", format!("is wrong: {error}")))?;
    Ok(Json(app::approvals::decide(&door.app, &by, id, &step, &request).await?))
}
