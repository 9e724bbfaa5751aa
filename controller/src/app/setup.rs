//! The first start, as people see it: one token makes the first organization and its administrator, and nothing else ever
//! does again.

use std::path::Path;

use jiff::Timestamp;
use model::{
    access::BuiltInRole,
    api::auth::{Secret, Setup, Tokens},
    id::{OneTimeTokenId, OrgId, RoleBindingId, UserId},
};
use pki::token::SetupToken;
use serde_json::json;
use sqlx::PgConnection;

use super::{
    App,
    access::Origin,
    ca,
    login::{self, Entering},
};
use crate::{
    clock,
    error::{During, Error, Result},
    store::{
        self, audit,
        installation::Installation,
        role_bindings::{Holder, NewBinding},
        users::Membership,
    },
};

/// The file in the data folder that the setup token is written into, until it is used.
pub(crate) const TOKEN_FILE: &str = "setup.token";

/// Makes sure that there is a token to set the installation up with, if that was not done; answers it.
///
/// # Errors
/// When it cannot be written.
pub(crate) async fn offer(
    connection: &mut PgConnection,
    data: &Path,
    installation: &Installation,
    now: Timestamp,
) -> anyhow::Result<Option<SetupToken>> {
    let path = data.join(TOKEN_FILE);
    if installation.home_org_id.is_some() {
        return Ok(None);
    }
    let kept = std::fs::read_to_string(&path).ok().and_then(|text| SetupToken::parse(&text).ok());
    if let Some(token) = kept
        && installation.setup_token_hash.as_deref() == Some(&token.hash()[..])
    {
        return Ok(Some(token));
    }
    // The file comes first: a crash between the two leaves a token that is made anew, not one that is lost.
    let token = SetupToken::new(OneTimeTokenId::new(now, clock::entropy()));
    ca::write_private(&path, token.reveal().as_bytes())?;
    Ok(store::installation::offer_setup(connection, &token.hash()).await?.then_some(token))
}

/// Sets the installation up and opens its administrator's first session.
///
/// # Errors
/// When a field is wrong, the token is another one, or it was done before.
pub(crate) async fn set_up(app: &App, origin: &Origin, client: &str, request: &Setup) -> Result<Tokens> {
    let refused = || {
        Error::BadCredential(
            "this is not the setup token of an installation that is yet to be set up".to_owned(),
        )
    };
    let name = request.validate()?;
    let token =
        SetupToken::parse(request.token.expose()).map_err(|error| Error::BadCredential(error.to_string()))?;
    let hash = token.hash();
    // Before the long hashing, so that nobody without the token makes us work.
    let mut connection = app.db.worker().acquire().await.during("acquire of a connection")?;
    let installation = store::installation::get(&mut connection).await?.ok_or_else(refused)?;
    if installation.setup_token_hash.as_deref() != Some(&hash[..]) {
        return Err(refused());
    }
    drop(connection);
    let password = app.passwords.hash(&request.password).await?;
    let now = clock::now();
    let (org, user) = (OrgId::new(now, clock::entropy()), UserId::new(now, clock::entropy()));
    let organization = request.organization();
    let mut tx = app.db.worker().begin().await.during("begin")?;
    store::installation::lock(&mut tx).await?;
    let installation = store::installation::get(&mut tx).await?.ok_or_else(refused)?;
    if installation.setup_token_hash.as_deref() != Some(&hash[..]) {
        return Err(refused());
    }
    store::organizations::insert(&mut tx, org, organization, now).await?;
    if !store::installation::set_up(&mut tx, &hash, org).await? {
        return Err(refused());
    }
    store::users::insert(&mut tx, user, &name, Some(&password), now).await?;
    make_administrator(&mut tx, org, user, "setup", now).await?;
    let entry = audit::Entry {
        actor_id: format!("user/{user}"),
        request_id: &origin.request_id,
        source: origin.address,
        ..audit::Entry::new(
            &name,
            "installation.set_up",
            format!("organization/{org}"),
            json!({ "organization": organization, "administrator": name }),
        )
    };
    audit::record(&mut tx, org, now, entry).await?;
    let membership = [Membership { org_id: org.0, organization: organization.to_owned(), added_at: now }];
    let entering = Entering { origin, client, user, name: &name, provider: None };
    let tokens = login::open(app, &mut tx, &entering, &membership[0], &membership, now).await?;
    tx.commit().await.during("commit")?;
    app.known.forget();
    app.setup_done();
    tracing::info!(organization, administrator = name, "the installation is set up");
    Ok(tokens)
}

/// Makes somebody a member and administrator of a new organization.
pub(crate) async fn make_administrator(
    tx: &mut PgConnection,
    org: OrgId,
    user: UserId,
    by: &str,
    now: Timestamp,
) -> Result<()> {
    store::users::add_member(tx, org, user, by, now).await?;
    let binding = NewBinding {
        id: RoleBindingId::new(now, clock::entropy()),
        org_id: org,
        role: BuiltInRole::Administrator.as_str(),
        holder: Holder::User(user),
        hosts: None,
        jobs: None,
        created_at: now,
        created_by: by,
    };
    store::role_bindings::insert(tx, &binding).await
}

/// What the log says until it is done. The token is worth nothing after its first use.
pub(crate) fn announce(token: &SetupToken, data: &Path) {
    tracing::warn!(
        "not set up yet: run 'opsctl setup --addr ADDRESS --token-file {}', or with the token {}",
        data.join(TOKEN_FILE).display(),
        Secret::new(token.reveal()).expose()
    );
}
