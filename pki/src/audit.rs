//! The chain over an organization's audit, and the checkpoints that a controller signs of it.
//!
//! 1. The hash of an entry is over its organization, its number, its predecessor's hash and its own bytes
//!    ([`AuditEntry::encode`](model::audit::AuditEntry::encode)); number 1 follows [`BEGINNING`].
//! 2. A checkpoint names the one before it: of the checkpoints of an organization none can be left out quietly.
//! 3. A checkpoint counts if its certificate was valid when the checkpoint says that it was made, and for whoever hears of
//!    it as the newest if the certificate is valid now: a key that is out of use can date what it signs into its life.

mod verify;

pub use verify::{Finding, Outcome, Verification};

use jiff::{SignedDuration, Timestamp};
use model::{api::audit::SignedCheckpoint, id::OrgId};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::{Error, Signer, Verifier};

/// What a checkpoint's signature says it is.
pub const KIND: &str = "audit-checkpoint";
/// As [`KIND`], of the answer to one witness: the checkpoint before is the newest that it remembers. It is in no export.
pub const LINK: &str = "audit-link";
const DOMAIN: &[u8] = b"OPSC-AUDIT1";

/// A SHA-256.
pub type Hash = [u8; 32];

/// What number 1 follows.
pub const BEGINNING: Hash = [0; 32];

/// The hash of the entry with these bytes behind one with the hash `previous`.
pub fn link(organization: OrgId, seq: i64, previous: &Hash, entry: &[u8]) -> Hash {
    let mut hash = Sha256::new();
    hash.update(DOMAIN);
    for part in [&organization.0.as_bytes()[..], &seq.to_be_bytes(), previous, entry] {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    hash.finalize().into()
}

/// Reads a hash in hexadecimal.
pub fn parse_hash(text: &str) -> Option<Hash> {
    let mut hash = BEGINNING;
    hex::decode_to_slice(text, &mut hash).ok()?;
    Some(hash)
}

/// A number with the hash of its entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    pub seq: i64,
    #[serde(with = "hex::serde")]
    pub hash: Hash,
}

impl Place {
    /// Before any entry.
    pub const BEGINNING: Self = Self { seq: 0, hash: BEGINNING };
}

/// What is signed, as JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    pub organization: OrgId,
    #[serde(flatten)]
    pub place: Place,
    pub at: Timestamp,
    /// The checkpoint before it, with the hash that the chain had there when this one was made.
    pub previous: Option<Place>,
}

/// Why a checkpoint does not count.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    #[error("its signature or its certificate is not hexadecimal")]
    Form,
    #[error("{0}")]
    Signature(#[source] Error),
    #[error("what is signed is not a checkpoint")]
    Payload,
    #[error("it says something else than what was signed")]
    Repeated,
}

impl Checkpoint {
    /// Signs it.
    pub fn sign(&self, signer: &Signer) -> SignedCheckpoint {
        self.sign_as(KIND, signer)
    }

    /// Signs it as a [`KIND`] or a [`LINK`].
    pub fn sign_as(&self, kind: &str, signer: &Signer) -> SignedCheckpoint {
        let payload = serde_json::to_string(self).expect("plain data becomes JSON");
        let signature = signer.sign(kind, payload.as_bytes());
        SignedCheckpoint {
            seq: self.place.seq,
            hash: hex::encode(self.place.hash),
            at: self.at,
            payload,
            signature: hex::encode(signature),
            certificate: hex::encode(signer.certificate()),
        }
    }

    /// What a controller of the verifier's installation signed. Nothing of it is parsed before its signature holds.
    ///
    /// # Errors
    /// When the signature is none, the certificate was not valid at that time, or the fields around the payload differ.
    pub fn open(signed: &SignedCheckpoint, verifier: &Verifier) -> Result<Self, Refused> {
        let signature = hex::decode(&signed.signature).map_err(|_| Refused::Form)?;
        let certificate = hex::decode(&signed.certificate).map_err(|_| Refused::Form)?;
        let checkpoint = Self::read(signed.payload.as_bytes(), &signature, &certificate, verifier)?;
        let repeats = checkpoint.place.seq == signed.seq
            && parse_hash(&signed.hash) == Some(checkpoint.place.hash)
            && checkpoint.at == signed.at;
        if repeats { Ok(checkpoint) } else { Err(Refused::Repeated) }
    }

    /// As [`Self::open`], of the parts alone.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn read(
        payload: &[u8],
        signature: &[u8],
        certificate: &[u8],
        verifier: &Verifier,
    ) -> Result<Self, Refused> {
        Self::read_as(KIND, payload, signature, certificate, verifier)
    }

    /// As [`Self::read`], of what was signed as a [`KIND`] or a [`LINK`].
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn read_as(
        kind: &str,
        payload: &[u8],
        signature: &[u8],
        certificate: &[u8],
        verifier: &Verifier,
    ) -> Result<Self, Refused> {
        let mut read = None;
        let date = |payload: &[u8]| {
            let checkpoint: Self = serde_json::from_slice(payload).ok()?;
            read = Some(checkpoint);
            Some(checkpoint.at)
        };
        verifier.verify_dated(kind, payload, signature, certificate, date).map_err(Refused::Signature)?;
        read.ok_or(Refused::Payload)
    }

    /// As [`Self::read_as`], of one that was signed lately: its certificate is valid at `now` too, give or take `skew`.
    ///
    /// # Errors
    /// As [`Self::read`], and when the certificate is not valid now.
    pub fn read_fresh(
        kind: &str,
        payload: &[u8],
        signature: &[u8],
        certificate: &[u8],
        verifier: &Verifier,
        (now, skew): (Timestamp, SignedDuration),
    ) -> Result<Self, Refused> {
        let checkpoint = Self::read_as(kind, payload, signature, certificate, verifier)?;
        verifier.still_counts(certificate, now, skew).map_err(Refused::Signature)?;
        Ok(checkpoint)
    }
}

#[cfg(test)]
mod tests;
