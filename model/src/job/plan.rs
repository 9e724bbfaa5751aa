//! What is frozen of a job when it is started, and signed: its steps as they will run, by their places.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::{
    Approval, Cell, Graph, HttpCall, Job, Length, Lock, Offline, OnConflict, OnFailure, Order, Rollout,
    StartedJob, Step, condition,
    context::Context,
    document::OWN_VARIABLES,
    matrix,
    parameters::{Values, normal_within},
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
    /// What only one execution may hold at a time; see [`Lock`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lock: Option<String>,
    #[serde(default, skip_serializing_if = "OnConflict::is_default")]
    pub on_conflict: OnConflict,
    #[serde(default, skip_serializing_if = "Offline::is_default")]
    pub offline: Offline,
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
    /// Its values, where it is one combination of a matrix.
    #[serde(default, skip_serializing_if = "Cell::is_empty")]
    pub matrix: Cell,
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
    /// People decide, once for all hosts.
    Approval(Box<Approval>),
    /// The controller asks a web server, once for all hosts.
    Http(Box<HttpCall>),
    /// Another job, once for all hosts.
    Job(Box<StartedJob>),
}

impl Work {
    pub const fn is_on_hosts(&self) -> bool {
        matches!(self, Self::Command(_))
    }

    pub(super) fn command_mut(&mut self) -> Option<&mut Command> {
        match self {
            Self::Command(command) => Some(command),
            _ => None,
        }
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
        // Where each step of the document stands in the plan: several times, where it has a matrix.
        let cells: Vec<Vec<Cell>> = job.steps.iter().map(|step| matrix::cells(&step.matrix)).collect();
        let mut places = Vec::with_capacity(cells.len());
        let mut next = 0;
        for cells in &cells {
            places.push(next..next + cells.len());
            next += cells.len();
        }
        let mut steps = Vec::with_capacity(next + job.rollback.len());
        for (place, step) in job.steps.iter().enumerate() {
            let needs: Vec<usize> =
                graph.needs(place).iter().flat_map(|need| places[*need].clone()).collect();
            for (index, cell) in cells[place].iter().enumerate() {
                let mut planned = planned(step, needs.clone(), &environment, cell)?;
                if !cell.is_empty() {
                    planned.name = format!("{}.{}", step.name, index + 1);
                }
                steps.push(planned);
            }
        }
        let mut names = BTreeSet::new();
        if let Some(twice) = steps.iter().find(|step| !names.insert(step.name.clone())) {
            let why = format!("makes a step '{}', and another one has that name", twice.name);
            return Err(Invalid::new("steps", why));
        }
        for (place, step) in job.rollback.iter().enumerate() {
            let before = place.checked_sub(1).map(|before| next + before);
            let planned = planned(step, before.into_iter().collect(), &environment, &Cell::new())?;
            steps.push(PlanStep { is_rollback: true, ..planned });
        }
        Ok(Self {
            job: PlannedJob { id, name: job.name.clone(), version, parameters },
            order: job.order,
            rollout: job.rollout.clone().unwrap_or_default(),
            start_within: job.start_within.unwrap_or(Length(limits::DEFAULT_START_WITHIN_SECONDS)),
            lock: job.lock.clone(),
            on_conflict: job.on_conflict,
            offline: job.offline,
            steps,
        })
    }

    /// The same plan with its numbers as they come back from the database: what was signed of it holds.
    ///
    /// # Errors
    /// When it cannot be written as JSON.
    pub fn normal(&self) -> Result<Self, serde_json::Error> {
        let mut value = serde_json::to_value(self)?;
        normal_within(&mut value);
        serde_json::from_value(value)
    }

    /// The same plan without the steps that `from` needs: from that step on, or with `only` that one alone. Approvals that stand
    /// before what is left stay, and so does what undoes.
    ///
    /// # Errors
    /// When there is no such step, or a step that is left asks how one ended that is left out.
    pub fn from(&self, from: &str, only: bool) -> Result<Self, Invalid> {
        let known = self.steps.iter().position(|step| step.name == from && !step.is_rollback);
        let begin = known.ok_or_else(|| {
            Invalid::new("from", format!("is '{from}', and the job that was started has no such step"))
        })?;
        let mut kept = vec![false; self.steps.len()];
        kept[begin] = true;
        if !only {
            // What needs a step stands behind it or not: a graph is in no order.
            loop {
                let next = (0..self.steps.len()).find(|place| {
                    let step = &self.steps[*place];
                    !kept[*place] && !step.is_rollback && step.needs.iter().any(|before| kept[*before])
                });
                let Some(next) = next else { break };
                kept[next] = true;
            }
        }
        for place in 0..self.steps.len() {
            if kept[place] {
                self.gates(place).into_iter().for_each(|gate| kept[gate] = true);
            }
            kept[place] |= self.steps[place].is_rollback;
        }
        let places: Vec<usize> = (0..self.steps.len()).filter(|place| kept[*place]).collect();
        let moved = |before: &usize| places.binary_search(before).ok();
        let mut steps = Vec::with_capacity(places.len());
        for place in &places {
            let mut step = self.steps[*place].clone();
            if let Some(condition) = &step.condition {
                let used = condition::used("if", condition)?;
                let left_out = |other: &&PlanStep| {
                    let path = format!("steps.{}", other.name);
                    used.iter()
                        .any(|used| *used == path || used.starts_with(&format!("{path}.")) || used == "steps")
                };
                let others =
                    (0..self.steps.len()).filter(|other| !kept[*other]).map(|other| &self.steps[other]);
                if let Some(other) = others.into_iter().find(|other| left_out(other)) {
                    let why = format!(
                        "leaves out '{}', and the condition of '{}' asks how it ended: begin with an earlier step",
                        other.name, step.name
                    );
                    return Err(Invalid::new("from", why));
                }
            }
            if step.template {
                let used = match &step.work {
                    Work::Http(call) => Some(call.http.used()?),
                    Work::Job(started) => Some(started.start.used()?),
                    _ => None,
                };
                let text = serde_json::to_string(&step.work).unwrap_or_default();
                let reads = |other: &&PlanStep| {
                    let name = &other.name;
                    if let Some(used) = &used {
                        let path = format!("steps.{name}");
                        let below = format!("{path}.");
                        return used
                            .iter()
                            .any(|used| *used == "steps" || *used == path || used.starts_with(&below));
                    }
                    [format!("steps.{name}."), format!("steps['{name}']"), format!("steps[\\\"{name}\\\"]")]
                        .iter()
                        .any(|path| text.contains(path.as_str()))
                };
                let mut others =
                    (0..self.steps.len()).filter(|other| !kept[*other]).map(|other| &self.steps[other]);
                if let Some(other) = others.find(reads) {
                    let why = format!(
                        "leaves out '{}', and '{}' reads what it told: begin with an earlier step",
                        other.name, step.name
                    );
                    return Err(Invalid::new("from", why));
                }
            }
            // What is left out is done; what stood before it is not waited for twice.
            step.needs = step.needs.iter().filter_map(moved).collect();
            for gate in self.gates(*place) {
                let gate = places.binary_search(&gate).ok();
                step.needs.extend(gate.filter(|gate| !step.needs.contains(gate)));
            }
            steps.push(step);
        }
        Ok(Self { steps, ..self.clone() })
    }

    /// The saved scripts that it runs, as `NAME@VERSION`.
    pub fn scripts(&self) -> BTreeSet<&str> {
        self.steps.iter().filter_map(|step| step.script.as_deref()).collect()
    }

    /// Whether anything of it depends on the host, beside what was frozen.
    pub fn looks_at_hosts(&self) -> bool {
        self.steps.iter().any(|step| step.template || step.condition.is_some())
    }

    /// Whether steps tell something that later ones can read.
    pub fn has_outputs(&self) -> bool {
        self.steps.iter().any(|step| match &step.work {
            Work::Command(command) => !command.outputs.is_empty(),
            Work::Approval(approval) => !approval.input.is_empty(),
            Work::Http(_) | Work::Job(_) => true,
            Work::Wait(_) => false,
        })
    }

    /// What the step at `place` runs on a host: its command, filled in where it is to be.
    ///
    /// # Errors
    /// When a template cannot be filled in, or what comes out is no command.
    pub fn filled(&self, place: usize, context: &Context) -> Result<Option<Command>, Invalid> {
        let (Some(step), Some(command)) = (self.steps.get(place), self.command(place)) else {
            return Ok(None);
        };
        let in_matrix = Context { matrix: step.matrix.clone(), ..context.clone() };
        let context = if step.matrix.is_empty() { context } else { &in_matrix };
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
        for (_, text) in filled.env.iter_mut().filter(|(name, _)| !name.starts_with(OWN_VARIABLES)) {
            render("env", text, Quote::None)?;
        }
        filled.validate()?;
        Ok(Some(filled))
    }

    /// What only one execution may hold at a time.
    pub fn lock(&self) -> Option<Lock<'_>> {
        self.lock.as_deref().map(Lock::of)
    }

    /// Whether any step runs on hosts.
    pub fn has_steps_on_hosts(&self) -> bool {
        self.steps.iter().any(|step| step.work.is_on_hosts())
    }

    /// The command of a step, if it is one that runs on hosts.
    pub fn command(&self, step: usize) -> Option<&Command> {
        match &self.steps.get(step)?.work {
            Work::Command(command) => Some(command),
            _ => None,
        }
    }
}

fn planned(
    step: &Step,
    needs: Vec<usize>,
    environment: &BTreeMap<String, String>,
    cell: &Cell,
) -> Result<PlanStep, Invalid> {
    let work = match step.command()? {
        Some(mut command) => {
            command.env.extend(environment.clone());
            command.env.extend(matrix::environment(cell));
            command.validate()?;
            Work::Command(Box::new(command))
        }
        None => step.own_work(),
    };
    let (name, on_failure, always) = (step.name.clone(), step.on_failure, step.always);
    let (condition, template) = (step.condition.clone(), step.template);
    let matrix = cell.clone();
    let script = step.script.as_ref().and_then(|script| script.used.clone());
    Ok(PlanStep {
        name,
        needs,
        work,
        on_failure,
        always,
        condition,
        template,
        matrix,
        script,
        is_rollback: false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan_of(steps: &str) -> Plan {
        let job = crate::job::parse(&format!("name: x\nsteps:\n{steps}")).unwrap();
        Plan::of(&job, JobId(uuid::Uuid::nil()), 1, Values::default()).unwrap()
    }

    fn shape(plan: &Plan) -> Vec<(&str, Vec<&str>)> {
        let name = |place: &usize| plan.steps[*place].name.as_str();
        plan.steps.iter().map(|step| (step.name.as_str(), step.needs.iter().map(name).collect())).collect()
    }

    const STEPS: &str = "  - {name: a, run: x}\n  - {name: ok, approval: {}}\n  - {name: b, run: x}\n  \
                         - {name: c, run: x, needs: [b]}\n  - {name: d, run: x, needs: [a]}\n";

    #[test]
    fn from_a_step_on_what_it_needs_is_left_out_but_for_approvals() {
        let plan = plan_of(STEPS);
        let behind = plan.from("b", false).unwrap();
        assert_eq!(shape(&behind), [("ok", vec![]), ("b", vec!["ok"]), ("c", vec!["b", "ok"])]);
        assert_eq!(shape(&plan.from("c", true).unwrap()), [("ok", vec![]), ("c", vec!["ok"])]);
        assert_eq!(shape(&plan.from("d", false).unwrap()), [("d", vec![])]);
        assert_eq!(plan.from("a", false).unwrap(), {
            let mut whole = plan.clone();
            whole.steps[3].needs = vec![2, 1];
            whole
        });
        assert!(plan.from("z", false).unwrap_err().problem.contains("no such step"));
    }

    #[test]
    fn nothing_that_is_left_asks_for_what_is_left_out() {
        let plan = plan_of("  - {name: a, run: x}\n  - {name: b, run: x, if: steps.a.exit_code == 0}\n");
        let refused = plan.from("b", false).unwrap_err();
        assert!(refused.problem.contains("leaves out 'a'"), "{refused}");
        for path in ["steps.a.outputs.v", "steps['a'].outputs.v", "steps[\\\"a\\\"].outputs.v"] {
            let text = format!(
                "  - {{name: a, run: x, outputs: [v]}}\n  - {{name: b, template: true, run: \"x {{{{ {path} }}}}\"}}\n"
            );
            let refused = plan_of(&text).from("b", false).unwrap_err();
            assert!(refused.problem.contains("leaves out 'a'"), "{path}: {refused}");
        }
    }
}
