//! The keys that sign access tokens: each lives in the memory of one controller for a day at most. Its public half is a row,
//! which counts only with the signature of that controller's dispatch key: who writes rows makes no tokens.

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};
use model::{id::uuid_v7, limits};
use pki::access_token::AccessKey;
use uuid::Uuid;

use super::App;
use crate::{
    clock,
    error::{Error, Result},
    store::{self, access_keys::AccessKey as Row},
};

/// What the signature of a row is made over, so that it can stand for nothing else.
const KIND: &str = "access-key";
/// The longest that a key signs; less where dispatch keys live for less than four days.
const SIGNS_FOR: Duration = Duration::from_secs(24 * 3600);
/// Keys that are remembered; over it all are forgotten.
const REMEMBERED: usize = 1000;

#[derive(Debug, Default)]
pub(crate) struct AccessKeys {
    current: RwLock<Option<(Arc<AccessKey>, Timestamp)>>,
    /// Public halves whose rows were verified, until when they count.
    known: RwLock<HashMap<Uuid, (Vec<u8>, Timestamp)>>,
}

impl AccessKeys {
    /// The key that signs now; a new one when there is none, or it has signed for long enough.
    ///
    /// # Errors
    /// When its row cannot be written.
    pub(crate) async fn current(&self, app: &App, now: Timestamp) -> Result<Arc<AccessKey>> {
        let signs_for = SIGNS_FOR.min(app.info.dispatch_key_life / 4);
        let signs_for = SignedDuration::try_from(signs_for).unwrap_or(SignedDuration::MAX);
        if let Some((key, made)) = &*self.current.read().unwrap_or_else(PoisonError::into_inner)
            && now.duration_since(*made) < signs_for
            && *made <= now
        {
            return Ok(Arc::clone(key));
        }
        let key = Arc::new(AccessKey::generate(uuid_v7(now, clock::entropy())));
        let token_life = SignedDuration::try_from(limits::ACCESS_TOKEN_LIFE).unwrap_or(SignedDuration::MAX);
        let expires_at = now + signs_for + token_life;
        let signer = app.ca.signer();
        let row = Row {
            id: key.id(),
            public_key: key.public_key(),
            expires_at,
            signature: signer.sign(KIND, &payload(key.id(), &key.public_key(), expires_at)),
            certificate: signer.certificate().to_vec(),
        };
        store::access_keys::insert(app.db.worker(), &row, now).await?;
        self.remember(row.id, row.public_key, expires_at);
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Some((Arc::clone(&key), now));
        Ok(key)
    }

    /// The public half of the key `id`, of whichever controller.
    ///
    /// # Errors
    /// [`Error::BadCredential`] when there is no such key, or no controller made its row.
    pub(crate) async fn public(&self, app: &App, id: Uuid, now: Timestamp) -> Result<Vec<u8>> {
        let refused = || Error::BadCredential("the access token is not one of this installation".to_owned());
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner).get(&id).cloned();
        let (key, expires_at) = match known {
            Some(known) => known,
            None => {
                let row = store::access_keys::get(app.db.worker(), id).await?.ok_or_else(refused)?;
                let signed = payload(row.id, &row.public_key, row.expires_at);
                let verified = app.ca.verifier().verify(KIND, &signed, &row.signature, &row.certificate, now);
                if let Err(error) = verified {
                    tracing::error!(key.id = %id, %error, "an access key that no controller made was refused");
                    return Err(refused());
                }
                self.remember(row.id, row.public_key.clone(), row.expires_at);
                (row.public_key, row.expires_at)
            }
        };
        if expires_at <= now {
            return Err(refused());
        }
        Ok(key)
    }

    fn remember(&self, id: Uuid, public_key: Vec<u8>, expires_at: Timestamp) {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= REMEMBERED {
            known.clear();
        }
        known.insert(id, (public_key, expires_at));
    }
}

/// The signed bytes of a row.
fn payload(id: Uuid, public_key: &[u8], expires_at: Timestamp) -> Vec<u8> {
    [&id.as_bytes()[..], public_key, &expires_at.as_microsecond().to_be_bytes()].concat()
}
