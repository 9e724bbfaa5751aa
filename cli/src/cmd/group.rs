//! `opsctl group`: groups of people, which have roles together.

use anyhow::Result;
use model::api::user::{CreateGroup, Group};
use serde_json::json;

use crate::{
    args::{GroupCommand, Member},
    client::Client,
    clock,
    exit::Exit,
    output::{self, human},
};

const GROUPS: [&str; 3] = ["api", "v1", "groups"];

/// # Errors
/// As the requests, and when stdout is closed or full.
pub(crate) async fn run(client: &Client, command: GroupCommand) -> Result<Exit> {
    let [api, version, groups] = GROUPS;
    match command {
        GroupCommand::List(shown) => {
            let now = clock::now();
            let header = &["NAME", "CREATED", "CREATED BY", "MEMBERS"];
            output::list(client.pages(&GROUPS, Vec::new(), None), shown.output, header, |group: &Group| {
                vec![
                    group.name.clone(),
                    human::relative(group.created_at, now),
                    group.created_by.clone(),
                    human::words(&group.members),
                ]
            })
            .await?;
        }
        GroupCommand::Create { name, shown } => {
            let group: Group = client.post(&GROUPS, &CreateGroup { name }).await?;
            output::show(shown.output, &group, |group| {
                format!("{} is a group without members\n", group.name)
            })?;
        }
        GroupCommand::Delete { name } => {
            client.delete(&[api, version, groups, &name]).await?;
            output::note(&format!("the group {name} is deleted"));
        }
        GroupCommand::Add(Member { group, user }) => {
            let path = [api, version, groups, &group, "members", &user.name];
            client.put::<()>(&path, &json!({})).await?;
            output::note(&format!("{} is in {group}", user.name));
        }
        GroupCommand::Remove(Member { group, user }) => {
            client.delete(&[api, version, groups, &group, "members", &user.name]).await?;
            output::note(&format!("{} is not in {group} any more", user.name));
        }
    }
    Ok(Exit::Succeeded)
}
