//! What is frozen of a job when it is started, and signed: its steps as they will run, by their places.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::{
    Graph, Job, Length, OnFailure, Order, Rollout, Step,
    context::Context,
    parameters::Values,
    template::{self, Quote},
};
use crate::{
    Invalid,
    command::{Command, Program},
    id::JobId,
    limits,
};

/// The frozen work of one execution. Those of its steps that undo stand behind the others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    pub job: PlannedJob,
    pub order: Order,
    pub rollout: Rollout,
    /// How long each run may wait for its host once it is its turn.
    pub start_within: Length,
    pub steps: Vec<PlanStep>,
}

/// The version that was started, and with which values.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlannedJob {
    pub id: JobId,
    pub name: String,
    pub version: i32,
    #[serde(default)]
    pub parameters: Values,
}

/// One step, ready to run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlanStep {
    pub name: String,
    /// Places of the steps that have to end before.
    pub needs: Vec<usize>,
    pub work: Work,
    pub on_failure: OnFailure,
    pub always: bool,
    /// It runs only where this holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub condition: Option<String>,
    /// Its command is filled in when it is sent.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub template: bool,
    /// The saved script that it runs, as `NAME@VERSION`; its text is part of the command.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub script: Option<String>,
    /// It undoes, and runs only on a host that is to be rolled back.
    pub is_rollback: bool,
}

/// What a step does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Work {
    /// On each host.
    Command(Box<Command>),
    /// Once, by the controller.
    Wait(Length),
}

impl Work {
    pub const fn is_on_hosts(&self) -> bool {
        matches!(self, Self::Command(_))
    }
}

impl Plan {
    /// Freezes a job that was validated.
    ///
    /// # Errors
    /// Whatever [`Job::validate`] would say of its steps.
    pub fn of(job: &Job, id: JobId, version: i32, parameters: Values) -> Result<Self, Invalid> {
        let environment = parameters.environment();
        let graph = Graph::of(&job.steps)?;
        let mut steps = Vec::with_capacity(job.steps.len() + job.rollback.len());
        for (place, step) in job.steps.iter().enumerate() {
            steps.push(planned(step, graph.needs(place).to_vec(), &environment, false)?);
        }
        for (place, step) in job.rollback.iter().enumerate() {
            let before = place.checked_sub(1).map(|before| job.steps.len() + before);
            steps.push(planned(step, before.into_iter().collect(), &environment, true)?);
        }
        Ok(Self {
            job: PlannedJob { id, name: job.name.clone(), version, parameters },
            order: job.order,
            rollout: job.rollout.clone().unwrap_or_default(),
            start_within: job.start_within.unwrap_or(Length(limits::DEFAULT_START_WITHIN_SECONDS)),
            steps,
        })
    }

    /// The saved scripts that it runs, as `NAME@VERSION`.
    pub fn scripts(&self) -> BTreeSet<&str> {
        self.steps.iter().filter_map(|step| step.script.as_deref()).collect()
    }

    /// Whether anything of it depends on the host, beside what was frozen.
    pub fn looks_at_hosts(&self) -> bool {
        self.steps.iter().any(|step| step.template || step.condition.is_some())
    }

    /// What the step at `place` runs on a host: its command, filled in where it is to be.
    ///
    /// # Errors
    /// When a template cannot be filled in, or what comes out is no command.
    pub fn filled(&self, place: usize, context: &Context) -> Result<Option<Command>, Invalid> {
        let (Some(step), Some(command)) = (self.steps.get(place), self.command(place)) else {
            return Ok(None);
        };
        let mut filled = command.clone();
        if !step.template {
            return Ok(Some(filled));
        }
        let render = |field: &str, text: &mut String, quote| -> Result<(), Invalid> {
            *text = template::render(field, text, context, quote)?;
            Ok(())
        };
        match &mut filled.program {
            Program::Shell(line) => render("run", line, Quote::Shell)?,
            Program::Argv(argv) => argv.iter_mut().try_for_each(|text| render("argv", text, Quote::None))?,
            Program::Script(script) => {
                if step.script.is_none() {
                    render("run", &mut script.content, Quote::Shell)?;
                }
                script.args.iter_mut().try_for_each(|text| render("script.args", text, Quote::None))?;
            }
        }
        let ours = self.job.parameters.environment();
        for (_, text) in filled.env.iter_mut().filter(|(name, _)| !ours.contains_key(*name)) {
            render("env", text, Quote::None)?;
        }
        filled.validate()?;
        Ok(Some(filled))
    }

    /// The command of a step, if it is one that runs on hosts.
    pub fn command(&self, step: usize) -> Option<&Command> {
        match &self.steps.get(step)?.work {
            Work::Command(command) => Some(command),
            Work::Wait(_) => None,
        }
    }
}

fn planned(
    step: &Step,
    needs: Vec<usize>,
    environment: &BTreeMap<String, String>,
    is_rollback: bool,
) -> Result<PlanStep, Invalid> {
    let work = match step.command()? {
        Some(mut command) => {
            command.env.extend(environment.clone());
            command.validate()?;
            Work::Command(Box::new(command))
        }
        None => Work::Wait(step.wait.unwrap_or_default()),
    };
    let (name, on_failure, always) = (step.name.clone(), step.on_failure, step.always);
    let (condition, template) = (step.condition.clone(), step.template);
    let script = step.script.as_ref().and_then(|script| script.used.clone());
    Ok(PlanStep { name, needs, work, on_failure, always, condition, template, script, is_rollback })
}
