//! The folder that everything of one test process lies in, and the janitor that clears it away.
//!
//! The janitor is a shell in a process group of its own that waits for the end of its standard input: that ends with the
//! test process, however this ends. Then it kills every process with the folder in its arguments, with all descendants,
//! and removes the folder.

use std::{
    io::Write,
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{ChildStdin, Command, Stdio},
    sync::{
        LazyLock,
        atomic::{AtomicU32, Ordering},
    },
};

const JANITOR: &str = r#"
cat >/dev/null
tree() {
    for child in $(cat /proc/"$1"/task/*/children 2>/dev/null); do tree "$child"; done
    kill -9 "$1" 2>/dev/null
}
read -r postmaster 2>/dev/null <"$SCENE/postgres/data/postmaster.pid" && kill -QUIT "$postmaster" && sleep 0.5
for process in /proc/[0-9]*; do
    tr '\0' ' ' <"$process/cmdline" 2>/dev/null | grep -qF -- "$SCENE" && tree "${process#/proc/}"
done
for network in /run/netns/opsc-"${SCENE##*-}"-*; do
    [ -e "$network" ] && ip netns delete "${network##*/}"
done
grep -F " $SCENE/" /proc/mounts | while read -r _ at _; do umount -l "$at"; done
rm -rf -- "$SCENE" || { sleep 1; rm -rf -- "$SCENE"; }
"#;

struct Scene {
    folder: PathBuf,
    /// Its end is the janitor's signal.
    _janitor: ChildStdin,
}

static SCENE: LazyLock<Scene> = LazyLock::new(|| {
    let folder = std::env::temp_dir().join(format!("opsc-tests-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("the folder for temporary files can be written");
    // The database's user has to pass through.
    std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o755)).expect("it is ours");
    #[expect(clippy::zombie_processes, reason = "it outlives this process")]
    let mut janitor = Command::new("/bin/sh")
        .args(["-c", JANITOR])
        .env("SCENE", &folder)
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("there is a shell");
    let stdin = janitor.stdin.take().expect("it is piped");
    Scene { folder, _janitor: stdin }
});

/// The folder of this test process.
pub fn folder() -> &'static Path {
    &SCENE.folder
}

/// A new folder in it, whose name begins with `name`.
pub fn new_folder(name: &str) -> PathBuf {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    let path = folder().join(format!("{name}-{}", NEXT.fetch_add(1, Ordering::Relaxed)));
    std::fs::create_dir(&path).expect("the scene's folder can be written");
    path
}

/// A loopback port that is free, outside of the range that the kernel hands out by itself: nothing else takes it while
/// the process that listens on it is being restarted.
pub fn free_port() -> u16 {
    const FIRST: u32 = 20_000;
    const COUNT: u32 = 12_000;
    static NEXT: LazyLock<AtomicU32> = LazyLock::new(|| AtomicU32::new(std::process::id().wrapping_mul(97)));
    for _ in 0..COUNT {
        let port = FIRST + NEXT.fetch_add(1, Ordering::Relaxed) % COUNT;
        let port = u16::try_from(port).expect("the range is below 65536");
        if std::net::TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no port is free between {FIRST} and {}", FIRST + COUNT);
}

/// The binary `name` as `cargo build --workspace` made it, beside this one or, for a test, above it.
///
/// # Panics
/// When it is not there.
pub fn binary(name: &str) -> PathBuf {
    let own = std::env::current_exe().expect("a process knows its program");
    let beside = own.parent().expect("a program is in a folder");
    let folder = if beside.ends_with("deps") { beside.parent().unwrap_or(beside) } else { beside };
    let path = folder.join(name);
    assert!(path.exists(), "{} is missing: run `cargo build --workspace` first", path.display());
    path
}

/// Says, where the harness does not hide it, that something was not tested.
pub fn skipped(why: &str) {
    writeln!(std::io::stderr(), "SKIPPED: {why}").expect("there is a standard error");
}

/// Whether the long variants of tests run too.
pub fn is_full() -> bool {
    std::env::var_os("OPSC_TESTS_FULL").is_some_and(|value| value == "1")
}

/// Whether the tests run as root; some faults can be made by root alone.
pub fn is_root() -> bool {
    nix::unistd::Uid::effective().is_root()
}
