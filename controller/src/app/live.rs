//! Who follows which execution. A change is only a nudge: the followers read the tables again, and a poll stands behind.

use std::{collections::HashMap, sync::Mutex};

use model::id::ExecutionId;
use tokio::sync::watch;

/// The followed executions.
#[derive(Debug, Default)]
pub(crate) struct Live {
    followed: Mutex<HashMap<ExecutionId, watch::Sender<u64>>>,
}

impl Live {
    /// Changes whenever output of the execution was committed or one of its runs changed.
    pub(crate) fn watch(&self, execution: ExecutionId) -> watch::Receiver<u64> {
        let mut followed = self.followed.lock().expect("no holder of this lock panics");
        followed.retain(|_, sender| sender.receiver_count() > 0);
        followed.entry(execution).or_insert_with(|| watch::Sender::new(0)).subscribe()
    }

    /// Nudges the followers of these executions.
    pub(crate) fn nudge(&self, executions: impl IntoIterator<Item = ExecutionId>) {
        let followed = self.followed.lock().expect("no holder of this lock panics");
        if followed.is_empty() {
            return;
        }
        for execution in executions {
            if let Some(sender) = followed.get(&execution) {
                sender.send_modify(|count| *count += 1);
            }
        }
    }

    /// Nudges everybody: another controller did something.
    pub(crate) fn nudge_all(&self) {
        let followed = self.followed.lock().expect("no holder of this lock panics");
        for sender in followed.values() {
            sender.send_modify(|count| *count += 1);
        }
    }
}
