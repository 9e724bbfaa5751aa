//! `opsctl login`: checks an API token, then keeps it with the address.

use std::io::{BufRead as _, IsTerminal as _, Read as _};

use anyhow::{Context as _, Result};
use serde::Deserialize;

use crate::{
    args::Global,
    client::Client,
    context::{Connection, Contexts, Environment, Stored, Token},
    exit::Exit,
    output,
};

/// Bytes of a token on stdin.
const TOKEN_BYTES: u64 = 4096;

/// Whom the controller takes the token's owner for.
#[derive(Deserialize)]
struct Whoami {
    actor: String,
    organization: String,
}

/// # Errors
/// When the token is not accepted, or the context cannot be stored.
pub(crate) async fn run(global: &Global, environment: &Environment) -> Result<Exit> {
    let mut contexts = Contexts::load(&environment.path)?;
    // Neither the context that is to be made nor the current one has a say in where to log in to.
    let elsewhere = Global {
        addr: global.addr.clone(),
        token_file: global.token_file.clone(),
        context: None,
        ca_file: global.ca_file.clone(),
    };
    let mut connection = Connection::resolve(&elsewhere, environment, &Contexts::default())?;
    let token = match connection.token.take() {
        Some(token) => token,
        None => read_token()?,
    };
    connection.token = Some(token.clone());
    if connection.addr.scheme() == "http" && !connection.is_loopback() {
        output::note("this address is not https: the token can be read on the way");
    }
    let whoami: Whoami = Client::new(&connection)?.get(&["api", "v1", "whoami"], &[]).await?;

    let name = global.context.clone().unwrap_or_else(|| default_name(&connection));
    let ca_file = connection
        .ca_file
        .as_ref()
        .map(std::path::absolute)
        .transpose()
        .context("there is no such CA file")?;
    let addr = connection.addr.as_str().trim_end_matches('/').to_owned();
    let stored = Stored { addr: addr.clone(), token: token.expose().to_owned(), ca_file };
    contexts.contexts.insert(name.clone(), stored);
    contexts.current = Some(name.clone());
    contexts.save(&environment.path)?;
    let Whoami { actor, organization } = whoami;
    output::print(&format!(
        "Logged in to {addr} as {actor} ({organization}); '{name}' is the current context.\n"
    ))?;
    Ok(Exit::Succeeded)
}

/// Host and port, as a person would name it.
fn default_name(connection: &Connection) -> String {
    let host = connection.addr.host_str().unwrap_or("default");
    connection.addr.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

fn read_token() -> Result<Token> {
    let mut text = String::new();
    let stdin = std::io::stdin();
    let read = if stdin.is_terminal() {
        output::note("paste the API token and press Enter (it is shown as you type)");
        stdin.lock().take(TOKEN_BYTES).read_line(&mut text)
    } else {
        stdin.lock().take(TOKEN_BYTES).read_to_string(&mut text)
    };
    read.context("cannot read the API token from stdin")?;
    Ok(Token::parse(&text)?)
}
