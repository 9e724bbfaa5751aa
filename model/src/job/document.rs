//! The document: what a job is, as people write it.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::{
    Approval, Canary, Graph, Http, HttpCall, JobStart, Length, Matrix, Offline, OnConflict, PROBE, Rollout,
    StartedJob, StepScript, Work, condition,
    context::{Names, Told},
    http, matrix,
    parameters::{Parameters, validate_all},
    rollout::PROBE_PATH,
    started,
    template::{Quote, check_template},
};
use crate::{
    Invalid,
    access::validate_slug,
    api::execution::Targets,
    command::{Command, OutputLimit, Program, Script},
    id::JobId,
    label::validate_label,
    limits,
    retry::Retry,
    sandbox::{Container, Limits, Network, Profile},
    selector::Selector,
};

/// What our own variables begin with.
pub(super) const OWN_VARIABLES: &str = "OPSC_";
/// What stands in the place of a job's name in paths.
const RESERVED: [&str; 2] = ["validate", "schema"];

/// A job.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = JobDocument)]
pub struct Job {
    /// What it is called in its organization: lower-case letters, digits and `-`.
    pub name: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// By which people find it, and by which rights are bound to some jobs.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// What a start is asked for. Steps get it as `OPSC_PARAM_NAME` in their environment, and all as JSON in `OPSC_PARAMS`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schema(value_type = std::collections::BTreeMap<String, crate::job::parameters::Parameter>)]
    pub parameters: Parameters,
    /// Where it runs unless a start says otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub targets: Option<JobTargets>,
    #[serde(default, skip_serializing_if = "Order::is_default")]
    pub order: Order,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollout: Option<Rollout>,
    /// What only one execution may hold at a time: `host` (each host, while its turn lasts), `job`, or a name of one's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lock: Option<String>,
    /// What becomes of it when somebody else holds that.
    #[serde(default, skip_serializing_if = "OnConflict::is_default")]
    pub on_conflict: OnConflict,
    /// What becomes of a host that is away when its turn comes.
    #[serde(default, skip_serializing_if = "Offline::is_default")]
    pub offline: Offline,
    /// How long each run may wait for its host once it is its turn; 5 minutes by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_within: Option<Length>,
    /// Of what waits for a host the highest comes first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<i64>,
    pub steps: Vec<Step>,
    /// What undoes the steps on a host where one of them failed that says `on_failure: rollback`, in sequence.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rollback: Vec<Step>,
}

/// Which hosts: one of four ways, and what narrows it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct JobTargets {
    /// All hosts that the predicate holds for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<String>,
    /// Hosts by name; each must exist.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<String>,
    /// Every host, when `true`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub all: bool,
    /// The hosts of the target group of this name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// Of those, not the ones that this predicate holds for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exclude: Option<String>,
    /// Of those, the first so many by name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
    /// It is an error when there are more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_targets: Option<usize>,
    /// It is no error when there are none.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub allow_empty: bool,
}

/// What comes first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// Each host goes through the whole graph, whatever the others do.
    #[default]
    Host,
    /// All hosts end a step before any of them begins one that needs it.
    Step,
}

impl Order {
    fn is_default(&self) -> bool {
        *self == Self::Host
    }
}

/// What the failure of a step means for its host.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnFailure {
    /// No further step begins there but those that run always.
    #[default]
    Stop,
    /// It counts as done.
    Continue,
    /// As `stop`, and the steps of `rollback` run.
    Rollback,
}

impl OnFailure {
    fn is_default(&self) -> bool {
        *self == Self::Stop
    }
}

/// One node of the graph. What a [`Command`] has beside its program stands here again: a document is flat and refuses unknown
/// keys, and serde does not do both with a shared part. [`Step::command`] joins them. Exactly one of `run`, `argv`, `script`, `wait`,
/// `approval`, `http` and `job` says what it does.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// What it is called in its job: lower-case letters, digits and `-`. Only a probe has no name of its own.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schema(required = true)]
    pub name: String,
    /// A line for the host's shell; a text that begins with `#!` is a script.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<String>,
    /// A program with its arguments; no shell looks at them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub argv: Option<Vec<String>>,
    /// A script with its interpreter, or one that is saved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub script: Option<StepScript>,
    /// The controller waits so long, once for all hosts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wait: Option<Length>,
    /// People decide whether it goes on, once for all hosts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approval: Option<Approval>,
    /// The controller asks a web server, once for all hosts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<Http>,
    /// Another job is started, once for all hosts, and has to end well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<JobStart>,
    /// The steps that have to end before; without it the one that stands above, and with `[]` none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub needs: Option<Vec<String>>,
    /// It is done once for each combination of these values, which it finds as `OPSC_MATRIX_NAME` and as `matrix.NAME`.
    #[serde(default, skip_serializing_if = "Matrix::is_empty")]
    #[schema(value_type = std::collections::BTreeMap<String, Vec<Object>>)]
    pub matrix: Matrix,
    /// It runs only where this holds: an expression over `params`, `host`, `execution` and the `steps` before it. Where it
    /// does not, the step is skipped and counts as done.
    #[serde(default, rename = "if", skip_serializing_if = "Option::is_none")]
    pub condition: Option<String>,
    /// `{{ params.name }}`, `{{ host.name }}` and the like are filled in, in a shell line quoted for the shell.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub template: bool,
    #[serde(default, skip_serializing_if = "OnFailure::is_default")]
    pub on_failure: OnFailure,
    /// It runs however the steps that it needs ended, also where the host was stopped.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub always: bool,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// Working directory, absolute; by default the home of the user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cwd: Option<String>,
    /// User to run as; by default the agent's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// How long one try may take; an hour by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Length>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<Retry>,
    /// It may be run again when nobody knows how it ended.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub idempotent: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_limit_bytes: Option<u64>,
    #[serde(default, skip_serializing_if = "OutputLimit::is_default")]
    pub on_output_limit: OutputLimit,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sandbox: Option<Profile>,
    #[serde(default, skip_serializing_if = "Network::is_default")]
    pub network: Network,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub read: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub write: Vec<String>,
    #[serde(default, skip_serializing_if = "Limits::is_default")]
    pub limits: Limits,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<Container>,
    /// Names of what it tells later steps: when it succeeds it has written a JSON object with just these into the file
    /// `OPSC_OUTPUTS`. Those of the same host read them as `steps.NAME.outputs.NAME`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub outputs: Vec<String>,
}

impl Step {
    /// Whether the controller does it itself, once for all hosts.
    pub const fn is_controllers(&self) -> bool {
        self.controllers_field().is_some()
    }

    /// The field that says what the controller does.
    pub(super) const fn controllers_field(&self) -> Option<&'static str> {
        if self.wait.is_some() {
            Some("wait")
        } else if self.approval.is_some() {
            Some("approval")
        } else if self.http.is_some() {
            Some("http")
        } else if self.job.is_some() {
            Some("job")
        } else {
            None
        }
    }

    /// What the controller does itself.
    pub(super) fn own_work(&self) -> Work {
        if let Some(approval) = &self.approval {
            return Work::Approval(Box::new(approval.clone()));
        }
        if let Some(call) = self.http_call() {
            return Work::Http(Box::new(call));
        }
        if let Some(start) = &self.job {
            return Work::Job(Box::new(StartedJob { start: start.clone(), frozen: None }));
        }
        Work::Wait(self.wait.unwrap_or_default())
    }

    fn http_call(&self) -> Option<HttpCall> {
        let http = self.http.clone()?;
        let timeout_seconds = self.timeout.map_or(limits::DEFAULT_STEP_HTTP_SECONDS, Length::seconds);
        Some(HttpCall { http, timeout_seconds, retry: self.retry.clone(), idempotent: self.idempotent })
    }

    /// What runs on a host; none for a step of the controller.
    ///
    /// # Errors
    /// When it does not say exactly one thing to do.
    pub fn command(&self) -> Result<Option<Command>, Invalid> {
        let said: Vec<&str> = [
            ("run", self.run.is_some()),
            ("argv", self.argv.is_some()),
            ("script", self.script.is_some()),
            ("wait", self.wait.is_some()),
            ("approval", self.approval.is_some()),
            ("http", self.http.is_some()),
            ("job", self.job.is_some()),
        ]
        .into_iter()
        .filter_map(|(name, is_there)| is_there.then_some(name))
        .collect();
        match said.as_slice() {
            [_] => {}
            [] => {
                return Err(Invalid::new(
                    "run",
                    "is missing: a step has one of run, argv, script, wait, approval, http and job",
                ));
            }
            [_, second, ..] => {
                let why = format!(
                    "is one too many: a step does one thing, and this one has {}",
                    said.join(" and ")
                );
                return Err(Invalid::new(*second, why));
            }
        }
        let program = match (&self.run, &self.argv, &self.script) {
            (Some(text), ..) if text.starts_with("#!") => {
                Program::Script(Script { content: text.clone(), interpreter: None, args: Vec::new() })
            }
            (Some(line), ..) => Program::Shell(line.clone()),
            (_, Some(argv), _) => Program::Argv(argv.clone()),
            (.., Some(script)) => Program::Script(script.program()?),
            (None, None, None) => return Ok(None),
        };
        Ok(Some(Command {
            env: self.env.clone(),
            cwd: self.cwd.clone(),
            user: self.user.clone(),
            timeout_seconds: self.timeout.map_or(limits::DEFAULT_TIMEOUT_SECONDS, Length::seconds),
            retry: self.retry.clone(),
            idempotent: self.idempotent,
            output_limit_bytes: self.output_limit_bytes,
            on_output_limit: self.on_output_limit,
            sandbox: self.sandbox,
            network: self.network,
            read: self.read.clone(),
            write: self.write.clone(),
            limits: self.limits,
            container: self.container.clone(),
            outputs: self.outputs.clone(),
            ..Command::new(program)
        }))
    }

    /// The names of what later steps can know of it.
    fn told(&self) -> BTreeSet<String> {
        let asked = self.approval.iter().flat_map(|approval| approval.input.keys());
        let answered = self.http.iter().flat_map(|_| http::TOLD);
        let started = self.job.iter().flat_map(|_| started::TOLD);
        let fixed = answered.chain(started).map(str::to_owned);
        self.outputs.iter().chain(asked).cloned().chain(fixed).collect()
    }

    pub(super) fn validate(&self) -> Result<(), Invalid> {
        if self.name.is_empty() {
            return Err(Invalid::new("name", "is missing: each step has one"));
        }
        validate_slug("name", &self.name)?;
        matrix::validate(&self.matrix)?;
        match self.command()? {
            Some(mut command) => {
                if let Some(script) = &self.script {
                    script.stand_in(&mut command.program);
                }
                command.validate().map_err(|invalid| Invalid::new(own_name(&invalid.field), invalid.problem))
            }
            None => {
                if let Some(wait) = self.wait {
                    crate::command::within("wait", wait.seconds(), &limits::WAIT_SECONDS)?;
                }
                if let Some(approval) = &self.approval {
                    approval.validate()?;
                    self.is_gate()?;
                }
                if let (Some(http), Some(call)) = (&self.http, self.http_call()) {
                    http.validate(self.template)?;
                    call.validate()?;
                }
                if let Some(start) = &self.job {
                    start.validate()?;
                }
                self.has_no_host()
            }
        }
    }

    /// Checks what is filled in and what is asked, with the names that the step knows. `prefix` is its place in the document.
    pub(super) fn validate_texts(&self, prefix: &str, names: &Names) -> Result<(), Invalid> {
        let path = |field: &str| format!("{prefix}.{field}");
        if let Some(condition) = &self.condition {
            condition::check(&path("if"), condition, names)?;
            // Whether somebody has to approve follows from what was signed, so that it can be checked again later.
            if self.approval.is_some() {
                let fixed = |path: &str| path.starts_with("params") || path.starts_with("execution");
                if let Some(used) = condition::used(&path("if"), condition)?.iter().find(|path| !fixed(path))
                {
                    let why = format!(
                        "uses '{used}', and that of an approval can look at params and execution only"
                    );
                    return Err(Invalid::new(path("if"), why));
                }
            }
        }
        if self.template {
            self.validate_template(&path, names)?;
        }
        if let Some(name) = self.env.keys().find(|name| name.starts_with(OWN_VARIABLES)) {
            let why = format!("has '{name}', and variables that begin with {OWN_VARIABLES} are ours");
            return Err(Invalid::new(path("env"), why));
        }
        Ok(())
    }

    fn validate_template(&self, path: &impl Fn(&str) -> String, names: &Names) -> Result<(), Invalid> {
        if let Some(http) = &self.http {
            return http.check_templates(path, names);
        }
        if let Some(start) = &self.job {
            return start.check_templates(path, names);
        }
        let Some(command) = self.command()? else { return Ok(()) };
        // A saved script is no template: what was checked when it was saved is what runs.
        let is_saved = self.script.as_ref().is_some_and(|script| script.used.is_some());
        for (field, text, quote) in texts(&command, is_saved)? {
            check_template(&path(own_name(&field).as_str()), text, quote, names)?;
        }
        Ok(())
    }

    /// An approval that does not come stops the job: it would be none otherwise.
    fn is_gate(&self) -> Result<(), Invalid> {
        if self.on_failure == OnFailure::Continue {
            return Err(Invalid::new(
                "on_failure",
                "is continue, and what goes on without an approval needs none",
            ));
        }
        if self.always {
            return Err(Invalid::new("always", "is not for an approval: who is asked when all has failed?"));
        }
        Ok(())
    }

    /// A step of the controller runs on no host: what would be about one is a mistake.
    fn has_no_host(&self) -> Result<(), Invalid> {
        let (is_http, is_filled) = (self.http.is_some(), self.http.is_some() || self.job.is_some());
        let said = [
            ("template", self.template && !is_filled),
            ("env", !self.env.is_empty()),
            ("cwd", self.cwd.is_some()),
            ("user", self.user.is_some()),
            ("timeout", self.timeout.is_some() && !is_http),
            ("retry", self.retry.is_some() && !is_http),
            ("idempotent", self.idempotent && !is_http),
            ("output_limit_bytes", self.output_limit_bytes.is_some()),
            ("sandbox", self.sandbox.is_some()),
            ("read", !self.read.is_empty()),
            ("write", !self.write.is_empty()),
            ("limits", !self.limits.is_default()),
            ("container", self.container.is_some()),
            ("outputs", !self.outputs.is_empty()),
            ("matrix", !self.matrix.is_empty()),
        ];
        match said.into_iter().find(|(_, is_there)| *is_there) {
            Some((field, _)) => {
                Err(Invalid::new(field, "is about a host, and this step is the controller's own"))
            }
            None => Ok(()),
        }
    }
}

/// The texts of a command that can be filled in, each with its field and how values are quoted there.
///
/// # Errors
/// For a script of an interpreter whose quoting we do not know: there a value could become code.
fn texts(command: &Command, is_saved: bool) -> Result<Vec<(String, &str, Quote)>, Invalid> {
    let mut texts = Vec::new();
    match &command.program {
        Program::Shell(line) => texts.push(("command.program.shell".to_owned(), line.as_str(), Quote::Shell)),
        Program::Argv(argv) => {
            let each = argv.iter().enumerate();
            texts.extend(
                each.map(|(index, text)| {
                    (format!("command.program.argv[{index}]"), text.as_str(), Quote::None)
                }),
            );
        }
        Program::Script(script) => {
            if !is_saved && !is_shell(script) {
                let why = "is for shell scripts: another interpreter would read a value as code; use OPSC_PARAM_NAME of \
                           the environment there";
                return Err(Invalid::new("template", why));
            }
            if !is_saved {
                let field = "command.program.script.content".to_owned();
                texts.push((field, script.content.as_str(), Quote::Shell));
            }
            let each = script.args.iter().enumerate();
            texts.extend(each.map(|(index, text)| {
                (format!("command.program.script.args[{index}]"), text.as_str(), Quote::None)
            }));
        }
    }
    texts.extend(
        command.env.iter().map(|(name, text)| (format!("command.env.{name}"), text.as_str(), Quote::None)),
    );
    Ok(texts)
}

/// Whether a POSIX shell reads the script.
fn is_shell(script: &Script) -> bool {
    matches!(script.program(), "sh" | "bash" | "dash" | "ash" | "ksh")
}

/// The name that a field of a command has in a step.
fn own_name(field: &str) -> String {
    let field = field.strip_prefix("command.").unwrap_or(field);
    match field {
        "program.argv" => "argv".to_owned(),
        "program.shell" | "program.script.interpreter" | "program.script.content" => "run".to_owned(),
        "timeout_seconds" => "timeout".to_owned(),
        other => other.strip_prefix("program.").unwrap_or(other).to_owned(),
    }
}

impl Job {
    /// Checks all of it: names, limits, the graph, selectors.
    ///
    /// # Errors
    /// The first thing that is wrong, with its path in the document.
    pub fn validate(&self) -> Result<(), Invalid> {
        validate_slug("name", &self.name)?;
        if RESERVED.contains(&self.name.as_str()) || self.name.parse::<JobId>().is_ok() {
            return Err(Invalid::new("name", format!("is '{}', which is no name of a job", self.name)));
        }
        if self.description.len() > limits::DESCRIPTION_BYTES {
            return Err(Invalid::over(
                "description",
                "DESCRIPTION_BYTES",
                limits::DESCRIPTION_BYTES,
                "bytes",
            ));
        }
        if self.labels.len() > limits::LABELS {
            return Err(Invalid::over("labels", "LABELS", limits::LABELS, "labels"));
        }
        self.labels.iter().try_for_each(|(key, value)| validate_label(key, value))?;
        validate_all(&self.parameters)?;
        if let Some(targets) = &self.targets {
            targets.validate()?;
        }
        if let Some(priority) = self.priority {
            crate::command::within("priority", priority, &limits::PRIORITY)?;
        }
        if let Some(start_within) = self.start_within {
            crate::command::within("start_within", start_within.seconds(), &limits::START_WITHIN_SECONDS)?;
        }
        let all = [("steps", &self.steps), ("rollback", &self.rollback)];
        if self.steps.is_empty() {
            return Err(Invalid::new("steps", "is empty; a job has at least one step"));
        }
        if let Some(lock) = &self.lock {
            validate_slug("lock", lock)?;
        } else if self.on_conflict != OnConflict::Queue {
            return Err(Invalid::new("on_conflict", "is about a lock, and the job has none"));
        }
        let combinations = |step: &Step| step.matrix.values().map(Vec::len).fold(1, usize::saturating_mul);
        let others = self.rollback.len() + usize::from(self.probe().is_some());
        let steps = self.steps.iter().map(combinations).fold(others, usize::saturating_add);
        if steps > limits::STEPS {
            return Err(Invalid::over("steps", "STEPS", limits::STEPS, "steps"));
        }
        for (list, index, step) in self.job_steps() {
            if step.job.as_ref().is_some_and(|start| start.name == self.name) {
                let why = format!("is '{}', the job itself: it would never end", self.name);
                return Err(Invalid::new(format!("{list}[{index}].job.name"), why));
            }
        }
        let mut names = BTreeSet::new();
        for (list, steps) in all {
            for (index, step) in steps.iter().enumerate() {
                let at = |invalid: Invalid| {
                    Invalid::new(format!("{list}[{index}].{}", invalid.field), invalid.problem)
                };
                step.validate().map_err(at)?;
                if step.name == PROBE && self.probe().is_some() {
                    let why = format!("is '{PROBE}', and that is the step of {PROBE_PATH}");
                    return Err(at(Invalid::new("name", why)));
                }
                if !names.insert(step.name.as_str()) {
                    let why = format!("is '{}', and another step has that name", step.name);
                    return Err(at(Invalid::new("name", why)));
                }
            }
        }
        // Each combination of a matrix is a step with a name of its own.
        let plain = self.steps.iter().chain(&self.rollback).filter(|step| step.matrix.is_empty());
        let mut made: BTreeSet<String> = plain.map(|step| step.name.clone()).collect();
        for (index, step) in self.steps.iter().enumerate().filter(|(_, step)| !step.matrix.is_empty()) {
            for number in 1..=combinations(step) {
                let name = matrix::name(&step.name, number);
                if made.contains(&name) {
                    let why = format!("makes a step '{name}', and another one has that name");
                    return Err(Invalid::new(format!("steps[{index}].matrix"), why));
                }
                made.insert(name);
            }
        }
        for (index, step) in self.rollback.iter().enumerate() {
            let wrong = |field: &str, why| Err(Invalid::new(format!("rollback[{index}].{field}"), why));
            if step.is_controllers() {
                return wrong("wait", "is the controller's own; what undoes a host runs on it");
            }
            if !step.matrix.is_empty() {
                return wrong("matrix", "is not for steps of the rollback, which run in sequence");
            }
            if step.needs.is_some() {
                return wrong("needs", "is not for steps of the rollback, which run in sequence");
            }
            if step.on_failure == OnFailure::Rollback {
                return wrong("on_failure", "is rollback, and there is nothing behind the rollback");
            }
        }
        if self.rollback.is_empty()
            && let Some(index) = self.steps.iter().position(|step| step.on_failure == OnFailure::Rollback)
        {
            let why = "is rollback, and the job has no steps under rollback";
            return Err(Invalid::new(format!("steps[{index}].on_failure"), why));
        }
        if self.rollback.is_empty()
            && self.probe().is_some_and(|probe| probe.on_failure == OnFailure::Rollback)
        {
            let why = "is rollback, and the job has no steps under rollback";
            return Err(Invalid::new(format!("{PROBE_PATH}.on_failure"), why));
        }
        if let Some(rollout) = &self.rollout {
            rollout.validate()?;
        }
        let graph = Graph::of(&self.steps)?;
        self.validate_texts(&graph)?;
        if self.lock.as_deref() == Some("host") {
            let why = "is host, and hosts that wait for each other can then wait for ever: it is for the order host, and for jobs \
                       whose steps of the controller's own stand before or behind all steps on hosts";
            if self.order == Order::Step || self.joint(&graph).is_some() {
                return Err(Invalid::new("lock", why));
            }
        }
        if let Some(rollout) = &self.rollout {
            self.fits_rollout(rollout, &graph)?;
        }
        Ok(())
    }

    /// Checks what is filled in and what is asked, with the names that each step knows.
    fn validate_texts(&self, graph: &Graph) -> Result<(), Invalid> {
        let params: BTreeSet<String> = self.parameters.keys().cloned().collect();
        let names = |before: &mut dyn Iterator<Item = usize>, step: &Step| {
            // Of one with a matrix nobody could say which is meant.
            let steps = before.map(|place| &self.steps[place]).filter(|step| step.matrix.is_empty());
            let is_own = step.is_controllers();
            let told =
                |step: &Step| Told { outputs: step.told(), is_gathered: is_own && !step.is_controllers() };
            let steps = steps.map(|step| (step.name.clone(), told(step))).collect();
            let matrix = step.matrix.keys().cloned().collect();
            Names { params: params.clone(), steps, matrix, is_on_no_host: is_own }
        };
        for (place, step) in self.steps.iter().enumerate() {
            let names = names(&mut graph.ancestors(place).iter().copied(), step);
            step.validate_texts(&format!("steps[{place}]"), &names)?;
        }
        let probe = self.probe();
        if let Some(probe) = &probe {
            probe.validate_texts(PROBE_PATH, &names(&mut (0..self.steps.len()), probe))?;
        }
        for (place, step) in self.rollback.iter().enumerate() {
            let mut names = names(&mut (0..self.steps.len()), step);
            names.steps.extend(probe.iter().map(|probe| (probe.name.clone(), Told::default())));
            step.validate_texts(&format!("rollback[{place}]"), &names)?;
        }
        Ok(())
    }

    /// What has to succeed on the hosts of the canary, if anything.
    pub fn probe(&self) -> Option<Step> {
        self.rollout.as_ref()?.canary.as_ref().and_then(Canary::probe)
    }

    /// Where not all hosts are at work at once, each goes through the whole graph before the next begins: what waits for all of
    /// them can only stand before or behind it.
    fn fits_rollout(&self, rollout: &Rollout, graph: &Graph) -> Result<(), Invalid> {
        let field = match (&rollout.canary, &rollout.batches, rollout.max_parallel) {
            (Some(_), ..) => "rollout.canary",
            (None, Some(_), _) => "rollout.batches",
            (None, None, Some(_)) => "rollout.max_parallel",
            (None, None, None) => return Ok(()),
        };
        if self.order == Order::Step {
            let why = "is for the order host: by steps all hosts are at work at once";
            return Err(Invalid::new(field, why));
        }
        if let Some(index) = self.joint(graph) {
            let why = format!(
                "puts '{}' between steps on hosts, and with a canary, batches or max_parallel a step of the controller's \
                 own stands before or behind all of them",
                self.steps[index].name
            );
            return Err(Invalid::new(format!("steps[{index}].needs"), why));
        }
        Ok(())
    }

    /// A step of the controller's own that stands between steps on hosts: there all hosts wait for each other.
    fn joint(&self, graph: &Graph) -> Option<usize> {
        let on_hosts = |other: &usize| !self.steps[*other].is_controllers();
        (0..self.steps.len()).filter(|index| self.steps[*index].is_controllers()).find(|index| {
            let before = graph.ancestors(*index).iter().any(on_hosts);
            let after =
                (0..self.steps.len()).filter(on_hosts).any(|other| graph.ancestors(other).contains(index));
            before && after
        })
    }
}

impl Job {
    fn job_steps(&self) -> impl Iterator<Item = (&'static str, usize, &Step)> {
        let steps = self.steps.iter().enumerate().map(|(place, step)| ("steps", place, step));
        let rollback = self.rollback.iter().enumerate().map(|(place, step)| ("rollback", place, step));
        steps.chain(rollback).filter(|(.., step)| step.job.is_some())
    }

    /// The names of the jobs that it starts.
    pub fn started_names(&self) -> BTreeSet<&str> {
        self.job_steps().filter_map(|(.., step)| Some(step.job.as_ref()?.name.as_str())).collect()
    }

    /// The steps' saved scripts, each with its path in the document.
    pub fn saved_scripts(&mut self) -> impl Iterator<Item = (String, &mut StepScript)> {
        let steps = self.steps.iter_mut().enumerate().map(|(place, step)| ("steps", place, step));
        let rollback = self.rollback.iter_mut().enumerate().map(|(place, step)| ("rollback", place, step));
        let all = steps.chain(rollback).map(|(list, place, step)| (format!("{list}[{place}]"), step));
        let canary = self.rollout.as_mut().and_then(|rollout| rollout.canary.as_mut());
        let probe = canary.and_then(|canary| Some((PROBE_PATH.to_owned(), canary.probe.as_deref_mut()?)));
        all.chain(probe).filter_map(|(prefix, step)| {
            let script = step.script.as_mut().filter(|script| script.used.is_some())?;
            Some((format!("{prefix}.script.use"), script))
        })
    }
}

impl JobTargets {
    /// Checks that exactly one way is chosen, and the selectors.
    ///
    /// # Errors
    /// The first thing that is wrong, as a path below the document.
    pub fn validate(&self) -> Result<(), Invalid> {
        if let Targets::Group(name) = self.chosen()? {
            validate_slug("targets.group", &name)?;
        }
        for (field, text) in [("targets.selector", &self.selector), ("targets.exclude", &self.exclude)] {
            if let Some(text) = text {
                if text.len() > limits::SELECTOR_BYTES {
                    return Err(Invalid::over(field, "SELECTOR_BYTES", limits::SELECTOR_BYTES, "bytes"));
                }
                Selector::parse(text).map_err(|error| Invalid::new(field, error.to_string()))?;
            }
        }
        if self.hosts.len() > limits::NAMED_TARGETS {
            return Err(Invalid::over("targets.hosts", "NAMED_TARGETS", limits::NAMED_TARGETS, "names"));
        }
        for (field, number) in [("targets.limit", self.limit), ("targets.max_targets", self.max_targets)] {
            if number == Some(0) {
                return Err(Invalid::new(field, "is 0; at least 1 is allowed"));
            }
        }
        Ok(())
    }

    /// The one way that is chosen.
    ///
    /// # Errors
    /// When it is none or several.
    pub fn chosen(&self) -> Result<Targets, Invalid> {
        match (&self.selector, self.hosts.as_slice(), self.all, &self.group) {
            (Some(selector), [], false, None) => Ok(Targets::Selector(selector.clone())),
            (None, names @ [_, ..], false, None) => Ok(Targets::Names(names.to_vec())),
            (None, [], true, None) => Ok(Targets::All(true)),
            (None, [], false, Some(group)) => Ok(Targets::Group(group.clone())),
            (None, [], false, None) => {
                Err(Invalid::new("targets", "names no hosts: it has one of selector, hosts, all and group"))
            }
            _ => Err(Invalid::new("targets", "has more than one of selector, hosts, all and group")),
        }
    }
}

#[cfg(test)]
mod tests;
