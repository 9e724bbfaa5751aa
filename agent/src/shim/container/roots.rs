//! Whose files the engine sees.
//!
//! The kernel tells who listens on the engine's socket. That may be a service manager, which starts the engine when somebody
//! calls and hands the socket on: then its files are not told from the engine's. But an engine that has answered holds the
//! socket too. So all who hold it are looked for, and a folder must be the same for each.

use std::{
    collections::BTreeSet,
    fs, io,
    os::unix::{fs::MetadataExt as _, net::UnixStream},
    path::{Path, PathBuf},
};

use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};

/// The first process of a host, which starts engines and is none.
const SERVICE_MANAGER: i32 = 1;
const SOCKETS: &str = "/proc/net/unix";
/// Where in a line of that file the flags, the number and the path of a socket stand.
const FLAGS_AT: usize = 3;
const NUMBER_AT: usize = 6;
const PATH_AT: usize = 7;
/// What those flags are of a socket on which somebody listens.
const LISTENS: &str = "00010000";

/// The root folders of all that may be the engine behind this socket, which has answered.
pub(super) fn of_engine(socket: &Path) -> io::Result<Vec<PathBuf>> {
    let peer = getsockopt(&UnixStream::connect(socket)?, PeerCredentials)?.pid();
    // One that is in another namespace of processes has no number here.
    if peer == 0 {
        return Err(io::Error::other("it is no process of this host"));
    }
    let mut holders = holders(socket);
    holders.insert(peer);
    if holders.iter().all(|holder| *holder == SERVICE_MANAGER) {
        return Err(io::Error::other(
            "the service manager listens for it, and its own process was not found",
        ));
    }
    let roots = holders.into_iter().map(|holder| PathBuf::from(format!("/proc/{holder}/root")));
    // A child of the engine holds it until it has become another program, and may be gone by now.
    Ok(roots.filter(|root| fs::symlink_metadata(root.join(".")).is_ok()).collect())
}

/// The processes that have the listening socket open, as far as we may look.
fn holders(socket: &Path) -> BTreeSet<i32> {
    let listed = fs::read_to_string(SOCKETS).unwrap_or_default();
    let numbers: Vec<&str> = listed.lines().filter_map(|line| listening(line, socket)).collect();
    let targets: Vec<PathBuf> =
        numbers.into_iter().map(|number| format!("socket:[{number}]").into()).collect();
    let mut found = BTreeSet::new();
    if targets.is_empty() {
        return found;
    }
    for process in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = process.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let mut files = fs::read_dir(process.path().join("fd")).into_iter().flatten().flatten();
        if files.any(|file| fs::read_link(file.path()).is_ok_and(|target| targets.contains(&target))) {
            found.insert(pid);
        }
    }
    found
}

/// The number of the socket in this line, if it is the one that is meant and somebody listens there.
fn listening<'a>(line: &'a str, socket: &Path) -> Option<&'a str> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let path = Path::new(words.get(PATH_AT)?);
    let is_it = *words.get(FLAGS_AT)? == LISTENS && (path == socket || is_same(path, socket));
    is_it.then_some(*words.get(NUMBER_AT)?)
}

/// Whether two paths lead to one file: engines' sockets are known by several.
fn is_same(one: &Path, other: &Path) -> bool {
    let file = |path: &Path| fs::metadata(path).map(|found| (found.dev(), found.ino())).ok();
    // Abstract addresses have no file, and what is relative is somebody else's.
    one.is_absolute() && file(one).is_some_and(|one| file(other) == Some(one))
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn who_listens_is_found_by_every_path_to_the_socket() {
        let folder = tempfile::tempdir().unwrap();
        let (socket, link) = (folder.path().join("engine.sock"), folder.path().join("link"));
        let listener = UnixListener::bind(&socket).unwrap();
        std::os::unix::fs::symlink(&socket, &link).unwrap();
        let own = i32::try_from(std::process::id()).unwrap();
        for path in [&socket, &link] {
            assert!(holders(path).contains(&own), "{}", path.display());
            assert!(of_engine(path).unwrap().contains(&format!("/proc/{own}/root").into()));
        }
        // As a service manager hands it on: the kernel names who began to listen, and the other is found all the same.
        let handed = std::os::fd::OwnedFd::from(listener.try_clone().unwrap());
        let mut heir = std::process::Command::new("sleep").arg("60").stdin(handed).spawn().unwrap();
        let other = i32::try_from(heir.id()).unwrap();
        assert!(of_engine(&socket).unwrap().contains(&format!("/proc/{other}/root").into()));
        heir.kill().unwrap();
        heir.wait().unwrap();
        drop(listener);
        assert!(of_engine(&socket).is_err(), "nobody listens");
    }

    #[test]
    fn lines_of_sockets() {
        let socket = Path::new("/run/no-such/engine.sock");
        let line = "0000000000000000: 00000002 00000000 00010000 0001 01 4711 /run/no-such/engine.sock";
        assert_eq!(listening(line, socket), Some("4711"));
        // A connection has the same address.
        assert_eq!(listening(&line.replace("00010000 0001", "00000000 0001"), socket), None);
        assert_eq!(listening(line, Path::new("/run/other.sock")), None);
        assert_eq!(listening("0000000000000000: 00000003 00000000 00000000 0001 03 4712", socket), None);
    }
}
