//! A filled job in the words of its template: the source with what was filled in its places, so that remarks and the form of
//! its author stay. Whether it reads the same as what was meant, the caller looks; where it does not, or cannot be told in
//! these words, the job is written anew.

use std::{collections::BTreeMap, ops::Range};

use crate::yaml::{Node, Part, at, span};

/// Characters of a text that is written without quotes.
const PLAIN: &str = "_./-";

/// The document of a template, and what comes into its places.
pub(super) struct Source<'a> {
    text: &'a str,
    /// By where they begin; `None` once something is to be left out, which has no such place.
    places: Option<BTreeMap<usize, (usize, String)>>,
}

impl<'a> Source<'a> {
    pub(super) const fn new(text: &'a str) -> Self {
        Self { text, places: Some(BTreeMap::new()) }
    }

    /// What stands in the source for a number, true or false.
    pub(super) fn scalar(&self, part: &Part) -> Option<&'a str> {
        let text = self.text.get(span(&part.defined)?)?.trim();
        // A tag or an anchor may stand before it.
        let is_plain = |text: &str| text.chars().all(|c| c.is_ascii_alphanumeric() || "_.+-".contains(c));
        (!text.is_empty() && is_plain(text)).then_some(text)
    }

    pub(super) fn leave_out(&mut self) {
        self.places = None;
    }

    /// Puts what JSON has for a value, or its text, in the place of a part.
    pub(super) fn replace(&mut self, part: &Part, json: String, text: Option<&str>) {
        let Some(places) = &mut self.places else { return };
        match span(&part.defined)
            .and_then(|range| Some((range.clone(), in_place(self.text, range, json, text)?)))
        {
            Some((range, new)) => drop(places.insert(range.start, (range.end, new))),
            None => self.places = None,
        }
    }

    /// The part that is the value of a key of the document, by itself.
    pub(super) fn spliced(&self, part: &Part) -> Option<String> {
        let (section, indent) = self.section(part)?;
        let mut text = String::new();
        let mut done = section.start;
        for (from, (to, new)) in self.places.as_ref()? {
            text.push_str(self.text.get(done..*from)?);
            text.push_str(new);
            done = *to;
        }
        text.push_str(self.text.get(done..section.end)?);
        outdented(&text, indent)
    }

    /// The lines below the key of a part in block form, and how far they are indented.
    fn section(&self, part: &Part) -> Option<(Range<usize>, usize)> {
        let Node::Map(entries) = &part.value else { return None };
        let first = &entries.first()?.0;
        let indent = at(&first.defined).1.checked_sub(1).filter(|indent| *indent > 0)?;
        let first = span(&first.defined)?.start;
        // The key stands on the last line above that is not indented.
        let mut start = self.text.get(..first)?.rfind('\n')? + 1;
        let mut above = start;
        while let Some(line) = self.text[..above].strip_suffix('\n') {
            let from = line.rfind('\n').map_or(0, |at| at + 1);
            if line[from..].starts_with(|c: char| !c.is_whitespace() && c != '#') {
                start = above;
                break;
            }
            above = from;
        }
        let rest = &self.text[start..];
        let mut end = start;
        for line in rest.split_inclusive('\n') {
            if line.starts_with(|c: char| !c.is_whitespace() && c != '#') {
                break;
            }
            end += line.len();
        }
        Some((start..end, indent))
    }
}

/// Lines that are indented less: all by the same.
fn outdented(text: &str, indent: usize) -> Option<String> {
    let mut out = String::with_capacity(text.len());
    for line in text.trim_end().split('\n') {
        let spaces = line.len() - line.trim_start_matches(' ').len();
        let line = match line.get(indent.min(spaces)..)? {
            rest if spaces >= indent || rest.trim().is_empty() || rest.starts_with('#') => rest,
            _ => return None,
        };
        out.push_str(line);
        out.push('\n');
    }
    Some(out)
}

/// How a value is written where another scalar stood.
fn in_place(source: &str, range: Range<usize>, json: String, text: Option<&str>) -> Option<String> {
    let old = source.get(range.clone())?;
    if old.starts_with(['&', '!', '*']) {
        return None;
    }
    let kept = &old[old.trim_end().len()..];
    let before = source[..range.start].trim_end_matches(' ');
    let new = match text {
        Some(text) if is_head(before) => block(text, range.start - before.len())?,
        Some(text) if is_plain(text) => text.to_owned(),
        _ => json,
    };
    Some(new + kept)
}

/// Whether a block of lines begins behind this.
fn is_head(before: &str) -> bool {
    let line = before.strip_suffix('\n').and_then(|before| before.lines().next_back()).unwrap_or_default();
    let line = line.split(" #").next().unwrap_or_default().trim_end();
    let last = line.rsplit(' ').next().unwrap_or_default();
    last.starts_with(['|', '>']) && last[1..].chars().all(|c| c.is_ascii_digit() || "+-".contains(c))
}

/// A text that is read as one without quotes, whatever is behind it.
fn is_plain(text: &str) -> bool {
    let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || PLAIN.contains(c);
    let words = ["true", "false", "null", "yes", "no", "on", "off", "y", "n"];
    text.starts_with(|c: char| c.is_ascii_lowercase() || c == '/')
        && text.chars().all(good)
        && !words.contains(&text)
}

/// A text as the lines of a block that are indented so far, but for the first, and without the end of the last.
fn block(text: &str, indent: usize) -> Option<String> {
    let lines = text.strip_suffix('\n').unwrap_or(text);
    let is_fit = !lines.is_empty()
        && !lines.starts_with([' ', '\t', '\n'])
        && !lines.ends_with('\n')
        && lines.chars().all(|c| c == '\n' || c == '\t' || is_printable(c));
    let indent = " ".repeat(indent);
    let indented = |(at, line): (usize, &str)| match line {
        line if at == 0 || line.is_empty() => line.to_owned(),
        line => format!("{indent}{line}"),
    };
    is_fit.then(|| lines.split('\n').enumerate().map(indented).collect::<Vec<_>>().join("\n"))
}

/// Nothing that a reader of YAML might take for the end of a line, or refuse.
fn is_printable(c: char) -> bool {
    !c.is_control() && !matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}')
}

/// A text in quotes, on one line, as JSON and YAML both read it.
pub(super) fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            c if is_printable(c) => out.push(c),
            c => out.push_str(&format!("\\u{:04x}", u32::from(c))),
        }
    }
    out.push('"');
    out
}
