//! All processes of a run: the descendants of the shim, found by their parents.
//!
//! The shim is the sub-reaper, so a process whose parent dies becomes its child; nothing can leave the tree.

use std::{
    collections::{HashMap, HashSet},
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

/// Sends a signal to every descendant of this process that lives; says which there were.
///
/// Between the look and the signal a process may end; its number is not given to another for as long as its parent
/// has not waited for it, and the numbers go round only after thousands of new processes.
pub(super) fn signal_descendants(signal: Signal) -> Vec<i32> {
    let found = descendants(Pid::this().as_raw());
    for pid in &found {
        let _ = kill(Pid::from_raw(*pid), signal);
    }
    found
}

/// How long one call may take to stop what makes new processes all the time.
const STOP_WITHIN: Duration = Duration::from_secs(1);

/// Kills every descendant of this process that lives; says which there were.
///
/// All are stopped first, until no new one is found: what is stopped makes no more, so not even a bomb outruns the look.
pub(super) fn kill_descendants() -> Vec<i32> {
    let until = Instant::now() + STOP_WITHIN;
    let mut seen = HashSet::new();
    loop {
        let mut found = descendants(Pid::this().as_raw());
        found.retain(|pid| seen.insert(*pid));
        if found.is_empty() || Instant::now() >= until {
            return signal_descendants(Signal::SIGKILL);
        }
        for pid in found {
            let _ = kill(Pid::from_raw(pid), Signal::SIGSTOP);
        }
    }
}

fn descendants(root: i32) -> Vec<i32> {
    let mut children: HashMap<i32, Vec<Process>> = HashMap::new();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let Ok(stat) = std::fs::read_to_string(entry.path().join("stat")) else { continue };
        if let Some((parent, ended)) = parse(&stat) {
            children.entry(parent).or_default().push(Process { pid, ended });
        }
    }
    let mut found = Vec::new();
    let mut waiting = vec![root];
    while let Some(parent) = waiting.pop() {
        for child in children.remove(&parent).unwrap_or_default() {
            waiting.push(child.pid);
            if !child.ended {
                found.push(child.pid);
            }
        }
    }
    found
}

struct Process {
    pid: i32,
    /// It waits for its parent only.
    ended: bool,
}

/// The parent, and whether the process has ended, from `/proc/PID/stat`. The name in brackets may hold anything.
fn parse(stat: &str) -> Option<(i32, bool)> {
    let (_, rest) = stat.rsplit_once(") ")?;
    let mut words = rest.split(' ');
    let state = words.next()?;
    let parent = words.next()?.parse().ok()?;
    Some((parent, matches!(state, "Z" | "X")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_look_like_anything() {
        assert_eq!(parse("12 (a) S 1) Z 7 12 12 0"), Some((7, true)));
        assert_eq!(parse("12 (sh) S 4 12"), Some((4, false)));
        assert_eq!(parse("rubbish"), None);
    }
}
