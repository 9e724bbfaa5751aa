//! Whose orders the executor believes: the agent that it runs for, and the certificate of the controllers' intermediate.
//!
//! It is in the executor's own folder, noted when the host enrolls. What the link has in `link/identity` says the same,
//! but a link that was taken over could say something else there.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use model::id::{AgentId, OrgId};
use serde::{Deserialize, Serialize};

const FILE: &str = "anchor.toml";

/// What an order is held against.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Anchor {
    pub agent_id: AgentId,
    pub org_id: OrgId,
    pub trust_domain: String,
    /// The agent's name, for the log.
    pub name: String,
    /// The controllers' intermediate, DER.
    #[serde(with = "hex::serde")]
    pub controllers_ca: Vec<u8>,
}

/// Why there is none.
#[derive(Debug, thiserror::Error)]
pub enum AnchorError {
    #[error("cannot read or write '{path}'")]
    File { path: PathBuf, source: io::Error },
    #[error("'{path}' is damaged; enroll the agent anew with --force")]
    Damaged { path: PathBuf, source: toml::de::Error },
}

impl Anchor {
    /// Reads it; none when this host never enrolled.
    ///
    /// # Errors
    /// When it is there and cannot be used.
    pub fn load(data: &Path) -> Result<Option<Self>, AnchorError> {
        let path = super::folder(data).join(FILE);
        match std::fs::read_to_string(&path) {
            Ok(text) => {
                toml::from_str(&text).map(Some).map_err(|source| AnchorError::Damaged { path, source })
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(AnchorError::File { path, source }),
        }
    }

    /// Writes it: whole or not at all, also after a loss of power.
    ///
    /// # Errors
    /// When the executor's folder cannot be written.
    pub fn save(&self, data: &Path) -> Result<(), AnchorError> {
        let folder = super::folder(data);
        let text = toml::to_string(self).expect("an anchor is a plain table");
        write(&folder, &text).map_err(|source| AnchorError::File { path: folder.join(FILE), source })
    }
}

fn write(folder: &Path, text: &str) -> io::Result<()> {
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let new = folder.join("anchor.new");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&new, folder.join(FILE))?;
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn what_was_noted_is_found_and_damage_is_no_anchor() {
        let data = tempfile::tempdir().unwrap();
        assert_eq!(Anchor::load(data.path()).unwrap(), None);
        let anchor = Anchor {
            agent_id: AgentId(Uuid::from_u128(1)),
            org_id: OrgId(Uuid::from_u128(2)),
            trust_domain: "test.example".to_owned(),
            name: "host".to_owned(),
            controllers_ca: vec![0, 1, 255],
        };
        anchor.save(data.path()).unwrap();
        assert_eq!(Anchor::load(data.path()).unwrap(), Some(anchor));
        std::fs::write(super::super::folder(data.path()).join(FILE), "agent_id = 3").unwrap();
        assert!(matches!(Anchor::load(data.path()), Err(AnchorError::Damaged { .. })));
    }
}
