//! The control session: one at a time, opened again for as long as the agent runs.
//!
//! Invariants:
//! 1. The executor's inventory is asked for after the connection stands and before the Hello, so that a controller
//!    that is away costs no reports.
//! 2. Reports are sent in the order of their numbers; those that were not answered are sent again by the next session.
//! 3. What the controller says at the end decides when the agent comes back; a connection that is merely lost is tried
//!    again after a jittered wait that doubles up to the configured pause.
//! 4. A certificate is renewed at half of its life, over the session's connection and with a fresh key; then a session
//!    with the new one is opened at once. With an expired one the agent renews before anything else.
//! 5. Where no controllers are configured, those that announce themselves are remembered, beside the one that the agent
//!    enrolled with.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use model::id::AgentId;
use rustls::ClientConfig;
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep},
};
use tonic::{Code, transport::Channel};

use self::open::End;
use super::{
    Settings,
    backoff::{Backoff, around, jitter},
    connect::{Address, connect},
    controllers,
    enroll::{EnrollError, renew},
    identity::{Identity, IdentityError},
    identity_folder, shipper,
    spool::Spool,
    witness::Witness,
};
use crate::{clock, messages::ToExecutor};

mod open;
mod outbox;

const BACKOFF_BASE: Duration = Duration::from_millis(500);
/// A session that lasted so long was a good one.
const LASTED: Duration = Duration::from_secs(10);
/// Wait after an end that only a person can change: revoked, too old.
const REFUSED_WAIT: Duration = Duration::from_secs(300);
/// Wait after a call was denied, which may be a mistake of the moment.
const DENIED_WAIT: Duration = Duration::from_secs(60);
/// Wait of an agent that nobody has approved yet.
const PENDING_WAIT: Duration = Duration::from_secs(15);
/// Wait after the controller said that it stops: another one, or its successor, is there soon.
const MOVED_WAIT: Duration = Duration::from_secs(2);

/// What the other tasks of the link may use while there is a session.
#[derive(Debug, Clone)]
pub(crate) struct Online {
    pub(crate) address: Address,
    pub(crate) tls: Arc<ClientConfig>,
    /// The session's own connection.
    pub(crate) channel: Channel,
    pub(crate) metrics_every: Duration,
    /// How long the controller may owe an answer.
    pub(crate) silence: Duration,
}

/// Where the session stands, for people.
#[derive(Debug, Clone)]
pub struct Standing {
    pub online: bool,
    pub text: String,
    pub since: Timestamp,
}

impl Standing {
    fn new(online: bool, text: String) -> Self {
        Self { online, text, since: clock::now() }
    }
}

/// The task that keeps a session open.
pub(crate) struct Session {
    identity: Identity,
    identity_folder: std::path::PathBuf,
    folder: std::path::PathBuf,
    controllers: Vec<Address>,
    /// Whether controllers that announce themselves are remembered.
    learns: bool,
    /// Index of the controller to try next.
    next: usize,
    slots: u32,
    silence: Duration,
    /// How far the two clocks may be apart.
    clock_skew: Duration,
    spool: Spool,
    executor: mpsc::Sender<ToExecutor>,
    shipper: mpsc::Sender<shipper::Command>,
    active: watch::Receiver<usize>,
    online: watch::Sender<Option<Online>>,
    standing: watch::Sender<Standing>,
    backoff: Backoff,
    witness: Witness,
}

/// Why a try came to its end.
#[derive(Debug, thiserror::Error)]
enum Fault {
    #[error(transparent)]
    Enroll(#[from] EnrollError),
    #[error(transparent)]
    Identity(#[from] IdentityError),
}

impl From<super::connect::ConnectError> for Fault {
    fn from(error: super::connect::ConnectError) -> Self {
        Self::Enroll(error.into())
    }
}

impl Session {
    pub(crate) fn new(
        settings: &Settings,
        spool: Spool,
        executor: mpsc::Sender<ToExecutor>,
        shipper: mpsc::Sender<shipper::Command>,
        active: watch::Receiver<usize>,
    ) -> (Self, watch::Receiver<Option<Online>>, watch::Receiver<Standing>) {
        let (online, online_receiver) = watch::channel(None);
        let (standing, standing_receiver) = watch::channel(Standing::new(false, "starting".to_owned()));
        let session = Self {
            identity: settings.identity.clone(),
            identity_folder: identity_folder(&settings.folder),
            folder: settings.folder.clone(),
            controllers: settings.controllers.clone(),
            learns: settings.learns_controllers,
            next: 0,
            slots: settings.slots,
            silence: settings.timing.silence(),
            clock_skew: settings.timing.clock_skew(),
            spool,
            executor,
            shipper,
            active,
            online,
            standing,
            backoff: Backoff::new(BACKOFF_BASE, settings.timing.reconnect()),
            witness: Witness::open(&settings.folder),
        };
        (session, online_receiver, standing_receiver)
    }

    /// Opens session after session. Returns only when the executor is gone.
    pub(crate) async fn run(mut self) {
        loop {
            let began = Instant::now();
            let address = self.controllers[self.next % self.controllers.len()].clone();
            let ended = Box::pin(self.once(&address)).await;
            self.online.send_replace(None);
            if began.elapsed() >= LASTED {
                self.backoff.reset();
            }
            let wait = match ended {
                Ok(End::ExecutorGone) => return,
                Ok(end) => self.after(&address, end),
                Err(fault) => self.after_fault(&address, &fault),
            };
            sleep(wait).await;
        }
    }

    /// One connection: renew with an expired certificate, else hold a session.
    async fn once(&mut self, address: &Address) -> Result<End, Fault> {
        let tls = self.identity.tls()?;
        let connection = connect(address, Arc::clone(&tls), self.silence).await?;
        if self.identity.is_expired() {
            tracing::info!(agent.id = %self.agent_id(), expired_at = %self.identity.expires_at,
                "the certificate has expired; renewing it first");
            let next = renew(connection.channel, &self.identity).await?;
            self.adopt(next)?;
            return Ok(End::Renewed);
        }
        Ok(self.hold(address, tls, connection).await)
    }

    const fn agent_id(&self) -> AgentId {
        self.identity.agent_id
    }

    /// Keeps the new identity on disk, and then uses it.
    fn adopt(&mut self, next: Identity) -> Result<(), IdentityError> {
        next.save(&self.identity_folder)?;
        tracing::info!(agent.id = %next.agent_id, expires_at = %next.expires_at, "certificate renewed");
        self.identity = next;
        Ok(())
    }

    /// Takes over which controllers there are, as the one at `present` says. That one stays in the list.
    fn learn(&mut self, present: &Address, announced: &[String]) {
        let Some(controllers) = controllers::merge(&self.controllers, present, announced) else { return };
        if !self.learns || controllers == self.controllers {
            return;
        }
        if let Err(error) = controllers::save(&self.folder, &controllers) {
            tracing::warn!(%error, "the controllers that there are now could not be noted");
        }
        self.next = controllers.iter().position(|address| address == present).unwrap_or(0);
        self.controllers = controllers;
    }

    fn stand(&self, text: String) {
        self.standing.send_replace(Standing::new(false, text));
    }

    /// Tells why the session ended, and how long to wait.
    fn after(&mut self, address: &Address, end: End) -> Duration {
        let agent_id = self.agent_id();
        match end {
            End::Renewed if self.identity.is_expired() => {
                let wait = self.retreat();
                tracing::error!(agent.id = %agent_id, expires_at = %self.identity.expires_at,
                    retry_ms = wait.as_millis(), "the new certificate has expired already; is this host's clock right?");
                self.stand("the new certificate has expired already".to_owned());
                wait
            }
            End::Renewed | End::ExecutorGone => Duration::ZERO,
            End::Goodbye(goodbye) => self.after_goodbye(address, &goodbye),
            End::Denied(message) => {
                tracing::error!(agent.id = %agent_id, controller = %address,
                    "the controller refuses this agent: {message}");
                self.stand(format!("refused by {address}: {message}"));
                around(DENIED_WAIT, 0.2)
            }
            End::Lost(why) => {
                let wait = self.retreat();
                tracing::warn!(agent.id = %agent_id, controller = %address, retry_ms = wait.as_millis(),
                    "the session is over: {why}");
                self.stand(format!("session with {address} lost: {why}"));
                wait
            }
        }
    }

    fn after_fault(&mut self, address: &Address, fault: &Fault) -> Duration {
        let why = chain(fault);
        self.stand(why.clone());
        if let Fault::Enroll(error) = fault
            && error.is_refusal()
        {
            tracing::error!(agent.id = %self.agent_id(), controller = %address,
                "the certificate is not renewed; if this agent was revoked, enroll it again with --force: {why}");
            return around(REFUSED_WAIT, 0.2);
        }
        let wait = self.retreat();
        // A controller that is away for a night is one line now and then, not thousands.
        if self.backoff.failures().is_power_of_two() {
            tracing::warn!(agent.id = %self.agent_id(), controller = %address, failures = self.backoff.failures(),
                retry_ms = wait.as_millis(), "no session: {why}");
        }
        wait
    }

    fn after_goodbye(&mut self, address: &Address, goodbye: &proto::Goodbye) -> Duration {
        let agent_id = self.agent_id();
        let (code, detail) = (goodbye.code.as_str(), goodbye.detail.as_str());
        self.stand(format!("{address} said {code}: {detail}"));
        let asked = Duration::from_millis(goodbye.retry_after_ms.into());
        let usual = match code {
            "revoked" => {
                tracing::error!(agent.id = %agent_id, controller = %address, detail,
                    "this agent is revoked; to use this host again, enroll it with a new token and --force");
                around(REFUSED_WAIT, 0.2)
            }
            "protocol_too_old" => {
                tracing::error!(agent.id = %agent_id, controller = %address, detail,
                    "this agent is too old for its controller; install a newer opsconductor-agent");
                around(REFUSED_WAIT, 0.2)
            }
            "pending" => {
                tracing::info!(agent.id = %agent_id, controller = %address, detail,
                    "this agent waits for somebody to approve it");
                around(PENDING_WAIT, 0.3)
            }
            "shutting_down" => {
                tracing::info!(agent.id = %agent_id, controller = %address, "the controller stops");
                self.next += 1;
                jitter(MOVED_WAIT)
            }
            "superseded" => {
                tracing::warn!(agent.id = %agent_id, controller = %address, detail,
                    "another process has opened a session with this agent's identity");
                self.retreat()
            }
            _ => {
                tracing::warn!(agent.id = %agent_id, controller = %address, code, detail,
                    "the controller ended the session");
                self.retreat()
            }
        };
        // The jitter goes on top: the controller gives everybody the same number.
        if asked.is_zero() { usual } else { asked + jitter(asked / 4) }
    }

    /// The wait after a failure; the next controller of the list is tried then.
    fn retreat(&mut self) -> Duration {
        self.next += 1;
        self.backoff.next()
    }
}

/// An error and all of its causes in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let part = error.to_string();
        if !text.ends_with(&part) {
            text.push_str(": ");
            text.push_str(&part);
        }
        cause = error.source();
    }
    text
}

/// What an error of a call says about the session.
fn end_of(status: &tonic::Status) -> End {
    match status.code() {
        Code::PermissionDenied if matches!(status.message(), "revoked" | "pending") => {
            End::Goodbye(proto::Goodbye { code: status.message().to_owned(), ..proto::Goodbye::default() })
        }
        Code::PermissionDenied | Code::Unauthenticated => End::Denied(status.message().to_owned()),
        code => End::Lost(format!("{} ({code:?})", chain(status))),
    }
}
