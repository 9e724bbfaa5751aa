//! All that is written: documents, lists, tables, lines of hosts, and notes to the person. Nothing else prints.

pub(crate) mod human;
pub(crate) mod lines;
mod list;
mod table;
mod tail;

use std::io::{self, Write as _};

use anyhow::{Context as _, Result};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use clap::ValueEnum;
use model::api::output::{Data, OutputPiece, Stream};
use serde::Serialize;

pub(crate) use list::{list, whole};
pub(crate) use table::{Table, one_line};
pub(crate) use tail::Tail;

/// Form of a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people
    Table,
    Json,
    Yaml,
}

/// The content of a piece, decoded.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Content {
    Bytes(Vec<u8>),
    /// So many bytes are missing.
    Gap(i64),
}

impl Content {
    /// Takes the content out of a piece; what is left there is an empty gap.
    ///
    /// # Errors
    /// When what should be base64 is not.
    pub(crate) fn take(piece: &mut OutputPiece) -> Result<Self> {
        Ok(match std::mem::replace(&mut piece.data, Data::Gap(0)) {
            Data::Text(text) => Self::Bytes(text.into_bytes()),
            Data::Base64(text) => {
                let bytes = BASE64_STANDARD.decode(text);
                Self::Bytes(bytes.context("the controller sent output that is not valid base64")?)
            }
            Data::Gap(bytes) => Self::Gap(bytes),
        })
    }
}

/// Writes bytes as they are to our own stdout or stderr, at once.
///
/// # Errors
/// When the stream is closed or full.
pub(crate) fn write(stream: Stream, bytes: &[u8]) -> Result<()> {
    let written = match stream {
        Stream::Stdout => {
            let mut out = io::stdout().lock();
            out.write_all(bytes).and_then(|()| out.flush())
        }
        Stream::Stderr => io::stderr().lock().write_all(bytes),
    };
    written.with_context(|| format!("cannot write to {}", stream.as_str()))
}

/// Writes text for people to stdout.
///
/// # Errors
/// When stdout is closed or full.
pub(crate) fn print(text: &str) -> Result<()> {
    document(&plain(text))
}

/// Writes text for programs to stdout, as it is.
///
/// # Errors
/// When stdout is closed or full.
fn document(text: &str) -> Result<()> {
    write(Stream::Stdout, text.as_bytes())
}

/// Says something to the person, on stderr. That stderr is gone is no reason to stop.
pub(crate) fn note(text: &str) {
    let _ = write(Stream::Stderr, format!("opsctl: {}\n", plain(text)).as_bytes());
}

/// Lines without any other control characters: what the controller says must not command a terminal.
pub(crate) fn plain(text: &str) -> String {
    text.split('\n').map(table::one_line).collect::<Vec<_>>().join("\n")
}

/// Writes `value` as one document, or as `text` for people.
///
/// # Errors
/// When stdout is closed or full.
pub(crate) fn show<T: Serialize>(format: Format, value: &T, text: impl FnOnce(&T) -> String) -> Result<()> {
    match format {
        Format::Table => print(&text(value)),
        Format::Json => {
            let json = serde_json::to_string_pretty(value).context("cannot write the result as JSON")?;
            document(&(json + "\n"))
        }
        Format::Yaml => document(&yaml(value)?),
    }
}

/// One document in YAML.
///
/// # Errors
/// When the value has no form in YAML.
pub(crate) fn yaml<T: Serialize>(value: &T) -> Result<String> {
    let mut text = serde_saphyr::to_string(value).context("cannot write the result as YAML")?;
    if !text.ends_with('\n') {
        text.push('\n');
    }
    Ok(text)
}

/// Is `stream` a terminal that wants colours?
pub(crate) fn wants_colour(stream: Stream) -> bool {
    let choice = match stream {
        Stream::Stdout => anstream::AutoStream::choice(&io::stdout()),
        Stream::Stderr => anstream::AutoStream::choice(&io::stderr()),
    };
    choice != anstream::ColorChoice::Never
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_of_others_cannot_command_a_terminal() {
        assert_eq!(plain("a\u{1b}]0;x\u{7}b\r\nc\u{9b}2J\n"), "a ]0;x b \nc 2J\n");
    }
}
