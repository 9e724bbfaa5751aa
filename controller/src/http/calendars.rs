//! `/api/v1/calendars`

use std::sync::Arc;

use axum::{Json, extract::State, http::StatusCode};
use jiff::Timestamp;
use model::api::{
    Page,
    calendar::{
        Calendar, CalendarAt, CalendarSummary, ChangeCalendar, CreateCalendar, ImportCalendar,
        ImportedCalendar,
    },
};
use serde::Deserialize;
use utoipa::IntoParams;

use super::{Door, auth::Access, body::JsonBody, id::Name, page::Window, problem::Result, query::Query};
use crate::{
    app::{
        self,
        access::{CalendarManage, ScheduleRead},
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

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct At {
    /// When; now by default.
    #[param(value_type = Option<String>, format = DateTime)]
    time: Option<Timestamp>,
}

/// Calendars by name, without their entries: the organization's own and those that all share.
#[utoipa::path(get, path = "/api/v1/calendars", tag = "schedules", operation_id = "list_calendars", params(List),
    responses((status = 200, body = Page<CalendarSummary>)))]
pub(super) async fn list(
    Access(by): Access<ScheduleRead>,
    State(door): State<Arc<Door>>,
    Query(query): Query<List>,
) -> Result<Json<Page<CalendarSummary>>> {
    let window = Window::<(String, bool)>::new("calendars", query.cursor.as_deref(), query.limit)?;
    let pool = door.app.db.of(by.org_id());
    let rows = store::calendars::page(&pool, by.org_id(), window.after.as_ref(), window.limit()).await?;
    Ok(Json(window.page(rows, |calendar| (calendar.name.clone(), calendar.shared))))
}

/// Makes a calendar.
#[utoipa::path(post, path = "/api/v1/calendars", tag = "schedules", operation_id = "create_calendar",
    request_body = CreateCalendar, responses((status = 201, body = Calendar)))]
pub(super) async fn create(
    Access(by): Access<CalendarManage>,
    State(door): State<Arc<Door>>,
    JsonBody(request): JsonBody<CreateCalendar>,
) -> Result<(StatusCode, Json<Calendar>)> {
    Ok((StatusCode::CREATED, Json(app::calendars::create(&door.app, &by, &request).await?)))
}

/// One calendar with its entries.
#[utoipa::path(get, path = "/api/v1/calendars/{calendar}", tag = "schedules", operation_id = "show_calendar",
    params(("calendar" = String, Path, description = "Id or name")), responses((status = 200, body = Calendar)))]
pub(super) async fn show(
    Access(by): Access<ScheduleRead>,
    State(door): State<Arc<Door>>,
    Name(calendar): Name,
) -> Result<Json<Calendar>> {
    Ok(Json(app::calendars::show(&door.app, &by, &calendar).await?))
}

/// Changes all of a calendar but its name. Schedules heed it from their next firing on.
#[utoipa::path(put, path = "/api/v1/calendars/{calendar}", tag = "schedules", operation_id = "change_calendar",
    params(("calendar" = String, Path, description = "Id or name")), request_body = ChangeCalendar,
    responses((status = 200, body = Calendar)))]
pub(super) async fn change(
    Access(by): Access<CalendarManage>,
    State(door): State<Arc<Door>>,
    Name(calendar): Name,
    JsonBody(request): JsonBody<ChangeCalendar>,
) -> Result<Json<Calendar>> {
    Ok(Json(app::calendars::change(&door.app, &by, &calendar, &request).await?))
}

/// Deletes a calendar that no schedule names.
#[utoipa::path(delete, path = "/api/v1/calendars/{calendar}", tag = "schedules", operation_id = "delete_calendar",
    params(("calendar" = String, Path, description = "Id or name")), responses((status = 204)))]
pub(super) async fn delete(
    Access(by): Access<CalendarManage>,
    State(door): State<Arc<Door>>,
    Name(calendar): Name,
) -> Result<StatusCode> {
    app::calendars::delete(&door.app, &by, &calendar).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Fills a calendar from an iCalendar text, and says what could not be carried over.
#[utoipa::path(post, path = "/api/v1/calendars/{calendar}/import", tag = "schedules", operation_id = "import_calendar",
    params(("calendar" = String, Path, description = "Id or name")), request_body = ImportCalendar,
    responses((status = 200, body = ImportedCalendar)))]
pub(super) async fn import(
    Access(by): Access<CalendarManage>,
    State(door): State<Arc<Door>>,
    Name(calendar): Name,
    JsonBody(request): JsonBody<ImportCalendar>,
) -> Result<Json<ImportedCalendar>> {
    Ok(Json(app::calendars::import(&door.app, &by, &calendar, &request).await?))
}

/// What a calendar says of a time.
#[utoipa::path(get, path = "/api/v1/calendars/{calendar}/at", tag = "schedules", operation_id = "ask_calendar",
    params(("calendar" = String, Path, description = "Id or name"), At), responses((status = 200, body = CalendarAt)))]
pub(super) async fn at(
    Access(by): Access<ScheduleRead>,
    State(door): State<Arc<Door>>,
    Name(calendar): Name,
    Query(query): Query<At>,
) -> Result<Json<CalendarAt>> {
    Ok(Json(app::calendars::at(&door.app, &by, &calendar, query.time).await?))
}
