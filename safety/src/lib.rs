//! Which commands are dangerous: what a shell line would do, judged before it runs.
//!
//! [`review`] reads a program as the host's shell would and holds every simple command in it against the rules of
//! `rules.toml`. It looks through what runs other commands (`sudo`, `env`, `sh -c`, `xargs`, `find -exec`, `ssh` …), into
//! substitutions, functions, loops and here-documents.
//!
//! Invariants:
//!
//! 1. What the judge cannot look into it names, as [`Unseen`]. No finding means "no rule hits what was seen", never "safe".
//! 2. Whatever the text, it answers: depth, size and the number of commands have limits, and the parser runs in a thread
//!    of its own with a stack for the deepest text that is let in, so that neither its panic nor its depth is ours.
//! 3. It is a pure function of the program and of the rules, whose version stands in the answer.
//!
//! Absent on purpose: running anything, reading the host, and following the values of variables beyond those that are
//! given once, as a literal, in the same text. Who may start what was found is decided by a policy, elsewhere.

mod call;
mod judge;
mod rules;
mod shell;
#[cfg(test)]
mod tests;
mod walk;
mod word;

use serde::{Deserialize, Serialize};

use model::command::{Program, Script};

/// How bad it is, the least first.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, utoipa::ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Worth a second look: interrupts a service, or loses what can be made again.
    Notice,
    /// Loses data or access to the host.
    Danger,
    /// Destroys a host, a disk, a database or a cluster.
    Catastrophe,
}

/// A command that a rule hits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Finding {
    /// The rule's stable id, such as `filesystem.remove-root`.
    pub rule: String,
    pub severity: Severity,
    /// The words of the command, at most 200 characters.
    pub text: String,
    /// Where it stands, from 1; of a program without a shell always 1.
    pub line: usize,
    /// What it would do, one sentence.
    pub why: String,
}

/// Why a part of a program was not judged.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, utoipa::ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Blind {
    /// The command's name is known only when it runs.
    VariableCommand,
    /// A text is evaluated that is known only when it runs.
    EvaluatedText,
    /// A file of the host is run or sourced by a shell.
    File,
    /// A shell runs what another program writes.
    StandardInput,
    /// A shell runs what comes from the network.
    Network,
    /// A language other than the shell's.
    Interpreter,
    /// The text is not one that the parser understands.
    Unparsable,
    /// The text is longer, deeper or has more commands than are judged.
    TooLarge,
}

/// A part of a program that was not judged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Unseen {
    pub kind: Blind,
    /// Its words, at most 200 characters.
    pub text: String,
    /// Where it stands, from 1.
    pub line: usize,
}

/// What was found in a program.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Review {
    /// In the order of lines; a rule counts once a command.
    pub findings: Vec<Finding>,
    pub unseen: Vec<Unseen>,
    /// The version of the rules that judged.
    pub rules_version: u32,
}

impl Review {
    /// The worst severity that was found.
    pub fn worst(&self) -> Option<Severity> {
        self.findings.iter().map(|f| f.severity).max()
    }
}

/// What people can know of a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RuleSummary {
    pub id: &'static str,
    pub severity: Severity,
    pub why: &'static str,
}

/// Every rule, in the order of the file.
pub fn rules() -> impl Iterator<Item = RuleSummary> {
    rules::book().rules.iter().map(|r| RuleSummary { id: &r.id, severity: r.severity, why: &r.why })
}

/// The version of the rules.
pub fn rules_version() -> u32 {
    rules::book().version
}

/// Judges a program.
pub fn review(program: &Program) -> Review {
    let book = rules::book();
    shell::with_stack(|| {
        let mut walk = walk::Walk::new(book);
        match program {
            Program::Argv(argv) => walk.argv(argv),
            Program::Shell(text) => walk.text(text, 1),
            Program::Script(script) if speaks_shell(script) => walk.text(&script.content, 1),
            Program::Script(script) => {
                let first = script.content.lines().next().unwrap_or_default();
                walk.unseen(Blind::Interpreter, script.interpreter.as_deref().unwrap_or(first), 1);
            }
        }
        walk.finish()
    })
    .unwrap_or_else(|| {
        let mut walk = walk::Walk::new(book);
        walk.unseen(Blind::Unparsable, "the whole program", 1);
        walk.finish()
    })
}

/// Whether the script's interpreter, or its `#!` line, is a shell that we parse.
fn speaks_shell(script: &Script) -> bool {
    let first = script.content.lines().next().unwrap_or_default();
    let line = match &script.interpreter {
        Some(interpreter) => interpreter.as_str(),
        None => first.strip_prefix("#!").unwrap_or_default(),
    };
    let mut words = line
        .split_whitespace()
        .map(call::basename)
        .skip_while(|w| *w == "env" || w.starts_with('-') || w.contains('='));
    words.next().is_some_and(|name| rules::book().is_shell(name))
}
