//! What a step of the controller's own sees of the steps before it: how its own ended, and what those on hosts came to on all
//! of them together.

use std::collections::BTreeSet;

use model::{
    Invalid,
    id::ExecutionId,
    job::{
        Plan, Work as StepWork, condition,
        context::{Context, Gathered, Host, StepResult},
    },
    limits,
    run::RunState,
};
use sqlx::PgConnection;

use super::manifest::Verified;
use crate::{
    error::Result,
    store::{self, progress::NO_AGENT},
};

/// The context of the step at `place`, from what the tables say now; an [`Invalid`] when it would be too much.
///
/// # Errors
/// When the database does not answer.
pub(super) async fn context(
    connection: &mut PgConnection,
    (id, verified): (ExecutionId, &Verified),
    place: usize,
) -> Result<Result<Context, Invalid>> {
    let mut context = verified.context(id, Host::default());
    let Some(plan) = verified.plan() else { return Ok(Ok(context)) };
    let read = match used(plan, place) {
        Ok(read) => read,
        Err(invalid) => return Ok(Err(invalid)),
    };
    for (_, _, own, result) in store::progress::ended(connection, &[id.0], &[NO_AGENT.0]).await? {
        if let Some(step) = plan.steps.get(own) {
            context.steps.insert(step.name.clone(), result);
        }
    }
    let mut bytes = 0;
    let all = store::progress::gathered(connection, id, plan.steps.len()).await?;
    for (other, step) in plan.steps.iter().enumerate() {
        if !step.work.is_on_hosts() || all[other].open > 0 {
            continue;
        }
        let (succeeded, failed) = (all[other].succeeded, all[other].failed);
        let state = match (succeeded, failed) {
            (_, 1..) => RunState::Failed,
            (1.., 0) => RunState::Succeeded,
            (0, 0) => RunState::Skipped,
        };
        let mut hosts = Vec::new();
        let path = format!("steps.{}", step.name);
        let whole = |read: &String| *read == "steps" || *read == path || *read == format!("{path}.hosts");
        if read.iter().any(whole) {
            let number = i16::try_from(other).unwrap_or(i16::MAX);
            bytes += store::progress::bytes_of_results(connection, id, number).await?;
            if bytes > limits::GATHERED_BYTES {
                let field = format!("{path}.hosts");
                return Ok(Err(Invalid::over(field, "GATHERED_BYTES", limits::GATHERED_BYTES, "bytes")));
            }
            hosts = store::progress::results_of_step(connection, id, number).await?;
        }
        let gathered = Some(Gathered { succeeded, failed, hosts });
        let state = state.as_str().to_owned();
        context.steps.insert(step.name.clone(), StepResult { state, gathered, ..StepResult::default() });
    }
    Ok(Ok(context))
}

/// The dotted paths that the step reads.
fn used(plan: &Plan, place: usize) -> Result<BTreeSet<String>, Invalid> {
    let Some(step) = plan.steps.get(place) else { return Ok(BTreeSet::new()) };
    let mut read = BTreeSet::new();
    if let Some(condition) = &step.condition {
        read.extend(condition::used("if", condition)?);
    }
    if step.template {
        match &step.work {
            StepWork::Http(call) => read.extend(call.http.used()?),
            StepWork::Job(started) => read.extend(started.start.used()?),
            _ => {}
        }
    }
    Ok(read)
}
