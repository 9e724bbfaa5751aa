//! The end of a container: what is known of it, its removal, and the record.

use std::time::Duration;

use bollard::models::ContainerInspectResponse;

use super::{
    engine::{Engine, NAME_PREFIX},
    life::Life,
    note,
};
use crate::{
    sandbox::cgroup::Usage,
    shim::{ending::Ended, prepare::Failure, record},
    sys::Exit,
};

/// How long the removal may take, all in all; of an engine that has left something unanswered, and how often it is tried.
pub(super) const REMOVE_WITHIN: Duration = Duration::from_secs(15);
pub(super) const REMOVE_OF_SILENT_WITHIN: Duration = Duration::from_secs(4);
const REMOVE_AGAIN: Duration = Duration::from_millis(500);

/// What is known of the end.
#[derive(Debug, Clone, Copy)]
pub(super) struct End {
    exit: Option<i32>,
    is_out_of_memory: bool,
    pub(super) by: By,
}

/// By what it is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum By {
    /// Its engine, which knows nothing of one that somebody else removed.
    Engine,
    /// We had it removed, and it was not seen to start.
    Removal,
    /// Its control group, after we had killed what was in it.
    Group,
}

impl End {
    /// As the engine tells it.
    pub(super) fn told(found: Option<Box<ContainerInspectResponse>>) -> Self {
        let state = found.and_then(|found| found.state).unwrap_or_default();
        Self {
            exit: state.exit_code.and_then(|code| i32::try_from(code).ok()),
            is_out_of_memory: state.oom_killed == Some(true),
            by: By::Engine,
        }
    }

    pub(super) fn unknown(by: By) -> Self {
        Self { exit: None, is_out_of_memory: false, by }
    }

    fn why_no_code(self) -> &'static str {
        match self.by {
            By::Engine => "somebody else removed its container, so its exit code is not known",
            By::Removal => "its container was removed before its engine had told how it ended",
            By::Group => {
                "its engine did not answer, so it was ended through its control group and its exit code is not known"
            }
        }
    }
}

impl Life<'_> {
    /// The record without the ids.
    pub(super) fn into_record(self, removed: Result<(), String>) -> proto::ExitRecord {
        let end = self.end.unwrap_or(End::unknown(By::Engine));
        let unkillable = [i32::try_from(self.pid).unwrap_or(0)];
        let usage = self.means.account.usage();
        let usage = Usage { oom_kills: usage.oom_kills.max(end.is_out_of_memory.into()), ..usage };
        let killed = self.was_killed();
        // One that may run, or was heard, has not failed to start.
        let failure = self.failure.as_ref().filter(|_| !self.is_unkillable && !self.has_begun());
        let failure =
            failure.map(|failure| Failure { reason: failure.reason, detail: failure.detail.clone() });
        let never_ran = failure.is_some();
        let mut record = Ended {
            started_at: self.started_at,
            failure,
            why: self.why,
            killed,
            exit: end.exit.map(Exit::Code),
            unkillable: if self.is_unkillable { &unkillable } else { &[] },
            left_behind: 0,
            usage,
            bounds: self.bounds,
        }
        .record(self.output, self.means.kept.outputs.as_ref());
        if self.is_unkillable && self.pid == 0 {
            record.detail = "its engine does not answer: its container may run, or begin yet".to_owned();
        }
        let mut also = |what: &str| {
            let separator = if record.detail.is_empty() { "" } else { "; " };
            record.detail = record::detail(format!("{}{separator}{what}", record.detail));
        };
        if end.exit.is_none() && !self.is_unkillable && !never_ran {
            also(end.why_no_code());
        }
        if self.is_cut {
            also("the engine gave its output up before the end: some of it may be missing");
        }
        if !self.means.warnings.is_empty() {
            also(&format!("its engine warned: {}", self.means.warnings.join(", ")));
        }
        if let Err(why) = removed {
            also(&why);
        }
        record
    }
}

/// Removes the attempt's container. One that only has its name is left alone.
pub(super) async fn remove(engine: &Engine, name: &str, within: Duration) -> Result<(), String> {
    let attempt = name.strip_prefix(NAME_PREFIX).unwrap_or(name);
    let mut why = format!("its engine did not answer within {} s", within.as_secs());
    let removal = async {
        loop {
            match note::remove_own(engine, name, attempt).await {
                Ok(()) => return,
                Err(error) => why = error,
            }
            tokio::time::sleep(REMOVE_AGAIN).await;
        }
    };
    if tokio::time::timeout(within, removal).await.is_ok() {
        return Ok(());
    }
    Err(format!("the container '{name}' could not be removed and is tried again: {why}"))
}
