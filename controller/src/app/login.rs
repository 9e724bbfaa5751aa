//! Logins: how a person enters, goes on and leaves.
//!
//! 1. The answer, and the time that it takes, is the same for a wrong password, an unknown name and a disabled person.
//! 2. A try is counted before it is made, so that many at once are no more than one after the other.
//! 3. A refresh token is good once. One that was used before ends its session, whoever brings it; one that never was has no
//!    effect.

use jiff::{SignedDuration, Timestamp};
use model::{
    access::canonical_user,
    api::auth::{Login, Refresh, Secret, Tokens},
    id::{LoginSessionId, OrgId, UserId},
    limits,
};
use pki::{access_token::Claims, token::RefreshToken};
use serde_json::json;
use sqlx::PgConnection;

use super::{
    App,
    access::{Authorized, Credential, Origin, SelfRead, Subject},
    totp::{self, Accepted},
};
use crate::{
    clock,
    error::{During, Error, Result},
    store::{
        self, audit,
        login_sessions::NewSession,
        users::{Entrance, Membership},
    },
};

/// The verb of a try to enter.
const ENTER: &str = "session.create";
/// Characters that are kept of what a client calls itself.
const CLIENT_CHARS: usize = 200;

/// Why a session has ended, as its row says it.
pub(crate) mod ended {
    pub(crate) const LOGOUT: &str = "logout";
    pub(crate) const ENDED: &str = "ended";
    pub(crate) const PASSWORD: &str = "password_changed";
    pub(crate) const REMOVED: &str = "removed";
    pub(crate) const DISABLED: &str = "disabled";
    pub(super) const REUSED: &str = "refresh_token_reused";
}

pub(crate) fn span(of: std::time::Duration) -> SignedDuration {
    SignedDuration::try_from(of).unwrap_or(SignedDuration::MAX)
}

fn refused() -> Error {
    Error::BadCredential("the name, the password or the code is wrong".to_owned())
}

/// Lets a person in.
///
/// # Errors
/// [`Error::BadCredential`] whatever is wrong, [`Error::SecondFactor`] when only the code is missing, [`Error::TooMany`]
/// while the name is locked.
pub(crate) async fn login(app: &App, origin: &Origin, client: &str, request: &Login) -> Result<Tokens> {
    let now = clock::now();
    let person = prove(app, origin, &request.user, &request.password, request.code.as_ref(), now).await?;
    let user = UserId(person.id);
    let mut tx = app.db.worker().begin().await.during("begin")?;
    still_so(&mut tx, &person).await?;
    store::login_failures::forget(&mut tx, &person.name).await?;
    let memberships = store::users::memberships(&mut tx, user).await?;
    let membership = match choose(&memberships, request.organization.as_deref()) {
        Ok(membership) => membership,
        Err(error) => {
            // It was no failure to enter.
            tx.commit().await.during("commit")?;
            return Err(error);
        }
    };
    let entering = Entering { origin, client, user, name: &person.name, provider: None };
    let tokens = open(app, &mut tx, &entering, membership, &memberships, now).await?;
    tx.commit().await.during("commit")?;
    Ok(tokens)
}

/// Makes sure, until the transaction ends, that nobody has changed the password meanwhile or keeps the person out: what was
/// proved by an old password must not open what its change has closed.
pub(crate) async fn still_so(tx: &mut PgConnection, proved: &Entrance) -> Result<()> {
    let now = store::users::lock_entrance(tx, UserId(proved.id)).await?.ok_or_else(refused)?;
    let is_so = !now.disabled
        && now.password_hash == proved.password_hash
        && now.totp_confirmed == proved.totp_confirmed;
    is_so.then_some(()).ok_or_else(refused)
}

/// Makes sure that it is this person, by password and second factor. Failures are counted and audited; so is a right
/// password without its code, which forgets itself when the code comes.
pub(crate) async fn prove(
    app: &App,
    origin: &Origin,
    name: &str,
    password: &Secret,
    code: Option<&Secret>,
    now: Timestamp,
) -> Result<Entrance> {
    // Nobody can have a name that is none; it is treated like one that nobody has.
    let name = canonical_user(name).ok();
    if let Some(name) = &name
        && let Some(until) = store::login_failures::count(app.db.worker(), name, now).await?
    {
        let wait = until.duration_since(now).as_secs().max(0).cast_unsigned();
        return Err(Error::TooMany { retry_after_seconds: wait + 1 });
    }
    let known = match &name {
        Some(name) => store::users::entrance(app.db.worker(), name).await?,
        None => None,
    };
    let hash = known.as_ref().and_then(|person| person.password_hash.clone());
    let is_right = app.passwords.verify(password, hash).await?;
    let person = match known {
        Some(person) if is_right && !person.disabled => person,
        known => {
            let why = match (&known, is_right) {
                (None, _) => "unknown",
                (Some(_), false) => "password",
                (Some(_), true) => "disabled",
            };
            note_failure(app, origin, ENTER, known.as_ref(), why, now).await?;
            return Err(refused());
        }
    };
    if person.totp_confirmed {
        let Some(code) = code else {
            note_failure(app, origin, ENTER, Some(&person), "second_factor_missing", now).await?;
            return Err(Error::SecondFactor);
        };
        match totp::accept(app, &person, code, now).await? {
            Accepted::Code => {}
            Accepted::RecoveryCode => note_recovery_code(app, origin, &person, now).await?,
            Accepted::Not => {
                note_failure(app, origin, ENTER, Some(&person), "code", now).await?;
                return Err(refused());
            }
        }
    }
    Ok(person)
}

/// Of whoever is known the entry says who, and goes to the organizations of that one. Of others it does not say what was
/// typed: it may be a password in the wrong field.
async fn note_failure(
    app: &App,
    origin: &Origin,
    verb: &'static str,
    person: Option<&Entrance>,
    why: &str,
    now: Timestamp,
) -> Result<()> {
    let (name, id) = match person {
        Some(person) => (person.name.as_str(), format!("user/{}", person.id)),
        None => ("unknown", String::new()),
    };
    let mut tx = app.db.worker().begin().await.during("begin")?;
    record_for(&mut tx, person.map(|person| UserId(person.id)), now, || audit::Entry {
        actor_id: id.clone(),
        outcome: "denied",
        request_id: &origin.request_id,
        source: origin.address,
        ..audit::Entry::new(name, verb, "session/".to_owned(), json!({ "wrong": why }))
    })
    .await?;
    tx.commit().await.during("commit")
}

/// A code that was kept for a bad day was used: somebody may have found it.
async fn note_recovery_code(app: &App, origin: &Origin, person: &Entrance, now: Timestamp) -> Result<()> {
    let user = UserId(person.id);
    let mut tx = app.db.worker().begin().await.during("begin")?;
    record_for(&mut tx, Some(user), now, || audit::Entry {
        actor_id: format!("user/{user}"),
        request_id: &origin.request_id,
        source: origin.address,
        ..audit::Entry::new(&person.name, "user.recovery_code.use", format!("user/{user}"), json!({}))
    })
    .await?;
    tx.commit().await.during("commit")
}

/// Writes the entry into the audit of every organization that the person is a member of, or of the home organization where
/// there is none: what happens to a person concerns all of them.
pub(crate) async fn record_for<'e>(
    tx: &mut PgConnection,
    user: Option<UserId>,
    now: Timestamp,
    entry: impl Fn() -> audit::Entry<'e>,
) -> Result<()> {
    let mut orgs: Vec<OrgId> = match user {
        Some(user) => {
            let memberships = store::users::memberships(tx, user).await?;
            memberships.into_iter().map(|membership| OrgId(membership.org_id)).collect()
        }
        None => Vec::new(),
    };
    if orgs.is_empty() {
        orgs.extend(store::installation::home(tx).await?);
    }
    audit::record_all(tx, now, orgs.into_iter().map(|org| (org, entry())).collect()).await
}

/// The membership that was asked for, or the oldest.
fn choose<'m>(memberships: &'m [Membership], organization: Option<&str>) -> Result<&'m Membership> {
    match organization {
        Some(name) => memberships
            .iter()
            .find(|membership| membership.organization == name)
            .ok_or_else(|| Error::not_found("organization", name)),
        None => memberships.iter().min_by_key(|membership| membership.added_at).ok_or_else(|| {
            Error::Conflict("you are a member of no organization: somebody has to invite you".to_owned())
        }),
    }
}

/// Who enters, and how.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Entering<'a> {
    pub(crate) origin: &'a Origin,
    /// What the client calls itself.
    pub(crate) client: &'a str,
    pub(crate) user: UserId,
    pub(crate) name: &'a str,
    /// The OpenID provider that speaks for the person; none: the password did.
    pub(crate) provider: Option<&'a str>,
}

/// How long a session may go on, used or not.
fn longest(provider: Option<&str>) -> SignedDuration {
    span(if provider.is_some() { limits::OIDC_SESSION_LIFE } else { limits::SESSION_LIFE })
}

/// Opens a session, and notes it.
pub(crate) async fn open(
    app: &App,
    tx: &mut PgConnection,
    entering: &Entering<'_>,
    membership: &Membership,
    memberships: &[Membership],
    now: Timestamp,
) -> Result<Tokens> {
    let &Entering { origin, client, user, name, provider } = entering;
    let refresh = RefreshToken::new(LoginSessionId::new(now, clock::entropy()));
    let expires_at = now + span(limits::SESSION_IDLE).min(longest(provider));
    let client: String = client.chars().filter(|c| !c.is_control()).take(CLIENT_CHARS).collect();
    let address = origin.address.map(|address| address.to_string()).unwrap_or_default();
    let session = NewSession {
        id: refresh.id,
        user_id: user,
        org_id: OrgId(membership.org_id),
        now,
        expires_at,
        address: &address,
        client: &client,
        provider,
        family_hash: &refresh.family_hash(),
        refresh_hash: &refresh.hash(),
    };
    store::login_sessions::insert(tx, &session).await?;
    let mut detail = json!({ "client": client });
    if let Some(provider) = provider {
        detail["provider"] = provider.into();
    }
    let entry = audit::Entry {
        actor_id: format!("user/{user}"),
        request_id: &origin.request_id,
        source: origin.address,
        ..audit::Entry::new(name, ENTER, format!("session/{}", refresh.id), detail)
    };
    audit::record(tx, OrgId(membership.org_id), now, entry).await?;
    tokens(app, (user, name), membership, memberships, &refresh, expires_at, now).await
}

async fn tokens(
    app: &App,
    (user, name): (UserId, &str),
    membership: &Membership,
    memberships: &[Membership],
    refresh: &RefreshToken,
    expires_at: Timestamp,
    now: Timestamp,
) -> Result<Tokens> {
    let key = app.access_keys.current(app, now).await?;
    let until = now + span(limits::ACCESS_TOKEN_LIFE);
    let claims = Claims::new(&app.info.trust_domain, user.0, refresh.id.0, now, until);
    Ok(Tokens {
        access_token: Some(Secret::new(key.sign(&claims))),
        refresh_token: Some(Secret::new(refresh.reveal())),
        access_expires_at: until,
        session_expires_at: expires_at,
        session_id: refresh.id,
        user: name.to_owned(),
        organization: membership.organization.clone(),
        organizations: memberships.iter().map(|membership| membership.organization.clone()).collect(),
    })
}

/// Exchanges a refresh token for a new one and a new access token, in the same organization or another one.
///
/// # Errors
/// [`Error::BadCredential`] when it does not count; then its session has ended, if it had not.
pub(crate) async fn refresh(app: &App, origin: &Origin, request: &Refresh) -> Result<Tokens> {
    let refused = || Error::BadCredential("the session has ended; log in again".to_owned());
    let text = request.refresh_token.as_ref().map(Secret::expose).unwrap_or_default();
    let token = RefreshToken::parse(text).map_err(|error| Error::BadCredential(error.to_string()))?;
    let now = clock::now();
    let mut tx = app.db.worker().begin().await.during("begin")?;
    let standing = store::login_sessions::lock(&mut tx, token.id).await?.ok_or_else(refused)?;
    // Who knows only which session there is has no effect on it.
    if standing.family_hash[..] != token.family_hash()[..] {
        return Err(refused());
    }
    if standing.ended || standing.disabled || standing.expires_at <= now {
        return Err(refused());
    }
    let user = UserId(standing.user_id);
    let hash = token.hash();
    let address = origin.address.map(|address| address.to_string()).unwrap_or_default();
    // An answer may have been lost: the same client may ask once more, at once.
    let is_repeated = standing.previous_hash.as_deref() == Some(&hash[..])
        && now.duration_since(standing.rotated_at) <= span(limits::REFRESH_GRACE)
        && standing.address == address;
    if standing.refresh_hash[..] != hash[..] && !is_repeated {
        store::login_sessions::end(&mut tx, user, token.id, ended::REUSED, now).await?;
        let entry = audit::Entry {
            actor_id: format!("user/{user}"),
            outcome: "alarm",
            request_id: &origin.request_id,
            source: origin.address,
            ..audit::Entry::new(
                &standing.user,
                "session.end",
                format!("session/{}", token.id),
                json!({ "reason": ended::REUSED }),
            )
        };
        audit::record(&mut tx, OrgId(standing.org_id), now, entry).await?;
        tx.commit().await.during("commit")?;
        app.known.forget();
        tracing::warn!(session.id = %token.id, user = standing.user, "a refresh token was used twice: its session has ended");
        return Err(refused());
    }
    let memberships = store::users::memberships(&mut tx, user).await?;
    let membership = match request.organization.as_deref() {
        None => memberships.iter().find(|m| m.org_id == standing.org_id).ok_or_else(refused)?,
        wanted => choose(&memberships, wanted)?,
    };
    let next = token.next();
    let latest = standing.created_at + longest(standing.provider.as_deref());
    let expires_at = (now + span(limits::SESSION_IDLE)).min(latest);
    let org = OrgId(membership.org_id);
    store::login_sessions::rotate(&mut tx, token.id, &next.hash(), org, now, expires_at).await?;
    if membership.org_id != standing.org_id {
        // Both are told: one sees somebody come, the other one go.
        let entry = || audit::Entry {
            actor_id: format!("user/{user}"),
            request_id: &origin.request_id,
            source: origin.address,
            ..audit::Entry::new(
                &standing.user,
                "session.move",
                format!("session/{}", token.id),
                json!({ "to": membership.organization }),
            )
        };
        audit::record_all(&mut tx, now, vec![(org, entry()), (OrgId(standing.org_id), entry())]).await?;
    }
    let tokens =
        tokens(app, (user, &standing.user), membership, &memberships, &next, expires_at, now).await?;
    tx.commit().await.during("commit")?;
    if membership.org_id != standing.org_id {
        app.known.forget();
    }
    Ok(tokens)
}

impl<P> Authorized<P> {
    /// The person who has entered, and the session: an API token is not enough for what changes how one enters.
    ///
    /// # Errors
    /// [`Error::NeedsLogin`].
    pub(crate) fn session(&self) -> Result<(UserId, LoginSessionId)> {
        match (self.actor().subject, self.actor().credential) {
            (Subject::User(user), Credential::Session(session)) => Ok((user, session)),
            _ => Err(Error::NeedsLogin),
        }
    }
}

/// Ends a session of one's own.
///
/// # Errors
/// When there is none of this id.
pub(crate) async fn end(
    app: &App,
    by: &Authorized<SelfRead>,
    id: LoginSessionId,
    reason: &'static str,
) -> Result<()> {
    let (user, _) = by.session()?;
    let now = clock::now();
    let mut tx = app.db.worker().begin().await.during("begin")?;
    if !store::login_sessions::end(&mut tx, user, id, reason, now).await? {
        return Err(Error::not_found("session", id.to_string()));
    }
    let entry = by.entry("session.end", format!("session/{id}"), json!({ "reason": reason }));
    audit::record(&mut tx, by.org_id(), now, entry).await?;
    tx.commit().await.during("commit")?;
    app.known.forget();
    Ok(())
}

/// Another password for oneself; all other sessions end.
///
/// # Errors
/// When the current one is wrong, or the new one is not acceptable.
pub(crate) async fn change_password(
    app: &App,
    by: &Authorized<SelfRead>,
    current: &Secret,
    new: &Secret,
) -> Result<()> {
    let (user, session) = by.session()?;
    let name = by.actor().name.as_str();
    model::api::auth::validate_password("new", new, name)?;
    prove_again(app, by, current).await?;
    let hash = app.passwords.hash(new).await?;
    let now = clock::now();
    let mut tx = app.db.worker().begin().await.during("begin")?;
    store::users::set_password(&mut tx, user, &hash, now).await?;
    store::one_time_tokens::void_resets(&mut tx, user).await?;
    let others =
        store::login_sessions::end_all(&mut tx, user, None, Some(session), ended::PASSWORD, now).await?;
    record_for(&mut tx, Some(user), now, || {
        by.entry("user.password.change", format!("user/{user}"), json!({ "sessions_ended": others }))
    })
    .await?;
    tx.commit().await.during("commit")?;
    app.known.forget();
    Ok(())
}

/// The password of somebody who has entered already, before what that one could not undo.
///
/// # Errors
/// As a login's.
pub(crate) async fn prove_again(app: &App, by: &Authorized<SelfRead>, password: &Secret) -> Result<()> {
    by.session()?;
    let (now, name) = (clock::now(), by.actor().name.as_str());
    if let Some(until) = store::login_failures::count(app.db.worker(), name, now).await? {
        let wait = until.duration_since(now).as_secs().max(0).cast_unsigned();
        return Err(Error::TooMany { retry_after_seconds: wait + 1 });
    }
    let person = store::users::entrance(app.db.worker(), name).await?;
    let hash = person.as_ref().and_then(|person| person.password_hash.clone());
    if !app.passwords.verify(password, hash).await? {
        note_failure(app, by.origin(), "user.password.prove", person.as_ref(), "password", now).await?;
        return Err(refused());
    }
    store::login_failures::uncount(app.db.worker(), name).await
}
