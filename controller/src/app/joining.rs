//! How another controller gets the keys of the authority's intermediates.
//!
//! Invariants: the keys are sealed to the key of the one that joins, after its token was spent; a token counts only with
//! the signature of a controller, so that nobody makes one by writing a row; the root's key is never read here. Whoever
//! holds these keys is this installation, for all of its organizations.

use std::net::IpAddr;

use jiff::{SignedDuration, Timestamp};
use model::{
    Invalid,
    api::controller::CreatedJoinToken,
    id::{ControllerId, JoinTokenId},
    limits,
};
use pki::token::JoinToken;
use prost::Message;
use serde_json::json;
use zeroize::Zeroizing;

use super::{
    App,
    access::{Authorized, ControllerJoin},
};
use crate::{
    clock,
    error::{During, Error, Result},
    store::{self, audit, join_tokens::NewJoinToken},
};

/// Binds the sealed keys to their purpose.
pub(crate) const SEAL_INFO: &[u8] = b"opsconductor join";

/// What the signature of a token is made over, so that it can stand for nothing else.
const KIND: &str = "join-token";

/// The signed bytes of a token.
fn payload(id: JoinTokenId, secret_hash: &[u8; 32], expires_at: Timestamp) -> Vec<u8> {
    [id.to_bytes(), secret_hash.to_vec(), expires_at.as_second().to_be_bytes().to_vec()].concat()
}

/// What the sealed keys belong to.
pub(crate) fn aad(token: JoinTokenId, controller: ControllerId) -> Vec<u8> {
    [token.to_bytes(), controller.to_bytes()].concat()
}

/// Makes a token; its text is in the answer and nowhere else.
///
/// # Errors
/// When this controller's database is its private one, which nobody can share.
pub(crate) async fn create_token(app: &App, by: &Authorized<ControllerJoin>) -> Result<CreatedJoinToken> {
    if !app.info.is_shared {
        let text = "this controller runs a private Postgres, which no other controller reaches: \
                    move to one of your own first, named in [database] url";
        return Err(Error::Conflict(text.to_owned()));
    }
    let now = clock::now();
    let token = JoinToken {
        id: JoinTokenId::new(now, clock::entropy()),
        secret: pki::random().into(),
        root_pin: app.info.root_pin,
    };
    let expires_at = now + SignedDuration::from_secs(limits::JOIN_TOKEN_TTL_SECONDS);
    // In whole seconds, as it is signed.
    let expires_at = Timestamp::from_second(expires_at.as_second()).unwrap_or(expires_at);
    let secret_hash = pki::token::hash_secret(&token.secret[..]);
    let signer = app.ca.signer();
    let new = NewJoinToken {
        id: token.id,
        org_id: by.org_id(),
        secret_hash: &secret_hash,
        created_at: now,
        created_by: &by.actor().name,
        expires_at,
        signature: &signer.sign(KIND, &payload(token.id, &secret_hash, expires_at)),
        certificate: signer.certificate(),
    };
    let mut tx = app.db.of(by.org_id()).begin().await.during("begin")?;
    store::join_tokens::insert(&mut tx, &new).await?;
    let detail = json!({ "expires_at": expires_at });
    let entry = by.entry("controller.join_token.create", format!("join-token/{}", token.id), detail);
    audit::record(&mut tx, by.org_id(), now, entry).await?;
    tx.commit().await.during("commit")?;
    let agent_port = app.info.agent_port;
    Ok(CreatedJoinToken { id: token.id, expires_at, token: token.reveal(), agent_port })
}

/// Hands the intermediates' certificates and, sealed, their keys to whoever holds a token. It is spent in the transaction
/// whose audit entry says so: on any error nothing has happened.
///
/// # Errors
/// When the token or the key is not acceptable.
pub(crate) async fn join(app: &App, from: IpAddr, request: proto::JoinRequest) -> Result<proto::JoinAnswer> {
    let token = JoinToken::parse(&request.token)
        .map_err(|error| Error::Invalid(Invalid::new("token", error.to_string())))?;
    if token.root_pin != app.info.root_pin {
        return Err(Error::BadCredential("the join token is of another installation".to_owned()));
    }
    let id = ControllerId::from_bytes(&request.controller_id)
        .map_err(|error| Error::Invalid(Invalid::new("controller_id", error.to_string())))?;
    let now = clock::now();
    let hash = pki::token::hash_secret(&token.secret[..]);
    let mut tx = app.db.worker().begin().await.during("begin")?;
    let Some(spent) = store::join_tokens::spend(&mut tx, token.id, &hash, id, now).await? else {
        let why = store::join_tokens::explain(&mut tx, token.id, &hash, now).await?;
        tracing::warn!(join_token.id = %token.id, address = %from, "a controller was refused");
        return Err(Error::BadCredential(match why {
            Some(why) if why.used => "the join token was used already; create another one".to_owned(),
            Some(why) if why.expired => "the join token has expired; create another one".to_owned(),
            Some(_) | None => "the join token is not known".to_owned(),
        }));
    };
    let signed = payload(token.id, &hash, spent.expires_at);
    if let Err(error) = app.ca.verifier().verify(KIND, &signed, &spent.signature, &spent.certificate, now) {
        tracing::error!(join_token.id = %token.id, address = %from, %error, "a join token that no controller made was refused");
        return Err(Error::BadCredential("the join token is not known".to_owned()));
    }
    let pem = app.ca.authority().to_pem();
    let keys = proto::AuthorityKeys {
        agents_key: pem.agents_key.to_string(),
        controllers_key: pem.controllers_key.to_string(),
    };
    let plain = Zeroizing::new(keys.encode_to_vec());
    let sealed = pki::seal::seal(&request.seal_key, SEAL_INFO, &aad(token.id, id), &plain)
        .map_err(|error| Error::Invalid(Invalid::new("seal_key", error.to_string())))?;
    let by = format!("join-token/{}", token.id);
    let entry = audit::Entry {
        source: Some(from),
        ..audit::Entry::new(&by, "controller.join", format!("controller/{id}"), json!({}))
    };
    audit::record(&mut tx, spent.org_id, now, entry).await?;
    tx.commit().await.during("commit")?;
    tracing::warn!(controller.id = %id, address = %from, "another controller has joined: it has the authority's keys");
    Ok(proto::JoinAnswer {
        trust_domain: pem.trust_domain,
        root_certificate: pem.root_cert,
        agents_certificate: pem.agents_cert,
        controllers_certificate: pem.controllers_cert,
        keys: Some(proto::Sealed {
            encapsulated_key: sealed.encapsulated_key,
            ciphertext: sealed.ciphertext,
        }),
    })
}
