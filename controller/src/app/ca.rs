//! The certificate authority's files, and the certificates that this controller itself uses.
//!
//! Keys live in files that only their owner reads, never in the database. The dispatch key's certificate and the
//! agents' door's are made anew at each start and then daily.

use std::{
    fs, io,
    io::Write,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
};

use jiff::{SignedDuration, Timestamp};
use model::id::ControllerId;
use pki::{
    authority::{Authority, AuthorityPem},
    envelope::{DispatchKey, Signer, Verifier},
};
use rustls::ServerConfig;
use zeroize::Zeroizing;

/// Life of the controller's own certificates; they are renewed daily.
const OWN_CERTIFICATE_LIFE: SignedDuration = SignedDuration::from_hours(30 * 24);
/// Clocks of agents may be behind.
const BACKDATED: SignedDuration = SignedDuration::from_hours(1);

/// Why the authority cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CaError {
    #[error("cannot write {0}")]
    Write(PathBuf, #[source] io::Error),
    #[error("cannot read {0}")]
    Read(PathBuf, #[source] io::Error),
    #[error("the certificate authority in {0} is damaged")]
    Damaged(PathBuf, #[source] pki::Error),
    #[error("cannot make the certificate authority")]
    Create(#[source] pki::Error),
    #[error("cannot issue the controller's own certificates")]
    Issue(#[source] pki::Error),
}

/// The authority with what this controller signs and serves with.
pub(crate) struct Ca {
    controller: ControllerId,
    authority: Authority,
    /// PKCS#8: what a fresh signer is made from.
    dispatch_key: Zeroizing<Vec<u8>>,
    verifier: Verifier,
    signer: RwLock<Arc<Signer>>,
    door: RwLock<Arc<ServerConfig>>,
}

impl std::fmt::Debug for Ca {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ca").field("trust_domain", &self.authority.trust_domain()).finish_non_exhaustive()
    }
}

/// Is there an authority in this data folder?
pub(crate) fn exists(data: &Path) -> bool {
    data.join("ca/trust-domain").exists()
}

/// Makes the authority of a new installation. Its last file is the one that says that it is whole.
pub(crate) fn create(data: &Path, trust_domain: &str, now: Timestamp) -> Result<(), CaError> {
    let new = Authority::create(trust_domain, now).map_err(CaError::Create)?;
    let pem = new.authority.to_pem();
    let folder = data.join("ca");
    private_folder(&folder)?;
    write_private(&folder.join("root.key"), new.root_key_pem.as_bytes())?;
    write_private(&folder.join("root.pem"), pem.root_cert.as_bytes())?;
    write_private(&folder.join("agents.pem"), pem.agents_cert.as_bytes())?;
    write_private(&folder.join("agents.key"), pem.agents_key.as_bytes())?;
    write_private(&folder.join("controllers.pem"), pem.controllers_cert.as_bytes())?;
    write_private(&folder.join("controllers.key"), pem.controllers_key.as_bytes())?;
    write_private(&folder.join("trust-domain"), trust_domain.as_bytes())
}

impl Ca {
    /// Reads the authority and makes this controller's own certificates.
    pub(crate) fn open(data: &Path, controller: ControllerId, now: Timestamp) -> Result<Self, CaError> {
        let folder = data.join("ca");
        let text = |name: &str| {
            let path = folder.join(name);
            fs::read_to_string(&path).map_err(|error| CaError::Read(path, error))
        };
        let pem = AuthorityPem {
            trust_domain: text("trust-domain")?.trim().to_owned(),
            root_cert: text("root.pem")?,
            agents_cert: text("agents.pem")?,
            agents_key: text("agents.key")?.into(),
            controllers_cert: text("controllers.pem")?,
            controllers_key: text("controllers.key")?.into(),
        };
        let damaged = |error| CaError::Damaged(folder.clone(), error);
        let authority = Authority::from_pem(&pem).map_err(damaged)?;
        let key_path = data.join("dispatch.key");
        let dispatch_key = match fs::read(&key_path) {
            Ok(key) => Zeroizing::new(key),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let key = DispatchKey::generate().to_pkcs8();
                write_private(&key_path, &key)?;
                key
            }
            Err(error) => return Err(CaError::Read(key_path, error)),
        };
        let verifier =
            Verifier::new(authority.controllers_ca_der(), authority.trust_domain()).map_err(damaged)?;
        let signer = RwLock::new(issue_signer(&authority, &dispatch_key, controller, now)?);
        let door = RwLock::new(issue_door(&authority, controller, now)?);
        Ok(Self { controller, authority, dispatch_key, verifier, signer, door })
    }

    /// Gives this controller fresh certificates.
    pub(crate) fn renew(&self, now: Timestamp) -> Result<(), CaError> {
        let signer = issue_signer(&self.authority, &self.dispatch_key, self.controller, now)?;
        let door = issue_door(&self.authority, self.controller, now)?;
        *self.signer.write().unwrap_or_else(PoisonError::into_inner) = signer;
        *self.door.write().unwrap_or_else(PoisonError::into_inner) = door;
        Ok(())
    }

    pub(crate) fn authority(&self) -> &Authority {
        &self.authority
    }

    pub(crate) fn verifier(&self) -> &Verifier {
        &self.verifier
    }

    /// What orders and manifests are signed with now.
    pub(crate) fn signer(&self) -> Arc<Signer> {
        Arc::clone(&self.signer.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// What the agents' door serves with now.
    pub(crate) fn door(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.door.read().unwrap_or_else(PoisonError::into_inner))
    }
}

fn issue_signer(
    authority: &Authority,
    key: &[u8],
    controller: ControllerId,
    now: Timestamp,
) -> Result<Arc<Signer>, CaError> {
    let key = DispatchKey::from_pkcs8(key).map_err(CaError::Issue)?;
    let certificate = authority
        .issue_dispatch(controller, &key, now - BACKDATED, now + OWN_CERTIFICATE_LIFE)
        .map_err(CaError::Issue)?;
    Ok(Arc::new(Signer::new(key, certificate)))
}

fn issue_door(
    authority: &Authority,
    controller: ControllerId,
    now: Timestamp,
) -> Result<Arc<ServerConfig>, CaError> {
    let identity = authority
        .issue_controller(controller, now - BACKDATED, now + OWN_CERTIFICATE_LIFE)
        .map_err(CaError::Issue)?;
    pki::tls::server_config(identity, authority.agents_ca_der()).map_err(CaError::Issue)
}

/// A folder for its owner alone.
pub(crate) fn private_folder(path: &Path) -> Result<(), CaError> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|error| CaError::Write(path.to_owned(), error))
}

/// Writes a file that only its owner reads: whole or not at all, and durable.
pub(crate) fn write_private(path: &Path, bytes: &[u8]) -> Result<(), CaError> {
    let failed = |error| CaError::Write(path.to_owned(), error);
    let temporary = path.with_extension("new");
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&temporary)
        .map_err(failed)?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(failed)?;
    fs::rename(&temporary, path).map_err(failed)?;
    let folder = path.parent().expect("a file has a folder");
    fs::File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed)
}
