//! The executor's two private keys, each a file that nobody else can read: one signs exit records, to the other the
//! environments of orders are sealed. Their public halves are enrolled; the link never sees the private ones.

use std::{
    fs::{DirBuilder, File, OpenOptions},
    io::{self, ErrorKind, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use pki::{ResultKey, SealKey};
use zeroize::Zeroizing;

/// The pair.
#[derive(Debug)]
pub struct Keys {
    pub result_key: ResultKey,
    pub seal_key: SealKey,
}

/// Why there are no keys.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    #[error("cannot read or write the key file '{path}'")]
    File { path: PathBuf, source: io::Error },
    #[error("the key file '{path}' is damaged; enroll the agent anew after moving it away")]
    Damaged { path: PathBuf, source: pki::Error },
}

/// Reads both keys; the first time, or when one is missing, makes it.
///
/// # Errors
/// When a file cannot be used or is damaged. A damaged key is never replaced by itself: the controller knows its
/// public half.
pub fn load_or_create(data: &Path) -> Result<Keys, KeysError> {
    let folder = super::folder(data).join("keys");
    let fail = |source| KeysError::File { path: folder.clone(), source };
    DirBuilder::new().recursive(true).mode(0o700).create(&folder).map_err(fail)?;
    let result_key =
        load(&folder.join("result.key"), || ResultKey::generate().to_pkcs8(), ResultKey::from_pkcs8)?;
    let seal_key = load(&folder.join("seal.key"), || SealKey::generate().to_bytes(), SealKey::from_bytes)?;
    Ok(Keys { result_key, seal_key })
}

fn load<K>(
    path: &Path,
    make: impl FnOnce() -> Zeroizing<Vec<u8>>,
    parse: impl FnOnce(&[u8]) -> Result<K, pki::Error>,
) -> Result<K, KeysError> {
    let fail = |source| KeysError::File { path: path.to_owned(), source };
    let bytes = match std::fs::read(path) {
        Ok(bytes) => Zeroizing::new(bytes),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let bytes = make();
            write(path, &bytes).map_err(fail)?;
            bytes
        }
        Err(error) => return Err(fail(error)),
    };
    parse(&bytes).map_err(|source| KeysError::Damaged { path: path.to_owned(), source })
}

/// Whole or not at all, also after a loss of power.
fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let new = path.with_extension("new");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&new, path)?;
    path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn keys_stay_the_same_and_are_private() {
        let data = tempfile::tempdir().unwrap();
        let made = load_or_create(data.path()).unwrap();
        let read = load_or_create(data.path()).unwrap();
        assert_eq!(made.result_key.public_key(), read.result_key.public_key());
        assert_eq!(made.seal_key.public_key(), read.seal_key.public_key());
        let path = data.path().join("executor/keys/seal.key");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        std::fs::write(&path, b"rubbish").unwrap();
        assert!(matches!(load_or_create(data.path()), Err(KeysError::Damaged { .. })));
    }
}
