//! The one error of the controller's verbs. The doors turn it into a problem document or a gRPC status.

use model::Invalid;

/// What went wrong, by what the caller can do about it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// A field of the request is wrong.
    #[error("{0}")]
    Invalid(Invalid),
    /// A selector cannot be read; the position is in characters from 1.
    #[error("{field}: {error}")]
    Selector { field: &'static str, error: model::selector::SelectorError },
    #[error("there is no {noun} '{name}'")]
    NotFound { noun: &'static str, name: String },
    /// A job's document is wrong, at some place.
    #[error("{0}")]
    Document(model::job::BadDocument),
    /// Somebody changed what was signed.
    #[error("{0}: somebody changed it in the database")]
    Tampered(String),
    /// What is there does not allow this.
    #[error("{0}")]
    Conflict(String),
    /// No host is matched by what was asked for.
    #[error("no target matches {0}")]
    NoTargets(String),
    #[error("a credential is needed: send 'Authorization: Bearer TOKEN'")]
    Unauthenticated,
    #[error("the credential is not valid: {0}")]
    BadCredential(String),
    #[error("{actor} may not do this: the permission '{permission}' is missing ({why})")]
    Forbidden { actor: String, permission: &'static str, why: String },
    #[error("the agent '{0}' is revoked")]
    Revoked(String),
    /// More hosts than the actor may touch; never a silent part of them.
    #[error("{actor} may not do this on {denied} of the {selected} hosts (permission '{permission}')")]
    OutOfScope { actor: String, permission: &'static str, selected: usize, denied: usize },
    /// An API token where a person has to have entered.
    #[error("this needs a login: an API token is not enough")]
    NeedsLogin,
    #[error("a code is needed: this person has a second factor")]
    SecondFactor,
    /// What the configuration does not allow.
    #[error("{0}")]
    Off(&'static str),
    /// Somebody whom we know, but who may not enter.
    #[error("{0}")]
    NotAdmitted(String),
    /// An OpenID provider that does not do its part.
    #[error(
        "the login provider '{name}' does not answer as it should ({what}); the controller's log says more"
    )]
    Provider { name: String, what: &'static str },
    #[error("too many requests; try again in {retry_after_seconds} s")]
    TooMany { retry_after_seconds: u64 },
    /// Another request with the same idempotency key is still running.
    #[error("a request with this Idempotency-Key is still running")]
    StillRunning,
    /// The same idempotency key came with another body.
    #[error("this Idempotency-Key was used for another request")]
    KeyReused,
    /// A value that Postgres cannot keep, though it passed the checks before.
    #[error("the request has a value that cannot be stored ({0})")]
    Unstorable(&'static str, #[source] sqlx::Error),
    #[error("the database did not answer the {0}")]
    Database(&'static str, #[source] sqlx::Error),
    /// No round of a worker can mend it: the controller has to end.
    #[error("{0}")]
    Fatal(String),
    #[error("{0}")]
    Internal(&'static str, #[source] Box<dyn std::error::Error + Send + Sync>),
}

pub(crate) type Result<T, E = Error> = std::result::Result<T, E>;

impl From<Invalid> for Error {
    fn from(invalid: Invalid) -> Self {
        Self::Invalid(invalid)
    }
}

impl Error {
    pub(crate) fn not_found(noun: &'static str, name: impl Into<String>) -> Self {
        Self::NotFound { noun, name: name.into() }
    }

    pub(crate) fn internal(
        what: &'static str,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self::Internal(what, source.into())
    }

    /// Stable and for programs.
    pub(crate) const fn code(&self) -> &'static str {
        match self {
            Self::Invalid(_) => "invalid",
            Self::Selector { .. } => "invalid_selector",
            Self::NotFound { .. } => "not_found",
            Self::Document(_) => "invalid_document",
            Self::Tampered(_) => "tampered",
            Self::Conflict(_) => "conflict",
            Self::NoTargets(_) => "no_targets",
            Self::Unauthenticated => "unauthenticated",
            Self::BadCredential(_) => "bad_credential",
            Self::Forbidden { .. } => "forbidden",
            Self::Revoked(_) => "revoked",
            Self::OutOfScope { .. } => "out_of_scope",
            Self::NeedsLogin => "needs_login",
            Self::SecondFactor => "second_factor_required",
            Self::Off(_) => "off",
            Self::NotAdmitted(_) => "not_admitted",
            Self::Provider { .. } => "provider_failed",
            Self::TooMany { .. } => "too_many_requests",
            Self::StillRunning => "still_running",
            Self::KeyReused => "idempotency_key_reused",
            Self::Unstorable(..) => "unstorable",
            Self::Database(..) => "database_unavailable",
            Self::Fatal(_) | Self::Internal(..) => "internal",
        }
    }

    /// HTTP status of this error; the gRPC status follows from it.
    pub(crate) const fn status(&self) -> u16 {
        match self {
            Self::Invalid(_) | Self::Document(_) | Self::Selector { .. } | Self::Unstorable(..) => 400,
            Self::Unauthenticated | Self::BadCredential(_) | Self::SecondFactor => 401,
            Self::Forbidden { .. }
            | Self::Revoked(_)
            | Self::OutOfScope { .. }
            | Self::NeedsLogin
            | Self::NotAdmitted(_)
            | Self::Off(_) => 403,
            Self::NotFound { .. } => 404,
            Self::Conflict(_) | Self::Tampered(_) | Self::StillRunning => 409,
            Self::NoTargets(_) | Self::KeyReused => 422,
            Self::TooMany { .. } => 429,
            Self::Fatal(_) | Self::Internal(..) => 500,
            Self::Provider { .. } => 502,
            Self::Database(..) => 503,
        }
    }
}

impl Error {
    /// What a violation of the unique constraint `constraint` means to people; another error stays what it is.
    pub(crate) fn taken(error: sqlx::Error, constraint: &str, noun: &str, name: &str) -> Violation {
        match &error {
            sqlx::Error::Database(database) if database.constraint() == Some(constraint) => {
                Violation::Taken(Self::Conflict(format!("the {noun} '{name}' is there already")))
            }
            _ => Violation::Other(error),
        }
    }
}

/// An error of a statement that may have met what is there already.
#[derive(Debug)]
pub(crate) enum Violation {
    Taken(Error),
    Other(sqlx::Error),
}

impl<T> During<T> for std::result::Result<T, Violation> {
    fn during(self, what: &'static str) -> Result<T> {
        self.or_else(|violation| match violation {
            Violation::Taken(error) => Err(error),
            Violation::Other(error) => Err(error).during(what),
        })
    }
}

/// Gives a database error the name of what was tried.
pub(crate) trait During<T> {
    /// # Errors
    /// [`Error::Database`] with `what`.
    fn during(self, what: &'static str) -> Result<T>;
}

impl<T> During<T> for std::result::Result<T, sqlx::Error> {
    fn during(self, what: &'static str) -> Result<T> {
        self.map_err(|source| match &source {
            // Class 22: data exceptions, as a NUL in a text or a time out of range.
            sqlx::Error::Database(error) if error.code().is_some_and(|code| code.starts_with("22")) => {
                Error::Unstorable(what, source)
            }
            _ => Error::Database(what, source),
        })
    }
}
