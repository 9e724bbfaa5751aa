//! `opsctl invitation`, and what people do with tokens that are good once: `accept-invitation` and `reset-password`.

use anyhow::Result;
use model::api::{
    auth::{AcceptInvitation, Entered, ResetPassword, Secret},
    user::Invitation,
};

use crate::{
    args::{AcceptArgs, Global, InvitationCommand, PasswordFrom},
    ask,
    client::{Client, Error},
    clock,
    context::{Connection, Environment},
    exit::Exit,
    output::{self, human},
};

const INVITATIONS: [&str; 3] = ["api", "v1", "invitations"];

/// # Errors
/// As the requests, and when stdout is closed or full.
pub(crate) async fn run(client: &Client, command: InvitationCommand) -> Result<Exit> {
    match command {
        InvitationCommand::List(shown) => {
            let now = clock::now();
            let header = &["ID", "ROLE", "USED", "EXPIRES", "CREATED", "CREATED BY"];
            let pages = client.pages(&INVITATIONS, Vec::new(), None);
            output::list(pages, shown.output, header, |invitation: &Invitation| {
                vec![
                    invitation.id.to_string(),
                    human::or_dash(invitation.role.as_ref()),
                    if invitation.used { "yes" } else { "no" }.to_owned(),
                    human::relative(invitation.expires_at, now),
                    human::relative(invitation.created_at, now),
                    invitation.created_by.clone(),
                ]
            })
            .await?;
        }
        InvitationCommand::Delete { id } => {
            let [api, version, invitations] = INVITATIONS;
            client.delete(&[api, version, invitations, &id.to_string()]).await?;
            output::note(&format!("the invitation {id} is worthless now"));
        }
    }
    Ok(Exit::Succeeded)
}

/// Joins an organization.
///
/// # Errors
/// When a secret cannot be read, or the controller refuses.
pub(crate) async fn accept(global: &Global, environment: &Environment, args: AcceptArgs) -> Result<Exit> {
    let client = as_nobody(global, environment)?;
    let token = ask::token("invitation", global.token_file.as_deref(), None)?;
    let mut request = AcceptInvitation {
        token: Secret::new(token.expose()),
        password: ask::new_password(
            &format!("Password for '{}': ", args.user),
            args.password.password_file.as_deref(),
        )?,
        user: args.user,
        code: args.code.map(Secret::new),
    };
    let path = ["api", "v1", "auth", "accept-invitation"];
    let mut answer: Result<Entered, Error> = client.post(&path, &request).await;
    if let Err(Error::Problem(problem)) = &answer
        && problem.code == "second_factor_required"
        && request.code.is_none()
        && let Some(code) = ask::code()
    {
        request.code = Some(code);
        answer = client.post(&path, &request).await;
    }
    let entered = answer?;
    output::print(&format!(
        "{} is a member of {}. Log in with: opsctl --addr {} login --user {0} --organization {1}\n",
        entered.user,
        entered.organization,
        client.shown_addr(),
    ))?;
    Ok(Exit::Succeeded)
}

/// Chooses a new password, with a token that an administrator made.
///
/// # Errors
/// When a secret cannot be read, or the controller refuses.
pub(crate) async fn reset_password(
    global: &Global,
    environment: &Environment,
    password: PasswordFrom,
) -> Result<Exit> {
    let client = as_nobody(global, environment)?;
    let token = ask::token("token", global.token_file.as_deref(), None)?;
    let password = ask::new_password("New password: ", password.password_file.as_deref())?;
    let request = ResetPassword { token: Secret::new(token.expose()), password };
    client.post::<()>(&["api", "v1", "auth", "reset-password"], &request).await?;
    output::note("the password is changed; log in with it");
    Ok(Exit::Succeeded)
}

/// The token in the request is all that counts.
fn as_nobody(global: &Global, environment: &Environment) -> Result<Client> {
    let connection = Connection::to_enter(global, environment)?;
    super::login::warn_of_plain_http(&connection);
    Client::new(&connection)
}
