//! Templates: text with `{{ value }}`, `{% if … %}`, `{% for … %}` and `{!-- comments --!}`.
//!
//! Invariants:
//!
//! 1. A value never becomes code. With [`Quote::Shell`] each is a quoted word of its own, unless its author wrote
//!    `| raw`; a tag may therefore only stand where the shell is in no quotes, and [`render`] itself refuses others.
//! 2. What is not defined is an error, never an empty text.
//! 3. The engine's work, its output and its recursion are bounded, whatever the text: filters that could multiply
//!    data, the operator `*`, and every statement but `if` and `for` are absent.
//!
//! A value is quoted for the shell that reads the line. What `eval`, `ssh` or `sh -c` does with the word after that is
//! the author's care, as it is with any variable.

mod shell;
mod tags;

use std::collections::{BTreeSet, HashSet};

use minijinja::{
    Environment, Error, ErrorKind, Output, State, UndefinedBehavior, Value, syntax::SyntaxConfig,
    value::ValueKind,
};

use super::context::{Context, Names};
use crate::{Invalid, limits};

pub(super) use tags::check_expression;

/// How values are written into the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quote {
    /// As words of a POSIX shell: texts in single quotes, numbers and booleans plain, lists as one word an item.
    Shell,
    /// As they are: for arguments and variables, where nothing splits them.
    None,
    /// Percent-encoded (RFC 3986, 2.1), all but letters, digits and `-._~`: as a part of an address that no value leaves.
    Url,
}

/// Renders a text.
///
/// # Errors
/// What [`check_template`] finds but unknown names; a value that is not defined, none, or of a kind that cannot be
/// written here; a limit of `limits::TEMPLATE_…`. The field is `field`.
pub fn render(field: &str, text: &str, context: &Context, quote: Quote) -> Result<String, Invalid> {
    render_bound(field, text, &bind(context), quote)
}

/// A context as the engine reads it: made once, for many texts.
#[derive(Debug)]
pub struct Bound(Value);

pub fn bind(context: &Context) -> Bound {
    Bound(Value::from(minijinja::value::Serde(context)))
}

/// Whether anything of the text is filled in.
pub fn has_tags(text: &str) -> bool {
    text.contains("{{") || text.contains("{%") || text.contains(tags::COMMENT.0)
}

/// As [`render`].
///
/// # Errors
/// As [`render`].
pub fn render_bound(field: &str, text: &str, context: &Bound, quote: Quote) -> Result<String, Invalid> {
    check_form(field, text, quote)?;
    if !has_tags(text) {
        return Ok(text.to_owned());
    }
    let mut engine = engine(field)?;
    engine.set_formatter(move |out: &mut Output<'_>, _: &mut State<'_, '_>, value: &Value| {
        write_value(out, value, quote)
    });
    let context = &context.0;
    let template = engine.template_from_str(text).map_err(|error| translate(field, &error))?;
    let mut out = Bounded(Vec::new());
    if let Err(error) = template.render_captured_to(context.clone(), &mut out) {
        if error.kind() == ErrorKind::WriteFailure {
            return Err(Invalid::over(
                field,
                "TEMPLATE_BYTES",
                limits::TEMPLATE_BYTES,
                "bytes when rendered",
            ));
        }
        let names = || template.undeclared_variables(true);
        return Err(translate_undefined(field, &error, context, names));
    }
    String::from_utf8(out.0).map_err(|_| Invalid::new(field, "renders to what is not UTF-8"))
}

/// Checks a text before it is stored: its form, the places of its tags, and the names it uses.
///
/// # Errors
/// The first thing that is wrong, with line and column where they are known.
pub fn check_template(field: &str, text: &str, quote: Quote, names: &Names) -> Result<(), Invalid> {
    check_form(field, text, quote)?;
    for path in &used(field, text)? {
        let place = tags::find(text, path).map(|at| format!(" ({})", place(text, at))).unwrap_or_default();
        names.check(field, path, &place)?;
    }
    Ok(())
}

/// The dotted paths that a text reads, sorted.
///
/// # Errors
/// When it cannot be read.
pub fn used(field: &str, text: &str) -> Result<BTreeSet<String>, Invalid> {
    check_form(field, text, Quote::None)?;
    let engine = engine(field)?;
    let template = engine.template_from_str(text).map_err(|error| translate(field, &error))?;
    Ok(template.undeclared_variables(true).into_iter().collect())
}

fn check_form(field: &str, text: &str, quote: Quote) -> Result<(), Invalid> {
    if text.len() > limits::TEMPLATE_BYTES {
        return Err(Invalid::over(field, "TEMPLATE_BYTES", limits::TEMPLATE_BYTES, "bytes"));
    }
    let refuse =
        |(at, problem): (usize, String)| Invalid::new(field, format!("{problem} ({})", place(text, at)));
    let pieces = tags::split(text).map_err(refuse)?;
    tags::check(&pieces).map_err(refuse)?;
    if quote == Quote::Shell { shell::check(&pieces).map_err(refuse) } else { Ok(()) }
}

/// `line 3, column 7`, both from 1, in characters.
fn place(text: &str, at: usize) -> String {
    let before = text.get(..at).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    format!("line {line}, column {column}")
}

/// The engine of templates and conditions, with nothing in it that reads or loads, and no filter that multiplies data.
pub(super) fn engine(field: &str) -> Result<Environment<'static>, Invalid> {
    let mut engine = Environment::empty();
    let syntax = SyntaxConfig::builder()
        .comment_delimiters(tags::COMMENT.0, tags::COMMENT.1)
        .keep_trailing_newline(true)
        .build()
        .map_err(|_| Invalid::new(field, "cannot be read: the template engine has no syntax"))?;
    engine.set_syntax(syntax);
    engine.set_undefined_behavior(UndefinedBehavior::Strict);
    engine.set_fuel(Some(limits::TEMPLATE_FUEL));
    engine.set_recursion_limit(2 * limits::TEMPLATE_DEPTH);
    engine.add_function("range", range);
    engine.add_filter("raw", |value: String| Value::from_safe_string(value));
    engine
        .add_filter("default", |value: Value, other: Value| if value.is_undefined() { other } else { value });
    engine.add_filter("lower", |value: String| bounded(value.to_lowercase()));
    engine.add_filter("upper", |value: String| bounded(value.to_uppercase()));
    engine.add_filter("trim", |value: String| value.trim().to_owned());
    engine.add_filter("length", minijinja::filters::length);
    engine.add_filter("first", minijinja::filters::first);
    engine.add_filter("string", |value: Value| {
        let mut out = Bounded(Vec::new());
        let text: &dyn std::fmt::Display =
            if value.kind() == ValueKind::Bool { &value.is_true() } else { &value };
        std::io::Write::write_fmt(&mut out, format_args!("{text}")).map_err(|_| too_much())?;
        Ok(String::from_utf8(out.0).unwrap_or_default())
    });
    engine.add_filter("join", join);
    engine.add_filter("tojson", |value: Value| {
        let mut out = Bounded(Vec::new());
        match serde_json::to_writer(&mut out, &value) {
            Ok(()) => Ok(String::from_utf8(out.0).unwrap_or_default()),
            Err(error) if error.is_io() => Err(too_much()),
            Err(_) => Err(Error::new(ErrorKind::BadSerialization, "is not JSON")),
        }
    });
    engine.add_test("defined", |value: Value| !value.is_undefined());
    engine.add_test("none", |value: Value| value.is_none());
    Ok(engine)
}

/// A filter's text. Escaping doubles what it escapes, and filters come in rows.
fn bounded(text: String) -> Result<String, Error> {
    if text.len() > limits::TEMPLATE_BYTES { Err(too_much()) } else { Ok(text) }
}

fn too_much() -> Error {
    let problem = format!("a filter makes more than TEMPLATE_BYTES of {} bytes", limits::TEMPLATE_BYTES);
    Error::new(ErrorKind::OutOfFuel, problem)
}

fn range(low: i64, high: Option<i64>) -> Result<Value, Error> {
    let (low, high) = high.map_or((0, low), |high| (low, high));
    if high.saturating_sub(low) > limits::TEMPLATE_RANGE {
        let problem =
            format!("a range is over the limit TEMPLATE_RANGE of {} numbers", limits::TEMPLATE_RANGE);
        return Err(Error::new(ErrorKind::OutOfFuel, problem));
    }
    Ok(Value::from_iter(low..high))
}

fn join(value: &Value, between: Option<String>) -> Result<String, Error> {
    if value.kind() == ValueKind::String {
        return Err(Error::new(ErrorKind::InvalidOperation, "join is for lists"));
    }
    let between = between.unwrap_or_default();
    let mut joined = String::new();
    for (index, item) in value.try_iter()?.enumerate() {
        if index > 0 {
            joined.push_str(&between);
        }
        joined.push_str(&plain(&item));
        if joined.len() > limits::TEMPLATE_BYTES {
            return Err(Error::new(ErrorKind::OutOfFuel, "join makes more than TEMPLATE_BYTES"));
        }
    }
    Ok(joined)
}

/// A value as text; booleans are `true` and `false`, which the engine writes as Python does.
fn plain(value: &Value) -> String {
    match value.kind() {
        ValueKind::Bool => value.is_true().to_string(),
        _ => value.to_string(),
    }
}

fn write_value(out: &mut Output<'_>, value: &Value, quote: Quote) -> Result<(), Error> {
    use std::fmt::Write;
    let failed = |_| Error::from(ErrorKind::WriteFailure);
    if let (true, Some(text)) = (value.is_safe(), value.as_str()) {
        return out.write_str(text).map_err(failed);
    }
    let refuse = |what: &str| Err(Error::new(ErrorKind::InvalidOperation, what.to_owned()));
    match (value.kind(), quote) {
        (ValueKind::Undefined, _) => Err(Error::from(ErrorKind::UndefinedError)),
        (ValueKind::None, _) => refuse("a value is none; write `{% if x is not none %}` around it"),
        (ValueKind::Bool | ValueKind::Number, _) | (ValueKind::String, Quote::None) => {
            out.write_str(&plain(value)).map_err(failed)
        }
        (ValueKind::String, Quote::Shell) => write_word(out, value),
        (ValueKind::String, Quote::Url) => {
            for byte in value.as_str().unwrap_or_default().bytes() {
                if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
                    out.write_char(char::from(byte)).map_err(failed)?;
                } else {
                    write!(out, "%{byte:02X}").map_err(failed)?;
                }
            }
            Ok(())
        }
        (ValueKind::Seq | ValueKind::Iterable, Quote::Shell) => {
            for (index, item) in value.try_iter()?.enumerate() {
                if index > 0 {
                    out.write_char(' ').map_err(failed)?;
                }
                match item.kind() {
                    ValueKind::Bool | ValueKind::Number => out.write_str(&plain(&item)).map_err(failed)?,
                    ValueKind::String => write_word(out, &item)?,
                    _ => return refuse("an item of a list is no text; write `| tojson`"),
                }
            }
            Ok(())
        }
        (ValueKind::Seq | ValueKind::Iterable, Quote::None | Quote::Url) => {
            refuse("a list stands where one text does; write `| join(',')` or `| tojson`")
        }
        _ => refuse("a value is no text, number, boolean or list; write `| tojson`"),
    }
}

/// Single quotes keep every byte but a single quote, which stands outside of them behind a backslash (POSIX.1-2017,
/// Shell Command Language, 2.2).
fn write_word(out: &mut Output<'_>, value: &Value) -> Result<(), Error> {
    let text = value.as_str().unwrap_or_default();
    if text.contains('\0') {
        return Err(Error::new(ErrorKind::InvalidOperation, "a value contains a NUL character"));
    }
    write!(out, "'{}'", text.replace('\'', r"'\''")).map_err(|_| Error::from(ErrorKind::WriteFailure))
}

/// What is rendered, up to its limit.
struct Bounded(Vec<u8>);

impl std::io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if self.0.len() + bytes.len() > limits::TEMPLATE_BYTES {
            return Err(std::io::ErrorKind::FileTooLarge.into());
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Our error for one of the engine's.
pub(super) fn translate(field: &str, error: &Error) -> Invalid {
    let place = error.line().map(|line| format!(" (line {line})")).unwrap_or_default();
    let problem = match error.kind() {
        ErrorKind::OutOfFuel => match error.detail() {
            Some(detail) => detail.to_owned(),
            None => format!("is over the limit TEMPLATE_FUEL of {} instructions", limits::TEMPLATE_FUEL),
        },
        ErrorKind::SyntaxError => format!(
            "is not a template: {}; text that only looks like one stands between {{% raw %}} and {{% endraw %}}",
            error.detail().unwrap_or("syntax error")
        ),
        kind => error.detail().map_or_else(
            || format!("cannot be evaluated: {kind}"),
            |detail| format!("cannot be evaluated: {detail}"),
        ),
    };
    Invalid::new(field, format!("{problem}{place}"))
}

/// As [`translate`]; of what is not defined it says the name, found by looking each used path up.
pub(super) fn translate_undefined(
    field: &str,
    error: &Error,
    context: &Value,
    used: impl FnOnce() -> HashSet<String>,
) -> Invalid {
    let plain = translate(field, error);
    if error.kind() != ErrorKind::UndefinedError {
        return plain;
    }
    let missing = |path: &String| {
        let mut value = context.clone();
        path.as_str() != "range"
            && path.split('.').any(|part| {
                value = value.get_attr(part).unwrap_or_default();
                value.is_undefined()
            })
    };
    let names: BTreeSet<String> = used().into_iter().filter(missing).collect();
    match names.first() {
        Some(name) => Invalid::new(field, format!("uses '{name}', which has no value here")),
        None => plain,
    }
}

#[cfg(test)]
mod tests;
