//! The certificate authority's files, and the certificates that this controller itself uses.
//!
//! Invariants: the authority's keys live in files that only their owner reads, never in the database; its folder is there
//! whole or not at all. The dispatch key is in no file: it is made at the start and then anew at half of its certificate's
//! life, and what it signed is verified by the certificate that goes with it.

use std::{
    fs, io,
    io::Write,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};
use model::id::ControllerId;
use pki::{
    authority::{Authority, AuthorityPem},
    envelope::{DispatchKey, Signer, Verifier},
};
use rustls::ServerConfig;

/// Life of the certificate at the agents' door.
const DOOR_LIFE: SignedDuration = SignedDuration::from_hours(30 * 24);
/// Clocks of agents may be behind.
const BACKDATED: SignedDuration = SignedDuration::from_hours(1);
/// The authority's folder, and what it is while it is written.
const FOLDER: &str = "ca";
const UNFINISHED: &str = "ca.new";

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
    dispatch_key_life: SignedDuration,
    verifier: Verifier,
    /// With the time at which it was made.
    signer: RwLock<(Arc<Signer>, Timestamp)>,
    door: RwLock<Arc<ServerConfig>>,
}

impl std::fmt::Debug for Ca {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ca").field("trust_domain", &self.authority.trust_domain()).finish_non_exhaustive()
    }
}

/// Is there an authority in this data folder?
pub(crate) fn exists(data: &Path) -> bool {
    data.join(FOLDER).exists()
}

/// Makes the authority of a new installation.
pub(crate) fn create(data: &Path, trust_domain: &str, now: Timestamp) -> Result<(), CaError> {
    let new = Authority::create(trust_domain, now).map_err(CaError::Create)?;
    install(data, &new.authority.to_pem(), Some(new.root_key_pem.as_str()))
}

/// Makes sure that an authority can be written here, before something is spent for it.
pub(crate) fn prepare(data: &Path) -> Result<(), CaError> {
    let folder = data.join(UNFINISHED);
    if folder.exists() {
        fs::remove_dir_all(&folder).map_err(|error| CaError::Write(folder.clone(), error))?;
    }
    private_folder(&folder)
}

/// Removes what [`prepare`] made; what cannot be removed is removed by the next try.
pub(crate) fn discard(data: &Path) {
    if let Err(error) = fs::remove_dir_all(data.join(UNFINISHED)) {
        tracing::warn!(%error, "an unfinished folder is left in {}", data.display());
    }
}

/// Writes an authority's files: all of them or none. The root's key is there with the installation's first controller.
pub(crate) fn install(data: &Path, pem: &AuthorityPem, root_key: Option<&str>) -> Result<(), CaError> {
    prepare(data)?;
    let unfinished = data.join(UNFINISHED);
    let write = |name: &str, text: &str| write_private(&unfinished.join(name), text.as_bytes());
    if let Some(root_key) = root_key {
        write("root.key", root_key)?;
    }
    write("root.pem", &pem.root_cert)?;
    write("agents.pem", &pem.agents_cert)?;
    write("agents.key", &pem.agents_key)?;
    write("controllers.pem", &pem.controllers_cert)?;
    write("controllers.key", &pem.controllers_key)?;
    write("trust-domain", &pem.trust_domain)?;
    let folder = data.join(FOLDER);
    fs::rename(&unfinished, &folder)
        .and_then(|()| fs::File::open(data)?.sync_all())
        .map_err(|error| CaError::Write(folder, error))
}

/// Reads the authority of this data folder.
pub(crate) fn read(data: &Path) -> Result<Authority, CaError> {
    let folder = data.join(FOLDER);
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
    Authority::from_pem(&pem).map_err(|error| CaError::Damaged(folder, error))
}

impl Ca {
    /// Reads the authority and makes this controller's own keys and certificates.
    pub(crate) fn open(
        data: &Path,
        controller: ControllerId,
        dispatch_key_life: Duration,
        now: Timestamp,
    ) -> Result<Self, CaError> {
        let authority = read(data)?;
        let verifier = Verifier::new(authority.controllers_ca_der(), authority.trust_domain())
            .map_err(|error| CaError::Damaged(data.join(FOLDER), error))?;
        let dispatch_key_life = SignedDuration::try_from(dispatch_key_life).unwrap_or(DOOR_LIFE);
        let signer = RwLock::new((issue_signer(&authority, controller, dispatch_key_life, now)?, now));
        let door = RwLock::new(issue_door(&authority, controller, now)?);
        Ok(Self { controller, authority, dispatch_key_life, verifier, signer, door })
    }

    /// Gives this controller a new dispatch key and fresh certificates.
    pub(crate) fn renew(&self, now: Timestamp) -> Result<(), CaError> {
        let signer = issue_signer(&self.authority, self.controller, self.dispatch_key_life, now)?;
        let door = issue_door(&self.authority, self.controller, now)?;
        *self.signer.write().unwrap_or_else(PoisonError::into_inner) = (signer, now);
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
        Arc::clone(&self.signer.read().unwrap_or_else(PoisonError::into_inner).0)
    }

    /// When the present dispatch key was made.
    pub(crate) fn renewed_at(&self) -> Timestamp {
        self.signer.read().unwrap_or_else(PoisonError::into_inner).1
    }

    /// What the agents' door serves with now.
    pub(crate) fn door(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.door.read().unwrap_or_else(PoisonError::into_inner))
    }
}

fn issue_signer(
    authority: &Authority,
    controller: ControllerId,
    life: SignedDuration,
    now: Timestamp,
) -> Result<Arc<Signer>, CaError> {
    let key = DispatchKey::generate();
    let certificate =
        authority.issue_dispatch(controller, &key, now - BACKDATED, now + life).map_err(CaError::Issue)?;
    Ok(Arc::new(Signer::new(key, certificate)))
}

fn issue_door(
    authority: &Authority,
    controller: ControllerId,
    now: Timestamp,
) -> Result<Arc<ServerConfig>, CaError> {
    let identity =
        authority.issue_controller(controller, now - BACKDATED, now + DOOR_LIFE).map_err(CaError::Issue)?;
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
