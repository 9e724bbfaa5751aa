//! A host with folders of its own in the place of some of the machine's, and with programs that stand in for those that the
//! machine does not have or must not run.

use std::{
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use opsconductor_tests::{Agent, World, scene};

/// The folders that a host has for itself.
const OWN: [&str; 8] =
    ["/etc", "/home", "/run", "/usr/local/sbin", "/var/backups", "/var/log", "/var/mail", "/var/tmp"];

pub(super) struct Host {
    pub(super) name: String,
    folder: PathBuf,
    agent: Agent,
}

impl Host {
    /// A host with a copy of the machine's `/etc`, its other folders empty, whose agent is online.
    pub(super) async fn start(world: &World, name: &str) -> Self {
        let folder = scene::new_folder(&format!("host-{name}"));
        for own in OWN {
            std::fs::create_dir_all(own_path(&folder, own)).expect("the scene's folder can be written");
        }
        let copied = Command::new("cp").args(["-a", "/etc/."]).arg(own_path(&folder, "/etc")).status();
        assert!(copied.expect("there is cp").success());
        let agent = world.agent(name).own_boot().enroll().await;
        let mut host = Self { name: name.to_owned(), folder, agent };
        host.run().await;
        host
    }

    async fn run(&mut self) {
        let mount = |own: &str| format!("mount --bind '{}' {own}", self.path(own).display());
        let mounts = OWN.map(mount).join(" && ");
        let line = format!("{mounts} && exec \"$@\"");
        self.agent.run_through(Path::new("/usr/bin/unshare"), &["--mount", "/bin/sh", "-c", &line, "sh"]);
        self.agent.online().await;
    }

    /// It goes down and comes up again: nothing runs any more, and its boot is another one.
    pub(super) async fn reboot(&mut self) {
        self.agent.stop();
        self.agent.new_boot();
        self.run().await;
    }

    /// Where a path of the host, below one of its own folders, lies on the machine.
    pub(super) fn path(&self, path: &str) -> PathBuf {
        own_path(&self.folder, path)
    }

    pub(super) fn write(&self, path: &str, text: &str) {
        let at = self.path(path);
        std::fs::create_dir_all(at.parent().expect("it lies in a folder")).expect("it can be made");
        std::fs::write(at, text).expect("it can be written");
    }

    pub(super) fn read(&self, path: &str) -> String {
        let at = self.path(path);
        std::fs::read_to_string(&at).unwrap_or_else(|error| panic!("{}: {error}", at.display()))
    }

    pub(super) fn has(&self, path: &str) -> bool {
        self.path(path).exists()
    }

    /// The names in a folder, in their order.
    pub(super) fn list(&self, path: &str) -> Vec<String> {
        let entries = std::fs::read_dir(self.path(path)).expect("it is a folder");
        let name = |entry: std::io::Result<std::fs::DirEntry>| {
            entry.expect("it can be listed").file_name().to_string_lossy().into_owned()
        };
        let mut names: Vec<String> = entries.map(name).collect();
        names.sort();
        names
    }

    /// The host has a program of this name, found before any other: it notes what it is asked and does `body`.
    pub(super) fn program(&self, name: &str, body: &str) {
        let text = format!("#!/bin/sh\necho \"{name} $*\" >>/run/asked\n{body}\n");
        let path = format!("/usr/local/sbin/{name}");
        self.write(&path, &text);
        let executable = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(self.path(&path), executable).expect("it is ours");
    }

    /// What these programs were asked, a line each.
    pub(super) fn asked(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.path("/run/asked")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }
}

fn own_path(folder: &Path, path: &str) -> PathBuf {
    assert!(OWN.iter().any(|own| Path::new(path).starts_with(own)), "{path} is the machine's");
    folder.join(path.trim_start_matches('/'))
}
