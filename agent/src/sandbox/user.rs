//! Users that exist for one run only: numbers of a range that no account has, each lent to one run of the host at a time.
//!
//! A number is lent by a lock on a file of its name, in a folder that all agents of the host share. The lock ends with the
//! shim, whatever ends it. Numbers are tried in an order of the run's own, so that one is seldom used again soon. The file is
//! empty once what the run left of its user was removed; otherwise that is done before the number is lent again.

use std::{
    fs::{DirBuilder, File, OpenOptions, TryLockError},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _},
    path::Path,
};

use nix::unistd::{Gid, Group, Uid, User};

use super::leftovers;

const FOLDER: &str = "/run/opsconductor/users";

/// A number that is lent to this process for as long as this lives.
#[derive(Debug)]
pub(crate) struct Lent {
    pub(crate) uid: Uid,
    lock: File,
}

impl Drop for Lent {
    fn drop(&mut self) {
        // What stays now is tried again before the number is lent again.
        let _ = leftovers::remove(self.uid).and_then(|()| self.lock.set_len(0));
    }
}

/// Lends a number from `first` to `last`; `seed` decides where the search begins.
///
/// # Errors
/// When the folder of the locks cannot be used, or all numbers are taken.
pub(crate) fn lend((first, last): (u32, u32), seed: u64) -> io::Result<Lent> {
    let folder = Path::new(FOLDER);
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let owner = std::fs::symlink_metadata(folder)?;
    if !owner.is_dir() || owner.uid() != Uid::effective().as_raw() {
        return Err(io::Error::other(format!("{FOLDER} is not a folder of the agent's")));
    }
    let count = u64::from(last.saturating_sub(first)) + 1;
    for step in 0..count {
        let number = first + u32::try_from(seed.wrapping_add(step) % count).unwrap_or(0);
        let path = folder.join(number.to_string());
        let mut lock = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(path)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => continue,
            Err(TryLockError::Error(error)) => return Err(error),
        }
        let has_account = matches!(User::from_uid(Uid::from_raw(number)), Ok(Some(_)))
            || matches!(Group::from_gid(Gid::from_raw(number)), Ok(Some(_)));
        if has_account {
            continue;
        }
        let uid = Uid::from_raw(number);
        if lock.metadata()?.len() > 0 {
            leftovers::remove(uid)?;
        } else {
            lock.write_all(b"lent\n")?;
        }
        return Ok(Lent { uid, lock });
    }
    Err(io::Error::other(format!("all users from {first} to {last} are taken")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_lent_once_at_a_time() {
        if !Uid::effective().is_root() {
            eprintln!("skipped: only root lends users");
            return;
        }
        // Two numbers that no other test uses.
        let range = (65_100, 65_101);
        let (one, two) = (lend(range, 1).unwrap(), lend(range, 1).unwrap());
        assert_eq!((one.uid.as_raw(), two.uid.as_raw()), (65_101, 65_100));
        assert!(lend(range, 0).unwrap_err().to_string().contains("taken"));
        drop(one);
        assert_eq!(lend(range, 0).unwrap().uid.as_raw(), 65_101);
        // Accounts are never lent.
        assert!(lend((0, 0), 0).is_err());
    }
}
