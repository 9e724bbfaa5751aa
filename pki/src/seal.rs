//! Sealed messages: environments and parameters that only the executor of one agent can read.
//!
//! HPKE (RFC 9180), base mode, DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, AES-128-GCM, one message for each
//! encapsulated key. Base mode does not say who sealed: the signed order around it does. `info` names the purpose,
//! `aad` the order that it belongs to, so that a sealed message cannot be moved into another.

use std::fmt;

use aws_lc_rs::agreement::{PrivateKey, X25519};
use rustls::crypto::{
    aws_lc_rs::hpke::DH_KEM_X25519_HKDF_SHA256_AES_128 as SUITE,
    hpke::{EncapsulatedSecret, Hpke, HpkePrivateKey, HpkePublicKey},
};
use zeroize::Zeroizing;

use crate::Error;

/// Bytes of an X25519 key, either half.
const KEY_BYTES: usize = 32;

/// The executor's key for sealed messages; its public half is enrolled with the agent.
pub struct SealKey {
    private: HpkePrivateKey,
    public: Vec<u8>,
}

impl SealKey {
    /// A new key.
    pub fn generate() -> Self {
        let (public, private) = SUITE.generate_key_pair().expect("the operating system gives randomness");
        Self { private, public: public.0 }
    }

    /// Reads a key that [`Self::to_bytes`] wrote.
    ///
    /// # Errors
    /// When it has another length, or the halves do not belong together.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Error> {
        let invalid = || Error::Key("seal key");
        if bytes.len() != 2 * KEY_BYTES {
            return Err(invalid());
        }
        let (private, public) = bytes.split_at(KEY_BYTES);
        let derived = PrivateKey::from_private_key(&X25519, private)
            .and_then(|key| key.compute_public_key().map_err(Into::into))
            .map_err(|_| invalid())?;
        if derived.as_ref() != public {
            return Err(invalid());
        }
        Ok(Self { private: HpkePrivateKey::from(private.to_vec()), public: public.to_vec() })
    }

    /// Private, then public half, to be kept in a file that nobody else can read.
    pub fn to_bytes(&self) -> Zeroizing<Vec<u8>> {
        let mut bytes = Zeroizing::new(Vec::with_capacity(2 * KEY_BYTES));
        bytes.extend_from_slice(self.private.secret_bytes());
        bytes.extend_from_slice(&self.public);
        bytes
    }

    /// 32 bytes.
    pub fn public_key(&self) -> Vec<u8> {
        self.public.clone()
    }

    /// Opens what [`seal`] made with the same `info` and `aad` for this key.
    ///
    /// # Errors
    /// When any of the four differs from the sealing's.
    pub fn open(
        &self,
        info: &[u8],
        aad: &[u8],
        encapsulated_key: &[u8],
        ciphertext: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, Error> {
        SUITE
            .open(&EncapsulatedSecret(encapsulated_key.to_vec()), info, aad, ciphertext, &self.private)
            .map(Zeroizing::new)
            .map_err(Error::Open)
    }
}

impl fmt::Debug for SealKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SealKey(<redacted>)")
    }
}

/// A message that one key can open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sealed {
    /// 32 bytes.
    pub encapsulated_key: Vec<u8>,
    /// 16 bytes longer than the plaintext.
    pub ciphertext: Vec<u8>,
}

/// Seals `plaintext` for the holder of `public_key`.
///
/// # Errors
/// When `public_key` is not a usable X25519 key.
pub fn seal(public_key: &[u8], info: &[u8], aad: &[u8], plaintext: &[u8]) -> Result<Sealed, Error> {
    if public_key.len() != KEY_BYTES {
        return Err(Error::Key("seal key"));
    }
    let (encapsulated, ciphertext) =
        SUITE.seal(info, aad, plaintext, &HpkePublicKey(public_key.to_vec())).map_err(Error::Seal)?;
    Ok(Sealed { encapsulated_key: encapsulated.0, ciphertext })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sealed_message_opens_for_its_key_and_context_alone() {
        let key = SealKey::generate();
        let sealed = seal(&key.public_key(), b"environment", b"order 1", b"PASSWORD=hunter2").unwrap();
        assert_eq!(sealed.encapsulated_key.len(), 32);
        assert_eq!(sealed.ciphertext.len(), 16 + 16);
        let open = |key: &SealKey, info: &[u8], aad: &[u8], sealed: &Sealed| {
            key.open(info, aad, &sealed.encapsulated_key, &sealed.ciphertext)
        };
        assert_eq!(*open(&key, b"environment", b"order 1", &sealed).unwrap(), b"PASSWORD=hunter2");

        assert!(matches!(open(&key, b"environment", b"order 2", &sealed), Err(Error::Open(_))));
        assert!(open(&key, b"parameters", b"order 1", &sealed).is_err());
        assert!(open(&SealKey::generate(), b"environment", b"order 1", &sealed).is_err());
        let mut damaged = sealed.clone();
        damaged.ciphertext[3] ^= 1;
        assert!(open(&key, b"environment", b"order 1", &damaged).is_err());
        let mut damaged = sealed.clone();
        damaged.encapsulated_key[3] ^= 1;
        assert!(open(&key, b"environment", b"order 1", &damaged).is_err());
        let cut = Sealed { encapsulated_key: Vec::new(), ciphertext: Vec::new() };
        assert!(open(&key, b"environment", b"order 1", &cut).is_err());
    }

    #[test]
    fn two_seals_of_one_text_differ() {
        let public = SealKey::generate().public_key();
        let [first, second] = [(); 2].map(|()| seal(&public, b"", b"", b"").unwrap());
        assert_ne!(first, second);
    }

    #[test]
    fn a_public_key_that_is_none_is_refused() {
        assert!(matches!(seal(b"short", b"", b"", b""), Err(Error::Key(_))));
        // The neutral point would make a secret that everybody knows.
        assert!(matches!(seal(&[0; 32], b"", b"", b""), Err(Error::Seal(_))));
    }

    #[test]
    fn a_key_survives_its_file() {
        let key = SealKey::generate();
        let bytes = key.to_bytes();
        let again = SealKey::from_bytes(&bytes).unwrap();
        let sealed = seal(&key.public_key(), b"i", b"a", b"text").unwrap();
        assert_eq!(*again.open(b"i", b"a", &sealed.encapsulated_key, &sealed.ciphertext).unwrap(), b"text");

        assert!(SealKey::from_bytes(&bytes[1..]).is_err());
        let mut swapped = bytes.clone();
        swapped[40] ^= 1;
        assert!(SealKey::from_bytes(&swapped).is_err());
        assert_eq!(format!("{key:?}"), "SealKey(<redacted>)");
    }
}
