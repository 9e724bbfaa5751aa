//! Walks a program from command to command, through all of the shell's syntax; `through.rs` has what becomes of each.

mod through;

use brush_parser::ast::{
    self, AssignmentName, AssignmentValue, Command, CommandPrefixOrSuffixItem, CompoundCommand, CompoundList,
    ExtendedTestExpr, IoFileRedirectKind, IoFileRedirectTarget, IoRedirect, SeparatorOperator,
};
use through::spell;

use super::{
    Blind, Finding, Review, Unseen,
    call::{Call, Target},
    rules::{Book, Rule},
    shell::{self, Refused},
    word::{self, HOME, MAYBE, SOME, Variable, Variables, Word},
};

/// Commands that are judged of one program.
const CALLS: usize = 20_000;
/// Texts within texts: `sh -c "sh -c …"`, substitutions.
const TEXT_DEPTH: usize = 12;
/// Blocks within blocks, over all texts.
const BLOCK_DEPTH: usize = 200;
/// Bytes that are parsed of one program, the texts within texts counted again.
const BYTES: usize = 1024 * 1024;
/// Variables that are followed, and how long their values may be.
const VARIABLES: usize = 256;
const VALUE_BYTES: usize = 1024;
/// Words of a loop whose body is judged once for each.
const LOOP_WORDS: usize = 16;
/// Findings, and unseen parts, that are told.
const TOLD: usize = 200;
/// Characters of a command that are told.
const TEXT_CHARS: usize = 200;

/// What a command is given by a pipe.
#[derive(Debug, Clone, Default)]
struct Pipe {
    /// The commands before it.
    names: Vec<String>,
    /// What they write, where that stands in the text.
    input: Option<String>,
}

pub(super) struct Walk<'b> {
    book: &'b Book,
    findings: Vec<Finding>,
    unseen: Vec<Unseen>,
    /// Every command's name, in the order they were met.
    names: Vec<String>,
    variables: Variables,
    careful: bool,
    /// The functions whose bodies are being walked.
    functions: Vec<String>,
    /// What the last simple command writes to its output, where that is known.
    output: Option<String>,
    /// The line of the text's first line, less one.
    base: usize,
    text_depth: usize,
    block_depth: usize,
    loops: usize,
    bytes: usize,
    full: bool,
}

impl<'b> Walk<'b> {
    pub(super) fn new(book: &'b Book) -> Self {
        Self {
            book,
            findings: Vec::new(),
            unseen: Vec::new(),
            names: Vec::new(),
            variables: Variables::new(),
            careful: false,
            functions: Vec::new(),
            output: None,
            base: 0,
            text_depth: 0,
            block_depth: 0,
            loops: 0,
            bytes: 0,
            full: false,
        }
    }

    pub(super) fn finish(mut self) -> Review {
        self.findings.sort_by_key(|f| f.line);
        self.unseen.sort_by_key(|u| u.line);
        Review { findings: self.findings, unseen: self.unseen, rules_version: self.book.version }
    }

    pub(super) fn unseen(&mut self, kind: Blind, text: &str, line: usize) {
        let unseen = Unseen { kind, text: told(text), line };
        if self.unseen.len() < TOLD && !self.unseen.contains(&unseen) {
            self.unseen.push(unseen);
        }
    }

    fn found(&mut self, rule: &Rule, text: &str, line: usize) {
        let known = |f: &Finding| f.rule == rule.id && f.line == line && f.text == told(text);
        if self.findings.len() < TOLD && !self.findings.iter().any(known) {
            self.findings.push(Finding {
                rule: rule.id.clone(),
                severity: rule.severity,
                text: told(text),
                line,
                why: rule.why.clone(),
            });
        }
    }

    /// A program with its arguments, without a shell.
    pub(super) fn argv(&mut self, argv: &[String]) {
        let words: Vec<Word> = argv.iter().map(|a| Word::literal(a)).collect();
        let text = argv.join(" ");
        self.run(&words, Vec::new(), &Pipe::default(), 1, &text);
    }

    /// A text for a shell.
    pub(super) fn text(&mut self, text: &str, line: usize) {
        self.bytes += text.len();
        if self.text_depth >= TEXT_DEPTH || self.bytes > BYTES {
            return self.stop(text, line);
        }
        let program = match shell::parse(text) {
            Ok(program) => program,
            Err(Refused::TooLarge) => return self.unseen(Blind::TooLarge, text, line),
            Err(Refused::Unparsable) => return self.unseen(Blind::Unparsable, text, line),
        };
        let base = std::mem::replace(&mut self.base, line - 1);
        let variables = self.variables.clone();
        let careful = self.careful;
        self.text_depth += 1;
        for list in &program.complete_commands {
            self.list(list);
        }
        self.text_depth -= 1;
        self.base = base;
        self.variables = variables;
        self.careful = careful;
    }

    fn stop(&mut self, text: &str, line: usize) {
        if !std::mem::replace(&mut self.full, true) {
            self.unseen(Blind::TooLarge, text, line);
        }
    }

    fn list(&mut self, list: &CompoundList) {
        if self.block_depth >= BLOCK_DEPTH {
            return self.stop("blocks within blocks", self.base + 1);
        }
        self.block_depth += 1;
        for ast::CompoundListItem(and_or, separator) in &list.0 {
            self.pipeline(&and_or.first);
            let apart = matches!(separator, SeparatorOperator::Async);
            let before = (apart || !and_or.additional.is_empty()).then(|| self.variables.clone());
            for next in &and_or.additional {
                let (ast::AndOr::And(pipeline) | ast::AndOr::Or(pipeline)) = next;
                self.pipeline(pipeline);
            }
            self.join(before);
        }
        self.block_depth -= 1;
    }

    /// What only a part of the ways through a block sets is no longer known.
    fn join(&mut self, before: Option<Variables>) {
        let Some(before) = before else { return };
        for (name, value) in &mut self.variables {
            if before.get(name) != Some(value) {
                *value = Variable::Unknown;
            }
        }
    }

    fn pipeline(&mut self, pipeline: &ast::Pipeline) {
        if pipeline.seq.len() > 1 {
            self.fork_bomb(pipeline);
        }
        let start = self.names.len();
        let mut input = None;
        for command in &pipeline.seq {
            if self.full {
                return;
            }
            let pipe = Pipe { names: self.names.get(start..).unwrap_or_default().to_vec(), input };
            self.output = None;
            self.command(command, &pipe);
            input = self.output.take();
        }
    }

    fn fork_bomb(&mut self, pipeline: &ast::Pipeline) {
        let Some(function) = self.functions.last() else { return };
        let own = |c: &&Command| matches!(c, Command::Simple(s) if s.word_or_name.as_ref().is_some_and(|w| w.value == *function));
        if pipeline.seq.iter().filter(own).count() < 2 {
            return;
        }
        let text = pipeline.to_string();
        for rule in self.book.rules.iter().filter(|r| r.fork_bomb) {
            self.found(rule, &text, self.base + 1);
        }
    }

    fn command(&mut self, command: &Command, pipe: &Pipe) {
        match command {
            Command::Simple(simple) => self.simple(simple, pipe),
            Command::Compound(compound, redirects) => {
                self.redirects(redirects.as_ref());
                self.compound(compound);
            }
            Command::Function(function) => {
                self.redirects(function.body.1.as_ref());
                self.functions.push(function.fname.value.clone());
                let before = self.variables.clone();
                self.compound(&function.body.0);
                self.join(Some(before));
                self.functions.pop();
            }
            Command::ExtendedTest(test, redirects) => {
                self.redirects(redirects.as_ref());
                self.test(&test.expr, 0);
            }
        }
    }

    fn test(&mut self, expr: &ExtendedTestExpr, depth: usize) {
        if depth > BLOCK_DEPTH {
            return;
        }
        match expr {
            ExtendedTestExpr::And(a, b) | ExtendedTestExpr::Or(a, b) => {
                self.test(a, depth + 1);
                self.test(b, depth + 1);
            }
            ExtendedTestExpr::Not(a) | ExtendedTestExpr::Parenthesized(a) => self.test(a, depth + 1),
            ExtendedTestExpr::UnaryTest(_, word) => drop(self.word(word)),
            ExtendedTestExpr::BinaryTest(_, a, b) => {
                self.word(a);
                self.word(b);
            }
        }
    }

    fn compound(&mut self, compound: &CompoundCommand) {
        let before = self.variables.clone();
        match compound {
            CompoundCommand::BraceGroup(group) => return self.list(&group.list),
            CompoundCommand::Subshell(subshell) => {
                self.list(&subshell.list);
                self.variables = before;
                return;
            }
            CompoundCommand::Arithmetic(_) => return,
            CompoundCommand::ArithmeticForClause(clause) => self.list(&clause.body.list),
            CompoundCommand::ForClause(clause) => self.for_each(clause),
            CompoundCommand::CaseClause(clause) => {
                self.word(&clause.value);
                for case in &clause.cases {
                    if let Some(list) = &case.cmd {
                        self.list(list);
                    }
                }
            }
            CompoundCommand::IfClause(clause) => {
                self.list(&clause.condition);
                self.list(&clause.then);
                for branch in clause.elses.iter().flatten() {
                    if let Some(condition) = &branch.condition {
                        self.list(condition);
                    }
                    self.list(&branch.body);
                }
            }
            CompoundCommand::WhileClause(clause) | CompoundCommand::UntilClause(clause) => {
                self.list(&clause.0);
                self.list(&clause.1.list);
            }
            CompoundCommand::Coprocess(coprocess) => self.command(&coprocess.body, &Pipe::default()),
        }
        self.join(Some(before));
    }

    /// The body is judged with each of the words where they are few, known and not in another loop.
    fn for_each(&mut self, clause: &ast::ForClauseCommand) {
        let words: Vec<Word> = clause.values.iter().flatten().map(|w| self.word(w)).collect();
        let known = self.loops == 0 && words.len() <= LOOP_WORDS && words.iter().all(Word::is_known);
        self.loops += 1;
        if known && !words.is_empty() {
            for word in words {
                // A value that is put in is not read again, so the marks of globs and of home may stay in it.
                self.set(&clause.variable_name, Variable::Literal(word.value));
                self.list(&clause.body.list);
            }
        } else {
            let value = if clause.values.is_some() { Variable::Given } else { Variable::Unknown };
            self.set(&clause.variable_name, value);
            self.list(&clause.body.list);
        }
        self.loops -= 1;
    }

    fn set(&mut self, name: &str, value: Variable) {
        let fits = self.variables.len() < VARIABLES || self.variables.contains_key(name);
        match value {
            Variable::Literal(text) if text.len() > VALUE_BYTES => self.set(name, Variable::Unknown),
            value if fits => drop(self.variables.insert(name.to_owned(), value)),
            _ => {}
        }
    }

    fn simple(&mut self, simple: &ast::SimpleCommand, pipe: &Pipe) {
        let line = self.line(simple);
        let text = simple.to_string();
        let mut pipe = pipe.clone();
        let mut writes = Vec::new();
        let mut words = Vec::new();
        let mut given = Vec::new();
        for item in simple.prefix.iter().flat_map(|p| &p.0) {
            match item {
                CommandPrefixOrSuffixItem::AssignmentWord(assignment, _) => given.push(assignment),
                item => self.item(item, &mut words, &mut writes, &mut pipe),
            }
        }
        if let Some(name) = &simple.word_or_name {
            words.push(self.word(name));
        }
        let declares = words.first().is_some_and(|w| {
            matches!(w.value.as_str(), "export" | "local" | "declare" | "readonly" | "typeset")
        });
        for item in simple.suffix.iter().flat_map(|s| &s.0) {
            if let (true, CommandPrefixOrSuffixItem::AssignmentWord(assignment, _)) = (declares, item) {
                given.push(assignment);
            }
            self.item(item, &mut words, &mut writes, &mut pipe);
        }
        let lasting = declares || simple.word_or_name.is_none();
        for assignment in given {
            self.assign(assignment, lasting);
        }
        self.run(&words, writes, &pipe, line, &text);
    }

    fn assign(&mut self, assignment: &ast::Assignment, lasting: bool) {
        let value = match &assignment.value {
            AssignmentValue::Scalar(word) => {
                let word = self.word(word);
                if word.value.contains(MAYBE) {
                    Variable::Unknown
                } else if word.value.contains(SOME) {
                    Variable::Given
                } else {
                    Variable::Literal(word.value)
                }
            }
            AssignmentValue::Array(words) => {
                for (_, word) in words {
                    self.word(word);
                }
                Variable::Unknown
            }
        };
        if let (true, AssignmentName::VariableName(name)) = (lasting, &assignment.name) {
            let value = if assignment.append { Variable::Unknown } else { value };
            self.set(name, value);
        }
    }

    fn line(&self, simple: &ast::SimpleCommand) -> usize {
        let first = simple.word_or_name.as_ref().and_then(|w| w.loc.as_ref());
        self.base + first.map_or(1, |span| span.start.line.max(1))
    }

    fn item(
        &mut self,
        item: &CommandPrefixOrSuffixItem,
        words: &mut Vec<Word>,
        writes: &mut Vec<Target>,
        pipe: &mut Pipe,
    ) {
        match item {
            CommandPrefixOrSuffixItem::Word(word) | CommandPrefixOrSuffixItem::AssignmentWord(_, word) => {
                words.push(self.word(word));
            }
            CommandPrefixOrSuffixItem::ProcessSubstitution(_, subshell) => words.push(self.process(subshell)),
            CommandPrefixOrSuffixItem::IoRedirect(redirect) => self.redirect(redirect, writes, pipe),
        }
    }

    fn process(&mut self, subshell: &ast::SubshellCommand) -> Word {
        let start = self.names.len();
        self.list(&subshell.list);
        let names = self.names.get(start..).unwrap_or_default().to_vec();
        Word {
            source: subshell.to_string(),
            value: SOME.to_string(),
            names,
            process: true,
            ..Word::default()
        }
    }

    fn redirects(&mut self, redirects: Option<&ast::RedirectList>) {
        let mut writes = Vec::new();
        for redirect in redirects.iter().flat_map(|r| &r.0) {
            self.redirect(redirect, &mut writes, &mut Pipe::default());
        }
        if !writes.is_empty() {
            let text = redirects.map(ToString::to_string).unwrap_or_default();
            let call = Call { writes, ..Call::default() };
            self.judge(&call, self.base + 1, &text);
        }
    }

    fn redirect(&mut self, redirect: &IoRedirect, writes: &mut Vec<Target>, pipe: &mut Pipe) {
        match redirect {
            IoRedirect::File(_, kind, target) => match target {
                IoFileRedirectTarget::Filename(word) => {
                    let file = self.word(word);
                    let append = matches!(kind, IoFileRedirectKind::Append);
                    match kind {
                        IoFileRedirectKind::Write
                        | IoFileRedirectKind::Clobber
                        | IoFileRedirectKind::Append => {
                            writes.push(Target { file, append });
                        }
                        // `<>` writes without cutting the file off.
                        IoFileRedirectKind::ReadAndWrite => writes.push(Target { file, append: true }),
                        _ => *pipe = Pipe { names: file.names, input: None },
                    }
                }
                IoFileRedirectTarget::ProcessSubstitution(_, subshell) => {
                    *pipe = Pipe { names: self.process(subshell).names, input: None };
                }
                IoFileRedirectTarget::Duplicate(word) => {
                    // `>& name` writes to a file; `>& 2` and `>& -` do not.
                    let file = self.word(word);
                    if matches!(kind, IoFileRedirectKind::DuplicateOutput)
                        && file.value.starts_with(['/', HOME])
                    {
                        writes.push(Target { file, append: false });
                    }
                }
                IoFileRedirectTarget::Fd(_) => {}
            },
            IoRedirect::HereDocument(_, document) => {
                let text = &document.doc.value;
                let input = if document.requires_expansion {
                    let mut word = word::read_document(text, &self.variables);
                    self.substitutions(&mut word);
                    spell(&word)
                } else {
                    text.clone()
                };
                *pipe = Pipe { names: Vec::new(), input: Some(input) };
            }
            IoRedirect::HereString(_, word) => {
                let word = self.word(word);
                *pipe = Pipe { input: Some(spell(&word)), names: word.names };
            }
            IoRedirect::OutputAndError(word, append) => {
                let file = self.word(word);
                writes.push(Target { file, append: *append });
            }
        }
    }

    fn word(&mut self, word: &ast::Word) -> Word {
        let mut word = word::read(&word.value, &self.variables, self.careful);
        self.substitutions(&mut word);
        word
    }

    /// Judges what stands in substitutions, and notes the names of their commands.
    fn substitutions(&mut self, word: &mut Word) {
        let start = self.names.len();
        for text in std::mem::take(&mut word.substitutions) {
            let line = self.base + 1;
            self.text(&text, line);
        }
        word.names = self.names.get(start..).unwrap_or_default().to_vec();
    }
}

fn told(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(TEXT_CHARS).collect()
}
