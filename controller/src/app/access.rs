//! The one place where a request is authorised. A verb takes an [`Authorized`] for its permission, and there is no other
//! way to get one than [`authorize`].

mod actor;
mod explain;
mod known;

use std::{marker::PhantomData, net::IpAddr, sync::Arc};

use model::{
    access::{Permission, Permissions},
    id::OrgId,
    label::Labels,
    selector::Selector,
};
use serde_json::{Value, json};

pub(crate) use actor::{Actor, Credential, Grant, Hosts, Narrowed, Subject, Who};
pub(crate) use explain::explain;
pub(crate) use known::Known;

use super::App;
use crate::{
    clock,
    error::{During, Error, Result},
    store::audit,
};

/// A permission, as a type.
pub(crate) trait Right: Send + Sync + 'static {
    const PERMISSION: Permission;
}

macro_rules! rights {
    ($($name:ident),* $(,)?) => {$(
        #[derive(Debug, Clone, Copy)]
        pub(crate) struct $name;
        impl Right for $name {
            const PERMISSION: Permission = Permission::$name;
        }
    )*};
}

rights! {
    SelfRead, JobRead, JobManage, ScheduleRead, ScheduleManage, CalendarManage, ApprovalDecide, ApprovalBreakGlass, AgentRead, AgentManage, AgentDrain, ExecutionRead, ExecutionCreate, ExecutionCancel, EnrollTokenRead,
    EnrollTokenManage, UserRead, UserManage, RoleRead, RoleManage, TokenRead, TokenManage, AuditRead, EventRead, EventCreate,
    ReportRead, StatisticsRead, OrganizationRead, OrganizationManage, UserAdminister, ControllerRead, ControllerJoin, StatusRead,
}

/// Which request it is, and whence.
#[derive(Debug, Clone)]
pub(crate) struct Origin {
    pub request_id: String,
    pub address: Option<IpAddr>,
}

/// Proof that its actor may do what `P` names, in one request.
#[derive(Debug)]
pub(crate) struct Authorized<P> {
    actor: Arc<Actor>,
    origin: Origin,
    hosts: Hosts,
    permission: PhantomData<P>,
}

/// Checks that `actor` has the permission `P`.
///
/// # Errors
/// [`Error::Forbidden`].
pub(crate) fn authorize<P: Right>(actor: Arc<Actor>, origin: Origin) -> Result<Authorized<P>> {
    match actor.judge(P::PERMISSION) {
        Ok(hosts) => Ok(Authorized { actor, origin, hosts, permission: PhantomData }),
        Err(why) => Err(actor.refusal(P::PERMISSION, why)),
    }
}

/// Notes in the audit that somebody was refused for want of a right.
///
/// # Errors
/// When it cannot be noted.
pub(crate) async fn note_denial(
    app: &App,
    actor: &Actor,
    origin: &Origin,
    denial: &Error,
    request: &str,
) -> Result<()> {
    let now = clock::now();
    let (object, mut detail) = match denial {
        Error::Forbidden { permission, why, .. } => {
            (format!("permission/{permission}"), json!({ "why": why }))
        }
        Error::OutOfScope { permission, selected, denied, .. } => {
            (format!("permission/{permission}"), json!({ "selected": selected, "denied": denied }))
        }
        _ => ("permission/".to_owned(), json!({ "why": denial.to_string() })),
    };
    detail["request"] = request.into();
    detail["credential"] = actor.credential.to_string().into();
    let entry = audit::Entry {
        actor_id: actor.subject.to_string(),
        outcome: "denied",
        request_id: &origin.request_id,
        source: origin.address,
        ..audit::Entry::new(&actor.name, "access.denied", object, detail)
    };
    let mut tx = app.db.of(actor.org_id).begin().await.during("begin")?;
    audit::record(&mut tx, actor.org_id, now, entry).await?;
    tx.commit().await.during("commit")
}

impl<P> Authorized<P> {
    pub(crate) fn actor(&self) -> &Actor {
        &self.actor
    }

    pub(crate) fn org_id(&self) -> OrgId {
        self.actor.org_id
    }

    pub(crate) fn request_id(&self) -> &str {
        &self.origin.request_id
    }

    pub(crate) fn origin(&self) -> &Origin {
        &self.origin
    }

    /// The hosts that the permission holds for; `None`: all of the organization.
    pub(crate) fn hosts(&self) -> Option<&Selector> {
        match &self.hosts {
            Hosts::All => None,
            Hosts::Where(selector) => Some(selector),
        }
    }

    /// The right `Q`, one about hosts, for a job with these labels.
    ///
    /// # Errors
    /// [`Error::Forbidden`].
    pub(crate) fn for_job<Q: Right>(&self, labels: &Labels) -> Result<Authorized<Q>> {
        match self.actor.judge_for_job(Q::PERMISSION, labels) {
            Ok(hosts) => Ok(Authorized {
                actor: Arc::clone(&self.actor),
                origin: self.origin.clone(),
                hosts,
                permission: PhantomData,
            }),
            Err(why) => Err(self.actor.refusal(Q::PERMISSION, why)),
        }
    }

    /// The right `Q`, beside the one that this proves.
    ///
    /// # Errors
    /// [`Error::Forbidden`].
    pub(crate) fn also<Q: Right>(&self) -> Result<Authorized<Q>> {
        authorize(Arc::clone(&self.actor), self.origin.clone())
    }

    /// Whether the right, one about jobs, holds for a job with these labels.
    pub(crate) fn reaches_job(&self, labels: &Labels) -> bool
    where
        P: Right,
    {
        self.actor.reaches_job(P::PERMISSION, labels)
    }

    /// That the right does not hold for `denied` of the hosts that were selected.
    pub(crate) fn out_of_scope(&self, selected: usize, denied: usize) -> Error
    where
        P: Right,
    {
        let (actor, permission) = (self.actor.name.clone(), P::PERMISSION.as_str());
        Error::OutOfScope { actor, permission, selected, denied }
    }

    /// The audit entry of something that was done with this right.
    pub(crate) fn entry(&self, verb: &'static str, object: String, mut detail: Value) -> audit::Entry<'_> {
        // What a credential did that was stolen can be told from what its owner did.
        if let Value::Object(detail) = &mut detail {
            detail.insert("credential".to_owned(), self.actor.credential.to_string().into());
        }
        audit::Entry {
            actor_id: self.actor.subject.to_string(),
            request_id: &self.origin.request_id,
            source: self.origin.address,
            ..audit::Entry::new(&self.actor.name, verb, object, detail)
        }
    }

    /// Nobody gives what he does not have: all of `given` must be held, for the whole organization.
    ///
    /// # Errors
    /// [`Error::Forbidden`] with the first permission that is missing.
    pub(crate) fn may_give(&self, given: Permissions) -> Result<()> {
        self.actor.may_give(given)
    }
}
