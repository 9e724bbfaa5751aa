//! A container engine of a test's own: podman as a service, with an image of nothing but busybox that is made from scratch.

use std::{
    os::unix::{fs::PermissionsExt, net::UnixStream},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::LazyLock,
    time::Instant,
};

use tempfile::TempDir;

use crate::{SOON, scene::skipped};

/// The image that each has: a shell, and some of busybox.
pub const IMAGE: &str = "localhost/opsconductor-test:1";
/// What podman needs where there is no systemd, and a hard limit of open files that nobody may raise.
const SETTINGS: &str = "[containers]\ndefault_ulimits = [\"nofile=1024:1024\", \"nproc=4096:4096\"]\n\
                        [engine]\nruntime = \"runc\"\ncgroup_manager = \"cgroupfs\"\nevents_logger = \"file\"\n";

/// A container engine, which ends with the test that uses it.
#[derive(Debug)]
pub struct Podman {
    folder: TempDir,
    service: Option<Child>,
}

impl Podman {
    /// An engine; none, said loudly, where podman is not installed or not for us. Where CI says so it is a must.
    pub fn start() -> Option<Self> {
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
        Some(Self::start_installed())
    }

    fn start_installed() -> Self {
        let folder = tempfile::tempdir().expect("a test's machine gives that");
        std::fs::write(folder.path().join("containers.conf"), SETTINGS).expect("a test's machine gives that");
        let image = folder.path().join("image");
        for made in ["bin", "tmp", "etc", "proc"] {
            std::fs::create_dir_all(image.join(made)).expect("a test's machine gives that");
        }
        std::fs::set_permissions(image.join("tmp"), PermissionsExt::from_mode(0o1777))
            .expect("a test's machine gives that");
        std::fs::copy("/bin/busybox", image.join("bin/busybox")).expect("a test's machine gives that");
        for applet in
            ["sh", "cat", "ls", "id", "sleep", "head", "dd", "echo", "env", "grep", "touch", "yes", "tail"]
        {
            std::os::unix::fs::symlink("busybox", image.join("bin").join(applet))
                .expect("a test's machine gives that");
        }
        let mut engine = Self { service: None, folder };
        let mut packed = Command::new("tar")
            .arg("-C")
            .arg(&image)
            .args(["-c", "."])
            .stdout(Stdio::piped())
            .spawn()
            .expect("a test's machine gives that");
        let imported = engine.podman(
            &["import", "-", IMAGE],
            packed.stdout.take().expect("a test's machine gives that").into(),
        );
        packed.wait().expect("a test's machine gives that");
        assert!(!imported.is_empty());
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
            std::thread::yield_now();
        }
        engine
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
