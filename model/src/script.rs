//! Scripts that are kept by name, in versions, and how a job names them.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{
    Invalid,
    access::validate_slug,
    command::Script,
    id::ScriptId,
    job::{
        parameters::{Parameters, validate_all},
        yaml::reason,
    },
    label::{Labels, validate_label},
    limits,
    yaml::at,
};

/// What stands in the place of a script's name in paths.
const RESERVED: &str = "validate";

/// A script as people write it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ScriptDocument {
    /// What it is called in its organization: lower-case letters, digits and any of `_ . -`.
    pub name: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// By which people find it, and by which rights are bound to some jobs and scripts.
    #[serde(default, skip_serializing_if = "Labels::is_empty")]
    #[schema(value_type = std::collections::BTreeMap<String, String>)]
    pub labels: Labels,
    /// The interpreter with its options, split at spaces; without it the script's `#!` line decides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interpreter: Option<String>,
    /// The parameters that it expects as `OPSC_PARAM_NAME` in its environment. They are for people: a job has its own.
    #[serde(default, skip_serializing_if = "Parameters::is_empty")]
    #[schema(value_type = std::collections::BTreeMap<String, crate::job::parameters::Parameter>)]
    pub parameters: Parameters,
    /// The text, UTF-8.
    pub content: String,
}

impl ScriptDocument {
    /// Checks every field against its limit.
    ///
    /// # Errors
    /// The first field that is wrong, with what is allowed.
    pub fn validate(&self) -> Result<(), Invalid> {
        validate_slug("name", &self.name)?;
        if self.name == RESERVED || self.name.parse::<ScriptId>().is_ok() {
            return Err(Invalid::new("name", format!("is '{}', which is no name of a script", self.name)));
        }
        if self.description.len() > limits::DESCRIPTION_BYTES {
            let limit = limits::DESCRIPTION_BYTES;
            return Err(Invalid::over("description", "DESCRIPTION_BYTES", limit, "bytes"));
        }
        if self.description.contains('\0') {
            return Err(Invalid::new("description", "contains a NUL character"));
        }
        if self.labels.len() > limits::LABELS {
            return Err(Invalid::over("labels", "LABELS", limits::LABELS, "labels"));
        }
        self.labels.iter().try_for_each(|(key, value)| validate_label(key, value))?;
        validate_all(&self.parameters)?;
        validate_text(&self.program())?;
        let rest = serde_json::to_string(&Self { content: String::new(), ..self.clone() });
        if rest.map_or(0, |rest| rest.len()) > limits::DOCUMENT_BYTES {
            let limit = limits::DOCUMENT_BYTES;
            return Err(Invalid::over(
                "parameters",
                "DOCUMENT_BYTES",
                limit,
                "bytes with all but the content",
            ));
        }
        Ok(())
    }

    /// What runs.
    pub fn program(&self) -> Script {
        let (content, interpreter) = (self.content.clone(), self.interpreter.clone());
        Script { content, interpreter, args: Vec::new() }
    }
}

/// Checks the text of a script and its interpreter.
///
/// # Errors
/// The field that is wrong, with what is allowed.
pub fn validate_text(script: &Script) -> Result<(), Invalid> {
    script.validate().map_err(|invalid| {
        let field = invalid.field.rsplit('.').next().unwrap_or_default();
        Invalid::new(field, invalid.problem)
    })
}

/// Reads the definitions of parameters, YAML or JSON.
///
/// # Errors
/// With the place of what is wrong.
pub fn parse_parameters(text: &str) -> Result<Parameters, String> {
    let parameters: Parameters = serde_saphyr::from_str(text).map_err(|error| {
        let place = error.location().map(|location| at(&location)).filter(|(line, _)| *line > 0);
        let place = place.map(|(line, column)| format!(" at line {line}, column {column}"));
        format!("{}{}", reason(&error), place.unwrap_or_default())
    })?;
    validate_all(&parameters).map_err(|invalid| invalid.to_string())?;
    Ok(parameters)
}

/// What is wrong with the first line of a script, for people; nothing where a host can make sense of it.
pub fn first_line(script: &Script) -> Vec<&'static str> {
    let mut wrong = Vec::new();
    if script.content.starts_with('\u{feff}') {
        wrong.push("the text begins with a byte order mark, so its first line is not seen as a '#!' line");
    }
    let line = script.content.split('\n').next().unwrap_or_default();
    if line.ends_with('\r') {
        wrong.push("the first line ends with a carriage return, as Windows writes it: hosts do not find its interpreter");
    }
    match line.trim_end().strip_prefix("#!") {
        Some(rest) if rest.trim().is_empty() => wrong.push("the '#!' line names no interpreter"),
        Some(rest) if !rest.trim_start().starts_with('/') => {
            wrong.push("the interpreter of the '#!' line has no absolute path");
        }
        _ => {}
    }
    wrong
}

/// How a job names a script: `NAME@VERSION`, or `NAME` for the newest when it is started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScriptName {
    pub name: String,
    pub version: Option<i32>,
}

impl FromStr for ScriptName {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let (name, version) = match text.split_once('@') {
            Some((name, version)) => {
                let number = version.parse().ok().filter(|number| *number > 0);
                let wrong = || {
                    let shown: String = version.chars().take(20).collect();
                    Invalid::new("use", format!("has the version '{shown}'; versions are numbers from 1"))
                };
                (name, Some(number.ok_or_else(wrong)?))
            }
            None => (text, None),
        };
        validate_slug("use", name)?;
        Ok(Self { name: name.to_owned(), version })
    }
}

impl fmt::Display for ScriptName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.version {
            Some(version) => write!(f, "{}@{version}", self.name),
            None => f.write_str(&self.name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_are_named_with_their_version() {
        for (text, name, version) in [("deploy", "deploy", None), ("deploy.sh@12", "deploy.sh", Some(12))] {
            let read: ScriptName = text.parse().unwrap();
            assert_eq!((read.name.as_str(), read.version, read.to_string().as_str()), (name, version, text));
        }
        for bad in ["", "@1", "Deploy", "a@", "a@0", "a@-1", "a@b", "a@1@2", "a@99999999999"] {
            assert!(bad.parse::<ScriptName>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_script_has_a_name_and_a_text_that_something_runs() {
        let good =
            ScriptDocument { name: "a".into(), content: "#!/bin/sh\n".into(), ..ScriptDocument::default() };
        good.validate().unwrap();
        let with = |change: &dyn Fn(&mut ScriptDocument)| {
            let mut script = good.clone();
            change(&mut script);
            script.validate().map_err(|invalid| invalid.field)
        };
        with(&|script| (script.content, script.interpreter) = ("x".into(), Some("perl -w".into()))).unwrap();
        assert_eq!(with(&|script| script.name = "validate".into()).unwrap_err(), "name");
        assert_eq!(with(&|script| script.content = "  ".into()).unwrap_err(), "content");
        assert_eq!(with(&|script| script.content = "echo".into()).unwrap_err(), "interpreter");
        assert_eq!(with(&|script| script.description = "\0".into()).unwrap_err(), "description");
    }

    #[test]
    fn the_first_line_is_looked_at() {
        let of = |content: &str| {
            first_line(&Script { content: content.into(), interpreter: None, args: Vec::new() }).len()
        };
        for good in ["#!/bin/sh\n", "#! /usr/bin/env python3\n", "echo\n", ""] {
            assert_eq!(of(good), 0, "{good:?}");
        }
        for bad in ["#!/bin/sh\r\n", "#!\n", "#!bash\n", "\u{feff}#!/bin/sh\n"] {
            assert_eq!(of(bad), 1, "{bad:?}");
        }
    }
}
