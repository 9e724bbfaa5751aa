//! `/api/v1/roles`, `/api/v1/role-bindings` and `/api/v1/groups`: who may do what.

use std::sync::Arc;

use axum::{Json, extract::State, http::StatusCode};
use model::{
    api::{
        Page,
        role::{CreateRoleBinding, PutRole, Role, RoleBinding},
        user::{CreateGroup, Group},
    },
    id::RoleBindingId,
};
use serde::Deserialize;
use utoipa::IntoParams;

use super::{
    Door,
    auth::Access,
    body::JsonBody,
    id::{Id, Name, Names},
    page::Window,
    problem::Result,
    query::Query,
};
use crate::{
    app::{
        self,
        access::{RoleManage, RoleRead},
    },
    clock, store,
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

/// The built-in roles, and the organization's own.
#[utoipa::path(get, path = "/api/v1/roles", tag = "roles", operation_id = "list_roles",
    responses((status = 200, body = Vec<Role>)))]
pub(super) async fn list(
    Access(by): Access<RoleRead>,
    State(door): State<Arc<Door>>,
) -> Result<Json<Vec<Role>>> {
    Ok(Json(app::roles::list(&door.app, by.org_id()).await?))
}

/// Makes a role, or gives one other permissions.
#[utoipa::path(put, path = "/api/v1/roles/{name}", tag = "roles", operation_id = "put_role",
    params(("name" = String, Path)), request_body = PutRole, responses((status = 200, body = Role)))]
pub(super) async fn put(
    Access(by): Access<RoleManage>,
    State(door): State<Arc<Door>>,
    Name(name): Name,
    JsonBody(request): JsonBody<PutRole>,
) -> Result<Json<Role>> {
    Ok(Json(app::roles::put(&door.app, &by, &name, &request).await?))
}

/// Deletes a role that nobody has.
#[utoipa::path(delete, path = "/api/v1/roles/{name}", tag = "roles", operation_id = "delete_role",
    params(("name" = String, Path)), responses((status = 204)))]
pub(super) async fn delete(
    Access(by): Access<RoleManage>,
    State(door): State<Arc<Door>>,
    Name(name): Name,
) -> Result<StatusCode> {
    app::roles::delete(&door.app, &by, &name).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Who has which role, for which hosts and jobs.
#[utoipa::path(get, path = "/api/v1/role-bindings", tag = "roles", operation_id = "list_role_bindings", params(List),
    responses((status = 200, body = Page<RoleBinding>)))]
pub(super) async fn bindings(
    Access(by): Access<RoleRead>,
    State(door): State<Arc<Door>>,
    Query(query): Query<List>,
) -> Result<Json<Page<RoleBinding>>> {
    let window = Window::new("role bindings", query.cursor.as_deref(), query.limit)?;
    let pool = door.app.db.of(by.org_id());
    let rows = store::role_bindings::page(&pool, by.org_id(), None, window.after, window.limit()).await?;
    Ok(Json(window.page(rows, |binding| binding.id)))
}

/// Gives a role to a person, a group or a service account.
#[utoipa::path(post, path = "/api/v1/role-bindings", tag = "roles", operation_id = "create_role_binding",
    request_body = CreateRoleBinding, responses((status = 201, body = RoleBinding)))]
pub(super) async fn bind(
    Access(by): Access<RoleManage>,
    State(door): State<Arc<Door>>,
    JsonBody(request): JsonBody<CreateRoleBinding>,
) -> Result<(StatusCode, Json<RoleBinding>)> {
    Ok((StatusCode::CREATED, Json(app::roles::bind(&door.app, &by, request).await?)))
}

/// Takes a role away again.
#[utoipa::path(delete, path = "/api/v1/role-bindings/{id}", tag = "roles", operation_id = "delete_role_binding",
    params(("id" = String, Path, format = Uuid)), responses((status = 204)))]
pub(super) async fn unbind(
    Access(by): Access<RoleManage>,
    State(door): State<Arc<Door>>,
    Id(id): Id<RoleBindingId>,
) -> Result<StatusCode> {
    app::roles::unbind(&door.app, &by, id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Groups with their members, by name.
#[utoipa::path(get, path = "/api/v1/groups", tag = "roles", operation_id = "list_groups", params(List),
    responses((status = 200, body = Page<Group>)))]
pub(super) async fn groups(
    Access(by): Access<RoleRead>,
    State(door): State<Arc<Door>>,
    Query(query): Query<List>,
) -> Result<Json<Page<Group>>> {
    let window = Window::<String>::new("groups", query.cursor.as_deref(), query.limit)?;
    let pool = door.app.db.of(by.org_id());
    let rows = store::groups::page(&pool, by.org_id(), window.after.as_deref(), window.limit()).await?;
    Ok(Json(window.page(rows, |group| group.name.clone())))
}

/// Makes a group without members.
#[utoipa::path(post, path = "/api/v1/groups", tag = "roles", operation_id = "create_group",
    request_body = CreateGroup, responses((status = 201, body = Group)))]
pub(super) async fn create_group(
    Access(by): Access<RoleManage>,
    State(door): State<Arc<Door>>,
    JsonBody(request): JsonBody<CreateGroup>,
) -> Result<(StatusCode, Json<Group>)> {
    let id = app::roles::create_group(&door.app, &by, &request).await?;
    let created_by = by.actor().name.clone();
    let group = Group { id, name: request.name, members: Vec::new(), created_at: clock::now(), created_by };
    Ok((StatusCode::CREATED, Json(group)))
}

/// Deletes a group, and what was given to its members through it.
#[utoipa::path(delete, path = "/api/v1/groups/{group}", tag = "roles", operation_id = "delete_group",
    params(("group" = String, Path, description = "Name")), responses((status = 204)))]
pub(super) async fn delete_group(
    Access(by): Access<RoleManage>,
    State(door): State<Arc<Door>>,
    Name(group): Name,
) -> Result<StatusCode> {
    app::roles::delete_group(&door.app, &by, &group).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Makes somebody a member of a group.
#[utoipa::path(put, path = "/api/v1/groups/{group}/members/{user}", tag = "roles", operation_id = "add_group_member",
    params(("group" = String, Path), ("user" = String, Path)), responses((status = 204)))]
pub(super) async fn add_member(
    Access(by): Access<RoleManage>,
    State(door): State<Arc<Door>>,
    Names(group, user): Names,
) -> Result<StatusCode> {
    app::roles::set_member(&door.app, &by, &group, &user, true).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Ends somebody's membership in a group.
#[utoipa::path(delete, path = "/api/v1/groups/{group}/members/{user}", tag = "roles",
    operation_id = "remove_group_member",
    params(("group" = String, Path), ("user" = String, Path)), responses((status = 204)))]
pub(super) async fn remove_member(
    Access(by): Access<RoleManage>,
    State(door): State<Arc<Door>>,
    Names(group, user): Names,
) -> Result<StatusCode> {
    app::roles::set_member(&door.app, &by, &group, &user, false).await?;
    Ok(StatusCode::NO_CONTENT)
}
