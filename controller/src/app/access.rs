//! The one place where a request is authorised. A verb takes an [`Authorized`] for its permission, and there is no other
//! way to get one than [`authorize`].

use std::{marker::PhantomData, net::IpAddr};

use model::id::{ApiTokenId, OrgId};
use serde_json::Value;

use crate::{
    error::{Error, Result},
    store::audit,
};

/// Who asks.
#[derive(Debug, Clone)]
pub(crate) struct Actor {
    pub org_id: OrgId,
    pub organization: String,
    /// As the audit and the executions show it.
    pub name: String,
    pub token_id: ApiTokenId,
    pub permissions: Vec<String>,
}

/// A permission, as a type.
pub(crate) trait Permission: Send + Sync + 'static {
    const NAME: &'static str;
}

macro_rules! permissions {
    ($($name:ident = $text:literal;)*) => {$(
        #[derive(Debug, Clone, Copy)]
        pub(crate) struct $name;
        impl Permission for $name {
            const NAME: &'static str = $text;
        }
    )*};
}

permissions! {
    AgentRead = "agent.read";
    AgentManage = "agent.manage";
    AgentDrain = "agent.drain";
    EnrollTokenRead = "enroll_token.read";
    EnrollTokenManage = "enroll_token.manage";
    ExecutionRead = "execution.read";
    ExecutionCreate = "execution.create";
    ExecutionCancel = "execution.cancel";
    AuditRead = "audit.read";
    ControllerRead = "controller.read";
    ControllerJoin = "controller.join";
    StatusRead = "status.read";
    SelfRead = "self.read";
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
    actor: Actor,
    origin: Origin,
    permission: PhantomData<P>,
}

/// Checks that `actor` has the permission `P`.
///
/// # Errors
/// [`Error::Forbidden`].
pub(crate) fn authorize<P: Permission>(actor: Actor, origin: Origin) -> Result<Authorized<P>> {
    if actor.permissions.iter().any(|held| held == "*" || held == P::NAME) {
        Ok(Authorized { actor, origin, permission: PhantomData })
    } else {
        Err(Error::Forbidden { actor: actor.name, permission: P::NAME })
    }
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

    /// The audit entry of something that was done with this right.
    pub(crate) fn entry(&self, verb: &'static str, object: String, detail: Value) -> audit::Entry<'_> {
        audit::Entry {
            actor_id: format!("api-token/{}", self.actor.token_id),
            request_id: &self.origin.request_id,
            source: self.origin.address,
            ..audit::Entry::new(&self.actor.name, verb, object, detail)
        }
    }
}
