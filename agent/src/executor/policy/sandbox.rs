//! What the host's policy says of the sandbox: which profiles, folders and limits runs may have.

use std::{
    num::NonZeroU64,
    path::{Path, PathBuf},
};

use model::{limits, sandbox::Profile};
use serde::{Deserialize, Serialize};

use super::{AbsolutePath, Forbidden, resolved};

/// The table `[sandbox]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Sandbox {
    /// The profile of runs that name none.
    pub default: Profile,
    /// What may run without confinement, as whoever the agent is.
    pub unconfined: Unconfined,
    /// May runs ask the host's container engine for a container? Whoever may, may in the end do what the engine may.
    pub containers: bool,
    /// The socket of the container engine; by default one of the places where it usually is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub engine: Option<AbsolutePath>,
    /// The images of which there may be containers, as orders name them; by default all, or none where commands are listed: a
    /// listed program is another one in an image that has a file of that name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub images: Option<Vec<String>>,
    /// The folders in or below which lies what runs may name to read; by default everywhere that their user may.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub readable: Option<Vec<AbsolutePath>>,
    /// The same for what they may name to write.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub writable: Option<Vec<AbsolutePath>>,
    /// The most that a run may take; a higher limit of a run is lowered to it, and one that names none gets it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_memory_bytes: Option<NonZeroU64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_pids: Option<NonZeroU64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_cpu_percent: Option<NonZeroU64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_io_bytes_per_second: Option<NonZeroU64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_open_files: Option<NonZeroU64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_file_bytes: Option<NonZeroU64>,
    /// The first and the last number of the users that exist for one run only.
    pub uids: (u32, u32),
}

/// What may run without confinement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unconfined {
    Never,
    /// Jobs that have a name, and no commands that somebody types.
    Jobs,
    All,
}

impl Default for Sandbox {
    fn default() -> Self {
        Self {
            default: Profile::Standard,
            unconfined: Unconfined::Jobs,
            containers: false,
            engine: None,
            images: None,
            readable: None,
            writable: None,
            max_memory_bytes: None,
            max_pids: None,
            max_cpu_percent: None,
            max_io_bytes_per_second: None,
            max_open_files: None,
            max_file_bytes: None,
            uids: limits::DYNAMIC_UIDS,
        }
    }
}

impl Sandbox {
    /// Gives the command the profile and the limits that hold, and the folders that were looked at. Answers the profile.
    /// `lists_commands` says whether the policy lists the commands that may run.
    ///
    /// # Errors
    /// The first rule that says no.
    pub(super) fn apply(
        &self,
        command: &mut proto::Command,
        lists_commands: bool,
    ) -> Result<Profile, Forbidden> {
        self.check_image(&command.image, lists_commands)?;
        let wanted = proto::Profile::try_from(command.profile).map_err(|_| Forbidden::UnknownProfile)?;
        let profile = wanted.named().unwrap_or(self.default);
        // So far every execution is of an unnamed job.
        if profile == Profile::None && self.unconfined != Unconfined::All {
            return Err(Forbidden::Unconfined { what: "commands outside of a job" });
        }
        command.profile = proto::Profile::from(profile).into();
        for folder in &mut command.read {
            *folder = within(self.readable.as_deref(), folder, "read", "sandbox.readable")?;
        }
        for folder in &mut command.write {
            *folder = within(self.writable.as_deref(), folder, "write", "sandbox.writable")?;
        }
        let limits = command.limits.get_or_insert_default();
        for (limit, most) in [
            (&mut limits.memory_bytes, self.max_memory_bytes),
            (&mut limits.pids, self.max_pids),
            (&mut limits.cpu_percent, self.max_cpu_percent),
            (&mut limits.io_bytes_per_second, self.max_io_bytes_per_second),
            (&mut limits.open_files, self.max_open_files),
            (&mut limits.file_bytes, self.max_file_bytes),
        ] {
            if let Some(most) = most.map(NonZeroU64::get) {
                *limit = if *limit == 0 { most } else { most.min(*limit) };
            }
        }
        Ok(profile)
    }

    fn check_image(&self, image: &str, lists_commands: bool) -> Result<(), Forbidden> {
        if image.is_empty() {
            return Ok(());
        }
        if !self.containers {
            return Err(Forbidden::Containers);
        }
        let is_allowed = match &self.images {
            Some(images) => images.iter().any(|one| one == image),
            None => !lists_commands,
        };
        if is_allowed { Ok(()) } else { Err(Forbidden::Image(image.to_owned())) }
    }

    /// The socket of the engine that is named; nothing when none is.
    pub(in crate::executor) fn engine_socket(&self) -> String {
        self.engine.as_ref().and_then(|socket| socket.0.to_str()).unwrap_or_default().to_owned()
    }
}

/// The folder without symbolic links, if it is one of the roots or below one. The shim opens it without following any, and so
/// it has to be there: of one that cannot be looked up nobody knows where it will be.
fn within(
    roots: Option<&[AbsolutePath]>,
    folder: &str,
    what: &'static str,
    rule: &'static str,
) -> Result<String, Forbidden> {
    let real = resolved(folder).map_err(|why| Forbidden::NoFolder { what, folder: folder.into(), why })?;
    let no = || Forbidden::Folder { what, folder: PathBuf::from(folder), rule };
    if Path::new(&real).parent().is_none() {
        return Err(no());
    }
    if let Some(roots) = roots {
        let mut roots = roots.iter().filter_map(|root| std::fs::canonicalize(&root.0).ok());
        if !roots.any(|root| Path::new(&real).starts_with(root)) {
            return Err(no());
        }
    }
    Ok(real)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sandbox(text: &str) -> Sandbox {
        toml::from_str(text).unwrap()
    }

    fn asks(profile: proto::Profile) -> proto::Command {
        proto::Command { profile: profile.into(), ..proto::Command::default() }
    }

    #[test]
    fn without_confinement_only_where_it_is_allowed() {
        let none = || asks(proto::Profile::None);
        assert_eq!(sandbox("").apply(&mut asks(proto::Profile::HostDefault), false), Ok(Profile::Standard));
        for refused in ["", "unconfined = 'never'", "unconfined = 'jobs'"] {
            let denied = sandbox(refused).apply(&mut none(), false).unwrap_err();
            assert!(denied.to_string().contains("sandbox.unconfined"), "{denied}");
        }
        assert_eq!(sandbox("unconfined = 'all'").apply(&mut none(), false), Ok(Profile::None));
        let mut strict = asks(proto::Profile::HostDefault);
        assert_eq!(sandbox("default = 'strict'").apply(&mut strict, false), Ok(Profile::Strict));
        assert_eq!(strict.profile(), proto::Profile::Strict);
        let mut unknown = proto::Command { profile: 77, ..proto::Command::default() };
        assert_eq!(sandbox("").apply(&mut unknown, false), Err(Forbidden::UnknownProfile));
    }

    #[test]
    fn limits_are_lowered_and_never_raised() {
        let capped = |pids| {
            let limits = Some(proto::Limits { pids, ..proto::Limits::default() });
            let mut command = proto::Command { limits, ..proto::Command::default() };
            sandbox("max_pids = 100").apply(&mut command, false).unwrap();
            command.limits.unwrap().pids
        };
        assert_eq!([0, 99, 101].map(capped), [100, 99, 100]);
        // It would be none at all.
        assert!(toml::from_str::<Sandbox>("max_pids = 0").is_err());
    }

    #[test]
    fn folders_have_to_lie_below_the_roots_without_links() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        std::fs::create_dir(root.join("in")).unwrap();
        std::os::unix::fs::symlink("/etc", root.join("out")).unwrap();
        let policy = sandbox(&format!("writable = ['{}']", root.display()));
        let write = |name: &str| {
            let write = vec![root.join(name).display().to_string()];
            let mut command = proto::Command { write, ..proto::Command::default() };
            policy.apply(&mut command, false).map(|_| command.write.remove(0))
        };
        assert_eq!(write("in").unwrap(), root.join("in").display().to_string());
        assert!(write("out").unwrap_err().to_string().contains("sandbox.writable"));
        // What is below the root by its letters only, and cannot be looked up.
        for elsewhere in ["no/../../../../etc", "no/../in", "no"] {
            assert!(
                matches!(write(elsewhere), Err(Forbidden::NoFolder { what: "write", .. })),
                "{elsewhere}"
            );
        }
        let relative = sandbox("").apply(
            &mut proto::Command { read: vec!["etc/../etc".to_owned()], ..proto::Command::default() },
            false,
        );
        assert!(relative.unwrap_err().to_string().contains("not an absolute path"));
    }

    #[test]
    fn containers_are_off() {
        let image = || proto::Command { image: "app".to_owned(), ..proto::Command::default() };
        assert_eq!(sandbox("").apply(&mut image(), false), Err(Forbidden::Containers));
        let on = sandbox("containers = true\nengine = '/run/own.sock'");
        assert!(on.apply(&mut image(), false).is_ok());
        assert_eq!(on.engine_socket(), "/run/own.sock");
        // It would be whoever the image says, who may be root.
        let unconfined = proto::Command { profile: proto::Profile::None.into(), ..image() };
        assert!(matches!(on.apply(&mut unconfined.clone(), false), Err(Forbidden::Unconfined { .. })));
        assert!(
            sandbox("containers = true\nunconfined = 'all'").apply(&mut unconfined.clone(), false).is_ok()
        );
        assert!(toml::from_str::<Sandbox>("engine = 'own.sock'").is_err());
    }

    #[test]
    fn images_are_listed_where_commands_are() {
        let on = |more: &str| sandbox(&format!("containers = true\n{more}"));
        let apply = |policy: &Sandbox, image: &str, lists_commands| {
            let mut command = proto::Command { image: image.to_owned(), ..proto::Command::default() };
            policy.apply(&mut command, lists_commands)
        };
        let no = |image: &str| Err(Forbidden::Image(image.to_owned()));
        assert!(apply(&on(""), "app", false).is_ok());
        assert_eq!(apply(&on(""), "app", true), no("app"));
        assert!(apply(&on(""), "", true).is_ok(), "a run on the host is another matter");
        let listed = on("images = ['app', 'local/web:3']");
        for lists_commands in [false, true] {
            assert!(apply(&listed, "local/web:3", lists_commands).is_ok());
            for other in ["local/web", "local/web:4", "web:3", "app:latest"] {
                assert_eq!(apply(&listed, other, lists_commands), no(other));
            }
            assert_eq!(apply(&on("images = []"), "app", lists_commands), no("app"));
            let off = sandbox("images = ['app']");
            assert_eq!(apply(&off, "app", lists_commands), Err(Forbidden::Containers));
        }
    }
}
