//! What of a job is dangerous, by the rules. It is told when the job is saved, looked at and planned; by policy it waits for an
//! approval, or is refused.

use model::{
    api::job::Danger,
    command::{Program, Script},
    job::{Approval, Job, Plan},
    limits,
};

use tokio::sync::Semaphore;

use super::App;
use crate::{
    config::Policy,
    error::{Error, Result},
};

/// The places of those who review at a time.
#[derive(Debug)]
pub(crate) struct Reviews(Semaphore);

impl Default for Reviews {
    fn default() -> Self {
        Self(Semaphore::new(limits::REVIEWS))
    }
}

/// Reviews every command of a job. Hostile texts take their time: this runs apart from what answers requests, and few at a
/// time.
///
/// # Errors
/// When it breaks off.
pub(crate) async fn of_job(app: &App, job: &Job) -> Result<Vec<Danger>> {
    let probe = job.probe();
    let steps = job.steps.iter().chain(&probe).chain(&job.rollback);
    of(app, steps.filter_map(|step| Some((step.name.clone(), step.command().ok()??.program))).collect()).await
}

/// The same of a plan.
///
/// # Errors
/// When it breaks off.
pub(crate) async fn of_plan(app: &App, plan: &Plan) -> Result<Vec<Danger>> {
    of(app, commands(plan)).await
}

/// The programs of a plan, each with the name of its step.
fn commands(plan: &Plan) -> Vec<(String, Program)> {
    let steps = plan.steps.iter().enumerate();
    let commands =
        steps.filter_map(|(place, step)| Some((step.name.clone(), plan.command(place)?.program.clone())));
    commands.collect()
}

/// Reviews a script; its name stands for the step.
///
/// # Errors
/// As [`of_job`].
pub(crate) async fn of_script(app: &App, name: &str, script: Script) -> Result<Vec<Danger>> {
    of(app, vec![(name.to_owned(), Program::Script(script))]).await
}

/// That nothing of it is refused here.
///
/// # Errors
/// [`Error::Conflict`] with what is.
pub(crate) fn check(app: &App, dangers: &[Danger]) -> Result<()> {
    match dangers.iter().find(|danger| policy(app, danger) == Policy::Refuse) {
        Some(danger) => Err(refused(danger, "is refused here")),
        None => Ok(()),
    }
}

/// The plan with an approval before all of it, where something dangerous needs one here and has none of its own. Where all is
/// only told nothing is looked at.
///
/// # Errors
/// [`Error::Conflict`] when something is refused here, or cannot wait for an approval.
pub(crate) async fn guard(app: &App, plan: Plan) -> Result<Plan> {
    if app.info.safety.only_warns() {
        return Ok(plan);
    }
    let dangers = of_plan(app, &plan).await?;
    check(app, &dangers)?;
    let mut asks = Vec::new();
    for danger in dangers.iter().filter(|danger| policy(app, danger) == Policy::Approval) {
        let Some(place) = plan.steps.iter().position(|step| step.name == danger.step) else { continue };
        let step = &plan.steps[place];
        let always = plan.steps.iter().any(|step| step.always && !step.is_rollback);
        if step.always || step.is_rollback && always {
            return Err(refused(
                danger,
                "needs an approval here, and what runs always, or undoes what does, waits for none",
            ));
        }
        let gates = if step.is_rollback { before_all(&plan) } else { plan.gates(place) };
        // One that asks only sometimes is none.
        if !gates.iter().any(|gate| plan.steps[*gate].condition.is_none()) {
            asks.push(format!("{}: {} ({})", danger.step, danger.why, danger.rule));
        }
    }
    if asks.is_empty() {
        return Ok(plan);
    }
    let mut message = format!("This is dangerous. {}", asks.join(" "));
    message.truncate(message.floor_char_boundary(limits::DESCRIPTION_BYTES));
    Ok(plan.behind(Approval { message, ..Approval::default() }))
}

/// The approvals that stand before all steps on hosts, so that nothing has to be undone without them.
fn before_all(plan: &Plan) -> Vec<usize> {
    let on_hosts = |place: &usize| plan.steps[*place].work.is_on_hosts() && !plan.steps[*place].is_rollback;
    let mut main = (0..plan.steps.len()).filter(on_hosts).map(|place| plan.gates(place));
    let mut common = main.next().unwrap_or_default();
    for gates in main {
        common.retain(|gate| gates.contains(gate));
    }
    common
}

/// That a command of its own with a rollout may be started here without anybody's approval.
///
/// # Errors
/// As [`check_commands`].
pub(crate) async fn check_plan(app: &App, plan: &Plan) -> Result<()> {
    check_commands(app, commands(plan)).await
}

/// That these, which are of no job, may be started here without anybody's approval. Each has the name of its step.
///
/// # Errors
/// [`Error::Conflict`] when one is refused, or needs one.
pub(crate) async fn check_commands(app: &App, commands: Vec<(String, Program)>) -> Result<()> {
    if app.info.safety.only_warns() {
        return Ok(());
    }
    let dangers = of(app, commands).await?;
    check(app, &dangers)?;
    match dangers.iter().find(|danger| policy(app, danger) == Policy::Approval) {
        Some(danger) => Err(refused(danger, "needs an approval here: save it as a job, which waits for one")),
        None => Ok(()),
    }
}

fn policy(app: &App, danger: &Danger) -> Policy {
    let safety = &app.info.safety;
    match danger.severity.as_str() {
        "notice" => safety.notice,
        "danger" => safety.danger,
        _ => safety.catastrophe,
    }
}

fn refused(danger: &Danger, what: &str) -> Error {
    Error::Conflict(format!(
        "'{}' of '{}' {what}: {} (rule {})",
        danger.text, danger.step, danger.why, danger.rule
    ))
}

async fn of(app: &App, commands: Vec<(String, Program)>) -> Result<Vec<Danger>> {
    let place = app.reviews.0.acquire().await;
    let _place = place.map_err(|error| Error::internal("no place to review", error))?;
    let reviewed = tokio::task::spawn_blocking(move || {
        let each = commands.into_iter().flat_map(|(step, program)| {
            safety::review(&program).findings.into_iter().map(move |finding| Danger {
                step: step.clone(),
                rule: finding.rule,
                severity: severity(finding.severity).to_owned(),
                text: finding.text,
                why: finding.why,
            })
        });
        each.collect()
    });
    reviewed.await.map_err(|error| Error::internal("the commands were not reviewed", error))
}

const fn severity(severity: safety::Severity) -> &'static str {
    match severity {
        safety::Severity::Notice => "notice",
        safety::Severity::Danger => "danger",
        safety::Severity::Catastrophe => "catastrophe",
    }
}
