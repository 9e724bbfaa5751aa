//! `/api/v1/target-groups`

use std::sync::Arc;

use axum::{Json, extract::State, http::StatusCode};
use model::api::{
    Page,
    target_group::{ChangeTargetGroup, CreateTargetGroup, TargetGroup},
};
use serde::Deserialize;
use utoipa::IntoParams;

use super::{Door, auth::Access, body::JsonBody, id::Name, page::Window, problem::Result, query::Query};
use crate::{
    app::{
        self,
        access::{AgentRead, JobManage},
    },
    store,
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

/// Target groups by name.
#[utoipa::path(get, path = "/api/v1/target-groups", tag = "jobs", operation_id = "list_target_groups", params(List),
    responses((status = 200, body = Page<TargetGroup>)))]
pub(super) async fn list(
    Access(by): Access<AgentRead>,
    State(door): State<Arc<Door>>,
    Query(query): Query<List>,
) -> Result<Json<Page<TargetGroup>>> {
    let window = Window::<String>::new("target groups", query.cursor.as_deref(), query.limit)?;
    let pool = door.app.db.of(by.org_id());
    let rows =
        store::target_groups::page(&pool, by.org_id(), window.after.as_deref(), window.limit()).await?;
    Ok(Json(window.page(rows, |group| group.name.clone())))
}

/// Makes a target group.
#[utoipa::path(post, path = "/api/v1/target-groups", tag = "jobs", operation_id = "create_target_group",
    request_body = CreateTargetGroup, responses((status = 201, body = TargetGroup)))]
pub(super) async fn create(
    Access(by): Access<JobManage>,
    State(door): State<Arc<Door>>,
    JsonBody(request): JsonBody<CreateTargetGroup>,
) -> Result<(StatusCode, Json<TargetGroup>)> {
    Ok((StatusCode::CREATED, Json(app::target_groups::create(&door.app, &by, &request).await?)))
}

/// One target group with those of its hosts that one may see.
#[utoipa::path(get, path = "/api/v1/target-groups/{group}", tag = "jobs", operation_id = "show_target_group",
    params(("group" = String, Path, description = "Id or name")), responses((status = 200, body = TargetGroup)))]
pub(super) async fn show(
    Access(by): Access<AgentRead>,
    State(door): State<Arc<Door>>,
    Name(group): Name,
) -> Result<Json<TargetGroup>> {
    Ok(Json(app::target_groups::show(&door.app, &by, &group).await?))
}

/// Changes all of a target group but its name.
#[utoipa::path(put, path = "/api/v1/target-groups/{group}", tag = "jobs", operation_id = "change_target_group",
    params(("group" = String, Path, description = "Id or name")), request_body = ChangeTargetGroup,
    responses((status = 200, body = TargetGroup)))]
pub(super) async fn change(
    Access(by): Access<JobManage>,
    State(door): State<Arc<Door>>,
    Name(group): Name,
    JsonBody(request): JsonBody<ChangeTargetGroup>,
) -> Result<Json<TargetGroup>> {
    Ok(Json(app::target_groups::change(&door.app, &by, &group, &request).await?))
}

/// Deletes a target group. Jobs that name it say so at their next start.
#[utoipa::path(delete, path = "/api/v1/target-groups/{group}", tag = "jobs", operation_id = "delete_target_group",
    params(("group" = String, Path, description = "Id or name")), responses((status = 204)))]
pub(super) async fn delete(
    Access(by): Access<JobManage>,
    State(door): State<Arc<Door>>,
    Name(group): Name,
) -> Result<StatusCode> {
    app::target_groups::delete(&door.app, &by, &group).await?;
    Ok(StatusCode::NO_CONTENT)
}
