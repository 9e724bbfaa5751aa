//! Job templates: a job's document with places for values, which are filled in when a job is made of it.
//!
//! Invariants:
//!
//! 1. A value is put into the document's structure, never into its text: whatever it holds, it stays the one scalar or list
//!    that stands in its place, and is not looked through for further places.
//! 2. Where a text is read as a language (a shell line, a condition, a selector) a text that is put into the middle of it has
//!    only characters that mean nothing there.
//! 3. What comes out is a job that was checked like any other, and reads the same as what was filled.
//!
//! Absent on purpose: expressions. What is to be computed, a step computes.

mod built_in;
mod fill;
mod placeholder;
mod written;

use std::collections::BTreeMap;

use serde::{Deserialize, de::IgnoredAny};
use serde_json::Value;

pub use self::built_in::{all as built_ins, find as built_in};
use crate::{
    Invalid,
    access::validate_slug,
    api::target_group::validate_description,
    job::{
        BadDocument, Job, located,
        parameters::{Parameters, resolve, suggestion, validate_all},
        yaml,
    },
    limits,
    yaml::{Node, Part, read},
};

/// The keys of the document.
const JOB: &str = "job";

/// A job template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    /// What it is called in its organization.
    pub name: String,
    pub description: String,
    /// What a job of it is asked for.
    pub parameters: Parameters,
    document: String,
}

/// A job that was made of a template.
#[derive(Debug, Clone, PartialEq)]
pub struct Filled {
    pub job: Job,
    /// Its text, with the remarks of the template where they could be kept.
    pub document: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Head {
    name: String,
    #[serde(default)]
    description: String,
    #[serde(default)]
    parameters: Parameters,
    #[serde(rename = "job")]
    _job: IgnoredAny,
}

/// Reads and checks a template, YAML or JSON. What its job lacks to be one is found when it is filled.
///
/// # Errors
/// The first thing that is wrong, with its place.
pub fn parse(text: &str) -> Result<Template, BadDocument> {
    let Head { name, description, parameters, _job } = yaml::read(text)?;
    let template = Template { name, description, parameters, document: text.to_owned() };
    template.validate().map_err(|invalid| located(text, invalid))?;
    Ok(template)
}

impl Template {
    /// As its author wrote it.
    pub fn document(&self) -> &str {
        &self.document
    }

    fn validate(&self) -> Result<(), Invalid> {
        validate_slug("name", &self.name)?;
        validate_description(&self.description)?;
        validate_all(&self.parameters)?;
        self.with_job(|job| match &job.value {
            Node::Map(_) => check(job, &self.parameters),
            _ => Err(Invalid::new("", "is no job: it has the keys of a job's document")),
        })
    }

    /// Makes a job of it, with values for its parameters.
    ///
    /// # Errors
    /// A value that is missing or wrong, as `parameters.NAME`; what cannot be put in its place, and what is no job then, as
    /// `job.…`.
    pub fn fill(&self, given: &BTreeMap<String, Value>) -> Result<Filled, Invalid> {
        let values = resolve(&self.parameters, given)?;
        self.with_job(|job| fill::fill(&self.document, job, &values.0))
    }

    /// What is to be done with the part that becomes the job, whose fields it is about.
    fn with_job<T>(&self, what: impl FnOnce(&Part) -> Result<T, Invalid>) -> Result<T, Invalid> {
        let root = read(&self.document).map_err(|error| Invalid::new(JOB, yaml::reason(&error)))?;
        let job = root.value.get(JOB).ok_or_else(|| Invalid::new(JOB, "is missing"))?;
        what(job).map_err(|invalid| below(JOB, invalid))
    }
}

/// What is wrong, seen from one level further up.
fn below(step: &str, invalid: Invalid) -> Invalid {
    let step: String = step.chars().filter(|c| !c.is_control()).take(limits::PARAMETER_NAME_CHARS).collect();
    let dot = if invalid.field.is_empty() || invalid.field.starts_with('[') { "" } else { "." };
    Invalid::new(format!("{step}{dot}{}", invalid.field), invalid.problem)
}

fn check(part: &Part, parameters: &Parameters) -> Result<(), Invalid> {
    match &part.value {
        Node::Map(entries) => entries.iter().try_for_each(|(key, value)| {
            let key = key.value.as_str();
            if placeholder::is_in(key) {
                let why = format!("has '${{{{' in the key '{}'; values stand in texts", shown(key));
                return Err(Invalid::new("", why));
            }
            check(value, parameters).map_err(|invalid| below(key, invalid))
        }),
        Node::List(items) => items.iter().enumerate().try_for_each(|(index, item)| {
            check(item, parameters).map_err(|invalid| below(&format!("[{index}]"), invalid))
        }),
        Node::Text(text) => {
            let pieces = placeholder::pieces(text).map_err(|why| Invalid::new("", why))?;
            let unknown = pieces.iter().find_map(|piece| match piece {
                placeholder::Piece::Name(name) if !parameters.contains_key(*name) => Some(*name),
                _ => None,
            });
            match unknown {
                Some(name) => {
                    let meant = suggestion(name, parameters);
                    let why =
                        format!("uses '{}', which is not a parameter of this template{meant}", shown(name));
                    Err(Invalid::new("", why))
                }
                None => Ok(()),
            }
        }
        Node::Value(_) | Node::Null => Ok(()),
    }
}

fn shown(name: &str) -> String {
    name.chars().filter(|c| !c.is_control()).take(limits::PARAMETER_NAME_CHARS).collect()
}

#[cfg(test)]
mod tests;
