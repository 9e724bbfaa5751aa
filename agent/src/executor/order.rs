//! Which orders are obeyed: signed by a controller of ours, meant for this agent and this journal, fresh, not overtaken
//! by another controller's lease.
//!
//! The signature is verified before anything is parsed. An envelope without a valid one is dropped unanswered: nothing
//! in it, not even the attempt that it names, can be believed.

use std::time::Duration;

use jiff::Timestamp;
use model::{
    Reason,
    id::{AgentId, ExecutionId, OrgId, RunId},
    limits,
};
use pki::{SealKey, Verifier};
use prost::Message as _;

use crate::{
    messages::AttemptKey,
    mutant,
    shim::{self, spec::Spec},
};

const KIND: &str = "work-order";
const ENVIRONMENT_INFO: &[u8] = b"opsconductor environment";
const NONCE_BYTES: usize = 16;

/// Whose orders count, and for whom they must be.
#[derive(Debug)]
pub(super) struct Audience {
    pub(super) verifier: Verifier,
    pub(super) trust_domain: String,
    pub(super) org_id: OrgId,
    pub(super) agent_id: AgentId,
}

/// What the journal knows that an order must agree with.
#[derive(Debug, Clone, Copy)]
pub(super) struct Memory<'a> {
    pub(super) epoch: &'a [u8],
    /// The highest fence obeyed so far.
    pub(super) fence: u64,
    /// Whether the order's attempt may be one that the journal has forgotten.
    pub(super) is_forgotten: bool,
    /// How far the two clocks may be apart.
    pub(super) clock_skew: Duration,
}

/// A signed order, not yet checked any further.
#[derive(Debug)]
pub(super) struct Order {
    pub(super) key: AttemptKey,
    pub(super) content: proto::WorkOrder,
}

/// Why an envelope is dropped.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unbelievable {
    #[error("the envelope is of the kind '{0}'")]
    Kind(String),
    #[error("the envelope's signature does not hold")]
    Signature(#[source] pki::Error),
    #[error("the order cannot be parsed")]
    Parse(#[source] prost::DecodeError),
    #[error("the order has an impossible id or attempt")]
    Ids,
}

/// Why a signed order is not obeyed.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Fault {
    #[error("the order is for another trust domain, '{0}'")]
    TrustDomain(String),
    #[error("the order is for another organization")]
    Organization,
    #[error("the order is for another agent")]
    Agent,
    #[error("the order was made for a journal that this agent no longer has")]
    Epoch,
    #[error(
        "the order is of an execution so old that this agent may have run and forgotten it: it remembers too many newer ones"
    )]
    Forgotten,
    #[error("the order was signed {seconds} s in the future of this host's clock; {allowed} s are allowed")]
    TooEarly { seconds: i64, allowed: u64 },
    #[error("the order's time to start was over {seconds} s ago by this host's clock")]
    TooLate { seconds: i64 },
    #[error("the order has the fence {fence}; one of {highest} was obeyed already")]
    Fence { fence: u64, highest: u64 },
    #[error("the order is not complete: {0}")]
    Incomplete(&'static str),
    #[error("the order's environment cannot be opened with this agent's key")]
    Sealed,
    #[error("the order's environment has a name or value that no process can have")]
    Environment,
}

impl Fault {
    /// The reason for programs.
    pub(super) fn reason(&self) -> Reason {
        match self {
            Self::TooLate { .. } => Reason::StartExpired,
            Self::Epoch | Self::Forgotten => Reason::JournalLost,
            _ => Reason::OrderRefused,
        }
    }
}

impl Audience {
    /// Verifies the signature, then reads.
    ///
    /// # Errors
    /// When nothing of the envelope can be believed.
    pub(super) fn read(&self, envelope: &proto::Envelope, now: Timestamp) -> Result<Order, Unbelievable> {
        if envelope.kind != KIND {
            return Err(Unbelievable::Kind(envelope.kind.chars().take(32).collect()));
        }
        self.verifier
            .verify(KIND, &envelope.payload, &envelope.signature, &envelope.certificate, now)
            .map_err(Unbelievable::Signature)?;
        let content = proto::WorkOrder::decode(envelope.payload.as_slice()).map_err(Unbelievable::Parse)?;
        let ids = (ExecutionId::from_bytes(&content.execution_id), RunId::from_bytes(&content.run_id));
        let ((Ok(execution_id), Ok(run_id)), 1..) = (ids, content.attempt) else {
            return Err(Unbelievable::Ids);
        };
        Ok(Order { key: AttemptKey { execution_id, run_id, attempt: content.attempt }, content })
    }

    /// Is the order for this agent?
    ///
    /// # Errors
    /// Says for whom else.
    pub(super) fn check_addressee(&self, order: &proto::WorkOrder) -> Result<(), Fault> {
        if order.trust_domain != self.trust_domain {
            return Err(Fault::TrustDomain(order.trust_domain.chars().take(64).collect()));
        }
        if order.org_id != self.org_id.0.as_bytes() {
            return Err(Fault::Organization);
        }
        if order.agent_id != self.agent_id.0.as_bytes() {
            return Err(Fault::Agent);
        }
        Ok(())
    }
}

/// May an order for this agent start now?
///
/// # Errors
/// The first thing that does not hold.
pub(super) fn check(order: &proto::WorkOrder, memory: Memory<'_>, now: Timestamp) -> Result<(), Fault> {
    if order.journal_epoch != memory.epoch {
        return Err(Fault::Epoch);
    }
    if memory.is_forgotten {
        return Err(Fault::Forgotten);
    }
    let now = now.as_microsecond();
    let skew = i64::try_from(memory.clock_skew.as_micros()).unwrap_or(i64::MAX);
    let ahead = order.issued_at.saturating_sub(now);
    if ahead > skew {
        return Err(Fault::TooEarly { seconds: ahead / 1_000_000, allowed: memory.clock_skew.as_secs() });
    }
    if now > order.start_by {
        return Err(Fault::TooLate { seconds: now.saturating_sub(order.start_by) / 1_000_000 });
    }
    if order.fence < memory.fence && !mutant::is("fence_ignored") {
        return Err(Fault::Fence { fence: order.fence, highest: memory.fence });
    }
    if order.nonce.len() != NONCE_BYTES {
        return Err(Fault::Incomplete("it has no nonce"));
    }
    if order.superseded_attempt >= order.attempt {
        return Err(Fault::Incomplete("it supersedes an attempt that is no earlier one"));
    }
    let command = order.command.as_ref().ok_or(Fault::Incomplete("it has no command"))?;
    let names_a_program = match &command.program {
        Some(proto::command::Program::Argv(argv)) => argv.argv.first().is_some_and(|word| !word.is_empty()),
        Some(proto::command::Program::Shell(line)) => !line.is_empty(),
        Some(proto::command::Program::Script(script)) => !script.content.is_empty(),
        None => false,
    };
    if !names_a_program {
        return Err(Fault::Incomplete("it names no program"));
    }
    if command.timeout_ms == 0 {
        return Err(Fault::Incomplete("it has no timeout"));
    }
    Ok(())
}

/// What the shim is told: the command with its opened environment.
///
/// # Errors
/// When the environment is not sealed to this agent for this attempt, or no process can have it.
pub(super) fn spec(order: Order, seal_key: &SealKey) -> Result<Spec, Fault> {
    let Order { key, mut content } = order;
    let mut spec = Spec::default();
    spec.execution_id = key.execution_id.to_bytes();
    spec.run_id = key.run_id.to_bytes();
    spec.attempt = key.attempt;
    spec.kill_grace_ms = shim::millis(limits::KILL_GRACE);
    spec.kill_within_ms = shim::millis(limits::KILL_WITHIN);
    if let Some(sealed) = content.command.as_mut().and_then(|command| command.environment.take()) {
        let aad =
            [key.execution_id.to_bytes(), key.run_id.to_bytes(), key.attempt.to_be_bytes().to_vec()].concat();
        let opened = seal_key
            .open(ENVIRONMENT_INFO, &aad, &sealed.encapsulated_key, &sealed.ciphertext)
            .map_err(|_| Fault::Sealed)?;
        spec.environment =
            proto::Environment::decode(opened.as_slice()).map_err(|_| Fault::Environment)?.variables;
        let is_possible = |(name, value): (&String, &String)| {
            !name.is_empty() && !name.contains(['=', '\0']) && !value.contains('\0')
        };
        if !spec.environment.iter().all(is_possible) {
            return Err(Fault::Environment);
        }
    }
    spec.command = content.command;
    Ok(spec)
}

#[cfg(test)]
mod tests;
