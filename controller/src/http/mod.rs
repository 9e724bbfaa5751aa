//! The door for people and their programs: HTTP/1.1 and JSON.
//!
//! [`routes`] is the list of everything that answers, and the OpenAPI document is made from the same list. A handler
//! parses, asks for the [`auth::Access`] that its verb wants, calls `app` (or `store`, for a plain read) and shapes the
//! answer. Without a credential only `/health`, `/ready`, `/version`, `/openapi.json` and `/docs` answer; [`hooks`] have one of
//! their own.

mod agents;
mod approvals;
mod audit;
mod auth;
mod body;
mod calendars;
mod connections;
mod controllers;
mod cookies;
mod cors;
mod credential;
mod denials;
mod docs;
mod enroll_tokens;
mod events;
mod executions;
mod headers;
mod hooks;
mod id;
mod job_templates;
mod jobs;
mod lines;
mod live;
mod observe;
mod oidc;
mod organizations;
mod output;
mod page;
mod problem;
mod query;
mod rate;
mod reports;
mod request_id;
mod results;
mod roles;
mod schedules;
mod scripts;
mod sessions;
mod statistics;
mod status;
mod streams;
mod tail;
mod target_groups;
#[cfg(test)]
mod tests;
pub(crate) mod tls;
mod tokens;
mod undo;
mod users;

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Router,
    http::HeaderValue,
    middleware::{from_fn, from_fn_with_state},
};
use axum_server::{
    Handle, Server,
    tls_rustls::{RustlsAcceptor, RustlsConfig},
};
use bytes::Bytes;
use hyper_util::rt::TokioTimer;
use metrics_exporter_prometheus::PrometheusHandle;
use model::limits;
use tokio::sync::Semaphore;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::ServiceBuilder;
use tower_http::compression::{
    CompressionLayer, Predicate,
    predicate::{DefaultPredicate, NotForContentType},
};
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{app::App, lifecycle::GRACE};

/// How long a client may take for the head of a request.
const HEAD_WITHIN: Duration = Duration::from_secs(15);
/// Header lines, and bytes of a whole head, beyond which a request is not even read: somewhat more than our own limits, so
/// that who is over those is told.
const PARSED_HEADERS: usize = 2 * limits::HTTP_HEADERS;
const READ_BYTES: usize = 2 * (limits::HTTP_URI_BYTES + limits::HTTP_HEADER_BYTES);

/// What every handler works with.
#[derive(Debug)]
pub(crate) struct Door {
    app: Arc<App>,
    metrics: Metrics,
    limits: rate::Limits,
    noted: denials::Noted,
    streams: Arc<streams::Streams>,
    exports: Arc<Semaphore>,
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
        let document = docs::whole().to_json().expect("the document is plain data");
        Arc::new(Self {
            app,
            metrics: Metrics(metrics),
            limits: rate::Limits::new(),
            noted: denials::Noted::default(),
            streams: Arc::default(),
            exports: Arc::new(Semaphore::new(limits::EXPORTS)),
            stop,
            document: document.into(),
        })
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
        .routes(routes!(agents::label))
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
        .routes(routes!(events::list, events::create))
        .routes(routes!(executions::list, executions::create))
        .routes(routes!(executions::show))
        .routes(routes!(executions::runs))
        .routes(routes!(executions::attempts))
        .routes(routes!(executions::cancel))
        .routes(routes!(executions::retry))
        .routes(routes!(undo::list, undo::start))
        .routes(routes!(executions::pause))
        .routes(routes!(executions::resume))
        .routes(routes!(executions::abort))
        .routes(routes!(results::show))
        .routes(routes!(results::groups))
        .routes(routes!(approvals::list))
        .routes(routes!(approvals::of_execution))
        .routes(routes!(approvals::decide))
        .routes(routes!(jobs::list, jobs::create))
        .routes(routes!(jobs::validate))
        .routes(routes!(jobs::schema))
        .routes(routes!(jobs::show, jobs::save, jobs::delete))
        .routes(routes!(jobs::validate_saved))
        .routes(routes!(jobs::versions))
        .routes(routes!(jobs::version))
        .routes(routes!(jobs::plan))
        .routes(routes!(jobs::execute))
        .routes(routes!(job_templates::list, job_templates::create))
        .routes(routes!(job_templates::show, job_templates::save, job_templates::delete))
        .routes(routes!(job_templates::fill))
        .routes(routes!(target_groups::list, target_groups::create))
        .routes(routes!(target_groups::show, target_groups::change, target_groups::delete))
        .routes(routes!(calendars::list, calendars::create))
        .routes(routes!(calendars::show, calendars::change, calendars::delete))
        .routes(routes!(calendars::import))
        .routes(routes!(calendars::at))
        .routes(routes!(schedules::list, schedules::create))
        .routes(routes!(schedules::of_job))
        .routes(routes!(schedules::preview))
        .routes(routes!(schedules::forecast))
        .routes(routes!(schedules::show, schedules::save, schedules::delete))
        .routes(routes!(schedules::new_webhook_secret))
        .routes(routes!(hooks::deliver))
        .routes(routes!(hooks::deliver_with_secret))
        .routes(routes!(schedules::pause))
        .routes(routes!(schedules::resume))
        .routes(routes!(schedules::trigger))
        .routes(routes!(schedules::backfill))
        .routes(routes!(schedules::preview_saved))
        .routes(routes!(schedules::history))
        .routes(routes!(scripts::list, scripts::create))
        .routes(routes!(scripts::validate))
        .routes(routes!(scripts::show, scripts::save, scripts::delete))
        .routes(routes!(scripts::validate_saved))
        .routes(routes!(scripts::versions))
        .routes(routes!(scripts::version))
        .routes(routes!(output::show))
        .routes(routes!(statistics::show))
        .routes(routes!(reports::access))
        .routes(routes!(auth::who_am_i))
        .routes(routes!(auth::can_i))
        .routes(routes!(sessions::set_up))
        .routes(routes!(sessions::login))
        .routes(routes!(sessions::refresh))
        .routes(routes!(oidc::list))
        .routes(routes!(oidc::begin))
        .routes(routes!(oidc::finish))
        .routes(routes!(oidc::redeem))
        .routes(routes!(oidc::link, oidc::unlink))
        .routes(routes!(sessions::logout))
        .routes(routes!(sessions::list))
        .routes(routes!(sessions::end))
        .routes(routes!(sessions::change_password))
        .routes(routes!(sessions::reset_password))
        .routes(routes!(sessions::accept_invitation))
        .routes(routes!(sessions::register))
        .routes(routes!(sessions::start_totp))
        .routes(routes!(sessions::confirm_totp))
        .routes(routes!(sessions::remove_totp))
        .routes(routes!(users::list))
        .routes(routes!(users::show, users::remove))
        .routes(routes!(users::offer_reset))
        .routes(routes!(users::remove_second_factor))
        .routes(routes!(users::unlock))
        .routes(routes!(users::disable))
        .routes(routes!(users::enable))
        .routes(routes!(users::sessions, users::end_sessions))
        .routes(routes!(users::invitations, users::invite))
        .routes(routes!(users::delete_invitation))
        .routes(routes!(roles::list))
        .routes(routes!(roles::put, roles::delete))
        .routes(routes!(roles::bindings, roles::bind))
        .routes(routes!(roles::unbind))
        .routes(routes!(roles::groups, roles::create_group))
        .routes(routes!(roles::delete_group))
        .routes(routes!(roles::add_member, roles::remove_member))
        .routes(routes!(tokens::list, tokens::create))
        .routes(routes!(tokens::revoke))
        .routes(routes!(tokens::accounts, tokens::create_account))
        .routes(routes!(tokens::delete_account))
        .routes(routes!(organizations::list, organizations::create))
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

/// What the configuration says of the door.
#[derive(Debug, Default)]
pub(crate) struct Settings {
    pub(crate) tls: Option<RustlsConfig>,
    /// Exact origins of other sites whose pages may read answers.
    pub(crate) cors_origins: Vec<String>,
}

/// The routes with what happens around each of them, from the outside in.
fn router(door: Arc<Door>, settings: &Settings) -> Router {
    // A stream must not wait in a compressor's buffer.
    let worth_it = DefaultPredicate::new().and(NotForContentType::const_new("text/plain"));
    let (router, _) = routes().split_for_parts();
    let transport = headers::Transport { is_tls: settings.tls.is_some() };
    let origins: cors::Origins =
        settings.cors_origins.iter().filter_map(|origin| HeaderValue::from_str(origin).ok()).collect();
    let around = ServiceBuilder::new()
        .layer(from_fn(request_id::identify))
        .layer(from_fn(observe::count))
        .layer(from_fn_with_state(origins, cors::share))
        .layer(from_fn_with_state(transport, headers::secure))
        .layer(from_fn(problem::render))
        .layer(from_fn_with_state(Arc::clone(&door), denials::note))
        .layer(from_fn(headers::bound))
        .layer(CompressionLayer::new().compress_when(worth_it));
    router.layer(around).with_state(door)
}

/// Serves the door on `listener` until [`Door`]'s token stops it, and then lets answers finish for a while.
///
/// # Errors
/// When the listener breaks.
pub(crate) async fn serve(
    door: Arc<Door>,
    listener: std::net::TcpListener,
    settings: Settings,
) -> io::Result<()> {
    let handle: Handle<SocketAddr> = Handle::new();
    let stopper = tokio::spawn({
        let (handle, stop) = (handle.clone(), door.stop.clone());
        async move {
            stop.cancelled().await;
            handle.graceful_shutdown(Some(GRACE));
        }
    });
    let bounded = connections::Bounded::new(&door.app.info.proxies);
    let service = router(door, &settings).into_make_service_with_connect_info::<SocketAddr>();
    let server = axum_server::from_tcp(listener)?.handle(handle);
    let done = match settings.tls {
        None => http1(server.acceptor(bounded)).serve(service).await,
        Some(tls) => http1(server.acceptor(RustlsAcceptor::new(tls).acceptor(bounded))).serve(service).await,
    };
    stopper.abort();
    done
}

/// HTTP/1.1 alone, with a bound on everything that is read before a handler looks. A connection on which nothing comes is
/// closed as well: without HTTP/2 there is no preface to wait for.
fn http1<A>(server: Server<SocketAddr, A>) -> Server<SocketAddr, A> {
    let mut server = server.http1_only();
    server
        .http_builder()
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_WITHIN)
        .max_headers(PARSED_HEADERS)
        .max_buf_size(READ_BYTES);
    server
}
