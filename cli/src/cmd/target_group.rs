//! `opsctl target-group`: hosts that jobs and commands name together.

use anyhow::Result;
use jiff::Timestamp;
use model::api::target_group::{ChangeTargetGroup, CreateTargetGroup, Members, TargetGroup};

use crate::{
    args::{CreateTargetGroupArgs, TargetGroupCommand, UpdateTargetGroupArgs},
    client::Client,
    clock,
    exit::{Exit, Usage},
    output::{self, Table, human},
};

const GROUPS: [&str; 3] = ["api", "v1", "target-groups"];

fn path(group: &str) -> [&str; 4] {
    let [api, version, groups] = GROUPS;
    [api, version, groups, group]
}

/// # Errors
/// As the requests, and when stdout is closed or full.
pub(crate) async fn run(client: &Client, command: TargetGroupCommand) -> Result<Exit> {
    match command {
        TargetGroupCommand::Create(args) => create(client, args).await?,
        TargetGroupCommand::List(shown) => {
            let now = clock::now();
            let header = &["NAME", "HOSTS", "UPDATED", "UPDATED BY", "DESCRIPTION"];
            let pages = client.pages(&GROUPS, Vec::new(), None);
            output::list(pages, shown.output, header, |group: &TargetGroup| {
                vec![
                    group.name.clone(),
                    members(group),
                    human::relative(group.updated_at, now),
                    group.updated_by.clone(),
                    group.description.lines().next().unwrap_or_default().to_owned(),
                ]
            })
            .await?;
        }
        TargetGroupCommand::Show(one) => {
            let group: TargetGroup = client.get(&path(&one.name), &[]).await?;
            output::show(one.shown.output, &group, |group| describe(group, clock::now()))?;
        }
        TargetGroupCommand::Update(args) => update(client, args).await?,
        TargetGroupCommand::Delete { name } => {
            client.delete(&path(&name)).await?;
            output::note(&format!("the target group {name} is deleted"));
        }
    }
    Ok(Exit::Succeeded)
}

async fn create(client: &Client, args: CreateTargetGroupArgs) -> Result<()> {
    let request = CreateTargetGroup {
        name: args.group.name,
        description: args.description.unwrap_or_default(),
        members: Members { hosts: args.target, selector: args.selector },
    };
    request.validate().map_err(|invalid| Usage(invalid.to_string()))?;
    let group: TargetGroup = client.post(&GROUPS, &request).await?;
    output::show(args.group.shown.output, &group, said)
}

async fn update(client: &Client, args: UpdateTargetGroupArgs) -> Result<()> {
    let name = args.group.name.clone();
    let before: TargetGroup = client.get(&path(&name), &[]).await?;
    let shown = args.group.shown;
    let request = changed(before, args)?;
    request.validate().map_err(|invalid| Usage(invalid.to_string()))?;
    let group: TargetGroup = client.put(&path(&name), &request).await?;
    output::show(shown.output, &group, said)
}

/// The group as it is to be, unless somebody else has changed it meanwhile.
fn changed(before: TargetGroup, args: UpdateTargetGroupArgs) -> Result<ChangeTargetGroup> {
    let members = if !args.target.is_empty() {
        Members { hosts: args.target, selector: None }
    } else if args.selector.is_some() {
        Members { hosts: Vec::new(), selector: args.selector }
    } else if args.add.is_empty() && args.remove.is_empty() {
        Members { hosts: before.hosts, selector: before.selector }
    } else if before.selector.is_some() {
        let why = "is a selector: change that with -l, or name its hosts with -t";
        return Err(Usage(format!("the target group {} {why}", before.name)).into());
    } else {
        let unknown = args.remove.iter().find(|name| !before.hosts.contains(name));
        if let Some(name) = unknown {
            return Err(Usage(format!("{name} is not in the target group {}", before.name)).into());
        }
        let mut hosts = before.hosts;
        hosts.retain(|name| !args.remove.contains(name));
        hosts.extend(args.add);
        Members { hosts, selector: None }
    };
    Ok(ChangeTargetGroup {
        description: args.description.unwrap_or(before.description),
        members,
        expected_version: Some(before.version),
    })
}

fn said(group: &TargetGroup) -> String {
    format!("the target group {} is {}\n", group.name, members(group))
}

fn members(group: &TargetGroup) -> String {
    group.selector.clone().unwrap_or_else(|| human::count(group.size, "host"))
}

fn describe(group: &TargetGroup, now: Timestamp) -> String {
    let mut table = Table::plain();
    let mut row = |name: &str, value: String| table.row([name.to_owned(), value]);
    row("Id", group.id.to_string());
    row("Name", group.name.clone());
    if !group.description.is_empty() {
        row("Description", group.description.clone());
    }
    match &group.selector {
        Some(selector) => row("Selector", selector.clone()),
        None => row("Hosts", human::words(&group.hosts)),
    }
    if group.hidden > 0 {
        row("Not shown", human::count(group.hidden, "host"));
    }
    if !group.missing.is_empty() {
        row(
            "Not there",
            format!("{} (nothing starts on the group until they are out)", human::words(&group.missing)),
        );
    }
    row("Version", format!("{} by {}", group.version, group.updated_by));
    row("Created", format!("{} by {}", human::moment(group.created_at, now), group.created_by));
    row("Updated", human::moment(group.updated_at, now));
    table.take()
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::args::{Cli, Command};

    fn group(members: &serde_json::Value) -> TargetGroup {
        let mut group = serde_json::json!({
            "id": "00000000-0000-7000-8000-000000000001", "name": "web", "size": 2, "version": 3,
            "created_at": "2026-01-31T08:00:00Z", "created_by": "ada",
            "updated_at": "2026-01-31T08:00:00Z", "updated_by": "bob",
        });
        let fields = group.as_object_mut().unwrap();
        fields.extend(members.as_object().unwrap().clone());
        serde_json::from_value(group).unwrap()
    }

    fn update(before: TargetGroup, line: &str) -> Result<ChangeTargetGroup> {
        let words = ["opsctl", "target-group", "update", "web"].into_iter().chain(line.split(' '));
        match Cli::try_parse_from(words).unwrap().command {
            Command::TargetGroup(TargetGroupCommand::Update(args)) => changed(before, args),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_change_is_made_to_what_there_is() {
        let named = || group(&serde_json::json!({ "hosts": ["a", "b"], "description": "old" }));
        let change = update(named(), "--add c --remove a").unwrap();
        assert_eq!(change.members.hosts, ["b", "c"]);
        assert_eq!((change.description.as_str(), change.expected_version), ("old", Some(3)));
        assert_eq!(update(named(), "--description new").unwrap().members.hosts, ["a", "b"]);
        assert_eq!(update(named(), "-t x,y").unwrap().members.hosts, ["x", "y"]);
        let selected = update(named(), "-l role=web").unwrap();
        assert_eq!(
            (selected.members.selector.as_deref(), selected.members.hosts.len()),
            (Some("role=web"), 0)
        );
        assert!(update(named(), "--remove z").is_err());
        assert!(update(group(&serde_json::json!({ "selector": "role=web" })), "--add c").is_err());
    }

    #[test]
    fn what_is_not_there_is_told() {
        let group = group(&serde_json::json!({ "hosts": ["a", "b"], "missing": ["b"], "hidden": 1 }));
        let text = describe(&group, "2026-02-01T08:00:00Z".parse().unwrap());
        assert!(
            text.contains("Not there  b (nothing starts") && text.contains("Not shown  1 host\n"),
            "{text}"
        );
    }
}
