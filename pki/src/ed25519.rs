//! Ed25519 over the envelope encoding: what the dispatch key and the result key have in common.

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair, ParsedPublicKey};
use zeroize::Zeroizing;

use crate::{Error, Signature, envelope::pae};

/// A private key and its public half.
pub(crate) struct PrivateKey {
    pair: Ed25519KeyPair,
    pkcs8: Zeroizing<Vec<u8>>,
}

impl PrivateKey {
    pub(crate) fn generate() -> Self {
        let pair = Ed25519KeyPair::generate().expect("the operating system gives randomness");
        let document = pair.to_pkcs8().expect("a key that was just made can be encoded");
        Self { pair, pkcs8: Zeroizing::new(document.as_ref().to_vec()) }
    }

    pub(crate) fn from_pkcs8(der: &[u8], name: &'static str) -> Result<Self, Error> {
        let pair = Ed25519KeyPair::from_pkcs8(der).map_err(|_| Error::Key(name))?;
        Ok(Self { pair, pkcs8: Zeroizing::new(der.to_vec()) })
    }

    pub(crate) fn to_pkcs8(&self) -> Zeroizing<Vec<u8>> {
        self.pkcs8.clone()
    }

    pub(crate) fn public_key(&self) -> Vec<u8> {
        self.pair.public_key().as_ref().to_vec()
    }

    pub(crate) fn sign(&self, kind: &str, payload: &[u8]) -> Signature {
        self.pair.sign(&pae(kind, payload)).as_ref().to_vec()
    }
}

/// A public key that was checked once and verifies many times.
pub(crate) struct PublicKey(ParsedPublicKey);

impl PublicKey {
    /// Bytes of a public key.
    pub(crate) const BYTES: usize = 32;

    pub(crate) fn new(bytes: &[u8], name: &'static str) -> Result<Self, Error> {
        if bytes.len() != Self::BYTES {
            return Err(Error::Key(name));
        }
        ParsedPublicKey::new(&ED25519, bytes).map(Self).map_err(|_| Error::Key(name))
    }

    /// Strict as RFC 8032 asks: 64 bytes, and the scalar below the group's order, so that a signature has one form.
    pub(crate) fn verify(&self, kind: &str, payload: &[u8], signature: &[u8]) -> Result<(), Error> {
        self.0
            .verify_sig(&pae(kind, payload), signature)
            .map_err(|_| Error::Signature { kind: kind.to_owned() })
    }
}
