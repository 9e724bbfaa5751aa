//! Runs in containers, by a real engine.

mod confined;
mod silent;

use std::{io::Write as _, os::unix::fs::PermissionsExt, path::Path, sync::RwLockReadGuard};

use model::Reason;
use opsconductor_agent::shim::{container::note, control, spec::Spec};
use opsconductor_tests::podman::{IMAGE, Podman};

use crate::{
    one_shim::{Output, Shim, argv, command, share_host, shell, spec, wait_for},
    world::World,
};

/// The engine of one test. It takes seconds for what others do in milliseconds, and so has a host that nothing takes all of.
struct Engine(Podman, #[expect(dead_code, reason = "held")] RwLockReadGuard<'static, ()>);

fn engine() -> Option<Engine> {
    engine_with("")
}

fn engine_with(settings: &str) -> Option<Engine> {
    let host = share_host();
    Podman::start_with(settings).map(|podman| Engine(podman, host))
}

impl Engine {
    /// The order with this engine.
    fn spec(&self, mut ordered: proto::Command) -> Spec {
        if ordered.image.is_empty() {
            IMAGE.clone_into(&mut ordered.image);
        }
        let mut spec = spec(ordered);
        (spec.first_uid, spec.last_uid) = model::limits::DYNAMIC_UIDS;
        spec.engine = self.0.socket().display().to_string();
        spec
    }

    /// Runs it to its end; there is nothing of it at the engine then.
    fn run(&self, ordered: proto::Command) -> (proto::ExitRecord, Output) {
        self.finish(Shim::start(&self.spec(ordered)))
    }

    fn finish(&self, mut shim: Shim) -> (proto::ExitRecord, Output) {
        shim.process.wait().unwrap();
        let left = ["container", "script", "seccomp.json"].map(|name| shim.folder.path().join(name));
        let left: Vec<_> = left.into_iter().filter(|file| file.exists()).collect();
        let (record, output) = shim.finish();
        assert!(left.is_empty(), "{left:?}: {record:?}");
        assert_eq!(self.0.containers(), "", "{record:?}");
        (record, output)
    }
}

/// Without a network, which the engine would need time and rules of the host's for.
fn alone(mut ordered: proto::Command) -> proto::Command {
    ordered.profile = proto::Profile::Isolated.into();
    ordered
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The shim that has this folder.
fn shim_of(folder: &Path) -> nix::unistd::Pid {
    let found = std::fs::read_dir("/proc").unwrap().flatten().find_map(|entry| {
        let words = std::fs::read(entry.path().join("cmdline")).ok()?;
        let is_it = text(&words).contains(&folder.display().to_string()) && text(&words).contains("\0shim\0");
        is_it.then(|| entry.file_name().to_str()?.parse().ok()).flatten()
    });
    nix::unistd::Pid::from_raw(found.expect("the shim"))
}

fn says_up(folder: &Path) {
    wait_for("the container is up", || !Output::read(folder).stdout.data.is_empty());
}

#[test]
fn both_streams_the_code_and_nothing_left() {
    let Some(engine) = engine() else { return };
    let (record, output) = engine.run(alone(shell("echo out; echo err >&2; exit 3")));
    assert_eq!((record.reason.as_str(), record.exit_code), ("exited", Some(3)), "{record:?}");
    assert_eq!(
        (text(&output.stdout.data), text(&output.stderr.data)),
        ("out\n".to_owned(), "err\n".to_owned())
    );
    assert!(record.started_at > 0 && record.ended_at >= record.started_at);
    let (record, output) = engine.run(alone(argv(&["echo", "a b", "$HOME"])));
    assert_eq!((record.exit_code, output.text()), (Some(0), "a b $HOME\n"), "{record:?}");
    let script = proto::Script {
        content: "#!/bin/sh -e\necho \"$1 $-\"\nfalse\necho no".to_owned(),
        interpreter: String::new(),
        args: vec!["x y".to_owned()],
    };
    let (record, output) = engine.run(alone(command(proto::command::Program::Script(script))));
    assert_eq!(record.exit_code, Some(1), "{record:?}");
    assert!(output.text().starts_with("x y e"), "{}", output.text());
}

#[test]
fn ten_megabytes_arrive_whole_and_are_kept_by_nobody_else() {
    let Some(engine) = engine() else { return };
    // The hash is compared with that of the segment wherever a shim is waited for.
    let (record, output) = engine.run(alone(shell("head -c 10000000 /dev/urandom; echo end >&2")));
    assert_eq!(record.exit_code, Some(0), "{record:?}");
    assert_eq!(record.stdout.as_ref().unwrap().bytes, 10_000_000);
    assert_eq!((output.stdout.data.len(), output.stderr.data.as_slice()), (10_000_000, &b"end\n"[..]));
    let mut limited = alone(shell("yes"));
    (limited.output_limit_bytes, limited.halt_at_output_limit) = (100_000, true);
    let (record, _) = engine.run(limited);
    assert_eq!(record.reason, Reason::OutputLimit.as_str(), "{record:?}");
    assert_eq!(record.stdout.as_ref().unwrap().stored, 100_000);
}

#[test]
fn a_cancel_and_a_timeout_end_even_what_ignores_them() {
    let Some(engine) = engine() else { return };
    let polite = "trap 'echo asked; exit 5' TERM; echo up; while :; do sleep 1; done";
    let deaf = "trap '' TERM; echo up; while :; do sleep 1; done";
    for (line, killed) in [(polite, false), (deaf, true)] {
        let mut ordered = engine.spec(alone(shell(line)));
        ordered.kill_grace_ms = if killed { 300 } else { 60_000 };
        let shim = Shim::start(&ordered);
        says_up(shim.folder.path());
        let mut agent = shim.connect();
        agent.write_all(&[control::ToShim::Cancel.byte()]).unwrap();
        let (record, output) = engine.finish(shim);
        assert_eq!(record.reason, Reason::Cancelled.as_str(), "{record:?}");
        assert_eq!(record.detail.contains("was killed"), killed, "{record:?}");
        assert_eq!(output.text().contains("asked"), !killed, "{}", output.text());
    }
    let (record, _) = engine.run(proto::Command { timeout_ms: 8000, ..alone(shell(deaf)) });
    assert_eq!(record.reason, Reason::TimeLimit.as_str(), "{record:?}");
    assert!(record.detail.contains("was killed"), "{record:?}");
}

#[test]
fn limits_hold() {
    let Some(engine) = engine() else { return };
    let limits = proto::Limits { memory_bytes: 32 << 20, pids: 16, cpu_percent: 50, ..Default::default() };
    let limited = |line: &str| proto::Command { limits: Some(limits), ..alone(shell(line)) };
    let (record, _) = engine.run(limited("dd if=/dev/zero of=/tmp/big bs=1048576 count=200; exit 0"));
    assert_eq!(
        record.exit_code,
        Some(0),
        "a temporary folder in memory counts, and dd is not all of it: {record:?}"
    );
    let (record, _) = engine.run(limited("sleep 1; exec dd if=/dev/zero of=/dev/null bs=209715200 count=1"));
    assert_eq!(record.reason, Reason::MemoryLimit.as_str(), "{record:?}");
    assert!(record.out_of_memory);
    let fork = "i=0; while [ $i -lt 40 ]; do sleep 20 & i=$((i+1)); done; exit 1";
    let (record, output) = engine.run(limited(fork));
    assert_eq!(record.reason, Reason::PidsLimit.as_str(), "{record:?}");
    assert!(text(&output.stderr.data).contains("fork"), "{record:?} {}", text(&output.stderr.data));
}

#[test]
fn what_it_took_is_counted() {
    let Some(engine) = engine() else { return };
    let line = "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done; sleep 0 & sleep 0 & wait";
    let busy = "dd if=/dev/zero of=/dev/null bs=33554432 count=8 2>/dev/null";
    for line in [format!("{line}; {busy}"), format!("{busy}; exec >/dev/null 2>&1; {line}")] {
        let (record, _) = engine.run(alone(shell(&line)));
        assert_eq!(record.exit_code, Some(0), "{record:?}");
        let took = record.ended_at - record.started_at;
        let cpu = record.cpu_user_us + record.cpu_system_us;
        assert!(cpu > 20_000 && cpu < u64::try_from(took).unwrap() * 16, "{line}: {record:?}");
        // What dd has in its hands.
        assert!(record.peak_memory_bytes > 32 << 20 && record.peak_memory_bytes < 512 << 20, "{record:?}");
        assert!(!record.out_of_memory);
        assert!((3..100).contains(&record.peak_pids), "{record:?}");
    }
    // One that is over at once.
    let (record, _) = engine.run(alone(argv(&["echo", "short"])));
    assert!(record.cpu_user_us + record.cpu_system_us > 0 && record.peak_memory_bytes > 0, "{record:?}");
}

#[test]
fn a_container_is_nobody_alone_and_can_become_nobody_else() {
    let Some(engine) = engine() else { return };
    let look = "id -u; grep -E '^(Cap(Eff|Bnd)|NoNewPrivs|Seccomp):' /proc/self/status; ls /sys/class/net; \
                touch /no 2>/dev/null && echo written; touch /tmp/t && echo temporary; echo pids $(ls /proc | grep -c '^[0-9]')";
    let (record, output) = engine.run(alone(shell(look)));
    let said = output.text();
    assert_eq!(record.exit_code, Some(0), "{record:?} {said}");
    let uid: u32 = said.lines().next().unwrap().parse().unwrap();
    let (first, last) = model::limits::DYNAMIC_UIDS;
    assert!((first..=last).contains(&uid), "{said}");
    for line in [
        "CapEff:\t0000000000000000",
        "CapBnd:\t0000000000000000",
        "NoNewPrivs:\t1",
        "Seccomp:\t2",
        "temporary",
    ] {
        assert!(said.contains(line), "{line}: {said}");
    }
    assert!(!said.contains("written") && !said.contains("eth0"), "{said}");
    // The engine makes a working folder that the image does not have.
    let elsewhere = proto::Command { cwd: "/no/such".to_owned(), ..alone(shell("echo $PWD")) };
    assert_eq!(engine.run(elsewhere).1.text(), "/no/such\n");
    // A user of the host, and the image's own where nothing confines it.
    let named = proto::Command { user: "nobody".to_owned(), ..alone(shell("id -u")) };
    let nobody = nix::unistd::User::from_name("nobody").unwrap().unwrap().uid;
    assert_eq!(engine.run(named).1.text(), format!("{nobody}\n"));
    let (record, _) = engine.run(proto::Command { user: "root".to_owned(), ..alone(shell("id -u")) });
    assert_eq!(record.reason, Reason::SandboxUnavailable.as_str(), "{record:?}");
}

#[test]
fn the_network_is_there_unless_it_is_isolated() {
    let Some(engine) = engine() else { return };
    for (profile, has) in [(proto::Profile::Standard, true), (proto::Profile::Isolated, false)] {
        let (record, output) = engine.run(proto::Command {
            profile: profile.into(),
            ..shell("ls /sys/class/net; touch /yes && echo written")
        });
        assert_eq!(output.text().contains("eth0"), has, "{profile:?}: {record:?} {}", output.text());
    }
}

#[test]
fn variables_are_for_the_program_only() {
    let Some(engine) = engine() else { return };
    let secret = "c0ffee-secret";
    let mut ordered = engine.spec(alone(shell("env; echo up; sleep 1000")));
    ordered.environment.insert("TOKEN".to_owned(), secret.to_owned());
    let shim = Shim::start(&ordered);
    let folder = shim.folder.path().to_owned();
    wait_for("the container is up", || Output::read(&folder).text().ends_with("up\n"));
    assert!(Output::read(&folder).text().contains(&format!("TOKEN={secret}\n")));
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let words = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        assert!(!text(&words).contains(secret), "{}", text(&words));
    }
    let mut agent = shim.connect();
    agent.write_all(&[control::ToShim::Cancel.byte()]).unwrap();
    let (record, _) = engine.finish(shim);
    assert_eq!(record.reason, Reason::Cancelled.as_str(), "{record:?}");
}

#[test]
fn folders_are_bound_by_name() {
    let Some(engine) = engine() else { return };
    let base = tempfile::tempdir().unwrap();
    let base = base.path().canonicalize().unwrap();
    for name in ["in", "out", "hidden"] {
        std::fs::create_dir(base.join(name)).unwrap();
        std::fs::set_permissions(base.join(name), PermissionsExt::from_mode(0o777)).unwrap();
    }
    std::fs::set_permissions(&base, PermissionsExt::from_mode(0o755)).unwrap();
    std::fs::write(base.join("in/file"), "content").unwrap();
    let named = |name: &str| base.join(name).display().to_string();
    let line = format!(
        "cat {i}/file; touch {i}/no 2>/dev/null; touch {o}/yes; ls {b}",
        i = named("in"),
        o = named("out"),
        b = base.display()
    );
    let (record, output) = engine.run(proto::Command {
        read: vec![named("in")],
        write: vec![named("out")],
        ..alone(shell(&line))
    });
    assert_eq!((record.exit_code, output.text()), (Some(0), "contentin\nout\n"), "{record:?}");
    assert!(base.join("out/yes").exists() && !base.join("in/no").exists());
    for refused in [named("hidden"), base.display().to_string(), "/proc".to_owned()] {
        let mut spec = engine.spec(proto::Command { read: vec![refused.clone()], ..alone(shell("true")) });
        spec.hidden = vec![named("hidden")];
        let (record, _) = engine.finish(Shim::start(&spec));
        assert_eq!(record.reason, Reason::SandboxUnavailable.as_str(), "{refused}: {record:?}");
        assert!(record.detail.contains(&refused), "{record:?}");
    }
}

#[test]
fn what_is_missing_is_named() {
    let Some(engine) = engine() else { return };
    let (record, _) =
        engine.run(proto::Command { image: "localhost/no-such:1".to_owned(), ..alone(shell("true")) });
    assert_eq!((record.reason.as_str(), record.started_at), ("sandbox_unavailable", 0), "{record:?}");
    assert!(
        record.detail.contains("localhost/no-such:1") && record.detail.contains("not fetched"),
        "{record:?}"
    );
    let (record, output) = engine.run(alone(argv(&["no-such-program"])));
    assert!(record.exit_code != Some(0), "{record:?} {}", text(&output.stderr.data));
}

#[test]
fn without_an_engine_it_is_said_where_one_was_looked_for() {
    let mut ordered = spec(proto::Command { image: IMAGE.to_owned(), ..shell("true") });
    ordered.engine = "/no/such/engine.sock".to_owned();
    let (record, _) = Shim::start(&ordered).finish();
    assert_eq!((record.reason.as_str(), record.started_at), ("sandbox_unavailable", 0), "{record:?}");
    assert!(record.detail.contains("/no/such/engine.sock"), "{record:?}");
    // A socket behind which nobody is.
    let folder = tempfile::tempdir().unwrap();
    let dead = folder.path().join("dead.sock");
    drop(std::os::unix::net::UnixListener::bind(&dead).unwrap());
    ordered.engine = dead.display().to_string();
    let (record, _) = Shim::start(&ordered).finish();
    assert_eq!(record.reason, "sandbox_unavailable", "{record:?}");
    assert!(record.detail.contains("dead.sock"), "{record:?}");
}

#[test]
fn a_container_outlives_its_shim_only_until_it_is_looked_for() {
    let Some(engine) = engine() else { return };
    let ordered = engine.spec(alone(shell("echo up; sleep 1000")));
    let name = ordered.attempt_name();
    let mut shim = Shim::start(&ordered);
    says_up(shim.folder.path());
    shim.process.kill().unwrap();
    shim.process.wait().unwrap();
    assert_eq!(engine.0.containers(), format!("opsconductor-{name}\n"), "the control: it was left behind");
    note::remove_noted(shim.folder.path(), &name).unwrap();
    assert_eq!(engine.0.containers(), "");
    // Again, and where there never was one.
    note::remove_noted(shim.folder.path(), &name).unwrap();
}

/// The same by the executor: it finds that the owner is gone, tells it, and leaves nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_whose_shim_was_killed_is_lost_and_its_container_gone() {
    let Some(engine) = engine() else { return };
    let world = World::new();
    let policy = format!("[sandbox]\ncontainers = true\nengine = '{}'\n", engine.0.socket().display());
    std::fs::write(world.policy(), policy).unwrap();
    let mut agent = world.start(1, false).await;
    let key = crate::world::new_key();
    let ordered =
        proto::Command { image: IMAGE.to_owned(), ..alone(crate::world::command("echo up; sleep 1000")) };
    let order = world.order(&agent, key, ordered);
    agent.to_executor.send(world.sign(&order)).await.unwrap();
    agent.started().await;
    assert!(engine.0.containers().contains(&key.run_id.to_string()));
    let shim = shim_of(&world.folder(key));
    nix::sys::signal::kill(shim, nix::sys::signal::Signal::SIGKILL).unwrap();
    assert_eq!(agent.loss().await.0, Reason::ShimLost.as_str());
    assert_eq!(engine.0.containers(), "");
    agent.stop().await;
}

/// Somebody on the host swaps a folder for a link to another, as fast as he can, while containers with it are made.
#[test]
fn a_folder_that_others_can_swap_is_not_given_and_one_that_they_cannot_stays() {
    let Some(engine) = engine() else { return };
    let base = tempfile::tempdir().unwrap();
    let base = base.path().canonicalize().unwrap();
    std::fs::set_permissions(&base, PermissionsExt::from_mode(0o755)).unwrap();
    for (parent, owner) in [("theirs", 65_534), ("ours", 0)] {
        for name in ["", "folder", "secret"] {
            std::fs::create_dir_all(base.join(parent).join(name)).unwrap();
        }
        std::fs::write(base.join(parent).join("folder/what"), "wanted").unwrap();
        std::fs::write(base.join(parent).join("secret/what"), "secret").unwrap();
        std::os::unix::fs::chown(base.join(parent), Some(owner), Some(owner)).unwrap();
    }
    let swap = "while :; do mv -T folder aside && ln -s secret folder && mv -T folder link && mv -T aside folder \
                && echo; done 2>/dev/null; ";
    let swaps = |parent: &str| {
        std::process::Command::new("setpriv")
            .args(["--reuid=65534", "--regid=65534", "--clear-groups", "sh", "-c", swap])
            .current_dir(base.join(parent))
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap()
    };
    for (parent, is_given) in [("theirs", false), ("ours", true)] {
        let mut swapper = swaps(parent);
        if !is_given {
            // The control: here it does swap.
            let mut swapped = [0; 1];
            std::io::Read::read_exact(swapper.stdout.as_mut().unwrap(), &mut swapped).unwrap();
        }
        let folder = base.join(parent).join("folder").display().to_string();
        for _ in 0..3 {
            let line = format!("cat {folder}/what");
            let (record, output) =
                engine.run(proto::Command { read: vec![folder.clone()], ..alone(shell(&line)) });
            if is_given {
                assert_eq!((record.exit_code, output.text()), (Some(0), "wanted"), "{record:?}");
            } else {
                assert_eq!(record.reason, Reason::SandboxUnavailable.as_str(), "{record:?}");
                assert!(record.detail.contains(&folder), "{record:?}");
            }
        }
        swapper.kill().unwrap();
        swapper.wait().unwrap();
    }
}
