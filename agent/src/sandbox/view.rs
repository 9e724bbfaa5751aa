//! What a `strict` run sees of its host's files: all of it, read-only, but for its own folders, and processes, devices and
//! temporary folders of its own.
//!
//! The steps are made before the fork. In the child, in a mount namespace of its own, they are taken one after the other:
//! what is to be kept of the host is copied aside, then all is made read-only and covered, and then the copies are put back.

use std::{
    ffi::{CStr, CString, OsStr},
    io,
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::{Component, Path, PathBuf},
};

use nix::{
    errno::Errno,
    fcntl::{AT_FDCWD, OFlag, OpenHow, ResolveFlag, open, openat2},
    mount::{MsFlags, mount},
    sys::stat::Mode,
    unistd::{mkdir, symlinkat},
};

use super::{Missing, Part};
use crate::sys::{self, At, mount_attributes};

/// Copies that may be kept aside at a time: devices, temporary folders, and all folders that a run can name.
const COPIES: usize = 80;
/// Devices that every program may expect.
const DEVICES: [&str; 6] = ["/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty"];
/// Files of `/proc` that tell of the host's kernel, or command it.
const MASKED_FILES: [&str; 9] = [
    "/proc/kcore",
    "/proc/keys",
    "/proc/key-users",
    "/proc/kmsg",
    "/proc/kallsyms",
    "/proc/sysrq-trigger",
    "/proc/timer_list",
    "/proc/sched_debug",
    "/proc/latency_stats",
];
/// Folders that do.
const HIDDEN: [&str; 6] =
    ["/proc/acpi", "/proc/scsi", "/sys/firmware", "/sys/kernel", "/sys/fs/bpf", "/sys/fs/fuse"];
/// What may be looked at and not written, though `/proc` is the run's own.
const READ_ONLY: [&str; 4] = ["/proc/sys", "/proc/irq", "/proc/bus", "/proc/fs"];
const TEMPORARY: [&str; 2] = ["/tmp", "/var/tmp"];
/// Folders of the root folder that are there in an isolated run too; of the others it sees what it named.
const SHOWN: [&str; 13] =
    ["bin", "dev", "etc", "lib", "lib32", "lib64", "nix", "opt", "proc", "sbin", "sys", "tmp", "usr"];

/// What is to be done, in this order.
#[derive(Debug)]
pub(super) struct View {
    steps: Vec<(Part, Step)>,
}

#[derive(Debug)]
enum Step {
    /// Nothing that is mounted here shows elsewhere.
    Private,
    /// A copy of what is mounted here is kept aside. A folder is opened without following any link.
    Keep {
        from: CString,
        slot: usize,
        kind: Kept,
    },
    /// All mounts are read-only, and no file gives anybody rights.
    ReadOnlyHost,
    ReadOnly(CString),
    /// What covers a folder is read-only from now on; what was put back in it stays as it is.
    ReadOnlyCover(CString),
    Filesystem {
        kind: &'static CStr,
        at: CString,
        options: &'static CStr,
        flags: MsFlags,
    },
    /// Nothing is to be seen at this file.
    Mask(CString),
    Folder(CString),
    /// A folder on the way to one that is put back.
    Way(CString),
    File(CString),
    Link {
        to: CString,
        at: CString,
    },
    /// A copy is put back. The place of a folder is opened without following any link.
    Put {
        slot: usize,
        at: CString,
        kind: Kept,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kept {
    Device,
    /// It can be written to, though the host cannot.
    Folder,
    /// It can be read, though what is around it cannot.
    ReadFolder,
}

impl View {
    /// Makes the list. Mount points that are missing below the temporary folder are made in it. Of an isolated run, which
    /// names what it is to read, all else is covered that is not the system's: who sees a socket can speak to it.
    ///
    /// # Errors
    /// When these cannot be made, or a folder is not named from the root down.
    pub(super) fn new(
        temporary: &Path,
        writable: &[PathBuf],
        hidden: &[PathBuf],
        readable: Option<&Vec<PathBuf>>,
    ) -> io::Result<Self> {
        let mut steps = vec![(Part::OwnMounts, Step::Private)];
        let mut back = Vec::new();
        let mut slots = 0..COPIES;
        let mut keep = |part, from: &Path, to: &str, kind| {
            let slot = slots.next().ok_or_else(|| io::Error::other("it names too many folders"))?;
            steps.push((part, Step::Keep { from: c(from)?, slot, kind }));
            io::Result::Ok((part, Step::Put { slot, at: c(to)?, kind }))
        };
        let mut devices = Vec::new();
        for device in DEVICES.iter().filter(|device| Path::new(device).exists()) {
            devices.push((Part::Devices, Step::File(c(device)?)));
            devices.push(keep(Part::Devices, Path::new(device), device, Kept::Device)?);
        }
        if let Some(folder) = writable.iter().chain(readable.into_iter().flatten()).find(|one| !is_plain(one))
        {
            return Err(io::Error::other(format!(
                "'{}' is no plain path from the root down",
                folder.display()
            )));
        }
        let kept: Vec<PathBuf> = writable.iter().chain(readable.into_iter().flatten()).cloned().collect();
        let mut covered = if readable.is_some() { not_shown()? } else { Vec::new() };
        covered.retain(|folder| !kept.contains(folder));
        for folder in readable.into_iter().flatten().filter(|folder| is_below(folder, &covered)) {
            let name = folder.to_str().ok_or_else(|| io::Error::other("a folder's name is not UTF-8"))?;
            back.push(keep(Part::HiddenFolders, folder, name, Kept::ReadFolder)?);
        }
        for folder in TEMPORARY.iter().filter(|folder| is_folder(Path::new(folder))) {
            back.push(keep(Part::TemporaryFolder, temporary, folder, Kept::Folder)?);
        }
        for folder in writable {
            let Some(name) = folder.to_str() else { continue };
            if TEMPORARY.contains(&name) {
                continue;
            }
            if let Some(inside) = TEMPORARY.iter().find_map(|tmp| folder.strip_prefix(tmp).ok()) {
                std::fs::create_dir_all(temporary.join(inside))?;
            }
            back.push(keep(Part::WritableFolders, folder, name, Kept::Folder)?);
        }
        steps.push((Part::ReadOnlyHost, Step::ReadOnlyHost));
        processes(&mut steps)?;
        let hidden: Vec<PathBuf> =
            hidden.iter().filter_map(|folder| std::fs::canonicalize(folder).ok()).collect();
        for folder in HIDDEN.iter().map(PathBuf::from).chain(hidden.iter().cloned()) {
            if is_folder(&folder) {
                steps.push((Part::HiddenFolders, nothing_at(c(&folder)?)));
            }
        }
        own_devices(&mut steps, devices)?;
        cover(&mut steps, &covered, back)?;
        // What was put back has them again.
        for folder in hidden.iter().filter(|folder| is_below(folder, &kept)) {
            steps.push((Part::HiddenFolders, nothing_at(c(folder)?)));
        }
        Ok(Self { steps })
    }

    /// Takes all steps. Allocates nothing.
    ///
    /// # Errors
    /// The first that fails.
    pub(super) fn enter(&self) -> Result<(), Missing> {
        let mut copies = [const { None }; COPIES];
        for (part, step) in &self.steps {
            step.take(&mut copies).map_err(|errno| (*part, errno))?;
        }
        Ok(())
    }
}

/// `/proc` with the run's own processes, and without what is the kernel's.
fn processes(steps: &mut Vec<(Part, Step)>) -> io::Result<()> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    steps.push((Part::Processes, Step::Filesystem { kind: c"proc", at: c("/proc")?, options: c"", flags }));
    for file in MASKED_FILES.iter().filter(|file| Path::new(file).exists()) {
        steps.push((Part::Processes, Step::Mask(c(file)?)));
    }
    for folder in READ_ONLY.iter().filter(|folder| is_folder(Path::new(folder))) {
        steps.push((Part::Processes, Step::ReadOnly(c(folder)?)));
    }
    Ok(())
}

/// `/dev` with the devices that were kept, terminals and shared memory of its own.
fn own_devices(steps: &mut Vec<(Part, Step)>, devices: Vec<(Part, Step)>) -> io::Result<()> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
    let mut add = |step| steps.push((Part::Devices, step));
    add(Step::Filesystem { kind: c"tmpfs", at: c("/dev")?, options: c"mode=0755,size=64k", flags });
    for (_, step) in devices {
        add(step);
    }
    for folder in ["/dev/pts", "/dev/shm"] {
        add(Step::Folder(c(folder)?));
    }
    let options = c"newinstance,ptmxmode=0666,mode=0620";
    add(Step::Filesystem { kind: c"devpts", at: c("/dev/pts")?, options, flags });
    let shared = flags | MsFlags::MS_NODEV;
    add(Step::Filesystem { kind: c"tmpfs", at: c("/dev/shm")?, options: c"mode=1777", flags: shared });
    for (to, at) in [
        ("/proc/self/fd", "/dev/fd"),
        ("/proc/self/fd/0", "/dev/stdin"),
        ("/proc/self/fd/1", "/dev/stdout"),
        ("/proc/self/fd/2", "/dev/stderr"),
        ("pts/ptmx", "/dev/ptmx"),
    ] {
        add(Step::Link { to: c(to)?, at: c(at)? });
    }
    Ok(())
}

/// The folders of the root folder that an isolated run is not shown.
fn not_shown() -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/")? {
        let entry = entry?;
        if entry.file_type()?.is_dir() && !SHOWN.iter().any(|shown| entry.file_name() == *shown) {
            found.push(entry.path());
        }
    }
    Ok(found)
}

fn is_below(folder: &Path, covered: &[PathBuf]) -> bool {
    covered.iter().any(|one| folder.starts_with(one))
}

/// Covers these folders, and puts back what was kept, below them on the way to it.
fn cover(steps: &mut Vec<(Part, Step)>, covered: &[PathBuf], back: Vec<(Part, Step)>) -> io::Result<()> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    for folder in covered {
        let (kind, options) = (c"tmpfs", c"mode=0755,size=256k");
        steps.push((Part::HiddenFolders, Step::Filesystem { kind, at: c(folder)?, options, flags }));
    }
    for (part, step) in back {
        if let Step::Put { at, .. } = &step {
            let folder = Path::new(OsStr::from_bytes(at.as_bytes()));
            let is_way = |one: &&Path| is_below(one, covered) && !covered.iter().any(|cover| cover == one);
            let mut way: Vec<&Path> = folder.ancestors().filter(is_way).collect();
            way.reverse();
            for one in way {
                steps.push((part, Step::Way(c(one)?)));
            }
        }
        steps.push((part, step));
    }
    for folder in covered {
        steps.push((Part::HiddenFolders, Step::ReadOnlyCover(c(folder)?)));
    }
    Ok(())
}

fn nothing_at(at: CString) -> Step {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC | MsFlags::MS_RDONLY;
    Step::Filesystem { kind: c"tmpfs", at, options: c"mode=0755,size=4k", flags }
}

impl Step {
    fn take(&self, copies: &mut [Option<OwnedFd>; COPIES]) -> nix::Result<()> {
        const NOTHING: Option<&CStr> = None;
        match self {
            Self::Private => mount(NOTHING, c"/", NOTHING, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NOTHING),
            Self::Keep { from, slot, kind } => {
                let copy = match kind {
                    Kept::Device => sys::copy_mounts(At::Path(from), false)?,
                    Kept::Folder | Kept::ReadFolder => {
                        let folder = open_folder(from)?;
                        let copy = sys::copy_mounts(At::File(folder.as_fd()), true)?;
                        let all = mount_attributes::NO_SUID | mount_attributes::NO_DEVICES;
                        let at = At::File(copy.as_fd());
                        if *kind == Kept::ReadFolder {
                            sys::set_mount_attributes(at, all | mount_attributes::READ_ONLY, 0, true)?;
                        } else {
                            sys::set_mount_attributes(at, all, 0, true)?;
                            sys::set_mount_attributes(at, 0, mount_attributes::READ_ONLY, false)?;
                        }
                        copy
                    }
                };
                copies[*slot] = Some(copy);
                Ok(())
            }
            Self::ReadOnlyHost => {
                let set = mount_attributes::READ_ONLY | mount_attributes::NO_SUID;
                sys::set_mount_attributes(At::Path(c"/"), set, 0, true)
            }
            Self::ReadOnly(at) => {
                let flags = MsFlags::MS_BIND | MsFlags::MS_REC;
                mount(Some(at.as_c_str()), at.as_c_str(), NOTHING, flags, NOTHING)?;
                sys::set_mount_attributes(At::Path(at), mount_attributes::READ_ONLY, 0, true)
            }
            Self::ReadOnlyCover(at) => {
                sys::set_mount_attributes(At::Path(at), mount_attributes::READ_ONLY, 0, false)
            }
            Self::Filesystem { kind, at, options, flags } => {
                mount(Some(*kind), at.as_c_str(), Some(*kind), *flags, Some(*options))
            }
            Self::Mask(at) => mount(Some(c"/dev/null"), at.as_c_str(), NOTHING, MsFlags::MS_BIND, NOTHING),
            Self::Folder(at) => mkdir(at.as_c_str(), Mode::from_bits_truncate(0o755)),
            Self::Way(at) => match mkdir(at.as_c_str(), Mode::from_bits_truncate(0o755)) {
                Err(Errno::EEXIST) => Ok(()),
                done => done,
            },
            Self::File(at) => {
                let flags = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_WRONLY | OFlag::O_CLOEXEC;
                open(at.as_c_str(), flags, Mode::from_bits_truncate(0o644)).map(drop)
            }
            Self::Link { to, at } => symlinkat(to.as_c_str(), AT_FDCWD, at.as_c_str()),
            Self::Put { slot, at, kind } => {
                let copy = copies[*slot].take().ok_or(Errno::EBADF)?;
                match kind {
                    Kept::Device => sys::attach_mounts(copy.as_fd(), At::Path(at)),
                    Kept::Folder | Kept::ReadFolder => {
                        let place = open_folder(at)?;
                        sys::attach_mounts(copy.as_fd(), At::File(place.as_fd()))
                    }
                }
            }
        }
    }
}

/// Opens a folder without following any link on the way.
///
/// # Errors
/// `ELOOP` when there is one.
pub(super) fn open_folder(path: &CStr) -> nix::Result<OwnedFd> {
    let how = OpenHow::new()
        .flags(OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_NO_SYMLINKS | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    openat2(AT_FDCWD, path, how)
}

/// Whether a path goes down from the root only: what goes up again is somewhere else than its letters say.
fn is_plain(path: &Path) -> bool {
    path.is_absolute()
        && path.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)))
}

fn is_folder(path: &Path) -> bool {
    std::fs::symlink_metadata(path).is_ok_and(|found| found.is_dir())
}

fn c(path: impl AsRef<Path>) -> io::Result<CString> {
    Ok(CString::new(path.as_ref().as_os_str().as_bytes())?)
}
