//! `/api/v1/schedules`

use std::sync::Arc;

use axum::{
    Json,
    extract::State,
    http::{HeaderMap, StatusCode},
    response::IntoResponse,
};
use jiff::Timestamp;
use model::{
    api::{
        Page,
        execution::Execution,
        schedule::{
            Backfill, Backfilled, Forecast, Occurrence, OccurrenceState, PauseSchedule, Preview,
            PreviewSchedule, SaveSchedule, Schedule, WebhookSecret,
        },
    },
    id::{JobId, OccurrenceId},
};
use serde::Deserialize;
use utoipa::IntoParams;

use super::{
    Door,
    auth::Access,
    body::JsonBody,
    executions::{idempotency_key, no_repetition},
    id::{Id, Name},
    page::Window,
    problem::Result,
    query::Query,
};
use crate::{
    app::{
        self,
        access::{Authorized, ScheduleManage, ScheduleRead},
    },
    error::During as _,
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
pub(super) struct History {
    /// Only those that came to this.
    state: Option<OccurrenceState>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
    /// Items of the page: 1 to 1000, 100 by default.
    limit: Option<i64>,
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct Ahead {
    /// How far to look: 1 to 744 hours, 24 by default.
    hours: Option<i64>,
    /// Only what would start on the host of this name.
    target: Option<String>,
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct Count {
    /// How many firings: 1 to 1000, 10 by default.
    count: Option<i64>,
}

/// Schedules by name.
#[utoipa::path(get, path = "/api/v1/schedules", tag = "schedules", operation_id = "list_schedules", params(List),
    responses((status = 200, body = Page<Schedule>)))]
pub(super) async fn list(
    Access(by): Access<ScheduleRead>,
    State(door): State<Arc<Door>>,
    Query(query): Query<List>,
) -> Result<Json<Page<Schedule>>> {
    page(&door, &by, None, &query).await
}

/// The schedules of a job, by name.
#[utoipa::path(get, path = "/api/v1/schedules/job/{job}", tag = "schedules", operation_id = "list_schedules_of_job",
    params(("job" = JobId, Path), List), responses((status = 200, body = Page<Schedule>)))]
pub(super) async fn of_job(
    Access(by): Access<ScheduleRead>,
    State(door): State<Arc<Door>>,
    Id(job): Id<JobId>,
    Query(query): Query<List>,
) -> Result<Json<Page<Schedule>>> {
    page(&door, &by, Some(job), &query).await
}

async fn page(
    door: &Door,
    by: &Authorized<ScheduleRead>,
    job: Option<JobId>,
    query: &List,
) -> Result<Json<Page<Schedule>>> {
    let window = Window::<String>::new("schedules", query.cursor.as_deref(), query.limit)?;
    let seen = by.actor().jobs_with(model::access::Permission::ScheduleRead);
    let seen: Vec<_> = seen.iter().collect();
    let (pool, org) = (door.app.db.of(by.org_id()), by.org_id());
    let rows =
        store::schedules::page(&pool, org, job, &seen, window.after.as_deref(), window.limit()).await?;
    Ok(Json(window.page(rows, |schedule| schedule.schedule.name.clone())))
}

/// Saves a new schedule.
#[utoipa::path(post, path = "/api/v1/schedules", tag = "schedules", operation_id = "create_schedule",
    request_body = SaveSchedule, responses((status = 201, body = Schedule)))]
pub(super) async fn create(
    Access(by): Access<ScheduleManage>,
    State(door): State<Arc<Door>>,
    JsonBody(request): JsonBody<SaveSchedule>,
) -> Result<impl IntoResponse> {
    let saved = app::schedules::save(&door.app, &by, None, &request).await?;
    Ok((StatusCode::CREATED, Json(saved)))
}

/// One schedule.
#[utoipa::path(get, path = "/api/v1/schedules/{schedule}", tag = "schedules", operation_id = "show_schedule",
    params(("schedule" = String, Path, description = "Id or name")), responses((status = 200, body = Schedule)))]
pub(super) async fn show(
    Access(by): Access<ScheduleRead>,
    State(door): State<Arc<Door>>,
    Name(schedule): Name,
) -> Result<Json<Schedule>> {
    let mut connection = door.app.db.of(by.org_id()).acquire().await.during("acquire of a connection")?;
    Ok(Json(app::schedules::find(&mut connection, &by, &schedule).await?))
}

/// Saves all of a schedule anew. From then on it acts as who does that.
#[utoipa::path(put, path = "/api/v1/schedules/{schedule}", tag = "schedules", operation_id = "save_schedule",
    params(("schedule" = String, Path, description = "Id or name")), request_body = SaveSchedule,
    responses((status = 200, body = Schedule)))]
pub(super) async fn save(
    Access(by): Access<ScheduleManage>,
    State(door): State<Arc<Door>>,
    Name(schedule): Name,
    JsonBody(request): JsonBody<SaveSchedule>,
) -> Result<Json<Schedule>> {
    Ok(Json(app::schedules::save(&door.app, &by, Some(&schedule), &request).await?))
}

/// Deletes a schedule. What it has started goes on.
#[utoipa::path(delete, path = "/api/v1/schedules/{schedule}", tag = "schedules", operation_id = "delete_schedule",
    params(("schedule" = String, Path, description = "Id or name")), responses((status = 204)))]
pub(super) async fn delete(
    Access(by): Access<ScheduleManage>,
    State(door): State<Arc<Door>>,
    Name(schedule): Name,
) -> Result<StatusCode> {
    app::schedules::delete(&door.app, &by, &schedule).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Pauses a schedule: its firings are skipped until somebody resumes it.
#[utoipa::path(post, path = "/api/v1/schedules/{schedule}/pause", tag = "schedules", operation_id = "pause_schedule",
    params(("schedule" = String, Path, description = "Id or name")), request_body = PauseSchedule,
    responses((status = 200, body = Schedule)))]
pub(super) async fn pause(
    Access(by): Access<ScheduleManage>,
    State(door): State<Arc<Door>>,
    Name(schedule): Name,
    JsonBody(request): JsonBody<PauseSchedule>,
) -> Result<Json<Schedule>> {
    Ok(Json(app::schedules::pause(&door.app, &by, &schedule, &request).await?))
}

/// Lets a paused schedule go on.
#[utoipa::path(post, path = "/api/v1/schedules/{schedule}/resume", tag = "schedules", operation_id = "resume_schedule",
    params(("schedule" = String, Path, description = "Id or name")), responses((status = 200, body = Schedule)))]
pub(super) async fn resume(
    Access(by): Access<ScheduleManage>,
    State(door): State<Arc<Door>>,
    Name(schedule): Name,
) -> Result<Json<Schedule>> {
    Ok(Json(app::schedules::resume(&door.app, &by, &schedule).await?))
}

/// Starts the job of a schedule now, as who asks.
#[utoipa::path(post, path = "/api/v1/schedules/{schedule}/trigger", tag = "schedules", operation_id = "trigger_schedule",
    params(("schedule" = String, Path, description = "Id or name"), ("Idempotency-Key" = Option<String>, Header, description = "A repetition with the same key starts nothing and is answered with the first one's execution, for 24 h")),
    responses((status = 201, body = Execution)))]
pub(super) async fn trigger(
    Access(by): Access<ScheduleManage>,
    State(door): State<Arc<Door>>,
    Name(schedule): Name,
    headers: HeaderMap,
) -> Result<impl IntoResponse> {
    let key = idempotency_key(&headers)?;
    let execution = app::schedules::trigger(&door.app, &by, &schedule, key).await?;
    Ok((StatusCode::CREATED, Json(execution)))
}

/// Gives a schedule's webhook a new secret; the one before is worth nothing from then on. The answer is the only place where it is
/// ever shown, so it is not kept for a repetition: an `Idempotency-Key` is refused.
#[utoipa::path(post, path = "/api/v1/schedules/{schedule}/webhook-secret", tag = "schedules", operation_id = "new_webhook_secret",
    params(("schedule" = String, Path, description = "Id or name")), responses((status = 201, body = WebhookSecret)))]
pub(super) async fn new_webhook_secret(
    Access(by): Access<ScheduleManage>,
    State(door): State<Arc<Door>>,
    Name(schedule): Name,
    headers: HeaderMap,
) -> Result<impl IntoResponse> {
    no_repetition(&headers)?;
    let secret = app::webhooks::new_secret(&door.app, &by, &schedule).await?;
    Ok((StatusCode::CREATED, Json(secret)))
}

/// Has the job started for the planned times of a time that is over.
#[utoipa::path(post, path = "/api/v1/schedules/{schedule}/backfill", tag = "schedules", operation_id = "backfill_schedule",
    params(("schedule" = String, Path, description = "Id or name")), request_body = Backfill,
    responses((status = 200, body = Backfilled)))]
pub(super) async fn backfill(
    Access(by): Access<ScheduleManage>,
    State(door): State<Arc<Door>>,
    Name(schedule): Name,
    JsonBody(request): JsonBody<Backfill>,
) -> Result<Json<Backfilled>> {
    Ok(Json(app::schedules::backfill(&door.app, &by, &schedule, &request).await?))
}

/// What will fire in the hours to come, the next one first; at most 1000 firings.
#[utoipa::path(get, path = "/api/v1/schedules/forecast", tag = "schedules", operation_id = "forecast_schedules",
    params(Ahead), responses((status = 200, body = Forecast)))]
pub(super) async fn forecast(
    Access(by): Access<ScheduleRead>,
    State(door): State<Arc<Door>>,
    Query(query): Query<Ahead>,
) -> Result<Json<Forecast>> {
    Ok(Json(app::forecast::forecast(&door.app, &by, query.hours, query.target.as_deref()).await?))
}

/// The firings to come.
#[utoipa::path(get, path = "/api/v1/schedules/{schedule}/preview", tag = "schedules", operation_id = "preview_schedule",
    params(("schedule" = String, Path, description = "Id or name"), Count),
    responses((status = 200, body = Preview)))]
pub(super) async fn preview_saved(
    Access(by): Access<ScheduleRead>,
    State(door): State<Arc<Door>>,
    Name(schedule): Name,
    Query(query): Query<Count>,
) -> Result<Json<Preview>> {
    Ok(Json(app::schedules::preview_saved(&door.app, &by, &schedule, query.count).await?))
}

/// The firings of a schedule that is only looked at.
#[utoipa::path(post, path = "/api/v1/schedules/preview", tag = "schedules", operation_id = "preview_unsaved_schedule",
    request_body = PreviewSchedule, responses((status = 200, body = Preview)))]
pub(super) async fn preview(
    Access(by): Access<ScheduleRead>,
    State(door): State<Arc<Door>>,
    JsonBody(request): JsonBody<PreviewSchedule>,
) -> Result<Json<Preview>> {
    Ok(Json(app::schedules::preview(&door.app, &by, &request).await?))
}

/// What became of the firings of a schedule, the newest first.
#[utoipa::path(get, path = "/api/v1/schedules/{schedule}/history", tag = "schedules", operation_id = "list_occurrences",
    params(("schedule" = String, Path, description = "Id or name"), History),
    responses((status = 200, body = Page<Occurrence>)))]
pub(super) async fn history(
    Access(by): Access<ScheduleRead>,
    State(door): State<Arc<Door>>,
    Name(schedule): Name,
    Query(query): Query<History>,
) -> Result<Json<Page<Occurrence>>> {
    let window =
        Window::<(Timestamp, OccurrenceId)>::new("occurrences", query.cursor.as_deref(), query.limit)?;
    let (app, limit) = (&door.app, window.limit());
    let rows = app::schedules::history(app, &by, &schedule, query.state, window.after, limit).await?;
    Ok(Json(window.page(rows, |occurrence| (occurrence.due, occurrence.id))))
}
