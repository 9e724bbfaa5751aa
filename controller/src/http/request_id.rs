//! The id that finds a request in the logs, the audit and the answer: the client's own, or a new one.

use std::sync::Arc;

use axum::{
    extract::Request,
    http::{HeaderMap, HeaderName, HeaderValue},
    middleware::Next,
    response::Response,
};
use model::id::uuid_v7;
use tracing::Instrument as _;

use super::hooks;
use crate::clock;

const HEADER: HeaderName = HeaderName::from_static("x-request-id");
/// Characters of an id that a client chooses.
const LONGEST: usize = 64;

#[derive(Debug, Clone, Default)]
pub(super) struct RequestId(Arc<str>);

impl RequestId {
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    /// The client's, if it is one that is safe in a log.
    fn of(headers: &HeaderMap) -> Self {
        let given = headers.get(HEADER).and_then(|value| value.to_str().ok()).filter(|text| is_safe(text));
        match given {
            Some(text) => Self(text.into()),
            None => Self(uuid_v7(clock::now(), clock::entropy()).to_string().into()),
        }
    }
}

fn is_safe(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    (1..=LONGEST).contains(&text.len()) && text.bytes().all(allowed)
}

/// Gives the request its id, and everything that is logged on its way.
pub(super) async fn identify(mut request: Request, next: Next) -> Response {
    let id = RequestId::of(request.headers());
    let span = tracing::info_span!(
        "request",
        request.id = id.as_str(),
        http.method = %request.method(),
        http.path = hooks::without_secret(request.uri().path())
    );
    request.extensions_mut().insert(id.clone());
    let mut response = next.run(request).instrument(span).await;
    if let Ok(value) = HeaderValue::from_str(id.as_str()) {
        response.headers_mut().insert(HEADER, value);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_safe_ids_are_taken_over() {
        for (text, want) in [
            ("deploy-17.a_B", true),
            ("", false),
            ("two words", false),
            ("line\nbreak", false),
            (&"x".repeat(64), true),
            (&"x".repeat(65), false),
        ] {
            assert_eq!(is_safe(text), want, "{text:?}");
        }
    }
}
