//! The typed parameters of a job: their definitions, and the values that an execution is given.
//!
//! Invariants:
//!
//! 1. What [`resolve`] returns satisfies every definition; a value is never converted on the way, except by
//!    [`from_text`] for those who only have text.
//! 2. A parameter whose `depends_on` does not hold has no value at all.
//!
//! Absent on purpose: secrets and files, which need a store of their own.

use std::collections::BTreeMap;

use regex::{Regex, RegexBuilder};
use serde::{Deserialize, Serialize};
use serde_json::{Number, Value};

use crate::{Invalid, limits, selector::Selector};

/// What the variables begin with in which steps find the values.
pub(super) const VARIABLES: &str = "OPSC_PARAM";

/// The type of a parameter's value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ParameterType {
    String,
    /// A whole number of 64 bits.
    Integer,
    /// A finite number.
    Number,
    Boolean,
    /// One of `choices`.
    Choice,
    /// A list of texts.
    List,
    /// The text of a target selector.
    Selector,
    /// Known, not available yet.
    Secret,
    /// Known, not available yet.
    File,
}

/// One parameter's definition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Parameter {
    #[serde(rename = "type")]
    pub kind: ParameterType,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Nothing starts without a value, given or the default.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub required: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub default: Option<Value>,
    /// A regular expression that the whole text matches; of a list, each item.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pattern: Option<String>,
    /// Smallest and largest number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<f64>)]
    pub minimum: Option<Number>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<f64>)]
    pub maximum: Option<Number>,
    /// Fewest and most characters of a text, items of a list.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_length: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_length: Option<u64>,
    /// The texts of a choice.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub choices: Vec<String>,
    /// The texts that a list may have; any when empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub items: Vec<String>,
    /// Other parameters with the values under which this one is asked for: all of them hold, each with one of its
    /// values.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schema(value_type = Object)]
    pub depends_on: BTreeMap<String, OneOrMany>,
}

/// A value, or several of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum OneOrMany {
    Many(Vec<Value>),
    One(Value),
}

impl OneOrMany {
    fn values(&self) -> &[Value] {
        match self {
            Self::Many(values) => values,
            Self::One(value) => std::slice::from_ref(value),
        }
    }
}

/// The definitions of a job's parameters, by name.
pub type Parameters = BTreeMap<String, Parameter>;

/// The values of an execution's parameters, by name; those that nobody gave and that have no default are absent.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Values(pub BTreeMap<String, Value>);

impl Values {
    /// Variables for a run: `OPSC_PARAM_NAME` for each value (the items of a list on a line each), and all of them as
    /// one JSON object in `OPSC_PARAMS`, which alone tells an item with a line break from two items.
    pub fn environment(&self) -> BTreeMap<String, String> {
        let mut variables: BTreeMap<String, String> = self
            .0
            .iter()
            .map(|(name, value)| (format!("{VARIABLES}_{}", name.to_ascii_uppercase()), plain(value)))
            .collect();
        let object = serde_json::to_string(&self.0).unwrap_or_default();
        variables.insert(format!("{VARIABLES}S"), object);
        variables
    }
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(plain).collect::<Vec<_>>().join("\n"),
        other => other.to_string(),
    }
}

/// The field of an error about this parameter.
fn field(name: &str) -> String {
    let shown: String = name.chars().filter(|c| !c.is_control()).take(limits::PARAMETER_NAME_CHARS).collect();
    format!("parameters.{shown}")
}

/// Checks the definitions of a job.
///
/// # Errors
/// The first definition that is wrong, as `parameters.NAME`.
pub fn validate_all(definitions: &Parameters) -> Result<(), Invalid> {
    if definitions.len() > limits::PARAMETERS {
        return Err(Invalid::over("parameters", "PARAMETERS", limits::PARAMETERS, "parameters"));
    }
    for (name, parameter) in definitions {
        validate_name(name)?;
        parameter.validate(&field(name))?;
    }
    for (name, parameter) in definitions {
        validate_depends_on(&field(name), parameter, definitions)?;
    }
    match order(definitions) {
        Ok(_) => Ok(()),
        Err(name) => Err(Invalid::new(field(name), "depends on itself by way of depends_on")),
    }
}

fn validate_name(name: &str) -> Result<(), Invalid> {
    if name.len() > limits::PARAMETER_NAME_CHARS {
        let limit = limits::PARAMETER_NAME_CHARS;
        return Err(Invalid::over(field(name), "PARAMETER_NAME_CHARS", limit, "characters"));
    }
    let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    if !name.starts_with(|c: char| c.is_ascii_lowercase()) || !name.chars().all(good) {
        let problem = "is not a parameter's name (a small letter, then small letters, digits and '_')";
        return Err(Invalid::new(field(name), problem));
    }
    Ok(())
}

fn validate_depends_on(field: &str, parameter: &Parameter, all: &Parameters) -> Result<(), Invalid> {
    for (other, wanted) in &parameter.depends_on {
        let Some(definition) = all.get(other) else {
            let problem = format!("depends on '{other}', which is not a parameter{}", suggestion(other, all));
            return Err(Invalid::new(field, problem));
        };
        if definition.kind == ParameterType::List {
            return Err(Invalid::new(field, format!("depends on '{other}', which is a list")));
        }
        let values = wanted.values();
        if values.is_empty() || values.len() > limits::PARAMETER_CHOICES {
            let problem =
                format!("depends on '{other}' with no value, or over {}", limits::PARAMETER_CHOICES);
            return Err(Invalid::new(field, problem));
        }
        let pattern = definition.regex(field)?;
        for value in values {
            definition.check(field, value, pattern.as_ref()).map_err(|wrong| {
                let problem = format!("depends on a value that '{other}' cannot have: it {}", wrong.problem);
                Invalid::new(field, problem)
            })?;
        }
    }
    Ok(())
}

/// The names, each behind those that it depends on; or one that is part of a cycle or behind one.
fn order(definitions: &Parameters) -> Result<Vec<&str>, &str> {
    let mut done: Vec<&str> = Vec::new();
    while done.len() < definitions.len() {
        let mut left = definitions.iter().filter(|(name, _)| !done.contains(&name.as_str())).peekable();
        let first = left.peek().map_or("", |(name, _)| name.as_str());
        let next = left.find(|(_, parameter)| {
            let ready = |other: &String| done.contains(&other.as_str()) || !definitions.contains_key(other);
            parameter.depends_on.keys().all(ready)
        });
        match next {
            Some((name, _)) => done.push(name),
            None => return Err(first),
        }
    }
    Ok(done)
}

/// The values of an execution: what was given, and the defaults of the rest.
///
/// # Errors
/// A definition that is wrong, a name that is not known, a value that is missing or that its definition refuses, as
/// `parameters.NAME`.
pub fn resolve(definitions: &Parameters, given: &BTreeMap<String, Value>) -> Result<Values, Invalid> {
    validate_all(definitions)?;
    if let Some(name) = given.keys().find(|name| !definitions.contains_key(*name)) {
        let problem = format!("is not a parameter of this job{}", suggestion(name, definitions));
        return Err(Invalid::new(field(name), problem));
    }
    let names = order(definitions).map_err(|name| Invalid::new(field(name), "depends on itself"))?;
    let mut values: BTreeMap<String, Value> = BTreeMap::new();
    for name in names {
        let Some(parameter) = definitions.get(name) else { continue };
        let field = field(name);
        let holds = |(other, wanted): (&String, &OneOrMany)| {
            values.get(other).is_some_and(|value| wanted.values().iter().any(|one| same(one, value)))
        };
        if !parameter.depends_on.iter().all(holds) {
            if given.contains_key(name) {
                let others: Vec<_> = parameter.depends_on.keys().map(String::as_str).collect();
                let problem = format!("is not asked for with this value of {}", others.join(", "));
                return Err(Invalid::new(field, problem));
            }
            continue;
        }
        match given.get(name).or(parameter.default.as_ref()) {
            Some(value) => {
                parameter.check(&field, value, parameter.regex(&field)?.as_ref())?;
                values.insert(name.to_owned(), normal(value));
            }
            None if parameter.required => return Err(Invalid::new(field, "is required")),
            None => {}
        }
    }
    let bytes = serde_json::to_string(&values).map_or(usize::MAX, |json| json.len());
    if bytes > limits::PARAMETERS_BYTES {
        return Err(Invalid::over("parameters", "PARAMETERS_BYTES", limits::PARAMETERS_BYTES, "bytes"));
    }
    Ok(Values(values))
}

/// A whole number that stands as a fraction becomes one that is written without it, and -0.0 becomes 0: in this form a value
/// comes back from the database as it was, to the digit, and what was signed of it holds.
pub(super) fn normal(value: &Value) -> Value {
    let Value::Number(number) = value else { return value.clone() };
    let Some(double) = number.as_f64().filter(|double| number.is_f64() && double.fract() == 0.0) else {
        return value.clone();
    };
    // 2^63 and 2^64: what is beyond is no integer in JSON either.
    const I64_END: f64 = 9_223_372_036_854_775_808.0;
    const U64_END: f64 = 18_446_744_073_709_551_616.0;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "it is whole, and within the type"
    )]
    if double.abs() < I64_END {
        Value::from(double as i64)
    } else if double > 0.0 && double < U64_END {
        Value::from(double as u64)
    } else {
        value.clone()
    }
}

/// The same of all numbers within.
pub(super) fn normal_within(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(normal_within),
        Value::Object(map) => map.values_mut().for_each(normal_within),
        other => *other = normal(other),
    }
}

/// Equal, numbers by what they are worth: 1 is 1.0.
fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => compare(a, b).is_some_and(std::cmp::Ordering::is_eq),
        _ => a == b,
    }
}

fn compare(a: &Number, b: &Number) -> Option<std::cmp::Ordering> {
    match (a.as_i64(), b.as_i64()) {
        (Some(a), Some(b)) => Some(a.cmp(&b)),
        _ => a.as_f64()?.partial_cmp(&b.as_f64()?),
    }
}

/// Reads a value from text, as a command line gives it. A list is a JSON array, or else its items separated by
/// commas. The result is not checked against the definition; [`resolve`] does.
///
/// # Errors
/// The text is not of the type; the field is `parameters`, the caller knows the name.
pub fn from_text(parameter: &Parameter, text: &str) -> Result<Value, Invalid> {
    let wrong = |what: &str| Invalid::new("parameters", format!("has a value that is not {what}"));
    match parameter.kind {
        ParameterType::Integer => {
            text.parse::<i64>().map(Value::from).map_err(|_| wrong("a whole number of 64 bits"))
        }
        ParameterType::Number => {
            if let Ok(whole) = text.parse::<i64>() {
                return Ok(Value::from(whole));
            }
            let number = text.parse::<f64>().ok().and_then(Number::from_f64);
            number.map(Value::Number).ok_or_else(|| wrong("a finite number"))
        }
        ParameterType::Boolean => text.parse::<bool>().map(Value::Bool).map_err(|_| wrong("true or false")),
        ParameterType::List if text.trim_start().starts_with('[') => {
            let items = serde_json::from_str::<Vec<String>>(text);
            items.map(Value::from).map_err(|_| wrong("a JSON array of texts"))
        }
        ParameterType::List if text.is_empty() => Ok(Value::Array(Vec::new())),
        ParameterType::List => Ok(Value::from(text.split(',').collect::<Vec<_>>())),
        _ => Ok(Value::from(text)),
    }
}

impl Parameter {
    /// A parameter of this type with nothing else said.
    pub const fn new(kind: ParameterType) -> Self {
        Self {
            kind,
            description: None,
            required: false,
            default: None,
            pattern: None,
            minimum: None,
            maximum: None,
            min_length: None,
            max_length: None,
            choices: Vec::new(),
            items: Vec::new(),
            depends_on: BTreeMap::new(),
        }
    }

    fn validate(&self, field: &str) -> Result<(), Invalid> {
        use ParameterType as T;
        let refuse = |problem: &str| Err(Invalid::new(field, problem));
        if matches!(self.kind, T::Secret | T::File) {
            return refuse("has a type that is not available yet");
        }
        if (self.minimum.is_some() || self.maximum.is_some()) && !matches!(self.kind, T::Integer | T::Number)
        {
            return refuse("has a minimum or maximum, which only an integer or a number has");
        }
        let has_length = self.min_length.is_some() || self.max_length.is_some();
        if has_length && !matches!(self.kind, T::String | T::List) {
            return refuse("has min_length or max_length, which only a string or a list has");
        }
        if self.pattern.is_some() && !matches!(self.kind, T::String | T::List) {
            return refuse("has a pattern, which only a string or a list has");
        }
        if (self.kind == T::Choice) == self.choices.is_empty() {
            return refuse("has choices if and only if its type is choice");
        }
        if self.kind != T::List && !self.items.is_empty() {
            return refuse("has items, which only a list has");
        }
        for texts in [&self.choices, &self.items] {
            if texts.len() > limits::PARAMETER_CHOICES {
                let limit = limits::PARAMETER_CHOICES;
                return Err(Invalid::over(field, "PARAMETER_CHOICES", limit, "choices"));
            }
            if (1..texts.len()).any(|at| texts[..at].contains(&texts[at])) {
                return refuse("has the same choice twice");
            }
        }
        if let (Some(low), Some(high)) = (&self.minimum, &self.maximum)
            && compare(low, high).is_none_or(std::cmp::Ordering::is_gt)
        {
            return refuse("has a minimum above its maximum");
        }
        if let (Some(low), Some(high)) = (self.min_length, self.max_length)
            && low > high
        {
            return refuse("has a min_length above its max_length");
        }
        let pattern = self.regex(field)?;
        match &self.default {
            Some(default) => self.check(field, default, pattern.as_ref()).map_err(|wrong| {
                Invalid::new(
                    field,
                    format!("has a default that its definition refuses: it {}", wrong.problem),
                )
            }),
            None => Ok(()),
        }
    }

    fn regex(&self, field: &str) -> Result<Option<Regex>, Invalid> {
        let Some(pattern) = &self.pattern else { return Ok(None) };
        if pattern.len() > limits::PATTERN_BYTES {
            return Err(Invalid::over(field, "PATTERN_BYTES", limits::PATTERN_BYTES, "bytes"));
        }
        let compile = |text: &str| {
            let limit = limits::PARAMETER_PATTERN_BYTES;
            RegexBuilder::new(text).size_limit(limit).dfa_size_limit(limit).build().map_err(|_| {
                let problem = "has a pattern that is not a regular expression, or too large a one";
                Invalid::new(field, problem)
            })
        };
        // By itself first: brackets that close the group around it are an error.
        compile(pattern)?;
        compile(&format!(r"\A(?:{pattern})\z")).map(Some)
    }

    /// Whether a value fits; `pattern` is the one of [`Self::regex`].
    fn check(&self, field: &str, value: &Value, pattern: Option<&Regex>) -> Result<(), Invalid> {
        let refuse = |problem: String| Err(Invalid::new(field, problem));
        match (self.kind, value) {
            (ParameterType::String, Value::String(text)) => {
                self.check_length(field, text.chars().count(), "characters")?;
                check_text(field, text, pattern)
            }
            (ParameterType::Choice, Value::String(text)) if self.choices.contains(text) => {
                check_text(field, text, None)
            }
            (ParameterType::Choice, Value::String(_)) => {
                refuse(format!("is not one of {}", self.choices.join(", ")))
            }
            (ParameterType::Selector, Value::String(text)) => match Selector::parse(text) {
                Ok(_) => check_text(field, text, None),
                Err(error) => refuse(format!("is not a selector: {error}")),
            },
            (ParameterType::Boolean, Value::Bool(_)) => Ok(()),
            (ParameterType::Integer, Value::Number(number)) if number.as_i64().is_some() => {
                self.check_bounds(field, number)
            }
            (ParameterType::Number, Value::Number(number)) => {
                let is_large = number.as_f64().is_none_or(|double| double.abs() > limits::PARAMETER_NUMBER);
                if is_large {
                    let limit = limits::PARAMETER_NUMBER;
                    return refuse(format!("is beyond the limit PARAMETER_NUMBER of ±{limit}"));
                }
                self.check_bounds(field, number)
            }
            (ParameterType::List, Value::Array(items)) => {
                self.check_length(field, items.len(), "items")?;
                for item in items {
                    let Value::String(text) = item else {
                        return refuse("has an item that is not a text".to_owned());
                    };
                    check_text(field, text, pattern)?;
                    if !self.items.is_empty() && !self.items.contains(text) {
                        return refuse(format!("has an item that is not one of {}", self.items.join(", ")));
                    }
                }
                Ok(())
            }
            (kind, _) => refuse(format!("is not {}", kind.described())),
        }
    }

    fn check_length(&self, field: &str, length: usize, unit: &str) -> Result<(), Invalid> {
        let length = u64::try_from(length).unwrap_or(u64::MAX);
        if let Some(low) = self.min_length.filter(|low| length < *low) {
            return Err(Invalid::new(field, format!("has {length} {unit}; at least {low} are wanted")));
        }
        if let Some(high) = self.max_length.filter(|high| length > *high) {
            return Err(Invalid::new(field, format!("has {length} {unit}; at most {high} are allowed")));
        }
        Ok(())
    }

    fn check_bounds(&self, field: &str, number: &Number) -> Result<(), Invalid> {
        let below = |low: &&Number| compare(number, low).is_none_or(std::cmp::Ordering::is_lt);
        if let Some(low) = self.minimum.as_ref().filter(below) {
            return Err(Invalid::new(field, format!("is {number}; at least {low} is allowed")));
        }
        let above = |high: &&Number| compare(number, high).is_none_or(std::cmp::Ordering::is_gt);
        if let Some(high) = self.maximum.as_ref().filter(above) {
            return Err(Invalid::new(field, format!("is {number}; at most {high} is allowed")));
        }
        Ok(())
    }
}

fn check_text(field: &str, text: &str, pattern: Option<&Regex>) -> Result<(), Invalid> {
    if text.contains('\0') {
        return Err(Invalid::new(field, "contains a NUL character"));
    }
    match pattern {
        Some(pattern) if !pattern.is_match(text) => {
            Err(Invalid::new(field, "does not match the parameter's pattern"))
        }
        _ => Ok(()),
    }
}

impl ParameterType {
    const fn described(self) -> &'static str {
        match self {
            Self::String => "a text",
            Self::Integer => "a whole number of 64 bits",
            Self::Number => "a number",
            Self::Boolean => "true or false",
            Self::Choice => "the text of a choice",
            Self::List => "a list of texts",
            Self::Selector => "the text of a selector",
            Self::Secret | Self::File => "available yet",
        }
    }
}

/// `; did you mean 'x'?` when a known name is two changes away at most.
pub(crate) fn suggestion(name: &str, known: &Parameters) -> String {
    if name.len() > limits::PARAMETER_NAME_CHARS {
        return String::new();
    }
    let nearest = known.keys().map(|other| (distance(name, other), other)).min();
    match nearest {
        Some((changes, other)) if changes <= 2 => format!("; did you mean '{other}'?"),
        _ => String::new(),
    }
}

/// Single-character changes from one text to the other (Levenshtein 1966).
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, a) in a.chars().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        for (above, b) in row.iter_mut().skip(1).zip(&b) {
            let changed = (diagonal + usize::from(a != *b)).min(left + 1).min(*above + 1);
            diagonal = *above;
            *above = changed;
            left = changed;
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests;
