//! What the lines of an execution's output stand behind: the host, and in a job `host/step`.

use std::collections::HashMap;

use model::{
    api::{
        execution::{Execution, Run},
        job::Results,
        output::OutputPiece,
    },
    id::RunId,
};

use crate::client::{Client, Error};

/// Who does the steps that are done once for all hosts.
pub(crate) const CONTROLLER: &str = "controller";

/// The runs of a job, or of a command with a rollout, by their steps. Of another command there are none.
#[derive(Debug, Default)]
pub(crate) struct Labels {
    /// Names of the steps.
    steps: Vec<String>,
    /// Place of the step, and `host/step`.
    runs: HashMap<RunId, (usize, String)>,
}

impl Labels {
    /// # Errors
    /// As the request.
    pub(crate) async fn of(client: &Client, execution: &Execution) -> Result<Self, Error> {
        if execution.rollout.is_none() {
            return Ok(Self::default());
        }
        Ok(Self::from(client.results(execution.id, None).await?))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// The labels of one host, or of all.
    pub(crate) fn of_host(&self, host: Option<&str>) -> impl Iterator<Item = &str> {
        let is_of = move |label: &&str| {
            host.is_none_or(|host| label.strip_prefix(host).is_some_and(|rest| rest.starts_with('/')))
        };
        self.runs.values().map(|(_, label)| label.as_str()).filter(is_of)
    }

    pub(crate) fn has_step(&self, step: &str) -> bool {
        self.steps.iter().any(|name| name == step)
    }

    pub(crate) fn is_of(&self, run: RunId, step: &str) -> bool {
        self.runs.get(&run).is_some_and(|(index, _)| self.steps[*index] == step)
    }

    /// Names the piece's step behind its host.
    pub(crate) fn put(&self, piece: &mut OutputPiece) {
        if let Some((_, label)) = self.runs.get(&piece.run_id) {
            piece.target.clone_from(label);
        }
    }
}

impl From<Results> for Labels {
    fn from(results: Results) -> Self {
        let steps: Vec<String> = results.steps.into_iter().map(|step| step.name).collect();
        let mut runs = HashMap::new();
        let mut take = |target: &str, cells: Vec<Option<model::api::job::Cell>>| {
            for (index, (cell, step)) in cells.into_iter().zip(&steps).enumerate() {
                if let Some(cell) = cell {
                    runs.insert(cell.run_id, (index, format!("{target}/{step}")));
                }
            }
        };
        take(CONTROLLER, results.controller);
        results.hosts.into_iter().for_each(|row| take(&row.target, row.runs));
        Self { steps, runs }
    }
}

/// The name that a run has in tables.
pub(crate) fn of_run(run: &Run) -> String {
    let target = if run.target.is_empty() { CONTROLLER } else { &run.target };
    run.step_name.as_ref().map_or_else(|| target.to_owned(), |step| format!("{target}/{step}"))
}
