//! `status`: who this agent is and how it is.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context as _;
use jiff::Timestamp;
use serde::Serialize;

use super::{Failure, Output, controllers, lock, print};
use crate::{
    clock,
    config::Config,
    link::{
        self,
        connect::Address,
        identity::{Identity, IdentityError},
        owner::Owner,
        status::Live,
        witness,
    },
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
    /// What is remembered of the organization's audit.
    audit: witness::Shown,
    #[serde(skip_serializing_if = "Option::is_none")]
    live: Option<Live>,
}

/// Prints it.
pub(super) fn show(config: &Config, output: Output) -> Result<(), Failure> {
    let folder = link::folder(&config.data);
    let not_enrolled = || IdentityError::NotEnrolled(link::identity_folder(&folder));
    if !folder.exists() {
        return Err(not_enrolled().into());
    }
    // An agent that runs has the database; one that does not has left it.
    let lock = lock(&config.data, Duration::ZERO).ok();
    let _owner = Owner::of(&folder).with_context(|| format!("cannot enter '{}'", folder.display()))?;
    let here = Path::new(link::HERE);
    let identity = Identity::load(&link::identity_folder(here)).map_err(|error| match error {
        IdentityError::NotEnrolled(_) => not_enrolled(),
        error => error,
    })?;
    let live = link::status::ask(here);
    let unanswered_reports = match (&live, &lock) {
        (Some(live), _) => Some(live.unanswered_reports),
        (None, Some(_)) => link::spool::count(&link::spool_folder(here)).ok(),
        (None, None) => None,
    };
    let status = Status {
        agent_id: identity.agent_id,
        name: identity.name,
        org_id: identity.org_id,
        trust_domain: identity.trust_domain,
        controllers: controllers(config, here)?,
        certificate_expires_at: identity.expires_at,
        certificate_expired: clock::now() >= identity.expires_at,
        data: config.data.clone(),
        running: live.is_some() || lock.is_none(),
        unanswered_reports,
        audit: witness::shown(here),
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
            None if self.running => "its link does not answer".to_owned(),
            None => "not running".to_owned(),
            Some(live) if live.online => format!("online at {} since {}", live.session, live.since),
            Some(live) => format!("offline since {}: {}", live.since, live.session),
        };
        let controllers: Vec<String> = self.controllers.iter().map(ToString::to_string).collect();
        let link = self.live.as_ref().map_or_else(
            || "-".to_owned(),
            |live| {
                let confined = match live.confinement.missing.as_slice() {
                    [] => "confined".to_owned(),
                    missing => format!("confined, but this host lacks {}", missing.join(", ")),
                };
                format!("process {}, user {}, {confined}", live.link_pid, live.confinement.uid)
            },
        );
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
            ("link", link),
            (
                "active runs",
                self.live.as_ref().map_or_else(|| "-".to_owned(), |live| live.active.to_string()),
            ),
            (
                "unanswered reports",
                self.unanswered_reports.map_or_else(|| "-".to_owned(), |reports| reports.to_string()),
            ),
            ("audit", self.audit()),
        ];
        rows.iter().map(|(name, value)| format!("{name:<20}{value}\n")).collect()
    }

    fn audit(&self) -> String {
        match (&self.audit.alarm, self.audit.newest_seq) {
            (Some(alarm), _) => format!(
                "ALARM since {}: it was rolled back or written anew: {} ('opsconductor-agent forget-alarm' when that is \
                 looked into)",
                alarm.at, alarm.what
            ),
            (None, Some(seq)) => format!("a checkpoint of entry {seq} is remembered"),
            (None, None) => "no checkpoint has come yet".to_owned(),
        }
    }
}

/// `forget-alarm`: what the witness remembers goes with the alarm, and the next checkpoint is believed.
pub(super) fn forget_alarm(config: &Config) -> Result<(), Failure> {
    let folder = link::folder(&config.data);
    let _owner = Owner::of(&folder).with_context(|| format!("cannot enter '{}'", folder.display()))?;
    let here = Path::new(link::HERE);
    if witness::shown(here).alarm.is_none() {
        return print("There is no alarm.\n");
    }
    let alarm = witness::forget(here).context("cannot forget the alarm")?;
    print(&alarm.map_or_else(String::new, |alarm| format!("Forgotten: {} ({})\n", alarm.what, alarm.at)))
}
