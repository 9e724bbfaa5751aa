//! What somebody is refused for want of a right is in the audit, whoever refused it: the door or a verb.
//!
//! Equal refusals within a minute are one entry, so that a program that asks again and again writes no more than a person
//! would; and nobody is refused more than `DENIALS_PER_MINUTE` different things in one: after that he has to wait.

use std::{
    collections::HashSet,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    sync::{Arc, Mutex, OnceLock, PoisonError},
};

use axum::{
    extract::{Request, State},
    middleware::Next,
    response::{IntoResponse as _, Response},
};
use model::limits;

use super::{Door, problem::Failure};
use crate::{
    app::access::{self, Actor, Origin},
    error::Error,
};

/// Who asks, once that is known: an extractor tells it here.
#[derive(Debug, Clone, Default)]
pub(super) struct Asking(Arc<OnceLock<(Arc<Actor>, Origin)>>);

impl Asking {
    pub(super) fn is(&self, actor: &Arc<Actor>, origin: &Origin) {
        // The first extractor of a request knows it as well as any other.
        let _ = self.0.set((Arc::clone(actor), origin.clone()));
    }
}

/// Refusals of this minute that are noted.
#[derive(Debug, Default)]
pub(super) struct Noted(Mutex<HashSet<u64>>);

impl Noted {
    /// Whether this is the first one of its kind in this minute.
    fn is_first(&self, actor: &Actor, error: &Error, request: &str) -> bool {
        let mut hasher = DefaultHasher::new();
        (actor.org_id.0, actor.subject.to_string(), error.to_string(), request).hash(&mut hasher);
        let mut noted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if noted.len() >= limits::DENIALS_REMEMBERED {
            noted.clear();
        }
        noted.insert(hasher.finish())
    }

    /// The minute is over.
    pub(super) fn forget(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

/// Notes what is refused on the way out. An answer whose entry cannot be written is the error of that.
pub(super) async fn note(State(door): State<Arc<Door>>, mut request: Request, next: Next) -> Response {
    let asking = Asking::default();
    request.extensions_mut().insert(asking.clone());
    let path: String = request.uri().path().chars().take(200).collect();
    let line = format!("{} {path}", request.method());
    let response = next.run(request).await;
    let (Some(failure), Some((actor, origin))) =
        (response.extensions().get::<Arc<Failure>>(), asking.0.get())
    else {
        return response;
    };
    let Failure::App(error) = &**failure else { return response };
    if !is_denial(error) {
        return response;
    }
    let noted = async {
        door.limits.denied(actor.credential.id())?;
        if door.noted.is_first(actor, error, &line) {
            access::note_denial(&door.app, actor, origin, error, &line).await?;
        }
        Ok::<_, Error>(())
    };
    match noted.await {
        Ok(()) => response,
        Err(error) => Failure::from(error).into_response(),
    }
}

const fn is_denial(error: &Error) -> bool {
    matches!(error, Error::Forbidden { .. } | Error::OutOfScope { .. } | Error::NeedsLogin)
}
