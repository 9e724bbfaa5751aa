use std::{path::PathBuf, process::Child};

use super::*;

/// A data folder of its own. As root it is in a place that only root can walk to.
fn data() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data");
    std::fs::create_dir(&data).expect("made");
    (folder, data)
}

async fn value(options: &PgConnectOptions, sql: &'static str) -> String {
    let mut connection = PgConnection::connect_with(options).await.expect("connected");
    sqlx::query_scalar(sql).fetch_one(&mut connection).await.expect("answered")
}

async fn execute(options: &PgConnectOptions, sql: &'static str) {
    let mut connection = PgConnection::connect_with(options).await.expect("connected");
    sqlx::query(sql).execute(&mut connection).await.expect("done");
}

async fn gone(pid: Pid) {
    while nix::sys::signal::kill(pid, None).is_ok() {
        tokio::time::sleep(POLL).await;
    }
}

/// Waits until another server than `old` answers.
async fn came_back(embedded: &Embedded, old: Pid) -> bool {
    let began = Instant::now();
    while began.elapsed() < READY_WITHIN {
        if embedded.pid().is_some_and(|pid| pid != old) && answers(&embedded.options()).await.unwrap_or(false)
        {
            return true;
        }
        tokio::time::sleep(POLL).await;
    }
    false
}

/// A server without a controller: what `kill -9` leaves behind where the kernel's signal did not come.
fn orphan(data: &Path) -> Child {
    let folder = data.join("postgres");
    let binaries = Binaries::find(cluster::version_of(&folder).expect("read"), &folder).expect("found");
    Cluster::open(folder, binaries).expect("opened").server(false).expect("made").spawn().expect("started")
}

#[tokio::test]
async fn starts_stops_and_starts_again_with_its_data() {
    let (_folder, data) = data();
    let first = Embedded::start(&data).await.expect("started");
    let options = first.options();
    assert_eq!(value(&options, "select session_user::text").await, "opsconductor");
    assert_eq!(value(&options, "show fsync").await, "on");
    assert_eq!(value(&options, "show listen_addresses").await, "");
    assert_eq!(value(&options, "show server_encoding").await, "UTF8");
    let pid = first.pid().expect("running");
    let server =
        std::os::unix::fs::MetadataExt::uid(&std::fs::metadata(format!("/proc/{pid}")).expect("there"));
    assert_ne!(server, 0, "it never runs as root");
    execute(&options, "create table kept as select 'whole'::text as what").await;
    first.stop().await;
    gone(pid).await;
    assert!(!data.join("postgres/data/postmaster.pid").exists());

    let second = Embedded::start(&data).await.expect("started again");
    assert_eq!(value(&second.options(), "select what from kept").await, "whole");
    second.stop().await;
}

#[tokio::test]
async fn nobody_else_gets_in() {
    if !nix::unistd::Uid::effective().is_root() {
        return;
    }
    let (_folder, data) = data();
    let embedded = Embedded::start(&data).await.expect("started");
    // The socket is in a folder that only the server's user and root can enter.
    let folder = std::fs::metadata(data.join("postgres/run")).expect("there");
    assert_eq!(std::os::unix::fs::PermissionsExt::mode(&folder.permissions()) & 0o777, 0o700);
    let stranger = PgConnection::connect_with(&embedded.options().username("postgres")).await;
    assert!(matches!(stranger, Err(sqlx::Error::Database(_))), "another role is refused: {stranger:?}");
    embedded.stop().await;
}

#[tokio::test]
async fn an_orphan_is_adopted_and_never_doubled() {
    let (_folder, data) = data();
    Embedded::start(&data).await.expect("made").stop().await;
    let mut orphan = orphan(&data);
    let pid = Pid::from_raw(orphan.id().cast_signed());
    // Its pid file tells of it; until then nobody could know.
    while !data.join("postgres/data/postmaster.pid").exists() {
        tokio::time::sleep(POLL).await;
    }
    let embedded = Embedded::start(&data).await.expect("adopted");
    assert_eq!(embedded.pid(), Some(pid));
    assert_eq!(value(&embedded.options(), "select session_user::text").await, "opsconductor");
    embedded.stop().await;
    assert!(orphan.wait().expect("ended").success(), "it was shut down in order");
}

#[tokio::test]
async fn one_that_shuts_down_is_waited_for() {
    let (_folder, data) = data();
    Embedded::start(&data).await.expect("made").stop().await;
    let mut orphan = orphan(&data);
    let pid = Pid::from_raw(orphan.id().cast_signed());
    while !data.join("postgres/data/postmaster.pid").exists() {
        tokio::time::sleep(POLL).await;
    }
    // A reaper, as init is one.
    let reaper = std::thread::spawn(move || orphan.wait());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).expect("told");
    let embedded = Embedded::start(&data).await.expect("started");
    // Either it was gone before, or it answered once more and was replaced when it went.
    assert!(came_back(&embedded, pid).await);
    embedded.stop().await;
    reaper.join().expect("joined").expect("ended");
}

#[tokio::test]
async fn what_dies_is_started_again() {
    let (_folder, data) = data();
    let embedded = Embedded::start(&data).await.expect("started");
    let first = embedded.pid().expect("running");
    nix::sys::signal::kill(first, nix::sys::signal::Signal::SIGKILL).expect("killed");
    assert!(came_back(&embedded, first).await);
    embedded.stop().await;
}

#[tokio::test]
async fn a_pid_file_of_another_program_is_no_obstacle() {
    let (_folder, data) = data();
    Embedded::start(&data).await.expect("made").stop().await;
    let path = data.join("postgres/data/postmaster.pid");
    std::fs::write(&path, format!("{}\n", std::process::id())).expect("written");
    Embedded::start(&data).await.expect("started").stop().await;
}

#[tokio::test]
async fn a_folder_too_deep_for_a_socket_works() {
    let (_folder, data) = data();
    let deep = data.join("d".repeat(60)).join("e".repeat(60));
    std::fs::create_dir_all(&deep).expect("made");
    let embedded = Embedded::start(&deep).await.expect("started");
    assert_eq!(value(&embedded.options(), "select session_user::text").await, "opsconductor");
    embedded.stop().await;
}
