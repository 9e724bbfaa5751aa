//! `status`: who this agent is and how it is.

use std::{path::PathBuf, time::Duration};

use anyhow::Context as _;
use jiff::Timestamp;
use serde::Serialize;

use super::{Failure, Output, controllers, lock, print};
use crate::{
    clock,
    config::Config,
    link::{self, connect::Address, identity::Identity, status::Live},
};

/// What `status` shows.
#[derive(Debug, Serialize)]
struct Status {
    agent_id: model::id::AgentId,
    name: String,
    org_id: model::id::OrgId,
    trust_domain: String,
    controllers: Vec<Address>,
    certificate_expires_at: Timestamp,
    certificate_expired: bool,
    data: PathBuf,
    running: bool,
    /// None when the spool cannot be read.
    unanswered_reports: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    live: Option<Live>,
}

/// Prints it.
pub(super) fn show(config: &Config, output: Output) -> Result<(), Failure> {
    let folder = link::folder(&config.data);
    let identity = Identity::load(&link::identity_folder(&folder))?;
    let live = link::status::ask(&folder);
    // An agent that runs has the database; one that does not has left it.
    let unanswered_reports = match &live {
        Some(live) => Some(live.unanswered_reports),
        None => lock(&config.data, Duration::ZERO)
            .ok()
            .and_then(|_lock| link::spool::count(&link::spool_folder(&folder)).ok()),
    };
    let status = Status {
        agent_id: identity.agent_id,
        name: identity.name,
        org_id: identity.org_id,
        trust_domain: identity.trust_domain,
        controllers: controllers(config)?,
        certificate_expires_at: identity.expires_at,
        certificate_expired: clock::now() >= identity.expires_at,
        data: config.data.clone(),
        running: live.is_some(),
        unanswered_reports,
        live,
    };
    match output {
        Output::Json => {
            print(&format!("{}\n", serde_json::to_string_pretty(&status).context("cannot show the status")?))
        }
        Output::Text => print(&status.text()),
    }
}

impl Status {
    fn text(&self) -> String {
        let session = match &self.live {
            None => "not running".to_owned(),
            Some(live) if live.online => format!("online at {} since {}", live.session, live.since),
            Some(live) => format!("offline since {}: {}", live.since, live.session),
        };
        let controllers: Vec<String> = self.controllers.iter().map(ToString::to_string).collect();
        let rows = [
            ("agent", format!("{} ({})", self.name, self.agent_id)),
            ("organization", self.org_id.to_string()),
            ("trust domain", self.trust_domain.clone()),
            ("controllers", controllers.join(", ")),
            (
                "certificate",
                format!(
                    "{} {}",
                    if self.certificate_expired { "expired" } else { "valid until" },
                    self.certificate_expires_at
                ),
            ),
            ("session", session),
            (
                "active runs",
                self.live.as_ref().map_or_else(|| "-".to_owned(), |live| live.active.to_string()),
            ),
            (
                "unanswered reports",
                self.unanswered_reports.map_or_else(|| "-".to_owned(), |reports| reports.to_string()),
            ),
        ];
        rows.iter().map(|(name, value)| format!("{name:<20}{value}\n")).collect()
    }
}
