//! `/api/v1/scripts`

use std::sync::Arc;

use axum::{Json, extract::State, http::StatusCode, response::IntoResponse};
use model::{
    api::{
        Page,
        script::{SaveScript, SavedScript, ScriptSaved, ScriptValidity, ScriptVersion, ValidateScript},
    },
    command::Script,
    limits,
    script::validate_text,
};
use serde::Deserialize;
use utoipa::IntoParams;

use super::{
    Door,
    auth::Access,
    body::JsonBody,
    id::{Name, Names},
    page::Window,
    problem::Result,
    query::Query,
};
use crate::{
    app::{
        self,
        access::{JobManage, JobRead},
        executions::parse_selector,
    },
    error::{During as _, Error},
    store,
};

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct List {
    /// Only scripts whose labels this predicate holds for.
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

/// Scripts by name.
#[utoipa::path(get, path = "/api/v1/scripts", tag = "scripts", operation_id = "list_scripts", params(List),
    responses((status = 200, body = Page<SavedScript>)))]
pub(super) async fn list(
    Access(by): Access<JobRead>,
    State(door): State<Arc<Door>>,
    Query(query): Query<List>,
) -> Result<Json<Page<SavedScript>>> {
    let window = Window::<String>::new("scripts", query.cursor.as_deref(), query.limit)?;
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
        store::scripts::page(&pool, by.org_id(), &selectors, window.after.as_deref(), window.limit()).await?;
    Ok(Json(window.page(rows, |script| script.name.clone())))
}

/// Saves a new script.
#[utoipa::path(post, path = "/api/v1/scripts", tag = "scripts", operation_id = "create_script",
    request_body = SaveScript, responses((status = 201, body = ScriptSaved)))]
pub(super) async fn create(
    Access(by): Access<JobManage>,
    State(door): State<Arc<Door>>,
    JsonBody(request): JsonBody<SaveScript>,
) -> Result<impl IntoResponse> {
    let saved = app::scripts::save(&door.app, &by, None, &request).await?;
    Ok((StatusCode::CREATED, Json(saved)))
}

/// Saves a version of a script; of one that is not there, the first.
#[utoipa::path(put, path = "/api/v1/scripts/{script}", tag = "scripts", operation_id = "save_script",
    params(("script" = String, Path, description = "Id or name")), request_body = SaveScript,
    responses((status = 200, body = ScriptSaved)))]
pub(super) async fn save(
    Access(by): Access<JobManage>,
    State(door): State<Arc<Door>>,
    Name(script): Name,
    JsonBody(request): JsonBody<SaveScript>,
) -> Result<Json<ScriptSaved>> {
    Ok(Json(app::scripts::save(&door.app, &by, Some(&script), &request).await?))
}

/// Looks at a text without saving it. Programs of the controller read it, so it takes more than to see scripts.
#[utoipa::path(post, path = "/api/v1/scripts/validate", tag = "scripts", operation_id = "validate_text",
    request_body = ValidateScript, responses((status = 200, body = ScriptValidity)))]
pub(super) async fn validate(
    Access(_): Access<JobManage>,
    State(door): State<Arc<Door>>,
    JsonBody(request): JsonBody<ValidateScript>,
) -> Result<Json<ScriptValidity>> {
    let ValidateScript { content, interpreter } = request;
    let script = Script { content, interpreter, args: Vec::new() };
    validate_text(&script)?;
    Ok(Json(app::script_checks::validity(&door.app, "script", script).await?))
}

/// Looks at a script as it is saved.
#[utoipa::path(get, path = "/api/v1/scripts/{script}/validate", tag = "scripts", operation_id = "validate_script",
    params(("script" = String, Path, description = "Id or name")), responses((status = 200, body = ScriptValidity)))]
pub(super) async fn validate_saved(
    Access(by): Access<JobRead>,
    State(door): State<Arc<Door>>,
    Name(script): Name,
) -> Result<Json<ScriptValidity>> {
    let mut connection = door.app.db.of(by.org_id()).acquire().await.during("acquire of a connection")?;
    let saved = app::scripts::find(&mut connection, &by, &script, false).await?;
    drop(connection);
    let program = saved.script.unwrap_or_default().program();
    Ok(Json(app::script_checks::validity(&door.app, &saved.name, program).await?))
}

/// One script with its newest version.
#[utoipa::path(get, path = "/api/v1/scripts/{script}", tag = "scripts", operation_id = "show_script",
    params(("script" = String, Path, description = "Id or name")), responses((status = 200, body = SavedScript)))]
pub(super) async fn show(
    Access(by): Access<JobRead>,
    State(door): State<Arc<Door>>,
    Name(script): Name,
) -> Result<Json<SavedScript>> {
    let mut connection = door.app.db.of(by.org_id()).acquire().await.during("acquire of a connection")?;
    Ok(Json(app::scripts::find(&mut connection, &by, &script, false).await?))
}

/// Deletes a script. Jobs that use it say so at their next start.
#[utoipa::path(delete, path = "/api/v1/scripts/{script}", tag = "scripts", operation_id = "delete_script",
    params(("script" = String, Path, description = "Id or name")), responses((status = 204)))]
pub(super) async fn delete(
    Access(by): Access<JobManage>,
    State(door): State<Arc<Door>>,
    Name(script): Name,
) -> Result<StatusCode> {
    app::scripts::delete(&door.app, &by, &script).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The versions of a script, the newest first.
#[utoipa::path(get, path = "/api/v1/scripts/{script}/versions", tag = "scripts", operation_id = "list_script_versions",
    params(("script" = String, Path, description = "Id or name"), ListVersions),
    responses((status = 200, body = Page<ScriptVersion>)))]
pub(super) async fn versions(
    Access(by): Access<JobRead>,
    State(door): State<Arc<Door>>,
    Name(script): Name,
    Query(query): Query<ListVersions>,
) -> Result<Json<Page<ScriptVersion>>> {
    let window = Window::new("script versions", query.cursor.as_deref(), query.limit)?;
    let pool = door.app.db.of(by.org_id());
    let mut connection = pool.acquire().await.during("acquire of a connection")?;
    let script = app::scripts::find(&mut connection, &by, &script, false).await?;
    drop(connection);
    let rows = store::scripts::versions(&pool, by.org_id(), script.id, window.after, window.limit()).await?;
    Ok(Json(window.page(rows, |version| version.version)))
}

/// One version whole.
#[utoipa::path(get, path = "/api/v1/scripts/{script}/versions/{version}", tag = "scripts",
    operation_id = "show_script_version",
    params(("script" = String, Path, description = "Id or name"), ("version" = i32, Path)),
    responses((status = 200, body = ScriptVersion)))]
pub(super) async fn version(
    Access(by): Access<JobRead>,
    State(door): State<Arc<Door>>,
    Names(script, version): Names,
) -> Result<Json<ScriptVersion>> {
    let mut connection = door.app.db.of(by.org_id()).acquire().await.during("acquire of a connection")?;
    Ok(Json(app::scripts::version(&mut connection, &by, &script, &version).await?))
}
