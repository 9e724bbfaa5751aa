//! What a run is confined by.
//!
//! 1. All is decided and looked up before the fork; what the child applies, in [`confine`], are plain lists of steps, and
//!    it allocates nothing.
//! 2. A profile gives what it promises, or nothing starts: each step that fails names the [`Part`] that is missing.
//! 3. What a run may write, and where it begins, is opened without following any symbolic link: a folder that is swapped
//!    for a link after it was looked at is refused.

pub(crate) mod canary;
pub mod cgroup;
pub(crate) mod confine;
mod landlock;
mod leftovers;
pub(crate) mod seccomp;
pub mod strays;
pub mod temporary;
pub(crate) mod user;
mod view;

/// What a sandbox is made of, as failures name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Part {
    Namespaces,
    UserNamespace,
    OwnMounts,
    ReadOnlyHost,
    Processes,
    Devices,
    HiddenFolders,
    TemporaryFolder,
    WritableFolders,
    Loopback,
    ControlGroup,
    ResourceLimits,
    OomScore,
    Capabilities,
    NoNewPrivileges,
    Landlock,
    Seccomp,
}

impl Part {
    const ALL: [(Self, &'static str); 17] = [
        (Self::Namespaces, "namespaces"),
        (Self::UserNamespace, "user namespace"),
        (Self::OwnMounts, "mounts of its own"),
        (Self::ReadOnlyHost, "read-only host"),
        (Self::Processes, "/proc of its own"),
        (Self::Devices, "/dev of its own"),
        (Self::HiddenFolders, "hidden folders"),
        (Self::TemporaryFolder, "temporary folder of its own"),
        (Self::WritableFolders, "writable folders"),
        (Self::Loopback, "loopback interface"),
        (Self::ControlGroup, "control group"),
        (Self::ResourceLimits, "resource limits"),
        (Self::OomScore, "oom score"),
        (Self::Capabilities, "dropped capabilities"),
        (Self::NoNewPrivileges, "no_new_privs"),
        (Self::Landlock, "Landlock"),
        (Self::Seccomp, "seccomp"),
    ];

    /// What people call it.
    pub(crate) fn name(number: u8) -> &'static str {
        Self::ALL
            .iter()
            .find(|(part, _)| *part as u8 == number)
            .map_or("a part of the sandbox", |(_, name)| name)
    }
}

/// A step that failed, and the system's error.
pub(crate) type Missing = (Part, nix::errno::Errno);
