//! `opsctl login`: lets a person in by password or provider, or checks an API token, and keeps what comes of it with the address.

mod browser;

use anyhow::{Context as _, Result};
use model::api::{
    auth::{Login, Secret},
    status::WhoAmI,
};

use crate::{
    args::{Global, LoginArgs},
    ask,
    client::{Client, Error},
    context::{Connection, Credential, Environment, Token},
    exit::{Exit, Usage},
    output,
    session::Session,
    stored::{Held, Stored},
};

/// What a context is to have.
pub(super) enum Kept {
    Token(Token),
    Session(Session),
}

/// Where it was stored.
pub(super) struct Place {
    pub(super) addr: String,
    pub(super) context: String,
}

/// # Errors
/// When the password or the token is not accepted, or the context cannot be stored.
pub(crate) async fn run(global: &Global, environment: &Environment, args: LoginArgs) -> Result<Exit> {
    let mut connection = Connection::to_enter(global, environment)?;
    warn_of_plain_http(&connection);
    if global.token_file.is_some() && (args.user.is_some() || args.provider.is_some()) {
        let message = "--token-file is for an API token, --user and --provider are for people";
        return Err(Usage(message.to_owned()).into());
    }
    let entered = |session: Session| {
        let who = format!("{} ({})", session.user, session.organization);
        (Kept::Session(session), who)
    };
    let (kept, who) = match (args.user, args.provider) {
        (_, Some(provider)) => {
            let client = Client::new(&connection)?;
            entered(browser::enter(&client, &provider, !args.no_browser).await?)
        }
        (Some(user), None) => {
            let password = ask::password(&format!("Password of '{user}': "), args.password_file.as_deref())?;
            let code = args.code.map(Secret::new);
            let request = Login { user, password, code, organization: args.organization, cookies: false };
            entered(enter(&Client::new(&connection)?, request).await?)
        }
        (None, None) => {
            let token = ask::token("API token", global.token_file.as_deref(), environment.token.as_deref())?;
            connection.credential = Some(Credential::ApiToken(token.clone()));
            let client = Client::new(&connection)?;
            let whoami: WhoAmI = client.get(&["api", "v1", "whoami"], &[]).await?;
            (Kept::Token(token), format!("{} ({})", whoami.actor, whoami.organization))
        }
    };
    let Place { addr, context } = store(global, environment, &connection, kept)?;
    output::print(&format!("Logged in to {addr} as {who}; '{context}' is the current context.\n"))?;
    Ok(Exit::Succeeded)
}

/// By password, and by a code where that is asked for.
async fn enter(client: &Client, mut request: Login) -> Result<Session> {
    const PATH: [&str; 4] = ["api", "v1", "auth", "login"];
    let error = match client.enter(&PATH, &request).await {
        Err(Error::Problem(problem)) if needs_code(&problem.code) && request.code.is_none() => {
            Error::Problem(problem)
        }
        answer => return Ok(answer?),
    };
    request.code = ask::code();
    if request.code.is_none() {
        return Err(anyhow::Error::new(error).context("there is no terminal to ask for it: use --code"));
    }
    Ok(client.enter(&PATH, &request).await?)
}

fn needs_code(code: &str) -> bool {
    code == "second_factor_required"
}

pub(super) fn warn_of_plain_http(connection: &Connection) {
    if connection.addr.scheme() == "http" && !connection.is_loopback() {
        output::note("this address is not https: what is sent there can be read on the way");
    }
}

/// Keeps a credential as the current context.
///
/// # Errors
/// When the file of contexts cannot be written.
pub(super) fn store(
    global: &Global,
    environment: &Environment,
    connection: &Connection,
    kept: Kept,
) -> Result<Place> {
    let context = global.context.clone().unwrap_or_else(|| default_name(connection));
    let ca_file = connection.ca_file.as_ref().map(std::path::absolute).transpose();
    let addr = connection.addr.as_str().trim_end_matches('/').to_owned();
    let (token, session) = match kept {
        Kept::Token(token) => (Some(token.expose().to_owned()), None),
        Kept::Session(session) => (None, Some(session)),
    };
    let ca_file = ca_file.context("there is no such CA file")?;
    let stored = Stored { addr: addr.clone(), token, ca_file, session };
    let mut held = Held::open(&environment.path)?;
    held.contexts.contexts.insert(context.clone(), stored);
    held.contexts.current = Some(context.clone());
    held.save()?;
    Ok(Place { addr, context })
}

/// Host and port, as a person would name it.
fn default_name(connection: &Connection) -> String {
    let host = connection.addr.host_str().unwrap_or("default");
    connection.addr.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}
