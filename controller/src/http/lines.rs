//! Output of several targets as text: whole lines, each behind the name of its target.
//!
//! Pieces are not cut at line ends and those of many processes come mixed, so a line waits until it is whole. What waits
//! is bounded: a line longer than [`LINE_BYTES`], or any when more than [`ALL_BYTES`] wait, goes out in parts.

use std::{borrow::Cow, collections::HashMap};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use model::{
    api::output::{Data, OutputPiece, Stream},
    id::RunId,
};

/// Bytes of a line that wait for its end.
const LINE_BYTES: usize = 1024 * 1024;
/// Bytes of all lines that wait for their end.
const ALL_BYTES: usize = 8 * 1024 * 1024;

/// The bytes of a piece; a gap has none.
pub(super) fn content(data: &Data) -> Vec<u8> {
    match data {
        Data::Text(text) => text.clone().into_bytes(),
        // The store wrote it; what it cannot be is shown as nothing.
        Data::Base64(text) => STANDARD.decode(text).unwrap_or_default(),
        Data::Gap(_) => Vec::new(),
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Source {
    run: RunId,
    attempt: i32,
    stream: Stream,
}

/// The lines that are not whole yet.
#[derive(Debug, Default)]
pub(super) struct Lines {
    open: HashMap<Source, (String, Vec<u8>)>,
    waiting: usize,
}

impl Lines {
    /// Takes pieces in and gives the lines that they complete.
    pub(super) fn take(&mut self, pieces: &[OutputPiece]) -> Vec<u8> {
        let mut out = Vec::new();
        for piece in pieces {
            let source = Source { run: piece.run_id, attempt: piece.attempt, stream: piece.stream };
            let bytes: Cow<'_, [u8]> = match &piece.data {
                Data::Text(text) => Cow::Borrowed(text.as_bytes()),
                Data::Base64(_) => Cow::Owned(content(&piece.data)),
                Data::Gap(bytes) => {
                    self.close(&source, &mut out);
                    line(&mut out, &piece.target, format!("[{bytes} bytes are missing here]").as_bytes());
                    continue;
                }
            };
            self.add(source, &piece.target, &bytes, &mut out);
        }
        out
    }

    fn add(&mut self, source: Source, target: &str, bytes: &[u8], out: &mut Vec<u8>) {
        let mut rest = bytes;
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            let (head, tail) = rest.split_at(end);
            match self.open.remove(&source) {
                Some((_, mut open)) => {
                    self.waiting -= open.len();
                    open.extend_from_slice(head);
                    line(out, target, &open);
                }
                None => line(out, target, head),
            }
            rest = &tail[1..];
        }
        if rest.is_empty() {
            return;
        }
        let (_, open) = self.open.entry(source).or_insert_with(|| (target.to_owned(), Vec::new()));
        open.extend_from_slice(rest);
        self.waiting += rest.len();
        if open.len() > LINE_BYTES || self.waiting > ALL_BYTES {
            self.close(&source, out);
        }
    }

    /// Gives what there is of a line.
    fn close(&mut self, source: &Source, out: &mut Vec<u8>) {
        if let Some((target, open)) = self.open.remove(source) {
            self.waiting -= open.len();
            line(out, &target, &open);
        }
    }

    /// Gives what is left at the end: lines that their processes never ended.
    pub(super) fn finish(&mut self) -> Vec<u8> {
        let mut left: Vec<_> = std::mem::take(&mut self.open).into_values().collect();
        self.waiting = 0;
        left.sort();
        let mut out = Vec::new();
        for (target, open) in left {
            line(&mut out, &target, &open);
        }
        out
    }
}

fn line(out: &mut Vec<u8>, target: &str, line: &[u8]) {
    out.extend_from_slice(target.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(line);
    out.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(target: &str, stream: Stream, data: Data) -> OutputPiece {
        let run = target.bytes().next().map_or(0, u128::from);
        OutputPiece {
            position: 0,
            run_id: RunId(uuid::Uuid::from_u128(run)),
            target: target.to_owned(),
            attempt: 1,
            stream,
            time: jiff::Timestamp::UNIX_EPOCH,
            offset: 0,
            data,
        }
    }

    fn out(target: &str, text: &str) -> OutputPiece {
        piece(target, Stream::Stdout, Data::Text(text.to_owned()))
    }

    #[test]
    fn mixed_pieces_become_whole_lines() {
        let mut lines = Lines::default();
        let text = lines.take(&[
            out("a", "one\ntw"),
            out("b", "eins\n\n"),
            piece("a", Stream::Stderr, Data::Text("oops\n".to_owned())),
            out("a", "o\nthree"),
            out("b", "zwei"),
        ]);
        assert_eq!(String::from_utf8_lossy(&text), "a: one\nb: eins\nb: \na: oops\na: two\n");
        assert_eq!(String::from_utf8_lossy(&lines.finish()), "a: three\nb: zwei\n");
        assert!(lines.finish().is_empty());
    }

    #[test]
    fn a_gap_is_shown() {
        let mut lines = Lines::default();
        let text =
            lines.take(&[out("a", "half"), piece("a", Stream::Stdout, Data::Gap(7)), out("a", "rest\n")]);
        assert_eq!(String::from_utf8_lossy(&text), "a: half\na: [7 bytes are missing here]\na: rest\n");
    }

    #[test]
    fn what_waits_is_bounded() {
        let mut lines = Lines::default();
        let block = "x".repeat(64 * 1024);
        for _ in 0..100 {
            lines.take(&[out("a", &block)]);
            assert!(lines.waiting <= LINE_BYTES + block.len());
        }
        let mut lines = Lines::default();
        for target in 0..1000_u128 {
            let mut piece = out("a", &block);
            piece.run_id = RunId(uuid::Uuid::from_u128(target));
            lines.take(&[piece]);
            assert!(lines.waiting <= ALL_BYTES);
        }
    }
}
