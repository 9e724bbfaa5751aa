//! What a run does at its output limit, and when its host has no room for output.

use std::{io::Write as _, thread, time::Duration};

use opsconductor_agent::shim::control;
use tempfile::TempDir;

use crate::one_shim::{Shim, shell, spec};

#[test]
fn at_the_limit_a_run_may_end() {
    let limited =
        |line| proto::Command { output_limit_bytes: 100_000, halt_at_output_limit: true, ..shell(line) };
    let (record, output) = Shim::run(limited("yes"));
    assert_eq!((record.reason.as_str(), record.signal), ("output_limit", Some(15)));
    assert!(record.detail.contains("100000 bytes"), "{}", record.detail);
    assert_eq!(output.stdout.data.len(), 100_000);
    assert!(output.stdout.gap > 0);
    // Whatever it does about that.
    let (record, output) = Shim::run(limited("trap '' TERM; setsid yes & yes"));
    assert_eq!((record.reason.as_str(), record.signal), ("output_limit", Some(9)));
    assert_eq!(output.stdout.data.len(), 100_000);
    let (record, _) = Shim::run(limited("head -c 100000 /dev/zero"));
    assert_eq!((record.reason.as_str(), record.exit_code), ("exited", Some(0)), "it kept to it");
}

/// A host whose room of 1 MiB is taken by another attempt.
fn full_host() -> (TempDir, std::path::PathBuf) {
    let attempts = tempfile::tempdir().unwrap();
    let other = attempts.path().join("other");
    std::fs::create_dir(&other).unwrap();
    std::fs::write(other.join("output"), vec![1; 1024 * 1024]).unwrap();
    (attempts, other)
}

#[test]
fn without_room_on_the_host_the_process_waits() {
    let (attempts, other) = full_host();
    let written = attempts.path().join("written");
    let mut ordered = spec(shell(&format!("head -c 700000 /dev/zero; touch {}", written.display())));
    ordered.spool_bytes = 1024 * 1024;
    ordered.block_for_ms = 600_000;
    let shim = Shim::start_in(tempfile::tempdir_in(attempts.path()).unwrap(), &ordered);
    thread::sleep(Duration::from_millis(300));
    assert!(!written.exists(), "it waits");
    std::fs::remove_dir_all(other).unwrap();
    let (record, output) = shim.finish();
    assert_eq!((record.exit_code, output.stdout.data.len(), output.stdout.gap), (Some(0), 700_000, 0));
    assert!(written.exists());
}

#[test]
fn a_process_that_waited_for_room_goes_on_with_a_gap() {
    let (attempts, _) = full_host();
    let mut ordered = spec(shell("head -c 700000 /dev/zero; echo end >&2"));
    ordered.spool_bytes = 1024 * 1024;
    ordered.block_for_ms = 100;
    let (record, output) = Shim::start_in(tempfile::tempdir_in(attempts.path()).unwrap(), &ordered).finish();
    assert_eq!((record.exit_code, output.stdout.gap, output.stderr.gap), (Some(0), 700_000, 4));
    assert_eq!(record.stdout.unwrap().sha256, pki::sha256(&vec![0; 700_000]), "all of it was hashed");
}

#[test]
fn a_cancel_does_not_wait_for_room() {
    let (attempts, _) = full_host();
    let mut ordered = spec(shell("echo $$; yes"));
    ordered.spool_bytes = 1024 * 1024;
    ordered.block_for_ms = 600_000;
    let shim = Shim::start_in(tempfile::tempdir_in(attempts.path()).unwrap(), &ordered);
    let mut agent = shim.connect();
    agent.write_all(&[control::ToShim::Cancel.byte()]).unwrap();
    let (record, _) = shim.finish();
    assert_eq!(record.reason, "cancelled");
}
