//! `opsctl agent`: the hosts that commands run on.

use anyhow::Result;
use jiff::Timestamp;
use model::api::agent::{Agent, HostMetrics};

use crate::{
    args::{AgentCommand, OneAgent},
    client::Client,
    clock,
    exit::Exit,
    output::{self, Table, human},
};

const AGENTS: [&str; 3] = ["api", "v1", "agents"];

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
        AgentCommand::Revoke(one) => act(client, &one, "revoke").await?,
        AgentCommand::Approve(one) => act(client, &one, "approve").await?,
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

fn describe(agent: &Agent, now: Timestamp) -> String {
    let mut table = Table::plain();
    let mut row = |name: &str, value: String| table.row([name.to_owned(), value]);
    row("Name", agent.name.clone());
    row("Id", agent.id.to_string());
    row("State", agent.state.as_str().to_owned());
    row("Version", agent.version.clone());
    row("Slots", format!("{} at a time", human::count(agent.slots, "run")));
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
    use model::api::agent::{AgentState, Disk};

    use super::*;

    #[test]
    fn an_agent_for_people() {
        let now: Timestamp = "2026-01-31T08:00:00Z".parse().unwrap();
        let agent = Agent {
            id: model::id::AgentId::from_bytes(&[7; 16]).unwrap(),
            name: "web-1".into(),
            state: AgentState::Online,
            labels: [("role".to_owned(), "web".to_owned())].into(),
            facts: [("memory_mib".to_owned(), "2048".to_owned())].into(),
            slots: 16,
            version: "0.1.0".into(),
            enrolled_at: "2026-01-30T08:00:00Z".parse().unwrap(),
            last_seen_at: None,
            certificate_expires_at: "2026-01-31T20:30:00Z".parse().unwrap(),
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
