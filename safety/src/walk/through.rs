//! A command by itself: judged, and looked through, where it runs other commands or evaluates a text.

use super::{BLOCK_DEPTH, CALLS, Pipe, Walk};
use crate::{
    Blind,
    call::{Call, Target, basename, is_name},
    judge,
    rules::Wrapper,
    word::{HOME, MAYBE, QUESTION, SOME, STAR, Word},
};

impl Walk<'_> {
    pub(super) fn judge(&mut self, call: &Call, line: usize, text: &str) {
        for rule in judge::judge(self.book, call) {
            self.found(rule, text, line);
        }
    }

    /// Judges a command, and looks through it.
    pub(super) fn run(
        &mut self,
        words: &[Word],
        mut writes: Vec<Target>,
        pipe: &Pipe,
        line: usize,
        text: &str,
    ) {
        if self.names.len() >= CALLS || self.block_depth >= BLOCK_DEPTH {
            return self.stop(text, line);
        }
        // An unquoted variable that is empty is no word at all; one alone is a name that we do not know.
        let Some((first, rest)) = words.split_first() else {
            if !writes.is_empty() {
                self.judge(&Call { writes, ..Call::default() }, line, text);
            }
            return;
        };
        if !is_name(&first.value) {
            if first.names.iter().any(|n| self.book.network.contains(n)) {
                self.unseen(Blind::Network, text, line);
            } else if !first.value.is_empty() {
                self.unseen(Blind::VariableCommand, text, line);
            }
            self.judge(&Call { words: rest.to_vec(), writes, ..Call::default() }, line, text);
            return;
        }
        let name = basename(&first.plain()).to_owned();
        self.names.push(name.clone());
        if name == "tee" {
            let append = rest.iter().any(|w| matches!(w.value.as_str(), "-a" | "--append"));
            let files = rest.iter().filter(|w| !w.value.starts_with('-'));
            writes.extend(files.map(|file| Target { file: file.clone(), append }));
        }
        let mut call =
            Call { name, words: rest.to_vec(), writes, input: pipe.input.clone(), sources: Vec::new() };
        let evaluated = self.evaluated(&call, pipe);
        match &evaluated {
            Evaluated::Nothing if self.book.interpreters.contains(&call.name) => {
                if call.words.iter().all(|w| w.value.starts_with('-')) {
                    call.sources.clone_from(&pipe.names);
                }
            }
            Evaluated::Nothing => {}
            Evaluated::Word(word) => call.sources.clone_from(&word.names),
            Evaluated::Input => call.sources.clone_from(&pipe.names),
        }
        self.judge(&call, line, text);
        let output = output(&call);
        self.block_depth += 1;
        match evaluated {
            Evaluated::Word(word) => self.evaluate(&word, text, line),
            Evaluated::Input => match &call.input {
                Some(input) => self.text(input, line),
                None if call.sources.is_empty() => {}
                None => {
                    let network = call.sources.iter().any(|n| self.book.network.contains(n));
                    self.unseen(if network { Blind::Network } else { Blind::StandardInput }, text, line);
                }
            },
            Evaluated::Nothing => self.look_through(&call, pipe, line, text),
        }
        self.block_depth -= 1;
        self.output = output;
    }

    /// What a shell, or a command of the shell, evaluates as a text.
    fn evaluated(&self, call: &Call, pipe: &Pipe) -> Evaluated {
        let all = || {
            let names = call.words.iter().flat_map(|w| w.names.clone()).collect();
            let join = |of: fn(&Word) -> &str| call.words.iter().map(of).collect::<Vec<_>>().join(" ");
            let process = call.words.first().is_some_and(|w| w.process);
            let (source, value) = (join(|w| &w.source), join(|w| &w.value));
            Evaluated::Word(Word { source, value, names, process, ..Word::default() })
        };
        match call.name.as_str() {
            "eval" => all(),
            "." | "source" => match call.words.first() {
                Some(word) => Evaluated::Word(Word { process: true, ..word.clone() }),
                None => Evaluated::Nothing,
            },
            name if self.book.is_shell(name) => {
                let mut text = false;
                let mut words = call.words.iter();
                while let Some(word) = words.next() {
                    let value = word.value.as_str();
                    if value == "-s" || value == "-" {
                        return Evaluated::Input;
                    } else if value.starts_with("--") {
                        if matches!(value, "--rcfile" | "--init-file") {
                            words.next();
                        }
                    } else if value.len() > 1 && value.starts_with(['-', '+']) {
                        text |= value.contains('c');
                        if value.ends_with(['o', 'O']) {
                            words.next();
                        }
                    } else {
                        return Evaluated::Word(Word { process: !text, ..word.clone() });
                    }
                }
                if pipe.names.is_empty() && pipe.input.is_none() {
                    Evaluated::Nothing
                } else {
                    Evaluated::Input
                }
            }
            _ => Evaluated::Nothing,
        }
    }

    /// A text that is evaluated, or (`process`) the name of a file with one.
    fn evaluate(&mut self, word: &Word, text: &str, line: usize) {
        if word.names.iter().any(|n| self.book.network.contains(n)) {
            self.unseen(Blind::Network, text, line);
        } else if word.process {
            let kind = if word.names.is_empty() { Blind::File } else { Blind::StandardInput };
            self.unseen(kind, text, line);
        } else if word.value.chars().all(|c| matches!(c, SOME | MAYBE) || c.is_whitespace())
            && !word.value.is_empty()
        {
            self.unseen(Blind::EvaluatedText, text, line);
        } else {
            self.text(&spell(word), line);
        }
    }

    fn look_through(&mut self, call: &Call, pipe: &Pipe, line: usize, text: &str) {
        match call.name.as_str() {
            "set" => {
                let value =
                    |w: &Word| w.value == "nounset" || (w.value.starts_with('-') && w.value.contains('u'));
                self.careful |= call.words.iter().any(value);
            }
            "find" => self.find(call, line, text),
            "command" if call.words.first().is_some_and(|w| matches!(w.value.as_str(), "-v" | "-V")) => {}
            name if self.book.interpreters.contains(name) => {
                let given = |w: &Word| matches!(w.value.as_str(), "-c" | "-e" | "-r" | "-E" | "--eval" | "-");
                if call.words.iter().any(given) || !pipe.names.is_empty() || pipe.input.is_some() {
                    self.unseen(Blind::Interpreter, text, line);
                }
            }
            name => {
                if let Some(wrapper) = self.book.wrappers.get(name) {
                    self.wrapped(wrapper, call, pipe, line, text);
                }
            }
        }
    }

    /// The commands that `find` runs.
    fn find(&mut self, call: &Call, line: usize, text: &str) {
        let starts = |w: &Word| matches!(w.value.as_str(), "-exec" | "-execdir" | "-ok" | "-okdir");
        let mut rest = call.words.as_slice();
        while let Some(start) = rest.iter().position(starts) {
            rest = &rest[start + 1..];
            let end = rest.iter().position(|w| matches!(w.value.as_str(), ";" | "+")).unwrap_or(rest.len());
            let (inner, behind) = rest.split_at(end);
            self.run(inner, Vec::new(), &Pipe::default(), line, text);
            rest = behind;
        }
    }

    fn wrapped(&mut self, wrapper: &Wrapper, call: &Call, pipe: &Pipe, line: usize, text: &str) {
        if !wrapper.verbs.is_empty()
            && !wrapper.verbs.iter().any(|v| judge::begins(&call.sorted().operands, v))
        {
            return;
        }
        let words = call.words.as_slice();
        if !wrapper.text_flags.is_empty() {
            for (index, word) in words.iter().enumerate() {
                if let Some(value) = word.value.strip_prefix("--").and_then(|v| v.split_once('='))
                    && wrapper.text_flags.iter().any(|f| f == value.0)
                {
                    let inner = Word { value: value.1.to_owned(), ..word.clone() };
                    return self.evaluate(&inner, text, line);
                }
                let flag = word.value.trim_start_matches('-');
                let long = word.value.starts_with("--");
                let is =
                    |f: &String| if long || f.len() > 1 { f == flag } else { flag.ends_with(f.as_str()) };
                if word.value.starts_with('-')
                    && wrapper.text_flags.iter().any(is)
                    && let Some(inner) = words.get(index + 1)
                {
                    return self.evaluate(inner, text, line);
                }
            }
            if wrapper.text_only {
                return;
            }
        }
        let inner = if wrapper.after.is_empty() {
            inner(wrapper, words)
        } else {
            let Some(start) = words.iter().position(|w| wrapper.after.contains(&w.value)) else { return };
            &words[start + 1..]
        };
        if inner.is_empty() {
            return;
        }
        if wrapper.text || wrapper.first_text {
            let count = if wrapper.first_text { 1 } else { inner.len() };
            let value = inner[..count].iter().map(|w| w.value.as_str()).collect::<Vec<_>>().join(" ");
            let names = inner.iter().flat_map(|w| w.names.clone()).collect();
            return self.evaluate(&Word { value, names, ..Word::default() }, text, line);
        }
        self.run(inner, Vec::new(), pipe, line, text);
    }
}

/// What of a command's words is a text for a shell.
enum Evaluated {
    Nothing,
    Word(Word),
    Input,
}

/// The words behind a wrapper's own flags, their values, assignments and operands.
fn inner<'w>(wrapper: &Wrapper, words: &'w [Word]) -> &'w [Word] {
    let mut at = 0;
    let mut skip = wrapper.skip;
    while let Some(word) = words.get(at) {
        let value = word.value.as_str();
        if value == "--" {
            at += 1;
            return words.get(at + skip..).unwrap_or_default();
        } else if let Some(long) = value.strip_prefix("--") {
            at += 1 + usize::from(wrapper.values.iter().any(|v| v == long));
        } else if value.len() > 1 && value.starts_with('-') {
            // A flag's value follows it, unless it is joined to it: `-u root` and `-uroot`.
            let group = &value[1..];
            let whole = group.chars().count() == 1 || group.chars().all(|c| c.is_ascii_alphabetic());
            let last = group.chars().last().map(String::from).unwrap_or_default();
            let first = group.chars().next().map(String::from).unwrap_or_default();
            let joined = group.chars().count() > 1 && wrapper.values.contains(&first);
            let takes = whole && !joined && wrapper.values.contains(&last);
            at += 1 + usize::from(takes);
        } else if is_assignment(value) {
            at += 1;
        } else if skip > 0 {
            skip -= 1;
            at += 1;
        } else {
            break;
        }
    }
    words.get(at..).unwrap_or_default()
}

fn is_assignment(value: &str) -> bool {
    value.split_once('=').is_some_and(|(name, _)| {
        !name.is_empty() && name.chars().all(|c| c == '_' || c.is_ascii_alphanumeric())
    })
}

/// A value as a text that a shell reads again, what is not known as a variable.
pub(super) fn spell(word: &Word) -> String {
    let mut text = String::with_capacity(word.value.len());
    for c in word.value.chars() {
        match c {
            SOME => text.push_str("${_:?}"),
            MAYBE => text.push_str("${_}"),
            HOME => text.push('~'),
            STAR => text.push('*'),
            QUESTION => text.push('?'),
            other => text.push(other),
        }
    }
    text
}

/// What a command writes to its output, where it only repeats its words or its input.
fn output(call: &Call) -> Option<String> {
    let words =
        || call.words.iter().filter(|w| !matches!(w.value.as_str(), "-e" | "-n" | "-en" | "-ne" | "--"));
    match call.name.as_str() {
        "echo" if call.words.iter().any(super::word::Word::is_known) => {
            Some(words().map(spell).collect::<Vec<_>>().join(" "))
        }
        "printf" if call.words.iter().any(super::word::Word::is_known) => {
            let text = words()
                .filter(|w| w.value != "%s\\n" && w.value != "%s")
                .map(spell)
                .collect::<Vec<_>>()
                .join("\n");
            Some(text.replace("\\n", "\n"))
        }
        "cat" if call.words.iter().all(|w| w.value == "-") => call.input.clone(),
        _ => None,
    }
}
