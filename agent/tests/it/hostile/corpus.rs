//! The corpus: each entry tries one thing, on each profile. What must become of it stands beside it, in the files.
//!
//! An entry says `trying` when all is prepared, so that one that could not even try is no denial. Its control is the run
//! without confinement, in which the same program succeeds.

use std::{
    path::Path,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use serde::Deserialize;

use super::{PROFILES, can_try, stage::Stage, table};

const FILES: [&str; 4] = ["files", "processes", "network", "kernel"];
const RUNS_AT_A_TIME: usize = 4;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Entry {
    pub(super) name: String,
    pub(super) program: String,
    /// What must become of it, in the order of [`PROFILES`].
    pub(super) expect: [String; 4],
    pub(super) note: Option<String>,
    /// Not every kernel has what it tries.
    #[serde(default)]
    pub(super) may_be_absent: bool,
    /// Who runs it where it is not confined; root when nobody is named.
    #[serde(default)]
    pub(super) control_user: String,
    /// It names a folder to write in which the agent's data is too.
    #[serde(default)]
    pub(super) writes_around_data: bool,
    #[serde(default)]
    pub(super) limits: Limits,
    pub(super) timeout_ms: Option<u64>,
}

/// Of the runs that are confined.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Limits {
    pub(super) pids: u64,
    pub(super) memory_bytes: u64,
    pub(super) open_files: u64,
    pub(super) file_bytes: u64,
    pub(super) cpu_percent: u64,
}

fn entries() -> Vec<Entry> {
    #[derive(Deserialize)]
    struct File {
        entry: Vec<Entry>,
    }
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/hostile");
    let read = |name: &str| std::fs::read_to_string(folder.join(format!("{name}.toml"))).unwrap();
    let only = std::env::var("OPSC_HOSTILE").ok();
    let all = FILES.into_iter().flat_map(|name| toml::from_str::<File>(&read(name)).unwrap().entry);
    all.filter(|entry| only.as_ref().is_none_or(|only| entry.name.contains(only))).collect()
}

#[test]
fn hostile_programs_become_what_is_said_of_them() {
    if !can_try() {
        return;
    }
    let entries = entries();
    let stage = Stage::set();
    let next = AtomicUsize::new(0);
    let found = Mutex::new(vec![[const { String::new() }; PROFILES.len()]; entries.len()]);
    std::thread::scope(|scope| {
        for _ in 0..RUNS_AT_A_TIME {
            scope.spawn(|| {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let (row, column) = (index / PROFILES.len(), index % PROFILES.len());
                    let Some(entry) = entries.get(row) else { return };
                    let outcome = stage.play(entry, PROFILES[column]);
                    found.lock().unwrap()[row][column] = outcome;
                }
            });
        }
    });
    let mut found = found.into_inner().unwrap();
    let mut wrong = Vec::new();
    for (entry, row) in entries.iter().zip(&mut found) {
        // Only where the kernel has it at all can the others tell it from a denial.
        let is_absent = entry.may_be_absent && row[0] == "absent";
        for (profile, (found, expected)) in PROFILES.iter().zip(row.iter_mut().zip(&entry.expect)) {
            if is_absent && *found == "absent" {
                eprintln!("not on this host: {} ({})", entry.name, super::name(*profile));
                expected.clone_into(found);
            }
            let word = found.split(':').next().unwrap_or_default();
            if word != expected {
                wrong.push(format!("{} on {}: {found}, not {expected}", entry.name, super::name(*profile)));
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), entries.len() * PROFILES.len(), wrong.join("\n"));
    if std::env::var_os("OPSC_HOSTILE").is_none() {
        table::compare(&entries, &found);
    }
}
