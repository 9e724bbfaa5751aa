//! `/api/v1/organizations`: the tenants of the installation.

use std::sync::Arc;

use axum::{Json, extract::State, http::StatusCode};
use model::api::auth::{CreateOrganization, Organization};

use super::{Door, auth::Access, body::JsonBody, problem::Result};
use crate::{
    app::{
        self,
        access::{OrganizationManage, OrganizationRead},
    },
    store,
};

/// All organizations, by name.
#[utoipa::path(get, path = "/api/v1/organizations", tag = "organizations", operation_id = "list_organizations",
    responses((status = 200, body = Vec<Organization>)))]
pub(super) async fn list(
    _: Access<OrganizationRead>,
    State(door): State<Arc<Door>>,
) -> Result<Json<Vec<Organization>>> {
    Ok(Json(store::organizations::list(door.app.db.worker()).await?))
}

/// Makes an organization, of which the caller is a member and administrator.
#[utoipa::path(post, path = "/api/v1/organizations", tag = "organizations", operation_id = "create_organization",
    request_body = CreateOrganization, responses((status = 201, body = Organization)))]
pub(super) async fn create(
    Access(by): Access<OrganizationManage>,
    State(door): State<Arc<Door>>,
    JsonBody(request): JsonBody<CreateOrganization>,
) -> Result<(StatusCode, Json<Organization>)> {
    Ok((StatusCode::CREATED, Json(app::organizations::create(&door.app, &by, &request).await?)))
}
