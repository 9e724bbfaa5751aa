//! The result of an execution as one document: every run with all of its output, held in memory.

use std::collections::HashMap;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use model::{
    api::{
        execution::{Execution, Run},
        output::{OutputPiece, Stream},
    },
    id::RunId,
};
use serde::Serialize;

use crate::output::Content;

/// Gathers output until the execution has ended.
#[derive(Debug, Default)]
pub(crate) struct Report {
    runs: HashMap<RunId, Gathered>,
}

/// The output of the newest attempt of a run.
#[derive(Debug, Default)]
struct Gathered {
    attempt: i32,
    stdout: Written,
    stderr: Written,
}

#[derive(Debug, Default)]
struct Written {
    bytes: Vec<u8>,
    gaps: Vec<Gap>,
}

/// Bytes that are missing.
#[derive(Debug, Serialize)]
struct Gap {
    /// Where they would be in what the process wrote.
    offset: i64,
    bytes: i64,
}

#[derive(Debug, Serialize)]
pub(crate) struct Document {
    execution: Execution,
    runs: Vec<RunDocument>,
}

/// A run with its output.
#[derive(Debug, Serialize)]
struct RunDocument {
    #[serde(flatten)]
    run: Run,
    #[serde(flatten)]
    output: OutputDocument,
}

/// What a run wrote: `stdout` where that is UTF-8, `stdout_base64` where it is not; so too for stderr.
#[derive(Debug, Serialize)]
pub(crate) struct OutputDocument {
    #[serde(skip_serializing_if = "Option::is_none")]
    stdout: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stdout_base64: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    stdout_gaps: Vec<Gap>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stderr: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stderr_base64: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    stderr_gaps: Vec<Gap>,
}

impl Report {
    pub(crate) fn take(&mut self, piece: &OutputPiece, content: Content) {
        let gathered = self.runs.entry(piece.run_id).or_default();
        if gathered.attempt != piece.attempt {
            *gathered = Gathered { attempt: piece.attempt, ..Gathered::default() };
        }
        let written = match piece.stream {
            Stream::Stdout => &mut gathered.stdout,
            Stream::Stderr => &mut gathered.stderr,
        };
        match content {
            Content::Bytes(mut bytes) => written.bytes.append(&mut bytes),
            Content::Gap(bytes) => written.gaps.push(Gap { offset: piece.offset, bytes }),
        }
    }

    /// What a run wrote, which is no longer held here.
    pub(crate) fn output_of(&mut self, run: RunId) -> OutputDocument {
        let Gathered { stdout, stderr, .. } = self.runs.remove(&run).unwrap_or_default();
        let (stdout_text, stdout_base64) = encode(stdout.bytes);
        let (stderr_text, stderr_base64) = encode(stderr.bytes);
        OutputDocument {
            stdout: stdout_text,
            stdout_base64,
            stdout_gaps: stdout.gaps,
            stderr: stderr_text,
            stderr_base64,
            stderr_gaps: stderr.gaps,
        }
    }

    pub(crate) fn finish(mut self, execution: Execution, runs: Vec<Run>) -> Document {
        let runs = runs.into_iter().map(|run| RunDocument { output: self.output_of(run.id), run }).collect();
        Document { execution, runs }
    }
}

/// As text, or else in base64.
fn encode(bytes: Vec<u8>) -> (Option<String>, Option<String>) {
    match String::from_utf8(bytes) {
        Ok(text) => (Some(text), None),
        Err(error) => (None, Some(BASE64_STANDARD.encode(error.as_bytes()))),
    }
}
