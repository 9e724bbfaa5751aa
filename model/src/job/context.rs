//! What templates and conditions see of an execution, and the names that they may use.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use serde_json::Value;

use super::{outputs::Outputs, parameters::Values};
use crate::{
    Invalid,
    label::{Facts, Labels},
};

/// Everything that a template or a condition can read.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Context {
    pub params: Values,
    pub host: Host,
    /// The steps that ended before, by name.
    pub steps: BTreeMap<String, StepResult>,
    /// The values of this cell of the step's matrix.
    pub matrix: BTreeMap<String, Value>,
    pub execution: ExecutionFacts,
}

/// The target of the run.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Host {
    pub name: String,
    pub labels: Labels,
    pub facts: Facts,
}

/// How a step ended.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct StepResult {
    pub state: String,
    /// None when it has no process, or none that exited.
    pub exit_code: Option<i32>,
    pub outputs: Outputs,
}

/// The execution itself.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct ExecutionFacts {
    pub id: String,
    pub job: String,
    pub version: i64,
    /// Who started it.
    pub actor: String,
}

/// The names that a job defines: what a template or a condition is checked against before it is stored.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Names {
    pub params: BTreeSet<String>,
    /// The steps before, with the outputs of each.
    pub steps: BTreeMap<String, BTreeSet<String>>,
    pub matrix: BTreeSet<String>,
}

impl Names {
    /// Checks one dotted path as a template reads it, `params.version` or `steps.build.outputs.digest`. `place` ends
    /// the message.
    pub(super) fn check(&self, field: &str, path: &str, place: &str) -> Result<(), Invalid> {
        let mut parts = path.split('.');
        let (root, name) = (parts.next().unwrap_or_default(), parts.next());
        let below = parts.next();
        let known = |names: &BTreeSet<String>| name.is_none_or(|name| names.contains(name));
        let one_of = |names: &[&str]| name.is_none_or(|name| names.contains(&name));
        let good = match root {
            "params" => known(&self.params),
            "matrix" => known(&self.matrix),
            "host" => one_of(&["name", "labels", "facts"]),
            "execution" => one_of(&["id", "job", "version", "actor"]),
            "steps" => {
                let told = name.map(|name| self.steps.get(name));
                match (told, below, parts.next()) {
                    (None, ..) | (Some(Some(_)), None | Some("state" | "exit_code"), _) => true,
                    (Some(Some(told)), Some("outputs"), output) => {
                        output.is_none_or(|output| told.contains(output))
                    }
                    _ => false,
                }
            }
            "range" => name.is_none(),
            _ => false,
        };
        if good {
            Ok(())
        } else {
            Err(Invalid::new(field, format!("uses '{path}', which is not known{place}")))
        }
    }
}
