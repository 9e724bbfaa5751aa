//! What somebody is refused for want of a right is in the audit, whoever refused it: the door or a verb.
//!
//! Equal refusals within a minute are one entry, so that a program that asks again and again writes no more than a person
//! would; and nobody is refused more than `DENIALS_PER_MINUTE` different things in one: after that he has to wait.

use std::{
    collections::HashSet,
    hash::{BuildHasher as _, RandomState},
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
};

use axum::{
    extract::{Request, State},
    http::{Method, Uri, request::Parts},
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
pub(super) struct Noted {
    keys: Mutex<HashSet<u64>>,
    /// Nobody can look for a request that counts as another one.
    hasher: RandomState,
}

impl Noted {
    fn key(&self, actor: &Actor, error: &Error, request: &str) -> u64 {
        self.hasher.hash_one((actor.org_id.0, actor.subject.to_string(), error.to_string(), request))
    }

    fn keys(&self) -> MutexGuard<'_, HashSet<u64>> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn has(&self, key: u64) -> bool {
        self.keys().contains(&key)
    }

    fn add(&self, key: u64) {
        let mut keys = self.keys();
        if keys.len() >= limits::DENIALS_REMEMBERED {
            keys.clear();
        }
        keys.insert(key);
    }

    /// The minute is over.
    pub(super) fn forget(&self) {
        self.keys().clear();
    }
}

/// Notes what is refused on the way out. An answer whose entry cannot be written is the error of that.
pub(super) async fn note(State(door): State<Arc<Door>>, mut request: Request, next: Next) -> Response {
    let asking = Asking::default();
    request.extensions_mut().insert(asking.clone());
    let line = line(request.method(), request.uri());
    let response = next.run(request).await;
    let Some(failure) = response.extensions().get::<Arc<Failure>>().cloned() else { return response };
    // Also when the client does not wait for its answer.
    let noted = tokio::spawn(async move { write(&door, &asking, &failure, &line).await }).await;
    match noted {
        Ok(Ok(())) => response,
        Ok(Err(error)) => Failure::from(error).into_response(),
        Err(error) => Failure::from(Error::internal("the refusal was not noted", error)).into_response(),
    }
}

/// Notes that a stream ends because its right was taken away.
///
/// # Errors
/// When that cannot be written.
pub(super) async fn note_end(door: &Door, parts: &Parts, failure: &Failure) -> Result<(), Error> {
    match parts.extensions.get::<Asking>() {
        Some(asking) => write(door, asking, failure, &line(&parts.method, &parts.uri)).await,
        None => Ok(()),
    }
}

fn line(method: &Method, uri: &Uri) -> String {
    let path: String = uri.path().chars().take(200).collect();
    format!("{method} {path}")
}

/// The entry, where this is a refusal for want of a right and no equal one was noted in this minute.
async fn write(door: &Door, asking: &Asking, failure: &Failure, line: &str) -> Result<(), Error> {
    let (Failure::App(error), Some((actor, origin))) = (failure, asking.0.get()) else { return Ok(()) };
    if !matches!(error, Error::Forbidden { .. } | Error::OutOfScope { .. } | Error::NeedsLogin) {
        return Ok(());
    }
    door.limits.denied(actor.credential.id())?;
    let key = door.noted.key(actor, error, line);
    if door.noted.has(key) {
        return Ok(());
    }
    access::note_denial(&door.app, actor, origin, error, line).await?;
    door.noted.add(key);
    Ok(())
}
