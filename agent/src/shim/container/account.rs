//! What a container took: counted by its control group, for as long as that is there. What the group does not count, or was
//! gone before it was looked at, is not known.

use std::os::fd::OwnedFd;

use tokio::io::unix::AsyncFd;

use super::ears;
use crate::{
    sandbox::cgroup::{Cgroup, Usage},
    sys,
};

#[derive(Debug)]
pub(super) struct Account {
    group: Option<Cgroup>,
    usage: Usage,
    /// The end of the container's first process. All others have ended before it, and the engine has yet to notice.
    end: Option<AsyncFd<OwnedFd>>,
}

impl Account {
    /// Of the container with this id at its engine, which was started a moment ago: one that is short is gone in the next.
    pub(super) fn open(id: &str) -> Self {
        let mut account = Self { group: Cgroup::of_container(id), usage: Usage::default(), end: None };
        account.read();
        account
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
}
