//! A step that starts another job, once for all hosts, and waits for its end.
//!
//! What is started is frozen with the plan that starts it, and signed with it: the version, its steps, its hosts. Only values
//! that are filled in are known later, and they are what the parameters of the job allow.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    JobTargets, Plan, Work,
    context::{Context, Names},
    http::each_leaf,
    parameters::{ParameterType, Parameters, Values, from_text, resolve},
    template::{Quote, bind, check_template, has_tags, render_bound, used},
};
use crate::{Invalid, access::validate_slug, id::AgentId, limits};

/// What such a step tells later ones.
pub(super) const TOLD: [&str; 2] = ["execution_id", "state"];

/// The job that is started, as people write it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct JobStart {
    /// Its name, in the same organization.
    pub name: String,
    /// The version; the newest when this job is started by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<i32>,
    /// Values of its parameters.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schema(value_type = std::collections::BTreeMap<String, Object>)]
    pub parameters: BTreeMap<String, Value>,
    /// Where; by default where that job says, and if it says nothing, on the hosts of this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub targets: Option<JobTargets>,
}

/// The same in a plan, with what was frozen of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StartedJob {
    pub start: JobStart,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub frozen: Option<Box<FrozenJob>>,
}

/// What was frozen of a job that another one starts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FrozenJob {
    /// Without values, where these are filled in later.
    pub plan: Plan,
    /// What the values have to be, where they are filled in later.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub declared: Parameters,
    /// In the order of their turns.
    pub hosts: Vec<FrozenHost>,
    #[serde(default)]
    pub priority: i16,
}

/// A host of such a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FrozenHost {
    pub agent_id: AgentId,
    pub name: String,
}

impl JobStart {
    /// Checks every field.
    ///
    /// # Errors
    /// The first that is wrong, as a path below the step.
    pub(super) fn validate(&self) -> Result<(), Invalid> {
        validate_slug("job.name", &self.name)?;
        if self.version.is_some_and(|version| version < 1) {
            return Err(Invalid::new("job.version", "is below 1, which is the first version"));
        }
        let bytes = serde_json::to_string(&self.parameters).map_or(usize::MAX, |json| json.len());
        if bytes > limits::PARAMETERS_BYTES {
            return Err(Invalid::over(
                "job.parameters",
                "PARAMETERS_BYTES",
                limits::PARAMETERS_BYTES,
                "bytes",
            ));
        }
        let mut texts = 0;
        self.clone().each_text(&mut |field, text| {
            texts += usize::from(has_tags(text));
            match text.contains('\0') {
                true => Err(Invalid::new(field, "has a NUL character")),
                false => Ok(()),
            }
        })?;
        if texts > limits::STEP_TEXTS {
            return Err(Invalid::over(
                "job.parameters",
                "STEP_TEXTS",
                limits::STEP_TEXTS,
                "texts that are filled in",
            ));
        }
        match &self.targets {
            Some(targets) => targets
                .validate()
                .map_err(|invalid| Invalid::new(format!("job.{}", invalid.field), invalid.problem)),
            None => Ok(()),
        }
    }

    /// Checks the templates in its values.
    pub(super) fn check_templates(
        &self,
        path: &impl Fn(&str) -> String,
        names: &Names,
    ) -> Result<(), Invalid> {
        self.clone().each_text(&mut |field, text| check_template(&path(field), text, Quote::None, names))
    }

    /// The names of the parameters whose values are filled in.
    ///
    /// # Errors
    /// None of its own: as whoever visits its texts.
    pub fn filled_in(&self) -> Result<BTreeSet<String>, Invalid> {
        let mut names = BTreeSet::new();
        for (name, value) in &self.parameters {
            each_leaf(name, &mut value.clone(), &mut |_, text| {
                if has_tags(text) {
                    names.insert(name.clone());
                }
                Ok(())
            })?;
        }
        Ok(names)
    }

    /// The dotted paths that its values read.
    ///
    /// # Errors
    /// When one cannot be read.
    pub fn used(&self) -> Result<Vec<String>, Invalid> {
        let mut all = Vec::new();
        self.clone().each_text(&mut |field, text| {
            all.extend(used(field, text)?);
            Ok(())
        })?;
        Ok(all)
    }

    fn each_text(
        &mut self,
        visit: &mut impl FnMut(&str, &mut String) -> Result<(), Invalid>,
    ) -> Result<(), Invalid> {
        self.parameters
            .iter_mut()
            .try_for_each(|(name, value)| each_leaf(&format!("job.parameters.{name}"), value, visit))
    }
}

impl StartedJob {
    /// One line that a person recognises it by.
    pub fn summary(&self) -> String {
        match &self.frozen {
            Some(frozen) => {
                let version = frozen.plan.job.as_ref().map_or(0, |job| job.version);
                let (name, hosts) = (&self.start.name, frozen.hosts.len());
                format!("job {name} v{version} on {hosts} {}", if hosts == 1 { "host" } else { "hosts" })
            }
            None => format!("job {}", self.start.name),
        }
    }

    /// What is started: the plan with its values, filled in where `template` says so.
    ///
    /// # Errors
    /// When a value cannot be filled in, or is none that its parameter allows.
    pub fn filled(&self, is_template: bool, context: &Context) -> Result<Option<Plan>, Invalid> {
        let Some(frozen) = &self.frozen else { return Ok(None) };
        if !is_template {
            return Ok(Some(frozen.plan.clone()));
        }
        let (mut start, bound) = (self.start.clone(), bind(context));
        start.each_text(&mut |field, text| {
            *text = render_bound(field, text, &bound, Quote::None)?;
            Ok(())
        })?;
        for (name, value) in &mut start.parameters {
            // What was filled in is text; what it has to be, the parameter says.
            if let (Some(declared), Value::String(text)) = (frozen.declared.get(name), &value)
                && !matches!(declared.kind, ParameterType::String)
            {
                *value = from_text(declared, text)
                    .map_err(|invalid| Invalid::new(format!("job.parameters.{name}"), invalid.problem))?;
            }
        }
        let values = resolve(&frozen.declared, &start.parameters)
            .map_err(|invalid| Invalid::new(format!("job.{}", invalid.field), invalid.problem))?;
        frozen.plan.with_values(values).map(Some)
    }
}

impl Plan {
    /// The same plan with these values of its parameters.
    fn with_values(&self, values: Values) -> Result<Self, Invalid> {
        let mut plan = self.clone();
        let environment = values.environment();
        for command in plan.steps.iter_mut().filter_map(|step| step.work.command_mut()) {
            command.env.retain(|name, _| !name.starts_with(super::parameters::VARIABLES));
            command.env.extend(environment.clone());
            command.validate()?;
        }
        if let Some(job) = &mut plan.job {
            job.parameters = values;
        }
        Ok(plan)
    }

    /// The hosts of all that its steps start, and of what that starts.
    pub fn hosts_of_started(&self) -> BTreeSet<AgentId> {
        let mut hosts = BTreeSet::new();
        for frozen in self.started_jobs().filter_map(|(_, started)| started.frozen.as_ref()) {
            hosts.extend(frozen.hosts.iter().map(|host| host.agent_id));
            hosts.append(&mut frozen.plan.hosts_of_started());
        }
        hosts
    }

    /// The jobs that its steps start, with the places of these.
    pub fn started_jobs(&self) -> impl Iterator<Item = (usize, &StartedJob)> {
        self.steps.iter().enumerate().filter_map(|(place, step)| match &step.work {
            Work::Job(started) => Some((place, started.as_ref())),
            _ => None,
        })
    }

    /// The same, to freeze them, each with the name of its step and whether its values are filled in later.
    pub fn started_jobs_mut(&mut self) -> impl Iterator<Item = (&str, bool, &mut StartedJob)> {
        self.steps.iter_mut().filter_map(|step| match &mut step.work {
            Work::Job(started) => Some((step.name.as_str(), step.template, started.as_mut())),
            _ => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{id::JobId, job::parse};

    const INNER: &str = "name: inner\nparameters:\n  size: {type: integer, required: true, maximum: 9}\n  \
                         who: {type: string, default: me}\nsteps:\n  - {name: a, run: x, env: {A: b}}\n";

    fn started(given: Value) -> StartedJob {
        let job = parse(INNER).unwrap();
        let plan = Plan::of(&job, JobId(uuid::Uuid::nil()), 3, Values::default()).unwrap();
        let start = JobStart {
            name: "inner".to_owned(),
            parameters: serde_json::from_value(given).unwrap(),
            ..JobStart::default()
        };
        let frozen = FrozenJob { plan, declared: job.parameters, hosts: Vec::new(), priority: 0 };
        StartedJob { start, frozen: Some(Box::new(frozen)) }
    }

    fn context() -> Context {
        let mut context = Context::default();
        context.params.0.insert("size".to_owned(), json!(7));
        context.params.0.insert("word".to_owned(), json!("a, \"b\""));
        context
    }

    #[test]
    fn values_that_are_filled_in_are_what_the_parameter_is() {
        let started = started(json!({ "size": "{{ params.size }}", "who": "{{ params.word }}" }));
        let plan = started.filled(true, &context()).unwrap().unwrap();
        assert_eq!(plan.job.as_ref().unwrap().parameters.0["size"], json!(7));
        assert_eq!(plan.job.as_ref().unwrap().parameters.0["who"], json!("a, \"b\""));
        let env = &plan.command(0).unwrap().env;
        assert_eq!((env["OPSC_PARAM_SIZE"].as_str(), env["A"].as_str()), ("7", "b"));
        assert_eq!(started.filled(false, &context()).unwrap().unwrap(), started.frozen.unwrap().plan);
    }

    #[test]
    fn values_that_are_none_of_it_are_refused() {
        let refused = |given: Value| started(given).filled(true, &context()).unwrap_err();
        assert_eq!(refused(json!({ "size": "{{ params.word }}" })).field, "job.parameters.size");
        assert_eq!(refused(json!({ "size": "1{{ params.size }}" })).field, "job.parameters.size");
        assert_eq!(refused(json!({ "who": "x" })).problem, "is required");
    }
}
