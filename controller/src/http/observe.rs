//! Counts and times every request, by its route and not by its path: ids must not become labels.

use std::time::Instant;

use axum::{
    extract::{MatchedPath, Request},
    middleware::Next,
    response::Response,
};

/// The route of a path that nothing stands at.
const NO_ROUTE: &str = "none";

pub(super) async fn count(request: Request, next: Next) -> Response {
    let began = Instant::now();
    let route = request.extensions().get::<MatchedPath>().map_or(NO_ROUTE, MatchedPath::as_str).to_owned();
    let method = method(&request);
    let response = next.run(request).await;
    let took = began.elapsed();
    let status = response.status();
    let counter = metrics::counter!(
        "opsc_http_requests_total",
        "method" => method, "route" => route.clone(), "status" => status.as_str().to_owned()
    );
    counter.increment(1);
    metrics::histogram!("opsc_http_request_seconds", "method" => method, "route" => route).record(took);
    tracing::debug!(http.status = status.as_u16(), http.ms = took.as_secs_f64() * 1e3, "answered");
    response
}

/// The method as a label; there are no labels of the client's invention.
fn method(request: &Request) -> &'static str {
    match request.method().as_str() {
        "GET" => "GET",
        "HEAD" => "HEAD",
        "POST" => "POST",
        "PUT" => "PUT",
        "PATCH" => "PATCH",
        "DELETE" => "DELETE",
        "OPTIONS" => "OPTIONS",
        _ => "other",
    }
}
