//! What is frozen of a job when it is started, and signed: its steps as they will run, by their places.

use serde::{Deserialize, Serialize};

use super::{Graph, Job, Length, OnFailure, Order, Rollout, Step};
use crate::{Invalid, command::Command, id::JobId, limits};

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

/// The version that was started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlannedJob {
    pub id: JobId,
    pub name: String,
    pub version: i32,
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
    /// It undoes, and runs only on a host that is to be rolled back.
    pub is_rollback: bool,
}

/// What a step does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Work {
    /// On each host.
    Command(Command),
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
    pub fn of(job: &Job, id: JobId, version: i32) -> Result<Self, Invalid> {
        let graph = Graph::of(&job.steps)?;
        let mut steps = Vec::with_capacity(job.steps.len() + job.rollback.len());
        for (place, step) in job.steps.iter().enumerate() {
            steps.push(planned(step, graph.needs(place).to_vec(), false)?);
        }
        for (place, step) in job.rollback.iter().enumerate() {
            let before = place.checked_sub(1).map(|before| job.steps.len() + before);
            steps.push(planned(step, before.into_iter().collect(), true)?);
        }
        Ok(Self {
            job: PlannedJob { id, name: job.name.clone(), version },
            order: job.order,
            rollout: job.rollout.clone().unwrap_or_default(),
            start_within: job.start_within.unwrap_or(Length(limits::DEFAULT_START_WITHIN_SECONDS)),
            steps,
        })
    }

    /// The command of a step, if it is one that runs on hosts.
    pub fn command(&self, step: usize) -> Option<&Command> {
        match &self.steps.get(step)?.work {
            Work::Command(command) => Some(command),
            Work::Wait(_) => None,
        }
    }
}

fn planned(step: &Step, needs: Vec<usize>, is_rollback: bool) -> Result<PlanStep, Invalid> {
    let work = match step.command()? {
        Some(command) => Work::Command(command),
        None => Work::Wait(step.wait.unwrap_or_default()),
    };
    let (name, on_failure, always) = (step.name.clone(), step.on_failure, step.always);
    Ok(PlanStep { name, needs, work, on_failure, always, is_rollback })
}
