//! Output of an execution: pieces in the order of their positions, which only ever grow.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    execution::{ExecutionState, RunCounts},
    id::RunId,
};

/// The two streams of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Stream {
    Stdout,
    Stderr,
}

impl Stream {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }

    /// Number in the database and on the wire.
    pub const fn number(self) -> i16 {
        match self {
            Self::Stdout => 1,
            Self::Stderr => 2,
        }
    }

    /// Reads what [`Stream::number`] writes.
    pub const fn from_number(number: i16) -> Option<Self> {
        match number {
            1 => Some(Self::Stdout),
            2 => Some(Self::Stderr),
            _ => None,
        }
    }
}

/// The content of a piece.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Data {
    /// Bytes that are valid UTF-8.
    Text(String),
    /// Any other bytes, in standard base64.
    Base64(String),
    /// So many bytes are missing here: they were dropped for want of space or over the output limit.
    Gap(i64),
}

/// A piece of output, as it arrived: not cut at line ends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct OutputPiece {
    /// Unique and growing within the execution; hand it back to go on behind it.
    pub position: i64,
    pub run_id: RunId,
    pub target: String,
    pub attempt: i32,
    pub stream: Stream,
    /// When the process wrote the first of these bytes (all of them within 50 ms), by the host's clock.
    #[schema(value_type = String, format = DateTime)]
    pub time: Timestamp,
    /// Offset of the first byte in its run's stream.
    pub offset: i64,
    pub data: Data,
}

/// `GET /executions/{id}/output` as JSON.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct OutputPage {
    pub items: Vec<OutputPiece>,
    /// Hand this back as `after` to go on.
    pub next_after: i64,
    /// The execution has ended, all of its output is in, and this page reaches the last piece.
    pub end: bool,
}

/// The last event of a followed output.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct OutputEnd {
    pub state: ExecutionState,
    pub runs: RunCounts,
    /// Runs that were skipped because the rollout was stopped or aborted; those of steps that undo are not counted.
    #[serde(default, skip_serializing_if = "is_none")]
    pub left_out: i64,
    /// The rollout was aborted.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub aborted: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands it over so")]
const fn is_none(count: &i64) -> bool {
    *count == 0
}
