//! Errors as gRPC statuses.

use tonic::Status;

use crate::error::Error;

/// The status of an error; what only the operator should know is logged and not told.
#[expect(clippy::needless_pass_by_value, reason = "it stands in `map_err`")]
pub(super) fn refuse(error: Error) -> Status {
    let text = error.to_string();
    match &error {
        Error::Invalid(_) | Error::Document(_) | Error::Selector { .. } | Error::Unstorable(..) => {
            Status::invalid_argument(text)
        }
        Error::NotFound { .. } | Error::NoTargets(_) => Status::not_found(text),
        Error::Conflict(_) | Error::Tampered(_) | Error::StillRunning | Error::KeyReused => {
            Status::already_exists(text)
        }
        Error::Unauthenticated | Error::BadCredential(_) | Error::SecondFactor => {
            Status::unauthenticated(text)
        }
        Error::Revoked(_) => Status::permission_denied("revoked"),
        Error::Forbidden { .. }
        | Error::OutOfScope { .. }
        | Error::NeedsLogin
        | Error::NotAdmitted(_)
        | Error::Off(_) => Status::permission_denied(text),
        Error::TooMany { .. } => Status::resource_exhausted(text),
        Error::Database(_, source) => {
            tracing::error!(error = &error as &dyn std::error::Error, %source, "a call failed");
            Status::unavailable("the database does not answer; try again")
        }
        Error::Provider { .. } => Status::unavailable(text),
        // No verb of a door has it.
        Error::Fatal(_) => Status::internal("internal error; the controller's log tells more"),
        Error::Internal(_, source) => {
            tracing::error!(error = &error as &dyn std::error::Error, %source, "a call failed");
            Status::internal("internal error; the controller's log tells more")
        }
    }
}
