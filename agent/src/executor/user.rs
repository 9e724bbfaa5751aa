//! The unprivileged user of the link, and the folder that is given to it.
//!
//! The folder may hold whatever a link that was taken over has left there, for instance symbolic and hard links to files
//! of others. So each thing in it is opened, never followed, looked at, and only then given away, by its descriptor.

use std::{io, os::fd::OwnedFd, path::Path};

use nix::{
    dir::Dir,
    fcntl::{AtFlags, OFlag, open, openat},
    sys::stat::{Mode, SFlag, fstat},
    unistd::{Gid, Uid, User, fchownat, geteuid},
};

use crate::channel::wire;
use model::limits;

/// The system's user for links, where a package has made one.
const USER_NAME: &str = "opsconductor-agent";
/// The link's user where there is none of that name, and its group: beyond what distributions give out, within the ids that
/// a container usually has, and none of those that runs are lent.
const FALLBACK_ID: u32 = 61_183;
const _: () = assert!(FALLBACK_ID < limits::DYNAMIC_UIDS.0);
/// Folders inside folders; the link has two.
const DEPTH: usize = 16;

/// Why the link has no user.
#[derive(Debug, thiserror::Error)]
pub enum UserError {
    #[error("link_user: there is no user '{0}' on this host")]
    Unknown(String),
    #[error("link_user: cannot look for the user '{name}'")]
    Lookup { name: String, source: io::Error },
}

/// The user that the link becomes; none when it stays who this process is, which is so where that is not root, and where
/// `link_user` is root.
///
/// # Errors
/// When there is no user of this name.
pub fn of_link(link_user: Option<&str>) -> Result<Option<wire::User>, UserError> {
    if !geteuid().is_root() {
        return Ok(None);
    }
    let find = |name: &str| {
        User::from_name(name)
            .map_err(|error| UserError::Lookup { name: name.to_owned(), source: error.into() })
    };
    let user = match link_user {
        None => match find(USER_NAME)? {
            Some(user) => with_group(&user),
            None => wire::User { uid: FALLBACK_ID, gid: FALLBACK_ID },
        },
        Some(name) => match (find(name)?, name.parse::<u32>()) {
            (Some(user), _) => with_group(&user),
            (None, Ok(uid)) => {
                let known = User::from_uid(Uid::from_raw(uid)).ok().flatten();
                known.map_or(wire::User { uid, gid: uid }, |user| with_group(&user))
            }
            (None, Err(_)) => return Err(UserError::Unknown(name.to_owned())),
        },
    };
    Ok(Some(user).filter(|user| user.uid != 0))
}

fn with_group(user: &User) -> wire::User {
    wire::User { uid: user.uid.as_raw(), gid: user.gid.as_raw() }
}

/// Gives a folder and all that is in it to a user.
///
/// # Errors
/// When something in it cannot be looked at or given away.
pub fn give(folder: &Path, to: wire::User) -> io::Result<()> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    give_folder(&open(folder, flags, Mode::empty())?, to, DEPTH)
}

/// What is in it first: as long as the folder is not the user's, nobody exchanges anything there.
fn give_folder(folder: &OwnedFd, to: wire::User, depth: usize) -> io::Result<()> {
    let mut entries = Dir::from_fd(folder.try_clone()?)?;
    for entry in entries.iter() {
        let entry = entry?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let thing = openat(folder, name, flags, Mode::empty())?;
        let found = fstat(&thing)?;
        if SFlag::from_bits_truncate(found.st_mode) & SFlag::S_IFMT == SFlag::S_IFDIR {
            let Some(depth) = depth.checked_sub(1) else {
                tracing::warn!(name = %name.to_string_lossy(), "a folder of the link is too deep, and is left alone");
                continue;
            };
            let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
            give_folder(&openat(folder, name, flags, Mode::empty())?, to, depth)?;
        } else if found.st_nlink == 1 {
            give_one(&thing, (found.st_uid, found.st_gid), to)?;
        } else {
            tracing::warn!(name = %name.to_string_lossy(), "a file of the link has other names too, and is left alone");
        }
    }
    let found = fstat(folder)?;
    give_one(folder, (found.st_uid, found.st_gid), to)
}

fn give_one(thing: &OwnedFd, from: (u32, u32), to: wire::User) -> io::Result<()> {
    if from == (to.uid, to.gid) {
        return Ok(());
    }
    let (uid, gid) = (Uid::from_raw(to.uid), Gid::from_raw(to.gid));
    Ok(fchownat(thing, c"", Some(uid), Some(gid), AtFlags::AT_EMPTY_PATH)?)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt as _, symlink};

    use super::*;

    #[test]
    fn only_root_has_another_user_for_its_link() {
        let is_root = geteuid().is_root();
        assert_eq!(of_link(Some("0")).unwrap(), None);
        assert_eq!(of_link(Some("4711")).unwrap(), is_root.then_some(wire::User { uid: 4711, gid: 4711 }));
        assert_eq!(of_link(None).unwrap().is_some(), is_root);
        let unknown = of_link(Some("no such user"));
        assert_eq!(matches!(unknown, Err(UserError::Unknown(_))), is_root);
    }

    #[test]
    fn nothing_is_given_away_through_links() {
        let world = tempfile::tempdir().unwrap();
        let (folder, other) = (world.path().join("link"), world.path().join("other"));
        std::fs::create_dir_all(folder.join("identity/one")).unwrap();
        std::fs::write(folder.join("identity/one/key"), "").unwrap();
        std::fs::write(&other, "").unwrap();
        symlink(&other, folder.join("soft")).unwrap();
        std::fs::hard_link(&other, folder.join("hard")).unwrap();
        symlink(world.path(), folder.join("identity/away")).unwrap();
        let own = std::fs::symlink_metadata(&other).unwrap();
        // Who is not root may give to nobody but itself.
        let to = if geteuid().is_root() { 4711 } else { own.uid() };
        give(&folder, wire::User { uid: to, gid: if to == own.uid() { own.gid() } else { to } }).unwrap();
        for path in ["", "identity", "identity/one", "identity/one/key", "soft", "identity/away"] {
            assert_eq!(std::fs::symlink_metadata(folder.join(path)).unwrap().uid(), to, "{path}");
        }
        // What a hostile link made to be in the way is left alone, and keeps no agent from starting.
        let mut deep = folder.clone();
        for _ in 0..=DEPTH {
            deep.push("d");
        }
        std::fs::create_dir_all(&deep).unwrap();
        give(&folder, wire::User { uid: to, gid: if to == own.uid() { own.gid() } else { to } }).unwrap();
        assert_eq!(std::fs::symlink_metadata(&deep).unwrap().uid(), own.uid());
        assert_eq!(std::fs::symlink_metadata(folder.join("d")).unwrap().uid(), to);
        for path in [&other, &folder.join("hard"), &world.path().to_owned()] {
            assert_eq!(std::fs::symlink_metadata(path).unwrap().uid(), own.uid(), "{}", path.display());
        }
    }
}
