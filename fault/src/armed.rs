//! The points of a test build.

use std::{
    fs::{File, OpenOptions},
    io::Write,
    sync::{
        LazyLock,
        atomic::{AtomicU32, Ordering},
    },
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

pub(crate) const FAULT: &str = "OPSC_FAULT";
pub(crate) const LOG: &str = "OPSC_FAULT_LOG";
pub(crate) const CLOCK: [&str; 5] = [
    "LD_PRELOAD",
    "FAKETIME",
    "FAKETIME_TIMESTAMP_FILE",
    "FAKETIME_NO_CACHE",
    "FAKETIME_DONT_FAKE_MONOTONIC",
];

/// What this process is to die of.
struct Fault {
    name: String,
    /// Hits until it does.
    left: AtomicU32,
}

static FAULT_OF_THIS_PROCESS: LazyLock<Option<Fault>> = LazyLock::new(|| {
    let value = std::env::var(FAULT).ok()?;
    let (name, hit) = value.split_once(':').unwrap_or((&value, "1"));
    let hit = hit.parse().expect("a test names the hit by its number");
    Some(Fault { name: name.to_owned(), left: AtomicU32::new(hit) })
});

pub(crate) fn point(name: &'static str) {
    let Some(fault) = FAULT_OF_THIS_PROCESS.as_ref().filter(|fault| fault.name == name) else { return };
    // Hits after the last one are of other threads, and come too late.
    if fault.left.fetch_sub(1, Ordering::SeqCst) != 1 {
        return;
    }
    note(name);
    // The process is gone when this returns, or the signal would not be what it is.
    let _ = kill(Pid::this(), Signal::SIGKILL);
}

/// Where the names go.
static FILE: LazyLock<Option<File>> = LazyLock::new(|| {
    let path = std::env::var(LOG).ok()?;
    OpenOptions::new().append(true).create(true).open(path).ok()
});

pub(crate) fn prepare() {
    LazyLock::force(&FAULT_OF_THIS_PROCESS);
    LazyLock::force(&FILE);
}

fn note(name: &str) {
    let noted = FILE.as_ref().map(|mut file| file.write_all(format!("{name}\n").as_bytes()));
    // Unheard of it is as good as not reached, and the test says so.
    drop(noted);
}
