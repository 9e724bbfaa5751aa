//! What a link writes to its standard error, copied into the agent's log line by line.
//!
//! It may be anybody's by now. So each line says whose it is, has a bounded length and nothing that a terminal would obey; and
//! of too many in a second only the number is told.

use std::{
    io::{self, Write as _},
    time::Duration,
};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufRead, AsyncBufReadExt as _, AsyncRead, BufReader},
    time::Instant,
};

use crate::config::LogFormat;

/// Bytes of a line; what is longer is cut.
const LINE_BYTES: usize = 8 * 1024;
/// Lines that are copied in one span of time.
const LINES: u32 = 500;
const SPAN: Duration = Duration::from_secs(1);

/// Copies until the link's end is closed.
pub(super) async fn copy(said: impl AsyncRead + Unpin, pid: u32, format: LogFormat) {
    let write = |line: &str| {
        // As for every line of the log: where nobody takes it, it is lost.
        let _ = io::stderr().lock().write_all(line.as_bytes());
    };
    copy_to(said, SPAN, |line| marked(line, pid, format), write).await;
}

async fn copy_to(
    said: impl AsyncRead + Unpin,
    span: Duration,
    marked: impl Fn(&str) -> String,
    mut write: impl FnMut(&str),
) {
    let tell_dropped = |dropped: u64, write: &mut dyn FnMut(&str)| {
        if dropped > 0 {
            write(&marked(&format!("{dropped} more lines within a second")));
        }
    };
    let mut said = BufReader::new(said);
    let mut line = Vec::new();
    let (mut since, mut lines, mut dropped) = (Instant::now(), 0, 0_u64);
    while let Ok(true) = next_line(&mut said, &mut line).await {
        if since.elapsed() >= span {
            tell_dropped(dropped, &mut write);
            (since, lines, dropped) = (Instant::now(), 0, 0);
        }
        if lines < LINES {
            lines += 1;
            write(&marked(&String::from_utf8_lossy(&line)));
        } else {
            dropped += 1;
        }
    }
    tell_dropped(dropped, &mut write);
}

/// The next line without its end, as much of it as is copied; false when there is none.
async fn next_line(said: &mut (impl AsyncBufRead + Unpin), line: &mut Vec<u8>) -> io::Result<bool> {
    line.clear();
    let mut any = false;
    loop {
        let read = said.fill_buf().await?;
        if read.is_empty() {
            return Ok(any);
        }
        any = true;
        let end = read.iter().position(|byte| *byte == b'\n');
        let piece = &read[..end.unwrap_or(read.len())];
        let room = LINE_BYTES - line.len();
        line.extend_from_slice(&piece[..piece.len().min(room)]);
        let consumed = piece.len() + usize::from(end.is_some());
        said.consume(consumed);
        if end.is_some() {
            return Ok(true);
        }
    }
}

/// The line as it stands in the log.
fn marked(line: &str, pid: u32, format: LogFormat) -> String {
    match format {
        LogFormat::Human => {
            let plain: String = line.chars().filter(|one| !one.is_control()).collect();
            format!("link[{pid}]: {plain}\n")
        }
        LogFormat::Json => {
            let mut event = match serde_json::from_str(line) {
                Ok(Value::Object(event)) => event,
                _ => [("text".to_owned(), json!(line))].into_iter().collect(),
            };
            event.insert("link".to_owned(), json!(pid));
            format!("{}\n", Value::Object(event))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn log(said: &[u8], format: LogFormat) -> Vec<String> {
        let mut log = Vec::new();
        let forever = Duration::from_secs(3600);
        copy_to(said, forever, |line| marked(line, 7, format), |line| log.push(line.to_owned())).await;
        log
    }

    #[tokio::test]
    async fn lines_say_whose_they_are_and_command_no_terminal() {
        let said = log(b"one\n\x1b[2Jtwo\r\xff\nend", LogFormat::Human).await;
        assert_eq!(said, ["link[7]: one\n", "link[7]: [2Jtwo\u{fffd}\n", "link[7]: end\n"]);
        let said = log(b"{\"level\":\"INFO\",\"link\":1}\nno \"json\"\n", LogFormat::Json).await;
        assert_eq!(
            said,
            ["{\"level\":\"INFO\",\"link\":7}\n", "{\"link\":7,\"text\":\"no \\\"json\\\"\"}\n"]
        );
    }

    #[tokio::test]
    async fn neither_long_lines_nor_many_fill_the_log() {
        let said = log(&[b'x'; 3 * LINE_BYTES], LogFormat::Human).await;
        assert!(said.len() == 1 && said[0].len() < LINE_BYTES + 20);
        let said = log(&b"x\n".repeat(10_000), LogFormat::Human).await;
        assert_eq!(said.len(), 501);
        assert_eq!(said[500], "link[7]: 9500 more lines within a second\n");
    }
}
