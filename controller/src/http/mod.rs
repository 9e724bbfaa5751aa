//! The door for people and their programs: HTTP/1.1 and JSON.
//!
//! [`routes`] is the list of everything that answers, and the OpenAPI document is made from the same list. A handler
//! parses, asks for the [`auth::Access`] that its verb wants, calls `app` (or `store`, for a plain read) and shapes the
//! answer. Without a credential only `/health`, `/ready`, `/version`, `/openapi.json` and `/docs` answer.

mod agents;
mod audit;
mod auth;
mod body;
mod controllers;
mod docs;
mod enroll_tokens;
mod executions;
mod headers;
mod id;
mod lines;
mod live;
mod observe;
mod output;
mod page;
mod problem;
mod query;
mod rate;
mod request_id;
mod status;
mod tail;
#[cfg(test)]
mod tests;

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use axum::{Router, middleware::from_fn};
use axum_server::{Handle, tls_rustls::RustlsConfig};
use bytes::Bytes;
use hyper_util::rt::TokioTimer;
use metrics_exporter_prometheus::PrometheusHandle;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower_http::compression::{
    CompressionLayer, Predicate,
    predicate::{DefaultPredicate, NotForContentType},
};
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{app::App, lifecycle::GRACE};

/// How long a client may take for the head of a request.
const HEAD_WITHIN: Duration = Duration::from_secs(15);

/// What every handler works with.
#[derive(Debug)]
pub(crate) struct Door {
    app: Arc<App>,
    metrics: Metrics,
    limits: rate::Limits,
    /// Followers end when the controller stops.
    stop: CancellationToken,
    /// The OpenAPI document, as JSON.
    document: Bytes,
}

/// Renders the metrics.
struct Metrics(PrometheusHandle);

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Metrics")
    }
}

impl Door {
    pub(crate) fn new(app: Arc<App>, metrics: PrometheusHandle, stop: CancellationToken) -> Arc<Self> {
        let document = routes().split_for_parts().1.to_json().expect("the document is plain data");
        let limits = rate::Limits::new();
        Arc::new(Self { app, metrics: Metrics(metrics), limits, stop, document: document.into() })
    }

    /// Starts what the door does besides answering.
    pub(crate) fn spawn_upkeep(self: &Arc<Self>, tracker: &TaskTracker) {
        tracker.spawn(rate::forget_the_quiet(Arc::clone(self)));
    }
}

/// Everything that answers.
fn routes() -> OpenApiRouter<Arc<Door>> {
    OpenApiRouter::with_openapi(docs::document())
        .routes(routes!(agents::list))
        .routes(routes!(agents::show))
        .routes(routes!(agents::approve))
        .routes(routes!(agents::revoke))
        .routes(routes!(agents::drain))
        .routes(routes!(agents::resume))
        .routes(routes!(agents::runs))
        .routes(routes!(audit::list))
        .routes(routes!(audit::export))
        .routes(routes!(audit::checkpoints))
        .routes(routes!(audit::key))
        .routes(routes!(controllers::list))
        .routes(routes!(controllers::create_join_token))
        .routes(routes!(enroll_tokens::list, enroll_tokens::create))
        .routes(routes!(enroll_tokens::delete))
        .routes(routes!(executions::list, executions::create))
        .routes(routes!(executions::show))
        .routes(routes!(executions::runs))
        .routes(routes!(executions::attempts))
        .routes(routes!(executions::cancel))
        .routes(routes!(output::show))
        .routes(routes!(auth::who_am_i))
        .routes(routes!(status::health))
        .routes(routes!(status::ready))
        .routes(routes!(status::status))
        .routes(routes!(status::version))
        .routes(routes!(status::metrics))
        .routes(routes!(docs::openapi))
        .routes(routes!(docs::page))
        .routes(routes!(docs::index))
        .routes(routes!(docs::file))
}

/// The routes with what happens around each of them, from the inside out.
fn router(door: Arc<Door>) -> Router {
    // A stream must not wait in a compressor's buffer.
    let worth_it = DefaultPredicate::new().and(NotForContentType::const_new("text/plain"));
    let (router, _) = routes().split_for_parts();
    router
        .layer(CompressionLayer::new().compress_when(worth_it))
        .layer(from_fn(headers::secure))
        .layer(from_fn(problem::render))
        .layer(from_fn(observe::count))
        .layer(from_fn(request_id::identify))
        .with_state(door)
}

/// Serves the door on `listener` until [`Door`]'s token stops it, and then lets answers finish for a while.
///
/// # Errors
/// When the listener breaks.
pub(crate) async fn serve(
    door: Arc<Door>,
    listener: std::net::TcpListener,
    tls: Option<RustlsConfig>,
) -> io::Result<()> {
    let handle: Handle<SocketAddr> = Handle::new();
    let stopper = tokio::spawn({
        let (handle, stop) = (handle.clone(), door.stop.clone());
        async move {
            stop.cancelled().await;
            handle.graceful_shutdown(Some(GRACE));
        }
    });
    let service = router(door).into_make_service_with_connect_info::<SocketAddr>();
    let done = match tls {
        None => {
            let mut server = axum_server::from_tcp(listener)?.handle(handle);
            server.http_builder().http1().timer(TokioTimer::new()).header_read_timeout(HEAD_WITHIN);
            server.serve(service).await
        }
        Some(tls) => {
            let mut server = axum_server::from_tcp_rustls(listener, tls)?.handle(handle);
            server.http_builder().http1().timer(TokioTimer::new()).header_read_timeout(HEAD_WITHIN);
            server.serve(service).await
        }
    };
    stopper.abort();
    done
}
