//! `opsctl token`: API tokens, how programs get in.

use anyhow::Result;
use model::api::token::{ApiToken, CreateApiToken, CreatedApiToken};

use super::auth::scope;
use crate::{
    args::{CreateTokenArgs, TokenCommand},
    client::Client,
    clock,
    exit::{Exit, Usage},
    output::{self, human},
};

const TOKENS: [&str; 3] = ["api", "v1", "tokens"];

/// # Errors
/// As the requests, and when stdout is closed or full.
pub(crate) async fn run(client: &Client, command: TokenCommand) -> Result<Exit> {
    match command {
        TokenCommand::Create(args) => create(client, args).await?,
        TokenCommand::List { all, shown } => {
            let now = clock::now();
            let query = if all { vec![("all", "true".to_owned())] } else { Vec::new() };
            let header =
                &["ID", "NAME", "OWNER", "STATE", "EXPIRES", "LAST USED", "FROM", "HOSTS", "PERMISSIONS"];
            output::list(client.pages(&TOKENS, query, None), shown.output, header, |token: &ApiToken| {
                let state = match (token.revoked, token.expires_at <= now) {
                    (true, _) => "revoked",
                    (false, true) => "expired",
                    (false, false) => "active",
                };
                vec![
                    token.id.to_string(),
                    token.name.clone(),
                    token.owner.clone(),
                    state.to_owned(),
                    human::relative(token.expires_at, now),
                    human::or_dash(token.last_used_at.map(|at| human::relative(at, now))),
                    human::or_dash(token.last_used_from.as_ref()),
                    scope(token.hosts.as_ref()),
                    permissions(token),
                ]
            })
            .await?;
        }
        TokenCommand::Revoke { id } => {
            let [api, version, tokens] = TOKENS;
            client.delete(&[api, version, tokens, &id.to_string()]).await?;
            output::note(&format!("the API token {id} is worthless now"));
        }
    }
    Ok(Exit::Succeeded)
}

async fn create(client: &Client, args: CreateTokenArgs) -> Result<()> {
    let CreateTokenArgs { name, ttl, permissions: only, hosts, service_account, shown } = args;
    let only = (!only.is_empty()).then_some(only);
    let mut request = CreateApiToken { name, ttl_seconds: ttl, permissions: only, hosts, service_account };
    request.validate().map_err(|invalid| Usage(invalid.to_string()))?;
    let created: CreatedApiToken = client.post(&TOKENS, &request).await?;
    output::show(shown.output, &created, |created| {
        let token = &created.api_token;
        format!(
            "{}\n\nOf {}, until {}. Permissions: {}. Hosts: {}.\n",
            created.token.expose(),
            token.owner,
            human::moment(token.expires_at, clock::now()),
            permissions(token),
            scope(token.hosts.as_ref()),
        )
    })
}

fn permissions(token: &ApiToken) -> String {
    token.permissions.as_ref().map_or_else(|| "all of the owner's".to_owned(), human::words)
}
