//! `opsctl approval`: what people are asked before a job goes on.

use std::collections::BTreeMap;

use anyhow::Result;
use jiff::Timestamp;
use model::{
    api::approval::{ApprovalRequest, Decide},
    id::ExecutionId,
    job::{Choice, parameters::from_text},
    run::RunState,
};
use serde_json::Value;

use crate::{
    args::{ApprovalCommand, DecideArgs},
    client::Client,
    clock,
    exit::{Exit, Usage},
    output::{self, Table, human},
};

/// # Errors
/// As the requests, and when stdout is closed or full.
pub(crate) async fn run(client: &Client, command: ApprovalCommand) -> Result<Exit> {
    match command {
        ApprovalCommand::List(shown) => {
            let now = clock::now();
            let header = &["EXECUTION", "STEP", "JOB", "HOSTS", "STARTED BY", "HAS", "EXPIRES"];
            let pages = client.pages(&["api", "v1", "approvals"], Vec::new(), None);
            output::list(pages, shown.output, header, |asked: &ApprovalRequest| {
                vec![
                    asked.execution_id.to_string(),
                    asked.step.clone(),
                    asked.summary.clone(),
                    asked.hosts.to_string(),
                    asked.actor.clone(),
                    so_far(asked),
                    human::or_dash(asked.expires_at.map(|at| human::relative(at, now))),
                ]
            })
            .await?;
        }
        ApprovalCommand::Show(one) => {
            let asked = asked(client, one.id).await?;
            let now = clock::now();
            output::show(one.shown.output, &asked, |asked| {
                if asked.is_empty() {
                    return "it asks nobody\n".to_owned();
                }
                let each: Vec<String> = asked.iter().map(|asked| describe(asked, now)).collect();
                each.join("\n")
            })?;
        }
        ApprovalCommand::Approve { what, reason, inputs } => {
            decide(client, what, Choice::Approve, reason, &inputs).await?;
        }
        ApprovalCommand::Reject { what, reason } => {
            decide(client, what, Choice::Reject, Some(reason), &[]).await?;
        }
        ApprovalCommand::BreakGlass { what, reason, inputs } => {
            decide(client, what, Choice::BreakGlass, Some(reason), &inputs).await?;
        }
    }
    Ok(Exit::Succeeded)
}

async fn asked(client: &Client, id: ExecutionId) -> Result<Vec<ApprovalRequest>> {
    Ok(client.get(&["api", "v1", "executions", &id.to_string(), "approvals"], &[]).await?)
}

async fn decide(
    client: &Client,
    what: DecideArgs,
    decision: Choice,
    reason: Option<String>,
    inputs: &[(String, String)],
) -> Result<()> {
    let id = what.execution.id;
    let all = asked(client, id).await?;
    let one = meant(&all, what.step.as_deref())?;
    let request = Decide {
        decision,
        hash: what.hash.unwrap_or_else(|| one.hash.clone()),
        reason,
        input: values(one, inputs)?,
    };
    let path = ["api", "v1", "executions", &id.to_string(), "approvals", &one.step];
    let after: ApprovalRequest = client.post(&path, &request).await?;
    output::show(what.execution.shown.output, &after, |after| match decision {
        Choice::Approve => format!("approved '{}': it has {}\n", after.step, so_far(after)),
        Choice::Reject => format!("rejected '{}': it does not go on\n", after.step),
        Choice::BreakGlass => format!("'{}' goes on without its approvals; the audit says so\n", after.step),
    })
}

/// The step of this name, or the one that waits.
fn meant<'a>(all: &'a [ApprovalRequest], step: Option<&str>) -> Result<&'a ApprovalRequest> {
    let problem = match step {
        Some(step) => match all.iter().find(|asked| asked.step == step) {
            Some(one) => return Ok(one),
            None => format!("the execution has no approval '{step}'"),
        },
        None => {
            let mut waiting = all.iter().filter(|asked| asked.state == RunState::Active);
            match (waiting.next(), waiting.next()) {
                (Some(one), None) => return Ok(one),
                (Some(_), Some(_)) => "several steps of the execution wait: say which".to_owned(),
                (None, _) => "no step of the execution waits for an approval".to_owned(),
            }
        }
    };
    Err(Usage(problem).into())
}

/// What is asked with it, as its types read the texts.
fn values(asked: &ApprovalRequest, given: &[(String, String)]) -> Result<BTreeMap<String, Value>> {
    let mut values = BTreeMap::new();
    for (name, text) in given {
        let value = match asked.asks.input.get(name) {
            Some(parameter) => from_text(parameter, text)
                .map_err(|invalid| Usage(format!("the input '{name}' {}", invalid.problem)))?,
            // The controller says which there are.
            None => Value::String(text.clone()),
        };
        if values.insert(name.clone(), value).is_some() {
            return Err(Usage(format!("the input '{name}' is given twice")).into());
        }
    }
    Ok(values)
}

fn so_far(asked: &ApprovalRequest) -> String {
    let made = asked.decisions.iter().filter(|made| made.decision == Choice::Approve).count();
    format!("{made} of {}", asked.asks.count())
}

fn describe(asked: &ApprovalRequest, now: Timestamp) -> String {
    let mut table = Table::plain();
    let mut row = |name: &str, value: String| table.row([name.to_owned(), value]);
    row("Step", asked.step.clone());
    row("State", asked.state.as_str().to_owned());
    if !asked.asks.message.is_empty() {
        row("Message", asked.asks.message.clone());
    }
    row("Asks", asked.asks.summary());
    row("Has", so_far(asked));
    row("Job", asked.summary.clone());
    for (name, value) in asked.job.iter().flat_map(|job| &job.parameters) {
        row("Parameter", format!("{name} = {value}"));
    }
    row("Hosts", asked.hosts.to_string());
    row("Started by", asked.actor.clone());
    for (name, parameter) in &asked.asks.input {
        let about = parameter.description.as_deref().map(|text| format!(": {text}")).unwrap_or_default();
        row("Input", format!("{name}{}{about}", if parameter.required { " (required)" } else { "" }));
    }
    if let Some(at) = asked.expires_at.filter(|_| asked.state == RunState::Active) {
        row("Expires", human::moment(at, now));
    }
    row("Hash", asked.hash.clone());
    let mut text = table.take();
    if !asked.decisions.is_empty() {
        let mut decisions = Table::new(&["WHO", "DECISION", "WHEN", "REASON", "INPUT"]);
        for made in &asked.decisions {
            let input: Vec<String> =
                made.input.iter().map(|(name, value)| format!("{name}={value}")).collect();
            decisions.row([
                made.actor.clone(),
                made.decision.as_str().to_owned(),
                human::relative(made.decided_at, now),
                human::or_dash(made.reason.clone()),
                if input.is_empty() { "-".to_owned() } else { input.join(" ") },
            ]);
        }
        text.push('\n');
        text.push_str(&decisions.take());
    }
    text
}
