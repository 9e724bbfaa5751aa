//! The rules, read from `rules.toml` once.

use std::{
    collections::{HashMap, HashSet},
    sync::LazyLock,
};

use regex::Regex;
use serde::Deserialize;

use super::Severity;

/// All that the judge knows.
#[derive(Debug)]
pub(super) struct Book {
    pub(super) version: u32,
    pub(super) rules: Vec<Rule>,
    /// Rules by the name of the command; those without a name stand under "".
    pub(super) by_command: HashMap<String, Vec<usize>>,
    pub(super) wrappers: HashMap<String, Wrapper>,
    pub(super) places: HashMap<String, Vec<String>>,
    shells: HashSet<String>,
    pub(super) interpreters: HashSet<String>,
    pub(super) network: HashSet<String>,
}

/// What makes a command dangerous: all the conditions that it names.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Rule {
    pub(super) id: String,
    pub(super) severity: Severity,
    pub(super) why: String,
    /// Names of the command; `*` at the end stands for any rest. Without any, the rule looks at all commands.
    #[serde(default)]
    commands: Vec<String>,
    /// Of each group one flag must be there: short ones as letters, long ones without dashes.
    #[serde(default)]
    pub(super) flags: Vec<Vec<String>>,
    /// None of these flags may be there.
    #[serde(default)]
    pub(super) without: Vec<String>,
    /// The first operands, as one of these: words with a space between, `|` between words of one choice.
    #[serde(default)]
    pub(super) verbs: Vec<String>,
    /// An operand names one of these places.
    #[serde(default)]
    pub(super) at: Vec<String>,
    /// Only the operand that begins so is looked at, without this beginning.
    #[serde(default)]
    pub(super) prefix: Option<String>,
    /// Only the last operand is looked at.
    #[serde(default)]
    pub(super) last: bool,
    /// An operand would name one of the places `at` if its unguarded variables were empty.
    #[serde(default)]
    pub(super) when_empty: bool,
    /// All the arguments in one line match this.
    #[serde(default)]
    pub(super) arguments: Option<String>,
    /// Neither may they match this.
    #[serde(default)]
    pub(super) unless: Option<String>,
    /// Arguments or what it reads, as SQL or the like, match this; each statement on its own.
    #[serde(default)]
    pub(super) statement: Option<String>,
    /// Nor may that statement match this.
    #[serde(default)]
    pub(super) statement_unless: Option<String>,
    /// It writes, over or behind, to one of these places.
    #[serde(default)]
    pub(super) writes: Vec<String>,
    /// It writes over one of these places.
    #[serde(default)]
    pub(super) overwrites: Vec<String>,
    /// It is given the output of one of these commands.
    #[serde(default)]
    pub(super) reads: Vec<String>,
    /// A substitution among its arguments runs one of these commands.
    #[serde(default)]
    pub(super) given: Vec<String>,
    /// It is a function that calls itself through a pipe.
    #[serde(default)]
    pub(super) fork_bomb: bool,
    #[serde(skip)]
    pub(super) patterns: Patterns,
}

#[derive(Debug, Default)]
pub(super) struct Patterns {
    pub(super) arguments: Option<Regex>,
    pub(super) unless: Option<Regex>,
    pub(super) statement: Option<Regex>,
    pub(super) statement_unless: Option<Regex>,
}

/// A command that runs another one.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Wrapper {
    commands: Vec<String>,
    /// Its flags that take the next word as their value: letters and long names.
    #[serde(default)]
    pub(super) values: Vec<String>,
    /// Operands before the inner command.
    #[serde(default)]
    pub(super) skip: usize,
    /// The inner command begins behind this word.
    #[serde(default)]
    pub(super) after: Vec<String>,
    /// The inner command is the value of one of these flags, as a text for a shell.
    #[serde(default)]
    pub(super) text_flags: Vec<String>,
    /// Without such a flag it runs nothing.
    #[serde(default)]
    pub(super) text_only: bool,
    /// What is left is joined to a text for a shell.
    #[serde(default)]
    pub(super) text: bool,
    /// Only the first operand is a text for a shell.
    #[serde(default)]
    pub(super) first_text: bool,
    /// Only with these first operands.
    #[serde(default)]
    pub(super) verbs: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    version: u32,
    shells: Vec<String>,
    interpreters: Vec<String>,
    network: Vec<String>,
    places: HashMap<String, Vec<String>>,
    wrapper: Vec<Wrapper>,
    rule: Vec<Rule>,
}

/// The rules that this build holds.
pub(super) fn book() -> &'static Book {
    static BOOK: LazyLock<Book> =
        LazyLock::new(|| Book::read(include_str!("rules.toml")).expect("rules.toml is read by a test"));
    &BOOK
}

impl Book {
    /// Reads and checks a file of rules.
    ///
    /// # Errors
    /// What is wrong with it, for the one who wrote it.
    pub(super) fn read(text: &str) -> Result<Self, String> {
        let file: File = toml::from_str(text).map_err(|e| e.to_string())?;
        let mut rules = file.rule;
        let mut by_command: HashMap<String, Vec<usize>> = HashMap::new();
        for (index, rule) in rules.iter_mut().enumerate() {
            for place in rule.at.iter().chain(&rule.writes).chain(&rule.overwrites) {
                if !file.places.contains_key(place) {
                    return Err(format!("{}: no place '{place}'", rule.id));
                }
            }
            rule.patterns = Patterns {
                arguments: compile(rule.arguments.as_deref())?,
                unless: compile(rule.unless.as_deref())?,
                statement: compile(rule.statement.as_deref())?,
                statement_unless: compile(rule.statement_unless.as_deref())?,
            };
            if rule.commands.is_empty() || rule.commands.iter().any(|c| c.ends_with('*')) {
                by_command.entry(String::new()).or_default().push(index);
            } else {
                for command in &rule.commands {
                    by_command.entry(command.clone()).or_default().push(index);
                }
            }
        }
        let wrappers = file
            .wrapper
            .into_iter()
            .flat_map(|w| w.commands.clone().into_iter().map(move |c| (c, w.clone())))
            .collect();
        Ok(Self {
            version: file.version,
            rules,
            by_command,
            wrappers,
            places: file.places,
            shells: file.shells.into_iter().collect(),
            interpreters: file.interpreters.into_iter().collect(),
            network: file.network.into_iter().collect(),
        })
    }

    pub(super) fn is_shell(&self, name: &str) -> bool {
        self.shells.contains(name)
    }
}

impl Rule {
    /// Whether it looks at commands of this name.
    pub(super) fn names(&self, name: &str) -> bool {
        self.commands.is_empty()
            || self.commands.iter().any(|c| match c.strip_suffix('*') {
                Some(start) => name.starts_with(start),
                None => c == name,
            })
    }
}

fn compile(pattern: Option<&str>) -> Result<Option<Regex>, String> {
    pattern.map(|p| Regex::new(p).map_err(|e| e.to_string())).transpose()
}
