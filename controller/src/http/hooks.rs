//! `/api/v1/hooks/{schedule}`: where other programs deliver what starts a schedule. Their secret is the credential.

use std::{collections::BTreeMap, sync::Arc};

use axum::{
    Json,
    body::Body,
    extract::{Path, State},
    http::{HeaderMap, StatusCode, Uri},
    response::IntoResponse,
};
use model::{api::schedule::Delivered, id::ScheduleId, limits};

use super::{
    Door,
    auth::Unknown,
    body,
    id::Id,
    problem::{Failure, Result},
};
use crate::app::webhooks::{self, Delivery};

/// A delivery. The sender shows that it knows the secret of the webhook: with `Authorization: Bearer`, or with the signature or the
/// header that the schedule names. What came under the same name before starts nothing, and is answered with what became of it.
#[utoipa::path(post, path = "/api/v1/hooks/{schedule}", tag = "webhooks", operation_id = "deliver", security(()),
    params(("schedule" = ScheduleId, Path)),
    request_body(content = String, description = "JSON, form fields or text", content_type = "*/*"),
    responses((status = 202, body = Delivered), (status = 200, body = Delivered, description = "It came before, or starts nothing")))]
pub(super) async fn deliver(
    unknown: Unknown,
    State(door): State<Arc<Door>>,
    Id(schedule): Id<ScheduleId>,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Result<impl IntoResponse> {
    taken(&door, &unknown, schedule, None, (&uri, &headers), body).await
}

/// The same for senders that know nothing but an address: the secret is its end. It may then stand in the logs of what is between.
#[utoipa::path(post, path = "/api/v1/hooks/{schedule}/{secret}", tag = "webhooks", operation_id = "deliver_with_secret", security(()),
    params(("schedule" = ScheduleId, Path), ("secret" = String, Path)),
    request_body(content = String, description = "JSON, form fields or text", content_type = "*/*"),
    responses((status = 202, body = Delivered), (status = 200, body = Delivered, description = "It came before, or starts nothing")))]
pub(super) async fn deliver_with_secret(
    unknown: Unknown,
    State(door): State<Arc<Door>>,
    Path((schedule, secret)): Path<(String, String)>,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Result<impl IntoResponse> {
    let schedule =
        schedule.parse().map_err(|error| Failure::invalid("schedule", format!("is wrong: {error}")))?;
    taken(&door, &unknown, schedule, Some(secret), (&uri, &headers), body).await
}

/// A path as it may be logged.
pub(super) fn without_secret(path: &str) -> &str {
    let Some(rest) = path.strip_prefix("/api/v1/hooks/") else { return path };
    let end = rest.find('/').map_or(path.len(), |at| path.len() - rest.len() + at);
    &path[..end]
}

async fn taken(
    door: &Door,
    unknown: &Unknown,
    schedule: ScheduleId,
    secret: Option<String>,
    (uri, headers): (&Uri, &HeaderMap),
    body: Body,
) -> Result<(StatusCode, Json<Delivered>)> {
    let body = body::whole(body, ("WEBHOOK_BODY_BYTES", limits::WEBHOOK_BODY_BYTES)).await?;
    let mut texts = BTreeMap::new();
    for (name, value) in headers {
        // Of several of a name the first counts: a signature that follows another one proves nothing.
        if let Ok(text) = value.to_str() {
            texts.entry(name.as_str().to_owned()).or_insert_with(|| text.to_owned());
        }
    }
    let query = form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes());
    let delivery = Delivery {
        secret,
        headers: texts,
        query: query.map(|(name, value)| (name.into_owned(), value.into_owned())).collect(),
        body,
        address: unknown.origin.address,
    };
    let proven =
        webhooks::prove(&door.app, schedule, delivery).await.map_err(|error| unknown.refused(door, error))?;
    door.limits.delivery(proven.schedule().0)?;
    let done = webhooks::take(&door.app, proven).await?;
    let is_to_start = !done.repeated && done.cause.is_none();
    Ok((if is_to_start { StatusCode::ACCEPTED } else { StatusCode::OK }, Json(done)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_log_gets_a_secret() {
        for (path, logged) in [
            ("/api/v1/hooks/1/och1_x", "/api/v1/hooks/1"),
            ("/api/v1/hooks/1/och1_x/more", "/api/v1/hooks/1"),
            ("/api/v1/hooks/1", "/api/v1/hooks/1"),
            ("/api/v1/jobs/1/2", "/api/v1/jobs/1/2"),
        ] {
            assert_eq!(without_secret(path), logged);
        }
    }
}
