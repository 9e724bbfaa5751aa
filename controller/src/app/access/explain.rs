//! Why somebody may do something, or not.

use model::{
    access::{Permission, Reach},
    api::{
        agent::Agent,
        auth::{BindingReason, Verdict},
    },
};

use super::{Actor, Grant, Hosts, actor::is_for_any_host};

/// Whether `actor` may do this, on `host` if one is named, and which bindings speak for it.
pub(crate) fn explain(actor: &Actor, permission: Permission, host: Option<&Agent>) -> Verdict {
    let on = |hosts: &model::selector::Selector| {
        host.is_none_or(|host| hosts.matches(&host.name, &host.labels, &host.facts))
    };
    let judged = actor.judge(permission);
    let bindings: Vec<BindingReason> = actor
        .grants
        .iter()
        .filter(|grant| grant.permissions.contains(permission))
        .map(|grant| {
            let why_not = why_not(actor, permission, grant).or_else(|| match &grant.hosts {
                Some(hosts) if !on(hosts) => Some("the host is not among its hosts".to_owned()),
                _ => None,
            });
            BindingReason {
                id: grant.id,
                role: grant.role.clone(),
                group: grant.group.clone(),
                hosts: grant.hosts.as_ref().map(ToString::to_string),
                jobs: grant.jobs.as_ref().map(ToString::to_string),
                applies: why_not.is_none(),
                why_not,
            }
        })
        .collect();
    let (allowed, hosts, reason) = match judged {
        Err(why) => (false, None, format!("{} may not: {why}", actor.name)),
        Ok(Hosts::All) if permission.reach() == Reach::Everyone => {
            (true, None, format!("{} may: everybody who has entered may", actor.name))
        }
        Ok(Hosts::All) => (true, None, format!("{} may, by {}", actor.name, by(&bindings))),
        Ok(Hosts::Where(selector)) => {
            let text = selector.to_string();
            match host {
                Some(host) if !on(&selector) => {
                    (false, Some(text), format!("{} may, but not on '{}'", actor.name, host.name))
                }
                Some(host) => {
                    (true, Some(text), format!("{} may on '{}', by {}", actor.name, host.name, by(&bindings)))
                }
                None => (true, Some(text.clone()), format!("{} may on hosts with {text}", actor.name)),
            }
        }
    };
    let host = host.map(|host| host.name.clone());
    Verdict { allowed, permission, actor: actor.name.clone(), host, hosts, reason, bindings }
}

fn by(bindings: &[BindingReason]) -> String {
    match bindings.iter().find(|binding| binding.applies) {
        Some(BindingReason { role, group: Some(group), .. }) => {
            format!("the role '{role}' of the group '{group}'")
        }
        Some(BindingReason { role, .. }) => format!("the role '{role}'"),
        None => "nothing".to_owned(),
    }
}

fn why_not(actor: &Actor, permission: Permission, grant: &Grant) -> Option<String> {
    match permission.reach() {
        Reach::Everyone => None,
        Reach::Jobs => (!is_for_any_host(permission) && grant.hosts.is_some())
            .then(|| "what a job does is not confined to hosts, and it is".to_owned()),
        Reach::Hosts => {
            grant.jobs.as_ref().map(|_| "it is for some jobs only, and a command is no job".to_owned())
        }
        Reach::Installation if !actor.is_home => {
            Some("the permission counts in the home organization only".to_owned())
        }
        Reach::Organization | Reach::Installation if grant.hosts.is_some() || grant.jobs.is_some() => Some(
            "it is confined to some hosts or jobs, and the permission is about the whole organization"
                .to_owned(),
        ),
        Reach::Organization | Reach::Installation => None,
    }
}
