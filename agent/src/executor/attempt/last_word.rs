//! How an attempt ended, read from its folder.
//!
//! A shim opens its control socket last before it is ready, and starts nothing before that. So an attempt whose folder was
//! never made, or in which there is no socket, never began; once its folder is given up, it never will. That holds within
//! one boot of the host only: nothing that a shim makes is forced to the disk, and a loss of power may have taken it.

use std::{
    io::{self, ErrorKind},
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use model::{Reason, limits::KILL_WITHIN};
use prost::Message as _;

use super::{Attempt, EXIT_RECORD_KIND};
use crate::{
    executor::{Shared, name, report},
    messages::AttemptKey,
    sandbox::strays,
    shim::{self, container::note, control, lock::Lock, record},
};

/// How often the removal of a container is tried whose shim is gone.
const REMOVE_AGAIN: Duration = Duration::from_millis(500);

/// What there is to say of an attempt that is over.
pub(super) enum LastWord {
    Report(proto::Report),
    /// Nothing was started, and nothing will be; why that is known.
    NeverBegan(String),
}

/// An attempt whose end is looked for, apart from whoever follows it: to look may block for as long as killing may take.
#[derive(Debug, Clone)]
struct Watched {
    key: AttemptKey,
    shared: Arc<Shared>,
    boot_id: String,
    is_doubtful: bool,
}

impl Attempt {
    /// The last word about the attempt; none while its shim lives, or as long as it cannot be known.
    pub(super) async fn last_word(&self, folder: &Path) -> Option<LastWord> {
        let watched = Watched {
            key: self.key,
            shared: Arc::clone(&self.shared),
            boot_id: self.boot_id.clone(),
            is_doubtful: self.is_doubtful,
        };
        let folder = folder.to_owned();
        let looked = tokio::task::spawn_blocking(move || watched.look_for_end(&folder)).await;
        looked.unwrap_or_else(|error| Err(error.into())).unwrap_or_else(|error| {
            tracing::error!(run.id = %self.key.run_id, %error, "cannot look after the folder of a run");
            None
        })
    }
}

impl Watched {
    fn look_for_end(&self, folder: &Path) -> io::Result<Option<LastWord>> {
        if let Some(report) = self.recorded(folder)? {
            return Ok(Some(LastWord::Report(report)));
        }
        let lock = match Lock::take(folder) {
            Ok(Some(lock)) => lock,
            Ok(None) => return Ok(None),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                if self.may_never_have_begun() {
                    let detail = "the agent ended before it made a place for the run";
                    return Ok(Some(LastWord::NeverBegan(detail.to_owned())));
                }
                return Ok(Some(self.lost("the folder of the run is gone")));
            }
            Err(error) => return Err(error),
        };
        // It may have ended between the two looks.
        if let Some(report) = self.recorded(folder)? {
            return Ok(Some(LastWord::Report(report)));
        }
        lock.give_up(folder)?;
        if self.may_never_have_begun() && !std::fs::exists(folder.join(control::SOCKET_NAME))? {
            let detail = "the agent ended before the process that was to own the run was ready";
            return Ok(Some(LastWord::NeverBegan(detail.to_owned())));
        }
        // What the shim left is ended; the outcome stays unknown.
        if let Some(group) = shim::noted_cgroup(folder, &name(self.key)) {
            let _ = group.kill();
        }
        strays::kill(self.key.run_id, self.key.attempt);
        let left = self.remove_container(folder);
        let mut detail = "the process that owned the run ended before it could record the exit".to_owned();
        if let Err(why) = left {
            tracing::warn!(run.id = %self.key.run_id, error = %why, "the container of a run whose owner is gone may still run");
            detail = format!("{detail}; its container may still run: {why}");
        }
        Ok(Some(self.lost(&detail)))
    }

    /// Ends the container that the shim left, and removes it. An engine that does not answer is asked again for as long as
    /// killing may take, unless its container is seen to have ended without it: whoever clears the folder removes it then.
    fn remove_container(&self, folder: &Path) -> io::Result<()> {
        let (name, until) = (name(self.key), Instant::now() + KILL_WITHIN);
        let has_run = note::kill_noted(folder, &name).is_some();
        // The group of one that has ended is gone.
        let has_ended = || note::kill_noted(folder, &name).unwrap_or(has_run);
        loop {
            match note::remove_noted(folder, &name) {
                Err(error) if has_ended() || Instant::now() >= until => {
                    return Err(error);
                }
                Err(_) => std::thread::sleep(REMOVE_AGAIN),
                Ok(()) => return Ok(()),
            }
        }
    }

    /// Nobody has seen its shim, and what its folder shows can be believed.
    fn may_never_have_begun(&self) -> bool {
        self.is_doubtful && !self.boot_id.is_empty() && self.boot_id == self.shared.boot_id
    }

    fn lost(&self, detail: &str) -> LastWord {
        let (reason, detail) = if self.boot_id == self.shared.boot_id {
            (Reason::ShimLost, detail)
        } else {
            (Reason::HostRebooted, "the host was restarted while it ran")
        };
        LastWord::Report(report::lost(self.key, reason, detail))
    }

    /// The signed exit record, if there is one. One that cannot be read right now may be a genuine result.
    fn recorded(&self, folder: &Path) -> io::Result<Option<proto::Report>> {
        let key = self.key;
        let Some(bytes) = record::read(folder)? else { return Ok(None) };
        let is_ours = proto::ExitRecord::decode(bytes.as_slice()).is_ok_and(|record| {
            record.execution_id == key.execution_id.0.as_bytes()
                && record.run_id == key.run_id.0.as_bytes()
                && record.attempt == key.attempt
        });
        if !is_ours {
            return Ok(Some(report::lost(key, Reason::ShimLost, "the exit record is damaged")));
        }
        let signature = self.shared.keys.result_key.sign(EXIT_RECORD_KIND, &bytes);
        Ok(Some(report::finished(key, bytes, signature)))
    }
}
