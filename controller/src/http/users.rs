//! `/api/v1/users` and `/api/v1/invitations`: the people of the organization.

use std::sync::Arc;

use axum::{Json, extract::State, http::StatusCode};
use model::{
    api::{
        Page,
        auth::LoginSession,
        user::{CreateInvitation, CreatedOneTimeToken, Invitation, User},
    },
    id::{OneTimeTokenId, OrgId},
};
use serde::Deserialize;
use utoipa::IntoParams;

use super::{
    Door,
    auth::Access,
    body::JsonBody,
    id::{Id, Name},
    page::Window,
    problem::Result,
    query::Query,
};
use crate::{
    app::{
        self,
        access::{UserAdminister, UserManage, UserRead},
    },
    clock,
    error::Error,
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

/// Members by name.
#[utoipa::path(get, path = "/api/v1/users", tag = "users", operation_id = "list_users", params(List),
    responses((status = 200, body = Page<User>)))]
pub(super) async fn list(
    Access(by): Access<UserRead>,
    State(door): State<Arc<Door>>,
    Query(query): Query<List>,
) -> Result<Json<Page<User>>> {
    let window = Window::<String>::new("users", query.cursor.as_deref(), query.limit)?;
    let pool = door.app.db.of(by.org_id());
    let rows = store::users::page(&pool, by.org_id(), None, window.after.as_deref(), window.limit()).await?;
    Ok(Json(window.page(rows, |user| user.name.clone())))
}

/// One member.
#[utoipa::path(get, path = "/api/v1/users/{user}", tag = "users", operation_id = "show_user",
    params(("user" = String, Path, description = "Name")), responses((status = 200, body = User)))]
pub(super) async fn show(
    Access(by): Access<UserRead>,
    State(door): State<Arc<Door>>,
    Name(name): Name,
) -> Result<Json<User>> {
    Ok(Json(find(&door, by.org_id(), &name).await?))
}

async fn find(door: &Door, org: OrgId, name: &str) -> Result<User> {
    let unknown = || Error::not_found("user", name);
    if name.contains('\0') {
        return Err(unknown().into());
    }
    let found = store::users::page(&door.app.db.of(org), org, Some(name), None, 1).await?.pop();
    Ok(found.ok_or_else(unknown)?)
}

/// Ends somebody's membership, with roles, groups, tokens and sessions in this organization.
#[utoipa::path(delete, path = "/api/v1/users/{user}", tag = "users", operation_id = "remove_user",
    params(("user" = String, Path, description = "Name")), responses((status = 204)))]
pub(super) async fn remove(
    Access(by): Access<UserManage>,
    State(door): State<Arc<Door>>,
    Name(name): Name,
) -> Result<StatusCode> {
    find(&door, by.org_id(), &name).await?;
    app::users::remove(&door.app, &by, &name).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Makes a token with which somebody chooses a new password, within an hour. The answer is the only place where it is ever
/// shown.
#[utoipa::path(post, path = "/api/v1/users/{user}/reset-password", tag = "users", operation_id = "offer_reset",
    params(("user" = String, Path, description = "Name")), responses((status = 201, body = CreatedOneTimeToken)))]
pub(super) async fn offer_reset(
    Access(by): Access<UserManage>,
    State(door): State<Arc<Door>>,
    Name(name): Name,
) -> Result<(StatusCode, Json<CreatedOneTimeToken>)> {
    find(&door, by.org_id(), &name).await?;
    Ok((StatusCode::CREATED, Json(app::users::offer_reset(&door.app, &by, &name).await?)))
}

/// Takes the second factor of somebody away who has lost it. All of that one's sessions end.
#[utoipa::path(delete, path = "/api/v1/users/{user}/second-factor", tag = "users", operation_id = "remove_second_factor",
    params(("user" = String, Path, description = "Name")), responses((status = 204)))]
pub(super) async fn remove_second_factor(
    Access(by): Access<UserManage>,
    State(door): State<Arc<Door>>,
    Name(name): Name,
) -> Result<StatusCode> {
    find(&door, by.org_id(), &name).await?;
    app::users::remove_second_factor(&door.app, &by, &name).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Lets somebody try again who was locked out by failures to enter.
#[utoipa::path(post, path = "/api/v1/users/{user}/unlock", tag = "users", operation_id = "unlock_user",
    params(("user" = String, Path, description = "Name")), responses((status = 204)))]
pub(super) async fn unlock(
    Access(by): Access<UserManage>,
    State(door): State<Arc<Door>>,
    Name(name): Name,
) -> Result<StatusCode> {
    find(&door, by.org_id(), &name).await?;
    app::users::unlock(&door.app, &by, &name).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Keeps somebody out of the whole installation; his sessions end.
#[utoipa::path(post, path = "/api/v1/users/{user}/disable", tag = "users", operation_id = "disable_user",
    params(("user" = String, Path, description = "Name")), responses((status = 204)))]
pub(super) async fn disable(
    Access(by): Access<UserAdminister>,
    State(door): State<Arc<Door>>,
    Name(name): Name,
) -> Result<StatusCode> {
    find(&door, by.org_id(), &name).await?;
    app::users::set_disabled(&door.app, &by, &name, true).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Lets somebody in again.
#[utoipa::path(post, path = "/api/v1/users/{user}/enable", tag = "users", operation_id = "enable_user",
    params(("user" = String, Path, description = "Name")), responses((status = 204)))]
pub(super) async fn enable(
    Access(by): Access<UserAdminister>,
    State(door): State<Arc<Door>>,
    Name(name): Name,
) -> Result<StatusCode> {
    find(&door, by.org_id(), &name).await?;
    app::users::set_disabled(&door.app, &by, &name, false).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Somebody's sessions in this organization.
#[utoipa::path(get, path = "/api/v1/users/{user}/sessions", tag = "users", operation_id = "list_user_sessions",
    params(("user" = String, Path, description = "Name")), responses((status = 200, body = Vec<LoginSession>)))]
pub(super) async fn sessions(
    Access(by): Access<UserManage>,
    State(door): State<Arc<Door>>,
    Name(name): Name,
) -> Result<Json<Vec<LoginSession>>> {
    let user = find(&door, by.org_id(), &name).await?;
    let pool = door.app.db.of(by.org_id());
    let sessions =
        store::login_sessions::of_user(&pool, user.id, Some(by.org_id()), None, clock::now()).await?;
    Ok(Json(sessions))
}

/// Ends all of somebody's sessions in this organization.
#[utoipa::path(delete, path = "/api/v1/users/{user}/sessions", tag = "users", operation_id = "end_user_sessions",
    params(("user" = String, Path, description = "Name")), responses((status = 204)))]
pub(super) async fn end_sessions(
    Access(by): Access<UserManage>,
    State(door): State<Arc<Door>>,
    Name(name): Name,
) -> Result<StatusCode> {
    find(&door, by.org_id(), &name).await?;
    app::users::end_sessions(&door.app, &by, &name).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Invitations, the newest first, without their secrets.
#[utoipa::path(get, path = "/api/v1/invitations", tag = "users", operation_id = "list_invitations", params(List),
    responses((status = 200, body = Page<Invitation>)))]
pub(super) async fn invitations(
    Access(by): Access<UserRead>,
    State(door): State<Arc<Door>>,
    Query(query): Query<List>,
) -> Result<Json<Page<Invitation>>> {
    let window = Window::new("invitations", query.cursor.as_deref(), query.limit)?;
    let pool = door.app.db.of(by.org_id());
    let rows = store::one_time_tokens::invitations(&pool, by.org_id(), window.after, window.limit()).await?;
    Ok(Json(window.page(rows, |invitation| invitation.id)))
}

/// Makes an invitation, for one person. The answer is the only place where its secret is ever shown.
#[utoipa::path(post, path = "/api/v1/invitations", tag = "users", operation_id = "create_invitation",
    request_body = CreateInvitation, responses((status = 201, body = CreatedOneTimeToken)))]
pub(super) async fn invite(
    Access(by): Access<UserManage>,
    State(door): State<Arc<Door>>,
    JsonBody(request): JsonBody<CreateInvitation>,
) -> Result<(StatusCode, Json<CreatedOneTimeToken>)> {
    Ok((StatusCode::CREATED, Json(app::users::invite(&door.app, &by, &request).await?)))
}

/// Makes an invitation worthless.
#[utoipa::path(delete, path = "/api/v1/invitations/{id}", tag = "users", operation_id = "delete_invitation",
    params(("id" = String, Path, format = Uuid)), responses((status = 204)))]
pub(super) async fn delete_invitation(
    Access(by): Access<UserManage>,
    State(door): State<Arc<Door>>,
    Id(id): Id<OneTimeTokenId>,
) -> Result<StatusCode> {
    app::users::delete_invitation(&door.app, &by, id).await?;
    Ok(StatusCode::NO_CONTENT)
}
