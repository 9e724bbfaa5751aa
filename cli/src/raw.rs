//! Proof that the bytes of a run that were shown are those that its process wrote: by count and SHA-256, which the
//! host took independently of us.

use model::api::{
    execution::{RunOutput, StreamOutput},
    output::{OutputPiece, Stream},
};
use sha2::{Digest as _, Sha256};

use crate::output::Content;

/// What was shown of one run, of the last attempt that something was shown of.
#[derive(Debug, Default)]
pub(crate) struct Shown {
    attempt: i32,
    stdout: Counted,
    stderr: Counted,
}

#[derive(Debug, Default, Clone)]
struct Counted {
    bytes: i64,
    missing: i64,
    hash: Sha256,
}

impl Shown {
    pub(crate) fn take(&mut self, piece: &OutputPiece, content: &Content) {
        if piece.attempt != self.attempt {
            *self = Self { attempt: piece.attempt, ..Self::default() };
        }
        let counted = match piece.stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        };
        match content {
            Content::Bytes(bytes) => {
                counted.bytes = counted.bytes.saturating_add(i64::try_from(bytes.len()).unwrap_or(i64::MAX));
                counted.hash.update(bytes);
            }
            Content::Gap(bytes) => counted.missing = counted.missing.saturating_add(*bytes),
        }
    }

    /// What is wrong with what was shown of an attempt that has ended, whose output on `target` is `output`; of `only` one
    /// stream, if that was asked for.
    pub(crate) fn complaints(
        mut self,
        attempt: i32,
        target: &str,
        output: &RunOutput,
        only: Option<Stream>,
    ) -> Vec<String> {
        if self.attempt != attempt {
            self = Self::default();
        }
        [(Stream::Stdout, self.stdout, &output.stdout), (Stream::Stderr, self.stderr, &output.stderr)]
            .into_iter()
            .filter(|(stream, ..)| only.is_none_or(|only| only == *stream))
            .filter_map(|(stream, shown, written)| {
                let problem = shown.differs(written)?;
                Some(format!("{} of {target}: {problem}", stream.as_str()))
            })
            .collect()
    }
}

impl Counted {
    fn differs(self, written: &StreamOutput) -> Option<String> {
        if self.missing > 0 {
            return Some(format!("{} bytes are missing in gaps", self.missing));
        }
        match written.written_bytes {
            Some(bytes) if bytes != self.bytes => {
                return Some(format!("{} bytes came, but the process wrote {bytes}", self.bytes));
            }
            None if written.sha256.is_none() => {
                return (self.bytes != written.stored_bytes).then(|| {
                    format!("{} bytes came, but the controller holds {}", self.bytes, written.stored_bytes)
                });
            }
            _ => {}
        }
        let hash = hex::encode(self.hash.finalize());
        let same = written.sha256.as_deref().is_none_or(|sha256| sha256.eq_ignore_ascii_case(&hash));
        (!same)
            .then(|| "the bytes that came are not those that the process wrote (SHA-256 differs)".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use model::{api::output::Data, id::RunId};

    use super::*;

    fn output(stdout: &[u8]) -> RunOutput {
        let written = |bytes: &[u8]| StreamOutput {
            stored_bytes: bytes.len() as i64,
            gap_bytes: 0,
            written_bytes: Some(bytes.len() as i64),
            sha256: Some(hex::encode(Sha256::digest(bytes))),
        };
        RunOutput { stdout: written(stdout), stderr: written(b""), complete: Some(true) }
    }

    fn complaints(shown: Shown, stdout: &[u8], only: Option<Stream>) -> Vec<String> {
        shown.complaints(2, "web-1", &output(stdout), only)
    }

    fn shown(parts: &[(i32, Content)]) -> Shown {
        let mut shown = Shown::default();
        for (attempt, content) in parts {
            let piece = OutputPiece {
                position: 0,
                run_id: RunId::from_bytes(&[7; 16]).unwrap(),
                target: "web-1".into(),
                attempt: *attempt,
                stream: Stream::Stdout,
                time: jiff::Timestamp::UNIX_EPOCH,
                offset: 0,
                data: Data::Gap(0),
            };
            shown.take(&piece, content);
        }
        shown
    }

    fn bytes(bytes: &[u8]) -> Content {
        Content::Bytes(bytes.to_vec())
    }

    #[test]
    fn the_newest_attempt_counts() {
        let good = [(1, bytes(b"old")), (2, bytes(b"a\xff")), (2, bytes(b"b"))];
        assert_eq!(complaints(shown(&good), b"a\xffb", None), [""; 0]);
        assert_eq!(complaints(shown(&[(1, bytes(b"old"))]), b"", None), [""; 0]);
        assert_eq!(complaints(shown(&[]), b"", None), [""; 0]);
    }

    #[test]
    fn what_differs_is_told() {
        for (parts, written, want) in [
            (&[(2, bytes(b"a"))][..], &b"ab"[..], "1 bytes came"),
            (&[(2, bytes(b"ba"))], b"ab", "SHA-256 differs"),
            (&[(2, bytes(b"a")), (2, Content::Gap(5)), (2, bytes(b"b"))], b"a.....b", "5 bytes are missing"),
        ] {
            let found = complaints(shown(parts), written, None);
            assert_eq!(found.len(), 1, "{found:?}");
            assert!(found[0].starts_with("stdout of web-1: ") && found[0].contains(want), "{found:?}");
            assert_eq!(complaints(shown(parts), written, Some(Stream::Stderr)), [""; 0]);
        }
    }
}
