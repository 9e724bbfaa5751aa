//! People of an organization: how they get in, get in again, and are let go.

use jiff::SignedDuration;
use model::{
    access::{Permission, Permissions, canonical_user},
    api::{
        auth::{AcceptInvitation, Entered, Register, ResetPassword, validate_password},
        user::{CreateInvitation, CreatedOneTimeToken},
    },
    id::{OneTimeTokenId, OrgId, RoleBindingId, UserId},
    limits,
};
use pki::token::OneTimeToken;
use serde_json::json;
use sqlx::{Connection as _, PgConnection};

use super::{
    App,
    access::{Actor, Authorized, Origin, Subject, UserAdminister, UserManage},
    authenticate,
    login::{self, ended},
    roles,
};
use crate::{
    clock,
    error::{During, Error, Result},
    store::{
        self, audit,
        one_time_tokens::{self, INVITATION, NewToken, PASSWORD_RESET, Purpose},
        role_bindings::{Holder, NewBinding},
    },
};

/// Who makes a token on the controller's own machine: nobody's name has a slash in it.
pub(crate) const RESCUER: &str = "controller/rescue";

/// Makes an invitation; its text is in the answer and nowhere else.
///
/// # Errors
/// When a field is wrong, or the role has what the caller does not have.
pub(crate) async fn invite(
    app: &App,
    by: &Authorized<UserManage>,
    request: &CreateInvitation,
) -> Result<CreatedOneTimeToken> {
    request.validate()?;
    let now = clock::now();
    let mut tx = app.db.of(by.org_id()).begin().await.during("begin")?;
    if let Some(role) = &request.role {
        by.may_give(roles::permissions(&mut tx, by.org_id(), role).await?)?;
    }
    let purpose = Purpose::Invitation { role: request.role.as_deref() };
    let created = one_time_token(&mut tx, by, purpose, request.ttl_seconds()).await?;
    let detail = json!({ "role": request.role, "expires_at": created.expires_at });
    let entry = by.entry("invitation.create", format!("invitation/{}", created.id), detail);
    audit::record(&mut tx, by.org_id(), now, entry).await?;
    tx.commit().await.during("commit")?;
    Ok(created)
}

async fn one_time_token<P>(
    tx: &mut PgConnection,
    by: &Authorized<P>,
    purpose: Purpose<'_>,
    ttl_seconds: i64,
) -> Result<CreatedOneTimeToken> {
    let now = clock::now();
    let token = OneTimeToken::new(OneTimeTokenId::new(now, clock::entropy()));
    let expires_at = now + SignedDuration::from_secs(ttl_seconds);
    let new = NewToken {
        id: token.id,
        org_id: by.org_id(),
        purpose,
        secret_hash: &token.hash(),
        created_at: now,
        created_by: &by.actor().name,
        expires_at,
    };
    one_time_tokens::insert(tx, &new).await?;
    let text = model::api::auth::Secret::new(token.reveal());
    Ok(CreatedOneTimeToken { id: token.id, token: text, expires_at })
}

/// Makes an invitation worthless.
///
/// # Errors
/// When there is none of this id.
pub(crate) async fn delete_invitation(
    app: &App,
    by: &Authorized<UserManage>,
    id: OneTimeTokenId,
) -> Result<()> {
    let now = clock::now();
    let mut tx = app.db.of(by.org_id()).begin().await.during("begin")?;
    if !one_time_tokens::delete_invitation(&mut tx, by.org_id(), id).await? {
        return Err(Error::not_found("invitation", id.to_string()));
    }
    let entry = by.entry("invitation.delete", format!("invitation/{id}"), json!({}));
    audit::record(&mut tx, by.org_id(), now, entry).await?;
    tx.commit().await.during("commit")
}

/// Makes whoever has an invitation a member: somebody new with the password that he chooses, somebody known with the one
/// that he has.
///
/// # Errors
/// When a field is wrong, the invitation does not count, or the password is not that of the name.
pub(crate) async fn accept(app: &App, origin: &Origin, request: &AcceptInvitation) -> Result<Entered> {
    let name = canonical_user(&request.user)?;
    let token = OneTimeToken::parse(request.token.expose())
        .map_err(|error| Error::BadCredential(error.to_string()))?;
    let now = clock::now();
    if !one_time_tokens::counts(app.db.worker(), token.id, &token.hash(), INVITATION, now).await? {
        return Err(worthless("invitation"));
    }
    let known = store::users::entrance(app.db.worker(), &name).await?;
    let (user, new_hash, proved) = match &known {
        Some(_) => {
            let code = request.code.as_ref();
            let person = login::prove(app, origin, &name, &request.password, code, now).await?;
            (UserId(person.id), None, Some(person))
        }
        None => {
            validate_password("password", &request.password, &name)?;
            let hash = app.passwords.hash(&request.password).await?;
            (UserId::new(now, clock::entropy()), Some(hash), None)
        }
    };
    let mut tx = app.db.worker().begin().await.during("begin")?;
    if let Some(person) = &proved {
        login::still_so(&mut tx, person).await?;
    }
    let spent = one_time_tokens::spend(&mut tx, token.id, &token.hash(), INVITATION, now).await?;
    let spent = spent.ok_or_else(|| worthless("invitation"))?;
    let org = OrgId(spent.org_id);
    let inviter = maker(&mut tx, &spent).await?.ok_or_else(|| worthless("invitation"))?;
    if let Some(role) = &spent.role {
        let given = match roles::permissions(&mut tx, org, role).await {
            Err(Error::NotFound { .. }) => return Err(worthless("invitation")),
            given => given?,
        };
        inviter.may_give(given).map_err(|_| worthless("invitation"))?;
    }
    match &new_hash {
        Some(hash) => store::users::insert(&mut tx, user, &name, Some(hash), now).await?,
        None => drop(store::login_failures::forget(&mut tx, &name).await?),
    }
    if !store::users::add_member(&mut tx, org, user, &spent.created_by, now).await? {
        return Err(Error::Conflict(format!("'{name}' is a member of '{}' already", spent.organization)));
    }
    if let Some(role) = &spent.role {
        let binding = NewBinding {
            id: RoleBindingId::new(now, clock::entropy()),
            org_id: org,
            role,
            holder: Holder::User(user),
            hosts: None,
            jobs: None,
            created_at: now,
            created_by: &spent.created_by,
        };
        store::role_bindings::insert(&mut tx, &binding).await?;
    }
    let entry = audit::Entry {
        actor_id: format!("user/{user}"),
        request_id: &origin.request_id,
        source: origin.address,
        ..audit::Entry::new(
            &name,
            "invitation.accept",
            format!("invitation/{}", token.id),
            json!({ "role": spent.role, "invited_by": spent.created_by, "new": known.is_none() }),
        )
    };
    audit::record(&mut tx, org, now, entry).await?;
    tx.commit().await.during("commit")?;
    app.known.forget();
    Ok(Entered { id: user, user: name, organization: spent.organization })
}

/// Whoever made a token, if he is still one who may make it: what was taken from him does not go on in what he left behind.
async fn maker(tx: &mut PgConnection, spent: &one_time_tokens::Spent) -> Result<Option<Actor>> {
    let org = OrgId(spent.org_id);
    let is_home = store::installation::home(tx).await? == Some(org);
    let place = (org, spent.organization.as_str(), is_home);
    let found = authenticate::as_he_is_now(tx, place, &spent.created_by).await?;
    let Some(maker) = found.filter(|maker| maker.judge(Permission::UserManage).is_ok()) else {
        return Ok(None);
    };
    let is_disabled = match maker.subject {
        Subject::User(id) => store::users::lock_entrance(tx, id).await?.is_none_or(|person| person.disabled),
        Subject::ServiceAccount(_) => false,
    };
    Ok((!is_disabled).then_some(maker))
}

fn worthless(what: &str) -> Error {
    Error::BadCredential(format!("this {what} is not known, was used, or does not count any more"))
}

/// Makes a new person without any role in the home organization, where the configuration lets everybody do that.
///
/// # Errors
/// When it does not, a field is wrong, or the name is taken.
pub(crate) async fn register(app: &App, origin: &Origin, request: &Register) -> Result<Entered> {
    if !app.info.registration {
        return Err(Error::Off("nobody can register here: ask for an invitation"));
    }
    let name = canonical_user(&request.user)?;
    validate_password("password", &request.password, &name)?;
    let hash = app.passwords.hash(&request.password).await?;
    let now = clock::now();
    let mut tx = app.db.worker().begin().await.during("begin")?;
    let org = store::installation::home(&mut tx).await?;
    let org = org.ok_or_else(|| Error::Conflict("the installation is not set up yet".to_owned()))?;
    let user = UserId::new(now, clock::entropy());
    store::users::insert(&mut tx, user, &name, Some(&hash), now).await?;
    store::users::add_member(&mut tx, org, user, "registration", now).await?;
    let entry = audit::Entry {
        actor_id: format!("user/{user}"),
        request_id: &origin.request_id,
        source: origin.address,
        ..audit::Entry::new(&name, "user.register", format!("user/{user}"), json!({}))
    };
    audit::record(&mut tx, org, now, entry).await?;
    let organization = store::users::memberships(&mut tx, user).await?.remove(0).organization;
    tx.commit().await.during("commit")?;
    Ok(Entered { id: user, user: name, organization })
}

/// Makes a token with which somebody chooses a new password. Whoever makes one could enter as that one: he must have all
/// that the other has, in every organization that the other is a member of; when the token is used he must have it still.
///
/// # Errors
/// When there is nobody of this name, or one of the above is not so; and without a login: no API token becomes one.
pub(crate) async fn offer_reset(
    app: &App,
    by: &Authorized<UserManage>,
    name: &str,
) -> Result<CreatedOneTimeToken> {
    by.session()?;
    let now = clock::now();
    let mut tx = app.db.worker().begin().await.during("begin")?;
    let user = member(&mut tx, by, name).await?;
    may_act_for(&mut tx, by.actor(), user).await?;
    store::one_time_tokens::void_resets(&mut tx, user).await?;
    let created =
        one_time_token(&mut tx, by, Purpose::PasswordReset { user }, limits::DEFAULT_RESET_TTL_SECONDS)
            .await?;
    let detail = json!({ "expires_at": created.expires_at });
    login::record_for(&mut tx, Some(user), now, || {
        by.entry("user.password.offer_reset", format!("user/{user}"), detail.clone())
    })
    .await?;
    tx.commit().await.during("commit")?;
    Ok(created)
}

/// Who may do all that somebody may could as well be him.
pub(crate) async fn may_act_for(tx: &mut PgConnection, actor: &Actor, user: UserId) -> Result<()> {
    let bindings = store::role_bindings::of_user(tx, actor.org_id, user).await?;
    let held = authenticate::grants(bindings);
    actor.may_give(held.iter().fold(Permissions::NONE, |all, grant| all.union(grant.permissions)))?;
    let memberships = store::users::memberships(tx, user).await?;
    if memberships.iter().all(|membership| membership.org_id == actor.org_id.0) {
        return Ok(());
    }
    let why = "this person is a member of other organizations too";
    actor
        .judge(Permission::UserAdminister)
        .map(drop)
        .map_err(|_| actor.refusal(Permission::UserAdminister, why))
}

/// Gives somebody who has a token for it a new password. All of his sessions end; the second factor stays.
///
/// # Errors
/// When the token does not count, or the password is not acceptable.
pub(crate) async fn reset(app: &App, origin: &Origin, request: &ResetPassword) -> Result<()> {
    let token = OneTimeToken::parse(request.token.expose())
        .map_err(|error| Error::BadCredential(error.to_string()))?;
    let now = clock::now();
    if !one_time_tokens::counts(app.db.worker(), token.id, &token.hash(), PASSWORD_RESET, now).await? {
        return Err(worthless("token"));
    }
    validate_password("password", &request.password, "")?;
    let hash = app.passwords.hash(&request.password).await?;
    let mut tx = app.db.worker().begin().await.during("begin")?;
    let spent = one_time_tokens::spend(&mut tx, token.id, &token.hash(), PASSWORD_RESET, now).await?;
    let spent = spent.ok_or_else(|| worthless("token"))?;
    let user = spent.user_id.map(UserId).ok_or_else(|| worthless("token"))?;
    let person = store::users::entrance_of(app.db.worker(), user).await?.ok_or_else(|| worthless("token"))?;
    validate_password("password", &request.password, &person.name)?;
    // The person may have become somebody since whom its maker could not have been.
    if spent.created_by != RESCUER {
        let maker = maker(&mut tx, &spent).await?.ok_or_else(|| worthless("token"))?;
        may_act_for(&mut tx, &maker, user).await.map_err(|error| match error {
            Error::Forbidden { .. } => worthless("token"),
            error => error,
        })?;
    }
    store::users::set_password(&mut tx, user, &hash, now).await?;
    store::login_failures::forget(&mut tx, &person.name).await?;
    let sessions = store::login_sessions::end_all(&mut tx, user, None, None, ended::PASSWORD, now).await?;
    login::record_for(&mut tx, Some(user), now, || audit::Entry {
        actor_id: format!("user/{user}"),
        request_id: &origin.request_id,
        source: origin.address,
        ..audit::Entry::new(
            &person.name,
            "user.password.reset",
            format!("user/{user}"),
            json!({ "offered_by": spent.created_by, "sessions_ended": sessions }),
        )
    })
    .await?;
    tx.commit().await.during("commit")?;
    app.known.forget();
    Ok(())
}

/// Ends somebody's membership, with roles, groups, tokens and sessions in this organization.
///
/// # Errors
/// When there is nobody of this name, that one may more than the caller, or is the last administrator.
pub(crate) async fn remove(app: &App, by: &Authorized<UserManage>, name: &str) -> Result<()> {
    let now = clock::now();
    let mut tx = app.db.worker().begin().await.during("begin")?;
    let user = member(&mut tx, by, name).await?;
    let held = authenticate::grants(store::role_bindings::of_user(&mut tx, by.org_id(), user).await?);
    by.may_give(held.iter().fold(Permissions::NONE, |all, grant| all.union(grant.permissions)))?;
    if store::role_bindings::administrators(&mut tx, by.org_id(), None, Some(user)).await? == 0 {
        return Err(Error::Conflict(format!("'{name}' is the last administrator of this organization")));
    }
    store::login_sessions::end_all(&mut tx, user, Some(by.org_id()), None, ended::REMOVED, now).await?;
    store::users::remove_member(&mut tx, by.org_id(), user).await?;
    let entry = by.entry("user.remove", format!("user/{user}"), json!({ "name": name }));
    audit::record(&mut tx, by.org_id(), now, entry).await?;
    tx.commit().await.during("commit")?;
    app.known.forget();
    Ok(())
}

/// Keeps somebody out everywhere, or lets him in again.
///
/// # Errors
/// When there is nobody of this name, or it is the last administrator.
pub(crate) async fn set_disabled(
    app: &App,
    by: &Authorized<UserAdminister>,
    name: &str,
    disabled: bool,
) -> Result<()> {
    let now = clock::now();
    let mut tx = app.db.worker().begin().await.during("begin")?;
    let user = member(&mut tx, by, name).await?;
    if disabled && store::role_bindings::administrators(&mut tx, by.org_id(), None, Some(user)).await? == 0 {
        return Err(Error::Conflict(format!("'{name}' is the last administrator of this organization")));
    }
    if store::users::set_disabled(&mut tx, user, disabled.then_some(now)).await? {
        if disabled {
            store::login_sessions::end_all(&mut tx, user, None, None, ended::DISABLED, now).await?;
        }
        let verb = if disabled { "user.disable" } else { "user.enable" };
        let entry = || by.entry(verb, format!("user/{user}"), json!({ "name": name }));
        login::record_for(&mut tx, Some(user), now, entry).await?;
        tx.commit().await.during("commit")?;
        app.known.forget();
    }
    Ok(())
}

/// Lets somebody in again whom no administrator can help: for the controller's own machine, where whoever calls it could
/// change the database itself. Answers the token for a new password.
///
/// # Errors
/// When there is nobody of this name.
pub(crate) async fn rescue(connection: &mut PgConnection, name: &str) -> Result<String> {
    let name = canonical_user(name)?;
    let now = clock::now();
    let mut tx = connection.begin().await.during("begin")?;
    let user = store::users::find(&mut tx, &name).await?.ok_or_else(|| Error::not_found("user", &name))?;
    let org = match store::users::memberships(&mut tx, user).await?.first() {
        Some(membership) => OrgId(membership.org_id),
        None => {
            return Err(Error::Conflict(format!("'{name}' is a member of no organization: invite that one")));
        }
    };
    store::login_failures::forget(&mut tx, &name).await?;
    store::users::set_disabled(&mut tx, user, None).await?;
    store::users::remove_totp(&mut tx, user).await?;
    store::one_time_tokens::void_resets(&mut tx, user).await?;
    store::login_sessions::end_all(&mut tx, user, None, None, ended::PASSWORD, now).await?;
    let token = OneTimeToken::new(OneTimeTokenId::new(now, clock::entropy()));
    let new = NewToken {
        id: token.id,
        org_id: org,
        purpose: Purpose::PasswordReset { user },
        secret_hash: &token.hash(),
        created_at: now,
        created_by: RESCUER,
        expires_at: now + SignedDuration::from_secs(limits::DEFAULT_RESET_TTL_SECONDS),
    };
    one_time_tokens::insert(&mut tx, &new).await?;
    login::record_for(&mut tx, Some(user), now, || {
        audit::Entry::new(RESCUER, "user.rescue", format!("user/{user}"), json!({ "name": name }))
    })
    .await?;
    tx.commit().await.during("commit")?;
    Ok(token.reveal())
}

/// Takes somebody's second factor away, who has lost it: one logs in by password alone then. All sessions end.
///
/// # Errors
/// As of [`offer_reset`], and when there is no second factor.
pub(crate) async fn remove_second_factor(app: &App, by: &Authorized<UserManage>, name: &str) -> Result<()> {
    by.session()?;
    let now = clock::now();
    let mut tx = app.db.worker().begin().await.during("begin")?;
    let user = member(&mut tx, by, name).await?;
    may_act_for(&mut tx, by.actor(), user).await?;
    if !store::users::remove_totp(&mut tx, user).await? {
        return Err(Error::Conflict(format!("'{name}' has no second factor")));
    }
    store::login_sessions::end_all(&mut tx, user, None, None, ended::PASSWORD, now).await?;
    let entry = || by.entry("user.second_factor.remove", format!("user/{user}"), json!({ "name": name }));
    login::record_for(&mut tx, Some(user), now, entry).await?;
    tx.commit().await.during("commit")?;
    app.known.forget();
    Ok(())
}

/// Lets somebody try again who was locked out by failures.
///
/// # Errors
/// When there is nobody of this name.
pub(crate) async fn unlock(app: &App, by: &Authorized<UserManage>, name: &str) -> Result<()> {
    let now = clock::now();
    let mut tx = app.db.worker().begin().await.during("begin")?;
    let user = member(&mut tx, by, name).await?;
    if store::login_failures::forget(&mut tx, name).await? {
        let entry = by.entry("user.unlock", format!("user/{user}"), json!({ "name": name }));
        audit::record(&mut tx, by.org_id(), now, entry).await?;
        tx.commit().await.during("commit")?;
    }
    Ok(())
}

/// Ends all sessions of somebody in this organization.
///
/// # Errors
/// When there is nobody of this name.
pub(crate) async fn end_sessions(app: &App, by: &Authorized<UserManage>, name: &str) -> Result<()> {
    let now = clock::now();
    let mut tx = app.db.worker().begin().await.during("begin")?;
    let user = member(&mut tx, by, name).await?;
    let ended =
        store::login_sessions::end_all(&mut tx, user, Some(by.org_id()), None, ended::ENDED, now).await?;
    let entry = by.entry("user.sessions.end", format!("user/{user}"), json!({ "sessions_ended": ended }));
    audit::record(&mut tx, by.org_id(), now, entry).await?;
    tx.commit().await.during("commit")?;
    app.known.forget();
    Ok(())
}

pub(crate) async fn member<P>(tx: &mut PgConnection, by: &Authorized<P>, name: &str) -> Result<UserId> {
    let found = store::users::find_member(tx, by.org_id(), name).await?;
    found.ok_or_else(|| Error::not_found("user", name))
}
