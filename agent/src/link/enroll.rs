//! Enrollment and renewal: how the agent comes by its certificate.
//!
//! The server is believed only after TLS has shown that it stands under the root that the token pins; the root in the
//! answer is compared with the pin once more before anything is kept.

use model::limits;
use pki::EnrollToken;
use proto::{EnrollRequest, RenewRequest, enrollment_client::EnrollmentClient};
use tokio::time::timeout;
use tonic::{Code, Status, transport::Channel};

use super::{
    connect::{Address, ConnectError, connect},
    facts,
    identity::{Identity, IdentityError},
};

/// Version of the protocol that this agent speaks.
pub(crate) const PROTOCOL: u32 = 1;

/// The public halves of the executor's keys.
#[derive(Debug, Clone)]
pub struct PublicKeys {
    /// Ed25519, 32 bytes.
    pub result_key: Vec<u8>,
    /// X25519, 32 bytes.
    pub seal_key: Vec<u8>,
}

/// Why there is no new certificate.
#[derive(Debug, thiserror::Error)]
pub enum EnrollError {
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error("the controller refused: {0}")]
    Refused(String),
    #[error("the controller could not answer ({code}): {message}")]
    Failed { code: Code, message: String },
    #[error("the controller did not answer within {} seconds", limits::SESSION_SILENCE.as_secs())]
    Timeout,
    #[error("the root certificate in the answer is not the one that the token names")]
    Root,
    #[error("cannot make a key")]
    Key(#[source] pki::Error),
    #[error(transparent)]
    Identity(#[from] IdentityError),
}

impl From<Status> for EnrollError {
    fn from(status: Status) -> Self {
        match status.code() {
            Code::PermissionDenied
            | Code::Unauthenticated
            | Code::InvalidArgument
            | Code::FailedPrecondition
            | Code::AlreadyExists
            | Code::NotFound
            | Code::ResourceExhausted => Self::Refused(status.message().to_owned()),
            code => Self::Failed { code, message: status.message().to_owned() },
        }
    }
}

impl EnrollError {
    /// Whether trying again with the same certificate or token is useless.
    pub(crate) const fn is_refusal(&self) -> bool {
        matches!(self, Self::Refused(_) | Self::Root)
    }
}

/// A new identity, and whether a person has yet to approve it.
#[derive(Debug)]
pub struct Enrolled {
    pub identity: Identity,
    pub pending: bool,
}

/// Spends `token` (whose text is `secret`) at the controller at `address`.
///
/// # Errors
/// When the controller cannot be reached, is not the one that the token names, or refuses.
pub async fn enroll(
    address: &Address,
    token: &EnrollToken,
    secret: &str,
    name: String,
    keys: PublicKeys,
) -> Result<Enrolled, EnrollError> {
    let tls = pki::tls::enroll_config(token.root_pin).map_err(EnrollError::Key)?;
    let connection = connect(address, tls, limits::SESSION_SILENCE).await?;
    let key = pki::new_agent_key_and_csr().map_err(EnrollError::Key)?;
    let request = EnrollRequest {
        protocol: PROTOCOL,
        token: secret.to_owned(),
        csr: key.csr_der,
        result_key: keys.result_key,
        seal_key: keys.seal_key,
        name: name.clone(),
        facts: facts::collect(Some(connection.local_ip)).into_iter().collect(),
        agent_version: facts::VERSION.to_owned(),
    };
    let credentials = timeout(limits::SESSION_SILENCE, client(connection.channel).enroll(request))
        .await
        .map_err(|_| EnrollError::Timeout)??
        .into_inner();
    if pki::sha256(&credentials.root) != token.root_pin {
        return Err(EnrollError::Root);
    }
    let pending = credentials.pending;
    let identity = Identity::from_credentials(credentials, name, key.key_pkcs8_der)?;
    Ok(Enrolled { identity, pending })
}

/// Asks over a connection of `identity` for its successor, with a fresh key.
///
/// # Errors
/// When the controller cannot answer or refuses.
pub(crate) async fn renew(channel: Channel, identity: &Identity) -> Result<Identity, EnrollError> {
    let key = pki::new_agent_key_and_csr().map_err(EnrollError::Key)?;
    let request = RenewRequest { csr: key.csr_der };
    let credentials = timeout(limits::SESSION_SILENCE, client(channel).renew(request))
        .await
        .map_err(|_| EnrollError::Timeout)??
        .into_inner();
    Ok(identity.renewed(credentials, key.key_pkcs8_der)?)
}

fn client(channel: Channel) -> EnrollmentClient<Channel> {
    EnrollmentClient::new(channel).max_decoding_message_size(limits::GRPC_MESSAGE_BYTES)
}
