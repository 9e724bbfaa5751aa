//! The process whose output is tailed: it writes lines at a steady rate, each with the time at which it was written.
//!
//! A line is `MICROS NUMBER`: microseconds since 1970 UTC, taken right before the write, and the line's number from 0.
//! Each line is a write of its own, as of a program that writes unbuffered.

use std::{
    io::Write as _,
    time::{Duration, Instant},
};

use anyhow::Context as _;

use crate::clock;

/// Writes `rate` lines a second for `seconds` seconds to the standard output. A line that is late does not delay the
/// ones behind it.
///
/// # Errors
/// When the output cannot be written.
pub(crate) fn emit(rate: u32, seconds: u32) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    let begun = Instant::now();
    for number in 0..u64::from(rate) * u64::from(seconds) {
        let due = Duration::from_nanos(number * 1_000_000_000 / u64::from(rate));
        if let Some(early) = due.checked_sub(begun.elapsed()) {
            std::thread::sleep(early);
        }
        // Standard output is line-buffered: each newline is a write.
        writeln!(out, "{} {number}", clock::now_micros()).context("cannot write a line")?;
    }
    Ok(())
}

/// What a line says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Line {
    pub(crate) written_micros: i64,
    pub(crate) number: u64,
}

/// Reads a line without its newline.
pub(crate) fn parse(line: &str) -> Option<Line> {
    let (micros, number) = line.split_once(' ')?;
    Some(Line { written_micros: micros.parse().ok()?, number: number.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read() {
        assert_eq!(
            parse("1700000000000000 7"),
            Some(Line { written_micros: 1_700_000_000_000_000, number: 7 })
        );
        for bad in ["", "7", "x 7", "7 x", "7  7"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
