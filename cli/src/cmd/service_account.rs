//! `opsctl service-account`: what programs are.

use anyhow::Result;
use model::api::token::{CreateServiceAccount, ServiceAccount};

use crate::{
    args::ServiceAccountCommand,
    client::Client,
    clock,
    exit::Exit,
    output::{self, human},
};

const SERVICE_ACCOUNTS: [&str; 3] = ["api", "v1", "service-accounts"];

/// # Errors
/// As the requests, and when stdout is closed or full.
pub(crate) async fn run(client: &Client, command: ServiceAccountCommand) -> Result<Exit> {
    match command {
        ServiceAccountCommand::List(shown) => {
            let now = clock::now();
            let header = &["NAME", "STATE", "TOKENS", "CREATED", "CREATED BY"];
            let pages = client.pages(&SERVICE_ACCOUNTS, Vec::new(), None);
            output::list(pages, shown.output, header, |account: &ServiceAccount| {
                vec![
                    account.name.clone(),
                    if account.disabled { "disabled" } else { "active" }.to_owned(),
                    account.tokens.to_string(),
                    human::relative(account.created_at, now),
                    account.created_by.clone(),
                ]
            })
            .await?;
        }
        ServiceAccountCommand::Create { name, shown } => {
            let request = CreateServiceAccount { name };
            let account: ServiceAccount = client.post(&SERVICE_ACCOUNTS, &request).await?;
            output::show(shown.output, &account, |account| {
                format!(
                    "{0} is a service account without any role. Go on with:\n\n  \
                     opsctl role bind ROLE --service-account {0}\n  \
                     opsctl token create NAME --service-account {0}\n",
                    account.name
                )
            })?;
        }
        ServiceAccountCommand::Delete { name } => {
            let [api, version, accounts] = SERVICE_ACCOUNTS;
            client.delete(&[api, version, accounts, &name]).await?;
            output::note(&format!("the service account {name} is deleted with its tokens and roles"));
        }
    }
    Ok(Exit::Succeeded)
}
