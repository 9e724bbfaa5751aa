//! `/api/v1/events`: what happened, as pages or as a stream, and events of people's own programs.

use std::{convert::Infallible, sync::Arc};

use axum::{
    Json,
    extract::State,
    http::{HeaderMap, StatusCode},
    response::{
        IntoResponse, Response,
        sse::{Event as SseEvent, KeepAlive, Sse},
    },
};
use futures_util::{StreamExt as _, stream};
use jiff::Timestamp;
use model::{
    api::event::{CreateEvent, Event, EventPage},
    id::OrgId,
    limits,
};
use serde::Deserialize;
use utoipa::IntoParams;
use uuid::Uuid;

use super::{
    Door,
    auth::Access,
    body::JsonBody,
    credential::{Credential, Lasting},
    executions::idempotency_key,
    live,
    page::{self, Window},
    problem::{Failure, Result},
    query::{Query, time},
};
use crate::{
    app::{
        self,
        access::{EventCreate, EventRead},
    },
    store::{
        self,
        events::{Complete, Filter, Kind, Position},
    },
};

/// Events of one look of a follower.
const EVENTS: i64 = 256;

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct List {
    /// Only events of this kind, or of all that begin so: `agent.revoke`, `agent.*`.
    kind: Option<String>,
    /// Only events of this object, as `agent/ID`.
    object: Option<String>,
    /// Only events from then on.
    #[param(value_type = Option<String>, format = DateTime)]
    since: Option<Timestamp>,
    /// Only events before then.
    #[param(value_type = Option<String>, format = DateTime)]
    until: Option<Timestamp>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
    /// The oldest first, from behind this `next_after` or id of a streamed event; `0` is the beginning.
    after: Option<String>,
    /// Items of the page: 1 to 1000, 100 by default.
    limit: Option<i64>,
    /// A stream (`text/event-stream`) of what is told from now on (and at times of what just was), or from behind `after`
    /// or `Last-Event-ID`.
    follow: Option<bool>,
}

/// Events, the newest first; with `after` or `follow` the oldest first.
///
/// Streamed events are called `event`; their id is handed back as `after`, or by the browser as `Last-Event-ID`. Whoever
/// does that misses nothing and gets nothing twice.
#[utoipa::path(get, path = "/api/v1/events", tag = "events", operation_id = "list_events", params(List,
        ("Last-Event-ID" = Option<String>, Header, description = "Id of the last streamed event that arrived")),
    responses((status = 200, content((EventPage = "application/json"), (String = "text/event-stream")))))]
pub(super) async fn list(
    Lasting(by, credential): Lasting<EventRead>,
    State(door): State<Arc<Door>>,
    Query(query): Query<List>,
    headers: HeaderMap,
) -> Result<Response> {
    let filter = Filter {
        kind: query.kind.as_deref().map(kind).transpose()?,
        object: query.object,
        since: time("since", query.since)?,
        until: time("until", query.until)?,
    };
    let org = by.org_id();
    let pool = door.app.db.of(org);
    let last = headers.get("last-event-id").map(|value| value.to_str().unwrap_or_default());
    let after = match (last, query.after.as_deref()) {
        (Some(text), _) => Some(position("Last-Event-ID", text)?),
        (None, Some(text)) => Some(position("after", text)?),
        (None, None) => None,
    };
    if after.is_some() && query.cursor.is_some() {
        return Err(Failure::invalid(
            "cursor",
            "goes to older events, after to newer ones: one of both is too much",
        ));
    }
    if query.follow.unwrap_or(false) {
        let after = match after {
            Some(after) => after,
            None => store::events::now(&pool).await?,
        };
        let credential = credential.holding(door.streams.enter(by.actor())?);
        let followed = Followed { door, credential, org, filter, after, is_over: false };
        return Ok(stream(followed, by.request_id().to_owned()));
    }
    if let Some(after) = after {
        let (rows, next) = store::events::following(
            &pool,
            org,
            &filter,
            (after, Complete::OrByAge),
            page::size(query.limit)?,
        )
        .await?;
        let items = rows.into_iter().map(|(_, event)| event).collect();
        let page = EventPage { items, next_cursor: None, next_after: next.to_string() };
        return Ok(Json(page).into_response());
    }
    let window = Window::<(Timestamp, Uuid)>::new("events", query.cursor.as_deref(), query.limit)?;
    // Before the page: what is written between the two comes again, rather than never.
    let next_after = store::events::now(&pool).await?.to_string();
    let rows = store::events::page(&pool, org, &filter, window.after, window.limit()).await?;
    let page = window.page(rows, |event: &Event| (event.time, event.id));
    Ok(Json(EventPage { items: page.items, next_cursor: page.next_cursor, next_after }).into_response())
}

/// Adds an event of your own. Its kind begins with `custom.`: all others are the controller's word.
#[utoipa::path(post, path = "/api/v1/events", tag = "events", operation_id = "create_event",
    params(("Idempotency-Key" = Option<String>, Header, description = "A repetition with the same key and body adds nothing and is answered with the first one's event, for 24 h")),
    request_body = CreateEvent, responses((status = 201, body = Event)))]
pub(super) async fn create(
    Access(by): Access<EventCreate>,
    State(door): State<Arc<Door>>,
    headers: HeaderMap,
    JsonBody(request): JsonBody<CreateEvent>,
) -> Result<(StatusCode, Json<Event>)> {
    let event = app::events::create(&door.app, &by, request, idempotency_key(&headers)?).await?;
    Ok((StatusCode::CREATED, Json(event)))
}

fn kind(text: &str) -> Result<Kind> {
    let (name, kind) = match text.strip_suffix('*') {
        Some(start) => (start.strip_suffix('.').unwrap_or("*"), Kind::BeginsWith(start.to_owned())),
        None => (text, Kind::Is(text.to_owned())),
    };
    let is_name = !name.is_empty()
        && name.len() <= limits::EVENT_KIND_CHARS
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b));
    if is_name {
        Ok(kind)
    } else {
        Err(Failure::invalid("kind", "must be a kind, as agent.revoke, or the beginning of some, as agent.*"))
    }
}

fn position(field: &'static str, text: &str) -> Result<Position> {
    if text == "0" {
        return Ok(Position { tx: 0, id: Uuid::nil() });
    }
    text.parse().map_err(|()| Failure::invalid(field, "is not a next_after or the id of a streamed event"))
}

/// Events as they are told.
struct Followed {
    door: Arc<Door>,
    credential: Credential,
    org: OrgId,
    filter: Filter,
    after: Position,
    is_over: bool,
}

impl Followed {
    /// The next ones; `None` when the controller stops.
    async fn next(&mut self) -> Result<Option<Vec<(Position, Event)>>> {
        let pool = self.door.app.db.of(self.org);
        loop {
            self.credential.still_counts().await?;
            let (rows, next) = store::events::following(
                &pool,
                self.org,
                &self.filter,
                (self.after, Complete::OrByAge),
                EVENTS,
            )
            .await?;
            self.after = next;
            if !rows.is_empty() {
                return Ok(Some(rows));
            }
            if self.door.stop.run_until_cancelled(tokio::time::sleep(live::LOOK_EVERY)).await.is_none() {
                return Ok(None);
            }
        }
    }
}

fn stream(followed: Followed, request_id: String) -> Response {
    let begin = SseEvent::default().id(followed.after.to_string());
    let steps = stream::unfold(followed, |mut followed| async move {
        if followed.is_over {
            return None;
        }
        let step = followed.next().await.transpose()?;
        followed.is_over = step.is_err();
        Some((step, followed))
    });
    let events = steps.flat_map(move |step| {
        let events = match step {
            Ok(rows) => rows
                .iter()
                .map(|(position, event)| live::event("event", event).id(position.to_string()))
                .collect(),
            Err(failure) => {
                failure.log();
                vec![live::event("error", &failure.problem(&request_id))]
            }
        };
        stream::iter(events.into_iter().map(Ok::<_, Infallible>))
    });
    // Whoever is cut off before the first event comes back to this place.
    let events = stream::once(async move { Ok(begin) }).chain(events);
    let alive = KeepAlive::new().interval(live::KEEP_ALIVE).text("alive");
    ([("x-accel-buffering", "no")], Sse::new(events).keep_alive(alive)).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_is_whole_or_a_beginning() {
        assert!(matches!(kind("agent.revoke"), Ok(Kind::Is(kind)) if kind == "agent.revoke"));
        assert!(matches!(kind("agent.*"), Ok(Kind::BeginsWith(start)) if start == "agent."));
        for text in ["", "*", ".*", "agent*", "a.*.b", "Agent", "a b", "a\0"] {
            let problem = kind(text).expect_err(text).problem("r1");
            assert_eq!(problem.field.as_deref(), Some("kind"), "{text}");
        }
    }
}
