//! `opsctl user`: the people of the organization.

use anyhow::Result;
use jiff::Timestamp;
use model::api::{
    auth::{LinkIdentity, LoginSession},
    user::{CreateInvitation, CreatedOneTimeToken, User},
};
use serde_json::json;

use super::auth::list_sessions;
use crate::{
    args::{OneUser, UserCommand},
    client::Client,
    clock,
    exit::{Exit, Usage},
    output::{self, Table, human},
};

const USERS: [&str; 3] = ["api", "v1", "users"];
const INVITATIONS: [&str; 3] = ["api", "v1", "invitations"];

/// # Errors
/// As the requests, and when stdout is closed or full.
pub(crate) async fn run(client: &Client, command: UserCommand) -> Result<Exit> {
    let [api, version, users] = USERS;
    match command {
        UserCommand::List(shown) => {
            let now = clock::now();
            let header = &["NAME", "STATE", "SECOND FACTOR", "LAST USED", "ROLES", "GROUPS"];
            output::list(client.pages(&USERS, Vec::new(), None), shown.output, header, |user: &User| {
                vec![
                    user.name.clone(),
                    state(user).to_owned(),
                    yes_no(user.second_factor).to_owned(),
                    human::or_dash(user.last_used_at.map(|at| human::relative(at, now))),
                    human::words(&user.roles),
                    human::words(&user.groups),
                ]
            })
            .await?;
        }
        UserCommand::Show { user, shown } => {
            let user: User = client.get(&[api, version, users, &user.name], &[]).await?;
            output::show(shown.output, &user, |user| describe(user, clock::now()))?;
        }
        UserCommand::Remove(OneUser { name }) => {
            client.delete(&[api, version, users, &name]).await?;
            output::note(&format!("{name} is no member any more"));
        }
        UserCommand::Invite { role, ttl, shown } => {
            let request = CreateInvitation { role, ttl_seconds: ttl };
            request.validate().map_err(|invalid| Usage(invalid.to_string()))?;
            let created: CreatedOneTimeToken = client.post(&INVITATIONS, &request).await?;
            output::show(shown.output, &created, |created| {
                hand_over(
                    client,
                    created,
                    "Whoever is to join types, and pastes the token",
                    "accept-invitation --user NAME",
                )
            })?;
        }
        UserCommand::ResetPassword { user, shown } => {
            let path = [api, version, users, &user.name, "reset-password"];
            let created: CreatedOneTimeToken = client.post(&path, &json!({})).await?;
            output::show(shown.output, &created, |created| {
                let who = format!("{} types, and pastes the token", user.name);
                hand_over(client, created, &who, "reset-password")
            })?;
        }
        UserCommand::Link { user: OneUser { name }, provider, subject } => {
            let path = [api, version, users, &name, "identities", &provider];
            client.put::<()>(&path, &LinkIdentity { subject }).await?;
            output::note(&format!("{name} may log in by {provider} now"));
        }
        UserCommand::Unlink { user: OneUser { name }, provider } => {
            client.delete(&[api, version, users, &name, "identities", &provider]).await?;
            output::note(&format!("nobody is {name} by {provider} any more"));
        }
        UserCommand::RemoveSecondFactor(OneUser { name }) => {
            client.delete(&[api, version, users, &name, "second-factor"]).await?;
            output::note(&format!("{name} logs in by password alone now"));
        }
        UserCommand::Unlock(user) => act(client, &user, "unlock", "may try again").await?,
        UserCommand::Disable(user) => act(client, &user, "disable", "is kept out").await?,
        UserCommand::Enable(user) => act(client, &user, "enable", "may log in").await?,
        UserCommand::Sessions { user, shown } => {
            let path = [api, version, users, &user.name, "sessions"];
            let sessions: Vec<LoginSession> = client.get(&path, &[]).await?;
            list_sessions(&sessions, shown)?;
        }
        UserCommand::EndSessions(OneUser { name }) => {
            client.delete(&[api, version, users, &name, "sessions"]).await?;
            output::note(&format!("the sessions of {name} have ended"));
        }
    }
    Ok(Exit::Succeeded)
}

async fn act(client: &Client, user: &OneUser, verb: &str, done: &str) -> Result<()> {
    let [api, version, users] = USERS;
    client.act::<()>(&[api, version, users, &user.name, verb]).await?;
    output::note(&format!("{} {done}", user.name));
    Ok(())
}

/// A token that is good once, and who types what with it.
fn hand_over(client: &Client, created: &CreatedOneTimeToken, who: &str, command: &str) -> String {
    format!(
        "{}\n\nGood once, until {}. {who}:\n\n  opsctl --addr {} {command}\n",
        created.token.expose(),
        human::moment(created.expires_at, clock::now()),
        client.shown_addr(),
    )
}

const fn state(user: &User) -> &'static str {
    if user.disabled { "disabled" } else { "active" }
}

const fn yes_no(is: bool) -> &'static str {
    if is { "yes" } else { "no" }
}

fn describe(user: &User, now: Timestamp) -> String {
    let mut table = Table::plain();
    let mut row = |name: &str, value: String| table.row([name.to_owned(), value]);
    row("Name", user.name.clone());
    row("Id", user.id.to_string());
    row("State", state(user).to_owned());
    row("Second factor", yes_no(user.second_factor).to_owned());
    row("Roles", human::words(&user.roles));
    row("Groups", human::words(&user.groups));
    row("Created", human::moment(user.created_at, now));
    row("Member", format!("since {}, by {}", human::moment(user.added_at, now), user.added_by));
    row("Last used", human::or_dash(user.last_used_at.map(|at| human::moment(at, now))));
    table.take()
}
