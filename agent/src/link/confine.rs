//! What the link's process gives up before it reads the first byte from the network.
//!
//! In this order, each step while it may still be taken: the rules for files are opened, the user is changed, the
//! capabilities go, no program can give any back (`no_new_privs`), nobody looks into the process (not dumpable), it ends
//! with the executor, then Landlock and seccomp. All of it is for this thread, which is the only one, and for those that it
//! starts.
//!
//! That root becomes another user must work, or there is no link. What the kernel does not have is told, and the rest
//! holds all the same.

mod filter;
mod paths;

use std::io;

use nix::{
    errno::Errno,
    sys::{prctl, signal::Signal, stat},
    unistd::{Gid, Pid, Uid, getppid, setgroups, setresgid, setresuid},
};
use serde::{Deserialize, Serialize};

use crate::{channel::wire::User, sys};

/// Why the link cannot be confined enough to begin.
#[derive(Debug, thiserror::Error)]
pub enum ConfineError {
    #[error("cannot become the user {uid} of the link (see link_user)")]
    User { uid: u32, source: io::Error },
    #[error("cannot give up {what}")]
    GiveUp { what: &'static str, source: io::Error },
    #[error("the executor is gone")]
    Orphan,
}

/// How the link's process is confined.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confinement {
    /// Whom it runs as.
    pub uid: u32,
    /// What this host cannot do of it.
    pub missing: Vec<String>,
}

/// Confines this process, which has one thread and stands in the link's folder.
///
/// # Errors
/// When a step that every kernel knows fails.
pub fn confine(user: Option<User>, executor: u32) -> Result<Confinement, ConfineError> {
    let give_up =
        |what: &'static str| move |source: Errno| ConfineError::GiveUp { what, source: source.into() };
    let mut missing = Vec::new();
    stat::umask(stat::Mode::from_bits_truncate(0o077));
    let rules = paths::open();
    // Only root may; whether it is empty is looked at below.
    let _ = sys::drop_bounding_set();
    if let Some(user) = user {
        become_user(user).map_err(|source| ConfineError::User { uid: user.uid, source: source.into() })?;
    }
    sys::drop_capabilities().map_err(give_up("the capabilities"))?;
    if !sys::bounding_set_is_empty() {
        missing.push("an empty bounding set (the agent does not run as root)".to_owned());
    }
    prctl::set_no_new_privs().map_err(give_up("new privileges"))?;
    prctl::set_dumpable(false).map_err(give_up("being looked into"))?;
    // After the change of the user, which would take it back.
    prctl::set_pdeathsig(Signal::SIGKILL).map_err(give_up("life without the executor"))?;
    if getppid() != Pid::from_raw(i32::try_from(executor).unwrap_or(0)) {
        return Err(ConfineError::Orphan);
    }
    missing
        .extend(rules.and_then(paths::enforce).unwrap_or_else(|error| Some(format!("landlock ({error})"))));
    missing.extend(filter::apply().err().map(|error| format!("seccomp ({error})")));
    Ok(Confinement { uid: Uid::current().as_raw(), missing })
}

fn become_user(user: User) -> nix::Result<()> {
    let (uid, gid) = (Uid::from_raw(user.uid), Gid::from_raw(user.gid));
    setgroups(&[])?;
    setresgid(gid, gid, gid)?;
    setresuid(uid, uid, uid)
}
