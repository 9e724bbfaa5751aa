//! Ordinary logs, made up: what output is weighed and hurried with. The same seed makes the same text.
//!
//! Four kinds of lines in turn, as one finds them side by side on a host: a web server's access log, a system log, a
//! service's JSON lines, and the talk of a build. Times advance, addresses, paths, numbers and ids vary. Between them, at
//! least every [`STAMP_EVERY`] bytes, stands a line with the time at which it was written.

use std::{
    fmt::Write as _,
    io::Write as _,
    time::{Duration, Instant},
};

use anyhow::Context as _;

use crate::clock;

/// Begins a line that says when it was written.
pub(crate) const STAMP: &str = "stamp ";
/// Bytes of logs that are written at once, with one stamp before them.
const STAMP_EVERY: usize = 32 * 1024;
/// Bytes of different text; what is longer repeats it, far beyond what a compressor of chunks can see.
const BLOCK_BYTES: usize = 4 * 1024 * 1024;

const PATHS: [&str; 8] = [
    "/",
    "/login",
    "/api/v1/orders",
    "/api/v1/orders/items",
    "/static/app.js",
    "/static/site.css",
    "/health",
    "/search?q=lamp",
];
const AGENTS: [&str; 3] =
    ["Mozilla/5.0 (X11; Linux x86_64) Gecko/20100101 Firefox/139.0", "curl/8.14.1", "kube-probe/1.33"];
const UNITS: [&str; 5] = ["sshd", "systemd", "cron", "kernel", "nginx"];
const TALK: [&str; 5] = [
    "session opened for user deploy by (uid=0)",
    "Started Daily Cleanup of Temporary Directories.",
    "(root) CMD (run-parts --report /etc/cron.hourly)",
    "eth0: link up, 10000 Mbit/s, full duplex",
    "upstream timed out while reading response header from upstream",
];
const MESSAGES: [&str; 4] = ["order accepted", "payment settled", "cache miss, loading", "retrying request"];

/// A plain generator of numbers that anybody can repeat (Steele, Lea, Flood: SplitMix64, 2014).
#[derive(Debug)]
struct Numbers(u64);

impl Numbers {
    const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    const fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn of<'a>(&mut self, words: &[&'a str]) -> &'a str {
        let index = usize::try_from(self.below(words.len() as u64)).unwrap_or(0);
        words[index]
    }
}

/// `bytes` of logs, at least, made of whole lines.
fn text(seed: u64, bytes: usize) -> String {
    let mut numbers = Numbers(seed);
    let mut text = String::with_capacity(bytes + 512);
    let mut millis: u64 = 36_000_000;
    while text.len() < bytes {
        millis = (millis + numbers.below(40)) % 86_400_000;
        let (hour, minute) = (millis / 3_600_000, millis / 60_000 % 60);
        let (second, milli) = (millis / 1000 % 60, millis % 1000);
        let written = match numbers.below(4) {
            0 => writeln!(
                text,
                "10.{}.{}.{} - - [21/Nov/2026:{hour:02}:{minute:02}:{second:02} +0000] \"GET {} HTTP/1.1\" {} {} \"-\" \"{}\"",
                numbers.below(4),
                numbers.below(256),
                numbers.below(256),
                numbers.of(&PATHS),
                [200, 200, 200, 304, 404, 500][usize::try_from(numbers.below(6)).unwrap_or(0)],
                numbers.below(60_000),
                numbers.of(&AGENTS),
            ),
            1 => writeln!(
                text,
                "Nov 21 {hour:02}:{minute:02}:{second:02} web-{} {}[{}]: {}",
                numbers.below(40),
                numbers.of(&UNITS),
                300 + numbers.below(30_000),
                numbers.of(&TALK),
            ),
            2 => writeln!(
                text,
                "{{\"time\":\"2026-11-21T{hour:02}:{minute:02}:{second:02}.{milli:03}Z\",\"level\":\"info\",\"service\":\"orders\",\
                 \"message\":\"{}\",\"order\":{},\"took_ms\":{},\"trace\":\"{:016x}\"}}",
                numbers.of(&MESSAGES),
                1_000_000 + numbers.below(9_000_000),
                numbers.below(900),
                numbers.next(),
            ),
            _ => writeln!(
                text,
                "[{}/412] building module-{} … ok in {}.{:02} s, {} warnings",
                1 + numbers.below(412),
                numbers.below(412),
                numbers.below(9),
                numbers.below(100),
                numbers.below(4),
            ),
        };
        written.expect("a text can be written to");
    }
    text
}

/// Writes `mib` MiB of logs, as fast as it can or at `rate` MiB a second.
///
/// # Errors
/// When the output cannot be written.
pub(crate) fn write(mib: u32, rate: Option<u32>) -> anyhow::Result<()> {
    let block = text(u64::from(std::process::id()), BLOCK_BYTES);
    let mut pieces = pieces(&block).cycle();
    let mut out = std::io::stdout().lock();
    let total = u64::from(mib) * 1024 * 1024;
    let (begun, mut written, mut number) = (Instant::now(), 0, 0_u64);
    while written < total {
        if let Some(rate) = rate {
            let due = Duration::from_secs(1).mul_f64(written as f64 / (f64::from(rate) * 1024.0 * 1024.0));
            std::thread::sleep(due.saturating_sub(begun.elapsed()));
        }
        let piece = pieces.next().context("there is no text")?;
        let stamp = format!("{STAMP}{} {number}\n", clock::now_micros());
        // One write: the stamp is the time of all of it.
        let whole = [stamp.as_bytes(), piece.as_bytes()].concat();
        out.write_all(&whole).context("cannot write logs")?;
        written += whole.len() as u64;
        number += 1;
    }
    out.flush().context("cannot write logs")
}

/// Whole lines of about [`STAMP_EVERY`] bytes.
fn pieces(block: &str) -> impl Iterator<Item = &str> + Clone {
    let mut rest = block;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let wanted = rest.floor_char_boundary(STAMP_EVERY);
        let end = rest[wanted..].find('\n').map_or(rest.len(), |end| wanted + end + 1);
        let (piece, behind) = rest.split_at(end);
        rest = behind;
        Some(piece)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_is_the_same_for_the_same_seed_and_cut_at_lines() {
        let block = text(7, 200_000);
        assert_eq!(block, text(7, 200_000));
        assert_ne!(block, text(8, 200_000));
        assert_eq!(pieces(&block).collect::<String>(), block);
        assert!(pieces(&block).all(|piece| piece.ends_with('\n') && piece.len() < STAMP_EVERY + 512));
        assert!(!block.lines().any(|line| line.starts_with(STAMP)));
    }
}
