//! `/api/v1/jobs`

use std::sync::Arc;

use axum::{
    Json,
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::IntoResponse,
};
use model::{
    api::{
        Page,
        execution::Execution,
        job::{ExecuteJob, Job, JobPlan, JobVersion, SaveJob, SavedJob, ValidateJob, Validity},
    },
    job, limits,
};
use serde::Deserialize;
use utoipa::IntoParams;

use super::{
    Door,
    auth::Access,
    body::JsonBody,
    executions::idempotency_key,
    id::{Name, Names},
    page::Window,
    problem::{Failure, Result},
    query::Query,
};
use crate::{
    app::{
        self,
        access::{Authorized, JobManage, JobRead},
        executions::parse_selector,
    },
    error::{During as _, Error},
    store,
};

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct List {
    /// Only jobs whose labels this predicate holds for.
    selector: Option<String>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
    /// Items of the page: 1 to 1000, 100 by default.
    limit: Option<i64>,
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct ListVersions {
    /// `next_cursor` of the page before.
    cursor: Option<String>,
    /// Items of the page: 1 to 1000, 100 by default.
    limit: Option<i64>,
}

/// Jobs by name.
#[utoipa::path(get, path = "/api/v1/jobs", tag = "jobs", operation_id = "list_jobs", params(List),
    responses((status = 200, body = Page<Job>)))]
pub(super) async fn list(
    Access(by): Access<JobRead>,
    State(door): State<Arc<Door>>,
    Query(query): Query<List>,
) -> Result<Json<Page<Job>>> {
    let window = Window::<String>::new("jobs", query.cursor.as_deref(), query.limit)?;
    let wanted = match query.selector.as_deref() {
        Some(text) if text.len() > limits::SELECTOR_BYTES => {
            let over = model::Invalid::over("selector", "SELECTOR_BYTES", limits::SELECTOR_BYTES, "bytes");
            return Err(Error::Invalid(over).into());
        }
        text => text.map(|text| parse_selector("selector", text)).transpose()?,
    };
    let seen = by.actor().jobs_seen();
    let selectors: Vec<_> = wanted.iter().chain(&seen).collect();
    let pool = door.app.db.of(by.org_id());
    let rows =
        store::jobs::page(&pool, by.org_id(), &selectors, window.after.as_deref(), window.limit()).await?;
    Ok(Json(window.page(rows, |job| job.name.clone())))
}

/// Saves a new job.
#[utoipa::path(post, path = "/api/v1/jobs", tag = "jobs", operation_id = "create_job", request_body = SaveJob,
    responses((status = 201, body = SavedJob)))]
pub(super) async fn create(
    Access(by): Access<JobManage>,
    State(door): State<Arc<Door>>,
    JsonBody(request): JsonBody<SaveJob>,
) -> Result<impl IntoResponse> {
    let saved = app::jobs::save(&door.app, &by, None, &request).await?;
    Ok((StatusCode::CREATED, Json(saved)))
}

/// Saves a version of a job; of one that is not there, the first.
#[utoipa::path(put, path = "/api/v1/jobs/{job}", tag = "jobs", operation_id = "save_job",
    params(("job" = String, Path, description = "Id or name")), request_body = SaveJob,
    responses((status = 200, body = SavedJob)))]
pub(super) async fn save(
    Access(by): Access<JobManage>,
    State(door): State<Arc<Door>>,
    Name(job): Name,
    JsonBody(request): JsonBody<SaveJob>,
) -> Result<Json<SavedJob>> {
    Ok(Json(app::jobs::save(&door.app, &by, Some(&job), &request).await?))
}

/// Looks at a document without saving it.
#[utoipa::path(post, path = "/api/v1/jobs/validate", tag = "jobs", operation_id = "validate_document",
    request_body = ValidateJob, responses((status = 200, body = Validity)))]
pub(super) async fn validate(
    Access(by): Access<JobRead>,
    State(door): State<Arc<Door>>,
    JsonBody(request): JsonBody<ValidateJob>,
) -> Result<Json<Validity>> {
    validity(&door, &by, &request.document).await
}

/// Looks at a job as it is saved.
#[utoipa::path(get, path = "/api/v1/jobs/{job}/validate", tag = "jobs", operation_id = "validate_job",
    params(("job" = String, Path, description = "Id or name")), responses((status = 200, body = Validity)))]
pub(super) async fn validate_saved(
    Access(by): Access<JobRead>,
    State(door): State<Arc<Door>>,
    Name(job): Name,
) -> Result<Json<Validity>> {
    let mut connection = door.app.db.of(by.org_id()).acquire().await.during("acquire of a connection")?;
    let job = app::jobs::find(&mut connection, &by, &job, false).await?;
    drop(connection);
    validity(&door, &by, job.document.as_deref().unwrap_or_default()).await
}

async fn validity(door: &Door, by: &Authorized<JobRead>, document: &str) -> Result<Json<Validity>> {
    let looked = async {
        let job = app::jobs::parse(document)?;
        let dangers = app::jobs::dangers_of(&door.app, by, &job, document).await?;
        Ok::<_, Error>(Validity { valid: true, name: Some(job.name), dangers, ..Validity::default() })
    };
    match looked.await {
        Err(Error::Document(bad)) => {
            Ok(Json(Validity { valid: false, problems: vec![bad.into()], ..Validity::default() }))
        }
        looked => Ok(Json(looked?)),
    }
}

/// The JSON schema of a job's document.
#[utoipa::path(get, path = "/api/v1/jobs/schema", tag = "jobs", operation_id = "job_schema",
    responses((status = 200, body = serde_json::Value)))]
pub(super) async fn schema(Access(_): Access<JobRead>) -> Json<serde_json::Value> {
    Json(job::schema())
}

/// One job with its newest document.
#[utoipa::path(get, path = "/api/v1/jobs/{job}", tag = "jobs", operation_id = "show_job",
    params(("job" = String, Path, description = "Id or name")), responses((status = 200, body = Job)))]
pub(super) async fn show(
    Access(by): Access<JobRead>,
    State(door): State<Arc<Door>>,
    Name(job): Name,
) -> Result<Json<Job>> {
    let mut connection = door.app.db.of(by.org_id()).acquire().await.during("acquire of a connection")?;
    Ok(Json(app::jobs::find(&mut connection, &by, &job, false).await?))
}

/// Deletes a job. What was started of it goes on.
#[utoipa::path(delete, path = "/api/v1/jobs/{job}", tag = "jobs", operation_id = "delete_job",
    params(("job" = String, Path, description = "Id or name")), responses((status = 204)))]
pub(super) async fn delete(
    Access(by): Access<JobManage>,
    State(door): State<Arc<Door>>,
    Name(job): Name,
) -> Result<StatusCode> {
    app::jobs::delete(&door.app, &by, &job).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The versions of a job, the newest first.
#[utoipa::path(get, path = "/api/v1/jobs/{job}/versions", tag = "jobs", operation_id = "list_job_versions",
    params(("job" = String, Path, description = "Id or name"), ListVersions),
    responses((status = 200, body = Page<JobVersion>)))]
pub(super) async fn versions(
    Access(by): Access<JobRead>,
    State(door): State<Arc<Door>>,
    Name(job): Name,
    Query(query): Query<ListVersions>,
) -> Result<Json<Page<JobVersion>>> {
    let window = Window::new("job versions", query.cursor.as_deref(), query.limit)?;
    let pool = door.app.db.of(by.org_id());
    let mut connection = pool.acquire().await.during("acquire of a connection")?;
    let job = app::jobs::find(&mut connection, &by, &job, false).await?;
    drop(connection);
    let rows = store::jobs::versions(&pool, by.org_id(), job.id, window.after, window.limit()).await?;
    Ok(Json(window.page(rows, |version| version.version)))
}

/// One version with its document.
#[utoipa::path(get, path = "/api/v1/jobs/{job}/versions/{version}", tag = "jobs", operation_id = "show_job_version",
    params(("job" = String, Path, description = "Id or name"), ("version" = i32, Path)),
    responses((status = 200, body = JobVersion)))]
pub(super) async fn version(
    Access(by): Access<JobRead>,
    State(door): State<Arc<Door>>,
    Names(job, version): Names,
) -> Result<Json<JobVersion>> {
    let mut connection = door.app.db.of(by.org_id()).acquire().await.during("acquire of a connection")?;
    let job = app::jobs::find(&mut connection, &by, &job, false).await?;
    let unknown = || Failure::from(Error::not_found("version of the job", version.clone()));
    let number: i32 = version.parse().map_err(|_| unknown())?;
    let saved = store::jobs::version(&mut connection, by.org_id(), job.id, number).await?;
    Ok(Json(saved.ok_or_else(unknown)?.into()))
}

/// What a start would do now.
#[utoipa::path(post, path = "/api/v1/jobs/{job}/plan", tag = "jobs", operation_id = "plan_job",
    params(("job" = String, Path, description = "Id or name")), request_body = ExecuteJob,
    responses((status = 200, body = JobPlan)))]
pub(super) async fn plan(
    Access(by): Access<JobRead>,
    State(door): State<Arc<Door>>,
    Name(job): Name,
    JsonBody(request): JsonBody<ExecuteJob>,
) -> Result<Json<JobPlan>> {
    Ok(Json(app::start::plan(&door.app, &by, &job, &request).await?))
}

/// Starts a job.
#[utoipa::path(post, path = "/api/v1/jobs/{job}/execute", tag = "jobs", operation_id = "execute_job",
    params(("job" = String, Path, description = "Id or name"), ("Idempotency-Key" = Option<String>, Header, description = "A repetition with the same key and body starts nothing and is answered with the first one's execution, for 24 h")),
    request_body = ExecuteJob, responses((status = 201, body = Execution,
        headers(("Location" = String, description = "Path of the execution")))))]
pub(super) async fn execute(
    Access(by): Access<JobRead>,
    State(door): State<Arc<Door>>,
    Name(job): Name,
    headers: HeaderMap,
    JsonBody(request): JsonBody<ExecuteJob>,
) -> Result<impl IntoResponse> {
    let key = idempotency_key(&headers)?;
    let execution = app::start::execute(&door.app, &by, &job, &request, key).await?;
    let location = format!("/api/v1/executions/{}", execution.id);
    Ok((StatusCode::CREATED, [(header::LOCATION, location)], Json(execution)))
}
