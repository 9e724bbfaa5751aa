//! A Postgres of the chaos' own, that can be killed and started again.
//!
//! Nothing is flushed to the disk, because the machine stays up; but every commit is written before it is answered, and
//! pages are written whole, because the processes do not.

use std::{
    path::PathBuf,
    process::Command,
    process::Stdio,
    time::{Duration, Instant},
};

use nix::{sys::signal::Signal, unistd::chown};
use sqlx::{AssertSqlSafe, Connection, PgConnection};

use crate::{
    postgres,
    process::{self, Process},
    scene,
};

const READY_WITHIN: Duration = Duration::from_secs(60);
const NAME: &str = "chaos";
const SETTINGS: [&str; 7] = [
    "listen_addresses=",
    "fsync=off",
    "synchronous_commit=on",
    "max_connections=200",
    "shared_buffers=64MB",
    "dynamic_shared_memory_type=mmap",
    "max_wal_size=1GB",
];

/// The server.
#[derive(Debug)]
pub struct Database {
    folder: PathBuf,
    server: Process,
}

impl Database {
    /// A new cluster with the migrated database in it.
    ///
    /// # Panics
    /// When it cannot be made.
    pub async fn start() -> Self {
        let folder = scene::new_folder("database");
        if let Some((uid, gid)) = postgres::user() {
            chown(&folder, Some(uid), Some(gid)).expect("root may give folders away");
        }
        let made = postgres::command(&postgres::programs().join("initdb"))
            .arg("-D")
            .arg(folder.join("data"))
            .args(["-U", "postgres", "--auth=trust", "--no-sync", "--locale=C", "--encoding=UTF8"])
            .stdin(Stdio::null())
            .output()
            .expect("initdb starts");
        assert!(made.status.success(), "initdb: {}", String::from_utf8_lossy(&made.stderr));
        let server = spawn(&folder);
        let database = Self { folder, server };
        assert!(database.is_ready(READY_WITHIN).await, "Postgres is not ready");
        let mut admin = PgConnection::connect(&database.url_of("postgres")).await.expect("it is ready");
        sqlx::query(AssertSqlSafe(format!("create database {NAME}")))
            .execute(&mut admin)
            .await
            .expect("a superuser may make databases");
        let migrated = Command::new(scene::binary("opsconductor-controller"))
            .arg("migrate")
            .env_clear()
            .env("OPSC_DATABASE__URL", database.url())
            .env("OPSCTL_CONFIG", postgres::empty_file())
            .output()
            .expect("the controller starts");
        assert!(migrated.status.success(), "migrate: {}", String::from_utf8_lossy(&migrated.stderr));
        database
    }

    fn url_of(&self, name: &str) -> String {
        format!("postgres:///{name}?host={}&port=5432&user=postgres", self.folder.display())
    }

    pub fn url(&self) -> String {
        self.url_of(NAME)
    }

    /// SIGKILL for all of its processes; says which was the first.
    pub fn kill(&mut self) -> u32 {
        let pid = self.server.pid();
        // It must not see its children die before it does.
        process::signal(pid, Signal::SIGSTOP);
        process::kill_tree(pid);
        self.server.kill();
        pid
    }

    /// Starts the server that was killed, and waits until it answers.
    ///
    /// # Panics
    /// When it does not.
    pub async fn start_again(&mut self) {
        let begun = Instant::now();
        loop {
            self.server = spawn(&self.folder);
            // The kernel may still have processes of before on its hands; then it ends at once.
            if self.is_ready(Duration::from_secs(20)).await {
                return;
            }
            assert!(begun.elapsed() < READY_WITHIN, "Postgres does not come back");
        }
    }

    /// A process that serves somebody, if there is one.
    pub fn backend(&self) -> Option<u32> {
        let children = format!("/proc/{0}/task/{0}/children", self.server.pid());
        let children = std::fs::read_to_string(children).unwrap_or_default();
        children.split_whitespace().filter_map(|pid| pid.parse().ok()).find(|pid| {
            std::fs::read_to_string(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.contains(NAME))
        })
    }

    /// Waits until it answers; false when it does not.
    pub async fn is_ready(&self, within: Duration) -> bool {
        let begun = Instant::now();
        while begun.elapsed() < within {
            if !process::is_alive(self.server.pid()) {
                tokio::time::sleep(Duration::from_millis(100)).await;
                return false;
            }
            if let Ok(connection) = PgConnection::connect(&self.url_of("postgres")).await {
                let _ = connection.close().await;
                return true;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        false
    }
}

fn spawn(folder: &std::path::Path) -> Process {
    let mut server = postgres::command(&postgres::programs().join("postgres"));
    server
        .arg("-D")
        .arg(folder.join("data"))
        .arg("-k")
        .arg(folder)
        .args(SETTINGS.iter().flat_map(|setting| ["-c", setting]));
    Process::spawn(&mut server, folder.with_extension("log"))
}
