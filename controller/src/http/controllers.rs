//! `/api/v1/controllers`

use std::sync::Arc;

use axum::{
    Json,
    extract::State,
    http::{HeaderMap, StatusCode},
};
use model::api::controller::{Controllers, CreatedJoinToken};

use super::{Door, auth::Access, executions::no_repetition, problem::Result};
use crate::{
    app::{
        access::{ControllerJoin, ControllerRead},
        joining,
    },
    store,
};

/// The controllers of this installation, also those that have ended.
#[utoipa::path(get, path = "/api/v1/controllers", tag = "controllers", operation_id = "list_controllers",
    responses((status = 200, body = Controllers)))]
pub(super) async fn list(
    _: Access<ControllerRead>,
    State(door): State<Arc<Door>>,
) -> Result<Json<Controllers>> {
    let items = store::controllers::list(door.app.db.worker()).await?;
    Ok(Json(Controllers { items }))
}

/// Makes a token with which one further controller gets the keys of this installation, within 15 minutes. The answer is
/// the only place where it is ever shown, so it is not kept for a repetition: an `Idempotency-Key` is refused.
#[utoipa::path(post, path = "/api/v1/controllers/join-tokens", tag = "controllers",
    operation_id = "create_join_token", responses((status = 201, body = CreatedJoinToken)))]
pub(super) async fn create_join_token(
    Access(by): Access<ControllerJoin>,
    State(door): State<Arc<Door>>,
    headers: HeaderMap,
) -> Result<(StatusCode, Json<CreatedJoinToken>)> {
    no_repetition(&headers)?;
    Ok((StatusCode::CREATED, Json(joining::create_token(&door.app, &by).await?)))
}
