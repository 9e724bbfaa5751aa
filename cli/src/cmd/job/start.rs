//! `opsctl job plan` and `job run`.

use std::collections::BTreeMap;

use anyhow::Result;
use model::{
    api::job::{Danger, ExecuteJob, Job, JobPlan, JobVersion, PlanChanges},
    job::{
        self, JobTargets, Rollout,
        parameters::{Parameters, from_text},
    },
};
use serde_json::Value;

use super::{document_of, path};
use crate::{
    args::{PlanArgs, RunJobArgs, TargetArgs},
    client::Client,
    cmd::exec,
    exit::{Exit, Usage},
    output::{self, Table, human},
};

/// # Errors
/// As the requests, and when stdout is closed or full.
pub(super) async fn plan(client: &Client, args: PlanArgs) -> Result<()> {
    let parameters = parameters(client, &args.job.name, args.version, &args.params).await?;
    let targets = targets(client, &args.job.name, args.version, args.targets).await?;
    let request = ExecuteJob { parameters, version: args.version, targets, ..ExecuteJob::default() };
    let plan: JobPlan = client.post(&path(&args.job.name, &["plan"]), &request).await?;
    output::show(args.job.shown.output, &plan, describe)
}

fn describe(plan: &JobPlan) -> String {
    let mut head = Table::plain();
    head.row(["Job".to_owned(), format!("{}, version {}", plan.job, plan.version)]);
    let runs = i64::try_from(plan.runs).unwrap_or(i64::MAX);
    let hosts = i64::try_from(plan.hosts.len()).unwrap_or(i64::MAX);
    head.row([
        "Runs".to_owned(),
        format!("{} on {}", human::count(runs, "run"), human::count(hosts, "host")),
    ]);
    if plan.rollout != Rollout::default() {
        head.row(["Rollout".to_owned(), plan.rollout.summary()]);
    }
    head.row(["Targets hash".to_owned(), plan.targets_hash.clone()]);
    if let Some(since) = &plan.since {
        head.row(["Last start".to_owned(), format!("{}, {}", since.execution_id, since.state.as_str())]);
        head.row(["Since then".to_owned(), changes(plan.version, since)]);
    }
    let mut hosts = Table::new(&["BATCH", "HOST", "CONNECTED"]);
    for host in &plan.hosts {
        let connected = match (host.connected, host.draining) {
            (true, false) => "yes",
            (true, true) => "draining",
            (false, true) => "no, draining",
            (false, false) => "no",
        };
        let batch =
            if plan.rollout.is_canary(host.batch) { "canary".to_owned() } else { host.batch.to_string() };
        hosts.row([batch, host.name.clone(), connected.to_owned()]);
    }
    let mut steps = Table::new(&["STEP", "WHERE", "NEEDS", "DOES"]);
    for step in &plan.steps {
        let place = match (step.is_controllers, step.is_rollback) {
            (true, _) => "controller",
            (false, true) => "host, to undo",
            (false, false) if step.is_probe => "canary",
            (false, false) => "host",
        };
        let needs = if step.needs.is_empty() { "-".to_owned() } else { human::words(&step.needs) };
        steps.row([step.name.clone(), place.to_owned(), needs, step.summary.clone()]);
    }
    let mut whole = format!("{}\n{}\n{}", head.take(), hosts.take(), steps.take());
    if !plan.dangers.is_empty() {
        let mut dangers = Table::new(&["STEP", "DANGER", "RULE", "WORDS", "WHY"]);
        for Danger { step, rule, severity, text, why } in plan.dangers.clone() {
            dangers.row([step, severity, rule, text, why]);
        }
        whole.push('\n');
        whole.push_str(&dangers.take());
    }
    let warnings: String = plan.warnings.iter().map(|warning| format!("warning: {warning}\n")).collect();
    if !warnings.is_empty() {
        whole.push_str(&format!("\n{warnings}"));
    }
    whole
}

/// Names that are told of each kind.
const NAMES: usize = 5;

/// What is other than at the last start, in a line.
fn changes(version: i32, since: &PlanChanges) -> String {
    let named = |what: &str, names: &[String]| {
        let more = if names.len() > NAMES { " …" } else { "" };
        let first: Vec<&str> = names.iter().take(NAMES).map(String::as_str).collect();
        (!names.is_empty()).then(|| {
            format!(
                "{} ({}{more})",
                human::count(i64::try_from(names.len()).unwrap_or(i64::MAX), what),
                first.join(", ")
            )
        })
    };
    let version = (version != since.version).then(|| format!("version {} became {version}", since.version));
    let all: Vec<String> = [
        version,
        named("more host", &since.more_hosts),
        named("fewer host", &since.fewer_hosts),
        named("other value", &since.parameters),
    ]
    .into_iter()
    .flatten()
    .collect();
    if all.is_empty() { "the same hosts, version and values".to_owned() } else { all.join("; ") }
}

/// # Errors
/// When the start is refused, or the execution cannot be followed to its end.
pub(super) async fn run(client: &Client, args: RunJobArgs) -> Result<Exit> {
    let request = ExecuteJob {
        parameters: parameters(client, &args.name, args.version, &args.params).await?,
        version: args.version,
        targets: targets(client, &args.name, args.version, args.targets).await?,
        expect_targets: args.expect_targets,
        priority: args.priority,
    };
    exec::begin(client, &path(&args.name, &["execute"]), &request, &[], args.detach, args.output).await
}

/// Where it runs; `None`: where the job says. What only narrows is put on what the job says.
pub(in crate::cmd) async fn targets(
    client: &Client,
    name: &str,
    version: Option<i32>,
    args: TargetArgs,
) -> Result<Option<JobTargets>> {
    let (selector, group) = (args.selector, args.target_group);
    let base = if selector.is_some() || !args.target.is_empty() || args.all || group.is_some() {
        JobTargets { selector, hosts: args.target, all: args.all, group, ..JobTargets::default() }
    } else if args.exclude.is_some() || args.limit.is_some() {
        own_targets(client, name, version).await?
    } else {
        return Ok(None);
    };
    let targets = narrowed(base, args.exclude, args.limit);
    targets.validate().map_err(|invalid| Usage(invalid.to_string()))?;
    Ok(Some(targets))
}

/// The values that were given, as the types of the job's parameters read them.
pub(in crate::cmd) async fn parameters(
    client: &Client,
    name: &str,
    version: Option<i32>,
    given: &[(String, String)],
) -> Result<BTreeMap<String, Value>> {
    if given.is_empty() {
        return Ok(BTreeMap::new());
    }
    typed(&own(client, name, version).await?.parameters, given)
}

/// Values as their parameters have them, of text.
///
/// # Errors
/// When one is given twice, or is no value of that type.
pub(super) fn typed(parameters: &Parameters, given: &[(String, String)]) -> Result<BTreeMap<String, Value>> {
    let mut values = BTreeMap::new();
    for (name, text) in given {
        let value = match parameters.get(name) {
            Some(parameter) => from_text(parameter, text)
                .map_err(|invalid| Usage(format!("the parameter '{name}' {}", invalid.problem)))?,
            // Whoever looks at all of them says which there are.
            None => Value::String(text.clone()),
        };
        if values.insert(name.clone(), value).is_some() {
            return Err(Usage(format!("the parameter '{name}' is given twice")).into());
        }
    }
    Ok(values)
}

async fn own_targets(client: &Client, name: &str, version: Option<i32>) -> Result<JobTargets> {
    let none = "the job says no targets of its own: say them with -l, -t, --all or --target-group";
    own(client, name, version).await?.targets.ok_or_else(|| Usage(none.to_owned()).into())
}

/// The job as it would be run.
async fn own(client: &Client, name: &str, version: Option<i32>) -> Result<job::Job> {
    let document = match version {
        Some(number) => {
            let version: JobVersion =
                client.get(&path(name, &["versions", &number.to_string()]), &[]).await?;
            version.document.ok_or_else(|| client.undecodable(&"the version has no document"))?
        }
        None => {
            let job: Job = client.get(&path(name, &[]), &[]).await?;
            document_of(client, &job)?
        }
    };
    Ok(job::parse(&document).map_err(|bad| client.undecodable(&bad))?)
}

/// Both what was excluded and what is, and the smaller of the limits.
fn narrowed(mut targets: JobTargets, exclude: Option<String>, limit: Option<usize>) -> JobTargets {
    targets.exclude = match (targets.exclude, exclude) {
        (Some(before), Some(more)) => Some(format!("({before}) or ({more})")),
        (before, more) => before.or(more),
    };
    targets.limit = targets.limit.into_iter().chain(limit).min();
    targets
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_narrows_is_put_on_what_there_is() {
        let own = JobTargets {
            selector: Some("env=prod".into()),
            exclude: Some("role=db".into()),
            limit: Some(5),
            ..JobTargets::default()
        };
        let now = narrowed(own.clone(), Some("canary".into()), Some(9));
        assert_eq!(now.exclude.as_deref(), Some("(role=db) or (canary)"));
        assert_eq!((now.limit, &now.selector), (Some(5), &own.selector));
        now.validate().unwrap();
        assert_eq!(narrowed(own.clone(), None, None), own);
        assert_eq!(narrowed(JobTargets::default(), None, Some(2)).limit, Some(2));
    }

    #[test]
    fn a_plan_for_people() {
        let plan: JobPlan = serde_json::from_value(serde_json::json!({
            "job": "a", "version": 2, "targets_hash": "abc", "runs": 1,
            "hosts": [{
                "agent_id": "00000000-0000-7000-8000-000000000001", "name": "web-1", "batch": 0, "connected": true
            }],
            "steps": [{
                "name": "ask", "needs": [], "summary": "uptime", "is_controllers": false, "is_rollback": false
            }],
        }))
        .unwrap();
        assert_eq!(
            describe(&plan),
            "Job           a, version 2\nRuns          1 run on 1 host\nTargets hash  abc\n\n\
             BATCH  HOST   CONNECTED\n0      web-1  yes\n\n\
             STEP  WHERE  NEEDS  DOES\nask   host   -      uptime\n"
        );
    }

    #[test]
    fn a_canary_in_a_plan() {
        let host = |name: &str, batch: u16| {
            let id = "00000000-0000-7000-8000-000000000001";
            serde_json::json!({ "agent_id": id, "name": name, "batch": batch, "connected": true })
        };
        let step = |name: &str, is_probe: bool| {
            serde_json::json!({
                "name": name, "needs": [], "summary": "x", "is_controllers": false, "is_rollback": false, "is_probe": is_probe
            })
        };
        let plan: JobPlan = serde_json::from_value(serde_json::json!({
            "job": "a", "version": 2, "targets_hash": "abc", "runs": 3, "hosts": [host("web-1", 0), host("web-2", 1)],
            "steps": [step("ask", false), step("probe", true)],
            "rollout": { "canary": { "hosts": 1, "soak": 600 }, "batches": [1, "50%"], "max_failures": 1 },
        }))
        .unwrap();
        assert_eq!(
            describe(&plan),
            "Job           a, version 2\nRuns          3 runs on 2 hosts\n\
             Rollout       canary 1; soak 10m; batches 1, 50%; 1 may fail\nTargets hash  abc\n\n\
             BATCH   HOST   CONNECTED\ncanary  web-1  yes\n1       web-2  yes\n\n\
             STEP   WHERE   NEEDS  DOES\nask    host    -      x\nprobe  canary  -      x\n"
        );
    }

    #[test]
    fn what_is_other_than_before() {
        let since: PlanChanges = serde_json::from_value(serde_json::json!({
            "execution_id": "00000000-0000-7000-8000-000000000001", "state": "succeeded", "version": 2,
            "created_at": "2026-01-01T00:00:00Z", "more_hosts": ["a", "b", "c", "d", "e", "f"],
            "parameters": ["mode"],
        }))
        .unwrap();
        assert_eq!(
            changes(3, &since),
            "version 2 became 3; 6 more hosts (a, b, c, d, e …); 1 other value (mode)"
        );
        let same = PlanChanges { more_hosts: Vec::new(), parameters: Vec::new(), ..since };
        assert_eq!(changes(2, &same), "the same hosts, version and values");
    }
}
