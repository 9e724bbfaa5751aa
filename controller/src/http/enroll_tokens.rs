//! `/api/v1/enroll-tokens`

use std::sync::Arc;

use axum::{
    Json,
    extract::State,
    http::{HeaderMap, StatusCode},
};
use model::{
    api::{
        Page,
        enroll_token::{CreateEnrollToken, CreatedEnrollToken, EnrollToken},
    },
    id::EnrollTokenId,
};
use serde::Deserialize;
use utoipa::IntoParams;

use super::{
    Door, auth::Access, body::JsonBody, executions::no_repetition, id::Id, page::Window, problem::Result,
    query::Query,
};
use crate::{
    app::{
        self,
        access::{EnrollTokenManage, EnrollTokenRead},
    },
    store,
};

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct List {
    /// `next_cursor` of the page before.
    cursor: Option<String>,
    /// Items of the page: 1 to 1000, 100 by default.
    limit: Option<i64>,
}

/// Enroll tokens, the newest first, without their secrets.
#[utoipa::path(get, path = "/api/v1/enroll-tokens", tag = "enroll-tokens", operation_id = "list_enroll_tokens",
    params(List), responses((status = 200, body = Page<EnrollToken>)))]
pub(super) async fn list(
    Access(by): Access<EnrollTokenRead>,
    State(door): State<Arc<Door>>,
    Query(query): Query<List>,
) -> Result<Json<Page<EnrollToken>>> {
    let window = Window::new("enroll tokens", query.cursor.as_deref(), query.limit)?;
    let pool = door.app.db.of(by.org_id());
    let rows = store::enroll_tokens::page(&pool, by.org_id(), window.after, window.limit()).await?;
    Ok(Json(window.page(rows, |token| token.id)))
}

/// Makes an enroll token. The answer is the only place where its secret is ever shown, so it is not kept for a
/// repetition: an `Idempotency-Key` is refused.
#[utoipa::path(post, path = "/api/v1/enroll-tokens", tag = "enroll-tokens", operation_id = "create_enroll_token",
    request_body = CreateEnrollToken, responses((status = 201, body = CreatedEnrollToken)))]
pub(super) async fn create(
    Access(by): Access<EnrollTokenManage>,
    State(door): State<Arc<Door>>,
    headers: HeaderMap,
    JsonBody(request): JsonBody<CreateEnrollToken>,
) -> Result<(StatusCode, Json<CreatedEnrollToken>)> {
    no_repetition(&headers)?;
    let created = app::enroll_tokens::create(&door.app, &by, request).await?;
    Ok((StatusCode::CREATED, Json(created)))
}

/// Makes an enroll token worthless.
#[utoipa::path(delete, path = "/api/v1/enroll-tokens/{id}", tag = "enroll-tokens",
    operation_id = "delete_enroll_token", params(("id" = String, Path, format = Uuid)), responses((status = 204)))]
pub(super) async fn delete(
    Access(by): Access<EnrollTokenManage>,
    State(door): State<Arc<Door>>,
    Id(id): Id<EnrollTokenId>,
) -> Result<StatusCode> {
    app::enroll_tokens::delete(&door.app, &by, id).await?;
    Ok(StatusCode::NO_CONTENT)
}
