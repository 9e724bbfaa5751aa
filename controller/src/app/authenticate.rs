//! Whose credential this is, and what is granted to that.

use std::sync::Arc;

use model::{
    access::{BuiltInRole, Permissions, scope_selector},
    id::{LoginSessionId, OrgId, RoleBindingId, ScheduleId, ServiceAccountId, UserId},
};
use pki::{access_token, token::ApiToken};
use sqlx::PgConnection;
use tokio::sync::Semaphore;
use uuid::Uuid;

use super::{
    App,
    access::{Actor, Credential, Grant, Narrowed, Origin, Subject, Who},
};
use crate::{
    clock,
    error::{During, Error, Result},
    store::{self, role_bindings::Reaching},
};

/// Credentials that are looked up at a time: whoever sends bad ones, many at once, has these places and not all connections to
/// the database, by which work is dispatched and leases are kept.
const LOOKUPS: usize = 6;

/// The places for credentials that are looked up.
#[derive(Debug)]
pub(crate) struct Lookups(Semaphore);

impl Default for Lookups {
    fn default() -> Self {
        Self(Semaphore::new(LOOKUPS))
    }
}

/// The actor that an API token or an access token belongs to.
///
/// # Errors
/// [`Error::BadCredential`] whatever is wrong with it: the answer does not tell which tokens exist.
pub(crate) async fn by_bearer(app: &App, bearer: &str, origin: &Origin) -> Result<Arc<Actor>> {
    let key = pki::sha256(bearer.as_bytes());
    let era = match app.known.get(&key) {
        Ok(actor) => return Ok(actor),
        Err(era) => era,
    };
    let _place = app.lookups.0.acquire().await.map_err(|error| Error::internal("no place to look", error))?;
    let actor = if access_token::looks_like_one(bearer) {
        by_access_token(app, bearer).await?
    } else {
        by_api_token(app, bearer, origin).await?
    };
    let actor = Arc::new(actor);
    app.known.put(key, era, &actor);
    Ok(actor)
}

async fn by_api_token(app: &App, bearer: &str, origin: &Origin) -> Result<Actor> {
    let refused = || Error::BadCredential("no such token, or it has ended".to_owned());
    let token = ApiToken::parse(bearer).map_err(|error| Error::BadCredential(error.to_string()))?;
    let now = clock::now();
    let mut connection = app.db.worker().acquire().await.during("acquire of a connection")?;
    let known = store::api_tokens::get_valid(&mut connection, token.id, now).await?.ok_or_else(refused)?;
    // Hashes of 256 random bits are compared: how long that takes tells nothing about the secret.
    if token.hash()[..] != known.secret_hash[..] {
        return Err(refused());
    }
    let org_id = OrgId(known.org_id);
    let (subject, reaching) = match (known.user_id, known.service_account_id) {
        (Some(user), _) => {
            let user = UserId(user);
            (Subject::User(user), store::role_bindings::of_user(&mut connection, org_id, user).await?)
        }
        (None, Some(account)) => {
            let account = ServiceAccountId(account);
            let reaching = store::role_bindings::of_service_account(&mut connection, org_id, account).await?;
            (Subject::ServiceAccount(account), reaching)
        }
        (None, None) => return Err(refused()),
    };
    let from = origin.address.map(|address| address.to_string()).unwrap_or_default();
    store::api_tokens::note_use(&mut connection, token.id, known.last_used_at, &from, now).await?;
    let narrowed = Narrowed {
        permissions: (known.permissions != ["*"]).then(|| Permissions::of_names(&known.permissions)),
        hosts: match known.hosts.as_deref().map(|text| scope_selector("hosts", text)).transpose() {
            Ok(hosts) => hosts,
            Err(error) => {
                tracing::error!(token.id = %token.id, %error, "the scope of a token cannot be read: it counts for nothing");
                return Err(refused());
            }
        },
        expires_at: Some(known.expires_at),
    };
    let who = Who {
        org_id,
        organization: known.organization,
        is_home: known.is_home,
        subject,
        name: known.owner,
        credential: Credential::ApiToken(token.id),
        narrowed,
    };
    Ok(Actor::new(who, grants(reaching)))
}

async fn by_access_token(app: &App, token: &str) -> Result<Actor> {
    let refused = |error: pki::Error| Error::BadCredential(error.to_string());
    let now = clock::now();
    let key = app.access_keys.public(app, access_token::key_id(token).map_err(refused)?, now).await?;
    let claims = access_token::verify(token, &key, &app.info.trust_domain, now).map_err(refused)?;
    let id = LoginSessionId(claims.sid);
    let mut connection = app.db.worker().acquire().await.during("acquire of a connection")?;
    let session = store::login_sessions::get_valid(&mut connection, id, now).await?;
    let session = session
        .filter(|session| session.user_id == claims.sub)
        .ok_or_else(|| Error::BadCredential("the session has ended".to_owned()))?;
    let (org_id, user) = (OrgId(session.org_id), UserId(session.user_id));
    let reaching = store::role_bindings::of_user(&mut connection, org_id, user).await?;
    let who = Who {
        org_id,
        organization: session.organization,
        is_home: session.is_home,
        subject: Subject::User(user),
        name: session.user,
        credential: Credential::Session(id),
        narrowed: Narrowed::default(),
    };
    Ok(Actor::new(who, grants(reaching)))
}

/// Somebody of the organization `like` is of, as that one would be after a login: to tell what he may do.
///
/// # Errors
/// When there is nobody of this name in the organization.
pub(crate) async fn somebody(connection: &mut PgConnection, like: &Actor, name: &str) -> Result<Actor> {
    let place = (like.org_id, like.organization.as_str(), like.is_home);
    let found = as_he_is_now(connection, place, name).await?;
    found.ok_or_else(|| Error::not_found("user", name))
}

/// Somebody by his name: a person's, or `service/NAME`. The place is an organization, its name, and whether it is at home.
pub(crate) async fn as_he_is_now(
    connection: &mut PgConnection,
    (org_id, organization, is_home): (OrgId, &str, bool),
    name: &str,
) -> Result<Option<Actor>> {
    let (subject, reaching) = match name.strip_prefix("service/") {
        Some(account) => {
            let Some(id) = store::service_accounts::find(connection, org_id, account).await? else {
                return Ok(None);
            };
            let reaching = store::role_bindings::of_service_account(connection, org_id, id).await?;
            (Subject::ServiceAccount(id), reaching)
        }
        None => {
            let Some(id) = store::users::find_member(connection, org_id, name).await? else {
                return Ok(None);
            };
            (Subject::User(id), store::role_bindings::of_user(connection, org_id, id).await?)
        }
    };
    let who = Who {
        org_id,
        organization: organization.to_owned(),
        is_home,
        subject,
        name: name.to_owned(),
        // By which credential he would ask does not matter for what he may.
        credential: Credential::Session(LoginSessionId(Uuid::nil())),
        narrowed: Narrowed::default(),
    };
    Ok(Some(Actor::new(who, grants(reaching))))
}

/// Who `subject` is now, for the schedule that acts for that one; none who is gone or disabled. The place is an organization,
/// its name, and whether it is at home.
///
/// # Errors
/// When the database does not answer.
pub(crate) async fn for_schedule(
    connection: &mut PgConnection,
    (org_id, organization, is_home): (OrgId, &str, bool),
    subject: Subject,
    schedule: ScheduleId,
) -> Result<Option<Actor>> {
    let (name, reaching) = match subject {
        Subject::User(id) => (
            store::users::name_of_member(connection, org_id, id).await?,
            store::role_bindings::of_user(connection, org_id, id).await?,
        ),
        Subject::ServiceAccount(id) => (
            store::service_accounts::name(connection, org_id, id)
                .await?
                .map(|name| format!("service/{name}")),
            store::role_bindings::of_service_account(connection, org_id, id).await?,
        ),
    };
    let Some(name) = name else { return Ok(None) };
    let who = Who {
        org_id,
        organization: organization.to_owned(),
        is_home,
        subject,
        name,
        credential: Credential::Schedule(schedule),
        narrowed: Narrowed::default(),
    };
    Ok(Some(Actor::new(who, grants(reaching))))
}

/// What bindings give. One whose scope cannot be read, or whose role is gone, gives nothing.
pub(crate) fn grants(reaching: Vec<Reaching>) -> Vec<Grant> {
    let grant = |binding: Reaching| {
        let scope = |field, text: Option<&str>| text.map(|text| scope_selector(field, text)).transpose();
        let read = scope("hosts", binding.hosts.as_deref())
            .and_then(|hosts| Ok((hosts, scope("jobs", binding.jobs.as_deref())?)));
        let (hosts, jobs) = match read {
            Ok(scopes) => scopes,
            Err(error) => {
                tracing::error!(binding.id = %binding.id, %error, "the scope of a role binding cannot be read: it gives nothing");
                return None;
            }
        };
        Some(Grant {
            id: RoleBindingId(binding.id),
            permissions: permissions_of(&binding.role, binding.permissions.as_deref()),
            role: binding.role,
            group: binding.group,
            hosts,
            jobs,
        })
    };
    reaching.into_iter().filter_map(grant).collect()
}

/// What a role allows: a built-in one what the program says, another one what its row says.
pub(crate) fn permissions_of(role: &str, row: Option<&[String]>) -> Permissions {
    match (BuiltInRole::parse(role), row) {
        (Some(role), _) => role.permissions(),
        (None, Some(names)) => Permissions::of_names(names),
        (None, None) => Permissions::NONE,
    }
}
