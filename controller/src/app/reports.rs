//! The report of access: who may do what on which host, judged as a request of theirs would be, and who did.

use std::collections::BTreeSet;

use jiff::Timestamp;
use model::{
    Invalid,
    access::{Permission, Permissions, Reach},
    api::report::{AccessReport, May},
    id::{LoginSessionId, UserId},
    label::Facts,
    limits,
};
use uuid::Uuid;

use super::{
    App,
    access::{Actor, Authorized, Credential, Hosts, Narrowed, ReportRead, Subject, Who},
    authenticate,
};
use crate::{
    clock,
    error::Result,
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

/// Makes the report, with three statements whatever its size.
///
/// # Errors
/// When it would have more than `REPORT_ROWS` rows: ask for one host, one person or less time.
pub(crate) async fn access(
    app: &App,
    by: &Authorized<ReportRead>,
    question: Question<'_>,
) -> Result<AccessReport> {
    let (org, pool) = (by.org_id(), app.db.of(by.org_id()));
    let most = limits::REPORT_ROWS;
    let limit = i64::try_from(most + 1).unwrap_or(i64::MAX);
    let holdings = store::reports::holdings(&pool, org, question.who, limit).await?;
    let hosts = store::reports::hosts(&pool, org, question.host, limit).await?;
    let span = (question.since, question.until);
    let did = store::reports::runs(&pool, org, span, (question.who, question.host), limit).await?;
    if holdings.len() > most || did.len() > most {
        return Err(too_large().into());
    }
    let may = may(by.actor(), holdings, &hosts)?;
    if may.len() > most {
        return Err(too_large().into());
    }
    Ok(AccessReport {
        organization: by.actor().organization.clone(),
        made_at: clock::now(),
        since: question.since,
        until: question.until,
        may,
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

/// What everybody may, as it would be judged if he asked.
fn may(like: &Actor, holdings: Vec<Holding>, hosts: &[Host]) -> Result<Vec<May>, Invalid> {
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
        let whole: Permissions = Permission::ALL
            .into_iter()
            .filter(|permission| matches!(permission.reach(), Reach::Organization | Reach::Installation))
            .filter(|permission| actor.judge(*permission).is_ok())
            .collect();
        rows.extend(row(&actor, None, whole, disabled));
        let held: Vec<(Permission, Hosts)> = Permission::ALL
            .into_iter()
            .filter(|permission| permission.reach() == Reach::Hosts)
            .filter_map(|permission| Some((permission, actor.judge(permission).ok()?)))
            .collect();
        for host in hosts {
            let on = |reached: &Hosts| match reached {
                Hosts::All => true,
                Hosts::Where(selector) => selector.matches(&host.name, &host.labels, &facts),
            };
            let there = held.iter().filter(|(_, reached)| on(reached)).map(|(permission, _)| *permission);
            rows.extend(row(&actor, Some(host), there.collect(), disabled));
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
            (None, _) => true,
            (Some(selector), Some(host)) => selector.matches(&host.name, &host.labels, &facts),
            (Some(_), None) => false,
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
