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
    /// How it ended on all hosts, for a step that is on none itself.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub gathered: Option<Gathered>,
}

/// What a step on hosts came to, as a step of the controller's own sees it. Where it was to be skipped it counts as neither.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Gathered {
    pub succeeded: usize,
    pub failed: usize,
    /// By their names; only where something reads them.
    pub hosts: Vec<HostResult>,
}

/// What a step came to on one host.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct HostResult {
    pub name: String,
    pub state: String,
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
    /// The execution that it undoes; empty where it undoes none.
    pub undoes: String,
    /// For when a schedule planned it, as `2026-12-01T02:30:00Z`; empty where none did.
    pub due: String,
}

/// The names that a job defines: what a template or a condition is checked against before it is stored.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Names {
    pub params: BTreeSet<String>,
    /// The steps before.
    pub steps: BTreeMap<String, Told>,
    pub matrix: BTreeSet<String>,
    /// Who reads is on no host: there is none to be read of.
    pub is_on_no_host: bool,
}

/// What can be read of a step.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Told {
    /// The names of its outputs.
    pub outputs: BTreeSet<String>,
    /// It runs on hosts, and who reads it does not: `succeeded`, `failed` and `hosts` tell of all of them.
    pub is_gathered: bool,
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
            "host" => !self.is_on_no_host && one_of(&["name", "labels", "facts"]),
            "execution" => one_of(&["id", "job", "version", "actor", "undoes", "due"]),
            "steps" => {
                let told = name.map(|name| self.steps.get(name));
                match (told, below, parts.next()) {
                    (None, ..) | (Some(Some(_)), None | Some("state"), _) => true,
                    (Some(Some(told)), Some("succeeded" | "failed" | "hosts"), _) => told.is_gathered,
                    (Some(Some(told)), Some("exit_code"), _) => !told.is_gathered,
                    (Some(Some(told)), Some("outputs"), output) => {
                        !told.is_gathered && output.is_none_or(|output| told.outputs.contains(output))
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
