//! What a report is about: the attempt, and which step of it.

use model::id::{ExecutionId, InvalidId, RunId};
use proto::report::Body;

use crate::messages::AttemptKey;

/// The step of an attempt that a report tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum ReportKind {
    Accepted,
    Started,
    Refused,
    Finished,
    Lost,
}

impl ReportKind {
    /// Whether no other report can follow.
    pub(crate) const fn is_final(self) -> bool {
        matches!(self, Self::Refused | Self::Finished | Self::Lost)
    }
}

/// One report of one attempt; there is at most one of each kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct ReportId {
    pub(crate) key: AttemptKey,
    pub(crate) kind: ReportKind,
}

/// A report or cancel that names no attempt.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InvalidReport {
    #[error("a message names no attempt")]
    Key(#[from] InvalidId),
    #[error("a report has no body")]
    Empty,
}

/// Reads the attempt that a message of the wire names.
pub(crate) fn attempt_key(
    execution_id: &[u8],
    run_id: &[u8],
    attempt: u32,
) -> Result<AttemptKey, InvalidReport> {
    Ok(AttemptKey {
        execution_id: ExecutionId::from_bytes(execution_id)?,
        run_id: RunId::from_bytes(run_id)?,
        attempt,
    })
}

/// What a report is about.
pub(crate) fn report_id(report: &proto::Report) -> Result<ReportId, InvalidReport> {
    let kind = match report.body.as_ref().ok_or(InvalidReport::Empty)? {
        Body::Accepted(_) => ReportKind::Accepted,
        Body::Refused(_) => ReportKind::Refused,
        Body::Started(_) => ReportKind::Started,
        Body::Finished(_) => ReportKind::Finished,
        Body::Lost(_) => ReportKind::Lost,
    };
    Ok(ReportId { key: attempt_key(&report.execution_id, &report.run_id, report.attempt)?, kind })
}
