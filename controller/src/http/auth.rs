//! Who asks, and the proof that they may.

use std::{net::SocketAddr, sync::Arc};

use axum::{
    Json,
    extract::{ConnectInfo, FromRequestParts},
    http::{header, request::Parts},
};
use model::api::status::WhoAmI;

use super::{
    Door,
    problem::{Failure, Result},
    request_id::RequestId,
};
use crate::{
    app::{
        access::{self, Actor, Authorized, Origin, Permission, SelfRead},
        authenticate,
    },
    error::Error,
};

/// As a parameter of a handler: only who has the permission `P` gets in.
#[derive(Debug)]
pub(super) struct Access<P>(pub(super) Authorized<P>);

impl<P: Permission> FromRequestParts<Arc<Door>> for Access<P> {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, door: &Arc<Door>) -> Result<Self> {
        let origin = origin(parts);
        let actor = match authenticate(parts, door).await {
            Ok(actor) => actor,
            Err(error @ (Error::Unauthenticated | Error::BadCredential(_))) => {
                if let Some(address) = origin.address {
                    door.limits.denial(address)?;
                }
                return Err(error.into());
            }
            Err(error) => return Err(error.into()),
        };
        door.limits.request(actor.token_id)?;
        Ok(Self(access::authorize(actor, origin)?))
    }
}

/// Which request this is, and whence.
pub(super) fn origin(parts: &Parts) -> Origin {
    let request_id = parts.extensions.get::<RequestId>().map_or("", RequestId::as_str).to_owned();
    let peer = parts.extensions.get::<ConnectInfo<SocketAddr>>();
    Origin { request_id, address: peer.map(|ConnectInfo(peer)| peer.ip().to_canonical()) }
}

async fn authenticate(parts: &Parts, door: &Door) -> crate::error::Result<Actor> {
    let Some(header) = parts.headers.get(header::AUTHORIZATION) else { return Err(Error::Unauthenticated) };
    let shape = || Error::BadCredential("the Authorization header is not 'Bearer TOKEN'".to_owned());
    let (scheme, token) = header.to_str().ok().and_then(|text| text.split_once(' ')).ok_or_else(shape)?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(shape());
    }
    authenticate::by_token(&door.app, token.trim()).await
}

/// Whose credential this is.
#[utoipa::path(get, path = "/api/v1/whoami", tag = "controller", operation_id = "whoami",
    responses((status = 200, body = WhoAmI)))]
pub(super) async fn who_am_i(Access(by): Access<SelfRead>) -> Json<WhoAmI> {
    let actor = by.actor();
    Json(WhoAmI { actor: actor.name.clone(), organization: actor.organization.clone() })
}
