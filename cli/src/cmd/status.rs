//! `opsctl status` and `opsctl version`: what the controller says of itself.

use anyhow::Result;
use model::api::status::{PartState, Status, Version};
use serde::Serialize;

use crate::{
    args::Shown,
    client::Client,
    exit::Exit,
    output::{self, Table, human},
};

/// # Errors
/// As the requests, and when stdout is closed or full.
pub(crate) async fn status(client: &Client, shown: Shown) -> Result<Exit> {
    let status = client.status().await?;
    output::show(shown.output, &status, describe)?;
    Ok(if status.state == PartState::Down { Exit::Failed } else { Exit::Succeeded })
}

fn describe(status: &Status) -> String {
    let mut table = Table::plain();
    let mut row = |name: &str, value: String| table.row([name.to_owned(), value]);
    row("State", word(status.state).to_owned());
    row("Controller", status.controller_id.clone());
    row("Uptime", human::duration(status.uptime_seconds));
    row("Agents", format!("{} connected", status.agents_connected));
    row("Runs", format!("{} active, {} queued", status.runs_active, status.runs_queued));
    let mut text = table.take();
    text.push('\n');
    let mut table = Table::new(&["PART", "STATE", "LATENCY", "MESSAGE"]);
    for part in &status.parts {
        let latency = format!("{:.1} ms", part.latency_ms);
        table.row([part.name.clone(), word(part.state).to_owned(), latency, part.message.clone()]);
    }
    text + &table.take()
}

const fn word(state: PartState) -> &'static str {
    match state {
        PartState::Ok => "ok",
        PartState::Degraded => "degraded",
        PartState::Down => "down",
    }
}

#[derive(Serialize)]
struct Versions<'a> {
    opsctl: &'static str,
    /// `None` when it cannot be reached; our own version is known all the same.
    controller: Option<&'a Version>,
}

/// # Errors
/// As the request, but only after our own version is written.
pub(crate) async fn version(client: &Client, shown: Shown) -> Result<Exit> {
    let answer: Result<Version, _> = client.get(&["version"], &[]).await;
    let versions = Versions { opsctl: env!("CARGO_PKG_VERSION"), controller: answer.as_ref().ok() };
    output::show(shown.output, &versions, |versions| {
        let mut text = format!("opsctl {}\n", versions.opsctl);
        if let Some(it) = versions.controller {
            text += &format!(
                "controller {} (schema {}, agent protocol {} to {})\n",
                it.version, it.schema, it.protocol_min, it.protocol_max
            );
        }
        text
    })?;
    answer?;
    Ok(Exit::Succeeded)
}
