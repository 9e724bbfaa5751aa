//! `opsctl context`: the controllers that this user has logged in to.

use anyhow::Result;
use serde::Serialize;

use crate::{
    args::ContextCommand,
    context::Environment,
    exit::Exit,
    output::{self, Table},
    stored::{Contexts, Held, Stored},
};

/// A context without its credential.
#[derive(Serialize)]
struct Entry<'a> {
    name: &'a str,
    addr: &'a str,
    current: bool,
    /// `session`, `api_token`, or nothing after a logout.
    #[serde(skip_serializing_if = "Option::is_none")]
    credential: Option<&'static str>,
    /// Of a session: whose it is, and where that one works.
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    organization: Option<&'a str>,
}

impl<'a> Entry<'a> {
    fn new(name: &'a str, stored: &'a Stored, current: bool) -> Self {
        let session = stored.session.as_ref();
        Self {
            name,
            addr: &stored.addr,
            current,
            credential: match (session, &stored.token) {
                (Some(_), _) => Some("session"),
                (None, Some(_)) => Some("api_token"),
                (None, None) => None,
            },
            user: session.map(|session| session.user.as_str()),
            organization: session.map(|session| session.organization.as_str()),
        }
    }

    fn login(&self) -> String {
        match (self.user, self.organization, self.credential) {
            (Some(user), Some(organization), _) => format!("{user} ({organization})"),
            (.., Some(_)) => "API token".to_owned(),
            (.., None) => "-".to_owned(),
        }
    }
}

/// # Errors
/// When the file of contexts cannot be read or written, or has no such context.
pub(crate) fn run(environment: &Environment, command: ContextCommand) -> Result<Exit> {
    match command {
        ContextCommand::List(shown) => {
            let contexts = Contexts::load(&environment.path)?;
            let is_current = |name: &str| contexts.current.as_deref() == Some(name);
            let entries: Vec<Entry<'_>> = contexts
                .contexts
                .iter()
                .map(|(name, stored)| Entry::new(name, stored, is_current(name)))
                .collect();
            output::show(shown.output, &entries, |entries| {
                let mut table = Table::new(&["CURRENT", "NAME", "ADDRESS", "LOGIN"]);
                for entry in entries {
                    let mark = if entry.current { "*" } else { "" };
                    let login = entry.login();
                    table.row([mark, entry.name, entry.addr, &login].map(str::to_owned));
                }
                table.take()
            })?;
        }
        ContextCommand::Use { name } => {
            let mut held = Held::open(&environment.path)?;
            held.contexts.get(&name)?;
            held.contexts.current = Some(name.clone());
            held.save()?;
            output::print(&format!("'{name}' is the current context.\n"))?;
        }
    }
    Ok(Exit::Succeeded)
}
