//! The credential of an answer that goes on and on: looked at again while it is open, so that a stream ends soon after the
//! right to it.

use std::{pin::Pin, sync::Arc};

use axum::{extract::FromRequestParts, http::request::Parts};
use model::{id::OrgId, limits};
use tokio::time::Instant;

use super::{
    Door,
    auth::Access,
    denials,
    problem::{Failure, Result},
    streams::Place,
};
use crate::{
    app::access::{Authorized, Right},
    error::Error,
};

/// As a parameter of a handler, in place of [`Access`]: who gets in, and how to ask again.
#[derive(Debug)]
pub(super) struct Lasting<P>(pub(super) Authorized<P>, pub(super) Credential);

impl<P: Right> FromRequestParts<Arc<Door>> for Lasting<P> {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, door: &Arc<Door>) -> Result<Self> {
        let Access(by) = Access::<P>::from_request_parts(parts, door).await?;
        let credential = Credential {
            door: Arc::clone(door),
            parts: parts.clone(),
            ask: ask::<P>,
            reach: reach(&by),
            counted: Instant::now(),
            due: Instant::now() + limits::STREAM_RECHECK,
            place: None,
        };
        Ok(Self(by, credential))
    }
}

/// The organization in which a right is held, and for which of its hosts.
type Reach = (OrgId, Option<String>);

fn reach<P>(by: &Authorized<P>) -> Reach {
    (by.org_id(), by.hosts().map(ToString::to_string))
}

type Asked = Pin<Box<dyn Future<Output = Result<Reach>> + Send>>;

fn ask<P: Right>(mut parts: Parts, door: Arc<Door>) -> Asked {
    Box::pin(async move {
        let Access(by) = Access::<P>::from_request_parts(&mut parts, &door).await?;
        Ok(reach(&by))
    })
}

/// What a request brought, to be judged again as if it came now.
pub(super) struct Credential {
    door: Arc<Door>,
    parts: Parts,
    ask: fn(Parts, Arc<Door>) -> Asked,
    /// What it reached when the stream was opened.
    reach: Reach,
    /// When it counted for the last time that anybody knows.
    counted: Instant,
    due: Instant,
    place: Option<Place>,
}

impl std::fmt::Debug for Credential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Credential(<redacted>)")
    }
}

impl Credential {
    /// Keeps the place of a stream for as long as this lives.
    pub(super) fn holding(mut self, place: Place) -> Self {
        self.place = Some(place);
        self
    }

    /// Judges the request again, when that is due.
    ///
    /// # Errors
    /// When it would be refused now, or reaches something else: whoever comes again is judged anew. That it would have to wait, or that the database is away, is no refusal for as long
    /// again.
    pub(super) async fn still_counts(&mut self) -> Result<()> {
        if Instant::now() < self.due {
            return Ok(());
        }
        match (self.ask)(self.parts.clone(), Arc::clone(&self.door)).await {
            Ok(reach) if reach != self.reach => {
                let why = "what this credential may see has changed; open the stream again";
                return Err(Error::BadCredential(why.to_owned()).into());
            }
            Ok(_) => {
                self.counted = Instant::now();
                self.due = self.counted + limits::STREAM_RECHECK;
            }
            Err(Failure::App(Error::TooMany { .. } | Error::Database(..)))
                if self.counted.elapsed() < limits::STREAM_RECHECK.mul_f32(1.5) =>
            {
                self.due = Instant::now() + limits::STREAM_RECHECK / 10;
            }
            Err(failure) => {
                denials::note_end(&self.door, &self.parts, &failure).await?;
                return Err(failure);
            }
        }
        Ok(())
    }
}
