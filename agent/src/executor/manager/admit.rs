//! Whether this host takes a new run: its policy, and what it has room for.

use model::{Reason, limits};
use nix::sys::statvfs::statvfs;

use super::{Manager, Refusal};
use crate::{
    executor::{
        order::{self, Order},
        policy::Policy,
    },
    segment,
    shim::{self, spec::Spec},
};

/// Bytes that must be free on the disk for a new run.
const FREE_BYTES: u64 = 16 * 1024 * 1024;

impl Manager {
    /// May this host begin it, and does it want to?
    pub(super) fn admit(&self, mut order: Order) -> Result<Spec, Refusal> {
        let policy =
            Policy::read(&self.rules.policy).map_err(|why| Refusal::new(Reason::PolicyRefused, &why))?;
        if let Some(command) = &mut order.content.command {
            policy
                .apply(command, &self.rules.own)
                .map_err(|why| Refusal::new(Reason::PolicyRefused, &why))?;
        }
        if self.running.len() >= self.rules.slots {
            let detail = format!("all {} slots are taken", self.rules.slots);
            return Err(Refusal::new(Reason::AgentBusy, &detail));
        }
        if self.unsettled().count() >= limits::HOST_UNSETTLED {
            let detail = format!(
                "the results of {} runs are not taken over yet, the limit HOST_UNSETTLED",
                limits::HOST_UNSETTLED
            );
            return Err(Refusal::new(Reason::AgentBusy, &detail));
        }
        // A folder that cannot be read refuses the run where it is to be made.
        let unshipped = segment::bytes_on_disk(&self.shared.attempts).unwrap_or_default();
        if unshipped > self.rules.spool_bytes {
            let detail = format!(
                "{unshipped} bytes of output wait to be shipped, over this host's spool_bytes of {}",
                self.rules.spool_bytes
            );
            return Err(Refusal::new(Reason::AgentBusy, &detail));
        }
        if let Ok(disk) = statvfs(&self.shared.attempts) {
            let free = disk.blocks_available().saturating_mul(disk.fragment_size());
            if free < FREE_BYTES {
                let detail = format!("{free} bytes are free on the agent's disk; a run needs {FREE_BYTES}");
                return Err(Refusal::new(Reason::NoSpace, &detail));
            }
        }
        let spec = order::spec(order, &self.shared.keys.seal_key);
        let mut spec = spec.map_err(|fault| Refusal::new(fault.reason(), &fault))?;
        policy
            .check_environment(spec.environment.keys())
            .map_err(|why| Refusal::new(Reason::PolicyRefused, &why))?;
        spec.spool_bytes = self.rules.spool_bytes;
        spec.block_for_ms = shim::millis(self.rules.block_for);
        spec.cwd_is_resolved = policy.resolves_cwd(spec.command.as_ref());
        spec.hidden = self.rules.hidden.clone();
        (spec.first_uid, spec.last_uid) = policy.sandbox.uids;
        spec.engine = policy.sandbox.engine_socket();
        spec.agent = self.rules.audience.agent_id.to_string();
        Ok(spec)
    }
}
