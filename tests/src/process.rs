//! Processes of a test: started with a log file, ended by their id.

use std::{
    fs::File,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

/// How long a process may take to obey SIGTERM.
const ENDS_WITHIN: Duration = Duration::from_secs(20);
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// Lines of a log that are shown when a test panics.
const SHOWN_LINES: usize = 60;

/// A process whose output goes to a file. Dropped, it is killed.
#[derive(Debug)]
pub struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `command` with its output appended to `log`.
    pub fn spawn(command: &mut Command, log: PathBuf) -> Self {
        let file =
            File::options().create(true).append(true).open(&log).expect("the scene's folder can be written");
        let output = file.try_clone().expect("a file can be duplicated");
        let child = command.stdin(Stdio::null()).stdout(output).stderr(file).spawn();
        let child = child.unwrap_or_else(|error| panic!("cannot start {:?}: {error}", command.get_program()));
        Self { child, log }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("it is our child")
    }

    /// SIGKILL, as a crash.
    pub fn kill(&mut self) {
        self.child.kill().expect("it is our child");
        self.child.wait().expect("it is our child");
    }

    /// SIGTERM, and its orderly end.
    ///
    /// # Panics
    /// When it does not end in time.
    pub fn terminate(&mut self) -> ExitStatus {
        signal(self.pid(), Signal::SIGTERM);
        let begun = Instant::now();
        loop {
            if let Some(status) = self.ended() {
                return status;
            }
            assert!(
                begun.elapsed() < ENDS_WITHIN,
                "not within {ENDS_WITHIN:?}: the end of process {}",
                self.pid()
            );
            std::thread::sleep(LOOK_EVERY);
        }
    }

    /// All that it has written.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Writes the end of a log file where the test's output goes.
pub fn show_log(what: &str, log: &Path) {
    let text = String::from_utf8_lossy(&std::fs::read(log).unwrap_or_default()).into_owned();
    let lines: Vec<&str> = text.lines().collect();
    eprintln!("--- {what}");
    for line in &lines[lines.len().saturating_sub(SHOWN_LINES)..] {
        eprintln!("    {line}");
    }
}

/// Sends a signal; a process that is gone needs none.
pub fn signal(pid: u32, signal: Signal) {
    let _ = kill(Pid::from_raw(i32::try_from(pid).expect("process ids are positive")), signal);
}

/// Whether a process of this id is there and not only waiting to be reaped.
pub fn is_alive(pid: u32) -> bool {
    let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else { return false };
    let state = stat.rsplit_once(')').and_then(|(_, rest)| rest.trim_start().chars().next());
    !matches!(state, Some('Z' | 'X') | None)
}

/// The processes that have `text` in their arguments.
pub fn with_argument(text: &str) -> Vec<u32> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").expect("there is /proc").flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        let Ok(arguments) = std::fs::read(entry.path().join("cmdline")) else { continue };
        let has = arguments.windows(text.len()).any(|window| window == text.as_bytes());
        if has && pid != std::process::id() && is_alive(pid) {
            found.push(pid);
        }
    }
    found
}

/// Kills a process and all of its descendants, the youngest first.
pub fn kill_tree(pid: u32) {
    for task in std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten() {
        let children = std::fs::read_to_string(task.path().join("children")).unwrap_or_default();
        children.split_whitespace().filter_map(|child| child.parse().ok()).for_each(kill_tree);
    }
    signal(pid, Signal::SIGKILL);
}
