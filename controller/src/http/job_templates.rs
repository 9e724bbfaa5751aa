//! `/api/v1/job-templates`

use std::sync::Arc;

use axum::{Json, extract::State, http::StatusCode};
use model::api::{
    Page,
    job_template::{FillJobTemplate, FilledJobTemplate, JobTemplate, JobTemplateSaved, SaveJobTemplate},
};
use serde::Deserialize;
use utoipa::IntoParams;

use super::{Door, auth::Access, body::JsonBody, id::Name, page::Window, problem::Result, query::Query};
use crate::app::{
    self,
    access::{JobManage, JobRead},
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

/// Job templates by name: the organization's own, and those that are part of the program.
#[utoipa::path(get, path = "/api/v1/job-templates", tag = "jobs", operation_id = "list_job_templates", params(List),
    responses((status = 200, body = Page<JobTemplate>)))]
pub(super) async fn list(
    Access(by): Access<JobRead>,
    State(door): State<Arc<Door>>,
    Query(query): Query<List>,
) -> Result<Json<Page<JobTemplate>>> {
    let window = Window::<String>::new("job templates", query.cursor.as_deref(), query.limit)?;
    let rows = app::job_templates::page(&door.app, &by, window.after.as_deref(), window.limit()).await?;
    Ok(Json(window.page(rows, |template| template.name.clone())))
}

/// Saves a new job template.
#[utoipa::path(post, path = "/api/v1/job-templates", tag = "jobs", operation_id = "create_job_template",
    request_body = SaveJobTemplate, responses((status = 201, body = JobTemplateSaved)))]
pub(super) async fn create(
    Access(by): Access<JobManage>,
    State(door): State<Arc<Door>>,
    JsonBody(request): JsonBody<SaveJobTemplate>,
) -> Result<(StatusCode, Json<JobTemplateSaved>)> {
    Ok((StatusCode::CREATED, Json(app::job_templates::save(&door.app, &by, None, &request).await?)))
}

/// One job template with its document and parameters.
#[utoipa::path(get, path = "/api/v1/job-templates/{template}", tag = "jobs", operation_id = "show_job_template",
    params(("template" = String, Path, description = "Name")), responses((status = 200, body = JobTemplate)))]
pub(super) async fn show(
    Access(by): Access<JobRead>,
    State(door): State<Arc<Door>>,
    Name(template): Name,
) -> Result<Json<JobTemplate>> {
    Ok(Json(app::job_templates::show(&door.app, &by, &template).await?))
}

/// Saves all of a job template but its name; of one that is not there, the first version.
#[utoipa::path(put, path = "/api/v1/job-templates/{template}", tag = "jobs", operation_id = "save_job_template",
    params(("template" = String, Path, description = "Name")), request_body = SaveJobTemplate,
    responses((status = 200, body = JobTemplateSaved)))]
pub(super) async fn save(
    Access(by): Access<JobManage>,
    State(door): State<Arc<Door>>,
    Name(template): Name,
    JsonBody(request): JsonBody<SaveJobTemplate>,
) -> Result<Json<JobTemplateSaved>> {
    Ok(Json(app::job_templates::save(&door.app, &by, Some(&template), &request).await?))
}

/// Deletes a job template. Jobs that were made of it do not notice.
#[utoipa::path(delete, path = "/api/v1/job-templates/{template}", tag = "jobs", operation_id = "delete_job_template",
    params(("template" = String, Path, description = "Name")), responses((status = 204)))]
pub(super) async fn delete(
    Access(by): Access<JobManage>,
    State(door): State<Arc<Door>>,
    Name(template): Name,
) -> Result<StatusCode> {
    app::job_templates::delete(&door.app, &by, &template).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Makes a job's document of a job template. Nothing is saved.
#[utoipa::path(post, path = "/api/v1/job-templates/{template}/fill", tag = "jobs", operation_id = "fill_job_template",
    params(("template" = String, Path, description = "Name")), request_body = FillJobTemplate,
    responses((status = 200, body = FilledJobTemplate)))]
pub(super) async fn fill(
    Access(by): Access<JobRead>,
    State(door): State<Arc<Door>>,
    Name(template): Name,
    JsonBody(request): JsonBody<FillJobTemplate>,
) -> Result<Json<FilledJobTemplate>> {
    Ok(Json(app::job_templates::fill(&door.app, &by, &template, &request).await?))
}
