//! The report of access: who may do what on which host, judged as a request of theirs would be, and who did.

use std::{collections::BTreeSet, sync::Arc};

use jiff::Timestamp;
use model::{
    Invalid,
    access::{Permission, Permissions, Reach},
    api::report::{AccessReport, May},
    id::{LoginSessionId, UserId},
    label::{Facts, Labels},
    limits,
    selector::Selector,
};
use uuid::Uuid;

use super::{
    App,
    access::{Actor, Authorized, Credential, Hosts, Narrowed, ReportRead, Subject, Who},
    authenticate,
};
use crate::{
    clock,
    error::{Error, Result},
    store::{
        self,
        reports::{Holding, Host},
    },
};

/// What a report is about.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Question<'a> {
    pub since: Timestamp,
    pub until: Timestamp,
    /// Only of this person, or `service/NAME`.
    pub who: Option<&'a str>,
    /// Only of this host.
    pub host: Option<&'a str>,
}

/// Makes the report, with a few statements whatever its size.
///
/// # Errors
/// When there is nobody or no host of this name, or it would have more than `REPORT_ROWS` rows: ask for one host, one person
/// or less time.
pub(crate) async fn access(
    app: &App,
    by: &Authorized<ReportRead>,
    question: Question<'_>,
) -> Result<AccessReport> {
    let (org, pool) = (by.org_id(), app.db.of(by.org_id()));
    let most = limits::REPORT_ROWS;
    let limit = i64::try_from(most + 1).unwrap_or(i64::MAX);
    let who = question.who.map(|who| who.trim().to_ascii_lowercase());
    let who = who.as_deref();
    let holdings = store::reports::holdings(&pool, org, who, limit).await?;
    let hosts = store::reports::hosts(&pool, org, question.host, limit).await?;
    let span = (question.since, question.until);
    let did = store::reports::runs(&pool, org, span, (who, question.host), limit).await?;
    let ways = store::reports::ways(&pool, org, who, clock::now(), limit).await?;
    // Who was let go may have done something all the same; a name that is nobody's is a mistake.
    match (who, question.host) {
        (Some(who), _) if holdings.is_empty() && did.is_empty() => return Err(Error::not_found("user", who)),
        (_, Some(host)) if hosts.is_empty() && did.is_empty() => return Err(Error::not_found("agent", host)),
        _ => {}
    }
    if holdings.len() > most || hosts.len() > most || ways.len() > most || did.len() > most {
        return Err(too_large().into());
    }
    let like = by.actor().clone();
    let is_whole = question.host.is_none();
    let judged = tokio::task::spawn_blocking(move || may(&like, holdings, &hosts, is_whole)).await;
    let may = judged.map_err(|error| Error::internal("the report was not made", error))??;
    Ok(AccessReport {
        organization: by.actor().organization.clone(),
        made_at: clock::now(),
        since: question.since,
        until: question.until,
        may,
        ways,
        did,
    })
}

fn too_large() -> Invalid {
    let problem = format!(
        "would have more rows than the limit REPORT_ROWS of {}: ask for one host, one person or less time",
        limits::REPORT_ROWS
    );
    Invalid::new("report", problem)
}

/// What everybody may, as it would be judged if he asked. Who may something on all hosts has one row for all of them; a host
/// has a row of its own for what is added to that there.
fn may(like: &Actor, holdings: Vec<Holding>, hosts: &[Host], is_whole: bool) -> Result<Vec<May>, Invalid> {
    let mut people: Vec<(String, bool, Vec<store::role_bindings::Reaching>)> = Vec::new();
    for Holding { who, disabled, binding } in holdings {
        match people.last_mut() {
            Some(last) if last.0 == who => last.2.extend(binding),
            _ => people.push((who, disabled, binding.into_iter().collect())),
        }
    }
    let facts = Facts::new();
    let mut rows = Vec::new();
    for (name, disabled, bindings) in people {
        let actor = somebody(like, name, bindings);
        let on_all = |permission: &Permission| match permission.reach() {
            Reach::Organization | Reach::Installation => is_whole && actor.judge(*permission).is_ok(),
            Reach::Jobs => is_whole && actor.reaches_job(*permission, &Labels::new()),
            Reach::Hosts => matches!(actor.judge(*permission), Ok(Hosts::All)),
            Reach::Everyone => false,
        };
        let everywhere: Permissions = Permission::ALL.into_iter().filter(on_all).collect();
        rows.extend(row(&actor, None, everywhere, disabled));
        // Permissions that one selector holds for are judged by it together.
        let mut held: Vec<(String, Arc<Selector>, Permissions)> = Vec::new();
        for permission in Permission::ALL.into_iter().filter(|permission| permission.reach() == Reach::Hosts)
        {
            let Ok(Hosts::Where(selector)) = actor.judge(permission) else { continue };
            let text = selector.to_string();
            match held.iter_mut().find(|(known, ..)| *known == text) {
                Some((_, _, all)) => *all = all.union([permission].into_iter().collect()),
                None => held.push((text, selector, [permission].into_iter().collect())),
            }
        }
        for host in hosts.iter().filter(|_| !held.is_empty()) {
            let there = held
                .iter()
                .filter(|(_, selector, _)| selector.matches(&host.name, &host.labels, &facts))
                .fold(Permissions::NONE, |all, (.., permissions)| all.union(*permissions));
            rows.extend(row(&actor, Some(host), there, disabled));
        }
        if rows.len() > limits::REPORT_ROWS {
            return Err(too_large());
        }
    }
    Ok(rows)
}

fn row(actor: &Actor, host: Option<&Host>, permissions: Permissions, disabled: bool) -> Option<May> {
    if permissions == Permissions::NONE {
        return None;
    }
    let facts = Facts::new();
    let gives = |grant: &&super::access::Grant| {
        let reaches = match (&grant.hosts, host) {
            (None, None) => true,
            (Some(selector), Some(host)) => selector.matches(&host.name, &host.labels, &facts),
            _ => false,
        };
        reaches
            && grant.jobs.is_none()
            && permissions.iter().any(|permission| grant.permissions.contains(permission))
    };
    let by: BTreeSet<String> = actor
        .grants
        .iter()
        .filter(gives)
        .map(|grant| match &grant.group {
            Some(group) => format!("{} (group {group})", grant.role),
            None => grant.role.clone(),
        })
        .collect();
    Some(May {
        who: actor.name.clone(),
        host: host.map(|host| host.name.clone()),
        permissions: permissions.iter().collect(),
        by: by.into_iter().collect(),
        disabled,
    })
}

/// An actor to judge by; by which id he is known does not matter for that.
fn somebody(like: &Actor, name: String, bindings: Vec<store::role_bindings::Reaching>) -> Actor {
    let who = Who {
        org_id: like.org_id,
        organization: like.organization.clone(),
        is_home: like.is_home,
        subject: Subject::User(UserId(Uuid::nil())),
        name,
        credential: Credential::Session(LoginSessionId(Uuid::nil())),
        narrowed: Narrowed::default(),
    };
    Actor::new(who, authenticate::grants(bindings))
}
