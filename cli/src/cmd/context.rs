//! `opsctl context`: the controllers that this user has logged in to.

use anyhow::Result;
use serde::Serialize;

use crate::{
    args::ContextCommand,
    context::{Contexts, Environment},
    exit::Exit,
    output::{self, Table},
};

/// A context without its token.
#[derive(Serialize)]
struct Entry<'a> {
    name: &'a str,
    addr: &'a str,
    current: bool,
}

/// # Errors
/// When the file of contexts cannot be read or written, or has no such context.
pub(crate) fn run(environment: &Environment, command: ContextCommand) -> Result<Exit> {
    let mut contexts = Contexts::load(&environment.path)?;
    match command {
        ContextCommand::List(shown) => {
            let is_current = |name: &str| contexts.current.as_deref() == Some(name);
            let entries: Vec<Entry<'_>> = contexts
                .contexts
                .iter()
                .map(|(name, stored)| Entry { name, addr: &stored.addr, current: is_current(name) })
                .collect();
            output::show(shown.output, &entries, |entries| {
                let mut table = Table::new(&["CURRENT", "NAME", "ADDRESS"]);
                for entry in entries {
                    let mark = if entry.current { "*" } else { "" };
                    table.row([mark, entry.name, entry.addr].map(str::to_owned));
                }
                table.take()
            })?;
        }
        ContextCommand::Use { name } => {
            contexts.get(&name)?;
            contexts.current = Some(name.clone());
            contexts.save(&environment.path)?;
            output::print(&format!("'{name}' is the current context.\n"))?;
        }
    }
    Ok(Exit::Succeeded)
}
