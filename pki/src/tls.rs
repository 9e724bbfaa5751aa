//! The TLS configurations of both sides: TLS 1.3 and HTTP/2 alone, no resumption, no early data.
//!
//! 1. The only trust anchor is the other side's intermediate itself, and the leaf must be issued by it directly:
//!    certificates that a peer sends beside its leaf are not looked at (enrollment excepted, see [`enroll_config`]).
//! 2. Every connection is a full handshake. A ticket would let a client in whose certificate has been revoked
//!    since, and would cost the controller memory for each of its agents.
//! 3. Host names do not count. Addresses of controllers change, sit behind balancers and are whatever an operator
//!    typed; only controllers ever get a certificate from the controllers' intermediate, so its path, its use and its
//!    URI say all that a host name could.

use std::{fmt, sync::Arc, time::Duration};

use jiff::Timestamp;
use model::limits;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, OtherError, RootCertStore,
    ServerConfig, SignatureScheme,
    client::{
        Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_cert_signed_by_trust_anchor,
    },
    crypto::{CryptoProvider, aws_lc_rs, verify_tls13_signature},
    server::{
        NoServerSessionStorage, ParsedCertificate, WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
    version::TLS13,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};

use crate::{
    AgentIdentity, CertificateFault, Error, ServerIdentity,
    certificate::{self, Use},
    identity::{self, Subject},
    sha256,
};

const ALPN: &[u8] = b"h2";

/// The controller's door for agents. A client certificate is optional, because a host that enrolls has none; one
/// that is presented must be an agent's of the server's own trust domain. One that expired no longer than
/// [`limits::RENEW_AFTER_EXPIRY`] ago passes: the caller must look at [`AgentIdentity::not_after`] and grant it nothing
/// but renewal.
///
/// # Errors
/// When the identity or the intermediate cannot be used.
pub fn server_config(identity: ServerIdentity, agents_ca_der: &[u8]) -> Result<Arc<ServerConfig>, Error> {
    let provider = provider();
    let leaf = identity.chain.first().ok_or(Error::Certificate(CertificateFault::Chain))?;
    let trust_domain = controller_domain(leaf).map_err(Error::Certificate)?;
    let anchor = anchor(agents_ca_der, Use::Agent)?;
    let path = WebPkiClientVerifier::builder_with_provider(Arc::new(anchor), Arc::clone(&provider))
        .allow_unauthenticated()
        .build()
        .map_err(|error| Error::Tls(rustls::Error::General(error.to_string())))?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])
        .map_err(Error::Tls)?
        .with_client_cert_verifier(Arc::new(AgentVerifier { trust_domain, path }))
        .with_single_cert(identity.chain, identity.key)
        .map_err(Error::Tls)?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

/// An enrolled agent's side: it trusts the controllers of its trust domain and shows its own certificate.
///
/// # Errors
/// When the intermediate, the chain or the key cannot be used, or the key is not that of the chain's leaf.
pub fn client_config(
    controllers_ca_der: &[u8],
    trust_domain: &str,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<Arc<ClientConfig>, Error> {
    identity::check_trust_domain(trust_domain)?;
    let provider = provider();
    let judge = ByAnchor {
        trust_domain: trust_domain.to_owned(),
        anchor: anchor(controllers_ca_der, Use::Controller)?,
    };
    let verifier = ServerVerifier { judge, provider: Arc::clone(&provider) };
    ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])
        .map_err(Error::Tls)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_client_auth_cert(chain, key)
        .map_err(Error::Tls)
        .map(finish_client)
}

/// The side of a host that has an enroll token and nothing else: the server must present leaf, intermediate and root;
/// the root's SHA-256 must be `root_pin`, the path must lead to it, and the leaf be a controller's, of whichever
/// trust domain. What the server says then may be believed; its trust domain is in the answer.
///
/// # Errors
/// When the configuration cannot be built.
pub fn enroll_config(root_pin: [u8; 32]) -> Result<Arc<ClientConfig>, Error> {
    let provider = provider();
    let verifier = ServerVerifier { judge: ByPin(root_pin), provider: Arc::clone(&provider) };
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])
        .map_err(Error::Tls)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    Ok(finish_client(config))
}

fn finish_client(mut config: ClientConfig) -> Arc<ClientConfig> {
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.resumption = Resumption::disabled();
    Arc::new(config)
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

/// A store that trusts this CA and nothing else.
fn anchor(ca_der: &[u8], use_: Use) -> Result<RootCertStore, Error> {
    certificate::parse(ca_der).and_then(|ca| certificate::check_ca(&ca, use_)).map_err(Error::Certificate)?;
    let mut anchor = RootCertStore::empty();
    anchor.add(CertificateDer::from(ca_der)).map_err(Error::Tls)?;
    Ok(anchor)
}

/// The trust domain in the certificate of a controller's TLS door.
fn controller_domain(leaf: &[u8]) -> Result<String, CertificateFault> {
    let leaf = certificate::parse(leaf)?;
    match identity::parse_uri(certificate::leaf_uri(&leaf, Use::Controller)?)? {
        (trust_domain, Subject::Controller(_)) => Ok(trust_domain.to_owned()),
        _ => Err(CertificateFault::Form),
    }
}

/// A refusal as rustls carries it; the peer learns no more than an alert.
fn refused(fault: CertificateFault) -> rustls::Error {
    CertificateError::Other(OtherError(Arc::new(Error::Certificate(fault)))).into()
}

fn no_tls12() -> rustls::Error {
    rustls::Error::General("TLS 1.2 is not offered".to_owned())
}

/// Verifies agents.
#[derive(Debug)]
struct AgentVerifier {
    trust_domain: String,
    path: Arc<dyn ClientCertVerifier>,
}

impl ClientCertVerifier for AgentVerifier {
    fn client_auth_mandatory(&self) -> bool {
        self.path.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.path.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let certificate = certificate::parse(end_entity).map_err(refused)?;
        let identity = AgentIdentity::read(&certificate).map_err(refused)?;
        if identity.trust_domain != self.trust_domain {
            return Err(refused(CertificateFault::TrustDomain));
        }
        self.path.verify_client_cert(end_entity, &[], with_grace(now, identity.not_after))
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(no_tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.path.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.path.supported_verify_schemes()
    }
}

/// The time at which a certificate is judged: inside the grace after its end, its last second.
fn with_grace(now: UnixTime, not_after: Timestamp) -> UnixTime {
    let Ok(end) = u64::try_from(not_after.as_second()) else { return now };
    let late = now.as_secs().saturating_sub(end);
    if late <= limits::RENEW_AFTER_EXPIRY.as_secs() {
        UnixTime::since_unix_epoch(Duration::from_secs(now.as_secs().min(end)))
    } else {
        now
    }
}

/// Verifies servers by `judge`, whatever the name that was dialled.
struct ServerVerifier<J> {
    judge: J,
    provider: Arc<CryptoProvider>,
}

/// Whether a server's certificate is good.
trait Judge: fmt::Debug + Send + Sync {
    fn judge(
        &self,
        leaf: &CertificateDer<'_>,
        rest: &[CertificateDer<'_>],
        now: UnixTime,
        provider: &CryptoProvider,
    ) -> Result<(), rustls::Error>;
}

impl<J: Judge> ServerCertVerifier for ServerVerifier<J> {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.judge.judge(end_entity, intermediates, now, &self.provider)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(no_tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

impl<J: fmt::Debug> fmt::Debug for ServerVerifier<J> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ServerVerifier").field(&self.judge).finish()
    }
}

/// A controller of one trust domain.
#[derive(Debug)]
struct ByAnchor {
    trust_domain: String,
    anchor: RootCertStore,
}

impl Judge for ByAnchor {
    fn judge(
        &self,
        leaf: &CertificateDer<'_>,
        _rest: &[CertificateDer<'_>],
        now: UnixTime,
        provider: &CryptoProvider,
    ) -> Result<(), rustls::Error> {
        if controller_domain(leaf).map_err(refused)? != self.trust_domain {
            return Err(refused(CertificateFault::TrustDomain));
        }
        check_path(leaf, &[], &self.anchor, now, provider)
    }
}

/// Any controller under a pinned root.
#[derive(Debug)]
struct ByPin([u8; 32]);

impl Judge for ByPin {
    fn judge(
        &self,
        leaf: &CertificateDer<'_>,
        rest: &[CertificateDer<'_>],
        now: UnixTime,
        provider: &CryptoProvider,
    ) -> Result<(), rustls::Error> {
        let [intermediate, root] = rest else {
            return Err(refused(CertificateFault::Chain));
        };
        if sha256(root) != self.0 {
            return Err(refused(CertificateFault::RootPin));
        }
        controller_domain(leaf).map_err(refused)?;
        certificate::parse(intermediate)
            .and_then(|ca| certificate::check_ca(&ca, Use::Controller))
            .map_err(refused)?;
        let mut anchor = RootCertStore::empty();
        anchor.add(root.clone().into_owned())?;
        check_path(leaf, std::slice::from_ref(intermediate), &anchor, now, provider)
    }
}

fn check_path(
    leaf: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
    anchor: &RootCertStore,
    now: UnixTime,
    provider: &CryptoProvider,
) -> Result<(), rustls::Error> {
    let leaf = ParsedCertificate::try_from(leaf)?;
    let algorithms = provider.signature_verification_algorithms.all;
    verify_server_cert_signed_by_trust_anchor(&leaf, anchor, intermediates, now, algorithms)
}

#[cfg(test)]
mod tests;
