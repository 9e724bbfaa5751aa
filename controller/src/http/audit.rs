//! `/api/v1/audit`: who did what, and the means to show that nobody changed it since.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Json,
    body::Body,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use jiff::Timestamp;
use model::{
    api::{
        Page,
        audit::{
            AuditKey, Audited, EXPORT_FORMAT, ExportHeader, ExportRecord, ExportUnchained, KeyOrganization,
            SignedCheckpoint,
        },
    },
    id::OrgId,
    limits,
};
use serde::Deserialize;
use tokio::{sync::OwnedSemaphorePermit, task::JoinHandle, time::sleep};
use utoipa::IntoParams;
use uuid::Uuid;

use super::{
    Door,
    auth::Access,
    credential::{Credential, Lasting},
    page::Window,
    problem::{Failure, Result},
    query::{Query, time},
};
use crate::{
    app::{access::AuditRead, audit},
    error,
    store::audit_export::{self, Filter},
};

/// Records that are read at once.
const PIECE: i64 = 1000;
/// Checkpoints between two entries, and entries without a number, that one export shows.
const MOST: i64 = 100_000;
/// For so long a client may not read on.
const UNREAD_FOR: Duration = Duration::from_secs(60);

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct List {
    /// Only of this actor, by name or by `noun/id`.
    actor: Option<String>,
    /// Only this verb, as `agent.revoke`.
    verb: Option<String>,
    /// Only about this object, `noun/id`.
    object: Option<String>,
    /// Only with this outcome, as `done`.
    outcome: Option<String>,
    request_id: Option<String>,
    /// Only what happened since then.
    #[param(value_type = Option<String>, format = DateTime)]
    since: Option<Timestamp>,
    /// Only what happened before then.
    #[param(value_type = Option<String>, format = DateTime)]
    until: Option<Timestamp>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
    /// Items of the page: 1 to 1000, 100 by default.
    limit: Option<i64>,
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct ListCheckpoints {
    /// `next_cursor` of the page before.
    cursor: Option<String>,
    /// Items of the page: 1 to 1000, 100 by default.
    limit: Option<i64>,
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct Export {
    /// From the first entry since then.
    #[param(value_type = Option<String>, format = DateTime)]
    since: Option<Timestamp>,
    /// Up to the first checkpoint behind the last entry before then.
    #[param(value_type = Option<String>, format = DateTime)]
    until: Option<Timestamp>,
    /// From this number on.
    from_seq: Option<i64>,
}

/// What was done, the newest first.
#[utoipa::path(get, path = "/api/v1/audit", tag = "audit", operation_id = "list_audit", params(List),
    responses((status = 200, body = Page<Audited>)))]
pub(super) async fn list(
    Access(by): Access<AuditRead>,
    State(door): State<Arc<Door>>,
    Query(query): Query<List>,
) -> Result<Json<Page<Audited>>> {
    let window = Window::<(Timestamp, Uuid)>::new("audit", query.cursor.as_deref(), query.limit)?;
    let filter = Filter {
        actor: query.actor,
        verb: query.verb,
        object: query.object,
        outcome: query.outcome,
        request_id: query.request_id,
        since: time("since", query.since)?,
        until: time("until", query.until)?,
    };
    let pool = door.app.db.of(by.org_id());
    let rows = audit_export::page(&pool, by.org_id(), &filter, window.after, window.limit()).await?;
    Ok(Json(window.page(rows, |audited| (audited.entry.at, audited.entry.id))))
}

/// What controllers signed of the audit, the newest first.
#[utoipa::path(get, path = "/api/v1/audit/checkpoints", tag = "audit", operation_id = "list_checkpoints",
    params(ListCheckpoints), responses((status = 200, body = Page<SignedCheckpoint>)))]
pub(super) async fn checkpoints(
    Access(by): Access<AuditRead>,
    State(door): State<Arc<Door>>,
    Query(query): Query<ListCheckpoints>,
) -> Result<Json<Page<SignedCheckpoint>>> {
    let window = Window::<i64>::new("checkpoints", query.cursor.as_deref(), query.limit)?;
    let pool = door.app.db.of(by.org_id());
    let before = window.after.unwrap_or(i64::MAX);
    let rows = audit_export::newest_checkpoints(&pool, by.org_id(), before, window.limit()).await?;
    let rows = rows.into_iter().map(audit::shown).collect();
    Ok(Json(window.page(rows, |checkpoint: &SignedCheckpoint| checkpoint.seq)))
}

/// What checkpoints and exports are verified with. Keep it where the controller cannot change it.
#[utoipa::path(get, path = "/api/v1/audit/key", tag = "audit", operation_id = "audit_key",
    responses((status = 200, body = AuditKey)))]
pub(super) async fn key(Access(by): Access<AuditRead>, State(door): State<Arc<Door>>) -> Json<AuditKey> {
    let authority = door.app.ca.authority();
    Json(AuditKey {
        trust_domain: authority.trust_domain().to_owned(),
        certificate: pki::pem::encode(authority.controllers_ca_der()),
        organization: Some(KeyOrganization { id: by.org_id(), name: by.actor().organization.clone() }),
    })
}

/// The audit as lines of JSON, to be verified with `opsctl audit verify`: a header, then entries in the order of their
/// numbers with the checkpoints at their places. It ends with a checkpoint of its last entry. What is committed when it
/// begins is in it. One controller gives out two at a time, and breaks off one that is not read on for a minute.
#[utoipa::path(get, path = "/api/v1/audit/export", tag = "audit", operation_id = "export_audit", params(Export),
    responses((status = 200, body = ExportRecord, content_type = "application/x-ndjson")))]
pub(super) async fn export(
    Lasting(by, credential): Lasting<AuditRead>,
    State(door): State<Arc<Door>>,
    Query(query): Query<Export>,
) -> Result<Response> {
    if query.from_seq.is_some_and(|from| from < 1) {
        return Err(Failure::invalid("from_seq", "must be 1 or more"));
    }
    let place = Arc::clone(&door.exports).try_acquire_owned().map_err(|_| {
        let detail = format!(
            "the limit EXPORTS of {} exports at a time is reached at this controller: wait for one to end",
            limits::EXPORTS
        );
        Failure::refuse(StatusCode::TOO_MANY_REQUESTS, "too_many_streams", detail)
    })?;
    let org = by.org_id();
    audit::catch_up(&door.app, org).await?;
    // Before the range is read: what is chained since is no entry without a number.
    let unchained = audit_export::unchained(&door.app.db.of(org), org, MOST).await?;
    let (since, until) = (time("since", query.since)?, time("until", query.until)?);
    let range = audit::range(&door.app, org, since, until, query.from_seq).await?;
    let header = ExportHeader {
        format: EXPORT_FORMAT,
        organization: org,
        trust_domain: door.app.info.trust_domain.to_string(),
        from_seq: range.before + 1,
        to_seq: range.to,
        prev_hash: range.before_hash.map(hex::encode).unwrap_or_default(),
    };
    let lines = Lines {
        first: vec![ExportRecord::Header(header)],
        after: (range.before, Uuid::max()),
        checkpoints_from: range.before,
        checkpoints_to: range.checkpoints_to,
        to: range.to,
        last: unchained.into_iter().map(|entry| ExportRecord::Unchained(ExportUnchained { entry })).collect(),
        is_over: false,
        org,
        door,
        credential,
        place: Held::new(place),
    };
    let pieces = stream::unfold(lines, |mut lines| async move {
        let piece = lines.next().await?.map_err(|failure| {
            failure.log();
            Broken
        });
        lines.is_over |= piece.is_err();
        Some((piece.map(Bytes::from), lines))
    });
    // The compressor asks once more behind the end.
    let pieces = pieces.fuse();
    let name = "attachment; filename=\"audit.ndjson\"";
    let headers = [(header::CONTENT_TYPE, "application/x-ndjson"), (header::CONTENT_DISPOSITION, name)];
    Ok((headers, Body::from_stream(pieces)).into_response())
}

/// Why an export ends before its end; the cause is in the log.
#[derive(Debug, thiserror::Error)]
#[error("the export was broken off")]
struct Broken;

/// A place among the exports. It is given up when nobody reads on, so that a client that hangs keeps nobody out.
struct Held {
    place: Arc<Mutex<Option<OwnedSemaphorePermit>>>,
    /// Ends the wait that is under way, and with its end the next begins.
    giving_up: JoinHandle<()>,
}

impl Held {
    fn new(place: OwnedSemaphorePermit) -> Self {
        let place = Arc::new(Mutex::new(Some(place)));
        let giving_up = Self::wait(&place);
        Self { place, giving_up }
    }

    fn wait(place: &Arc<Mutex<Option<OwnedSemaphorePermit>>>) -> JoinHandle<()> {
        let place = Arc::clone(place);
        tokio::spawn(async move {
            sleep(UNREAD_FOR).await;
            *place.lock().expect("no holder of this lock panics") = None;
        })
    }

    /// The client reads on. `false` when that is too late.
    fn goes_on(&mut self) -> bool {
        self.giving_up.abort();
        self.giving_up = Self::wait(&self.place);
        self.place.lock().expect("no holder of this lock panics").is_some()
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.giving_up.abort();
    }
}

/// An export under way: one piece at a time, as fast as the client reads.
struct Lines {
    door: Arc<Door>,
    credential: Credential,
    place: Held,
    org: OrgId,
    first: Vec<ExportRecord>,
    after: (i64, Uuid),
    to: i64,
    checkpoints_from: i64,
    checkpoints_to: i64,
    last: Vec<ExportRecord>,
    is_over: bool,
}

impl Lines {
    /// The next piece; none behind the last.
    async fn next(&mut self) -> Option<Result<Vec<u8>>> {
        if self.is_over {
            return None;
        }
        if !self.place.goes_on() {
            let detail = format!("nobody read on for {} seconds", UNREAD_FOR.as_secs());
            return Some(Err(Failure::refuse(StatusCode::REQUEST_TIMEOUT, "slow_reader", detail)));
        }
        if let Err(failure) = self.credential.still_counts().await {
            return Some(Err(failure));
        }
        let mut records = std::mem::take(&mut self.first);
        if let Err(error) = self.piece(&mut records).await {
            return Some(Err(error.into()));
        }
        let mut bytes = Vec::new();
        for record in records {
            serde_json::to_writer(&mut bytes, &record).expect("plain data becomes JSON");
            bytes.push(b'\n');
        }
        Some(Ok(bytes))
    }

    async fn piece(&mut self, records: &mut Vec<ExportRecord>) -> error::Result<()> {
        let pool = self.door.app.db.of(self.org);
        let entries = audit_export::chain(&pool, self.org, self.after, self.to, PIECE).await?;
        self.is_over = i64::try_from(entries.len()) != Ok(PIECE);
        let reached = match entries.last() {
            Some((id, last)) if !self.is_over => {
                self.after = (last.seq, *id);
                last.seq - 1
            }
            _ => self.checkpoints_to,
        };
        let checkpoints =
            audit_export::checkpoints(&pool, self.org, self.checkpoints_from, reached, MOST).await?;
        self.checkpoints_from = self.checkpoints_from.max(reached.saturating_add(1));
        let mut checkpoints: VecDeque<SignedCheckpoint> = checkpoints.into_iter().map(audit::shown).collect();
        for (_, entry) in entries {
            while let Some(checkpoint) = checkpoints.pop_front_if(|checkpoint| checkpoint.seq < entry.seq) {
                records.push(ExportRecord::Checkpoint(checkpoint));
            }
            records.push(ExportRecord::Entry(entry));
        }
        records.extend(checkpoints.into_iter().map(ExportRecord::Checkpoint));
        if self.is_over {
            records.append(&mut self.last);
        }
        Ok(())
    }
}
