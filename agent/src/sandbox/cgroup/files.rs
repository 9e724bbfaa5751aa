//! The files of a control group's folder, which are those of both versions, and what is done to a tree of such folders.

use std::{
    fs::{File, OpenOptions},
    io::{self, ErrorKind, Write as _},
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    sys::signal::{Signal, kill as send},
    unistd::Pid,
};

/// Lists the processes in a group; one that writes its id there joins.
pub(super) const PROCESSES: &str = "cgroup.procs";

/// Opens a file that is there, for writing.
pub(super) fn open(folder: &Path, name: &str) -> io::Result<File> {
    OpenOptions::new().write(true).open(folder.join(name))
}

/// Writes into a file that is there. The kernel takes a value with one call or not at all.
pub(super) fn write(folder: &Path, name: &str, value: &str) -> io::Result<()> {
    OpenOptions::new().write(true).truncate(true).open(folder.join(name))?.write_all(value.as_bytes())
}

/// Whether the folder has the file.
pub(super) fn has(folder: &Path, name: &str) -> bool {
    folder.join(name).exists()
}

/// The text of a file; none when it is not there or not for us.
pub(super) fn read(folder: &Path, name: &str) -> Option<String> {
    std::fs::read_to_string(folder.join(name)).ok()
}

/// The number that a file consists of; none for `max`.
pub(super) fn number(folder: &Path, name: &str) -> Option<u64> {
    read(folder, name)?.trim().parse().ok()
}

/// The number behind `key` in a file whose lines are pairs.
pub(super) fn value(folder: &Path, name: &str, key: &str) -> Option<u64> {
    let text = read(folder, name)?;
    let value = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' '))?;
    value.trim().parse().ok()
}

/// The folder and all that are below it, itself first.
pub(super) fn tree(folder: &Path) -> Vec<PathBuf> {
    let mut all = vec![folder.to_owned()];
    let mut next = 0;
    while let Some(folder) = all.get(next) {
        let below = std::fs::read_dir(folder).into_iter().flatten().flatten();
        let below: Vec<PathBuf> = below
            .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
            .map(|entry| entry.path())
            .collect();
        all.extend(below);
        next += 1;
    }
    all
}

/// The processes in a group and those below it. One that this process cannot name, because it is in another pid
/// namespace, is left out.
pub(super) fn processes(folder: &Path) -> Vec<Pid> {
    let mut found = Vec::new();
    for group in tree(folder) {
        let listed = read(&group, PROCESSES).unwrap_or_default();
        found.extend(
            listed.lines().filter_map(|line| line.parse().ok()).filter(|pid| *pid > 0).map(Pid::from_raw),
        );
    }
    found
}

/// Whether a process is in a group or one below it, also one that cannot be named.
pub(super) fn any_process(folder: &Path) -> bool {
    tree(folder).iter().any(|group| read(group, PROCESSES).is_some_and(|listed| !listed.trim().is_empty()))
}

/// Kills these processes. One that is gone is no error.
pub(super) fn kill(processes: &[Pid]) -> io::Result<()> {
    let mut outcome = Ok(());
    for pid in processes {
        match send(*pid, Signal::SIGKILL) {
            Ok(()) | Err(Errno::ESRCH) => {}
            Err(errno) => outcome = Err(errno.into()),
        }
    }
    outcome
}

/// Removes a group and those below it. One that is gone is no error.
pub(super) fn remove_tree(folder: &Path) -> io::Result<()> {
    for group in tree(folder).iter().rev() {
        match std::fs::remove_dir(group) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
    }
    Ok(())
}

/// Makes nothing of it when the group was removed meanwhile.
pub(super) fn unless_gone(outcome: io::Result<()>) -> io::Result<()> {
    match outcome {
        Err(error)
            if error.kind() == ErrorKind::NotFound || error.raw_os_error() == Some(Errno::ENODEV as i32) =>
        {
            Ok(())
        }
        outcome => outcome,
    }
}
