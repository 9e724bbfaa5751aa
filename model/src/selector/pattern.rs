//! Patterns: the part of regular expressions that means the same in every engine.
//!
//! A pattern is checked here and evaluated by Postgres, whose expressions differ from those of the `regex` crate in
//! many corners. So it is read by a grammar of its own and written out again in forms that both engines know and
//! understand alike; both get the same text. Accepted are
//!
//! - literal characters, `.`, alternatives `a|b`, groups `(…)` and `(?:…)`, nothing captured;
//! - the repetitions `* + ? {n} {n,} {n,m}`, one behind an atom, numbers up to 255, always greedy;
//! - `\d \D \w \W \s \S`, which are ASCII, and a backslash before punctuation;
//! - sets `[a-z_]`, `[^a-z]` of characters, ranges, `\d \w \s` and escapes, `-` standing first or last;
//! - `^` at the beginning and `$` at the end, which say nothing new, for the whole value must match.
//!
//! All else is refused: other groups (`(?i)`, named, looking around), `\b \A \z \p \x` and their like, back references,
//! classes such as `[:alpha:]`, set operations, lazy repetition.

use regex::{Regex, RegexBuilder};

use crate::limits;

/// The largest number in `{n,m}` that Postgres knows.
const MAX_REPEAT: usize = 255;
/// How deep groups may nest.
const DEPTH: usize = 16;
/// Bytes of a compiled pattern; `PATTERN_LENGTH` is reached long before.
const COMPILED_BYTES: usize = 8 * 1024 * 1024;

/// A pattern that a whole value matches or not. Equal when written alike.
#[derive(Debug, Clone)]
pub struct Pattern {
    source: String,
    regex: Regex,
}

/// What is wrong with a pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PatternError {
    /// Of the character, from 0; the number of characters when something is missing at the end.
    pub(super) index: usize,
    pub(super) message: String,
}

impl Pattern {
    pub(super) fn parse(source: &str) -> Result<Self, PatternError> {
        let over = |name, limit, unit| PatternError {
            index: 0,
            message: format!("it is over the limit {name} of {limit} {unit}"),
        };
        if source.len() > limits::PATTERN_BYTES {
            return Err(over("PATTERN_BYTES", limits::PATTERN_BYTES, "bytes"));
        }
        let mut translator = Translator { chars: source.chars().collect(), at: 0, out: String::from("^(?:") };
        let length = translator.alternatives(0)?;
        if translator.peek().is_some() {
            return Err(translator.error("this ')' closes nothing; a literal one is '\\)'"));
        }
        translator.out.push_str(")$");
        if length > limits::PATTERN_LENGTH {
            return Err(over(
                "PATTERN_LENGTH",
                limits::PATTERN_LENGTH,
                "characters when its repetitions are written out",
            ));
        }
        let regex = RegexBuilder::new(&translator.out)
            .dot_matches_new_line(true)
            .size_limit(COMPILED_BYTES)
            .build()
            .map_err(|error| PatternError { index: 0, message: error.to_string() })?;
        Ok(Self { source: source.to_owned(), regex })
    }

    /// The pattern as it was written.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The regular expression, anchored at both ends, as Postgres' `~` and the `regex` crate (with `.` matching every
    /// character) both read it.
    pub fn anchored(&self) -> &str {
        self.regex.as_str()
    }

    /// Whether the whole of `value` matches.
    pub fn matches(&self, value: &str) -> bool {
        self.regex.is_match(value)
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.source == other.source
    }
}

/// Reads a pattern and writes the portable form as it goes. Each rule gives the length of what it has read, in
/// characters once repetitions are written out.
struct Translator {
    chars: Vec<char>,
    at: usize,
    out: String,
}

impl Translator {
    fn alternatives(&mut self, depth: usize) -> Result<usize, PatternError> {
        let mut length = 0;
        loop {
            while !matches!(self.peek(), None | Some('|' | ')')) {
                length += self.piece(depth)?;
            }
            if !self.take('|') {
                return Ok(length);
            }
            self.out.push('|');
        }
    }

    fn piece(&mut self, depth: usize) -> Result<usize, PatternError> {
        let start = self.at;
        if (start == 0 && self.take('^')) || (start + 1 == self.chars.len() && self.take('$')) {
            return Ok(0);
        }
        let length = self.atom(depth)?;
        let copies = self.repetition()?;
        Ok(length * copies)
    }

    fn atom(&mut self, depth: usize) -> Result<usize, PatternError> {
        let Some(c) = self.peek() else { return Ok(0) };
        match c {
            '(' => return self.group(depth),
            '[' => self.set()?,
            '\\' => match self.escape()? {
                Escape::Literal(c) => self.literal(c),
                Escape::Class { items, negated } => {
                    let not = if negated { "^" } else { "" };
                    self.out.push_str(&format!("[{not}{items}]"));
                }
            },
            '.' => {
                self.at += 1;
                self.out.push('.');
            }
            '*' | '+' | '?' | '{' => {
                return Err(self.error(&format!("'{c}' repeats nothing; a literal one is '\\{c}'")));
            }
            '^' | '$' => {
                let message =
                    format!("the whole value must match, so '{c}' has no use here; a literal one is '\\{c}'");
                return Err(self.error(&message));
            }
            c => {
                self.at += 1;
                self.literal(c);
            }
        }
        Ok(1)
    }

    fn group(&mut self, depth: usize) -> Result<usize, PatternError> {
        let start = self.at;
        if depth == DEPTH {
            return Err(self.error(&format!("groups nest deeper than {DEPTH}")));
        }
        self.at += 1;
        if self.take('?') && !self.take(':') {
            self.at = start;
            return Err(self.error("of the groups that begin with '(?' only '(?:' is supported"));
        }
        self.out.push_str("(?:");
        let length = self.alternatives(depth + 1)?;
        if !self.take(')') {
            self.at = start;
            return Err(self.error("this '(' is not closed; a literal one is '\\('"));
        }
        self.out.push(')');
        Ok(length.max(1))
    }

    /// What may follow an atom; gives the number of copies that it stands for.
    fn repetition(&mut self) -> Result<usize, PatternError> {
        let copies = match self.peek() {
            Some(c @ ('*' | '+' | '?')) => {
                self.at += 1;
                self.out.push(c);
                1
            }
            Some('{') => self.bounds()?,
            _ => return Ok(1),
        };
        if matches!(self.peek(), Some('*' | '+' | '?' | '{')) {
            return Err(self.error("a repetition cannot follow another one"));
        }
        Ok(copies)
    }

    fn bounds(&mut self) -> Result<usize, PatternError> {
        let count = |text: &str| {
            let plain = text.len() <= 3 && text.bytes().all(|byte| byte.is_ascii_digit());
            text.parse::<usize>().ok().filter(|count| plain && *count <= MAX_REPEAT)
        };
        let inside: String = self.chars[self.at + 1..].iter().take_while(|c| **c != '}').collect();
        let bounds = match inside.split_once(',') {
            None => count(&inside).map(|exactly| (exactly, Some(exactly))),
            Some((least, "")) => count(least).map(|least| (least, None)),
            Some((least, most)) => {
                count(least).zip(count(most)).filter(|(least, most)| least <= most).map(|(n, m)| (n, Some(m)))
            }
        };
        let end = self.at + 1 + inside.chars().count();
        let (Some((least, most)), Some('}')) = (bounds, self.chars.get(end)) else {
            return Err(self.error(&format!(
                "a repetition is '{{n}}', '{{n,}}' or '{{n,m}}' with n not above m and both at most {MAX_REPEAT}; \
                 a literal '{{' is '\\{{'"
            )));
        };
        self.at = end + 1;
        self.out.push('{');
        self.out.push_str(&inside);
        self.out.push('}');
        Ok(most.unwrap_or(least + 1).max(1))
    }

    fn set(&mut self) -> Result<(), PatternError> {
        let start = self.at;
        self.at += 1;
        self.out.push('[');
        if self.take('^') {
            self.out.push('^');
        }
        let first = self.at;
        loop {
            match self.peek() {
                None => {
                    self.at = start;
                    return Err(self.error("this '[' is not closed; a literal one is '\\['"));
                }
                Some(']') if self.at == first => {
                    return Err(self.error("the set is empty; a literal ']' is '\\]'"));
                }
                Some(']') => {
                    self.at += 1;
                    self.out.push(']');
                    return Ok(());
                }
                Some('-') if self.at != first && self.chars.get(self.at + 1) != Some(&']') => {
                    return Err(self.error("a literal '-' stands first or last in a set, or is '\\-'"));
                }
                Some(_) => self.set_item()?,
            }
        }
    }

    /// A class, a character or a range.
    fn set_item(&mut self) -> Result<(), PatternError> {
        let start = self.at;
        let low = match self.set_member()? {
            Escape::Literal(c) => c,
            Escape::Class { items, .. } => {
                self.out.push_str(items);
                return Ok(());
            }
        };
        self.set_literal(low);
        let ranges = self.peek() == Some('-') && !matches!(self.chars.get(self.at + 1), None | Some(']'));
        if ranges {
            self.at += 1;
            match self.set_member()? {
                Escape::Literal(high) if low <= high => {
                    self.out.push('-');
                    self.set_literal(high);
                }
                _ => {
                    self.at = start;
                    return Err(self.error("a range goes from one character to a later one"));
                }
            }
        }
        Ok(())
    }

    fn set_member(&mut self) -> Result<Escape, PatternError> {
        match self.peek() {
            Some('\\') => match self.escape()? {
                Escape::Class { negated: true, .. } => {
                    self.at -= 2;
                    Err(self.error("a negated class cannot stand in a set"))
                }
                member => Ok(member),
            },
            Some('[') => {
                Err(self.error("a literal '[' in a set is '\\['; classes and sets in sets are not supported"))
            }
            Some(c) => {
                self.at += 1;
                Ok(Escape::Literal(c))
            }
            None => Err(self.error("the set is not closed")),
        }
    }

    fn escape(&mut self) -> Result<Escape, PatternError> {
        let class = |items, negated| Ok(Escape::Class { items, negated });
        let result = match self.chars.get(self.at + 1) {
            Some('d') => class("0-9", false),
            Some('D') => class("0-9", true),
            Some('w') => class("A-Za-z0-9_", false),
            Some('W') => class("A-Za-z0-9_", true),
            Some('s') => class("\t-\r ", false),
            Some('S') => class("\t-\r ", true),
            Some(c) if c.is_ascii_punctuation() => Ok(Escape::Literal(*c)),
            Some(c) => Err(self.error(&format!(
                "'\\{c}' is not supported (but \\d \\D \\w \\W \\s \\S and a backslash before punctuation)"
            ))),
            None => Err(self.error("nothing follows the backslash; a literal one is '\\\\'")),
        };
        self.at += 2;
        result
    }

    fn literal(&mut self, c: char) {
        if r".^$*+?()[]{}|\".contains(c) {
            self.out.push('\\');
        }
        self.out.push(c);
    }

    fn set_literal(&mut self, c: char) {
        if r"\[]^-&~".contains(c) {
            self.out.push('\\');
        }
        self.out.push(c);
    }

    fn peek(&self) -> Option<char> {
        self.chars.get(self.at).copied()
    }

    fn take(&mut self, wanted: char) -> bool {
        let found = self.peek() == Some(wanted);
        self.at += usize::from(found);
        found
    }

    fn error(&self, message: &str) -> PatternError {
        PatternError { index: self.at, message: message.to_owned() }
    }
}

enum Escape {
    Literal(char),
    /// A class, as the inside of a set.
    Class {
        items: &'static str,
        negated: bool,
    },
}
