//! One Postgres for a test process, and a database of its own for each World; and [`Mortal`] ones, for tests that kill it.
//!
//! A cluster is private: a socket in the scene's folder, an unprivileged user, nothing flushed to the disk. Databases
//! are copies of one that the real `opsconductor-controller migrate` has brought up to date.

use std::{
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{
        LazyLock,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use nix::unistd::{Gid, Uid, User, chown};
use sqlx::{AssertSqlSafe, Connection, PgConnection};

use crate::{
    process::{Process, kill_tree},
    scene,
};

/// How long the server may take until it answers.
const READY_WITHIN: Duration = Duration::from_secs(60);
const TEMPLATE: &str = "migrated";
/// In a mortal one, what a commit wrote is with the kernel before it is answered; the shared one never dies.
const SETTINGS_OF_MORTALS: [&str; 2] = ["synchronous_commit=on", "full_page_writes=on"];
const SETTINGS: [&str; 8] = [
    "listen_addresses=",
    "fsync=off",
    "synchronous_commit=off",
    "full_page_writes=off",
    "max_connections=800",
    "shared_buffers=64MB",
    "dynamic_shared_memory_type=mmap",
    "max_wal_size=1GB",
];

static CLUSTER: LazyLock<Cluster> = LazyLock::new(|| {
    let cluster = Cluster::start("postgres", &[]);
    cluster.make_migrated(TEMPLATE);
    cluster
});

#[derive(Debug)]
struct Cluster {
    folder: PathBuf,
    log: PathBuf,
    more_settings: &'static [&'static str],
    server: Process,
}

/// A Postgres of a test's own, with one migrated database, that can be killed and started again.
#[derive(Debug)]
pub struct Mortal(Cluster);

impl Mortal {
    pub fn start() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let name = format!("mortal-{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let cluster = Cluster::start(&name, &SETTINGS_OF_MORTALS);
        cluster.make_migrated(TEMPLATE);
        Self(cluster)
    }

    /// The URL of its database.
    pub fn url(&self) -> String {
        self.0.url(TEMPLATE)
    }

    /// SIGKILL to all of its processes, and a new start.
    pub fn die_and_start(&mut self) {
        self.die();
        self.start_again();
    }

    /// SIGKILL to all of its processes.
    pub fn die(&mut self) {
        kill_tree(self.0.server.pid());
        self.0.server.kill();
    }

    pub fn start_again(&mut self) {
        self.0.serve();
        self.0.wait();
    }
}

/// The folder with Postgres' server programs.
pub(crate) fn programs() -> PathBuf {
    let from_environment = std::env::var_os("PG_BIN").map(PathBuf::from);
    let on_path = std::env::var_os("PATH");
    let on_path = on_path.iter().flat_map(std::env::split_paths);
    let mut versions: Vec<PathBuf> = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path().join("bin"))
        .collect();
    versions.sort();
    from_environment
        .into_iter()
        .chain(on_path)
        .chain(versions.into_iter().rev())
        .find(|folder| folder.join("initdb").exists() && folder.join("postgres").exists())
        .expect("no Postgres server programs: install Debian's package postgresql, or set PG_BIN")
}

/// Whom the server runs as: Postgres refuses to be root.
pub(crate) fn user() -> Option<(Uid, Gid)> {
    if !scene::is_root() {
        return None;
    }
    let user = ["postgres", "nobody"].iter().find_map(|name| User::from_name(name).ok().flatten());
    let user = user.expect("every system has the user nobody");
    Some((user.uid, user.gid))
}

pub(crate) fn command(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.env_clear().env("PATH", "/usr/bin:/bin").env("LC_ALL", "C").current_dir("/").process_group(0);
    if let Some((uid, gid)) = user() {
        command.uid(uid.as_raw()).gid(gid.as_raw());
    }
    command
}

impl Cluster {
    fn start(name: &str, more_settings: &'static [&'static str]) -> Self {
        let folder = scene::folder().join(name);
        std::fs::create_dir(&folder).expect("the scene's folder can be written");
        if let Some((uid, gid)) = user() {
            chown(&folder, Some(uid), Some(gid)).expect("root may give folders away");
        }
        let made = command(&programs().join("initdb"))
            .arg("-D")
            .arg(folder.join("data"))
            .args(["-U", "postgres", "--auth=trust", "--no-sync", "--locale=C", "--encoding=UTF8"])
            .stdin(Stdio::null())
            .output()
            .expect("initdb starts");
        assert!(made.status.success(), "initdb: {}", String::from_utf8_lossy(&made.stderr));
        let log = scene::folder().join(format!("{name}.log"));
        let server = serve(&folder, &log, more_settings);
        let mut cluster = Self { folder, log, more_settings, server };
        cluster.wait();
        cluster
    }

    fn serve(&mut self) {
        self.server = serve(&self.folder, &self.log, self.more_settings);
    }

    fn wait(&mut self) {
        let begun = Instant::now();
        while std::os::unix::net::UnixStream::connect(self.folder.join(".s.PGSQL.5432")).is_err()
            || !std::fs::read_to_string(self.folder.join("data/postmaster.pid"))
                .is_ok_and(|text| text.contains("ready"))
        {
            assert!(begun.elapsed() < READY_WITHIN, "not within {READY_WITHIN:?}: the start of Postgres");
            if self.server.ended().is_some() {
                // Something of a killed one was still there.
                self.serve();
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn make_migrated(&self, name: &str) {
        self.create(name, None);
        let migrated = Command::new(scene::binary("opsconductor-controller"))
            .arg("migrate")
            .env_clear()
            .env("OPSC_DATABASE__URL", self.url(name))
            .env("OPSCTL_CONFIG", empty_file())
            .output()
            .expect("the controller starts");
        assert!(migrated.status.success(), "migrate: {}", String::from_utf8_lossy(&migrated.stderr));
    }

    fn create(&self, name: &str, template: Option<&str>) {
        let template = template.map_or_else(String::new, |template| format!(" template {template}"));
        let (url, sql) = (self.url("postgres"), format!("create database {name}{template}"));
        // A thread with a runtime of its own: a test's is busy waiting for this.
        let made = std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime starts");
            runtime.block_on(async {
                let mut connection = PgConnection::connect(&url).await?;
                sqlx::query(AssertSqlSafe(sql)).execute(&mut connection).await?;
                connection.close().await
            })
        });
        made.join().expect("it does not panic").expect("a superuser may make databases");
    }

    fn url(&self, database: &str) -> String {
        format!("postgres:///{database}?host={}&port=5432&user=postgres", self.folder.display())
    }
}

fn serve(folder: &Path, log: &Path, more_settings: &[&str]) -> Process {
    let mut server = command(&programs().join("postgres"));
    let settings = SETTINGS.iter().chain(more_settings).flat_map(|setting| ["-c", setting]);
    server.arg("-D").arg(folder.join("data")).arg("-k").arg(folder).args(settings);
    Process::spawn(&mut server, log.to_owned())
}

/// A configuration file that says nothing, so that none of the machine's own is read.
pub fn empty_file() -> PathBuf {
    let path = scene::folder().join("empty.toml");
    std::fs::write(&path, "").expect("the scene's folder can be written");
    path
}

/// The URL of a new database with the newest schema and nothing in it.
pub fn migrated_database() -> String {
    new_database(Some(TEMPLATE))
}

/// The URL of a new database without any schema.
pub fn empty_database() -> String {
    new_database(None)
}

/// The URL of a new database that is a copy of the one at `url`, to which nobody must be connected.
pub fn copied_database(url: &str) -> String {
    let name = url.strip_prefix("postgres:///").and_then(|rest| rest.split_once('?'));
    new_database(Some(name.expect("it is a URL of ours").0))
}

fn new_database(template: Option<&str>) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    let name = format!("world{}", NEXT.fetch_add(1, Ordering::Relaxed));
    CLUSTER.create(&name, template);
    CLUSTER.url(&name)
}
