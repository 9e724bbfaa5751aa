//! The folder of the embedded Postgres: who owns it, how it is made, how its server is run and recognised.
//!
//! `<data>/postgres/` holds `data/` (the cluster), `run/` (the socket), `pg_hba.conf` and `pg_ident.conf` (who may
//! connect) and `start.log` (what the server says until it logs by itself, to `data/log/`). Only `data/` and `run/` belong
//! to the server's user: a root controller writes nothing into a folder where another user could have put a link.
//!
//! The server's user may be unable to walk to this folder: a root controller may keep its data under `/root`. And a
//! socket's path has a limit of 107 bytes. Both are met by an open handle of the folder, which the server inherits and
//! reaches as `/proc/self/fd/N`.

use std::{
    fs::{self, File},
    io,
    os::{
        fd::AsRawFd as _,
        unix::{
            fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, chown},
            process::CommandExt as _,
        },
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use nix::{
    fcntl::{FcntlArg, FdFlag, fcntl},
    sys::signal::Signal,
    unistd::{Gid, Pid, Uid, User},
};
use sqlx::postgres::{PgConnectOptions, PgSslMode};

use super::{PostgresError, binaries::Binaries, file};

/// The one database, and the role that owns it.
pub(super) const DATABASE: &str = "opsconductor";
const ROLE: &str = "opsconductor";
/// The system's user for Postgres, and the one without rights for machines that have none.
const SERVER_USER: &str = "postgres";
const NOBODY: u32 = 65534;
/// Names the socket's file; nothing listens on it.
const PORT: u16 = 5432;
/// Longest path that a unix socket can have.
const SOCKET_PATH_BYTES: usize = 107;
/// How much of what a server said before it ended is repeated.
const LAST_WORDS_BYTES: usize = 2000;

/// Settings beyond the defaults. They stand in the command, so that they are always this program's.
const SETTINGS: [&str; 18] = [
    "listen_addresses=",
    "unix_socket_permissions=0700",
    "max_connections=100",
    "shared_buffers=128MB",
    "max_wal_size=1GB",
    "wal_compression=on",
    "synchronous_commit=on",
    "checkpoint_timeout=15min",
    "jit=off",
    "timezone=UTC",
    "log_timezone=UTC",
    "log_min_messages=warning",
    "log_line_prefix=%m [%p] %u ",
    "logging_collector=on",
    // A file for each day of the week.
    "log_filename=postgres-%a.log",
    "log_truncate_on_rotation=on",
    "log_rotation_age=1d",
    "log_rotation_size=0",
];

/// Who the server runs as.
#[derive(Debug, Clone)]
struct Owner {
    uid: Uid,
    gid: Gid,
    name: String,
}

impl Owner {
    fn of(uid: Uid) -> Result<Self, PostgresError> {
        match User::from_uid(uid) {
            Ok(Some(user)) => Ok(Self { uid, gid: user.gid, name: user.name }),
            Ok(None) | Err(_) => Err(PostgresError::Nameless(uid.as_raw())),
        }
    }

    /// The owner of what is there, else for root the system's user for it, else whoever runs this program.
    fn choose(folder: &Path, me: &Self) -> Result<Self, PostgresError> {
        let there = fs::metadata(folder.join("data")).ok().map(|data| Uid::from_raw(data.uid()));
        match there {
            Some(uid) if uid == me.uid && !uid.is_root() => Ok(me.clone()),
            Some(uid) if me.uid.is_root() && !uid.is_root() => Self::of(uid),
            Some(uid) => {
                let owner = Self::of(uid).map_or_else(|_| uid.to_string(), |owner| owner.name);
                Err(PostgresError::Foreign { folder: folder.to_owned(), owner, me: me.name.clone() })
            }
            None if me.uid.is_root() => match User::from_name(SERVER_USER) {
                Ok(Some(user)) => Self::of(user.uid),
                Ok(None) | Err(_) => Self::of(Uid::from_raw(NOBODY)),
            },
            None => Ok(me.clone()),
        }
    }
}

#[derive(Debug)]
pub(super) struct Cluster {
    folder: PathBuf,
    /// Open as long as a server may be started: its number is the server's way to the folder.
    handle: File,
    me: Owner,
    owner: Owner,
    binaries: Binaries,
}

fn make_folder(path: &Path) -> Result<(), PostgresError> {
    match fs::DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(file("make", path)(error)),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// The major version that made the cluster in `folder`; `None` when there is none yet.
pub(super) fn version_of(folder: &Path) -> Result<Option<u32>, PostgresError> {
    let path = folder.join("data/PG_VERSION");
    match fs::read_to_string(&path) {
        Ok(text) => Ok(text.trim().parse().ok()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(file("read", &path)(error)),
    }
}

impl Cluster {
    /// Opens the folders, which are made if they are missing.
    pub(super) fn open(folder: PathBuf, binaries: Binaries) -> Result<Self, PostgresError> {
        let me = Owner::of(Uid::effective())?;
        let owner = Owner::choose(&folder, &me)?;
        make_folder(&folder)?;
        // Another user than the controller's must be able to pass through.
        let mode = if me.uid == owner.uid { 0o700 } else { 0o711 };
        fs::set_permissions(&folder, fs::Permissions::from_mode(mode)).map_err(file("open up", &folder))?;
        let handle = File::open(&folder).map_err(file("open", &folder))?;
        let cluster = Self { folder, handle, me, owner, binaries };
        cluster.make_for_server(&cluster.folder.join("run"))?;
        Ok(cluster)
    }

    /// Makes a folder of the server's user.
    fn make_for_server(&self, path: &Path) -> Result<(), PostgresError> {
        make_folder(path)?;
        if self.me.uid.is_root() {
            chown(path, Some(self.owner.uid.as_raw()), Some(self.owner.gid.as_raw()))
                .map_err(file("give away", path))?;
        }
        Ok(())
    }

    /// Makes the cluster unless it is there, and writes who may connect.
    pub(super) fn initialise(&self) -> Result<(), PostgresError> {
        let data = self.data();
        if !data.join("PG_VERSION").exists() {
            // Under another name until it is whole.
            let unfinished = self.folder.join("data.new");
            match fs::remove_dir_all(&unfinished) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(file("remove", &unfinished)(error));
                }
                Ok(()) | Err(_) => {}
            }
            self.make_for_server(&unfinished)?;
            let program = self.binaries.program("initdb");
            let mut command = self.command(&program);
            command
                .arg("-D")
                .arg(self.as_server_sees("data.new"))
                .args([
                    "--username",
                    ROLE,
                    "--auth=peer",
                    "--no-locale",
                    "--encoding=UTF8",
                    "--no-instructions",
                ])
                .stdin(Stdio::null());
            self.let_inherit(&mut command, None);
            let output = command.output().map_err(|source| PostgresError::Run { program, source })?;
            if !output.status.success() {
                return Err(PostgresError::Initdb(last_words(&output.stderr)));
            }
            fs::rename(&unfinished, &data).map_err(file("name", &data))?;
        }
        self.write("pg_hba.conf", &format!("local all all peer map={ROLE}\n"))?;
        let mut map = format!("{ROLE} {} {ROLE}\n", self.owner.name);
        if self.me.uid != self.owner.uid {
            map.push_str(&format!("{ROLE} {} {ROLE}\n", self.me.name));
        }
        self.write("pg_ident.conf", &map)
    }

    /// Writes a file that the server reads.
    fn write(&self, name: &str, text: &str) -> Result<(), PostgresError> {
        let path = self.folder.join(name);
        fs::write(&path, text)
            .and_then(|()| fs::set_permissions(&path, fs::Permissions::from_mode(0o644)))
            .map_err(file("write", &path))
    }

    fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// The path by which the server reaches `name` in its folder.
    fn as_server_sees(&self, name: &str) -> PathBuf {
        if self.is_reachable() && self.is_short() {
            self.folder.join(name)
        } else {
            self.by_handle().join(name)
        }
    }

    fn by_handle(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.handle.as_raw_fd()))
    }

    fn is_short(&self) -> bool {
        self.folder.as_os_str().len() + "/run/.s.PGSQL.".len() + PORT.to_string().len() <= SOCKET_PATH_BYTES
    }

    /// Whether the server's user may walk to what is in the folder. Access lists are not looked at: they only ever widen it.
    fn is_reachable(&self) -> bool {
        self.owner.uid == self.me.uid
            || self.folder.ancestors().skip(1).all(|parent| {
                fs::metadata(parent).is_ok_and(|metadata| {
                    let bit = if metadata.uid() == self.owner.uid.as_raw() {
                        0o100
                    } else if metadata.gid() == self.owner.gid.as_raw() {
                        0o010
                    } else {
                        0o001
                    };
                    metadata.permissions().mode() & bit != 0
                })
            })
    }

    /// How the controller connects.
    pub(super) fn connect_options(&self) -> PgConnectOptions {
        let folder = if self.is_short() { self.folder.clone() } else { self.by_handle() }.join("run");
        PgConnectOptions::new_without_pgpass()
            .socket(folder)
            .port(PORT)
            .username(ROLE)
            .database(DATABASE)
            .ssl_mode(PgSslMode::Disable)
            .application_name("opsconductor-controller")
    }

    /// The command that runs the server in the foreground. With `ends_with_caller` the kernel tells it to shut down when
    /// the thread that started it is gone.
    pub(super) fn server(&self, ends_with_caller: bool) -> Result<Command, PostgresError> {
        let log = self.folder.join("start.log");
        let output = File::options()
            .create(true)
            .write(true)
            .truncate(true)
            .mode(0o600)
            .open(&log)
            .map_err(file("write", &log))?;
        let mut command = self.command(&self.binaries.program("postgres"));
        command.arg("-D").arg(self.as_server_sees("data")).arg("-k").arg(self.as_server_sees("run"));
        command.args(["-p", &PORT.to_string()]).args(SETTINGS.iter().flat_map(|setting| ["-c", setting]));
        for (setting, name) in [("hba_file", "pg_hba.conf"), ("ident_file", "pg_ident.conf")] {
            command.arg("-c").arg(format!("{setting}={}", self.as_server_sees(name).display()));
        }
        command.stdin(Stdio::null()).stdout(output.try_clone().map_err(file("write", &log))?).stderr(output);
        self.let_inherit(&mut command, ends_with_caller.then_some(Signal::SIGINT));
        Ok(command)
    }

    /// A program of the server's user, with nothing of the controller's environment, outside of its process group:
    /// a Ctrl-C in the terminal is for the controller, which stops the server last.
    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command
            .current_dir("/")
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .env("LC_ALL", "C")
            .process_group(0);
        if let Some(libraries) = std::env::var_os("LD_LIBRARY_PATH") {
            command.env("LD_LIBRARY_PATH", libraries);
        }
        if self.me.uid.is_root() {
            command.uid(self.owner.uid.as_raw()).gid(self.owner.gid.as_raw());
        }
        command
    }

    /// Hands the folder's handle to the command, and has the kernel send it `signal` when its starter is gone.
    #[allow(unsafe_code, reason = "what happens between fork and exec can be said in no other way")]
    fn let_inherit(&self, command: &mut Command, signal: Option<Signal>) {
        let handle = self.handle.as_raw_fd();
        let prepare = move || {
            // SAFETY: the descriptor is open: `self.handle` outlives the spawn, and the child has a copy of it.
            let handle = unsafe { std::os::fd::BorrowedFd::borrow_raw(handle) };
            fcntl(handle, FcntlArg::F_SETFD(FdFlag::empty()))?;
            if let Some(signal) = signal {
                nix::sys::prctl::set_pdeathsig(signal)?;
            }
            Ok(())
        };
        // SAFETY: `prepare` calls fcntl and prctl, which are allowed between fork and exec, and touches no memory but
        // its own.
        unsafe { command.pre_exec(prepare) };
    }

    /// The running server of this folder, if there is one.
    pub(super) fn postmaster(&self) -> Result<Option<Pid>, PostgresError> {
        let path = self.data().join("postmaster.pid");
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(file("read", &path)(error)),
        };
        let pid = text.lines().next().and_then(|line| line.trim().parse::<i32>().ok()).filter(|pid| *pid > 1);
        let Some(pid) = pid.map(Pid::from_raw) else { return Ok(None) };
        if self.is_postmaster(pid) {
            return Ok(Some(pid));
        }
        if Path::new("/proc").join(pid.to_string()).exists() {
            // Another program has its number by now, and the server would take that for a reason not to start.
            tracing::warn!(
                postgres.pid = pid.as_raw(),
                "removing the pid file of a Postgres server that is gone"
            );
            fs::remove_file(&path).map_err(file("remove", &path))?;
        }
        Ok(None)
    }

    /// Whether that process is the server of this folder: by its program and by the folder it works in, or, where the
    /// kernel hides that folder, by its user.
    pub(super) fn is_postmaster(&self, pid: Pid) -> bool {
        let process = Path::new("/proc").join(pid.to_string());
        let Ok(arguments) = fs::read(process.join("cmdline")) else { return false };
        let program = arguments.split(|byte| *byte == 0).next().unwrap_or_default();
        if !program.ends_with(b"/postgres") {
            return false;
        }
        match (fs::metadata(process.join("cwd")), fs::metadata(self.data())) {
            (Ok(there), Ok(ours)) => (there.dev(), there.ino()) == (ours.dev(), ours.ino()),
            (Err(error), Ok(_)) if error.kind() == io::ErrorKind::PermissionDenied => {
                fs::metadata(&process).is_ok_and(|metadata| metadata.uid() == self.owner.uid.as_raw())
            }
            _ => false,
        }
    }

    /// What the last server said before it logged by itself.
    pub(super) fn last_words(&self) -> String {
        last_words(&fs::read(self.folder.join("start.log")).unwrap_or_default())
    }
}

fn last_words(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(&text[text.len().saturating_sub(LAST_WORDS_BYTES)..]);
    text.trim().lines().map(str::trim).collect::<Vec<_>>().join("; ")
}
