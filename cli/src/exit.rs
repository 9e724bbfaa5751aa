//! What the exit code of `opsctl` says, and the one mapping from errors and results to it.

use std::{io, process::ExitCode};

use model::{api::output::OutputEnd, execution::RunCounts};

use crate::client;

/// How an invocation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Exit {
    Succeeded = 0,
    /// A command failed, timed out or was cancelled, or was left out where a rollout was stopped; or output could not be shown as it was written.
    Failed = 1,
    /// What was asked for is not valid.
    Usage = 2,
    /// The controller cannot be reached, or cannot serve now.
    Unreachable = 3,
    /// The credential is missing, wrong or not enough.
    Denied = 4,
    /// No target, or no such thing.
    NoMatch = 5,
    /// How it ended nobody knows, or it never began.
    Unknown = 6,
    /// Left by Ctrl-C before the end, as a shell counts SIGINT.
    Interrupted = 130,
    /// The reader of the output went away, as a shell counts SIGPIPE.
    BrokenPipe = 141,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// What was asked for is wrong, found before the controller was asked.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Usage(pub(crate) String);

/// What was asked for is not there.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct NoMatch(pub(crate) String);

impl Exit {
    /// Of an error: the first link of its chain that has a meaning of its own decides.
    pub(crate) fn of_error(error: &anyhow::Error) -> Self {
        error.chain().find_map(Self::of_link).unwrap_or(Self::Failed)
    }

    fn of_link(link: &(dyn std::error::Error + 'static)) -> Option<Self> {
        if link.is::<Usage>() {
            return Some(Self::Usage);
        }
        if link.is::<NoMatch>() {
            return Some(Self::NoMatch);
        }
        if let Some(error) = link.downcast_ref::<io::Error>() {
            return (error.kind() == io::ErrorKind::BrokenPipe).then_some(Self::BrokenPipe);
        }
        link.downcast_ref::<client::Error>().map(|error| match error {
            client::Error::Unreachable { .. }
            | client::Error::Decode { .. }
            | client::Error::Unanswered(_) => Self::Unreachable,
            client::Error::LogIn { .. } => Self::Denied,
            client::Error::Contexts(_) => Self::Failed,
            client::Error::Problem(problem) if problem.code == "no_targets" => Self::NoMatch,
            client::Error::Problem(problem) => Self::of_status(problem.status),
            client::Error::Foreign { status, .. } => Self::of_status(*status),
        })
    }

    const fn of_status(status: u16) -> Self {
        match status {
            401 | 403 => Self::Denied,
            404 | 410 => Self::NoMatch,
            429 => Self::Unreachable,
            400..=499 => Self::Usage,
            _ => Self::Unreachable,
        }
    }

    /// Of an execution that ended: one whose rollout left something out did not do what it was to do.
    pub(crate) const fn of_end(end: &OutputEnd) -> Self {
        if end.left_out > 0 { Self::Failed } else { Self::of_runs(&end.runs) }
    }

    /// Of its runs: a command that did not succeed for certain outweighs one of which nobody knows.
    const fn of_runs(runs: &RunCounts) -> Self {
        if runs.failed + runs.timed_out + runs.cancelled > 0 {
            Self::Failed
        } else if runs.unknown + runs.expired > 0 {
            Self::Unknown
        } else {
            Self::Succeeded
        }
    }
}

#[cfg(test)]
mod tests {
    use anyhow::Context as _;
    use model::api::problem::Problem;

    use super::*;

    fn problem(status: u16, code: &str) -> anyhow::Error {
        client::Error::Problem(Box::new(Problem {
            r#type: format!("urn:opsconductor:problem:{code}"),
            title: code.to_owned(),
            status,
            code: code.to_owned(),
            detail: String::new(),
            field: None,
            position: None,
            request_id: String::new(),
        }))
        .into()
    }

    #[test]
    fn errors_of_the_controller() {
        for (status, code, want) in [
            (400, "invalid", Exit::Usage),
            (422, "invalid", Exit::Usage),
            (422, "no_targets", Exit::NoMatch),
            (409, "conflict", Exit::Usage),
            (413, "invalid", Exit::Usage),
            (401, "unauthenticated", Exit::Denied),
            (403, "forbidden", Exit::Denied),
            (404, "not_found", Exit::NoMatch),
            (429, "too_many_requests", Exit::Unreachable),
            (500, "internal", Exit::Unreachable),
            (503, "database_unavailable", Exit::Unreachable),
        ] {
            assert_eq!(Exit::of_error(&problem(status, code)), want, "{status} {code}");
            assert_eq!(
                Exit::of_error(&problem(status, code).context("while listing")),
                want,
                "{status} {code}"
            );
        }
    }

    #[test]
    fn errors_of_our_own() {
        assert_eq!(Exit::of_error(&Usage("x".into()).into()), Exit::Usage);
        assert_eq!(Exit::of_error(&NoMatch("x".into()).into()), Exit::NoMatch);
        let pipe =
            Err::<(), _>(io::Error::from(io::ErrorKind::BrokenPipe)).context("cannot write").unwrap_err();
        assert_eq!(Exit::of_error(&pipe), Exit::BrokenPipe);
        assert_eq!(Exit::of_error(&io::Error::from(io::ErrorKind::StorageFull).into()), Exit::Failed);
        let away =
            client::Error::Unreachable { addr: "http://x".into(), reason: "refused".into(), sent: false };
        let unclear = anyhow::Error::from(client::Error::Unanswered(Box::new(away)));
        assert_eq!(Exit::of_error(&unclear), Exit::Unreachable);
        assert_eq!(
            format!("{unclear:#}"),
            "the command may have been started; look with: opsctl execution list: \
             cannot reach the controller at http://x: refused"
        );
    }

    #[test]
    fn results() {
        let counts = |f: fn(&mut RunCounts)| {
            let mut counts = RunCounts { total: 3, succeeded: 1, ..RunCounts::default() };
            f(&mut counts);
            Exit::of_runs(&counts)
        };
        assert_eq!(counts(|c| c.succeeded = 3), Exit::Succeeded);
        assert_eq!(counts(|c| c.skipped = 2), Exit::Succeeded);
        assert_eq!(counts(|c| c.failed = 1), Exit::Failed);
        assert_eq!(counts(|c| c.timed_out = 1), Exit::Failed);
        assert_eq!(counts(|c| c.cancelled = 1), Exit::Failed);
        assert_eq!(counts(|c| c.unknown = 1), Exit::Unknown);
        assert_eq!(counts(|c| c.expired = 1), Exit::Unknown);
        assert_eq!(counts(|c| (c.failed, c.unknown) = (1, 1)), Exit::Failed);
        let end = |left_out| OutputEnd {
            state: model::execution::ExecutionState::Succeeded,
            runs: RunCounts { total: 3, succeeded: 2, skipped: 1, ..RunCounts::default() },
            left_out,
            aborted: false,
        };
        assert_eq!(Exit::of_end(&end(0)), Exit::Succeeded);
        assert_eq!(Exit::of_end(&end(1)), Exit::Failed);
    }
}
