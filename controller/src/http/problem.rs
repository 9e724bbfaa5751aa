//! The one shape of every error: `application/problem+json`.
//!
//! A handler returns a [`Failure`]; it travels in the answer's extensions to [`render`], which knows the request's id.
//! What the router itself refuses (no such path, wrong method) is given the same shape there.

use std::{panic::AssertUnwindSafe, sync::Arc};

use axum::{
    Json,
    extract::Request,
    http::{HeaderValue, Method, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use futures_util::FutureExt as _;
use model::api::problem::Problem;

use super::request_id::RequestId;
use crate::error::Error;

pub(super) type Result<T, E = Failure> = std::result::Result<T, E>;

/// Why a request is not answered as it wished.
#[derive(Debug)]
pub(super) enum Failure {
    /// A verb's own error.
    App(Error),
    /// What HTTP says before any verb is called.
    Request(Refusal),
}

/// A request that no verb ever sees.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    pub(super) code: &'static str,
    pub(super) field: Option<String>,
    pub(super) detail: String,
}

impl<E: Into<Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::App(error.into())
    }
}

impl Failure {
    /// A parameter or a field that is wrong; `problem` goes on where the field's name ends.
    pub(super) fn invalid(field: impl Into<String>, problem: impl Into<String>) -> Self {
        Self::App(Error::Invalid(model::Invalid::new(field, problem)))
    }

    pub(super) fn refuse(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Self {
        Self::Request(Refusal { status, code, field: None, detail: detail.into() })
    }

    fn status(&self) -> StatusCode {
        match self {
            Self::App(error) => {
                StatusCode::from_u16(error.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
            }
            Self::Request(refusal) => refusal.status,
        }
    }

    /// As the body shows it.
    pub(super) fn problem(&self, request_id: &str) -> Problem {
        let (code, detail, field, position) = match self {
            Self::App(error) => {
                let (field, position) = match error {
                    Error::Invalid(invalid) => (Some(invalid.field.clone()), None),
                    Error::Selector { field, error } => (Some((*field).to_owned()), Some(error.position)),
                    Error::Document(_) => (Some("document".to_owned()), None),
                    _ => (None, None),
                };
                (error.code(), error.to_string(), field, position)
            }
            Self::Request(refusal) => (refusal.code, refusal.detail.clone(), refusal.field.clone(), None),
        };
        Problem {
            r#type: format!("urn:opsconductor:problem:{code}"),
            title: title(code).to_owned(),
            status: self.status().as_u16(),
            code: code.to_owned(),
            detail,
            field,
            position,
            request_id: request_id.to_owned(),
        }
    }

    /// Writes into the log what the answer does not tell: the causes of what is our fault.
    pub(super) fn log(&self) {
        if let Self::App(error) = self
            && self.status().is_server_error()
        {
            let mut causes = String::new();
            let mut source = std::error::Error::source(error);
            while let Some(error) = source {
                causes.push_str(&format!(": {error}"));
                source = error.source();
            }
            tracing::error!(error.code = error.code(), "{error}{causes}");
        }
    }
}

fn title(code: &str) -> &'static str {
    match code {
        "invalid" => "A field of the request is wrong",
        "invalid_document" => "The document is no job",
        "tampered" => "Not what was saved",
        "invalid_selector" => "The selector cannot be read",
        "invalid_json" => "The body is not JSON",
        "not_found" => "Not found",
        "conflict" => "Not possible in this state",
        "no_targets" => "No target matches",
        "unauthenticated" => "A credential is needed",
        "bad_credential" => "The credential is not valid",
        "forbidden" => "Not allowed",
        "out_of_scope" => "Not allowed on all of these hosts",
        "not_admitted" => "Not admitted",
        "provider_failed" => "The login provider failed",
        "needs_login" => "A login is needed",
        "second_factor_required" => "A code is needed",
        "off" => "Not possible here",
        "too_many_requests" => "Too many requests",
        "too_many_streams" => "Too many open streams",
        "uri_too_long" => "The path is too long",
        "headers_too_large" => "The headers are too large",
        "still_running" => "The same request is still running",
        "idempotency_key_reused" => "The idempotency key belongs to another request",
        "database_unavailable" => "The database does not answer",
        "method_not_allowed" => "The method is not allowed here",
        "body_too_large" => "The body is too large",
        "unsupported_media_type" => "The body is of the wrong type",
        "not_acceptable" => "No such form of the answer",
        "internal" => "An error of the controller",
        _ => "The request cannot be answered",
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let mut response = self.status().into_response();
        response.extensions_mut().insert(Arc::new(self));
        response
    }
}

/// Gives every refusal its body, and answers 500 where a handler panics.
pub(super) async fn render(request: Request, next: Next) -> Response {
    let id = request.extensions().get::<RequestId>().cloned().unwrap_or_default();
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let response = match AssertUnwindSafe(next.run(request)).catch_unwind().await {
        Ok(response) => response,
        Err(panic) => {
            let message = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
            let message = message.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
            tracing::error!("a handler panicked: {message}");
            Failure::refuse(
                StatusCode::INTERNAL_SERVER_ERROR,
                "internal",
                "the controller has a defect; its log has more",
            )
            .into_response()
        }
    };
    if !response.status().is_client_error() && !response.status().is_server_error() {
        return response;
    }
    let (parts, _) = response.into_parts();
    let failure = match parts.extensions.get::<Arc<Failure>>() {
        Some(failure) => Arc::clone(failure),
        None => Arc::new(of_router(parts.status, &method, &path)),
    };
    failure.log();
    let mut answer = (parts.status, Json(failure.problem(id.as_str()))).into_response();
    let headers = answer.headers_mut();
    headers.extend(parts.headers.into_iter().filter_map(|(name, value)| {
        name.filter(|name| *name != header::CONTENT_TYPE && *name != header::CONTENT_LENGTH)
            .map(|name| (name, value))
    }));
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    if parts.status == StatusCode::UNAUTHORIZED {
        headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    if let Failure::App(Error::TooMany { retry_after_seconds }) = &*failure {
        headers.insert(header::RETRY_AFTER, HeaderValue::from(*retry_after_seconds));
    } else if parts.status == StatusCode::SERVICE_UNAVAILABLE {
        headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    } else if parts.status == StatusCode::TOO_MANY_REQUESTS {
        headers.insert(header::RETRY_AFTER, HeaderValue::from_static("10"));
    }
    answer
}

/// What the router refused by itself.
fn of_router(status: StatusCode, method: &Method, path: &str) -> Failure {
    match status {
        StatusCode::NOT_FOUND => {
            let path: String = path.chars().take(200).collect();
            Failure::refuse(
                status,
                "not_found",
                format!("there is nothing at {path}; /docs shows what there is"),
            )
        }
        // Which ones are is in the header `Allow`.
        StatusCode::METHOD_NOT_ALLOWED => Failure::refuse(
            status,
            "method_not_allowed",
            format!("{method} is not among the methods of this path"),
        ),
        _ => {
            let reason = status.canonical_reason().unwrap_or("refused");
            Failure::refuse(status, "refused", reason.to_ascii_lowercase())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_field_is_named() {
        let problem = Failure::invalid("limit", "is too large").problem("r1");
        assert_eq!((problem.status, problem.code.as_str()), (400, "invalid"));
        assert_eq!(problem.r#type, "urn:opsconductor:problem:invalid");
        assert_eq!(problem.field.as_deref(), Some("limit"));
        assert_eq!(problem.detail, "limit is too large");
        assert_eq!(problem.request_id, "r1");
    }

    #[test]
    fn a_selector_tells_where() {
        let error = model::selector::Selector::parse("env=").expect_err("nothing behind the sign");
        let position = error.position;
        let problem = Failure::from(Error::Selector { field: "selector", error }).problem("r1");
        assert_eq!((problem.status, problem.code.as_str()), (400, "invalid_selector"));
        assert_eq!(problem.position, Some(position));
    }

    #[test]
    fn causes_stay_inside() {
        let error = Error::Database("query for agents", sqlx::Error::Protocol("secret detail".to_owned()));
        let problem = Failure::from(error).problem("r1");
        assert_eq!((problem.status, problem.code.as_str()), (503, "database_unavailable"));
        assert!(!problem.detail.contains("secret"), "{}", problem.detail);
    }
}
