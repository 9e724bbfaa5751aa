//! What of a job is dangerous, by the rules. It is told when the job is saved, looked at and planned; nothing is refused.

use model::{api::job::Danger, job::Job};

use crate::error::{Error, Result};

/// Reviews every command of a job. Hostile texts take their time: this runs apart from what answers requests.
///
/// # Errors
/// When it breaks off.
pub(crate) async fn of_job(job: &Job) -> Result<Vec<Danger>> {
    let steps = job.steps.iter().chain(&job.rollback);
    let commands: Vec<_> =
        steps.filter_map(|step| Some((step.name.clone(), step.command().ok()??.program))).collect();
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
