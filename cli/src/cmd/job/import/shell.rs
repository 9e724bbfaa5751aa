//! References in shell texts become variables that a shell reads as data, wherever they stand.
//!
//! The reader knows the quotes, substitutions and here-documents of POSIX shells and of bash. Where it errs (a `case` in a
//! substitution, say) a value may be split at blanks; it never becomes code: what is put in is only ever a variable.

use std::collections::BTreeSet;

/// What a step that calls `sudo` has to know.
pub(super) const SUDO: &str = "it calls sudo, which no sandbox lets gain rights";
pub(super) const NO_SUDO: &str = "say user in the step, for root with the sandbox none, and leave sudo out";

/// What a reference becomes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Variable {
    pub(super) name: String,
    pub(super) form: Form,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Form {
    Plain,
    /// The lines of the value, with this character between them.
    Joined(char),
}

impl Variable {
    /// Within double quotes.
    fn bare(&self) -> String {
        let name = &self.name;
        match self.form {
            Form::Plain => format!("${{{name}}}"),
            Form::Joined('\n') => format!("${{{name}}}"),
            Form::Joined(between) => {
                format!(r#"$(printf '%s' "${name}" | tr '\n' {})"#, quoted(&between.to_string()))
            }
        }
    }

    /// As a word.
    pub(super) fn word(&self) -> String {
        match self.form {
            Form::Plain | Form::Joined('\n') => format!("\"${}\"", self.name),
            Form::Joined(_) => format!("\"{}\"", self.bare()),
        }
    }
}

/// The text as one word of a shell's line.
pub(super) fn quoted(text: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "_-./:=,+@%".contains(c);
    if !text.is_empty() && text.chars().all(is_plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// Where a reference stood.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Within {
    Word,
    DoubleQuotes,
    SingleQuotes,
    HereDocument,
    Arithmetic,
    /// A here-document whose end is quoted: no variable is read there.
    Literal,
    /// Behind a backslash.
    Escaped,
    /// There is no such option.
    Nowhere,
}

/// A reference that was met.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Met {
    pub(super) reference: String,
    pub(super) within: Within,
}

impl Met {
    /// Whether a variable has taken its place.
    pub(super) fn is_replaced(&self) -> bool {
        !matches!(self.within, Within::Literal | Within::Escaped | Within::Nowhere)
    }
}

/// `${option.name}`, `${unquotedoption.name}` and the same between `@`: its bytes, and the name.
pub(super) fn option_at(text: &str) -> Option<(usize, &str)> {
    let (length, inner) = reference_at(text)?;
    let name = inner.strip_prefix("option.").or_else(|| inner.strip_prefix("unquotedoption."))?;
    (!name.is_empty()).then_some((length, name))
}

/// `${group.name}` or `@group.name@` of any group that Rundeck fills in: its bytes, and what is between.
pub(super) fn reference_at(text: &str) -> Option<(usize, &str)> {
    const GROUPS: [&str; 9] =
        ["option", "unquotedoption", "node", "job", "globals", "data", "export", "execution", "file"];
    let (rest, opened, end) = match text.strip_prefix("${") {
        Some(rest) => (rest, 2, '}'),
        None => (text.strip_prefix('@')?, 1, '@'),
    };
    let is_name = |c: char| c.is_alphanumeric() || "_.-:*".contains(c);
    let length = rest.find(|c| !is_name(c))?;
    let (inner, behind) = rest.split_at(length);
    let group = inner.split_once('.')?.0;
    (behind.starts_with(end) && GROUPS.contains(&group)).then_some((opened + length + 1, inner))
}

/// All references of the text, each once.
pub(super) fn references(text: &str) -> BTreeSet<&str> {
    let at = text.char_indices().filter(|(_, c)| matches!(c, '$' | '@'));
    at.filter_map(|(at, _)| Some(&text[at..at + reference_at(&text[at..])?.0])).collect()
}

/// What is open at a place of the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Open {
    /// Commands, up to `)`.
    Commands,
    /// Commands between backquotes.
    Backquotes,
    Double,
    Single,
    /// `$'…'`, where a backslash means something.
    Ansi,
    /// `${…}`.
    Braces,
    /// `$((…))` and `((…))`, with so many brackets open in it.
    Arithmetic(usize),
}

struct Reader<'a> {
    text: &'a str,
    variable: &'a dyn Fn(&str) -> Option<Variable>,
    at: usize,
    out: String,
    open: Vec<Open>,
    /// Here-documents that begin at the next line: their end, whether tabs before it do not count, whether variables are
    /// read.
    waiting: Vec<(String, bool, bool)>,
    met: Vec<Met>,
}

/// Puts variables in the place of references to options, and tells where each stood.
pub(super) fn rewrite(text: &str, variable: &dyn Fn(&str) -> Option<Variable>) -> (String, Vec<Met>) {
    let (open, waiting, met) = (Vec::new(), Vec::new(), Vec::new());
    let mut reader = Reader { text, variable, at: 0, out: String::new(), open, waiting, met };
    while reader.at < text.len() {
        reader.step();
    }
    (reader.out, reader.met)
}

impl<'a> Reader<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    /// Takes so many bytes over as they are.
    fn copy(&mut self, bytes: usize) {
        let end = (self.at + bytes).min(self.text.len());
        let end = self.text.ceil_char_boundary(end);
        self.out.push_str(&self.text[self.at..end]);
        self.at = end;
    }

    fn copy_char(&mut self) {
        let bytes = self.rest().chars().next().map_or(1, char::len_utf8);
        self.copy(bytes);
    }

    fn meet(&mut self, reference: &str, within: Within) {
        self.met.push(Met { reference: reference.to_owned(), within });
    }

    /// Whether what is read is within double quotes, also by way of braces.
    fn is_double(&self) -> bool {
        self.open.iter().rev().find(|open| **open != Open::Braces) == Some(&Open::Double)
    }

    fn is_commands(&self) -> bool {
        matches!(self.open.last(), None | Some(Open::Commands | Open::Backquotes))
    }

    fn step(&mut self) {
        let rest = self.rest();
        if let Some((length, name)) = option_at(rest) {
            let Some(variable) = (self.variable)(name) else {
                self.meet(&rest[..length], Within::Nowhere);
                return self.copy(length);
            };
            let (text, within) = match self.open.last() {
                Some(Open::Single) => (format!("'{}'", variable.word()), Within::SingleQuotes),
                Some(Open::Ansi) => (format!("'{}$'", variable.word()), Within::SingleQuotes),
                Some(Open::Arithmetic(_)) => (variable.bare(), Within::Arithmetic),
                _ if self.is_double() => (variable.bare(), Within::DoubleQuotes),
                _ => (variable.word(), Within::Word),
            };
            self.meet(&rest[..length], within);
            self.out.push_str(&text);
            self.at += length;
            return;
        }
        let c = rest.chars().next().unwrap_or_default();
        match self.open.last().copied() {
            Some(Open::Single) => {
                if c == '\'' {
                    self.open.pop();
                }
                self.copy_char();
            }
            Some(Open::Ansi) => match c {
                '\\' => self.escape(),
                _ => {
                    if c == '\'' {
                        self.open.pop();
                    }
                    self.copy_char();
                }
            },
            _ if c == '\\' => self.escape(),
            Some(Open::Double) if c == '"' => self.close(1),
            Some(Open::Braces) if c == '}' => self.close(1),
            Some(Open::Arithmetic(0)) if rest.starts_with("))") => self.close(2),
            Some(Open::Arithmetic(depth)) if c == '(' || c == ')' => {
                let depth = if c == '(' { depth + 1 } else { depth.saturating_sub(1) };
                self.open.pop();
                self.open.push(Open::Arithmetic(depth));
                self.copy(1);
            }
            Some(Open::Commands) if c == ')' => self.close(1),
            _ => self.open_or_copy(rest, c),
        }
    }

    fn open_or_copy(&mut self, rest: &str, c: char) {
        let is_commands = self.is_commands();
        let is_double = self.is_double();
        match c {
            '$' if rest.starts_with("$((") => self.begin(Open::Arithmetic(0), 3),
            '$' if rest.starts_with("$(") => self.begin(Open::Commands, 2),
            '$' if rest.starts_with("${") => self.begin(Open::Braces, 2),
            '$' if rest.starts_with("$'") && !is_double => self.begin(Open::Ansi, 2),
            '`' => {
                // Within backquotes the next one ends them, whatever is open.
                match self.open.iter().rposition(|open| *open == Open::Backquotes) {
                    Some(place) => {
                        self.open.truncate(place);
                        self.copy(1);
                    }
                    None => self.begin(Open::Backquotes, 1),
                }
            }
            '"' => self.begin(Open::Double, 1),
            '\'' if !is_double => self.begin(Open::Single, 1),
            '(' if is_commands && rest.starts_with("((") => self.begin(Open::Arithmetic(0), 2),
            '(' if is_commands => self.begin(Open::Commands, 1),
            '#' if is_commands && self.is_at_word() => {
                let end = rest.find('\n').unwrap_or(rest.len());
                self.copy(end);
            }
            '<' if is_commands && rest.starts_with("<<<") => self.copy(3),
            '<' if is_commands && rest.starts_with("<<") => self.announce(rest),
            '\n' if is_commands => {
                self.copy(1);
                self.here_documents();
            }
            _ => self.copy_char(),
        }
    }

    fn begin(&mut self, open: Open, bytes: usize) {
        self.open.push(open);
        self.copy(bytes);
    }

    fn close(&mut self, bytes: usize) {
        self.open.pop();
        self.copy(bytes);
    }

    /// A backslash with what stands behind it.
    fn escape(&mut self) {
        self.copy(1);
        if let Some((length, _)) = option_at(self.rest()) {
            let reference = &self.rest()[..length];
            self.meet(reference, Within::Escaped);
            self.copy(length);
        } else if self.at < self.text.len() {
            self.copy_char();
        }
    }

    /// Whether a word begins here.
    fn is_at_word(&self) -> bool {
        let before = self.text[..self.at].chars().next_back();
        before.is_none_or(|c| c.is_whitespace() || ";|&(".contains(c))
    }

    /// `<<END`, `<<-END`, and with the end in quotes.
    fn announce(&mut self, rest: &str) {
        let mut word = &rest[2..];
        let tabs = word.starts_with('-');
        word = word.strip_prefix('-').unwrap_or(word).trim_start_matches([' ', '\t']);
        let start = rest.len() - word.len();
        let (mut end, mut length, mut quote, mut is_read) = (String::new(), 0, None, true);
        for c in word.chars() {
            match (quote, c) {
                (Some(open), c) if c == open => quote = None,
                (None, '\'' | '"') => (quote, is_read) = (Some(c), false),
                (None, '\\') => is_read = false,
                (None, c) if c.is_whitespace() || ";|&()<>".contains(c) => break,
                _ => end.push(c),
            }
            length += c.len_utf8();
        }
        if !end.is_empty() && option_at(word).is_none() {
            self.waiting.push((end, tabs, is_read));
        }
        self.copy(start + length);
    }

    /// The here-documents that begin at this line.
    fn here_documents(&mut self) {
        // One without an end was none, as in an arithmetic shift.
        for (end, tabs, is_read) in std::mem::take(&mut self.waiting) {
            let mut length = 0;
            let found = self.rest().split_inclusive('\n').any(|line| {
                length += line.len();
                let line = line.trim_end_matches(['\n', '\r']);
                (if tabs { line.trim_start_matches('\t') } else { line }) == end
            });
            if found {
                self.here_document(self.at + length, is_read);
            }
        }
    }

    /// Up to `end` quotes mean nothing, and variables are read or they are not.
    fn here_document(&mut self, end: usize, is_read: bool) {
        while self.at < end {
            let rest = self.rest();
            match option_at(rest) {
                Some((length, name)) if is_read => match (self.variable)(name) {
                    Some(variable) => {
                        self.meet(&rest[..length], Within::HereDocument);
                        self.out.push_str(&variable.bare());
                        self.at += length;
                    }
                    None => {
                        self.meet(&rest[..length], Within::Nowhere);
                        self.copy(length);
                    }
                },
                Some((length, _)) => {
                    self.meet(&rest[..length], Within::Literal);
                    self.copy(length);
                }
                None if is_read && rest.starts_with('\\') => self.escape(),
                None => self.copy_char(),
            }
        }
    }
}

/// Whether a command of the text is `sudo`.
pub(super) fn calls_sudo(text: &str) -> bool {
    let is_end = |c: char| c.is_whitespace() || ";|&()`'\"".contains(c);
    text.split(is_end).any(|word| word == "sudo" || word.ends_with("/sudo"))
}

#[cfg(test)]
mod tests;
