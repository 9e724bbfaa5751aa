//! Who the agent is: its key, its certificate and what it trusts, in `link/identity/` of the data folder.
//!
//! Invariants:
//! 1. Every identity is a folder of its own, written whole and flushed before `current`, a symbolic link, is renamed
//!    onto it. Whoever is killed in between leaves the old identity or the new one, never half of one.
//! 2. Folders are 0700, files 0600. The key leaves its file only for the TLS handshake.
//! 3. What the folder holds was checked when it was written: the certificate names exactly one agent.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, symlink},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;
use model::id::{AgentId, OrgId};
use rustls::{
    ClientConfig,
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer},
};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::clock;

const CURRENT: &str = "current";
const KEY: &str = "key.der";
const CERTIFICATE: &str = "certificate.der";
const ISSUER: &str = "issuer.der";
const CONTROLLERS_CA: &str = "controllers_ca.der";
const ROOT: &str = "root.der";
const IDS: &str = "ids.toml";

/// The agent's identity, as it is in its folder.
#[derive(Clone)]
pub struct Identity {
    pub agent_id: AgentId,
    pub org_id: OrgId,
    pub trust_domain: String,
    pub name: String,
    /// When the certificate came, by this host's clock.
    pub obtained_at: Timestamp,
    pub expires_at: Timestamp,
    certificate: Vec<u8>,
    issuer: Vec<u8>,
    controllers_ca: Vec<u8>,
    root: Vec<u8>,
    key: Zeroizing<Vec<u8>>,
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Identity")
            .field("agent_id", &self.agent_id)
            .field("expires_at", &self.expires_at)
            .field("key", &"<redacted>")
            .finish_non_exhaustive()
    }
}

/// What is not in a certificate, or only for machines.
#[derive(Serialize, Deserialize)]
struct Ids {
    agent_id: AgentId,
    org_id: OrgId,
    trust_domain: String,
    name: String,
    obtained_at: Timestamp,
}

/// What is wrong with an identity.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    #[error("this agent is not enrolled: there is no identity in {0} (run 'opsconductor-agent enroll')")]
    NotEnrolled(PathBuf),
    #[error("cannot read the identity file {path}")]
    Read { path: PathBuf, source: io::Error },
    #[error("cannot write the identity file {path}")]
    Write { path: PathBuf, source: io::Error },
    #[error("the identity file {path} is damaged")]
    Damaged { path: PathBuf, source: toml::de::Error },
    #[error("the controller sent credentials that cannot be used")]
    Credentials(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("the controller sent credentials of another agent or trust domain")]
    Foreign,
}

impl Identity {
    /// Makes an identity of what the controller answered, after checking that the certificate is what the answer says.
    ///
    /// # Errors
    /// When certificate and ids do not belong together or cannot be read.
    pub fn from_credentials(
        credentials: proto::Credentials,
        name: String,
        key: Zeroizing<Vec<u8>>,
    ) -> Result<Self, IdentityError> {
        let ids = Ids {
            agent_id: AgentId::from_bytes(&credentials.agent_id).map_err(unusable)?,
            org_id: OrgId::from_bytes(&credentials.org_id).map_err(unusable)?,
            trust_domain: credentials.trust_domain,
            name,
            obtained_at: clock::now(),
        };
        let identity = Self::assemble(
            ids,
            credentials.certificate,
            credentials.issuer,
            credentials.controllers_ca,
            credentials.root,
            key,
        )?;
        identity.tls()?;
        Ok(identity)
    }

    /// The successor of this identity after a renewal.
    ///
    /// # Errors
    /// When the credentials are not usable or those of somebody else.
    pub fn renewed(
        &self,
        credentials: proto::Credentials,
        key: Zeroizing<Vec<u8>>,
    ) -> Result<Self, IdentityError> {
        let next = Self::from_credentials(credentials, self.name.clone(), key)?;
        if (next.agent_id, next.org_id, &next.trust_domain)
            != (self.agent_id, self.org_id, &self.trust_domain)
        {
            return Err(IdentityError::Foreign);
        }
        Ok(next)
    }

    fn assemble(
        ids: Ids,
        certificate: Vec<u8>,
        issuer: Vec<u8>,
        controllers_ca: Vec<u8>,
        root: Vec<u8>,
        key: Zeroizing<Vec<u8>>,
    ) -> Result<Self, IdentityError> {
        let named = pki::identity::AgentIdentity::from_certificate(&certificate).map_err(unusable)?;
        if (named.agent_id, named.org_id, &named.trust_domain)
            != (ids.agent_id, ids.org_id, &ids.trust_domain)
        {
            return Err(IdentityError::Foreign);
        }
        Ok(Self {
            agent_id: ids.agent_id,
            org_id: ids.org_id,
            trust_domain: ids.trust_domain,
            name: ids.name,
            obtained_at: ids.obtained_at,
            expires_at: named.not_after,
            certificate,
            issuer,
            controllers_ca,
            root,
            key,
        })
    }

    /// Whether the certificate is worth nothing any more but for a renewal.
    pub fn is_expired(&self) -> bool {
        clock::now() >= self.expires_at
    }

    /// Life of the certificate in this agent's hands; at half of it it is renewed.
    pub fn life(&self) -> Duration {
        self.expires_at.duration_since(self.obtained_at).try_into().unwrap_or(Duration::ZERO)
    }

    /// How old the certificate is.
    pub fn age(&self) -> Duration {
        clock::now().duration_since(self.obtained_at).try_into().unwrap_or(Duration::ZERO)
    }

    /// DER of the intermediate certificate that controllers' certificates are issued by.
    pub fn controllers_ca(&self) -> &[u8] {
        &self.controllers_ca
    }

    /// The TLS configuration with which the agent calls its controller.
    ///
    /// # Errors
    /// When key and certificate do not belong together.
    pub fn tls(&self) -> Result<Arc<ClientConfig>, IdentityError> {
        let chain = [&self.certificate, &self.issuer].map(|der| CertificateDer::from(der.clone())).to_vec();
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(self.key.to_vec()));
        pki::tls::client_config(&self.controllers_ca, &self.trust_domain, chain, key).map_err(unusable)
    }

    /// Reads the current identity in `folder`.
    ///
    /// # Errors
    /// When there is none, or one of its files cannot be read.
    pub fn load(folder: &Path) -> Result<Self, IdentityError> {
        let current = folder.join(CURRENT);
        if !current.exists() {
            return Err(IdentityError::NotEnrolled(folder.to_owned()));
        }
        let read = |name: &str| {
            let path = current.join(name);
            fs::read(&path).map_err(|source| IdentityError::Read { path, source })
        };
        let text = String::from_utf8_lossy(&read(IDS)?).into_owned();
        let ids = toml::from_str(&text)
            .map_err(|source| IdentityError::Damaged { path: current.join(IDS), source })?;
        Self::assemble(
            ids,
            read(CERTIFICATE)?,
            read(ISSUER)?,
            read(CONTROLLERS_CA)?,
            read(ROOT)?,
            Zeroizing::new(read(KEY)?),
        )
    }

    /// Writes the identity beside the current one in `folder`, and then makes it the current one.
    ///
    /// # Errors
    /// When a file cannot be written; the current identity is then as it was.
    pub fn save(&self, folder: &Path) -> Result<(), IdentityError> {
        let ids = Ids {
            agent_id: self.agent_id,
            org_id: self.org_id,
            trust_domain: self.trust_domain.clone(),
            name: self.name.clone(),
            obtained_at: self.obtained_at,
        };
        let ids = toml::to_string(&ids).expect("ids are a plain table");
        let files: [(&str, &[u8]); 6] = [
            (KEY, &self.key),
            (CERTIFICATE, &self.certificate),
            (ISSUER, &self.issuer),
            (CONTROLLERS_CA, &self.controllers_ca),
            (ROOT, &self.root),
            (IDS, ids.as_bytes()),
        ];
        switch(folder, &files)
    }
}

fn unusable(error: impl std::error::Error + Send + Sync + 'static) -> IdentityError {
    IdentityError::Credentials(Box::new(error))
}

/// Writes `files` into a new folder below `folder` and renames `current` onto it; then removes what was before.
fn switch(folder: &Path, files: &[(&str, &[u8])]) -> Result<(), IdentityError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| IdentityError::Write { path, source }
    };
    DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(failed(folder))?;
    let name = format!("{:016x}-{:08x}", clock::now_micros(), fastrand::u32(..));
    let fresh = folder.join(&name);
    DirBuilder::new().mode(0o700).create(&fresh).map_err(failed(&fresh))?;
    for (name, content) in files {
        let path = fresh.join(name);
        write_private(&path, content).map_err(failed(&path))?;
    }
    sync_folder(&fresh).map_err(failed(&fresh))?;

    let link = folder.join(format!("{name}.link"));
    symlink(&name, &link).map_err(failed(&link))?;
    let current = folder.join(CURRENT);
    fs::rename(&link, &current).map_err(failed(&current))?;
    sync_folder(folder).map_err(failed(folder))?;
    sweep(folder, &name);
    Ok(())
}

/// Writes a file that only its owner can read, and flushes it.
pub(crate) fn write_private(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(content)?;
    file.sync_all()
}

pub(crate) fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Removes everything but the identity called `keep`: older ones, and what an interrupted switch left.
fn sweep(folder: &Path, keep: &str) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        if entry.file_name() == keep || entry.file_name() == CURRENT {
            continue;
        }
        let removed = match entry.file_type() {
            Ok(kind) if kind.is_dir() => fs::remove_dir_all(entry.path()),
            _ => fs::remove_file(entry.path()),
        };
        if let Err(error) = removed {
            tracing::warn!(path = %entry.path().display(), %error, "cannot remove an old identity");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn content(folder: &Path) -> Vec<u8> {
        fs::read(folder.join(CURRENT).join("a")).unwrap()
    }

    #[test]
    fn the_newest_identity_is_current_and_the_older_one_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("identity");
        switch(&folder, &[("a", b"1"), ("b", b"x")]).unwrap();
        assert_eq!(content(&folder), b"1");
        switch(&folder, &[("a", b"2")]).unwrap();
        assert_eq!(content(&folder), b"2");
        assert!(!folder.join(CURRENT).join("b").exists());
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 2, "one identity and the link to it");
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&folder), 0o700);
        assert_eq!(mode(&folder.join(CURRENT)), 0o700);
        assert_eq!(mode(&folder.join(CURRENT).join("a")), 0o600);
    }

    #[test]
    fn what_an_interrupted_switch_left_does_no_harm() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        switch(folder, &[("a", b"1")]).unwrap();
        // Killed while it wrote the files, and killed between the link and the rename.
        fs::create_dir(folder.join("half")).unwrap();
        fs::write(folder.join("half").join("a"), b"").unwrap();
        symlink("half", folder.join("half.link")).unwrap();
        assert_eq!(content(folder), b"1");
        switch(folder, &[("a", b"2")]).unwrap();
        assert_eq!(content(folder), b"2");
        assert_eq!(fs::read_dir(folder).unwrap().count(), 2);
    }

    #[test]
    fn without_an_identity_it_says_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        let error = Identity::load(folder.path()).unwrap_err();
        assert!(error.to_string().contains("enroll"), "{error}");
    }
}
