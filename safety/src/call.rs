//! A simple command: a name, its words, where it writes and what it reads.

use std::collections::HashSet;

use super::word::{MAYBE, SOME, Word};

/// One command as it would be run.
#[derive(Debug, Clone, Default)]
pub(super) struct Call {
    /// The program's name without its folder.
    pub(super) name: String,
    pub(super) words: Vec<Word>,
    pub(super) writes: Vec<Target>,
    /// What it reads, where that is in the text.
    pub(super) input: Option<String>,
    /// Names of the commands whose output it evaluates.
    pub(super) sources: Vec<String>,
}

/// A file that is written.
#[derive(Debug, Clone)]
pub(super) struct Target {
    pub(super) file: Word,
    pub(super) append: bool,
}

/// The words of a command, sorted.
#[derive(Debug, Default)]
pub(super) struct Sorted<'a> {
    /// Each short flag as a letter, each long one without its dashes and value, a joined group also as a whole.
    pub(super) flags: HashSet<String>,
    pub(super) operands: Vec<&'a Word>,
}

impl Call {
    pub(super) fn sorted(&self) -> Sorted<'_> {
        let mut sorted = Sorted::default();
        let mut ended = false;
        for word in &self.words {
            let value = word.value.as_str();
            if ended || value.len() < 2 || !value.starts_with('-') {
                sorted.operands.push(word);
            } else if value == "--" {
                ended = true;
            } else if let Some(long) = value.strip_prefix("--") {
                sorted.flags.insert(long.split('=').next().unwrap_or_default().to_owned());
            } else {
                let group = &value[1..];
                sorted.flags.insert(group.split('=').next().unwrap_or_default().to_owned());
                sorted.flags.extend(group.chars().map(String::from));
            }
        }
        sorted
    }

    /// The operands and flags as one line, for patterns.
    pub(super) fn arguments(&self) -> String {
        self.words.iter().map(Word::plain).collect::<Vec<_>>().join(" ")
    }
}

/// The last part of a path.
pub(super) fn basename(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// Whether a word can be a command's name.
pub(super) fn is_name(value: &str) -> bool {
    !value.is_empty() && !value.contains([SOME, MAYBE])
}
