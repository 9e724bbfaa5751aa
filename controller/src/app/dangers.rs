//! What of a job is dangerous, by the rules. It is told when the job is saved, looked at and planned; nothing is refused.

use model::{
    api::job::Danger,
    command::{Program, Script},
    job::Job,
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
    let commands = steps.filter_map(|step| Some((step.name.clone(), step.command().ok()??.program)));
    review(app, commands.collect()).await
}

/// Reviews a script; its name stands for the step.
///
/// # Errors
/// As [`of_job`].
pub(crate) async fn of_script(app: &App, name: &str, script: Script) -> Result<Vec<Danger>> {
    review(app, vec![(name.to_owned(), Program::Script(script))]).await
}

async fn review(app: &App, commands: Vec<(String, Program)>) -> Result<Vec<Danger>> {
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
