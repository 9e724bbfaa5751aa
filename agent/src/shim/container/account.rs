//! What a container took: counted by its control group, for as long as that is there. What the group does not count, or was
//! gone before it was looked at, is not known. The same group ends the container when its engine does not.

use std::os::fd::OwnedFd;

use tokio::io::unix::AsyncFd;

use super::ears;
use crate::{
    sandbox::cgroup::{Cgroup, Usage},
    sys,
};

#[derive(Debug)]
pub(super) struct Account {
    /// The container's at its engine.
    id: String,
    group: Option<Cgroup>,
    usage: Usage,
    /// The end of the container's first process. All others have ended before it, and the engine has yet to notice.
    end: Option<AsyncFd<OwnedFd>>,
}

impl Account {
    /// Of the container with this id at its engine, which has no group before it was started.
    pub(super) fn new(id: String) -> Self {
        Self { id, group: None, usage: Usage::default(), end: None }
    }

    /// It was started a moment ago: one that is short is gone in the next.
    pub(super) fn open(&mut self) {
        self.find();
        self.read();
    }

    fn find(&mut self) -> Option<&Cgroup> {
        if self.group.is_none() {
            self.group = Cgroup::of_container(&self.id);
        }
        self.group.as_ref()
    }

    /// Listens for the end of the container's first process; 0 is one that has ended.
    pub(super) fn follow(&mut self, pid: u32) {
        match sys::watch_end(pid) {
            Ok(end) => self.end = Some(end),
            Err(_) => self.read(),
        }
    }

    /// Waits for that end, and reads what was taken until then. Forever after.
    pub(super) async fn close(&mut self) {
        match &self.end {
            Some(end) => ears::ready(end).await,
            None => std::future::pending().await,
        }
        self.end = None;
        self.read();
    }

    /// Reads again.
    pub(super) fn read(&mut self) {
        if let Some(group) = &self.group {
            self.usage = group.usage().after(self.usage);
        }
    }

    pub(super) fn usage(&self) -> Usage {
        self.usage
    }

    /// Kills all that is in the group, without the engine.
    pub(super) fn kill(&mut self) {
        self.read();
        if let Some(group) = self.find() {
            // What comes of it is seen by who is left.
            let _ = group.kill();
        }
    }

    /// Whether nothing of the container runs any more, as far as its group tells.
    pub(super) fn is_seen_to_be_over(&self) -> bool {
        self.group.as_ref().is_some_and(|group| !group.is_populated())
    }
}
