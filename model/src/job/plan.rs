//! What is frozen of a job when it is started, and signed: its steps as they will run, by their places.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{
    Approval, Canary, Cell, Graph, HttpCall, Job, Length, Lock, Offline, OnConflict, OnFailure, Order,
    Rollout, StartedJob, Step, condition,
    context::Context,
    document::OWN_VARIABLES,
    matrix,
    parameters::{Values, normal_within},
    template::{self, Quote},
};
use crate::{
    Invalid,
    command::{Command, Program},
    id::{ExecutionId, JobId},
    limits,
};

/// The step of a command of its own.
pub const COMMAND: &str = "command";

/// The frozen work of one execution. Those of its steps that undo stand behind the others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// Absent for a command of its own, which has one step and maybe a probe.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<PlannedJob>,
    /// The execution that it undoes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub undoes: Option<ExecutionId>,
    /// The planned time for which a schedule started it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub due: Option<Timestamp>,
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
    /// It runs on the hosts of the canary alone, behind all of their other steps and the soak.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_probe: bool,
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

    /// Whether others do something for it that nobody can take back: web servers, and other executions.
    pub const fn is_of_others(&self) -> bool {
        matches!(self, Self::Http(_) | Self::Job(_))
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
                    planned.name = matrix::name(&step.name, index + 1);
                }
                steps.push(planned);
            }
        }
        let mut names = BTreeSet::new();
        // Of a version that was saved before it was looked at then.
        if let Some(twice) = steps.iter().find(|step| !names.insert(step.name.clone())) {
            let why = format!("makes a step '{}', and another one has that name", twice.name);
            return Err(Invalid::new("steps", why));
        }
        if let Some(probe) = job.probe() {
            let planned = planned(&probe, last_on_hosts(&steps), &environment, &Cell::new())?;
            // What the controller does behind hosts is behind the probe too.
            let behind: Vec<usize> = (0..next).filter(|place| is_behind_hosts(&steps, *place)).collect();
            behind.into_iter().for_each(|place| steps[place].needs.push(next));
            steps.push(PlanStep { is_probe: true, ..planned });
            next += 1;
        }
        for (place, step) in job.rollback.iter().enumerate() {
            let before = place.checked_sub(1).map(|before| next + before);
            let planned = planned(step, before.into_iter().collect(), &environment, &Cell::new())?;
            steps.push(PlanStep { is_rollback: true, ..planned });
        }
        Ok(Self {
            job: Some(PlannedJob { id, name: job.name.clone(), version, parameters }),
            undoes: None,
            due: None,
            order: job.order,
            rollout: frozen(job.rollout.clone().unwrap_or_default()),
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

    /// Freezes a command of its own that spreads over its hosts.
    ///
    /// # Errors
    /// What is wrong with the rollout, its probe or the command.
    pub fn of_command(command: Command, rollout: &Rollout, start_within: Length) -> Result<Self, Invalid> {
        rollout.validate_of_command()?;
        command.validate()?;
        let mut steps = vec![PlanStep::plain(COMMAND.to_owned(), Work::Command(Box::new(command)))];
        if let Some(probe) = rollout.canary.as_ref().and_then(Canary::probe) {
            let planned = planned(&probe, last_on_hosts(&steps), &BTreeMap::new(), &Cell::new())?;
            steps.push(PlanStep { is_probe: true, ..planned });
        }
        Ok(Self {
            job: None,
            undoes: None,
            due: None,
            order: Order::Host,
            rollout: frozen(rollout.clone()),
            start_within,
            lock: None,
            on_conflict: OnConflict::default(),
            offline: Offline::default(),
            steps,
        })
    }

    /// The name of its job, if it is of one.
    pub fn job_name(&self) -> Option<&str> {
        self.job.as_ref().map(|job| job.name.as_str())
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
        if self.steps[begin].is_probe {
            let why = "is the probe, which is asked behind the other steps: begin with one of those";
            return Err(Invalid::new("from", why));
        }
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
            let others = (0..self.steps.len()).filter(|other| !kept[*other]).map(|other| &self.steps[other]);
            if let Some(why) = step.depends_on(others)? {
                return Err(Invalid::new("from", format!("leaves out {why}: begin with an earlier step")));
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

    /// Tells the steps for when a schedule planned the start: those on hosts find it as `OPSC_DUE`.
    pub fn tell_due(&mut self, due: Timestamp) {
        self.due = Some(due);
        for step in &mut self.steps {
            if let Work::Command(command) = &mut step.work {
                command.env.insert(format!("{OWN_VARIABLES}DUE"), due.to_string());
            }
        }
    }

    /// What undoes it on hosts where nothing of it goes on any more, as a plan of its own: the steps of the rollback, each host by
    /// itself and no more of them at a time than before.
    ///
    /// # Errors
    /// When there are none, or one of them asks how a step ended that is not among them.
    pub fn undo(&self, execution: ExecutionId) -> Result<Self, Invalid> {
        let places: Vec<usize> =
            (0..self.steps.len()).filter(|place| self.steps[*place].is_rollback).collect();
        if places.is_empty() {
            return Err(Invalid::new(
                "rollback",
                "is missing: the job that was started does not say what undoes it",
            ));
        }
        let mut steps = Vec::with_capacity(places.len());
        for place in &places {
            let mut step = self.steps[*place].clone();
            if let Some(why) = step.depends_on(self.steps.iter().filter(|other| !other.is_rollback))? {
                return Err(Invalid::new("rollback", format!("needs {why}: that cannot be told afterwards")));
            }
            step.is_rollback = false;
            step.needs = step.needs.iter().filter_map(|before| places.binary_search(before).ok()).collect();
            if let Work::Command(command) = &mut step.work {
                command.env.insert("OPSC_UNDOES".to_owned(), execution.to_string());
                command
                    .validate()
                    .map_err(|invalid| Invalid::new("rollback", format!("cannot be run alone: {invalid}")))?;
            }
            steps.push(step);
        }
        let rollout = Rollout { max_parallel: self.rollout.max_parallel, ..Rollout::default() };
        Ok(Self { order: Order::Host, rollout, steps, undoes: Some(execution), ..self.clone() })
    }

    /// Whether the step at `place` has a run on each host of this batch.
    pub fn is_on(&self, place: usize, batch: u16) -> bool {
        let step = &self.steps[place];
        step.work.is_on_hosts() && (!step.is_probe || self.rollout.is_canary(batch))
    }

    /// Whether the hosts of the canary are asked anything.
    pub fn has_probe(&self) -> bool {
        self.steps.iter().any(|step| step.is_probe)
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

/// Whether the step at `place` is the controller's own, and waits for one on hosts.
fn is_behind_hosts(steps: &[PlanStep], place: usize) -> bool {
    let (mut open, mut seen) = (steps[place].needs.clone(), BTreeSet::new());
    while let Some(before) = open.pop().filter(|_| !steps[place].work.is_on_hosts()) {
        if steps[before].work.is_on_hosts() {
            return true;
        }
        if seen.insert(before) {
            open.extend(&steps[before].needs);
        }
    }
    false
}

impl PlanStep {
    /// The first of `others` that its condition asks about, or whose outputs its texts read: what it is and what for.
    fn depends_on<'a>(&self, others: impl Iterator<Item = &'a Self>) -> Result<Option<String>, Invalid> {
        let used = match &self.condition {
            Some(condition) => condition::used("if", condition)?,
            None => Default::default(),
        };
        let (mut read, mut text) = (Vec::new(), String::new());
        match &self.work {
            Work::Http(call) if self.template => read = call.http.used()?,
            Work::Job(started) if self.template => read = started.start.used()?,
            work if self.template => text = serde_json::to_string(work).unwrap_or_default(),
            _ => {}
        }
        for other in others {
            let name = &other.name;
            let (path, below) = (format!("steps.{name}"), format!("steps.{name}."));
            let asks = |used: &String| *used == path || used.starts_with(&below) || used == "steps";
            if used.iter().any(asks) {
                let why = format!("'{name}', and the condition of '{}' asks how it ended", self.name);
                return Ok(Some(why));
            }
            let reads = [below.clone(), format!("steps['{name}']"), format!("steps[\\\"{name}\\\"]")];
            if read.iter().any(asks) || reads.iter().any(|path| text.contains(path.as_str())) {
                return Ok(Some(format!("'{name}', and '{}' reads what it told", self.name)));
            }
        }
        Ok(None)
    }

    /// A step that needs nothing and says nothing beside what it does.
    pub(super) fn plain(name: String, work: Work) -> Self {
        Self {
            name,
            needs: Vec::new(),
            work,
            on_failure: OnFailure::default(),
            always: false,
            condition: None,
            template: false,
            matrix: Cell::new(),
            script: None,
            is_rollback: false,
            is_probe: false,
        }
    }
}

/// The probe is one of the steps; there is no second text of it.
fn frozen(mut rollout: Rollout) -> Rollout {
    if let Some(canary) = &mut rollout.canary {
        canary.probe = None;
    }
    rollout
}

/// The steps on hosts behind which none stands that is on hosts too.
fn last_on_hosts(steps: &[PlanStep]) -> Vec<usize> {
    let on_hosts = || (0..steps.len()).filter(|place| steps[*place].work.is_on_hosts());
    on_hosts().filter(|place| !on_hosts().any(|other| steps[other].needs.contains(place))).collect()
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
    Ok(PlanStep {
        needs,
        on_failure: step.on_failure,
        always: step.always,
        condition: step.condition.clone(),
        template: step.template,
        matrix: cell.clone(),
        script: step.script.as_ref().and_then(|script| script.used.clone()),
        ..PlanStep::plain(step.name.clone(), work)
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
    fn the_probe_is_a_step_and_what_is_left_keeps_it() {
        let job = "name: x\nrollout: {canary: {hosts: 1, probe: {run: ok}}}\nsteps:\n  - {name: a, run: x}\n  \
                   - {name: b, run: x}\n  - {name: rest, wait: 1s}\n";
        let plan = Plan::of(&crate::job::parse(job).unwrap(), JobId(uuid::Uuid::nil()), 1, Values::default())
            .unwrap();
        let all = [("a", vec![]), ("b", vec!["a"]), ("rest", vec!["b", "probe"]), ("probe", vec!["b"])];
        assert_eq!(shape(&plan), all);
        assert_eq!(
            plan.rollout.canary.as_ref().map(|canary| &canary.probe),
            Some(&None),
            "no second text of it"
        );
        let behind = plan.from("b", false).unwrap();
        assert_eq!(shape(&behind), [("b", vec![]), ("rest", vec!["b", "probe"]), ("probe", vec!["b"])]);
        assert!(behind.is_on(2, 0) && !behind.is_on(2, 1));
        assert_eq!(shape(&plan.from("b", true).unwrap()), [("b", vec![])]);
        assert!(plan.from("probe", false).unwrap_err().problem.contains("is the probe"));
    }

    #[test]
    fn a_command_of_its_own_is_one_step_and_a_probe() {
        let command = |shell: &str| Command::new(Program::Shell(shell.to_owned()));
        let rollout = |text: &str| serde_json::from_str::<Rollout>(text).unwrap();
        let of = |text: &str| Plan::of_command(command("x"), &rollout(text), Length(60));
        let plan = of(r#"{"canary": {"hosts": 1, "probe": {"run": "y"}}, "batches": ["10%"]}"#).unwrap();
        assert_eq!(shape(&plan), [("command", vec![]), ("probe", vec!["command"])]);
        assert!(plan.job.is_none() && !serde_json::to_string(&plan).unwrap().contains("\"job\""));
        for (text, words) in [
            (r#"{"batches": []}"#, "rollout.batches is empty"),
            (
                r#"{"canary": {"hosts": 1, "probe": {"run": "y", "on_failure": "rollback"}}}"#,
                "nothing that undoes it",
            ),
            (
                r#"{"canary": {"hosts": 1, "probe": {"script": {"use": "a@1"}}}}"#,
                "probe.script.use is a saved script",
            ),
            (r#"{"canary": {"hosts": 1, "probe": {"run": "y", "if": "params.a == 1"}}}"#, "probe.if"),
            (r#"{"canary": {"hosts": 1, "probe": {"run": ""}}}"#, "rollout.canary.probe.run is empty"),
        ] {
            let refused = of(text).unwrap_err().to_string();
            assert!(refused.contains(words), "{text}: {refused}");
        }
        of(r#"{"canary": {"hosts": 1, "probe": {"run": "y", "if": "steps.command.exit_code == 0"}}}"#)
            .unwrap();
    }

    #[test]
    fn what_undoes_a_plan_is_its_rollback() {
        let of = |undo: &str| {
            let text = format!(
                "name: x\norder: step\nrollout: {{max_failures: 1}}\nsteps:\n  - {{name: a, run: x, outputs: [o]}}\n\
                 rollback:\n  - {{name: u, run: y, on_failure: continue}}\n  - {undo}\n"
            );
            let job = crate::job::parse(&text).unwrap();
            let plan = Plan::of(&job, JobId(uuid::Uuid::nil()), 1, Values::default()).unwrap();
            plan.undo(ExecutionId(uuid::Uuid::nil()))
        };
        let undo = of("{name: v, run: y, if: execution.undoes != ''}").unwrap();
        assert_eq!(shape(&undo), [("u", vec![]), ("v", vec!["u"])]);
        assert!(undo.steps.iter().all(|step| !step.is_rollback) && undo.order == Order::Host);
        assert_eq!(undo.rollout, Rollout::default(), "no failure of an undo holds others back");
        let env = &undo.command(1).unwrap().env;
        assert_eq!(env["OPSC_UNDOES"], uuid::Uuid::nil().to_string());
        for (step, words) in [
            ("{name: v, run: y, if: steps.a.state == 'failed'}", "the condition of 'v' asks how it ended"),
            ("{name: v, run: 'y {{ steps.a.outputs.o }}', template: true}", "'v' reads what it told"),
        ] {
            let refused = of(step).unwrap_err().to_string();
            assert!(refused.contains(words), "{refused}");
        }
        let refused = plan_of("  - {name: a, run: x}\n").undo(ExecutionId(uuid::Uuid::nil())).unwrap_err();
        assert!(refused.problem.contains("does not say what undoes it"), "{refused}");
    }

    #[test]
    fn what_was_signed_before_has_the_same_bytes() {
        // Neither a probe nor what it undoes is said where there is none.
        let text = serde_json::to_string(&plan_of("  - {name: a, run: x}\n")).unwrap();
        let begin =
            r#"{"job":{"id":"00000000-0000-0000-0000-000000000000","name":"x","version":1,"parameters":{}},"#
                .to_owned()
                + r#""order":"host","rollout":{},"start_within":300,"steps":[{"name":"a","needs":[],"work":{"command":{"#;
        let end = r#"}},"on_failure":"stop","always":false,"is_rollback":false}]}"#;
        assert!(text.starts_with(&begin) && text.ends_with(end), "{text}");
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
