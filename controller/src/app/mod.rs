//! The verbs: what may be done, by whom, and what happens together. Transactions begin and end here.
//!
//! Knows neither HTTP nor gRPC. What writes, or has two callers, is a function here; plain reads go past it.

pub(crate) mod access;
pub(crate) mod access_keys;
pub(crate) mod advance;
pub(crate) mod agents;
pub(crate) mod api_tokens;
pub(crate) mod approvals;
mod arrivals;
pub(crate) mod audit;
pub(crate) mod authenticate;
pub(crate) mod boot;
pub(crate) mod ca;
pub(crate) mod calendars;
pub(crate) mod clocks;
pub(crate) mod dangers;
pub(crate) mod egress;
pub(crate) mod enroll_tokens;
pub(crate) mod enrollment;
pub(crate) mod events;
pub(crate) mod executions;
pub(crate) mod firing;
pub(crate) mod forecast;
mod gathered;
pub(crate) mod heeded;
pub(crate) mod host_metrics;
pub(crate) mod http_calls;
pub(crate) mod idempotency;
pub(crate) mod job_templates;
pub(crate) mod jobs;
pub(crate) mod joining;
pub(crate) mod listeners;
pub(crate) mod live;
pub(crate) mod locks;
pub(crate) mod login;
pub(crate) mod manifest;
pub(crate) mod oidc;
pub(crate) mod orders;
pub(crate) mod organizations;
pub(crate) mod output;
pub(crate) mod parts;
pub(crate) mod passwords;
pub(crate) mod reports;
pub(crate) mod retry;
pub(crate) mod roles;
pub(crate) mod runs;
pub(crate) mod schedules;
pub(crate) mod script_checks;
pub(crate) mod scripts;
pub(crate) mod sessions;
pub(crate) mod setup;
pub(crate) mod start;
mod started;
pub(crate) mod target_groups;
pub(crate) mod totp;
pub(crate) mod undo;
pub(crate) mod users;
mod versions;
pub(crate) mod wake;
pub(crate) mod webhooks;

use std::{path::PathBuf, sync::Arc, time::Duration};

use model::id::ControllerId;

pub(crate) use crate::config::Proxies;
use crate::{
    config::{self, Timing},
    store::Db,
};

/// Everything that the verbs work with; one for the process.
#[derive(Debug)]
pub(crate) struct App {
    pub(crate) db: Db,
    pub(crate) info: Installation,
    pub(crate) ca: ca::Ca,
    pub(crate) sessions: sessions::Sessions,
    pub(crate) live: live::Live,
    pub(crate) wake: wake::Wake,
    pub(crate) parts: parts::Parts,
    pub(crate) reports: runs::Reports,
    pub(crate) chunks: output::Chunks,
    pub(crate) samples: host_metrics::Samples,
    pub(crate) manifests: manifest::Cache,
    pub(crate) calendars: heeded::Cache,
    pub(crate) known: access::Known,
    pub(crate) lookups: authenticate::Lookups,
    pub(crate) access_keys: access_keys::AccessKeys,
    pub(crate) passwords: passwords::Passwords,
    pub(crate) reviews: dangers::Reviews,
    pub(crate) script_checks: script_checks::Places,
    pub(crate) providers: oidc::Providers,
    pub(crate) egress: egress::Egress,
    pub(crate) http_calls: http_calls::Calls,
    pub(crate) audit: audit::Newest,
    pub(crate) alarms: audit::Alarms,
}

impl App {
    /// The installation is set up: the token that did it is worth nothing any more.
    fn setup_done(&self) {
        if let Err(error) = std::fs::remove_file(&self.info.setup_token)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(%error, "cannot remove {}", self.info.setup_token.display());
        }
    }
}

/// What does not change while the process lives.
#[derive(Debug, Clone)]
pub(crate) struct Installation {
    pub(crate) controller_id: ControllerId,
    pub(crate) trust_domain: Arc<str>,
    pub(crate) root_pin: [u8; 32],
    /// Port of the agents' door.
    pub(crate) agent_port: u16,
    /// Where agents reach this door, if they are to be told.
    pub(crate) announce: Option<String>,
    pub(crate) certificate_life: Duration,
    /// Life of a dispatch key's certificate.
    pub(crate) dispatch_key_life: Duration,
    /// Another controller can use the database too.
    pub(crate) is_shared: bool,
    /// Everybody may become a member of the home organization.
    pub(crate) registration: bool,
    /// Whose word counts for whence a request is.
    pub(crate) proxies: Proxies,
    /// The file of the token that sets the installation up.
    pub(crate) setup_token: PathBuf,
    /// What becomes of dangerous commands.
    pub(crate) safety: config::Safety,
    pub(crate) timing: Timing,
    pub(crate) audit: config::Audit,
    pub(crate) started_at: jiff::Timestamp,
}
