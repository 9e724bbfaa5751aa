//! The session of a person who has logged in: its tokens, and how they are renewed.
//!
//! Invariants:
//! 1. No refresh token is presented twice, because that ends its session: whoever renews holds the lock of the file of
//!    contexts, and takes the token that the file has then.
//! 2. New tokens are in the file before they are used.

use std::{path::PathBuf, sync::Arc};

use jiff::{SignedDuration, Timestamp};
use model::api::auth::{Refresh, Secret, Tokens};
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;

use crate::{
    client::{Client, Error},
    clock,
    stored::Held,
};

/// An access token with less time left than this is renewed before it is used.
const SPARE: SignedDuration = SignedDuration::from_secs(30);

/// What is kept of a login.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Session {
    pub(crate) user: String,
    pub(crate) organization: String,
    /// By this machine's clock.
    pub(crate) access_expires_at: Timestamp,
    pub(crate) access_token: Secret,
    pub(crate) refresh_token: Secret,
}

impl Session {
    /// Of an answer that came `now` by this machine's clock and at `answered` by the controller's, which may differ.
    /// `None` where the answer has no tokens.
    pub(crate) fn of(tokens: Tokens, answered: Option<Timestamp>, now: Timestamp) -> Option<Self> {
        let expires = tokens.access_expires_at;
        Some(Self {
            user: tokens.user,
            organization: tokens.organization,
            access_expires_at: answered.map_or(expires, |then| now + expires.duration_since(then)),
            access_token: tokens.access_token?,
            refresh_token: tokens.refresh_token?,
        })
    }

    fn is_fresh(&self, now: Timestamp) -> bool {
        self.access_expires_at.duration_since(now) > SPARE
    }
}

/// Keeps the session of one context fresh.
#[derive(Debug)]
pub(crate) struct Keeper {
    /// The file of contexts.
    path: PathBuf,
    /// Name of the context.
    pub(crate) context: String,
    /// As the file had it when it was last read or written.
    session: Mutex<Session>,
    /// Whose it is, for the line that logs in again.
    pub(crate) user: String,
}

impl Keeper {
    pub(crate) fn new(path: PathBuf, context: &str, session: Session) -> Arc<Self> {
        let (context, user) = (context.to_owned(), session.user.clone());
        Arc::new(Self { path, context, session: Mutex::new(session), user })
    }

    /// An access token that is good for a while yet.
    ///
    /// # Errors
    /// When the session cannot be renewed.
    pub(crate) async fn access(&self, client: &Client) -> Result<Secret, Error> {
        let mut session = self.session.lock().await;
        if !session.is_fresh(clock::now()) {
            match self.renew(client, None).await {
                Ok(next) => *session = next,
                // What was surely not taken can be tried again with the next request.
                Err(error)
                    if error.is_transient()
                        && !error.is_unanswered()
                        && session.access_expires_at > clock::now() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(session.access_token.clone())
    }

    /// Goes on in another organization.
    ///
    /// # Errors
    /// When the person is no member of it, or the session cannot be renewed.
    pub(crate) async fn enter(&self, client: &Client, organization: &str) -> Result<Session, Error> {
        let mut session = self.session.lock().await;
        *session = self.renew(client, Some(organization.to_owned())).await?;
        Ok(session.clone())
    }

    /// The session that another process has renewed meanwhile, or else one that is renewed now.
    async fn renew(&self, client: &Client, organization: Option<String>) -> Result<Session, Error> {
        let path = self.path.clone();
        let held = tokio::task::spawn_blocking(move || Held::open(&path)).await;
        let mut held = held.expect("it does not panic").map_err(Error::contexts)?;
        let stored =
            held.contexts.contexts.get_mut(&self.context).and_then(|context| context.session.as_mut());
        let stored = stored.ok_or_else(|| client.logged_out())?;
        if organization.is_none() && stored.is_fresh(clock::now()) {
            return Ok(stored.clone());
        }
        let request = Refresh { refresh_token: Some(stored.refresh_token.clone()), organization };
        let next = client.enter(&["api", "v1", "auth", "refresh"], &request).await?;
        *stored = next.clone();
        held.save().map_err(Error::contexts)?;
        Ok(next)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// One whose access token is good for so many seconds.
    pub(crate) fn session(user: &str, seconds: i64) -> Session {
        Session {
            user: user.to_owned(),
            organization: "main".to_owned(),
            access_expires_at: clock::now() + SignedDuration::from_secs(seconds),
            access_token: Secret::new(format!("access-of-{user}")),
            refresh_token: Secret::new(format!("refresh-of-{user}")),
        }
    }

    #[test]
    fn it_is_renewed_before_its_end() {
        let now = clock::now();
        for (seconds, fresh) in [(600, true), (60, true), (29, false), (0, false), (-60, false)] {
            assert_eq!(session("ada", seconds).is_fresh(now), fresh, "{seconds}");
        }
    }

    #[test]
    fn the_controllers_clock_may_differ() {
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let tokens = || Tokens {
            access_token: Some(Secret::new("a")),
            refresh_token: Some(Secret::new("r")),
            access_expires_at: at("2026-01-31T09:10:00Z"),
            session_expires_at: at("2026-02-07T09:00:00Z"),
            session_id: model::id::LoginSessionId::from_bytes(&[7; 16]).unwrap(),
            user: "ada".into(),
            organization: "main".into(),
            organizations: vec!["main".into()],
        };
        let now = at("2026-01-31T08:00:00Z");
        let kept = Session::of(tokens(), Some(at("2026-01-31T09:00:00Z")), now).unwrap();
        assert_eq!(kept.access_expires_at, at("2026-01-31T08:10:00Z"));
        let kept = Session::of(tokens(), None, now).unwrap();
        assert_eq!(kept.access_expires_at, at("2026-01-31T09:10:00Z"));
        assert!(Session::of(Tokens { access_token: None, ..tokens() }, None, now).is_none());
    }

    #[test]
    fn its_tokens_are_not_printed() {
        let shown = format!("{:?}", session("ada", 600));
        assert!(!shown.contains("access-of") && !shown.contains("refresh-of"), "{shown}");
    }
}
