//! A word of the shell: what of its value is known before it runs.

use std::collections::HashMap;

/// Stands in a value where something unknown is put in that is taken not to be empty.
pub(super) const SOME: char = '\u{E000}';
/// Stands where an unknown variable is put in that may be empty.
pub(super) const MAYBE: char = '\u{E001}';
/// Stands for somebody's home folder.
pub(super) const HOME: char = '\u{E002}';
/// An unquoted `*` or `?`, which the shell matches against files.
pub(super) const STAR: char = '\u{E003}';
pub(super) const QUESTION: char = '\u{E004}';

/// What is known of the variables of a text.
pub(super) type Variables = HashMap<String, Variable>;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Variable {
    /// Given once, as this literal.
    Literal(String),
    /// Given, with a value that is not known, and is taken not to be empty.
    Given,
    /// Given, with a value that is not known and may be empty.
    Unknown,
}

/// A word with what is known of its value.
#[derive(Debug, Clone, Default)]
pub(super) struct Word {
    /// As it is written.
    pub(super) source: String,
    /// Its value, with the marks above where it is not known.
    pub(super) value: String,
    /// The texts of the command substitutions in it.
    pub(super) substitutions: Vec<String>,
    /// The names of the commands in them, once they were walked.
    pub(super) names: Vec<String>,
    /// It is, as a whole, a substitution of a process (`<(…)`).
    pub(super) process: bool,
}

impl Word {
    /// A word that no shell has touched.
    pub(super) fn literal(text: &str) -> Self {
        let value = text.chars().map(|c| if is_mark(c) { SOME } else { c }).collect();
        Self { source: text.to_owned(), value, ..Self::default() }
    }

    /// Whether its value is known to the last character.
    pub(super) fn is_known(&self) -> bool {
        !self.value.contains([SOME, MAYBE])
    }

    /// The value as a text for people and for patterns: globs and home as they are written.
    pub(super) fn plain(&self) -> String {
        self.value
            .chars()
            .map(|c| match c {
                STAR => '*',
                QUESTION => '?',
                HOME => '~',
                other => other,
            })
            .collect()
    }
}

fn is_mark(c: char) -> bool {
    ('\u{E000}'..='\u{E00F}').contains(&c)
}

/// Reads a word as the parser cut it out, with its quotes. Takes time linear in its length.
pub(super) fn read(source: &str, variables: &Variables, careful: bool) -> Word {
    let mut reader = Reader::new(source, variables, careful);
    reader.unquoted();
    reader.finish(source)
}

/// Reads the body of a here-document, where quotes mean nothing.
pub(super) fn read_document(source: &str, variables: &Variables) -> Word {
    let mut reader = Reader::new(source, variables, false);
    reader.quoted(None);
    reader.finish(source)
}

struct Reader<'a> {
    chars: Vec<char>,
    at: usize,
    value: String,
    substitutions: Vec<String>,
    variables: &'a Variables,
    /// The text asks for `set -u`: a variable that is not set ends it.
    careful: bool,
}

impl<'a> Reader<'a> {
    fn new(source: &str, variables: &'a Variables, careful: bool) -> Self {
        Self {
            chars: source.chars().map(|c| if is_mark(c) { SOME } else { c }).collect(),
            at: 0,
            value: String::new(),
            substitutions: Vec::new(),
            variables,
            careful,
        }
    }

    fn finish(self, source: &str) -> Word {
        Word {
            source: source.to_owned(),
            value: self.value,
            substitutions: self.substitutions,
            ..Word::default()
        }
    }

    fn next(&mut self) -> Option<char> {
        let c = self.chars.get(self.at).copied();
        self.at += usize::from(c.is_some());
        c
    }

    fn peek(&self) -> Option<char> {
        self.chars.get(self.at).copied()
    }

    fn unquoted(&mut self) {
        if self.peek() == Some('~') {
            self.tilde();
        }
        while let Some(c) = self.next() {
            match c {
                '\\' => match self.next() {
                    Some('\n') | None => {}
                    Some(escaped) => self.value.push(escaped),
                },
                '\'' => self.single(),
                '"' => self.quoted(Some('"')),
                '*' => self.value.push(STAR),
                '?' => self.value.push(QUESTION),
                '$' => match self.peek() {
                    Some('\'') => {
                        self.at += 1;
                        self.ansi();
                    }
                    Some('"') => {
                        self.at += 1;
                        self.quoted(Some('"'));
                    }
                    _ => self.dollar(),
                },
                '`' => self.backquote(),
                other => self.value.push(other),
            }
        }
    }

    fn tilde(&mut self) {
        let rest = &self.chars[self.at + 1..];
        let name = rest.iter().take_while(|c| c.is_alphanumeric() || "_-.+".contains(**c)).count();
        if rest.get(name).is_none_or(|c| *c == '/') {
            // `~+` and `~-` are the working folder and the one before.
            let mark = if matches!(rest.first(), Some('+' | '-')) { SOME } else { HOME };
            self.value.push(mark);
            self.at += 1 + name;
        }
    }

    fn single(&mut self) {
        while let Some(c) = self.next() {
            if c == '\'' {
                return;
            }
            self.value.push(c);
        }
    }

    /// Up to the closing quote, or to the end.
    fn quoted(&mut self, end: Option<char>) {
        while let Some(c) = self.next() {
            match c {
                c if Some(c) == end => return,
                '\\' => match self.next() {
                    Some(e @ ('$' | '`' | '\\')) => self.value.push(e),
                    Some('"') if end.is_some() => self.value.push('"'),
                    Some('\n') | None => {}
                    Some(other) => self.value.extend(['\\', other]),
                },
                '$' => self.dollar(),
                '`' => self.backquote(),
                other => self.value.push(other),
            }
        }
    }

    /// `$'…'`: the escapes of C.
    fn ansi(&mut self) {
        while let Some(c) = self.next() {
            match c {
                '\'' => return,
                '\\' => {
                    let Some(kind) = self.next() else { return };
                    match kind {
                        'n' => self.value.push('\n'),
                        't' => self.value.push('\t'),
                        'r' => self.value.push('\r'),
                        'x' => self.number(16, 2, 0),
                        'u' => self.number(16, 4, 0),
                        'U' => self.number(16, 8, 0),
                        d @ '0'..='7' => self.number(8, 2, d.to_digit(8).unwrap_or(0)),
                        other => self.value.push(other),
                    }
                }
                other => self.value.push(other),
            }
        }
    }

    fn number(&mut self, radix: u32, digits: usize, start: u32) {
        let mut code = start;
        for _ in 0..digits {
            let Some(digit) = self.peek().and_then(|c| c.to_digit(radix)) else { break };
            code = code.wrapping_mul(radix).wrapping_add(digit);
            self.at += 1;
        }
        let c = char::from_u32(code).filter(|c| !is_mark(*c)).unwrap_or(SOME);
        self.value.push(c);
    }

    fn backquote(&mut self) {
        let mut text = String::new();
        while let Some(c) = self.next() {
            match c {
                '`' => break,
                '\\' => match self.next() {
                    Some(e @ ('`' | '$' | '\\')) => text.push(e),
                    Some(other) => text.extend(['\\', other]),
                    None => {}
                },
                other => text.push(other),
            }
        }
        self.substitutions.push(text);
        self.value.push(SOME);
    }

    fn dollar(&mut self) {
        match self.peek() {
            Some('(') => {
                self.at += 1;
                let inner = self.enclosed('(', ')');
                let arithmetic = inner.starts_with('(') && inner.ends_with(')');
                if !arithmetic {
                    self.substitutions.push(inner);
                }
                self.value.push(SOME);
            }
            Some('{') => {
                self.at += 1;
                let inner = self.enclosed('{', '}');
                self.braced(&inner);
            }
            Some(c) if c == '_' || c.is_ascii_alphabetic() => {
                let start = self.at;
                while self.peek().is_some_and(|c| c == '_' || c.is_ascii_alphanumeric()) {
                    self.at += 1;
                }
                let name: String = self.chars[start..self.at].iter().collect();
                self.variable(&name);
            }
            Some(c) if c.is_ascii_digit() || "@*".contains(c) => {
                self.at += 1;
                self.value.push(if self.careful { SOME } else { MAYBE });
            }
            Some(c) if "#?$!-".contains(c) => {
                self.at += 1;
                self.value.push(SOME);
            }
            _ => self.value.push('$'),
        }
    }

    fn variable(&mut self, name: &str) {
        match (name, self.variables.get(name)) {
            ("HOME", None) => self.value.push(HOME),
            (_, Some(Variable::Literal(text))) => self.value.push_str(text),
            (_, Some(Variable::Given)) => self.value.push(SOME),
            ("PWD" | "OLDPWD" | "UID" | "EUID" | "HOSTNAME" | "RANDOM" | "USER" | "TMPDIR", None) => {
                self.value.push(SOME);
            }
            (_, Some(Variable::Unknown) | None) => self.value.push(if self.careful { SOME } else { MAYBE }),
        }
    }

    /// What stands in `${…}`: a name, and an operation that may guard it.
    fn braced(&mut self, inner: &str) {
        self.nested(inner);
        let length = inner.chars().take_while(|c| *c == '_' || c.is_ascii_alphanumeric()).count();
        let (name, operation) =
            inner.split_at(inner.char_indices().nth(length).map_or(inner.len(), |(i, _)| i));
        let mut operation = operation.chars();
        match (operation.next(), operation.next()) {
            (None, _) => self.variable(name),
            // `${#x}`, `${!x}` and the like, whose name comes later.
            _ if name.is_empty() => self.value.push(if inner.starts_with('#') { SOME } else { MAYBE }),
            // `:?`, `?`, and a value in its place that is not empty.
            (Some(':'), Some('?')) | (Some('?'), _) => match self.variables.get(name) {
                Some(Variable::Literal(text)) => self.value.push_str(text),
                _ => self.value.push(SOME),
            },
            (Some(':'), Some('-' | '=')) => {
                let default: String = operation.collect();
                self.defaulted(name, &default);
            }
            (Some('-' | '='), _) => {
                let default: String = inner.chars().skip(length + 1).collect();
                self.defaulted(name, &default);
            }
            _ => self.value.push(MAYBE),
        }
    }

    fn defaulted(&mut self, name: &str, default: &str) {
        match self.variables.get(name) {
            Some(Variable::Literal(text)) if !text.is_empty() => self.value.push_str(text),
            _ if name == "HOME" => self.value.push(HOME),
            // The default is what it is where nothing else is said, so that it is judged as if it were the value.
            _ if default.starts_with('/') && !default.contains(['$', '`', '"', '\'', '\\']) => {
                self.value.push_str(default);
            }
            _ => self.value.push(if default.is_empty() { MAYBE } else { SOME }),
        }
    }

    /// Up to the bracket that closes the one just read; what is quoted does not count.
    fn enclosed(&mut self, open: char, close: char) -> String {
        let start = self.at;
        let mut depth = 1;
        let mut quote = None;
        while let Some(c) = self.next() {
            match (quote, c) {
                (Some('\''), '\'') => quote = None,
                (Some('\''), _) => {}
                (_, '\\') => self.at += 1,
                (Some('"'), '"') => quote = None,
                (None, '\'' | '"') => quote = Some(c),
                (Some(_), _) => {}
                (None, c) if c == open => depth += 1,
                (None, c) if c == close => {
                    depth -= 1;
                    if depth == 0 {
                        return self.chars[start..self.at - 1].iter().collect();
                    }
                }
                _ => {}
            }
        }
        self.at = self.chars.len();
        self.chars[start..].iter().collect()
    }

    /// Command substitutions in a parameter's operation are run too.
    fn nested(&mut self, inner: &str) {
        let mut reader = Reader::new(inner, self.variables, self.careful);
        while let Some(c) = reader.next() {
            match (c, reader.peek()) {
                ('\\', _) => reader.at += 1,
                ('$', Some('(')) => {
                    reader.at += 1;
                    let text = reader.enclosed('(', ')');
                    reader.substitutions.push(text);
                }
                ('`', _) => reader.backquote(),
                _ => {}
            }
        }
        self.substitutions.append(&mut reader.substitutions);
    }
}
