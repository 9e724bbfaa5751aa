//! The last lines of what is stored: exactly so many, where the controller gives whole pieces and so a few more.

use std::collections::VecDeque;

use model::api::output::Stream;

#[derive(Debug)]
pub(crate) struct Tail {
    limit: usize,
    lines: VecDeque<(Stream, Vec<u8>)>,
}

impl Tail {
    pub(crate) const fn new(limit: usize) -> Self {
        Self { limit, lines: VecDeque::new() }
    }

    /// Takes bytes that may end within a line.
    pub(crate) fn push(&mut self, stream: Stream, bytes: &[u8]) {
        for part in bytes.split_inclusive(|b| *b == b'\n') {
            let newest = self.lines.iter_mut().rev().find(|(of, _)| *of == stream);
            match newest.filter(|(_, line)| !line.ends_with(b"\n")) {
                Some((_, unfinished)) => unfinished.extend_from_slice(part),
                None => self.lines.push_back((stream, part.to_vec())),
            }
            if self.lines.len() > self.limit {
                self.lines.pop_front();
            }
        }
    }

    /// Gives the lines in their order.
    pub(crate) fn into_lines(self) -> impl Iterator<Item = (Stream, Vec<u8>)> {
        self.lines.into_iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tail(limit: usize, parts: &[(Stream, &str)]) -> String {
        let mut tail = Tail::new(limit);
        parts.iter().for_each(|(stream, part)| tail.push(*stream, part.as_bytes()));
        tail.into_lines().map(|(_, line)| String::from_utf8(line).unwrap()).collect()
    }

    #[test]
    fn the_last_lines_remain() {
        let out = Stream::Stdout;
        assert_eq!(tail(2, &[(out, "a\nb\nc\n")]), "b\nc\n");
        assert_eq!(tail(2, &[(out, "a\nb"), (out, "B\nc")]), "bB\nc");
        assert_eq!(tail(9, &[(out, "a\n")]), "a\n");
        assert_eq!(tail(0, &[(out, "a\nb")]), "");
    }

    #[test]
    fn streams_keep_their_lines() {
        let (out, err) = (Stream::Stdout, Stream::Stderr);
        assert_eq!(tail(2, &[(out, "a"), (err, "x\n"), (out, "A\n")]), "aA\nx\n");
        assert_eq!(tail(1, &[(out, "a"), (err, "x\n")]), "x\n");
    }
}
