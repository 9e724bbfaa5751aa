//! Ids in paths.

use std::{str::FromStr, sync::Arc};

use axum::{
    extract::{FromRequestParts, Path},
    http::request::Parts,
};
use model::id::InvalidId;

use super::{Door, problem::Failure};

/// The one id of a path.
#[derive(Debug)]
pub(super) struct Id<T>(pub(super) T);

impl<T: FromStr<Err = InvalidId>> FromRequestParts<Arc<Door>> for Id<T> {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, door: &Arc<Door>) -> Result<Self, Failure> {
        let Name(text) = Name::from_request_parts(parts, door).await?;
        let id = text.parse::<T>().map_err(|error| Failure::invalid("id", format!("is wrong: {error}")))?;
        Ok(Self(id))
    }
}

/// The two ids of a path.
#[derive(Debug)]
pub(super) struct Ids<A, B>(pub(super) A, pub(super) B);

impl<A: FromStr<Err = InvalidId>, B: FromStr<Err = InvalidId>> FromRequestParts<Arc<Door>> for Ids<A, B> {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, door: &Arc<Door>) -> Result<Self, Failure> {
        let Path((first, second)) = Path::<(String, String)>::from_request_parts(parts, door)
            .await
            .map_err(|_| Failure::invalid("id", "is not UTF-8"))?;
        let wrong = |error: InvalidId| Failure::invalid("id", format!("is wrong: {error}"));
        Ok(Self(first.parse().map_err(wrong)?, second.parse().map_err(wrong)?))
    }
}

/// The one name of a path, as text.
#[derive(Debug)]
pub(super) struct Name(pub(super) String);

impl FromRequestParts<Arc<Door>> for Name {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, door: &Arc<Door>) -> Result<Self, Failure> {
        let Path(text) = Path::<String>::from_request_parts(parts, door)
            .await
            .map_err(|_| Failure::invalid("id", "is not UTF-8"))?;
        Ok(Self(text))
    }
}

/// The two names of a path, as text.
#[derive(Debug)]
pub(super) struct Names(pub(super) String, pub(super) String);

impl FromRequestParts<Arc<Door>> for Names {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, door: &Arc<Door>) -> Result<Self, Failure> {
        let Path((first, second)) = Path::<(String, String)>::from_request_parts(parts, door)
            .await
            .map_err(|_| Failure::invalid("id", "is not UTF-8"))?;
        Ok(Self(first, second))
    }
}
