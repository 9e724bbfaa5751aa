//! The certificate of the people's door: from files of the operator's, or from the installation's own CA. Either is
//! replaced while the door serves: connections that are open keep what they began with.

use std::{path::PathBuf, sync::Arc, time::Duration};

use axum_server::tls_rustls::RustlsConfig;
use jiff::{SignedDuration, Timestamp};
use rustls::ServerConfig;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::{app::App, clock};

/// How often files are looked at, and the longest time between two looks at a certificate's age.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// Clocks of people's machines may be behind.
const BACKDATED: SignedDuration = SignedDuration::from_hours(1);

/// Whence the certificate is.
#[derive(Debug, Clone)]
pub(crate) enum Source {
    /// PEM files of a chain and its key.
    Files { certificate: PathBuf, key: PathBuf },
    /// The installation's own CA, for these host names and addresses.
    Internal { names: Vec<String>, life: Duration },
}

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TlsError {
    #[error("cannot read {0}")]
    Read(PathBuf, #[source] std::io::Error),
    #[error("cannot use {0} with its key")]
    Use(PathBuf, #[source] pki::Error),
    #[error("cannot issue a certificate for the API's door")]
    Issue(#[source] pki::Error),
}

/// What the door serves with, and what that was made from.
pub(crate) struct Keeper {
    source: Source,
    config: RustlsConfig,
    /// The files as they were read, or the moment of the issue.
    of: Made,
}

#[derive(PartialEq, Eq)]
enum Made {
    Of([u8; 32]),
    At(Timestamp),
}

impl std::fmt::Debug for Keeper {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keeper").field("source", &self.source).finish_non_exhaustive()
    }
}

/// Reads the files once, so that a wrong one is told before anything is started.
///
/// # Errors
/// When they cannot be used.
pub(crate) fn try_files(source: &Source) -> Result<(), TlsError> {
    match source {
        Source::Files { certificate, key } => read_files(certificate, key).map(drop),
        Source::Internal { .. } => Ok(()),
    }
}

impl Keeper {
    /// # Errors
    /// When there is no certificate to begin with.
    pub(crate) fn new(source: Source, app: &App) -> Result<Self, TlsError> {
        let (config, of) = make(&source, app)?;
        Ok(Self { source, config: RustlsConfig::from_config(config), of })
    }

    pub(crate) fn config(&self) -> RustlsConfig {
        self.config.clone()
    }

    /// Replaces the certificate when that is due or SIGHUP asks for it, until `stop`. What cannot be used is logged, and
    /// the door goes on with what it has.
    pub(crate) async fn keep(mut self, app: Arc<App>, stop: CancellationToken) -> std::io::Result<()> {
        let mut hangup = signal(SignalKind::hangup())?;
        let look_every = match &self.source {
            Source::Files { .. } => LOOK_EVERY,
            Source::Internal { life, .. } => LOOK_EVERY.min(*life / 8),
        };
        // The same trouble is told once.
        let mut told = None;
        loop {
            let is_asked = tokio::select! {
                () = stop.cancelled() => return Ok(()),
                _ = hangup.recv() => true,
                () = tokio::time::sleep(look_every) => false,
            };
            if !is_asked && !self.may_be_due() {
                continue;
            }
            match make(&self.source, &app) {
                Ok((config, of)) if is_asked || of != self.of => {
                    self.config.reload_from_config(config);
                    self.of = of;
                    told = None;
                    tracing::info!("the API's door has a new certificate");
                }
                Ok(_) => {}
                Err(error) => {
                    let text = format!(
                        "{error}: {}",
                        std::error::Error::source(&error).map_or_else(String::new, ToString::to_string)
                    );
                    if is_asked || told.as_ref() != Some(&text) {
                        tracing::error!("the API's door keeps its certificate: {text}");
                    }
                    told = Some(text);
                }
            }
        }
    }

    fn may_be_due(&self) -> bool {
        match (&self.source, &self.of) {
            (Source::Internal { life, .. }, Made::At(at)) => {
                let half = SignedDuration::try_from(*life / 2).unwrap_or(SignedDuration::ZERO);
                clock::now().duration_since(*at) >= half
            }
            _ => true,
        }
    }
}

fn make(source: &Source, app: &App) -> Result<(Arc<ServerConfig>, Made), TlsError> {
    match source {
        Source::Files { certificate, key } => read_files(certificate, key),
        Source::Internal { names, life } => {
            let now = clock::now();
            let life = SignedDuration::try_from(*life).unwrap_or(SignedDuration::MAX);
            let identity =
                app.ca.authority().issue_door(names, now - BACKDATED, now + life).map_err(TlsError::Issue)?;
            Ok((pki::door::door_config(identity).map_err(TlsError::Issue)?, Made::At(now)))
        }
    }
}

fn read_files(certificate: &PathBuf, key: &PathBuf) -> Result<(Arc<ServerConfig>, Made), TlsError> {
    let read = |path: &PathBuf| std::fs::read(path).map_err(|error| TlsError::Read(path.clone(), error));
    let (chain, secret) = (read(certificate)?, zeroize::Zeroizing::new(read(key)?));
    let config = pki::door::read_identity(&chain, &secret)
        .and_then(pki::door::door_config)
        .map_err(|error| TlsError::Use(certificate.clone(), error))?;
    let mut both = zeroize::Zeroizing::new(chain);
    both.extend_from_slice(&secret);
    Ok((config, Made::Of(pki::sha256(&both))))
}
