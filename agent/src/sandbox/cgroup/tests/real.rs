//! With the groups of this host. What it has not, or this user may not do, is skipped and said.

use std::{
    io::Write as _,
    process::{Child, Command, ExitStatus, Stdio},
    time::Instant,
};

use super::*;

const LONG: Duration = Duration::from_secs(60);
/// What a test waits for is looked for so often.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// A group of a test, and all that a script started in it.
struct Tried {
    group: Cgroup,
    name: String,
}

impl Tried {
    /// None, loudly, where this host cannot do it.
    fn start(host: &Host, what: &str, limits: Limits) -> Option<Self> {
        let name = format!("test-{}-{}", std::process::id(), what.replace(' ', "-"));
        let Created { group, missing } = Cgroup::create_at(host, &name, &limits);
        let tried = group.map(|group| Self { group, name });
        if tried.is_none() || !missing.is_empty() {
            eprintln!(
                "SKIPPED: this host lets this user have no control groups with {what} (missing: {missing:?})"
            );
            return None;
        }
        tried
    }

    /// A shell that joins the group before it does anything else.
    fn shell(&self, script: &str) -> Child {
        let v2 = self.group.v2.iter().map(|group| group.folder().join("cgroup.procs"));
        let doors = v2.chain(self.group.v1.iter().map(|group| group.folder().join("tasks")));
        let joins = doors.map(|door| format!("echo 0 > {} && ", door.display()));
        let script = format!("{} {{ {script}\n}}", joins.collect::<String>());
        Command::new("sh").args(["-c", &script]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    }

    fn run(&self, script: &str) -> ExitStatus {
        self.shell(script).wait().unwrap()
    }

    fn empty(&self) {
        wait_for("the group is empty", || {
            self.group.kill().unwrap();
            !self.group.is_populated()
        });
    }

    fn ends(&self, mut shell: Child) {
        self.empty();
        shell.wait().unwrap();
    }
}

impl Drop for Tried {
    fn drop(&mut self) {
        self.empty();
        self.group.remove().unwrap();
        let folders: Vec<_> = self.group.folders().collect();
        assert!(!folders.iter().any(|folder| folder.exists()), "{folders:?}");
    }
}

fn wait_for(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < LONG, "waited in vain: {what}");
        std::thread::sleep(LOOK_AGAIN);
    }
}

/// Groups of version 1 only.
fn v1() -> Host {
    Host { v2: None, ..Host::look() }
}

/// Groups of version 2 only.
fn v2() -> Host {
    Host { v1: Vec::new(), ..Host::look() }
}

#[test]
fn a_group_without_memory_left_loses_a_process() {
    let hungry = "head -c 200000000 /dev/zero | tail -c 200000000 > /dev/null";
    let limits = Limits { memory_bytes: Some(64 << 20), ..NOTHING };
    let Some(tried) = Tried::start(&Host::look(), "a memory limit", limits) else { return };
    assert!(!tried.run(hungry).success());
    let usage = tried.group.usage();
    assert!(usage.oom_kills > 0, "{usage:?}");
    let peak = usage.peak_memory_bytes.unwrap_or(64 << 20);
    assert!((60 << 20..=64 << 20).contains(&peak), "{usage:?}");

    let Some(free) = Tried::start(&Host::look(), "no memory limit", NOTHING) else { return };
    assert!(free.run(hungry).success());
    let usage = free.group.usage();
    assert_eq!(usage.oom_kills, 0);
    assert!(usage.peak_memory_bytes.is_none_or(|peak| peak >= 200_000_000), "{usage:?}");
}

#[test]
fn a_group_has_only_so_many_processes() {
    let forks =
        "pids=; i=0; while [ $i -lt 20 ]; do sleep 1000 & pids=\"$pids $!\"; i=$((i+1)); done; kill $pids";
    let limits = Limits { pids: Some(8), ..NOTHING };
    let Some(tried) = Tried::start(&Host::look(), "a pids limit", limits) else { return };
    let shell = tried.shell(forks);
    wait_for("a fork is refused", || tried.group.usage().pids_refused > 0);
    let usage = tried.group.usage();
    assert!(usage.peak_pids.is_none_or(|peak| peak == 8), "{usage:?}");
    tried.ends(shell);

    let Some(free) = Tried::start(&Host::look(), "no pids limit", NOTHING) else { return };
    assert!(free.run(forks).success());
    assert_eq!(free.group.usage().pids_refused, 0);
}

#[test]
fn a_group_has_only_so_much_of_the_processors() {
    let limits = Limits { cpu_percent: Some(20), ..NOTHING };
    let Some(tried) = Tried::start(&Host::look(), "a cpu limit", limits) else { return };
    let begun = Instant::now();
    let shell = tried.shell("while :; do :; done");
    let throttled =
        || tried.group.folders().filter_map(|folder| files::value(folder, "cpu.stat", "nr_throttled")).max();
    wait_for("it was held back ten times", || throttled() >= Some(10));
    let usage = tried.group.usage();
    let used = usage.cpu_user_us.zip(usage.cpu_system_us).map(|(user, system)| user + system);
    // A fifth, and what a period that has begun may have used.
    let most = begun.elapsed().as_micros() as u64 / 5 + 100_000;
    assert!(used.is_none_or(|used| (1..=most).contains(&used)), "{usage:?}, at most {most}");
    tried.ends(shell);
}

#[test]
fn a_group_reads_and_writes_only_so_fast() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file").display().to_string();
    let write = format!("dd if=/dev/zero of={file} bs=262144 count=8 oflag=direct");
    let limits = Limits { io_bytes_per_second: Some(1 << 20), ..NOTHING };
    let Some(tried) = Tried::start(&Host::look(), "an io limit", limits) else { return };
    let Some(free) = Tried::start(&Host::look(), "no io limit", NOTHING) else { return };
    if !free.run(&write).success() || free.group.usage().io_write_bytes.is_none_or(|bytes| bytes < 2 << 20) {
        eprintln!("SKIPPED: {file} is on no block device whose use is counted");
        return;
    }
    let begun = Instant::now();
    assert!(tried.run(&write).success());
    // Two MiB at one a second; some of it may pass at once.
    assert!(begun.elapsed() > Duration::from_secs(1), "{:?}", begun.elapsed());
    let usage = tried.group.usage();
    assert!(usage.io_write_bytes.is_some_and(|bytes| bytes >= 2 << 20), "{usage:?}");
}

/// Processes in sessions of their own, twice removed from their parents, deaf, stopped, forking, and in groups below.
const TREE: &str = "
    (setsid sh -c 'setsid sleep 1000 & (sleep 1000 &)' &)
    (trap '' TERM HUP; while :; do sh -c 'trap \"\" TERM; sleep 0.01'; done) &
    (sleep 1000 & kill -STOP $!) &
    for at in $BELOW; do mkdir -p $at/one/two; done
    (for at in $BELOW; do echo 0 > $at/one/two/cgroup.procs; done; while :; do (:); done) &
    exec sleep 1000";

fn kills_a_tree(host: &Host, what: &str) {
    let limits = if host.v1.is_empty() { NOTHING } else { Limits { pids: Some(200), ..NOTHING } };
    let Some(tried) = Tried::start(host, what, limits) else { return };
    if !tried.group.can_kill() {
        eprintln!("SKIPPED: this host cannot kill {what}");
        return;
    }
    let folders: Vec<_> = tried.group.folders().map(|folder| folder.display().to_string()).collect();
    let shell = tried.shell(&format!("BELOW='{}'\n{TREE}", folders.join(" ")));
    let below = |folder: &Path| files::any_process(&folder.join("one/two"));
    wait_for("some are in the groups below", || tried.group.folders().all(below));
    wait_for("all are there", || tried.group.folders().all(|folder| files::processes(folder).len() >= 7));
    assert!(tried.group.is_populated());
    assert!(tried.group.remove().is_err(), "processes are in it");
    let first = Instant::now();
    tried.group.kill().unwrap();
    wait_for("the group is empty", || {
        if first.elapsed() > Duration::from_secs(1) {
            tried.group.kill().unwrap();
        }
        !tried.group.is_populated()
    });
    tried.ends(shell);
}

#[test]
fn a_freezer_kills_a_tree() {
    kills_a_tree(&v1(), "groups of version 1");
}

#[test]
fn version_2_kills_a_tree() {
    kills_a_tree(&v2(), "groups of version 2");
}

#[test]
fn both_versions_kill_a_tree() {
    kills_a_tree(&Host::look(), "groups");
}

#[test]
fn a_thread_joins_groups_of_version_1_without_waiting_for_all_processors() {
    let Some(tried) = Tried::start(&v1(), "doors of version 1", NOTHING) else { return };
    let doors = tried.group.doors().unwrap();
    assert_eq!(doors.tasks.len(), tried.group.v1.len());
    let mut times: Vec<Duration> = (0..20)
        .map(|_| {
            std::thread::scope(|scope| {
                let join = || {
                    let begun = Instant::now();
                    for mut door in &doors.tasks {
                        door.write_all(b"0").unwrap();
                    }
                    begun.elapsed()
                };
                scope.spawn(join).join().unwrap()
            })
        })
        .collect();
    times.sort();
    // Waiting for the processors takes ten times as long. On a busy host most tries may be interrupted.
    assert!(times[times.len() / 4] < Duration::from_micros(300), "{times:?}");
    wait_for("the threads have left", || !tried.group.is_populated());
}

#[test]
fn a_group_is_found_by_its_note() {
    let Some(tried) = Tried::start(&Host::look(), "a note", NOTHING) else { return };
    let (note, name) = (tried.group.note(), tried.name.as_str());
    let found = Cgroup::find(&note, name).unwrap();
    assert!(found.folders().eq(tried.group.folders()));
    assert!(found.doors().is_ok());
    // One path alone is what older agents noted.
    let one = note.split(|byte| *byte == b'\n').next().unwrap();
    assert_eq!(Cgroup::find(one, name).unwrap().folders().count(), 1);
    assert!(Cgroup::find(&note, &format!("{name}-other")).is_none());
    assert!(Cgroup::find(b"", name).is_none());
    assert!(Cgroup::find(b"/sys/fs/cgroup\n/tmp", name).is_none());
    tried.group.remove().unwrap();
    assert!(Cgroup::find(&note, name).is_none(), "it is gone");
    tried.group.kill().unwrap();
    assert!(!tried.group.is_populated());
}

#[test]
fn a_group_that_was_left_empty_is_made_anew_and_a_busy_one_is_not() {
    let Some(tried) = Tried::start(&Host::look(), "a predecessor", NOTHING) else { return };
    let again = Cgroup::create(&tried.name, &NOTHING);
    assert!(again.group.unwrap().folders().eq(tried.group.folders()));
    let shell = tried.shell("exec sleep 1000");
    wait_for("it is in all", || tried.group.folders().all(files::any_process));
    let again = Cgroup::create(&tried.name, &EVERYTHING);
    assert!(again.group.is_none());
    assert_eq!(again.missing, ALL_NAMES);
    tried.ends(shell);
}

#[test]
fn what_this_host_can_is_what_it_does() {
    let can = what_host_can();
    let name = format!("test-{}-all", std::process::id());
    let Created { group, missing } = Cgroup::create(&name, &EVERYTHING);
    let said = [(can.memory, MEMORY_LIMIT), (can.pids, PIDS_LIMIT), (can.cpu, CPU_LIMIT), (can.io, IO_LIMIT)];
    for (can, name) in said {
        assert_eq!(can, !missing.contains(&name), "{name}");
    }
    assert_eq!(can.kill, group.as_ref().is_some_and(Cgroup::can_kill));
    if let Some(group) = group {
        group.remove().unwrap();
    }
}

/// Runs [`an_agent_settles`] in a process of its own: one that is alone in being moved.
#[test]
fn an_agent_settles_in_a_leaf() {
    let this = std::env::current_exe().unwrap();
    let name = format!("{}::an_agent_settles", module_path!().split_once("::").unwrap().1);
    let tried = Command::new(this).args(["--exact", &name, "--ignored", "--nocapture"]).output().unwrap();
    let said = String::from_utf8_lossy(&tried.stdout);
    assert!(tried.status.success() && said.contains("1 passed"), "{said}");
    eprint!("{}", String::from_utf8_lossy(&tried.stderr));
}

#[test]
#[ignore = "moves its process"]
fn an_agent_settles() {
    let before = Host::look();
    let cpu = |host: Host| {
        let mut v1 = host.v1.into_iter();
        v1.find(|hierarchy| hierarchy.controllers.iter().any(|name| name == "cpu")).map(|found| found.place)
    };
    let trouble = settle_agent();
    let (Some(old), Some(new)) = (cpu(before), cpu(Host::look())) else {
        eprintln!("SKIPPED: no hierarchy of version 1 has the cpu controller");
        return;
    };
    if !trouble.is_empty() && !new.is_leaf() {
        eprintln!("SKIPPED: {trouble:?}");
        return;
    }
    assert!(new.is_leaf() && !old.is_leaf(), "{old:?} {new:?}");
    assert_eq!((new.home(), new.0.parent().unwrap()), (old.home(), old.0.as_path()));
    assert_eq!(files::number(&new.0, "cpu.shares"), Some(102_400));
    assert_eq!(settle_agent(), trouble);
    assert_eq!(cpu(Host::look()).unwrap(), new, "once is enough");
    files::write(&old.0, files::PROCESSES, &std::process::id().to_string()).unwrap();
    // Another agent may be in it.
    let _ = std::fs::remove_dir(&new.0);
}
