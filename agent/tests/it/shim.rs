//! What a shim makes of its run: start, output, environment, end.

use std::{
    io::{Read as _, Write as _},
    os::unix::{fs::PermissionsExt as _, process::CommandExt as _},
    path::Path,
    process::{Command, Stdio},
    thread,
};

use model::Reason;
use nix::{
    sys::{
        resource::{Resource, getrlimit, setrlimit},
        signal,
    },
    unistd::{Pid, chown},
};
use opsconductor_agent::shim::{self, control, lock::Lock, record};
use prost::Message as _;
use proto::command::Program;

use crate::one_shim::{Output, Shim, argv, command, is_alive, shell, spawn, spec, wait_for};

#[test]
fn exit_code_and_both_streams() {
    let (record, output) = Shim::run(shell("echo out; echo err >&2; exit 3"));
    assert_eq!((record.reason.as_str(), record.exit_code, record.signal), ("exited", Some(3), None));
    assert_eq!(
        (output.stdout.data.as_slice(), output.stderr.data.as_slice()),
        (&b"out\n"[..], &b"err\n"[..])
    );
    assert!(record.started_at > 0 && record.ended_at >= record.started_at);
    assert!(record.peak_memory_bytes > 0);
}

#[test]
fn a_signal_is_told_from_an_exit() {
    let (record, _) = Shim::run(shell("kill -SEGV $$"));
    assert_eq!((record.reason.as_str(), record.exit_code, record.signal), ("signaled", None, Some(11)));
    assert!(record.detail.contains("SIGSEGV"), "{}", record.detail);
    let (record, _) = Shim::run(shell("kill -37 $$"));
    assert_eq!((record.reason.as_str(), record.signal), ("signaled", Some(37)));
}

#[test]
fn every_byte_arrives() {
    let (record, output) = Shim::run(shell("head -c 3000000 /dev/urandom | tee /proc/self/fd/2"));
    assert_eq!(record.exit_code, Some(0));
    assert_eq!(output.stdout.data.len(), 3_000_000);
    assert_eq!(output.stdout.data, output.stderr.data);
    let (_, output) = Shim::run(shell(r"printf '\000\377no newline'"));
    assert_eq!(output.stdout.data, b"\0\xffno newline");
    let (_, output) = Shim::run(shell("head -c 1048576 /dev/zero | tr '\\0' x; echo"));
    assert_eq!(output.stdout.data.len(), 1_048_577);
}

/// Line by line, for long enough that the pipe is left alone and looked at again some hundred times.
#[test]
fn a_steady_flow_of_small_lines_arrives_whole() {
    let mut runs: Vec<Shim> = Vec::new();
    for _ in 0..4 {
        runs.push(Shim::start(&spec(shell("seq 30000 | while read n; do echo $n; done"))));
    }
    let wanted: String = (1..=30_000).map(|n| format!("{n}\n")).collect();
    for run in runs {
        let (record, output) = run.finish();
        assert_eq!((record.reason.as_str(), record.exit_code), ("exited", Some(0)));
        assert_eq!(output.stdout.data, wanted.as_bytes());
    }
}

#[test]
fn the_environment_is_clean_and_ordered() {
    let mut ordered = spec(argv(&["env"]));
    ordered.environment.insert("SECRET".to_owned(), "a=b\nc".to_owned());
    ordered.environment.insert("LANG".to_owned(), "pl_PL".to_owned());
    let run_id = uuid::Uuid::from_slice(&ordered.run_id).unwrap();
    let (_, output) = Shim::start(&ordered).finish();
    let text = output.text();
    assert!(text.contains("SECRET=a=b\nc\n") && text.contains("LANG=pl_PL\n"), "{text}");
    assert!(text.contains(&format!("OPSC_RUN_ID={run_id}\n")), "{text}");
    let names: Vec<&str> =
        text.lines().filter_map(|line| line.split_once('=').map(|(name, _)| name)).collect();
    assert_eq!(names.len(), 10, "{text}");
}

#[test]
fn nothing_of_the_shim_is_inherited() {
    let (_, output) = Shim::run(shell("ls /proc/self/fd; grep -E 'Sig(Blk|Ign)' /proc/self/status; umask"));
    let text = output.text();
    assert!(text.starts_with("0\n1\n2\n3\nSigBlk"), "{text}");
    let masks: Vec<u64> = text
        .lines()
        .filter_map(|line| line.split_once('\t').map(|(_, mask)| u64::from_str_radix(mask, 16).unwrap()))
        .collect();
    // The C library keeps the signals 32 and 33 to itself.
    assert!(masks.len() == 2 && masks.iter().all(|mask| mask & !0x1_8000_0000 == 0), "{text}");
    assert!(text.ends_with("0022\n"), "{text}");
}

#[test]
fn a_job_has_the_usual_limit_of_open_files() {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    // As the agent does, whose shims inherit it.
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
    let (_, output) = Shim::run(shell("grep '^Max open files' /proc/self/limits"));
    let words: Vec<String> = output.text().split_whitespace().skip(3).map(str::to_owned).collect();
    assert_eq!(words[..2], [hard.min(1024).to_string(), hard.to_string()]);
}

#[test]
fn a_script_runs_by_its_interpreter() {
    let script = |content: &str, interpreter: &str, args: &[&str]| {
        command(Program::Script(proto::Script {
            content: content.to_owned(),
            interpreter: interpreter.to_owned(),
            args: args.iter().map(|&arg| arg.to_owned()).collect(),
        }))
    };
    let (record, output) = Shim::run(script("#!/bin/sh -e\necho \"$1 $-\"\nfalse\necho no", "", &["a b"]));
    assert_eq!(record.exit_code, Some(1));
    assert!(output.text().starts_with("a b e"), "{}", output.text());
    let (_, output) = Shim::run(script("{ print $1 }", "awk -f", &["/etc/hostname"]));
    assert!(!output.stdout.data.is_empty());
    let (record, _) = Shim::run(script("#!/no/such\n", "", &[]));
    assert_eq!(record.reason, Reason::ProgramNotFound.as_str());
    assert!(record.detail.contains("/no/such"), "{}", record.detail);
}

#[test]
fn what_cannot_start_says_why() {
    let cases = [
        (argv(&["no-such-program"]), Reason::ProgramNotFound, "no-such-program"),
        (argv(&["/no/such"]), Reason::ProgramNotFound, "/no/such"),
        (argv(&["/etc/passwd"]), Reason::SpawnFailed, "Permission denied"),
        (argv(&["a\0b"]), Reason::SpawnFailed, "NUL"),
        (
            proto::Command { user: "no-such-user".to_owned(), ..shell("id") },
            Reason::UnknownUser,
            "no-such-user",
        ),
        (
            proto::Command { cwd: "/no/such".to_owned(), ..shell("id") },
            Reason::BadWorkingDirectory,
            "/no/such",
        ),
    ];
    for (command, reason, named) in cases {
        let (record, output) = Shim::run(command);
        assert_eq!(record.reason, reason.as_str(), "{}", record.detail);
        assert!(record.detail.contains(named), "{}", record.detail);
        assert_eq!((record.started_at, record.exit_code, record.signal), (0, None, None));
        assert!(output.stdout.data.is_empty());
    }
}

#[test]
fn another_user_has_its_own_groups_and_home() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let line = "id -un; id -gn; id -G; pwd; cat /proc/self/fd/100 2>&1";
    let (record, output) = Shim::run(proto::Command { user: "daemon".to_owned(), ..shell(line) });
    assert_eq!(record.exit_code, Some(1), "{}", record.detail);
    assert!(output.text().starts_with("daemon\ndaemon\n1\n/\n"), "{}", output.text());
    let script = proto::Script { content: "#!/bin/sh\nid -u".to_owned(), ..proto::Script::default() };
    let ordered = proto::Command { user: "daemon".to_owned(), ..command(Program::Script(script)) };
    let (_, output) = Shim::run(ordered);
    assert_eq!(output.text(), "1\n");
}

#[test]
fn a_timeout_ends_the_whole_tree() {
    // A grandchild in a session of its own that ignores SIGTERM.
    let line =
        "setsid sh -c 'trap \"\" TERM; echo $$; while :; do sleep 1000; done' & trap '' TERM; wait; wait";
    let (record, output) = Shim::run(proto::Command { timeout_ms: 500, ..shell(line) });
    assert_eq!((record.reason.as_str(), record.signal), ("time_limit", Some(9)));
    assert!(record.detail.contains("0.5 s") && record.detail.contains("killed"), "{}", record.detail);
    let grandchild: i32 = output.text().trim().parse().unwrap();
    assert!(!is_alive(grandchild));
}

#[test]
fn what_the_main_process_leaves_behind_is_ended() {
    let (record, output) = Shim::run(shell("setsid sleep 1000 & echo $!; exit 0"));
    assert_eq!((record.reason.as_str(), record.exit_code), ("exited", Some(0)));
    assert!(record.detail.contains("left behind"), "{}", record.detail);
    assert!(!is_alive(output.text().trim().parse().unwrap()));
}

#[test]
fn a_cancel_ends_the_run() {
    let shim = Shim::start(&spec(shell("echo ready; exec sleep 1000")));
    let folder = shim.folder.path().to_owned();
    wait_for("output", || !Output::read(&folder).stdout.data.is_empty());
    let mut agent = shim.connect();
    let mut greeting = [0; 14];
    agent.read_exact(&mut greeting).unwrap();
    assert_eq!((greeting[0], greeting[1]), (control::VERSION, b'S'));
    // A second agent takes the place of the first and is told the same.
    let mut next = shim.connect();
    let mut again = [0; 14];
    next.read_exact(&mut again).unwrap();
    assert_eq!(again, greeting);
    next.write_all(&[control::ToShim::Cancel.byte()]).unwrap();
    let mut rest = Vec::new();
    next.read_to_end(&mut rest).unwrap();
    assert_eq!(rest.last(), Some(&b'E'));
    let (record, _) = shim.finish();
    assert_eq!((record.reason.as_str(), record.signal), ("cancelled", Some(15)));
}

#[test]
fn sigterm_to_the_shim_is_a_stopping_host() {
    let shim = Shim::start(&spec(shell("exec sleep 1000")));
    let pid = Pid::from_raw(shim.process.id().try_into().unwrap());
    signal::kill(pid, signal::Signal::SIGINT).unwrap();
    signal::kill(pid, signal::Signal::SIGTERM).unwrap();
    let (record, _) = shim.finish();
    assert_eq!((record.reason.as_str(), record.signal), ("host_stopping", Some(15)));
    assert!(record.detail.contains("SIGTERM"), "{}", record.detail);
}

/// `setpriv` with the rights of its owner makes a process that the shim's user cannot kill.
#[test]
fn what_cannot_be_killed_is_given_up_and_named() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("SKIPPED: only root can make a program for another user to become root with");
        return;
    }
    let daemon = nix::unistd::User::from_name("daemon").unwrap().unwrap();
    let tools = tempfile::tempdir().unwrap();
    let tool = |name: &str, from: &str, mode| {
        let path = tools.path().join(name);
        std::fs::copy(from, &path).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        path
    };
    std::fs::set_permissions(tools.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let agent = tool("agent", env!("CARGO_BIN_EXE_opsconductor-agent"), 0o755);
    let rise = tool("rise", "/usr/bin/setpriv", 0o4755);
    let folder = tempfile::tempdir().unwrap();
    Lock::make(folder.path()).unwrap();
    for path in [folder.path().to_owned(), folder.path().join("lock")] {
        chown(&path, Some(daemon.uid), Some(daemon.gid)).unwrap();
    }

    let line =
        format!("exec {} --reuid 0 --regid 0 --clear-groups sh -c 'id -u; exec sleep 1000'", rise.display());
    let mut ordered = spec(shell(&line));
    ordered.kill_within_ms = 300;
    let mut process = Command::new(agent)
        .arg("shim")
        .arg(folder.path())
        .env_clear()
        .uid(daemon.uid.as_raw())
        .gid(daemon.gid.as_raw())
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    ordered.write(process.stdin.take().unwrap()).unwrap();
    wait_for("output or an end", || {
        folder.path().join("output").exists() && !Output::read(folder.path()).stdout.data.is_empty()
            || record::read(folder.path()).unwrap().is_some()
    });
    signal::kill(Pid::from_raw(process.id().try_into().unwrap()), signal::Signal::SIGTERM).unwrap();
    assert!(process.wait().unwrap().success());
    let bytes = record::read(folder.path()).unwrap().expect("an exit record");
    let record = proto::ExitRecord::decode(bytes.as_slice()).unwrap();
    if Output::read(folder.path()).text() != "0\n" {
        eprintln!("SKIPPED: programs do not get their owner's rights here: {}", record.detail);
        return;
    }
    assert_eq!((record.reason.as_str(), record.exit_code, record.signal), ("unkillable", None, None));
    let pid: i32 =
        record.detail.strip_prefix("1 process could not be ended: pids ").unwrap().parse().unwrap();
    assert!(is_alive(pid));
    signal::kill(Pid::from_raw(pid), signal::Signal::SIGKILL).unwrap();
}

#[test]
fn a_stranger_that_writes_into_the_pipe_keeps_no_run_open() {
    let shim = Shim::start(&spec(shell("echo $$; exec sleep 1000")));
    let folder = shim.folder.path().to_owned();
    wait_for("output", || Output::read(&folder).text().ends_with('\n'));
    let pid = Output::read(&folder).text().trim().to_owned();
    let mut pipe = std::fs::OpenOptions::new().write(true).open(format!("/proc/{pid}/fd/1")).unwrap();
    // Until nobody reads it any more.
    let stranger = thread::spawn(move || while pipe.write_all(b"x").is_ok() {});
    signal::kill(Pid::from_raw(pid.parse().unwrap()), signal::Signal::SIGKILL).unwrap();
    let (record, _) = shim.finish();
    assert_eq!((record.reason.as_str(), record.signal), ("signaled", Some(9)));
    stranger.join().unwrap();
}

#[test]
fn over_the_limit_there_is_a_gap() {
    let limited = proto::Command {
        output_limit_bytes: 100_000,
        ..shell("head -c 300000 /dev/zero; echo err >&2; sleep 0.01; echo end")
    };
    let (record, output) = Shim::run(limited);
    let kept = output.stdout.data.len() + output.stderr.data.len();
    assert_eq!(kept, 100_000);
    let all = pki::sha256(&[vec![0; 300_000], b"end\n".to_vec()].concat());
    let totals = record.stdout.unwrap();
    assert_eq!((totals.bytes, totals.sha256), (300_004, all.to_vec()));
    assert_eq!(output.stdout.data.len() as u64 + output.stdout.gap, 300_004);
}

#[test]
fn a_description_that_is_cut_off_starts_nothing() {
    let folder = tempfile::tempdir().unwrap();
    Lock::make(folder.path()).unwrap();
    let mut process = spawn(folder.path());
    let bytes = spec(shell("touch started")).encode_framed();
    process.stdin.take().unwrap().write_all(&bytes[..bytes.len() - 1]).unwrap();
    let mut said = String::new();
    process.stdout.take().unwrap().read_to_string(&mut said).unwrap();
    assert!(said.contains("not readable"), "{said}");
    assert!(!process.wait().unwrap().success());
    assert!(record::read(folder.path()).unwrap().is_none());
}

#[test]
fn where_no_lock_was_made_nothing_starts() {
    let folder = tempfile::tempdir().unwrap();
    let mut process = spawn(folder.path());
    // It may be gone already.
    let _ = spec(shell("true")).write(process.stdin.take().unwrap());
    let mut said = String::new();
    process.stdout.take().unwrap().read_to_string(&mut said).unwrap();
    assert!(said.contains("lock cannot be taken"), "{said}");
    assert!(!process.wait().unwrap().success());
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "as in one that is being removed");
}

#[test]
fn a_shim_whose_folder_is_gone_leaves_no_control_group() {
    let mut shim = Shim::start(&spec(shell("echo; exec sleep 1000")));
    let folder = shim.folder.path().to_owned();
    wait_for("output", || !Output::read(&folder).stdout.data.is_empty());
    let Ok(note) = std::fs::read_to_string(folder.join(shim::CGROUP_FILE_NAME)) else {
        eprintln!("SKIPPED: this host gives no control groups");
        return;
    };
    assert!(note.lines().all(|group| Path::new(group).exists()), "{note}");
    std::fs::remove_dir_all(&folder).unwrap();
    let pid = Pid::from_raw(shim.process.id().try_into().unwrap());
    signal::kill(pid, signal::Signal::SIGTERM).unwrap();
    assert!(!shim.process.wait().unwrap().success(), "it could record nothing");
    assert!(!note.lines().any(|group| Path::new(group).exists()), "{note}");
}

/// Outside of a group that somebody can find again nothing would limit the run, or end what is left of it.
#[test]
fn a_control_group_that_cannot_be_noted_starts_nothing() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join(shim::CGROUP_FILE_NAME)).unwrap();
    let limits = proto::Limits { pids: 100, ..proto::Limits::default() };
    let ordered = spec(proto::Command { limits: Some(limits), ..shell("echo ran") });
    let (record, output) = Shim::start_in(folder, &ordered).finish();
    if record.reason == Reason::SandboxUnavailable.as_str() {
        eprintln!("SKIPPED: this host gives no control groups");
        return;
    }
    assert_eq!(record.reason, Reason::SpawnFailed.as_str(), "{record:?}");
    assert!(record.detail.contains("cannot be noted"), "{record:?}");
    assert_eq!(output.text(), "");
    let name = ordered.attempt_name();
    let left = std::fs::read_dir("/sys/fs/cgroup").unwrap().flatten();
    let left = left.map(|entry| entry.path().join(format!("opsconductor-{name}"))).find(|path| path.exists());
    assert_eq!(left, None);
}
