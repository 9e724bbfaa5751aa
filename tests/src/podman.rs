//! A container engine of a test's own: podman as a service, with an image of nothing but busybox that is made from scratch.

mod between;

use std::{
    os::unix::{fs::PermissionsExt, net::UnixStream},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::{
        LazyLock,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use tempfile::TempDir;

pub use self::between::{Between, Does};
use crate::{SOON, process, scene::skipped};

/// The image that each has: a shell, and some of busybox.
pub const IMAGE: &str = "localhost/opsconductor-test:1";
/// The same, with a volume.
pub const IMAGE_WITH_VOLUME: &str = "localhost/opsconductor-test-volume:1";
/// A line of settings for an engine that filters no system calls.
pub const WITHOUT_FILTER: &str = "seccomp_profile = \"unconfined\"\n";
/// What podman needs where there is no systemd; a hard limit of open files that nobody may raise; and locks in files, where by
/// default all engines of a user share theirs, so that one that is held still would hold the others.
const SETTINGS: &str = "default_ulimits = [\"nofile=1024:1024\", \"nproc=4096:4096\"]\n\
                        [engine]\nruntime = \"runc\"\ncgroup_manager = \"cgroupfs\"\nevents_logger = \"file\"\n\
                        lock_type = \"file\"\n";

/// What of busybox the images have.
const APPLETS: [&str; 16] = [
    "cat", "dd", "echo", "env", "grep", "head", "id", "ip", "ls", "mount", "sh", "sleep", "tail", "touch",
    "unshare", "yes",
];

/// A container engine, which ends with the test that uses it.
#[derive(Debug)]
pub struct Podman {
    folder: TempDir,
    service: Option<Child>,
    /// How many were between somebody and it.
    others: AtomicU32,
}

impl Podman {
    /// An engine; none, said loudly, where podman is not installed or not for us. Where CI says so it is a must.
    pub fn start() -> Option<Self> {
        Self::start_with("")
    }

    /// The same, with these lines in the part of its settings that is about containers.
    pub fn start_with(settings: &str) -> Option<Self> {
        static MISSING: LazyLock<Option<String>> = LazyLock::new(|| {
            if !nix::unistd::geteuid().is_root() {
                return Some("only root's podman is tried here".to_owned());
            }
            let lacks = |program: &&str| {
                !std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())
                    .any(|folder| folder.join(program).exists())
            };
            let missing: Vec<&str> = ["podman", "runc", "busybox"].into_iter().filter(lacks).collect();
            (!missing.is_empty()).then(|| format!("not installed: {}", missing.join(", ")))
        });
        if let Some(missing) = MISSING.as_ref() {
            assert!(std::env::var_os("CI").is_none(), "{missing}");
            skipped(&format!("no container was tried: {missing}"));
            return None;
        }
        Some(Self::start_installed(settings))
    }

    fn start_installed(settings: &str) -> Self {
        let folder = tempfile::tempdir().expect("a test's machine gives that");
        let settings = format!("[containers]\n{settings}{SETTINGS}");
        std::fs::write(folder.path().join("containers.conf"), settings).expect("a test's machine gives that");
        let image = folder.path().join("image");
        for made in ["bin", "tmp", "etc", "proc"] {
            std::fs::create_dir_all(image.join(made)).expect("a test's machine gives that");
        }
        std::fs::set_permissions(image.join("tmp"), PermissionsExt::from_mode(0o1777))
            .expect("a test's machine gives that");
        std::fs::copy("/bin/busybox", image.join("bin/busybox")).expect("a test's machine gives that");
        for applet in APPLETS {
            std::os::unix::fs::symlink("busybox", image.join("bin").join(applet))
                .expect("a test's machine gives that");
        }
        let mut engine = Self { service: None, folder, others: AtomicU32::new(0) };
        engine.import(IMAGE, &[]);
        let service = engine
            .command()
            .args(["system", "service", "--time", "0"])
            .arg(format!("unix://{}", engine.socket().display()))
            .stderr(Stdio::null())
            .spawn();
        engine.service = Some(service.expect("podman starts"));
        let begun = Instant::now();
        while UnixStream::connect(engine.socket()).is_err() {
            assert!(begun.elapsed() < SOON, "not within {SOON:?}: podman listens");
            std::thread::sleep(Duration::from_millis(2));
        }
        engine
    }

    /// Makes the image of [`IMAGE_WITH_VOLUME`].
    pub fn make_image_with_volume(&self) {
        self.import(IMAGE_WITH_VOLUME, &["--change", "VOLUME /data"]);
    }

    fn import(&self, name: &str, changes: &[&str]) {
        let mut packed = Command::new("tar")
            .arg("-C")
            .arg(self.folder.path().join("image"))
            .args(["-c", "."])
            .stdout(Stdio::piped())
            .spawn()
            .expect("a test's machine gives that");
        let archive = packed.stdout.take().expect("a test's machine gives that").into();
        let imported = self.podman(&[&["import"], changes, &["-", name]].concat(), archive);
        packed.wait().expect("a test's machine gives that");
        assert!(!imported.is_empty());
    }

    /// Holds the engine still, as one that hangs: who calls it is connected and hears nothing. What it has started runs on.
    pub fn pause(&self) {
        process::signal(self.pid(), Signal::SIGSTOP);
    }

    /// It goes on, with all that it was asked meanwhile.
    pub fn resume(&self) {
        process::signal(self.pid(), Signal::SIGCONT);
    }

    fn pid(&self) -> u32 {
        self.service.as_ref().expect("it was started").id()
    }

    /// Somebody who stands between a client and the engine, and does this.
    pub fn between(&self, does: Does) -> Between {
        let number = self.others.fetch_add(1, Ordering::Relaxed);
        Between::start(self.folder.path().join(format!("between-{number}.sock")), self.socket(), does)
    }

    /// Makes a container that nobody of ours has made.
    pub fn make_strange(&self, name: &str, labels: &[&str]) {
        let labels = labels.iter().flat_map(|label| ["--label", label]);
        let words: Vec<&str> =
            ["create", "--name", name].into_iter().chain(labels).chain([IMAGE, "true"]).collect();
        self.podman(&words, Stdio::null());
    }

    /// Where it answers.
    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("engine.sock")
    }

    fn command(&self) -> Command {
        let in_folder = |name: &str| self.folder.path().join(name);
        let mut command = Command::new("podman");
        command
            .env("CONTAINERS_CONF", in_folder("containers.conf"))
            .env("TMPDIR", in_folder(""))
            .arg("--root")
            .arg(in_folder("root"))
            .arg("--runroot")
            .arg(in_folder("run"))
            .arg("--tmpdir")
            .arg(in_folder("state"))
            // Its helper leaves notes where it was started.
            .current_dir(self.folder.path())
            .stdin(Stdio::null());
        command
    }

    /// What podman says, asked without the service.
    fn podman(&self, words: &[&str], stdin: Stdio) -> String {
        let asked = self.command().args(words).stdin(stdin).output().expect("a test's machine gives that");
        assert!(asked.status.success(), "{words:?}: {}", String::from_utf8_lossy(&asked.stderr));
        String::from_utf8(asked.stdout).expect("a test's machine gives that")
    }

    /// The containers that there are, running or not.
    pub fn containers(&self) -> String {
        self.podman(&["ps", "--all", "--noheading", "--format", "{{.Names}}"], Stdio::null())
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        if let Some(service) = &mut self.service {
            let _ = service.kill();
            let _ = service.wait();
        }
        let _ = self
            .command()
            .args(["system", "reset", "--force"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        // What is mounted there would keep the folder.
        let mounted = self.folder.path().join("root/overlay");
        let _ = Command::new("umount").arg(mounted).stderr(Stdio::null()).status();
    }
}
