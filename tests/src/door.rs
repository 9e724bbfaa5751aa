//! The agents' door without an agent: calls that no agent of ours would make.

use std::{io, net::SocketAddr, sync::Arc, sync::Mutex};

use hyper_util::rt::TokioIo;
use proto::{Credentials, EnrollRequest, enrollment_client::EnrollmentClient};
use rustls::{
    ClientConfig,
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName},
};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::{
    Status,
    transport::{Channel, Endpoint},
};

use crate::Agent;

/// One connection to the door at `address`.
///
/// # Errors
/// When TLS or HTTP/2 do not come about.
pub async fn connect(address: SocketAddr, tls: Arc<ClientConfig>) -> io::Result<Channel> {
    let tcp = TcpStream::connect(address).await?;
    tcp.set_nodelay(true)?;
    let name = ServerName::from(address.ip());
    let stream = TlsConnector::from(tls).connect(name, tcp).await?;
    let stream = Mutex::new(Some(TokioIo::new(stream)));
    let connector = tower::service_fn(move |_| {
        let stream = stream.lock().expect("nobody panics").take();
        async move { stream.ok_or_else(|| io::Error::new(io::ErrorKind::NotConnected, "the connection is over")) }
    });
    let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("an address makes a URI");
    endpoint.connect_with_connector(connector).await.map_err(io::Error::other)
}

/// A request to enroll that is right in everything.
pub fn enroll_request(token: &str, name: &str) -> (EnrollRequest, pki::AgentKey) {
    let key = pki::new_agent_key_and_csr().expect("a key can be made");
    let request = EnrollRequest {
        protocol: 1,
        token: token.to_owned(),
        csr: key.csr_der.clone(),
        result_key: pki::ResultKey::generate().public_key(),
        seal_key: pki::SealKey::generate().public_key(),
        name: name.to_owned(),
        facts: [("os".to_owned(), "linux".to_owned())].into(),
        agent_version: "0.0.0-test".to_owned(),
    };
    (request, key)
}

/// Sends a request to enroll, believing the controller that the token names.
///
/// # Errors
/// The controller's refusal.
pub async fn enroll(address: SocketAddr, request: EnrollRequest) -> Result<Credentials, Status> {
    let root_pin = pki::EnrollToken::parse(&request.token).map_or([0; 32], |token| token.root_pin);
    enroll_at(address, root_pin, request).await
}

/// As [`enroll`], believing the controller with this root whatever the token says.
///
/// # Errors
/// The controller's refusal.
pub async fn enroll_at(
    address: SocketAddr,
    root_pin: [u8; 32],
    request: EnrollRequest,
) -> Result<Credentials, Status> {
    let tls = pki::tls::enroll_config(root_pin).expect("the configuration is sound");
    let channel = connect(address, tls).await.map_err(|error| Status::unavailable(error.to_string()))?;
    EnrollmentClient::new(channel).enroll(request).await.map(tonic::Response::into_inner)
}

/// An agent that is nothing but its certificate: the test says what it says.
#[derive(Debug)]
pub struct Puppet {
    pub credentials: Credentials,
    key: pki::AgentKey,
}

impl Puppet {
    /// Enrolls with a token.
    pub async fn enroll(address: SocketAddr, token: &str, name: &str) -> Self {
        let (request, key) = enroll_request(token, name);
        let credentials = enroll(address, request).await.expect("the token is good");
        Self { credentials, key }
    }

    /// With a certificate that somebody else issued for a key of its own.
    pub fn new(credentials: Credentials, key: pki::AgentKey) -> Self {
        Self { credentials, key }
    }

    /// With the key and certificate that a real agent has at this moment.
    pub fn of(agent: &Agent) -> Self {
        let folder = agent.data.join("link/identity/current");
        let read = |name: &str| std::fs::read(folder.join(name)).expect("the agent is enrolled");
        let certificate = read("certificate.der");
        let identity = pki::AgentIdentity::from_certificate(&certificate).expect("it is an agent's");
        let credentials = Credentials {
            agent_id: identity.agent_id.to_bytes(),
            org_id: identity.org_id.to_bytes(),
            trust_domain: identity.trust_domain,
            certificate,
            issuer: read("issuer.der"),
            controllers_ca: read("controllers_ca.der"),
            root: read("root.der"),
            pending: false,
        };
        let key = pki::AgentKey { key_pkcs8_der: read("key.der").into(), csr_der: Vec::new() };
        Self { credentials, key }
    }

    /// What it shows at the door.
    pub fn tls(&self) -> Arc<ClientConfig> {
        self.tls_believing(&self.credentials)
    }

    /// As [`Self::tls`], believing the controllers that somebody else's credentials name.
    pub fn tls_believing(&self, others: &Credentials) -> Arc<ClientConfig> {
        let chain = [&self.credentials.certificate, &self.credentials.issuer];
        let chain = chain.map(|der| CertificateDer::from(der.clone())).to_vec();
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(self.key.key_pkcs8_der.to_vec()));
        pki::tls::client_config(&others.controllers_ca, &others.trust_domain, chain, key)
            .expect("the credentials are whole")
    }

    /// A connection with its certificate.
    ///
    /// # Errors
    /// When the controller refuses it.
    pub async fn connect(&self, address: SocketAddr) -> io::Result<Channel> {
        connect(address, self.tls()).await
    }
}
