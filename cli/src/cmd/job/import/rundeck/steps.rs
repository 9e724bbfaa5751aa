//! Commands of a sequence become steps.

use model::{command::Script, job::Step};

use super::{
    super::{
        names,
        shell::{self, Form, Met, Variable, Within},
        yaml::{Kind, Node},
    },
    Converter, flag,
};

/// Programs that read a text as a POSIX shell does.
const SHELLS: [&str; 7] = ["sh", "bash", "dash", "ash", "ksh", "mksh", "zsh"];
/// Descriptor on which an interpreter finds its script.
const SCRIPT_FD: &str = "/dev/fd/3";

/// What a step does, and what of it is not as it was.
#[derive(Debug, Default)]
struct Work {
    run: Option<String>,
    script: Option<Script>,
    /// Why it must not run as it stands.
    holes: Vec<String>,
}

impl Work {
    fn missing(why: String) -> Self {
        Self { holes: vec![why], ..Self::default() }
    }
}

impl Converter {
    /// The steps of a command: itself, and what handles its failure.
    pub(super) fn command(&mut self, node: &Node, field: &str, number: usize) -> Vec<Step> {
        if node.get("enabled").and_then(flag) == Some(false) {
            self.left_over(node.line, field, "the step is switched off", "add it if it is to run again");
            return Vec::new();
        }
        let described = node.get("description").and_then(Node::text).unwrap_or_default();
        let base = names::slug(described).unwrap_or_else(|| format!("step-{number}"));
        let mut step = self.step(node, field, &base);
        let Some(handler) = node.get("errorhandler").filter(|handler| !handler.is_empty()) else {
            return vec![step];
        };
        let mut handling = self.step(handler, &format!("{field}.errorhandler"), &format!("{base}-failed"));
        let failed = |state: &str| format!("steps[\"{}\"].state == \"{state}\"", step.name);
        handling.condition = Some(format!("{} or {}", failed("failed"), failed("timed_out")));
        handling.needs = Some(vec![step.name.clone()]);
        if handler.get("keepgoingOnSuccess").and_then(flag) == Some(true) {
            // Then what the handler comes to decides.
            step.on_failure = model::job::OnFailure::Continue;
        } else {
            handling.always = true;
        }
        vec![step, handling]
    }

    fn step(&mut self, node: &Node, field: &str, base: &str) -> Step {
        let name = names::unique(&mut self.step_names, base);
        let work = self.work(node, field);
        let mut step = Step { name, ..Step::default() };
        if work.holes.is_empty() {
            (step.run, step.script) = (work.run, work.script.map(Into::into));
        } else {
            step.run = Some(guarded(&work));
        }
        let text = step.run.as_deref().or(step.script.as_ref().and_then(|script| script.content.as_deref()));
        if text.is_some_and(shell::calls_sudo)
            || step
                .script
                .as_ref()
                .and_then(|script| script.interpreter.as_deref())
                .is_some_and(shell::calls_sudo)
        {
            self.changed(node.line, field, shell::SUDO, shell::NO_SUDO);
        }
        step
    }

    fn work(&mut self, node: &Node, field: &str) -> Work {
        if !matches!(node.kind, Kind::Map(_)) {
            self.left_over(node.line, field, "this is no command", "write the step by hand");
            return Work::missing(format!("{field} is no command"));
        }
        let text = |key: &str| node.get(key).and_then(Node::text);
        for (key, other) in node.entries() {
            match key.as_str() {
                "exec"
                | "script"
                | "scriptfile"
                | "scripturl"
                | "jobref"
                | "args"
                | "scriptargs"
                | "description"
                | "errorhandler"
                | "keepgoingOnSuccess"
                | "scriptInterpreter"
                | "interpreter"
                | "interpreterArgsQuoted"
                | "enabled"
                | "type"
                | "configuration"
                | "nodeStep" => {}
                "plugins" if other.entries().iter().all(|(_, plugin)| plugin.is_empty()) => {}
                "fileExtension" if !other.is_empty() => {
                    let problem =
                        format!("a script has no file whose name could end with '{}'", other.shown());
                    self.left_over(
                        other.line,
                        &format!("{field}.{key}"),
                        problem,
                        "nothing, if its interpreter is content",
                    );
                }
                _ if other.is_empty() || flag(other) == Some(false) => {}
                _ => self.unknown(other, &format!("{field}.{key}")),
            }
        }
        let missing =
            |what: &str, shown: &str| Work::missing(format!("{field}: {what} {shown}").trim().to_owned());
        if let Some(line) = text("exec") {
            return self.exec(node, line, &format!("{field}.exec"));
        }
        if let Some(content) = text("script") {
            return self.script(node, content, field);
        }
        for (key, problem, advice) in [
            ("scriptfile", "a file of Rundeck's server is not sent", "put its text into the step"),
            ("scripturl", "a script is not fetched", "put its text into the step"),
            ("jobref", "a job does not start another", "put the steps of that job in its place"),
        ] {
            if let Some(what) = node.get(key) {
                let args = text("args").or_else(|| text("scriptargs")).unwrap_or_default();
                let shown = format!("{} {args}", what.shown());
                self.left_over(
                    what.line,
                    &format!("{field}.{key}"),
                    format!("{problem}: {}", shown.trim()),
                    advice,
                );
                return missing(key, &shown);
            }
        }
        match text("type") {
            Some(plugin) => {
                let shown = node.get("configuration").map(Node::shown).unwrap_or_default();
                let problem = format!("plugins of Rundeck do not run here: {plugin} {shown}");
                self.left_over(
                    node.line,
                    &format!("{field}.type"),
                    problem,
                    "say what it does as a command or script",
                );
                missing("plugin", &format!("{plugin} {shown}"))
            }
            None => {
                self.left_over(
                    node.line,
                    field,
                    "it says nothing that is known here",
                    "write the step by hand",
                );
                missing("unknown", &node.shown())
            }
        }
    }

    fn exec(&mut self, node: &Node, line: &str, field: &str) -> Work {
        let mut work = Work::default();
        let text = self.shell_text(node, line, field, &mut work.holes);
        work.run = Some(text);
        work
    }

    fn script(&mut self, node: &Node, content: &str, field: &str) -> Work {
        let mut work = Work::default();
        let place = format!("{field}.script");
        let said = ["scriptInterpreter", "interpreter"].into_iter().find_map(|key| node.get(key)?.text());
        let said = said.map(str::trim).filter(|text| !text.is_empty());
        // It stands at the end anyway.
        let said = said.map(|text| text.trim_end_matches("${scriptfile}").trim_end());
        if let Some(interpreter) = said.filter(|text| text.contains("${") || text.contains(['\'', '"'])) {
            let problem = format!("'{interpreter}' is more than a program with its options");
            self.left_over(node.line, &format!("{field}.scriptInterpreter"), problem, "say it in the script");
            work.holes.push(format!("its interpreter is {interpreter}"));
        }
        let first = content.lines().next().and_then(|line| line.strip_prefix("#!")).map(str::trim);
        // A file without a first line that names one is read by the shell.
        let interpreter = said.or(first).unwrap_or("/bin/sh").to_owned();
        let content = if is_shell(&interpreter) {
            self.shell_text(node, content, &place, &mut work.holes)
        } else {
            self.foreign_text(node, content, &place, &mut work.holes)
        };
        let args =
            ["args", "scriptargs"].into_iter().find_map(|key| node.get(key)).filter(|args| !args.is_empty());
        if let Some(args) = args
            && node.get("interpreterArgsQuoted").and_then(flag) == Some(true)
        {
            let problem = "the script and its arguments were one word for the interpreter, and are several";
            self.left_over(
                args.line,
                &format!("{field}.interpreterArgsQuoted"),
                problem,
                "look how the interpreter takes them",
            );
            work.holes.push("its arguments were quoted together".to_owned());
        }
        let (content, words, is_wrapped) = match args {
            Some(args) => {
                self.with_args(args, content, &interpreter, &format!("{field}.args"), &mut work.holes)
            }
            None => (content, Vec::new(), false),
        };
        if words.is_empty() && content.starts_with("#!") && (said.is_none() || is_wrapped) {
            work.run = Some(content);
        } else {
            work.script = Some(Script {
                interpreter: (said.is_some() || first.is_none()).then_some(interpreter),
                content,
                args: words,
            });
        }
        work
    }

    /// The script with its arguments: beside it where they are known, else within it, where a shell fills them in. Also
    /// whether it has become one for a shell.
    fn with_args(
        &mut self,
        node: &Node,
        content: String,
        interpreter: &str,
        field: &str,
        holes: &mut Vec<String>,
    ) -> (String, Vec<String>, bool) {
        let text = node.shown();
        let Some(words) = words(&text) else {
            self.left_over(node.line, field, format!("a quote has no end: {text}"), "write them by hand");
            holes.push(format!("its arguments are {text}"));
            return (content, Vec::new(), false);
        };
        if shell::references(&text).is_empty() {
            return (content, words, false);
        }
        let mut line = Vec::new();
        for word in &words {
            line.push(self.argument(node, word, field, holes));
        }
        let line = line.join(" ");
        if is_shell(interpreter) {
            let (head, body) = match content.split_once('\n') {
                Some((first, body)) if first.starts_with("#!") => (format!("{first}\n"), body.to_owned()),
                _ => (String::new(), content),
            };
            let problem = "arguments with values are set at the beginning of the script";
            self.changed(node.line, field, problem, "nothing");
            return (format!("{head}set -- {line}\n{body}"), Vec::new(), false);
        }
        let problem = format!(
            "arguments with values are filled in by a shell, which hands the script to {interpreter} as {SCRIPT_FD}"
        );
        self.changed(node.line, field, problem, "look whether the script needs the name of its file");
        let end = ending(&content);
        let newline = if content.ends_with('\n') { "" } else { "\n" };
        let wrapped =
            format!("#!/bin/sh\nexec {interpreter} {SCRIPT_FD} {line} 3<<'{end}'\n{content}{newline}{end}\n");
        (wrapped, Vec::new(), true)
    }

    /// A word of a shell's line that is what the argument was.
    fn argument(&mut self, node: &Node, word: &str, field: &str, holes: &mut Vec<String>) -> String {
        let mut out = String::new();
        let mut plain = String::new();
        let mut at = 0;
        while let Some(c) = word[at..].chars().next() {
            let Some((length, inner)) = shell::reference_at(&word[at..]) else {
                plain.push(c);
                at += c.len_utf8();
                continue;
            };
            let reference = &word[at..at + length];
            let variable = inner.split_once('.').and_then(|(group, name)| {
                if matches!(group, "option" | "unquotedoption") { self.variable(name) } else { None }
            });
            match variable {
                Some(variable) => {
                    if !plain.is_empty() {
                        out.push_str(&shell::quoted(&std::mem::take(&mut plain)));
                    }
                    out.push_str(&variable.word());
                }
                None => {
                    self.nowhere(node, reference, field, holes);
                    plain.push_str(reference);
                }
            }
            at += length;
        }
        if !plain.is_empty() || out.is_empty() {
            out.push_str(&shell::quoted(&plain));
        }
        out
    }

    fn variable(&self, option: &str) -> Option<Variable> {
        self.options.get(option)?.variable.clone()
    }

    fn nowhere(&mut self, node: &Node, reference: &str, field: &str, holes: &mut Vec<String>) {
        let is_option = shell::option_at(reference).is_some();
        let (problem, advice) = if is_option {
            (
                format!("{reference} is of an option that is not carried over"),
                "say where its value comes from",
            )
        } else {
            (
                format!("{reference} is not filled in here"),
                "a step with template: true knows host.name and the like",
            )
        };
        self.left_over(node.line, field, problem, advice);
        holes.push(format!("{reference} has no value"));
    }

    /// A text for a shell, with variables in the place of options.
    fn shell_text(&mut self, node: &Node, text: &str, field: &str, holes: &mut Vec<String>) -> String {
        let (text, variables) = self.renamed(node, text, field, holes);
        let (rewritten, met) = shell::rewrite(&text, &|option| self.variable(option));
        self.tell_met(node, met, field, holes);
        let others: Vec<String> = shell::references(&text)
            .into_iter()
            .filter(|reference| shell::option_at(reference).is_none())
            .map(str::to_owned)
            .collect();
        for reference in others {
            self.nowhere(node, &reference, field, holes);
        }
        if !variables.is_empty() {
            let problem = format!("variables have other names: {}", variables.join(", "));
            self.changed(node.line, field, problem, "nothing");
        }
        rewritten
    }

    /// A text for another program: there only variables have other names.
    fn foreign_text(&mut self, node: &Node, text: &str, field: &str, holes: &mut Vec<String>) -> String {
        let (text, variables) = self.renamed(node, text, field, holes);
        // Between braces they are the program's own.
        let references: Vec<String> = shell::references(&text)
            .into_iter()
            .filter(|text| text.starts_with('@'))
            .map(str::to_owned)
            .collect();
        for reference in references {
            let known = shell::option_at(&reference).and_then(|(_, name)| self.variable(name));
            match known {
                Some(variable) => {
                    let problem = format!("{reference} would be read as code by a program that is no shell");
                    let advice = format!("let the script read {} of its environment", variable.name);
                    self.left_over(node.line, field, problem, &advice);
                    holes.push(format!("{reference} stands in its text"));
                }
                None => self.nowhere(node, &reference, field, holes),
            }
        }
        if !variables.is_empty() {
            let problem = format!("variables have other names: {}", variables.join(", "));
            self.changed(node.line, field, problem, "nothing");
        }
        text
    }

    /// `RD_OPTION_NAME` of the environment by the name that it has here; also what is `OLD is NEW` now.
    fn renamed(
        &mut self,
        node: &Node,
        text: &str,
        field: &str,
        holes: &mut Vec<String>,
    ) -> (String, Vec<String>) {
        let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let mut out = String::with_capacity(text.len());
        let mut told = Vec::new();
        let mut rest = text;
        while let Some(at) = rest.find("RD_") {
            let before = rest[..at].chars().next_back().or_else(|| out.chars().next_back());
            let end = rest[at..].find(|c| !is_name(c)).map_or(rest.len(), |length| at + length);
            out.push_str(&rest[..at]);
            let name = &rest[at..end];
            rest = &rest[end..];
            let is_ours = !before.is_some_and(is_name)
                && ["OPTION_", "JOB_", "NODE_", "GLOBALS_", "FILE_", "EXECUTION_", "DATA_"]
                    .iter()
                    .any(|group| name["RD_".len()..].starts_with(group));
            if !is_ours {
                out.push_str(name);
                continue;
            }
            let option = name.strip_prefix("RD_OPTION_").and_then(|option| {
                self.options
                    .iter()
                    .find(|(key, _)| variable_of(key) == option)
                    .map(|(_, known)| known.variable.clone())
            });
            match option {
                Some(Some(variable)) => {
                    out.push_str(&variable.name);
                    let note = format!("{name} is {}", variable.name);
                    if !told.contains(&note) {
                        if let Form::Joined(between) = variable.form
                            && between != '\n'
                        {
                            let problem = format!(
                                "{name} had '{between}' between values; {} has one on each line",
                                variable.name
                            );
                            self.left_over(node.line, field, problem, "look how the step takes them apart");
                            holes.push(format!("{} has its values on a line each", variable.name));
                        }
                        told.push(note);
                    }
                }
                Some(None) | None => {
                    out.push_str(name);
                    let hole = format!("{name} has no value");
                    if !holes.contains(&hole) {
                        let problem = format!("{name} is not in the environment of a step");
                        self.left_over(node.line, field, problem, "say where its value comes from");
                        holes.push(hole);
                    }
                }
            }
        }
        out.push_str(rest);
        (out, told)
    }

    /// Says what became of each reference, once for each way in which it stood.
    fn tell_met(&mut self, node: &Node, mut met: Vec<Met>, field: &str, holes: &mut Vec<String>) {
        met.sort_by(|a, b| (&a.reference, a.within).cmp(&(&b.reference, b.within)));
        met.dedup();
        for one in met {
            let reference = &one.reference;
            let name = shell::option_at(reference).and_then(|(_, name)| self.variable(name));
            let name = name.map(|variable| variable.name).unwrap_or_default();
            let (problem, advice) = match one.within {
                Within::Word => (
                    format!(
                        "{reference} is \"${name}\", which a shell takes as one word, also when it is empty"
                    ),
                    "nothing, unless its value was several words",
                ),
                Within::DoubleQuotes => {
                    (format!("{reference} stood in double quotes, and is ${{{name}}} in them"), "nothing")
                }
                Within::SingleQuotes => (
                    format!(
                        "{reference} stood in single quotes, which end before \"${name}\" and begin again behind it"
                    ),
                    "if what is in the quotes is code for another program, hand the value over as an argument of it",
                ),
                Within::HereDocument => (
                    format!("{reference} stood in a here-document, and is ${{{name}}} there"),
                    "nothing, unless that is code",
                ),
                Within::Arithmetic => (
                    format!("{reference} stood in arithmetic, and is ${{{name}}} there"),
                    "make the parameter an integer: some shells read other values as code",
                ),
                Within::Literal => (
                    format!("{reference} stands in a here-document in which a shell reads no variables"),
                    "take the quotes from its end, or hand the value over in another way",
                ),
                Within::Escaped => (format!("{reference} stands behind a backslash"), "write what is meant"),
                Within::Nowhere => {
                    self.nowhere(node, reference, field, holes);
                    continue;
                }
            };
            if one.is_replaced() {
                self.changed(node.line, field, problem, advice);
            } else {
                holes.push(problem.clone());
                self.left_over(node.line, field, problem, advice);
            }
        }
    }
}

/// What stands behind `RD_OPTION_` for an option.
fn variable_of(option: &str) -> String {
    option.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' }).collect()
}

fn is_shell(interpreter: &str) -> bool {
    interpreter.split_whitespace().any(|word| SHELLS.contains(&word.rsplit('/').next().unwrap_or(word)))
}

/// A script that fails and says why, and holds what there is of the step.
fn guarded(work: &Work) -> String {
    let why =
        shell::quoted(&format!("not carried over: {}", work.holes.join("; ").replace(char::is_control, " ")));
    let mut text = format!("#!/bin/sh\necho {why} >&2\nexit 1\n");
    let kept = work.run.as_deref().or(work.script.as_ref().map(|script| script.content.as_str()));
    if let Some(kept) = kept {
        let end = ending(kept);
        let script = work.script.as_ref();
        let with = script.and_then(|script| script.interpreter.as_deref());
        let with =
            with.map_or_else(String::new, |with| format!(", for {}", with.replace(char::is_control, " ")));
        let newline = if kept.ends_with('\n') { "" } else { "\n" };
        text.push_str(&format!(
            "# The step, as far as it could be carried over{with}:\n: <<'{end}'\n{kept}{newline}{end}\n"
        ));
        for arg in script.map(|script| script.args.as_slice()).unwrap_or_default() {
            text.push_str(&format!("# argument: {}\n", arg.replace(char::is_control, " ")));
        }
    }
    text
}

/// The end of a here-document that is no line of the text.
fn ending(text: &str) -> String {
    let mut end = "END_OF_SCRIPT".to_owned();
    while text.lines().any(|line| line == end) {
        end.push('_');
    }
    end
}

/// Words at blanks, quotes and backslashes as a shell has them; none where a quote has no end.
fn words(text: &str) -> Option<Vec<String>> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None | Some('"'), '\\') => word.get_or_insert_default().extend(chars.next()),
            (None, c) if c.is_whitespace() => words.extend(word.take()),
            _ => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    quote.is_none().then_some(words)
}
