//! Server-Sent Events, read from bytes as they come (WHATWG HTML, 9.2.6).
//!
//! Invariants: where the bytes are cut makes no difference; an event is given out only when the empty line behind it
//! is there, so that a broken connection never gives out half of one.

/// Bytes of one event. An output piece has at most 64 KiB, six-fold when every byte is escaped.
const EVENT_BYTES: usize = 8 * 1024 * 1024;

/// One event. Its id is not kept: what resumes is the position inside the data.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Event {
    /// `message` where the stream names none.
    pub(crate) name: String,
    /// The data lines, joined by newlines.
    pub(crate) data: Vec<u8>,
}

/// The stream has an event that is over [`EVENT_BYTES`].
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("an event is over the limit of {EVENT_BYTES} bytes")]
pub(crate) struct TooLarge;

#[derive(Debug, Default)]
pub(crate) struct Parser {
    /// The bytes of the current line so far.
    line: Vec<u8>,
    /// The last byte was a carriage return: a newline right behind it belongs to it.
    after_return: bool,
    name: String,
    /// `None` until the event has a data line: without one it is not given out.
    data: Option<Vec<u8>>,
}

impl Parser {
    /// Takes the next bytes and adds the events that they complete to `events`.
    ///
    /// # Errors
    /// When an event is too large; the parser is of no use afterwards.
    pub(crate) fn feed(&mut self, mut bytes: &[u8], events: &mut impl Extend<Event>) -> Result<(), TooLarge> {
        while !bytes.is_empty() {
            if std::mem::take(&mut self.after_return) && bytes[0] == b'\n' {
                bytes = &bytes[1..];
                continue;
            }
            let Some(end) = bytes.iter().position(|b| matches!(b, b'\n' | b'\r')) else {
                return self.hold(bytes);
            };
            self.hold(&bytes[..end])?;
            self.after_return = bytes[end] == b'\r';
            bytes = &bytes[end + 1..];
            let line = std::mem::take(&mut self.line);
            events.extend(self.take_line(&line));
        }
        Ok(())
    }

    fn hold(&mut self, bytes: &[u8]) -> Result<(), TooLarge> {
        let held = self.line.len() + self.data.as_ref().map_or(0, Vec::len);
        if held + bytes.len() > EVENT_BYTES {
            return Err(TooLarge);
        }
        self.line.extend_from_slice(bytes);
        Ok(())
    }

    /// An empty line ends the event; fields other than `event` and `data`, and comments, are passed over.
    fn take_line(&mut self, line: &[u8]) -> Option<Event> {
        if line.is_empty() {
            let name = std::mem::take(&mut self.name);
            let data = self.data.take()?;
            return Some(Event { name: if name.is_empty() { "message".to_owned() } else { name }, data });
        }
        let (field, value) = match line.iter().position(|b| *b == b':') {
            Some(colon) => (&line[..colon], &line[colon + 1..]),
            None => (line, &[][..]),
        };
        let value = value.strip_prefix(b" ").unwrap_or(value);
        match field {
            b"event" => self.name = String::from_utf8_lossy(value).into_owned(),
            b"data" => match &mut self.data {
                Some(data) => {
                    data.push(b'\n');
                    data.extend_from_slice(value);
                }
                None => self.data = Some(value.to_vec()),
            },
            _ => {}
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(name: &str, data: &str) -> Event {
        Event { name: name.into(), data: data.into() }
    }

    /// Parses `stream` cut into pieces of every size.
    fn parse(stream: &[u8]) -> Vec<Event> {
        let mut whole = Vec::new();
        Parser::default().feed(stream, &mut whole).unwrap();
        for size in 1..=stream.len() {
            let mut events = Vec::new();
            let mut parser = Parser::default();
            stream.chunks(size).for_each(|piece| parser.feed(piece, &mut events).unwrap());
            assert_eq!(events, whole, "pieces of {size}");
        }
        whole
    }

    #[test]
    fn events_with_every_line_end() {
        for end in ["\n", "\r\n", "\r"] {
            let text = [
                "event: output",
                "id: 7",
                "data: {\"a\":",
                "data: 1}",
                "",
                ": keep-alive",
                "",
                "data:x",
                "",
                "",
            ]
            .join(end);
            assert_eq!(parse(text.as_bytes()), [event("output", "{\"a\":\n1}"), event("message", "x")]);
        }
    }

    #[test]
    fn no_half_events() {
        assert_eq!(parse(b"data: a\n\ndata: b\n"), [event("message", "a")]);
        assert_eq!(parse(b"event: end\n\ndata: a\n\n"), [event("message", "a")], "an event needs data");
        assert_eq!(parse(b"data\n\n"), [event("message", "")]);
    }

    #[test]
    fn only_one_space_is_taken_and_characters_may_be_cut() {
        assert_eq!(parse("data:  \u{e9}\u{20ac}\n\n".as_bytes()), [event("message", " \u{e9}\u{20ac}")]);
    }

    #[test]
    fn an_endless_line_is_refused() {
        let mut parser = Parser::default();
        let mut events = Vec::new();
        let piece = vec![b'x'; EVENT_BYTES / 2 + 1];
        parser.feed(&piece, &mut events).unwrap();
        assert_eq!(parser.feed(&piece, &mut events), Err(TooLarge));
    }
}
