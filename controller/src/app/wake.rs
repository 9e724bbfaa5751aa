//! Wake-ups of the background workers. None of them is needed for anything to happen: a poll stands behind each.

use std::{
    collections::HashSet,
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use model::id::AgentId;
use tokio::sync::Notify;

/// One bell for each worker that can be woken.
#[derive(Debug, Default)]
pub(crate) struct Wake {
    dispatch: Notify,
    /// Whose queue or slots changed since the dispatcher looked. Only saves it from looking at everybody's.
    ready: Mutex<Ready>,
    pub(crate) cancel: Notify,
    /// A step has ended, or somebody wants a plan to go on.
    pub(crate) advance: Notify,
    /// A request to a web server may be sent.
    pub(crate) http_calls: Notify,
    /// A schedule was saved, or something is known to wait for a look at schedules.
    pub(crate) schedules: Notify,
    pub(crate) revoke: Notify,
    /// Something happened that other controllers may wait for.
    pub(crate) others: Notify,
    /// Output was stored that somebody may follow at another controller.
    pub(crate) output: Notify,
    /// Another controller holds a lease.
    has_company: AtomicBool,
    /// All queues may have changed.
    everybody: AtomicBool,
    /// When all queues were looked at.
    looked: Mutex<Option<Instant>>,
}

/// The agents that the dispatcher has to look at.
#[derive(Debug, Default)]
pub(crate) struct Ready {
    /// Their queues grew.
    pub queued: HashSet<AgentId>,
    /// They can take runs, if any wait for them: mostly none does.
    pub free: HashSet<AgentId>,
}

impl Wake {
    /// The queues of these agents grew.
    pub(crate) fn dispatch(&self, agents: impl IntoIterator<Item = AgentId>) {
        self.ready.lock().expect("no holder of this lock panics").queued.extend(agents);
        self.dispatch.notify_one();
    }

    /// These agents have free slots, or one of their attempts is over.
    pub(crate) fn free(&self, agents: impl IntoIterator<Item = AgentId>) {
        self.ready.lock().expect("no holder of this lock panics").free.extend(agents);
        self.dispatch.notify_one();
    }

    /// Waits for [`Wake::dispatch`] and [`Wake::free`].
    pub(crate) async fn dispatched(&self) {
        self.dispatch.notified().await;
    }

    /// Takes the agents that were named since the last time; none when it may be anybody, which it is at least once in
    /// each `period` however often somebody is named.
    pub(crate) fn take_ready(&self, period: Duration) -> Option<Ready> {
        let ready = std::mem::take(&mut *self.ready.lock().expect("no holder of this lock panics"));
        let mut looked = self.looked.lock().expect("no holder of this lock panics");
        let is_due = looked.is_none_or(|at| at.elapsed() >= period);
        if self.everybody.swap(false, Ordering::AcqRel) || is_due {
            *looked = Some(Instant::now());
            return None;
        }
        Some(ready)
    }

    /// Whose queue or slots changed is not known: the next look is at everybody's.
    pub(crate) fn everybody(&self) {
        self.everybody.store(true, Ordering::Release);
        self.dispatch.notify_one();
    }

    /// Another controller did something.
    pub(crate) fn hear(&self) {
        self.everybody();
        self.cancel.notify_one();
        self.advance.notify_one();
        self.revoke.notify_one();
    }

    /// Are there other controllers? The first word of one rings for it in turn.
    pub(crate) fn set_company(&self, has_company: bool) {
        if !self.has_company.swap(has_company, Ordering::AcqRel) && has_company {
            self.others.notify_one();
        }
    }

    /// Is there no other controller to wake?
    pub(crate) fn is_alone(&self) -> bool {
        !self.has_company.load(Ordering::Acquire)
    }
}
