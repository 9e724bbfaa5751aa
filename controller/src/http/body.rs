//! JSON bodies: bounded, of known fields, and with a wrong one named.

use std::{sync::Arc, time::Duration};

use axum::{
    body::Body,
    extract::{FromRequest, Request},
    http::{HeaderMap, StatusCode, header},
};
use futures_util::StreamExt as _;
use model::limits;
use serde::de::{DeserializeOwned, IgnoredAny};

use super::{
    Door,
    problem::{Failure, Refusal},
};

/// What is read and thrown away of a body that is too large, and for how long: a client that is still sending would
/// not see the answer.
const DRAIN_BYTES: usize = 64 * 1024 * 1024;
const DRAIN_WITHIN: Duration = Duration::from_secs(5);
/// How long a client may take for a body.
const BODY_WITHIN: Duration = Duration::from_secs(30);

/// The body, read as JSON.
#[derive(Debug)]
pub(super) struct JsonBody<T>(pub(super) T);

impl<T: DeserializeOwned> FromRequest<Arc<Door>> for JsonBody<T> {
    type Rejection = Failure;

    async fn from_request(request: Request, _: &Arc<Door>) -> Result<Self, Failure> {
        let (parts, body) = request.into_parts();
        let is_json = is_json(&parts.headers);
        let bytes = whole(body, ("HTTP_BODY_BYTES", limits::HTTP_BODY_BYTES)).await?;
        if !is_json {
            return Err(Failure::refuse(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "unsupported_media_type",
                "the body must be JSON: send 'Content-Type: application/json'",
            ));
        }
        parse(&bytes).map(Self)
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    let Some(text) = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()) else {
        return false;
    };
    let kind = text.split(';').next().unwrap_or_default().trim();
    kind.eq_ignore_ascii_case("application/json")
}

/// All bytes of a body, which are at most as many as this limit says.
///
/// # Errors
/// When it is too large, too slow or not whole.
pub(super) async fn whole(body: Body, limit: (&str, usize)) -> Result<Vec<u8>, Failure> {
    tokio::time::timeout(BODY_WITHIN, read(body, limit)).await.map_err(|_| {
        Failure::refuse(StatusCode::REQUEST_TIMEOUT, "body_too_slow", "the body did not come within 30 s")
    })?
}

async fn read(body: Body, (limit, most): (&str, usize)) -> Result<Vec<u8>, Failure> {
    let mut stream = body.into_data_stream();
    let mut bytes = Vec::new();
    while let Some(part) = stream.next().await {
        let part = part.map_err(|_| {
            Failure::refuse(
                StatusCode::BAD_REQUEST,
                "invalid_json",
                "the connection broke before the body was whole",
            )
        })?;
        if bytes.len() + part.len() > most {
            let mut drained = bytes.len() + part.len();
            drop(bytes);
            let drain = async {
                while let Some(Ok(part)) = stream.next().await {
                    drained += part.len();
                    if drained > DRAIN_BYTES {
                        break;
                    }
                }
            };
            // Whether the client was patient makes no difference.
            tokio::time::timeout(DRAIN_WITHIN, drain).await.ok();
            return Err(Failure::refuse(
                StatusCode::PAYLOAD_TOO_LARGE,
                "body_too_large",
                format!("the body is over the limit {limit} of {most} bytes"),
            ));
        }
        bytes.extend_from_slice(&part);
    }
    Ok(bytes)
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Failure> {
    let not_json = |detail: String| Failure::refuse(StatusCode::BAD_REQUEST, "invalid_json", detail);
    if bytes.trim_ascii().is_empty() {
        return Err(not_json("the body is empty; a JSON object is expected".to_owned()));
    }
    // Structs would be read from arrays, too.
    if bytes.trim_ascii_start().starts_with(b"[") {
        return Err(wrong_field("", "a JSON object is expected, not an array"));
    }
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
        let inner = error.inner();
        let whole = inner.to_string();
        let place = format!(" at line {} column {}", inner.line(), inner.column());
        let message = whole.strip_suffix(&place).unwrap_or(&whole);
        // A number where one of several words is expected counts as no JSON with the parser; the text tells.
        if inner.is_data() || serde_json::from_slice::<IgnoredAny>(bytes).is_ok() {
            wrong_field(&error.path().to_string(), message)
        } else {
            not_json(format!("the body is not JSON: {whole}"))
        }
    })?;
    deserializer.end().map_err(|error| not_json(format!("the body is not JSON: {error}")))?;
    Ok(value)
}

/// The refusal of a field. A field that is unknown or missing stands in the message, not in the path.
pub(super) fn wrong_field(path: &str, message: &str) -> Failure {
    let named = ["unknown field `", "missing field `", "duplicate field `"]
        .into_iter()
        .find_map(|start| message.strip_prefix(start))
        .and_then(|rest| rest.split('`').next());
    let path = if path == "." { "" } else { path };
    let field = match named {
        Some(name) if path.is_empty() => name.to_owned(),
        Some(name) if path == name || path.ends_with(&format!(".{name}")) => path.to_owned(),
        Some(name) => format!("{path}.{name}"),
        None => path.to_owned(),
    };
    let detail = if field.is_empty() { message.to_owned() } else { format!("{field}: {message}") };
    let field = (!field.is_empty()).then_some(field);
    Failure::Request(Refusal { status: StatusCode::BAD_REQUEST, code: "invalid", field, detail })
}

#[cfg(test)]
mod tests {
    use model::api::execution::CreateExecution;

    use super::*;

    #[test]
    fn what_is_wrong_is_named() {
        let good = r#"{"targets": {"all": true}, "command": {"program": {"shell": "true"}}}"#;
        parse::<CreateExecution>(good.as_bytes()).expect("valid");
        for (body, code, field) in [
            ("", "invalid_json", None),
            ("{", "invalid_json", None),
            ("nonsense", "invalid_json", None),
            (&format!("{good} {{}}"), "invalid_json", None),
            ("[]", "invalid", None),
            ("7", "invalid", None),
            (r#"{"targets": {"all": true}}"#, "invalid", Some("command")),
            (r#"{"target": {"all": true}}"#, "invalid", Some("target")),
            (r#"{"targets": {"everything": true}}"#, "invalid", Some("targets")),
            (r#"{"targets": {"all": "yes"}}"#, "invalid", Some("targets.all")),
            (r#"{"targets": {"names": ["a", 7]}}"#, "invalid", Some("targets.names[1]")),
            (
                r#"{"targets": {"all": true}, "command": {"program": {"shell": "true"}, "timeout": 5}}"#,
                "invalid",
                Some("command.timeout"),
            ),
            (
                r#"{"targets": {"all": true}, "command": {"program": {"shell": "true"}, "timeout_seconds": "5"}}"#,
                "invalid",
                Some("command.timeout_seconds"),
            ),
        ] {
            let problem = parse::<CreateExecution>(body.as_bytes()).expect_err(body).problem("r1");
            assert_eq!(
                (problem.code.as_str(), problem.field.as_deref()),
                (code, field),
                "{body}: {}",
                problem.detail
            );
            assert_eq!(problem.status, 400);
        }
    }

    #[test]
    fn only_json_is_json() {
        for (kind, want) in [
            ("application/json", true),
            ("Application/JSON; charset=utf-8", true),
            ("text/plain", false),
            ("application/jsonp", false),
        ] {
            let headers = HeaderMap::from_iter([(header::CONTENT_TYPE, kind.parse().expect("a header"))]);
            assert_eq!(is_json(&headers), want, "{kind}");
        }
    }
}
