//! Who asks, and the proof that they may.

use std::{net::SocketAddr, sync::Arc};

use axum::{
    Json,
    extract::{ConnectInfo, FromRequestParts, State},
    http::{header, request::Parts},
};
use model::{
    access::Permission,
    api::{auth::Verdict, status::WhoAmI},
};
use serde::Deserialize;
use utoipa::IntoParams;

use super::{
    Door, agents, cookies,
    denials::Asking,
    problem::{Failure, Result},
    query::Query,
    request_id::RequestId,
};
use crate::{
    app::{
        access::{self, Actor, Authorized, Credential, Origin, Right, SelfRead},
        authenticate,
    },
    error::{During as _, Error},
};

/// As a parameter of a handler: only who has the permission `P` gets in.
#[derive(Debug)]
pub(super) struct Access<P>(pub(super) Authorized<P>);

impl<P: Right> FromRequestParts<Arc<Door>> for Access<P> {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, door: &Arc<Door>) -> Result<Self> {
        let origin = origin(parts, door);
        let actor = match authenticate(parts, door, &origin).await {
            Ok(actor) => actor,
            Err(error @ (Error::Unauthenticated | Error::BadCredential(_))) => {
                if let Some(address) = origin.address {
                    door.limits.denial(address)?;
                }
                return Err(error.into());
            }
            Err(error) => return Err(error.into()),
        };
        door.limits.request(actor.credential.id())?;
        if let Some(asking) = parts.extensions.get::<Asking>() {
            asking.is(&actor, &origin);
        }
        Ok(Self(access::authorize(actor, origin)?))
    }
}

/// As a parameter of a handler that needs no credential, or brings it in the body: which request it is, and what the
/// client calls itself. Tries to enter are limited by address.
#[derive(Debug)]
pub(super) struct Stranger {
    pub(super) origin: Origin,
    pub(super) client: String,
}

impl FromRequestParts<Arc<Door>> for Stranger {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, door: &Arc<Door>) -> Result<Self> {
        let origin = origin(parts, door);
        if let Some(address) = origin.address {
            door.limits.login(address)?;
        }
        Ok(Self { origin, client: client(parts) })
    }
}

/// As a parameter of a handler whose credential nobody can guess and programs send often: failures alone are limited, by
/// [`Unknown::refused`].
#[derive(Debug)]
pub(super) struct Unknown {
    pub(super) origin: Origin,
}

impl FromRequestParts<Arc<Door>> for Unknown {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, door: &Arc<Door>) -> Result<Self> {
        Ok(Self { origin: origin(parts, door) })
    }
}

impl Unknown {
    /// Counts a failure.
    pub(super) fn refused(&self, door: &Door, error: Error) -> Failure {
        match (&error, self.origin.address) {
            (Error::BadCredential(_), Some(address)) => match door.limits.denial(address) {
                Ok(()) => error.into(),
                Err(too_many) => too_many.into(),
            },
            _ => error.into(),
        }
    }
}

/// What the client calls itself.
fn client(parts: &Parts) -> String {
    let text = parts.headers.get(header::USER_AGENT).and_then(|value| value.to_str().ok());
    text.unwrap_or_default().to_owned()
}

/// Which request this is, and whence: from the peer, or from whom a proxy of ours says.
pub(super) fn origin(parts: &Parts, door: &Door) -> Origin {
    let request_id = parts.extensions.get::<RequestId>().map_or("", RequestId::as_str).to_owned();
    let peer = parts.extensions.get::<ConnectInfo<SocketAddr>>();
    let mut said = parts.headers.get_all("x-forwarded-for").iter();
    let forwarded = match (said.next(), said.next()) {
        (Some(one), None) => one.to_str().ok(),
        _ => None,
    };
    let address =
        peer.map(|ConnectInfo(peer)| door.app.info.proxies.client(peer.ip().to_canonical(), forwarded));
    Origin { request_id, address }
}

/// The bearer's token, or the browser's cookie; the first wins.
async fn authenticate(parts: &Parts, door: &Door, origin: &Origin) -> crate::error::Result<Arc<Actor>> {
    let mut headers = parts.headers.get_all(header::AUTHORIZATION).iter();
    let bearer = match (headers.next(), headers.next()) {
        (Some(header), None) => {
            let shape = || Error::BadCredential("the Authorization header is not 'Bearer TOKEN'".to_owned());
            let (scheme, token) =
                header.to_str().ok().and_then(|text| text.split_once(' ')).ok_or_else(shape)?;
            if !scheme.eq_ignore_ascii_case("bearer") {
                return Err(shape());
            }
            token.trim().to_owned()
        }
        (Some(_), Some(_)) => {
            return Err(Error::BadCredential("there are two Authorization headers".to_owned()));
        }
        (None, _) => {
            let token = cookies::read(&parts.headers, cookies::ACCESS).ok_or(Error::Unauthenticated)?;
            cookies::from_our_own_pages(parts)?;
            token
        }
    };
    authenticate::by_bearer(&door.app, &bearer, origin).await
}

/// Whose credential this is, and what it allows.
#[utoipa::path(get, path = "/api/v1/whoami", tag = "auth", operation_id = "whoami",
    responses((status = 200, body = WhoAmI)))]
pub(super) async fn who_am_i(Access(by): Access<SelfRead>) -> Json<WhoAmI> {
    let actor = by.actor();
    let credential = match actor.credential {
        Credential::ApiToken(_) => "api_token",
        Credential::Session(_) => "session",
        Credential::Schedule(_) => "schedule",
    };
    Json(WhoAmI {
        actor: actor.name.clone(),
        organization: actor.organization.clone(),
        credential: credential.to_owned(),
        permissions: actor.held().iter().map(|permission| permission.as_str().to_owned()).collect(),
    })
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct CanI {
    /// As `execution.create`.
    #[param(value_type = String)]
    permission: Permission,
    /// Name or id of an agent: may it be done there?
    host: Option<String>,
    /// Another member, or `service/NAME`; needs the permission `role.read`.
    #[serde(rename = "as")]
    somebody: Option<String>,
}

/// Whether one may do something, or somebody else may, and why.
#[utoipa::path(get, path = "/api/v1/auth/can-i", tag = "auth", operation_id = "can_i", params(CanI),
    responses((status = 200, body = Verdict)))]
pub(super) async fn can_i(
    Access(by): Access<SelfRead>,
    State(door): State<Arc<Door>>,
    Query(query): Query<CanI>,
) -> Result<Json<Verdict>> {
    let asked;
    let actor = match &query.somebody {
        None => by.actor(),
        Some(name) => {
            let reads = by.actor().judge(Permission::RoleRead);
            reads.map_err(|why| by.actor().refusal(Permission::RoleRead, why))?;
            let pool = door.app.db.of(by.org_id());
            let mut connection = pool.acquire().await.during("acquire of a connection")?;
            asked = authenticate::somebody(&mut connection, by.actor(), name).await?;
            &asked
        }
    };
    let host = match &query.host {
        // Whoever may not see agents is told nothing of one, not even that it is there.
        Some(host) => {
            Some(agents::find(&door, by.org_id(), by.actor().hosts_seen()?.as_deref(), host).await?)
        }
        None => None,
    };
    Ok(Json(access::explain(actor, query.permission, host.as_ref())))
}
