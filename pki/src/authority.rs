//! The certificate authority of one installation: a root, and two intermediates that issue.
//!
//! 1. The root's key signs twice, when the authority is made, and is then handed out to be taken offline.
//! 2. The agents' intermediate issues to agents alone, the controllers' to controllers alone; each says so in its
//!    extended key usage, so that a stolen key of one does not make the other's certificates even under the root.
//! 3. A certificate is made from a template. From a request only the public key is taken.
//! 4. No certificate outlives its issuer: peers trust the intermediates directly and look at the leaf's time alone.

use std::{fmt, time::Duration};

use jiff::{SignedDuration, Timestamp};
use model::id::{AgentId, ControllerId, OrgId};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519, PublicKeyData,
    SanType, SerialNumber, SignatureAlgorithm,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, pem::PemObject};
use x509_parser::{certificate::X509Certificate, extensions::GeneralName};
use zeroize::Zeroizing;

use crate::{
    CertificateFault, DispatchKey, Error,
    certificate::{self, Use, Validity},
    csr,
    identity::{self, SERIAL_BYTES, Subject},
    random, sha256,
};

const ROOT_LIFE: SignedDuration = SignedDuration::from_hours(10 * 365 * 24);
const INTERMEDIATE_LIFE: SignedDuration = SignedDuration::from_hours(5 * 365 * 24);
/// How far the authority's own certificates are dated back, for agents whose clocks are behind.
const BACKDATED: SignedDuration = SignedDuration::from_hours(1);

const ROOT_CERTIFICATE: &str = "root certificate";

/// An authority that was just made.
#[derive(Debug)]
pub struct NewAuthority {
    pub authority: Authority,
    /// PEM, PKCS#8. Nothing needs it again until an intermediate is replaced.
    pub root_key_pem: Zeroizing<String>,
}

/// An authority as it is kept in files: certificates in PEM, keys in PEM as PKCS#8.
#[derive(Clone, PartialEq, Eq)]
pub struct AuthorityPem {
    pub trust_domain: String,
    pub root_cert: String,
    pub agents_cert: String,
    pub controllers_cert: String,
    pub agents_key: Zeroizing<String>,
    pub controllers_key: Zeroizing<String>,
}

impl fmt::Debug for AuthorityPem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuthorityPem")
            .field("trust_domain", &self.trust_domain)
            .field("root_cert", &self.root_cert)
            .field("agents_cert", &self.agents_cert)
            .field("controllers_cert", &self.controllers_cert)
            .field("agents_key", &"<redacted>")
            .field("controllers_key", &"<redacted>")
            .finish()
    }
}

/// What a controller presents at its TLS door.
#[derive(Debug)]
pub struct ServerIdentity {
    /// Leaf, controllers' intermediate, root. The root is there for hosts that enroll: they know its pin alone.
    pub chain: Vec<CertificateDer<'static>>,
    pub key: PrivateKeyDer<'static>,
}

/// A root's certificate and two intermediates with their keys.
pub struct Authority {
    root: CertificateDer<'static>,
    agents: Intermediate,
    controllers: Intermediate,
    /// What this was read from, and is written as.
    pem: AuthorityPem,
}

struct Intermediate {
    certificate: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
    validity: Validity,
}

impl Authority {
    /// Makes a new root and two intermediates, valid from an hour before `now`: the root for ten years, the
    /// intermediates for five.
    ///
    /// # Errors
    /// When `trust_domain` is not a trust domain's name, or a key cannot be made.
    pub fn create(trust_domain: &str, now: Timestamp) -> Result<NewAuthority, Error> {
        identity::check_trust_domain(trust_domain)?;
        let failed = |source| Error::Issue { what: "the certificate authority", source };
        let not_before = now - BACKDATED;

        let root_key = KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).map_err(failed)?;
        let params = ca_params(trust_domain, "root", 1, not_before, now + ROOT_LIFE)?;
        let root = params.self_signed(&root_key).map_err(failed)?;
        let root_key_pem = Zeroizing::new(root_key.serialize_pem());
        let root_issuer = Issuer::new(params, root_key);

        let intermediate = |name, usages: &[ExtendedKeyUsagePurpose]| {
            let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(failed)?;
            let mut params = ca_params(trust_domain, name, 0, not_before, now + INTERMEDIATE_LIFE)?;
            params.extended_key_usages = usages.to_vec();
            params.use_authority_key_identifier_extension = true;
            let certificate = params.signed_by(&key, &root_issuer).map_err(failed)?;
            Ok((certificate.pem(), Zeroizing::new(key.serialize_pem())))
        };
        let (agents_cert, agents_key) = intermediate("agents", &[ExtendedKeyUsagePurpose::ClientAuth])?;
        let (controllers_cert, controllers_key) = intermediate(
            "controllers",
            &[ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::CodeSigning],
        )?;

        let authority = Self::from_pem(&AuthorityPem {
            trust_domain: trust_domain.to_owned(),
            root_cert: root.pem(),
            agents_cert,
            controllers_cert,
            agents_key,
            controllers_key,
        })?;
        Ok(NewAuthority { authority, root_key_pem })
    }

    /// The authority as [`Self::from_pem`] reads it.
    pub fn to_pem(&self) -> AuthorityPem {
        self.pem.clone()
    }

    /// Reads an authority back. Validity is not looked at: there is no clock here.
    ///
    /// # Errors
    /// When a part cannot be read, belongs to another trust domain or has another role, when an intermediate was not
    /// issued by the root, or when a key is not that of its certificate.
    pub fn from_pem(pem: &AuthorityPem) -> Result<Self, Error> {
        identity::check_trust_domain(&pem.trust_domain)?;
        let root = read_certificate(ROOT_CERTIFICATE, &pem.root_cert)?;
        let parsed = read_ca(ROOT_CERTIFICATE, &root, &pem.trust_domain)?;
        check_signed(ROOT_CERTIFICATE, &parsed, &parsed)?;
        let agents = Intermediate::from_pem(
            ["agents' certificate", "agents' key"],
            [&pem.agents_cert, &pem.agents_key],
            &[Use::Agent],
            &parsed,
            &pem.trust_domain,
        )?;
        let controllers = Intermediate::from_pem(
            ["controllers' certificate", "controllers' key"],
            [&pem.controllers_cert, &pem.controllers_key],
            &[Use::Controller, Use::Dispatch],
            &parsed,
            &pem.trust_domain,
        )?;
        Ok(Self { root, agents, controllers, pem: pem.clone() })
    }

    pub fn trust_domain(&self) -> &str {
        &self.pem.trust_domain
    }

    /// The root's certificate.
    pub fn root_der(&self) -> &[u8] {
        &self.root
    }

    /// The agents' intermediate: what a controller trusts.
    pub fn agents_ca_der(&self) -> &[u8] {
        &self.agents.certificate
    }

    /// The controllers' intermediate: what an agent trusts.
    pub fn controllers_ca_der(&self) -> &[u8] {
        &self.controllers.certificate
    }

    /// The secret bytes that [`crate::derived`] makes further keys of: the controllers' key, which every controller has.
    pub(crate) fn key_material(&self) -> Zeroizing<Vec<u8>> {
        Zeroizing::new(self.controllers.issuer.key().serialize_der())
    }

    /// SHA-256 of the root's certificate: what an enroll token carries.
    pub fn root_pin(&self) -> [u8; 32] {
        sha256(&self.root)
    }

    /// Issues an agent's certificate, DER, for the public key in `csr_der`. The top bit of `serial` is cleared, so that
    /// it is a positive number; [`crate::AgentIdentity::serial`] gives it back in that form.
    ///
    /// # Errors
    /// When the request is refused (see [`crate::CsrFault`]), or the validity is empty or outlives the issuer.
    pub fn issue_agent(
        &self,
        csr_der: &[u8],
        org: OrgId,
        agent: AgentId,
        mut serial: [u8; SERIAL_BYTES],
        not_before: Timestamp,
        not_after: Timestamp,
    ) -> Result<Vec<u8>, Error> {
        let point = csr::public_key(csr_der).map_err(Error::Csr)?;
        serial[0] &= 0x7f;
        let leaf = Leaf {
            what: "an agent's certificate",
            name: agent.to_string(),
            names: vec![uri(&Subject::Agent(org, agent).uri(self.trust_domain()))?],
            usage: ExtendedKeyUsagePurpose::ClientAuth,
            serial,
            not_before,
            not_after,
        };
        let key = LeafKey { bytes: point, algorithm: &PKCS_ECDSA_P256_SHA256 };
        self.agents.issue(leaf, &key).map(|certificate| certificate.to_vec())
    }

    /// Makes a key and a certificate for a controller's TLS door.
    ///
    /// # Errors
    /// When the key cannot be made, or the validity is empty or outlives the issuer.
    pub fn issue_controller(
        &self,
        id: ControllerId,
        not_before: Timestamp,
        not_after: Timestamp,
    ) -> Result<ServerIdentity, Error> {
        let what = "a controller's certificate";
        let key =
            KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(|source| Error::Issue { what, source })?;
        let leaf = Leaf {
            what,
            name: id.to_string(),
            names: vec![uri(&Subject::Controller(id).uri(self.trust_domain()))?, dns("controller")?],
            usage: ExtendedKeyUsagePurpose::ServerAuth,
            serial: new_serial(),
            not_before,
            not_after,
        };
        let certificate = self.controllers.issue(leaf, &key)?;
        Ok(ServerIdentity {
            chain: vec![certificate, self.controllers.certificate.clone(), self.root.clone()],
            key: PrivatePkcs8KeyDer::from(key.serialized_der().to_vec()).into(),
        })
    }

    /// Makes a key and a certificate for the people's door, for the host names and addresses `names`. It has no URI, so no
    /// agent takes its owner for a controller. The chain is leaf and controllers' intermediate; people have the root.
    ///
    /// # Errors
    /// When there is no name or one is neither a host name nor an address, the key cannot be made, or the validity is
    /// empty or outlives the issuer.
    pub fn issue_door(
        &self,
        names: &[String],
        not_before: Timestamp,
        not_after: Timestamp,
    ) -> Result<ServerIdentity, Error> {
        let what = "a certificate of the people's door";
        let first = names.first().ok_or(Error::Certificate(CertificateFault::Names))?;
        let key =
            KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(|source| Error::Issue { what, source })?;
        let leaf = Leaf {
            what,
            name: first.clone(),
            names: names
                .iter()
                .map(|name| name.parse().map_or_else(|_| dns(name), |ip| Ok(SanType::IpAddress(ip))))
                .collect::<Result<_, _>>()?,
            usage: ExtendedKeyUsagePurpose::ServerAuth,
            serial: new_serial(),
            not_before,
            not_after,
        };
        let certificate = self.controllers.issue(leaf, &key)?;
        Ok(ServerIdentity {
            chain: vec![certificate, self.controllers.certificate.clone()],
            key: PrivatePkcs8KeyDer::from(key.serialized_der().to_vec()).into(),
        })
    }

    /// Certifies a controller's dispatch key; DER. The certificate's use is codeSigning, which no TLS stack accepts.
    ///
    /// # Errors
    /// When the validity is empty or outlives the issuer.
    pub fn issue_dispatch(
        &self,
        id: ControllerId,
        key: &DispatchKey,
        not_before: Timestamp,
        not_after: Timestamp,
    ) -> Result<Vec<u8>, Error> {
        let leaf = Leaf {
            what: "a dispatch certificate",
            name: id.to_string(),
            names: vec![uri(&Subject::Dispatch(id).uri(self.trust_domain()))?],
            usage: ExtendedKeyUsagePurpose::CodeSigning,
            serial: new_serial(),
            not_before,
            not_after,
        };
        let key = LeafKey { bytes: key.public_key(), algorithm: &PKCS_ED25519 };
        self.controllers.issue(leaf, &key).map(|certificate| certificate.to_vec())
    }
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority").field("trust_domain", &self.pem.trust_domain).finish_non_exhaustive()
    }
}

/// The template of a leaf.
struct Leaf {
    what: &'static str,
    /// The subject's common name, for people's eyes.
    name: String,
    names: Vec<SanType>,
    usage: ExtendedKeyUsagePurpose,
    serial: [u8; SERIAL_BYTES],
    not_before: Timestamp,
    not_after: Timestamp,
}

/// A public key that came from elsewhere.
struct LeafKey {
    bytes: Vec<u8>,
    algorithm: &'static SignatureAlgorithm,
}

impl PublicKeyData for LeafKey {
    fn der_bytes(&self) -> &[u8] {
        &self.bytes
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        self.algorithm
    }
}

impl Intermediate {
    fn from_pem(
        [certificate_part, key_part]: [&'static str; 2],
        [certificate_pem, key_pem]: [&str; 2],
        uses: &[Use],
        root: &X509Certificate<'_>,
        trust_domain: &str,
    ) -> Result<Self, Error> {
        let part = certificate_part;
        let certificate = read_certificate(part, certificate_pem)?;
        let parsed = read_ca(part, &certificate, trust_domain)?;
        check_signed(part, &parsed, root)?;
        for use_ in uses {
            certificate::check_ca(&parsed, *use_)
                .map_err(|_| Error::Authority { part, fault: "is not made for this role" })?;
        }
        let validity = Validity::of(&parsed).map_err(unreadable(part))?;

        let key = KeyPair::from_pem(key_pem)
            .map_err(|_| Error::Authority { part: key_part, fault: "cannot be read" })?;
        if key.public_key_raw() != &*parsed.public_key().subject_public_key.data {
            return Err(Error::Authority { part: key_part, fault: "is not the key of its certificate" });
        }
        let issuer = Issuer::from_ca_cert_der(&certificate, key)
            .map_err(|_| Error::Authority { part, fault: "cannot be read" })?;
        Ok(Self { issuer, validity, certificate })
    }

    fn issue(&self, leaf: Leaf, key: &impl PublicKeyData) -> Result<CertificateDer<'static>, Error> {
        let Leaf { what, not_before, not_after, .. } = leaf;
        let failed = |source| Error::Issue { what, source };
        if not_after > self.validity.not_after {
            return Err(Error::OutlivesIssuer { not_after, issuer: self.validity.not_after });
        }
        let mut params = params(&leaf.name, leaf.serial, not_before, not_after)?;
        params.subject_alt_names = leaf.names;
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![leaf.usage];
        params.use_authority_key_identifier_extension = true;
        let certificate = params.signed_by(key, &self.issuer).map_err(failed)?;
        Ok(certificate.der().clone())
    }
}

fn uri(text: &str) -> Result<SanType, Error> {
    let name = text.try_into().map_err(|source| Error::Issue { what: "a certificate's URI", source })?;
    Ok(SanType::URI(name))
}

fn dns(text: &str) -> Result<SanType, Error> {
    let name =
        text.try_into().map_err(|source| Error::Issue { what: "a certificate's host name", source })?;
    Ok(SanType::DnsName(name))
}

/// What all certificates have in common.
fn params(
    name: &str,
    serial: [u8; SERIAL_BYTES],
    not_before: Timestamp,
    not_after: Timestamp,
) -> Result<CertificateParams, Error> {
    let mut params = CertificateParams::default();
    let seconds = |at: Timestamp| u64::try_from(at.as_second()).ok().map(Duration::from_secs);
    let (Some(from), Some(to)) = (seconds(not_before), seconds(not_after).filter(|_| not_after > not_before))
    else {
        return Err(Error::Validity { not_before, not_after });
    };
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    (params.not_before, params.not_after) = (epoch + from, epoch + to);
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    Ok(params)
}

/// A CA that carries its trust domain as its one name.
fn ca_params(
    trust_domain: &str,
    role: &str,
    path_length: u8,
    not_before: Timestamp,
    not_after: Timestamp,
) -> Result<CertificateParams, Error> {
    let mut params = params(&format!("OpsConductor {role} CA"), new_serial(), not_before, not_after)?;
    params.distinguished_name.push(DnType::OrganizationName, trust_domain);
    let uri = domain_uri(trust_domain)
        .try_into()
        .map_err(|source| Error::Issue { what: "the certificate authority", source })?;
    params.subject_alt_names.push(SanType::URI(uri));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(path_length));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(params)
}

fn domain_uri(trust_domain: &str) -> String {
    format!("spiffe://{trust_domain}")
}

/// A random positive serial number.
fn new_serial() -> [u8; SERIAL_BYTES] {
    let mut serial = random();
    serial[0] &= 0x7f;
    serial
}

fn unreadable(part: &'static str) -> impl Fn(CertificateFault) -> Error {
    move |_| Error::Authority { part, fault: "cannot be read" }
}

fn read_certificate(part: &'static str, pem: &str) -> Result<CertificateDer<'static>, Error> {
    CertificateDer::from_pem_slice(pem.as_bytes())
        .map_err(|_| Error::Authority { part, fault: "cannot be read" })
}

/// Reads a CA of this trust domain.
fn read_ca<'a>(part: &'static str, der: &'a [u8], trust_domain: &str) -> Result<X509Certificate<'a>, Error> {
    let certificate = certificate::parse(der).map_err(unreadable(part))?;
    if !certificate.is_ca() {
        return Err(Error::Authority { part, fault: "is not that of a CA" });
    }
    let uri = domain_uri(trust_domain);
    let names = certificate.subject_alternative_name().ok().flatten();
    let belongs = names.is_some_and(
        |names| matches!(names.value.general_names[..], [GeneralName::URI(name)] if name == uri),
    );
    if belongs {
        Ok(certificate)
    } else {
        Err(Error::Authority { part, fault: "belongs to another trust domain" })
    }
}

fn check_signed(
    part: &'static str,
    certificate: &X509Certificate<'_>,
    issuer: &X509Certificate<'_>,
) -> Result<(), Error> {
    certificate::check_issued_by(certificate, issuer)
        .map_err(|_| Error::Authority { part, fault: "was not issued by this root" })
}

#[cfg(test)]
mod tests;
