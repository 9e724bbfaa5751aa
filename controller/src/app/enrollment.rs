//! Enrollment and renewal: how an agent gets its certificates.

use std::net::IpAddr;

use jiff::{SignedDuration, Timestamp};
use model::{
    Invalid,
    id::{AgentId, OrgId},
    label::{accept_facts, validate_name},
    limits,
};
use pki::identity::AgentIdentity;
use serde_json::json;

use super::App;
use crate::{
    clock,
    error::{During, Error, Result},
    store::{self, agents::NewAgent, audit},
};

/// Certificates are dated back by this, for hosts whose clocks are behind.
const BACKDATED: SignedDuration = SignedDuration::from_mins(5);
/// Bytes of each of the executor's public keys.
const KEY_BYTES: usize = 32;

/// Makes an agent of whoever holds a token. The token is spent in the transaction that makes the agent: on any error
/// nothing has happened.
///
/// # Errors
/// When the token, the name, a key or the CSR is not acceptable.
pub(crate) async fn enroll(
    app: &App,
    from: IpAddr,
    request: proto::EnrollRequest,
) -> Result<proto::Credentials> {
    let token = pki::token::EnrollToken::parse(&request.token)
        .map_err(|error| Error::Invalid(Invalid::new("token", error.to_string())))?;
    if token.root_pin != app.info.root_pin {
        return Err(Error::BadCredential("the token is of another installation".to_owned()));
    }
    validate_name(&request.name)?;
    for (field, key) in [("result_key", &request.result_key), ("seal_key", &request.seal_key)] {
        if key.len() != KEY_BYTES {
            return Err(Invalid::new(field, format!("has {} bytes, not {KEY_BYTES}", key.len())).into());
        }
    }
    let now = clock::now();
    let id = AgentId::new(now, clock::entropy());
    let hash = pki::token::hash_secret(&token.secret[..]);

    let mut tx = app.db.worker().begin().await.during("begin")?;
    let Some(spent) = store::enroll_tokens::spend(&mut tx, token.id, &hash, from, now).await? else {
        let why = store::enroll_tokens::explain(&mut tx, token.id, &hash, now).await?;
        tracing::warn!(enroll_token.id = %token.id, address = %from, "an enrollment was refused");
        return Err(Error::BadCredential(match why {
            None => "the enroll token is not known; it may have been deleted".to_owned(),
            Some(why) if why.used_up => "the enroll token was used already; create another one".to_owned(),
            Some(why) if why.expired => "the enroll token has expired; create another one".to_owned(),
            Some(_) => format!("the enroll token does not count from the address {from}"),
        }));
    };
    let org = OrgId(spent.org_id);
    let pending = spent.max_uses > 1;
    let issued = issue(app, &request.csr, org, id, now)?;
    let facts = accept_facts(request.facts);
    let version: String =
        request.agent_version.chars().filter(|c| !c.is_control()).take(limits::NAME_CHARS).collect();
    let new = NewAgent {
        id,
        org_id: org,
        name: &request.name,
        labels: &spent.labels,
        facts: &facts,
        version: &version,
        pending,
        serial: &issued.serial,
        certificate_not_before: issued.not_before,
        certificate_expires_at: issued.expires_at,
        result_key: &request.result_key,
        seal_key: &request.seal_key,
    };
    if !store::agents::insert(&mut tx, &new, now).await? {
        return Err(Error::Conflict(format!(
            "an agent named '{}' exists: give this host another --name, or revoke that agent",
            request.name
        )));
    }
    let by = format!("enroll-token/{}", token.id);
    let detail = json!({ "name": request.name, "pending": pending });
    let entry = audit::Entry {
        source: Some(from),
        ..audit::Entry::new(&by, "agent.enroll", format!("agent/{id}"), detail)
    };
    audit::record(&mut tx, org, now, entry).await?;
    tx.commit().await.during("commit")?;
    tracing::info!(agent.id = %id, agent.name = request.name, address = %from, pending, "an agent has enrolled");
    Ok(credentials(app, org, id, issued.certificate, pending))
}

/// Gives an agent its next certificate; the present one counts until the first call with the new one.
///
/// # Errors
/// When the CSR is not acceptable.
pub(crate) async fn renew(
    app: &App,
    identity: &AgentIdentity,
    from: IpAddr,
    request: proto::RenewRequest,
    is_pending: bool,
) -> Result<proto::Credentials> {
    let now = clock::now();
    let issued = issue(app, &request.csr, identity.org_id, identity.agent_id, now)?;
    let mut tx = app.db.worker().begin().await.during("begin")?;
    let Issued { serial, not_before, expires_at, .. } = &issued;
    store::agents::set_new_serial(&mut tx, identity.agent_id, serial, *not_before, *expires_at).await?;
    let agent = format!("agent/{}", identity.agent_id);
    let detail = json!({ "serial": hex::encode(serial), "expires_at": expires_at.to_string() });
    let entry = audit::Entry {
        source: Some(from),
        ..audit::Entry::new(&agent, "agent.renew", agent.clone(), detail)
    };
    audit::record(&mut tx, identity.org_id, now, entry).await?;
    tx.commit().await.during("commit")?;
    tracing::info!(agent.id = %identity.agent_id, expires_at = %issued.expires_at, "a certificate was renewed");
    Ok(credentials(app, identity.org_id, identity.agent_id, issued.certificate, is_pending))
}

struct Issued {
    certificate: Vec<u8>,
    serial: [u8; 16],
    not_before: Timestamp,
    expires_at: Timestamp,
}

fn issue(app: &App, csr: &[u8], org: OrgId, agent: AgentId, now: Timestamp) -> Result<Issued> {
    let mut serial = pki::random::<16>();
    // Neither negative nor with a leading zero, so that every reader of the certificate sees these sixteen bytes.
    serial[0] = 0x40 | (serial[0] & 0x3f);
    let life = SignedDuration::try_from(app.info.certificate_life).unwrap_or(SignedDuration::from_hours(24));
    let (not_before, expires_at) = (now - BACKDATED, now + life);
    let certificate = app
        .ca
        .authority()
        .issue_agent(csr, org, agent, serial, not_before, expires_at)
        .map_err(|error| Error::Invalid(Invalid::new("csr", error.to_string())))?;
    Ok(Issued { certificate, serial, not_before, expires_at })
}

fn credentials(
    app: &App,
    org: OrgId,
    agent: AgentId,
    certificate: Vec<u8>,
    pending: bool,
) -> proto::Credentials {
    let authority = app.ca.authority();
    proto::Credentials {
        agent_id: agent.to_bytes(),
        org_id: org.to_bytes(),
        trust_domain: authority.trust_domain().to_owned(),
        certificate,
        issuer: authority.agents_ca_der().to_vec(),
        controllers_ca: authority.controllers_ca_der().to_vec(),
        root: authority.root_der().to_vec(),
        pending,
    }
}
