//! What a user that exists for one run leaves behind where everybody may write: the next run with its number must not find
//! it, nor anybody use a program of it to become that user.

use std::{
    io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use nix::unistd::Uid;

use crate::sys::{self, Ipc};

/// Folders of every host in which everybody may write, and nobody may remove what is another's.
const SHARED: [&str; 5] = ["/tmp", "/var/tmp", "/dev/shm", "/dev/mqueue", "/run/lock"];
/// What System V has, as the kernel lists it: the list, and the name of the column with the number of each.
const SYSTEM_V: [(&str, &str, Ipc); 3] = [
    ("/proc/sysvipc/shm", "shmid", Ipc::Memory),
    ("/proc/sysvipc/msg", "msqid", Ipc::Messages),
    ("/proc/sysvipc/sem", "semid", Ipc::Semaphores),
];

/// Removes all of it. Nothing runs as that user.
///
/// # Errors
/// The first that stays.
pub(super) fn remove(user: Uid) -> io::Result<()> {
    let files = SHARED.iter().flat_map(|folder| owned(Path::new(folder), user));
    let removed = files.map(|(path, is_folder)| {
        let removed = if is_folder { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) };
        removed.or_else(|error| if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) })
    });
    let removed = removed.fold(Ok(()), io::Result::and);
    let mut done = removed;
    for (list, column, kind) in SYSTEM_V {
        let Ok(list) = std::fs::read_to_string(list) else { continue };
        for number in numbers(&list, column, user) {
            done = done.and(sys::remove_ipc(kind, number).map_err(io::Error::from));
        }
    }
    done
}

/// What is this user's in a folder, and whether it is a folder itself.
fn owned(folder: &Path, user: Uid) -> Vec<(PathBuf, bool)> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let found = entries.filter_map(|entry| {
        let found = entry.metadata().ok().filter(|found| found.uid() == user.as_raw())?;
        Some((entry.path(), found.is_dir()))
    });
    found.collect()
}

/// The numbers in such a list that this user made or owns.
fn numbers(list: &str, column: &str, user: Uid) -> Vec<i32> {
    let mut lines = list.lines();
    let names: Vec<&str> = lines.next().unwrap_or_default().split_whitespace().collect();
    let place = |name: &str| names.iter().position(|one| *one == name);
    let (Some(number), Some(owner), Some(maker)) = (place(column), place("uid"), place("cuid")) else {
        return Vec::new();
    };
    let found = lines.filter_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let is_user = |at: usize| words.get(at).and_then(|word| word.parse().ok()) == Some(user.as_raw());
        if is_user(owner) || is_user(maker) { words.get(number)?.parse().ok() } else { None }
    });
    found.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_the_kernel() {
        let list = "       key      msqid perms      cbytes       qnum lspid lrpid   uid   gid  cuid  cgid\n\
                    \x20        0          3   600           0          0     0     0 61200 61200 61200 61200\n\
                    \x20        7          4   600           0          0     0     0     0     0 61200     0\n\
                    \x20        8          5   600           0          0     0     0 61201     0 61201     0\n";
        assert_eq!(numbers(list, "msqid", Uid::from_raw(61200)), [3, 4]);
        assert_eq!(numbers(list, "nothing", Uid::from_raw(61200)), Vec::<i32>::new());
        assert_eq!(numbers("", "msqid", Uid::from_raw(0)), Vec::<i32>::new());
    }

    #[test]
    fn only_this_user_s_are_removed() {
        if !Uid::effective().is_root() {
            eprintln!("SKIPPED: only root can leave something as another user");
            return;
        }
        let user = Uid::from_raw(65_150);
        let [own, other] = [65_150, 65_151].map(|uid| {
            let folder = tempfile::Builder::new().prefix("opsc-leftovers-").tempdir_in("/tmp").unwrap();
            std::fs::write(folder.path().join("file"), "x").unwrap();
            std::os::unix::fs::chown(folder.path(), Some(uid), None).unwrap();
            folder
        });
        remove(user).unwrap();
        assert!(!own.path().exists() && other.path().join("file").exists());
    }
}
