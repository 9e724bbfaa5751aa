//! `opsctl controller`: the controllers of an installation, and how another one joins.

use anyhow::Result;
use model::api::controller::{Controllers, CreatedJoinToken};
use serde_json::json;

use crate::{
    args::ControllerCommand,
    client::Client,
    clock,
    exit::Exit,
    output::{self, Table, human},
};

const CONTROLLERS: [&str; 3] = ["api", "v1", "controllers"];
const JOIN_TOKENS: [&str; 4] = ["api", "v1", "controllers", "join-tokens"];

/// # Errors
/// As the requests, and when stdout is closed or full.
pub(crate) async fn run(client: &Client, command: ControllerCommand) -> Result<Exit> {
    match command {
        ControllerCommand::List(shown) => {
            let controllers: Controllers = client.get(&CONTROLLERS, &[]).await?;
            output::show(shown.output, &controllers, list)?;
        }
        ControllerCommand::JoinToken(shown) => {
            let created: CreatedJoinToken = client.post(&JOIN_TOKENS, &json!({})).await?;
            output::show(shown.output, &created, |created| describe(client, created))?;
        }
    }
    Ok(Exit::Succeeded)
}

fn list(controllers: &Controllers) -> String {
    let now = clock::now();
    let mut table = Table::new(&["ID", "STATE", "VERSION", "SESSIONS", "LEASE", "ANNOUNCED"]);
    for controller in &controllers.items {
        table.row([
            controller.id.to_string(),
            if controller.is_alive { "alive" } else { "gone" }.to_owned(),
            controller.version.clone(),
            controller.sessions.to_string(),
            human::relative(controller.lease_until, now),
            human::or_dash(controller.announce.as_ref()),
        ]);
    }
    table.take()
}

fn describe(client: &Client, created: &CreatedJoinToken) -> String {
    let host = client.addr().host_str().unwrap_or("localhost");
    format!(
        "{}\n\nFor one controller, until {}. Whoever has it gets the keys of this installation. Type on the new machine, \
         with [database] url as it is here:\n\n  \
         opsconductor-controller join --controller {host}:{} --token {}\n",
        created.token,
        human::moment(created.expires_at, clock::now()),
        created.agent_port,
        created.token,
    )
}
