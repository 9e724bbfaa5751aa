//! What every answer tells a browser, and what every request must keep to before a handler sees it.
//!
//! Answers: guess no types, load nothing from elsewhere, keep nothing, be framed by nobody, share no process with another
//! site, ask for no feature of the device, and, where there is TLS, never come back without it.

use axum::{
    extract::{Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    middleware::Next,
    response::{IntoResponse as _, Response},
};
use model::limits;

use super::problem::{Failure, Refusal, Result};

/// The API needs nothing at all.
const API_POLICY: &str = "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'";
/// The documentation's page has scripts, styles and pictures of its own, and the colours of its logo in the page, which are
/// let in by their hash. What its scripts write into the style of an element is no inline style by the standard.
const DOCS_POLICY: &str = "default-src 'none'; script-src 'self'; \
    style-src 'self' 'sha256-RL3ie0nH+Lzz2YNqQN83mnU0J1ot4QL7b99vMdIX99w='; img-src 'self' data:; \
    connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'";
/// A year. Not for subdomains: they may be somebody else's.
const TRANSPORT: &str = "max-age=31536000";
/// Every feature that browsers know by a policy, for nobody.
const FEATURES: &str = "accelerometer=(), autoplay=(), bluetooth=(), browsing-topics=(), camera=(), \
    display-capture=(), encrypted-media=(), fullscreen=(), gamepad=(), geolocation=(), gyroscope=(), hid=(), \
    identity-credentials-get=(), idle-detection=(), local-fonts=(), magnetometer=(), microphone=(), midi=(), \
    otp-credentials=(), payment=(), picture-in-picture=(), publickey-credentials-create=(), \
    publickey-credentials-get=(), screen-wake-lock=(), serial=(), storage-access=(), usb=(), web-share=(), \
    window-management=(), xr-spatial-tracking=()";

/// Headers of which one must not say two things: who reads the first and who reads the last would disagree.
const SINGLE: [HeaderName; 7] = [
    header::AUTHORIZATION,
    header::CONTENT_LENGTH,
    header::CONTENT_TYPE,
    header::HOST,
    header::ORIGIN,
    HeaderName::from_static("idempotency-key"),
    HeaderName::from_static("last-event-id"),
];

/// Whether the door has TLS.
#[derive(Debug, Clone, Copy)]
pub(super) struct Transport {
    pub(super) is_tls: bool,
}

/// Writes the headers into every answer.
pub(super) async fn secure(State(transport): State<Transport>, request: Request, next: Next) -> Response {
    let path = request.uri().path();
    let is_docs = path == "/docs" || path.starts_with("/docs/");
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    let (policy, caching) = if is_docs { (DOCS_POLICY, "no-cache") } else { (API_POLICY, "no-store") };
    for (name, value) in [
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
        (HeaderName::from_static("permissions-policy"), FEATURES),
        (header::CONTENT_SECURITY_POLICY, policy),
        (header::CACHE_CONTROL, caching),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    if transport.is_tls {
        headers.insert(header::STRICT_TRANSPORT_SECURITY, HeaderValue::from_static(TRANSPORT));
    }
    response
}

/// Refuses a request whose head is over a limit or contradicts itself.
pub(super) async fn bound(request: Request, next: Next) -> Response {
    match check(request.uri().path_and_query().map_or(0, |path| path.as_str().len()), request.headers()) {
        Ok(()) => next.run(request).await,
        Err(failure) => failure.into_response(),
    }
}

fn check(uri_bytes: usize, headers: &HeaderMap) -> Result<()> {
    if uri_bytes > limits::HTTP_URI_BYTES {
        let detail = format!(
            "the path with its query is over the limit HTTP_URI_BYTES of {} bytes",
            limits::HTTP_URI_BYTES
        );
        return Err(Failure::refuse(StatusCode::URI_TOO_LONG, "uri_too_long", detail));
    }
    let too_large = |name: &str, limit: usize, unit: &str| {
        let detail = format!("the request's headers are over the limit {name} of {limit} {unit}");
        Failure::refuse(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "headers_too_large", detail)
    };
    if headers.len() > limits::HTTP_HEADERS {
        return Err(too_large("HTTP_HEADERS", limits::HTTP_HEADERS, "lines"));
    }
    let bytes: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
    if bytes > limits::HTTP_HEADER_BYTES {
        return Err(too_large("HTTP_HEADER_BYTES", limits::HTTP_HEADER_BYTES, "bytes"));
    }
    for name in &SINGLE {
        if headers.get_all(name).iter().nth(1).is_some() {
            return Err(Failure::Request(Refusal {
                status: StatusCode::BAD_REQUEST,
                code: "invalid",
                field: Some(name.as_str().to_owned()),
                detail: format!("the header {name} is there more than once"),
            }));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_policy_lets_inline_code_or_styles_in() {
        for policy in [API_POLICY, DOCS_POLICY] {
            assert!(!policy.contains("unsafe"), "{policy}");
            assert!(policy.contains("default-src 'none'") && policy.contains("frame-ancestors 'none'"));
        }
    }

    #[test]
    fn the_hash_is_that_of_the_logo() {
        use base64::{Engine as _, engine::general_purpose::STANDARD};
        let style = ".logo_small_svg__cls-2{fill:#fff}.logo_small_svg__cls-3{fill:#85ea2d}";
        let hash = STANDARD.encode(pki::sha256(style.as_bytes()));
        assert!(DOCS_POLICY.contains(&format!("'sha256-{hash}'")), "{hash}");
    }

    #[test]
    fn what_is_over_a_limit_or_there_twice_is_named() {
        check(limits::HTTP_URI_BYTES, &HeaderMap::new()).expect("at the limit");
        let status = |uri, headers: &HeaderMap| {
            let problem = check(uri, headers).expect_err("refused").problem("r1");
            (problem.status, problem.field)
        };
        assert_eq!(status(limits::HTTP_URI_BYTES + 1, &HeaderMap::new()).0, 414);
        let many: HeaderMap = (0..=limits::HTTP_HEADERS)
            .map(|n| (format!("x-{n}").parse::<HeaderName>().expect("a name"), HeaderValue::from(1)))
            .collect();
        assert_eq!(status(1, &many).0, 431);
        let long = "x".repeat(limits::HTTP_HEADER_BYTES);
        let long = HeaderMap::from_iter([(header::COOKIE, long.parse().expect("a value"))]);
        assert_eq!(status(1, &long).0, 431);
        for name in SINGLE {
            let mut twice = HeaderMap::new();
            twice.append(name.clone(), HeaderValue::from_static("a"));
            check(1, &twice).expect("once is fine");
            twice.append(name.clone(), HeaderValue::from_static("a"));
            assert_eq!(status(1, &twice), (400, Some(name.as_str().to_owned())));
        }
    }
}
