//! Landlock: which folders a run may write, and in `isolated` read, whoever owns them; and that it opens no TCP
//! connection and reaches no process outside.
//!
//! Rights are those of the kernel's `landlock.h`. Those that a kernel does not know are not asked of it: what came later
//! only splits finer what was forbidden, or allowed, before.

use std::ffi::CString;

use super::{Missing, Part, view::open_folder};
use crate::sys::{self, Handled};

const EXECUTE: u64 = 1;
const READ_FILE: u64 = 1 << 2;
const READ_FOLDER: u64 = 1 << 3;
const READ: u64 = EXECUTE | READ_FILE | READ_FOLDER;
/// Write, remove and make files of all kinds.
const WRITE: u64 = 0b1_1111_1111_0010;
const REFER: u64 = 1 << 13;
const TRUNCATE: u64 = 1 << 14;
const DEVICE_CONTROL: u64 = 1 << 15;
const BIND_AND_CONNECT: u64 = 0b11;
const SOCKETS_AND_SIGNALS: u64 = 0b11;

/// The oldest version of which an `isolated` sandbox can be made: scopes came with it.
pub(super) const ISOLATED_VERSION: u32 = 6;

/// Folders of the system, which an `isolated` run may read as its user may.
const SYSTEM: [&str; 12] = [
    "/bin",
    "/dev",
    "/etc",
    "/lib",
    "/lib32",
    "/lib64",
    "/nix/store",
    "/opt",
    "/proc",
    "/sbin",
    "/sys",
    "/usr",
];
/// Where every run may write as its user may: devices and processes are its own there.
const WRITABLE: [&str; 2] = ["/dev", "/proc"];

/// A ruleset, as a list of what to do.
#[derive(Debug)]
pub(super) struct Ruleset {
    handled: Handled,
    rules: Vec<(CString, u64)>,
}

impl Ruleset {
    /// The rules for a run that may write in `writable`, and, when it is to be isolated, read nothing but these, `readable`
    /// and the system.
    ///
    /// # Errors
    /// When the kernel has no Landlock, or too old a one.
    pub(super) fn new(writable: &[CString], isolated: Option<(&[CString], bool)>) -> Result<Self, Missing> {
        let version = sys::landlock_version().map_err(|errno| (Part::Landlock, errno))?;
        let mut write = WRITE;
        for (since, right) in [(2, REFER), (3, TRUNCATE), (5, DEVICE_CONTROL)] {
            if version >= since {
                write |= right;
            }
        }
        let mut handled = Handled { files: write, ..Handled::default() };
        let mut rules = Vec::new();
        if let Some((readable, loopback)) = isolated {
            if version < ISOLATED_VERSION {
                return Err((Part::Landlock, nix::errno::Errno::EOPNOTSUPP));
            }
            handled.files |= READ;
            handled.scopes = SOCKETS_AND_SIGNALS;
            if !loopback {
                handled.network = BIND_AND_CONNECT;
            }
            // Some are links to others.
            let system = SYSTEM.iter().filter_map(|folder| std::fs::canonicalize(folder).ok());
            let system = system.filter(|folder| folder.is_dir());
            rules.extend(system.filter_map(|folder| {
                Some((CString::new(folder.into_os_string().into_encoded_bytes()).ok()?, READ))
            }));
            rules.extend(readable.iter().map(|folder| (folder.clone(), READ)));
        }
        let own = WRITABLE.iter().filter_map(|folder| CString::new(*folder).ok());
        let all = write | (handled.files & READ);
        rules.extend(own.chain(writable.iter().cloned()).map(|folder| (folder, all)));
        Ok(Self { handled, rules })
    }

    /// The calling thread obeys the rules from now on. No link on the way to a folder is followed. Allocates nothing.
    ///
    /// # Errors
    /// When the kernel refuses, or a folder is gone.
    pub(super) fn obey(&self) -> nix::Result<()> {
        let ruleset = sys::landlock_ruleset(&self.handled)?;
        for (folder, rights) in &self.rules {
            let at = open_folder(folder)?;
            sys::landlock_allow(&ruleset, &at, *rights)?;
        }
        sys::landlock_obey(&ruleset)
    }
}
