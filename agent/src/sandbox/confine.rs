//! A profile as a list of steps: made before the fork, taken by the child.
//!
//! A run with namespaces has two processes before it is a program. The first is the init of its process namespace: it
//! makes the run's view of the files, starts the second, and takes in whatever ends; when it ends itself the kernel kills
//! all that is left. The second gives up its user, its capabilities and its system calls, and becomes the program.

use std::{
    ffi::{CStr, CString},
    io::{self, Write as _},
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
};

use model::sandbox::Profile;
use nix::{
    errno::Errno,
    fcntl::{OFlag, open},
    sys::{
        prctl,
        resource::{Resource, rlim_t, setrlimit},
        stat::Mode,
    },
    unistd::{self, Gid, Pid, Uid},
};

use super::{
    Missing, Part,
    landlock::Ruleset,
    seccomp,
    view::{self, View},
};
use crate::sys::{self, Filter, namespaces};

/// By how much a run is likelier to be killed than the agent when the host has no memory left.
const OOM_SCORE: i32 = 300;
const OOM_SCORE_MAX: i32 = 1000;

/// What to confine, and how far.
#[derive(Debug)]
pub(crate) struct Wanted<'a> {
    pub(crate) profile: Profile,
    /// The shim is root, and the run is this user.
    pub(crate) root_to: Option<(Uid, Gid)>,
    pub(crate) temporary: Option<&'a Path>,
    pub(crate) readable: Vec<PathBuf>,
    /// The working folder is one of them.
    pub(crate) writable: Vec<PathBuf>,
    /// Nothing in these is to be seen.
    pub(crate) hidden: Vec<PathBuf>,
    pub(crate) loopback: bool,
    pub(crate) resources: Vec<(Resource, rlim_t)>,
}

/// All that a child does to confine itself.
#[derive(Debug)]
pub(crate) struct Confinement {
    profile: Profile,
    /// The shim is root, and so may take from its children what it has itself.
    by_root: bool,
    /// Namespaces that the init is born into; none: there is no init.
    pub(crate) namespaces: u64,
    /// The init maps its own user into its namespace of users.
    own_user: Option<UserMap>,
    /// The program is born into a namespace of users of its own, and the init maps this one.
    pub(crate) program_user: Option<UserMap>,
    loopback: bool,
    view: Option<View>,
    resources: Vec<(Resource, rlim_t)>,
    oom_score: Vec<u8>,
    landlock: Option<Ruleset>,
    /// In the order in which they are obeyed.
    filters: Vec<Filter>,
}

/// One user and one group that are themselves inside, and nobody else.
#[derive(Debug)]
pub(crate) struct UserMap {
    users: Vec<u8>,
    groups: Vec<u8>,
}

impl UserMap {
    fn new(uid: Uid, gid: Gid) -> Self {
        let line = |number: u32| format!("{number} {number} 1\n").into_bytes();
        Self { users: line(uid.as_raw()), groups: line(gid.as_raw()) }
    }

    fn write(&self, users: &CStr, groups: &CStr, set_groups: &CStr) -> nix::Result<()> {
        write_file(set_groups, b"deny")?;
        write_file(groups, &self.groups)?;
        write_file(users, &self.users)
    }

    /// Maps them for this process.
    fn write_own(&self) -> nix::Result<()> {
        self.write(c"/proc/self/uid_map", c"/proc/self/gid_map", c"/proc/self/setgroups")
    }

    /// Maps them for a child of this process. Allocates nothing.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub(crate) fn write_of(&self, pid: Pid) -> Result<(), Missing> {
        let written = (|| {
            let (mut users, mut groups, mut set_groups) = ([0; 64], [0; 64], [0; 64]);
            self.write(
                proc_path(&mut users, pid, "uid_map")?,
                proc_path(&mut groups, pid, "gid_map")?,
                proc_path(&mut set_groups, pid, "setgroups")?,
            )
        })();
        written.map_err(|errno| (Part::UserNamespace, errno))
    }
}

impl Confinement {
    /// Makes the list.
    ///
    /// # Errors
    /// What is missing on this host.
    pub(crate) fn new(wanted: &Wanted<'_>) -> Result<Self, String> {
        let profile = wanted.profile;
        let missing = |(part, errno): Missing| format!("{}: {}", Part::name(part as u8), errno.desc());
        let io_missing = |part: Part| move |error: io::Error| format!("{}: {error}", Part::name(part as u8));
        let mut confinement = Self {
            profile,
            by_root: wanted.root_to.is_some(),
            namespaces: 0,
            own_user: None,
            program_user: None,
            loopback: wanted.loopback,
            view: None,
            resources: wanted.resources.clone(),
            oom_score: oom_score(),
            landlock: None,
            filters: Vec::new(),
        };
        if profile < Profile::Strict {
            return Ok(confinement);
        }
        let temporary = wanted.temporary.ok_or("temporary folder of its own: there is none")?;
        confinement.namespaces =
            namespaces::MOUNT | namespaces::PID | namespaces::IPC | namespaces::UTS | namespaces::CGROUP;
        if wanted.root_to.is_none() {
            confinement.namespaces |= namespaces::USER;
            confinement.own_user = Some(UserMap::new(Uid::effective(), Gid::effective()));
        }
        let isolated = profile == Profile::Isolated;
        if isolated {
            confinement.namespaces |= namespaces::NETWORK;
            confinement.program_user = wanted.root_to.map(|(uid, gid)| UserMap::new(uid, gid));
        }
        confinement.view = Some(
            View::new(temporary, &wanted.writable, &wanted.hidden, isolated.then_some(&wanted.readable))
                .map_err(io_missing(Part::WritableFolders))?,
        );
        let paths = |paths: &[PathBuf]| {
            paths.iter().map(|path| CString::new(path.as_os_str().as_bytes())).collect::<Result<Vec<_>, _>>()
        };
        let nul = |_| "a folder has a NUL character in its name".to_owned();
        let mut writable = paths(&wanted.writable).map_err(nul)?;
        writable.extend(
            [c"/tmp", c"/var/tmp"]
                .map(CString::from)
                .into_iter()
                .filter(|folder| folder.to_str().is_ok_and(|folder| Path::new(folder).is_dir())),
        );
        let readable = paths(&wanted.readable).map_err(nul)?;
        let read = isolated.then_some((&readable[..], wanted.loopback));
        confinement.landlock = Some(Ruleset::new(&writable, read).map_err(missing)?);
        let filter =
            |made: Result<Filter, seccompiler::Error>| made.map_err(|error| format!("seccomp: {error}"));
        if isolated {
            confinement.filters.push(filter(seccomp::allowing())?);
        }
        // The one that was obeyed last says which error a call fails with that several forbid.
        confinement.filters.push(filter(seccomp::without_clone3())?);
        confinement.filters.push(filter(seccomp::forbidding())?);
        Ok(confinement)
    }

    /// What the init does before it starts the second process.
    pub(crate) fn enter_namespaces(&self) -> Result<(), Missing> {
        if let Some(map) = &self.own_user {
            with_own_files(|| map.write_own()).map_err(|errno| (Part::UserNamespace, errno))?;
        }
        if self.loopback {
            sys::raise_loopback().map_err(|errno| (Part::Loopback, errno))?;
        }
        self.view.as_ref().map_or(Ok(()), View::enter)
    }

    /// Limits, before the user changes.
    pub(crate) fn limit(&self) -> Result<(), Missing> {
        for (resource, most) in &self.resources {
            setrlimit(*resource, *most, *most).map_err(|errno| (Part::ResourceLimits, errno))?;
        }
        if self.profile >= Profile::Standard {
            let written = with_own_files(|| write_file(c"/proc/self/oom_score_adj", &self.oom_score));
            written.map_err(|errno| (Part::OomScore, errno))?;
        }
        Ok(())
    }

    /// No program that is started from here has a capability, before the user changes.
    pub(crate) fn bound_capabilities(&self) -> Result<(), Missing> {
        if self.profile < Profile::Standard {
            return Ok(());
        }
        match sys::drop_bounding_set() {
            // Who has no capabilities cannot empty the set, and `no_new_privs` lets nobody gain one from it.
            Err(Errno::EPERM) if !self.by_root => Ok(()),
            done => done.map_err(|errno| (Part::Capabilities, errno)),
        }
    }

    /// The last steps, as the run's user and in its working folder.
    pub(crate) fn give_up(&self) -> Result<(), Missing> {
        if self.profile < Profile::Standard {
            return Ok(());
        }
        sys::drop_capabilities().map_err(|errno| (Part::Capabilities, errno))?;
        prctl::set_no_new_privs().map_err(|errno| (Part::NoNewPrivileges, errno))?;
        if let Some(landlock) = &self.landlock {
            landlock.obey().map_err(|errno| (Part::Landlock, errno))?;
        }
        for filter in &self.filters {
            sys::obey_filter(filter).map_err(|errno| (Part::Seccomp, errno))?;
        }
        Ok(())
    }
}

/// Does something with this process's files in `/proc`. Those of one that cannot be dumped are root's: an agent that is
/// not root opens itself for that moment, to its own user, whom all its runs are anyway.
fn with_own_files(work: impl FnOnce() -> nix::Result<()>) -> nix::Result<()> {
    if Uid::effective().is_root() {
        return work();
    }
    prctl::set_dumpable(true)?;
    let done = work();
    prctl::set_dumpable(false)?;
    done
}

/// Enters a folder without following any link. Allocates nothing.
///
/// # Errors
/// `ELOOP` when there is one.
pub(crate) fn enter_folder(path: &CStr) -> nix::Result<()> {
    // A descriptor that is only a path may be entered.
    unistd::fchdir(view::open_folder(path)?)
}

/// The agent's own score and more.
fn oom_score() -> Vec<u8> {
    let own =
        std::fs::read_to_string("/proc/self/oom_score_adj").ok().and_then(|own| own.trim().parse().ok());
    own.unwrap_or(0_i32).saturating_add(OOM_SCORE).min(OOM_SCORE_MAX).to_string().into_bytes()
}

fn write_file(path: &CStr, content: &[u8]) -> nix::Result<()> {
    let file = open(path, OFlag::O_WRONLY | OFlag::O_CLOEXEC, Mode::empty())?;
    unistd::write(&file, content).map(drop)
}

/// `/proc/PID/NAME`, in a buffer.
fn proc_path<'a>(buffer: &'a mut [u8; 64], pid: Pid, name: &str) -> nix::Result<&'a CStr> {
    let mut rest = &mut buffer[..63];
    write!(rest, "/proc/{pid}/{name}").map_err(|_| Errno::ENAMETOOLONG)?;
    CStr::from_bytes_until_nul(buffer).map_err(|_| Errno::ENAMETOOLONG)
}
