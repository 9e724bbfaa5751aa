//! `opsctl role`: roles, and who has which for which hosts.

use anyhow::Result;
use model::api::role::{CreateRoleBinding, PutRole, Role, RoleBinding};

use super::auth::scope;
use crate::{
    args::{BindArgs, RoleCommand},
    client::Client,
    clock,
    exit::{Exit, Usage},
    output::{self, human},
};

const ROLES: [&str; 3] = ["api", "v1", "roles"];
const BINDINGS: [&str; 3] = ["api", "v1", "role-bindings"];

/// # Errors
/// As the requests, and when stdout is closed or full.
pub(crate) async fn run(client: &Client, command: RoleCommand) -> Result<Exit> {
    let [api, version, roles] = ROLES;
    match command {
        RoleCommand::List(shown) => {
            let roles: Vec<Role> = client.get(&ROLES, &[]).await?;
            output::whole(&roles, shown.output, &["NAME", "BUILT IN", "PERMISSIONS"], |role| {
                let built_in = if role.built_in { "yes" } else { "no" };
                vec![role.name.clone(), built_in.to_owned(), human::words(&role.permissions)]
            })?;
        }
        RoleCommand::Set { name, permissions, shown } => {
            let request = PutRole { permissions };
            request.validate(&name).map_err(|invalid| Usage(invalid.to_string()))?;
            let role: Role = client.put(&[api, version, roles, &name], &request).await?;
            output::show(shown.output, &role, |role| {
                format!("{} gives {}\n", role.name, human::words(&role.permissions))
            })?;
        }
        RoleCommand::Delete { name } => {
            client.delete(&[api, version, roles, &name]).await?;
            output::note(&format!("the role {name} is deleted"));
        }
        RoleCommand::Bind(args) => bind(client, args).await?,
        RoleCommand::Unbind { id } => {
            let [api, version, bindings] = BINDINGS;
            client.delete(&[api, version, bindings, &id.to_string()]).await?;
            output::note(&format!("the binding {id} is gone"));
        }
        RoleCommand::Bindings(shown) => {
            let now = clock::now();
            let header = &["ID", "ROLE", "HOLDER", "HOSTS", "JOBS", "CREATED", "CREATED BY"];
            let pages = client.pages(&BINDINGS, Vec::new(), None);
            output::list(pages, shown.output, header, |binding: &RoleBinding| {
                vec![
                    binding.id.to_string(),
                    binding.role.clone(),
                    holder(binding),
                    scope(binding.hosts.as_ref()),
                    scope(binding.jobs.as_ref()),
                    human::relative(binding.created_at, now),
                    binding.created_by.clone(),
                ]
            })
            .await?;
        }
    }
    Ok(Exit::Succeeded)
}

async fn bind(client: &Client, args: BindArgs) -> Result<()> {
    let BindArgs { role, user, group, service_account, hosts, jobs, shown } = args;
    let mut request = CreateRoleBinding { role, user, group, service_account, hosts, jobs };
    request.validate().map_err(|invalid| Usage(invalid.to_string()))?;
    let binding: RoleBinding = client.post(&BINDINGS, &request).await?;
    output::show(shown.output, &binding, |binding| {
        let jobs = binding.jobs.as_ref().map(|jobs| format!(" and jobs with {jobs}")).unwrap_or_default();
        let hosts = binding
            .hosts
            .as_ref()
            .map_or_else(|| "all hosts".to_owned(), |hosts| format!("hosts with {hosts}"));
        format!(
            "{} has the role {} for {hosts}{jobs} (binding {})\n",
            holder(binding),
            binding.role,
            binding.id
        )
    })
}

fn holder(binding: &RoleBinding) -> String {
    match (&binding.user, &binding.group, &binding.service_account) {
        (Some(user), ..) => user.clone(),
        (None, Some(group), _) => format!("group/{group}"),
        (None, None, Some(account)) => format!("service/{account}"),
        (None, None, None) => "-".to_owned(),
    }
}
