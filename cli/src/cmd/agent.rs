//! `opsctl agent`: the hosts that commands run on.

use std::time::Duration;

use anyhow::Result;
use jiff::Timestamp;
use model::{
    api::agent::{Agent, AgentRun, AgentState, ChangeLabels, HostMetrics},
    id::AgentId,
    run::RunState,
};

use crate::{
    args::{AgentCommand, OneAgent, SomeAgents},
    client::{self, Client},
    clock,
    exit::{Exit, NoMatch, Usage},
    output::{self, Table, human},
    parse::LabelChange,
};

const AGENTS: [&str; 3] = ["api", "v1", "agents"];
/// How often a drain that is waited for is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// # Errors
/// As the requests, and when stdout is closed or full.
pub(crate) async fn run(client: &Client, command: AgentCommand) -> Result<Exit> {
    match command {
        AgentCommand::List { selector, limit, shown } => {
            let query = selector.map(|selector| ("selector", selector)).into_iter().collect();
            let now = clock::now();
            let header = &["NAME", "STATE", "OS", "ARCH", "VERSION", "LAST SEEN", "LABELS"];
            output::list(client.pages(&AGENTS, query, limit), shown.output, header, |agent: &Agent| {
                let fact = |name: &str| human::or_dash(agent.facts.get(name));
                vec![
                    agent.name.clone(),
                    agent.state.as_str().to_owned(),
                    fact("os"),
                    fact("arch"),
                    agent.version.clone(),
                    human::or_dash(agent.last_seen_at.map(|at| human::relative(at, now))),
                    human::pairs(&agent.labels),
                ]
            })
            .await?;
        }
        AgentCommand::Show(one) => {
            let agent = get(client, &one.name).await?;
            output::show(one.shown.output, &agent, |agent| describe(agent, clock::now()))?;
        }
        AgentCommand::Queue { name, active, limit, shown } => {
            let [api, version, agents] = AGENTS;
            let query = vec![("state", if active { "active" } else { "queued" }.to_owned())];
            let now = clock::now();
            let header = &["EXECUTION", "PRIORITY", "TRY", "QUEUED", "DUE", "EXPIRES", "ACTOR", "SUMMARY"];
            let pages = client.pages(&[api, version, agents, &name, "runs"], query, limit);
            output::list(pages, shown.output, header, |run: &AgentRun| {
                let waits = run.state == RunState::Queued;
                let when = |at| human::or_dash(waits.then(|| human::relative(at, now)));
                vec![
                    run.execution_id.to_string(),
                    run.priority.to_string(),
                    // One that waits is about to get its next.
                    (run.attempt + i32::from(waits)).to_string(),
                    human::relative(run.queued_at, now),
                    if run.due_at > now { when(run.due_at) } else { human::or_dash(waits.then_some("now")) },
                    when(run.start_before),
                    run.actor.clone(),
                    run.summary.clone(),
                ]
            })
            .await?;
        }
        AgentCommand::Drain { agents, wait } => {
            let mut drained = act_on(client, &agents, "drain").await?;
            if wait {
                for agent in &mut drained {
                    *agent = empty(client, agent.id).await?;
                }
            }
            show_states(&agents, &drained)?;
        }
        AgentCommand::Resume(agents) => {
            let resumed = act_on(client, &agents, "resume").await?;
            show_states(&agents, &resumed)?;
        }
        AgentCommand::Revoke(one) => act(client, &one, "revoke").await?,
        AgentCommand::Approve(one) => act(client, &one, "approve").await?,
        AgentCommand::Label { name, changes, shown } => {
            let body = change_of(changes)?;
            let id = get(client, &name).await?.id.to_string();
            let [api, version, agents] = AGENTS;
            let agent: Agent = client.post(&[api, version, agents, &id, "labels"], &body).await?;
            output::show(shown.output, &agent, |agent| describe(agent, clock::now()))?;
        }
    }
    Ok(Exit::Succeeded)
}

async fn get(client: &Client, name: &str) -> Result<Agent> {
    let [api, version, agents] = AGENTS;
    Ok(client.get(&[api, version, agents, name], &[]).await?)
}

async fn act(client: &Client, one: &OneAgent, verb: &str) -> Result<()> {
    // The name is looked up first: the verb works on the one agent that the person means now.
    let id = get(client, &one.name).await?.id.to_string();
    let [api, version, agents] = AGENTS;
    let agent: Agent = client.act(&[api, version, agents, &id, verb]).await?;
    output::show(one.shown.output, &agent, |agent| format!("{} is {}\n", agent.name, agent.state.as_str()))
}

fn change_of(changes: Vec<LabelChange>) -> Result<ChangeLabels> {
    let mut body = ChangeLabels::default();
    for change in changes {
        let (LabelChange::Set(key, _) | LabelChange::Remove(key)) = &change;
        if body.set.contains_key(key) || body.remove.contains(key) {
            return Err(Usage(format!("the label '{key}' is given twice")).into());
        }
        match change {
            LabelChange::Set(key, value) => drop(body.set.insert(key, value)),
            LabelChange::Remove(key) => body.remove.push(key),
        }
    }
    body.validate().map_err(|invalid| Usage(invalid.to_string()))?;
    Ok(body)
}

/// Does `verb` to the one agent or to all that the selector holds for now.
async fn act_on(client: &Client, which: &SomeAgents, verb: &str) -> Result<Vec<Agent>> {
    let [api, version, agents] = AGENTS;
    let found: Vec<Agent> = match (&which.name, &which.selector) {
        (Some(name), _) => vec![get(client, name).await?],
        (None, selector) => {
            let query = selector.clone().map(|selector| ("selector", selector)).into_iter().collect();
            client.pages(&AGENTS, query, None).all().await?
        }
    };
    if found.is_empty() {
        return Err(NoMatch("no agent matches".to_owned()).into());
    }
    let mut done = Vec::with_capacity(found.len());
    for agent in found {
        done.push(client.act(&[api, version, agents, &agent.id.to_string(), verb]).await?);
    }
    Ok(done)
}

/// Waits until nothing runs on the agent. Whoever waits for long must bear that the controller is away for a while.
async fn empty(client: &Client, id: AgentId) -> Result<Agent> {
    let mut told = None;
    loop {
        match get(client, &id.to_string()).await {
            Ok(agent) => {
                let active = agent.load.map_or(0, |load| load.active);
                if active == 0 {
                    return Ok(agent);
                }
                if told.replace(active) != Some(active) {
                    output::note(&format!("{} has {}", agent.name, human::count(active, "run")));
                }
            }
            Err(error) if error.downcast_ref::<client::Error>().is_some_and(client::Error::is_transient) => {}
            Err(error) => return Err(error),
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

fn show_states(which: &SomeAgents, agents: &[Agent]) -> Result<()> {
    output::show(which.shown.output, &agents, |agents| {
        agents
            .iter()
            .map(|agent| {
                let running = agent.load.map_or(0, |load| load.active);
                let runs = if running > 0 {
                    format!(" with {}", human::count(running, "run"))
                } else {
                    String::new()
                };
                format!("{} is {}{runs}\n", agent.name, agent.state.as_str())
            })
            .collect()
    })
}

fn describe(agent: &Agent, now: Timestamp) -> String {
    let mut table = Table::plain();
    let mut row = |name: &str, value: String| table.row([name.to_owned(), value]);
    row("Name", agent.name.clone());
    row("Id", agent.id.to_string());
    let away = if agent.state == AgentState::Draining && !agent.connected { ", offline" } else { "" };
    row("State", format!("{}{away}", agent.state.as_str()));
    row("Version", agent.version.clone());
    row("Slots", format!("{} at a time", human::count(agent.slots, "run")));
    if let Some(load) = agent.load {
        row("Runs", format!("{} active, {} queued", load.active, load.queued));
    }
    row("Enrolled", human::moment(agent.enrolled_at, now));
    row("Last seen", human::or_dash(agent.last_seen_at.map(|at| human::moment(at, now))));
    row("Certificate", format!("expires {}", human::moment(agent.certificate_expires_at, now)));
    let mut text = table.take();
    section(&mut text, "Labels", agent.labels.iter().map(|(key, value)| (key.clone(), value.clone())));
    section(&mut text, "Facts", agent.facts.iter().map(|(name, value)| (name.clone(), fact(name, value))));
    if let Some(metrics) = &agent.metrics {
        let title = format!("Metrics, {}", human::relative(metrics.at, now));
        section(&mut text, &title, describe_metrics(metrics));
    }
    text
}

fn section(text: &mut String, title: &str, rows: impl IntoIterator<Item = (String, String)>) {
    let mut table = Table::plain();
    rows.into_iter().for_each(|(name, value)| table.row([format!("  {name}"), value]));
    let rows = table.take();
    text.push_str(&format!("\n{title}\n{}", if rows.is_empty() { "  none\n" } else { &rows }));
}

fn fact(name: &str, value: &str) -> String {
    match (name, value.parse::<i64>()) {
        ("memory_mib", Ok(mib)) => format!("{value} ({})", human::bytes(mib.saturating_mul(1024 * 1024))),
        _ => value.to_owned(),
    }
}

fn describe_metrics(metrics: &HostMetrics) -> Vec<(String, String)> {
    let mut rows = Vec::new();
    let mut row = |name: &str, value: String| rows.push((name.to_owned(), value));
    row("CPU", format!("{:.1}%", metrics.cpu_percent));
    row("Memory", human::share(metrics.memory_used_bytes, metrics.memory_total_bytes));
    row("Swap", human::share(metrics.swap_used_bytes, metrics.swap_total_bytes));
    let [one, five, fifteen] = metrics.load;
    row("Load", format!("{one:.2} {five:.2} {fifteen:.2} (1, 5, 15 minutes)"));
    row("Uptime", human::duration(metrics.uptime_seconds));
    for disk in &metrics.disks {
        let used = disk.total_bytes.saturating_sub(disk.available_bytes);
        row(&format!("Disk {}", disk.mount), human::share(used, disk.total_bytes));
    }
    row(
        "Network",
        format!(
            "{} received, {} sent since the host started",
            human::bytes(metrics.network_received_bytes),
            human::bytes(metrics.network_sent_bytes)
        ),
    );
    rows
}

#[cfg(test)]
mod tests {
    use model::api::agent::{AgentLoad, Disk};

    use super::*;

    #[test]
    fn an_agent_for_people() {
        let now: Timestamp = "2026-01-31T08:00:00Z".parse().unwrap();
        let agent = Agent {
            id: model::id::AgentId::from_bytes(&[7; 16]).unwrap(),
            name: "web-1".into(),
            state: AgentState::Online,
            connected: true,
            labels: [("role".to_owned(), "web".to_owned())].into(),
            facts: [("memory_mib".to_owned(), "2048".to_owned())].into(),
            slots: 16,
            version: "0.1.0".into(),
            enrolled_at: "2026-01-30T08:00:00Z".parse().unwrap(),
            last_seen_at: None,
            certificate_expires_at: "2026-01-31T20:30:00Z".parse().unwrap(),
            load: Some(AgentLoad { active: 2, queued: 3 }),
            metrics: Some(HostMetrics {
                at: "2026-01-31T07:59:55Z".parse().unwrap(),
                cpu_percent: 3.25,
                memory_total_bytes: 2 << 30,
                memory_used_bytes: 1 << 30,
                swap_total_bytes: 0,
                swap_used_bytes: 0,
                load: [0.1, 0.2, 0.3],
                uptime_seconds: 273_600,
                disks: vec![Disk { mount: "/".into(), total_bytes: 4 << 30, available_bytes: 1 << 30 }],
                network_received_bytes: 1536,
                network_sent_bytes: 10,
            }),
        };
        let text = describe(&agent, now);
        for line in [
            "Name         web-1\n",
            "Slots        16 runs at a time\n",
            "Runs         2 active, 3 queued\n",
            "Last seen    -\n",
            "Certificate  expires 2026-01-31 20:30:00 UTC (in 12h 30m)\n",
            "\nLabels\n  role  web\n",
            "  memory_mib  2048 (2.0 GiB)\n",
            "\nMetrics, 5s ago\n",
            "  Memory   1.0 GiB of 2.0 GiB (50%)\n",
            "  Uptime   3d 4h\n",
            "  Disk /   3.0 GiB of 4.0 GiB (75%)\n",
        ] {
            assert!(text.contains(line), "{line:?} in\n{text}");
        }
    }
}
