//! Processes that the bench starts and ends, and what the kernel says about them.
//!
//! Invariants: a process is ended by its id, and only while it is our unreaped child, so the id cannot be another's; it
//! is gone when its guard is dropped, however that comes about. Each has a process group of its own: a Ctrl-C in the
//! terminal reaches the bench alone, which then takes everything down in order.

use std::{
    collections::HashMap,
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use std::os::unix::process::CommandExt as _;

use anyhow::{Context as _, anyhow};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

/// How often an ending process is looked at.
const POLL: Duration = Duration::from_millis(5);
/// How much of what a process said last is repeated in an error.
const LAST_WORDS_BYTES: usize = 2000;
/// Clock ticks a second in `/proc`: the same on every Linux that we build for.
const TICKS_PER_SECOND: f64 = 100.0;

/// A running process that ends with this guard.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    what: String,
    log: PathBuf,
    patience: Duration,
}

impl Process {
    /// Starts `command` with its errors in the file `log`. At the end it is asked, and after `patience` killed.
    ///
    /// # Errors
    /// When it cannot be started.
    pub(crate) fn start(
        mut command: Command,
        what: &str,
        log: &Path,
        patience: Duration,
    ) -> anyhow::Result<Self> {
        let errors = File::options()
            .create(true)
            .append(true)
            .open(log)
            .with_context(|| format!("cannot write {}", log.display()))?;
        let child = quiet(&mut command)
            .stderr(errors)
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot start {what} ({})", command.get_program().display()))?;
        Ok(Self { child, what: what.to_owned(), log: log.to_owned(), patience })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The pipes, where the command asked for them.
    pub(crate) fn pipes(&mut self) -> (Option<ChildStdin>, Option<ChildStdout>) {
        (self.child.stdin.take(), self.child.stdout.take())
    }

    /// Fails when the process has ended.
    ///
    /// # Errors
    /// With its status and what it said last.
    pub(crate) fn check(&mut self) -> anyhow::Result<()> {
        match self.ended() {
            None => Ok(()),
            Some(status) => {
                Err(anyhow!("{} has ended ({status}); its last words: {}", self.what, self.last_words()))
            }
        }
    }

    fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// The end of its log.
    pub(crate) fn last_words(&self) -> String {
        let text = fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(&text[text.len().saturating_sub(LAST_WORDS_BYTES)..]).trim().to_owned()
    }

    /// Asks it to end, without waiting.
    pub(crate) fn ask(&mut self) {
        if self.ended().is_none()
            && let Ok(pid) = i32::try_from(self.child.id())
        {
            // An error means that it has just ended.
            kill(Pid::from_raw(pid), Signal::SIGTERM).ok();
        }
    }

    /// Ends it as a crash would, and waits until it is gone.
    pub(crate) fn kill(&mut self) {
        // Errors mean that it has ended already.
        self.child.kill().ok();
        self.child.wait().ok();
    }

    /// Ends it and waits until it is gone.
    pub(crate) fn stop(&mut self) {
        self.ask();
        let begun = Instant::now();
        while self.ended().is_none() {
            if begun.elapsed() > self.patience {
                return self.kill();
            }
            thread::sleep(POLL);
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Takes settings of OpsConductor out of a command's environment: they are of another installation.
pub(crate) fn quiet(command: &mut Command) -> &mut Command {
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(|name| name.starts_with("OPSC_") && name != "OPSC_PG_BIN") {
            command.env_remove(name);
        }
    }
    command
}

/// A command without input or output.
pub(crate) fn silent(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.stdin(Stdio::null()).stdout(Stdio::null());
    command
}

/// Resident memory of a process in KiB.
///
/// # Errors
/// When it is gone.
pub(crate) fn resident_kib(pid: u32) -> anyhow::Result<f64> {
    field_kib(&format!("/proc/{pid}/status"), "VmRSS:")
}

/// Proportional memory of a process and all its descendants in KiB; of one that ends meanwhile none.
///
/// # Errors
/// When it is gone.
pub(crate) fn tree_pss_kib(root: u32) -> anyhow::Result<f64> {
    let of = |pid: u32| match field_kib(&format!("/proc/{pid}/smaps_rollup"), "Pss:") {
        Err(_) if pid != root && is_over(pid) => Ok(0.0),
        read => read,
    };
    tree(root)?.into_iter().map(of).sum()
}

/// Seconds of processor time that a process and its descendants have used; of one that ends meanwhile none.
///
/// # Errors
/// When it is gone.
pub(crate) fn tree_cpu_seconds(root: u32) -> anyhow::Result<f64> {
    tree(root)?
        .into_iter()
        .map(|pid| {
            let fields = match stat(pid) {
                None if pid != root => return Ok(0.0),
                read => read.with_context(|| format!("process {pid} is gone"))?,
            };
            // utime and stime, counted from the state, which is the third field.
            let tick =
                |index: usize| fields.get(index).and_then(|text| text.parse::<f64>().ok()).unwrap_or(0.0);
            Ok((tick(11) + tick(12)) / TICKS_PER_SECOND)
        })
        .sum()
}

fn field_kib(path: &str, name: &str) -> anyhow::Result<f64> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {path}"))?;
    text.lines()
        .find_map(|line| line.strip_prefix(name)?.trim().strip_suffix("kB")?.trim().parse().ok())
        .with_context(|| format!("{path} has no {name}"))
}

/// The fields of `/proc/PID/stat` behind the program's name, from the state on.
fn stat(pid: u32) -> Option<Vec<String>> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = text.rsplit_once(')')?;
    Some(rest.split_whitespace().map(str::to_owned).collect())
}

/// Whether a process is gone, or waits only to be asked how it ended.
fn is_over(pid: u32) -> bool {
    stat(pid).is_none_or(|fields| fields.first().is_some_and(|state| state == "Z" || state == "X"))
}

/// A process and its descendants.
fn tree(root: u32) -> anyhow::Result<Vec<u32>> {
    let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
    for entry in fs::read_dir("/proc").context("cannot read /proc")?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let Some(parent) = stat(pid).and_then(|fields| fields.get(1)?.parse().ok()) else { continue };
        children.entry(parent).or_default().push(pid);
    }
    let mut found = vec![root];
    let mut next = 0;
    while let Some(pid) = found.get(next) {
        found.extend(children.get(pid).into_iter().flatten());
        next += 1;
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_ends_with_its_guard() {
        let folder = tempfile::tempdir().unwrap();
        let mut command = silent(Path::new("/bin/sleep"));
        command.arg("60");
        let process =
            Process::start(command, "a sleeper", &folder.path().join("log"), Duration::from_secs(5)).unwrap();
        let pid = process.pid();
        assert!(resident_kib(pid).unwrap() > 0.0);
        assert!(tree_pss_kib(pid).unwrap() > 0.0);
        assert!(tree_cpu_seconds(std::process::id()).unwrap() >= 0.0);
        assert!(tree(std::process::id()).unwrap().contains(&pid));
        drop(process);
        assert!(stat(pid).is_none());
    }

    #[test]
    fn a_process_that_ended_is_told_with_its_last_words() {
        let folder = tempfile::tempdir().unwrap();
        let mut command = silent(Path::new("/bin/sh"));
        command.args(["-c", "echo no luck >&2; exit 3"]);
        let mut process =
            Process::start(command, "the shell", &folder.path().join("log"), Duration::from_secs(5)).unwrap();
        let begun = Instant::now();
        let error = loop {
            if let Err(error) = process.check() {
                break error.to_string();
            }
            assert!(begun.elapsed() < Duration::from_secs(10));
        };
        assert!(error.contains("the shell") && error.contains("no luck") && error.contains('3'), "{error}");
    }
}
