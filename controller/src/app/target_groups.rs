//! Target groups: hosts that jobs and commands name together. A group gives no right: what starts on its hosts is checked as
//! if they had been named one by one.
//!
//! Invariant: nobody loses a member that he does not see: who changes a group sees all of it.

use std::collections::HashSet;

use model::{
    Invalid,
    access::Permission,
    api::target_group::{ChangeTargetGroup, CreateTargetGroup, Members, TargetGroup},
    id::TargetGroupId,
    limits,
    selector::Selector,
};
use serde_json::json;
use sqlx::PgConnection;

use super::{
    App,
    access::{AgentRead, Authorized, JobManage},
    executions::parse_selector,
};
use crate::{
    clock,
    error::{During, Error, Result},
    store::{
        self,
        agents::{Target, Wanted},
        audit,
        target_groups::Saved,
    },
};

const NOUN: &str = "target group";

/// Makes a group.
///
/// # Errors
/// When a field is wrong, a host is not there, the name is taken, or there are too many.
pub(crate) async fn create(
    app: &App,
    by: &Authorized<JobManage>,
    request: &CreateTargetGroup,
) -> Result<TargetGroup> {
    request.validate()?;
    may_manage(by)?;
    let (org, now) = (by.org_id(), clock::now());
    let mut tx = app.db.of(org).begin().await.during("begin")?;
    if store::target_groups::count(&mut tx, org).await? >= limits::TARGET_GROUPS {
        let most = usize::try_from(limits::TARGET_GROUPS).unwrap_or(0);
        return Err(Invalid::over("name", "TARGET_GROUPS", most, "target groups").into());
    }
    let members = known(&mut tx, by, &request.members).await?;
    let id = TargetGroupId::new(now, clock::entropy());
    let new = Saved {
        id,
        org_id: org,
        name: &request.name,
        description: &request.description,
        members: &members,
        version: 1,
        at: now,
        by: &by.actor().name,
    };
    store::target_groups::insert(&mut tx, &new).await?;
    let detail = json!({ "name": request.name, "after": members });
    audit::record(&mut tx, org, now, by.entry("target_group.create", object(id), detail)).await?;
    let made = find(&mut tx, by, &request.name, false).await?;
    tx.commit().await.during("commit")?;
    Ok(made)
}

/// Changes all of a group but its name.
///
/// # Errors
/// When a field is wrong, a host is not there, somebody was faster, or the group has hosts that the caller may not see.
pub(crate) async fn change(
    app: &App,
    by: &Authorized<JobManage>,
    key: &str,
    request: &ChangeTargetGroup,
) -> Result<TargetGroup> {
    request.validate()?;
    may_manage(by)?;
    let (org, now) = (by.org_id(), clock::now());
    let mut tx = app.db.of(org).begin().await.during("begin")?;
    let before = find(&mut tx, by, key, true).await?;
    if let Some(expected) = request.expected_version
        && expected != before.version
    {
        return Err(Error::Conflict(format!(
            "the target group '{}' is at version {} by {}, and version {expected} was expected: look at it and save \
             again",
            before.name, before.version, before.updated_by
        )));
    }
    let seen = by.actor().hosts_seen()?;
    let seen_before = as_seen(&mut tx, by, before.clone(), seen.as_deref()).await?;
    if seen_before.hidden > 0 {
        let why = "the group has hosts that they may not see, and would lose them";
        return Err(by.actor().refusal(Permission::AgentRead, why));
    }
    let members = known(&mut tx, by, &request.members).await?;
    let new = Saved {
        id: before.id,
        org_id: org,
        name: &before.name,
        description: &request.description,
        members: &members,
        version: before.version + 1,
        at: now,
        by: &by.actor().name,
    };
    store::target_groups::update(&mut tx, &new).await?;
    let was = Members { hosts: before.hosts, selector: before.selector };
    let detail = json!({ "name": before.name, "before": was, "after": members });
    audit::record(&mut tx, org, now, by.entry("target_group.update", object(before.id), detail)).await?;
    let changed = find(&mut tx, by, &before.name, false).await?;
    tx.commit().await.during("commit")?;
    Ok(changed)
}

/// Deletes a group. What names it says so at its next start.
///
/// # Errors
/// When there is none.
pub(crate) async fn delete(app: &App, by: &Authorized<JobManage>, key: &str) -> Result<()> {
    may_manage(by)?;
    let (org, now) = (by.org_id(), clock::now());
    let mut tx = app.db.of(org).begin().await.during("begin")?;
    let group = find(&mut tx, by, key, true).await?;
    store::target_groups::delete(&mut tx, org, group.id).await?;
    let was = Members { hosts: group.hosts, selector: group.selector };
    let detail = json!({ "name": group.name, "before": was });
    audit::record(&mut tx, org, now, by.entry("target_group.delete", object(group.id), detail)).await?;
    tx.commit().await.during("commit")
}

/// A group with those of its hosts that one may see, and what is not there of them.
///
/// # Errors
/// When there is none.
pub(crate) async fn show(app: &App, by: &Authorized<AgentRead>, key: &str) -> Result<TargetGroup> {
    let mut connection = app.db.of(by.org_id()).acquire().await.during("acquire of a connection")?;
    let group = find(&mut connection, by, key, false).await?;
    as_seen(&mut connection, by, group, by.hosts()).await
}

/// The hosts of a group that can be a target now, by name, without those that `exclude` holds for.
///
/// # Errors
/// When there is no such group, or a host that it names is not there.
pub(super) async fn targets<P>(
    connection: &mut PgConnection,
    by: &Authorized<P>,
    name: &str,
    exclude: Option<&Selector>,
) -> Result<Vec<Target>> {
    let (org, hosts) = (by.org_id(), by.hosts());
    let group = find(connection, by, name, false).await?;
    if let Some(text) = &group.selector {
        let selector = parse_selector("targets.group", text)?;
        return store::agents::targets(connection, org, Wanted::Selected(&selector), exclude, hosts).await;
    }
    let named = Wanted::Named(&group.hosts);
    let found = store::agents::targets(connection, org, named, None, hosts).await?;
    let gone = absent(&group.hosts, &found);
    if let Some(first) = gone.first() {
        // Who does not see all hosts is not told of one that he may not have seen.
        let which = match by.actor().hosts_seen() {
            Ok(None) => format!("the host '{first}'"),
            _ => "a host".to_owned(),
        };
        return Err(Error::Conflict(format!(
            "the target group '{}' names {which} that is not there (any more): take it out of the group, or let it \
             enroll again",
            group.name
        )));
    }
    if exclude.is_none() {
        return Ok(found);
    }
    store::agents::targets(connection, org, Wanted::Named(&group.hosts), exclude, hosts).await
}

async fn find<P>(
    connection: &mut PgConnection,
    by: &Authorized<P>,
    key: &str,
    to_change: bool,
) -> Result<TargetGroup> {
    let found = store::target_groups::find(connection, by.org_id(), key, to_change).await?;
    found.ok_or_else(|| Error::not_found(NOUN, key))
}

/// Groups have no labels: they are for all jobs.
fn may_manage(by: &Authorized<JobManage>) -> Result<()> {
    if by.actor().unconfined().contains(Permission::JobManage) {
        return Ok(());
    }
    Err(by.actor().refusal(Permission::JobManage, "target groups are for all jobs, and theirs is for some"))
}

/// The members in their one form.
///
/// # Errors
/// When a host is not there, or not among those that the caller may see: which of the two is not told.
async fn known(
    connection: &mut PgConnection,
    by: &Authorized<JobManage>,
    members: &Members,
) -> Result<Members> {
    let mut members = members.clone();
    members.hosts.sort();
    members.hosts.dedup();
    if members.hosts.is_empty() {
        return Ok(members);
    }
    let seen = by.actor().hosts_seen()?;
    let named = Wanted::Named(&members.hosts);
    let mut found = store::agents::targets(connection, by.org_id(), named, None, seen.as_deref()).await?;
    found.retain(|host| host.allowed);
    match absent(&members.hosts, &found).first() {
        Some(name) => {
            Err(Invalid::new("members.hosts", format!("has '{name}', and there is no such host")).into())
        }
        None => Ok(members),
    }
}

/// The group as somebody sees it who may know of the hosts `seen`; `None`: of all.
async fn as_seen<P>(
    connection: &mut PgConnection,
    by: &Authorized<P>,
    mut group: TargetGroup,
    seen: Option<&Selector>,
) -> Result<TargetGroup> {
    if group.hosts.is_empty() {
        return Ok(group);
    }
    let named = Wanted::Named(&group.hosts);
    let found = store::agents::targets(connection, by.org_id(), named, None, seen).await?;
    if seen.is_none() {
        group.missing = absent(&group.hosts, &found).into_iter().cloned().collect();
    } else {
        // A host that is gone has no labels any more by which somebody might have seen it.
        group.hosts = found.into_iter().filter(|host| host.allowed).map(|host| host.name).collect();
        group.hidden = group.size - i32::try_from(group.hosts.len()).unwrap_or(0);
    }
    Ok(group)
}

/// Those of the names that are not among the hosts.
fn absent<'a>(names: &'a [String], found: &[Target]) -> Vec<&'a String> {
    let found: HashSet<&str> = found.iter().map(|host| host.name.as_str()).collect();
    names.iter().filter(|name| !found.contains(name.as_str())).collect()
}

fn object(id: TargetGroupId) -> String {
    format!("target-group/{id}")
}
