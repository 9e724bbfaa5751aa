//! Whether a run is tried again: by the policy that was signed with its command, never by what the rows alone say, and
//! never after a cancel was asked for.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use jiff::Timestamp;
use model::{
    Reason,
    id::{ExecutionId, RunId},
    limits,
    retry::{self, Next, Retry, Tried},
};
use sqlx::PgConnection;
use uuid::Uuid;

use super::{App, Happening, Key, Report, apply::Due};
use crate::{
    app::manifest::{self, Verified},
    clock,
    error::Result,
    store,
};

/// What a batch of reports needs to know of the policies and the earlier attempts of its runs.
#[derive(Debug, Default)]
pub(super) struct Again {
    commands: HashMap<ExecutionId, Arc<Verified>>,
    tried: HashMap<RunId, Vec<Tried>>,
}

impl Again {
    /// Reads it for those of `reports` that tell of a failure or a loss; mostly that is none, and nothing is read.
    pub(super) async fn read(app: &App, connection: &mut PgConnection, reports: &[Report]) -> Result<Self> {
        let bad: Vec<Key> =
            reports.iter().filter(|report| is_bad(&report.happening)).map(|r| r.key).collect();
        let ids: BTreeSet<ExecutionId> = bad.iter().map(|key| key.0).collect();
        if ids.is_empty() {
            return Ok(Self::default());
        }
        let authorised = manifest::authorised(app, connection, ids).await?;
        let mut commands: HashMap<ExecutionId, Arc<Verified>> =
            authorised.into_iter().filter_map(|(id, verified)| Some((id, verified.ok()?))).collect();
        let is_tried_again = |key: &Key| {
            let command = commands.get(&key.0).and_then(|verified| verified.command_of(key.1));
            command.is_some_and(|command| command.retry.is_some() || command.idempotent)
        };
        let bad: Vec<Key> = bad.into_iter().filter(is_tried_again).collect();
        let left: BTreeSet<ExecutionId> = bad.iter().map(|key| key.0).collect();
        commands.retain(|id, _| left.contains(id));
        if commands.is_empty() {
            return Ok(Self::default());
        }
        let ids: Vec<Uuid> = commands.keys().map(|id| id.0).collect();
        for cancelled in store::executions::cancelled(connection, &ids).await? {
            commands.remove(&cancelled);
        }
        let keys: BTreeSet<(ExecutionId, RunId)> =
            bad.iter().filter(|key| commands.contains_key(&key.0)).map(|key| (key.0, key.1)).collect();
        let (executions, runs): (Vec<Uuid>, Vec<Uuid>) = keys.iter().map(|(e, r)| (e.0, r.0)).unzip();
        let mut tried: HashMap<RunId, Vec<Tried>> = HashMap::new();
        for (run, attempt) in store::attempts::tried(connection, &executions, &runs).await? {
            tried.entry(run).or_default().push(attempt);
        }
        Ok(Self { commands, tried })
    }

    /// When the run is tried again after its attempt has come to `last`; `None` when it is not.
    pub(super) fn after(&self, (execution, run, _): Key, last: Tried, now: Timestamp) -> Option<Due> {
        let verified = self.commands.get(&execution)?;
        let mut tried = self.tried.get(&run)?.clone();
        tried.retain(|attempt| attempt.number != last.number);
        tried.push(last);
        let command = verified.command_of(run)?;
        let Next::Again { tries, .. } = retry::next(command, &tried) else { return None };
        let policy = command.retry.clone().unwrap_or_else(|| Retry::of(*limits::RUN_TRIES.end()));
        let at = now.saturating_add(policy.pause(tries, clock::dice())).unwrap_or(Timestamp::MAX);
        let start_before = at.saturating_add(verified.start_within).unwrap_or(Timestamp::MAX);
        let how = last.reason.map_or("ended", Reason::as_str);
        let code = last.exit_code.map(|code| format!(" with code {code}")).unwrap_or_default();
        let detail = format!("try {tries} of {}: {how}{code}; it is tried again", policy.attempts);
        Some(Due { at, start_before, detail })
    }
}

/// May this be followed by another try?
fn is_bad(happening: &Happening) -> bool {
    match happening {
        Happening::Finished(finish) => (finish.reason, finish.exit_code) != (Reason::Exited, Some(0)),
        Happening::Refused { reason, .. } => !matches!(reason, Reason::AgentBusy | Reason::NotStarted),
        Happening::Lost { .. } => true,
        Happening::Accepted { .. } | Happening::Started { .. } | Happening::Withdrawn => false,
    }
}
