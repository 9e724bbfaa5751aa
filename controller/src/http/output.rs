//! `/api/v1/executions/{id}/output`: what the processes wrote, as a JSON page, as text, or as a stream of events.

use std::sync::Arc;

use axum::{
    Json,
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use jiff::Timestamp;
use model::{
    api::output::{OutputPage, Stream},
    id::ExecutionId,
};
use serde::Deserialize;
use utoipa::IntoParams;

use super::{
    Door,
    credential::Lasting,
    executions,
    id::Id,
    live::{self, Pages},
    page,
    problem::{Failure, Result},
    query::Query,
    tail,
};
use crate::{
    app::access::ExecutionRead,
    store::{
        self,
        output::{OutputFilter, TailStart, Wanted},
    },
};

/// Lines that `tail` can ask for.
const TAIL_LINES: i64 = 100_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Format {
    Json,
    Text,
    Sse,
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct Parameters {
    /// Go on behind this position.
    after: Option<i64>,
    /// Pieces of a JSON page: 1 to 1000, 100 by default. A page also ends when it holds much.
    limit: Option<i64>,
    /// Only of this target. As text, its bytes come exactly as they were written.
    target: Option<String>,
    /// Only this stream.
    #[param(inline)]
    stream: Option<Stream>,
    /// Only what was written since then.
    #[param(value_type = Option<String>, format = DateTime)]
    since: Option<Timestamp>,
    /// Begin so many lines before what is the end now.
    tail: Option<i64>,
    /// Only of the attempt with this number, or of the one that is the `newest`. Without it of all of them, one behind the
    /// other; as text of one target, of the newest.
    attempt: Option<String>,
    /// Go on until the execution has ended. By default events do and the other forms do not; a JSON page cannot.
    follow: Option<bool>,
    /// Wins over the `Accept` header.
    #[param(inline)]
    format: Option<Format>,
}

/// What the processes of an execution wrote, in the order in which it arrived.
///
/// Events: `output` with the piece and its position as the event's id, and at the end `end` with the execution's state.
/// A client that comes back with `Last-Event-ID` misses nothing and gets nothing twice.
#[utoipa::path(get, path = "/api/v1/executions/{id}/output", tag = "executions", operation_id = "show_output",
    params(("id" = String, Path, format = Uuid), Parameters,
        ("Last-Event-ID" = Option<i64>, Header, description = "Position of the last event that arrived")),
    responses((status = 200, content(
        (OutputPage = "application/json"), (String = "text/plain"), (String = "text/event-stream")))))]
pub(super) async fn show(
    Lasting(by, credential): Lasting<ExecutionRead>,
    State(door): State<Arc<Door>>,
    Id(id): Id<ExecutionId>,
    Query(query): Query<Parameters>,
    headers: HeaderMap,
) -> Result<Response> {
    let format = query.format.map_or_else(|| accepted(&headers), Ok)?;
    let follow = query.follow.unwrap_or(format == Format::Sse);
    if follow && format == Format::Json {
        return Err(Failure::invalid("follow", "needs format=text or format=sse: a JSON page ends"));
    }
    let limit = page::size(query.limit)?;
    let after = position(&query, &headers)?;
    let org = by.org_id();
    executions::find(&door, &by, id).await?;

    let mut attempt = query.attempt.as_deref().map(attempts).transpose()?;
    if format == Format::Text && query.target.is_some() {
        attempt = attempt.or(Some(Wanted::Newest));
    }
    let filter = OutputFilter { target: query.target, stream: query.stream, since: query.since, attempt };
    let pool = door.app.db.of(org);
    let start = match (after, query.tail) {
        (Some(after), _) => TailStart { after, skip_lines: 0 },
        (None, Some(lines)) => store::output::tail_start(&pool, org, id, &filter, lines).await?,
        (None, None) => TailStart { after: 0, skip_lines: 0 },
    };
    if format == Format::Json {
        let mut page = store::output::page(&pool, org, id, &filter, start.after, limit).await?;
        if let Some(first) = page.items.first_mut() {
            tail::skip_lines(first, start.skip_lines);
        }
        return Ok(Json(page).into_response());
    }
    let is_raw = filter.target.is_some();
    let credential = if follow { credential.holding(door.streams.enter(by.actor())?) } else { credential };
    let pages = Pages::new(door, credential, org, id, filter, start, follow);
    Ok(match format {
        Format::Text => live::text(pages, is_raw),
        Format::Sse | Format::Json => live::events(pages, by.request_id().to_owned()),
    })
}

/// Where the client was: its browser's word comes before the address that it began with.
fn position(query: &Parameters, headers: &HeaderMap) -> Result<Option<i64>> {
    let last = headers.get("last-event-id").map(|value| {
        let position = value.to_str().ok().and_then(|text| text.trim().parse::<i64>().ok());
        position.ok_or_else(|| Failure::invalid("Last-Event-ID", "is not a position"))
    });
    let after = last.transpose()?.or(query.after);
    if after.is_some_and(i64::is_negative) {
        return Err(Failure::invalid("after", "is not a position: it is negative"));
    }
    if query.tail.is_some_and(|lines| !(0..=TAIL_LINES).contains(&lines)) {
        return Err(Failure::invalid("tail", format!("must be from 0 to {TAIL_LINES} lines")));
    }
    Ok(after)
}

/// Reads which attempt is wanted.
fn attempts(text: &str) -> Result<Wanted> {
    match text.parse::<i32>() {
        Ok(number) if number > 0 => Ok(Wanted::Number(number)),
        _ if text == "newest" => Ok(Wanted::Newest),
        _ => Err(Failure::invalid("attempt", "must be a number from 1, or 'newest'")),
    }
}

/// The first form that the client accepts and we have.
fn accepted(headers: &HeaderMap) -> Result<Format> {
    let Some(accept) = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()) else {
        return Ok(Format::Json);
    };
    let kinds = accept.split(',').map(|kind| kind.split(';').next().unwrap_or_default().trim());
    kinds
        .filter_map(|kind| match kind {
            "application/json" | "application/*" | "*/*" => Some(Format::Json),
            "text/plain" | "text/*" => Some(Format::Text),
            "text/event-stream" => Some(Format::Sse),
            _ => None,
        })
        .next()
        .ok_or_else(|| {
            let detail = "the output comes as application/json, text/plain or text/event-stream";
            Failure::refuse(StatusCode::NOT_ACCEPTABLE, "not_acceptable", detail)
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_accept_header_chooses() {
        for (accept, want) in [
            ("*/*", Some(Format::Json)),
            ("text/event-stream", Some(Format::Sse)),
            ("text/plain;q=0.9, application/json", Some(Format::Text)),
            ("text/html, */*;q=0.1", Some(Format::Json)),
            ("image/png", None),
        ] {
            let headers = HeaderMap::from_iter([(header::ACCEPT, accept.parse().expect("a header"))]);
            assert_eq!(accepted(&headers).ok(), want, "{accept}");
        }
        assert_eq!(accepted(&HeaderMap::new()).ok(), Some(Format::Json));
    }
}
