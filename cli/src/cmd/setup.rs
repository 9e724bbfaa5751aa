//! `opsctl setup`: makes the first organization and its administrator, and logs that one in.

use anyhow::Result;
use model::api::auth::{Secret, Setup};

use super::login;
use crate::{
    args::{Global, SetupArgs},
    ask,
    client::Client,
    context::{Connection, Environment},
    exit::{Exit, Usage},
    output,
};

/// # Errors
/// When a secret cannot be read, the controller is set up already, or the context cannot be stored.
pub(crate) async fn run(global: &Global, environment: &Environment, args: SetupArgs) -> Result<Exit> {
    let connection = Connection::to_enter(global, environment)?;
    login::warn_of_plain_http(&connection);
    let token = ask::token("setup token", global.token_file.as_deref(), environment.token.as_deref())?;
    let prompt = format!("Password for '{}': ", args.user);
    let request = Setup {
        token: Secret::new(token.expose()),
        organization: args.organization,
        user: args.user,
        password: ask::new_password(&prompt, args.password.password_file.as_deref())?,
    };
    request.validate().map_err(|invalid| Usage(invalid.to_string()))?;
    let session = Client::new(&connection)?.enter(&["api", "v1", "setup"], &request).await?;
    let who = format!("{} ({})", session.user, session.organization);
    let stored = login::Kept::Session(session);
    let login::Place { addr, context } = login::store(global, environment, &connection, stored)?;
    output::print(&format!("Set up {addr}, and logged in as {who}; '{context}' is the current context.\n"))?;
    Ok(Exit::Succeeded)
}
