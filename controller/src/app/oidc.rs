//! Logins by an OpenID provider: a person goes there and comes back with a code that only we can use.
//!
//! 1. A login is begun by us, for one browser, and each of its steps counts once: the state finds it, the browser's own
//!    secret shows that it is the same browser, the nonce ties the ID token to it, the verifier the code.
//! 2. A person is who the provider's issuer and subject say, and never who a name or an address of e-mail says.
//! 3. What the provider's groups give is brought up to date at each login: bindings made by `oidc/PROVIDER` are the
//!    provider's, all others are left alone. Who has nothing at all does not get in.

mod provider;

use std::{collections::BTreeSet, sync::Arc};

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD as BASE64};
use jiff::Timestamp;
use model::{
    Invalid,
    access::canonical_user,
    api::auth::{LinkIdentity, LoginProvider, RedeemLogin, Tokens},
    id::{OrgId, RoleBindingId, UserId},
    limits,
};
use serde_json::json;
use sqlx::PgConnection;
use uuid::Uuid;

pub(crate) use self::provider::Provider;
use self::provider::{Person, Sent};
use super::{
    App,
    access::{Authorized, Origin, UserAdminister},
    login::{self, Entering, span},
    roles, users,
};
use crate::{
    clock,
    config::OidcProvider,
    error::{During, Error, Result},
    store::{
        self, audit,
        oidc_logins::{self, NewLogin},
        role_bindings::{Holder, NewBinding},
        user_identities,
    },
};

/// Bytes of the longest name that a provider has for a person, by the specification.
const SUBJECT_BYTES: usize = 255;

/// The providers of this controller.
#[derive(Debug, Clone, Default)]
pub(crate) struct Providers {
    /// Where people reach this controller; empty without providers.
    url: String,
    all: Vec<Arc<Provider>>,
}

impl Providers {
    /// # Errors
    /// When what a provider's certificates are to be checked against cannot be read.
    pub(crate) fn new(url: Option<&str>, configured: Vec<OidcProvider>) -> anyhow::Result<Self> {
        let url = url.unwrap_or_default().to_owned();
        let all = configured.into_iter().map(|config| Provider::new(config, &url).map(Arc::new));
        Ok(Self { all: all.collect::<anyhow::Result<_>>()?, url })
    }

    /// Where people reach this controller.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    pub(crate) fn list(&self) -> Vec<LoginProvider> {
        let one = |provider: &Arc<Provider>| {
            let name = provider.config.name.clone();
            LoginProvider { login: format!("{}/api/v1/auth/oidc/{name}/login", self.url), name }
        };
        self.all.iter().map(one).collect()
    }

    fn find(&self, name: &str) -> Result<&Arc<Provider>> {
        let found = self.all.iter().find(|provider| provider.config.name == name);
        found.ok_or_else(|| Error::not_found("login provider", name))
    }
}

/// Where a login ends.
#[derive(Debug)]
pub(crate) enum End {
    /// A page of ours, with the session in cookies.
    Page(String),
    /// A program that listens on the person's own machine, and will show the secret whose SHA-256 this is.
    Program { port: u16, challenge: [u8; 32] },
}

/// A login that has begun.
#[derive(Debug)]
pub(crate) struct Begun {
    /// Where the browser goes.
    pub(crate) location: String,
    /// What it keeps meanwhile.
    pub(crate) browser: String,
}

/// What a provider sends back, by way of the browser.
#[derive(Debug)]
pub(crate) struct Answer<'a> {
    pub(crate) state: &'a str,
    /// The code, or why there is none.
    pub(crate) code: Result<&'a str, &'a str>,
    pub(crate) iss: Option<&'a str>,
    /// What the browser kept.
    pub(crate) browser: Option<&'a str>,
}

/// How a login went on.
#[derive(Debug)]
pub(crate) enum Outcome {
    Page {
        path: String,
        tokens: Box<Tokens>,
    },
    /// The browser goes to the program, with a code or with what went wrong.
    Program {
        location: String,
    },
}

/// 256 random bits, as text.
fn secret() -> String {
    BASE64.encode(pki::random::<32>())
}

fn hash(text: &str) -> [u8; 32] {
    pki::sha256(text.as_bytes())
}

/// Begins a login. `browser` is what the browser keeps from another one that it has begun, if there is one.
///
/// # Errors
/// When there is no such provider, or it does not answer.
pub(crate) async fn begin(app: &App, name: &str, end: &End, browser: Option<String>) -> Result<Begun> {
    let provider = app.providers.find(name)?;
    let [state, nonce, verifier] = std::array::from_fn(|_| secret());
    let browser = browser.unwrap_or_else(secret);
    let sent = Sent { state: &state, nonce: &nonce, verifier: &verifier };
    let location = provider.authorization_url(sent).await?;
    let now = clock::now();
    let (return_to, program) = match end {
        End::Page(path) => (Some(path.as_str()), None),
        End::Program { port, challenge } => (None, Some((*port, &challenge[..]))),
    };
    let new = NewLogin {
        id: Uuid::from_bytes(pki::random()),
        provider: name,
        state_hash: &hash(&state),
        browser_hash: &hash(&browser),
        nonce: &nonce,
        verifier: &verifier,
        return_to,
        program,
        created_at: now,
        expires_at: now + span(limits::OIDC_LOGIN_WITHIN),
    };
    oidc_logins::insert(app.db.worker(), &new).await?;
    Ok(Begun { location, browser })
}

/// Goes on with a login when the provider has answered. What goes wrong with one that a program waits for is told to the
/// program.
///
/// # Errors
/// When the login was not begun here by this browser, is over, or the provider does not speak for somebody who may enter.
pub(crate) async fn finish(
    app: &App,
    origin: &Origin,
    client: &str,
    name: &str,
    answer: Answer<'_>,
) -> Result<Outcome> {
    let provider = app.providers.find(name)?;
    let now = clock::now();
    let begun = oidc_logins::answer(app.db.worker(), name, &hash(answer.state), now).await?;
    let begun = begun.ok_or_else(|| {
        Error::BadCredential(
            "this login was not begun here, was answered before, or took too long".to_owned(),
        )
    })?;
    if answer.browser.is_none_or(|browser| hash(browser)[..] != begun.browser_hash[..]) {
        return Err(Error::BadCredential("this login was begun in another browser".to_owned()));
    }
    let port = begun.port;
    let went_on = go_on(app, origin, client, provider, begun, answer, now).await;
    match (went_on, port) {
        (Err(error), Some(port)) => {
            tracing::debug!(%error, "a login ended at a program");
            let query = form_urlencoded::Serializer::new(String::new())
                .append_pair("error", &error.to_string())
                .finish();
            Ok(Outcome::Program { location: format!("http://127.0.0.1:{port}/?{query}") })
        }
        (went_on, _) => went_on,
    }
}

async fn go_on(
    app: &App,
    origin: &Origin,
    client: &str,
    provider: &Provider,
    begun: oidc_logins::Answered,
    answer: Answer<'_>,
    now: Timestamp,
) -> Result<Outcome> {
    provider.is_its_answer(answer.iss).await?;
    let name = provider.config.name.as_str();
    let code = answer.code.map_err(|why| {
        let why: String = why.chars().filter(|c| !c.is_control()).take(200).collect();
        Error::NotAdmitted(format!("the provider '{name}' says: {why}"))
    })?;
    let sent = Sent { state: answer.state, nonce: &begun.nonce, verifier: &begun.verifier };
    let person = provider.redeem(code, sent).await?;
    let mut tx = app.db.worker().begin().await.during("begin")?;
    let org = organization(&mut tx, provider).await?;
    let admitted = admit(&mut tx, origin, provider, &person, org, now).await?;
    let (user, user_name) = match admitted {
        Ok(known) => known,
        Err(why) => {
            // What the provider took away stays taken away, and that somebody tried is in the audit.
            let entry = audit::Entry {
                actor_id: format!("oidc/{name}/{}", person.subject),
                outcome: "denied",
                request_id: &origin.request_id,
                source: origin.address,
                ..audit::Entry::new(
                    person.name.as_deref().unwrap_or("unknown"),
                    "session.create",
                    "session/".to_owned(),
                    json!({ "wrong": why, "provider": name }),
                )
            };
            audit::record(&mut tx, org, now, entry).await?;
            tx.commit().await.during("commit")?;
            app.known.forget();
            return Err(Error::NotAdmitted(why));
        }
    };
    let outcome = match (begun.return_to, begun.port) {
        (None, Some(port)) => {
            let code = secret();
            let expires_at = now + span(limits::OIDC_CODE_LIFE);
            oidc_logins::grant(&mut tx, begun.id, (user, org), &hash(&code), expires_at).await?;
            Outcome::Program { location: format!("http://127.0.0.1:{port}/?code={code}") }
        }
        (path, _) => {
            let entering = Entering { origin, client, user, name: &user_name, provider: Some(name) };
            let tokens = enter(app, &mut tx, &entering, org, now).await?;
            Outcome::Page { path: path.unwrap_or_else(|| "/".to_owned()), tokens: Box::new(tokens) }
        }
    };
    tx.commit().await.during("commit")?;
    app.known.forget();
    Ok(outcome)
}

/// Gives a program the session that it was promised.
///
/// # Errors
/// When the code does not count, or the secret is not the program's own.
pub(crate) async fn redeem(
    app: &App,
    origin: &Origin,
    client: &str,
    request: &RedeemLogin,
) -> Result<Tokens> {
    let refused = || Error::BadCredential("this code is not known, was used, or has ended".to_owned());
    let now = clock::now();
    let found = oidc_logins::redeem(app.db.worker(), &hash(request.code.expose()), now).await?;
    let found = found.ok_or_else(refused)?;
    let (Some(user), Some(org)) = (found.user_id, found.org_id) else { return Err(refused()) };
    if found.challenge.as_deref() != Some(&hash(request.verifier.expose())[..]) {
        return Err(refused());
    }
    let user = UserId(user);
    let person = store::users::entrance_of(app.db.worker(), user).await?;
    let person = person.filter(|person| !person.disabled).ok_or_else(refused)?;
    let mut tx = app.db.worker().begin().await.during("begin")?;
    let entering = Entering { origin, client, user, name: &person.name, provider: Some(&found.provider) };
    let tokens = enter(app, &mut tx, &entering, OrgId(org), now).await?;
    tx.commit().await.during("commit")?;
    Ok(tokens)
}

/// Opens the session in the provider's organization.
async fn enter(
    app: &App,
    tx: &mut PgConnection,
    entering: &Entering<'_>,
    org: OrgId,
    now: Timestamp,
) -> Result<Tokens> {
    let memberships = store::users::memberships(tx, entering.user).await?;
    let membership = memberships.iter().find(|membership| membership.org_id == org.0);
    let membership = membership
        .ok_or_else(|| Error::NotAdmitted("you are not a member of this organization any more".to_owned()))?;
    login::open(app, tx, entering, membership, &memberships, now).await
}

/// Says that a provider's person is somebody who has a name here already.
///
/// # Errors
/// When there is no such provider or nobody of this name, the caller could not act for that one, or the provider's person is
/// somebody already.
pub(crate) async fn link(
    app: &App,
    by: &Authorized<UserAdminister>,
    user_name: &str,
    provider: &str,
    request: &LinkIdentity,
) -> Result<()> {
    by.session()?;
    let config = &app.providers.find(provider)?.config;
    let subject = request.subject.as_str();
    if subject.is_empty() || subject.len() > SUBJECT_BYTES || subject.chars().any(char::is_control) {
        return Err(Invalid::new("subject", format!("must be 1 to {SUBJECT_BYTES} bytes of text")).into());
    }
    let now = clock::now();
    let mut tx = app.db.worker().begin().await.during("begin")?;
    let user = users::member(&mut tx, by, user_name).await?;
    users::may_act_for(&mut tx, by.actor(), user).await?;
    user_identities::lock(&mut tx, &config.issuer, subject).await?;
    if let Some(known) = user_identities::find(&mut tx, &config.issuer, subject).await? {
        return Err(Error::Conflict(format!("this is '{}' already", known.name)));
    }
    user_identities::insert(&mut tx, &config.issuer, subject, user, now).await?;
    let detail = json!({ "user": user_name, "provider": provider, "subject": subject });
    login::record_for(&mut tx, Some(user), now, || {
        by.entry("user.identity.link", format!("user/{user}"), detail.clone())
    })
    .await?;
    tx.commit().await.during("commit")
}

/// Ends that: by this provider nobody is this person any more. Sessions that are open end.
///
/// # Errors
/// When there is no such provider, nobody of this name, or the person is nobody's there.
pub(crate) async fn unlink(
    app: &App,
    by: &Authorized<UserAdminister>,
    user_name: &str,
    provider: &str,
) -> Result<()> {
    let config = &app.providers.find(provider)?.config;
    let now = clock::now();
    let mut tx = app.db.worker().begin().await.during("begin")?;
    let user = users::member(&mut tx, by, user_name).await?;
    users::may_act_for(&mut tx, by.actor(), user).await?;
    if user_identities::remove(&mut tx, &config.issuer, user).await? == 0 {
        return Err(Error::not_found("identity of this provider", user_name));
    }
    store::login_sessions::end_all(&mut tx, user, None, None, login::ended::ENDED, now).await?;
    let detail = json!({ "user": user_name, "provider": provider });
    login::record_for(&mut tx, Some(user), now, || {
        by.entry("user.identity.unlink", format!("user/{user}"), detail.clone())
    })
    .await?;
    tx.commit().await.during("commit")?;
    app.known.forget();
    Ok(())
}

/// Where the provider's people work.
async fn organization(tx: &mut PgConnection, provider: &Provider) -> Result<OrgId> {
    let found = match &provider.config.organization {
        Some(name) => store::organizations::find(tx, name).await?,
        None => store::installation::home(tx).await?,
    };
    found.ok_or_else(|| {
        let name = provider.config.organization.as_deref().unwrap_or("home");
        Error::Conflict(format!("there is no organization '{name}', where people of this provider work"))
    })
}

/// Finds or makes the person, and brings up to date what the provider's groups give. The inner error says why the person
/// does not get in; what was changed until then is to be kept.
async fn admit(
    tx: &mut PgConnection,
    origin: &Origin,
    provider: &Provider,
    person: &Person,
    org: OrgId,
    now: Timestamp,
) -> Result<Result<(UserId, String), String>> {
    let config = &provider.config;
    let by = format!("oidc/{}", config.name);
    let wanted: BTreeSet<(&str, Option<&str>)> = config
        .roles
        .iter()
        .filter(|mapped| person.groups.contains(&mapped.group))
        .map(|mapped| (mapped.role.as_str(), mapped.hosts.as_deref()))
        .collect();
    user_identities::lock(tx, &config.issuer, &person.subject).await?;
    let known = user_identities::find(tx, &config.issuer, &person.subject).await?;
    let mut changes = Vec::new();
    let (user, name) = match known {
        Some(known) if known.disabled => return Ok(Err(format!("'{}' is disabled here", known.name))),
        Some(known) => (UserId(known.id), known.name),
        None if wanted.is_empty() => return Ok(Err(nothing())),
        None => {
            let Some(Ok(name)) = person.name.as_deref().map(canonical_user) else {
                let claim = &config.name_claim;
                return Ok(Err(format!(
                    "the provider's claim '{claim}' is not a name that one can have here"
                )));
            };
            if store::users::find(tx, &name).await?.is_some() {
                return Ok(Err(format!(
                    "somebody else is called '{name}' here: an administrator has to say whether it is you"
                )));
            }
            let user = UserId::new(now, clock::entropy());
            store::users::insert(tx, user, &name, None, now).await?;
            user_identities::insert(tx, &config.issuer, &person.subject, user, now).await?;
            changes.push(json!({ "created": name, "subject": person.subject }));
            (user, name)
        }
    };
    if !wanted.is_empty() && store::users::add_member(tx, org, user, &by, now).await? {
        changes.push(json!({ "member": true }));
    }
    for given in user_identities::given(tx, org, user, &by).await? {
        if !wanted.contains(&(given.role.as_str(), given.hosts.as_deref())) {
            store::role_bindings::delete(tx, org, given.id).await?;
            changes.push(json!({ "taken": given.role, "hosts": given.hosts }));
        }
    }
    for (role, hosts) in wanted {
        if user_identities::has(tx, org, user, role, hosts).await? {
            continue;
        }
        match roles::permissions(tx, org, role).await {
            Ok(_) => {}
            Err(Error::NotFound { .. }) => {
                tracing::warn!(provider = config.name, role, "a group gives a role that there is not");
                continue;
            }
            Err(error) => return Err(error),
        }
        let binding = NewBinding {
            id: RoleBindingId::new(now, clock::entropy()),
            org_id: org,
            role,
            holder: Holder::User(user),
            hosts,
            jobs: None,
            created_at: now,
            created_by: &by,
        };
        store::role_bindings::insert(tx, &binding).await?;
        changes.push(json!({ "given": role, "hosts": hosts }));
    }
    if !changes.is_empty() {
        let entry = audit::Entry {
            actor_id: format!("user/{user}"),
            request_id: &origin.request_id,
            source: origin.address,
            ..audit::Entry::new(
                &by,
                "user.provision",
                format!("user/{user}"),
                json!({ "user": name, "groups": person.groups, "changes": changes }),
            )
        };
        audit::record(tx, org, now, entry).await?;
    }
    let reaching = store::role_bindings::of_user(tx, org, user).await?;
    Ok(if reaching.is_empty() { Err(nothing()) } else { Ok((user, name)) })
}

fn nothing() -> String {
    "none of your groups gives you anything here: ask an administrator".to_owned()
}

/// Whether this is the SHA-256 of a program's secret, as base64url (RFC 7636).
pub(crate) fn read_challenge(text: &str) -> Option<[u8; 32]> {
    BASE64.decode(text).ok()?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::{provider::challenge, *};

    #[test]
    fn a_challenge_is_the_hash_of_its_verifier() {
        // The example of RFC 7636, appendix B.
        let verifier = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
        assert_eq!(challenge(verifier), "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM");
        assert_eq!(read_challenge(&challenge(verifier)), Some(hash(verifier)));
        assert_eq!(read_challenge("AAAA"), None);
        assert_eq!(read_challenge("not base64!"), None);
    }
}
