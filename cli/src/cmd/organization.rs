//! `opsctl organization`: the organizations of the installation.

use anyhow::Result;
use model::api::auth::{CreateOrganization, Organization};

use crate::{
    args::OrganizationCommand,
    client::Client,
    clock,
    exit::Exit,
    output::{self, human},
};

const ORGANIZATIONS: [&str; 3] = ["api", "v1", "organizations"];

/// # Errors
/// As the requests, and when stdout is closed or full.
pub(crate) async fn run(client: &Client, command: OrganizationCommand) -> Result<Exit> {
    match command {
        OrganizationCommand::List(shown) => {
            let now = clock::now();
            let organizations: Vec<Organization> = client.get(&ORGANIZATIONS, &[]).await?;
            let header = &["NAME", "HOME", "MEMBERS", "CREATED", "ID"];
            output::whole(&organizations, shown.output, header, |organization| {
                vec![
                    organization.name.clone(),
                    if organization.is_home { "*" } else { "" }.to_owned(),
                    organization.members.to_string(),
                    human::relative(organization.created_at, now),
                    organization.id.to_string(),
                ]
            })?;
        }
        OrganizationCommand::Create { name, shown } => {
            let created: Organization = client.post(&ORGANIZATIONS, &CreateOrganization { name }).await?;
            output::show(shown.output, &created, |created| {
                format!(
                    "{0} is made, and you are its administrator. Work there with: opsctl organization use {0}\n",
                    created.name
                )
            })?;
        }
        OrganizationCommand::Use { name } => {
            let session = client.enter_organization(&name).await?;
            output::print(&format!("{} works in {} now.\n", session.user, session.organization))?;
        }
    }
    Ok(Exit::Succeeded)
}
