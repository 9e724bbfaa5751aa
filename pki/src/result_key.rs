//! The executor's signing key: with it an agent's results can be told from what its link, or anybody between, made up.

use std::fmt;

use zeroize::Zeroizing;

use crate::{
    Error, Signature,
    ed25519::{PrivateKey, PublicKey},
};

const NAME: &str = "result key";

/// The Ed25519 key that signs exit records; its public half is enrolled with the agent.
pub struct ResultKey(PrivateKey);

impl ResultKey {
    /// A new key.
    pub fn generate() -> Self {
        Self(PrivateKey::generate())
    }

    /// Reads a key that [`Self::to_pkcs8`] wrote.
    ///
    /// # Errors
    /// When the bytes are no Ed25519 key in PKCS#8.
    pub fn from_pkcs8(der: &[u8]) -> Result<Self, Error> {
        PrivateKey::from_pkcs8(der, NAME).map(Self)
    }

    /// The private key, to be kept in a file that nobody else can read.
    pub fn to_pkcs8(&self) -> Zeroizing<Vec<u8>> {
        self.0.to_pkcs8()
    }

    /// 32 bytes.
    pub fn public_key(&self) -> Vec<u8> {
        self.0.public_key()
    }

    /// Signs the envelope encoding of `kind` and `payload`.
    pub fn sign(&self, kind: &str, payload: &[u8]) -> Signature {
        self.0.sign(kind, payload)
    }
}

impl fmt::Debug for ResultKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ResultKey(<redacted>)")
    }
}

/// Checks a signature that [`ResultKey::sign`] made.
///
/// # Errors
/// When `public_key` is no Ed25519 key, or it did not sign this payload as this kind.
pub fn verify_result(public_key: &[u8], kind: &str, payload: &[u8], signature: &[u8]) -> Result<(), Error> {
    PublicKey::new(public_key, NAME)?.verify(kind, payload, signature)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_holds_for_its_kind_payload_and_key_alone() {
        let key = ResultKey::generate();
        let signature = key.sign("exit-record", b"exit 0");
        let public = key.public_key();
        assert_eq!(public.len(), 32);
        verify_result(&public, "exit-record", b"exit 0", &signature).unwrap();

        let other = ResultKey::generate().public_key();
        assert!(matches!(
            verify_result(&other, "exit-record", b"exit 0", &signature),
            Err(Error::Signature { .. })
        ));
        assert!(verify_result(&public, "exit-record", b"exit 1", &signature).is_err());
        assert!(verify_result(&public, "exit-recor", b"dexit 0", &signature).is_err());
        assert!(verify_result(&public, "exit-record", b"exit 0", &signature[..63]).is_err());
        assert!(verify_result(&public, "exit-record", b"exit 0", b"").is_err());
        assert!(matches!(
            verify_result(&public[..31], "exit-record", b"exit 0", &signature),
            Err(Error::Key(_))
        ));
    }

    #[test]
    fn a_key_survives_its_file() {
        let key = ResultKey::generate();
        let again = ResultKey::from_pkcs8(&key.to_pkcs8()).unwrap();
        assert_eq!(again.public_key(), key.public_key());
        assert_eq!(again.to_pkcs8(), key.to_pkcs8());
        assert!(ResultKey::from_pkcs8(&key.to_pkcs8()[1..]).is_err());
        assert_eq!(format!("{key:?}"), "ResultKey(<redacted>)");
    }
}
