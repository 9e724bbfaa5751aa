//! `/api/v1/tokens` and `/api/v1/service-accounts`

use std::sync::Arc;

use axum::{
    Json,
    extract::State,
    http::{HeaderMap, StatusCode},
};
use model::{
    access::Permission,
    api::{
        Page,
        token::{ApiToken, CreateApiToken, CreateServiceAccount, CreatedApiToken, ServiceAccount},
    },
    id::ApiTokenId,
};
use serde::Deserialize;
use utoipa::IntoParams;

use super::{
    Door,
    auth::Access,
    body::JsonBody,
    executions::no_repetition,
    id::{Id, Name},
    page::Window,
    problem::Result,
    query::Query,
};
use crate::{
    app::{
        self,
        access::{SelfRead, TokenManage, TokenRead},
    },
    clock, store,
};

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct List {
    /// Everybody's of the organization; needs the permission `token.read`. By default one's own.
    all: Option<bool>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
    /// Items of the page: 1 to 1000, 100 by default.
    limit: Option<i64>,
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct ListAccounts {
    /// `next_cursor` of the page before.
    cursor: Option<String>,
    /// Items of the page: 1 to 1000, 100 by default.
    limit: Option<i64>,
}

/// API tokens, the newest first, without their secrets.
#[utoipa::path(get, path = "/api/v1/tokens", tag = "tokens", operation_id = "list_tokens", params(List),
    responses((status = 200, body = Page<ApiToken>)))]
pub(super) async fn list(
    Access(by): Access<SelfRead>,
    State(door): State<Arc<Door>>,
    Query(query): Query<List>,
) -> Result<Json<Page<ApiToken>>> {
    let owner = if query.all.unwrap_or(false) {
        let reads = by.actor().judge(Permission::TokenRead);
        reads.map_err(|why| by.actor().refusal(Permission::TokenRead, why))?;
        None
    } else {
        Some(app::api_tokens::own(&by))
    };
    let window = Window::new("tokens", query.cursor.as_deref(), query.limit)?;
    let pool = door.app.db.of(by.org_id());
    let rows = store::api_tokens::page(&pool, by.org_id(), owner, window.after, window.limit()).await?;
    Ok(Json(window.page(rows, |token| token.id)))
}

/// Makes an API token of one's own, or of a service account (permission `token.manage`). The answer is the only place where
/// its secret is ever shown, so it is not kept for a repetition: an `Idempotency-Key` is refused.
#[utoipa::path(post, path = "/api/v1/tokens", tag = "tokens", operation_id = "create_token",
    request_body = CreateApiToken, responses((status = 201, body = CreatedApiToken)))]
pub(super) async fn create(
    Access(by): Access<SelfRead>,
    State(door): State<Arc<Door>>,
    headers: HeaderMap,
    JsonBody(request): JsonBody<CreateApiToken>,
) -> Result<(StatusCode, Json<CreatedApiToken>)> {
    no_repetition(&headers)?;
    Ok((StatusCode::CREATED, Json(app::api_tokens::create(&door.app, &by, request).await?)))
}

/// Makes an API token worthless: one's own, or with the permission `token.manage` any.
#[utoipa::path(delete, path = "/api/v1/tokens/{id}", tag = "tokens", operation_id = "revoke_token",
    params(("id" = String, Path, format = Uuid)), responses((status = 204)))]
pub(super) async fn revoke(
    Access(by): Access<SelfRead>,
    State(door): State<Arc<Door>>,
    Id(id): Id<ApiTokenId>,
) -> Result<StatusCode> {
    app::api_tokens::revoke(&door.app, &by, id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The accounts of programs, by name.
#[utoipa::path(get, path = "/api/v1/service-accounts", tag = "tokens", operation_id = "list_service_accounts",
    params(ListAccounts), responses((status = 200, body = Page<ServiceAccount>)))]
pub(super) async fn accounts(
    Access(by): Access<TokenRead>,
    State(door): State<Arc<Door>>,
    Query(query): Query<ListAccounts>,
) -> Result<Json<Page<ServiceAccount>>> {
    let window = Window::<String>::new("service accounts", query.cursor.as_deref(), query.limit)?;
    let pool = door.app.db.of(by.org_id());
    let after = window.after.as_deref();
    let rows = store::service_accounts::page(&pool, by.org_id(), after, window.limit(), clock::now()).await?;
    Ok(Json(window.page(rows, |account| account.name.clone())))
}

/// Makes an account of a program, without any role.
#[utoipa::path(post, path = "/api/v1/service-accounts", tag = "tokens", operation_id = "create_service_account",
    request_body = CreateServiceAccount, responses((status = 201, body = ServiceAccount)))]
pub(super) async fn create_account(
    Access(by): Access<TokenManage>,
    State(door): State<Arc<Door>>,
    JsonBody(request): JsonBody<CreateServiceAccount>,
) -> Result<(StatusCode, Json<ServiceAccount>)> {
    let created = app::api_tokens::create_service_account(&door.app, &by, &request).await?;
    Ok((StatusCode::CREATED, Json(created)))
}

/// Deletes an account of a program with its tokens and roles.
#[utoipa::path(delete, path = "/api/v1/service-accounts/{name}", tag = "tokens",
    operation_id = "delete_service_account", params(("name" = String, Path)), responses((status = 204)))]
pub(super) async fn delete_account(
    Access(by): Access<TokenManage>,
    State(door): State<Arc<Door>>,
    Name(name): Name,
) -> Result<StatusCode> {
    app::api_tokens::delete_service_account(&door.app, &by, &name).await?;
    Ok(StatusCode::NO_CONTENT)
}
