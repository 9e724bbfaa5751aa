//! `opsctl auth`: what one may do and why; one's own sessions, password and second factor.

use anyhow::Result;
use model::{
    access::Permission,
    api::{
        auth::{
            BindingReason, ChangePassword, ConfirmTotp, LoginSession, RecoveryCodes, RemoveTotp, Secret,
            TotpStarted, Verdict,
        },
        status::WhoAmI,
    },
};
use serde_json::json;

use crate::{
    args::{AuthCommand, Question, Shown, TotpCommand},
    ask,
    client::{Client, Error},
    clock,
    exit::Exit,
    output::{self, Table, human},
};

const TOTP: [&str; 4] = ["api", "v1", "auth", "totp"];

/// # Errors
/// As the requests, when a password cannot be read, and when stdout is closed or full.
pub(crate) async fn run(client: &Client, command: AuthCommand) -> Result<Exit> {
    match command {
        AuthCommand::CanI(question) => {
            let verdict = ask_about(client, &question).await?;
            output::show(question.shown.output, &verdict, sentence)?;
            return Ok(if verdict.allowed { Exit::Succeeded } else { Exit::Denied });
        }
        AuthCommand::Why(question) => {
            let verdict = ask_about(client, &question).await?;
            output::show(question.shown.output, &verdict, explain)?;
        }
        AuthCommand::Whoami(shown) => {
            let whoami: WhoAmI = client.get(&["api", "v1", "whoami"], &[]).await?;
            output::show(shown.output, &whoami, describe)?;
        }
        AuthCommand::Sessions(shown) => {
            let sessions: Vec<LoginSession> = client.get(&["api", "v1", "auth", "sessions"], &[]).await?;
            list_sessions(&sessions, shown)?;
        }
        AuthCommand::EndSession { id } => {
            client.delete(&["api", "v1", "auth", "sessions", &id.to_string()]).await?;
            output::note(&format!("the session {id} has ended"));
        }
        AuthCommand::Password { password_file } => {
            let (current, new) = ask::old_and_new(password_file.as_deref())?;
            let request = ChangePassword { current, new };
            let done: Result<(), Error> = client.put(&["api", "v1", "auth", "password"], &request).await;
            done.map_err(Error::of_password)?;
            output::note("the password is changed; all other sessions have ended");
        }
        AuthCommand::Totp(command) => totp(client, command).await?,
    }
    Ok(Exit::Succeeded)
}

async fn ask_about(client: &Client, question: &Question) -> Result<Verdict> {
    let mut query = vec![("permission", question.permission.to_string())];
    query.extend(question.host.clone().map(|host| ("host", host)));
    query.extend(question.somebody.clone().map(|name| ("as", name)));
    Ok(client.get(&["api", "v1", "auth", "can-i"], &query).await?)
}

fn sentence(verdict: &Verdict) -> String {
    format!("{}: {}\n", if verdict.allowed { "yes" } else { "no" }, verdict.reason)
}

fn explain(verdict: &Verdict) -> String {
    let mut text = sentence(verdict);
    text.push_str(&format!("\n{}: {}\n", verdict.permission, verdict.permission.about()));
    if verdict.bindings.is_empty() {
        return text + "No role that gives it is bound.\n";
    }
    let mut table = Table::new(&["GIVES IT", "ROLE", "GROUP", "HOSTS", "JOBS", "BINDING", "WHY NOT"]);
    for binding in &verdict.bindings {
        let BindingReason { id, role, group, hosts, jobs, applies, why_not } = binding;
        table.row([
            if *applies { "yes" } else { "no" }.to_owned(),
            role.clone(),
            human::or_dash(group.as_ref()),
            scope(hosts.as_ref()),
            scope(jobs.as_ref()),
            id.to_string(),
            why_not.clone().unwrap_or_default(),
        ]);
    }
    text + &table.take()
}

/// What a binding or a token is confined to.
pub(super) fn scope(selector: Option<&String>) -> String {
    selector.map_or_else(|| "all".to_owned(), Clone::clone)
}

fn describe(whoami: &WhoAmI) -> String {
    let mut table = Table::plain();
    let mut row = |name: &str, value: String| table.row([name.to_owned(), value]);
    row("Actor", whoami.actor.clone());
    row("Organization", whoami.organization.clone());
    row("Credential", whoami.credential.replace('_', " "));
    let mut text = table.take();
    text.push_str("\nPermissions, for all hosts or for some\n");
    let mut table = Table::plain();
    for name in &whoami.permissions {
        let about = Permission::parse(name).map(Permission::about).unwrap_or_default();
        table.row([format!("  {name}"), about.to_owned()]);
    }
    text + &table.take()
}

/// # Errors
/// When stdout is closed or full.
pub(super) fn list_sessions(sessions: &[LoginSession], shown: Shown) -> Result<()> {
    let now = clock::now();
    let header = &["ID", "ORGANIZATION", "CREATED", "LAST USED", "EXPIRES", "ADDRESS", "CLIENT", "CURRENT"];
    output::whole(sessions, shown.output, header, |session| {
        vec![
            session.id.to_string(),
            session.organization.clone(),
            human::relative(session.created_at, now),
            human::relative(session.last_used_at, now),
            human::relative(session.expires_at, now),
            session.address.clone(),
            session.client.clone(),
            if session.current { "*" } else { "" }.to_owned(),
        ]
    })
}

async fn totp(client: &Client, command: TotpCommand) -> Result<()> {
    let [api, version, auth, totp] = TOTP;
    match command {
        TotpCommand::Start(shown) => {
            let started: TotpStarted = client.post(&TOTP, &json!({})).await?;
            output::show(shown.output, &started, |started| {
                format!(
                    "Secret  {}\nURL     {}\n\nIt counts once a code of it is confirmed:\n\n  \
                     opsctl auth totp confirm CODE\n",
                    started.secret.expose(),
                    started.url.expose()
                )
            })
        }
        TotpCommand::Confirm { code, shown } => {
            let request = ConfirmTotp { code: Secret::new(code) };
            let path = [api, version, auth, totp, "confirm"];
            let codes: Result<RecoveryCodes, Error> = client.post(&path, &request).await;
            output::show(shown.output, &codes.map_err(Error::of_password)?, |codes| {
                let codes: String =
                    codes.recovery_codes.iter().map(|code| format!("{}\n", code.expose())).collect();
                format!(
                    "The second factor counts. Each of these is good once in its place; keep them:\n\n{codes}"
                )
            })
        }
        TotpCommand::Remove { password } => {
            let password = ask::password("Password: ", password.password_file.as_deref())?;
            let path = [api, version, auth, totp, "remove"];
            let done: Result<(), Error> = client.post(&path, &RemoveTotp { password }).await;
            done.map_err(Error::of_password)?;
            output::note("there is no second factor any more");
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use model::id::RoleBindingId;

    use super::*;

    #[test]
    fn a_verdict_with_what_speaks_for_it_and_what_does_not() {
        let binding = |role: &str, hosts: Option<&str>, why_not: Option<&str>| BindingReason {
            id: RoleBindingId::from_bytes(&[7; 16]).unwrap(),
            role: role.into(),
            group: None,
            hosts: hosts.map(str::to_owned),
            jobs: None,
            applies: why_not.is_none(),
            why_not: why_not.map(str::to_owned),
        };
        let verdict = Verdict {
            allowed: true,
            permission: Permission::ExecutionCreate,
            actor: "ada".into(),
            host: Some("web-1".into()),
            hosts: None,
            reason: "ada may on 'web-1', by the role 'operator'".into(),
            bindings: vec![
                binding("operator", Some("env=staging"), None),
                binding("author", Some("env=prod"), Some("the host is not among its hosts")),
            ],
        };
        let text = explain(&verdict);
        for part in [
            "yes: ada may on 'web-1', by the role 'operator'\n",
            "execution.create: Run commands\n",
            "yes       operator  -      env=staging  all",
            "no        author    -      env=prod     all",
            "the host is not among its hosts\n",
        ] {
            assert!(text.contains(part), "{part:?} in\n{text}");
        }
        assert!(explain(&Verdict { bindings: Vec::new(), ..verdict }).contains("No role that gives it"));
    }
}
