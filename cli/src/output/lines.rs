//! The output of many hosts as lines, each behind the name of its target.
//!
//! Invariants:
//! 1. Bytes are written as they are; only a newline is added where the last line of a stream has none.
//! 2. A line is written once it is whole: behind its newline, before a gap, or at the end. Where pieces are cut makes
//!    no difference.

use std::collections::BTreeMap;

use model::{
    api::output::{OutputPiece, Stream},
    id::RunId,
};

use super::Content;

/// Bytes of an unfinished line that are held back; a longer one is written in parts.
const HELD_BYTES: usize = 16 * 1024 * 1024;
/// Columns that names are padded to at most; longer names stand out.
const WIDEST: usize = 40;
/// Colours of targets: cyan, yellow, green, magenta, blue, and their bright kin. Red is for what is wrong.
const COLOURS: [u8; 10] = [36, 33, 32, 35, 34, 96, 93, 92, 95, 94];

#[derive(Debug)]
pub(crate) struct Lines {
    /// Columns of the widest name so far.
    width: usize,
    colour_stdout: bool,
    colour_stderr: bool,
    /// Streams by run and number.
    streams: BTreeMap<(RunId, i16), Held>,
}

/// The unfinished line of one stream.
#[derive(Debug)]
struct Held {
    target: String,
    stream: Stream,
    attempt: i32,
    bytes: Vec<u8>,
}

impl Lines {
    pub(crate) fn new(colour_stdout: bool, colour_stderr: bool) -> Self {
        Self { width: 0, colour_stdout, colour_stderr, streams: BTreeMap::new() }
    }

    /// Makes room for a name, so that lines before its first are aligned with it.
    pub(crate) fn expect(&mut self, target: &str) {
        self.width = self.width.max(target.chars().count().min(WIDEST));
    }

    /// Takes a piece and gives the lines that are whole now, for the stream that the piece is of.
    pub(crate) fn piece(&mut self, piece: &OutputPiece, content: &Content) -> Vec<u8> {
        self.expect(&piece.target);
        let prefix = self.prefix(&piece.target, piece.stream);
        let held = self.streams.entry((piece.run_id, piece.stream.number())).or_insert_with(|| Held {
            target: piece.target.clone(),
            stream: piece.stream,
            attempt: piece.attempt,
            bytes: Vec::new(),
        });
        let mut out = Vec::new();
        if held.attempt != piece.attempt {
            held.attempt = piece.attempt;
            end_line(&prefix, &mut held.bytes, &mut out);
        }
        match content {
            Content::Gap(bytes) => {
                end_line(&prefix, &mut held.bytes, &mut out);
                out.extend_from_slice(prefix.as_bytes());
                out.extend_from_slice(format!("[gap: {bytes} bytes are missing here]\n").as_bytes());
            }
            Content::Bytes(bytes) => {
                for part in bytes.split_inclusive(|b| *b == b'\n') {
                    if part.ends_with(b"\n") {
                        out.extend_from_slice(prefix.as_bytes());
                        out.append(&mut held.bytes);
                        out.extend_from_slice(part);
                    } else {
                        held.bytes.extend_from_slice(part);
                    }
                }
                if held.bytes.len() > HELD_BYTES {
                    end_line(&prefix, &mut held.bytes, &mut out);
                }
            }
        }
        out
    }

    /// Gives the lines that never got a newline.
    pub(crate) fn finish(&mut self) -> Vec<(Stream, Vec<u8>)> {
        let mut ends = Vec::new();
        for mut held in std::mem::take(&mut self.streams).into_values() {
            let mut out = Vec::new();
            end_line(&self.prefix(&held.target, held.stream), &mut held.bytes, &mut out);
            if !out.is_empty() {
                ends.push((held.stream, out));
            }
        }
        ends
    }

    fn prefix(&self, target: &str, stream: Stream) -> String {
        let width = self.width;
        let colour = match stream {
            Stream::Stdout => self.colour_stdout,
            Stream::Stderr => self.colour_stderr,
        };
        if colour {
            format!("\u{1b}[{}m{target:<width$} |\u{1b}[0m ", colour_of(target))
        } else {
            format!("{target:<width$} | ")
        }
    }
}

fn end_line(prefix: &str, bytes: &mut Vec<u8>, out: &mut Vec<u8>) {
    if !bytes.is_empty() {
        out.extend_from_slice(prefix.as_bytes());
        out.append(bytes);
        out.push(b'\n');
    }
}

/// The same name has the same colour everywhere (FNV-1a).
fn colour_of(target: &str) -> u8 {
    let hash =
        target.bytes().fold(0x811c_9dc5_u32, |hash, b| (hash ^ u32::from(b)).wrapping_mul(0x0100_0193));
    COLOURS[hash as usize % COLOURS.len()]
}

#[cfg(test)]
mod tests {
    use model::api::output::Data;

    use super::*;

    fn piece(run: u128, stream: Stream, attempt: i32) -> OutputPiece {
        OutputPiece {
            position: 0,
            run_id: RunId::from_bytes(&run.to_be_bytes()).unwrap(),
            target: format!("web-{run}"),
            attempt,
            stream,
            time: jiff::Timestamp::UNIX_EPOCH,
            offset: 0,
            data: Data::Gap(0),
        }
    }

    fn feed(lines: &mut Lines, run: u128, stream: Stream, bytes: &[u8]) -> Vec<u8> {
        lines.piece(&piece(run, stream, 1), &Content::Bytes(bytes.to_vec()))
    }

    fn flat(ends: Vec<(Stream, Vec<u8>)>) -> Vec<u8> {
        ends.into_iter().flat_map(|(_, bytes)| bytes).collect()
    }

    #[test]
    fn pieces_cut_anywhere_give_the_same_lines() {
        let written = "one\r\n\ntw\u{20ac}\n".as_bytes();
        let written = [written, b"\xff\xfe\0raw\nlast"].concat();
        let mut want = b"web-1 | one\r\nweb-1 | \n".to_vec();
        want.extend_from_slice("web-1 | tw\u{20ac}\n".as_bytes());
        want.extend_from_slice(b"web-1 | \xff\xfe\0raw\nweb-1 | last\n");
        for size in 1..=written.len() {
            let mut lines = Lines::new(false, false);
            let mut got = Vec::new();
            for cut in written.chunks(size) {
                got.extend(feed(&mut lines, 1, Stream::Stdout, cut));
            }
            got.extend(flat(lines.finish()));
            assert_eq!(got, want, "pieces of {size}");
        }
    }

    #[test]
    fn targets_and_streams_do_not_mix() {
        let mut lines = Lines::new(false, false);
        lines.expect("database-1");
        assert!(feed(&mut lines, 1, Stream::Stdout, b"a").is_empty());
        assert!(feed(&mut lines, 2, Stream::Stdout, b"b").is_empty());
        assert!(feed(&mut lines, 1, Stream::Stderr, b"c").is_empty());
        assert_eq!(feed(&mut lines, 1, Stream::Stdout, b"A\n"), b"web-1      | aA\n");
        assert_eq!(feed(&mut lines, 2, Stream::Stdout, b"B\nx\ny"), b"web-2      | bB\nweb-2      | x\n");
        assert_eq!(
            lines.finish(),
            [(Stream::Stderr, b"web-1      | c\n".to_vec()), (Stream::Stdout, b"web-2      | y\n".to_vec()),]
        );
        assert!(lines.finish().is_empty());
    }

    #[test]
    fn gaps_and_new_attempts_end_a_line() {
        let mut lines = Lines::new(false, false);
        feed(&mut lines, 1, Stream::Stdout, b"half");
        let gap = lines.piece(&piece(1, Stream::Stdout, 1), &Content::Gap(1234));
        assert_eq!(gap, b"web-1 | half\nweb-1 | [gap: 1234 bytes are missing here]\n");
        feed(&mut lines, 1, Stream::Stdout, b"first");
        let next = lines.piece(&piece(1, Stream::Stdout, 2), &Content::Bytes(b"second\n".to_vec()));
        assert_eq!(next, b"web-1 | first\nweb-1 | second\n");
    }

    #[test]
    fn an_endless_line_is_not_held_for_ever() {
        let mut lines = Lines::new(false, false);
        let out = feed(&mut lines, 1, Stream::Stdout, &vec![b'x'; HELD_BYTES + 1]);
        assert_eq!(out.len(), "web-1 | ".len() + HELD_BYTES + 2);
    }

    #[test]
    fn colours_are_around_the_name_only() {
        let mut lines = Lines::new(true, false);
        let out = String::from_utf8(feed(&mut lines, 1, Stream::Stdout, b"\x1b[1mx\n")).unwrap();
        assert!(out.starts_with("\u{1b}[") && out.ends_with("web-1 |\u{1b}[0m \u{1b}[1mx\n"), "{out:?}");
        assert_eq!(feed(&mut lines, 1, Stream::Stderr, b"x\n"), b"web-1 | x\n");
    }
}
