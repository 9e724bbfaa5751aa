//! `/api/v1/auth/providers` and `/api/v1/auth/oidc`: logins by an OpenID provider.

use std::sync::Arc;

use axum::{
    Json,
    extract::State,
    http::{HeaderMap, HeaderValue, StatusCode, header, request::Parts},
    response::{IntoResponse, Response},
};
use model::api::auth::{LinkIdentity, LoginProvider, RedeemLogin, Tokens};
use serde::Deserialize;
use utoipa::IntoParams;

use super::{
    Door,
    auth::{Access, Stranger},
    body::JsonBody,
    cookies,
    id::{Name, Names},
    problem::{Failure, Result},
    query::Query,
    sessions,
};
use crate::app::{
    access::UserAdminister,
    oidc::{self, Answer, End, Outcome},
};

/// Characters of the longest path that a browser goes to in the end.
const RETURN_CHARS: usize = 512;

/// The OpenID providers by which one may log in.
#[utoipa::path(get, path = "/api/v1/auth/providers", tag = "auth", operation_id = "list_login_providers", security(()),
    responses((status = 200, body = Vec<LoginProvider>)))]
pub(super) async fn list(State(door): State<Arc<Door>>) -> Json<Vec<LoginProvider>> {
    Json(door.app.providers.list())
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct Begin {
    /// Path of this controller that the browser goes to in the end; `/` by default.
    return_to: Option<String>,
    /// For programs: the port on 127.0.0.1 at which one listens for the browser that brings a code.
    port: Option<u16>,
    /// With `port`: SHA-256 of the secret that will be shown with the code, as base64url without padding.
    challenge: Option<String>,
}

/// Leads a browser to the provider.
#[utoipa::path(get, path = "/api/v1/auth/oidc/{provider}/login", tag = "auth", operation_id = "begin_oidc_login",
    security(()), params(("provider" = String, Path), Begin),
    responses((status = 303, description = "To the provider")))]
pub(super) async fn begin(
    _: Stranger,
    State(door): State<Arc<Door>>,
    Name(provider): Name,
    Query(query): Query<Begin>,
    parts: Parts,
) -> Result<Response> {
    let providers = &door.app.providers;
    let host = parts.headers.get(header::HOST).and_then(|value| value.to_str().ok());
    let own = providers.url().split_once("://").map(|(_, host)| host);
    if let (Some(host), Some(own)) = (host, own)
        && !host.eq_ignore_ascii_case(own)
    {
        // The provider sends the browser back to our one address, and its cookie has to be there by then.
        let path = parts.uri.path_and_query().map_or("/", axum::http::uri::PathAndQuery::as_str);
        return redirect(&format!("{}{path}", providers.url()), HeaderMap::new());
    }
    let end = match (query.return_to, query.port, query.challenge) {
        (path, None, None) => End::Page(own_path(path.unwrap_or_else(|| "/".to_owned()))?),
        (None, Some(port), Some(challenge)) if port != 0 => {
            let challenge = oidc::read_challenge(&challenge).ok_or_else(|| {
                Failure::invalid("challenge", "must be 32 bytes as base64url without padding")
            })?;
            End::Program { port, challenge }
        }
        (None, ..) => return Err(Failure::invalid("port", "is not 0, and comes with 'challenge'")),
        (Some(_), ..) => return Err(Failure::invalid("return_to", "is for browsers, 'port' for programs")),
    };
    let browser = cookies::read(&parts.headers, cookies::LOGIN);
    let begun = oidc::begin(&door.app, &provider, &end, browser).await?;
    let mut headers = HeaderMap::new();
    cookies::set_login(&mut headers, &begun.browser);
    redirect(&begun.location, headers)
}

/// A path of this controller itself: no browser takes it for another site's.
fn own_path(path: String) -> Result<String> {
    let is_own = path.starts_with('/')
        && !path.starts_with("//")
        && path.len() <= RETURN_CHARS
        && path.chars().all(|c| c.is_ascii_graphic() && c != '\\');
    if is_own {
        return Ok(path);
    }
    let allowed =
        format!("must be a path of this controller, as /executions, of {RETURN_CHARS} characters at most");
    Err(Failure::invalid("return_to", allowed))
}

/// What a provider sends back. It may say more than we know of.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Callback {
    state: Option<String>,
    code: Option<String>,
    iss: Option<String>,
    error: Option<String>,
    error_description: Option<String>,
}

/// Where the provider sends the browser back to: the session is in its cookies, or a program is told.
#[utoipa::path(get, path = "/api/v1/auth/oidc/{provider}/callback", tag = "auth", operation_id = "finish_oidc_login",
    security(()), params(("provider" = String, Path), Callback),
    responses((status = 303, description = "To where the login was begun for")))]
pub(super) async fn finish(
    stranger: Stranger,
    State(door): State<Arc<Door>>,
    Name(provider): Name,
    Query(query): Query<Callback>,
    headers: HeaderMap,
) -> Result<Response> {
    let Some(state) = query.state.as_deref() else {
        return Err(Failure::invalid("state", "is missing"));
    };
    let code = match (query.code.as_deref(), query.error_description.as_deref().or(query.error.as_deref())) {
        (Some(code), None) => Ok(code),
        (_, Some(why)) => Err(why),
        (None, None) => return Err(Failure::invalid("code", "is missing, and so is 'error'")),
    };
    let browser = cookies::read(&headers, cookies::LOGIN);
    let answer = Answer { state, code, iss: query.iss.as_deref(), browser: browser.as_deref() };
    let outcome = oidc::finish(&door.app, &stranger.origin, &stranger.client, &provider, answer).await?;
    let mut headers = HeaderMap::new();
    cookies::set_login(&mut headers, "");
    match outcome {
        Outcome::Page { path, mut tokens } => {
            sessions::into_cookies(&mut headers, &mut tokens);
            redirect(&path, headers)
        }
        Outcome::Program { location } => redirect(&location, headers),
    }
}

/// Gives a program the session of the person who logged in for it.
#[utoipa::path(post, path = "/api/v1/auth/oidc/redeem", tag = "auth", operation_id = "redeem_oidc_login", security(()),
    request_body = RedeemLogin, responses((status = 200, body = Tokens)))]
pub(super) async fn redeem(
    stranger: Stranger,
    State(door): State<Arc<Door>>,
    JsonBody(request): JsonBody<RedeemLogin>,
) -> Result<Json<Tokens>> {
    Ok(Json(oidc::redeem(&door.app, &stranger.origin, &stranger.client, &request).await?))
}

/// Says that a provider's person is this one, who has a name here already.
#[utoipa::path(put, path = "/api/v1/users/{user}/identities/{provider}", tag = "users", operation_id = "link_identity",
    params(("user" = String, Path, description = "Name"), ("provider" = String, Path)), request_body = LinkIdentity,
    responses((status = 204)))]
pub(super) async fn link(
    Access(by): Access<UserAdminister>,
    State(door): State<Arc<Door>>,
    Names(user, provider): Names,
    JsonBody(request): JsonBody<LinkIdentity>,
) -> Result<StatusCode> {
    oidc::link(&door.app, &by, &user, &provider, &request).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Nobody is this person by that provider any more; that one's sessions end.
#[utoipa::path(delete, path = "/api/v1/users/{user}/identities/{provider}", tag = "users",
    operation_id = "unlink_identity",
    params(("user" = String, Path, description = "Name"), ("provider" = String, Path)), responses((status = 204)))]
pub(super) async fn unlink(
    Access(by): Access<UserAdminister>,
    State(door): State<Arc<Door>>,
    Names(user, provider): Names,
) -> Result<StatusCode> {
    oidc::unlink(&door.app, &by, &user, &provider).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn redirect(to: &str, mut headers: HeaderMap) -> Result<Response> {
    let location = HeaderValue::from_str(to)
        .map_err(|error| crate::error::Error::internal("cannot name where to go on", error))?;
    headers.insert(header::LOCATION, location);
    Ok((StatusCode::SEE_OTHER, headers).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_browser_is_sent_to_our_own_pages_only() {
        for good in ["/", "/executions?state=failed", "/a//b"] {
            own_path(good.to_owned()).unwrap_or_else(|_| panic!("{good}"));
        }
        for bad in [
            "",
            "executions",
            "//evil.example",
            "/\\evil.example",
            "https://evil.example",
            "/a b",
            "/\r\nx: y",
        ] {
            own_path(bad.to_owned()).expect_err(bad);
        }
        own_path(format!("/{}", "x".repeat(RETURN_CHARS))).expect_err("too long");
    }
}
