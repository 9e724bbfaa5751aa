//! Who asks, what is granted to that, and what follows from it for one permission.

use std::{
    collections::BTreeSet,
    fmt,
    str::FromStr,
    sync::{Arc, OnceLock},
};

use model::{
    access::{Permission, Permissions, Reach},
    id::{ApiTokenId, LoginSessionId, OrgId, RoleBindingId, ScheduleId, ServiceAccountId, UserId},
    label::{Facts, Labels},
    selector::Selector,
};

use crate::error::Error;

/// Who somebody is, by an id that is never given again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Subject {
    User(UserId),
    ServiceAccount(ServiceAccountId),
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User(id) => write!(f, "user/{id}"),
            Self::ServiceAccount(id) => write!(f, "service-account/{id}"),
        }
    }
}

impl FromStr for Subject {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (noun, id) = text.split_once('/').ok_or(())?;
        match noun {
            "user" => id.parse().map(Self::User).map_err(drop),
            "service-account" => id.parse().map(Self::ServiceAccount).map_err(drop),
            _ => Err(()),
        }
    }
}

/// By what somebody entered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Credential {
    ApiToken(ApiTokenId),
    Session(LoginSessionId),
    /// None: a schedule acts for who saved it.
    Schedule(ScheduleId),
}

impl Credential {
    /// Of its row.
    pub(crate) const fn id(self) -> uuid::Uuid {
        match self {
            Self::ApiToken(id) => id.0,
            Self::Session(id) => id.0,
            Self::Schedule(id) => id.0,
        }
    }
}

impl fmt::Display for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ApiToken(id) => write!(f, "api-token/{id}"),
            Self::Session(id) => write!(f, "session/{id}"),
            Self::Schedule(id) => write!(f, "schedule/{id}"),
        }
    }
}

/// Who asks, in which organization.
#[derive(Debug, Clone)]
pub(crate) struct Actor {
    pub org_id: OrgId,
    pub organization: String,
    /// It is the organization that setup made.
    pub is_home: bool,
    pub subject: Subject,
    /// As the audit and the executions show it: a person's name, or `service/NAME`.
    pub name: String,
    pub credential: Credential,
    pub narrowed: Narrowed,
    pub grants: Vec<Grant>,
    /// What follows for each permission, in their order, once somebody asked: of a thousand bindings that is dear.
    verdicts: Vec<OnceLock<Result<Hosts, &'static str>>>,
}

/// Who it is, before it is known what that one may do.
#[derive(Debug, Clone)]
pub(crate) struct Who {
    pub org_id: OrgId,
    pub organization: String,
    pub is_home: bool,
    pub subject: Subject,
    pub name: String,
    pub credential: Credential,
    pub narrowed: Narrowed,
}

/// What an API token leaves of its owner's rights.
#[derive(Debug, Clone, Default)]
pub(crate) struct Narrowed {
    /// Absent: all.
    pub permissions: Option<Permissions>,
    /// Absent: all.
    pub hosts: Option<Selector>,
    pub expires_at: Option<jiff::Timestamp>,
}

/// What one binding gives.
#[derive(Debug, Clone)]
pub(crate) struct Grant {
    pub id: RoleBindingId,
    pub role: String,
    pub permissions: Permissions,
    /// The group that gives it to its members.
    pub group: Option<String>,
    pub hosts: Option<Selector>,
    pub jobs: Option<Selector>,
}

/// The hosts that a permission holds for.
#[derive(Debug, Clone)]
pub(crate) enum Hosts {
    All,
    Where(Arc<Selector>),
}

impl Actor {
    /// Nobody gives what he does not have: all of `given` must be held, for the whole organization.
    ///
    /// # Errors
    /// [`Error::Forbidden`] with the first permission that is missing.
    pub(crate) fn may_give(&self, given: Permissions) -> Result<(), Error> {
        let held = self.unconfined();
        let missing = given
            .iter()
            .find(|permission| *permission != Permission::SelfRead && !held.contains(*permission));
        missing.map_or(Ok(()), |missing| {
            Err(self.refusal(
                missing,
                "nobody gives, or acts for somebody with, what he does not have for the whole organization",
            ))
        })
    }

    /// Somebody with what is granted to him.
    pub(crate) fn new(who: Who, grants: Vec<Grant>) -> Self {
        let Who { org_id, organization, is_home, subject, name, credential, narrowed } = who;
        let verdicts = Permission::ALL.into_iter().map(|_| OnceLock::new()).collect();
        Self { org_id, organization, is_home, subject, name, credential, narrowed, grants, verdicts }
    }

    /// The same one, acting for another schedule.
    pub(crate) fn for_schedule(&self, schedule: ScheduleId) -> Self {
        Self { credential: Credential::Schedule(schedule), ..self.clone() }
    }

    /// For which hosts the permission is held. It is judged once.
    ///
    /// # Errors
    /// Why it is not held at all, as the rest of a sentence.
    pub(crate) fn judge(&self, permission: Permission) -> Result<Hosts, &'static str> {
        self.verdicts[permission as usize].get_or_init(|| self.find(permission)).clone()
    }

    fn find(&self, permission: Permission) -> Result<Hosts, &'static str> {
        if permission.reach() == Reach::Everyone {
            return Ok(Hosts::All);
        }
        if self.narrowed.permissions.is_some_and(|kept| !kept.contains(permission)) {
            return Err("the API token was made without it");
        }
        let mut giving = self.grants.iter().filter(|grant| grant.permissions.contains(permission)).peekable();
        if giving.peek().is_none() {
            return Err("no role of theirs has it");
        }
        if permission.reach() == Reach::Hosts {
            return self.hosts_of(giving, None);
        }
        if permission.reach() == Reach::Jobs {
            return self.jobs_of(permission, giving);
        }
        if permission.reach() == Reach::Installation && !self.is_home {
            return Err("it is about the whole installation, and held in the home organization only");
        }
        if self.narrowed.hosts.is_some() {
            return Err("it is about the whole organization, and the API token is confined to some hosts");
        }
        if giving.any(|grant| grant.hosts.is_none() && grant.jobs.is_none()) {
            Ok(Hosts::All)
        } else {
            Err("it is about the whole organization, and theirs is confined to some hosts or jobs")
        }
    }

    /// Whether there are jobs that it is held for; which, tells [`Actor::reaches_job`].
    fn jobs_of<'a>(
        &self,
        permission: Permission,
        mut giving: impl Iterator<Item = &'a Grant>,
    ) -> Result<Hosts, &'static str> {
        if is_for_any_host(permission) {
            return Ok(Hosts::All);
        }
        // Others run on all hosts what is written in a job.
        if self.narrowed.hosts.is_some() || giving.all(|grant| grant.hosts.is_some()) {
            return Err("what a job does is not confined to hosts, and theirs is");
        }
        Ok(Hosts::All)
    }

    /// Whether the permission, of those about jobs, is held for a job with these labels.
    pub(crate) fn reaches_job(&self, permission: Permission, labels: &Labels) -> bool {
        let anywhere = is_for_any_host(permission);
        self.narrowed.permissions.is_none_or(|kept| kept.contains(permission))
            && self.grants.iter().any(|grant| {
                grant.permissions.contains(permission)
                    && (anywhere || grant.hosts.is_none())
                    && grant.jobs.as_ref().is_none_or(|jobs| jobs.matches("", labels, &Facts::new()))
            })
    }

    /// The jobs that somebody may know of; `None`: all of the organization.
    pub(crate) fn jobs_seen(&self) -> Option<Selector> {
        self.jobs_with(Permission::JobRead)
    }

    /// The jobs for which `permission`, one about jobs, is held by some binding; `None`: all of the organization.
    pub(crate) fn jobs_with(&self, permission: Permission) -> Option<Selector> {
        let giving = self.grants.iter().filter(|grant| grant.permissions.contains(permission));
        // One without a scope makes it none.
        let scopes: Option<Vec<Selector>> = giving.map(|grant| grant.jobs.clone()).collect();
        scopes.map(Selector::any_of)
    }

    /// For which hosts the permission, of those about hosts, is held to run a job with these labels.
    ///
    /// # Errors
    /// Why it is not held at all, as the rest of a sentence.
    pub(crate) fn judge_for_job(
        &self,
        permission: Permission,
        labels: &Labels,
    ) -> Result<Hosts, &'static str> {
        if self.narrowed.permissions.is_some_and(|kept| !kept.contains(permission)) {
            return Err("the API token was made without it");
        }
        let giving = self.grants.iter().filter(|grant| grant.permissions.contains(permission));
        self.hosts_of(giving, Some(labels))
    }

    /// Commands belong to no job: bindings for some jobs give nothing there.
    fn hosts_of<'a>(
        &self,
        giving: impl Iterator<Item = &'a Grant>,
        job: Option<&Labels>,
    ) -> Result<Hosts, &'static str> {
        let (mut confined, mut seen) = (Vec::new(), BTreeSet::new());
        let mut everywhere = false;
        let is_meant = |grant: &&Grant| match (&grant.jobs, job) {
            (None, _) => true,
            (Some(jobs), Some(labels)) => jobs.matches("", labels, &Facts::new()),
            (Some(_), None) => false,
        };
        for grant in giving.filter(is_meant) {
            match &grant.hosts {
                None => everywhere = true,
                Some(hosts) if seen.insert(hosts.to_string()) => confined.push(hosts.clone()),
                Some(_) => {}
            }
        }
        if !everywhere && confined.is_empty() {
            return Err(match job {
                Some(_) => "no role of theirs has it for this job",
                None => "theirs is for some jobs only, and a command is no job",
            });
        }
        Ok(match (everywhere, self.narrowed.hosts.clone()) {
            (true, None) => Hosts::All,
            (true, Some(kept)) => Hosts::Where(Arc::new(kept)),
            (false, None) => Hosts::Where(Arc::new(Selector::any_of(confined))),
            (false, Some(kept)) => Hosts::Where(Arc::new(Selector::any_of(confined).both(kept))),
        })
    }

    /// All that is held for the whole organization.
    pub(crate) fn unconfined(&self) -> Permissions {
        Permission::ALL
            .into_iter()
            .filter(|permission| match permission.reach() {
                // Held for the home organization or not: what is given further counts there alone too. And who sees some
                // jobs gives nobody the sight of all.
                Reach::Installation | Reach::Jobs => {
                    self.narrowed.hosts.is_none()
                        && self.narrowed.permissions.is_none_or(|kept| kept.contains(*permission))
                        && self.grants.iter().any(|grant| {
                            grant.hosts.is_none()
                                && grant.jobs.is_none()
                                && grant.permissions.contains(*permission)
                        })
                }
                _ => matches!(self.judge(*permission), Ok(Hosts::All)),
            })
            .collect()
    }

    /// The hosts that somebody may know of; `None`: all of the organization.
    ///
    /// # Errors
    /// [`Error::Forbidden`] when there are none.
    pub(crate) fn hosts_seen(&self) -> Result<Option<Arc<Selector>>, Error> {
        match self.judge(Permission::AgentRead) {
            Ok(Hosts::All) => Ok(None),
            Ok(Hosts::Where(selector)) => Ok(Some(selector)),
            Err(why) => Err(self.refusal(Permission::AgentRead, why)),
        }
    }

    /// That the permission is missing.
    pub(crate) fn refusal(&self, permission: Permission, why: &str) -> Error {
        Error::Forbidden { actor: self.name.clone(), permission: permission.as_str(), why: why.to_owned() }
    }

    /// All that is held, for all hosts or for some.
    pub(crate) fn held(&self) -> Permissions {
        Permission::ALL.into_iter().filter(|permission| self.judge(*permission).is_ok()).collect()
    }
}

/// Whether a permission about jobs is held by a binding for some hosts too: to see what is saved, and to schedule it, for which
/// each start is judged by its hosts.
pub(super) const fn is_for_any_host(permission: Permission) -> bool {
    matches!(permission, Permission::JobRead | Permission::ScheduleRead | Permission::ScheduleManage)
}

#[cfg(test)]
mod tests;
