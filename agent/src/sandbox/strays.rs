//! The last resort when the shim of an attempt is gone and there is no control group: processes that still carry the
//! attempt's own variables. One that has removed them, or that this user may not look into, is not found.

use model::id::RunId;
use nix::{
    sys::signal::{Signal, kill as send},
    unistd::Pid,
};

/// Kills every process that was started for this attempt; says which there were.
pub fn kill(run_id: RunId, attempt: u32) -> Vec<i32> {
    let found = find(run_id, attempt);
    for pid in &found {
        let _ = send(Pid::from_raw(*pid), Signal::SIGKILL);
    }
    found
}

/// The processes that were started for this attempt and live.
pub fn find(run_id: RunId, attempt: u32) -> Vec<i32> {
    let marks = [format!("OPSC_RUN_ID={run_id}"), format!("OPSC_ATTEMPT={attempt}")];
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        // A process that has ended has none any more.
        let Ok(variables) = std::fs::read(entry.path().join("environ")) else { continue };
        let has = |mark: &String| variables.split(|byte| *byte == 0).any(|one| one == mark.as_bytes());
        if marks.iter().all(has) {
            found.push(pid);
        }
    }
    found
}
