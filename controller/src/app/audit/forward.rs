//! Entries go to sinks outside of the database: a file, a syslog server. Each entry at least once and in its order: a sink's
//! position is noted after it has taken the entries, and what it did not take is sent again.

mod file;
mod syslog;

use std::io;

use model::{
    api::audit::{ExportEntry, ExportRecord},
    id::OrgId,
};
use uuid::Uuid;

use crate::{
    app::App,
    config::Syslog,
    error::{Error, Result},
    store::{audit_chain, audit_export, audit_forwarded},
};

/// Entries that a sink takes at once.
const BATCH: i64 = 1000;

/// Where entries go.
enum Sink {
    File(std::path::PathBuf),
    Syslog(Syslog),
}

impl Sink {
    /// What its position is noted under: of this controller, for every one has sinks of its own.
    fn name(&self, app: &App) -> String {
        let controller = app.info.controller_id;
        match self {
            Self::File(path) => format!("{controller} file {}", path.display()),
            Self::Syslog(server) => format!("{controller} syslog {server}"),
        }
    }

    async fn take(&self, entries: Vec<ExportEntry>) -> io::Result<()> {
        match self {
            Self::File(path) => {
                let path = path.clone();
                let lines: Vec<u8> = entries.into_iter().flat_map(line).collect();
                tokio::task::spawn_blocking(move || file::append(&path, &lines)).await?
            }
            Self::Syslog(server) => syslog::send(server, entries).await,
        }
    }
}

/// An entry as a line of JSON, as in an export.
fn line(entry: ExportEntry) -> Vec<u8> {
    let mut line =
        serde_json::to_vec(&ExportRecord::Entry(entry)).expect("plain data becomes JSON in memory");
    line.push(b'\n');
    line
}

/// Whether there is any sink.
pub(crate) fn is_wanted(app: &App) -> bool {
    app.info.audit.file.is_some() || app.info.audit.syslog.is_some()
}

/// Hands what was chained since to every sink. One that does not take it holds up no other.
///
/// # Errors
/// When the database does not answer, or else of the last sink that took not all.
pub(crate) async fn advance(app: &App) -> Result<()> {
    let audit = &app.info.audit;
    let file = audit.file.clone().map(Sink::File);
    let syslog = audit.syslog.clone().map(Sink::Syslog);
    let organizations = audit_chain::organizations(app.db.worker()).await?;
    let mut done = Ok(());
    for sink in file.into_iter().chain(syslog) {
        for org in &organizations {
            if let Err(error) = advance_one(app, &sink, *org).await {
                done = Err(error);
            }
        }
    }
    done
}

async fn advance_one(app: &App, sink: &Sink, org: OrgId) -> Result<()> {
    let name = sink.name(app);
    let mut position = audit_forwarded::get(app.db.worker(), &name, org).await?;
    loop {
        let after = (position, Uuid::max());
        let entries = audit_export::chain(app.db.worker(), org, after, i64::MAX, BATCH).await?;
        let Some((_, last)) = entries.last() else { return Ok(()) };
        position = last.seq;
        let entries = entries.into_iter().map(|(_, entry)| entry).collect();
        sink.take(entries).await.map_err(|error| Error::internal("a sink did not take the audit", error))?;
        fault::point("controller.audit.forwarded");
        audit_forwarded::set(app.db.worker(), &name, org, position).await?;
    }
}
