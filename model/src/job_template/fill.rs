//! Puts values into their places.
//!
//! The filled job is written as JSON whose scalars are those of YAML, and read as any job; where that fails, what was being
//! written there says which part it was.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{
    Filled, below,
    placeholder::{Piece, pieces},
    written::{Source, quoted},
};
use crate::{
    Invalid,
    job::{Job, parse, yaml::reason},
    limits,
    yaml::{Node, Part, span},
};

pub(super) fn fill(
    document: &str,
    template: &Part,
    values: &BTreeMap<String, Value>,
) -> Result<Filled, Invalid> {
    let mut writer = Writer { values, source: Source::new(document), out: String::new(), places: Vec::new() };
    writer.part(template, Context::JOB, Step::Key(""), 0)?;
    let Writer { source, out, places, .. } = writer;
    let job: Job = serde_saphyr::from_str(&out).map_err(|error| unreadable(&error, &out, &places))?;
    job.validate()?;
    let is_meant = |text: &String| parse(text).is_ok_and(|read| read == job);
    let texts: [&dyn Fn() -> Option<String>; 3] = [
        &|| source.spliced(template),
        &|| serde_saphyr::to_string(&job).ok().map(|text| text.trim_end().to_owned() + "\n"),
        // It has a form for each text.
        &|| Some(serde_json::to_string_pretty(&job).ok()? + "\n"),
    ];
    match texts.iter().find_map(|text| text().filter(is_meant)) {
        Some(document) => Ok(Filled { job, document }),
        None => Err(over()),
    }
}

fn over() -> Invalid {
    Invalid::over("", "DOCUMENT_BYTES", limits::DOCUMENT_BYTES, "bytes when it is filled in")
}

/// How one gets from a part to one of its own.
#[derive(Clone, Copy)]
enum Step<'a> {
    Key(&'a str),
    Index(usize),
}

/// Where a part begins in what is written.
struct Place<'a> {
    at: usize,
    step: Step<'a>,
    /// Its place among the places; the first is its own.
    parent: usize,
}

/// Why what was written is no job, with the path of what is wrong.
fn unreadable(error: &serde_saphyr::Error, out: &str, places: &[Place<'_>]) -> Invalid {
    let at = error.location().and_then(|location| span(&location)).map_or(0, |span| span.start);
    // The last part that begins there or before.
    let here = places.partition_point(|place| place.at <= at).saturating_sub(1);
    match error.without_snippet() {
        serde_saphyr::Error::SerdeMissingField { field, .. } => {
            // It is told at the last key of the part that lacks it, or at the part itself where that is empty.
            let is_itself = out.as_bytes().get(at) == Some(&b'{');
            let here = if is_itself { here } else { places[here].parent };
            path(places, here, below(field, Invalid::new("", "is missing")))
        }
        _ => path(places, here, Invalid::new("", format!("cannot be read: {}", reason(error)))),
    }
}

/// What is wrong in a part, seen from the job.
fn path(places: &[Place<'_>], mut here: usize, mut invalid: Invalid) -> Invalid {
    while here > 0 {
        let Place { step, parent, .. } = &places[here];
        invalid = match step {
            Step::Key(key) => below(key, invalid),
            Step::Index(index) => below(&format!("[{index}]"), invalid),
        };
        here = *parent;
    }
    invalid
}

/// What a part is in a job.
#[derive(Clone, Copy)]
struct Context {
    kind: Kind,
    /// It belongs to a step that is a template itself.
    is_template: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Job,
    Steps,
    Step,
    Script,
    /// Another job that a step starts.
    Started,
    Targets,
    Rollout,
    Canary,
    /// A text that a shell or an interpreter reads.
    Program,
    Selector,
    Condition,
    Other,
}

impl Context {
    const JOB: Self = Self { kind: Kind::Job, is_template: false };

    fn of(self, step: Step<'_>, part: &Part) -> Self {
        let kind = match (self.kind, step) {
            (Kind::Job, Step::Key("steps" | "rollback")) => Kind::Steps,
            (Kind::Job | Kind::Started, Step::Key("targets")) => Kind::Targets,
            (Kind::Steps, Step::Index(_)) | (Kind::Canary, Step::Key("probe")) => Kind::Step,
            (Kind::Job, Step::Key("rollout")) => Kind::Rollout,
            (Kind::Rollout, Step::Key("canary")) => Kind::Canary,
            (Kind::Step, Step::Key("script")) => Kind::Script,
            (Kind::Step, Step::Key("job")) => Kind::Started,
            (Kind::Step, Step::Key("run")) | (Kind::Script, Step::Key("content")) => Kind::Program,
            (Kind::Step, Step::Key("if")) => Kind::Condition,
            (Kind::Targets, Step::Key("selector" | "exclude")) => Kind::Selector,
            _ => Kind::Other,
        };
        let template = || part.value.get("template").is_some_and(|part| !is_false(&part.value));
        Self { kind, is_template: self.is_template || (kind == Kind::Step && template()) }
    }

    /// Whether a text may stand here; `is_alone` when it is all that does.
    fn admits(self, name: &str, text: &str, is_alone: bool) -> Result<(), Invalid> {
        if self.is_template && ["{{", "{%", "{#"].iter().any(|sign| text.contains(sign)) {
            let why = format!(
                "takes '{name}', whose value would be a template of its step: it has '{{{{', '{{%' or '{{#'"
            );
            return Err(Invalid::new("", why));
        }
        // What means nothing in each language, and ends no word of it.
        let signs = match self.kind {
            Kind::Program => "_./:@%+,-",
            Kind::Selector => "_./:@-",
            Kind::Condition => "_-",
            _ => return Ok(()),
        };
        let harmless = |c: char| c.is_alphanumeric() || signs.contains(c);
        if !is_alone && (text.starts_with('-') || !text.chars().all(harmless)) {
            let each: Vec<String> = signs.chars().map(String::from).collect();
            let why = format!(
                "takes '{name}', whose value would become part of what is executed or asked here: that may have only letters, \
                 digits and any of {} and no - first. A step gets any text by its env: VAR: ${{{{ {name} }}}}, and \
                 \"$VAR\" in its script",
                each.join(" ")
            );
            return Err(Invalid::new("", why));
        }
        Ok(())
    }
}

fn is_false(node: &Node) -> bool {
    matches!(node, Node::Value(text) if text == "false")
}

struct Writer<'a> {
    values: &'a BTreeMap<String, Value>,
    source: Source<'a>,
    out: String,
    /// In the order of what is written.
    places: Vec<Place<'a>>,
}

impl<'a> Writer<'a> {
    fn part(
        &mut self,
        part: &'a Part,
        context: Context,
        step: Step<'a>,
        parent: usize,
    ) -> Result<(), Invalid> {
        let here = self.places.len();
        self.places.push(Place { at: self.out.len(), step, parent });
        if let Step::Key(key) = step
            && here > 0
        {
            self.out.push_str(&quoted(key));
            self.out.push_str(": ");
        }
        match &part.value {
            Node::Map(entries) => {
                self.out.push('{');
                for (key, value) in entries {
                    let key = Step::Key(&key.value);
                    self.inner(value, context, key, here)?;
                }
                self.out.push('}');
            }
            Node::List(items) => {
                self.out.push('[');
                for (index, item) in items.iter().enumerate() {
                    self.inner(item, context, Step::Index(index), here)?;
                }
                self.out.push(']');
            }
            Node::Text(text) => self.text(part, text, context)?,
            Node::Value(text) => {
                let as_written = self.source.scalar(part);
                self.out.push_str(as_written.unwrap_or(text));
            }
            Node::Null => self.out.push_str("null"),
        }
        if self.out.len() > limits::DOCUMENT_BYTES { Err(over()) } else { Ok(()) }
    }

    /// A part of another, with a comma behind it; nothing where it stands for a value that is not there.
    fn inner(
        &mut self,
        part: &'a Part,
        context: Context,
        step: Step<'a>,
        parent: usize,
    ) -> Result<(), Invalid> {
        let path = |invalid| match step {
            Step::Key(key) => below(key, invalid),
            Step::Index(index) => below(&format!("[{index}]"), invalid),
        };
        if let Node::Text(text) = &part.value
            && let Ok([Piece::Name(name)]) = pieces(text).as_deref()
            && !self.values.contains_key(*name)
        {
            self.source.leave_out();
            return Ok(());
        }
        self.part(part, context.of(step, part), step, parent).map_err(path)?;
        // Lines, so that nothing has to look far ahead.
        self.out.push_str(",\n");
        Ok(())
    }

    fn text(&mut self, part: &Part, text: &str, context: Context) -> Result<(), Invalid> {
        let pieces = pieces(text).map_err(|why| Invalid::new("", why))?;
        if let [Piece::Name(name)] = pieces.as_slice()
            && let Some(value) = self.values.get(*name)
        {
            for text in texts(value) {
                context.admits(name, text, true)?;
            }
            let json = json(value);
            self.source.replace(part, json.clone(), value.as_str());
            self.out.push_str(&json);
            return Ok(());
        }
        let mut filled = String::new();
        for piece in &pieces {
            match piece {
                Piece::Text(text) => filled.push_str(text),
                Piece::Name(name) => filled.push_str(&self.scalar(name, context)?),
            }
            if filled.len() > limits::DOCUMENT_BYTES {
                return Err(over());
            }
        }
        let json = quoted(&filled);
        if filled != text {
            self.source.replace(part, json.clone(), Some(&filled));
        }
        self.out.push_str(&json);
        Ok(())
    }

    /// A value as a piece of a longer text.
    fn scalar(&self, name: &str, context: Context) -> Result<String, Invalid> {
        match self.values.get(name) {
            Some(Value::String(text)) => {
                context.admits(name, text, false)?;
                Ok(text.clone())
            }
            Some(Value::Array(_) | Value::Object(_)) => Err(Invalid::new(
                "",
                format!("has '{name}' within a longer text, and it is a list, which stands alone"),
            )),
            Some(value) => Ok(value.to_string()),
            None => {
                let why = format!(
                    "has '{name}' within a longer text, and it has no value: give it one, or a default"
                );
                Err(Invalid::new("", why))
            }
        }
    }
}

fn texts(value: &Value) -> Vec<&str> {
    match value {
        Value::String(text) => vec![text],
        Value::Array(items) => items.iter().flat_map(texts).collect(),
        _ => Vec::new(),
    }
}

fn json(value: &Value) -> String {
    match value {
        Value::String(text) => quoted(text),
        Value::Array(items) => format!("[{}]", items.iter().map(json).collect::<Vec<_>>().join(", ")),
        other => other.to_string(),
    }
}
