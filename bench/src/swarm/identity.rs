//! Who simulated agents are, and the two ways in which they become it: issued in bulk by the installation's own
//! authority (quick, for the driver, which owns the installation), or enrolled with a token like any host.

use std::{net::SocketAddr, path::Path, sync::Arc, thread};

use anyhow::{Context as _, anyhow};
use jiff::SignedDuration;
use model::id::{AgentId, OrgId};
use pki::{Authority, AuthorityPem, EnrollToken, ResultKey, Verifier};
use proto::{EnrollRequest, enrollment_client::EnrollmentClient};
use rustls::{
    ClientConfig,
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer},
};

use super::connect::{self, Place};
use crate::clock;

/// Life of an issued certificate, and how far it is dated back.
const LIFE: SignedDuration = SignedDuration::from_hours(24);
const BACKDATED: SignedDuration = SignedDuration::from_mins(5);
/// Threads that make keys.
const MAKERS: usize = 2;
/// Version of the protocol that simulated agents speak.
pub(crate) const PROTOCOL: u32 = 1;

/// Whom all agents of an installation believe. Shared by all of them.
#[derive(Debug)]
pub(crate) struct Trust {
    pub(crate) controllers_ca: Vec<u8>,
    pub(crate) trust_domain: String,
    pub(crate) verifier: Verifier,
}

impl Trust {
    fn new(controllers_ca: &[u8], trust_domain: &str) -> anyhow::Result<Self> {
        let verifier =
            Verifier::new(controllers_ca, trust_domain).context("cannot use the controllers' CA")?;
        Ok(Self { controllers_ca: controllers_ca.to_vec(), trust_domain: trust_domain.to_owned(), verifier })
    }

    /// What the agents of this authority's installation believe.
    ///
    /// # Errors
    /// When the authority is not whole.
    pub(crate) fn of(authority: &Authority) -> anyhow::Result<Self> {
        Self::new(authority.controllers_ca_der(), authority.trust_domain())
    }

    fn tls(&self, chain: [&[u8]; 2], key_pkcs8: &[u8]) -> anyhow::Result<Arc<ClientConfig>> {
        let chain = chain.map(|der| CertificateDer::from(der.to_vec())).to_vec();
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key_pkcs8.to_vec()));
        pki::tls::client_config(&self.controllers_ca, &self.trust_domain, chain, key)
            .context("cannot make an agent's TLS configuration")
    }
}

/// One simulated agent.
#[derive(Debug)]
pub(crate) struct Identity {
    pub(crate) agent_id: AgentId,
    pub(crate) org_id: OrgId,
    pub(crate) tls: Arc<ClientConfig>,
    pub(crate) result_key: ResultKey,
    /// The agent's memory begins with the process.
    pub(crate) journal_epoch: [u8; 16],
}

/// An identity with what its row in the controller's tables must say.
#[derive(Debug)]
pub(crate) struct Issued {
    pub(crate) identity: Identity,
    pub(crate) serial: [u8; 16],
    pub(crate) result_key: Vec<u8>,
    pub(crate) seal_key: [u8; 32],
}

/// Reads the authority that a controller keeps in `folder`.
///
/// # Errors
/// When a file is missing or damaged.
pub(crate) fn read_authority(folder: &Path) -> anyhow::Result<Authority> {
    let text = |name: &str| {
        let path = folder.join(name);
        std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
    };
    let pem = AuthorityPem {
        trust_domain: text("trust-domain")?.trim().to_owned(),
        root_cert: text("root.pem")?,
        agents_cert: text("agents.pem")?,
        agents_key: text("agents.key")?.into(),
        controllers_cert: text("controllers.pem")?,
        controllers_key: text("controllers.key")?.into(),
    };
    Authority::from_pem(&pem).with_context(|| format!("the authority in {} is damaged", folder.display()))
}

/// Makes `count` agents of the organization `org`, with keys and certificates of their own.
///
/// # Errors
/// When a key or certificate cannot be made.
pub(crate) fn issue(
    authority: &Authority,
    trust: &Trust,
    org: OrgId,
    count: usize,
) -> anyhow::Result<Vec<Issued>> {
    thread::scope(|scope| {
        let makers: Vec<_> = (0..MAKERS)
            .map(|maker| {
                let share = count / MAKERS + usize::from(maker < count % MAKERS);
                scope.spawn(move || (0..share).map(|_| issue_one(authority, trust, org)).collect::<Vec<_>>())
            })
            .collect();
        makers.into_iter().flat_map(|maker| maker.join().expect("making keys does not panic")).collect()
    })
}

fn issue_one(authority: &Authority, trust: &Trust, org: OrgId) -> anyhow::Result<Issued> {
    let now = clock::now();
    let agent_id = AgentId::new(now, clock::entropy());
    let key = pki::new_agent_key_and_csr().context("cannot make a key")?;
    let mut serial = pki::random::<16>();
    // Neither negative nor with a leading zero.
    serial[0] = 0x40 | (serial[0] & 0x3f);
    let certificate = authority
        .issue_agent(&key.csr_der, org, agent_id, serial, now - BACKDATED, now + LIFE)
        .context("cannot issue a certificate")?;
    let tls = trust.tls([&certificate, authority.agents_ca_der()], &key.key_pkcs8_der)?;
    let result_key = ResultKey::generate();
    Ok(Issued {
        serial,
        result_key: result_key.public_key(),
        // Orders of the bench have no environment: nothing is ever sealed to it.
        seal_key: pki::random(),
        identity: Identity { agent_id, org_id: org, tls, result_key, journal_epoch: pki::random() },
    })
}

/// Enrolls one agent with a token, over the network. `true`: somebody has yet to approve it.
///
/// # Errors
/// When the controller cannot be reached, is not the one of the token, or refuses.
pub(crate) async fn enroll(
    place: Place,
    token: &EnrollToken,
    name: String,
) -> anyhow::Result<(Identity, Arc<Trust>, bool)> {
    let tls = pki::tls::enroll_config(token.root_pin).context("cannot make a TLS configuration")?;
    let channel = connect::connect(place, tls).await?;
    let key = pki::new_agent_key_and_csr().context("cannot make a key")?;
    let result_key = ResultKey::generate();
    let request = EnrollRequest {
        protocol: PROTOCOL,
        token: token.reveal(),
        csr: key.csr_der,
        result_key: result_key.public_key(),
        seal_key: pki::random::<32>().to_vec(),
        name,
        facts: std::collections::HashMap::new(),
        agent_version: super::VERSION.to_owned(),
    };
    let answer = EnrollmentClient::new(channel)
        .enroll(request)
        .await
        .map_err(|status| anyhow!("the controller refused to enroll: {}", status.message()))?
        .into_inner();
    if pki::sha256(&answer.root) != token.root_pin {
        return Err(anyhow!("the root certificate in the answer is not the one that the token names"));
    }
    let trust = Trust::new(&answer.controllers_ca, &answer.trust_domain)?;
    let identity = Identity {
        agent_id: AgentId::from_bytes(&answer.agent_id).context("the answer has no agent id")?,
        org_id: OrgId::from_bytes(&answer.org_id).context("the answer has no organization id")?,
        tls: trust.tls([&answer.certificate, &answer.issuer], &key.key_pkcs8_der)?,
        result_key,
        journal_epoch: pki::random(),
    };
    Ok((identity, Arc::new(trust), answer.pending))
}

/// The controller's address as seen by the `index`th agent.
pub(crate) fn place(controller: SocketAddr, index: usize) -> Place {
    Place { controller, source: connect::source(index) }
}
