//! `/api/v1/setup` and `/api/v1/auth`: the first start, logins, sessions, passwords and second factors.

use std::sync::Arc;

use axum::{
    Json,
    extract::State,
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
};
use model::{
    api::auth::{
        AcceptInvitation, ChangePassword, ConfirmTotp, Entered, Login, LoginSession, RecoveryCodes, Refresh,
        Register, RemoveTotp, ResetPassword, Secret, Setup, Tokens, TotpStarted,
    },
    id::LoginSessionId,
};

use super::{
    Door,
    auth::{Access, Stranger, Unknown},
    body::JsonBody,
    cookies,
    id::Id,
    problem::Result,
};
use crate::{
    app::{self, access::SelfRead, login::ended},
    clock, store,
};

/// Makes the first organization and its administrator, with the token that the first start printed, and logs that one in.
/// It works once.
#[utoipa::path(post, path = "/api/v1/setup", tag = "auth", operation_id = "set_up", security(()),
    request_body = Setup, responses((status = 201, body = Tokens)))]
pub(super) async fn set_up(
    stranger: Stranger,
    State(door): State<Arc<Door>>,
    JsonBody(request): JsonBody<Setup>,
) -> Result<(StatusCode, Json<Tokens>)> {
    let tokens = app::setup::set_up(&door.app, &stranger.origin, &stranger.client, &request).await?;
    Ok((StatusCode::CREATED, Json(tokens)))
}

/// Lets a person in. With `cookies` the tokens are in cookies and not in the answer.
#[utoipa::path(post, path = "/api/v1/auth/login", tag = "auth", operation_id = "login", security(()),
    request_body = Login, responses((status = 200, body = Tokens)))]
pub(super) async fn login(
    stranger: Stranger,
    State(door): State<Arc<Door>>,
    JsonBody(request): JsonBody<Login>,
) -> Result<Response> {
    let tokens = app::login::login(&door.app, &stranger.origin, &stranger.client, &request).await?;
    Ok(hand_out(tokens, request.cookies))
}

/// Exchanges a refresh token, which is good once, for a new one and a new access token.
#[utoipa::path(post, path = "/api/v1/auth/refresh", tag = "auth", operation_id = "refresh", security(()),
    request_body = Refresh, responses((status = 200, body = Tokens)))]
pub(super) async fn refresh(
    unknown: Unknown,
    State(door): State<Arc<Door>>,
    parts: axum::http::request::Parts,
    JsonBody(mut request): JsonBody<Refresh>,
) -> Result<Response> {
    let cookie = match request.refresh_token {
        Some(_) => None,
        None => cookies::read(&parts.headers, cookies::REFRESH),
    };
    let by_cookie = cookie.is_some();
    if let Some(cookie) = cookie {
        cookies::from_our_own_pages(&parts)?;
        request.refresh_token = Some(Secret::new(cookie));
    }
    let refreshed = app::login::refresh(&door.app, &unknown.origin, &request).await;
    let tokens = refreshed.map_err(|error| unknown.refused(&door, error))?;
    Ok(hand_out(tokens, by_cookie))
}

/// The tokens, in the body or in cookies.
fn hand_out(mut tokens: Tokens, by_cookie: bool) -> Response {
    let mut headers = HeaderMap::new();
    if by_cookie {
        into_cookies(&mut headers, &mut tokens);
    }
    (headers, Json(tokens)).into_response()
}

/// Takes the tokens out of the answer and puts them into cookies.
pub(super) fn into_cookies(headers: &mut HeaderMap, tokens: &mut Tokens) {
    let mut set = |name, token: Option<Secret>| {
        cookies::set(headers, name, token.as_ref().map(Secret::expose).unwrap_or_default());
    };
    set(cookies::ACCESS, tokens.access_token.take());
    set(cookies::REFRESH, tokens.refresh_token.take());
}

/// Ends the session that asks.
#[utoipa::path(post, path = "/api/v1/auth/logout", tag = "auth", operation_id = "logout",
    responses((status = 204)))]
pub(super) async fn logout(
    Access(by): Access<SelfRead>,
    State(door): State<Arc<Door>>,
) -> Result<impl IntoResponse> {
    let (_, session) = by.session()?;
    app::login::end(&door.app, &by, session, ended::LOGOUT).await?;
    let mut headers = HeaderMap::new();
    cookies::set(&mut headers, cookies::ACCESS, "");
    cookies::set(&mut headers, cookies::REFRESH, "");
    Ok((StatusCode::NO_CONTENT, headers))
}

/// One's own sessions that have not ended, in all organizations, the newest first.
#[utoipa::path(get, path = "/api/v1/auth/sessions", tag = "auth", operation_id = "list_sessions",
    responses((status = 200, body = Vec<LoginSession>)))]
pub(super) async fn list(
    Access(by): Access<SelfRead>,
    State(door): State<Arc<Door>>,
) -> Result<Json<Vec<LoginSession>>> {
    let (user, session) = by.session()?;
    let pool = door.app.db.worker();
    Ok(Json(store::login_sessions::of_user(pool, user, None, Some(session), clock::now()).await?))
}

/// Ends one of one's own sessions.
#[utoipa::path(delete, path = "/api/v1/auth/sessions/{id}", tag = "auth", operation_id = "end_session",
    params(("id" = String, Path, format = Uuid)), responses((status = 204)))]
pub(super) async fn end(
    Access(by): Access<SelfRead>,
    State(door): State<Arc<Door>>,
    Id(id): Id<LoginSessionId>,
) -> Result<StatusCode> {
    app::login::end(&door.app, &by, id, ended::ENDED).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Another password for oneself. All other sessions end.
#[utoipa::path(put, path = "/api/v1/auth/password", tag = "auth", operation_id = "change_password",
    request_body = ChangePassword, responses((status = 204)))]
pub(super) async fn change_password(
    Access(by): Access<SelfRead>,
    State(door): State<Arc<Door>>,
    JsonBody(request): JsonBody<ChangePassword>,
) -> Result<StatusCode> {
    app::login::change_password(&door.app, &by, &request.current, &request.new).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// A new password, with a token that an administrator made.
#[utoipa::path(post, path = "/api/v1/auth/reset-password", tag = "auth", operation_id = "reset_password", security(()),
    request_body = ResetPassword, responses((status = 204)))]
pub(super) async fn reset_password(
    stranger: Stranger,
    State(door): State<Arc<Door>>,
    JsonBody(request): JsonBody<ResetPassword>,
) -> Result<StatusCode> {
    app::users::reset(&door.app, &stranger.origin, &request).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Joins an organization, with an invitation.
#[utoipa::path(post, path = "/api/v1/auth/accept-invitation", tag = "auth", operation_id = "accept_invitation",
    security(()), request_body = AcceptInvitation, responses((status = 201, body = Entered)))]
pub(super) async fn accept_invitation(
    stranger: Stranger,
    State(door): State<Arc<Door>>,
    JsonBody(request): JsonBody<AcceptInvitation>,
) -> Result<(StatusCode, Json<Entered>)> {
    let entered = app::users::accept(&door.app, &stranger.origin, &request).await?;
    Ok((StatusCode::CREATED, Json(entered)))
}

/// Makes a person without any role, where the configuration lets everybody do that.
#[utoipa::path(post, path = "/api/v1/auth/register", tag = "auth", operation_id = "register", security(()),
    request_body = Register, responses((status = 201, body = Entered)))]
pub(super) async fn register(
    stranger: Stranger,
    State(door): State<Arc<Door>>,
    JsonBody(request): JsonBody<Register>,
) -> Result<(StatusCode, Json<Entered>)> {
    let entered = app::users::register(&door.app, &stranger.origin, &request).await?;
    Ok((StatusCode::CREATED, Json(entered)))
}

/// Begins a second factor. It counts once a code of it was confirmed.
#[utoipa::path(post, path = "/api/v1/auth/totp", tag = "auth", operation_id = "start_totp",
    responses((status = 201, body = TotpStarted)))]
pub(super) async fn start_totp(
    Access(by): Access<SelfRead>,
    State(door): State<Arc<Door>>,
) -> Result<(StatusCode, Json<TotpStarted>)> {
    Ok((StatusCode::CREATED, Json(app::totp::start(&door.app, &by).await?)))
}

/// Makes the second factor count. The answer is the only place where the recovery codes are ever shown.
#[utoipa::path(post, path = "/api/v1/auth/totp/confirm", tag = "auth", operation_id = "confirm_totp",
    request_body = ConfirmTotp, responses((status = 200, body = RecoveryCodes)))]
pub(super) async fn confirm_totp(
    Access(by): Access<SelfRead>,
    State(door): State<Arc<Door>>,
    JsonBody(request): JsonBody<ConfirmTotp>,
) -> Result<Json<RecoveryCodes>> {
    Ok(Json(app::totp::confirm(&door.app, &by, &request.code).await?))
}

/// Without a second factor from now on.
#[utoipa::path(post, path = "/api/v1/auth/totp/remove", tag = "auth", operation_id = "remove_totp",
    request_body = RemoveTotp, responses((status = 204)))]
pub(super) async fn remove_totp(
    Access(by): Access<SelfRead>,
    State(door): State<Arc<Door>>,
    JsonBody(request): JsonBody<RemoveTotp>,
) -> Result<StatusCode> {
    app::totp::remove(&door.app, &by, &request.password).await?;
    Ok(StatusCode::NO_CONTENT)
}
