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
    shim::spec::Spec,
};

/// Bytes that must be free on the disk for a new run.
const FREE_BYTES: u64 = 16 * 1024 * 1024;

impl Manager {
    /// May this host begin it, and does it want to?
    pub(super) fn admit(&self, order: Order) -> Result<Spec, Refusal> {
        if let Some(command) = &order.content.command {
            Policy::read(&self.rules.policy)
                .and_then(|policy| policy.check(command, &self.rules.own))
                .map_err(|forbidden| Refusal::new(Reason::PolicyRefused, &forbidden))?;
        }
        if self.running.len() >= self.rules.slots {
            let detail = format!("all {} slots are taken", self.rules.slots);
            return Err(Refusal { reason: Reason::AgentBusy, detail });
        }
        if self.unsettled().count() >= limits::HOST_UNSETTLED {
            let detail = format!(
                "the results of {} runs are not taken over yet, the limit HOST_UNSETTLED",
                limits::HOST_UNSETTLED
            );
            return Err(Refusal { reason: Reason::AgentBusy, detail });
        }
        let unshipped = self.unshipped_bytes();
        if unshipped > limits::HOST_SPOOL_BYTES {
            let detail = format!(
                "{unshipped} bytes of output wait to be shipped, over the limit HOST_SPOOL_BYTES of {}",
                limits::HOST_SPOOL_BYTES
            );
            return Err(Refusal { reason: Reason::AgentBusy, detail });
        }
        if let Ok(disk) = statvfs(&self.shared.attempts) {
            let free = disk.blocks_available().saturating_mul(disk.fragment_size());
            if free < FREE_BYTES {
                let detail = format!("{free} bytes are free on the agent's disk; a run needs {FREE_BYTES}");
                return Err(Refusal { reason: Reason::NoSpace, detail });
            }
        }
        order::spec(order, &self.shared.keys.seal_key).map_err(|fault| Refusal::new(fault.reason(), &fault))
    }

    /// Bytes of output of attempts that are not settled, as far as they are on the disk.
    fn unshipped_bytes(&self) -> u64 {
        self.unsettled()
            .filter_map(|(key, _)| std::fs::metadata(self.shared.folder(*key).join(segment::FILE_NAME)).ok())
            .map(|file| file.len())
            .sum()
    }
}
