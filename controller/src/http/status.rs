//! How the controller fares.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{Json, extract::State, http::header, response::IntoResponse};
use model::api::status::{Part, PartState, Status, Version};
use serde::Serialize;
use utoipa::ToSchema;

use super::{Door, auth::Access, problem::Result, statistics};
use crate::{
    app::{
        access::StatusRead,
        sessions::{PROTOCOL_MAX, PROTOCOL_MIN},
    },
    clock,
    error::Error,
    store,
};

/// How long the database may take to answer that it is there.
const READY_WITHIN: Duration = Duration::from_secs(2);

/// A probe's answer.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Health {
    state: PartState,
}

/// The process answers.
#[utoipa::path(get, path = "/health", tag = "controller", security(()), responses((status = 200, body = Health)))]
pub(super) async fn health() -> Json<Health> {
    Json(Health { state: PartState::Ok })
}

/// The controller can work: its database answers.
#[utoipa::path(get, path = "/ready", tag = "controller", security(()),
    responses((status = 200, body = Health)))]
pub(super) async fn ready(State(door): State<Arc<Door>>) -> Result<Json<Health>> {
    match tokio::time::timeout(READY_WITHIN, door.app.db.ping()).await {
        Ok(answer) => answer?,
        Err(_) => return Err(Error::Database("ping in time", sqlx::Error::PoolTimedOut).into()),
    }
    Ok(Json(Health { state: PartState::Ok }))
}

/// Each part with its state, and what there is to do.
#[utoipa::path(get, path = "/status", tag = "controller", responses((status = 200, body = Status)))]
pub(super) async fn status(_: Access<StatusRead>, State(door): State<Arc<Door>>) -> Result<Json<Status>> {
    let app = &door.app;
    let began = Instant::now();
    app.db.ping().await?;
    let mut parts = vec![Part {
        name: "database".to_owned(),
        state: PartState::Ok,
        latency_ms: began.elapsed().as_secs_f64() * 1e3,
        message: "ok".to_owned(),
    }];
    parts.extend(app.parts.list());
    let (runs_queued, runs_active) = store::status::queued_and_active(app.db.worker()).await?;
    let worst = if parts.iter().all(|part| part.state == PartState::Ok) {
        PartState::Ok
    } else {
        PartState::Degraded
    };
    Ok(Json(Status {
        state: worst,
        parts,
        controller_id: app.info.controller_id.to_string(),
        agents_connected: store::status::sessions_connected(app.db.worker()).await?,
        runs_queued,
        runs_active,
        uptime_seconds: clock::now().duration_since(app.info.started_at).as_secs(),
    }))
}

/// Which program this is, and what it understands.
#[utoipa::path(get, path = "/version", tag = "controller", security(()), responses((status = 200, body = Version)))]
pub(super) async fn version() -> Json<Version> {
    Json(Version {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        schema: store::newest(),
        protocol_min: PROTOCOL_MIN,
        protocol_max: PROTOCOL_MAX,
    })
}

/// Metrics in the text format of Prometheus.
#[utoipa::path(get, path = "/metrics", tag = "controller",
    responses((status = 200, body = String, content_type = "text/plain")))]
pub(super) async fn metrics(
    _: Access<StatusRead>,
    State(door): State<Arc<Door>>,
) -> Result<impl IntoResponse> {
    statistics::measure(&door).await?;
    Ok(([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], door.metrics.0.render()))
}
