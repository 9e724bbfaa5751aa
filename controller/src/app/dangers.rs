//! What of a job is dangerous, by the rules. It is told when the job is saved, looked at and planned; nothing is refused.

use model::{
    api::job::Danger,
    command::Program,
    job::{Job, Plan},
    limits,
};

use tokio::sync::Semaphore;

use super::App;
use crate::error::{Error, Result};

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
    let steps = job.steps.iter().chain(&job.rollback);
    of(app, steps.filter_map(|step| Some((step.name.clone(), step.command().ok()??.program))).collect()).await
}

/// The same of a plan.
///
/// # Errors
/// When it breaks off.
pub(crate) async fn of_plan(app: &App, plan: &Plan) -> Result<Vec<Danger>> {
    let steps = plan.steps.iter().enumerate();
    let commands =
        steps.filter_map(|(place, step)| Some((step.name.clone(), plan.command(place)?.program.clone())));
    of(app, commands.collect()).await
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
    reviewed.await.map_err(|error| Error::internal("a job was not reviewed", error))
}

const fn severity(severity: safety::Severity) -> &'static str {
    match severity {
        safety::Severity::Notice => "notice",
        safety::Severity::Danger => "danger",
        safety::Severity::Catastrophe => "catastrophe",
    }
}
