//! Who a certificate names: the SPIFFE URIs of agents and controllers, and the agent's own key and request.
//!
//! There are three forms and no other; ids are lower-case UUIDs with hyphens:
//! - an agent: `spiffe://<trust domain>/org/<uuid>/agent/<uuid>`
//! - a controller's TLS door: `spiffe://<trust domain>/controller/<uuid>`
//! - a controller's dispatch key: `spiffe://<trust domain>/controller/<uuid>/dispatch`

use jiff::Timestamp;
use model::id::{AgentId, ControllerId, OrgId};
use rcgen::{CertificateParams, DistinguishedName, KeyPair, PKCS_ECDSA_P256_SHA256};
use uuid::Uuid;
use x509_parser::certificate::X509Certificate;
use zeroize::Zeroizing;

use crate::{
    CertificateFault, Error,
    certificate::{self, Use, Validity},
};

/// Bytes of a certificate's serial number, padded in front with zeros.
pub const SERIAL_BYTES: usize = 16;
/// Bytes of a trust domain's name.
const TRUST_DOMAIN_BYTES: usize = 255;

/// What an agent's certificate says. Nothing else about an agent counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentIdentity {
    pub trust_domain: String,
    pub org_id: OrgId,
    pub agent_id: AgentId,
    /// [`SERIAL_BYTES`] bytes: what `Authority::issue_agent` was given, its top bit cleared.
    pub serial: Vec<u8>,
    /// The first second of its validity: of two certificates of an agent, the newer has the later one.
    pub not_before: Timestamp,
    /// The last second of its validity.
    pub not_after: Timestamp,
}

impl AgentIdentity {
    /// Reads the identity out of an agent's certificate. Neither issuer nor time are checked: the TLS handshake does.
    ///
    /// # Errors
    /// When it is no leaf for clients with exactly one name, a URI of an agent's form.
    pub fn from_certificate(der: &[u8]) -> Result<Self, Error> {
        certificate::parse(der).and_then(|certificate| Self::read(&certificate)).map_err(Error::Certificate)
    }

    pub(crate) fn read(certificate: &X509Certificate<'_>) -> Result<Self, CertificateFault> {
        let uri = certificate::leaf_uri(certificate, Use::Agent)?;
        let (trust_domain, Subject::Agent(org_id, agent_id)) = parse_uri(uri)? else {
            return Err(CertificateFault::Form);
        };
        let Validity { not_before, not_after } = Validity::of(certificate)?;
        let serial = serial(certificate)?.to_vec();
        Ok(Self { trust_domain: trust_domain.to_owned(), org_id, agent_id, serial, not_before, not_after })
    }
}

/// The serial number as a fixed number of bytes, so that it can be compared with what was issued.
fn serial(certificate: &X509Certificate<'_>) -> Result<[u8; SERIAL_BYTES], CertificateFault> {
    let raw = certificate.raw_serial();
    let negative = raw.first().is_some_and(|byte| byte & 0x80 != 0);
    let digits = raw.strip_prefix(&[0]).unwrap_or(raw);
    if negative || digits.len() > SERIAL_BYTES {
        return Err(CertificateFault::Serial);
    }
    let mut serial = [0; SERIAL_BYTES];
    serial[SERIAL_BYTES - digits.len()..].copy_from_slice(digits);
    Ok(serial)
}

/// An agent's new private key and the request for its certificate.
pub struct AgentKey {
    /// PKCS#8, DER.
    pub key_pkcs8_der: Zeroizing<Vec<u8>>,
    /// PKCS#10, DER; it carries the public key and no wishes.
    pub csr_der: Vec<u8>,
}

impl std::fmt::Debug for AgentKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("AgentKey(<redacted>)")
    }
}

/// Makes a P-256 key and a request for it.
///
/// # Errors
/// When the key cannot be made.
pub fn new_agent_key_and_csr() -> Result<AgentKey, Error> {
    let failed = |source| Error::Issue { what: "a certificate signing request", source };
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(failed)?;
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    let csr = params.serialize_request(&key).map_err(failed)?;
    Ok(AgentKey { key_pkcs8_der: Zeroizing::new(key.serialized_der().to_vec()), csr_der: csr.der().to_vec() })
}

/// Whom a URI names inside its trust domain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Subject {
    Agent(OrgId, AgentId),
    Controller(ControllerId),
    Dispatch(ControllerId),
}

impl Subject {
    pub(crate) fn uri(self, trust_domain: &str) -> String {
        match self {
            Self::Agent(org, agent) => format!("spiffe://{trust_domain}/org/{org}/agent/{agent}"),
            Self::Controller(id) => format!("spiffe://{trust_domain}/controller/{id}"),
            Self::Dispatch(id) => format!("spiffe://{trust_domain}/controller/{id}/dispatch"),
        }
    }
}

/// Takes a URI apart; what is not exactly as [`Subject::uri`] writes it is refused.
pub(crate) fn parse_uri(uri: &str) -> Result<(&str, Subject), CertificateFault> {
    let path = uri.strip_prefix("spiffe://").ok_or(CertificateFault::Form)?;
    let parts: Vec<&str> = path.split('/').take(6).collect();
    let (trust_domain, subject) = match *parts.as_slice() {
        [domain, "org", org, "agent", agent] => {
            (domain, Subject::Agent(OrgId(id(org)?), AgentId(id(agent)?)))
        }
        [domain, "controller", controller] => (domain, Subject::Controller(ControllerId(id(controller)?))),
        [domain, "controller", controller, "dispatch"] => {
            (domain, Subject::Dispatch(ControllerId(id(controller)?)))
        }
        _ => return Err(CertificateFault::Form),
    };
    check_trust_domain(trust_domain).map_err(|_| CertificateFault::Form)?;
    Ok((trust_domain, subject))
}

/// A UUID in the one spelling that we write; others would make two texts of one identity.
fn id(text: &str) -> Result<Uuid, CertificateFault> {
    let id = Uuid::try_parse(text).map_err(|_| CertificateFault::Form)?;
    if id.hyphenated().to_string() == text { Ok(id) } else { Err(CertificateFault::Form) }
}

/// Checks the name of a trust domain, after the SPIFFE-ID standard, section 2.1.
///
/// # Errors
/// When it is empty, too long or has other characters than lower-case letters, digits, `.`, `-`, `_`.
pub fn check_trust_domain(name: &str) -> Result<(), Error> {
    let fits = (1..=TRUST_DOMAIN_BYTES).contains(&name.len())
        && name.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-' | b'_'));
    if fits { Ok(()) } else { Err(Error::TrustDomain(name.to_owned())) }
}

#[cfg(test)]
mod tests;
