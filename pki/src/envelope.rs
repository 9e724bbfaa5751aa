//! Signed envelopes: how orders and manifests prove which controller sent them.
//!
//! 1. What is signed is the kind and the payload's exact bytes, each with its length before it, so that no payload can
//!    be taken for one of another kind. The payload is not parsed before its signature holds.
//! 2. The signing certificate travels with the envelope; it counts only if the controllers' intermediate issued it as
//!    a dispatch certificate of the own trust domain, and only inside its validity.
//! 3. A certificate is verified once and remembered; its validity is looked at every time.

use std::{
    collections::VecDeque,
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use jiff::{SignedDuration, Timestamp};
use model::id::ControllerId;
use x509_parser::oid_registry::OID_SIG_ED25519;
use zeroize::Zeroizing;

use crate::{
    CertificateFault, Error,
    certificate::{self, Use, Validity},
    ed25519::{PrivateKey, PublicKey},
    identity::{self, Subject},
    sha256,
};

const NAME: &str = "dispatch key";
/// Certificates that a verifier remembers: those of some controllers, and of their keys before a rotation.
const REMEMBERED: usize = 32;

/// 64 bytes of Ed25519.
pub type Signature = Vec<u8>;

/// The bytes that are signed: `OPSC1`, then kind and payload, each with its length before it as eight bytes,
/// big-endian (after the pre-authentication encoding of DSSE).
pub fn pae(kind: &str, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(5 + 8 + kind.len() + 8 + payload.len());
    bytes.extend_from_slice(b"OPSC1");
    for part in [kind.as_bytes(), payload] {
        bytes.extend_from_slice(&(part.len() as u64).to_be_bytes());
        bytes.extend_from_slice(part);
    }
    bytes
}

/// A controller's Ed25519 key for orders and manifests. It lives in a file, never in the database.
pub struct DispatchKey(PrivateKey);

impl DispatchKey {
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
}

impl fmt::Debug for DispatchKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DispatchKey(<redacted>)")
    }
}

/// Signs with a dispatch key and knows its certificate.
#[derive(Debug)]
pub struct Signer {
    key: DispatchKey,
    certificate: Vec<u8>,
}

impl Signer {
    /// `certificate_der` is what `Authority::issue_dispatch` gave for this key.
    pub fn new(key: DispatchKey, certificate_der: Vec<u8>) -> Self {
        Self { key, certificate: certificate_der }
    }

    /// Signs the encoding of `kind` and `payload`.
    pub fn sign(&self, kind: &str, payload: &[u8]) -> Signature {
        self.key.0.sign(kind, payload)
    }

    /// The certificate, DER, that goes into the envelope.
    pub fn certificate(&self) -> &[u8] {
        &self.certificate
    }
}

/// Verifies envelopes of one trust domain; may be shared by threads.
pub struct Verifier {
    controllers_ca: Vec<u8>,
    trust_domain: String,
    /// By SHA-256 of the certificate; the newest last.
    remembered: Mutex<VecDeque<([u8; 32], Arc<DispatchCertificate>)>>,
}

/// A dispatch certificate whose issuer, use and name were verified.
struct DispatchCertificate {
    controller: ControllerId,
    validity: Validity,
    key: PublicKey,
}

impl Verifier {
    /// `controllers_ca_der` is the controllers' intermediate.
    ///
    /// # Errors
    /// When it is not a CA that may issue dispatch certificates, or the trust domain's name is none.
    pub fn new(controllers_ca_der: &[u8], trust_domain: &str) -> Result<Self, Error> {
        identity::check_trust_domain(trust_domain)?;
        certificate::parse(controllers_ca_der)
            .and_then(|ca| certificate::check_ca(&ca, Use::Dispatch))
            .map_err(Error::Certificate)?;
        Ok(Self {
            controllers_ca: controllers_ca_der.to_vec(),
            trust_domain: trust_domain.to_owned(),
            remembered: Mutex::default(),
        })
    }

    /// Which controller signed this, at `now`. The certificate's start is not softened by a clock skew: who issues it
    /// dates it back.
    ///
    /// # Errors
    /// When the certificate is not a valid dispatch certificate of this trust domain, or the signature is not one of
    /// its key over this kind and payload.
    pub fn verify(
        &self,
        kind: &str,
        payload: &[u8],
        signature: &[u8],
        certificate_der: &[u8],
        now: Timestamp,
    ) -> Result<ControllerId, Error> {
        let certificate = self.certificate(certificate_der)?;
        certificate.validity.check(now).map_err(Error::Certificate)?;
        certificate.key.verify(kind, payload, signature)?;
        Ok(certificate.controller)
    }

    /// As [`Self::verify`], of something that says itself when it was signed: `date` reads that from the payload, once the
    /// signature holds. A payload without a date counts as signed at no time, and is refused.
    ///
    /// # Errors
    /// As [`Self::verify`].
    pub fn verify_dated(
        &self,
        kind: &str,
        payload: &[u8],
        signature: &[u8],
        certificate_der: &[u8],
        date: impl FnOnce(&[u8]) -> Option<Timestamp>,
    ) -> Result<ControllerId, Error> {
        let certificate = self.certificate(certificate_der)?;
        certificate.key.verify(kind, payload, signature)?;
        let at = date(payload).ok_or(Error::Undated)?;
        certificate.validity.check(at).map_err(Error::Certificate)?;
        Ok(certificate.controller)
    }

    /// Whether the certificate of something that was verified as of its own time counts at `now` as well, give or take
    /// `skew`. Without this a key that is out of use could sign for ever what it dates into its life.
    ///
    /// # Errors
    /// When the certificate is none of this installation's, or not valid then.
    pub fn still_counts(
        &self,
        certificate_der: &[u8],
        now: Timestamp,
        skew: SignedDuration,
    ) -> Result<(), Error> {
        let Validity { not_before, not_after } = self.certificate(certificate_der)?.validity;
        let widened = Validity {
            not_before: not_before.saturating_sub(skew).unwrap_or(not_before),
            not_after: not_after.saturating_add(skew).unwrap_or(not_after),
        };
        widened.check(now).map_err(Error::Certificate)
    }

    fn certificate(&self, der: &[u8]) -> Result<Arc<DispatchCertificate>, Error> {
        let digest = sha256(der);
        let known = self
            .remembered
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .iter()
            .rev()
            .find_map(|(known, certificate)| (*known == digest).then(|| Arc::clone(certificate)));
        if let Some(certificate) = known {
            return Ok(certificate);
        }
        let certificate = Arc::new(self.read(der)?);
        let mut remembered = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        if remembered.len() == REMEMBERED {
            remembered.pop_front();
        }
        remembered.push_back((digest, Arc::clone(&certificate)));
        Ok(certificate)
    }

    fn read(&self, der: &[u8]) -> Result<DispatchCertificate, Error> {
        let (controller, validity, key) = (|| {
            let ca = certificate::parse(&self.controllers_ca)?;
            let certificate = certificate::parse(der)?;
            certificate::check_issued_by(&certificate, &ca)?;
            let uri = certificate::leaf_uri(&certificate, Use::Dispatch)?;
            let (trust_domain, Subject::Dispatch(controller)) = identity::parse_uri(uri)? else {
                return Err(CertificateFault::Form);
            };
            if trust_domain != self.trust_domain {
                return Err(CertificateFault::TrustDomain);
            }
            let key = certificate.public_key();
            if key.algorithm.algorithm != OID_SIG_ED25519 {
                return Err(CertificateFault::KeyKind);
            }
            Ok((controller, Validity::of(&certificate)?, key.subject_public_key.data.to_vec()))
        })()
        .map_err(Error::Certificate)?;
        Ok(DispatchCertificate { controller, validity, key: PublicKey::new(&key, NAME)? })
    }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verifier").field("trust_domain", &self.trust_domain).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
