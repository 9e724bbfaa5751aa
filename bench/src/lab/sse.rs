//! Server-Sent Events, as far as the controller writes them: lines that end with a newline, one `data` line an event.

/// One event.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Event {
    pub(crate) name: String,
    pub(crate) data: Vec<u8>,
}

/// Takes bytes as they come and gives out whole events.
#[derive(Debug, Default)]
pub(crate) struct Parser {
    line: Vec<u8>,
    name: String,
    data: Vec<u8>,
}

impl Parser {
    /// The events that these bytes complete.
    pub(crate) fn feed(&mut self, bytes: &[u8]) -> Vec<Event> {
        let mut events = Vec::new();
        let mut rest = bytes;
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            self.line.extend_from_slice(&rest[..end]);
            rest = &rest[end + 1..];
            let line = std::mem::take(&mut self.line);
            if line.is_empty() {
                let event =
                    Event { name: std::mem::take(&mut self.name), data: std::mem::take(&mut self.data) };
                if !event.data.is_empty() {
                    events.push(event);
                }
            } else if let Some(name) = line.strip_prefix(b"event:") {
                self.name = String::from_utf8_lossy(name).trim().to_owned();
            } else if let Some(data) = line.strip_prefix(b"data:") {
                self.data.extend_from_slice(data.strip_prefix(b" ").unwrap_or(data));
            }
        }
        self.line.extend_from_slice(rest);
        events
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_whole_however_they_are_cut() {
        let stream =
            b": hello\n\nevent: output\nid: 7\ndata: {\"a\":1}\n\nevent: end\ndata: x\n\nevent: output\n";
        for size in 1..=stream.len() {
            let mut parser = Parser::default();
            let events: Vec<Event> = stream.chunks(size).flat_map(|piece| parser.feed(piece)).collect();
            let event = |name: &str, data: &str| Event { name: name.into(), data: data.into() };
            assert_eq!(events, [event("output", "{\"a\":1}"), event("end", "x")], "pieces of {size}");
        }
    }
}
