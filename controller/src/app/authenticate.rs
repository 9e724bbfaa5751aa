//! Who a bearer is.

use model::id::OrgId;

use super::{App, access::Actor};
use crate::{
    clock,
    error::{Error, Result},
    store,
};

/// The actor that a bearer token belongs to.
///
/// # Errors
/// [`Error::BadCredential`] whatever is wrong with the token: the answer does not tell which tokens exist.
pub(crate) async fn by_token(app: &App, bearer: &str) -> Result<Actor> {
    let refused = || Error::BadCredential("no such token, or it has ended".to_owned());
    let token =
        pki::token::ApiToken::parse(bearer).map_err(|error| Error::BadCredential(error.to_string()))?;
    let known =
        store::api_tokens::get_valid(app.db.worker(), token.id, clock::now()).await?.ok_or_else(refused)?;
    // Hashes of 256 random bits are compared: how long that takes tells nothing about the secret.
    if pki::token::hash_secret(&token.secret[..])[..] != known.secret_hash[..] {
        return Err(refused());
    }
    Ok(Actor {
        org_id: OrgId(known.org_id),
        organization: known.organization,
        name: known.name,
        token_id: token.id,
        permissions: known.permissions,
    })
}
