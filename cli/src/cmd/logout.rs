//! `opsctl logout`: ends the session at the controller, and forgets the context's credential.

use anyhow::Result;

use crate::{
    client::{Client, Error},
    context::{Connection, Credential, Environment},
    exit::{Exit, Usage},
    output,
    stored::Held,
};

/// # Errors
/// When nothing is stored, the controller cannot be asked, or the contexts cannot be written.
pub(crate) async fn run(environment: &Environment, connection: &Connection, client: &Client) -> Result<Exit> {
    let (Some(context), Some(credential)) = (&connection.context, &connection.credential) else {
        let why = match connection.credential {
            Some(_) => "the credential is of OPSC_TOKEN or --token-file, and no context has it",
            None => "nobody is logged in",
        };
        return Err(Usage(why.to_owned()).into());
    };
    match credential {
        Credential::Session(_) => {
            match client.act::<()>(&["api", "v1", "auth", "logout"]).await {
                // It has ended already.
                Ok(()) | Err(Error::LogIn { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Credential::ApiToken(_) => {
            output::note("the API token still counts; 'opsctl token revoke' makes one worthless");
        }
    }
    let mut held = Held::open(&environment.path)?;
    if let Some(stored) = held.contexts.contexts.get_mut(context) {
        (stored.token, stored.session) = (None, None);
        held.save()?;
    }
    output::print(&format!("Logged out of '{context}'.\n"))?;
    Ok(Exit::Succeeded)
}
