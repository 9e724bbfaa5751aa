//! API tokens, and the accounts of programs that own some of them.

use jiff::SignedDuration;
use model::{
    Invalid,
    access::{Permission, Permissions, validate_slug},
    api::{
        auth::Secret,
        token::{ApiToken, CreateApiToken, CreateServiceAccount, CreatedApiToken, ServiceAccount},
    },
    id::{ApiTokenId, ServiceAccountId},
    limits,
};
use serde_json::json;

use super::{
    App,
    access::{Authorized, Credential, SelfRead, Subject, TokenManage},
    authenticate,
};
use crate::{
    clock,
    error::{During, Error, Result},
    store::{
        self,
        api_tokens::{NewToken, Owner},
        audit,
    },
};

fn owner(subject: Subject) -> Owner {
    match subject {
        Subject::User(id) => Owner::User(id),
        Subject::ServiceAccount(id) => Owner::ServiceAccount(id),
    }
}

/// Whose tokens somebody sees and revokes without being allowed to manage those of all.
pub(crate) fn own(by: &Authorized<SelfRead>) -> Owner {
    owner(by.actor().subject)
}

/// Makes a token of one's own, which needs a login, or of a service account. Its text is in the answer and nowhere else. A
/// token that makes one makes none that may more, or lives longer, than itself.
///
/// # Errors
/// When a field is wrong, there are too many, or the service account may what the caller may not; and when a token asks for
/// another one of its owner's: what was stolen must end when it is revoked.
pub(crate) async fn create(
    app: &App,
    by: &Authorized<SelfRead>,
    mut request: CreateApiToken,
) -> Result<CreatedApiToken> {
    request.validate()?;
    if request.service_account.is_none() {
        by.session()?;
    }
    let (org, now) = (by.org_id(), clock::now());
    let mut tx = app.db.of(org).begin().await.during("begin")?;
    let (owner, owner_name) = match &request.service_account {
        None => (owner(by.actor().subject), by.actor().name.clone()),
        Some(name) => {
            let manages = by.actor().judge(Permission::TokenManage);
            manages.map_err(|why| by.actor().refusal(Permission::TokenManage, why))?;
            let id = store::service_accounts::find(&mut tx, org, name).await?;
            let id = id.ok_or_else(|| Error::not_found("service account", name))?;
            let held =
                authenticate::grants(store::role_bindings::of_service_account(&mut tx, org, id).await?);
            by.may_give(held.iter().fold(Permissions::NONE, |all, grant| all.union(grant.permissions)))?;
            (Owner::ServiceAccount(id), format!("service/{name}"))
        }
    };
    if store::api_tokens::count(&mut tx, org, owner, now).await? >= limits::API_TOKENS {
        let text = format!(
            "of '{owner_name}' are as many as can be: the limit API_TOKENS is {}",
            limits::API_TOKENS
        );
        return Err(Invalid::new("tokens", text).into());
    }
    let narrowed = &by.actor().narrowed;
    let expires_at = now + SignedDuration::from_secs(request.ttl_seconds());
    let expires_at = narrowed.expires_at.map_or(expires_at, |end| end.min(expires_at));
    let wanted: Option<Permissions> =
        request.permissions.as_ref().map(|names| names.iter().copied().collect());
    let permissions: Vec<String> = match (wanted, narrowed.permissions) {
        (None, None) => vec!["*".to_owned()],
        (Some(wanted), None) => names(wanted),
        (None, Some(kept)) => names(kept),
        (Some(wanted), Some(kept)) => match wanted.iter().find(|permission| !kept.contains(*permission)) {
            None => names(wanted),
            Some(missing) => {
                return Err(Invalid::new(
                    "permissions",
                    format!("names '{missing}', which the token that asks does not have"),
                )
                .into());
            }
        },
    };
    let hosts = match (&request.hosts, &narrowed.hosts) {
        (wanted, None) => wanted.clone(),
        (None, Some(kept)) => Some(kept.to_string()),
        (Some(wanted), Some(kept)) => {
            Some(model::access::scope_selector("hosts", &format!("({wanted}) and ({kept})"))?.to_string())
        }
    };
    let token = pki::token::ApiToken::new(ApiTokenId::new(now, clock::entropy()));
    let new = NewToken {
        id: token.id,
        org_id: org,
        owner,
        name: &request.name,
        secret_hash: &token.hash(),
        permissions: &permissions,
        hosts: hosts.as_deref(),
        created_at: now,
        created_by: &by.actor().name,
        expires_at,
    };
    store::api_tokens::insert(&mut tx, &new).await?;
    let detail = json!({
        "name": request.name, "owner": owner_name, "permissions": permissions, "hosts": hosts, "expires_at": expires_at,
    });
    audit::record(&mut tx, org, now, by.entry("api_token.create", format!("api-token/{}", token.id), detail))
        .await?;
    tx.commit().await.during("commit")?;
    let api_token = ApiToken {
        id: token.id,
        name: request.name,
        owner: owner_name,
        permissions: (permissions != ["*"]).then_some(permissions),
        hosts,
        created_at: now,
        created_by: by.actor().name.clone(),
        expires_at,
        revoked: false,
        last_used_at: None,
        last_used_from: None,
    };
    Ok(CreatedApiToken { api_token, token: Secret::new(token.reveal()) })
}

fn names(permissions: Permissions) -> Vec<String> {
    permissions.iter().map(|permission| permission.as_str().to_owned()).collect()
}

/// Makes a token worthless: one of one's own, or with [`Permission::TokenManage`] any of the organization. A token that may
/// not manage others can end itself. Revoking twice is no error.
///
/// # Errors
/// When there is none of this id, or it is not the caller's to revoke.
pub(crate) async fn revoke(app: &App, by: &Authorized<SelfRead>, id: ApiTokenId) -> Result<()> {
    let (org, now) = (by.org_id(), clock::now());
    let manages = by.actor().judge(Permission::TokenManage).is_ok();
    if !manages && by.actor().credential != Credential::ApiToken(id) {
        by.session()?;
    }
    let only = (!manages).then(|| own(by));
    let mut tx = app.db.of(org).begin().await.during("begin")?;
    let Some(name) = store::api_tokens::revoke(&mut tx, org, id, only, now).await? else {
        return match store::api_tokens::is_there(&mut tx, org, id, only).await? {
            true => Ok(()),
            false => Err(Error::not_found("token", id.to_string())),
        };
    };
    let entry = by.entry("api_token.revoke", format!("api-token/{id}"), json!({ "name": name }));
    audit::record(&mut tx, org, now, entry).await?;
    tx.commit().await.during("commit")?;
    app.known.forget();
    Ok(())
}

/// Makes an account of a program, without any role.
///
/// # Errors
/// When the name is wrong or taken.
pub(crate) async fn create_service_account(
    app: &App,
    by: &Authorized<TokenManage>,
    request: &CreateServiceAccount,
) -> Result<ServiceAccount> {
    validate_slug("name", &request.name)?;
    let (org, now) = (by.org_id(), clock::now());
    let id = ServiceAccountId::new(now, clock::entropy());
    let mut tx = app.db.of(org).begin().await.during("begin")?;
    store::service_accounts::insert(&mut tx, org, id, &request.name, &by.actor().name, now).await?;
    let entry =
        by.entry("service_account.create", format!("service-account/{id}"), json!({ "name": request.name }));
    audit::record(&mut tx, org, now, entry).await?;
    tx.commit().await.during("commit")?;
    let created_by = by.actor().name.clone();
    Ok(ServiceAccount {
        id,
        name: request.name.clone(),
        created_at: now,
        created_by,
        disabled: false,
        tokens: 0,
    })
}

/// Deletes an account of a program with its tokens and roles.
///
/// # Errors
/// When there is none of this name, or it may what the caller may not.
pub(crate) async fn delete_service_account(
    app: &App,
    by: &Authorized<TokenManage>,
    name: &str,
) -> Result<()> {
    let (org, now) = (by.org_id(), clock::now());
    let mut tx = app.db.of(org).begin().await.during("begin")?;
    let id = store::service_accounts::find(&mut tx, org, name).await?;
    let id = id.ok_or_else(|| Error::not_found("service account", name))?;
    let held = authenticate::grants(store::role_bindings::of_service_account(&mut tx, org, id).await?);
    by.may_give(held.iter().fold(Permissions::NONE, |all, grant| all.union(grant.permissions)))?;
    store::service_accounts::delete(&mut tx, org, id).await?;
    let entry = by.entry("service_account.delete", format!("service-account/{id}"), json!({ "name": name }));
    audit::record(&mut tx, org, now, entry).await?;
    tx.commit().await.during("commit")?;
    app.known.forget();
    Ok(())
}
