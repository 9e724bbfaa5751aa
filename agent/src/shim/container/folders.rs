//! Which folders of the host a container may have.
//!
//! The engine mounts a folder by its path, and later than it is looked at here. So that nobody can put another one in its place
//! meanwhile, a link for instance, each folder on the way to it must be one whose entries only root, or the agent's user, can
//! change. Who cannot do that cannot lead a mount anywhere, however fast; in the folder itself anybody may do anything. The
//! engine must see the same folders, and not those of a container or a namespace of its own.

use std::{
    fs::{self, Metadata},
    io,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use nix::unistd::geteuid;

use super::{
    engine::{self, Engine},
    roots,
};

/// Folders of the host that no container gets, nor what is in them: they are the kernel's own.
const KERNEL_FOLDERS: [&str; 3] = ["/proc", "/sys", "/dev"];
/// Folders in which engines have their sockets. Whoever speaks to an engine is root.
const ENGINE_FOLDERS: [&str; 3] = ["/run/podman", "/run/containerd", "/run/docker"];
/// Whether the group and all others may change a folder's entries. Whom a list of rights lets is in the group's bits too.
const WRITABLE_BY_OTHERS: u32 = 0o022;
/// Who may change a folder's entries may change only his own.
const STICKY: u32 = 0o1000;

/// May a container of this engine have them? It is kept from those that are hidden.
///
/// # Errors
/// Which may not be had, and why.
pub(super) fn check<'a>(
    folders: impl Iterator<Item = &'a String>,
    hidden: &[String],
    engine: &Engine,
) -> Result<(), String> {
    let mut folders = folders.peekable();
    if folders.peek().is_none() {
        return Ok(());
    }
    let mut kept: Vec<PathBuf> = hidden.iter().map(PathBuf::from).collect();
    kept.extend(KERNEL_FOLDERS.iter().chain(&ENGINE_FOLDERS).map(PathBuf::from));
    kept.extend(engine::sockets(""));
    kept.push(engine.socket.clone());
    let roots = roots::of_engine(&engine.socket)
        .map_err(|error| format!("it cannot have folders: whose the engine sees is not known: {error}"))?;
    for folder in folders {
        for root in &roots {
            check_one(Path::new(folder), &kept, root)
                .map_err(|why| format!("it cannot have the folder '{folder}': {why}"))?;
        }
    }
    Ok(())
}

/// `root` is the root folder that the engine sees.
fn check_one(folder: &Path, kept: &[PathBuf], root: &Path) -> Result<(), String> {
    if folder.to_str().is_none_or(|path| path.contains(['\0', '\n'])) {
        return Err("its name cannot be told to an engine".to_owned());
    }
    check_way(folder, root)?;
    // From here on the path leads to one folder.
    let real = fs::canonicalize(folder).map_err(|error| error.to_string())?;
    if real != folder {
        return Err("its path is not the shortest to it".to_owned());
    }
    for kept in kept {
        // What is not there cannot be seen, except in a folder that is kept as a whole.
        let there = fs::canonicalize(kept);
        let kept = there.as_deref().unwrap_or(kept);
        if real.starts_with(kept) {
            return Err(format!("it is in '{}'", kept.display()));
        }
        if kept.starts_with(&real) {
            return Err(format!("'{}' is in it", kept.display()));
        }
    }
    Ok(())
}

/// From the root folder on: is each what it seems to be, and will it stay there?
fn check_way(folder: &Path, root: &Path) -> Result<(), String> {
    let mut way: Vec<&Path> = folder.ancestors().collect();
    way.reverse();
    let mut above: Option<Metadata> = None;
    for step in way {
        let said = |error: io::Error| format!("'{}': {error}", step.display());
        let found = fs::symlink_metadata(step).map_err(said)?;
        if found.is_symlink() {
            return Err(format!("'{}' is a symbolic link", step.display()));
        }
        if !found.is_dir() {
            return Err(format!("'{}' is no folder", step.display()));
        }
        if above.is_some_and(|above| !is_kept(&above, &found)) {
            let above = step.parent().unwrap_or(step).display();
            return Err(format!("others than root can put something else in its place, as '{above}' allows"));
        }
        let theirs = fs::symlink_metadata(root.join(step.strip_prefix("/").unwrap_or(step))).map_err(said)?;
        if (theirs.dev(), theirs.ino()) != (found.dev(), found.ino()) {
            return Err(format!("'{}' is another folder for the engine than for the agent", step.display()));
        }
        above = Some(found);
    }
    Ok(())
}

/// Whether only root and the agent's user can put something else in the place of an entry of a folder.
fn is_kept(folder: &Metadata, entry: &Metadata) -> bool {
    let is_trusted = |found: &Metadata| found.uid() == 0 || found.uid() == geteuid().as_raw();
    let mode = folder.permissions().mode();
    let is_closed = mode & WRITABLE_BY_OTHERS == 0;
    is_trusted(folder) && (is_closed || mode & STICKY != 0 && is_trusted(entry))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{chown, symlink};

    use super::*;

    fn base() -> (tempfile::TempDir, PathBuf) {
        let base = tempfile::tempdir().unwrap();
        let path = base.path().canonicalize().unwrap();
        (base, path)
    }

    fn refusal(folder: &Path, kept: &[PathBuf]) -> String {
        check_one(folder, kept, Path::new("/")).unwrap_err()
    }

    #[test]
    fn a_folder_that_leads_to_what_is_kept_is_no_containers() {
        let (_base, base) = base();
        for name in ["data/attempts", "free"] {
            fs::create_dir_all(base.join(name)).unwrap();
        }
        symlink(base.join("free"), base.join("link")).unwrap();
        let kept = [base.join("data")];
        check_one(&base.join("free"), &kept, Path::new("/")).unwrap();
        for (no, why) in [
            (base.join("data/attempts"), "it is in"),
            (base.join("data"), "it is in"),
            (base.clone(), "is in it"),
            (base.join("link"), "symbolic link"),
            (base.join("free/../data"), "shortest"),
            (base.join("none"), "No such file"),
        ] {
            let said = refusal(&no, &kept);
            assert!(said.contains(why), "{}: {said}", no.display());
        }
    }

    #[test]
    fn the_way_to_it_is_nobody_elses_to_change() {
        let (_base, base) = base();
        let folder = base.join("way/folder");
        fs::create_dir_all(&folder).unwrap();
        let way = base.join("way");
        let mode = |mode| fs::set_permissions(&way, fs::Permissions::from_mode(mode)).unwrap();
        let is_refused = || check_one(&folder, &[], Path::new("/")).is_err();
        for (bits, refused) in [(0o755, false), (0o775, true), (0o757, true), (0o1777, false), (0o700, false)]
        {
            mode(bits);
            assert_eq!(is_refused(), refused, "{bits:o}");
        }
        if !geteuid().is_root() {
            eprintln!("SKIPPED: only root gives folders away");
            return;
        }
        let give = |path: &Path, uid| chown(path, Some(uid), None).unwrap();
        give(&folder, 65_534);
        mode(0o755);
        assert!(!is_refused(), "in the folder itself anybody may do anything");
        mode(0o1777);
        assert!(refusal(&folder, &[]).contains("others than root"));
        give(&folder, 0);
        mode(0o755);
        give(&way, 65_534);
        assert!(refusal(&folder, &[]).contains(&format!("'{}'", way.display())));
    }

    #[test]
    fn an_engine_that_sees_other_files_mounts_none() {
        let (_base, base) = base();
        fs::create_dir(base.join("srv")).unwrap();
        let said = check_one(&base, &[], &base).unwrap_err();
        assert!(said.contains("another folder for the engine"), "{said}");
    }
}
