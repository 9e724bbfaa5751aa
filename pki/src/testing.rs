//! What the tests of this crate share: one authority, one moment, and certificates that it would never issue.

use jiff::{SignedDuration, Timestamp};
use model::id::{AgentId, ControllerId, OrgId};
use rcgen::{
    CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType, SerialNumber,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use uuid::Uuid;

use crate::{Authority, AuthorityPem, ServerIdentity, identity::Subject};

pub(crate) const DOMAIN: &str = "lab.example";
pub(crate) const ORG: OrgId = OrgId(Uuid::from_u128(0x0197_0000_0000_7000_8000_0000_0000_00a1));
pub(crate) const AGENT: AgentId = AgentId(Uuid::from_u128(0x0197_0000_0000_7000_8000_0000_0000_00a2));
pub(crate) const CONTROLLER: ControllerId =
    ControllerId(Uuid::from_u128(0x0197_0000_0000_7000_8000_0000_0000_00a3));
pub(crate) const HOUR: SignedDuration = SignedDuration::from_hours(1);

/// The moment at which all tests happen.
pub(crate) fn now() -> Timestamp {
    "2026-03-01T12:00:00Z".parse().unwrap()
}

pub(crate) fn authority() -> Authority {
    Authority::create(DOMAIN, now()).unwrap().authority
}

/// A leaf that its holder can use in TLS.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) chain: Vec<CertificateDer<'static>>,
    pub(crate) key: PrivateKeyDer<'static>,
}

impl Held {
    pub(crate) fn leaf(&self) -> &[u8] {
        &self.chain[0]
    }
}

impl Clone for Held {
    fn clone(&self) -> Self {
        Self { chain: self.chain.clone(), key: self.key.clone_key() }
    }
}

impl From<ServerIdentity> for Held {
    fn from(identity: ServerIdentity) -> Self {
        Self { chain: identity.chain, key: identity.key }
    }
}

/// The agent's certificate that everything should accept.
pub(crate) fn agent(authority: &Authority) -> Held {
    let made = crate::new_agent_key_and_csr().unwrap();
    let leaf = authority.issue_agent(&made.csr_der, ORG, AGENT, [9; 16], now() - HOUR, now() + HOUR).unwrap();
    Held { chain: vec![leaf.into()], key: PrivatePkcs8KeyDer::from(made.key_pkcs8_der.to_vec()).into() }
}

/// The controller's certificate that everything should accept.
pub(crate) fn controller(authority: &Authority) -> ServerIdentity {
    authority.issue_controller(CONTROLLER, now() - HOUR, now() + HOUR).unwrap()
}

/// Whose key signs a forged certificate.
#[derive(Debug, Clone, Copy)]
pub(crate) enum SignedBy {
    Agents,
    Controllers,
    Itself,
}

/// A certificate like an agent's (or, after `change`, whatever it should not be), signed with a stolen key.
pub(crate) fn forge(
    pem: &AuthorityPem,
    signed_by: SignedBy,
    change: impl FnOnce(&mut CertificateParams),
) -> Held {
    let mut params = CertificateParams::default();
    set_validity(&mut params, now() - HOUR, now() + HOUR);
    params.subject_alt_names = vec![uri(&Subject::Agent(ORG, AGENT).uri(DOMAIN))];
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params.serial_number = Some(SerialNumber::from_slice(&[5; 16]));
    change(&mut params);
    let key = KeyPair::generate().unwrap();
    let issuer = |certificate, issuer_key| {
        Issuer::from_ca_cert_pem(certificate, KeyPair::from_pem(issuer_key).unwrap()).unwrap()
    };
    let certificate = match signed_by {
        SignedBy::Agents => params.signed_by(&key, &issuer(&pem.agents_cert, &pem.agents_key)),
        SignedBy::Controllers => params.signed_by(&key, &issuer(&pem.controllers_cert, &pem.controllers_key)),
        SignedBy::Itself => params.self_signed(&key),
    };
    Held {
        chain: vec![certificate.unwrap().der().clone()],
        key: PrivatePkcs8KeyDer::from(key.serialized_der().to_vec()).into(),
    }
}

pub(crate) fn set_validity(params: &mut CertificateParams, from: Timestamp, to: Timestamp) {
    let at = |time: Timestamp| {
        rcgen::date_time_ymd(1970, 1, 1)
            + std::time::Duration::from_secs(u64::try_from(time.as_second()).unwrap())
    };
    (params.not_before, params.not_after) = (at(from), at(to));
}

pub(crate) fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().unwrap())
}

/// A request as somebody else's tool would make it.
pub(crate) fn csr(key: &KeyPair, change: impl FnOnce(&mut CertificateParams)) -> Vec<u8> {
    let mut params = CertificateParams::default();
    change(&mut params);
    params.serialize_request(key).unwrap().der().to_vec()
}
